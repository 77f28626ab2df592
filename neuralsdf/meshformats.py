"""
meshformats.py
--------------
Readers of the plain mesh formats: OBJ, OFF, PLY and STL, from bytes to triangles.

They are our own because the libraries at hand do not hold up on the files of strangers (trimesh 5.2,
libigl 2.6): trimesh drops lines that it does not understand, so a truncated file loads as half a
shape, resolves OBJ's relative indices wrongly, and reads neither a PLY of triangles and quads nor an
OFF with free line breaks; libigl's PLY reader aborts the process on a valid file. What is needed here
is little: positions and corners, and the line where a file stops making sense.

Every reader takes the whole file as bytes and raises `FormatError`, and nothing else, for bytes that
do not hold together; indices are checked, coordinates are not. Sizes in a header are believed only as
far as the file is long.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from .mesh import IntArray
from .similarity import Points

TRUNCATED = "download or export it again"
BROKEN = "export it again from the program that made it"
NO_SURFACE = "give a mesh with faces, or reconstruct a surface first"


class FormatError(Exception):
    """Bytes that are no mesh of their format: the reason, and the way out."""

    def __init__(self, reason: str, remedy: str = BROKEN) -> None:
        self.reason = reason
        self.remedy = remedy
        super().__init__(reason)


@dataclass(frozen=True, eq=False)
class RawMesh:
    """What a file says: vertices (V, 3) float64, triangles (F, 3) int64 within range, notes on reading."""

    vertices: Points
    faces: IntArray
    notes: list[str] = field(default_factory=list)


def read_obj(data: bytes) -> RawMesh:
    """Wavefront OBJ: `v` and `f` lines; polygons, relative indices and continued lines included."""
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
                raise _broken_line(number, line, is_last)
            if len(polygon) < 3:
                short += 1
                continue
            corners += polygon
            sides.append(len(polygon))
        elif keyword in (b"v", b"vn") and len(parts) < 4:
            raise _broken_line(number, line, is_last)
        elif keyword in others:
            others[keyword] += 1
    if not sides:
        raise FormatError(_what_instead(len(coordinates) // 3, others[b"l"], others[b"t"]), NO_SURFACE)
    vertices = _floats(coordinates).reshape(-1, 3)
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


def _what_instead(points: int, lines: int, tetrahedra: int) -> str:
    if tetrahedra:
        return f"has no faces, only {tetrahedra} 't' lines (tetrahedra?), which OBJ does not define"
    if lines:
        return f"is a wireframe: {lines} lines, no faces"
    if points:
        return f"is a point cloud: {points} points, no faces"
    return "has no vertices and no faces"


def read_off(data: bytes) -> RawMesh:
    """OFF and its kin with colours, normals or texture coordinates (COFF, NOFF, STOFF), as text."""
    text = re.sub(rb"#[^\r\n]*", b"", data.removeprefix(b"\xef\xbb\xbf"))
    header = re.match(rb"\s*(?:ST)?C?N?(4?n?)OFF([ \t]+BINARY)?", text)
    if header is None:
        raise FormatError("does not start as an OFF file does")
    if header[1] or header[2]:
        kind = "a binary OFF" if header[2] else "an OFF of other than three dimensions"
        raise FormatError(f"is {kind}, which cannot be read here", "save it as text OFF, PLY or OBJ")
    rows = _rows(text[header.end() :])
    vertex_count, face_count = _off_counts(next(rows, []), len(text))
    coordinates: list[bytes] = []
    for _ in range(vertex_count):
        coordinates += _filled(next(rows, []), 3, rows)[:3]  # a normal or a colour may follow
    vertices = _floats(coordinates).reshape(-1, 3)
    corners: list[int] = []
    sides: list[int] = []
    for _ in range(face_count):
        row = _filled(next(rows, []), 1, rows)
        count = max(_integers(row[:1])[0], 0)
        corners += _integers(_filled(row, count + 1, rows)[1 : count + 1])  # a colour may follow
        sides.append(count)
    if not sides:
        raise FormatError(_what_instead(len(vertices), 0, 0), NO_SURFACE)
    return RawMesh(vertices, triangulate(vertices, corners, sides))


def _off_counts(row: Sequence[bytes], size: int) -> tuple[int, int]:
    counts = _integers(row[:2])
    if len(counts) < 2 or min(counts) < 0:
        raise FormatError("lacks its counts of vertices and faces")
    if max(counts) > size:
        raise FormatError(f"is truncated: it is too short for {max(counts)} vertices or faces", TRUNCATED)
    return counts[0], counts[1]


def _rows(text: bytes) -> Iterator[list[bytes]]:
    """The words of each line that has any."""
    return (words for line in text.splitlines() if (words := line.split()))


def read_stl(data: bytes) -> RawMesh:
    """STL, binary (its size must be what its header says) or text (it must end in `endsolid`)."""
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
            raise FormatError(f"has a vertex that is none: '{_printable(line)}'")
        tokens += position
    last_line = data.rstrip().splitlines()[-1].strip().lower()
    if len(tokens) % 9 or not last_line.startswith(b"endsolid"):
        raise FormatError(f"is truncated: it ends in '{_printable(last_line)}', not in 'endsolid'", TRUNCATED)
    return _floats(tokens).reshape(-1, 3)


# Names that occur in the wild for PLY's types, as numpy's codes without byte order.
_PLY_TYPES = {
    **dict.fromkeys(("char", "int8"), "i1"),
    **dict.fromkeys(("uchar", "uint8"), "u1"),
    **dict.fromkeys(("short", "int16"), "i2"),
    **dict.fromkeys(("ushort", "uint16"), "u2"),
    **dict.fromkeys(("int", "int32"), "i4"),
    **dict.fromkeys(("uint", "uint32"), "u4"),
    **dict.fromkeys(("long", "int64"), "i8"),
    **dict.fromkeys(("ulong", "uint64"), "u8"),
    **dict.fromkeys(("float", "float32"), "f4"),
    **dict.fromkeys(("double", "float64"), "f8"),
}


@dataclass
class _PlyProperty:
    """A property's name and type, and the type of its length if it is a list (numpy codes)."""

    name: str
    code: str
    length_code: str | None = None


