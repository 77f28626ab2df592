"""
off.py
------
Reader of OFF (Object File Format), text and binary.
"""

from __future__ import annotations

import re
from array import array

import numpy as np
import numpy.typing as npt

from ...array_types import Index
from ...files.bounded_input import Budget, InputFile
from .shared.polygon_triangulation import triangulate
from .shared.raw_mesh import NO_SURFACE, TRUNCATED, FormatError, RawMesh, what_instead
from .shared.text_rows import Column, Rows, content_start, unix_lines

#: Header of an OFF: prefixes for texture coordinates, colours, normals, 4 or n coordinates.
OFF_HEADER = re.compile(rb"((?:ST|[CN4])*)(OFF)([ \t]*BINARY)?", re.IGNORECASE)


def read_off(file: InputFile) -> RawMesh:
    """Read OFF and its variants with colours, normals or texture coordinates (COFF, NOFF, STOFF)."""
    start = content_start(file.data)
    header = OFF_HEADER.match(file.data, start)
    keyword = header[1] if header else b""
    if header and (b"4" in keyword or (keyword[-1:] == b"n" and header[2] == b"OFF")):
        raise FormatError("is an OFF that is not three-dimensional", "save it as plain OFF, PLY or OBJ")
    if header and header[3]:
        return _read_binary(file, keyword.upper(), file.data.find(b"\n", header.end()) + 1)
    text = unix_lines(file.data, file.budget)
    header = OFF_HEADER.match(text, content_start(text))
    begin = header.end() if header else 0
    try:
        return _mesh(*_read_text(Rows(text, file.budget, begin=begin, comments=True), [], file), file.budget)
    except FormatError:
        mesh = _read_stream(text[begin:], keyword.upper(), file)
        if mesh is None:
            raise
        return mesh


_COMMENT, _ONE_WORD_A_LINE = re.compile(rb"#[^\n]*"), bytes.maketrans(b" \t\v\f", b"\n" * 4)


def _read_stream(text: bytes, keyword: bytes, file: InputFile) -> RawMesh | None:
    """The mesh of a text with free line breaks, or None.

    Accepted only if all faces have three or more corners and all words are used, which excludes a file with a
    missing line.
    """
    file.budget.draw(3 * len(text))
    rows = Rows(_COMMENT.sub(b"", text).translate(_ONE_WORD_A_LINE), file.budget)
    try:
        vertices, corners, sides = _read_text(rows, [Column("", None)] * _more_values(keyword), file)
        is_whole = len(sides) and sides.min() >= 3 and not rows.first_line_words()
        return _mesh(vertices, corners, sides, file.budget) if is_whole else None
    except FormatError:
        return None


def _more_values(keyword: bytes) -> int:
    """Number of values of each vertex after its coordinates."""
    return 3 * (b"N" in keyword) + 4 * (b"C" in keyword) + 2 * (b"ST" in keyword)


def _read_text(
    rows: Rows, more: list[Column], file: InputFile
) -> tuple[npt.NDArray[np.float64], Index, Index]:
    """Vertices (V, 3), corners and sides. more: further columns of a vertex, for free line breaks."""
    vertex_count, face_count = _counts(rows, len(file.data))
    table = rows.read(vertex_count, [*(Column(axis, np.float64) for axis in "xyz"), *more])
    vertices = np.column_stack([table[axis] for axis in "xyz"])
    file.budget.draw(vertices.nbytes)
    faces = rows.read(face_count, [Column("corners", np.int64, is_list=True)])
    return vertices, faces["corners"], faces["corners#"]


def _mesh(vertices: npt.NDArray[np.float64], corners: Index, sides: Index, budget: Budget) -> RawMesh:
    if not len(sides):
        raise FormatError(what_instead(len(vertices), 0, 0), NO_SURFACE)
    return RawMesh(vertices, *triangulate(vertices, corners, sides, budget))


def _counts(rows: Rows, size: int) -> tuple[int, int]:
    """Numbers of vertices and faces: on one line, possibly with the number of edges, or one per line."""
    words = rows.first_line_words()
    if not words:
        raise FormatError("lacks its counts of vertices and faces")
    names = ["vertices", "faces", *(["edges"] if words == 1 else [])]
    table = rows.read(1, [Column(name, np.int64) for name in names])
    counts = int(table["vertices"][0]), int(table["faces"][0])
    if min(counts) < 0:
        raise FormatError("lacks its counts of vertices and faces")
    if max(counts) > size:
        raise FormatError(f"is truncated: it is too short for {max(counts)} vertices or faces", TRUNCATED)
    return counts


def _read_binary(file: InputFile, keyword: bytes, begin: int) -> RawMesh:
    """Read binary OFF: 32-bit integers and floats, big-endian as defined by Geomview, or little-endian.

    Geomview writes the number of colours and the colours after the corners of each face; other programs omit
    them. The variant that matches the file's size is used.
    """
    values = 3 + _more_values(keyword)
    size = len(file.data) - begin
    file.budget.draw(8 * size)
    for order in "><":
        words = np.frombuffer(file.data, f"{order}i4", size // 4, begin)
        vertex_count, face_count = (int(count) for count in words[:2]) if len(words) > 2 else (-1, -1)
        first_face = 3 + vertex_count * values
        if min(vertex_count, face_count) < 0 or first_face + face_count > len(words):
            continue
        rest = words[first_face:].astype(np.int32)
        for has_colours in (True, False):
            faces = _binary_faces(rest, face_count, has_colours)
            if faces is not None:
                corners, sides = (part.astype(np.int64) for part in faces)
                vertices = words[3:first_face].view(f"{order}f4").reshape(-1, values)[:, :3]
                file.budget.draw(24 * len(vertices) + 8 * (len(corners) + len(sides)))
                return _mesh(vertices.astype(np.float64), corners, sides, file.budget)
    raise FormatError("is truncated or damaged: its counts do not match its size", TRUNCATED)


def _binary_faces(
    words: npt.NDArray[np.int32], count: int, has_colours: bool
) -> tuple[npt.NDArray[np.int32], Index] | None:
    """Corners of `count` faces and the number of corners of each; None if they do not use all words."""
    if not count:
        return (np.empty(0, np.int32), np.empty(0, np.int64)) if not len(words) else None
    sides = int(words[0])
    colours = int(words[1 + sides]) if has_colours and 0 <= sides < len(words) - 1 else 0
    width = 1 + sides + (1 + colours if has_colours else 0)
    if sides >= 0 and colours >= 0 and count * width == len(words):  # all faces may have the same size
        table = words.reshape(count, width)
        if (table[:, 0] == sides).all() and (not has_colours or (table[:, 1 + sides] == colours).all()):
            return table[:, 1 : 1 + sides].ravel(), np.full(count, sides)
    view, position, lengths = words.data, 0, array("q")
    corners = bytearray()
    for _ in range(count):
        if position >= len(view) or not 0 <= view[position] < len(view) - position:
            return None
        end = position + 1 + view[position]
        corners += view[position + 1 : end]
        lengths.append(view[position])
        position = end
        if has_colours:
            if position >= len(view) or not 0 <= view[position] < len(view) - position:
                return None
            position += 1 + view[position]
    if position < len(view):
        return None
    return np.frombuffer(corners, np.int32), np.array(lengths, np.int64)
