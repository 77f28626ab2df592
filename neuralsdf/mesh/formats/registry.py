"""
registry.py
-----------
The mesh formats that can be read: their suffixes and readers, and the detection of a file's format from its
content.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from ...files.bounded_input import InputFile
from .gltf import read_gltf
from .obj import read_obj
from .off import OFF_HEADER, read_off
from .ply import PLY_START, read_ply
from .shared.raw_mesh import TRUNCATED, FormatError, RawMesh
from .shared.text_rows import content_start
from .stl import is_binary_stl, read_stl, starts_as_text_stl
from .threemf import read_3mf

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

#: A vertex or face of an OBJ. The pattern is unambiguous, so a search takes linear time.
_OBJ = re.compile(rb"(?:^|[\r\n])[ \t]*[vf][ \t]+[-+.\d]")

_PACKED = {
    b"\x1f\x8b": "gzip",
    b"BZh": "bzip2",
    b"\xfd7zXZ": "xz",
    b"7z\xbc\xaf": "7z",
    b"\x28\xb5\x2f\xfd": "zstd",
}


def detect_format(data: bytes, suffix: str) -> str:
    """Format of a file by content; the suffix breaks ties. Raises `FormatError` if unknown."""
    start = content_start(data)
    head = data[start : start + 64]
    lower = head.lower()
    for magic, packer in _PACKED.items():
        if data.startswith(magic):
            raise FormatError(f"is compressed with {packer}", "unpack it first")
    if data.startswith(b"\x89HDF\r\n\x1a\n"):
        raise FormatError("is a model or other HDF5 file, not a mesh", "extract a mesh from the model first")
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
