"""
ply.py
------
Reader of PLY (Stanford polygon files), text and binary.
"""

from __future__ import annotations

import re
from array import array
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ...array_types import Index, Points
from ...files.bounded_input import Budget, InputFile
from .shared.polygon_triangulation import triangulate
from .shared.raw_mesh import NO_SURFACE, TRUNCATED, FormatError, RawMesh, printable, what_instead
from .shared.text_rows import Column, Rows, unix_lines

# Type names in PLY files, as NumPy codes without byte order.
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

#: Property names for the corners of a face.
_CORNERS = ("vertex_indices", "vertex_index", "vertex_indexes")

#: Property names for the coordinates of a normal.
_NORMAL = ("nx", "ny", "nz")

#: Property name for the label of a vertex or a face.
_LABEL = "label"

#: Maximum size of a header, in bytes.
MAX_HEADER = 1 << 18


@dataclass
class _Property:
    """Name and type of a property, and the type of its length if it is a list (NumPy codes)."""

    name: str
    code: str
    length_code: str | None = None


@dataclass
class _Element:
    """A table: name, number of rows, and properties of each row. Names are in lower case.

    optional: properties that are also read, if all of them are present.
    """

    name: str
    count: int
    properties: list[_Property]
    optional: tuple[str, ...] = ()

    def wanted(self) -> dict[str, type[np.int64] | type[np.float64]]:
        """Properties to read, with their types: coordinates of vertices, corners of faces.

        Raises `FormatError` if a coordinate is a list or corners are not.
        """
        names = {property_.name: property_ for property_ in reversed(self.properties)}
        if self.name == "vertex" and {"x", "y", "z"} <= names.keys():
            read = [*"xyz", *self._optional(names)]
            if any(names[name].length_code for name in read):
                raise FormatError("has a list for a coordinate of each vertex")
            return dict.fromkeys(read, np.float64)
        if self.name in ("face", "tristrips"):
            corners = next((name for name in _CORNERS if name in names), None)
            if corners is not None and names[corners].length_code is None:
                raise FormatError(f"has one number, not a list, for the corners of each {self.name}")
            if corners is None:
                return {}
            scalars = [name for name in self._optional(names) if names[name].length_code is None]
            return dict.fromkeys([corners, *scalars], np.int64)
        return {}

    def _optional(self, names: dict[str, _Property]) -> tuple[str, ...]:
        return self.optional if names.keys() >= set(self.optional) else ()


#: Columns by name; a list has its concatenated values under its name, and its lengths under name + "#".
_Columns = dict[str, npt.NDArray[Any]]


def read_ply(file: InputFile) -> RawMesh:
    """Read PLY, text or binary of either byte order, with polygons and triangle strips."""
    columns = _read_columns(file)
    vertices = np.column_stack([columns["vertex"][axis] for axis in "xyz"]).astype(np.float64)
    corners, sides = _polygons(columns, file.budget)
    if not len(sides):
        raise FormatError(what_instead(len(vertices), 0, 0), NO_SURFACE)
    return RawMesh(vertices, *triangulate(vertices, corners, sides, file.budget))


def read_ply_points(file: InputFile) -> Points:
    """Read vertices (n, 3) float64 of a PLY without faces, or (n, 6) with normals."""
    columns = _read_columns(file, _NORMAL)
    _, sides = _polygons(columns, file.budget)
    if len(sides):
        raise FormatError(f"is a mesh of {len(sides)} faces, not a point cloud", "load it as a mesh")
    vertex = columns["vertex"]
    file.budget.draw(48 * len(vertex["x"]))
    names = [*"xyz", *(_NORMAL if _NORMAL[0] in vertex else ())]
    return np.column_stack([vertex[name] for name in names]).astype(np.float64)


def read_ply_labels(file: InputFile) -> tuple[Index | None, Index | None]:
    """Labels (V,) of the vertices and (F,) of the triangles, in the order of the file; None if it has none.

    Raises `FormatError` for labels of vertices that are not whole numbers, and of polygons.
    """
    columns = _read_columns(file, (_LABEL,))
    of_vertices, of_faces = columns["vertex"].get(_LABEL), columns.get("face", {}).get(_LABEL)
    if of_vertices is not None and not (of_vertices == np.rint(of_vertices)).all():
        raise FormatError("has a vertex label that is not a whole number")
    if of_faces is not None and not (_polygons(columns, file.budget)[1] == 3).all():
        raise FormatError("has labels of polygons", "triangulate it")
    return (
        None if of_vertices is None else of_vertices.astype(np.int64),
        None if of_faces is None else of_faces.astype(np.int64),
    )


