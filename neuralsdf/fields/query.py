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

from ..arrays import Points, Values, Vectors
from ..backends.outside_ball import model_points
from ..errors import FieldKindError, UsageError
from .field import Field

#: Points that are evaluated at once: they bound the memory, and results do not depend on them.
BLOCK = 1 << 18

#: Steps towards the surface. The error of a step is the gradient's deviation from length 1, times the
#: distance left: 16 leave nothing even where the gradient is off by a third.
_STEPS = 16
#: A point this close to the zero set, in model units, is on it: float32 resolves no more.
_ON_SURFACE = 1e-6


class ClosestPoints(NamedTuple):
    """points (..., 3) in mesh space, and residual (...,): |f| there, in mesh units.

    A residual that is not close to zero marks a point from which the surface was not reached.
    """

    points: Points
    residual: Values


def signed_distance(field: Field, points: npt.ArrayLike, *, bound: bool = False) -> Values:
    """Signed distances (...,) float64 in mesh units at points (..., 3) of mesh space; negative inside.

    bound: outside the bounding ball a lower bound is enough, which is faster. A tree has bounds everywhere.
    A point that is not finite, or 1e18 radii away, gives NaN. Raises `FieldKindError` for a field that is
    no distance, `UsageError` for points of another shape, and `NoSurfaceError` where a point is outside the
    ball of a network without a surface, unless a bound is enough.
    """

    def distance(block: Points) -> tuple[Values, ...]:
        return (field.block_distance(block, bound=bound),)

    return _evaluate(field, points, distance, ((),), all_points=field.program is not None)[0]


def gradient(field: Field, points: npt.ArrayLike, *, bound: bool = False) -> Vectors:
    """Gradients (..., 3) of the signed distance at points (..., 3) of mesh space: about 1 long, outwards.

    bound: those of the lower bound outside the ball. Not finite points and errors as for `signed_distance`.
    """

    def slopes(block: Points) -> tuple[Points, ...]:
        return (field.block_distance_and_gradient(block, bound=bound)[1],)

    return _evaluate(field, points, slopes, ((3,),))[0]


def closest_points(field: Field, points: npt.ArrayLike) -> ClosestPoints:
    """The points of the surface closest to points (..., 3) of mesh space.

    A network's are those of its extracted surface, so that they are as far away as the distance says, to the
    field's error. Of other fields, x - f(x) n with n the gradient's direction is the closest point of an
    exact distance; repeated, it converges on the zero set of one that is nearly exact. Not finite points and
    errors as for `signed_distance`; `NoSurfaceError` for a network without a surface.
    """
    return ClosestPoints(*_evaluate(field, points, lambda block: _closest(field, block), ((3,), ())))


def _closest(field: Field, points: Points) -> tuple[Points, Values]:
    """Closest points (n, 3), and |f| (n,) there, of finite points (n, 3)."""
    if field.surface is None:
        return _projected(field, points)
    _, closest, residual = field.surface.closest(field.transform.apply_inverse(points))
    return field.transform.apply(closest), residual * field.transform.scale


def _projected(field: Field, points: Points) -> tuple[Points, Values]:
    """Points (n, 3) moved to the zero set, and |f| (n,) there: the nearest of all steps to it."""
    best, residual = points.copy(), np.full(len(points), np.inf)
    moving, position = np.arange(len(points)), points
    for _ in range(_STEPS):
        values, slopes = field.block_distance_and_gradient(position)
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
    points: npt.ArrayLike,
    function: Callable[[Points], tuple[Points, ...]],
    shapes: tuple[tuple[int, ...], ...],
    *,
    all_points: bool = False,
) -> tuple[Points, ...]:
    """`function` of all points (..., 3) that are finite and not too far, block by block; NaN for the others.

    shapes: of each result of `function`, for one point. all_points: it gives NaN for the others itself.
    """
    if field.kind == "occupancy":
        raise FieldKindError("an occupancy field says inside or outside, not how far: it has no distance")
    given = _points(points)
    flat = given.reshape(-1, 3)
    results = tuple(np.empty((len(flat), *shape)) for shape in shapes)
    for start in range(0, len(flat), BLOCK):
        block = np.asarray(flat[start : start + BLOCK], np.float64)
        # In model space: what is far depends on the shape's size.
        chosen = slice(None) if all_points else ~np.isnan(model_points(block, field.frame)).any(axis=1)
        for result, values in zip(results, function(block[chosen]), strict=True):
            part = result[start : start + BLOCK]
            if not all_points:
                part[:] = np.nan
            part[chosen] = values
    return tuple(
        result.reshape((*given.shape[:-1], *shape)) for result, shape in zip(results, shapes, strict=True)
    )


def _points(points: npt.ArrayLike) -> npt.NDArray[Any]:
    """Points (..., 3) as an array of numbers; an empty list is no points. Raises `UsageError`."""
    try:
        array = np.asarray(points)
        if array.dtype.kind not in "fiub":
            array = array.astype(np.float64)
    except (TypeError, ValueError) as error:
        raise UsageError("points must be an array of numbers of shape (..., 3)") from error
    if array.shape == (0,):
        return np.empty((0, 3))
    if array.ndim == 0 or array.shape[-1] != 3:
        raise UsageError(f"points must have shape (..., 3), not {array.shape}")
    return array
