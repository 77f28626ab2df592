"""Checks of every backend: comparisons with float64 arithmetic and with torch's derivatives."""

from __future__ import annotations

import numpy as np
import pytest

from neuralsdf.backends import Backend, get_backend
from neuralsdf.program.network import Architecture

from .networks import exact_values, random_network


def comparable(hidden: tuple[int, ...], activation: str) -> tuple[int, ...]:
    """The layers up to which float32 and float64 agree: each sine multiplies rounding errors by 30."""
    return hidden[:2] if activation == "sine" else hidden


def check_values(backend: Backend, architecture: Architecture, count: int) -> None:
    """Values at `count` points equal those of float64 arithmetic."""
    network, points, _ = random_network(architecture, count)
    expected = exact_values(network, points)
    tolerance = 2e-5 * max(1.0, np.abs(expected).max())
    tolerance *= 30 if architecture.activation == "sine" else 1
    np.testing.assert_allclose(backend.compile(network).evaluate(points), expected, atol=tolerance)


def check_number_of_points(backend: Backend, count: int) -> None:
    """The default network evaluates `count` points, which may be none, with and without gradients."""
    network, points, _ = random_network(Architecture(), count)
    values = backend.compile(network).evaluate(points)
    assert values.shape == (count,)
    assert values.dtype == np.float32
    np.testing.assert_allclose(values, exact_values(network, points), atol=2e-5)
    with_gradient, gradient = backend.compile(network).evaluate_with_gradient(points)
    assert gradient.shape == (count, 3)
    np.testing.assert_allclose(with_gradient, values, atol=2e-6)


def check_point_gradients(backend: Backend, architecture: Architecture, count: int, agreeing: float) -> None:
    """The gradients with respect to points equal torch's, at this fraction of the points.

    A point within rounding of a ReLU's kink may have the gradient of either side. Torch's float32 is the
    reference, because float64 has its kinks elsewhere.
    """
    network, points, _ = random_network(architecture, count)
    (_, gradient), (_, expected) = (
        one.compile(network).evaluate_with_gradient(points) for one in (backend, get_backend("torch"))
    )
    close = np.abs(gradient - expected).max(axis=1) <= 1e-3 * np.abs(expected).max()
    assert close.mean() >= agreeing


def check_loss_gradient(backend: Backend, architecture: Architecture, count: int) -> None:
    """The loss and its gradient with respect to the weights equal torch's."""
    network, points, targets = random_network(architecture, count)
    (loss, gradient), (expected_loss, expected) = (
        one.loss_gradient(architecture, network.weights, points, targets)
        for one in (backend, get_backend("torch"))
    )
    assert loss == pytest.approx(expected_loss, rel=1e-4, abs=1e-6)
    assert np.abs(gradient - expected).max() <= 5e-3 * np.abs(expected).max()


def check_infinite_points(backend: Backend, architecture: Architecture) -> None:
    """Infinite coordinates give the values of float64 arithmetic.

    Backends pad layers: zero weights of the padding times infinity must not appear.
    """
    network, points, _ = random_network(architecture, 40)
    points[:20, 0] = np.inf
    points[20:, 1] = -np.inf
    with np.errstate(invalid="ignore"):
        expected = exact_values(network, points)
    np.testing.assert_allclose(backend.compile(network).evaluate(points), expected, atol=2e-5)