def _read_columns(file: InputFile, optional: tuple[str, ...] = ()) -> dict[str, _Columns]:
    """The wanted columns of each element; raises `FormatError` for a file without vertices."""
    encoding, elements, begin = _header(file)
    for element in elements:
        element.optional = optional
    size = len(file.data) - begin
    for name in ("vertex", "face", "tristrips"):
        if [element.name for element in elements].count(name) > 1:
            raise FormatError(f"has several elements called '{name}'", "merge them, or save it as OBJ")
    for element in elements:
        sizes = [int((p.length_code or p.code)[1]) if encoding != "ascii" else 1 for p in element.properties]
        if element.count * sum(sizes) > size:
            raise FormatError(
                f"is truncated: its header declares {element.count} of '{printable(element.name.encode())}', "
                f"but only {size} bytes follow",
                TRUNCATED,
            )
    read = _read_text if encoding == "ascii" else _read_binary
    columns = read(file, elements, begin, ">" if "big" in encoding else "<")
    vertex = columns.get("vertex", {})
    if "x" not in vertex or not len(vertex["x"]):
        raise FormatError("has no vertices and no faces", NO_SURFACE)
    file.budget.draw(48 * len(vertex["x"]))
    return columns


#: Start of a PLY.
PLY_START = re.compile(rb"ply[ \t]*[\r\n]", re.IGNORECASE)
_END = re.compile(rb"(?:^|[\r\n])end_header[ \t]*(?:\r\n|\n|\r|$)", re.IGNORECASE)


def _header(file: InputFile) -> tuple[str, list[_Element], int]:
    """Encoding, elements with properties, and offset of the body; raises `FormatError` if invalid."""
    data = file.data
    end = _END.search(data, 0, MAX_HEADER)
    if end is None and len(data) > MAX_HEADER:
        raise FormatError(f"has no header of at most {MAX_HEADER >> 10} kB")
    if end is None:
        raise FormatError("is truncated: its header does not end", TRUNCATED)
    file.budget.draw(32 * end.start())
    encoding = ""
    elements: list[_Element] = []
    for line in data[: end.start()].splitlines()[1:]:
        match line.decode("latin-1").lower().split():
            case ["format", ("ascii" | "binary_little_endian" | "binary_big_endian") as encoding, *_]:
                pass
            case ["element", name, count] if count.isdecimal():
                elements.append(_Element(name, int(count[:18]), []))
            case ["property", "list", length_type, type_, name] if elements:
                elements[-1].properties.append(_Property(name, _code(type_), _code(length_type)))
            case ["property", type_, name] if elements:
                elements[-1].properties.append(_Property(name, _code(type_)))
            case [] | ["comment" | "obj_info", *_]:
                pass
            case _:
                raise FormatError(f"has an unknown header line: '{printable(line)}'")
    if not encoding:
        raise FormatError("has a header without a format")
    begin = end.end()
    if data[begin - 2 : begin] == b"\r\n" and data[: end.start()].count(b"\n") == 0:
        begin -= 1  # lines end in CR only: the LF is the body's first byte
    return encoding, [element for element in elements if element.properties], begin


def _code(type_: str) -> str:
    if type_ not in _PLY_TYPES:
        raise FormatError(f"has a property of unknown type '{printable(type_.encode())}'")
    return _PLY_TYPES[type_]


def _read_text(file: InputFile, elements: list[_Element], begin: int, order: str) -> dict[str, _Columns]:
    """The wanted columns of each element of a text PLY; extra words in a row are ignored."""
    text = unix_lines(file.data, file.budget)
    if text is not file.data:
        end = _END.search(text)
        begin = end.end() if end else len(text)
    rows = Rows(text, file.budget, begin=begin)
    columns: dict[str, _Columns] = {}
    for element in elements:
        wanted = element.wanted()
        read = [
            Column(p.name, wanted.pop(p.name, None), is_list=p.length_code is not None)
            for p in element.properties
        ]
        columns[element.name] = rows.read(element.count, read)
    return columns


def _read_binary(file: InputFile, elements: list[_Element], begin: int, order: str) -> dict[str, _Columns]:
    """The wanted columns of each element of a binary PLY; order: byte order."""
    columns: dict[str, _Columns] = {}
    for element in elements:
        columns[element.name], begin = _binary_columns(file, begin, element, order)
    return columns


