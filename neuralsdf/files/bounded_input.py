"""
bounded_input.py
----------------
Input files: regular files of a bounded size, and a budget for the data decoded from them.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

from ..errors import FileError

#: Limit of decoded data: this many bytes, or this many times the size of the file if that is more.
FREE_BYTES, EXPANSION = 256 << 20, 20

#: Default size limit of an input file, in bytes.
MAX_INPUT = 4 * 10**9

_max_input = MAX_INPUT


def max_input() -> int:
    """Size limit of an input file, in bytes."""
    return _max_input


def set_max_input(max_input: int | None) -> None:
    """Set the size limit of input files, in bytes; None restores the default."""
    global _max_input
    _max_input = MAX_INPUT if max_input is None else max_input


@dataclass
class Budget:
    """Limits the bytes decoded from a file to max(256 MB, 20 times the file's size).

    A small file can describe a huge array (an archive, a repeated part, a sparse accessor), so every reader
    draws what it allocates beyond the file's own bytes, before the allocation. One budget serves the whole
    file, because limits on single items do not limit their sum.
    """

    path: Path
    error: type[FileError]
    file_bytes: int
    drawn: int = field(default=0, init=False)
    working: int = field(default=0, init=False)

    def add_file(self, path: Path) -> None:
        """Add the file at `path` to the files of the budget; raises if their total exceeds the input limit.

        A file that cannot be accessed counts as empty; the error is reported when it is opened.
        """
        with suppress(OSError, ValueError):
            self.file_bytes += path.stat().st_size
        if self.file_bytes > _max_input:
            raise self.error(
                self.path,
                f"its files have {self.file_bytes:,} bytes, more than the limit of {_max_input:,}",
                "raise `max_input=`",
            )

    def draw_working(self, count: int) -> None:
        """Draw `count` bytes that are freed before the next such call: only the largest call counts."""
        self.draw(max(count - self.working, 0))
        self.working = max(count, self.working)

    @property
    def limit(self) -> int:
        """Number of bytes that may be drawn in total."""
        return max(FREE_BYTES, EXPANSION * self.file_bytes)

    @property
    def left(self) -> int:
        """Number of bytes that may still be drawn."""
        return self.limit - self.drawn

    def draw(self, count: int) -> None:
        """Draw `count` bytes; raises the file's error once the total exceeds the limit."""
        self.drawn += int(count)
        if self.drawn > self.limit:
            raise self.error(
                self.path,
                f"decodes to more than {self.limit >> 20} MB, from {self.file_bytes:,} bytes",
                "split it into smaller files",
            )


@dataclass(frozen=True)
class InputFile:
    """A complete file: its path, content, and budget for decoded data.

    parts: contents of the files it refers to, by the name used in the file, once read.
    """

    path: Path
    data: bytes
    budget: Budget
    parts: dict[str, bytes] = field(default_factory=dict)


def read_file(
    path: str | Path,
    error: type[FileError],
    kind: str,
    largest: float = float("inf"),
    *,
    budget: Budget | None = None,
) -> InputFile:
    """Read a complete file; raises as `opened` does. budget: shared with a larger whole, or None."""
    path = Path(path)
    with opened(path, error, kind, largest) as stream:
        data = stream.read()
    return InputFile(path, data, budget or Budget(path, error, len(data)))


def read_stream(
    stream: BinaryIO, name: str, error: type[FileError], kind: str, largest: int = 1 << 29
) -> bytes:
    """Read a stream, such as standard input; raises `error` for more than `largest` bytes.

    name: used in errors. kind: expected content, such as "points".
    """
    largest = min(largest, _max_input)
    content = bytearray()
    try:
        while chunk := stream.read(1 << 20):
            content += chunk
            if len(content) > largest:
                raise error(name, f"has more than {largest:,} bytes, too many for {kind}", "give a file")
    except OSError as failure:
        raise error(name, f"cannot be read ({_reason(failure)})") from failure
    return bytes(content)


@contextmanager
def opened(
    path: str | Path,
    error: type[FileError],
    kind: str,
    largest: float = float("inf"),
    *,
    mapped: bool = False,
) -> Iterator[BinaryIO]:
    """Open a file for reading.

    Raises `error` if it is missing, a folder, not readable, or not a regular file (a pipe or terminal would
    block), if it has more than `largest` bytes or exceeds the limit of `set_max_input`, and if reading fails.
    kind: expected content, such as "a mesh". mapped: the file will be memory-mapped, so only `largest` limits
    its size.
    """
    path = Path(path)
    try:
        status = path.stat()
        if stat.S_ISDIR(status.st_mode):
            raise error(path, f"is a folder, not {kind}", "name a file in it")
        if not stat.S_ISREG(status.st_mode):
            raise error(path, "is not a regular file", "save its content to a file first")
        if status.st_size > largest:
            raise error(path, f"has {status.st_size:,} bytes, more than {kind} can have")
        if status.st_size > _max_input and not mapped:
            raise error(
                path,
                f"has {status.st_size:,} bytes, more than the limit of {_max_input:,}",
                "raise `max_input=`",
            )
        with path.open("rb") as stream:
            yield stream
    except FileNotFoundError as missing:
        raise error(path, "no such file", "check the name") from missing
    except PermissionError as denied:
        raise error(path, "permission denied", "change its permissions, or copy it") from denied
    except (OSError, ValueError) as failure:  # ValueError: a name with a null byte
        raise error(path, f"cannot be read ({_reason(failure)})", "check the name and the disk") from failure


def _reason(error: Exception) -> str:
    return os.strerror(error.errno) if isinstance(error, OSError) and error.errno else str(error)