@dataclass
class _PlyElement:
    name: str
    count: int
    properties: list[_PlyProperty]


#: Columns by name; a list's are its values end to end, under its name, and its lengths, under name + "#".
_PlyColumns = dict[str, npt.NDArray[Any]]


def read_ply(data: bytes) -> RawMesh:
    """PLY, text or binary of either byte order; faces of any size, and triangle strips."""
    encoding, elements, body = _ply_header(data)
    columns: dict[str, _PlyColumns] = {}
    if encoding == "ascii":
        rows = _rows(body)
        for element in elements:
            columns[element.name] = _ply_text_columns(rows, element)
    else:
        order, position = (">" if "big" in encoding else "<"), 0
        for element in elements:
            columns[element.name], position = _ply_binary_columns(body, position, element, order)
    vertex = columns.get("vertex", {})
    if not {"x", "y", "z"} <= vertex.keys() or not len(vertex["x"]):
        raise FormatError("has no vertices and no faces", NO_SURFACE)
    vertices = np.column_stack([vertex[axis] for axis in "xyz"]).astype(np.float64)
    corners, sides = _ply_polygons(columns)
    if not len(sides):
        raise FormatError(_what_instead(len(vertices), 0, 0), NO_SURFACE)
    return RawMesh(vertices, triangulate(vertices, corners, sides))


def _ply_header(data: bytes) -> tuple[str, list[_PlyElement], bytes]:
    """Encoding, elements and body; raises if the header is none or promises more than the body can hold."""
    end = re.search(rb"(?:^|[\r\n])end_header[ \t]*(?:\r\n|\n|\r|$)", data)
    if end is None:
        raise FormatError("is truncated: its header does not end", TRUNCATED)
    encoding = ""
    elements: list[_PlyElement] = []
    for line in data[: end.start()].decode("latin-1").splitlines()[1:]:
        match line.split():
            case ["format", ("ascii" | "binary_little_endian" | "binary_big_endian") as encoding, *_]:
                pass
            case ["element", name, count] if count.isdecimal():
                elements.append(_PlyElement(name, int(count[:18]), []))
            case ["property", "list", length_type, type_, name] if elements:
                elements[-1].properties.append(_PlyProperty(name, _ply_code(type_), _ply_code(length_type)))
            case ["property", type_, name] if elements:
                elements[-1].properties.append(_PlyProperty(name, _ply_code(type_)))
            case [] | ["comment" | "obj_info", *_]:
                pass
            case _:
                raise FormatError(f"has a header line that PLY does not know: '{_printable(line.encode())}'")
    if not encoding:
        raise FormatError("has a header without a format")
    body = data[end.end() :]
    for element in elements:
        sizes = [int((p.length_code or p.code)[1]) if encoding != "ascii" else 1 for p in element.properties]
        if element.properties and element.count * sum(sizes) > len(body):
            raise FormatError(
                f"is truncated: its header promises {element.count} of '{element.name}', "
                f"but only {len(body)} bytes follow",
                TRUNCATED,
            )
    return encoding, [element for element in elements if element.properties], body


