"""
extraction_grid.py
------------------
A field sampled on a lattice over its ball at one resolution: search for the surface, marching cubes, and
detection of parts that were missed because they are thinner than a cell.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np

from ..array_types import Faces, FloatArray, Index, Mask, Points, Values
from ..errors import NeuralSDFError
from ..geometry.triangles import FACES_AT_ONCE
from ..grid.sparse_grid import CORNERS, MARGIN, Lattice, distinct, fastest_lattice
from ..grid.surface_search import (
    FieldLattice,
    HostFieldLattice,
    cells_by_sign,
    contains,
    settled,
    surface_cells,
)
from .field import Field

MIN_RESOLUTION = 8

#: The coarsest grid has at least this many cells along a side, and less than twice as many. Without
#: distances, a part smaller than a coarsest cell can be missed.
_COARSEST_CELLS, _COARSEST_CELLS_BY_SIGN = 32, 64

#: Side of a block in cells. Points that are neither in a block with surface cells nor in one next to it are
#: far from the surface.
_BLOCK_SIDE = 4
#: Newton steps from the centre of a cell to the zero set.
_NEWTON_STEPS = 3
#: Distances behind the zero set, in cells, at which the sign of the field is probed.
_PROBE_DEPTHS = (0.02, 0.1, 0.3, 0.5)
#: The smallest such distance, in units of the field's rounding: half of the thickness that separates parts
#: from films.
_MIN_PROBE_DEPTH = 1.25
#: Maximum number of cells that are probed for missed parts, and of operations for that.
_MAX_PROBES, _MAX_PROBE_WORK = 1 << 18, 1 << 31
#: Values per probed cell.
_VALUES_PER_PROBE = 8
#: Memory of the process before an extraction, in bytes.
PROCESS_BYTES = 128_000_000
#: Memory per face in bytes, including the face's fraction of the vertices, until the mesh is checked and
#: written: 36 for the mesh, and as much for the sorted edges or the copy that is written.
FACE_BYTES = 80
#: Faces per surface cell: 2, and up to 3 for noise.
_FACES_PER_CELL = 2.5
#: Surface cells processed at once (geometry/triangles.py), and temporary memory for each in bytes.
_CELL_BATCH, _BATCH_BYTES_PER_CELL = FACES_AT_ONCE // 2, 500
#: Vertices checked at once.
_VERTEX_BATCH = 1 << 16
#: Maximum distance of a vertex from the surface according to the field, in cells.
_MAX_VERTEX_ERROR = 0.02
#: A vertex this close to an end of its edge, in cells, is checked by the sign of the field.
_NEAR_END = 0.02
#: Bisections of the edge of a vertex that is off the surface.
_BISECTIONS = 7
#: Finest cells sampled to estimate the volume, and points per cell.
_SAMPLED_CELLS, _POINTS_PER_CELL = 8192, 8


class TooLargeError(NeuralSDFError):
    """An extraction would exceed the memory limit."""


class SurfaceCells(NamedTuple):
    """The finest cells that contain the surface, their samples, and the searched cells, which are twice as
    large. All are in the lattice's own representation."""

    cells: Any
    samples: Any
    searched: Any


class _Probes(NamedTuple):
    """Probes (n,) of a field behind points of its zero set.

    depth: maximum magnitude of values of the opposite sign behind the point; 0 if there are none. values: at
    the point itself. sign: of the field where the search for the point started.
    """

    depth: Values
    values: FloatArray
    sign: FloatArray


