"""
decimate.py
-----------
An extracted surface with fewer triangles, by quadric edge collapses (Garland and Heckbert 1997), and how far
it is from the field that it was extracted from.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from ..arrays import Points
from ..backends import get_backend
from ..errors import NoSurfaceError, UsageError
from ..geometry.triangles import sample_surface
from .extract import Surface, extract
from .extraction_grid import FACE_BYTES as EXTRACTION_FACE_BYTES
from .extraction_grid import MIN_RESOLUTION
from .field import Field

#: Bytes that it takes for each face of the surface, that included.
FACE_BYTES = 420
#: A tetrahedron.
LEAST_FACES = 4
#: A mesh farther off than this many times the field's own error gets no advice on how many faces would do.
_FAR_OFF = 8
#: Points on a surface at which the field is asked how far it is; cells that an extraction is sure of.
_POINTS, _OWN_CELLS = 50_000, 0.1
#: A surface with less of the volume has collapsed into a sheet.
_FLAT = 0.1
#: Distances that the choice of a hull's points may take: some seconds.
_MOST_WORK = 1 << 29
#: How much faster edges are collapsed in each turn, until the target is met: 7 is what the library has, and a
#: few faces more than asked for can be left that way.
_HASTE = (7, 8, 9, 10)


def reduced_surface(
    field: Field,
    resolution: int | None = None,
    *,
    max_memory: int | None = None,
    faces: int | None = None,
    face_bytes: int = EXTRACTION_FACE_BYTES,
) -> Surface:
    """The surface that `extract` makes of a field, with `faces` triangles or fewer; None for all of them."""
    if faces is not None:
        face_bytes = max(face_bytes, FACE_BYTES)
    surface = extract(field, resolution, max_memory=max_memory, face_bytes=face_bytes)
    return surface if faces is None else decimated(field, surface, faces)


def decimated(field: Field, surface: Surface, faces: int, *, level: float = 0.0) -> Surface:
    """A surface that `extract` made of a field, with `faces` triangles or fewer, in mesh units.

    level: as `extract` had it. A note says so if it is farther from the field than the field's own error and
    than a tenth of a cell, which is as well as extraction knows the surface, or if it lost a part. Raises
    `UsageError` for a number below 4.
    """
    if faces < LEAST_FACES:
        raise UsageError(f"`faces={faces}`: a closed surface has {LEAST_FACES} or more")
    if len(surface.faces) <= faces:
        return surface
    fewer = _with_faces(field, surface, faces, level)
    own = max(field.error * field.transform.scale, _OWN_CELLS * surface.cell)
    if field.kind == "occupancy":  # whose values are no distances
        offset = _distance_between(fewer, surface)
    else:
        offset = surface_offset(field, fewer, level)
    notes = surface.notes
    if offset > own:
        within = 2 * len(fewer.faces) * offset / own  # the error falls with one over the number, or slower
        advice = f"about `faces={_two_digits(within)}` are within it"
        if offset > _FAR_OFF * own:  # the shape has collapsed: its error says nothing of larger numbers
            advice = "ask for more `faces=`"
        notes += (
            f"warning: {len(fewer.faces):,} faces are {offset:.2g} off in the mean, where the field's own is "
            f"{own:.2g}; {advice}",
        )
    if not fewer.watertight or fewer.shells.count != surface.shells.count:
        notes += (
            f"warning: {len(fewer.faces):,} faces are too few for all parts of the shape; "
            "ask for more `faces=`",
        )
    return replace(fewer, notes=notes, reduced=True)


def surface_offset(field: Field, surface: Surface, level: float = 0.0) -> float:
    """How far a surface is from where a field has a level, in the mean: |f - level| at random points of
    it.
    """
    points, _ = sample_surface(surface.vertices, surface.faces, _POINTS, np.random.default_rng(0))
    local = field.transform.apply_inverse(points).astype(np.float32)
    values = field.value(local).astype(np.float64) * field.transform.scale
    return float(np.abs(values - level).mean())


def _distance_between(surface: Surface, original: Surface) -> float:
    """Mean distance of random points of a surface from another one."""
    points, _ = sample_surface(surface.vertices, surface.faces, _POINTS, np.random.default_rng(0))
    return float(get_backend().triangle_tree(original.vertices, original.faces).distance(points).mean())


def _with_faces(field: Field, surface: Surface, faces: int, level: float) -> Surface:
    """A closed surface with so many faces; at worst its convex hull's.

    Collapsing edges can tear a surface with many handles, or stop before the target. Then that of a coarser
    extraction is tried, which has fewer handles.
    """

    def usable(found: Surface) -> bool:
        return found.watertight and len(found.faces) <= faces and found.volume > _FLAT * surface.volume

    found = _collapsed(surface, faces)
    if usable(found):
        return found
    resolution = surface.resolution // 2
    while resolution >= MIN_RESOLUTION:
        try:
            coarse = _collapsed(extract(field, resolution, level=level), faces)
        except NoSurfaceError:
            break
        if usable(coarse):
            return replace(coarse, cell=surface.cell, resolution=surface.resolution)
        resolution //= 2
    return _hull(surface, faces)


def _collapsed(surface: Surface, faces: int) -> Surface:
    """The surface with its edges collapsed until it has so many faces, or no more can be."""
    from fast_simplification.simplify import simplify

    centre, extent = surface.vertices.mean(axis=0), float(np.ptp(surface.vertices, axis=0).max())
    unit, corners = (surface.vertices - centre) / extent, surface.faces  # its thresholds are absolute
    for haste in _HASTE:
        if len(corners) <= faces:
            break
        unit, corners = simplify(unit, corners, target_count=faces, agg=haste)
    used, corners = np.unique(corners, return_inverse=True)
    vertices: Points = unit[used].astype(np.float64) * extent + centre
    return replace(surface, vertices=vertices, faces=corners.reshape(-1, 3).astype(np.int64))


def _hull(surface: Surface, faces: int) -> Surface:
    """The convex hull of some of its vertices, as far apart as they can be, with so many faces or fewer."""
    from scipy.spatial import ConvexHull

    vertices = surface.vertices
    count = (faces + 4) // 2  # a hull of k points has 2 k - 4 faces at most
    vertices = vertices[:: 1 + count * len(vertices) // _MOST_WORK]
    chosen = _apart(vertices, count)
    hull = ConvexHull(vertices[chosen])
    used, corners = np.unique(hull.simplices, return_inverse=True)
    points, corners = vertices[chosen][used], corners.reshape(-1, 3)
    a, b, c = (points[corners[:, i]] for i in range(3))
    inward = np.einsum("ij,ij->i", np.cross(b - a, c - a), hull.equations[:, :3]) < 0
    outward = np.where(inward[:, None], corners[:, ::-1], corners)
    return replace(surface, vertices=points, faces=outward.astype(np.int64))


def _apart(points: Points, count: int) -> list[int]:
    """Indices of `count` of points (n, 3): the corners of a large tetrahedron, then always the farthest."""
    first = int(np.linalg.norm(points - points.mean(axis=0), axis=1).argmax())
    second = int(np.linalg.norm(points - points[first], axis=1).argmax())
    axis = points[second] - points[first]
    third = int(np.linalg.norm(np.cross(points - points[first], axis), axis=1).argmax())
    normal = np.cross(axis, points[third] - points[first])
    chosen = [first, second, third, int(np.abs((points - points[first]) @ normal).argmax())]
    distance = np.min([np.linalg.norm(points - points[i], axis=1) for i in chosen], axis=0)
    while len(chosen) < min(count, len(points)):
        chosen.append(int(distance.argmax()))
        distance = np.minimum(distance, np.linalg.norm(points - points[chosen[-1]], axis=1))
    return chosen


def _two_digits(number: float) -> int:
    return int(float(f"{number:.1e}"))
