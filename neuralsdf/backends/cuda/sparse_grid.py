"""
sparse_grid.py
--------------
A program's values on a lattice on a CUDA device: kernels/cuda/sparse_grid.h. Cells, lattice points and values
of all levels stay on it: copying and merging them on the CPU would take longer than evaluating them on the
GPU. The CPU handles the cells of the coarsest level, tens of thousands, from which it measures the Lipschitz
constant; the search loop (grid/surface_search.py), which reads one number from the device per iteration; and
the cells that the search missed, usually none, which it sorts.
"""

from __future__ import annotations

import weakref
from typing import Any, NamedTuple, Protocol

import numpy as np

from ...array_types import Faces, FloatArray, Index, Points
from ...errors import NeuralSDFError
from ...grid.sparse_grid import MARGIN, Lattice, distinct
from ...grid.surface_search import checked_lowest, settled
from .device import Device

#: Number of points that are evaluated, of cells whose faces are copied, and of points whose vertices are
#: copied at once. Bounds the memory besides the lattice to about 5 MB and 10 MB (at worst 50).
BLOCK = 1 << 18

#: Maximum length of an array: indices of edges, three per point, and triangles, five per cell, have 32 bits.
MAX_ITEMS = 3 << 29

#: Threads per block, and counts per scan tile, as in sparse_grid.h.
_THREADS, _TILE = 256, 2048

#: The structs of kernels/cuda/sparse_grid.h.
KEYS = np.dtype([("keys", np.uintp), ("count", np.int64)], align=True)
BALL_POINTS = np.dtype(
    [
        ("keys", np.uintp),
        ("points", np.uintp),
        ("beyond", np.uintp),
        ("count", np.int64),
        ("side", np.int64),
        ("spacing", np.float64),
        ("offset", np.float64),
    ],
    align=True,
)
BALL_VALUES = np.dtype(
    [
        ("values", np.uintp),
        ("beyond", np.uintp),
        ("lowest", np.uintp),
        ("count", np.int64),
        ("level", np.float32),
        ("marks", np.uintp),
        ("reach", np.float64),
        ("lipschitz", np.float64),
    ],
    align=True,
)
SCAN = np.dtype(
    [("counts", np.uintp), ("sums", np.uintp), ("count", np.int64), ("tiles", np.int64)], align=True
)
SELECTION = np.dtype(
    [("keys", np.uintp), ("before", np.uintp), ("selected", np.uintp), ("count", np.int64)], align=True
)
UNION = np.dtype(
    [
        ("keys", KEYS),
        ("others", KEYS),
        ("offset", np.int64),
        ("fresh", np.uintp),
        ("all", np.uintp),
        ("values", np.uintp),
        ("other_values", np.uintp),
        ("all_values", np.uintp),
    ],
    align=True,
)
CELL_SAMPLES = np.dtype(
    [("cells", KEYS), ("points", KEYS), ("values", np.uintp), ("side", np.int64)], align=True
)
CROSSED = np.dtype([("samples", CELL_SAMPLES), ("marks", np.uintp)], align=True)
MISSED = np.dtype(
    [("samples", CELL_SAMPLES), ("known", KEYS), ("counts", np.uintp), ("missed", np.uintp)], align=True
)
MARCHING_CUBES = np.dtype(
    [
        ("samples", CELL_SAMPLES),
        ("edges", np.uintp),
        ("triangles", np.uintp),
        ("vertices", np.uintp),
        ("faces", np.uintp),
        ("first", np.int64),
        ("count", np.int64),
        ("margin", np.float64),
    ],
    align=True,
)


class DeviceArray:
    """An array of `count` items of `size` bytes in the device's pool; freed with this object."""

    def __init__(self, device: Device, count: int, size: int) -> None:
        self._count = count
        self._memory = device.pooled(count * size)
        weakref.finalize(self, device.free, self._memory)

    def __len__(self) -> int:
        return self._count

    @property
    def address(self) -> int:
        """Address of the first item."""
        return int(self._memory)


