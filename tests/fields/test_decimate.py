"""Reduced surfaces: their number of faces, closedness, and distance to the surface of the field."""

from __future__ import annotations

import numpy as np
import pytest

from neuralsdf.csg import Shape, box, cylinder, sphere
from neuralsdf.errors import UsageError
from neuralsdf.fields.decimate import decimated, surface_offset
from neuralsdf.fields.extract import extract
from neuralsdf.fields.field import Field
from neuralsdf.fields.vertex_normals import surface_normals
from neuralsdf.geometry.similarity_transform import Similarity

from ..helpers import fields
from ..helpers.fields import Analytic

SHAPES = {
    "ball": sphere(1),
    "box": box(3, 2, 1),
    "with a cavity": sphere(1).hollow(0.2),
    "frame": box(1) - sphere(0.6),
    "many": sphere(0.1).repeat(0.3, 0.3, 0.3, 3, 3, 3),
    "grid": box(2, 2, 0.2) - cylinder(0.1, 1).repeat(0.3, 0.3, 0, 5, 5).translate(-0.6, -0.6),
}


@pytest.mark.parametrize("faces", [4, 20, 300, 5000])
@pytest.mark.parametrize("name", SHAPES)
def test_the_number_of_faces_is_met_and_the_surface_closed(name: str, faces: int) -> None:
    field = SHAPES[name]
    surface = extract(field, 96)
    fewer = decimated(field, surface, faces)
    assert 4 <= len(fewer.faces) <= faces
    assert fewer.watertight
    assert fewer.volume > 0
    assert len(np.unique(fewer.faces)) == len(fewer.vertices)
    if fewer.shells.count != surface.shells.count:
        assert any("too few for all parts" in note and "`faces=`" in note for note in fewer.notes)


def test_a_surface_with_few_faces_is_unchanged() -> None:
    field = box(1)
    surface = extract(field, 32)
    assert decimated(field, surface, len(surface.faces)) is surface
    with pytest.raises(UsageError, match="`faces=3`: must be at least 4"):
        decimated(field, surface, 3)


def test_an_error_above_the_fields_own_is_a_warning_with_a_sufficient_number() -> None:
    field: Field = Analytic(fields.sphere(0.9), Similarity.from_ball((5, -3, 2), 40.0))
    surface = extract(field, 128)
    own = 0.1 * surface.cell
    assert surface_offset(field, surface) < own
    assert decimated(field, surface, 20_000).notes == ()
    coarse = decimated(field, surface, 300)
    (note,) = coarse.notes
    assert note.startswith("warning: 300 faces are too few: their mean error is ")
    assert surface_offset(field, coarse) > own
    advised = int(note.split("`faces=")[1].split("`")[0])
    assert surface_offset(field, decimated(field, surface, advised)) <= own


def test_a_box_is_reduced_without_error() -> None:
    field = box(3, 2, 1).rotate(20, 1, 2, 3)
    fewer = decimated(field, extract(field, 128), 4000)
    assert fewer.notes == ()
    assert fewer.volume == pytest.approx(6, rel=0.01)


def test_the_level_of_an_offset_surface_is_kept() -> None:
    field = sphere(1).round(0.5)
    surface = extract(field, 96, level=-0.3)
    fewer = decimated(field, surface, 5000, level=-0.3)
    assert np.linalg.norm(fewer.vertices, axis=1) == pytest.approx(1.2, abs=0.01)
    assert fewer.notes == ()


# -- normals ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mirror", [1, -1])
def test_normals_are_those_of_the_surface(mirror: int) -> None:
    rotation, _ = np.linalg.qr(np.random.default_rng(0).normal(size=(3, 3)))
    rotation *= mirror * np.sign(np.linalg.det(rotation))
    matrix = np.eye(4)
    matrix[:3, :3], matrix[:3, 3] = 30 * rotation, (100, 5, -7)
    field = Analytic(fields.torus(0.6, 0.25), Similarity(matrix))
    surface = extract(field, 96)
    normals = surface_normals(field, surface)
    assert np.linalg.norm(normals, axis=1) == pytest.approx(1, abs=1e-6)
    local = field.transform.apply_inverse(surface.vertices)
    ring = local * (1, 1, 0)
    away = local - 0.6 * ring / np.linalg.norm(ring, axis=1, keepdims=True)
    expected = field.transform.rotate(away / np.linalg.norm(away, axis=1, keepdims=True))
    assert (normals * expected).sum(axis=1).min() > 0.999
    corner = surface.vertices[surface.faces]
    of_faces = np.cross(corner[:, 1] - corner[:, 0], corner[:, 2] - corner[:, 0])
    assert ((normals[surface.faces[:, 0]] * of_faces).sum(axis=1) > 0).mean() > 0.999


def test_normals_of_a_part_thinner_than_a_cell_point_outwards() -> None:
    shape: Shape = box(1, 1, 0.01) | box(0.3, 0.3, 0.8).translate(0.3)
    field = shape
    surface = extract(field, 64)
    normals = surface_normals(field, surface)
    assert np.isfinite(normals).all()
    flat = (np.abs(surface.vertices[:, 2]) < 0.02) & (surface.vertices[:, :2].max(axis=1) < 0.0)
    assert flat.any()
    assert (normals[flat, 2] * np.sign(surface.vertices[flat, 2])).mean() > 0.9
