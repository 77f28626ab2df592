"""Similarity transforms and the minimum enclosing ball."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.optimize import nnls
from scipy.spatial.transform import Rotation

from neuralsdf.array_types import Matrix4, Points
from neuralsdf.errors import UsageError
from neuralsdf.geometry.similarity_transform import Similarity
from neuralsdf.geometry.unit_ball import minimum_enclosing_ball

seeds = st.integers(0, 2**32 - 1)
scales = st.sampled_from([1e-9, 1e-3, 1.0, 1e4, 1e9])


def random_similarity(rng: np.random.Generator, scale: float) -> Similarity:
    matrix = np.eye(4)
    matrix[:3, :3] = scale * Rotation.random(random_state=rng).as_matrix()
    matrix[:3, 3] = scale * rng.normal(size=3)
    return Similarity(matrix)


@given(seeds, scales)
def test_inverse_undoes_apply_and_lengths_scale(seed: int, scale: float) -> None:
    rng = np.random.default_rng(seed)
    similarity, points = random_similarity(rng, scale), rng.normal(size=(20, 3))
    moved = similarity.apply(points)
    np.testing.assert_allclose(similarity.apply_inverse(moved), points, atol=1e-13)
    lengths = np.linalg.norm(points[1:] - points[0], axis=1)
    np.testing.assert_allclose(np.linalg.norm(moved[1:] - moved[0], axis=1), scale * lengths, rtol=1e-12)
    np.testing.assert_allclose(similarity.scale, scale, rtol=1e-12)
    np.testing.assert_allclose(
        similarity.rotate(points) * scale, moved - similarity.centre, atol=1e-13 * scale
    )


def test_inverse_keeps_the_precision_of_coordinates_far_from_the_origin() -> None:
    far = Similarity.from_ball([1e9, -1e9, 1e9], 1e-3)
    points = far.centre + np.array([[1e-3, 0, 0], [0, 0, -1e-3]])
    # A coordinate of 1e9 is stored to 1.2e-7, which is 1.2e-4 of the radius.
    np.testing.assert_allclose(far.apply_inverse(points), [[1, 0, 0], [0, 0, -1]], atol=2e-4)


@pytest.mark.parametrize(
    ("matrix", "reason"),
    [
        (np.diag([1.0, 2.0, 1.0, 1.0]), "non-uniform scale"),
        (np.array([[1.0, 0.3, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]), "has shear"),
        (np.diag([0.0, 0.0, 0.0, 1.0]), "its scale"),
        (np.diag([1.0, 1.0, 1.0, 2.0]), "last row"),
        (np.full((4, 4), np.nan), "finite 4x4"),
        (np.eye(3), "finite 4x4"),
    ],
)
def test_a_matrix_that_is_not_a_similarity_is_refused(matrix: Matrix4, reason: str) -> None:
    with pytest.raises(UsageError, match=reason):
        Similarity(matrix)


def test_identity_and_tiny_scales() -> None:
    points = np.array([[0.1, 0.2, 0.3]])
    np.testing.assert_array_equal(Similarity.identity().apply(points), points)
    assert Similarity.from_ball([0, 0, 0], 1e-90).scale == pytest.approx(1e-90, rel=1e-12, abs=0)


CUBE = np.array([[x, y, z] for x in (0, 1) for y in (0, 1) for z in (0, 1)], float)
TETRAHEDRON = np.array([[1, 1, 1], [1, -1, -1], [-1, 1, -1], [-1, -1, 1]], float)
HALF_TURNS = np.array([[np.cos(a), np.sin(a), 0] for a in (0.0, 2.0, 4.0)])

KNOWN_BALLS = {
    "one point": (np.array([[3.0, 4, 5]]), [3, 4, 5], 0),
    "the same point": (np.full((9, 3), 7.0), [7, 7, 7], 0),
    "two points": (np.array([[0.0, 0, 0], [2, 0, 0]]), [1, 0, 0], 1),
    "collinear": (np.outer([0.0, 0.3, 1, 4, 4, 2], [1, 2, 2]), [2, 4, 4], 6),
    "regular tetrahedron": (TETRAHEDRON, [0, 0, 0], 3**0.5),
    "cube": (CUBE, [0.5, 0.5, 0.5], 0.75**0.5),
    "octahedron": (np.vstack([np.eye(3), -np.eye(3)]), [0, 0, 0], 1),
    "obtuse triangle": (np.array([[-5.0, 0, 0], [5, 0, 0], [0, 1, 0]]), [0, 0, 0], 5),
    "three on a circle": (HALF_TURNS, [0, 0, 0], 1),
    "duplicates": (np.repeat(CUBE, 3, axis=0), [0.5, 0.5, 0.5], 0.75**0.5),
}


@pytest.mark.parametrize("scale", [1.0, 1e-9, 1e9])
@pytest.mark.parametrize("name", KNOWN_BALLS)
def test_known_balls(name: str, scale: float) -> None:
    points, centre, radius = KNOWN_BALLS[name]
    found_centre, found_radius = minimum_enclosing_ball(points * scale)
    np.testing.assert_allclose(found_centre, np.multiply(centre, scale), atol=1e-12 * scale)
    assert found_radius == pytest.approx(radius * scale, rel=1e-12, abs=0)


def is_smallest(points: Points, centre: Points, radius: float) -> bool:
    """The certificate: the centre is a convex combination of points on the ball's surface."""
    local = (points - centre) / radius
    touching = local[np.linalg.norm(local, axis=1) > 1 - 1e-6]
    weights, _ = nnls(np.vstack([touching.T, np.ones(len(touching))]), np.array([0, 0, 0, 1.0]))
    # Weak duality: no smaller ball contains even the touching points.
    weights /= weights.sum()
    bound = weights @ (touching**2).sum(axis=1) - ((weights @ touching) ** 2).sum()
    return bool(bound > 1 - 1e-5)


