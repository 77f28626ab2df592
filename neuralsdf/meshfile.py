"""
meshfile.py
-----------
Mesh files, in and out. Content beats extension: what a file is, its first bytes say.

Read: OBJ, STL (binary and text), PLY, OFF, GLB/glTF and 3MF (with the transforms of their scenes).
Written: PLY, OBJ, STL (binary), GLB and OFF. Every file may come from a stranger: whatever its bytes,
the outcome is a mesh or a `MeshError`; a file refers to nothing outside its own folder, and does not
unpack to more than `MAX_UNPACKED` bytes, `MAX_INSTANCES` parts or `MAX_FACES` triangles.
"""

from __future__ import annotations

import codecs
import hashlib
import json
import re
import zipfile
import zlib
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from io import BytesIO
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import numpy as np
import numpy.typing as npt

from .errors import MeshError, OutputError, UsageError
from .input import opened
from .mesh import IntArray, Mesh, Source
from .meshformats import (
    TRUNCATED,
    FormatError,
    RawMesh,
    is_binary_stl,
    read_obj,
    read_off,
    read_ply,
    read_stl,
)
from .output import check_writable, whole_file
from .similarity import Points

MAX_BYTES = 1 << 32
MAX_UNPACKED = 1 << 30
MAX_FACES = 50_000_000
MAX_INSTANCES = 100_000

#: What the names of mesh files end in, and the format that means; a file is what its content says.
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


def load_mesh(path: str | Path) -> Mesh:
    """The mesh in a file: all its bodies in one, polygons as triangles, in the file's own units.

    Materials, colours and normals are passed by. Raises `MeshError` for a file that cannot be read, is
    truncated, or holds no mesh that can be converted (see `Mesh.from_arrays`).
    """
    path = Path(path)
    data = _read_bytes(path)
    try:
        format_ = _sniff(data, path.suffix.lower())
        with np.errstate(all="ignore"):  # numbers out of range are found later, by vertex
            raw = _READERS[format_](data, path)
    except FormatError as error:
        raise MeshError(path, error.reason, error.remedy) from error
    notes = raw.notes
    if SUFFIXES.get(path.suffix.lower(), format_) != format_:
        notes = [f"content is {format_} although the name ends in {path.suffix}", *notes]
    source = Source(path.name, hashlib.sha256(data).hexdigest(), len(raw.faces), len(data))
    return Mesh.from_arrays(raw.vertices, raw.faces, name=str(path), source=source, notes=notes)


def content_hash(path: str | Path) -> str:
    """SHA-256 (hex) of all the bytes that `load_mesh` would read: the file's, and those a glTF refers to.

    Raises `MeshError` for what cannot be read.
    """
    path = Path(path)
    data = _read_bytes(path)
    digest = hashlib.sha256(data)
    with suppress(FormatError):  # the reader says what is wrong
        if _sniff(data, path.suffix.lower()) in ("GLB", "glTF"):
            for name, content in sorted(_checked_gltf(_gltf_json(data), path.parent).items()):
                digest.update(repr((name, len(content))).encode() + content)
    return digest.hexdigest()


def _read_bytes(path: Path) -> bytes:
    with opened(path, MeshError, "a mesh", MAX_BYTES) as stream:
        data = stream.read()
    if not data.strip(b"\0 \t\r\n"):
        raise MeshError(path, "is empty" if not data else "holds nothing but blanks", TRUNCATED)
    return data


def _sniff(data: bytes, suffix: str) -> str:
    """The format of a file, by its content; the suffix breaks ties. Raises `FormatError` if it is none."""
    head = data[:4096].removeprefix(b"\xef\xbb\xbf").lstrip()
    if data[:4] == b"glTF":
        return "GLB"
    if data[:4] == b"PK\x03\x04":
        return "3MF"
    if re.match(rb"ply[ \t]*[\r\n]", head):
        return "PLY"
    if is_binary_stl(data):
        return "STL"
    if b"\0" in data:
        if suffix == ".stl" or head[:5].lower() == b"solid":
            return "STL"  # whose reader says what is wrong with it
        if suffix == ".obj" and re.search(rb"^v[ \t]", data, re.MULTILINE):
            raise FormatError("is OBJ with null bytes in it: it is damaged", TRUNCATED)
        raise FormatError("is binary data of no mesh format known here", _SAVE_AS)
    if re.match(rb"(?:\s*#[^\r\n]*)*\s*(?:ST)?C?N?4?n?OFF", head):
        return "OFF"
    if head[:5].lower() == b"solid":
        return "STL"
    if head[:1] == b"{":
        return "glTF"
    if re.match(rb"<(?:!doctype html|html)", head, re.IGNORECASE):
        raise FormatError("is a web page (HTML), not a mesh", "download the file itself")
    if suffix == ".obj" or re.search(rb"^[ \t]*(?:v|f)[ \t]+[-+.\d]", data, re.MULTILINE):
        return "OBJ"
    raise FormatError("is text of no mesh format known here", _SAVE_AS)


