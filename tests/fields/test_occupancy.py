"""Fields with a meaningful sign only: results do not depend on their values."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from neuralsdf.errors import FieldKindError, NeuralSDFError, NoSurfaceError
from neuralsdf.evaluation.metrics import evaluate, measure
from neuralsdf.fields.decimate import decimated
from neuralsdf.fields.extract import extract
from neuralsdf.fields.vertex_normals import surface_normals
from neuralsdf.geometry.similarity_transform import Similarity
from neuralsdf.mesh.mesh import Mesh
from neuralsdf.mesh.signed_distance import SignedDistance

from ..helpers import shapes
from ..helpers.fields import Analytic, Function, sphere, torus, union

RING = torus(0.6, 0.2)
RING_VOLUME = 2 * np.pi**2 * 0.6 * 0.2**2
#: Functions of a value that leave its sign: logits, a saturated network, a cube, tiny and huge ones, a step.
RESCALED: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "logits": lambda f: 40 * f,
    "saturated": lambda f: np.tanh(300 * f),
    "flat at the surface": lambda f: f**3,
    "tiny": lambda f: 1e-12 * f,
    "huge": lambda f: 1e12 * f,
    "step": lambda f: np.where(f < 0, -3.0, 0.5),
}


class Occupancy(Analytic):
    """Counts the points at which it is evaluated."""

    kind = "occupancy"

    def __init__(self, function: Function, transform: Similarity | None = None) -> None:
        super().__init__(function, transform)
        self.evaluated = 0

    def value(self, points: np.ndarray) -> np.ndarray:
        self.evaluated += len(points)
        return super().value(points)


def ellipsoid(*axes: float) -> Function:
    """Negative inside, and no distance: values grow with the square, and are larger on one side."""
    return lambda p: (((p / axes) ** 2).sum(axis=1) - 1) * np.exp(3 * p[:, 0])


def lopsided(p: np.ndarray) -> np.ndarray:
    return ellipsoid(0.9, 0.5, 0.3)(p)


@pytest.mark.parametrize("name", RESCALED)
def test_the_surface_depends_on_the_sign_alone(name: str) -> None:
    rescale = RESCALED[name]
    transform = Similarity.from_ball(np.array([1.0, 2, 3]), 5.0)
    field = Occupancy(lambda p: rescale(RING(p)), transform)
    surface = extract(field, 96)
    assert surface.watertight
    assert surface.notes == ()
    assert surface.volume == pytest.approx(125 * RING_VOLUME, rel=5e-3)
    local = transform.apply_inverse(surface.vertices)
    # Where an edge crosses the surface at a flat angle, a 128th of the edge is more along the surface.
    assert np.abs(RING(local)).max() < surface.cell / 5 / 64
    reference = extract(Analytic(RING, transform), 96)
    np.testing.assert_array_equal(surface.faces, reference.faces)


@pytest.mark.parametrize("name", ["logits", "tiny", "step"])
def test_the_resolution_is_chosen_by_the_sign(name: str) -> None:
    rescale = RESCALED[name]
    field = Occupancy(lambda p: rescale(RING(p)))
    surface = extract(field)
    assert surface.resolution == extract(Analytic(RING)).resolution == 256
    assert surface.volume == pytest.approx(RING_VOLUME, rel=2e-3)
    assert field.evaluated < 0.2 * 256**3


def test_the_surface_of_a_field_that_is_not_a_distance_is_exact() -> None:
    surface = extract(Occupancy(lopsided), 128)
    assert surface.volume == pytest.approx(4 / 3 * np.pi * 0.9 * 0.5 * 0.3, rel=2e-3)
    scaled = surface.vertices / [0.9, 0.5, 0.3]
    np.testing.assert_allclose(np.linalg.norm(scaled, axis=1), 1, atol=1e-3)
    low, high = surface.bounds
    np.testing.assert_allclose(high, [0.9, 0.5, 0.3], atol=2e-3)
    np.testing.assert_allclose(low, -high, atol=2e-3)
    normals = surface_normals(Occupancy(lopsided), surface)
    exact = surface.vertices / np.array([0.9, 0.5, 0.3]) ** 2
    exact /= np.linalg.norm(exact, axis=1, keepdims=True)
    np.testing.assert_allclose(np.linalg.norm(normals, axis=1), 1, atol=1e-12)
    assert (normals * exact).sum(axis=1).min() > 0.99


def test_separate_parts_and_thin_links_are_found() -> None:
    """Two balls, and a thin rod between two others, which coarse cells miss."""

    def rod(p: np.ndarray) -> np.ndarray:
        along = np.clip(p[:, 0], -0.5, 0.5)
        return (
            np.linalg.norm(p - np.stack([along, 0 * along + 0.013, 0 * along + 0.017], axis=1), axis=1) - 0.01
        )

    balls = union(*(sphere(0.12, x, y, 0) for x in (-0.5, 0.5) for y in (0.0, 0.6)))
    surface = extract(Occupancy(lambda p: np.sign(union(balls, rod)(p)) + 0.1), 512)
    assert surface.shells.count == 3
    assert surface.volume == pytest.approx(4 * 4 / 3 * np.pi * 0.12**3 + np.pi * 0.01**2 * 0.76, rel=0.01)


def test_messages_name_no_lengths() -> None:
    with pytest.raises(
        NoSurfaceError, match=r"no point of its ball is inside .* smallest value is \+7$"
    ) as empty:
        extract(Occupancy(lambda p: np.full(len(p), 7.0)), 32)
    assert "radius" not in str(empty.value)
    with pytest.raises(FieldKindError, match="level"):
        extract(Occupancy(RING), 32, level=0.01)
    with pytest.raises(NeuralSDFError, match="not finite"):
        extract(Occupancy(lambda p: np.where(p[:, 0] > 0.5, np.nan, 1.0)), 32)
    half = extract(Occupancy(lambda p: 1e-3 * p[:, 2]), 64)
    assert half.volume == pytest.approx(2 / 3 * np.pi, rel=0.01)
    assert len(half.notes) == 1
    assert "49." in half.notes[0] or "50." in half.notes[0]


@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e6])
def test_reducing_faces_is_judged_by_the_surface(scale: float) -> None:
    field = Occupancy(lambda p: scale * RING(p))
    surface = extract(field, 96)
    few, many = (decimated(field, surface, faces) for faces in (60, 12_000))
    assert len(few.faces) <= 60
    assert any("faces are" in note for note in few.notes)
    assert many.notes == ()


def test_metrics_compare_interiors_and_surfaces_only() -> None:
    """A torus of 0.6 and 0.25 against the mesh of one of 0.6 and 0.2: IoU 0.64, offset by 0.05 everywhere."""
    vertices, faces = shapes.torus(0.6, 0.2)
    oracle = SignedDistance(vertices, faces)
    found = measure(Occupancy(lambda p: 25 * torus(0.6, 0.25)(p)), oracle, resolution=128)
    assert not {"loss", "far_error"} & found.keys()
    assert not [name for name in found if name.startswith("surface_")]
    assert found["iou"] == pytest.approx(0.64, abs=0.01)
    assert found["two_way"] == pytest.approx(0.05, abs=2e-3)
    assert found["volume"] == pytest.approx(RING_VOLUME * (0.25 / 0.2) ** 2, rel=5e-3)
    assert found["normal_consistency"] > 0.995
    # Equal to those of the distance field, for metrics that do not depend on values.
    exact = measure(Analytic(torus(0.6, 0.25)), oracle, resolution=128)
    assert {"loss", "far_error", "surface_mean"} <= exact.keys()
    for name in found.keys() - {"hausdorff"}:
        assert found[name] == pytest.approx(exact[name], rel=2e-3, abs=1e-4), name


def test_an_occupancy_field_is_evaluated_against_a_mesh() -> None:
    mesh = Mesh.from_arrays(*shapes.sphere(1.0, 4))
    found = evaluate(
        Occupancy(lambda p: 50 * (np.linalg.norm(p, axis=1) ** 6 - 0.98**6)), mesh, resolution=128
    )
    assert found.metrics["iou"] == pytest.approx(0.98**3, abs=0.01)
    assert found.metrics["accuracy"] == pytest.approx(0.02, abs=3e-3)
    assert found.notes == ()


def test_an_occupancy_field_cannot_be_combined() -> None:
    """Trees combine distances, and a logit is not a distance."""
    field, ball = Occupancy(RING), Analytic(sphere(0.5))
    for combine in (lambda: field | ball, lambda: ball & field, lambda: field - ball, lambda: ~field):
        with pytest.raises(FieldKindError, match="has no distances and cannot be combined"):
            combine()
