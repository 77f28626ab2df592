"""Fields: the extension outside the ball, gradients, and the maps between model and mesh space."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from neuralsdf.array_types import FloatArray
from neuralsdf.backends import get_backend
from neuralsdf.fields.field import NeuralField
from neuralsdf.geometry.similarity_transform import Similarity
from neuralsdf.mesh.mesh import Source
from neuralsdf.program.network import Architecture, Network, initialise

from ..helpers.fields import Analytic, sphere


def half_space(normal: np.ndarray, offset: float) -> NeuralField:
    """The exact distance n.x - offset as a network of one unit: relu(n.x + 2) - 2 - offset in the ball."""
    weights = np.array([*normal, 2.0, 1.0, -2.0 - offset], np.float32)
    return NeuralField(Network(Architecture((1,), output="linear"), weights), Similarity.identity())


def distance_to_cap(points: np.ndarray, normal: np.ndarray, offset: float) -> np.ndarray:
    """Exact distances (n,) from points (n, 3) outside the unit ball to its part with n.x <= offset."""
    height = points @ normal
    on_plane = points - (height - offset)[:, None] * normal
    in_plane = on_plane - offset * normal
    directions = in_plane / np.linalg.norm(in_plane, axis=1, keepdims=True)
    rim = offset * normal + np.sqrt(1 - offset**2) * directions
    radii = np.linalg.norm(points, axis=1)
    to_plane = np.where(
        np.linalg.norm(on_plane, axis=1) <= 1, height - offset, np.linalg.norm(points - rim, axis=1)
    )
    return np.where(height / radii <= offset, radii - 1, to_plane)


def smooth(seed: int, transform: Similarity | None = None) -> NeuralField:
    architecture = Architecture((16, 16), activation="tanh")
    weights = initialise(architecture, seed)
    weights[-1] = 0.5  # positive on most of the ball, as a shape within it is
    return NeuralField(Network(architecture, weights), transform or Similarity.identity())


def unit_vectors(count: int, seed: int) -> np.ndarray:
    vectors = np.random.default_rng(seed).normal(size=(count, 3))
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def in_shell(count: int, low: float, high: float, seed: int) -> FloatArray:
    radii = np.random.default_rng([seed, 1]).uniform(low, high, (count, 1))
    return (unit_vectors(count, seed) * radii).astype(np.float32)


def rotation(seed: int) -> np.ndarray:
    q, _ = np.linalg.qr(np.random.default_rng(seed).normal(size=(3, 3)))
    return q


def test_repr_is_one_line_without_weights() -> None:
    field = smooth(0, Similarity.from_ball([1.0, 2.0, 3e-17], 4.0))
    assert repr(field) == "NeuralField(2x16 tanh, centre (1, 2, 0), radius 4)"
    made = replace(
        field, source=Source("a'.ply", "0" * 64, 12, 99, unit="mm"), metrics={"iou": 0.99}, unit=None
    )
    assert repr(made) == ('NeuralField(of "a\'.ply", 2x16 tanh, centre (1, 2, 0), radius 4 mm, IoU 0.9900)')


def test_inside_the_ball_the_value_is_that_of_the_network() -> None:
    field, points = smooth(0), in_shell(500, 0, 1, 0)
    expected = get_backend().compile(field.network).evaluate(points)
    assert np.array_equal(field.value(points), expected)


@given(seed=st.integers(0, 1000))
@settings(max_examples=20)
def test_the_extension_is_continuous_where_it_is_not_negative(seed: int) -> None:
    field, directions = smooth(seed), unit_vectors(200, seed).astype(np.float32)
    inner, outer = (field.value(directions * np.float32(1 + step)) for step in (-1e-5, 1e-5))
    outside = inner >= 0
    assert np.abs(inner - outer)[outside].max(initial=0) < 1e-4


@given(seed=st.integers(0, 1000), offset=st.floats(-0.9, 0.9))
@settings(max_examples=25)
def test_the_extension_is_a_lower_bound_of_the_distance(seed: int, offset: float) -> None:
    normal = unit_vectors(1, seed)[0]
    points = in_shell(500, 1, 3, seed)
    distance = distance_to_cap(points.astype(np.float64), normal, offset)
    assert (half_space(normal, offset).value(points) <= distance + 1e-5).all()


@given(seed=st.integers(0, 1000), offset=st.floats(-0.9, 0.9))
@settings(max_examples=25)
def test_the_extension_is_1_lipschitz_if_the_network_is(seed: int, offset: float) -> None:
    field = half_space(unit_vectors(1, seed)[0], offset)
    a, b = in_shell(500, 1.001, 3, seed), in_shell(500, 1.001, 3, seed + 1)
    b = a + (b - a) * np.float32(0.05)
    outside = np.linalg.norm(b, axis=1) > 1
    change = np.abs(field.value(a) - field.value(b))[outside]
    assert (change <= np.linalg.norm(a - b, axis=1)[outside] + 1e-5).all()


def test_far_away_the_extension_is_at_least_the_distance_to_the_ball() -> None:
    field, points = smooth(1), in_shell(200, 10, 1e6, 4)
    radii = np.linalg.norm(points.astype(np.float64), axis=1)
    values = field.value(points)
    assert (values >= (radii - 1) * (1 - 1e-6)).all()
    assert (values <= radii + 1).all()


@pytest.mark.parametrize(("low", "high"), [(0.0, 0.95), (1.05, 3.0)])
def test_the_gradient_is_that_of_the_value(low: float, high: float) -> None:
    field, points, step = smooth(2), in_shell(300, low, high, 5), 4e-3
    values, gradients = field.value_and_gradient(points.copy())
    assert np.allclose(values, field.value(points), atol=1e-6)
    moves = step * np.eye(3, dtype=np.float32)
    differences = [(field.value(points + m) - field.value(points - m)) / (2 * step) for m in moves]
    error = np.abs(np.stack(differences, axis=1) - gradients).max(axis=1)
    # At a negative point of the sphere the extension has a kink, which some differences may cross.
    assert np.quantile(error, 0.97) < 2e-3


@given(seed=st.integers(0, 1000), exponent=st.floats(-9, 9))
@settings(max_examples=25)
def test_distances_scale_and_gradients_rotate_with_the_transform(seed: int, exponent: float) -> None:
    matrix = np.eye(4)
    scale, turn = 10.0**exponent, rotation(seed)
    matrix[:3, :3], matrix[:3, 3] = scale * turn, scale * np.array([3.0, -2.0, 1.0])
    model, moved = smooth(seed), smooth(seed, Similarity(matrix))
    points = in_shell(50, 0, 2, seed)
    placed = moved.transform.apply(points)
    values, gradients = model.value_and_gradient(points)
    distances, slopes = moved.block_distance_and_gradient(placed, bound=True)
    assert np.allclose(moved.distance(placed, bound=True), values * scale, rtol=0, atol=3e-5 * scale)
    assert np.allclose(distances, values * scale, rtol=0, atol=3e-5 * scale)
    # Where a point is within rounding of the ball's surface, the gradient may be either side's.
    clear = np.abs(np.linalg.norm(points, axis=1) - 1) > 1e-3
    assert np.allclose(slopes[clear], (gradients @ turn.T)[clear], atol=2e-3)


def test_an_exact_field_gives_the_mesh_distance() -> None:
    field = Analytic(sphere(0.5), Similarity.from_ball([10.0, 20.0, 30.0], 4.0))
    points = np.array([[10.0, 20.0, 30.0], [10.0, 20.0, 35.0], [12.0, 20.0, 30.0]])
    assert np.allclose(field.distance(points), [-2.0, 3.0, 0.0], atol=1e-6)


def test_an_empty_query_has_an_empty_result() -> None:
    values, gradients = smooth(0).value_and_gradient(np.empty((0, 3), np.float32))
    assert values.shape == (0,)
    assert gradients.shape == (0, 3)