def _read_glb(data: bytes, path: Path) -> RawMesh:
    size = int.from_bytes(data[8:12], "little")
    if len(data) < max(20, size):
        raise FormatError(f"is truncated: its header says {size} bytes, but it has {len(data)}", TRUNCATED)
    return _read_scene(data, "glb", _checked_gltf(_gltf_json(data), path.parent))


def _read_gltf(data: bytes, path: Path) -> RawMesh:
    return _read_scene(data, "gltf", _checked_gltf(data, path.parent))


def _gltf_json(data: bytes) -> bytes:
    """The text of a glTF, whichever form it has."""
    return data[20 : 20 + int.from_bytes(data[12:16], "little")] if data[:4] == b"glTF" else data


def _checked_gltf(text: bytes, folder: Path) -> dict[str, bytes]:
    """The files a glTF refers to; raises for what its reader would get wrong without a word."""
    try:
        tree = json.loads(text)
        accessors, buffers = tree.get("accessors", []), tree.get("buffers", [])
        primitives = [primitive for mesh in tree.get("meshes", []) for primitive in mesh["primitives"]]
        indices = {p[key] for p in primitives for key in ["indices"] if key in p}
        read = [accessors[index] for index in indices | {p["attributes"]["POSITION"] for p in primitives}]
        unpacked = sum(16 * int(a["count"]) for a in accessors if "bufferView" not in a)
        modes = {primitive.get("mode", 4) for primitive in primitives}
        extended = [*primitives, *tree.get("bufferViews", [])]
        extensions = {name for item in extended for name in item.get("extensions", {})}
        names = {buffer["uri"] for buffer in buffers if not buffer.get("uri", "data:").startswith("data:")}
    except (ValueError, LookupError, TypeError, AttributeError, OverflowError, RecursionError) as error:
        raise FormatError(f"is no valid glTF ({_said(error)})") from error
    for reason, is_so in (
        ("uses compressed geometry", any(name.endswith("_compression") for name in extensions)),
        ("uses sparse positions or indices", any("sparse" in accessor for accessor in read)),
        ("uses normalised integer positions", any(accessor.get("normalized") for accessor in read)),
        ("uses triangle fans", 6 in modes),
        ("unpacks to an absurd size", unpacked > MAX_UNPACKED),
    ):
        if is_so:
            raise FormatError(f"{reason}, which cannot be read here", "export it with plain triangles")
    return {name: _file_beside(folder.resolve(), name) for name in names}


def _file_beside(folder: Path, name: str) -> bytes:
    """The file that a glTF names, if it lies in the glTF's own folder or below."""
    try:
        target = (folder / unquote(name)).resolve()
        if not target.is_relative_to(folder):
            raise FormatError(f"refers to '{name}', outside its folder", "put the files in one folder")
        if not target.is_file():
            raise FormatError(f"refers to '{name}', which is not there", "put it there, or export GLB")
        if target.stat().st_size > MAX_UNPACKED:
            raise FormatError(f"refers to '{name}', which is too large to be read here", "export GLB")
        return target.read_bytes()
    except (OSError, ValueError) as error:
        raise FormatError(f"refers to a file that cannot be read ({_said(error)})", "export GLB") from error


def _read_3mf(data: bytes, path: Path) -> RawMesh:
    try:
        with zipfile.ZipFile(BytesIO(data)) as archive:
            members = archive.infolist()
            if sum(member.file_size for member in members) > MAX_UNPACKED:
                raise FormatError(f"unpacks to more than {MAX_UNPACKED >> 20} MiB", "export fewer faces")
            models = [member for member in members if member.filename.lower().endswith(".model")]
            if not any("3d/3dmodel.model" in model.filename.lower() for model in models):
                raise FormatError("is a ZIP archive without a 3MF model in it", "unpack it first")
            texts = [archive.read(model) for model in models]
    except (zipfile.BadZipFile, zlib.error, RuntimeError, OSError, EOFError, ValueError) as error:
        raise FormatError(f"is a damaged archive ({_said(error)})", TRUNCATED) from error
    for text in texts:
        _check_3mf_model(text)
    return _read_scene(data, "3mf", {})


