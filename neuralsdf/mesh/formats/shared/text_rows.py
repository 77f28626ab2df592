"""
text_rows.py
------------
Shared by the text formats: converts lines of words to arrays of numbers, by blocks of lines.

As Python objects, the words of a file would take forty times its size. Here, a block of whole lines is
represented by the offsets of its words, and only words that are numbers are converted, all at once.
"""

from __future__ import annotations

import codecs
import re
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from ....array_types import Index
from ....files.bounded_input import Budget, InputFile
from .raw_mesh import TRUNCATED, FormatError, printable

#: Size of a block in bytes, and its working memory in bytes per byte.
BLOCK, WORKING_BYTES = 1 << 18, 32

_IS_BLANK = np.zeros(256, bool)
_IS_BLANK[list(b" \t\n\v\f\r")] = True


def plain_text(file: InputFile) -> InputFile:
    """Remove a byte order mark, and convert UTF-16 to UTF-8; other files are unchanged."""
    encoding = _utf16(file.data)
    if encoding is not None:
        file.budget.draw(4 * len(file.data))
        return replace(file, data=file.data.decode(encoding, "replace").encode())
    if file.data.startswith(codecs.BOM_UTF8):
        return replace(file, data=file.data.removeprefix(codecs.BOM_UTF8))
    return file


def _utf16(data: bytes) -> str | None:
    """Name of the encoding if the data is UTF-16 text, with or without a byte order mark, else None."""
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return "utf-16"
    head = data[: min(len(data), 512) & ~1]
    for name, high, low in (("utf-16-le", head[1::2], head[::2]), ("utf-16-be", head[::2], head[1::2])):
        if len(high) >= 8 and not high.strip(b"\0") and b"\0" not in low:
            return name
    return None


#: The patterns are unambiguous, so they match in linear time.
_BLANKS, _LINE = re.compile(rb"\s*"), re.compile(rb"[^\r\n]*")
_GAP, _LINE_END = re.compile(rb"\s"), re.compile(rb"\n")


def content_start(data: bytes) -> int:
    """Offset of the first word that is not in a comment."""
    position = 0
    while True:
        position += len(_BLANKS.match(data, position)[0])  # type: ignore[index]  # it always matches
        if data[position : position + 1] != b"#":
            return position
        position += len(_LINE.match(data, position)[0])  # type: ignore[index]


def unix_lines(text: bytes, budget: Budget) -> bytes:
    """Convert line ends of Windows and old Macs to \\n."""
    if b"\r" not in text:
        return text
    budget.draw(2 * len(text))
    return text.replace(b"\r\n", b"\n").replace(b"\r", b"\n")


@dataclass(frozen=True, eq=False)
class Words:
    """Positions of the words of a block of whole lines.

    data: the block's bytes, uint8. starts, ends: (W,) offsets of each word's first byte and of the byte after
    it. lines: (L + 1,) first word of each non-blank line, and W at the end. original, offset: the whole text
    as in the file, and the offset of the block in it.
    """

    data: npt.NDArray[np.uint8]
    starts: Index
    ends: Index
    lines: Index
    original: bytes
    offset: int

    def word(self, index: int) -> bytes:
        """Bytes of a word."""
        return self.data[self.starts[index] : self.ends[index]].tobytes()

    def line(self, index: int) -> bytes:
        """Bytes of a non-blank line, from its first to its last word."""
        first, last = self.lines[index], self.lines[index + 1] - 1
        return self.data[self.starts[first] : self.ends[last]].tobytes()

    def line_number(self, word: int) -> int:
        """Line number of a word in the text, from 1."""
        return self.original.count(b"\n", 0, self.offset + int(self.starts[word])) + 1


def words_of(text: bytes, begin: int, end: int, original: bytes, *, comments: bool) -> Words:
    """Find the words of text[begin:end]; comments: whether '#' starts a comment.

    original: the text used for line numbers, if its line ends differ.
    """
    data = np.frombuffer(text, np.uint8, end - begin, begin)
    is_newline = data == ord("\n")
    is_blank = np.ones(len(data) + 2, bool)
    is_blank[1:-1] = _IS_BLANK[data]
    if comments and (is_mark := data == ord("#")).any():
        index = np.arange(len(data), dtype=np.int32 if len(data) < 1 << 31 else np.int64)
        mark, newline = (np.maximum.accumulate(np.where(at, index, -1)) for at in (is_mark, is_newline))
        is_blank[1:-1] |= mark > newline
    edges = np.flatnonzero(is_blank[1:] != is_blank[:-1])
    starts, ends = edges[::2], edges[1::2]
    breaks = np.searchsorted(starts, np.flatnonzero(is_newline))
    lines = np.concatenate([[0], breaks, [len(starts)]])
    lines = lines[np.append(True, lines[1:] > lines[:-1])]
    return Words(data, starts, ends, lines, original, begin)


