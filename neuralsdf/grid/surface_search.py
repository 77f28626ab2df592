"""
surface_search.py
-----------------
Coarse-to-fine search for the lattice cells that contain the surface of a field.

A cell with centre c and half-diagonal r contains no surface if |f(c)| > L r, where L is the field's Lipschitz
constant. Networks have no useful exact bound, so L is measured. A measured L can be too small in places, so
the surface is also followed from cell to cell where it leaves the kept cells.

Only the sign of an occupancy field is meaningful. Its cells are kept if their corners have both signs
(multiresolution isosurface extraction, Mescheder et al. 2019), and the surface is followed in the same way.

The array operations are those of a `FieldLattice`: on the CPU here, on a GPU in backends/cuda/sparse_grid.py.
"""

from __future__ import annotations

from collections.abc import Callable, Sized
from dataclasses import dataclass
from typing import Protocol, TypeVar

import numpy as np
import numpy.typing as npt

from ..array_types import Faces, FloatArray, Index, Points
from ..errors import NeuralSDFError
from .sparse_grid import CORNERS, Lattice, distinct

#: Cells and samples in a lattice's own representation, which may live on a device.
Cells = TypeVar("Cells", bound=Sized)
Samples = TypeVar("Samples")

#: Points evaluated at once; bounds the temporary memory.
_POINTS = 1 << 16

# The six neighbours of a cell, each with the code bits of the shared face.
_NEIGHBOURS = [
    (
        sign * np.eye(3, dtype=np.int64)[axis],
        np.packbits(CORNERS[:, axis] == (sign > 0), bitorder="little")[0],
    )
    for axis in range(3)
    for sign in (1, -1)
]


def _icosahedron() -> FloatArray:
    golden = (1 + np.sqrt(5)) / 2
    corners = [(0, a, b * golden) for a in (-1, 1) for b in (-1, 1)]
    points = np.array([np.roll(corner, axis) for axis in range(3) for corner in corners])
    turn, _ = np.linalg.qr(np.array([[0.8, 0.3, -0.5], [-0.2, 0.9, 0.4], [0.6, -0.1, 0.7]]))
    around: FloatArray = (points @ turn / np.linalg.norm(points[0])).astype(np.float32)
    return around


class FieldLattice(Protocol[Cells, Samples]):
    """Samples the solid of a field within the unit ball, max(f(y) - level, |x| - 1), where y is the point of
    the ball closest to x, on a lattice that starts one spacing below the ball.

    `size` is the side of a cell in finest cells; cells of that size form a lattice of that spacing. Cells are
    distinct and in ascending order of their keys (sparse_grid.py), as arguments and as results.

    bytes_per_cell: peak memory, on the host or device, per candidate cell of the finest size.
    lowest: minimum of the values f(y) - level so far. Raises `NeuralSDFError` if a value is not finite.
    """

    bytes_per_cell: int
    lowest: float

    def cells(self, keys: Index) -> Cells:
        """Cells from keys (n,)."""
        ...

    def keys(self, cells: Cells) -> Index:
        """Keys (n,) of cells."""
        ...

    def holding(self, cells: Cells, size: int, lipschitz: float) -> Cells:
        """The cells, of side `size`, that can contain the surface."""
        ...

    def split(self, cells: Cells, size: int) -> Cells:
        """The eight cells of side `size` in each of the cells, which are twice as large."""
        ...

    def sampled(self, cells: Cells) -> Samples:
        """Values at the corners of finest cells."""
        ...

    def crossed(self, cells: Cells, samples: Samples) -> Cells:
        """The finest cells with corners on both sides of the surface."""
        ...

    def missed(self, cells: Cells, found: Cells, samples: Samples) -> Cells:
        """Neighbours of `found`, across faces with corners on both sides, that are not in `cells`."""
        ...

    def extended(self, cells: Cells, samples: Samples, new: Cells) -> tuple[Cells, Samples]:
        """`cells` and `samples` extended by `new`, which are few and not in `cells`."""
        ...

    def marching_cubes(self, cells: Cells, samples: Samples) -> tuple[Points, Faces]:
        """As `Lattice.marching_cubes`."""
        ...


