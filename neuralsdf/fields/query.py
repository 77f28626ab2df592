"""
query.py
--------
Signed distances, gradients and closest points of a field, in mesh space.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from ..arguments import numeric_points
from ..array_types import Points, Values, Vectors
from ..backends.value_outside_ball import model_points
from ..errors import FieldKindError
from .field import Field

#: Points evaluated at once. Bounds the memory; results do not depend on it.
BLOCK = 1 << 18

#: Maximum number of steps to the surface. A step multiplies the remaining distance by the gradient norm's
#: deviation from 1: 16 steps suffice even for a deviation of a third.
_MAX_STEPS = 16
#: Distance to the zero set at which a point is on it, in model units: the resolution of float32.
_ON_SURFACE = 1e-6


class ClosestPoints(NamedTuple):
    """Closest points (..., 3) in mesh space, and the residuals |f| (...,) there, in mesh units.

    A residual that is not close to zero means that the surface was not reached.
    """

    points: Points
    residual: Values


def signed_distance(field: Field, points: npt.ArrayLike, *, bound: bool = False) -> Values:
    """Signed distances (...,) float64 in mesh units at points (..., 3) of mesh space; negative inside.

    bound: return lower bounds outside the bounding ball, which is faster. The values of a CSG tree are lower
    bounds everywhere. Points that are not finite, or more than 1e18 radii away, give NaN. Raises
    `FieldKindError` for an occupancy field, `UsageError` for points of another shape, and `NoSurfaceError` if
    a point is outside the ball of a network without a surface (not with `bound`).
    """

    def distance(block: Points) -> tuple[Values, ...]:
        return (field.block_distance(block, bound=bound),)

    return _evaluate(field, points, distance, ((),), all_points=field.program is not None)[0]


def gradient(field: Field, points: npt.ArrayLike, *, bound: bool = False) -> Vectors:
    """Gradients (..., 3) of the signed distance at points (..., 3) of mesh space: outwards, norm about 1.

    bound: use the lower bound outside the ball. NaN and exceptions are as for `signed_distance`.
    """

    def gradients(block: Points) -> tuple[Points, ...]:
        return (field.block_distance_and_gradient(block, bound=bound)[1],)

    return _evaluate(field, points, gradients, ((3,),))[0]


def closest_points(field: Field, points: npt.ArrayLike) -> ClosestPoints:
    """Closest points of the surface to points (..., 3) of mesh space.

    For a network they are on the extracted surface, at the distance that `signed_distance` returns, up to the
    field's error. For other fields, x is repeatedly replaced by x - f(x) n, where n is the direction of the
    gradient. For an exact distance the first step gives the closest point; for a nearly exact one the
    steps converge to the zero set. NaN and exceptions are as for `signed_distance`; `NoSurfaceError` for a
    network without a surface.
    """
    return ClosestPoints(*_evaluate(field, points, lambda block: _closest(field, block), ((3,), ())))


def _closest(field: Field, points: Points) -> tuple[Points, Values]:
    """Closest points (n, 3) to finite points (n, 3), and |f| (n,) there."""
    if field.surface is None:
        return _project(field, points)
    _, closest, residual = field.surface.closest(field.transform.apply_inverse(points))
    return field.transform.apply(closest), residual * field.transform.scale


def _project(field: Field, points: Points) -> tuple[Points, Values]:
    """Project points (n, 3) onto the zero set. Returns the iterates with the smallest |f|, and that |f|."""
    best, residual = points.copy(), np.full(len(points), np.inf)
    active, position = np.arange(len(points)), points
    for _ in range(_MAX_STEPS):
        values, gradients = field.block_distance_and_gradient(position)
        better = np.abs(values) < residual[active]
        best[active[better]], residual[active[better]] = position[better], np.abs(values[better])
        off = np.abs(values) > _ON_SURFACE * field.transform.scale
        if not off.any():
            break
        active, position, values, gradients = active[off], position[off], values[off], gradients[off]
        norms = np.linalg.norm(gradients, axis=1, keepdims=True)
        position = position - values[:, None] * gradients / np.maximum(norms, np.finfo(np.float32).tiny)
    return best, residual


def _evaluate(
    field: Field,
    points: npt.ArrayLike,
    function: Callable[[Points], tuple[Points, ...]],
    shapes: tuple[tuple[int, ...], ...],
    *,
    all_points: bool = False,
) -> tuple[Points, ...]:
    """Apply `function` block by block to the points (..., 3) that are finite and not too far; NaN elsewhere.

    shapes: the shape of each result for one point. all_points: `function` returns NaN for invalid points.
    """
    if field.kind == "occupancy":
        raise FieldKindError("an occupancy field only separates inside from outside: it has no distance")
    given = numeric_points(points)
    flat = given.reshape(-1, 3)
    results = tuple(np.empty((len(flat), *shape)) for shape in shapes)
    for start in range(0, len(flat), BLOCK):
        block = np.asarray(flat[start : start + BLOCK], np.float64)
        # NaN in model space if not finite or too far, relative to the size of the shape.
        valid = slice(None) if all_points else ~np.isnan(model_points(block, field.frame)).any(axis=1)
        for result, values in zip(results, function(block[valid]), strict=True):
            part = result[start : start + BLOCK]
            if not all_points:
                part[:] = np.nan
            part[valid] = values
    return tuple(
        result.reshape((*given.shape[:-1], *shape)) for result, shape in zip(results, shapes, strict=True)
    )