class DeviceSamples(NamedTuple):
    """Values at the lattice points with ascending keys."""

    keys: DeviceArray
    values: DeviceArray


class EvaluatesOnDevice(Protocol):
    """A program whose points and values may stay on the device."""

    def evaluate(self, points: FloatArray) -> FloatArray:
        """Values (n,) at points (n, 3), both on the host."""
        ...

    def evaluate_there(self, points: int, values: int, count: int) -> None:
        """Like `evaluate`, from points (count, 3) to values (count,) at device addresses."""
        ...


class CudaFieldLattice:
    """`FieldLattice` on a CUDA device; cells are represented by their keys.

    Parameters as for `HostFieldLattice`, with the values of `program`.
    """

    #: On the device: 42 bytes in use at once, and 57 that the pool keeps for other sizes.
    bytes_per_cell = 112

    def __init__(
        self,
        device: Device,
        program: EvaluatesOnDevice,
        side: int,
        spacing: float,
        level: float,
        rounding: float = 0.0,
    ) -> None:
        self._device, self._program = device, program
        self._side, self._spacing, self._level, self._rounding = side, spacing, level, rounding
        self.lowest = np.inf

    def cells(self, keys: Index) -> DeviceArray:
        """As `FieldLattice.cells`."""
        with self._device.current():
            cells = self._array(len(keys), 8)
            self._device.write(cells.address, np.ascontiguousarray(keys, np.int64))
        return cells

    def keys(self, cells: DeviceArray) -> Index:
        """As `FieldLattice.keys`."""
        keys = np.empty(len(cells), np.int64)
        if len(keys):
            with self._device.current():
                self._device.download(cells.address, keys)
        return keys

    def holding(self, cells: DeviceArray, size: int, lipschitz: float) -> DeviceArray:
        """As `FieldLattice.holding`."""
        device = self._device
        with device.current():
            marks = self._array(len(cells) + 1, 4)
            arguments = np.zeros((), BALL_VALUES)
            arguments["reach"] = size * self._spacing * np.sqrt(3) / 2
            arguments["lipschitz"] = lipschitz
            for first, count in _blocks(len(cells)):
                arguments["values"] = device.buffer("values", 4 * BLOCK)
                arguments["marks"] = marks.address + 4 * first
                self._evaluate(cells.address + 8 * first, count, size / 2, "mark_holding", arguments)
            return self._selected(cells, marks)

    def split(self, cells: DeviceArray, size: int) -> DeviceArray:
        """As `FieldLattice.split`: the union of the cells and their shifted copies, one axis at a time."""
        with self._device.current():
            for stride in Lattice(self._side).strides[::-1]:
                cells = self._united(cells, cells, size * int(stride))
            return cells

    def sampled(self, cells: DeviceArray) -> DeviceSamples:
        """As `FieldLattice.sampled`."""
        keys = self.split(cells, 1)  # corners are found by the same dilation
        with self._device.current():
            values = self._array(len(keys), 4)
            arguments = np.zeros((), BALL_VALUES)
            for first, count in _blocks(len(keys)):
                arguments["values"] = values.address + 4 * first
                self._evaluate(keys.address + 8 * first, count, 0, "solid_values", arguments)
        if self._rounding:
            self._settle(keys, values)
        return DeviceSamples(keys, values)

    def crossed(self, cells: DeviceArray, samples: DeviceSamples) -> DeviceArray:
        """As `FieldLattice.crossed`."""
        with self._device.current():
            marks = self._array(len(cells) + 1, 4)
            arguments = np.zeros((), CROSSED)
            arguments["samples"], arguments["marks"] = self._cell_samples(cells, samples), marks.address
            self._launch("mark_crossed", arguments, len(cells))
            return self._selected(cells, marks)

    def missed(self, cells: DeviceArray, found: DeviceArray, samples: DeviceSamples) -> DeviceArray:
        """As `FieldLattice.missed`."""
        with self._device.current():
            counts = self._array(len(found) + 1, 4)
            arguments = np.zeros((), MISSED)
            arguments["samples"], arguments["counts"] = self._cell_samples(found, samples), counts.address
            arguments["known"] = _keys(cells)
            self._launch("count_missed", arguments, len(found))
            keys = np.empty(self._scanned(counts), np.int64)
            if len(keys):
                missed = self._array(len(keys), 8)
                arguments["missed"] = missed.address
                self._launch("list_missed", arguments, len(found))
                self._device.download(missed.address, keys)
        return self.cells(distinct(keys))

    def extended(
        self, cells: DeviceArray, samples: DeviceSamples, new: DeviceArray
    ) -> tuple[DeviceArray, DeviceSamples]:
        """As `FieldLattice.extended`."""
        others = self.sampled(new)
        with self._device.current():
            values = self._array(len(samples.keys) + len(others.keys), 4)
            keys = self._united(samples.keys, others.keys, values=(samples.values, others.values, values))
            return self._united(cells, new), DeviceSamples(keys, values)

    def marching_cubes(self, cells: DeviceArray, samples: DeviceSamples) -> tuple[Points, Faces]:
        """As `FieldLattice.marching_cubes`."""
        device = self._device
        with device.current():
            edges, triangles = self._array(3 * len(samples.keys) + 1, 4), self._array(len(cells) + 1, 4)
            device.clear(edges.address, 4 * len(edges))
            arguments = np.zeros((), MARCHING_CUBES)
            arguments["samples"] = self._cell_samples(cells, samples)
            arguments["edges"], arguments["triangles"] = edges.address, triangles.address
            arguments["margin"] = MARGIN
            self._launch("mark_vertices", arguments, len(cells))
            vertices = np.empty((self._scanned(edges), 3))
            faces = np.empty((self._scanned(triangles), 3), np.int64)
            self._fill(vertices, "vertices", "place_vertices", arguments, len(samples.keys), edges, 3)
            self._fill(faces, "faces", "write_faces", arguments, len(cells), triangles, 1)
        return vertices, faces

    def _fill(
        self, rows: Any, name: str, kernel: str, arguments: Any, items: int, before: DeviceArray, each: int
    ) -> None:
        """Fill rows (n, 3) with a kernel's output, block by block.

        before: exclusive row counts, `each` per item.
        """
        end = np.zeros(1, np.uint32)
        for first, count in _blocks(items):
            begin = int(end[0])
            self._device.download(before.address + 4 * each * (first + count), end)
            part = rows[begin : int(end[0])]
            arguments[name] = self._device.buffer(name, part.nbytes)
            arguments["first"], arguments["count"] = first, count
            self._launch(kernel, arguments, count)
            self._device.download(int(arguments[name]), part)

    def _evaluate(self, keys: int, count: int, offset: float, kernel: str, arguments: Any) -> None:
        """Evaluate the field at lattice points or cell centres, and run a kernel on the values."""
        device = self._device
        points = np.zeros((), BALL_POINTS)
        points["keys"], points["count"], points["side"] = keys, count, self._side
        points["spacing"], points["offset"] = self._spacing, offset
        points["points"] = device.buffer("points", 12 * BLOCK)
        points["beyond"] = arguments["beyond"] = device.buffer("beyond", 4 * BLOCK)
        self._launch("ball_points", points, count)
        self._program.evaluate_there(int(points["points"]), int(arguments["values"]), count)
        lowest = np.empty(-(-count // _THREADS), np.float32)
        arguments["lowest"] = device.buffer("lowest", lowest.nbytes)
        arguments["count"], arguments["level"] = count, self._level
        self._launch(kernel, arguments, count)
        device.download(int(arguments["lowest"]), lowest)
        self.lowest = min(self.lowest, checked_lowest(float(lowest.min())))

    def _settle(self, keys: DeviceArray, values: DeviceArray) -> None:
        """Settle, on the CPU, the values at lattice points that are within rounding of zero; few if any."""
        device, lattice = self._device, Lattice(self._side)
        for first, count in _blocks(len(keys)):
            block, places = np.empty(count, np.float32), np.empty(count, np.int64)
            with device.current():
                device.download(values.address + 4 * first, block)
            near = np.flatnonzero(np.abs(block) <= self._rounding)
            if not near.size:
                continue
            with device.current():
                device.download(keys.address + 8 * first, places)
            points, beyond = lattice.ball_points(places[near], self._spacing, 0)
            own = self._less_level(points)
            block[near] = np.maximum(settled(self._less_level, points, own, self._rounding), beyond)
            with device.current():
                device.write(values.address + 4 * first, block)

    def _less_level(self, points: FloatArray) -> FloatArray:
        return self._program.evaluate(np.ascontiguousarray(points)) - np.float32(self._level)

    def _selected(self, keys: DeviceArray, marks: DeviceArray) -> DeviceArray:
        """The keys whose mark is 1."""
        selected = self._array(self._scanned(marks), 8)
        arguments = np.zeros((), SELECTION)
        arguments["keys"], arguments["before"] = keys.address, marks.address
        arguments["selected"], arguments["count"] = selected.address, len(keys)
        self._launch("select_keys", arguments, len(keys))
        return selected

    def _united(
        self,
        keys: DeviceArray,
        others: DeviceArray,
        offset: int = 0,
        values: tuple[DeviceArray, DeviceArray, DeviceArray] | None = None,
    ) -> DeviceArray:
        """Union of the keys and the others shifted by `offset`. values: of both, and for the result."""
        fresh = self._array(len(others) + 1, 4)
        arguments = np.zeros((), UNION)
        arguments["keys"], arguments["others"] = _keys(keys), _keys(others)
        arguments["offset"], arguments["fresh"] = offset, fresh.address
        if values:
            for name, part in zip(("values", "other_values", "all_values"), values, strict=True):
                arguments[name] = part.address
        self._launch("mark_fresh", arguments, len(others))
        united = self._array(len(keys) + self._scanned(fresh), 8)
        arguments["all"] = united.address
        self._launch("unite", arguments, len(keys) + len(others))
        return united

    def _scanned(self, counts: DeviceArray) -> int:
        """Replace counts by their exclusive prefix sum. The last element, unused as a count, becomes the
        total, which is returned."""
        arguments = np.zeros((), SCAN)
        count = len(counts) - 1
        tiles = count // _TILE + 1
        arguments["counts"], arguments["count"], arguments["tiles"] = counts.address, count, tiles
        arguments["sums"] = self._device.buffer("sums", 4 * tiles)
        for kernel, blocks in (("scan_sums", tiles), ("scan_tiles", 1), ("scan_counts", tiles)):
            self._launch(kernel, arguments, blocks * _THREADS)
        total = np.empty(1, np.uint32)
        self._device.download(counts.address + 4 * count, total)
        return int(total[0])

    def _cell_samples(self, cells: DeviceArray, samples: DeviceSamples) -> Any:
        """The struct CellSamples."""
        fields = (_keys(cells), _keys(samples.keys), samples.values.address, self._side)
        return np.array(fields, CELL_SAMPLES)[()]

    def _array(self, count: int, size: int) -> DeviceArray:
        if count > MAX_ITEMS:
            raise NeuralSDFError(
                f"{count:,} lattice points are too many for the CUDA kernels; use `device='native'`"
            )
        return DeviceArray(self._device, count, size)

    def _launch(self, kernel: str, arguments: Any, items: int) -> None:
        """Run a kernel with one thread per item."""
        if items:
            self._device.launch(kernel, -(-items // _THREADS), _THREADS, 4 * _THREADS, arguments[()])


def _keys(array: DeviceArray) -> Any:
    """The struct Keys."""
    return np.array((array.address, len(array)), KEYS)[()]


def _blocks(count: int) -> list[tuple[int, int]]:
    """First index and number of items of every block."""
    return [(first, min(BLOCK, count - first)) for first in range(0, count, BLOCK)]
