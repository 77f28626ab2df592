"""
folder.py
---------
The files in the output folder of a batch run, and the locks on them.

    models/NAME.h5                the model of each shape; NAME is the mesh's path within the data set
    dataset.h5                    all models in one file
    dataset-8x32-relu.h5          the models of one architecture, if there are several
    manifest.sqlite               the record of each shape
    manifest-2-of-8.sqlite        the same, for a shard that is not merged yet
    *.lock                        the process that writes the manifest beside it
    .work, .work-2-of-8           unfinished files; removed after a run

Another job has another folder in place of models/ and its own files in place of the data-set files.
"""

from __future__ import annotations

import fcntl
import os
import re
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from ..errors import OutputError

#: A shard of a run: the i-th of n, i from 1.
Shard = tuple[int, int]


class Place(NamedTuple):
    """Where a job's results go: a folder within the output folder, and the suffix of the files."""

    folder: str
    suffix: str


@dataclass(frozen=True)
class Folder:
    """The paths in an output folder."""

    path: Path

    def results(self, place: Place) -> Path:
        """The folder of a job's results."""
        return self.path / place.folder

    def result(self, name: str, place: Place) -> Path:
        """The result file of a shape; its name is in UTF-8 whatever the locale is."""
        return self.results(place) / os.fsdecode(f"{name}{place.suffix}".encode())

    def manifest(self, shard: Shard | None = None) -> Path:
        """The manifest of a whole run, or of a shard."""
        return self.path / f"manifest{_suffix(shard)}.sqlite"

    def work(self, shard: Shard | None = None) -> Path:
        """The folder of unfinished files."""
        return self.path / f".work{_suffix(shard)}"

    def shards(self) -> list[Shard]:
        """The shards that have a manifest here, in order."""
        found = (_SHARD.fullmatch(path.name) for path in self.path.glob("manifest-*-of-*.sqlite"))
        return sorted((int(match[1]), int(match[2])) for match in found if match)

    def parts(self) -> list[Shard | None]:
        """The shards that have a manifest here; `[None]` for a run in one piece."""
        return [*self.shards()] or [None]

    @contextmanager
    def locked(self, shard: Shard | None = None) -> Iterator[None]:
        """Keep all other processes from writing this manifest; the lock ends when the process ends.

        Raises `OutputError` if another process has it, or the file system has no locks.
        """
        path = self.manifest(shard).with_suffix(".lock")
        with path.open("a+") as lock:
            # flock: excludes other opens in this process, too; on NFS the server holds the lock.
            if not _taken(lock.fileno(), path):
                lock.seek(0)
                holder = lock.read(200).strip() or "another process"
                raise OutputError(
                    self.path,
                    f"another run is under way there ({holder})",
                    "wait for it, or choose another folder",
                )
            lock.truncate(0)
            lock.write(f"process {os.getpid()} on {socket.gethostname()}\n")
            lock.flush()
            yield
            lock.truncate(0)

    def under_way(self, shard: Shard | None = None) -> bool:
        """Whether a process is writing this manifest."""
        try:
            with self.manifest(shard).with_suffix(".lock").open() as lock:
                fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except FileNotFoundError:
            return False
        except BlockingIOError:
            return True
        return False


def _taken(lock: int, path: Path) -> bool:
    """Whether the lock was free, within a second, as `under_way` takes it for a moment."""
    for _ in range(10):
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            time.sleep(0.1)
        except OSError as error:
            raise OutputError(path, f"cannot be locked ({error.strerror})", "write elsewhere") from error
        else:
            return True
    return False


_SHARD = re.compile(r"manifest-(\d+)-of-(\d+)\.sqlite")


def _suffix(shard: Shard | None) -> str:
    return "" if shard is None else f"-{shard[0]}-of-{shard[1]}"
