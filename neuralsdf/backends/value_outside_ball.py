"""
value_outside_ball.py
---------------------
Extension of a network's field to all of space. A network is only valid in the unit ball. Outside, with y the
closest point of the ball and a = |x - y|, the value is sqrt(a^2 + max(f(y), 0)^2): continuous, and a lower
bound of the distance if f(y) is correct.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import numpy.typing as npt

from ..array_types import FloatArray, Mask, Values
from ..geometry.similarity_transform import Similarity

if TYPE_CHECKING:
    from . import Program


#: Largest coordinate (model units) that can be squared in float32; beyond it the value is NaN.
FARTHEST = 1e18


class Placed(ABC):
    """Implements `Program.distance` on top of `evaluate`: the reference for programs that have their own.

    in_ball: whether values are only valid in the unit ball, as a network's are, and extended outside.
    """

    in_ball: ClassVar[bool] = False

    @abstractmethod
    def evaluate(self, points: FloatArray) -> FloatArray:
        """Values (n,) at points (n, 3)."""

    def distance(self, points: npt.NDArray[Any], transform: Similarity) -> tuple[Values, Mask]:
        """Distances (n,) in mesh units, and a mask of points outside the ball: see `Program.distance`."""
        inner, excess = model_points(points, transform), None
        if self.in_ball:
            inner, excess = into_ball(inner)
        values = self.evaluate(inner)
        if excess is None:
            return values.astype(np.float64) * transform.scale, np.zeros(len(values), np.bool_)
        return extended(values, excess).astype(np.float64) * transform.scale, excess > 0


class Extended:
    """A network's program, extended to all of space: a `tape_format.HostField`."""

    def __init__(self, program: Program) -> None:
        self._program = program

    def value(self, points: FloatArray) -> FloatArray:
        """Values (n,) at points (n, 3)."""
        inner, excess = into_ball(points)
        values = self._program.evaluate(inner)
        return values if excess is None else extended(values, excess)

    def value_and_gradient(self, points: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Values (n,) and gradients (n, 3) at points (n, 3)."""
        inner, excess = into_ball(points)
        values, gradients = self._program.evaluate_with_gradient(inner)
        if excess is None:
            return values, gradients
        beyond = extended(values, excess)
        outside = excess > 0
        radial = inner[outside]  # on the unit sphere: equal to the outward normal
        inside_value = np.maximum(values[outside], 0)[:, None]
        inner_gradient = gradients[outside]
        # y = x/|x|, so dy/dx = (I - r r^T)/|x|; chain rule on sqrt(a^2 + f(y)^2).
        tangential = (inner_gradient - (inner_gradient * radial).sum(1, keepdims=True) * radial) / (
            1 + excess[outside, None]
        )
        total = excess[outside, None] * radial + inside_value * tangential
        gradients[outside] = total / np.maximum(beyond[outside, None], np.finfo(np.float32).tiny)
        return beyond, gradients


def model_points(points: npt.NDArray[Any], transform: Similarity) -> FloatArray:
    """Map points (n, 3) from mesh to model space; NaN where not finite or beyond `FARTHEST`."""
    with np.errstate(over="ignore", invalid="ignore"):
        local = transform.apply_inverse(points)
        local[~(np.abs(local) < FARTHEST).all(axis=1)] = np.nan
    return local.astype(np.float32)


def into_ball(points: FloatArray) -> tuple[FloatArray, FloatArray | None]:
    """Closest points (n, 3) of the unit ball, and distances (n,) to them; None if all points are inside."""
    points = np.ascontiguousarray(points, np.float32)
    x, y, z = points.T
    squared = x * x + y * y + z * z  # ten times as fast as a norm
    if not (squared > 1).any():
        return points, None
    radii = np.sqrt(squared)
    factor = 1 / np.maximum(radii, 1)
    return points * factor[:, None], np.maximum(radii - 1, 0)


def extended(values: FloatArray, excess: FloatArray) -> FloatArray:
    """Values (..., n) of a network extended outside the ball, given the distances (n,) to the ball."""
    return np.where(excess > 0, np.hypot(excess, np.maximum(values, 0)), values)
