"""
polygons.py
-----------
Polygons as triangles.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from ..input import Budget
from ..mesh import IntArray
from ..similarity import Points
from .ears import Corner, EarClipper
from .raw_mesh import FormatError

#: Triangles whose normals are computed at once.
BLOCK = 1 << 16


def triangulate(
    vertices: Points, corners: npt.ArrayLike, sides: npt.ArrayLike, budget: Budget
) -> tuple[IntArray, list[str]]:
    """Triangles (F, 3) of polygons, in their order, and notes: corners end to end, how many each polygon has.

    A convex polygon becomes a fan about its first corner, any other is clipped ear by ear. Polygons of
    fewer than three corners give none. Raises `FormatError` for a corner that is no vertex.
    """
    corners, sides = np.asarray(corners, np.int64), np.asarray(sides, np.int64)
    if len(corners) and (corners.min() < 0 or corners.max() >= len(vertices)):
        culprit = int(((corners < 0) | (corners >= len(vertices))).argmax())
        face = int(np.searchsorted(np.cumsum(sides), culprit, side="right"))
        raise FormatError(f"face {face + 1}: vertex index out of range ({len(vertices)} vertices)")
    if (sides == 3).all():
        return corners.reshape(-1, 3), []
    count = np.maximum(sides - 2, 0)
    budget.draw(48 * int(count.sum()) + 32 * len(sides))
    polygon = np.repeat(np.arange(len(sides)), count)
    begins, triangles = np.cumsum(sides) - sides, np.cumsum(count) - count
    second = begins[polygon] + 1 + np.arange(len(polygon)) - triangles[polygon]
    faces = np.stack([corners[begins[polygon]], corners[second], corners[second + 1]], axis=1)
    folded, normals = _folded(vertices, faces, polygon, len(sides))
    quads = folded[sides[folded] == 4]  # fold the other way, about their second corner
    ring = corners[begins[quads, None] + np.arange(4)]
    faces[triangles[quads]], faces[triangles[quads] + 1] = ring[:, [1, 2, 3]], ring[:, [1, 3, 0]]
    clipper, coarse = EarClipper(), 0
    for index in folded[sides[folded] > 4].tolist():
        ring = corners[begins[index] : begins[index] + sides[index]]
        clipped = clipper.clip(_projected(vertices[ring], normals[index]))
        if clipped is None:
            coarse += 1
        else:
            faces[triangles[index] : triangles[index] + count[index]] = ring[np.array(clipped)]
    notes = (
        [f"{coarse} polygon{'s'[: coarse > 1]} with too many corners triangulated coarsely"] if coarse else []
    )
    return faces, notes


def _folded(vertices: Points, faces: IntArray, polygon: IntArray, count: int) -> tuple[IntArray, Points]:
    """The polygons some triangle of whose fan faces against the polygon as a whole; and all their normals."""
    normals = np.zeros((count, 3))
    is_folded = np.zeros(count, bool)
    several = np.flatnonzero(np.bincount(polygon, minlength=count)[polygon] > 1)
    blocks = [several[at : at + BLOCK] for at in range(0, len(several), BLOCK)]
    with np.errstate(over="ignore", invalid="ignore"):
        for block in blocks:
            low, part = polygon[block[0]], _normals(vertices, faces[block])
            for axis in range(3):
                sums = np.bincount(polygon[block] - low, part[:, axis])
                normals[low : low + len(sums), axis] += sums
        for block in blocks:
            against = (_normals(vertices, faces[block]) * normals[polygon[block]]).sum(axis=1) < 0
            is_folded[polygon[block][against]] = True
    return np.flatnonzero(is_folded), normals


def _normals(vertices: Points, faces: IntArray) -> Points:
    a, b, c = (vertices[faces[:, corner]] for corner in range(3))
    normals: Points = np.cross(b - a, c - a)
    return normals


def _projected(ring: Points, normal: npt.NDArray[np.float64]) -> list[Corner]:
    """A polygon (n, 3) in the coordinate plane it is closest to, counter-clockwise."""
    axis = int(np.abs(normal).argmax())
    u, v = (axis + 1) % 3, (axis + 2) % 3
    if normal[axis] < 0:
        u, v = v, u
    with np.errstate(over="ignore", invalid="ignore"):
        flat = ring - ring[0]
    return list(zip(flat[:, u].tolist(), flat[:, v].tolist(), strict=True))