@dataclass(frozen=True, eq=False)
class FieldGrid:
    """A field on a lattice with `resolution` cells across the ball's bounding cube, including a margin of one
    cell.

    level: the field's value on the surface, in model space. max_memory: memory limit of the process in bytes.
    face_bytes: bytes per face of the mesh, during and after the extraction.
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
        """Whether the field's values are not distances, so that only their sign is meaningful."""
        return self.field.kind == "occupancy"

    @property
    def coarsest(self) -> int:
        """Side of a coarsest cell in finest cells, a power of two."""
        cells = _COARSEST_CELLS_BY_SIGN if self.by_sign else _COARSEST_CELLS
        return 1 << max(0, int(np.log2(self.resolution / cells)))

    @property
    def side(self) -> int:
        """Lattice points along a side, for a whole number of coarsest cells."""
        return -(-self.resolution // self.coarsest) * self.coarsest + 1

    @cached_property
    def lattice(self) -> FieldLattice[Any, Any]:
        """The lattice that samples the field: by the field's program, or by its values on the host."""
        program, arguments = self.field.program, (self.spacing, self.level, self.field.rounding)
        if program and not self.by_sign:
            return program.on_lattice(self.side, *arguments)
        return HostFieldLattice(fastest_lattice(self.side), self.field.value, *arguments)

    def search(self) -> SurfaceCells:
        """The cells that contain the surface; may be empty. Raises `TooLargeError`."""
        coarsest = self._coarsest_cells()
        if self.by_sign:
            assert isinstance(self.lattice, HostFieldLattice)
            return SurfaceCells(*cells_by_sign(self.lattice, coarsest, self.coarsest, self._check_memory))
        return SurfaceCells(
            *surface_cells(
                self.lattice, self.lattice.cells(coarsest), self.coarsest,
                self._measured_lipschitz(coarsest), self._check_memory,
            )
        )  # fmt: skip

    def surface(self, found: SurfaceCells) -> tuple[Points, Faces]:
        """Vertices (V, 3) in model space and faces (F, 3) of the surface in `found`."""
        # At resolution 256, interpolated vertices of the paper authors' networks are 0.00002 to 0.00006 off
        # the surface, a thirtieth of the networks' error, so they are not refined. Where films meet the
        # surface, as at the seam of a union, the field is not linear along an edge, and vertices are up to
        # half a cell off. The values of an occupancy field need not be linear at all.
        vertices, faces = self.lattice.marching_cubes(found.cells, found.samples)
        if self.field.rounding or self.by_sign:
            for first in range(0, len(vertices), _VERTEX_BATCH):
                self._move_to_surface(vertices[first : first + _VERTEX_BATCH])
        vertices *= self.spacing
        vertices -= 1 + self.spacing
        return vertices, faces

    def _move_to_surface(self, vertices: Points) -> None:
        """Move vertices (n, 3), in lattice units, along their edges to the field's change of sign.

        This moves the vertices that are off the surface; all of them if only the sign is meaningful.
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
            in_lower_half = (value < 0) != (at_low < 0)
            low, at_low = np.where(in_lower_half, low, middle), np.where(in_lower_half, at_low, value)
            high, at_high = np.where(in_lower_half, middle, high), np.where(in_lower_half, value, at_high)
        crossing = low + (high - low) * at_low / (at_low - at_high)
        vertices[off] = begin + np.clip(crossing, MARGIN, 1 - MARGIN)[:, None] * along

    def _off_surface(self, vertices: Points, begin: Points, along: Points) -> Mask:
        """Mask of vertices (n, 3), on edges from `begin` (n, 3) `along` axes (n, 3), off the surface.

        The field is not zero there or, near an end of the edge, its sign does not change: a film is zero too.
        """
        at = np.linalg.norm(vertices - begin, axis=1)
        off: Mask = np.abs(self._lattice_values(vertices)) > _MAX_VERTEX_ERROR * self.spacing
        near_end = np.flatnonzero(~off & (np.abs(at - 0.5) > 0.5 - _NEAR_END))
        is_first = at[near_end] < 0.5
        inner = np.where(is_first, 2 * _NEAR_END, 1 - 2 * _NEAR_END)[:, None] * along[near_end]
        other_end = np.where(is_first, 1.0, 0.0)[:, None] * along[near_end]
        off[near_end] = (self._lattice_values(begin[near_end] + inner) < 0) != (
            self._lattice_values(begin[near_end] + other_end) < 0
        )
        return off

    def _lattice_values(self, points: Points) -> FloatArray:
        """Values (n,) of the solid at points (n, 3) in lattice units, computed as at lattice points."""
        local = points * self.spacing - (1 + self.spacing)
        radii = np.linalg.norm(local, axis=1)
        in_ball = (local / np.maximum(radii, 1)[:, None]).astype(np.float32)

        def value(points: FloatArray) -> FloatArray:
            return self.field.value(points) - np.float32(self.level)

        values = settled(value, in_ball, value(in_ball), self.field.rounding)
        solid: FloatArray = np.maximum(values, (radii - 1).astype(np.float32))
        return solid

    def memory(self, found: SurfaceCells, resolution: int | None = None) -> float:
        """Estimated memory of the process in bytes, with `found` and its mesh.

        resolution: estimate for this one instead, assuming that the number of surface cells is proportional
        to its square.
        """
        growth = ((resolution or self.resolution) / self.resolution) ** 2
        cells = growth * len(found.cells)
        search = max(growth * 8 * len(found.searched), cells) * self.lattice.bytes_per_cell
        return PROCESS_BYTES + max(search, self._mesh_bytes(cells))

    def affordable_resolution(self, needed: float) -> float:
        """The resolution that `max_memory` allows, if this grid's resolution needs `needed` bytes."""
        available = max(0, self.max_memory - PROCESS_BYTES)
        return float(self.resolution * np.sqrt(available / (needed - PROCESS_BYTES)))

    def check_mesh_memory(self, found: SurfaceCells) -> None:
        """Raise `TooLargeError` if the mesh of `found` would exceed `max_memory`."""
        if self.memory(found) > self.max_memory:
            raise self._too_large(self.memory(found), 1)

    @property
    def min_thickness(self) -> float:
        """Minimum thickness, in model space, at which a part is distinguished from a film."""
        return 2 * _MIN_PROBE_DEPTH * self.field.rounding

    def missed_thicknesses(self, found: SurfaceCells) -> Values:
        """Thickness (n,), in model space, of parts of the solid, or gaps in it, that contain no cell corner.

        There is one value per searched cell that is far from the surface, but from whose centre Newton steps
        reach a point where the field changes sign. Parts within about ten cells of the surface count as its
        details. Points where the field is close to zero without a change of sign do not count. Empty if
        the field's values are not distances.
        """
        if self.by_sign:
            return np.empty(0)
        thickness = 2 * self._probe(found).depth
        # Parts thinner than the field's error or rounding are not significant.
        significant: Values = thickness[thickness > max(self.field.error, 2 * self.field.rounding, 1e-6)]
        return significant

    def has_films(self, found: SurfaceCells) -> bool:
        """Whether the field has films outside the solid, far from the surface."""
        probes, rounding = self._probe(found), self.field.rounding
        film = (probes.depth <= rounding) & (np.abs(probes.values) <= 4 * rounding) & (probes.sign > 0)
        return bool(film.any())

    def _probe(self, found: SurfaceCells) -> _Probes:
        """Probe the field behind points of the zero set that are far from the surface in `found`."""
        near = self._blocks_near(found)
        searched = self.lattice.keys(found.searched)
        far = np.concatenate(
            [searched[:0], *(run[~contains(near, self._blocks_of(run))] for run in _batches(searched))]
        )
        probes = min(_MAX_PROBES, _MAX_PROBE_WORK // (_VALUES_PER_PROBE * self.field.operations) + 1)
        far = far[:: max(1, len(far) // probes)]
        centres, _ = Lattice(self.side).ball_points(far, self.spacing, 1.0)
        points, normal, sign = self._newton(centres)
        depth = np.zeros(len(points))
        depths = (_MIN_PROBE_DEPTH * self.field.rounding, *(cells * self.spacing for cells in _PROBE_DEPTHS))
        for step in depths:
            behind = points - (sign * np.float32(step))[:, None] * normal
            depth = np.maximum(depth, -sign * (self.field.value(behind) - np.float32(self.level)))
        block = np.floor((points + (1 + self.spacing)) / (_BLOCK_SIDE * self.spacing)).astype(np.int64) + 1
        is_far = ~contains(near, block @ self._blocks.strides) & (np.linalg.norm(points, axis=1) < 1)
        values = self.field.value(points[is_far]) - np.float32(self.level)
        return _Probes(depth[is_far], values, sign[is_far])

    @property
    def _blocks(self) -> Lattice:
        """The lattice of blocks, with a margin of one block."""
        return Lattice(self.side // _BLOCK_SIDE + 3)

    def _blocks_of(self, cells: Index) -> Index:
        """Keys (n,) of the blocks that contain cells with these keys (n,)."""
        keys: Index = (Lattice(self.side).subscripts(cells) // _BLOCK_SIDE + 1) @ self._blocks.strides
        return keys

    def _blocks_near(self, found: SurfaceCells) -> Index:
        """Keys, ascending, of the blocks that contain surface cells, and of the blocks next to these."""
        cells = self.lattice.keys(found.cells)
        near = distinct(np.concatenate([[0], *(distinct(self._blocks_of(run)) for run in _batches(cells))]))
        for stride in self._blocks.strides:
            near = distinct(np.concatenate([near - stride, near, near + stride]))
        return near

    def volume_error(self, found: SurfaceCells) -> float:
        """The volume of the field's solid minus that of the extracted surface, in model space.

        It is estimated from random points of the searched cells: inside according to the field's sign, and
        inside according to interpolation between the corners of a finest cell. A comparison of two
        resolutions is not sufficient, since both can give the same wrong volume: a square rod that
        contains a single row of lattice points is extracted with half of its cross-section. The actual error
        is smaller if `surface` moves vertices to the field's change of sign.
        """
        lattice, rng = Lattice(self.side), np.random.default_rng(0)
        searched = self.lattice.keys(found.searched)
        # Systematic sampling of the cells, which are ordered in space, and one of the eight finest cells in
        # each.
        chosen = (np.arange(_SAMPLED_CELLS) + rng.random(_SAMPLED_CELLS)) * (len(searched) / _SAMPLED_CELLS)
        cells = searched[chosen.astype(np.int64)] + rng.choice(lattice.corners, _SAMPLED_CELLS)
        corners, excess = lattice.ball_points((cells[:, None] + lattice.corners).ravel(), self.spacing, 0.0)
        at_corners = self._solid_values(corners, excess).reshape(-1, 8)
        offsets = rng.random((_SAMPLED_CELLS, _POINTS_PER_CELL, 3))
        weights = np.where(CORNERS, offsets[:, :, None], 1 - offsets[:, :, None]).prod(axis=3)
        interpolated_inside = np.einsum("cpk,ck->cp", weights, at_corners) < 0
        points = (lattice.subscripts(cells)[:, None] + offsets).reshape(-1, 3)
        points = points * self.spacing - (1 + self.spacing)
        radii = np.linalg.norm(points, axis=1)
        in_ball = (points / np.maximum(radii, 1)[:, None]).astype(np.float32)
        inside = self._solid_values(in_ball, (radii - 1).astype(np.float32)) < 0
        fraction = float(inside.mean() - interpolated_inside.mean())
        return fraction * len(searched) * (2 * self.spacing) ** 3

    def _solid_values(self, points: FloatArray, excess: FloatArray) -> FloatArray:
        """Values (n,) of the solid, max(f(y) - level, |x| - 1), from y (n, 3) and |x| - 1 (n,)."""
        values: FloatArray = np.maximum(self.field.value(points) - np.float32(self.level), excess)
        return values

    def _newton(self, points: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray]:
        """Newton steps from points (n, 3) to the zero set. Returns the points reached (n, 3), unit gradients
        (n, 3), and the field's sign (n,) at the original points."""
        sign, normal = np.ones(len(points), np.float32), points
        max_step = np.float32(2 * np.sqrt(3) * self.spacing)  # diagonal of a searched cell
        for step in range(_NEWTON_STEPS):
            values, gradients = self.field.value_and_gradient(points)
            values = values - np.float32(self.level)
            if step == 0:
                sign = np.where(values < 0, np.float32(-1), np.float32(1))
            norms = np.maximum(np.linalg.norm(gradients, axis=1), np.float32(1e-6))
            normal = gradients / norms[:, None]
            points = points - np.clip(values / norms, -max_step, max_step)[:, None] * normal
        return points, normal, sign

    def _coarsest_cells(self) -> Index:
        """Keys (n,) of the coarsest cells that intersect the field's box, with a margin of a cell."""
        along, cell = np.arange(0, self.side - 1, self.coarsest), self.coarsest * self.spacing
        begin = along * self.spacing - (1 + self.spacing)
        margin = cell + max(self.level, 0.0)
        low, high = self.field.box[0] - margin, self.field.box[1] + margin
        x, y, z = (
            along[(begin + cell >= low[axis]) & (begin <= high[axis])] * stride
            for axis, stride in enumerate(Lattice(self.side).strides)
        )
        cells: Index = (x[:, None, None] + y[:, None] + z).ravel()
        return cells

    def _measured_lipschitz(self, cells: Index) -> float:
        """A Lipschitz constant for the search: the 99th percentile of the gradient norm at the centres of
        coarsest cells (n,) in the ball; at least the field's constant if it is known.

        For the paper authors' networks it is 1.3 to 1.7; cells that contain the surface require at most 1.3.
        """
        lattice = fastest_lattice(self.side)
        centres, excess = lattice.ball_points(cells, self.spacing, self.coarsest / 2)
        _, gradients = self.field.value_and_gradient(centres[excess < 0])
        measured = float(np.percentile(np.linalg.norm(gradients, axis=1), 99))
        return 1.01 * max(measured, self.field.lipschitz or 0.0)  # 1.01 because of rounding, if it is 1

    def _mesh_bytes(self, cells: float) -> float:
        """Bytes for the mesh of a surface in this many finest cells, and for later processing."""
        return _FACES_PER_CELL * self.face_bytes * cells + _BATCH_BYTES_PER_CELL * min(cells, _CELL_BATCH)

    def _check_memory(self, cells: int, size: int) -> None:
        """Raise `TooLargeError` if a search of this many cells, with a side of `size` finest cells, exceeds
        `max_memory`."""
        search = cells * self.lattice.bytes_per_cell
        if PROCESS_BYTES + search > self.max_memory:
            # At most half of the searched cells contain the surface.
            raise self._too_large(PROCESS_BYTES + max(search, self._mesh_bytes(cells / 2)), size)

    def _too_large(self, needed: float, size: int) -> TooLargeError:
        """The error if cells with a side of `size` finest cells need `needed` bytes."""
        fits = int(self.affordable_resolution(needed) / size * 0.95) // 8 * 8
        needed = PROCESS_BYTES + (needed - PROCESS_BYTES) * size**2
        remedy = f"`resolution={fits}` fits" if fits >= MIN_RESOLUTION else "no resolution fits"
        return TooLargeError(
            f"resolution {self.resolution} needs about {needed / 1e9:.2g} GB, and `max_memory=` allows "
            f"{self.max_memory / 1e9:.2g} GB; {remedy}"
        )


def _batches(cells: Index) -> Iterator[Index]:
    """Slices of at most `_CELL_BATCH` cells."""
    return (cells[first : first + _CELL_BATCH] for first in range(0, len(cells), _CELL_BATCH))
