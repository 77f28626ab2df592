"""
folder.py
---------
What lies where in the output folder of a batch run, and who may write there.

    models/NAME.h5                a model for each shape; NAME is the mesh's path within the data set
    dataset.h5                    all of them in one file
    dataset-8x32-relu.h5          those of one architecture, where there are several
    manifest.sqlite               what became of each shape
    manifest-2-of-8.sqlite        the same, of a shard that is not merged yet
    *.lock                        the process that writes the manifest beside it
    .work, .work-2-of-8           what is being written; gone after a run
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

from ..errors import OutputError

#: A shard of a run: the i-th of n, i from 1.
Shard = tuple[int, int]


@dataclass(frozen=True)
class Folder:
    """The paths in an output folder."""

    path: Path

    def dataset(self, architecture: str | None = None) -> Path:
        """The data-set file, or where there are several that of an architecture."""
        name = "" if architecture is None else "-" + re.sub(r"\W+", "-", architecture)
        return self.path / f"dataset{name}.h5"

    def datasets(self) -> list[Path]:
        """The data-set files that are there."""
        return sorted(self.path.glob("dataset*.h5"))

    @property
    def models(self) -> Path:
        """The folder of the model files."""
        return self.path / "models"

    def model(self, name: str) -> Path:
        """The model file of a shape; its name is in UTF-8 whatever the locale is."""
        return self.models / os.fsdecode(f"{name}.h5".encode())

    def manifest(self, shard: Shard | None = None) -> Path:
        """The manifest of a whole run, or of a shard."""
        return self.path / f"manifest{_suffix(shard)}.sqlite"

    def work(self, shard: Shard | None = None) -> Path:
        """The folder of what is being written."""
        return self.path / f".work{_suffix(shard)}"

    def shards(self) -> list[Shard]:
        """The shards that have a manifest here, in order."""
        found = (_SHARD.fullmatch(path.name) for path in self.path.glob("manifest-*-of-*.sqlite"))
        return sorted((int(match[1]), int(match[2])) for match in found if match)

    def parts(self) -> list[Shard | None]:
        """The shards, or else the whole run: those that have a manifest of their own making."""
        return [*self.shards()] or [None]

    @contextmanager
    def locked(self, shard: Shard | None = None) -> Iterator[None]:
        """Keep every other process from writing this manifest; the lock ends with the process, at the latest.

        Raises `OutputError` if another process has it, or the file system has no locks.
        """
        path = self.manifest(shard).with_suffix(".lock")
        with path.open("a+") as lock:
            # flock: between any two opens, those of one process too; on NFS it is a lock of the server's.
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
    """Whether the lock could be had, within a second: `under_way` holds it for a moment."""
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
