"""
extract.py
----------
Extracts the zero set of a field as a triangle mesh, by marching cubes on the cells that contain the surface.

grid/surface_search.py searches for these cells from coarse to fine, and follows the surface where it leaves
them. So the mesh has no holes, and equals that of a dense grid unless a whole part was missed at every level.

The mesh is that of the intersection of the solid with the unit ball: the zero set of max(f(y), |x| - 1),
where y is the point of the ball closest to x.

By default the resolution is adaptive. It starts at 256 and is doubled until the volume is correct to 1 %, the
number of shells is that at half the resolution, and no part is thinner than a cell. It stops earlier for a
field that is slow to evaluate. Only cells at the surface take memory, so the cube around the ball suits
long thin shapes too.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import cached_property
from typing import NamedTuple

import numpy as np

from ..arguments import whole_number
from ..array_types import Faces, Points, Values
from ..errors import EmptyShapeError, FieldKindError, NoSurfaceError, UsageError
from ..geometry.triangles import face_areas, face_normals, face_runs
from ..mesh.shells_and_cavities import SPECK_VOLUME, Shells, find_shells
from .extraction_grid import FACE_BYTES, MIN_RESOLUTION, PROCESS_BYTES, FieldGrid, SurfaceCells, TooLargeError
from .field import Field, require_shape

MAX_RESOLUTION = 8192
#: Default memory limit of the process, in bytes.
DEFAULT_MEMORY = 2_000_000_000
#: Default memory limit if the resolution is given: only for the search, not for the mesh.
_SEARCH_MEMORY = PROCESS_BYTES + (2 << 30)

#: Minimum adaptive resolution, memory permitting.
DEFAULT_MIN_RESOLUTION = 256
#: Relative error of the volume that causes a warning.
VOLUME_TOLERANCE = 0.02
#: Maximum relative error of the volume at a sufficient resolution, and maximum relative change of the number
#: of shells from half of that resolution.
CONVERGENCE_TOLERANCE = 0.01
#: Maximum number of operations of a search at an adaptive resolution: a few seconds of a core.
_MAX_WORK = 1 << 33
#: Approximate number of points that a search evaluates, divided by the square of the resolution.
_SEARCH_POINTS = 40
#: Minimum start of the adaptive resolution, for slow fields.
_MIN_START = 32
#: Cells across the thickness of a part at a sufficient resolution.
_CELLS_ACROSS = 2
#: Shells smaller than a ball with this many times the field's error as its radius are specks. Networks of the
#: paper's authors have up to 40, bubbles where the field is almost zero. A finer grid has fewer.
_SPECK_RADIUS = 6

#: First resolution of a search that only tests whether there is a surface.
_EXISTENCE_RESOLUTION = 64
#: Maximum resolution of the search for a surface that does not appear at the given resolution.
_MAX_SEARCH_RESOLUTION = 1024
#: A field this far below zero on the ball's surface is not explained by rounding or a small error.
_BALL_TOLERANCE = 0.01


@dataclass(frozen=True, eq=False)
class Surface:
    """A closed triangle mesh of a field's zero set, oriented outwards.

    vertices: (V, 3) float64. faces: (F, 3) int64, counter-clockwise seen from outside.
    notes: remarks and warnings for the user, a sentence each.
    resolution: cells across the ball's bounding cube. cell: side of a cell, in the vertices' unit.
    reduced: whether the number of faces was reduced afterwards (decimate.py).
    """

    vertices: Points
    faces: Faces
    notes: tuple[str, ...] = ()
    resolution: int = 0
    cell: float = 0.0
    reduced: bool = False

    @cached_property
    def area(self) -> float:
        """Surface area, in the vertices' unit squared."""
        return float(face_areas(self.vertices, self.faces).sum())

    @cached_property
    def volume(self) -> float:
        """Enclosed volume, in the vertices' unit cubed."""
        centre, six_volumes = self.vertices.mean(axis=0), 0.0  # centred, to avoid cancellation
        for run in face_runs(len(self.faces)):
            faces = self.faces[run]
            corners = self.vertices[faces[:, 0]] - centre
            six_volumes += float((corners * face_normals(self.vertices, faces)).sum())
        return six_volumes / 6

    @cached_property
    def bounds(self) -> tuple[Points, Points]:
        """Minimum and maximum corner (3,) of the bounding box."""
        return self.vertices.min(axis=0), self.vertices.max(axis=0)

    @cached_property
    def shells(self) -> Shells:
        """The connected components."""
        return find_shells(self.vertices, self.faces)

    @cached_property
    def watertight(self) -> bool:
        """Whether every edge belongs to exactly two faces, which traverse it in opposite directions."""
        # The two directions of an edge have successive keys, the first of which is even.
        keys = np.empty(self.faces.size, np.int64)
        for run in face_runs(len(self.faces)):
            start = self.faces[run]
            end = np.roll(start, -1, axis=1)
            low, high = np.minimum(start, end), np.maximum(start, end)
            run_keys = 2 * (low * len(self.vertices) + high) + (start > end)
            keys[3 * run.start : 3 * run.stop] = run_keys.ravel()
        keys.sort()
        if len(keys) % 2 or (keys[::2] % 2).any():
            return False
        return bool((keys[1::2] == keys[::2] + 1).all() and (keys[2::2] > keys[1:-1:2]).all())


