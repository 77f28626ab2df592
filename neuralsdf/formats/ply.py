"""
ply.py
------
PLY (Stanford polygon files), text and binary.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ..input import InputFile
from ..mesh import IntArray
from .polygons import triangulate
from .raw_mesh import (
    NO_SURFACE,
    TRUNCATED,
    FormatError,
    RawMesh,
    filled,
    floats,
    integers,
    printable,
    rows_of,
    what_instead,
)

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


def read_ply(file: InputFile) -> RawMesh:
    """PLY, text or binary of either byte order; faces of any size, and triangle strips."""
    data = file.data
    encoding, elements, body = _ply_header(data)
    columns: dict[str, _PlyColumns] = {}
    if encoding == "ascii":
        rows = rows_of(body)
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
        raise FormatError(what_instead(len(vertices), 0, 0), NO_SURFACE)
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
                raise FormatError(f"has a header line that PLY does not know: '{printable(line.encode())}'")
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
        raise FormatError(f"has a property of the unknown type '{printable(type_.encode())}'")
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
                row = filled(row, position + 1, rows)
                length = max(integers(row[position : position + 1])[0], 0)
                lengths[property_.name].append(length)
                position += 1
            row = filled(row, position + length, rows)
            values[property_.name] += row[position : position + length]
            position += length
    wanted = (*lengths, "x", "y", "z")
    columns: _PlyColumns = {f"{name}#": np.array(length, np.int64) for name, length in lengths.items()}
    return columns | {name: floats(tokens) for name, tokens in values.items() if name in wanted}


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
