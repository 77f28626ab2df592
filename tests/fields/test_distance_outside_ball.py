"""Distances and closest points of networks outside their balls, against shapes whose distance is known."""

from __future__ import annotations

import threading

import numpy as np
import pytest

from neuralsdf.backends import Backend, backend_on
from neuralsdf.csg import box, from_field, sphere
from neuralsdf.errors import NoSurfaceError
from neuralsdf.fields.exact_distance import signed_distance
from neuralsdf.fields.field import NeuralField
from neuralsdf.fields.query import closest_points, gradient
from neuralsdf.fields.query import signed_distance as distances
from neuralsdf.geometry.bvh import IglBVH
from neuralsdf.geometry.similarity_transform import Similarity
from neuralsdf.geometry.unit_ball import normalisation
from neuralsdf.mesh.load_mesh import load_mesh
from neuralsdf.pipeline.convert import fit_mesh
from neuralsdf.program.network import Network
from neuralsdf.training.fit_settings import Training

from ..helpers.fields import octahedron

SIZE, SCALE = 0.8, 20.0
#: Side of a cell at resolution 256, in mesh units: marching cubes cuts off no more of a corner.
CELL = SCALE * 2 / 254


def placed(network: Network | None = None, backend: Backend | None = None) -> NeuralField:
    """An octahedron, turned, with corners 16 from its centre (100, -50, 7)."""
    turn, _ = np.linalg.qr(np.random.default_rng(5).normal(size=(3, 3)))
    matrix = np.eye(4)
    matrix[:3, :3], matrix[:3, 3] = SCALE * turn, (100, -50, 7)
    return NeuralField(network or octahedron(SIZE), Similarity(matrix), chosen_backend=backend)


def faces_of(field: NeuralField) -> IglBVH:
    corners = field.transform.apply(SIZE * np.vstack([np.eye(3), -np.eye(3)]))
    faces = [[x, 1 + y, 2 + z] for x in (0, 3) for y in (0, 3) for z in (0, 3)]
    return IglBVH(corners, np.array(faces, np.int64))


def outside(field: NeuralField, count: int = 2000, low: float = 1.001, high: float = 3.0) -> np.ndarray:
    """Points of mesh space outside the field's ball."""
    rng = np.random.default_rng(0)
    points = rng.normal(size=(count, 3))
    points *= rng.uniform(low, high, (count, 1)) / np.linalg.norm(points, axis=1, keepdims=True)
    return field.transform.apply(points)


@pytest.mark.parametrize("device", ["auto", "torch"])
def test_distances_outside_the_ball_are_true(device: str) -> None:
    field = placed(backend=backend_on(device))
    points = outside(field)
    exact = faces_of(field).distance(points)
    error = np.abs(distances(field, points) - exact)
    assert error.max() < 0.6 * CELL  # in line with a corner
    assert np.quantile(error, 0.9) < 1e-4
    np.testing.assert_array_equal(field.distance(points), distances(field, points))
    # Tracing and trees still use the bound.
    bounds = distances(field, points, bound=True)
    values = field.value(field.transform.apply_inverse(points).astype(np.float32)) * SCALE
    np.testing.assert_allclose(bounds, values, atol=1e-4)
    assert (bounds < 0.9 * exact).mean() > 0.3


def test_gradients_outside_the_ball_point_away_from_the_closest_point() -> None:
    field = placed()
    points = outside(field)
    distance, slopes = field.block_distance_and_gradient(points)
    np.testing.assert_allclose(distance, field.distance(points), atol=1e-9)
    np.testing.assert_allclose(np.linalg.norm(slopes, axis=1), 1, atol=1e-12)
    assert faces_of(field).distance(points - distance[:, None] * slopes).max() < 0.6 * CELL
    np.testing.assert_array_equal(gradient(field, points), slopes)
    bound = field.block_distance_and_gradient(points, bound=True)
    np.testing.assert_allclose(bound[0], field.distance(points, bound=True), atol=1e-4)
    assert np.abs(bound[1] - slopes).max() > 0.1


