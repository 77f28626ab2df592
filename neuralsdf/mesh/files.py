"""
files.py
--------
Reads and writes mesh files. The content determines the format, not the suffix.

Reads OBJ, STL (binary and text), PLY, OFF, GLB/glTF and 3MF (with scene transforms). Writes PLY, OBJ, STL
(binary), GLB and OFF. Files are untrusted: any bytes give a mesh or a `MeshError`, references outside the
file's folder are refused, and decoded data is limited by a budget (files/input_file.py).
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from ..array_types import Faces, Points
from ..errors import MeshError, OutputError, UsageError
from ..files.atomic_write import check_writable, whole_file
from ..files.input_file import Budget, InputFile, read_file
from .formats.gltf import read_gltf, referenced_files
from .formats.obj import read_obj
from .formats.off import OFF_HEADER, read_off
from .formats.ply import PLY_START, read_ply
from .formats.raw_mesh import TRUNCATED, FormatError, RawMesh
from .formats.stl import is_binary_stl, read_stl, starts_as_text_stl
from .formats.text_rows import content_start, plain_text
from .formats.threemf import read_3mf
from .mesh import Mesh, Source, checked_arrays

#: Format of each mesh file suffix; if the content differs, it decides.
SUFFIXES = {
    ".obj": "OBJ",
    ".stl": "STL",
    ".ply": "PLY",
    ".off": "OFF",
    ".glb": "GLB",
    ".gltf": "glTF",
    ".3mf": "3MF",
}
_SAVE_AS = "save it as OBJ, STL, PLY, OFF, GLB, glTF or 3MF"


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
    format_ = _sniff(plain.data, file.path.suffix.lower())
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
        if _sniff(file.data, file.path.suffix.lower()) in ("GLB", "glTF"):
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

#: A vertex or face of an OBJ. The pattern is unambiguous, so a search takes linear time.
_OBJ = re.compile(rb"(?:^|[\r\n])[ \t]*[vf][ \t]+[-+.\d]")

_PACKED = {
    b"\x1f\x8b": "gzip",
    b"BZh": "bzip2",
    b"\xfd7zXZ": "xz",
    b"7z\xbc\xaf": "7z",
    b"\x28\xb5\x2f\xfd": "zstd",
}


def _sniff(data: bytes, suffix: str) -> str:
    """Format of a file by content; the suffix breaks ties. Raises `FormatError` if unknown."""
    start = content_start(data)
    head = data[start : start + 64]
    lower = head.lower()
    for magic, packer in _PACKED.items():
        if data.startswith(magic):
            raise FormatError(f"is compressed with {packer}", "unpack it first")
    if data[:4] == b"glTF":
        return "GLB"
    if data[:4] == b"PK\x03\x04":
        return "3MF"
    if PLY_START.match(head):
        return "PLY"
    if is_binary_stl(data):
        return "STL"
    if OFF_HEADER.match(head):
        return "OFF"
    if b"\0" in data:
        if suffix == ".stl" or starts_as_text_stl(data):
            return "STL"  # its reader reports the error
        if suffix == ".obj" and re.search(rb"^v[ \t]", data, re.MULTILINE):
            raise FormatError("is a damaged OBJ with null bytes in it", TRUNCATED)
        raise FormatError("is binary data of an unknown format", _SAVE_AS)
    if starts_as_text_stl(data):
        return "STL"
    if suffix == ".off" and head[:1].isdigit():
        return "OFF"  # without its header keyword
    if head[:1] == b"{":
        return "glTF"
    if lower.startswith((b"<!doctype html", b"<html")):
        raise FormatError("is a web page (HTML), not a mesh", "download the file itself")
    if suffix == ".obj" or _OBJ.search(data):
        return "OBJ"
    raise FormatError("is text of an unknown format", _SAVE_AS)


#: Reader of each format; all draw decoded data from the file's budget.
READERS: dict[str, Callable[[InputFile], RawMesh]] = {
    "OBJ": read_obj,
    "OFF": read_off,
    "PLY": read_ply,
    "STL": read_stl,
    "GLB": read_gltf,
    "glTF": read_gltf,
    "3MF": read_3mf,
}


def check_mesh_output(path: str | Path, *, force: bool = False, attributes: bool = False) -> None:
    """Raise, before any work, the errors that `save_mesh` would raise for this path.

    attributes: whether the mesh will have normals or colours.
    """
    suffix = Path(path).suffix.lower()
    if suffix not in _WRITERS:
        known = ", ".join(sorted(_WRITERS))
        raise UsageError(f"{path}: unknown suffix {suffix or '(none)'}; one of {known}")
    if attributes and suffix not in WITH_ATTRIBUTES:
        raise UsageError(f"{path}: {suffix} holds no normals or colours; use {', '.join(WITH_ATTRIBUTES)}")
    check_writable(path, force=force)


def save_mesh(
    path: str | Path,
    vertices: npt.ArrayLike,
    faces: npt.ArrayLike,
    *,
    normals: npt.ArrayLike | None = None,
    colours: npt.ArrayLike | None = None,
    force: bool = False,
) -> None:
    """Write vertices (V, 3) and faces (F, 3) atomically; the suffix selects the format.

    Formats: .ply (binary), .obj, .off, .stl (binary) and .glb. For a mesh far from the origin, PLY uses
    64-bit coordinates and GLB a translation, so that rounding is negligible; STL supports neither and is
    refused.

    normals: (V, 3), unit vertex normals. colours: (V, 3) uint8, sRGB vertex colours. PLY, OBJ (colours after
    the coordinates, as most programs expect) and GLB hold both, the other formats neither.

    Raises `UsageError` for an unknown suffix, invalid array shapes, and normals or colours in a format
    without them; `OutputError` if the file exists and `force` is false, or cannot be written.
    """
    check_mesh_output(path, force=force, attributes=not (normals is None and colours is None))
    path = Path(path)
    mesh = _Written(
        np.asarray(vertices, np.float64),
        np.asarray(faces, np.int64),
        None if normals is None else np.asarray(normals, np.float32),
        None if colours is None else np.asarray(colours, np.uint8),
    )
    for name, values in (("normals", mesh.normals), ("colours", mesh.colours)):
        if values is not None and values.shape != mesh.points.shape:
            raise UsageError(f"{name} of shape {values.shape} for vertices of shape {mesh.points.shape}")
    try:
        with whole_file(path, force=force) as temporary, temporary.open("wb") as file:
            file.writelines(_WRITERS[path.suffix.lower()](mesh))
    except FormatError as error:
        raise OutputError(path, error.reason, error.remedy) from error


class _Written(NamedTuple):
    """A mesh to write: the arguments of `save_mesh` as arrays."""

    points: Points
    faces: Faces
    normals: npt.NDArray[np.float32] | None
    colours: npt.NDArray[np.uint8] | None


#: Memory for writing formats that are written in one piece, in bytes per face, vertices included.
WRITING_BYTES = {".glb": 180}
#: Rows written together; limits the additional memory.
_AT_ONCE = 1 << 17

#: Rounding errors of 32-bit coordinates, relative to the extent, above which 64 bits are used, or the format
#: is refused.
_EXACT, _TOLERABLE = 1e-6, 1e-4


def _runs(rows: npt.NDArray[Any]) -> Iterator[slice]:
    """Slices of at most `_AT_ONCE` rows that cover all rows (n, ...)."""
    return (slice(first, first + _AT_ONCE) for first in range(0, len(rows), _AT_ONCE))


def _rounding(points: Points) -> float:
    """Maximum rounding error of points (n, 3) in float32, relative to their extent."""
    if not len(points):
        return 0.0
    with np.errstate(over="ignore", under="ignore", invalid="ignore"):
        extent = float(np.ptp(points, axis=0).max())
        errors = (np.abs(points[run].astype(np.float32) - points[run]).max() for run in _runs(points))
        error = float(np.max(list(errors)))
    return error / extent if extent > 0 else 0.0


def _ply(mesh: _Written) -> Iterator[bytes]:
    faces = mesh.faces
    name, code = ("float", "<f4") if _rounding(mesh.points) <= _EXACT else ("double", "<f8")
    properties: list[tuple[npt.NDArray[Any], str, str, tuple[str, str, str]]]
    properties = [(mesh.points, name, code, ("x", "y", "z"))]
    if mesh.normals is not None:
        properties.append((mesh.normals, "float", "<f4", ("nx", "ny", "nz")))
    if mesh.colours is not None:
        properties.append((mesh.colours, "uchar", "u1", ("red", "green", "blue")))
    header = (
        f"ply\nformat binary_little_endian 1.0\nelement vertex {len(mesh.points)}\n"
        + "".join(f"property {name} {axis}\n" for _, name, _, axes in properties for axis in axes)
        + f"element face {len(faces)}\nproperty list uchar int vertex_indices\nend_header\n"
    )
    yield header.encode()
    for run in _runs(mesh.points):
        vertices = np.empty(len(mesh.points[run]), [(axes[0], code, 3) for _, _, code, axes in properties])
        for values, _, _, axes in properties:
            vertices[axes[0]] = values[run]
        yield vertices.tobytes()
    for run in _runs(faces):
        rows = np.empty(len(faces[run]), [("count", "u1"), ("corners", "<i4", 3)])
        rows["count"], rows["corners"] = 3, faces[run]
        yield rows.tobytes()


def _stl(mesh: _Written) -> Iterator[bytes]:
    points, faces = mesh.points, mesh.faces
    _refuse_coarse(points, "STL")
    yield b"neuralsdf".ljust(80) + len(faces).to_bytes(4, "little")
    for run in _runs(faces):
        corners = points[faces[run]]
        rows = np.zeros(
            len(corners), [("normal", "<f4", 3), ("corners", "<f4", (3, 3)), ("attribute", "<u2")]
        )
        with np.errstate(over="ignore", under="ignore", invalid="ignore"):
            normals = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
            lengths = np.linalg.norm(normals, axis=1, keepdims=True)
            rows["normal"] = np.where(lengths > 0, normals / np.where(lengths > 0, lengths, 1), 0)
        rows["corners"] = corners
        yield rows.tobytes()


def _obj(mesh: _Written) -> Iterator[bytes]:
    vertices = "v " + _coordinates(mesh.points)
    if mesh.colours is None:
        yield from _text_lines(vertices, mesh.points)
    else:
        for run in _runs(mesh.points):
            rows = zip(mesh.points[run].tolist(), (mesh.colours[run] / 255).tolist(), strict=True)
            pattern = vertices + " {:.4g} {:.4g} {:.4g}\n"
            yield "".join(pattern.format(*point, *colour) for point, colour in rows).encode()
    if mesh.normals is not None:
        yield from _text_lines("vn {:.5g} {:.5g} {:.5g}", mesh.normals)
    face = "f {} {} {}" if mesh.normals is None else "f {0}//{0} {1}//{1} {2}//{2}"
    yield from _text_lines(face, mesh.faces, first=1)


def _off(mesh: _Written) -> Iterator[bytes]:
    points, faces = mesh.points, mesh.faces
    yield f"OFF\n{len(points)} {len(faces)} 0\n".encode()
    yield from _text_lines(_coordinates(points), points)
    yield from _text_lines("3 {} {} {}", faces)


def _coordinates(points: Points) -> str:
    """Format string for one of points (n, 3), with as many digits as they need."""
    digits = "{:.9g}" if _rounding(points) <= _EXACT else "{:.17g}"
    return " ".join([digits] * 3)


def _text_lines(pattern: str, rows: npt.NDArray[Any], first: int = 0) -> Iterator[bytes]:
    """Rows (n, 3), with `first` added, as lines of text."""
    for run in _runs(rows):
        yield "".join(f"{pattern}\n".format(*row) for row in (rows[run] + first).tolist()).encode()


def _glb(mesh: _Written) -> Iterator[bytes]:
    import trimesh

    points = mesh.points
    offset = np.zeros(3)
    if _rounding(points) > _EXACT:
        offset = points.min(axis=0) + np.ptp(points, axis=0) / 2
    _refuse_coarse(points - offset, "GLB")
    matrix = np.eye(4)
    matrix[:3, 3] = offset
    scene = trimesh.Scene()
    triangles = trimesh.Trimesh(
        points - offset,
        mesh.faces,
        vertex_normals=mesh.normals,
        vertex_colors=mesh.colours,
        process=False,
    )
    scene.add_geometry(triangles, "mesh", "mesh", transform=matrix)
    exporter: Any = trimesh.exchange.gltf
    yield bytes(exporter.export_glb(scene, include_normals=mesh.normals is not None))


def _refuse_coarse(points: Points, format_: str) -> None:
    if not _rounding(points) <= _TOLERABLE:
        raise FormatError(
            f"{format_} has 32-bit coordinates, too coarse for a mesh this small and far from the origin",
            "write PLY, OBJ or OFF",
        )


#: Formats that hold normals and colours.
WITH_ATTRIBUTES = (".ply", ".obj", ".glb")

_WRITERS: dict[str, Callable[[_Written], Iterator[bytes]]] = {
    ".ply": _ply,
    ".obj": _obj,
    ".stl": _stl,
    ".glb": _glb,
    ".off": _off,
}
