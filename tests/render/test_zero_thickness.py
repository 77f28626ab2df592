"""Pictures of fields that are zero on films: sets without a thickness, which are not surfaces."""

from __future__ import annotations

import numpy as np
import pytest

from neuralsdf.csg import box
from neuralsdf.fields.mesh_field import MeshField
from neuralsdf.geometry.similarity_transform import Similarity
from neuralsdf.mesh.signed_distance import SignedDistance
from neuralsdf.render import MeshTracer, render
from neuralsdf.render.camera import Camera
from neuralsdf.render.sphere_tracing import Tracer

from ..helpers import shapes

FILMED = {
    "film": box(1) - box(1, 1, 0.5).translate(0, 0, 0.25),
    "with rounding": (box(1).translate(0.1 + 0.2) - box(1, 1, 0.5).translate(0.3, 0, 0.25)).translate(-0.3),
}


@pytest.mark.parametrize("name", FILMED)
def test_a_film_is_not_drawn_and_casts_no_shadow(name: str) -> None:
    """A zero set without a thickness: the picture is that of the solid without it."""
    solid, filmed = box(1, 1, 0.5).translate(0, 0, -0.25), FILMED[name]
    camera = Camera.orbit(solid.transform)
    expected, picture = (
        render(field, width=96, height=96, camera=camera, antialias=1).rgba.astype(np.int64)
        for field in (solid, filmed)
    )
    difference = np.abs(expected - picture).max(axis=-1)
    assert (difference > 16).mean() < 0.01
    assert difference.mean() < 1


def test_rounding_on_a_film_does_not_stop_rays() -> None:
    field = FILMED["with rounding"].translate(0.3)
    rng = np.random.default_rng(0)
    begin = rng.normal(size=(50_000, 3))
    begin *= 3 / np.linalg.norm(begin, axis=1, keepdims=True)
    towards = rng.uniform(-0.5, 0.5, begin.shape) - begin
    met = Tracer(field).trace(begin, towards / np.linalg.norm(towards, axis=1, keepdims=True))
    assert met.hit.mean() > 0.5
    assert not met.unresolved.any()
    assert field.transform.apply(met.points[met.hit])[:, 2].max() < 1e-3


def test_a_sheet_that_encloses_nothing_is_not_drawn() -> None:
    """A sheet in front of a box: the picture is that of the box, as in `extract`."""
    solid = shapes.box(0.3, 0.3, 0.3)
    vertices, faces = shapes.box(0.5, 0.5, 0.45)
    top = faces[(vertices[faces, 2] > 0).all(axis=1)]
    sheets = vertices, np.vstack([top, top[:, ::-1]])  # the winding numbers of the two cancel
    oracles = SignedDistance(*solid), SignedDistance(*shapes.joined(solid, sheets))
    begin = np.random.default_rng(0).uniform(-0.6, 0.6, (5000, 3)) * (1, 1, 0) + (0, 0, 0.9)
    down = np.tile([0.0, 0.0, -1.0], (len(begin), 1))
    alone, beside = (
        MeshTracer(MeshField(oracle, Similarity.identity())).trace(begin, down) for oracle in oracles
    )
    assert 0.1 < alone.hit.mean() < 0.9
    np.testing.assert_array_equal(beside.hit, alone.hit)
    np.testing.assert_allclose(beside.points[alone.hit], alone.points[alone.hit], atol=1e-6)
