"""
wall_thickness.py
-----------------
The thinnest wall of a closed mesh, for 3D printing.

From random surface points, rays go straight inwards to the surface on the other side. The material between is
a wall if the two sides face away from each other, within `_FACING`; this excludes the edges of wedges.

A wall must have an extent. If parts of a cavity nearly meet, in a shape that is about twice as thick as its
walls, their tips can be arbitrarily close. Such a spot carries no load and is not a weakness. So at least
`_COVERED` of a disc around a wall's point must be wall too.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from scipy.spatial import cKDTree

from ..array_types import Points, Vectors
from ..geometry.bvh import triangle_bvh
from ..geometry.triangles import face_areas, face_runs, sample_surface, unit_normals

POINTS = 100_000

#: Maximum cosine between the outward normals of a wall's sides: they differ by at least 150 degrees.
_FACING = -np.sqrt(3) / 2
#: Depth of ray origins below the surface, as a fraction of the extent, to avoid hitting their own face.
_BELOW = 1e-6
#: Radius of the disc around a point in spacings of the points or in cells of the extraction grid, whichever
#: is larger, and the minimum fraction of it that is wall, measured by the number of points.
_SPACINGS, _CELLS, _COVERED = 2, 3, 0.5
#: Number of discs tested together, the thinnest walls first.
_AT_ONCE = 1000


class Wall(NamedTuple):
    """Thickness of a wall, and a place (3,) in its middle."""

    thickness: float
    place: Points


class Walls(NamedTuple):
    """The thinnest wall of a mesh, and the thinnest spot, whose sides face away from each other."""

    thinnest: Wall | None
    spot: Wall | None


def thinnest_walls(
    vertices: Points, faces: npt.NDArray[np.int64], *, cell: float = 0.0, seed: int = 0
) -> Walls:
    """Find the thinnest wall of a closed mesh, vertices (V, 3) and faces (F, 3) oriented outwards.

    cell: cell width of its extraction. Uses 100 000 random points; features smaller than their spacing may be
    missed.
    """
    vertices = np.ascontiguousarray(vertices)
    extent = float((vertices.max(axis=0) - vertices.min(axis=0)).max())
    points, face = sample_surface(vertices, faces, POINTS, np.random.default_rng([seed, 0]))
    inward = -unit_normals(vertices, faces[face])
    begin = points + _BELOW * extent * inward
    length, opposite = _first_faces(vertices, faces, begin, inward)
    met = np.isfinite(length)
    begin, inward, length = begin[met], inward[met], length[met]
    facing = (unit_normals(vertices, faces[opposite[met]]) * -inward).sum(axis=1) < _FACING
    order = np.flatnonzero(facing)[np.argsort(length[facing])]
    begin, inward, length = begin[order], inward[order], length[order]
    area = float(face_areas(vertices, faces).sum())
    middle, thickness = begin + inward * length[:, None] / 2, length + _BELOW * extent
    found = (Wall(float(thickness[i]), middle[i]) for i in _broad(begin, inward, area, cell))
    return Walls(next(found, None), Wall(float(thickness[0]), middle[0]) if len(order) else None)


def _broad(points: Points, normals: Vectors, area: float, cell: float) -> Iterator[int]:
    """Indices of wall points (n, 3) surrounded by enough points that face the same way, in order."""
    spacing = np.sqrt(area / POINTS)
    radius = max(_SPACINGS * spacing, _CELLS * cell)
    enough = _COVERED * np.pi * (radius / spacing) ** 2
    neighbours = cKDTree(points)
    for first in range(0, len(points), _AT_ONCE):
        some = np.arange(first, min(first + _AT_ONCE, len(points)))
        for i, near in zip(some, neighbours.query_ball_point(points[some], radius), strict=True):
            if np.count_nonzero(normals[near] @ normals[i] > -_FACING) >= enough:
                yield int(i)


def _first_faces(
    vertices: Points, faces: npt.NDArray[np.int64], begin: Points, inward: Points
) -> tuple[Points, npt.NDArray[np.int64]]:
    """Distance (n,) of rays from points (n, 3) in unit directions (n, 3) to the first face, inf for none, and
    that face (n,). Works in runs of faces: one BVH would need ten times the memory of a large mesh.
    """
    length, first = np.full(len(begin), np.inf), np.zeros(len(begin), np.int64)
    for run in face_runs(len(faces)):
        bvh = triangle_bvh(vertices, faces[run])
        found, face = bvh.first_hit(begin, inward)
        nearer = np.flatnonzero(found < length)
        length[nearer] = found[nearer]
        first[nearer] = run.start + face[nearer]
    return length, first
