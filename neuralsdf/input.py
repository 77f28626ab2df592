"""
input.py
--------
Files that a person names to be read: ordinary ones, of a bounded size.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from .errors import FileError


@contextmanager
def opened(
    path: str | Path, error: type[FileError], kind: str, largest: float = float("inf")
) -> Iterator[BinaryIO]:
    """The file, open for reading.

    Raises `error` where it is missing, a folder, may not be read, has more than `largest` bytes, or is
    something that would keep a reader waiting (a pipe, a terminal), and where reading it fails. kind: what is
    looked for, such as "a mesh".
    """
    path = Path(path)
    try:
        status = path.stat()
        if stat.S_ISDIR(status.st_mode):
            raise error(path, f"is a folder, not {kind}", "name a file in it")
        if not stat.S_ISREG(status.st_mode):
            raise error(path, "is no ordinary file", "save what it gives as a file first")
        if status.st_size > largest:
            raise error(path, f"has {status.st_size:,} bytes, more than {kind} can have")
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