def surface_cells(
    lattice: FieldLattice[Cells, Samples],
    cells: Cells,
    size: int,
    lipschitz: float,
    check_memory: Callable[[int, int], None],
) -> tuple[Cells, Samples, Cells]:
    """The finest cells that contain the surface, samples at all their corners, and the cells of twice that
    size that were searched (empty if `size` is 1).

    cells: candidates, `size` finest cells a side, a power of two. check_memory: called with a number of
    cells and their size before they are allocated; raises if that is too much.
    """
    cells = lattice.holding(cells, size, lipschitz)
    searched = lattice.cells(np.empty(0, np.int64))
    while size > 1:
        size //= 2
        check_memory(8 * len(cells), size)
        if size == 1:
            searched = cells
        cells = lattice.split(cells, size)
        if size > 1:  # corners of the finest cells are evaluated next: testing centres would save nothing
            cells = lattice.holding(cells, size, lipschitz)
    return *_followed(lattice, cells, check_memory), searched


def cells_by_sign(
    lattice: HostFieldLattice, cells: Index, size: int, check_memory: Callable[[int, int], None]
) -> tuple[Index, LatticeSamples, Index]:
    """As `surface_cells`, for a field of which only the sign is meaningful.

    A part is found if it contains a corner of a searched cell, of any size, or is connected to such a part.
    """
    cells, searched = lattice.of_both_signs(cells, size), cells[:0]
    while size > 1:
        size //= 2
        check_memory(8 * len(cells), size)
        if size == 1:
            searched = cells
        cells = lattice.split(cells, size)
        if size > 1:
            cells = lattice.of_both_signs(cells, size)
    return *_followed(lattice, cells, check_memory), searched


def _followed(
    lattice: FieldLattice[Cells, Samples], cells: Cells, check_memory: Callable[[int, int], None]
) -> tuple[Cells, Samples]:
    """Those of the finest `cells` that contain the surface, and the cells reached by following it; and the
    samples at their corners."""
    check_memory(len(cells), 1)
    samples = lattice.sampled(cells)
    cells = found = lattice.crossed(cells, samples)
    # A neighbour across a crossed face has corners on both sides: it contains the surface too.
    while len(found := lattice.missed(cells, found, samples)):
        cells, samples = lattice.extended(cells, samples, found)
        check_memory(len(cells), 1)
    return cells, samples


#: Distance of the samples of `settled`, in units of the rounding error: large enough that the samples are not
#: rounding error themselves.
_BESIDE = 8
#: Directions (12, 3) in opposite pairs: the corners of an icosahedron, rotated so that few planes contain
#: one.
_AROUND = _icosahedron()


def settled(
    evaluate: Callable[[FloatArray], FloatArray], points: FloatArray, values: FloatArray, rounding: float
) -> FloatArray:
    """Values (n,) at points (n, 3); where they are zero to within `rounding`, the surroundings decide.

    On a film, where a field is zero and has the same sign on both sides, the sign would be rounding error.
    There the value is replaced by the mean around the point, which has the sign of both sides. On a surface
    that mean is about zero too, and the value is kept.
    """
    near = np.flatnonzero(np.abs(values) <= rounding)
    if not near.size:
        return values
    around = points[near, None] + np.float32(_BESIDE * rounding) * _AROUND
    means = evaluate(around.reshape(-1, 3).astype(np.float32)).reshape(len(near), -1).mean(axis=1)
    film = np.abs(means) > rounding
    values[near[film]] = means[film]
    return values


def checked_lowest(lowest: float) -> float:
    """`lowest`, a minimum; raises `NeuralSDFError` if it is -inf, which stands for non-finite values."""
    if lowest == -np.inf:
        raise NeuralSDFError("the field is not finite everywhere in its ball: its weights overflow")
    return lowest


@dataclass(eq=False)
class LatticeSamples:
    """Values (n,) at the lattice points with ascending keys (n,)."""

    keys: Index
    values: FloatArray

    def merge(self, other: LatticeSamples) -> LatticeSamples:
        """The union of both; common points have equal values. `other` is small."""
        fresh = ~contains(self.keys, other.keys)
        keys, values = other.keys[fresh], other.values[fresh]
        place = np.searchsorted(self.keys, keys)
        return LatticeSamples(np.insert(self.keys, place, keys), np.insert(self.values, place, values))