def _ply_code(type_: str) -> str:
    if type_ not in _PLY_TYPES:
        raise FormatError(f"has a property of the unknown type '{_printable(type_.encode())}'")
    return _PLY_TYPES[type_]


def _ply_text_columns(rows: Iterator[list[bytes]], element: _PlyElement) -> _PlyColumns:
    """The element's lists and coordinates from the next rows; what a row holds beyond them is passed by."""
    values: dict[str, list[bytes]] = {p.name: [] for p in element.properties}
    lengths: dict[str, list[int]] = {p.name: [] for p in element.properties if p.length_code}
    for _ in range(element.count):
        row: list[bytes] = next(rows, [])
        position = 0
        for property_ in element.properties:
            length = 1
            if property_.length_code:
                row = _filled(row, position + 1, rows)
                length = max(_integers(row[position : position + 1])[0], 0)
                lengths[property_.name].append(length)
                position += 1
            row = _filled(row, position + length, rows)
            values[property_.name] += row[position : position + length]
            position += length
    wanted = (*lengths, "x", "y", "z")
    columns: _PlyColumns = {f"{name}#": np.array(length, np.int64) for name, length in lengths.items()}
    return columns | {name: _floats(tokens) for name, tokens in values.items() if name in wanted}


def _filled(row: list[bytes], length: int, rows: Iterator[list[bytes]]) -> list[bytes]:
    """The row, with as many of the following rows as it takes to have `length` tokens."""
    while len(row) < length:
        following = next(rows, None)
        if following is None:
            raise FormatError("is truncated: its last line breaks off", TRUNCATED)
        row = row + following
    return row


def _ply_binary_columns(body: bytes, start: int, element: _PlyElement, order: str) -> tuple[_PlyColumns, int]:
    """The element's columns from the bytes at `start`, and where the next element starts.

    If every row's lists are as long as the first row's, as in a mesh of triangles, all is one array.
    """
    lists = [p for p in element.properties if p.length_code is not None]
    row_type: list[tuple[Any, ...]] = []
    position = start
    for property_ in element.properties:
        if property_.length_code is None:
            row_type.append((property_.name, order + property_.code))
            position += int(property_.code[1])
            continue
        length = _ply_length(body, position, order + property_.length_code) if element.count else 0
        row_type.append((f"{property_.name}#", order + property_.length_code))
        row_type.append((property_.name, order + property_.code, (length,)))
        position += int(property_.length_code[1]) + length * int(property_.code[1])
    row = _row_dtype(row_type)
    end = start + element.count * row.itemsize
    if end <= len(body):
        table = np.frombuffer(body, row, element.count, start)
        if all((table[f"{p.name}#"] == row[p.name].shape[0]).all() for p in lists):
            return {name: table[name].reshape(-1) for name in row.names or ()}, end
    if not lists:
        raise FormatError(f"is truncated: it ends before its last '{element.name}'", TRUNCATED)
    return _ply_ragged_columns(body, start, element, order)


def _row_dtype(row_type: list[tuple[Any, ...]]) -> np.dtype[Any]:
    try:
        return np.dtype(row_type)
    except ValueError as error:
        raise FormatError("has a header that names a property twice, or a list beyond all bounds") from error


def _ply_ragged_columns(body: bytes, start: int, element: _PlyElement, order: str) -> tuple[_PlyColumns, int]:
    """As `_ply_binary_columns`, row by row."""
    values: dict[str, list[bytes]] = {p.name: [] for p in element.properties if p.length_code}
    lengths: dict[str, list[int]] = {name: [] for name in values}
    codes = {p.name: order + p.code for p in element.properties if p.length_code}
    for _ in range(element.count):
        for property_ in element.properties:
            size = int(property_.code[1])
            if property_.length_code is None:
                start += size
                continue
            length = _ply_length(body, start, order + property_.length_code)
            start += int(property_.length_code[1])
            lengths[property_.name].append(length)
            values[property_.name].append(body[start : start + length * size])
            start += length * size
    if start > len(body):
        raise FormatError(f"is truncated: it ends before its last '{element.name}'", TRUNCATED)
    columns: _PlyColumns = {f"{name}#": np.array(length, np.int64) for name, length in lengths.items()}
    columns |= {name: np.frombuffer(b"".join(chunks), codes[name]) for name, chunks in values.items()}
    return columns, start


