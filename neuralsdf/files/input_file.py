"""
input_file.py
-------------
Files that a user names as input: regular files of a bounded size, and a budget for what is decoded from
them.
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

#: Decoded data may always take this many bytes, and otherwise this many times the file's own size.
FREE_BYTES, EXPANSION = 256 << 20, 20

#: Bytes that an input file may have unless `set_max_input` says otherwise.
MAX_INPUT = 4 * 10**9

_max_input = MAX_INPUT


def max_input() -> int:
    """The bytes that an input file may have."""
    return _max_input


def set_max_input(max_input: int | None) -> None:
    """Refuse input files of more than `max_input` bytes from now on; None restores the default."""
    global _max_input
    _max_input = MAX_INPUT if max_input is None else max_input


@dataclass
class Budget:
    """The bytes that may be decoded from one file: max(256 MB, 20 times the file).

    A small file can describe a huge array (an archive, a repeated part, a sparse accessor), so every reader
    draws what it allocates beyond the file's own bytes, before it allocates them. One budget serves the whole
    file: bounds on single items do not bound their sum.
    """

    path: Path
    error: type[FileError]
    file_bytes: int
    drawn: int = field(default=0, init=False)
    working: int = field(default=0, init=False)

    def add_file(self, path: Path) -> None:
        """Let the file at `path` be a part of what the budget is of; raises for all of them as for one file.

        A file that cannot be looked at has no size: what opens it says why.
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
        """Account for `count` bytes that are free again before others are drawn here: the largest counts."""
        self.draw(max(count - self.working, 0))
        self.working = max(count, self.working)

    @property
    def limit(self) -> int:
        """How many bytes may be drawn altogether."""
        return max(FREE_BYTES, EXPANSION * self.file_bytes)

    @property
    def left(self) -> int:
        """How many bytes may still be drawn."""
        return self.limit - self.drawn

    def draw(self, count: int) -> None:
        """Account for `count` more bytes; raises the file's error once the sum is above the limit."""
        self.drawn += int(count)
        if self.drawn > self.limit:
            raise self.error(
                self.path,
                f"decodes to more than {self.limit >> 20} MB, from {self.file_bytes:,} bytes",
                "split it into smaller files",
            )


@dataclass(frozen=True)
class InputFile:
    """A whole file: where it lies, its bytes, and the budget for what is decoded from them.

    parts: the content of the files that it refers to, by the name that it gives them, once they are read.
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
    """The whole file; raises as `opened` does. budget: of what it is a part of; None for one of its own."""
    path = Path(path)
    with opened(path, error, kind, largest) as stream:
        data = stream.read()
    return InputFile(path, data, budget or Budget(path, error, len(data)))


def read_stream(
    stream: BinaryIO, name: str, error: type[FileError], kind: str, largest: int = 1 << 29
) -> bytes:
    """All that a stream gives, such as standard input; raises `error` once that is more than `largest` bytes.

    name: what an error calls it. kind: what is looked for, such as "points".
    """
    largest = min(largest, _max_input)
    content = bytearray()
    try:
        while chunk := stream.read(1 << 20):
            content += chunk
            if len(content) > largest:
                raise error(name, f"has more than {largest:,} bytes, too many for {kind}", "give a file")
    except OSError as failure:
        raise error(name, f"cannot be read ({_said(failure)})") from failure
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
    """The file, open for reading.

    Raises `error` where it is missing, a folder, may not be read, has more than `largest` bytes or more than
    `set_max_input` allows, or is something that would keep a reader waiting (a pipe, a terminal), and where
    reading it fails. kind: what is looked for, such as "a mesh". mapped: it is mapped into memory, not read,
    so only `largest` bounds it.
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
        raise error(path, "may not be read", "change its permissions, or copy it") from denied
    except (OSError, ValueError) as failure:  # ValueError: a name with a null byte
        raise error(path, f"cannot be read ({_said(failure)})", "check the name and the disk") from failure


def _said(error: Exception) -> str:
    return os.strerror(error.errno) if isinstance(error, OSError) and error.errno else str(error)
