"""
mesh.py
-------
A triangle mesh with its source and findings.

Meshes are not repaired. Coincident vertices are merged, and degenerate faces and unused vertices are removed,
since this does not change the surface; all other defects are counted, reported and kept. Self-intersections
are not detected. Tolerances are relative to the extent of the mesh, so its unit and position do not change
the findings.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import PurePath
from typing import Any

import numpy as np
import numpy.typing as npt

from ..array_types import Faces, Index, Points, Values
from ..errors import MeshError, UsageError
from ..geometry.similarity_transform import FARTHEST, MAX_LENGTH, MIN_LENGTH
from ..units import LENGTHS

#: Vertices closer than this fraction of the mesh's extent are merged. Far above the rounding of float64, and
#: below that of float32, in which most files were computed.
MERGE_DISTANCE = 1e-9

#: A face whose height is below this fraction of the extent is degenerate: a straight line up to rounding.
DEGENERATE_HEIGHT = 1e-15

#: Maximum number of copies of a face. Copies do not change the surface, but slow down every query.
MAX_COPIES = 16

#: If 99 % of the vertices lie within this fraction of the extent, a network cannot represent the shape: it is
#: a tenth of the best surface error of the default network.
RESOLUTION = 1e-4


@dataclass(frozen=True)
class Source:
    """Source of a mesh: the file's name (without folder), its SHA-256 in hex, faces and bytes.

    faces: number of triangles in the file, including degenerate ones. unit: unit of length, one of
    `units.LENGTHS`; None if unknown.
    """

    name: str
    sha256: str
    faces: int
    bytes: int
    unit: str | None = None


@dataclass(frozen=True)
class Findings:
    """Properties and defects of a mesh; edges are undirected.

    closed: the faces use every edge equally often in both directions, so the surface has no boundary and its
        winding number is an integer everywhere (it may still intersect itself).
    bodies: number of parts that share no vertex.
    boundary_edges: edges of one face. nonmanifold_edges: edges of three or more faces.
    misoriented_edges: edges whose two faces are oriented inconsistently.
    duplicate_faces: faces on the same three vertices as an earlier one; kept.
    surplus_copies: copies of a face beyond the first 16; removed.
    degenerate_faces: faces without area; removed.
    unused_vertices: vertices that no face uses; removed.
    merged_vertices: vertices merged with an earlier coincident one.
    notes: remarks on the file and its reading, as user-facing phrases.
    """

    closed: bool
    bodies: int
    boundary_edges: int = 0
    nonmanifold_edges: int = 0
    misoriented_edges: int = 0
    duplicate_faces: int = 0
    surplus_copies: int = 0
    degenerate_faces: int = 0
    unused_vertices: int = 0
    merged_vertices: int = 0
    notes: tuple[str, ...] = ()

    def line(self) -> str:
        """Summary in one line, such as `open: 223 boundary edges`; "" for a mesh without defects."""
        phrases = list(self.notes)
        if self.boundary_edges:
            phrases.append(f"open: {self.boundary_edges} boundary edge{'s'[: self.boundary_edges > 1]}")
        elif not self.closed:
            phrases.append("not closed because of inconsistent orientation")
        for count, one, many in (
            (self.nonmanifold_edges, "non-manifold edge", "non-manifold edges"),
            (self.misoriented_edges, "edge of inconsistent orientation", "edges of inconsistent orientation"),
            (self.duplicate_faces, "duplicate face", "duplicate faces"),
            (self.surplus_copies, "surplus copy of a face left out", "surplus copies of faces left out"),
            (self.degenerate_faces, "degenerate face left out", "degenerate faces left out"),
            (self.unused_vertices, "unused vertex left out", "unused vertices left out"),
        ):
            if count:
                phrases.append(f"{count} {one if count == 1 else many}")
        return "; ".join(phrases)


@dataclass(frozen=True, eq=False)
class Mesh:
    """A triangle mesh in the units of its file; created by `from_arrays` or `files.load_mesh`.

    vertices: (V, 3) float64, finite, unique, each used by a face.
    faces: (F, 3) int64, F >= 1, not degenerate; counter-clockwise seen from outside, if the file is correct.
    origin: (V,) int64, index of each vertex in the file (the first of those merged).
    vertices_in_file: number of vertices in the file.
    face_origin: (F,) int64, index of each face among the triangles of the file, increasing.
    faces_in_file: number of triangles in the file.
    content: SHA-256 (hex) of all bytes read (see `files.content_hash`); None for arrays.
    """

    vertices: Points
    faces: Faces
    source: Source
    findings: Findings
    origin: Index
    vertices_in_file: int
    face_origin: Index
    faces_in_file: int
    content: str | None = field(default=None, kw_only=True)

    @classmethod
    def from_arrays(
        cls,
        vertices: npt.ArrayLike,
        faces: npt.ArrayLike,
        *,
        name: str = "mesh",
        source: Source | None = None,
        notes: Sequence[str] = (),
    ) -> Mesh:
        """Create a mesh from vertices (n, 3) in any unit and triangles (m, 3) of vertex indices.

        name: used in errors (the path of a file). source: by default made from the arrays. Raises `MeshError`
        for no faces, an index out of range, a non-finite vertex used by a face, only degenerate faces, or a
        spike that leaves the rest of the shape below the resolution.
        """
        points, triangles = checked_arrays(vertices, faces, name)
        if source is None:
            digest = hashlib.sha256(points.astype("<f8").tobytes() + triangles.astype("<i8").tobytes())
            size = points.nbytes + triangles.nbytes
            source = Source(PurePath(name).name, digest.hexdigest(), len(triangles), size)
        used = np.zeros(len(points), bool)
        used[triangles] = True
        unit = _unit_coordinates(points, used, name)
        representative = _merged(unit, used)
        triangles = representative[triangles]
        distinct = _is_distinct(triangles)
        has_area = distinct & (_heights(unit, triangles) > DEGENERATE_HEIGHT)
        if not has_area.any():
            raise MeshError(name, "all faces are degenerate (zero area)", "give it a surface")
        kept = triangles[has_area]
        is_surplus = _surplus_copies(kept, len(points))
        kept = kept[~is_surplus]
        findings = _findings(
            unit,
            kept,
            surplus_copies=int(is_surplus.sum()),
            flat=triangles[distinct & ~has_area],
            degenerate_faces=int((~has_area).sum()),
            unused_vertices=int((~used).sum()),
            merged_vertices=int((representative[used] != np.flatnonzero(used)).sum()),
            notes=tuple(notes),
        )
        origin, flat_faces = np.unique(kept, return_inverse=True)
        face_origin = np.flatnonzero(has_area)[~is_surplus]
        return cls(
            points[origin],
            flat_faces.reshape(-1, 3),
            source,
            findings,
            origin,
            len(points),
            face_origin,
            len(triangles),
        )

    def stating(self, unit: str | None) -> Mesh:
        """The same mesh with its unit of length set (`units.LENGTHS`); unchanged for None.

        Raises `UsageError` for an unknown unit, `MeshError` if the mesh has another unit.
        """
        if unit in (None, self.source.unit):
            return self
        if unit not in LENGTHS:
            raise UsageError(f"unknown unit {unit!r}; one of {', '.join(LENGTHS)}")
        if self.source.unit is not None:
            raise MeshError(
                self.source.name,
                f"its unit is {self.source.unit!r}, not {unit!r}",
                "leave out `units=`; lengths can be converted when the model is used",
            )
        return replace(self, source=replace(self.source, unit=unit))

    def per_vertex(self, values: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Convert values (n, ...) of the vertices in the file to values (V, ...) of `vertices`.

        Raises `UsageError` unless there is one value per vertex of the file.
        """
        if len(values) != self.vertices_in_file:
            raise UsageError(
                f"{self.source.name} has {self.vertices_in_file} vertices, but there are {len(values)} values"
            )
        return values[self.origin]

    def per_face(self, values: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Convert values (m, ...) of the triangles in the file to values (F, ...) of `faces`.

        Raises `UsageError` unless there is one value per triangle of the file.
        """
        if len(values) != self.faces_in_file:
            raise UsageError(
                f"{self.source.name} has {self.faces_in_file} triangles, but there are {len(values)} values"
            )
        return values[self.face_origin]


def checked_arrays(vertices: npt.ArrayLike, faces: npt.ArrayLike, name: str) -> tuple[Points, Faces]:
    """Validate a mesh: vertices (n, 3) float64, finite where used; triangles (m, 3) int64, in range, m > 0.

    Unused vertices are not checked. Raises `MeshError`, with `name`, for invalid values and `UsageError` for
    invalid shapes.
    """
    points, triangles = np.asarray(vertices, np.float64), np.asarray(faces, np.int64)
    if triangles.size == 0:
        raise MeshError(name, "has no faces", "give a mesh with triangles")
    if points.ndim != 2 or points.shape[1] != 3 or triangles.ndim != 2 or triangles.shape[1] != 3:
        raise UsageError(
            f"{name}: arrays of shape {points.shape} and {triangles.shape}; "
            "expected vertices (n, 3) and faces (m, 3)"
        )
    outside = (triangles < 0) | (triangles >= len(points))
    if outside.any():
        face, corner = np.argwhere(outside)[0]
        raise MeshError(
            name,
            f"face {face}: vertex index {triangles[face, corner]} out of range ({len(points)} vertices, "
            "counted from 0)",
            "export it again from the program that made it",
        )
    is_finite = np.asarray(np.isfinite(points).all(axis=1))
    broken = np.unique(triangles[~is_finite[triangles]])
    if broken.size:
        x, y, z = points[broken[0]]
        raise MeshError(
            name,
            f"vertex {broken[0]} has non-finite coordinates ({x:g}, {y:g}, {z:g}) and is used by faces"
            + (f"; so are {broken.size - 1} more" if broken.size > 1 else ""),
            "delete such vertices and fill the holes",
        )
    return points, triangles


def _unit_coordinates(points: Points, used: npt.NDArray[np.bool_], name: str) -> Points:
    """Points (n, 3) relative to the used ones' centre and extent; raises for a spike."""
    low, high = points[used].min(axis=0), points[used].max(axis=0)
    with np.errstate(over="ignore", invalid="ignore"):
        extent = float((high - low).max())
        if not extent < MAX_LENGTH:
            raise MeshError(name, f"is {extent:.3g} across, too large to compute with", "scale the mesh down")
        if 0 < extent < 4 * MIN_LENGTH:
            raise MeshError(name, f"is {extent:.3g} across, too small to compute with", "scale the mesh up")
        farthest = max(np.abs(low).max(), np.abs(high).max())
        if extent > 0 and not farthest < min(FARTHEST * extent / 2, MAX_LENGTH):
            raise MeshError(
                name,
                f"is {extent:.3g} across and {farthest:.3g} from the origin: its coordinates are rounded",
                "move the mesh to the origin before exporting it",
            )
        unit: Points = (points - (low + (high - low) / 2)) / (extent if extent > 0 else 1.0)
    _refuse_spike(points, unit, used, name)
    return unit


def _refuse_spike(points: Points, unit: Points, used: npt.NDArray[np.bool_], name: str) -> None:
    """Raise if a few outlying vertices leave the rest of the shape below the resolution of any network.

    Distances are measured from the median vertex, which 1 % of the vertices cannot move. A long thin shape is
    accepted, because its length does not depend on 1 % of its vertices.
    """
    indices = np.flatnonzero(used)
    shape = unit[indices]
    distances = np.abs(shape - np.median(shape, axis=0)).max(axis=1)
    far = max(1, len(indices) // 100)
    order = np.argpartition(distances, len(indices) - far)
    rest = shape[order[: len(indices) - far]]
    if len(rest) < 4 or not 0 < (size := float(np.ptp(rest, axis=0).max())) < RESOLUTION:
        return
    worst = indices[int(distances.argmax())]
    x, y, z = points[worst]
    raise MeshError(
        name,
        f"vertex {worst} at ({x:g}, {y:g}, {z:g}) is so far away that the rest of the shape is {size:.1g} "
        "of the extent, below the resolution of a network",
        "delete that vertex, or convert the parts separately",
    )


def _merged(unit: Points, used: npt.NDArray[np.bool_]) -> Index:
    """For each vertex (n,) the first coincident one, within `MERGE_DISTANCE`."""
    indices = np.flatnonzero(used)
    cells = np.rint(unit[indices] / MERGE_DISTANCE).astype(np.int64)
    # Coordinates lie within half an extent of zero: 31 bits each, so two fit in one key.
    first, inverse = _first_of_equal(cells[:, 0] << 32 | (cells[:, 1] + (1 << 31)), cells[:, 2])
    representative = np.arange(len(unit))
    representative[indices] = indices[first[inverse]]
    return representative


def _first_of_equal(major: Index, minor: Index) -> tuple[Index, Index]:
    """Index of the first of each group of equal pairs, and the group (n,) of each pair."""
    order = np.lexsort((minor, major))  # stable: keeps the order within a group
    new = np.ones(len(order), bool)
    new[1:] = (np.diff(major[order]) != 0) | (np.diff(minor[order]) != 0)
    inverse = np.empty(len(order), np.int64)
    inverse[order] = np.cumsum(new) - 1
    return order[new], inverse


def _is_distinct(faces: Faces) -> npt.NDArray[np.bool_]:
    a, b, c = faces.T
    distinct: npt.NDArray[np.bool_] = (a != b) & (b != c) & (c != a)
    return distinct


def _heights(vertices: Points, faces: Faces) -> Values:
    """Smallest height (F,) of each triangle: twice its area over its longest edge; 0 for a point."""
    a, b, c = (vertices[faces[:, corner]] for corner in range(3))
    longest = np.linalg.norm([b - a, c - b, a - c], axis=2).max(axis=0)
    double_area = np.linalg.norm(np.cross(b - a, c - a), axis=1)
    heights: Values = double_area / np.where(longest > 0, longest, 1)
    return heights


def _surplus_copies(faces: Faces, vertex_count: int) -> npt.NDArray[np.bool_]:
    """Which faces (F,) have `MAX_COPIES` earlier copies on the same vertices in the same orientation."""
    first_corner = faces.argmin(axis=1)[:, None]
    a, b, c = np.take_along_axis(faces, (first_corner + np.arange(3)) % 3, axis=1).T
    _, group = _first_of_equal(a * vertex_count + b, c)
    order = np.argsort(group, kind="stable")
    start = np.searchsorted(group[order], group[order])
    surplus = np.zeros(len(faces), bool)
    surplus[order] = np.arange(len(faces)) - start >= MAX_COPIES
    return surplus


def _findings(unit: Points, faces: Faces, flat: Index, **counts: Any) -> Findings:
    """Findings of the kept faces; flat: degenerate faces with three distinct corners."""
    edges = _edge_findings(faces, len(unit))
    if len(flat) and not edges["closed"]:
        # A flat face that fills the slit of a T-junction closes the mesh; one on top of a face opens it.
        # Neither changes the winding number, so the better of the two results is the right one.
        with_flat = _edge_findings(np.vstack([faces, flat]), len(unit))
        edges = min(edges, with_flat, key=lambda found: (not found["closed"], found["boundary_edges"]))
    a, b, c = np.sort(faces, axis=1).T
    distinct_faces, _ = _first_of_equal(a * len(unit) + b, c)
    return Findings(
        bodies=_bodies(faces, len(unit)),
        duplicate_faces=len(faces) - len(distinct_faces),
        **edges,
        **counts,
    )


def _edge_findings(faces: Faces, vertex_count: int) -> dict[str, Any]:
    tail = faces.ravel()
    head = np.roll(faces, -1, axis=1).ravel()
    keys = np.minimum(tail, head) * vertex_count + np.maximum(tail, head)
    order = np.argsort(keys, kind="stable")
    starts = np.flatnonzero(np.diff(keys[order], prepend=-1))
    uses = np.diff(starts, append=len(keys))
    balance = np.add.reduceat(np.where(tail < head, 1, -1)[order], starts)
    return {
        "closed": not balance.any(),
        "boundary_edges": int((uses == 1).sum()),
        "nonmanifold_edges": int((uses > 2).sum()),
        "misoriented_edges": int(((uses == 2) & (balance != 0)).sum()),
    }


def _bodies(faces: Faces, vertex_count: int) -> int:
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    rows, columns = faces[:, [0, 1]].ravel(), faces[:, [1, 2]].ravel()
    links = coo_array((np.ones(len(rows), np.int8), (rows, columns)), shape=(vertex_count, vertex_count))
    _, labels = connected_components(links, directed=False)
    return len(np.unique(labels[faces[:, 0]]))