def cloud(rng: np.random.Generator, kind: str) -> Points:
    noise = 10.0 ** rng.uniform(-16, -3)
    points: Points = rng.normal(size=(rng.integers(2, 50), 3))
    if kind == "sphere":
        points /= np.linalg.norm(points, axis=1, keepdims=True)
        points *= 1 + noise * rng.normal(size=(len(points), 1))
    elif kind == "circle":
        points[:, :2] /= np.linalg.norm(points[:, :2], axis=1, keepdims=True)
        points[:, 2] *= noise
        points *= 1 + noise * rng.normal(size=(len(points), 1))
    elif kind == "line":
        points = points[:, :1] * [1, 2, 3] + noise * points
    elif kind == "clusters":
        points = points[np.arange(len(points)) % 2] + noise * points
    return points


@settings(max_examples=200)
@given(seeds, st.sampled_from(["ball", "sphere", "circle", "line", "clusters"]), scales)
def test_ball_contains_all_points_and_no_smaller_one_does(seed: int, kind: str, scale: float) -> None:
    points = scale * cloud(np.random.default_rng(seed), kind)
    centre, radius = minimum_enclosing_ball(points)
    assert np.linalg.norm(points - centre, axis=1).max() <= radius * (1 + 1e-12)
    assert radius >= max(np.linalg.norm(points - p, axis=1).max() for p in points) / 2 * (1 - 1e-12)
    assert is_smallest(points, centre, radius)


@given(seeds, scales)
def test_ball_moves_with_its_points(seed: int, scale: float) -> None:
    rng = np.random.default_rng(seed)
    points, similarity = rng.normal(size=(30, 3)), random_similarity(rng, scale)
    centre, radius = minimum_enclosing_ball(points)
    moved_centre, moved_radius = minimum_enclosing_ball(similarity.apply(points))
    np.testing.assert_allclose(moved_centre, similarity.apply(centre[None])[0], atol=1e-9 * scale)
    assert moved_radius == pytest.approx(radius * scale, rel=1e-9, abs=0)


@settings(max_examples=50)
@given(arrays(np.float64, (6, 3), elements=st.integers(-3, 3).map(float)))
def test_ball_equals_that_of_brute_force(points: Points) -> None:
    """On six points of a small lattice: degenerate in every way that six points can be."""
    _, radius = minimum_enclosing_ball(points)
    smallest = np.inf
    for size in (2, 3, 4):
        for chosen in combinations(points, size):
            edges = np.array(chosen[1:]) - chosen[0]
            offset = np.linalg.pinv(2 * edges) @ (edges**2).sum(axis=1)
            smallest = min(smallest, float(np.linalg.norm(points - chosen[0] - offset, axis=1).max()))
    assert radius == pytest.approx(smallest, rel=1e-9, abs=1e-12)