class Blocks:
    """Splits a text into blocks of whole lines; the memory of a block is drawn from the budget.

    If a record continues after the block, the caller advances to the start of the record, or grows the block
    if it starts with the record. So each byte is read a bounded number of times.
    """

    def __init__(
        self,
        text: bytes,
        budget: Budget,
        *,
        begin: int = 0,
        end: int | None = None,
        comments: bool = False,
        original: bytes | None = None,
        whole_lines: bool = True,
        working_bytes: int = WORKING_BYTES,
    ) -> None:
        """comments: '#' starts a comment. original: the text used for line numbers, if its line ends differ.
        whole_lines: false if blocks may end between any words. working_bytes: memory per byte of a block.
        """
        self._text, self._budget, self._comments = text, budget, comments
        self._original = text if original is None else original
        self._end = len(text) if end is None else end
        self._begin, self._size = begin, BLOCK
        self._gap, self._working_bytes = _LINE_END if whole_lines else _GAP, working_bytes
        self._words: Words | None = None

    @property
    def words(self) -> Words:
        """Words of the current block."""
        if self._words is None:
            stop = self._stop
            self._budget.draw_working(self._working_bytes * (stop - self._begin))
            self._words = words_of(self._text, self._begin, stop, self._original, comments=self._comments)
        return self._words

    @property
    def is_last(self) -> bool:
        """Whether the current block ends at the end of the text."""
        return self._begin + len(self.words.data) == self._end

    @property
    def _stop(self) -> int:
        gap = self._gap.search(self._text, self._begin + self._size, self._end)
        return gap.end() if gap else self._end

    def advance(self, count: int | None = None) -> None:
        """Start the next block `count` bytes after the start of the current one, by default at its end."""
        self._begin += len(self.words.data) if count is None else count
        self._size, self._words = BLOCK, None

    def grow(self) -> None:
        """At least double the size of the current block."""
        self._size, self._words = 2 * len(self.words.data), None

    def __iter__(self) -> Iterator[Words]:
        """The remaining blocks."""
        while self._begin < self._end:
            yield self.words
            self.advance()


def numbers(
    words: Words, which: Index, dtype: type[np.int64] | type[np.float64], what: str, ends: Any = None
) -> npt.NDArray[Any]:
    """Convert words, given by ascending indices (n,), to numbers (n,); integers out of range are clipped.

    ends: ends of the words, if before the next blank. what: name of the value in errors. Raises `FormatError`
    for a word that is not a number.
    """
    if not len(which):
        return np.empty(0, dtype)
    starts, stops = words.starts[which], (words.ends if ends is None else ends)[which]
    low, high = int(starts[0]), int(stops[-1])
    edges = np.column_stack([starts, stops]).ravel()
    is_inside = np.repeat(np.arange(len(edges) - 1) % 2 == 0, np.diff(edges))
    text = np.where(is_inside, words.data[low:high], np.uint8(ord(" "))).tobytes()
    with warnings.catch_warnings():
        warnings.simplefilter("error", DeprecationWarning)  # numpy < 2.3 warns and returns a partial result
        try:
            values = np.fromstring(text, dtype, sep=" ")
        except (ValueError, DeprecationWarning):
            values = np.empty(0, dtype)
    if len(values) != len(which):
        values = np.empty(len(which), dtype)
        for place, index, start, stop in zip(
            range(len(which)), which.tolist(), starts.tolist(), stops.tolist(), strict=True
        ):
            values[place] = _converted(words, index, words.data[start:stop].tobytes(), dtype, what)
    return values


def _converted(
    words: Words, index: int, word: bytes, dtype: type[np.int64] | type[np.float64], what: str
) -> float:
    """Convert one word to a number; raises as `numbers` does."""
    try:
        return _number(word, dtype)
    except ValueError as error:
        line = words.line_number(index)
        raise FormatError(f"line {line}: invalid {what} '{printable(word)}'") from error


def _number(word: bytes, dtype: type[np.int64] | type[np.float64]) -> float:
    """Convert one word to a number as Python does; integers may be written as 2.0."""
    if b"_" in word:
        raise ValueError("an underscore")
    if dtype is np.float64:
        return float(word)
    try:
        value = int(word)
    except ValueError:
        if not float(word).is_integer():
            raise
        value = int(float(word))
    limits = np.iinfo(np.int64)
    return min(max(value, limits.min), limits.max)


@dataclass(frozen=True)
class Column:
    """A column of values, or of lists (length, then values); dtype: None for a column to skip."""

    name: str
    dtype: type[np.int64] | type[np.float64] | None = None
    is_list: bool = False


