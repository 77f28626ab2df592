"""
stl.py
------
Reader of STL, binary and text.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ...array_types import Index, Points
from ...files.bounded_input import InputFile
from .shared.raw_mesh import NO_SURFACE, TRUNCATED, FormatError, RawMesh, printable
from .shared.text_rows import Blocks, Words, numbers, unix_lines

_RECORD = np.dtype([("normal", "<f4", 3), ("corners", "<f4", (3, 3)), ("attribute", "<u2")])

#: Face counts written by programs that do not know the count in advance.
_UNKNOWN = (0, 0xFFFFFFFF)

#: Padding at the end of a file: whitespace, null bytes, and the Ctrl-Z of DOS.
_PADDING = b"\0\x1a \t\r\n\v\f"


def read_stl(file: InputFile) -> RawMesh:
    """Read STL, binary or text; complete facets decide, not the last line or the exact size."""
    file.budget.draw(len(file.data))
    text = file.data.rstrip(_PADDING)
    is_text = not is_binary_stl(file.data) and starts_as_text_stl(text) and b"\0" not in text
    vertices, notes = _text_corners(file, text) if is_text else _binary_corners(file)
    if not len(vertices):
        raise FormatError("has no faces", NO_SURFACE)
    return RawMesh(vertices, np.arange(len(vertices)).reshape(-1, 3), notes)


def is_binary_stl(data: bytes) -> bool:
    """Whether the size matches the face count of a binary STL exactly."""
    return len(data) >= 84 and len(data) == 84 + 50 * int.from_bytes(data[80:84], "little")


def starts_as_text_stl(data: bytes) -> bool:
    """Whether the first word is one that a text STL can start with."""
    return data[:256].lstrip()[:5].lower() in (b"solid", b"facet")


def _binary_corners(file: InputFile) -> tuple[Points, list[str]]:
    """Corners (3 F, 3) of a binary STL; if its face count is unknown or too low, its size decides."""
    data = file.data
    promised = int.from_bytes(data[80:84], "little")
    held, rest = divmod(max(len(data) - 84, 0), 50)
    is_unknown = promised in _UNKNOWN
    if (
        len(data) < 84
        or (promised > held and not is_unknown)
        or (is_unknown and (rest > 2 or data[len(data) - rest :].strip(_PADDING)))
    ):
        raise FormatError(
            f"is truncated, or not an STL: its header says {promised} faces ({84 + 50 * promised} bytes), "
            f"but it has {len(data)} bytes",
            TRUNCATED,
        )
    count = held if is_unknown or not rest else promised
    file.budget.draw(150 * count)
    corners = np.frombuffer(data, _RECORD, count, 84)["corners"].reshape(-1, 3).astype(np.float64)
    after = len(data) - 84 - 50 * count
    notes = []
    if count != promised and count:
        notes.append(f"header says {promised} faces, but the file holds {count}")
    if after > 2:
        notes.append(f"{after} bytes after the last face ignored")
    return corners, notes


def _text_corners(file: InputFile, text: bytes) -> tuple[Points, list[str]]:
    """Corners (3 F, 3) of a text STL, three per facet; text between facets is ignored."""
    blocks = Blocks(unix_lines(text, file.budget), file.budget, whole_lines=False, working_bytes=64)
    corners: list[Points] = []
    while True:
        marks = _Marks.of(blocks.words)
        if len(marks.ends):
            corners.append(_whole_facets(blocks.words, marks))
            file.budget.draw(2 * corners[-1].nbytes)
            blocks.advance(int(blocks.words.ends[marks.ends[-1]]))
        elif blocks.is_last:
            break
        else:
            blocks.grow()
    if marks.is_cut(is_start=not corners):
        last = printable(text.splitlines()[-1])
        raise FormatError(f"is truncated: it ends in '{last}', in the middle of a facet or solid", TRUNCATED)
    is_ended = len(marks.closings) or not corners
    notes = [] if is_ended else ["no 'endsolid' at the end: the file may be incomplete"]
    return np.concatenate(corners) if corners else np.empty((0, 3)), notes


def _code(word: bytes) -> np.uint64:
    return np.uint64(int.from_bytes(word, "little"))


#: Bits that make letters lower case, and masks of a word's bytes by its length.
_LOWER, _FIRST = _code(b" " * 8), np.array([*(_code(b"\xff" * n) for n in range(9)), 0], np.uint64)
_VERTEX, _NORMAL, _FACET, _SOLID, _END = map(_code, (b"vertex", b"normal", b"facet", b"solid", b"end"))
_END_FACET, _END_SOLID = _code(b"endfacet"), _code(b"endsolid")


@dataclass(frozen=True, eq=False)
class _Marks:
    """Keywords of a block, as word indices; `ends`: ends of facets, `closings`: ends of solids."""

    is_letter: npt.NDArray[np.bool_]
    vertices: Index
    facets: Index
    ends: Index
    openings: Index
    closings: Index

    @classmethod
    def of(cls, words: Words) -> _Marks:
        """Find the keywords. Names of solids may contain any of them, except "facet normal"."""
        is_letter = (words.data[words.starts] | 0x20) - np.uint8(ord("a")) < 26
        which = np.flatnonzero(is_letter)
        codes = _codes(words, which)
        previous, following = np.append(codes[:1] * 0, codes[:-1]), np.append(codes[1:], codes[:1] * 0)
        index = np.arange(len(which))
        is_first = np.zeros(len(is_letter), bool)
        is_first[words.lines[:-1]] = True
        is_first = is_first[which]
        is_end = (codes == _END_FACET) | ((codes == _FACET) & (previous == _END))
        is_facet = (codes == _FACET) & ~is_end & ((following == _NORMAL) | is_first)
        last_facet, last_end = (np.maximum.accumulate(np.where(at, index, -1)) for at in (is_facet, is_end))
        is_end &= last_facet > np.append(-1, last_end)[:-1]  # only if a facet is open
        return cls(
            is_letter,
            which[(codes == _VERTEX) & (is_first | (last_facet > last_end))],
            which[is_facet],
            which[is_end],
            which[(codes == _SOLID) & is_first],
            which[(codes == _END_SOLID) | ((codes == _SOLID) & (previous == _END))],
        )

    def is_cut(self, *, is_start: bool) -> bool:
        """Whether the words after the last complete facet belong to an unfinished facet or solid."""
        if len(self.vertices) or len(self.facets):
            return True
        if len(self.closings):
            return bool(len(self.openings) and self.openings[-1] > self.closings[-1])
        return len(self.is_letter) > 0 or is_start


def _codes(words: Words, which: Index) -> npt.NDArray[np.uint64]:
    """Words in lower case, with their bytes as an integer; 0 for words of more than eight bytes."""
    length = words.ends[which] - words.starts[which]
    padded = np.append(words.data, np.zeros(8, np.uint8))
    eight = np.ndarray(len(words.data), "<u8", padded.data, strides=(1,))  # eight bytes from every offset
    codes: npt.NDArray[np.uint64] = (eight[words.starts[which]] | _LOWER) & _FIRST[np.minimum(length, 9)]
    return codes


def _whole_facets(words: Words, marks: _Marks) -> Points:
    """Corners (3 F, 3) of the F facets that end in this block."""
    stop = int(marks.ends[-1])
    vertices = marks.vertices[marks.vertices < stop]
    counts = np.diff(np.searchsorted(vertices, marks.ends), prepend=0)
    if (counts != 3).any():
        facet = int((counts != 3).argmax())
        line = words.line_number(int(marks.ends[facet]))
        raise FormatError(f"line {line}: a facet with {counts[facet]} vertices instead of 3")
    # Three words, followed by a keyword.
    is_good = (np.append(vertices[1:], stop) - vertices >= 4) & marks.is_letter[
        np.minimum(vertices + 4, stop)
    ]
    if not is_good.all():
        vertex = int(vertices[is_good.argmin()])
        raise FormatError(f"line {words.line_number(vertex)}: a vertex without exactly three coordinates")
    which = (vertices[:, None] + np.arange(1, 4)).ravel()
    return numbers(words, which, np.float64, "coordinate").reshape(-1, 3)