def extract(
    field: Field,
    resolution: int | None = None,
    *,
    max_memory: int | None = None,
    level: float = 0.0,
    min_resolution: int = DEFAULT_MIN_RESOLUTION,
    face_bytes: int = FACE_BYTES,
) -> Surface:
    """Extract the level set f = `level` of a field as a watertight mesh in mesh units, oriented outwards.

    resolution: cells along a side of the ball's bounding cube; None for as many as the shape needs, at least
    `min_resolution`. max_memory: memory limit of the process in bytes, including later processing of the
    mesh, but not the field; None for 2 GB, which the mesh may exceed if a resolution is given. level: in mesh
    units; the shape grows if positive, but not out of its ball. face_bytes: bytes per face for later
    processing. The surface of an occupancy field is where the sign changes. Raises `FieldKindError` for a
    level of such a field, `NoSurfaceError` if there is no shape or no surface, `UsageError` for a resolution
    out of range, `NeuralSDFError` if `max_memory` does not suffice.
    """
    transform = field.transform
    surface = model_surface(
        field,
        resolution,
        max_memory=max_memory,
        level=level / transform.scale,
        min_resolution=min_resolution,
        face_bytes=face_bytes,
    )
    mirrored = np.linalg.det(transform.matrix[:3, :3] / transform.scale) < 0
    faces = np.ascontiguousarray(surface.faces[:, ::-1]) if mirrored else surface.faces
    vertices, cell = transform.apply(surface.vertices), surface.cell * transform.scale
    return Surface(vertices, faces, surface.notes, surface.resolution, cell)


def model_surface(
    field: Field,
    resolution: int | None = None,
    *,
    max_memory: int | None = None,
    level: float = 0.0,
    min_resolution: int = DEFAULT_MIN_RESOLUTION,
    face_bytes: int = FACE_BYTES,
) -> Surface:
    """As `extract`, in model space: the vertices and `level` are in units of the ball's radius."""
    if resolution is not None:
        resolution = whole_number("resolution", resolution, MIN_RESOLUTION, MAX_RESOLUTION)
    if max_memory is not None:
        max_memory = whole_number("max_memory", max_memory, 1)
    if level and field.kind == "occupancy":
        raise FieldKindError("an occupancy field has no distances, so `level=` must be 0")
    if field.limit is not None and abs(level) >= field.limit:
        raise UsageError(
            f"`level=` is {abs(level):.3g} bounding radii, and the field's values are limited to "
            f"{field.limit:.3g}; give a smaller one"
        )
    require_shape(field)
    if resolution is None:
        limit = DEFAULT_MEMORY if max_memory is None else max_memory
        start = _start_resolution(field, min_resolution)
        return _adaptive_surface(FieldGrid(field, level, start, limit, face_bytes), min_resolution)
    limit = _SEARCH_MEMORY if max_memory is None else max_memory
    grid, found = _first_surface(FieldGrid(field, level, resolution, limit, face_bytes))
    if max_memory is not None:
        grid.check_mesh_memory(found)
    notes = _ball_notes(field, level)
    if grid.resolution > resolution:
        notes += (
            f"nothing is inside at resolution {resolution}: the field has little interior and was "
            f"extracted at {grid.resolution}",
        )
    surface = _surface(grid, found)
    return replace(surface, notes=notes + _volume_notes(field, surface, level))


