"""
extract.py
----------
The zero set of a field as a triangle mesh: marching cubes (Lorensen and Cline 1987) on the cells that
can hold the surface, found coarse to fine.

A cell with centre c and half-diagonal r holds no surface if |f(c)| > L r, with L the field's Lipschitz
constant. A network has no useful exact one, so L is measured; and because a measured L can be too small
somewhere, the surface is followed from cell to cell where it leaves the cells that were kept. So the mesh
has no holes, and equals the one of the dense grid unless a whole part of it was missed on every level.

Only the inside of the unit ball counts: what is meshed is the intersection of the solid with the ball,
max(f(y), |x| - 1) with y the point of the ball nearest to x.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import igl
import numpy as np
import numpy.typing as npt

from .errors import NeuralSDFError, NoSurfaceError, UsageError
from .field import Field
from .network import FloatArray
from .similarity import Points

Index = npt.NDArray[np.int64]
Cells = npt.NDArray[np.int32]

MIN_RESOLUTION, MAX_RESOLUTION = 8, 8192
DEFAULT_MEMORY = 2 << 30

#: Cells along a side of the coarsest grid: between this and twice as many.
_COARSEST = 32
#: A field without a surface at the resolution asked for is searched up to this one.
_FINEST_SEARCH = 1024
#: Peak memory for each cell of the finest level, measured; the rest of the process comes on top.
_BYTES_PER_CELL = 100
#: Points evaluated at once, and lattice points in a slab: they bound what is held besides the result.
_POINTS = 1 << 18
_SLAB = 1 << 22
#: Vertices keep this share of an edge's length from its ends, so that no triangle loses its area and
#: no two vertices coincide where the field is zero at a lattice point.
_MARGIN = 1e-3
#: A field this far below zero on the ball's own surface is no rounding and no small error.
_BALL_TOLERANCE = 0.01
#: A distance changes by 1 over a length of 1; a field that nowhere does by this much holds no shape.
_LEAST_SLOPE = 0.3

# Corners of a cell in the order of libigl's tables; the mesh comes out with normals towards positive values.
_CORNERS = np.array(
    [(0, 0, 0), (1, 0, 0), (1, 1, 0), (0, 1, 0), (0, 0, 1), (1, 0, 1), (1, 1, 1), (0, 1, 1)], np.int64
)
# The six neighbours of a cell, each with the bits of the face between in a `_Slab.code`.
_NEIGHBOURS = [
    (sign * np.eye(3, dtype=np.int64)[axis], np.packbits(_CORNERS[:, axis] == (sign > 0))[0])
    for axis in range(3)
    for sign in (1, -1)
]


@dataclass(frozen=True, eq=False)
class Surface:
    """A triangle mesh of a field's zero set, closed and oriented outwards.

    vertices: (V, 3) float64. faces: (F, 3) int64, counter-clockwise seen from outside.
    notes: what a user should know about it, a sentence each.
    """

    vertices: Points
    faces: Index
    notes: tuple[str, ...] = ()

    @cached_property
    def area(self) -> float:
        """Area, in the vertices' unit squared."""
        return float(np.linalg.norm(self._face_normals, axis=1).sum() / 2)

    @cached_property
    def volume(self) -> float:
        """Enclosed volume, in the vertices' unit cubed."""
        local = self.vertices - self.vertices.mean(axis=0)  # far from the origin the sum would cancel
        return float((local[self.faces[:, 0]] * self._face_normals).sum() / 6)

    @cached_property
    def watertight(self) -> bool:
        """Whether every edge belongs to exactly two faces, which run through it in opposite directions."""
        start, end = self.faces.ravel(), np.roll(self.faces, -1, axis=1).ravel()
        edges = np.sort(start * len(self.vertices) + end)
        opposite = np.sort(end * len(self.vertices) + start)
        return bool((np.diff(edges) > 0).all() and np.array_equal(edges, opposite))

    @cached_property
    def _face_normals(self) -> Points:
        a, b, c = (self.vertices[self.faces[:, corner]] for corner in range(3))
        normals: Points = np.cross(b - a, c - a)
        return normals


