"""
extract.py
----------
The zero set of a field as a triangle mesh: marching cubes on the cells that can hold the surface, found
coarse to fine.

grid/surface_search.py finds the cells, and the surface is followed where it leaves them. So the mesh has
no holes, and equals the one of the dense grid unless a whole part of it was missed on every level.

Only the inside of the unit ball counts: what is meshed is the intersection of the solid with the ball,
max(f(y), |x| - 1) with y the point of the ball nearest to x.

Unless a resolution is given, it is chosen: from 256 on it is doubled until the volume is right to 1 %, there
are as many separate surfaces as at half of it, and no part was missed for being thinner than a cell. A field
that is slow to evaluate ends it earlier. Cells cost memory only where the surface is: a long thin shape has
no more of them in a cube than in a box of its own.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import cached_property
from typing import NamedTuple

import numpy as np

from ..array_types import Faces, Points, Values, Vectors
from ..errors import EmptyShapeError, FieldKindError, NoSurfaceError, UsageError
from ..geometry.triangles import face_areas, face_normals, face_runs, vertex_normals
from ..mesh.shells import SPECK_VOLUME, Shells, find_shells
from .extraction_grid import FACE_BYTES, MIN_RESOLUTION, PROCESS_BYTES, FieldGrid, Found, TooLargeError
from .field import Field, require_shape

MAX_RESOLUTION = 8192
#: Bytes that the process may take where nothing else is asked for.
DEFAULT_MEMORY = 2_000_000_000
#: The same where a resolution is given: for the search alone, not for the mesh.
_SEARCH_MEMORY = PROCESS_BYTES + (2 << 30)

#: The least resolution that is chosen, if memory allows it.
FIRST = 256
#: A volume that is wrong by more than this is worth a warning.
WRONG_VOLUME = 0.02
#: What the volume may be off by, and the number of separate surfaces change by from half of a resolution.
SAME = 0.01
#: Operations times points that a resolution which nobody asked for may take: some seconds of a core.
_MOST_WORK = 1 << 33
#: Points at which a search evaluates a field, over the square of the resolution, about; and the lowest
#: resolution at which it begins for fields that are slow.
_POINTS_OF_A_SEARCH, _SLOWEST_FIRST = 40, 32
#: Cells that a part should be thick.
_CELLS_THICK = 2
#: A shell smaller than a ball with this many times the field's error as its radius is a speck. Networks of
#: the paper's authors have up to 40 such, fewer the finer the grid: bubbles where the field is all but zero.
_SPECK = 6

#: Where only the question is whether there is a surface, the search begins at this resolution.
_SURFACE_SEARCH = 64
#: A field without a surface at the resolution asked for is searched up to this one.
_FINEST_SEARCH = 1024
#: Vertices whose normals are found together.
_NORMALS_AT_ONCE = 1 << 18
#: A field this far below zero on the ball's own surface is no rounding and no small error.
_BALL_TOLERANCE = 0.01


@dataclass(frozen=True, eq=False)
class Surface:
    """A triangle mesh of a field's zero set, closed and oriented outwards.

    vertices: (V, 3) float64. faces: (F, 3) int64, counter-clockwise seen from outside.
    notes: what a user should know about it, a sentence each.
    resolution: cells across the ball that it was extracted with. cell: side of one, in the vertices' unit.
    reduced: whether its number of faces was reduced afterwards (decimate.py).
    """

    vertices: Points
    faces: Faces
    notes: tuple[str, ...] = ()
    resolution: int = 0
    cell: float = 0.0
    reduced: bool = False

    @cached_property
    def area(self) -> float:
        """Area, in the vertices' unit squared."""
        return float(face_areas(self.vertices, self.faces).sum() / 2)

    @cached_property
    def volume(self) -> float:
        """Enclosed volume, in the vertices' unit cubed."""
        centre, six_fold = self.vertices.mean(axis=0), 0.0  # far from the origin the sum would cancel
        for run in face_runs(len(self.faces)):
            faces = self.faces[run]
            tips = self.vertices[faces[:, 0]] - centre
            six_fold += float((tips * face_normals(self.vertices, faces)).sum())
        return six_fold / 6

    @cached_property
    def bounds(self) -> tuple[Points, Points]:
        """The lowest and the highest corner (3,) of a box around it."""
        return self.vertices.min(axis=0), self.vertices.max(axis=0)

    @cached_property
    def shells(self) -> Shells:
        """Its connected surfaces."""
        return find_shells(self.vertices, self.faces)

    @cached_property
    def watertight(self) -> bool:
        """Whether every edge belongs to exactly two faces, which run through it in opposite directions."""
        # An edge in either direction: two successive numbers, the first of them even.
        edges = np.empty(self.faces.size, np.int64)
        for run in face_runs(len(self.faces)):
            start = self.faces[run]
            end = np.roll(start, -1, axis=1)
            low, high = np.minimum(start, end), np.maximum(start, end)
            numbers = 2 * (low * len(self.vertices) + high) + (start > end)
            edges[3 * run.start : 3 * run.stop] = numbers.ravel()
        edges.sort()
        if len(edges) % 2 or (edges[::2] % 2).any():
            return False
        return bool((edges[1::2] == edges[::2] + 1).all() and (edges[2::2] > edges[1:-1:2]).all())