def _ply_length(body: bytes, position: int, code: str) -> int:
    """The length of a list that starts at `position`; raises if the file ends before the list does."""
    raw = body[position : position + int(code[2])]
    length = int.from_bytes(raw, "big" if code[0] == ">" else "little", signed=code[1] == "i")
    if code[1] == "f" or not raw or not 0 <= length <= len(body) - position:
        raise FormatError("is truncated, or damaged: a list of corners runs past its end", TRUNCATED)
    return length


def _ply_polygons(columns: dict[str, _PlyColumns]) -> tuple[IntArray, IntArray]:
    """Corners, end to end, and the number of sides of each polygon."""
    for element in ("face", "tristrips"):
        for name in ("vertex_indices", "vertex_index"):
            column = columns.get(element, {})
            if f"{name}#" not in column:
                continue
            corners, lengths = column[name].astype(np.int64), column[f"{name}#"].astype(np.int64)
            if element == "face":
                return corners, lengths
            faces = _strips(corners, lengths)
            return faces.ravel(), np.full(len(faces), 3)
    return np.empty(0, np.int64), np.empty(0, np.int64)


def _strips(corners: IntArray, lengths: IntArray) -> IntArray:
    """Triangles (m, 3) of triangle strips end to end; -1 starts a new strip, every other one is turned."""
    starts = np.zeros(len(corners), bool)
    starts[np.cumsum(lengths)[lengths > 0] - lengths[lengths > 0]] = True
    starts[1:] |= corners[:-1] < 0
    index = np.arange(len(corners))
    within = index - np.maximum.accumulate(np.where(starts, index, 0))
    third = np.flatnonzero((within >= 2) & (corners >= 0))
    odd = within[third] % 2
    return np.stack([corners[third - 2 + odd], corners[third - 1 - odd], corners[third]], axis=1)


def triangulate(vertices: Points, corners: npt.ArrayLike, sides: npt.ArrayLike) -> IntArray:
    """Triangles (F, 3) of polygons, in their order: corners end to end, and how many each polygon has.

    A convex polygon becomes a fan about its first corner, any other is clipped ear by ear. Polygons of
    fewer than three corners give none. Raises `FormatError` for a corner that is no vertex.
    """
    corners, sides = np.asarray(corners, np.int64), np.asarray(sides, np.int64)
    if len(corners) and (corners.min() < 0 or corners.max() >= len(vertices)):
        culprit = int(((corners < 0) | (corners >= len(vertices))).argmax())
        face = int(np.searchsorted(np.cumsum(sides), culprit, side="right"))
        raise FormatError(
            f"face {face + 1} names a vertex that is none of the {len(vertices)}: "
            f"{corners[culprit]}, counted from 0"
        )
    count = np.maximum(sides - 2, 0)
    polygon = np.repeat(np.arange(len(sides)), count)
    first = (np.cumsum(sides) - sides)[polygon]
    step = np.arange(len(polygon)) - (np.cumsum(count) - count)[polygon]
    faces = np.stack([corners[first], corners[first + step + 1], corners[first + step + 2]], axis=1)
    folded = np.flatnonzero(_is_folded(vertices, faces, polygon, len(sides)))
    begins, triangles = np.cumsum(sides) - sides, np.cumsum(count) - count
    quads = folded[sides[folded] == 4]  # fold the other way, about their second corner
    ring = corners[begins[quads, None] + np.arange(4)]
    faces[triangles[quads]], faces[triangles[quads] + 1] = ring[:, [1, 2, 3]], ring[:, [1, 3, 0]]
    others = folded[sides[folded] > 4]
    for index in others[np.cumsum(sides[others]) <= CLIPPING_LIMIT]:
        ring = corners[begins[index] : begins[index] + sides[index]]
        faces[triangles[index] : triangles[index] + count[index]] = ring[_clip_ears(vertices[ring])]
    return faces


#: Clipping takes a millisecond a corner; after this many corners, fans are left as they are: the surface
#: then reaches beyond such a polygon, though there it cancels out of the winding number.
CLIPPING_LIMIT = 20_000


