"""
sphere_tracing.py
-----------------
Sphere tracing (Hart 1996; paper, section 2.3) of any function of points in NumPy: rays step by the field's
value, and only active rays are evaluated. Used for fields that no backend traces itself, and as the reference
for the others.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from ...array_types import FloatArray, Mask
from ..value_outside_ball import Placed

Evaluate = Callable[[FloatArray], FloatArray]

#: Largest level of a table of safe steps, which starts at 0. The ball has a diameter of 2.
MAX_LEVEL = 2.0

#: More steps than the smallest step needs to cross the ball.
MAX_STEPS = 4096

#: A value slightly below zero where a ray enters the ball is a shape that touches the ball, plus the
#: network's error: it is drawn, closed by the ball. A lower value cannot belong to a shape: the ray passes
#: through it.
TOUCH_DEPTH = 0.03

#: Root finding stops when the value or bracket is this small, or after `ROOT_STEPS` evaluations.
ROOT_TOLERANCE, ROOT_STEPS = 2e-6, 40


class Traced(NamedTuple):
    """Results of n rays: hit (n,); t (n,) float32 of the surface (0 without a hit); unresolved (n,), neither
    hit nor left; buried (n,), started deep inside the solid on the ball; and the number of evaluated
    points."""

    hit: Mask
    t: FloatArray
    unresolved: Mask
    buried: Mask
    evaluations: int


class SoftShadow(NamedTuple):
    """Parameters of a soft shadow: t of the first point, minimum and maximum step, and maximum number of
    steps; `sharpness` multiplies value / t, and a light fraction below `dark` counts as none."""

    first: float = 0.01
    min_step: float = 0.012
    max_step: float = 0.4
    steps: int = 96
    sharpness: float = 9.0
    dark: float = 0.004


def trace(
    evaluate: Evaluate,
    begin: FloatArray,
    directions: FloatArray,
    ends: FloatArray,
    at_ball: Mask,
    steps: FloatArray,
) -> Traced:
    """`Program.trace` of `evaluate`, which returns values (n,) at points (n, 3)."""
    count = len(begin)
    evaluations = 0
    t, before, value_before, last = (np.zeros(count, np.float32) for _ in range(4))
    hit, unresolved, buried, outside = (np.zeros(count, np.bool_) for _ in range(4))
    live = np.arange(count)
    for step_index in range(MAX_STEPS):
        if not live.size:
            break
        evaluations += len(live)
        value = evaluate(_along(begin, directions, live, t[live]))
        inside = value < 0
        if step_index == 0:
            touching = at_ball & (value >= -TOUCH_DEPTH)
            buried = inside & at_ball & ~touching
            outside = touching.copy()
        lost = ~np.isfinite(value)
        unresolved[live[lost]] = True
        # Once a ray has been outside the solid, a negative value is a hit.
        landed = inside & outside[live] & ~lost
        hit[live[landed]] = True
        last[live[landed]] = value[landed]
        outside[live] |= ~inside
        going = ~(landed | lost)
        live, value = live[going], value[going]
        before[live], value_before[live] = t[live], value
        t[live] += _step(steps, np.abs(value))
        live = live[t[live] < ends[live]]
    unresolved[live] = True
    bracketed = np.flatnonzero(hit & (t > 0))
    t[bracketed], more = _root(
        evaluate,
        begin[bracketed],
        directions[bracketed],
        (before[bracketed], value_before[bracketed]),
        (t[bracketed], last[bracketed]),
    )
    t[~hit] = 0
    return Traced(hit, t, unresolved, buried, evaluations + more)


def _step(steps: FloatArray, distance: FloatArray) -> FloatArray:
    """Safe steps (n,) at points with these absolute values (n,), interpolated between levels."""
    level = np.minimum(distance, np.float32(MAX_LEVEL)) * np.float32((len(steps) - 1) / MAX_LEVEL)
    below = np.minimum(level.astype(np.int32), len(steps) - 2)
    low, high = steps.take(below), steps.take(below + 1)
    return np.asarray(low + (level - below.astype(np.float32)) * (high - low), np.float32)


def _root(
    evaluate: Evaluate,
    begin: FloatArray,
    directions: FloatArray,
    low: tuple[FloatArray, FloatArray],
    high: tuple[FloatArray, FloatArray],
) -> tuple[FloatArray, int]:
    """t (n,) of the root between `low` and `high`, pairs of t and value, value >= 0 and < 0; and evaluations.

    Regula falsi with Illinois weights; every fourth step bisects, for discontinuous fields.
    """
    a, fa, b, fb = (array.copy() for array in (*low, *high))
    root = b.copy()
    kept_low = np.zeros(len(begin), np.int8)  # -1, 1: the last step kept the high, the low end
    live = np.arange(len(begin))
    evaluations = 0
    for iteration in range(ROOT_STEPS):
        if not live.size:
            break
        middle = a[live] + (b[live] - a[live]) * (
            np.float32(0.5) if iteration % 4 == 3 else fa[live] / (fa[live] - fb[live])
        )
        evaluations += len(live)
        value = evaluate(_along(begin, directions, live, middle))
        root[live] = middle
        below = value < 0
        inner, outer = live[below], live[~below]
        b[inner], fb[inner] = middle[below], value[below]
        a[outer], fa[outer] = middle[~below], value[~below]
        # Halve the value of an end kept twice, so that the other end does not stall.
        fa[inner[kept_low[inner] > 0]] *= np.float32(0.5)
        fb[outer[kept_low[outer] < 0]] *= np.float32(0.5)
        kept_low[inner], kept_low[outer] = 1, -1
        live = live[(np.abs(value) > ROOT_TOLERANCE) & (b[live] - a[live] > ROOT_TOLERANCE)]
    return root, evaluations


def soft_shadow(
    evaluate: Evaluate, begin: FloatArray, directions: FloatArray, ends: FloatArray, cone: SoftShadow
) -> tuple[FloatArray, int]:
    """`Program.soft_shadow` of `evaluate`, which returns values (n,) at points (n, 3)."""
    light = np.ones(len(begin), np.float32)
    t = np.full(len(begin), cone.first, np.float32)
    live = np.arange(len(begin))
    evaluations = 0
    for _ in range(cone.steps):
        live = live[(t[live] < ends[live]) & (light[live] > cone.dark)]
        if not live.size:
            break
        evaluations += len(live)
        value = evaluate(_along(begin, directions, live, t[live]))
        seen = np.maximum(np.float32(cone.sharpness) * value / t[live], np.float32(0))
        light[live] = np.minimum(light[live], seen)
        t[live] += np.clip(value, np.float32(cone.min_step), np.float32(cone.max_step))
    return light, evaluations


def _along(begin: FloatArray, directions: FloatArray, chosen: npt.NDArray[Any], t: FloatArray) -> FloatArray:
    """Points (n, 3) at t (n,) of the chosen rays; `take` gathers rows four times as fast as indexing."""
    points = directions.take(chosen, axis=0)
    points *= t[:, None]
    points += begin.take(chosen, axis=0)
    return points


class Marched(Placed):
    """A program that traces rays with `evaluate`.

    lipschitz: Lipschitz constant of the values; shadows use the values divided by it.
    """

    lipschitz = 1.0

    def trace(
        self, begin: FloatArray, directions: FloatArray, ends: FloatArray, at_ball: Mask, steps: FloatArray
    ) -> Traced:
        """Trace rays (n,): see `Program.trace`."""
        return trace(self.evaluate, begin, directions, ends, at_ball, steps)

    def soft_shadow(
        self, begin: FloatArray, directions: FloatArray, ends: FloatArray, cone: SoftShadow
    ) -> tuple[FloatArray, int]:
        """Fraction (n,) of light, and the number of evaluations: see `Program.soft_shadow`."""
        scale = np.float32(1 / self.lipschitz)
        return soft_shadow(lambda points: self.evaluate(points) * scale, begin, directions, ends, cone)
