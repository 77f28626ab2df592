"""
mesh.py
-------
A triangle mesh with its source and findings.

Meshes are not repaired. Coincident vertices are merged, and degenerate faces and unused vertices are removed,
since this does not change the surface (mesh_cleaning.py). All other defects are counted, reported and kept
(mesh_findings.py).
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import PurePath
from typing import Any

import numpy as np
import numpy.typing as npt

from ..array_types import Faces, Index, Points
from ..errors import MeshError, UsageError
from ..units import LENGTHS
from .mesh_cleaning import (
    DEGENERATE_HEIGHT,
    checked_arrays,
    is_distinct,
    merged_vertices,
    surplus_copies,
    triangle_heights,
    unit_coordinates,
)
from .mesh_findings import Findings, count_findings


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


@dataclass(frozen=True, eq=False)
class Mesh:
    """A triangle mesh in the units of its file; created by `from_arrays` or `load_mesh.load_mesh`.

    vertices: (V, 3) float64, finite, unique, each used by a face.
    faces: (F, 3) int64, F >= 1, not degenerate; counter-clockwise seen from outside, if the file is correct.
    origin: (V,) int64, index of each vertex in the file (the first of those merged).
    vertices_in_file: number of vertices in the file.
    face_origin: (F,) int64, index of each face among the triangles of the file, increasing.
    faces_in_file: number of triangles in the file.
    content: SHA-256 (hex) of all bytes read (see `load_mesh.content_hash`); None for arrays.
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
        unit = unit_coordinates(points, used, name)
        representative = merged_vertices(unit, used)
        triangles = representative[triangles]
        distinct = is_distinct(triangles)
        has_area = distinct & (triangle_heights(unit, triangles) > DEGENERATE_HEIGHT)
        if not has_area.any():
            raise MeshError(name, "all faces are degenerate (zero area)", "check how it was created")
        kept = triangles[has_area]
        is_surplus = surplus_copies(kept, len(points))
        kept = kept[~is_surplus]
        findings = count_findings(
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


def as_mesh(mesh: Any, faces: npt.ArrayLike | None = None) -> Mesh:
    """A mesh of another library, or arrays, as a `Mesh`.

    mesh: a `Mesh`, a `trimesh.Trimesh` or scene, (vertices, faces), or vertices (n, 3) with `faces` (m, 3).
    Raises `UsageError` for other types, and as `Mesh.from_arrays` does.
    """
    if faces is not None:
        return Mesh.from_arrays(mesh, faces)
    if isinstance(mesh, Mesh):
        return mesh
    if hasattr(mesh, "geometry") and hasattr(mesh, "to_mesh"):  # a trimesh.Scene
        mesh = mesh.to_mesh()
    if hasattr(mesh, "vertices") and hasattr(mesh, "faces"):
        name = getattr(mesh, "metadata", {}).get("file_name") or "mesh"
        return Mesh.from_arrays(mesh.vertices, mesh.faces, name=str(name))
    if isinstance(mesh, tuple | list) and len(mesh) == 2:
        return Mesh.from_arrays(*mesh)
    raise UsageError(
        f"{type(mesh).__name__} is not a mesh: give a trimesh.Trimesh, (vertices, faces), a path or a field"
    )
