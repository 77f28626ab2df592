"""
atomic_write.py
---------------
Outputs appear whole or not at all: write to a temporary name in the same folder, then rename.
"""

from __future__ import annotations

import errno
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ..errors import OutputError

_REASONS = {
    errno.ENOSPC: ("no space left on the disk", "free some space or write elsewhere with `path=`"),
    errno.EDQUOT: ("the disk quota is used up", "free some space or write elsewhere with `path=`"),
    errno.EACCES: ("no permission to write there", "write elsewhere with `path=`"),
    errno.EPERM: ("no permission to write there", "write elsewhere with `path=`"),
    errno.EROFS: ("the file system is read-only", "write elsewhere with `path=`"),
    errno.ENOENT: ("its folder does not exist", "create the folder first"),
    errno.ENOTDIR: ("its folder is a file", "write elsewhere with `path=`"),
    errno.EFBIG: ("the file is larger than allowed here", "write elsewhere with `path=`"),
}


def check_writable(path: str | Path, *, force: bool, source: Path | None = None) -> None:
    """Raise `OutputError` now, before any work, if `path` could not be written later.

    An existing file is an error unless `force`; so is a missing or read-only folder, and the file
    `source` that the output is made from, even with `force`.
    """
    path = Path(path)
    if source is not None and path.exists() and source.exists() and path.samefile(source):
        raise OutputError(path, "is the input, which is never replaced", "choose another name with `path=`")
    if path.is_dir():
        raise OutputError(path, "is a folder, not a file", "name a file in it")
    if os.path.lexists(path) and not force:  # a link to nothing is one that would be replaced, too
        raise OutputError(
            path, "exists already", "replace it with `force=True`, or choose another name with `path=`"
        )
    for code, broken in (
        (errno.ENOENT, not path.parent.exists()),
        (errno.ENOTDIR, path.parent.exists() and not path.parent.is_dir()),
        (errno.EACCES, path.parent.is_dir() and not os.access(path.parent, os.W_OK | os.X_OK)),
    ):
        if broken:
            raise _output_error(path, code)


def make_folder(path: str | Path) -> Path:
    """The folder `path`, made with those above it unless it is there; `OutputError` if it cannot be."""
    path = Path(path)
    try:
        path.mkdir(parents=True, exist_ok=True)
    except FileExistsError as error:
        raise OutputError(path, "is a file, not a folder", "choose another name with `path=`") from error
    except OSError as error:
        if error.errno not in _REASONS:
            raise OutputError(path, f"could not be made ({error})") from error
        raise _output_error(path, error.errno) from error
    return path


@contextmanager
def whole_file(path: str | Path, *, force: bool = True) -> Iterator[Path]:
    """A temporary path to write; on success it becomes `path`, on any error it is removed.

    The temporary name keeps the suffix of `path`, for writers that go by it.
    Raises `OutputError` where the file cannot be written, or exists and `force` is false.
    """
    path = Path(path)
    check_writable(path, force=force)
    temporary: Path | None = None
    try:
        handle, name = tempfile.mkstemp(prefix=f".{path.stem[:100]}.", suffix=path.suffix, dir=path.parent)
        os.close(handle)
        temporary = Path(name)
        yield temporary
        umask = os.umask(0)
        os.umask(umask)
        temporary.chmod(0o666 & ~umask)  # mkstemp makes private files; an output is an ordinary one
        temporary.replace(path)
    except OSError as error:
        if error.errno in _REASONS:
            raise _output_error(path, error.errno) from error
        # h5py and Pillow wrap a full disk in an OSError of their own without its number.
        if temporary is not None and _disk_is_full(path):
            raise _output_error(path, errno.ENOSPC) from error
        raise OutputError(path, f"could not be written ({error})") from error
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)


def _output_error(path: Path, code: int) -> OutputError:
    return OutputError(path, *_REASONS[code])


def _disk_is_full(path: Path) -> bool:
    status = os.statvfs(path.parent)
    return status.f_bavail * status.f_frsize < 1 << 16
