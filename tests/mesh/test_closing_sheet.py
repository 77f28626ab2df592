"""The sheet that closes an open mesh makes its distance that of a solid."""

from __future__ import annotations

import numpy as np
import pytest

from neuralsdf.mesh.closing_sheet import open_edges
from neuralsdf.mesh.signed_distance import SignedDistance

from ..helpers import shapes


def half_ball_distance(points: np.ndarray, radius: float) -> np.ndarray:
    """Exact signed distance of {|x| <= radius, z >= 0}."""
    r, z = np.linalg.norm(points[:, :2], axis=1), points[:, 2]
    to_disk = np.hypot(np.maximum(r - radius, 0), z)
    to_cap = np.where(z >= 0, np.abs(np.linalg.norm(points, axis=1) - radius), np.hypot(r - radius, z))
    inside = (np.linalg.norm(points, axis=1) < radius) & (z > 0)
    return np.where(inside, -1, 1) * np.minimum(to_disk, to_cap)


def test_an_open_hemisphere_has_the_distance_of_a_half_ball():
    # From anywhere on its base a hemisphere fills half of all directions: w = 1/2 there, exactly.
    oracle = SignedDistance(*shapes.hemisphere(0.8))
    points = np.random.default_rng(0).uniform(-1, 1, (5000, 3))
    np.testing.assert_allclose(oracle.signed(points), half_ball_distance(points, 0.8), atol=3e-3)


def test_the_distance_is_continuous_across_every_opening():
    """1-Lipschitz along short steps; without the sheet the jump is twice the distance to the rim."""
    vertices, faces = shapes.sphere(0.8)
    holes = (vertices[faces].mean(axis=1) @ [0.3, 0.2, 0.9] < 0.7) & (
        vertices[faces].mean(axis=1)[:, 0] < 0.6
    )
    oracle = SignedDistance(vertices, faces[holes])
    rng = np.random.default_rng(1)
    a = rng.uniform(-0.9, 0.9, (40_000, 3))
    b = a + 0.01 * rng.standard_normal(a.shape)
    excess = np.abs(oracle.signed(a) - oracle.signed(b)) - np.linalg.norm(a - b, axis=1)
    assert excess.max() < 0.005
    assert oracle.closest(oracle.sheet[0])[0].max() > 0.2  # the sheet is far from any triangle


def test_a_closed_mesh_has_no_open_edges_and_no_sheet():
    vertices, faces = shapes.torus()
    assert len(open_edges(faces)) == 0
    assert len(SignedDistance(vertices, faces).sheet[1]) == 0


@pytest.mark.parametrize("removed", [1, 2])
def test_open_edges_are_those_of_the_missing_faces(removed):
    _, faces = shapes.box(1, 1, 1)
    edges = open_edges(faces[removed:])
    expected = {1: 3, 2: 4}[removed] if len(np.intersect1d(faces[0], faces[1])) == 2 else 3 * removed
    assert len(edges) == expected
