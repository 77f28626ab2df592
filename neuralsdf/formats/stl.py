"""
stl.py
------
STL, binary and text.
"""

from __future__ import annotations

import re

import numpy as np

from ..input import InputFile
from ..similarity import Points
from .raw_mesh import NO_SURFACE, TRUNCATED, FormatError, RawMesh, floats, printable


def read_stl(file: InputFile) -> RawMesh:
    """STL, binary (its size must be what its header says) or text (it must end in `endsolid`)."""
    data = file.data
    if is_binary_stl(data):
        record = np.dtype([("normal", "<f4", 3), ("corners", "<f4", (3, 3)), ("attribute", "<u2")])
        vertices = np.frombuffer(data, record, offset=84)["corners"].reshape(-1, 3).astype(np.float64)
    elif data[:5].lower() == b"solid" and b"\0" not in data:
        vertices = _text_stl_corners(data)
    else:
        faces = int.from_bytes(data[80:84], "little")
        raise FormatError(
            f"is truncated, or no STL: its header says {faces} faces, that is {84 + 50 * faces} bytes, "
            f"but it has {len(data)}",
            TRUNCATED,
        )
    if not len(vertices):
        raise FormatError("has no faces", NO_SURFACE)
    return RawMesh(vertices, np.arange(len(vertices)).reshape(-1, 3))


def is_binary_stl(data: bytes) -> bool:
    """Whether the size is exactly what a binary STL's face count asks for."""
    return len(data) >= 84 and len(data) == 84 + 50 * int.from_bytes(data[80:84], "little")


def _text_stl_corners(data: bytes) -> Points:
    tokens: list[bytes] = []
    vertex = re.compile(rb"^[ \t]*vertex\b(.*)$", re.IGNORECASE | re.MULTILINE)
    for line in vertex.findall(data.replace(b"\r", b"\n")):
        position = line.split()
        if len(position) != 3:
            raise FormatError(f"has a vertex that is none: '{printable(line)}'")
        tokens += position
    last_line = data.rstrip().splitlines()[-1].strip().lower()
    if len(tokens) % 9 or not last_line.startswith(b"endsolid"):
        raise FormatError(f"is truncated: it ends in '{printable(last_line)}', not in 'endsolid'", TRUNCATED)
    return floats(tokens).reshape(-1, 3)