class Rows:
    """Reads tables from a text, one row per line. Extra words of a line are ignored; a row with too few
    words on its line continues on the next line.
    """

    def __init__(self, text: bytes, budget: Budget, *, begin: int = 0, comments: bool = False) -> None:
        self._blocks = Blocks(text, budget, begin=begin, comments=comments)
        self._budget = budget
        self._line = 0  # next line of the block

    def first_line_words(self) -> int:
        """Number of words in the next line, 0 at the end."""
        while self._line == len(self._blocks.words.lines) - 1 and not self._blocks.is_last:
            self._next_block()
        lines = self._blocks.words.lines[self._line : self._line + 2]
        return int(lines[-1] - lines[0])

    def read(self, count: int, columns: Sequence[Column]) -> dict[str, npt.NDArray[Any]]:
        """Read columns of the next `count` rows: name -> values, and for lists name + "#" -> lengths.

        Raises `FormatError` if there are fewer rows, or a word is not a number of the right type.
        """
        parts: list[dict[str, npt.NDArray[Any]]] = [_values(self._blocks.words, _Walk.empty(columns))]
        while count:
            words = self._blocks.words
            walk = self._next_rows(words, count, columns)
            parts.append(_values(words, walk))
            self._budget.draw(2 * sum(values.nbytes for values in parts[-1].values()))
            count -= len(walk.begins)
            if count and self._blocks.is_last:
                raise FormatError(f"is truncated: {count} rows are missing at its end", TRUNCATED)
            if count:
                self._next_block()
        return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}

    def _next_block(self) -> None:
        """Start the next block after the last row that was read."""
        words = self._blocks.words
        if self._line == len(words.lines) - 1:
            self._blocks.advance()
        elif self._line == 0:
            self._blocks.grow()
        else:
            self._blocks.advance(int(words.starts[words.lines[self._line]]))
        self._line = 0

    def _next_rows(self, words: Words, count: int, columns: Sequence[Column]) -> _Walk:
        """The next rows, at most `count`, that are complete in this block."""
        stop = min(self._line + count, len(words.lines) - 1)
        begins, ends = words.lines[self._line : stop], words.lines[self._line + 1 : stop + 1]
        try:
            walk = _Walk.of(words, begins, ends, columns)
            good = len(begins) if walk.is_good.all() else int(walk.is_good.argmin())
        except FormatError:  # possibly because rows are not lines
            good = 0
        if good == len(begins):
            self._line += good
            return walk
        rows = begins[:good].tolist()
        self._line += good
        self._add_joined_rows(words, count, columns, rows)
        return _Walk.of(words, np.array(rows, np.int64), np.full(len(rows), len(words.starts)), columns)

    def _add_joined_rows(self, words: Words, count: int, columns: Sequence[Column], rows: list[int]) -> None:
        """Append the first words of further rows, which may span lines, until there are `count`."""
        lines, limit = words.lines, len(words.starts)
        while len(rows) < count and self._line < len(lines) - 1:
            begin = word = int(lines[self._line])
            for column in columns:
                if column.is_list and word < limit:
                    length = int(_converted(words, word, words.word(word), np.int64, "count"))
                    word += min(max(length, 0), limit)
                word += 1
            if word > limit:
                return
            rows.append(begin)
            self._line = int(np.searchsorted(lines, word))


@dataclass(frozen=True, eq=False)
class _Walk:
    """Starts of rows, whether each is complete, and first words and lengths of each wanted column."""

    begins: Index
    is_good: npt.NDArray[np.bool_]
    columns: list[tuple[Column, Index, Index | None]]

    @classmethod
    def of(cls, words: Words, begins: Index, ends: Index, columns: Sequence[Column]) -> _Walk:
        """The rows that start at words `begins`; they are complete if they end before words `ends`."""
        position, found = begins.copy(), []
        for column in columns:
            lengths = None
            first = position
            if column.is_list:
                is_here = position < ends
                lengths = np.zeros(len(begins), np.int64)
                lengths[is_here] = numbers(words, position[is_here], np.int64, "count").clip(
                    0, len(words.starts)
                )
                position = np.where(is_here, position + lengths, len(words.starts))
            if column.dtype is not None:
                found.append((column, first, lengths))
            position = position + 1
        return cls(begins, position <= ends, found)

    @classmethod
    def empty(cls, columns: Sequence[Column]) -> _Walk:
        """No rows, with the given columns."""
        none = np.empty(0, np.int64)
        wanted = [(column, none, none if column.is_list else None) for column in columns if column.dtype]
        return cls(none, none.astype(bool), wanted)


def _values(words: Words, walk: _Walk) -> dict[str, npt.NDArray[Any]]:
    """Numbers of each column of rows that are all complete."""
    values: dict[str, npt.NDArray[Any]] = {}
    for column, positions, lengths in walk.columns:
        assert column.dtype is not None
        which, what = positions, "coordinate" if column.dtype is np.float64 else "count"
        if lengths is not None:
            values[f"{column.name}#"] = lengths
            before = np.cumsum(lengths) - lengths
            which, what = (
                np.repeat(positions + 1 - before, lengths) + np.arange(lengths.sum()),
                "vertex index",
            )
        values[column.name] = numbers(words, which, column.dtype, what)
    return values