class HostFieldLattice:
    """`FieldLattice` in NumPy; cells are represented by their keys (n,).

    evaluate: values f (n,) at points (n, 3) of the unit ball. spacing: of the lattice points. rounding:
    rounding error of the values, see `settled`.
    """

    def __init__(
        self,
        lattice: Lattice,
        evaluate: Callable[[FloatArray], FloatArray],
        spacing: float,
        level: float,
        rounding: float = 0.0,
    ) -> None:
        self._lattice, self._evaluate = lattice, evaluate
        self._spacing, self._level, self._rounding = spacing, np.float32(level), rounding
        self.bytes_per_cell = lattice.bytes_per_cell
        self.lowest = np.inf

    def cells(self, keys: Index) -> Index:
        """As `FieldLattice.cells`."""
        return keys

    def keys(self, cells: Index) -> Index:
        """As `FieldLattice.keys`."""
        return cells

    def holding(self, cells: Index, size: int, lipschitz: float) -> Index:
        """As `FieldLattice.holding`."""
        reach = size * self._spacing * np.sqrt(3) / 2
        kept = [cells[:0]]
        for start in range(0, len(cells), _POINTS):
            chunk = cells[start : start + _POINTS]
            centres, beyond = self._lattice.ball_points(chunk, self._spacing, size / 2)
            meets_ball = beyond < reach
            chunk, centres, beyond = chunk[meets_ball], centres[meets_ball], beyond[meets_ball]
            values = self._field_values(centres)
            # Discard cells that lie outside the field or the ball, or inside both.
            outside = values > lipschitz * reach
            inside = (values < -lipschitz * reach) & (beyond < -reach)
            kept.append(chunk[~outside & ~inside])
        return np.concatenate(kept)

    def of_both_signs(self, cells: Index, size: int) -> Index:
        """The cells, of `size` finest cells per side, with corners inside and outside of the solid."""
        kept = [cells[:0]]
        for start in range(0, len(cells), _POINTS // 4):
            chunk = cells[start : start + _POINTS // 4]
            corners = chunk[:, None] + size * self._lattice.corners
            keys = distinct(corners.flatten())
            points, beyond = self._lattice.ball_points(keys, self._spacing, 0)
            inside = np.maximum(self._field_values(points), beyond) < 0
            count = inside[np.searchsorted(keys, corners)].sum(axis=1)
            kept.append(chunk[(count > 0) & (count < 8)])
        return np.concatenate(kept)

    def split(self, cells: Index, size: int) -> Index:
        """As `FieldLattice.split`."""
        parts: Index = (cells[:, None] + size * self._lattice.corners).ravel()
        parts.sort()
        return parts

    def sampled(self, cells: Index) -> LatticeSamples:
        """As `FieldLattice.sampled`."""
        keys = self._lattice.corner_keys(cells)
        values = np.empty(len(keys), np.float32)
        for start in range(0, len(keys), _POINTS):
            points, beyond = self._lattice.ball_points(keys[start : start + _POINTS], self._spacing, 0)
            np.maximum(self._field_values(points), beyond, out=values[start : start + _POINTS])
        return LatticeSamples(keys, values)

    def crossed(self, cells: Index, samples: LatticeSamples) -> Index:
        """As `FieldLattice.crossed`."""
        codes = self._lattice.cell_codes(cells, samples.keys, samples.values)
        return cells[(codes > 0) & (codes < 255)]

    def missed(self, cells: Index, found: Index, samples: LatticeSamples) -> Index:
        """As `FieldLattice.missed`."""
        codes = self._lattice.cell_codes(found, samples.keys, samples.values)
        missed = [found[:0]]
        for step, face in _NEIGHBOURS:
            inside = codes & face
            neighbours = found[(inside != 0) & (inside != face)] + step @ self._lattice.strides
            missed.append(neighbours[~contains(cells, neighbours)])
        return distinct(np.concatenate(missed))

    def extended(self, cells: Index, samples: LatticeSamples, new: Index) -> tuple[Index, LatticeSamples]:
        """As `FieldLattice.extended`."""
        return distinct(np.concatenate([cells, new])), samples.merge(self.sampled(new))

    def marching_cubes(self, cells: Index, samples: LatticeSamples) -> tuple[Points, Faces]:
        """As `FieldLattice.marching_cubes`."""
        return self._lattice.marching_cubes(cells, samples.keys, samples.values)

    def _field_values(self, points: FloatArray) -> FloatArray:
        """f(x) - level (n,) at points (n, 3) of the ball."""
        values = self._less_level(points)
        if self._rounding:
            values = settled(self._less_level, points, values, self._rounding)
        lowest = values.min(initial=np.inf) if np.isfinite(values).all() else -np.inf
        self.lowest = min(self.lowest, checked_lowest(float(lowest)))
        return values

    def _less_level(self, points: FloatArray) -> FloatArray:
        return self._evaluate(points) - self._level


def contains(ascending: Index, keys: Index) -> npt.NDArray[np.bool_]:
    """Whether each of keys (n,) is in `ascending`."""
    if not len(ascending):
        return np.zeros(len(keys), np.bool_)
    place = np.minimum(np.searchsorted(ascending, keys), len(ascending) - 1)
    found: npt.NDArray[np.bool_] = ascending[place] == keys
    return found
