"""
extract.py
----------
The zero set of a field as a triangle mesh: marching cubes on the cells that can hold the surface, found
coarse to fine.

The cells are found as narrow_band.py says, and the surface is followed where it leaves them. So the mesh has
no holes, and equals the one of the dense grid unless a whole part of it was missed on every level.

Only the inside of the unit ball counts: what is meshed is the intersection of the solid with the ball,
max(f(y), |x| - 1) with y the point of the ball nearest to x.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from .errors import NeuralSDFError, NoSurfaceError, UsageError
from .field import Field, require_shape
from .lattice import Index, Lattice, fastest_lattice
from .narrow_band import FieldLattice, HostFieldLattice, surface_cells
from .similarity import Points

MIN_RESOLUTION, MAX_RESOLUTION = 8, 8192
DEFAULT_MEMORY = 2 << 30

#: Cells along a side of the coarsest grid: between this and twice as many.
_COARSEST = 32
#: Where only the question is whether there is a surface, the search begins at this resolution.
_SURFACE_SEARCH = 64
#: A field without a surface at the resolution asked for is searched up to this one.
_FINEST_SEARCH = 1024
#: A field this far below zero on the ball's own surface is no rounding and no small error.
_BALL_TOLERANCE = 0.01


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


class _TooLarge(NeuralSDFError):
    """An extraction would take more memory than it may."""


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
        coarsest = grid.coarsest_cells()
        try:
            cells, samples = surface_cells(
                grid.lattice, grid.lattice.cells(coarsest), grid.coarsest,
                grid.measured_lipschitz(coarsest), grid.check_memory,
            )  # fmt: skip
        except _TooLarge as error:
            if searched == resolution:
                raise
            # Finer than was asked for only as far as the memory goes.
            raise _no_surface(lowest + level, searched // 2) from error
        if len(cells):
            break
        lowest = min(lowest, grid.lattice.lowest)
        if 2 * searched > max(resolution, _FINEST_SEARCH):
            raise _no_surface(lowest + level, searched)
        searched *= 2
    if searched > resolution:
        notes += (
            f"nothing is inside at resolution {resolution}: the field has hardly any interior, "
            f"so it was extracted at {searched}",
        )
    # On the paper authors' networks at resolution 256 interpolated vertices are 0.00002 to 0.00006 off, a
    # thirtieth of what those networks err, so no root is searched for.
    vertices, faces = grid.lattice.marching_cubes(cells, samples)
    vertices *= grid.spacing
    vertices -= 1 + grid.spacing
    return Surface(vertices, faces, notes)


def require_surface(field: Field) -> None:
    """Raise `NoSurfaceError` for a field that has no surface inside its ball."""
    model_surface(field, _SURFACE_SEARCH)


def _no_surface(lowest: float, resolution: int) -> NoSurfaceError:
    return NoSurfaceError(
        f"the field has no surface: its smallest value in its ball is {lowest:+.2g} of its "
        f"radius, at resolution {resolution}; it has hardly any interior or none"
    )


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


@dataclass(frozen=True, eq=False)
class _Grid:
    """A field on a lattice with `resolution` cells across the ball's bounding cube and one cell around it."""

    field: Field
    level: float
    resolution: int
    max_memory: int

    @property
    def spacing(self) -> float:
        """Side of a finest cell."""
        return 2 / (self.resolution - 2)

    @property
    def coarsest(self) -> int:
        """Side of a coarsest cell in finest ones, a power of two."""
        return 1 << max(0, int(np.log2(self.resolution / _COARSEST)))

    @property
    def side(self) -> int:
        """Points along a side: enough for whole cells of the coarsest size."""
        return -(-self.resolution // self.coarsest) * self.coarsest + 1

    @cached_property
    def lattice(self) -> FieldLattice[Any, Any]:
        """The field's own program on the lattice, or its values."""
        program, arguments = self.field.program, (self.spacing, self.level)
        if program:
            return program.on_lattice(self.side, *arguments)
        return HostFieldLattice(fastest_lattice(self.side), self.field.value, *arguments)

    def coarsest_cells(self) -> Index:
        """Keys (n,) of all cells of the coarsest size."""
        along = np.arange(0, self.side - 1, self.coarsest)
        x, y, z = (along * stride for stride in Lattice(self.side).strides)
        cells: Index = (x[:, None, None] + y[:, None] + z).ravel()
        return cells

    def measured_lipschitz(self, cells: Index) -> float:
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

    def check_memory(self, cells: int, size: int) -> None:
        """Raise if that many cells, each `size` finest ones a side, take more than `max_memory`."""
        needed = cells * self.lattice.bytes_per_cell
        if needed > self.max_memory:
            # The cells at a surface grow with the square of the resolution.
            fits = int(self.resolution / size * np.sqrt(self.max_memory / needed) * 0.95) // 8 * 8
            needed *= size**2
            remedy = f"--resolution {fits} fits" if fits >= MIN_RESOLUTION else "no resolution fits"
            raise _TooLarge(
                f"resolution {self.resolution} needs about {needed / 1e9:.2g} GB, and --max-memory allows "
                f"{self.max_memory / 1e9:.2g} GB; {remedy}"
            )
