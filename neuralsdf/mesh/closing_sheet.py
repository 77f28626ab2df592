"""
closing_sheet.py
----------------
The sheet that closes an open mesh. The solid of an open mesh is the set of points with winding number above
1/2. Part of its boundary has no triangles: the closing sheet, where the winding number crosses 1/2 in free
space. With only the distance to the triangles, the signed field would jump there from +d to -d; no network
can fit that, and a sphere tracer steps through it. With the sheet as part of the surface, the field is the
true distance to a solid.

The winding number is harmonic away from the triangles. If it is far from 1/2 at a point, it stays so nearby,
which excludes most cells; marching cubes on coarse cells then finds the sheet. Cells near open edges, where
sheet and triangles meet, are refined.
"""

from __future__ import annotations

from collections.abc import Callable

import igl
import numpy as np
import numpy.typing as npt

from ..array_types import Faces, Points, Values
from ..geometry.bvh import MakeBVH

_SEARCHED = 8, 16, 32  # cells along the side of the ball's bounding cube in the search for the sheet
_COARSEST = 64  # cells along the side for meshing
_LEVELS = 4  # subdivisions near open edges
_MAX_CELLS = 100_000  # limits the refinement of a mesh that has open edges everywhere
_HALF_SIDE = 1.0
# Order of the marching cubes tables.
_CORNERS = np.array(
    [(0, 0, 0), (1, 0, 0), (1, 1, 0), (0, 1, 0), (0, 0, 1), (1, 0, 1), (1, 1, 1), (0, 1, 1)], np.int64
)


def open_edges(faces: Faces) -> npt.NDArray[np.int64]:
    """Edges (k, 2) that faces (F, 3) do not use equally often in both directions; none if closed."""
    tail, head = faces.ravel(), np.roll(faces, -1, axis=1).ravel()
    count = int(faces.max()) + 1
    keys, index = np.unique(np.minimum(tail, head) * count + np.maximum(tail, head), return_inverse=True)
    balance = np.bincount(index, np.where(tail < head, 1.0, -1.0), minlength=len(keys))
    unbalanced = keys[balance != 0]
    return np.stack([unbalanced // count, unbalanced % count], axis=1)


def closing_sheet(
    vertices: Points,
    faces: Faces,
    winding_number: Callable[[Values], Values],
    unsigned_distance: Callable[[Values], Values],
    make_bvh: MakeBVH,
) -> tuple[Points, Faces]:
    """Vertices (V, 3) and faces (F, 3) of the sheet in model space; empty for a closed mesh.

    winding_number, unsigned_distance: functions of the mesh at points (n, 3). make_bvh: builds the BVH of
    open edges.
    """
    edges = open_edges(faces)
    if len(edges) == 0:
        return np.empty((0, 3)), np.empty((0, 3), np.int64)
    edge_distance = make_bvh(vertices, np.ascontiguousarray(edges[:, [0, 1, 1]])).distance
    cells = _cells_of_sheet(winding_number, unsigned_distance)
    side = 2 * _HALF_SIDE / _COARSEST
    pieces: list[tuple[Points, Faces]] = []
    for level in range(_LEVELS + 1):
        if len(cells) == 0:
            break
        corners = cells[:, None] + _CORNERS
        # One integer per corner, since sorting rows is slow.
        keys, index = np.unique((corners << [42, 21, 0]).sum(axis=2), return_inverse=True)
        index = index.reshape(-1, 8)
        lattice = np.stack([keys >> 42, keys >> 21 & 0x1FFFFF, keys & 0x1FFFFF], axis=1)
        positions = lattice * side - _HALF_SIDE
        winding = winding_number(positions)
        values = winding[index]
        crossed = (values.max(axis=1) > 0.5) & (values.min(axis=1) <= 0.5)
        cells, index = cells[crossed], index[crossed]
        centres = (cells + 0.5) * side - _HALF_SIDE
        half_diagonal = side * np.sqrt(3) / 2
        # In cells that a triangle crosses, the winding number jumps and does not locate the sheet.
        in_the_open = unsigned_distance(centres) > half_diagonal
        if in_the_open.any():
            piece = igl.marching_cubes(winding, positions, np.ascontiguousarray(index[in_the_open]), 0.5)
            # Normals of marching cubes point to larger winding numbers, that is inwards.
            pieces.append((piece[0], piece[1][:, ::-1]))
        rest = ~in_the_open
        if level == _LEVELS or not rest.any():
            break
        cells = cells[rest][edge_distance(centres[rest]) < 4 * half_diagonal]
        if 8 * len(cells) >= _MAX_CELLS:
            break
        cells = _halved(cells)
        side /= 2
    if not pieces:
        return np.empty((0, 3)), np.empty((0, 3), np.int64)
    offsets = np.cumsum([0, *(len(piece[0]) for piece in pieces)])
    sheet_faces = [piece[1] + offset for piece, offset in zip(pieces, offsets[:-1], strict=True)]
    return np.concatenate([piece[0] for piece in pieces]), np.concatenate(sheet_faces)


def _cells_of_sheet(
    winding_number: Callable[[Values], Values], unsigned_distance: Callable[[Values], Values]
) -> Faces:
    """Cells (n, 3), with _COARSEST along the cube's side, that may contain part of the sheet or a triangle.

    A harmonic function bounded by 1 in a ball of radius R has a gradient of at most 3 / 2R at its centre. So
    within r of a point at distance d from all triangles, the winding number changes by at most
    3 r / 2 (d - r).
    """
    cells = np.stack(np.meshgrid(*[np.arange(_SEARCHED[0])] * 3, indexing="ij"), axis=-1).reshape(-1, 3)
    for count in _SEARCHED:
        side = 2 * _HALF_SIDE / count
        half_diagonal = side * np.sqrt(3) / 2
        centres = np.asarray((cells + 0.5) * side - _HALF_SIDE, np.float64)
        off_one_half = np.abs(winding_number(centres) - 0.5)
        room = unsigned_distance(centres) - half_diagonal
        cells = _halved(cells[off_one_half * room <= 1.5 * half_diagonal])
    return cells


def _halved(cells: Faces) -> Faces:
    """Subdivide cells (n, 3) into eight each, (8 n, 3)."""
    return (2 * cells[:, None] + _CORNERS).reshape(-1, 3)