def extract(
    field: Field,
    resolution: int | None = None,
    *,
    max_memory: int | None = None,
    level: float = 0.0,
    least: int = FIRST,
    face_bytes: int = FACE_BYTES,
) -> Surface:
    """The surface distance = `level` of a field, in mesh units: watertight, oriented outwards.

    resolution: cells along the side of the ball's bounding cube; None for as many as the shape needs, `least`
    or more. max_memory: bytes that the whole process may take, with all that is done with the mesh later,
    but without what the field itself takes; None for 2 GB, which the mesh at a given resolution may exceed.
    level: in mesh units; above zero the shape grows, though never out of its ball. face_bytes: what is needed
    later for each face of the mesh. Of an occupancy field the surface is where its sign changes. Raises
    `FieldKindError` for a level of such a field, `NoSurfaceError` if there is no shape or no surface,
    `UsageError` for a resolution out of range, `NeuralSDFError` if `max_memory` does not suffice.
    """
    transform = field.transform
    local = level / transform.scale
    surface = model_surface(
        field, resolution, max_memory=max_memory, level=local, least=least, face_bytes=face_bytes
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
    least: int = FIRST,
    face_bytes: int = FACE_BYTES,
) -> Surface:
    """As `extract`, in model space: the vertices and `level` are in units of the ball's radius."""
    if resolution is not None and not MIN_RESOLUTION <= resolution <= MAX_RESOLUTION:
        raise UsageError(f"`resolution={resolution}`: {MIN_RESOLUTION} to {MAX_RESOLUTION} is allowed")
    if level and field.kind == "occupancy":
        raise FieldKindError("an occupancy field has no distances, and so no surface at a `level=` but 0")
    require_shape(field)
    if resolution is None:
        limit = DEFAULT_MEMORY if max_memory is None else max_memory
        return _resolved(FieldGrid(field, level, _first_resolution(field, least), limit, face_bytes), least)
    limit = _SEARCH_MEMORY if max_memory is None else max_memory
    grid, found = _first_surface(FieldGrid(field, level, resolution, limit, face_bytes))
    if max_memory is not None:
        grid.check_mesh(found)
    notes = _notes(field, level)
    if grid.resolution > resolution:
        notes += (
            f"nothing is inside at resolution {resolution}: the field has hardly any interior, "
            f"so it was extracted at {grid.resolution}",
        )
    surface = _surface(grid, found)
    return replace(surface, notes=notes + _volume_notes(field, surface, level))


def _surface(grid: FieldGrid, found: Found) -> Surface:
    return Surface(*grid.surface(found), (), grid.resolution, grid.spacing)