def _check_3mf_model(text: bytes) -> None:
    """Raise for entities, and for objects made of objects that multiply beyond bounds or hold themselves."""
    if text[:2] in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE):
        text = text.decode("utf-16", "replace").encode()
    if b"\0" in text or b"<!DOCTYPE" in text or b"<!ENTITY" in text:
        raise FormatError("holds what 3MF forbids: XML entities, or bytes that are no text")
    tag = re.compile(rb"<(?:\w+:)?(object|component|item)\b[^>]*?\b(?:objectid|id)\s*=\s*[\"']([^\"']*)[\"']")
    parts: dict[bytes, list[bytes]] = {b"build": []}
    current = b"build"
    for kind, identifier in tag.findall(text):
        if kind == b"object":
            current = b"object " + identifier
            parts.setdefault(current, [])
        else:
            parts[current if kind == b"component" else b"build"].append(b"object " + identifier)

    @cache
    def instances(whole: bytes) -> int:
        return 1 + sum(instances(part) for part in parts.get(whole, ()))

    try:
        if instances(b"build") <= MAX_INSTANCES:
            return
    except RecursionError:  # an object that holds itself
        pass
    raise FormatError("repeats its parts beyond all bounds")


def _read_scene(data: bytes, file_type: str, files: dict[str, bytes]) -> RawMesh:
    """Every triangle mesh of a scene, at each place where the scene has it, by trimesh."""
    import trimesh

    try:
        scene = trimesh.load_scene(
            BytesIO(data), file_type=file_type, resolver=files, process=False, skip_materials=True
        )
        placed = [scene.graph[node] for node in scene.graph.nodes_geometry]
        parts = [
            (np.asarray(matrix, np.float64), scene.geometry[name])
            for matrix, name in placed
            if isinstance(scene.geometry.get(name), trimesh.Trimesh)
        ]
        if sum(len(part.faces) for _, part in parts) > MAX_FACES:
            raise FormatError(f"repeats its parts to more than {MAX_FACES} triangles", "export it with fewer")
        return _joined([_placed(part.vertices, part.faces, matrix) for matrix, part in parts])
    except FormatError:
        raise
    except Exception as error:  # a reader's failure on a stranger's bytes can be anything
        if "not expected length" in str(error):
            raise FormatError("is truncated: its last chunk is too short", TRUNCATED) from error
        raise FormatError(f"could not be read ({_said(error)})") from error


def _placed(vertices: Any, faces: Any, matrix: Points) -> tuple[Points, IntArray]:
    points = np.asarray(vertices, np.float64) @ matrix[:3, :3].T + matrix[:3, 3]
    triangles = np.asarray(faces, np.int64)
    if np.linalg.det(matrix[:3, :3]) < 0:  # a mirror turns the faces around
        triangles = triangles[:, ::-1]
    return points, triangles


def _joined(parts: list[tuple[Points, IntArray]]) -> RawMesh:
    offsets = np.cumsum([0, *(len(points) for points, _ in parts)])
    if not parts:
        raise FormatError("has no faces: its scene holds no mesh", "export the mesh itself")
    return RawMesh(
        np.concatenate([points for points, _ in parts]),
        np.concatenate([faces + offset for (_, faces), offset in zip(parts, offsets[:-1], strict=True)]),
    )


_READERS: dict[str, Callable[[bytes, Path], RawMesh]] = {
    "OBJ": lambda data, _: read_obj(data),
    "OFF": lambda data, _: read_off(data),
    "PLY": lambda data, _: read_ply(data),
    "STL": lambda data, _: read_stl(data),
    "GLB": _read_glb,
    "glTF": _read_gltf,
    "3MF": _read_3mf,
}


def _said(error: Exception) -> str:
    """What a library's error says, in one short line."""
    return f"{type(error).__name__}: {error}".split("\n")[0][:100]


def check_mesh_output(path: str | Path, *, force: bool = False) -> None:
    """Raise now what `save_mesh` would raise for this path later, before any work is done."""
    suffix = Path(path).suffix.lower()
    if suffix not in _WRITERS:
        known = ", ".join(sorted(_WRITERS))
        raise UsageError(f"{path}: the suffix names the format, and {suffix or 'none'} is not one of {known}")
    check_writable(path, force=force)


