"""
decimate.py
-----------
Reduces the number of triangles of an extracted surface by quadric edge collapses (Garland and Heckbert 1997),
and measures the error of the result against the field.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from ..arguments import whole_number
from ..array_types import Points
from ..backends import Backend
from ..errors import NoSurfaceError
from ..geometry.triangles import sample_surface
from .extract import Surface, extract
from .extraction_grid import FACE_BYTES as EXTRACTION_FACE_BYTES
from .extraction_grid import MIN_RESOLUTION
from .field import Field

#: Peak memory in bytes per face of the original surface, including the surface.
FACE_BYTES = 420
#: A tetrahedron, the smallest closed surface.
MIN_FACES = 4
#: Surface points at which the error is measured.
_ERROR_SAMPLES = 50_000
#: Error of an extracted surface, in cells.
_EXTRACTION_ERROR = 0.1
#: Up to this multiple of the field's error, the error predicts how many faces are needed. Beyond it the shape
#: has collapsed.
_MAX_PREDICTABLE = 8
#: A surface with less than this fraction of the original volume has collapsed to a sheet.
_MIN_VOLUME_FRACTION = 0.1
#: Maximum number of distances computed to select the points of a convex hull: a few seconds.
_MAX_HULL_DISTANCES = 1 << 29
#: Aggressiveness of successive simplifications, until the target is met. The library's default, 7, can leave
#: a few faces too many.
_AGGRESSIVENESS = (7, 8, 9, 10)


def reduced_surface(
    field: Field,
    resolution: int | None = None,
    *,
    max_memory: int | None = None,
    faces: int | None = None,
    face_bytes: int = EXTRACTION_FACE_BYTES,
) -> Surface:
    """`extract` the surface of a field and reduce it to at most `faces` triangles; None keeps all."""
    if faces is not None:
        face_bytes = max(face_bytes, FACE_BYTES)
    surface = extract(field, resolution, max_memory=max_memory, face_bytes=face_bytes)
    return surface if faces is None else decimated(field, surface, faces)


def decimated(field: Field, surface: Surface, faces: int, *, level: float = 0.0) -> Surface:
    """Reduce a surface from `extract` to at most `faces` triangles, in mesh units.

    level: the level passed to `extract`. A note is added if the mean error exceeds both the field's error and
    the accuracy of the extraction (a tenth of a cell), or if parts of the shape were lost. Raises
    `UsageError` for fewer than 4 faces.
    """
    whole_number("faces", faces, MIN_FACES)
    if len(surface.faces) <= faces:
        return surface
    reduced = _reduce(field, surface, faces, level)
    tolerance = max(field.error * field.transform.scale, _EXTRACTION_ERROR * surface.cell)
    if field.kind == "occupancy":  # its values are not distances
        error = _mean_distance(reduced, surface, field.backend)
    else:
        error = surface_offset(field, reduced, level)
    notes = surface.notes
    if error > tolerance:
        sufficient = (
            2 * len(reduced.faces) * error / tolerance
        )  # the error falls as 1 / faces, or more slowly
        predictable = error <= _MAX_PREDICTABLE * tolerance
        remedy = f"try `faces={_round_to_two_digits(sufficient)}`" if predictable else "use more `faces=`"
        notes += (
            f"warning: {len(reduced.faces):,} faces are too few: their mean error is {error:.2g}, and the "
            f"field's {tolerance:.2g}; {remedy}",
        )
    if not reduced.watertight or reduced.shells.count != surface.shells.count:
        notes += (
            f"warning: {len(reduced.faces):,} faces are too few for all parts of the shape; "
            "use more `faces=`",
        )
    return replace(reduced, notes=notes, reduced=True)


def surface_offset(field: Field, surface: Surface, level: float = 0.0) -> float:
    """Mean |f - level| at random points of a surface, in mesh units."""
    points, _ = sample_surface(surface.vertices, surface.faces, _ERROR_SAMPLES, np.random.default_rng(0))
    local = field.transform.apply_inverse(points).astype(np.float32)
    values = field.value(local).astype(np.float64) * field.transform.scale
    return float(np.abs(values - level).mean())


def _mean_distance(surface: Surface, original: Surface, backend: Backend) -> float:
    """Mean distance from random points of a surface to the original surface."""
    points, _ = sample_surface(surface.vertices, surface.faces, _ERROR_SAMPLES, np.random.default_rng(0))
    return float(backend.triangle_bvh(original.vertices, original.faces).distance(points).mean())


def _reduce(field: Field, surface: Surface, faces: int, level: float) -> Surface:
    """Reduce a surface to a closed one with at most `faces` triangles; a convex hull as a last resort.

    Edge collapses can tear a surface with many handles, or stop before the target. Coarser extractions, which
    have fewer handles, are then tried.
    """

    def usable(candidate: Surface) -> bool:
        return (
            candidate.watertight
            and len(candidate.faces) <= faces
            and candidate.volume > _MIN_VOLUME_FRACTION * surface.volume
        )

    collapsed = _collapse_edges(surface, faces)
    if usable(collapsed):
        return collapsed
    resolution = surface.resolution // 2
    while resolution >= MIN_RESOLUTION:
        try:
            coarse = _collapse_edges(extract(field, resolution, level=level), faces)
        except NoSurfaceError:
            break
        if usable(coarse):
            return replace(coarse, cell=surface.cell, resolution=surface.resolution)
        resolution //= 2
    return _convex_hull(surface, faces)


def _collapse_edges(surface: Surface, faces: int) -> Surface:
    """Collapse edges until at most `faces` triangles are left, or no edge can be collapsed."""
    from fast_simplification.simplify import simplify

    centre, extent = surface.vertices.mean(axis=0), float(np.ptp(surface.vertices, axis=0).max())
    # Normalised, because the library's thresholds are absolute.
    unit, corners = (surface.vertices - centre) / extent, surface.faces
    for aggressiveness in _AGGRESSIVENESS:
        if len(corners) <= faces:
            break
        unit, corners = simplify(unit, corners, target_count=faces, agg=aggressiveness)
    used, corners = np.unique(corners, return_inverse=True)
    vertices: Points = unit[used].astype(np.float64) * extent + centre
    return replace(surface, vertices=vertices, faces=corners.reshape(-1, 3).astype(np.int64))


def _convex_hull(surface: Surface, faces: int) -> Surface:
    """The convex hull of a well-spaced selection of the vertices, with at most `faces` triangles."""
    from scipy.spatial import ConvexHull

    vertices = surface.vertices
    count = (faces + 4) // 2  # a hull of k points has at most 2 k - 4 faces
    vertices = vertices[:: 1 + count * len(vertices) // _MAX_HULL_DISTANCES]
    chosen = _farthest_points(vertices, count)
    hull = ConvexHull(vertices[chosen])
    used, corners = np.unique(hull.simplices, return_inverse=True)
    points, corners = vertices[chosen][used], corners.reshape(-1, 3)
    a, b, c = (points[corners[:, i]] for i in range(3))
    inward = np.einsum("ij,ij->i", np.cross(b - a, c - a), hull.equations[:, :3]) < 0
    outward = np.where(inward[:, None], corners[:, ::-1], corners)
    return replace(surface, vertices=points, faces=outward.astype(np.int64))


def _farthest_points(points: Points, count: int) -> list[int]:
    """Indices of `count` of points (n, 3): farthest point sampling that starts with a large tetrahedron."""
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


def _round_to_two_digits(number: float) -> int:
    return int(float(f"{number:.1e}"))
