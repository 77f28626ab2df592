"""Samples follow their density exactly, carry exact distances, and depend on the seed alone."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import kstest

from neuralsdf.errors import UsageError
from neuralsdf.mesh.signed_distance import SignedDistance
from neuralsdf.training.sampling import METHODS, RADIUS, Density, Sampler

from ..helpers import shapes

HALF = (0.6, 0.4, 0.3)


@pytest.fixture(scope="module")
def oracle() -> SignedDistance:
    return SignedDistance(*shapes.box(*HALF))


def draw(oracle, count=20_000, seed=0, weights=None, **density):
    sampler = Sampler(oracle, Density(**density), weights, expected=count)
    return sampler.draw(count, np.random.default_rng(seed))


@pytest.mark.parametrize("beta", [0.0, 10.0, 60.0, 150.0])
def test_importance_samples_of_a_sphere_follow_the_density(beta):
    """|x| has the density exp(-beta |r - R|) r^2 on [0, RADIUS]: Kolmogorov-Smirnov."""
    sphere = SignedDistance(*shapes.sphere(0.7, subdivisions=6))
    points, _ = draw(sphere, beta=beta, uniform=0.0)
    r = np.linspace(0, RADIUS, 20_001)
    mass = np.cumsum(np.exp(-beta * np.abs(r - 0.7)) * r**2)
    result = kstest(np.linalg.norm(points, axis=1), lambda x: np.interp(x, r, mass / mass[-1]))
    assert result.pvalue > 0.001
    for axis in range(3):  # and no direction is preferred
        cosine = points[:, axis] / np.linalg.norm(points, axis=1)
        assert kstest(cosine, "uniform", (-1, 2)).pvalue > 0.001


def test_importance_samples_agree_with_plain_rejection(oracle):
    """The octree draws what rejecting uniform points by exp(-beta |d|) draws."""
    beta = 20.0
    rng = np.random.default_rng(1)
    pool = rng.uniform(-RADIUS, RADIUS, (400_000, 3))
    distance = shapes.box_distance(pool, *HALF)
    kept = (rng.random(len(pool)) < np.exp(-beta * np.abs(distance))) & (
        np.linalg.norm(pool, axis=1) < RADIUS
    )
    samples = draw(oracle, beta=beta, uniform=0.0)
    assert kstest(samples.distances, distance[kept]).pvalue > 0.001
    for axis in range(3):
        assert kstest(samples.points[:, axis], pool[kept, axis]).pvalue > 0.001


@pytest.mark.parametrize("method", METHODS)
def test_distances_are_exact_and_the_seed_decides(oracle, method):
    samples = draw(oracle, 5000, method=method)
    exact = shapes.box_distance(samples.points.astype(np.float64), *HALF)
    np.testing.assert_allclose(samples.distances, exact, atol=2e-7)
    again, other = draw(oracle, 5000, method=method), draw(oracle, 5000, seed=1, method=method)
    assert samples.points.tobytes() == again.points.tobytes()
    assert not np.array_equal(samples.points, other.points)
    assert len(np.unique(samples.points, axis=0)) == 5000


def test_the_share_of_uniform_points_is_what_was_asked(oracle):
    """Far from the surface, importance samples at beta 300 are absent: what is there is uniform."""
    samples = draw(oracle, 50_000, beta=300.0, uniform=0.2)
    rng = np.random.default_rng(2)
    ball = rng.uniform(-RADIUS, RADIUS, (200_000, 3))
    ball = ball[np.linalg.norm(ball, axis=1) < RADIUS]
    far = (np.abs(shapes.box_distance(ball, *HALF)) > 0.1).mean()
    assert (np.abs(samples.distances) > 0.1).mean() == pytest.approx(0.2 * far, rel=0.05)


def test_surface_and_vertex_samples_are_where_they_say():
    vertices, faces = shapes.box(*HALF)
    oracle = SignedDistance(vertices, faces)
    surface = draw(oracle, method="surface", uniform=0.0)
    assert np.abs(surface.distances).mean() == pytest.approx(0.01 * np.sqrt(2 / np.pi), rel=0.1)
    vertex = draw(oracle, method="vertex", uniform=0.0)
    gap = np.linalg.norm(vertex.points[:, None] - vertices[None], axis=2).min(axis=1)
    assert gap.max() < 0.06


def test_weights_move_samples_where_the_user_wants_them(oracle):
    weights = np.where(oracle.vertices[:, 0] > 0, 3.0, 1.0)
    samples = draw(oracle, beta=200.0, uniform=0.0, weights=weights)
    ends = np.abs(samples.points[:, 0]) > 0.59  # beside the two end faces, whose weights are constant
    right = (samples.points[ends, 0] > 0).mean()
    assert right == pytest.approx(0.75, abs=0.03)
    even = draw(oracle, beta=200.0, uniform=0.0, weights=np.full(len(oracle.vertices), 7.0))
    assert (
        kstest(even.points[:, 0], draw(oracle, seed=3, beta=200.0, uniform=0.0).points[:, 0]).pvalue > 0.001
    )


@pytest.mark.parametrize("bad", [{"method": "gauss"}, {"beta": -1.0}, {"uniform": 1.5}])
def test_nonsense_is_a_usage_error(bad):
    with pytest.raises(UsageError, match="`"):
        Density(**bad)


def test_weights_that_do_not_fit_are_a_usage_error(oracle):
    with pytest.raises(UsageError, match="8 vertices"):
        Sampler(oracle, Density(), np.ones(3))
    with pytest.raises(UsageError, match="`sampling='surface'`"):
        Sampler(oracle, Density("surface"), np.ones(8))


def test_errors_are_found_where_a_field_puts_a_surface_that_is_not_there(oracle):
    """A field with a second, false surface far from the true one: that is where the samples go."""
    centre = np.array([0.0, 0.0, 0.7], np.float32)  # 0.4 above the box

    def value(points):
        distance = shapes.box_distance(points.astype(np.float64), *HALF)
        return np.minimum(distance, np.linalg.norm(points - centre, axis=1) - 0.05).astype(np.float32)

    sampler = Sampler(oracle, Density(), expected=1000)
    samples = sampler.draw_errors(value, 5000, np.random.default_rng(0))
    assert len(samples.points) == 5000
    assert (np.linalg.norm(samples.points - centre, axis=1) < 0.3).mean() > 0.99
    exact = shapes.box_distance(samples.points.astype(np.float64), *HALF)
    np.testing.assert_allclose(samples.distances, exact, atol=2e-7)
