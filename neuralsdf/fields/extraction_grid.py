"""
extraction_grid.py
------------------
A field on a lattice over its ball, at one resolution: the search for its surface, marching cubes, and the
parts of the shape that are thinner than a cell and were missed."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np

from ..array_types import Faces, FloatArray, Index, Mask, Points, Values
from ..errors import NeuralSDFError
from ..geometry.triangles import FACES_AT_ONCE
from ..grid.sparse_grid import CORNERS, MARGIN, Lattice, distinct, fastest_lattice
from ..grid.surface_search import FieldLattice, HostFieldLattice, cells_by_sign, settled, surface_cells
from .field import Field

MIN_RESOLUTION = 8

#: Cells along a side of the coarsest grid: between this and twice as many. By signs alone a part smaller than
#: such a cell may be missed.
_COARSEST, _COARSEST_BY_SIGN = 32, 64

#: Cells of a block: what is not in a block of the surface, nor in one beside it, is far from it.
_BLOCK = 4
#: Newton steps from the centre of a cell to the zero set, and how far beyond it the sign is looked at, in
#: cells.
_NEWTON_STEPS, _BEYOND = 3, (0.02, 0.1, 0.3, 0.5)
#: The nearest place beyond it that is looked at, in the rounding of the field: the middle of what is just
#: thick enough to be no film.
_FILM_STEP = 1.25
#: Cells that are looked at for missed parts, at most: so many, and operations, at eight values a cell.
_PROBES, _PROBE_WORK = 1 << 18, 1 << 31
#: Bytes that a process takes before it extracts anything.
PROCESS_BYTES = 128_000_000
#: Bytes for each face of a mesh, with its share of the vertices, until it was checked and written: 36 for the
#: mesh, as many for its edges as they are sorted, or for the copy that is written.
FACE_BYTES = 80
#: Faces of a cell that the surface passes through: 2, and up to 3 where the shape is noise.
_FACES_OF_A_CELL = 2.5
#: Bytes for each of the cells whose faces are looked at together (geometry/triangles.py), and their number.
_CELL_AT_ONCE, _CELLS_AT_ONCE = 500, FACES_AT_ONCE // 2
#: Vertices that are checked together. In cells: how far one may be off the surface, by the field, and how
#: close to an end of its edge it is checked by the sign. Bisections of the edge of one that is wrong.
_VERTICES_AT_ONCE, _OFF_SURFACE, _CLOSE, _BISECTIONS = 1 << 16, 0.02, 0.02, 7
#: Finest cells, and points of each, in which the volume is checked.
_SAMPLED_CELLS, _POINTS_OF_A_CELL = 8192, 8


class TooLargeError(NeuralSDFError):
    """An extraction would take more memory than it may."""


class Found(NamedTuple):
    """The finest cells that hold the surface, with their samples, and the cells of twice their size that were
    searched; as the lattice keeps them."""

    cells: Any
    samples: Any
    searched: Any


class _Probes(NamedTuple):
    """At n points where a field should be zero: how deep its other sign goes beyond, its values, and the sign
    of the field where they were looked for from.
    """

    depth: Values
    values: FloatArray
    sign: FloatArray


@dataclass(frozen=True, eq=False)
class FieldGrid:
    """A field on a lattice with `resolution` cells across the ball's bounding cube and one cell around it.

    level: the surface is where the field has this value, in model space. max_memory: bytes that the process
    may take. face_bytes: what it takes for each face of the mesh, from extraction to the end.
    """

    field: Field
    level: float
    resolution: int
    max_memory: int
    face_bytes: int = FACE_BYTES

    @property
    def spacing(self) -> float:
        """Side of a finest cell."""
        return 2 / (self.resolution - 2)

    @property
    def by_sign(self) -> bool:
        """Whether only the sign of the field's values has a meaning: they are no lengths."""
        return self.field.kind == "occupancy"

    @property
    def coarsest(self) -> int:
        """Side of a coarsest cell in finest ones, a power of two."""
        cells = _COARSEST_BY_SIGN if self.by_sign else _COARSEST
        return 1 << max(0, int(np.log2(self.resolution / cells)))

    @property
    def side(self) -> int:
        """Points along a side: enough for whole cells of the coarsest size."""
        return -(-self.resolution // self.coarsest) * self.coarsest + 1

    @cached_property
    def lattice(self) -> FieldLattice[Any, Any]:
        """The field's own program on the lattice, or its values."""
        program, arguments = self.field.program, (self.spacing, self.level, self.field.rounding)
        if program and not self.by_sign:
            return program.on_lattice(self.side, *arguments)
        return HostFieldLattice(fastest_lattice(self.side), self.field.value, *arguments)

    def search(self) -> Found:
        """The cells that hold the surface, which may be none. Raises `TooLargeError`."""
        coarsest = self._coarsest_cells()
        if self.by_sign:
            assert isinstance(self.lattice, HostFieldLattice)
            return Found(*cells_by_sign(self.lattice, coarsest, self.coarsest, self._check_memory))
        return Found(
            *surface_cells(
                self.lattice, self.lattice.cells(coarsest), self.coarsest,
                self._measured_lipschitz(coarsest), self._check_memory,
            )
        )  # fmt: skip

    def surface(self, found: Found) -> tuple[Points, Faces]:
        """Vertices (V, 3) in model space and faces (F, 3) of the surface in the cells found."""
        # On the paper authors' networks at resolution 256 interpolated vertices are 0.00002 to 0.00006 off, a
        # thirtieth of what those networks err, so no root is searched for. Where films end at the surface, as
        # at the seam of a union, the field is not linear along an edge, and they are up to half a cell off.
        # Values of an occupancy field need not be linear anywhere.
        vertices, faces = self.lattice.marching_cubes(found.cells, found.samples)
        if self.field.rounding or self.by_sign:
            for first in range(0, len(vertices), _VERTICES_AT_ONCE):
                self._move_to_surface(vertices[first : first + _VERTICES_AT_ONCE])
        vertices *= self.spacing
        vertices -= 1 + self.spacing
        return vertices, faces

    def _move_to_surface(self, vertices: Points) -> None:
        """Move vertices (n, 3), in units of the lattice, along their edges to where the field changes sign.

        Those that are off it by the field, and those that are close to an end of their edge without a change
        of sign there: on a film the field is zero too. All of them where only the sign has a meaning.
        """
        axis = np.argmax(vertices != np.floor(vertices), axis=1)
        along = np.eye(3)[axis]
        begin = vertices - (vertices - np.floor(vertices)) * along
        off = np.ones(len(vertices), np.bool_) if self.by_sign else self._off_surface(vertices, begin, along)
        begin, along = begin[off], along[off]
        low, high = np.zeros(len(begin)), np.ones(len(begin))
        at_low, at_high = self._lattice_values(begin), self._lattice_values(begin + along)
        for _ in range(_BISECTIONS):
            middle = (low + high) / 2
            value = self._lattice_values(begin + middle[:, None] * along)
            before = (value < 0) != (at_low < 0)
            low, at_low = np.where(before, low, middle), np.where(before, at_low, value)
            high, at_high = np.where(before, middle, high), np.where(before, value, at_high)
        crossing = low + (high - low) * at_low / (at_low - at_high)
        vertices[off] = begin + np.clip(crossing, MARGIN, 1 - MARGIN)[:, None] * along

    def _off_surface(self, vertices: Points, begin: Points, along: Points) -> Mask:
        """Which vertices (n, 3), on edges from `begin` (n, 3) `along` axes (n, 3), may be off the surface."""
        at = np.linalg.norm(vertices - begin, axis=1)
        off: Mask = np.abs(self._lattice_values(vertices)) > _OFF_SURFACE * self.spacing
        close = np.flatnonzero(~off & (np.abs(at - 0.5) > 0.5 - _CLOSE))
        towards = np.where(at[close] < 0.5, 2 * _CLOSE, 1 - 2 * _CLOSE)[:, None] * along[close]
        ends = np.where(at[close] < 0.5, 1.0, 0.0)[:, None] * along[close]
        off[close] = (self._lattice_values(begin[close] + towards) < 0) != (
            self._lattice_values(begin[close] + ends) < 0
        )
        return off

    def _lattice_values(self, points: Points) -> FloatArray:
        """Values (n,) of the solid at points (n, 3) in units of the lattice, as at the lattice's own."""
        located = points * self.spacing - (1 + self.spacing)
        radii = np.linalg.norm(located, axis=1)
        nearest = (located / np.maximum(radii, 1)[:, None]).astype(np.float32)

        def less_level(places: FloatArray) -> FloatArray:
            return self.field.value(places) - np.float32(self.level)

        values = settled(less_level, nearest, less_level(nearest), self.field.rounding)
        solid: FloatArray = np.maximum(values, (radii - 1).astype(np.float32))
        return solid

    def memory(self, found: Found, resolution: int | None = None) -> float:
        """Bytes that the process takes for the surface found and its mesh, about.

        resolution: for those at another one; the cells at a surface grow with the square of the resolution.
        """
        grown = ((resolution or self.resolution) / self.resolution) ** 2
        cells = grown * len(found.cells)
        search = max(grown * 8 * len(found.searched), cells) * self.lattice.bytes_per_cell
        return PROCESS_BYTES + max(search, self._mesh_bytes(cells))

    def affordable(self, needed: float) -> float:
        """The resolution that `max_memory` allows, where this grid's takes `needed` bytes."""
        spare = max(0, self.max_memory - PROCESS_BYTES)
        return float(self.resolution * np.sqrt(spare / (needed - PROCESS_BYTES)))

    def check_mesh(self, found: Found) -> None:
        """Raise `TooLargeError` if the mesh of the surface found takes more than `max_memory`."""
        if self.memory(found) > self.max_memory:
            raise self._too_large(self.memory(found), 1)

    @property
    def thinnest(self) -> float:
        """The thickness of a part, in model space, that `missed` can tell from a film."""
        return 2 * _FILM_STEP * self.field.rounding

    def missed(self, found: Found) -> Values:
        """Thickness (n,), in model space, of parts of the solid, or gaps in it, that no cell has a corner in.

        One for each of the searched cells that are far from the surface found, and from whose centre Newton
        steps come to a point where the field changes its sign nevertheless. A part at a distance of some ten
        cells or less from the surface is a detail of that, not a part. Where a field only comes close to
        zero, or where its values are no lengths, nothing is missed."""
        if self.by_sign:
            return np.empty(0)
        thickness = 2 * self._probed(found).depth
        # What is thinner than the field's own error is no part of the shape, nor is rounding.
        kept: Points = thickness[thickness > max(self.field.error, 2 * self.field.rounding, 1e-6)]
        return kept

    def holds_films(self, found: Found) -> bool:
        """Whether the field comes to zero outside of the solid, far from the surface found, without a
        part.
        """
        probes, rounding = self._probed(found), self.field.rounding
        film = (probes.depth <= rounding) & (np.abs(probes.values) <= 4 * rounding) & (probes.sign > 0)
        return bool(film.any())

    def _probed(self, found: Found) -> _Probes:
        """The points of the zero set next to searched cells that are far from the surface found."""
        lattice, blocks = Lattice(self.side), Lattice(self.side // _BLOCK + 3)

        def block_of(cells: Index) -> Index:
            keys: Index = (lattice.subscripts(cells) // _BLOCK + 1) @ blocks.strides
            return keys

        cells = self.lattice.keys(found.cells)
        some = [cells[first : first + _CELLS_AT_ONCE] for first in range(0, len(cells), _CELLS_AT_ONCE)]
        near = distinct(np.concatenate([[0], *(distinct(block_of(run)) for run in some)]))
        for stride in blocks.strides:
            near = distinct(np.concatenate([near - stride, near, near + stride]))
        searched = self.lattice.keys(found.searched)
        some = [searched[first : first + _CELLS_AT_ONCE] for first in range(0, len(searched), _CELLS_AT_ONCE)]
        far = np.concatenate([searched[:0], *(run[~_among(near, block_of(run))] for run in some)])
        probes = min(_PROBES, _PROBE_WORK // (8 * self.field.operations) + 1)
        far = far[:: max(1, len(far) // probes)]
        foot, normal, sign = self._feet(lattice.ball_points(far, self.spacing, 1.0)[0])
        depth = np.zeros(len(foot))
        for step in (_FILM_STEP * self.field.rounding, *(cells * self.spacing for cells in _BEYOND)):
            there = foot - (sign * np.float32(step))[:, None] * normal
            depth = np.maximum(depth, -sign * (self.field.value(there) - np.float32(self.level)))
        block = np.floor((foot + (1 + self.spacing)) / (_BLOCK * self.spacing)).astype(np.int64) + 1
        apart = ~_among(near, block @ blocks.strides) & (np.linalg.norm(foot, axis=1) < 1)
        values = self.field.value(foot[apart]) - np.float32(self.level)
        return _Probes(depth[apart], values, sign[apart])

    def volume_error(self, found: Found) -> float:
        """By how much the volume of the field's solid exceeds that of the surface found, in model space.

        From random points of the searched cells: inside by the field's sign, or between the values at the
        corners of a finest cell. Two resolutions that are both too coarse can agree on a wrong volume: the
        extraction of a square rod has half of its cross-section as long as one row of lattice points is in
        it. Where `surface` moves vertices to the field's change of sign, it errs less than that."""
        lattice, rng = Lattice(self.side), np.random.default_rng(0)
        searched = self.lattice.keys(found.searched)
        # Systematic: every so many of the cells, which are ordered in space, and one of the eight cells in
        # each.
        chosen = (np.arange(_SAMPLED_CELLS) + rng.random(_SAMPLED_CELLS)) * (len(searched) / _SAMPLED_CELLS)
        cells = searched[chosen.astype(np.int64)] + rng.choice(lattice.corners, _SAMPLED_CELLS)
        corners, beyond = lattice.ball_points((cells[:, None] + lattice.corners).ravel(), self.spacing, 0.0)
        at_corners = self._solid_values(corners, beyond).reshape(-1, 8)
        at = rng.random((_SAMPLED_CELLS, _POINTS_OF_A_CELL, 3))
        weights = np.where(CORNERS, at[:, :, None], 1 - at[:, :, None]).prod(axis=3)
        between = np.einsum("cpk,ck->cp", weights, at_corners) < 0
        points = (lattice.subscripts(cells)[:, None] + at).reshape(-1, 3) * self.spacing - (1 + self.spacing)
        radii = np.linalg.norm(points, axis=1)
        nearest = (points / np.maximum(radii, 1)[:, None]).astype(np.float32)
        inside = self._solid_values(nearest, (radii - 1).astype(np.float32)).reshape(between.shape) < 0
        share = float(inside.mean() - between.mean())
        return share * len(searched) * (2 * self.spacing) ** 3

    def _solid_values(self, points: FloatArray, beyond: FloatArray) -> FloatArray:
        """The field less its level within the ball (n,): max(f(y) - level, |x| - 1)."""
        values: FloatArray = np.maximum(self.field.value(points) - np.float32(self.level), beyond)
        return values

    def _feet(self, points: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray]:
        """Points (n, 3) of the zero set close to some points, unit gradients (n, 3) there, and the sign (n,)
        at the points that they were reached from.
        """
        sign, normal = np.ones(len(points), np.float32), points
        longest = np.float32(2 * np.sqrt(3) * self.spacing)  # across a searched cell
        for turn in range(_NEWTON_STEPS):
            values, gradients = self.field.value_and_gradient(points)
            values = values - np.float32(self.level)
            if turn == 0:
                sign = np.where(values < 0, np.float32(-1), np.float32(1))
            slopes = np.maximum(np.linalg.norm(gradients, axis=1), np.float32(1e-6))
            normal = gradients / slopes[:, None]
            points = points - np.clip(values / slopes, -longest, longest)[:, None] * normal
        return points, normal, sign

    def _coarsest_cells(self) -> Index:
        """Keys (n,) of all cells of the coarsest size."""
        along = np.arange(0, self.side - 1, self.coarsest)
        x, y, z = (along * stride for stride in Lattice(self.side).strides)
        cells: Index = (x[:, None, None] + y[:, None] + z).ravel()
        return cells

    def _measured_lipschitz(self, cells: Index) -> float:
        """The norm that the gradient exceeds in one in a hundred of coarsest cells (n,) that meet the ball;
        at least the field's own constant, where it knows one.

        On the paper authors' networks it is 1.3 to 1.7, and the constant that no cell holding the surface
        exceeds is 1.3 at most.
        """
        lattice = fastest_lattice(self.side)
        centres, beyond = lattice.ball_points(cells, self.spacing, self.coarsest / 2)
        _, gradients = self.field.value_and_gradient(centres[beyond < 0])
        measured = float(np.percentile(np.linalg.norm(gradients, axis=1), 99))
        return 1.01 * max(measured, self.field.lipschitz or 0.0)  # 1.01: rounding, where it is 1

    def _mesh_bytes(self, cells: float) -> float:
        """Bytes for the mesh of a surface in so many finest cells, and for what is done with it."""
        return _FACES_OF_A_CELL * self.face_bytes * cells + _CELL_AT_ONCE * min(cells, _CELLS_AT_ONCE)

    def _check_memory(self, cells: int, size: int) -> None:
        """Raise `TooLargeError` if a search of that many cells, each `size` finest ones a side, takes more
        than `max_memory`.
        """
        search = cells * self.lattice.bytes_per_cell
        if PROCESS_BYTES + search > self.max_memory:
            # The surface passes through half of the cells at most.
            raise self._too_large(PROCESS_BYTES + max(search, self._mesh_bytes(cells / 2)), size)

    def _too_large(self, needed: float, size: int) -> TooLargeError:
        """Of a resolution whose `size`th part takes `needed` bytes."""
        fits = int(self.affordable(needed) / size * 0.95) // 8 * 8
        needed = PROCESS_BYTES + (needed - PROCESS_BYTES) * size**2
        remedy = f"`resolution={fits}` fits" if fits >= MIN_RESOLUTION else "no resolution fits"
        return TooLargeError(
            f"resolution {self.resolution} needs about {needed / 1e9:.2g} GB, and `max_memory=` allows "
            f"{self.max_memory / 1e9:.2g} GB; {remedy}"
        )


def _among(ascending: Index, keys: Index) -> Any:
    """Whether each of keys (n,) is in `ascending`, which holds some."""
    place = np.minimum(np.searchsorted(ascending, keys), len(ascending) - 1)
    return ascending[place] == keys