def _surface(grid: FieldGrid, found: SurfaceCells) -> Surface:
    return Surface(*grid.surface(found), (), grid.resolution, grid.spacing)


def _first_surface(first: FieldGrid) -> tuple[FieldGrid, SurfaceCells]:
    """Search for the surface at a grid's resolution, which is doubled until a surface is found."""
    field, level, resolution = first.field, first.level, first.resolution
    lowest, searched = np.inf, resolution
    while True:
        grid = replace(first, resolution=searched)
        try:
            found = grid.search()
        except TooLargeError as error:
            if searched == resolution:
                raise
            # The user did not request a finer search, so its memory need is not an error.
            raise _no_surface(field, lowest + level, searched // 2) from error
        if len(found.cells):
            return grid, found
        lowest = min(lowest, grid.lattice.lowest)
        missed = grid.missed_thicknesses(found) if field.rounding else np.empty(0)
        if field.rounding and not len(missed):
            raise EmptyShapeError(
                f"the shape is empty, or nowhere thicker than {grid.min_thickness:.0e} of its radius"
            )
        is_slow = 4 * _work(grid, found) > _MAX_WORK
        if 2 * searched > max(resolution, _MAX_SEARCH_RESOLUTION) or is_slow:
            raise _too_thin(missed, searched) if len(missed) else _no_surface(field, lowest + level, searched)
        searched *= 2


def volume_difference(volume: float | None, expected: float | None) -> str | None:
    """The difference of a volume from the expected one, such as "3.4% less"; None if within 2 %, or if either
    is unknown."""
    if volume is None or expected is None or abs(volume - expected) <= VOLUME_TOLERANCE * expected:
        return None
    return f"{abs(volume / expected - 1):.1%} {'less' if volume < expected else 'more'}"


def wrong_volume(volume: float | None, expected: float | None) -> str | None:
    """A warning if the volume of a network differs from that of its mesh, with a remedy; else None."""
    difference = volume_difference(volume, expected)
    if difference is None:
        return None
    return (
        f"the network's volume is {difference} than the mesh's: it lacks thin parts or gaps; convert the "
        "mesh again with a higher `width=` or more `samples=`"
    )


def _volume_notes(field: Field, surface: Surface, level: float) -> tuple[str, ...]:
    """A warning if the volume of a surface is wrong, because of the network or because of the resolution."""
    expected = field.expected_volume
    if level or expected is None or volume_difference(surface.volume, expected) is None:
        return ()
    known = field.known_volume
    if known is not None and abs(surface.volume - known) > abs(known - expected):
        return (
            f"warning: at resolution {surface.resolution} the volume is off by "
            f"{abs(surface.volume / known - 1):.1%}: thin parts or gaps are missing; omit `resolution=` to "
            "use a sufficient one",
        )
    return (f"warning: {wrong_volume(surface.volume, expected)}",)


# -- adaptive resolution --------------------------------------------------------------------------------


class _Requirement(NamedTuple):
    """The resolution that a shape requires, and the reason why a lower one is insufficient.

    note: a warning if the surface is wrong, but no resolution that fits in memory is sufficient.
    """

    resolution: int
    reason: str = ""
    note: str = ""


def _start_resolution(field: Field, min_resolution: int) -> int:
    """First resolution of an adaptive extraction: half of the minimum, or less for a slow field."""
    resolution = min_resolution // 2
    while resolution > _MIN_START and field.operations * _SEARCH_POINTS * resolution**2 > _MAX_WORK / 4:
        resolution //= 2
    return resolution


def _adaptive_surface(first: FieldGrid, min_resolution: int) -> Surface:
    """Double the resolution until it is sufficient and at least `min_resolution`, within the limits on
    memory and work."""
    field, level = first.field, first.level
    grid, found = _first_surface(first)
    grid.check_mesh_memory(found)
    surface, notes = _surface(grid, found), _ball_notes(field, level)
    required = _Requirement(max(2 * grid.resolution, min_resolution))
    while required.resolution > grid.resolution:
        shells = _count_shells(surface, field)
        # Doubling the resolution takes four times the work, or eight times for noise. For fields so slow that
        # the search started lower, assume noise.
        if _work(grid, found) > _MAX_WORK / (8 if 2 * grid.resolution < min_resolution else 4):
            warning = (
                f"warning: extracted at resolution {grid.resolution}: the field is slow to evaluate; "
                f"`resolution={required.resolution}` makes it finer"
            )
            return replace(surface, notes=(*notes, warning))
        finer = _search_doubled(grid, found)
        if finer is None:
            if not required.reason:  # the first resolution
                reached = _requirement(grid, found, surface, shells)
                unknown = required._replace(reason="the surface was not compared with a finer one")
                required = reached if reached.reason or reached.note else unknown
            return replace(surface, notes=(*notes, required.note or _advice(grid, found, required)))
        grid, found = finer
        surface = _surface(grid, found)
        if grid.resolution >= min_resolution:
            required = _requirement(grid, found, surface, shells)
    notes += (required.note,) if required.note else _volume_notes(field, surface, level)
    return replace(surface, notes=notes)


def _work(grid: FieldGrid, found: SurfaceCells) -> int:
    """Approximate number of operations of a search; four times as many at twice the resolution."""
    return grid.field.operations * 8 * max(len(found.searched), len(found.cells))


def _search_doubled(grid: FieldGrid, found: SurfaceCells) -> tuple[FieldGrid, SurfaceCells] | None:
    """Search for the surface at twice the resolution; None if that exceeds a limit or finds no surface.

    found: the cells at the resolution of `grid`.
    """
    finer = replace(grid, resolution=2 * grid.resolution)
    if finer.resolution > MAX_RESOLUTION or grid.memory(found, finer.resolution) > grid.max_memory:
        return None
    try:
        found = finer.search()
        finer.check_mesh_memory(found)
    except TooLargeError:
        return None
    return (finer, found) if len(found.cells) else None


def _count_shells(surface: Surface, field: Field) -> int:
    """Number of shells, without specks that rounding or the field's error explains."""
    volumes = np.abs(surface.shells.volumes)
    speck = 4 / 3 * np.pi * (_SPECK_RADIUS * field.error) ** 3
    return int((volumes > max(speck, SPECK_VOLUME * volumes.sum())).sum())


def _requirement(grid: FieldGrid, found: SurfaceCells, surface: Surface, half: int) -> _Requirement:
    """The resolution that a surface requires. half: the number of shells at half of its resolution."""
    error = grid.volume_error(found) / surface.volume
    affordable = grid.affordable_resolution(grid.memory(found))
    if abs(error) > CONVERGENCE_TOLERANCE:
        # The error is proportional to the square of the cell size.
        sufficient = grid.resolution * max(2.0, math.sqrt(abs(error) / CONVERGENCE_TOLERANCE))
        if error > 1:  # most of the shape is missing: assume that the searched cells cover both of its sides
            area = len(found.searched) * (2 * grid.spacing) ** 2
            thickness = 2 * (1 + error) * surface.volume / area
            sufficient = max(2 * grid.resolution, 2 * _CELLS_ACROSS / thickness)
        required = _Requirement(_power_of_two(sufficient), f"the volume is off by {abs(error):.1%}")
        if error * (grid.resolution / affordable) ** 2 > 1:  # and most of it at the affordable resolution
            return _Requirement(grid.resolution, note=_advice(grid, found, required))
        return required
    doubled, shells = 2 * grid.resolution, _count_shells(surface, grid.field)
    if abs(shells - half) > CONVERGENCE_TOLERANCE * shells:
        return _Requirement(doubled, f"there are {shells} shells, but {half} at half of it")
    missed = grid.missed_thicknesses(found)
    if not len(missed):
        return _Requirement(grid.resolution)
    sufficient = _power_of_two(2 * _CELLS_ACROSS / float(np.quantile(missed, 0.1)))
    reason = f"parts or gaps about {np.median(missed):.2g} of the radius thick are missing"
    if 2 * _CELLS_ACROSS / missed.max() > min(MAX_RESOLUTION, affordable):
        advice = _advice(grid, found, _Requirement(sufficient, reason))
        return _Requirement(grid.resolution, note=advice)
    return _Requirement(max(doubled, sufficient), reason)


def _advice(grid: FieldGrid, found: SurfaceCells, required: _Requirement) -> str:
    """A warning that states what is wrong with a surface, and a sufficient resolution."""
    warning = f"warning: at resolution {grid.resolution} {required.reason}"
    if required.resolution > MAX_RESOLUTION:
        return f"{warning}; the maximum resolution, {MAX_RESOLUTION}, is insufficient"
    needed = _size(grid.memory(found, required.resolution))
    return f"{warning}; try `resolution={required.resolution}`, which needs {needed} of `max_memory=`"


def _size(count: float) -> str:
    """A number of bytes, rounded up, such as 500MB."""
    return f"{math.ceil(count / 1e9)}GB" if count > 1e9 else f"{math.ceil(count / 1e6)}MB"


def _power_of_two(number: float) -> int:
    """The smallest power of two that is not less than `number`."""
    return 1 << math.ceil(math.log2(number))


def require_surface(field: Field) -> None:
    """Raise `NoSurfaceError` for a field that has no surface inside its ball."""
    model_surface(field, _EXISTENCE_RESOLUTION)


def _too_thin(thickness: Values, resolution: int) -> NoSurfaceError:
    return NoSurfaceError(
        f"the shape is too thin or small to extract: about {np.median(thickness):.1g} of its radius, less "
        f"than a cell at resolution {resolution}"
    )


def _no_surface(field: Field, lowest: float, resolution: int) -> NoSurfaceError:
    if field.kind == "occupancy":
        return NoSurfaceError(
            f"the field has no surface: no point of its ball is inside at resolution {resolution}; the "
            f"smallest value is {lowest:+.2g}"
        )
    return NoSurfaceError(
        f"the field has no surface: the smallest value in its ball is {lowest:+.2g} of the radius at "
        f"resolution {resolution}; it has little or no interior"
    )


def _ball_notes(field: Field, level: float) -> tuple[str, ...]:
    """A note if the field is negative on the surface of its ball."""
    count = 10_000
    height = 1 - (2 * np.arange(count) + 1) / count  # a Fibonacci lattice: uniform on the sphere
    angle = np.arange(count) * np.pi * (3 - np.sqrt(5))
    ring = np.sqrt(1 - height**2)
    sphere = np.stack([ring * np.cos(angle), ring * np.sin(angle), height], axis=1)
    values = field.value((sphere * (1 - 1e-6)).astype(np.float32)) - level
    if field.kind == "occupancy":
        inside = values < 0
        if not inside.any():
            return ()
        return (
            f"the shape reaches its ball: {inside.mean():.2%} of the ball's surface is inside the shape; the "
            "ball closes the mesh there",
        )
    inside = values < -_BALL_TOLERANCE
    if not inside.any():
        return ()
    return (
        f"the field is negative on {inside.mean():.2%} of its ball's surface, with a minimum of "
        f"{values.min():.2g} of the radius; the ball closes the mesh there",
    )
