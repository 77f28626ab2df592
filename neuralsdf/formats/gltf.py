"""
gltf.py
-------
glTF and GLB.
"""

from __future__ import annotations

import json
from io import BytesIO
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import numpy as np

from ..input import InputFile
from ..mesh import IntArray
from ..similarity import Points
from .raw_mesh import TRUNCATED, FormatError, RawMesh

MAX_UNPACKED = 1 << 30


def read_glb(file: InputFile) -> RawMesh:
    """glTF in one binary file."""
    data, path = file.data, file.path
    size = int.from_bytes(data[8:12], "little")
    if len(data) < max(20, size):
        raise FormatError(f"is truncated: its header says {size} bytes, but it has {len(data)}", TRUNCATED)
    return read_scene(data, "glb", checked_gltf(gltf_json(data), path.parent))


def read_gltf(file: InputFile) -> RawMesh:
    """glTF as JSON, with the files beside it that it refers to."""
    data, path = file.data, file.path
    return read_scene(data, "gltf", checked_gltf(data, path.parent))


def gltf_json(data: bytes) -> bytes:
    """The text of a glTF, whichever form it has."""
    return data[20 : 20 + int.from_bytes(data[12:16], "little")] if data[:4] == b"glTF" else data


def checked_gltf(text: bytes, folder: Path) -> dict[str, bytes]:
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
        raise FormatError(f"is no valid glTF ({said(error)})") from error
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
        raise FormatError(f"refers to a file that cannot be read ({said(error)})", "export GLB") from error


MAX_FACES = 50_000_000


def read_scene(data: bytes, file_type: str, files: dict[str, bytes]) -> RawMesh:
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
        raise FormatError(f"could not be read ({said(error)})") from error


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


def said(error: Exception) -> str:
    """What a library's error says, in one short line."""
    return f"{type(error).__name__}: {error}".split("\n")[0][:100]
