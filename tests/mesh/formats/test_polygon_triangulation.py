"""Triangles of a polygon cover it exactly once, whatever its shape and size."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from neuralsdf.errors import MeshError
from neuralsdf.files.bounded_input import Budget
from neuralsdf.mesh.formats.shared import ear_clipping as ears
from neuralsdf.mesh.formats.shared.polygon_triangulation import triangulate

Ring = npt.NDArray[np.float64]


def budget() -> Budget:
    return Budget(Path("a"), MeshError, 0)


def areas(points: Ring, faces: npt.NDArray[np.int64]) -> Ring:
    """Signed areas of triangles in the plane z = 0."""
    a, b, c = np.moveaxis(points[faces], 1, 0)
    cross: Ring = np.cross(b - a, c - a)[:, 2] / 2
    return cross


def polygon_area(ring: Ring) -> float:
    x, y = ring[:, 0], ring[:, 1]
    return float((x * np.roll(y, -1) - y * np.roll(x, -1)).sum() / 2)


def star(n: int, seed: int) -> Ring:
    rng = np.random.default_rng(seed)
    angle = (np.arange(n) + rng.uniform(0, 0.7, n)) * 2 * np.pi / n
    radius = rng.uniform(0.2, 1, n)
    return np.stack([radius * np.cos(angle), radius * np.sin(angle), 0 * angle], axis=1)


def spiral(n: int) -> Ring:
    """A band that winds inwards four times."""
    angle = np.linspace(0, 8 * np.pi, n // 2)
    outer, inner = 10 - angle / 3, 9.5 - angle / 3
    there = np.stack([outer * np.cos(angle), outer * np.sin(angle), 0 * angle], axis=1)
    back = np.stack([inner * np.cos(angle), inner * np.sin(angle), 0 * angle], axis=1)
    return np.vstack([there, back[::-1]])


def with_hole(n: int, seed: int) -> tuple[Ring, float]:
    """A star with another cut out of it, and a bridge between them that is traversed twice; and the area."""
    outer, hole = 10 * star(n, seed), star(n, seed + 1)
    turn = np.arctan2(outer[0, 1], outer[0, 0]) - np.arctan2(hole[0, 1], hole[0, 0])
    hole = hole @ np.array([[np.cos(turn), np.sin(turn), 0], [-np.sin(turn), np.cos(turn), 0], [0, 0, 1]])
    outer, hole = (
        outer * np.maximum(4 / np.linalg.norm(outer, axis=1), 1)[:, None],
        np.roll(hole[::-1], 1, axis=0),
    )
    return np.vstack([outer, outer[:1], hole, hole[:1]]), polygon_area(outer) + polygon_area(hole)


def assert_covers(ring: Ring, area: float) -> None:
    faces, notes = triangulate(ring, np.arange(len(ring)), [len(ring)], budget())
    assert faces.shape == (len(ring) - 2, 3)
    assert notes == []
    parts = areas(ring, faces)
    assert parts.sum() == pytest.approx(area)
    assert parts.min() >= -1e-12 * area


@pytest.mark.parametrize("n", [5, 30, ears.MANY, ears.MANY + 1, 2000])
@pytest.mark.parametrize("shape", ["star", "spiral", "comb"])
def test_a_simple_polygon_is_covered_once(shape: str, n: int) -> None:
    teeth = np.stack([np.arange(n) / n, np.arange(n) % 2 + 1.0, np.zeros(n)], axis=1)
    comb = np.vstack([[[0, 0, 0], [1, 0, 0]], teeth[::-1]])
    ring = {"star": star(n, n), "spiral": spiral(max(n, 60)), "comb": comb}[shape]
    assert_covers(ring, polygon_area(ring))


@pytest.mark.parametrize("n", [6, 40, 500])
@pytest.mark.parametrize("seed", range(5))
def test_a_bridge_to_a_hole_is_covered_once(n: int, seed: int) -> None:
    assert_covers(*with_hole(n, seed))


@pytest.mark.parametrize("n", [8, 100, 800])
def test_collinear_and_duplicate_corners_are_allowed(n: int) -> None:
    """A staircase of whole numbers, each corner twice, with the middle of each side."""
    steps = np.repeat(np.arange(n), 2)
    stairs = np.stack([steps[1:], steps[:-1], 0 * steps[1:]], axis=1)[:, :3].astype(float)
    ring = np.vstack([stairs[::-1], [[0, 0, 0], [0, -1, 0], [n - 1, -1, 0]]])[::-1]
    ring = np.repeat(ring, 2, axis=0)
    middles = (ring + np.roll(ring, -1, axis=0)) / 2
    ring = np.stack([ring, middles], axis=1).reshape(-1, 3)
    ring = ring if polygon_area(ring) > 0 else ring[::-1]
    faces, _ = triangulate(ring, np.arange(len(ring)), [len(ring)], budget())
    assert areas(ring, faces).sum() == pytest.approx(polygon_area(ring))
    assert np.abs(areas(ring, faces)).sum() == pytest.approx(polygon_area(ring))


def test_many_polygons_keep_their_order(monkeypatch: pytest.MonkeyPatch) -> None:
    """In blocks as in one call, for triangles, quads and other polygons, convex and not."""
    rng = np.random.default_rng(0)
    sides = rng.integers(0, 9, 500)
    rings = [star(n, i) for i, n in enumerate(sides.tolist())]
    points = np.vstack(rings)
    at_once, _ = triangulate(points, np.arange(len(points)), sides, budget())
    monkeypatch.setattr("neuralsdf.mesh.formats.shared.polygon_triangulation.BLOCK", 50)
    in_blocks, _ = triangulate(points, np.arange(len(points)), sides, budget())
    np.testing.assert_array_equal(in_blocks, at_once)
    assert areas(points, at_once).sum() == pytest.approx(sum(polygon_area(r) for r in rings if len(r) > 2))


@pytest.mark.parametrize("corners", [300, 3000])
def test_a_large_convex_polygon_is_not_cut_into_a_fan(corners: int) -> None:
    """The sides of its triangles have a total length of 4 pi log2(n), those of a fan over 2 n.

    A query would have to test all triangles of a fan.
    """
    angles = np.linspace(0, 2 * np.pi, corners, endpoint=False)
    ring = np.stack([np.cos(angles), np.sin(angles), 0 * angles], axis=1)
    faces, notes = triangulate(ring, np.arange(corners), [corners], budget())
    parts = areas(ring, faces)
    assert notes == []
    assert parts.min() > 0
    assert parts.sum() == pytest.approx(polygon_area(ring))
    sides = np.linalg.norm(ring[faces] - ring[np.roll(faces, 1, axis=1)], axis=2)
    assert sides.sum() < 4 * np.pi * np.log2(corners)


def test_polygons_that_take_too_long_become_a_fan_with_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    """The signed area of the fan equals the area of the polygon."""
    monkeypatch.setattr(
        "neuralsdf.mesh.formats.shared.ear_clipping.EarClipper.__init__.__defaults__", (2000,)
    )
    ring = star(1000, 0)
    points, sides = np.vstack([star(20, 1), ring, star(20, 1)]), [20, 1000, 20]
    faces, notes = triangulate(points, np.arange(1040), sides, budget())
    assert notes == ["2 polygons with too many corners triangulated coarsely"]
    parts = areas(points, faces)
    assert parts[:18].min() > 0
    assert parts[18:1016].sum() == pytest.approx(polygon_area(ring))
