"""
gltf.py
-------
glTF and GLB.
"""

from __future__ import annotations

import json
from pathlib import Path
from urllib.parse import unquote

from ..input import InputFile
from .raw_mesh import TRUNCATED, FormatError, RawMesh
from .scene import read_scene, said

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
