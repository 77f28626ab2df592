"""Samples follow their density exactly, carry exact distances, and depend on the seed alone."""

from __future__ import annotations

import json

import numpy as np
import pytest
from scipy.spatial import cKDTree
from scipy.stats import kstest

from neuralsdf.errors import UsageError
from neuralsdf.geometry.triangles import sample_surface
from neuralsdf.geometry.unit_ball import uniform_ball
from neuralsdf.mesh.signed_distance import SignedDistance
from neuralsdf.training.sampling import METHODS, NOISE, RADIUS, Density, Noise, Sampler

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
def test_distances_are_exact_and_depend_on_the_seed(oracle, method):
    samples = draw(oracle, 5000, method=method)
    exact = shapes.box_distance(samples.points.astype(np.float64), *HALF)
    np.testing.assert_allclose(samples.distances, exact, atol=2e-7)
    again, other = draw(oracle, 5000, method=method), draw(oracle, 5000, seed=1, method=method)
    assert samples.points.tobytes() == again.points.tobytes()
    assert not np.array_equal(samples.points, other.points)
    assert len(np.unique(samples.points, axis=0)) == 5000


def test_the_fraction_of_uniform_points_is_as_given(oracle):
    """At beta 300 there are no importance samples far from the surface, so those are uniform samples."""
    samples = draw(oracle, 50_000, beta=300.0, uniform=0.2)
    rng = np.random.default_rng(2)
    ball = rng.uniform(-RADIUS, RADIUS, (200_000, 3))
    ball = ball[np.linalg.norm(ball, axis=1) < RADIUS]
    far = (np.abs(shapes.box_distance(ball, *HALF)) > 0.1).mean()
    assert (np.abs(samples.distances) > 0.1).mean() == pytest.approx(0.2 * far, rel=0.05)


def test_surface_and_vertex_samples_lie_on_the_mesh():
    vertices, faces = shapes.box(*HALF)
    oracle = SignedDistance(vertices, faces)
    surface = draw(oracle, method="surface", uniform=0.0)
    assert np.abs(surface.distances).mean() == pytest.approx(0.01 * np.sqrt(2 / np.pi), rel=0.1)
    vertex = draw(oracle, method="vertex", uniform=0.0)
    gap = np.linalg.norm(vertex.points[:, None] - vertices[None], axis=2).min(axis=1)
    assert gap.max() < 0.06


def test_weights_move_samples(oracle):
    weights = np.where(oracle.vertices[:, 0] > 0, 3.0, 1.0)
    samples = draw(oracle, beta=200.0, uniform=0.0, weights=weights)
    ends = np.abs(samples.points[:, 0]) > 0.59  # beside the two end faces, whose weights are constant
    right = (samples.points[ends, 0] > 0).mean()
    assert right == pytest.approx(0.75, abs=0.03)
    even = draw(oracle, beta=200.0, uniform=0.0, weights=np.full(len(oracle.vertices), 7.0))
    assert (
        kstest(even.points[:, 0], draw(oracle, seed=3, beta=200.0, uniform=0.0).points[:, 0]).pvalue > 0.001
    )


BAD = [
    {"method": "gauss"},
    {"beta": -1.0},
    {"uniform": 1.5},
    {"noise": ()},
    {"noise": [(0.0, 0.01)]},
    {"noise": [(1.0, -0.01)]},
    {"noise": [(1.0, np.nan)]},
    {"noise": [(1.0, 1.0, -5)]},
    {"box": ((0, 0, 0), (1, 1, 0))},
    {"box": ((0, 0), (1, 1))},
    {"box": ((0, 0, 0), (1, 1, np.inf))},
]


@pytest.mark.parametrize("bad", BAD, ids=str)
def test_invalid_options_are_usage_errors(bad):
    with pytest.raises(UsageError, match="`"):
        Density(**bad)


def test_weights_of_another_shape_are_usage_errors(oracle):
    with pytest.raises(UsageError, match="8 vertices"):
        Sampler(oracle, Density(), np.ones(3))
    with pytest.raises(UsageError, match="`sampling='surface'`"):
        Sampler(oracle, Density("surface"), np.ones(8))


def test_error_samples_lie_at_false_surfaces(oracle):
    """A field with a second, false surface far from the true one: the samples lie near the false one."""
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


def test_the_default_noise_is_one_gaussian(oracle):
    """The result of a seed depends on the order in which random numbers are drawn."""
    samples = draw(oracle, 1000, method="surface", uniform=0.25)
    rng = np.random.default_rng(0)
    points, _ = sample_surface(oracle.vertices, oracle.faces, 750, rng)
    points = points + rng.normal(scale=0.01, size=points.shape)
    expected = np.concatenate([points, uniform_ball(250, rng, RADIUS)]).astype(np.float32)
    assert samples.points.tobytes() == expected[rng.permutation(1000)].tobytes()
    assert Density().to_json() == {"method": "importance", "beta": 120.0, "uniform": 0.1}


