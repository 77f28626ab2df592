"""
walls.py
--------
How thick the thinnest wall of a closed mesh is, as someone asks who prints it.

From points spread over the surface a ray goes straight in, up to the surface on the other side. That is a
wall where the other side faces away from the first, within `_FACING`: at the edge of a wedge, where the two
sides meet at an angle, there is material but no wall.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from .similarity import Points
from .surface import sample_surface
from .trees import triangle_tree

POINTS = 100_000

#: The cosine between the outward normals of a wall's two sides is at most this: they differ by 150 degrees or
#: more.
_FACING = -np.sqrt(3) / 2
#: Share of the extent by which a ray begins below the surface, not to meet the face that it comes from.
_BELOW = 1e-6


class Wall(NamedTuple):
    """Thickness of a mesh's thinnest wall, the middle (3,) of it, and what all but a thousandth of its walls,
    by area,
    are as thick as at least: parts of a cavity that nearly meet leave a skin as thin as any."""

    thinnest: float
    place: Points
    usual: float


def thinnest_wall(vertices: Points, faces: npt.NDArray[np.int64], *, seed: int = 0) -> Wall | None:
    """The thinnest wall of a closed mesh, vertices (V, 3) and faces (F, 3) oriented outwards; None if it has
    none.

    Of 100 000 random points: what is smaller than their spacing may be missed.
    """
    extent = float((vertices.max(axis=0) - vertices.min(axis=0)).max())
    tree = triangle_tree(np.ascontiguousarray(vertices), np.ascontiguousarray(faces))
    points, face = sample_surface(vertices, faces, POINTS, np.random.default_rng([seed, 0]))
    inward = -_normals(vertices, faces, face)
    begin = points + _BELOW * extent * inward
    length = tree.first_hit(begin, inward)
    met = np.isfinite(length)
    begin, inward, length = begin[met], inward[met], length[met]
    _, opposite, _ = tree.closest(begin + length[:, None] * inward)
    facing = (_normals(vertices, faces, opposite) * -inward).sum(axis=1) < _FACING
    if not facing.any():
        return None
    begin, inward, length = begin[facing], inward[facing], length[facing]
    thinnest = int(length.argmin())
    begun = _BELOW * extent
    return Wall(
        float(length[thinnest]) + begun,
        begin[thinnest] + inward[thinnest] * length[thinnest] / 2,
        float(np.quantile(length, 1e-3)) + begun,
    )


def _normals(vertices: Points, faces: npt.NDArray[np.int64], chosen: npt.NDArray[np.int64]) -> Points:
    """Unit normals (n, 3) of the chosen faces (n,)."""
    a, b, c = (vertices[faces[chosen, corner]] for corner in range(3))
    normals = np.cross(b - a, c - a)
    unit: Points = normals / np.maximum(np.linalg.norm(normals, axis=1, keepdims=True), 1e-300)
    return unit
