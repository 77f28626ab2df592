"""
part_labels.py
--------------
Reads the part labels of a mesh: the property `label` of the vertices and of the faces of a PLY.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from ..array_types import Index
from ..errors import MeshError
from ..files.bounded_input import read_file
from .formats.ply import PLY_START, read_ply_labels
from .formats.shared.raw_mesh import FormatError


class Labels(NamedTuple):
    """Labels (V,) int64 of the vertices and (F,) int64 of the triangles of a file; None if it has none.

    In the order of the file, as in `load_raw_mesh`; `Mesh.per_vertex` and `Mesh.per_face` select those
    of a loaded mesh.
    """

    vertices: Index | None
    faces: Index | None


def load_labels(path: str | Path) -> Labels:
    """Load the labels of a PLY. Raises `MeshError` for another file, and for labels that are not valid."""
    file = read_file(path, MeshError, "a mesh")
    if not PLY_START.match(file.data):
        raise MeshError(path, "is not a PLY, the only format with labels", "save the mesh as PLY")
    try:
        return Labels(*read_ply_labels(file))
    except FormatError as error:
        raise MeshError(path, error.reason, error.remedy) from error
