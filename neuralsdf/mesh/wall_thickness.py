"""
wall_thickness.py
-----------------
How thick the thinnest wall of a closed mesh is, as someone asks who prints it.

From points spread over the surface a ray goes straight in, up to the surface on the other side. There the
material is a wall if that side faces away from the first, within `_FACING`: at the edge of a wedge, where the
two sides meet at an angle, there is material but no wall.

A wall has an extent. Where parts of a cavity nearly meet, inside a shape that is just twice as thick as its
walls, tips of them face each other across any distance, however small: a spot, which carries no load and is
no weakness. So of a disc about a point of a wall at least `_COVERED` is a wall too.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from scipy.spatial import cKDTree

from ..arrays import Points, Vectors
from ..geometry.bvh import triangle_tree
from ..geometry.triangles import face_areas, face_runs, sample_surface, unit_normals

POINTS = 100_000

#: The cosine between the outward normals of a wall's two sides is at most this: they differ by 150 degrees or
#: more.
_FACING = -np.sqrt(3) / 2
#: Share of the extent by which a ray begins below the surface, not to meet the face that it comes from.
_BELOW = 1e-6
#: The disc about a point: its radius in spacings of the points, or in cells of the mesh's lattice, whichever
#: is more, and the share of it that is wall, as many points as that would have.
_SPACINGS, _CELLS, _COVERED = 2, 3, 0.5
#: Walls whose discs are looked at together, the thinnest first.
_AT_ONCE = 1000


class Wall(NamedTuple):
    """A place (3,) in the middle of a wall, and the wall's thickness there."""

    thickness: float
    place: Points


class Walls(NamedTuple):
    """The thinnest wall of a mesh, and the thinnest spot with sides that face away from each other."""

    thinnest: Wall | None
    spot: Wall | None


def thinnest_walls(
    vertices: Points, faces: npt.NDArray[np.int64], *, cell: float = 0.0, seed: int = 0
) -> Walls:
    """The thinnest wall of a closed mesh, vertices (V, 3) and faces (F, 3) oriented outwards; None where it
    has none.

    cell: the width of the cells that it was extracted with. Of 100 000 random points: what is smaller than
    their spacing may be missed.
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
    area = float(face_areas(vertices, faces).sum() / 2)
    middle, thickness = begin + inward * length[:, None] / 2, length + _BELOW * extent
    found = (Wall(float(thickness[i]), middle[i]) for i in _broad(begin, inward, area, cell))
    return Walls(next(found, None), Wall(float(thickness[0]), middle[0]) if len(order) else None)


def _broad(points: Points, normals: Vectors, area: float, cell: float) -> Iterator[int]:
    """Which of the points (n, 3) of walls are surrounded by points that face the same way, in order."""
    spacing = np.sqrt(area / POINTS)
    radius = max(_SPACINGS * spacing, _CELLS * cell)
    enough = _COVERED * np.pi * (radius / spacing) ** 2
    tree = cKDTree(points)
    for first in range(0, len(points), _AT_ONCE):
        some = np.arange(first, min(first + _AT_ONCE, len(points)))
        for i, near in zip(some, tree.query_ball_point(points[some], radius), strict=True):
            if np.count_nonzero(normals[near] @ normals[i] > -_FACING) >= enough:
                yield int(i)


def _first_faces(
    vertices: Points, faces: npt.NDArray[np.int64], begin: Points, inward: Points
) -> tuple[Points, npt.NDArray[np.int64]]:
    """How far rays go from points (n, 3) in unit directions (n, 3) to the first face, inf for none, and which
    face that is (n,). One tree of all faces would take ten times the memory of a large mesh.
    """
    length, first = np.full(len(begin), np.inf), np.zeros(len(begin), np.int64)
    for run in face_runs(len(faces)):
        tree = triangle_tree(vertices, faces[run])
        found, face = tree.first_hit(begin, inward)
        nearer = np.flatnonzero(found < length)
        length[nearer] = found[nearer]
        first[nearer] = run.start + face[nearer]
    return length, first
