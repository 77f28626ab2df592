"""
load_mesh.py
------------
Loads mesh files: OBJ, STL (binary and text), PLY, OFF, GLB/glTF and 3MF (with scene transforms). The content
determines the format, not the suffix (formats/registry.py).

Files are untrusted: any bytes give a mesh or a `MeshError`, references outside the file's folder are refused,
and decoded data is limited by a budget (files/bounded_input.py).
"""

from __future__ import annotations

import hashlib
import re
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import numpy as np

from ..errors import MeshError
from ..files.bounded_input import Budget, InputFile, read_file
from .formats.gltf import referenced_files
from .formats.registry import READERS, SUFFIXES, detect_format
from .formats.shared.raw_mesh import TRUNCATED, FormatError, RawMesh
from .formats.shared.text_rows import plain_text
from .mesh import Mesh, Source
from .mesh_cleaning import checked_arrays


def load_mesh(path: str | Path, *, budget: Budget | None = None) -> Mesh:
    """Load a mesh file: all bodies in one mesh, polygons as triangles, in the file's units.

    Materials, colours and normals are ignored. Raises `MeshError` for a file that cannot be read, is
    truncated, or contains no valid mesh (see `Mesh.from_arrays`). budget: shared with a larger whole, such as
    a tree, or None.
    """
    path = Path(path)
    file = _read(path, budget)
    format_, raw = _decoded(file)
    notes = raw.notes
    if SUFFIXES.get(path.suffix.lower(), format_) != format_:
        notes = [f"content is {format_} although the name ends in {path.suffix}", *notes]
    source = Source(
        path.name, hashlib.sha256(file.data).hexdigest(), len(raw.faces), len(file.data), raw.unit
    )
    mesh = Mesh.from_arrays(raw.vertices, raw.faces, name=str(path), source=source, notes=notes)
    return replace(mesh, content=_content(file))


def load_raw_mesh(path: str | Path, *, budget: Budget | None = None) -> RawMesh:
    """Load vertices and triangles of a mesh file unchanged: nothing is merged, removed or reordered.

    Vertex indices of a registered sequence of files therefore correspond. Polygons become triangles in their
    order; an STL has three vertices per triangle. Raises `MeshError` for a file that cannot be read, has no
    faces, or has a face with a missing or non-finite vertex.
    """
    raw = _decoded(_read(Path(path), budget))[1]
    checked_arrays(raw.vertices, raw.faces, str(path))
    return raw


def _decoded(file: InputFile) -> tuple[str, RawMesh]:
    """Like `read_raw`, but raises `MeshError`."""
    try:
        return read_raw(file)
    except FormatError as error:
        raise MeshError(file.path, error.reason, error.remedy) from error


def read_raw(file: InputFile) -> tuple[str, RawMesh]:
    """Format and raw mesh of a file; raises `FormatError`."""
    plain = plain_text(file)
    format_ = detect_format(plain.data, file.path.suffix.lower())
    with np.errstate(all="ignore"):  # numbers out of range are reported later, per vertex
        return format_, READERS[format_](plain)


def content_hash(path: str | Path) -> str:
    """SHA-256 (hex) of all bytes that `load_mesh` reads: the file, and files that a glTF refers to.

    Equals `content` of the loaded mesh. Raises `MeshError` if the file cannot be read.
    """
    return _content(_read(Path(path)))


def _content(file: InputFile) -> str:
    digest = hashlib.sha256(file.data)
    with suppress(FormatError):  # reported by the reader
        if detect_format(file.data, file.path.suffix.lower()) in ("GLB", "glTF"):
            # Prefers the content already read: files may change, and the hash must match the mesh.
            for name, content in sorted((file.parts or referenced_files(file)).items()):
                digest.update(repr((name, len(content))).encode() + content)
    return digest.hexdigest()


def _read(path: Path, budget: Budget | None = None) -> InputFile:
    file = read_file(path, MeshError, "a mesh", budget=budget)
    if not _NOT_BLANK.search(file.data):
        raise MeshError(path, "is empty" if not file.data else "contains only whitespace", TRUNCATED)
    return file


_NOT_BLANK = re.compile(rb"[^\0 \t\r\n]")
