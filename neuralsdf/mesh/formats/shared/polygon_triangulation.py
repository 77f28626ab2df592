"""
polygon_triangulation.py
------------------------
Triangulation of polygons.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from ....array_types import Faces, Index, Points, Vectors
from ....files.bounded_input import Budget
from .ear_clipping import MANY, Corner, EarClipper
from .raw_mesh import FormatError

#: Number of corners triangulated together, and working memory in bytes per corner.
BLOCK, WORKING_BYTES = 1 << 16, 600


def triangulate(
    vertices: Points, corners: npt.ArrayLike, sides: npt.ArrayLike, budget: Budget
) -> tuple[Index, list[str]]:
    """Triangles (F, 3) of polygons, in their order, and notes.

    corners: concatenated vertex indices. sides: number of corners of each polygon. A convex polygon with few
    corners becomes a fan around its first corner; others are triangulated by ear clipping. Polygons with
    fewer than three corners are dropped. Raises `FormatError` for a vertex index out of range.
    """
    corners, sides = np.asarray(corners, np.int64), np.asarray(sides, np.int64)
    if len(corners) and (corners.min() < 0 or corners.max() >= len(vertices)):
        culprit = int(((corners < 0) | (corners >= len(vertices))).argmax())
        face = int(np.searchsorted(np.cumsum(sides), culprit, side="right"))
        raise FormatError(f"face {face + 1}: vertex index out of range ({len(vertices)} vertices)")
    if (sides == 3).all():
        return corners.reshape(-1, 3), []
    ends, count = np.cumsum(sides), np.maximum(sides - 2, 0)
    budget.draw(24 * int(count.sum()) + 32 * len(sides))
    faces = np.empty((int(count.sum()), 3), np.int64)
    done, clipper, coarse = 0, EarClipper(), 0
    for low, high in _blocks(ends, budget):
        rings, size = corners[ends[low] - sides[low] : ends[high - 1]], int(count[low:high].sum())
        faces[done : done + size], left = _triangles(vertices, rings, sides[low:high], clipper)
        done, coarse = done + size, coarse + left
    notes = (
        [f"{coarse} polygon{'s'[: coarse > 1]} with too many corners triangulated coarsely"] if coarse else []
    )
    return faces, notes


def _blocks(ends: Index, budget: Budget) -> Iterator[tuple[int, int]]:
    """Ranges of polygons with about BLOCK corners; ends: offset of each polygon's end in the corners."""
    low = 0
    while low < len(ends):
        start = int(ends[low - 1]) if low else 0
        high = max(int(np.searchsorted(ends, start + BLOCK, side="right")), low + 1)
        budget.draw_working(WORKING_BYTES * (int(ends[high - 1]) - start))
        yield low, high
        low = high


def _triangles(vertices: Points, corners: Index, sides: Index, clipper: EarClipper) -> tuple[Index, int]:
    """Triangles (F, 3) of polygons, and the number of non-convex polygons that became fans."""
    count = np.maximum(sides - 2, 0)
    polygon = np.repeat(np.arange(len(sides)), count)
    begins, triangles = np.cumsum(sides) - sides, np.cumsum(count) - count
    second = begins[polygon] + 1 + np.arange(len(polygon)) - triangles[polygon]
    faces = np.stack([corners[begins[polygon]], corners[second], corners[second + 1]], axis=1)
    folded, normals = _folded(vertices, faces, polygon, len(sides))
    quads = folded[sides[folded] == 4]  # split along the other diagonal
    ring = corners[begins[quads, None] + np.arange(4)]
    faces[triangles[quads]], faces[triangles[quads] + 1] = ring[:, [1, 2, 3]], ring[:, [1, 3, 0]]
    # Fans of many corners are slivers with overlapping bounding boxes, which make BVH queries slow.
    is_clipped = sides > MANY
    is_clipped[folded[sides[folded] > 4]] = True
    coarse = 0
    for index in np.flatnonzero(is_clipped).tolist():
        ring = corners[begins[index] : begins[index] + sides[index]]
        clipped = clipper.clip(_projected(vertices[ring], normals[index]))
        if clipped is None:
            coarse += index in folded
        else:
            faces[triangles[index] : triangles[index] + count[index]] = ring[np.array(clipped)]
    return faces, coarse


def _folded(vertices: Points, faces: Faces, polygon: Index, count: int) -> tuple[Index, Points]:
    """Polygons whose fan has a triangle facing against the polygon's normal; and the normals of all."""
    normals = np.zeros((count, 3))
    is_folded = np.zeros(count, bool)
    several = np.flatnonzero(np.bincount(polygon, minlength=count)[polygon] > 1)
    with np.errstate(over="ignore", invalid="ignore"):
        parts = _normals(vertices, faces[several])
        for axis in range(3):
            normals[:, axis] = np.bincount(polygon[several], parts[:, axis], count)
        against = (parts * normals[polygon[several]]).sum(axis=1) < 0
    is_folded[polygon[several][against]] = True
    return np.flatnonzero(is_folded), normals


def _normals(vertices: Points, faces: Faces) -> Vectors:
    a, b, c = (vertices[faces[:, corner]] for corner in range(3))
    normals: Vectors = np.cross(b - a, c - a)
    return normals


def _projected(ring: Points, normal: npt.NDArray[np.float64]) -> list[Corner]:
    """Project a polygon (n, 3) to the coordinate plane closest to its own, counter-clockwise."""
    axis = int(np.abs(normal).argmax())
    u, v = (axis + 1) % 3, (axis + 2) % 3
    if normal[axis] < 0:
        u, v = v, u
    with np.errstate(over="ignore", invalid="ignore"):
        flat = ring - ring[0]
    return list(zip(flat[:, u].tolist(), flat[:, v].tolist(), strict=True))
