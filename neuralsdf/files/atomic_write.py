"""
atomic_write.py
---------------
Atomic output: files are written to a temporary name in the same folder, then renamed.
"""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from ..errors import OutputError

_ELSEWHERE = "write elsewhere with `path=`"

#: Reason and remedy for system errors of an output.
_REASONS = {
    errno.ENOSPC: ("no space left on the disk", f"free some space or {_ELSEWHERE}"),
    errno.EDQUOT: ("the disk quota is used up", f"free some space or {_ELSEWHERE}"),
    errno.EACCES: ("no permission to write there", _ELSEWHERE),
    errno.EPERM: ("no permission to write there", _ELSEWHERE),
    errno.EROFS: ("the file system is read-only", _ELSEWHERE),
    errno.ENOENT: ("its folder does not exist", "create the folder first"),
    errno.ENOTDIR: ("its folder is a file", _ELSEWHERE),
    errno.ELOOP: ("its path has a cycle of links", _ELSEWHERE),
    errno.EFBIG: ("the file is larger than allowed here", _ELSEWHERE),
    errno.ENAMETOOLONG: ("its name is too long", "choose a shorter one with `path=`"),
}


def check_writable(path: str | Path, *, force: bool, source: Path | None = None) -> None:
    """Raise `OutputError`, before any work, if `path` could not be written later.

    Errors are an existing file, unless `force`; a folder that is not writable; and the file `source` that the
    output is made from, even with `force`.
    """
    path = Path(path)
    with _explained(path):
        if source is not None and path.exists() and source.exists() and path.samefile(source):
            raise OutputError(
                path, "is the input, which is never replaced", "choose another name with `path=`"
            )
        if path.is_dir():
            raise OutputError(path, "is a folder, not a file", "name a file in it")
        if os.path.lexists(path) and not force:  # a dangling link would be replaced, too
            raise OutputError(
                path, "exists already", "replace it with `force=True`, or choose another name with `path=`"
            )
        with suppress(FileNotFoundError):
            path.lstat()  # fails for an impossible name
        # Only a test write is conclusive: some file systems refuse what the permissions allow.
        with tempfile.TemporaryFile(dir=path.parent):
            pass


def make_folder(path: str | Path) -> Path:
    """Create the folder `path` and its parents if missing; raises `OutputError` if that fails."""
    path = Path(path)
    with _explained(path):
        try:
            path.mkdir(parents=True, exist_ok=True)
        except FileExistsError as error:
            link = path.is_symlink() and not path.exists()
            reason = "is a dangling link" if link else "is a file, not a folder"
            raise OutputError(path, reason, "choose another name with `path=`") from error
    return path


@contextmanager
def made_folder(path: str | Path) -> Iterator[Path]:
    """Like `make_folder`; folders that it created are removed again if they stay empty."""
    path = Path(path)
    missing = [folder for folder in (path, *path.parents) if not folder.exists()]
    try:
        yield make_folder(path)
    finally:
        with suppress(OSError):
            for folder in missing:
                folder.rmdir()


@contextmanager
def whole_file(path: str | Path, *, force: bool = True) -> Iterator[Path]:
    """A temporary path to write to; on success it is renamed to `path`, on any error it is removed.

    The temporary name keeps the suffix of `path`, for writers that depend on it.
    Raises `OutputError` if the file cannot be written, or exists and `force` is false.
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
        temporary.chmod(0o666 & ~umask)  # mkstemp makes private files
        temporary.replace(path)
    except OSError as error:
        # h5py and Pillow report a full disk as an OSError without errno.
        if error.errno not in _REASONS and temporary is not None and _disk_is_full(path):
            raise _output_error(path, errno.ENOSPC) from error
        raise _output_error(path, error.errno, error.strerror or str(error)) from error
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)


@contextmanager
def whole_folder(path: str | Path) -> Iterator[Path]:
    """A temporary folder to fill; on success it replaces the folder `path`, on any error it is removed.

    It is beside `path`, and named after it: a killed process leaves it, and the next call removes it. Raises
    `OutputError` if it cannot be written, if `path` is a file, and if another process is writing it.
    """
    path = Path(path)
    with _explained(path):
        path = Path(os.path.realpath(path))  # `resolve` raises RuntimeError for a loop
        if path.exists() and not path.is_dir():
            raise OutputError(path, "is a file, not a folder", "choose another name with `path=`")
    draft, old = (path.with_name(f".{path.name[:100]}.{what}") for what in ("unfinished", "replaced"))
    with made_folder(path.parent), _locked_folder(draft, path):
        try:
            _empty(draft)
            yield draft
            shutil.rmtree(old, ignore_errors=True)
            if path.exists():
                path.rename(old)
            draft.rename(path)
        except OSError as error:
            raise _output_error(path, error.errno, error.strerror or str(error)) from error
        finally:
            if old.exists() and not path.exists():  # interrupted between the two
                old.rename(path)
            shutil.rmtree(draft, ignore_errors=True)
            shutil.rmtree(old, ignore_errors=True)


@contextmanager
def _locked_folder(folder: Path, path: Path) -> Iterator[None]:
    """Create a folder if missing, and keep other processes from `whole_folder(path)`."""
    with _explained(path):
        folder.mkdir(exist_ok=True)
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            os.close(descriptor)
            raise OutputError(path, "is being written by another process", "wait for it") from error
    try:
        yield
    finally:
        os.close(descriptor)


def _empty(folder: Path) -> None:
    for entry in folder.iterdir():
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry)
        else:
            entry.unlink()


@contextmanager
def _explained(path: Path) -> Iterator[None]:
    """Convert system errors about an output or its folder to `OutputError`."""
    try:
        yield
    except OSError as error:
        raise _output_error(path, error.errno, error.strerror) from error
    except ValueError as error:
        raise OutputError(path, "its name has a null character", "choose another with `path=`") from error


def _output_error(path: Path, code: int | None, text: str | None = None) -> OutputError:
    """The `OutputError` for a system error; text: its message, for codes that are not in `_REASONS`."""
    if code == errno.ENOENT and path.parent.is_dir():
        return OutputError(path, "nothing can be created in its folder", _ELSEWHERE)
    if code == errno.ENOENT and path.parent.is_symlink():
        return OutputError(path, "its folder is a dangling link", _ELSEWHERE)
    if code in _REASONS:
        return OutputError(path, *_REASONS[code])
    return OutputError(path, f"could not be written ({text})", _ELSEWHERE)


def _disk_is_full(path: Path) -> bool:
    status = os.statvfs(path.parent)
    return status.f_bavail * status.f_frsize < 1 << 16
