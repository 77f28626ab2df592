"""The reference optimizers, compared with direct implementations of their formulas."""

from __future__ import annotations

import numpy as np
import pytest

from neuralsdf.backends.reference.optimizer_steps import make_stepper
from neuralsdf.errors import UsageError
from neuralsdf.program.network import Architecture, initialise
from neuralsdf.program.optimizer_settings import get_optimizer

ARCHITECTURE = Architecture((8, 8, 5, 8))


@pytest.fixture
def gradients() -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    scale = rng.uniform(0.1, 2, ARCHITECTURE.weight_count)
    return [(rng.standard_normal(ARCHITECTURE.weight_count) * scale).astype(np.float32) for _ in range(25)]


def test_adam_is_the_formula_of_kingma_and_ba(gradients):
    weights = initialise(ARCHITECTURE, 0)
    expected = weights.astype(np.float64)
    optimizer, m, v = make_stepper(get_optimizer("adam"), ARCHITECTURE), 0.0, 0.0
    for t, g in enumerate(gradients, start=1):
        optimizer.step(weights, g, 1e-2)
        m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g.astype(np.float64) ** 2
        expected -= 1e-2 * (m / (1 - 0.9**t)) / (np.sqrt(v / (1 - 0.999**t)) + 1e-8)
    np.testing.assert_allclose(weights, expected, atol=2e-6)


def _soap_of_one_layer(matrix, gradients, rate, beta=0.95, refresh=10):
    """SOAP as its paper defines it, for one matrix in float64; the initial basis is the identity."""
    left = right = mean = square = 0.0
    q_left, q_right = np.eye(len(matrix)), np.eye(matrix.shape[1])
    for t, g in enumerate(gradients, start=1):
        left, right = beta * left + (1 - beta) * g @ g.T, beta * right + (1 - beta) * g.T @ g
        mean = beta * mean + (1 - beta) * g
        square = beta * square + (1 - beta) * (q_left.T @ g @ q_right) ** 2
        correct = 1 - beta**t
        adam = (q_left.T @ mean @ q_right / correct) / (np.sqrt(square / correct) + 1e-8)
        matrix = matrix - rate * q_left @ adam @ q_right.T
        if t % refresh == 0:
            q_left, q_right = np.linalg.qr(left @ q_left)[0], np.linalg.qr(right @ q_right)[0]
    return matrix


def test_soap_is_adam_in_the_eigenbasis_of_each_layer():
    # 25 gradients give preconditioners of full rank: in a null space the basis is arbitrary.
    architecture = Architecture((4, 5, 6))
    rng = np.random.default_rng(0)
    gradients = [rng.standard_normal(architecture.weight_count).astype(np.float32) for _ in range(25)]
    weights = initialise(architecture, 0)
    start = weights.copy()
    optimizer = make_stepper(get_optimizer("soap"), architecture)
    for g in gradients:
        optimizer.step(weights, g, 1e-2)
    offset = 0
    for rows, columns in architecture.layer_shapes:
        layer = slice(offset, offset + (rows + 1) * columns)
        offset = layer.stop
        matrices = [g[layer].reshape(rows + 1, columns).astype(np.float64) for g in gradients]
        expected = _soap_of_one_layer(
            start[layer].reshape(rows + 1, columns).astype(np.float64), matrices, 1e-2
        )
        np.testing.assert_allclose(weights[layer], expected.ravel(), atol=1e-4)


@pytest.mark.parametrize("name", ["soap", "adam"])
def test_an_ill_conditioned_quadratic_is_minimised(name):
    """0.5 (w - w*)^T D (w - w*) with curvatures from 1 to 1000."""
    optimizer = make_stepper(get_optimizer(name), ARCHITECTURE)
    rng = np.random.default_rng(1)
    target = rng.standard_normal(ARCHITECTURE.weight_count).astype(np.float32)
    curvature = np.logspace(0, 3, ARCHITECTURE.weight_count).astype(np.float32)
    weights = np.zeros_like(target)
    for step in range(1500):
        optimizer.step(weights, curvature * (weights - target), 0.02 * (1 - step / 1500))
    assert np.abs(weights - target).max() < 0.02


def test_an_unknown_name_names_the_known_ones():
    with pytest.raises(UsageError, match="soap, adam"):
        get_optimizer("lion")