def test_a_mixture_of_gaussians_has_its_weights_and_sigmas():
    """About a large flat face the distance is Gaussian: its distribution is the mixture's, in closed form."""
    plate = SignedDistance(*shapes.box(0.7, 0.7, 0.001))
    noise = (Noise(3, 0.02), Noise(1, 0.1))
    points, distances = draw(plate, 40_000, method="surface", uniform=0.0, noise=noise)
    middle = np.abs(points[:, :2]).max(axis=1) < 0.3
    z = points[middle, 2].astype(np.float64)
    from scipy.stats import norm

    assert kstest(z, lambda x: 0.75 * norm.cdf(x, scale=0.02) + 0.25 * norm.cdf(x, scale=0.1)).pvalue > 0.001
    np.testing.assert_allclose(distances[middle], np.abs(z) - 0.001, atol=1e-6)


def test_noise_grows_with_the_distance_to_the_neighbour():
    """Two equal balls of different densities: closer vertices have less noise."""
    fine, coarse = shapes.sphere(0.3, 5), shapes.sphere(0.3, 2)
    mesh = shapes.joined(shapes.moved(fine, [-0.5, 0, 0]), shapes.moved(coarse, [0.5, 0, 0]))
    oracle = SignedDistance(*mesh)
    points, distances = draw(oracle, 40_000, method="vertex", uniform=0.0, noise=[(1.0, 0.5, 8)])
    tree = cKDTree(oracle.vertices)
    for side in (-1, 1):
        of_ball = oracle.vertices[np.sign(oracle.vertices[:, 0]) == side]
        sigma = 0.5 * tree.query(of_ball, [9])[0]  # itself is the first
        found = distances[np.sign(points[:, 0]) == side]
        # Off the vertex along its normal, to first order.
        assert np.abs(found).mean() == pytest.approx(np.sqrt(2 / np.pi) * sigma.mean(), rel=0.1)


def test_the_distance_to_a_neighbour_is_among_the_points_drawn():
    oracle = SignedDistance(*shapes.sphere(0.7, 5))
    for count in (1000, 16_000):
        _, distances = draw(oracle, count, method="surface", uniform=0.0, noise=[(1.0, 1.0, 50)])
        # 50 neighbours of n points on an area 4 pi r^2 lie within r sqrt(200 / n).
        expected = 0.7 * np.sqrt(200 / count) * np.sqrt(2 / np.pi)
        assert np.abs(distances).mean() == pytest.approx(expected, rel=0.08)
    few = draw(oracle, 5, method="surface", uniform=0.0, noise=[(1.0, 1.0, 50)])  # the farthest of four
    assert np.isfinite(few.distances).all()
    assert np.abs(draw(oracle, 1, method="surface", uniform=0.0, noise=[(1.0, 1.0, 50)]).distances) < 1e-3


@pytest.mark.parametrize("method", METHODS)
def test_uniform_points_may_fill_a_box(oracle, method):
    low, high = (-1.2, -0.5, 0.0), (1.0, 0.5, 1.5)
    density = Density(method, uniform=1.0, box=(low, high))
    samples = Sampler(oracle, density).draw(20_000, np.random.default_rng(0))
    for axis in range(3):
        size = high[axis] - low[axis]
        assert kstest(samples.points[:, axis], "uniform", (low[axis], size)).pvalue > 0.001
    exact = shapes.box_distance(samples.points.astype(np.float64), *HALF)
    np.testing.assert_allclose(samples.distances, exact, atol=4e-7)


def test_surface_samples_have_the_normals_of_the_solid():
    vertices, faces = shapes.sphere(0.7, 5)
    for mesh in ((vertices, faces), shapes.inverted((vertices, faces))):
        points, normals = Sampler(SignedDistance(*mesh), Density()).draw_surface(
            20_000, np.random.default_rng(0)
        )
        radii = np.linalg.norm(points, axis=1, keepdims=True)
        np.testing.assert_allclose(radii, 0.7, atol=1e-3)
        assert (normals * points / radii).sum(axis=1).min() > 0.999  # outwards, however the file has it
        np.testing.assert_allclose(np.linalg.norm(normals, axis=1), 1, atol=1e-6)
        for axis in range(3):  # uniform by area: so is each coordinate
            assert kstest(points[:, axis] / radii[:, 0], "uniform", (-1, 2)).pvalue > 0.001


def test_a_density_survives_json():
    density = Density("surface", 60.0, 0.2, (Noise(1, 0.05), Noise(2, 1.0, 50)), ((-1, -1, -1), (1, 1, 2)))
    assert Density(**json.loads(json.dumps(density.to_json()))) == density
    assert Density(**Density().to_json()) == Density()
    assert Density().noise == (NOISE,)