def _first_surface(first: FieldGrid) -> tuple[FieldGrid, Found]:
    """The surface at a grid's resolution or, if it finds none, at the first of its doubles that finds one."""
    field, level, resolution = first.field, first.level, first.resolution
    lowest, searched = np.inf, resolution
    while True:
        grid = replace(first, resolution=searched)
        try:
            found = grid.search()
        except TooLargeError as error:
            if searched == resolution:
                raise
            # Finer than was asked for only as far as the memory goes.
            raise _no_surface(field, lowest + level, searched // 2) from error
        if len(found.cells):
            return grid, found
        lowest = min(lowest, grid.lattice.lowest)
        missed = grid.missed(found) if field.rounding else np.empty(0)
        if field.rounding and not len(missed):
            raise EmptyShapeError(
                "the shape is empty: nothing is inside of it, or nothing thicker than "
                f"{grid.thinnest:.0e} of its radius"
            )
        is_slow = 4 * _work(grid, found) > _MOST_WORK
        if 2 * searched > max(resolution, _FINEST_SEARCH) or is_slow:
            raise _too_thin(missed, searched) if len(missed) else _no_surface(field, lowest + level, searched)
        searched *= 2


def volume_difference(volume: float | None, expected: float | None) -> str | None:
    """How far a volume is from the expected one, such as "3.4% less"; None within 2 %, or if unknown."""
    if volume is None or expected is None or abs(volume - expected) <= WRONG_VOLUME * expected:
        return None
    return f"{abs(volume / expected - 1):.1%} {'less' if volume < expected else 'more'}"


def wrong_volume(volume: float | None, expected: float | None) -> str | None:
    """A sentence on a network whose volume is not that of its mesh, and what helps; None if it is."""
    difference = volume_difference(volume, expected)
    if difference is None:
        return None
    return (
        f"the network's volume is {difference} than the mesh's: thin parts or gaps are lost in it; convert "
        "the mesh again with a higher `width=` or more `samples=`"
    )


def _volume_notes(field: Field, surface: Surface, level: float) -> tuple[str, ...]:
    """A sentence on a surface whose volume is not what it should be, by the network or by the resolution."""
    expected = field.expected_volume
    if level or expected is None or volume_difference(surface.volume, expected) is None:
        return ()
    own = field.known_volume
    if own is not None and abs(surface.volume - own) > abs(own - expected):
        share = f"{abs(surface.volume / own - 1):.1%}"
        return (
            f"warning: at resolution {surface.resolution} the volume is off by {share}: thin parts or gaps "
            "are lost; leave out `resolution=` for one that is fine enough",
        )
    return (f"warning: {wrong_volume(surface.volume, expected)}",)


# -- the resolution that a shape needs ------------------------------------------------------------------


class _Wanting(NamedTuple):
    """The resolution that would do, and what is wrong with a lower one; `note` is on what no resolution
    within the memory would mend.
    """

    resolution: int
    reason: str = ""
    note: str = ""


def _first_resolution(field: Field, least: int) -> int:
    """Where the search for a resolution of `least` or more begins: at half of it, lower for a slow field."""
    resolution = least // 2
    while (
        resolution > _SLOWEST_FIRST
        and field.operations * _POINTS_OF_A_SEARCH * resolution**2 > _MOST_WORK / 4
    ):
        resolution //= 2
    return resolution


def _resolved(first: FieldGrid, least: int) -> Surface:
    """The surface at the first resolution, `least` or more, that is fine enough, as far as memory and the
    bound on work go.
    """
    field, level = first.field, first.level
    grid, found = _first_surface(first)
    grid.check_mesh(found)
    surface, notes = _surface(grid, found), _notes(field, level)
    wanting = _Wanting(max(2 * grid.resolution, least))
    while wanting.resolution > grid.resolution:
        count = _shells(surface, field)
        # A field that needed a lower start is as slow as it seems, and noise has eight times as many cells.
        if _work(grid, found) > _MOST_WORK / (8 if 2 * grid.resolution < least else 4):
            wanted = f"`resolution={wanting.resolution}` makes it finer"
            said = (
                f"warning: extracted at resolution {grid.resolution}: the field is slow to evaluate; {wanted}"
            )
            return replace(surface, notes=(*notes, said))
        finer = _doubled(grid, found)
        if finer is None:
            if not wanting.reason:  # the first resolution
                wrong = _wanting(grid, found, surface, count)
                unknown = wanting._replace(reason="it was not compared with a finer one")
                wanting = wrong if wrong.reason or wrong.note else unknown
            return replace(surface, notes=(*notes, wanting.note or _advice(grid, found, wanting)))
        grid, found = finer
        surface = _surface(grid, found)
        if grid.resolution >= least:
            wanting = _wanting(grid, found, surface, count)
    notes += (wanting.note,) if wanting.note else _volume_notes(field, surface, level)
    return replace(surface, notes=notes)


def _work(grid: FieldGrid, found: Found) -> int:
    """Operations that the search took, about; four times as many at twice the resolution."""
    return grid.field.operations * 8 * max(len(found.searched), len(found.cells))


def _doubled(grid: FieldGrid, found: Found) -> tuple[FieldGrid, Found] | None:
    """A grid of twice the resolution and its surface; None if that is beyond the bounds, or finds none.
    found: at the resolution of `grid`.
    """
    finer = replace(grid, resolution=2 * grid.resolution)
    if finer.resolution > MAX_RESOLUTION or grid.memory(found, finer.resolution) > grid.max_memory:
        return None
    try:
        found = finer.search()
        finer.check_mesh(found)
    except TooLargeError:
        return None
    return (finer, found) if len(found.cells) else None


def _shells(surface: Surface, field: Field) -> int:
    """How many shells there are, without specks and without those that are the field's error."""
    volumes = np.abs(surface.shells.volumes)
    smallest = 4 / 3 * np.pi * (_SPECK * field.error) ** 3
    return int((volumes > max(smallest, SPECK_VOLUME * volumes.sum())).sum())


def _wanting(grid: FieldGrid, found: Found, surface: Surface, before: int) -> _Wanting:
    """What a resolution lacks. before: the number of shells at half of it."""
    error = grid.volume_error(found) / surface.volume
    within = grid.affordable(grid.memory(found))
    if abs(error) > SAME:
        finer = grid.resolution * max(2.0, math.sqrt(abs(error) / SAME))  # it falls with the cell's square
        if error > 1:  # most of the shape is missing: both of its sides are in the cells searched
            sides = len(found.searched) * (2 * grid.spacing) ** 2
            thin = 2 * (1 + error) * surface.volume / sides
            finer = max(2 * grid.resolution, 2 * _CELLS_THICK / thin)
        wanting = _Wanting(_power_of_two(finer), f"the volume is off by {abs(error):.1%}")
        if error * (grid.resolution / within) ** 2 > 1:  # most of it is missing at the finest that fits, too
            return _Wanting(grid.resolution, note=_advice(grid, found, wanting))
        return wanting
    finer, shells = 2 * grid.resolution, _shells(surface, grid.field)
    if abs(shells - before) > SAME * shells:
        return _Wanting(finer, f"there are {shells} separate surfaces, and {before} at half of that")
    thickness = grid.missed(found)
    if not len(thickness):
        return _Wanting(grid.resolution)
    wanted = _power_of_two(2 * _CELLS_THICK / float(np.quantile(thickness, 0.1)))
    missed = f"parts or gaps about {np.median(thickness):.2g} of the radius thick are missing"
    if 2 * _CELLS_THICK / thickness.max() > min(MAX_RESOLUTION, within):
        return _Wanting(grid.resolution, note=_advice(grid, found, _Wanting(wanted, missed)))
    return _Wanting(max(finer, wanted), missed)


def _advice(grid: FieldGrid, found: Found, wanting: _Wanting) -> str:
    """A sentence on what is wrong with the surface found, and which resolution would do."""
    said = f"warning: at resolution {grid.resolution} {wanting.reason}"
    if wanting.resolution > MAX_RESOLUTION:
        return f"{said}; that is too fine for the finest one, {MAX_RESOLUTION}"
    needed = _size(grid.memory(found, wanting.resolution))
    return f"{said}; `resolution={wanting.resolution}` would do, with {needed} of `max_memory=`"


def _size(count: float) -> str:
    """An amount of memory such as 500MB, rounded up."""
    return f"{math.ceil(count / 1e9)}GB" if count > 1e9 else f"{math.ceil(count / 1e6)}MB"


def _power_of_two(number: float) -> int:
    return 1 << math.ceil(math.log2(number))


def surface_normals(field: Field, surface: Surface) -> Vectors:
    """Unit normals (V, 3) of a surface's vertices in mesh space, outwards, from the field that it is of.

    The gradient, averaged over a cell to either side along each axis: a ReLU network is flat between its
    creases, and its bare gradient shows every facet. That serves where a part is thinner than those cells.
    Of an occupancy field they are the mesh's own: its values may be the same on all sides.
    """
    if field.kind == "occupancy":
        return vertex_normals(surface.vertices, surface.faces)
    normals = np.empty_like(surface.vertices)
    radius = surface.cell / field.transform.scale
    for first in range(0, len(normals), _NORMALS_AT_ONCE):
        run = slice(first, first + _NORMALS_AT_ONCE)
        points = field.transform.apply_inverse(surface.vertices[run])
        normals[run] = field.transform.rotate(_mean_gradients(field, points, radius))
    return normals


def _mean_gradients(field: Field, points: Points, radius: float) -> Vectors:
    """Unit gradients (n, 3) at points (n, 3) of model space, averaged over `radius` to either side."""
    gradients = np.empty((len(points), 3))
    for axis, step in enumerate(radius * np.eye(3)):
        ahead, behind = (field.value((points + side * step).astype(np.float32)) for side in (1, -1))
        gradients[:, axis] = ahead.astype(np.float64) - behind
    lengths = np.linalg.norm(gradients, axis=1)
    vague = np.flatnonzero(~(lengths > radius))  # half of what a distance has
    gradients[vague] = field.value_and_gradient(points[vague].astype(np.float32))[1]
    lengths[vague] = np.linalg.norm(gradients[vague], axis=1)
    unit: Points = gradients / np.maximum(lengths, 1e-12)[:, None]
    return unit


def require_surface(field: Field) -> None:
    """Raise `NoSurfaceError` for a field that has no surface inside its ball."""
    model_surface(field, _SURFACE_SEARCH)


def _too_thin(thickness: Values, resolution: int) -> NoSurfaceError:
    return NoSurfaceError(
        f"the shape is too thin or small to extract: about {np.median(thickness):.1g} of its radius, less "
        f"than a cell at resolution {resolution}"
    )


def _no_surface(field: Field, lowest: float, resolution: int) -> NoSurfaceError:
    if field.kind == "occupancy":
        return NoSurfaceError(
            f"the field has no surface: no point of its ball is inside at resolution {resolution}, where its "
            f"smallest value is {lowest:+.2g}"
        )
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
    if field.kind == "occupancy":
        inside = values < 0
        if inside.any():
            notes.append(
                f"the shape reaches its ball: {inside.mean():.2%} of the ball's own surface is inside of it; "
                "the mesh is closed there by the ball"
            )
        return tuple(notes)
    deep = values < -_BALL_TOLERANCE
    if deep.any():
        notes.append(
            f"the field is negative on {deep.mean():.2%} of its ball's own surface, down to "
            f"{values.min():.2g} of its radius; the mesh is closed there by the ball"
        )
    return tuple(notes)