def test_distances_inside_the_ball_are_unchanged() -> None:
    field = placed()
    points = outside(field, low=0, high=0.999)
    local = field.transform.apply_inverse(points).astype(np.float32)
    np.testing.assert_allclose(distances(field, points), field.value(local) * SCALE, atol=1e-4)
    assert "surface" not in vars(field)  # it was not needed


def test_closest_points_are_at_the_distance() -> None:
    field = placed()
    points = outside(field)
    found = closest_points(field, points)
    travelled = np.linalg.norm(found.points - points, axis=1)
    np.testing.assert_allclose(travelled, distances(field, points), atol=1e-9)
    assert faces_of(field).distance(found.points).max() < 1e-4
    assert found.residual.max() < 1e-4
    # Also inside, where the gradient norm of this field is 1.7.
    inner = outside(field, low=0, high=0.999)
    travelled = np.linalg.norm(closest_points(field, inner).points - inner, axis=1)
    assert np.abs(travelled - faces_of(field).distance(inner)).max() < 0.6 * CELL


@pytest.mark.parametrize("away", [1e3, 1e6, 1e17])
def test_points_may_be_far_away(away: float) -> None:
    field = placed()
    points = outside(field, 50, away, 2 * away)
    exact = faces_of(field).distance(points) if away < 1e6 else np.linalg.norm(points - (100, -50, 7), axis=1)
    np.testing.assert_allclose(
        distances(field, points), exact, atol=CELL if away < 1e6 else SCALE, rtol=1e-12
    )
    np.testing.assert_allclose(np.linalg.norm(gradient(field, points), axis=1), 1)
    assert np.isnan(distances(field, points * 1e20)).all()


def test_a_network_without_a_surface_has_no_distance_outside() -> None:
    network = octahedron(SIZE)
    network.weights[-1] = 1  # positive everywhere
    field = placed(network)
    points = outside(field, 10)
    for ask in (field.distance, field.gradient):
        with pytest.raises(NoSurfaceError):
            ask(points)
        ask(points, bound=True)
        ask(outside(field, 10, 0, 0.9))
    with pytest.raises(NoSurfaceError):
        closest_points(field, points)


def test_concurrent_threads_share_the_surface() -> None:
    field, start, results = placed(), threading.Barrier(4), []
    points = outside(field, 100)

    def ask() -> None:
        start.wait()
        results.append(field.distance(points).tobytes())

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(results) == 4
    assert len(set(results)) == 1


def test_a_tree_reports_whether_its_distances_are_bounds() -> None:
    leaf = from_field(placed(), "a.h5")
    assert not sphere(1).scale(2).is_bound
    assert leaf.is_bound
    assert (box(1) - sphere(0.2)).is_bound
    assert not placed().is_bound


def test_distances_of_two_surfaces_differ_by_at_most_their_hausdorff_distance(test_data) -> None:
    """|d(p, A) - d(p, B)| is at most the Hausdorff distance of A and B, which is measured."""
    mesh = load_mesh(test_data / "meshes" / "stanford-bunny.obj")
    made = fit_mesh(mesh, samples=60_000, training=Training(epochs=6), seed=0)
    field = made.field
    oracle = signed_distance(mesh, normalisation(mesh.vertices), backend=field.backend)
    points = outside(field, 3000, 1.001, 1.5)
    exact = oracle.signed(field.transform.apply_inverse(points))
    error = np.abs(distances(field, points) / field.transform.scale - exact)
    assert error.max() < 1.05 * field.metrics["hausdorff"]
    bounds = distances(field, points, bound=True) / field.transform.scale
    assert error.mean() < np.abs(bounds - exact).mean() / 3
    for places in (points, outside(field, 3000, 0, 0.999)):
        found = closest_points(field, places)
        apart = np.abs(np.linalg.norm(found.points - places, axis=1) - np.abs(distances(field, places)))
        assert apart.mean() / field.transform.scale < max(1e-9, 2 * field.metrics["far_error"])
        assert np.quantile(found.residual / field.transform.scale, 0.99) < 1e-5
