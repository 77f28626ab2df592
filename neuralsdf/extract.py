"""
extract.py
----------
The zero set of a field as a triangle mesh: marching cubes on the cells that can hold the surface, found
coarse to fine.

A cell with centre c and half-diagonal r holds no surface if |f(c)| > L r, with L the field's Lipschitz
constant. A network has no useful exact one, so L is measured; and because a measured L can be too small
somewhere, the surface is followed from cell to cell where it leaves the cells that were kept. So the mesh
has no holes, and equals the one of the dense grid unless a whole part of it was missed on every level.

Only the inside of the unit ball counts: what is meshed is the intersection of the solid with the ball,
max(f(y), |x| - 1) with y the point of the ball nearest to x.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from .errors import NeuralSDFError, NoSurfaceError, UsageError
from .field import Field, require_shape
from .lattice import CORNERS, Codes, Index, Lattice, distinct, fastest_lattice
from .network import FloatArray
from .similarity import Points

MIN_RESOLUTION, MAX_RESOLUTION = 8, 8192
DEFAULT_MEMORY = 2 << 30

#: Cells along a side of the coarsest grid: between this and twice as many.
_COARSEST = 32
#: A field without a surface at the resolution asked for is searched up to this one.
_FINEST_SEARCH = 1024
#: Points evaluated at once: they bound what is held besides the result.
_POINTS = 1 << 16
#: A field this far below zero on the ball's own surface is no rounding and no small error.
_BALL_TOLERANCE = 0.01

# The six neighbours of a cell, each with the bits of the face between in a cell's code.
_NEIGHBOURS = [
    (
        sign * np.eye(3, dtype=np.int64)[axis],
        np.packbits(CORNERS[:, axis] == (sign > 0), bitorder="little")[0],
    )
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
    its ball. Raises `NoSurfaceError` if there is no shape or no surface, `UsageError` for a resolution out of
    range, `NeuralSDFError` if `max_memory` does not suffice.
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
    require_shape(field)
    notes = _notes(field, level)
    searched, lowest = resolution, np.inf
    while True:
        grid = _Grid(field, level, searched, max_memory)
        samples, cells = _surface_cells(grid)
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
    # On the paper authors' networks at resolution 256 interpolated vertices are 0.00002 to 0.00006 off, a
    # thirtieth of what those networks err, so no root is searched for.
    vertices, faces = grid.lattice.marching_cubes(cells, samples.keys, samples.values)
    vertices *= grid.spacing
    vertices -= 1 + grid.spacing
    return Surface(vertices, faces, notes)


def _notes(field: Field, level: float) -> tuple[str, ...]:
    """Sentences about a field that is negative where its ball ends."""
    count = 10_000
    height = 1 - (2 * np.arange(count) + 1) / count  # a Fibonacci lattice: even over the sphere
    angle = np.arange(count) * np.pi * (3 - np.sqrt(5))
    ring = np.sqrt(1 - height**2)
    sphere = np.stack([ring * np.cos(angle), ring * np.sin(angle), height], axis=1)
    values = field.value((sphere * (1 - 1e-6)).astype(np.float32)) - level
    notes = []
    deep = values < -_BALL_TOLERANCE
    if deep.any():
        notes.append(
            f"the field is negative on {deep.mean():.2%} of its ball's own surface, down to "
            f"{values.min():.2g} of its radius; the mesh is closed there by the ball"
        )
    return tuple(notes)


@dataclass(eq=False)
class _Grid:
    """A field on a lattice with `resolution` cells across the ball's bounding cube and one cell around it.

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
    def lattice(self) -> Lattice:
        """Enough points for whole cells of the coarsest size."""
        return fastest_lattice(-(-self.resolution // self.coarsest) * self.coarsest + 1)

    def ball_points(self, keys: Index, offset: float = 0) -> tuple[FloatArray, FloatArray]:
        """As `Lattice.ball_points`, for lattice points (n,) of this grid."""
        return self.lattice.ball_points(keys, self.spacing, offset)

    def field_values(self, points: FloatArray) -> FloatArray:
        """f(x) - level (n,) at points (n, 3) of the ball."""
        values = self.field.value(points) - np.float32(self.level)
        if not np.isfinite(values).all():
            raise NeuralSDFError("the field is not finite everywhere in its ball: its weights overflow")
        self.lowest = min(self.lowest, float(values.min(initial=np.inf)))
        return values

    def solid_values(self, keys: Index) -> FloatArray:
        """max(f(y) - level, |x| - 1) at lattice points (n,): the solid within the ball."""
        result = np.empty(len(keys), np.float32)
        for start in range(0, len(keys), _POINTS):
            points, beyond = self.ball_points(keys[start : start + _POINTS])
            np.maximum(self.field_values(points), beyond, out=result[start : start + _POINTS])
        return result

    def check_memory(self, cells: int, size: int = 1) -> None:
        """Raise if that many cells, each `size` finest ones a side, take more than `max_memory`."""
        needed = cells * self.lattice.bytes_per_cell
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
class _Samples:
    """Values (n,) at the lattice points whose keys (n,) are given, ascending."""

    keys: Index
    values: FloatArray

    @classmethod
    def around(cls, grid: _Grid, cells: Index) -> _Samples:
        keys = grid.lattice.corner_keys(cells)
        return cls(keys, grid.solid_values(keys))

    def merge(self, other: _Samples) -> _Samples:
        """The points of both; where both have one, they agree. The others are few."""
        fresh = ~_contains(self.keys, other.keys)
        keys, values = other.keys[fresh], other.values[fresh]
        place = np.searchsorted(self.keys, keys)
        return _Samples(np.insert(self.keys, place, keys), np.insert(self.values, place, values))


def _candidate_cells(grid: _Grid) -> Index:
    """Keys of the finest cells that can hold the surface, ascending."""
    size = grid.coarsest
    along = np.arange(0, grid.lattice.side - 1, size)
    x, y, z = (along * stride for stride in grid.lattice.strides)
    cells: Index = (x[:, None, None] + y[:, None] + z).ravel()
    lipschitz = _measured_lipschitz(grid, cells)
    cells = _holding(grid, cells, size, lipschitz)
    while size > 1:
        size //= 2
        grid.check_memory(8 * len(cells), size)
        cells = (cells[:, None] + size * grid.lattice.corners).ravel()
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
        centres, beyond = grid.ball_points(chunk, size / 2)
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
    centres, beyond = grid.ball_points(cells, grid.coarsest / 2)
    _, gradients = grid.field.value_and_gradient(centres[beyond < 0])
    return 1.01 * float(np.percentile(np.linalg.norm(gradients, axis=1), 99))  # 1.01: rounding, where it is 1


def _surface_cells(grid: _Grid) -> tuple[_Samples, Index]:
    """The lattice points evaluated, and the keys of the cells that hold the surface, ascending."""
    candidates = _candidate_cells(grid)
    grid.check_memory(len(candidates))
    samples = _Samples.around(grid, candidates)
    codes = grid.lattice.cell_codes(candidates, samples.keys, samples.values)
    crossed = (codes > 0) & (codes < 255)
    cells, codes = candidates[crossed], codes[crossed]
    found = cells
    while True:
        new = _missed(grid, cells, found, codes)
        if not len(new):
            return samples, cells
        samples = samples.merge(_Samples.around(grid, new))
        # A neighbour across a crossed face has corners on both sides: it holds the surface too.
        cells, found = distinct(np.concatenate([cells, new])), new
        codes = grid.lattice.cell_codes(found, samples.keys, samples.values)
        grid.check_memory(len(cells))


def _missed(grid: _Grid, cells: Index, found: Index, codes: Codes) -> Index:
    """Neighbours of `found` (n,) with `codes` (n,) across crossed faces that are not among cells."""
    missed = [found[:0]]
    for step, face in _NEIGHBOURS:
        inside = codes & face
        neighbours = found[(inside != 0) & (inside != face)] + step @ grid.lattice.strides
        missed.append(neighbours[~_contains(cells, neighbours)])
    return distinct(np.concatenate(missed))


def _contains(ascending: Index, keys: Index) -> npt.NDArray[np.bool_]:
    """Whether each of keys (n,) is in `ascending`."""
    if not len(ascending):
        return np.zeros(len(keys), np.bool_)
    place = np.minimum(np.searchsorted(ascending, keys), len(ascending) - 1)
    found: npt.NDArray[np.bool_] = ascending[place] == keys
    return found
