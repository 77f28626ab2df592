"""Distances, gradients and closest points against shapes whose distance is known."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from neuralsdf.errors import FieldKindError, UsageError
from neuralsdf.fields import query
from neuralsdf.fields.query import closest_points, gradient, signed_distance
from neuralsdf.geometry.similarity_transform import Similarity

from ..helpers.fields import Analytic, box, bumpy, sphere, torus

PLACED = Similarity.from_ball([100.0, -50.0, 7.0], 20.0)


def around(count: int, seed: int = 0) -> np.ndarray:
    """Points of mesh space in and around the ball of `PLACED`."""
    return PLACED.apply(np.random.default_rng(seed).uniform(-1.5, 1.5, (count, 3)))


def test_distance_and_gradient_of_a_sphere() -> None:
    field, points = Analytic(sphere(0.5), PLACED), around(1000)
    offsets = points - PLACED.centre
    radii = np.linalg.norm(offsets, axis=1)
    assert np.allclose(signed_distance(field, points), radii - 10.0, atol=1e-5)
    assert np.allclose(gradient(field, points), offsets / radii[:, None], atol=1e-4)


def test_closest_points_of_a_sphere() -> None:
    field, points = Analytic(sphere(0.5), PLACED), around(1000)
    offsets = points - PLACED.centre
    expected = PLACED.centre + 10.0 * offsets / np.linalg.norm(offsets, axis=1, keepdims=True)
    found = closest_points(field, points)
    assert np.abs(found.points - expected).max() < 2e-3
    assert found.residual.max() < 1e-4


def test_closest_points_of_a_torus_are_at_the_distance() -> None:
    field, points = Analytic(torus(0.6, 0.25), PLACED), around(1000)
    found = closest_points(field, points)
    travelled = np.linalg.norm(found.points - points, axis=1)
    assert np.allclose(travelled, np.abs(signed_distance(field, points)), atol=1e-3)


@pytest.mark.parametrize("steepness", [0.7, 1.3])
def test_closest_points_converge_where_the_gradient_norm_is_not_1(steepness: float) -> None:
    exact = torus(0.6, 0.25)
    field = Analytic(bumpy(lambda p: steepness * exact(p), 0.01, 10.0), PLACED)
    found = closest_points(field, around(500))
    assert np.quantile(found.residual, 0.99) < 1e-4 * PLACED.scale
    assert np.abs(field.distance(found.points)) == pytest.approx(found.residual, abs=1e-9)


@given(seed=st.integers(0, 1000))
@settings(max_examples=20)
def test_the_closest_point_is_never_farther_from_the_surface_than_the_point(seed: int) -> None:
    field, points = Analytic(bumpy(box(0.5, 0.4, 0.3), 0.05, 30.0), PLACED), around(50, seed)
    assert (closest_points(field, points).residual <= np.abs(field.distance(points))).all()


def test_results_do_not_depend_on_the_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    field, points = Analytic(torus(0.6, 0.25), PLACED), around(1000)
    whole = signed_distance(field, points), closest_points(field, points).points
    monkeypatch.setattr(query, "BLOCK", 77)
    assert np.array_equal(signed_distance(field, points), whole[0])
    assert np.array_equal(closest_points(field, points).points, whole[1])


def test_points_that_are_not_finite_give_nan_and_change_no_others() -> None:
    field, points = Analytic(sphere(0.5), PLACED), around(5)
    expected = signed_distance(field, points)
    points[1, 2], points[3, 0] = np.nan, np.inf
    found = closest_points(field, points)
    for result in (signed_distance(field, points), gradient(field, points)[:, 0], found.residual):
        assert np.isnan(result).tolist() == [False, True, False, True, False]
    assert np.array_equal(signed_distance(field, points)[[0, 2, 4]], expected[[0, 2, 4]])


def test_an_empty_query_has_an_empty_result() -> None:
    field = Analytic(sphere(0.5), PLACED)
    assert signed_distance(field, np.empty((0, 3))).shape == (0,)
    assert closest_points(field, np.empty((0, 3))).points.shape == (0, 3)


def test_an_occupancy_field_has_no_distance() -> None:
    field = Analytic(sphere(0.5))
    field.kind = "occupancy"
    for function in (signed_distance, gradient, closest_points):
        with pytest.raises(FieldKindError, match="has no distance"):
            function(field, np.zeros((1, 3)))


@pytest.mark.parametrize("shape", [(), (2,), (2, 2), (1, 3, 1), (3, 0)])
def test_points_of_another_shape_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(UsageError, match=r"\(..., 3\)"):
        signed_distance(Analytic(sphere(0.5)), np.zeros(shape))
