"""
query.py
--------
Distances, gradients and closest points of a field at points of the mesh's own space.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from .errors import FieldKindError, UsageError
from .field import Field
from .similarity import Points

#: Points that are evaluated at once: they bound the memory, and results do not depend on them.
BLOCK = 1 << 18

#: Float32 can square a coordinate up to this (model units); a point farther off counts as not finite.
_FARTHEST = 1e18

#: Steps towards the surface. The error of a step is the gradient's deviation from length 1, times the
#: distance left: 16 leave nothing even where the gradient is off by a third.
_STEPS = 16
#: A point this close to the zero set, in model units, is on it: float32 resolves no more.
_ON_SURFACE = 1e-6


class ClosestPoints(NamedTuple):
    """points (n, 3) in mesh space, and residual (n,): |f| there, in mesh units.

    A residual that is not close to zero marks a point from which the surface was not reached.
    """

    points: Points
    residual: Points


def signed_distance(field: Field, points: npt.NDArray[Any]) -> Points:
    """Signed distances (n,) float64 in mesh units at points (n, 3) of mesh space; negative inside.

    A point that is not finite, or 1e18 radii away, gives NaN. Raises `FieldKindError` for a field that is
    no distance, and `UsageError` for points of another shape.
    """
    return _evaluate(field, points, lambda block: (field.distance(block),), ((),))[0]


def gradient(field: Field, points: npt.NDArray[Any]) -> Points:
    """Gradients (n, 3) of the signed distance at points (n, 3) of mesh space: about 1 long, outwards.

    Not finite points and errors as for `signed_distance`.
    """
    return _evaluate(field, points, lambda block: (field.distance_and_gradient(block)[1],), ((3,),))[0]


def closest_points(field: Field, points: npt.NDArray[Any]) -> ClosestPoints:
    """The points of the surface closest to points (n, 3) of mesh space.

    x - f(x) n with n the gradient's direction is the closest point of an exact distance; repeated, it
    converges on the zero set of one that is nearly exact. Not finite points and errors as for
    `signed_distance`.
    """
    return ClosestPoints(*_evaluate(field, points, lambda block: _projected(field, block), ((3,), ())))


def _projected(field: Field, points: Points) -> tuple[Points, Points]:
    """Points (n, 3) moved to the zero set, and |f| (n,) there: the nearest of all steps to it."""
    best, residual = points.copy(), np.full(len(points), np.inf)
    moving, position = np.arange(len(points)), points
    for _ in range(_STEPS):
        values, slopes = field.distance_and_gradient(position)
        nearer = np.abs(values) < residual[moving]
        best[moving[nearer]], residual[moving[nearer]] = position[nearer], np.abs(values[nearer])
        going = np.abs(values) > _ON_SURFACE * field.transform.scale
        if not going.any():
            break
        moving, position, values, slopes = moving[going], position[going], values[going], slopes[going]
        lengths = np.linalg.norm(slopes, axis=1, keepdims=True)
        position = position - values[:, None] * slopes / np.maximum(lengths, np.finfo(np.float32).tiny)
    return best, residual


def _evaluate(
    field: Field,
    points: npt.NDArray[Any],
    function: Callable[[Points], tuple[Points, ...]],
    shapes: tuple[tuple[int, ...], ...],
) -> tuple[Points, ...]:
    """`function` of all points that are finite and not too far, block by block; NaN for the others.

    shapes: of each result of `function`, for one point.
    """
    if field.kind == "occupancy":
        raise FieldKindError("an occupancy field says inside or outside, not how far: it has no distance")
    points = np.asarray(points, np.float64)
    if points.ndim != 2 or points.shape[1] != 3:
        raise UsageError(f"points are an (n, 3) array, not {points.shape}")
    results = tuple(np.full((len(points), *shape), np.nan) for shape in shapes)
    for start in range(0, len(points), BLOCK):
        block = points[start : start + BLOCK]
        # In model space: what is far depends on the shape's size.
        with np.errstate(over="ignore", invalid="ignore"):
            finite = (np.abs(field.transform.apply_inverse(block)) < _FARTHEST).all(axis=1)
        for result, values in zip(results, function(block[finite]), strict=True):
            result[start : start + BLOCK][finite] = values
    return results