def extract(
    field: Field, resolution: int = 256, *, max_memory: int = DEFAULT_MEMORY, level: float = 0.0
) -> Surface:
    """The surface distance = `level` of a field, in mesh units: watertight, oriented outwards.

    resolution: cells along the side of the ball's bounding cube. max_memory: bytes that it may take on
    top of the process as it stands. level: in mesh units; above zero the shape grows, though never out of
    its ball. Raises `NoSurfaceError` if there is no surface, `UsageError` for a resolution out of range,
    `NeuralSDFError` if `max_memory` does not suffice.
    """
    transform = field.transform
    surface = model_surface(field, resolution, max_memory=max_memory, level=level / transform.scale)
    mirrored = np.linalg.det(transform.matrix[:3, :3] / transform.scale) < 0
    faces = np.ascontiguousarray(surface.faces[:, ::-1]) if mirrored else surface.faces
    return Surface(transform.apply(surface.vertices), faces, surface.notes)


def model_surface(
    field: Field, resolution: int = 256, *, max_memory: int = DEFAULT_MEMORY, level: float = 0.0
) -> Surface:
    """As `extract`, in model space: the vertices and `level` are in units of the ball's radius."""
    if not MIN_RESOLUTION <= resolution <= MAX_RESOLUTION:
        raise UsageError(f"--resolution {resolution}: {MIN_RESOLUTION} to {MAX_RESOLUTION} is allowed")
    notes = _notes(field, level)
    searched, lowest = resolution, np.inf
    while True:
        grid = _Grid(field, level, searched, max_memory)
        lattice, cells = _surface_cells(grid)
        if len(cells):
            break
        lowest = min(lowest, grid.lowest)
        if 2 * searched > max(resolution, _FINEST_SEARCH):
            raise NoSurfaceError(
                f"the field has no surface: its smallest value in its ball is {lowest + level:+.2g} of its "
                f"radius, at resolution {searched}; it has hardly any interior or none"
            )
        searched *= 2
    if searched > resolution:
        notes += (
            f"nothing is inside at resolution {resolution}: the field has hardly any interior, "
            f"so it was extracted at {searched}",
        )
    vertices, faces = _marching_cubes(grid, lattice, cells)
    return Surface(vertices, faces, notes)


def _notes(field: Field, level: float) -> tuple[str, ...]:
    """Sentences about a field that is negative where its ball ends, or hardly changes at all."""
    count = 10_000
    height = 1 - (2 * np.arange(count) + 1) / count  # a Fibonacci lattice: even over the sphere
    angle = np.arange(count) * np.pi * (3 - np.sqrt(5))
    ring = np.sqrt(1 - height**2)
    sphere = np.stack([ring * np.cos(angle), ring * np.sin(angle), height], axis=1)
    values, gradients = field.value_and_gradient((sphere * (1 - 1e-6)).astype(np.float32))
    values = values - level
    notes = []
    deep = values < -_BALL_TOLERANCE
    if deep.any():
        notes.append(
            f"the field is negative on {deep.mean():.2%} of its ball's own surface, down to "
            f"{values.min():.2g} of its radius; the mesh is closed there by the ball"
        )
    if field.kind == "distance" and np.linalg.norm(gradients, axis=1).max() < _LEAST_SLOPE:
        notes.append("the field is no distance: it hardly changes from place to place, so its fit failed")
    return tuple(notes)


