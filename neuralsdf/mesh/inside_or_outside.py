"""
inside_or_outside.py
--------------------
The inside tests of a mesh, selected by `sign=`. A point is inside if:

    winding        the generalised winding number exceeds 1/2 (Jacobson et al. 2013, Barill et al. 2018)
    pseudonormal   the point is behind the closest face, edge or vertex (Baerentzen 2005)
    parity         two or three of three rays from the point cross the surface an odd number of times

The last two are older tests, for comparison.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal, Protocol, get_args

import igl
import numpy as np

from ..array_types import Faces, Index, Mask, Points, Values, Vectors
from .pseudonormals import Pseudonormals

Sign = Literal["winding", "pseudonormal", "parity"]
SIGNS: tuple[Sign, ...] = get_args(Sign)

#: Ray directions, unit vectors to four digits, not parallel to axes or diagonals of typical meshes.
RAY_DIRECTIONS = ((0.5139, 0.2873, 0.8083), (-0.7071, 0.6547, 0.2673), (0.1826, -0.9129, -0.3651))


#: Face, distance and barycentric coordinates of each hit of a ray.
Hits = list[tuple[int, float, float, float]]
#: Rays are cast in blocks of about this many hits, which take 200 bytes each, and of at least so many rays.
_HITS_AT_ONCE, _FEWEST_RAYS = 1 << 18, 64


class TestedMesh(Protocol):
    """What the inside tests use of a mesh: vertices (V, 3), faces (F, 3) and queries."""

    vertices: Points
    faces: Faces

    @property
    def pseudonormals(self) -> Pseudonormals:
        """The pseudonormals of the mesh."""
        ...

    def closest(self, points: Points) -> tuple[Values, Index, Points]:
        """Distance (n,), closest face (n,) and closest point (n, 3) for points (n, 3)."""
        ...

    def winding_number(self, points: Points) -> Values:
        """Generalised winding number (n,) at points (n, 3), most accurate near 1/2."""
        ...


def are_inside(mesh: TestedMesh, sign: Sign, points: Points) -> Mask:
    """Whether points (n, 3) are inside a mesh, by the test `sign`."""
    if sign == "winding":
        return mesh.winding_number(points) > 0.5
    if sign == "pseudonormal":
        _, face, nearest = mesh.closest(points)
        return mesh.pseudonormals.behind(points, face, nearest)
    return odd_crossings(mesh.vertices, mesh.faces, points) >= 2


def odd_crossings(vertices: Points, faces: Faces, points: Points) -> Index:
    """Number (n,) of three rays from points (n, 3) that cross the surface an odd number of times.

    For a closed surface it is 0 or 3, up to rounding.
    """
    votes = np.zeros(len(points), np.int64)
    for _, first, hits in cast_rays(vertices, faces, points):
        count = np.fromiter((len(_distinct(ray)) for ray in hits), np.int64, len(hits))
        votes[first : first + len(hits)] += count % 2
    return votes


def cast_rays(vertices: Points, faces: Faces, points: Points) -> Iterator[tuple[Vectors, int, list[Hits]]]:
    """The hits of rays from points (n, 3) in each of `RAY_DIRECTIONS`, in blocks of few hits.

    Yields a direction, the first point of a block, and the hits of the block's rays: face, distance and
    barycentric coordinates of each.
    """
    bvh = igl.AABB()
    bvh.init(vertices, faces)
    points = np.ascontiguousarray(points, np.float64)
    size = _FEWEST_RAYS
    for direction in map(np.array, RAY_DIRECTIONS):
        first = 0
        while first < len(points):
            block = points[first : first + size]
            hits = bvh.intersect_ray(vertices, faces, block, np.tile(direction, (len(block), 1)))
            yield direction, first, hits
            first += len(block)
            expected = _HITS_AT_ONCE * len(block) // (1 + sum(map(len, hits)))
            size = max(min(expected, 4 * size), _FEWEST_RAYS)


def _distinct(hits: Hits) -> set[float]:
    """Distinct crossings of a ray; a hit on a shared edge is reported once per face."""
    return {round(hit[1], 7) for hit in hits}
