"""
polygons.py
-----------
Polygons as triangles.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from ..mesh import IntArray
from ..similarity import Points
from .raw_mesh import FormatError


def triangulate(vertices: Points, corners: npt.ArrayLike, sides: npt.ArrayLike) -> IntArray:
    """Triangles (F, 3) of polygons, in their order: corners end to end, and how many each polygon has.

    A convex polygon becomes a fan about its first corner, any other is clipped ear by ear. Polygons of
    fewer than three corners give none. Raises `FormatError` for a corner that is no vertex.
    """
    corners, sides = np.asarray(corners, np.int64), np.asarray(sides, np.int64)
    if len(corners) and (corners.min() < 0 or corners.max() >= len(vertices)):
        culprit = int(((corners < 0) | (corners >= len(vertices))).argmax())
        face = int(np.searchsorted(np.cumsum(sides), culprit, side="right"))
        raise FormatError(
            f"face {face + 1} names a vertex that is none of the {len(vertices)}: "
            f"{corners[culprit]}, counted from 0"
        )
    count = np.maximum(sides - 2, 0)
    polygon = np.repeat(np.arange(len(sides)), count)
    first = (np.cumsum(sides) - sides)[polygon]
    step = np.arange(len(polygon)) - (np.cumsum(count) - count)[polygon]
    faces = np.stack([corners[first], corners[first + step + 1], corners[first + step + 2]], axis=1)
    folded = np.flatnonzero(_is_folded(vertices, faces, polygon, len(sides)))
    begins, triangles = np.cumsum(sides) - sides, np.cumsum(count) - count
    quads = folded[sides[folded] == 4]  # fold the other way, about their second corner
    ring = corners[begins[quads, None] + np.arange(4)]
    faces[triangles[quads]], faces[triangles[quads] + 1] = ring[:, [1, 2, 3]], ring[:, [1, 3, 0]]
    others = folded[sides[folded] > 4]
    for index in others[np.cumsum(sides[others]) <= CLIPPING_LIMIT]:
        ring = corners[begins[index] : begins[index] + sides[index]]
        faces[triangles[index] : triangles[index] + count[index]] = ring[_clip_ears(vertices[ring])]
    return faces


#: Clipping takes a millisecond a corner; after this many corners, fans are left as they are: the surface
#: then reaches beyond such a polygon, though there it cancels out of the winding number.
CLIPPING_LIMIT = 20_000


def _is_folded(vertices: Points, faces: IntArray, polygon: IntArray, count: int) -> npt.NDArray[np.bool_]:
    """For each polygon, whether some triangle of its fan faces against the polygon as a whole."""
    folded = np.zeros(count, bool)
    several = np.bincount(polygon, minlength=count)[polygon] > 1
    faces, polygon = faces[several], polygon[several]
    if len(faces):
        a, b, c = (vertices[faces[:, corner]] for corner in range(3))
        with np.errstate(over="ignore", invalid="ignore"):
            normals = np.cross(b - a, c - a)
            whole = np.stack([np.bincount(polygon, normals[:, axis], count) for axis in range(3)], axis=1)
            folded[polygon[(normals * whole[polygon]).sum(axis=1) < 0]] = True
    return folded


def _clip_ears(ring: Points) -> IntArray:
    """Triangles (n - 2, 3), as indices, of a simple polygon (n, 3), seen along its normal.

    An ear is a corner that turns left and whose triangle holds no other corner; only corners that do
    not turn left can be in it. Where there is none (the polygon crosses itself), any corner goes.
    """
    with np.errstate(over="ignore", invalid="ignore"):
        flat = _projected(ring)
        left = np.arange(len(ring))
        triangles: list[IntArray] = []
        while len(left) > 3:
            around = np.stack([np.roll(left, 1), left, np.roll(left, -1)], axis=1)
            a, b, c = flat[around].transpose(1, 0, 2)
            turns = _turn(a, b, c)
            others = b[~(turns > 0)]
            ears = (i for i in np.flatnonzero(turns > 0) if not _holds(a[i], b[i], c[i], others))
            ear = int(next(ears, 0))
            triangles.append(around[ear])
            left = np.delete(left, ear)
    return np.array([*triangles, left])


def _projected(ring: Points) -> npt.NDArray[np.float64]:
    """The polygon (n, 3) in the coordinate plane (n, 2) it is closest to, counter-clockwise."""
    local = ring - ring[0]
    normal = np.cross(local, np.roll(local, -1, axis=0)).sum(axis=0)  # Newell
    axis = int(np.abs(normal).argmax())
    across = [(axis + 1) % 3, (axis + 2) % 3]
    flat: Points = local[:, across if normal[axis] >= 0 else across[::-1]]
    return flat


def _holds(a: npt.NDArray[Any], b: npt.NDArray[Any], c: npt.NDArray[Any], points: npt.NDArray[Any]) -> bool:
    """Whether the triangle a, b, c (2,) holds one of the points (n, 2) that is none of its corners.

    A bridge to a hole runs through the same place twice: a corner on a corner is not inside.
    """
    inside = (_turn(a, b, points) >= 0) & (_turn(b, c, points) >= 0) & (_turn(c, a, points) >= 0)
    candidates = points[inside]
    at_corner = [(candidates == corner).all(axis=1) for corner in (a, b, c)]
    return not np.logical_or.reduce(at_corner).all()


def _turn(a: npt.NDArray[Any], b: npt.NDArray[Any], c: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    """Twice the signed area of the triangles a, b, c (..., 2): positive for a turn to the left."""
    ab, ac = b - a, c - a
    turn: npt.NDArray[np.float64] = ab[..., 0] * ac[..., 1] - ab[..., 1] * ac[..., 0]
    return turn
