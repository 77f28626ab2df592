"""
off.py
------
OFF (Object File Format).
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from ..input import InputFile
from .polygons import triangulate
from .raw_mesh import (
    NO_SURFACE,
    TRUNCATED,
    FormatError,
    RawMesh,
    filled,
    floats,
    integers,
    rows_of,
    what_instead,
)


def read_off(file: InputFile) -> RawMesh:
    """OFF and its kin with colours, normals or texture coordinates (COFF, NOFF, STOFF), as text."""
    data = file.data
    text = re.sub(rb"#[^\r\n]*", b"", data.removeprefix(b"\xef\xbb\xbf"))
    header = re.match(rb"\s*(?:ST)?C?N?(4?n?)OFF([ \t]+BINARY)?", text)
    if header is None:
        raise FormatError("does not start as an OFF file does")
    if header[1] or header[2]:
        kind = "a binary OFF" if header[2] else "an OFF of other than three dimensions"
        raise FormatError(f"is {kind}, which cannot be read here", "save it as text OFF, PLY or OBJ")
    rows = rows_of(text[header.end() :])
    vertex_count, face_count = _off_counts(next(rows, []), len(text))
    coordinates: list[bytes] = []
    for _ in range(vertex_count):
        coordinates += filled(next(rows, []), 3, rows)[:3]  # a normal or a colour may follow
    vertices = floats(coordinates).reshape(-1, 3)
    corners: list[int] = []
    sides: list[int] = []
    for _ in range(face_count):
        row = filled(next(rows, []), 1, rows)
        count = max(integers(row[:1])[0], 0)
        corners += integers(filled(row, count + 1, rows)[1 : count + 1])  # a colour may follow
        sides.append(count)
    if not sides:
        raise FormatError(what_instead(len(vertices), 0, 0), NO_SURFACE)
    return RawMesh(vertices, triangulate(vertices, corners, sides))


def _off_counts(row: Sequence[bytes], size: int) -> tuple[int, int]:
    counts = integers(row[:2])
    if len(counts) < 2 or min(counts) < 0:
        raise FormatError("lacks its counts of vertices and faces")
    if max(counts) > size:
        raise FormatError(f"is truncated: it is too short for {max(counts)} vertices or faces", TRUNCATED)
    return counts[0], counts[1]
