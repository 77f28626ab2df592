"""
obj.py
------
Wavefront OBJ.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from ..input import InputFile
from .polygons import triangulate
from .raw_mesh import NO_SURFACE, FormatError, RawMesh, broken_line, floats, what_instead


def read_obj(file: InputFile) -> RawMesh:
    """Wavefront OBJ: `v` and `f` lines; polygons, relative indices and continued lines included."""
    data = file.data
    lines = re.sub(rb"\\\r?\n", b" ", data.removeprefix(b"\xef\xbb\xbf")).splitlines()
    while lines and not lines[-1].partition(b"#")[0].strip():
        lines.pop()
    coordinates: list[bytes] = []
    corners: list[int] = []
    sides: list[int] = []
    others = {b"l": 0, b"t": 0}
    short = 0
    for number, line in enumerate(lines, 1):
        parts = line.partition(b"#")[0].split()
        keyword = parts[0] if parts else b""
        is_last = number == len(lines)
        if keyword == b"v" and len(parts) >= 4:
            coordinates += parts[1:4]
        elif keyword == b"f":
            polygon = _obj_corners(parts[1:], len(coordinates) // 3, strict=is_last)
            if polygon is None:
                raise broken_line(number, line, is_last)
            if len(polygon) < 3:
                short += 1
                continue
            corners += polygon
            sides.append(len(polygon))
        elif keyword in (b"v", b"vn") and len(parts) < 4:
            raise broken_line(number, line, is_last)
        elif keyword in others:
            others[keyword] += 1
    if not sides:
        raise FormatError(what_instead(len(coordinates) // 3, others[b"l"], others[b"t"]), NO_SURFACE)
    vertices = floats(coordinates).reshape(-1, 3)
    notes = [f"{short} face{'s'[: short > 1]} with fewer than three corners skipped"] if short else []
    return RawMesh(vertices, triangulate(vertices, corners, sides), notes)


def _obj_corners(parts: Sequence[bytes], vertex_count: int, strict: bool) -> list[int] | None:
    """Vertex indices from 0 of a face such as `1/2/3 -1//4 7`; None if it is malformed.

    strict: fewer than three corners, or corners of different form, are malformed too: in a file's last
    line they mean that the rest is missing.
    """
    try:
        corners = [int(part.partition(b"/")[0]) for part in parts]
    except ValueError:
        return None
    if strict and (len(corners) < 3 or len({part.count(b"/") for part in parts}) > 1):
        return None
    if corners and min(corners) <= 0:
        # 0 is no index, and neither is one before the first vertex: -1 fails the range check later.
        return [c - 1 if c >= 0 else max(vertex_count + c, -1) for c in corners]
    return [c - 1 for c in corners]