def save_mesh(
    path: str | Path, vertices: npt.ArrayLike, faces: npt.ArrayLike, *, force: bool = False
) -> None:
    """Write vertices (V, 3) and faces (F, 3), whole or not at all, in the format that the suffix names.

    .ply (binary), .obj, .off, .stl (binary) or .glb. Coordinates are written so that nothing is lost to
    rounding that matters: PLY turns to 64 bits and GLB to a translation where a mesh lies far from the
    origin; STL has neither, and is refused. Raises `UsageError` for another suffix, `OutputError` if the
    file exists and `force` is false, or cannot be written.
    """
    check_mesh_output(path, force=force)
    path = Path(path)
    points, triangles = np.asarray(vertices, np.float64), np.asarray(faces, np.int64)
    try:
        content = _WRITERS[path.suffix.lower()](points, triangles)
    except FormatError as error:
        raise OutputError(path, error.reason, error.remedy) from error
    with whole_file(path, force=force) as temporary:
        temporary.write_bytes(content)


#: The share of a mesh's extent that rounding to 32 bits may cost before 64 are used, or the format refused.
_EXACT, _TOLERABLE = 1e-6, 1e-4


def _rounding(points: Points) -> float:
    """What rounding to float32 costs, as a share of the extent of the points (n, 3)."""
    if not len(points):
        return 0.0
    with np.errstate(over="ignore", under="ignore", invalid="ignore"):
        extent = float(np.ptp(points, axis=0).max())
        error = float(np.abs(points.astype(np.float32) - points).max())
    return error / extent if extent > 0 else 0.0


def _ply(points: Points, faces: IntArray) -> bytes:
    name, code = ("float", "<f4") if _rounding(points) <= _EXACT else ("double", "<f8")
    header = (
        f"ply\nformat binary_little_endian 1.0\nelement vertex {len(points)}\n"
        + "".join(f"property {name} {axis}\n" for axis in "xyz")
        + f"element face {len(faces)}\nproperty list uchar int vertex_indices\nend_header\n"
    )
    rows = np.empty(len(faces), [("count", "u1"), ("corners", "<i4", 3)])
    rows["count"], rows["corners"] = 3, faces
    return header.encode() + points.astype(code).tobytes() + rows.tobytes()


def _stl(points: Points, faces: IntArray) -> bytes:
    _refuse_coarse(points, "STL")
    rows = np.zeros(len(faces), [("normal", "<f4", 3), ("corners", "<f4", (3, 3)), ("attribute", "<u2")])
    corners = points[faces]
    with np.errstate(over="ignore", under="ignore", invalid="ignore"):
        normals = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
        lengths = np.linalg.norm(normals, axis=1, keepdims=True)
        rows["normal"] = np.where(lengths > 0, normals / np.where(lengths > 0, lengths, 1), 0)
    rows["corners"] = corners
    return b"neuralsdf".ljust(80) + len(faces).to_bytes(4, "little") + rows.tobytes()


def _obj(points: Points, faces: IntArray) -> bytes:
    return _text_lines("v {} {} {}", points) + _text_lines("f {} {} {}", faces + 1)


def _off(points: Points, faces: IntArray) -> bytes:
    header = f"OFF\n{len(points)} {len(faces)} 0\n".encode()
    return header + _text_lines("{} {} {}", points) + _text_lines("3 {} {} {}", faces)


def _text_lines(pattern: str, rows: npt.NDArray[Any]) -> bytes:
    if rows.dtype.kind == "f":
        digits = "{:.9g}" if _rounding(rows) <= _EXACT else "{:.17g}"
        pattern = pattern.replace("{}", digits)
    return "".join(f"{pattern}\n".format(*row) for row in rows.tolist()).encode()


def _glb(points: Points, faces: IntArray) -> bytes:
    import trimesh

    offset = np.zeros(3)
    if _rounding(points) > _EXACT:
        offset = points.min(axis=0) + np.ptp(points, axis=0) / 2
    _refuse_coarse(points - offset, "GLB")
    matrix = np.eye(4)
    matrix[:3, 3] = offset
    scene = trimesh.Scene()
    scene.add_geometry(
        trimesh.Trimesh(points - offset, faces, process=False), "mesh", "mesh", transform=matrix
    )
    exporter: Any = trimesh.exchange.gltf
    return bytes(exporter.export_glb(scene, include_normals=False))


def _refuse_coarse(points: Points, format_: str) -> None:
    if not _rounding(points) <= _TOLERABLE:
        raise FormatError(
            f"{format_} holds 32-bit coordinates, too coarse for a mesh this small this far from the origin",
            "write PLY, OBJ or OFF",
        )


_WRITERS: dict[str, Callable[[Points, IntArray], bytes]] = {
    ".ply": _ply,
    ".obj": _obj,
    ".stl": _stl,
    ".glb": _glb,
    ".off": _off,
}
