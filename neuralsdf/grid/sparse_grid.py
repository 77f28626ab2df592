"""
sparse_grid.py
--------------
A cubic lattice with sparse points and cells: their positions, shared corners, and marching cubes (Lorensen
and Cline 1987).

Lattice point (i, j, k) has the key (i side + j) side + k. The key of a cell is that of its lowest corner.
Adding the key of an offset moves a point or cell; ascending keys traverse the lattice plane by plane.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar, NamedTuple

import numpy as np
import numpy.typing as npt

from ..array_types import Faces, FloatArray, Index, Points
from ..thread_count import threads

Codes = npt.NDArray[np.uint8]

#: Corners of a cell in marching cubes order; each is one bit of a cell's code.
CORNERS = np.array(
    [(0, 0, 0), (1, 0, 0), (1, 1, 0), (0, 1, 0), (0, 0, 1), (1, 0, 1), (1, 1, 1), (0, 1, 1)], np.int64
)

#: Vertices keep this fraction of an edge's length from its ends, so that no triangle degenerates and no
#: two vertices coincide where the field is zero at a lattice point.
MARGIN = 1e-3
#: Lattice points per slab; bounds NumPy's temporary memory.
_SLAB = 1 << 20


def fastest_lattice(side: int) -> Lattice:
    """A lattice with `side` points along each axis, from the C++ core if it was built."""
    try:
        return NativeLattice(side)
    except ImportError:
        return Lattice(side)


def distinct(keys: Index) -> Index:
    """Distinct keys, ascending; sorts `keys` (n,) in place. np.unique would hash, ten times slower."""
    keys.sort()
    once: Index = keys[np.concatenate([np.ones(len(keys[:1]), np.bool_), keys[1:] != keys[:-1]])]
    return once


@dataclass(eq=False)
class Lattice:
    """A lattice with `side` points along each axis, in NumPy and libigl: the reference for the C++ core.

    Arrays of cells and keys (n,) are ascending and distinct, as arguments and as results.
    bytes_per_cell: peak memory of an extraction per cell of the finest level, measured at resolutions of
    256 and more.
    """

    side: int
    bytes_per_cell: ClassVar[int] = 120

    @cached_property
    def strides(self) -> Index:
        """Keys of the unit vectors (3,)."""
        return np.array([self.side**2, self.side, 1], np.int64)

    @cached_property
    def corners(self) -> Index:
        """Keys of a cell's corners (8,) relative to the cell's key."""
        keys: Index = CORNERS @ self.strides
        return keys

    def subscripts(self, keys: Index) -> Index:
        """Integer coordinates (n, 3) of keys (n,), in any order."""
        return np.stack([keys // self.side**2, keys // self.side % self.side, keys % self.side], axis=1)

    def ball_points(self, keys: Index, spacing: float, offset: float) -> tuple[FloatArray, FloatArray]:
        """Closest points (n, 3) of the unit ball to lattice points, and distances (n,) beyond the ball.

        The lattice starts one `spacing` below the ball. keys: (n,), in any order. offset: added to each
        coordinate, for instance to reach cell centres. Distances are negative within the ball.
        """
        located = (self.subscripts(keys) + offset) * spacing - (1 + spacing)
        radii = np.linalg.norm(located, axis=1)
        nearest = located / np.maximum(radii, 1)[:, None]
        return nearest.astype(np.float32), (radii - 1).astype(np.float32)

    def corner_keys(self, cells: Index) -> Index:
        """Keys of all corners of cells (n,), found by dilation along one axis at a time."""
        keys = cells
        for stride in self.strides[::-1]:
            keys = distinct(np.concatenate([keys, keys + stride]))
        return keys

    def cell_codes(self, cells: Index, keys: Index, values: FloatArray) -> Codes:
        """Code (n,) of each cell: one bit per corner, set if the value is negative.

        keys, values: (m,) of lattice points that include all corners of the cells.
        """
        codes = [slab.codes for slab in self._slabs(cells, keys, values)]
        return np.concatenate([np.empty(0, np.uint8), *codes])

    def marching_cubes(self, cells: Index, keys: Index, values: FloatArray) -> tuple[Points, Faces]:
        """Vertices (V, 3) in lattice units and faces (F, 3) of the surface in cells (n,).

        keys, values: as in `cell_codes`; zero counts as outside. Vertices are interpolated linearly along
        lattice edges and identified by their edge, so that cells and slabs join without seams.
        """
        import igl

        edges = [np.empty(0, np.int64)]
        fractions = [np.empty(0)]
        faces = [np.empty((0, 3), np.int32)]
        count = 0
        for slab in self._slabs(cells, keys, values):
            local = slab.values.astype(np.float64)
            # Zero counts as outside here, but as inside in libigl.
            signed = np.where(local == 0, 1.0, local)
            _, triangles, numbers = igl.marching_cubes(
                signed, np.zeros((len(local), 3)), slab.corners.astype(np.int64), 0.0
            )  # positions are computed from the edges below, to keep the margin
            if not numbers:
                continue
            ends = np.fromiter(numbers.keys(), np.int64, len(numbers))
            vertex = np.fromiter(numbers.values(), np.int64, len(numbers))
            ends = np.sort(np.stack([ends & 0xFFFFFFFF, ends >> 32], axis=1), axis=1)[np.argsort(vertex)]
            low, high = ends.T
            axis = np.searchsorted(-self.strides, slab.keys[low] - slab.keys[high])
            edges.append(slab.keys[low] * 3 + axis)
            fractions.append(local[low] / (local[low] - local[high]))
            faces.append(triangles.astype(np.int32) + count)
            count += len(numbers)
        edge, first, vertex_of = np.unique(np.concatenate(edges), return_index=True, return_inverse=True)
        vertices = self.subscripts(edge // 3).astype(np.float64)
        vertices[np.arange(len(edge)), edge % 3] += np.clip(
            np.concatenate(fractions)[first], MARGIN, 1 - MARGIN
        )
        return vertices, vertex_of[np.concatenate(faces)]

    def _slabs(self, cells: Index, keys: Index, values: FloatArray) -> Iterator[_Slab]:
        """Split cells (n,) into slabs."""
        plane = self.side**2
        planes = max(1, _SLAB // plane - 1)  # of cells; there is one more plane of lattice points
        place = np.empty((planes + 1) * plane, np.int32)  # index of a lattice point in the slab
        for low in range(0, self.side * plane, planes * plane):
            first, last = np.searchsorted(cells, [low, low + planes * plane])
            if first == last:
                continue
            begin, end = np.searchsorted(keys, [low, low + (planes + 1) * plane])
            place[keys[begin:end] - low] = np.arange(end - begin, dtype=np.int32)
            corners = place[(cells[first:last] - low)[:, None] + self.corners]
            codes = np.packbits((values[begin:end] < 0)[corners], axis=1, bitorder="little")[:, 0]
            yield _Slab(keys[begin:end], values[begin:end], corners, codes)


class _Slab(NamedTuple):
    """Cells (n,) between consecutive planes of a lattice.

    keys, values: of the lattice points of those planes. corners: (n, 8), indices into them.
    codes: (n,), one bit per corner that is inside.
    """

    keys: Index
    values: FloatArray
    corners: npt.NDArray[np.int32]
    codes: Codes


class NativeLattice(Lattice):
    """`Lattice` in the C++ core; raises `ImportError` if it was not built."""

    bytes_per_cell = 64

    def __init__(self, side: int) -> None:
        from ..kernels import _core

        super().__init__(side)
        self._core = _core

    def ball_points(self, keys: Index, spacing: float, offset: float) -> tuple[FloatArray, FloatArray]:
        """As `Lattice.ball_points`."""
        return self._core.ball_points(keys, self.side, spacing, offset, threads())

    def corner_keys(self, cells: Index) -> Index:
        """As `Lattice.corner_keys`."""
        return self._core.corner_keys(cells, self.side)

    def cell_codes(self, cells: Index, keys: Index, values: FloatArray) -> Codes:
        """As `Lattice.cell_codes`."""
        return self._core.cell_codes(cells, keys, values, self.side, threads())

    def marching_cubes(self, cells: Index, keys: Index, values: FloatArray) -> tuple[Points, Faces]:
        """As `Lattice.marching_cubes`."""
        return self._core.marching_cubes(cells, keys, values, self.side, MARGIN, threads())
