"""
save_mesh.py
------------
Writes mesh files: PLY, OBJ, STL (binary), GLB and OFF. The suffix determines the format.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from ..array_types import Faces, Points
from ..errors import OutputError, UsageError
from ..files.atomic_write import check_writable, whole_file
from .formats.shared.raw_mesh import FormatError


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
    labels: npt.ArrayLike | None = None,
    face_labels: npt.ArrayLike | None = None,
    force: bool = False,
) -> None:
    """Write vertices (V, 3) and faces (F, 3) atomically; the suffix selects the format.

    Formats: .ply (binary), .obj, .off, .stl (binary) and .glb. For a mesh far from the origin, PLY uses
    64-bit coordinates and GLB a translation, so that rounding is negligible; STL supports neither and is
    refused.

    normals: (V, 3), unit vertex normals. colours: (V, 3) uint8, sRGB vertex colours. PLY, OBJ (colours after
    the coordinates, as most programs expect) and GLB hold both, the other formats neither.

    labels: (V,) and face_labels: (F,), uint8, the property `label` of vertices and faces of a PLY, which
    `part_labels.load_labels` reads.

    Raises `UsageError` for an unknown suffix, invalid array shapes, and normals, colours or labels in a
    format without them; `OutputError` if the file exists and `force` is false, or cannot be written.
    """
    check_mesh_output(path, force=force, attributes=not (normals is None and colours is None))
    path = Path(path)
    if not (labels is None and face_labels is None) and path.suffix.lower() != ".ply":
        raise UsageError(f"{path}: {path.suffix} holds no labels; use .ply")
    mesh = _Written(
        np.asarray(vertices, np.float64),
        np.asarray(faces, np.int64),
        None if normals is None else np.asarray(normals, np.float32),
        None if colours is None else np.asarray(colours, np.uint8),
        None if labels is None else np.asarray(labels, np.uint8),
        None if face_labels is None else np.asarray(face_labels, np.uint8),
    )
    for name, values in (("normals", mesh.normals), ("colours", mesh.colours)):
        if values is not None and values.shape != mesh.points.shape:
            raise UsageError(f"{name} of shape {values.shape} for vertices of shape {mesh.points.shape}")
    for name, numbers, rows in (
        ("labels", mesh.labels, mesh.points),
        ("face labels", mesh.face_labels, mesh.faces),
    ):
        if numbers is not None and numbers.shape != (len(rows),):
            raise UsageError(f"{name} of shape {numbers.shape} for a mesh with {len(rows)} of them")
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
    labels: npt.NDArray[np.uint8] | None
    face_labels: npt.NDArray[np.uint8] | None


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
    properties: list[tuple[npt.NDArray[Any], str, str, tuple[str, ...]]]
    properties = [(mesh.points, name, code, ("x", "y", "z"))]
    if mesh.normals is not None:
        properties.append((mesh.normals, "float", "<f4", ("nx", "ny", "nz")))
    if mesh.colours is not None:
        properties.append((mesh.colours, "uchar", "u1", ("red", "green", "blue")))
    if mesh.labels is not None:
        properties.append((mesh.labels[:, None], "uchar", "u1", ("label",)))
    header = (
        f"ply\nformat binary_little_endian 1.0\nelement vertex {len(mesh.points)}\n"
        + "".join(f"property {name} {axis}\n" for _, name, _, axes in properties for axis in axes)
        + f"element face {len(faces)}\nproperty list uchar int vertex_indices\n"
        + ("" if mesh.face_labels is None else "property uchar label\n")
        + "end_header\n"
    )
    yield header.encode()
    for run in _runs(mesh.points):
        vertices = np.empty(
            len(mesh.points[run]), [(axes[0], code, len(axes)) for _, _, code, axes in properties]
        )
        for values, _, _, axes in properties:
            vertices[axes[0]] = values[run]
        yield vertices.tobytes()
    columns: list[Any] = [("count", "u1"), ("corners", "<i4", 3)]
    if mesh.face_labels is not None:
        columns.append(("label", "u1"))
    for run in _runs(faces):
        rows = np.empty(len(faces[run]), columns)
        rows["count"], rows["corners"] = 3, faces[run]
        if mesh.face_labels is not None:
            rows["label"] = mesh.face_labels[run]
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

#: Suffixes of the mesh files that can be written.
WRITABLE = tuple(_WRITERS)