def _is_folded(vertices: Points, faces: IntArray, polygon: IntArray, count: int) -> npt.NDArray[np.bool_]:
    """For each polygon, whether some triangle of its fan faces against the polygon as a whole."""
    folded = np.zeros(count, bool)
    several = np.bincount(polygon, minlength=count)[polygon] > 1
    faces, polygon = faces[several], polygon[several]
    if len(faces):
        a, b, c = (vertices[faces[:, corner]] for corner in range(3))
        with np.errstate(over="ignore", invalid="ignore"):
            normals = np.cross(b - a, c - a)
            whole = np.stack([np.bincount(polygon, normals[:, axis], count) for axis in range(3)], axis=1)
            folded[polygon[(normals * whole[polygon]).sum(axis=1) < 0]] = True
    return folded


def _clip_ears(ring: Points) -> IntArray:
    """Triangles (n - 2, 3), as indices, of a simple polygon (n, 3), seen along its normal.

    An ear is a corner that turns left and whose triangle holds no other corner; only corners that do
    not turn left can be in it. Where there is none (the polygon crosses itself), any corner goes.
    """
    with np.errstate(over="ignore", invalid="ignore"):
        flat = _projected(ring)
        left = np.arange(len(ring))
        triangles: list[IntArray] = []
        while len(left) > 3:
            around = np.stack([np.roll(left, 1), left, np.roll(left, -1)], axis=1)
            a, b, c = flat[around].transpose(1, 0, 2)
            turns = _turn(a, b, c)
            others = b[~(turns > 0)]
            ears = (i for i in np.flatnonzero(turns > 0) if not _holds(a[i], b[i], c[i], others))
            ear = int(next(ears, 0))
            triangles.append(around[ear])
            left = np.delete(left, ear)
    return np.array([*triangles, left])


def _projected(ring: Points) -> npt.NDArray[np.float64]:
    """The polygon (n, 3) in the coordinate plane (n, 2) it is closest to, counter-clockwise."""
    local = ring - ring[0]
    normal = np.cross(local, np.roll(local, -1, axis=0)).sum(axis=0)  # Newell
    axis = int(np.abs(normal).argmax())
    across = [(axis + 1) % 3, (axis + 2) % 3]
    flat: Points = local[:, across if normal[axis] >= 0 else across[::-1]]
    return flat


def _holds(a: npt.NDArray[Any], b: npt.NDArray[Any], c: npt.NDArray[Any], points: npt.NDArray[Any]) -> bool:
    """Whether the triangle a, b, c (2,) holds one of the points (n, 2) that is none of its corners.

    A bridge to a hole runs through the same place twice: a corner on a corner is not inside.
    """
    inside = (_turn(a, b, points) >= 0) & (_turn(b, c, points) >= 0) & (_turn(c, a, points) >= 0)
    candidates = points[inside]
    at_corner = [(candidates == corner).all(axis=1) for corner in (a, b, c)]
    return not np.logical_or.reduce(at_corner).all()


def _turn(a: npt.NDArray[Any], b: npt.NDArray[Any], c: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    """Twice the signed area of the triangles a, b, c (..., 2): positive for a turn to the left."""
    ab, ac = b - a, c - a
    turn: npt.NDArray[np.float64] = ab[..., 0] * ac[..., 1] - ab[..., 1] * ac[..., 0]
    return turn


def _floats(tokens: Iterable[bytes]) -> Points:
    try:
        return np.fromiter(map(float, tokens), np.float64)
    except ValueError as error:
        culprit = str(error).rpartition(": ")[2]  # float() quotes it
        raise FormatError(f"has a coordinate that is no number: {culprit[:60]}") from error


def _integers(tokens: Sequence[bytes]) -> list[int]:
    try:
        return [int(token) for token in tokens]
    except ValueError as error:
        raise FormatError(f"has a count or an index that is no integer: '{_printable(tokens[0])}'") from error


def _broken_line(number: int, line: bytes, is_last: bool) -> FormatError:
    if is_last:
        return FormatError(f"is truncated: its last line breaks off at '{_printable(line)}'", TRUNCATED)
    return FormatError(f"line {number} is malformed: '{_printable(line)}'")


def _printable(line: bytes) -> str:
    text = line.strip().decode("ascii", "replace")
    return "".join(c if c.isprintable() else "?" for c in text[-40:])