def _binary_columns(file: InputFile, start: int, element: _Element, order: str) -> tuple[_Columns, int]:
    """The element's wanted columns, read from offset `start`, and the offset of the next element.

    If all lists have the lengths of the first row's, as in a triangle mesh, the rows form one array.
    """
    data, wanted, position = file.data, element.wanted(), start
    row_type: list[tuple[Any, ...]] = []
    for index, property_ in enumerate(element.properties):
        if property_.length_code is None:
            row_type.append((str(index), order + property_.code))
            position += int(property_.code[1])
            continue
        length = _length(data, position, order + property_.length_code) if element.count else 0
        row_type.append((f"{index}#", order + property_.length_code))
        row_type.append((str(index), order + property_.code, (length,)))
        position += int(property_.length_code[1]) + length * int(property_.code[1])
    row = _row_dtype(row_type)
    end = start + element.count * row.itemsize
    lists = [(str(i), p.name) for i, p in enumerate(element.properties) if p.length_code is not None]
    if end <= len(data):
        table = np.frombuffer(data, row, element.count, start)
        if all((table[f"{index}#"] == row[index].shape[0]).all() for index, _ in lists):
            file.budget.draw(sum(table[index].nbytes for index, name in lists if name in wanted))
            names = [(str(i), p.name) for i, p in enumerate(element.properties) if p.name in wanted]
            columns = {name: table[index].reshape(-1) for index, name in reversed(names)}
            return columns | {f"{name}#": table[f"{i}#"] for i, name in lists if name in wanted}, end
    if not lists:
        raise FormatError(
            f"is truncated: it ends before its last '{printable(element.name.encode())}'", TRUNCATED
        )
    return _ragged_columns(file, start, element, order)


def _row_dtype(row_type: list[tuple[Any, ...]]) -> np.dtype[Any]:
    try:
        return np.dtype(row_type)
    except ValueError as error:
        raise FormatError("has a list that is too long") from error


def _ragged_columns(file: InputFile, start: int, element: _Element, order: str) -> tuple[_Columns, int]:
    """Like `_binary_columns`, row by row."""
    data, wanted = file.data, element.wanted()
    values = {name: bytearray() for name in wanted}
    lengths = {name: array("q") for name in wanted}
    first = {property_.name: property_ for property_ in reversed(element.properties)}  # of equal names
    properties = [(p, p is first[p.name] and p.name in wanted) for p in element.properties]
    file.budget.draw(4 * (len(data) - start) + 24 * element.count)
    for _ in range(element.count):
        for property_, is_wanted in properties:
            size = int(property_.code[1])
            length = 1
            if property_.length_code is not None:
                length = _length(data, start, order + property_.length_code)
                start += int(property_.length_code[1])
            if is_wanted:
                values[property_.name] += data[start : start + length * size]
                lengths[property_.name].append(length)
            start += length * size
    if start > len(data):
        raise FormatError(
            f"is truncated: it ends before its last '{printable(element.name.encode())}'", TRUNCATED
        )
    columns: _Columns = {}
    for property_, is_wanted in properties:
        if is_wanted:
            columns[property_.name] = np.frombuffer(values[property_.name], order + property_.code)
            columns[f"{property_.name}#"] = np.array(lengths[property_.name], np.int64)
    return columns, start


def _length(data: bytes, position: int, code: str) -> int:
    """Length of the list at `position`; raises `FormatError` if the file is too short for it."""
    raw = data[position : position + int(code[2])]
    length = int.from_bytes(raw, "big" if code[0] == ">" else "little", signed=code[1] == "i")
    if code[1] == "f" or not raw or not 0 <= length <= len(data) - position:
        raise FormatError("is truncated or damaged: a list of corners exceeds the file", TRUNCATED)
    return length


def _polygons(columns: dict[str, _Columns], budget: Budget) -> tuple[Index, Index]:
    """Concatenated corners, and the number of sides of each polygon: faces, then triangles of strips."""
    corners, sides = [np.empty(0, np.int64)], [np.empty(0, np.int64)]
    for element in ("face", "tristrips"):
        column = columns.get(element, {})
        name = next((name for name in _CORNERS if f"{name}#" in column), None)
        if name is None or not len(column[f"{name}#"]):
            continue
        budget.draw(16 * (column[name].size + column[f"{name}#"].size))
        indices, lengths = column[name].astype(np.int64), column[f"{name}#"].astype(np.int64)
        if element == "tristrips":
            budget.draw(64 * len(indices))
            faces = _strips(indices, lengths)
            indices, lengths = faces.ravel(), np.full(len(faces), 3)
        corners.append(indices)
        sides.append(lengths)
    return np.concatenate(corners), np.concatenate(sides)


def _strips(corners: Index, lengths: Index) -> Index:
    """Triangles (m, 3) of concatenated strips; -1 starts a new strip, every other triangle is flipped."""
    starts = np.zeros(len(corners), bool)
    starts[np.cumsum(lengths)[lengths > 0] - lengths[lengths > 0]] = True
    starts[1:] |= corners[:-1] < 0
    index = np.arange(len(corners))
    within = index - np.maximum.accumulate(np.where(starts, index, 0))
    third = np.flatnonzero((within >= 2) & (corners >= 0))
    odd = within[third] % 2
    return np.stack([corners[third - 2 + odd], corners[third - 1 - odd], corners[third]], axis=1)
