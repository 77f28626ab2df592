"""
step_length.py
--------------
How far a ray may step at each value of a field. Sphere tracing would miss surfaces if it stepped by the value
where the gradient norm exceeds 1, so gradient norms are measured in advance.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import numpy as np

from ..array_types import FloatArray, Points
from ..backends.reference.sphere_tracing import MAX_LEVEL
from ..geometry.unit_ball import uniform_ball
from .ball_chord import BALL_RADIUS

#: Minimum step. Without it, rays along the surface would take too many steps. Chords shorter than this can be
#: missed: an eighth of a pixel in a picture of 512 x 512.
MIN_STEP = 5e-4

#: Number of levels, from 0 to `MAX_LEVEL`, for which the safe step is tabulated.
TABLE_SIZE = 1025

#: Levels that bound the intervals in which gradient norms are measured.
_LEVELS = np.concatenate([[0.0], np.geomspace(0.002, MAX_LEVEL, 16)])

#: Minimum number of samples in an interval, and the quantile of the norms that is used.
_MIN_SAMPLES, _QUANTILE = 32, 0.99

#: Returns values (n,) and gradients (n, 3) at points (n, 3) float32.
ValueAndGradient = Callable[[FloatArray], tuple[FloatArray, FloatArray]]


def step_lengths(field: ValueAndGradient, lipschitz: float, seed: int) -> FloatArray:
    """Safe steps of a ray for `TABLE_SIZE` levels of a field, from 0 to `MAX_LEVEL`.

    The gradient norm of a network exceeds 1 in places, and values there can exceed the distance. Between
    level v and the surface a ray crosses every level u in between, where the gradient norm is at most
    L(u). So it can safely step by the integral of du / L(u) from 0 to v. L is the 99th percentile of the
    norms sampled at a level, and at least `lipschitz`, the field's Lipschitz constant. The maximum is not
    used: it occurs in tiny regions, and would cost many steps for few pixels.
    """
    values, norms = _sample_norms(field, np.random.default_rng(seed))
    # At least 1, so that no step exceeds the value itself.
    bounds = np.full(len(_LEVELS) - 1, max(1.0, lipschitz))
    for index, (low, high) in enumerate(pairwise(_LEVELS)):
        samples = norms[(values >= low) & (values < high)]
        if samples.size >= _MIN_SAMPLES:
            bounds[index] = max(bounds[index], float(np.quantile(samples, _QUANTILE)))
    steps = np.concatenate([[0.0], np.cumsum(np.diff(_LEVELS) / bounds)])
    table = np.interp(np.linspace(0, MAX_LEVEL, TABLE_SIZE), _LEVELS, steps)
    return np.asarray(np.maximum(table, MIN_STEP), np.float32)


def _sample_norms(field: ValueAndGradient, rng: np.random.Generator) -> tuple[FloatArray, FloatArray]:
    """Absolute values (n,) and gradient norms (n,) at random points of the ball and near the surface."""
    points = uniform_ball(16384, rng)
    values, norms, gradients = _evaluate(field, points)
    # A Newton step moves the points near the surface, where most steps are taken.
    near = points - (values / np.maximum(norms, 0.3) ** 2)[:, None] * gradients
    near += rng.normal(size=near.shape) * rng.choice([0.003, 0.01, 0.03], size=(len(near), 1))
    near_values, near_norms, _ = _evaluate(field, near[np.linalg.norm(near, axis=1) < BALL_RADIUS])
    return np.abs(np.concatenate([values, near_values])), np.concatenate([norms, near_norms])


def _evaluate(field: ValueAndGradient, points: Points) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Values (n,), gradient norms (n,) and gradients (n, 3) at points (n, 3)."""
    values, gradients = field(points.astype(np.float32))
    return values, np.linalg.norm(gradients, axis=1), gradients