@dataclass(eq=False)
class _Grid:
    """A field on a lattice with `resolution` cells across the ball's bounding cube and one cell around it.

    Lattice point (i, j, k) has the key (i side + j) side + k. A cell has the key of its lowest corner. So
    the key of an offset, added, moves it, and ascending keys run through the lattice plane by plane.
    lowest: of the field's values so far.
    """

    field: Field
    level: float
    resolution: int
    max_memory: int
    lowest: float = np.inf

    @property
    def spacing(self) -> float:
        """Side of a finest cell."""
        return 2 / (self.resolution - 2)

    @property
    def coarsest(self) -> int:
        """Side of a coarsest cell in finest ones, a power of two."""
        return 1 << max(0, int(np.log2(self.resolution / _COARSEST)))

    @cached_property
    def side(self) -> int:
        """Lattice points along a side: enough for whole cells of the coarsest size."""
        return -(-self.resolution // self.coarsest) * self.coarsest + 1

    @cached_property
    def strides(self) -> Index:
        """Keys of the unit vectors."""
        return np.array([self.side**2, self.side, 1], np.int64)

    @cached_property
    def corners(self) -> Index:
        """Keys of a cell's corners (8,) relative to the cell's own."""
        keys: Index = _CORNERS @ self.strides
        return keys

    def subscripts(self, keys: Index) -> Index:
        """Lattice points (n, 3) of keys (n,)."""
        return np.stack([keys // self.side**2, keys // self.side % self.side, keys % self.side], axis=1)

    def position(self, subscripts: npt.NDArray[Any]) -> Points:
        """Model space coordinates (n, 3) of lattice points (n, 3), which may be fractions."""
        located: Points = subscripts * self.spacing - (1 + self.spacing)
        return located

    def field_values(self, points: Points) -> FloatArray:
        """f(y) - level (n,), with y the point of the ball nearest to each of points (n, 3)."""
        radii = np.linalg.norm(points, axis=1, keepdims=True)
        values = self.field.value((points / np.maximum(radii, 1)).astype(np.float32)) - np.float32(self.level)
        if not np.isfinite(values).all():
            raise NeuralSDFError("the field is not finite everywhere in its ball: its weights overflow")
        self.lowest = min(self.lowest, float(values.min(initial=np.inf)))
        return values

    def solid_values(self, keys: Index) -> FloatArray:
        """max(f(y) - level, |x| - 1) at lattice points (n,): the solid within the ball."""
        result = np.empty(len(keys), np.float32)
        for start in range(0, len(keys), _POINTS):
            points = self.position(self.subscripts(keys[start : start + _POINTS]))
            beyond = np.linalg.norm(points, axis=1) - 1
            result[start : start + _POINTS] = np.maximum(self.field_values(points), beyond)
        return result

    def check_memory(self, cells: int, size: int = 1) -> None:
        """Raise if that many cells, each `size` finest ones a side, take more than `max_memory`."""
        needed = cells * _BYTES_PER_CELL
        if needed > self.max_memory:
            # The cells at a surface grow with the square of the resolution.
            fits = int(self.resolution / size * np.sqrt(self.max_memory / needed) * 0.95) // 8 * 8
            needed *= size**2
            remedy = f"--resolution {fits} fits" if fits >= MIN_RESOLUTION else "no resolution fits"
            raise NeuralSDFError(
                f"resolution {self.resolution} needs about {needed / 1e9:.2g} GB, and --max-memory allows "
                f"{self.max_memory / 1e9:.2g} GB; {remedy}"
            )


@dataclass(eq=False)
class _Lattice:
    """Values (n,) at the lattice points whose keys (n,) are given, in ascending order of the keys."""

    keys: Index
    values: FloatArray

    @classmethod
    def around(cls, grid: _Grid, cells: Index) -> _Lattice:
        keys = _corner_keys(grid, cells)
        return cls(keys, grid.solid_values(keys))

    def merge(self, other: _Lattice) -> _Lattice:
        """The points of both; where both have one, they agree."""
        keys, first = np.unique(np.concatenate([self.keys, other.keys]), return_index=True)
        return _Lattice(keys, np.concatenate([self.values, other.values])[first])


def _corner_keys(grid: _Grid, cells: Index) -> Index:
    """Keys of all corners of cells (n,), ascending, each once: the cells dilated along one axis at a time."""
    keys = cells
    for stride in grid.strides[::-1]:
        keys = _distinct(np.concatenate([keys, keys + stride]))
    return keys


def _distinct(keys: Index) -> Index:
    """Keys (n,), which are sorted in place, each once: np.unique would hash them, ten times slower."""
    keys.sort()
    distinct: Index = keys[np.concatenate([np.ones(len(keys[:1]), np.bool_), keys[1:] != keys[:-1]])]
    return distinct


def _candidate_cells(grid: _Grid) -> Index:
    """Keys of the finest cells that can hold the surface, ascending."""
    size = grid.coarsest
    along = np.arange(0, grid.side - 1, size)
    x, y, z = (along * stride for stride in grid.strides)
    cells: Index = (x[:, None, None] + y[:, None] + z).ravel()
    lipschitz = _measured_lipschitz(grid, cells)
    cells = _holding(grid, cells, size, lipschitz)
    while size > 1:
        size //= 2
        grid.check_memory(8 * len(cells), size)
        cells = (cells[:, None] + size * grid.corners).ravel()
        if size > 1:  # the finest have their corners evaluated next: centres first would save nothing
            cells = _holding(grid, cells, size, lipschitz)
    cells.sort()
    return cells


def _holding(grid: _Grid, cells: Index, size: int, lipschitz: float) -> Index:
    """Those of cells (n,), each `size` finest ones a side, that can hold the surface."""
    reach = size * grid.spacing * np.sqrt(3) / 2
    kept = [cells[:0]]
    for start in range(0, len(cells), _POINTS):
        chunk = cells[start : start + _POINTS]
        centres = grid.position(grid.subscripts(chunk) + size / 2)
        beyond = np.linalg.norm(centres, axis=1) - 1  # of the ball
        meets_ball = beyond < reach
        chunk, centres, beyond = chunk[meets_ball], centres[meets_ball], beyond[meets_ball]
        values = grid.field_values(centres)
        # The surface of the solid within the ball: not all outside of either, not all inside of both.
        outside = values > lipschitz * reach
        inside = (values < -lipschitz * reach) & (beyond < -reach)
        kept.append(chunk[~outside & ~inside])
    return np.concatenate(kept)


def _measured_lipschitz(grid: _Grid, cells: Index) -> float:
    """The norm that the gradient exceeds in one in a hundred of the coarsest cells (n,) that meet the ball.

    On the paper authors' networks it is 1.3 to 1.7, and the constant that no cell holding the surface
    exceeds is 1.3 at most.
    """
    centres = grid.position(grid.subscripts(cells) + grid.coarsest / 2)
    centres = centres[np.linalg.norm(centres, axis=1) < 1]
    _, gradients = grid.field.value_and_gradient(centres.astype(np.float32))
    return 1.01 * float(np.percentile(np.linalg.norm(gradients, axis=1), 99))  # 1.01: rounding, where it is 1


def _surface_cells(grid: _Grid) -> tuple[_Lattice, Index]:
    """The lattice points evaluated, and the keys of the cells that hold the surface, ascending."""
    candidates = _candidate_cells(grid)
    grid.check_memory(len(candidates))
    lattice = _Lattice.around(grid, candidates)
    cells = found = _crossed(grid, lattice, candidates)
    while len(found):
        neighbours = _followed(grid, lattice, found)
        new = neighbours[~_contains(cells, neighbours)]
        if not len(new):
            break
        lattice = lattice.merge(_Lattice.around(grid, new))
        # A neighbour across a crossed face has corners on both sides: it holds the surface too.
        cells, found = _distinct(np.concatenate([cells, new])), new
        grid.check_memory(len(cells))
    return lattice, cells


def _crossed(grid: _Grid, lattice: _Lattice, cells: Index) -> Index:
    """Those of cells (n,), ascending, whose corners are not all on one side."""
    crossed = [cells[:0]]
    for slab in _slabs(grid, lattice, cells):
        crossed.append(slab.cells[(slab.code > 0) & (slab.code < 255)])
    return np.concatenate(crossed)


def _followed(grid: _Grid, lattice: _Lattice, cells: Index) -> Index:
    """The neighbours of cells (n,), ascending, across faces whose corners are not all on one side."""
    neighbours = [cells[:0]]
    for slab in _slabs(grid, lattice, cells):
        for step, face in _NEIGHBOURS:
            inside = slab.code & face
            neighbours.append(slab.cells[(inside != 0) & (inside != face)] + step @ grid.strides)
    return _distinct(np.concatenate(neighbours))


def _contains(ascending: Index, keys: Index) -> npt.NDArray[np.bool_]:
    """Whether each of keys (n,) is in `ascending`, which is not empty."""
    place = np.minimum(np.searchsorted(ascending, keys), len(ascending) - 1)
    found: npt.NDArray[np.bool_] = ascending[place] == keys
    return found


class _Slab(NamedTuple):
    """Cells (n,) between a few planes of the lattice.

    keys, values: of the lattice points of those planes. corners: (n, 8), indices into them.
    code: (n,) uint8, a bit for each corner that is inside.
    """

    cells: Index
    keys: Index
    values: FloatArray
    corners: npt.NDArray[np.int32]
    code: npt.NDArray[np.uint8]


def _slabs(grid: _Grid, lattice: _Lattice, cells: Index) -> Iterator[_Slab]:
    """Cells (n,), ascending, slab by slab; all their corners are in the lattice."""
    plane = int(grid.strides[0])
    planes = max(1, _SLAB // plane - 1)  # of cells; there is one more of lattice points
    place = np.empty((planes + 1) * plane, np.int32)  # of a lattice point among the slab's
    for low in range(0, grid.side * plane, planes * plane):
        first, last = np.searchsorted(cells, [low, low + planes * plane])
        if first == last:
            continue
        begin, end = np.searchsorted(lattice.keys, [low, low + (planes + 1) * plane])
        place[lattice.keys[begin:end] - low] = np.arange(end - begin, dtype=np.int32)
        values = lattice.values[begin:end]
        corners = place[(cells[first:last] - low)[:, None] + grid.corners]
        code = np.packbits((values < 0)[corners], axis=1)[:, 0]
        yield _Slab(cells[first:last], lattice.keys[begin:end], values, corners, code)


def _marching_cubes(grid: _Grid, lattice: _Lattice, cells: Index) -> tuple[Points, Index]:
    """Vertices (V, 3) in model space and faces (F, 3) of the surface in cells (n,), ascending.

    A vertex is known by its edge of the lattice, so the slabs join without a seam. It lies where the field
    is zero if it is linear along the edge: on the paper authors' networks at resolution 256 it is 0.00002 to
    0.00006 off, a thirtieth of what those networks err, so no root is searched for.
    """
    keys, fractions, faces, count = [], [], [], 0
    for slab in _slabs(grid, lattice, cells):
        # Zero is outside here, and inside to libigl.
        values = np.where(slab.values == 0, np.finfo(np.float32).tiny, slab.values).astype(np.float64)
        _, triangles, edges = igl.marching_cubes(
            values, np.zeros((len(values), 3)), slab.corners.astype(np.int64), 0.0
        )  # the positions are taken from the edges below, to keep the margin
        ends = np.fromiter(edges.keys(), np.int64, len(edges))
        vertex = np.fromiter(edges.values(), np.int64, len(edges))
        ends = np.sort(np.stack([ends & 0xFFFFFFFF, ends >> 32], axis=1), axis=1)[np.argsort(vertex)]
        low, high = ends.T
        axis = np.searchsorted(-grid.strides, slab.keys[low] - slab.keys[high])
        keys.append(slab.keys[low] * 3 + axis)
        fractions.append(values[low] / (values[low] - values[high]))
        faces.append(triangles.astype(np.int32) + count)
        count += len(edges)
    edge, first, vertex_of = np.unique(np.concatenate(keys), return_index=True, return_inverse=True)
    fraction = np.clip(np.concatenate(fractions)[first], _MARGIN, 1 - _MARGIN)
    subscripts = grid.subscripts(edge // 3).astype(np.float64)
    subscripts[np.arange(len(edge)), edge % 3] += fraction
    return grid.position(subscripts), vertex_of[np.concatenate(faces)]
