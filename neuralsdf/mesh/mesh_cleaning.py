"""
mesh_cleaning.py
----------------
Validates the arrays of a mesh, merges coincident vertices, and removes degenerate faces and surplus copies of
faces. This does not change the surface.

Tolerances are relative to the extent of the mesh, so they do not depend on its unit and position.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from ..arguments import vertices_and_faces
from ..array_types import Faces, Index, Points, Values
from ..errors import MeshError, UsageError
from ..geometry.similarity_transform import FARTHEST, MAX_LENGTH, MIN_LENGTH

#: Vertices closer than this fraction of the mesh's extent are merged. Far above the rounding of float64, and
#: below that of float32, in which most files were computed.
MERGE_DISTANCE = 1e-9

#: A face whose height is below this fraction of the extent is degenerate: a straight line up to rounding.
DEGENERATE_HEIGHT = 1e-15

#: Maximum number of copies of a face. Copies do not change the surface, but slow down every query.
MAX_COPIES = 16

#: If 99 % of the vertices lie within this fraction of the extent, a network cannot represent the shape: it is
#: a tenth of the best surface error of the default network.
RESOLUTION = 1e-4


def checked_arrays(vertices: npt.ArrayLike, faces: npt.ArrayLike, name: str) -> tuple[Points, Faces]:
    """Validate a mesh: vertices (n, 3) float64, finite where used; triangles (m, 3) int64, in range, m > 0.

    Unused vertices are not checked. Raises `MeshError`, with `name`, for invalid values and `UsageError` for
    invalid shapes.
    """
    points, triangles = vertices_and_faces(vertices, faces)
    if triangles.size == 0:
        raise MeshError(name, "has no faces", "give a mesh with triangles")
    if points.ndim != 2 or points.shape[1] != 3 or triangles.ndim != 2 or triangles.shape[1] != 3:
        raise UsageError(
            f"{name}: arrays of shape {points.shape} and {triangles.shape}; "
            "expected vertices (n, 3) and faces (m, 3)"
        )
    outside = (triangles < 0) | (triangles >= len(points))
    if outside.any():
        face, corner = np.argwhere(outside)[0]
        raise MeshError(
            name,
            f"face {face}: vertex index {triangles[face, corner]} out of range ({len(points)} vertices, "
            "counted from 0)",
            "export it again from the program that made it",
        )
    is_finite = np.asarray(np.isfinite(points).all(axis=1))
    broken = np.unique(triangles[~is_finite[triangles]])
    if broken.size:
        x, y, z = points[broken[0]]
        raise MeshError(
            name,
            f"vertex {broken[0]} has non-finite coordinates ({x:g}, {y:g}, {z:g}) and is used by faces"
            + (f"; so are {broken.size - 1} more" if broken.size > 1 else ""),
            "delete such vertices and fill the holes",
        )
    return points, triangles


def unit_coordinates(points: Points, used: npt.NDArray[np.bool_], name: str) -> Points:
    """Points (n, 3) relative to the used ones' centre and extent; raises for a spike."""
    low, high = points[used].min(axis=0), points[used].max(axis=0)
    with np.errstate(over="ignore", invalid="ignore"):
        extent = float((high - low).max())
        if not extent < MAX_LENGTH:
            raise MeshError(name, f"is {extent:.3g} across, too large to compute with", "scale the mesh down")
        if 0 < extent < 4 * MIN_LENGTH:
            raise MeshError(name, f"is {extent:.3g} across, too small to compute with", "scale the mesh up")
        farthest = max(np.abs(low).max(), np.abs(high).max())
        if extent > 0 and not farthest < min(FARTHEST * extent / 2, MAX_LENGTH):
            raise MeshError(
                name,
                f"is {extent:.3g} across and {farthest:.3g} from the origin: its coordinates are rounded",
                "move the mesh to the origin before exporting it",
            )
        unit: Points = (points - (low + (high - low) / 2)) / (extent if extent > 0 else 1.0)
    _refuse_spike(points, unit, used, name)
    return unit


def _refuse_spike(points: Points, unit: Points, used: npt.NDArray[np.bool_], name: str) -> None:
    """Raise if a few outlying vertices leave the rest of the shape below the resolution of any network.

    Distances are measured from the median vertex, which 1 % of the vertices cannot move. A long thin shape is
    accepted, because its length does not depend on 1 % of its vertices.
    """
    indices = np.flatnonzero(used)
    shape = unit[indices]
    distances = np.abs(shape - np.median(shape, axis=0)).max(axis=1)
    far = max(1, len(indices) // 100)
    order = np.argpartition(distances, len(indices) - far)
    rest = shape[order[: len(indices) - far]]
    if len(rest) < 4 or not 0 < (size := float(np.ptp(rest, axis=0).max())) < RESOLUTION:
        return
    worst = indices[int(distances.argmax())]
    x, y, z = points[worst]
    raise MeshError(
        name,
        f"vertex {worst} at ({x:g}, {y:g}, {z:g}) is so far away that the rest of the shape is {size:.1g} "
        "of the extent, below the resolution of a network",
        "delete that vertex, or convert the parts separately",
    )


def merged_vertices(unit: Points, used: npt.NDArray[np.bool_]) -> Index:
    """For each vertex (n,) the first coincident one, within `MERGE_DISTANCE`."""
    indices = np.flatnonzero(used)
    cells = np.rint(unit[indices] / MERGE_DISTANCE).astype(np.int64)
    # Coordinates lie within half an extent of zero: 31 bits each, so two fit in one key.
    first, inverse = first_of_equal(cells[:, 0] << 32 | (cells[:, 1] + (1 << 31)), cells[:, 2])
    representative = np.arange(len(unit))
    representative[indices] = indices[first[inverse]]
    return representative


def first_of_equal(major: Index, minor: Index) -> tuple[Index, Index]:
    """Index of the first of each group of equal pairs, and the group (n,) of each pair."""
    order = np.lexsort((minor, major))  # stable: keeps the order within a group
    new = np.ones(len(order), bool)
    new[1:] = (np.diff(major[order]) != 0) | (np.diff(minor[order]) != 0)
    inverse = np.empty(len(order), np.int64)
    inverse[order] = np.cumsum(new) - 1
    return order[new], inverse


def is_distinct(faces: Faces) -> npt.NDArray[np.bool_]:
    """Which faces (F,) have three distinct corners."""
    a, b, c = faces.T
    distinct: npt.NDArray[np.bool_] = (a != b) & (b != c) & (c != a)
    return distinct


def triangle_heights(vertices: Points, faces: Faces) -> Values:
    """Smallest height (F,) of each triangle: twice its area over its longest edge; 0 for a point."""
    a, b, c = (vertices[faces[:, corner]] for corner in range(3))
    longest = np.linalg.norm([b - a, c - b, a - c], axis=2).max(axis=0)
    double_area = np.linalg.norm(np.cross(b - a, c - a), axis=1)
    heights: Values = double_area / np.where(longest > 0, longest, 1)
    return heights


def surplus_copies(faces: Faces, vertex_count: int) -> npt.NDArray[np.bool_]:
    """Which faces (F,) have `MAX_COPIES` earlier copies on the same vertices in the same orientation."""
    first_corner = faces.argmin(axis=1)[:, None]
    a, b, c = np.take_along_axis(faces, (first_corner + np.arange(3)) % 3, axis=1).T
    _, group = first_of_equal(a * vertex_count + b, c)
    order = np.argsort(group, kind="stable")
    start = np.searchsorted(group[order], group[order])
    surplus = np.zeros(len(faces), bool)
    surplus[order] = np.arange(len(faces)) - start >= MAX_COPIES
    return surplus
