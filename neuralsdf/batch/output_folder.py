"""
output_folder.py
----------------
The files in the output folder of a batch run, and the locks on them.

    models/NAME.h5                the model of each shape; NAME is the mesh's path within the data set
    dataset.h5                    all models in one file
    dataset-8x32-relu.h5          the models of one architecture, if there are several
    manifest.sqlite               the record of each shape
    manifest-2-of-8.sqlite        the records of a shard that is not merged yet
    *.lock                        locks a manifest, and names the process that writes it
    .work, .work-2-of-8           temporary files; removed after a run

Other jobs replace models/ with their own folder, and the data-set files with their own files.
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
    """Location of a job's results: a folder within the output folder, and the suffix of the files."""

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
        """The result file of a shape. Its name is UTF-8 in any locale."""
        return self.results(place) / os.fsdecode(f"{name}{place.suffix}".encode())

    def manifest(self, shard: Shard | None = None) -> Path:
        """The manifest of a whole run, or of a shard."""
        return self.path / f"manifest{_suffix(shard)}.sqlite"

    def work(self, shard: Shard | None = None) -> Path:
        """The folder for temporary files."""
        return self.path / f".work{_suffix(shard)}"

    def shards(self) -> list[Shard]:
        """The shards that have a manifest in this folder, in order."""
        found = (_SHARD.fullmatch(path.name) for path in self.path.glob("manifest-*-of-*.sqlite"))
        return sorted((int(match[1]), int(match[2])) for match in found if match)

    def parts(self) -> list[Shard | None]:
        """The shards that have a manifest in this folder; `[None]` for a run without shards."""
        return [*self.shards()] or [None]

    @contextmanager
    def locked(self, shard: Shard | None = None) -> Iterator[None]:
        """Lock this manifest against writes by other processes. The lock is released when the process ends.

        Raises `OutputError` if another process holds the lock, or if the file system does not support locks.
        """
        path = self.manifest(shard).with_suffix(".lock")
        with path.open("a+") as lock:
            # flock also excludes other file descriptors of this process, and works over NFS.
            if not _try_lock(lock.fileno(), path):
                lock.seek(0)
                holder = lock.read(200).strip() or "another process"
                raise OutputError(
                    self.path,
                    f"another run is in progress there ({holder})",
                    "wait for it, or choose another folder",
                )
            lock.truncate(0)
            lock.write(f"process {os.getpid()} on {socket.gethostname()}\n")
            lock.flush()
            yield
            lock.truncate(0)

    def running(self, shard: Shard | None = None) -> bool:
        """Whether a process is writing this manifest."""
        try:
            with self.manifest(shard).with_suffix(".lock").open() as lock:
                fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except FileNotFoundError:
            return False
        except BlockingIOError:
            return True
        return False


def _try_lock(lock: int, path: Path) -> bool:
    """Try for a second to acquire the lock, because `running` holds it briefly.

    Returns whether it succeeded.
    """
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
