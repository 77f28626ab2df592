"""
obj.py
------
Reader of Wavefront OBJ.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from ...array_types import Index, Points
from ...files.bounded_input import Budget, InputFile
from .shared.polygon_triangulation import triangulate
from .shared.raw_mesh import NO_SURFACE, FormatError, RawMesh, broken_line, what_instead
from .shared.text_rows import Blocks, Words, numbers, unix_lines


def read_obj(file: InputFile) -> RawMesh:
    """Read `v` and `f` lines of a Wavefront OBJ, with polygons, relative indices and continued lines."""
    original = unix_lines(file.data, file.budget)
    text = _joined_lines(original, file.budget)
    blocks = Blocks(text, file.budget, end=_end(text), comments=True, original=original)
    shape = _Shape(file.budget)
    for words in blocks:
        shape.add(words, is_last=blocks.is_last)
    if not shape.sides:
        raise FormatError(what_instead(shape.vertex_count, shape.wires, shape.tetrahedra), NO_SURFACE)
    if shape.bad_vertex is not None:
        raise shape.bad_vertex
    vertices = np.concatenate(shape.vertices) if shape.vertices else np.empty((0, 3))
    corners, sides = np.concatenate(shape.corners), np.concatenate(shape.sides)
    short = shape.short
    notes = [f"{short} face{'s'[: short > 1]} with fewer than three corners skipped"] if short else []
    faces, coarse = triangulate(vertices, corners, sides, file.budget)
    return RawMesh(vertices, faces, notes + coarse)


#: Keywords of lines that a backslash continues. Names and comments may end in one, such as Windows paths.
_CONTINUED = frozenset((b"v", b"vn", b"vt", b"f", b"fo", b"l", b"p", b"t"))
_CONTINUATION = re.compile(rb"\\[ \t]*\n")


def _joined_lines(text: bytes, budget: Budget) -> bytes:
    """Join continued lines, by replacing the backslash and the line end by blanks."""
    if b"\\" not in text:
        return text
    budget.draw(2 * len(text))
    joined = bytearray(text)
    keyword, following = b"", -1  # keyword of the continued line, and offset of its continuation
    for match in _CONTINUATION.finditer(text):
        begin = text.rfind(b"\n", 0, match.start()) + 1
        line = text[begin : match.start()]
        if begin != following:
            keyword = (line.split(None, 1) or [b""])[0]
        if keyword in _CONTINUED and b"#" not in line:
            joined[match.start()] = joined[match.end() - 1] = ord(" ")
            following = match.end()
    return bytes(joined)


def _end(text: bytes) -> int:
    """End of the last line that is neither blank nor a comment."""
    end = len(text)
    while end:
        begin = text.rfind(b"\n", 0, end) + 1
        if text[begin:end].partition(b"#")[0].strip():
            return end
        end = max(begin - 1, 0)
    return 0


@dataclass
class _Shape:
    """Content read from a file so far."""

    budget: Budget
    vertices: list[Points] = field(default_factory=list)
    corners: list[Index] = field(default_factory=list)
    sides: list[Index] = field(default_factory=list)
    vertex_count: int = 0
    bad_vertex: FormatError | None = None  # raised only if there are faces
    short: int = 0
    wires: int = 0
    tetrahedra: int = 0

    def add(self, words: Words, *, is_last: bool) -> None:
        """Add the lines of the next block; raises `FormatError` for a malformed line."""
        first, counts = words.lines[:-1], np.diff(words.lines)
        is_v, is_vn, is_f, is_l, is_t = _kinds(words, first)
        malformed = (is_v | is_vn) & (counts < 4)
        if is_last and len(first) and (malformed[-1] or (is_f[-1] and _is_cut(words))):
            raise broken_line(words.line_number(int(first[-1])), words.line(len(first) - 1), True)
        if malformed.any():
            index = int(malformed.argmax())
            raise broken_line(words.line_number(int(first[index])), words.line(index), False)
        self._add_faces(words, is_f, counts, self.vertex_count + np.cumsum(is_v))
        which = (first[is_v, None] + np.arange(1, 4)).ravel()
        self.budget.draw(48 * len(which))
        try:
            self.vertices.append(numbers(words, which, np.float64, "coordinate").reshape(-1, 3))
        except FormatError as error:
            self.bad_vertex = self.bad_vertex or error
        self.vertex_count += int(is_v.sum())
        self.wires += int(is_l.sum())
        self.tetrahedra += int(is_t.sum())

    def _add_faces(self, words: Words, is_f: npt.NDArray[np.bool_], counts: Index, vertices: Index) -> None:
        """Add the corners of face lines; vertices: number of vertices up to each line."""
        is_corner = np.repeat(is_f, counts)
        is_corner[words.lines[:-1]] = False
        corners = numbers(words, np.flatnonzero(is_corner), np.int64, "vertex index", _before_slashes(words))
        sides = counts[is_f] - 1
        if (corners <= 0).any():
            # Index 0 and indices before the first vertex are invalid: -1 fails the range check later.
            relative = np.maximum(np.repeat(vertices[is_f], sides) + corners, -1)
            corners = np.where(corners > 0, corners - 1, np.where(corners < 0, relative, -1))
        else:
            corners -= 1
        is_face = sides >= 3
        self.short += int((~is_face).sum())
        if not is_face.all():
            corners, sides = corners[np.repeat(is_face, sides)], sides[is_face]
        if len(sides):
            self.corners.append(corners)
            self.sides.append(sides)
            self.budget.draw(2 * (corners.nbytes + sides.nbytes))


def _kinds(words: Words, first: Index) -> tuple[npt.NDArray[np.bool_], ...]:
    """Masks of the lines that are vertices, normals, faces, wires and tetrahedra, by their first words."""
    at, length = words.starts[first], words.ends[first] - words.starts[first]
    letter = words.data[at]
    second = words.data[np.minimum(at + 1, len(words.data) - 1)]
    one, two = length == 1, length == 2
    is_v, is_f = letter == ord("v"), letter == ord("f")
    return (
        is_v & one,
        is_v & two & (second == ord("n")),
        is_f & (one | (two & (second == ord("o")))),
        (letter == ord("l")) & one,
        (letter == ord("t")) & one,
    )


def _before_slashes(words: Words) -> Index:
    """End of each word's part before the first slash: 12/3/4 is vertex 12."""
    slashes = np.append(np.flatnonzero(words.data == ord("/")), len(words.data))
    ends: Index = np.minimum(words.ends, slashes[np.searchsorted(slashes, words.starts)])
    return ends


def _is_cut(words: Words) -> bool:
    """Whether the last line, a face, seems truncated: fewer than three corners, or corners of mixed form."""
    corners = words.line(len(words.lines) - 2).split()[1:]
    has_index = all(corner.partition(b"/")[0].lstrip(b"+-").isdigit() for corner in corners)
    return len(corners) < 3 or len({corner.count(b"/") for corner in corners}) > 1 or not has_index
