"""
status.py
---------
How far the runs in an output folder are, seen from another process.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from .folder import Folder, Shard
from .manifest import Counts, Manifest


@dataclass(frozen=True)
class Status:
    """How far a run is, or one shard of it.

    per_minute: shapes that ended in a minute of the latest run, up to the last of them; None where none did.
    """

    dataset: str
    shard: Shard | None
    under_way: bool
    counts: Counts
    per_minute: float | None

    @property
    def minutes_left(self) -> float | None:
        """Minutes to the end at that rate; None where there is none, and when all is done."""
        return (
            None if not self.per_minute or not self.counts.waiting else self.counts.waiting / self.per_minute
        )


def batch_status(out: str | Path) -> list[Status]:
    """How far the run in a folder is, or each of its shards; may be called while they are under way.

    Raises `ManifestError` where no run has begun.
    """
    folder = Folder(Path(out))
    return [_status(folder, shard) for shard in folder.parts()]


def _status(folder: Folder, shard: Shard | None) -> Status:
    with Manifest.open(folder.manifest(shard)) as manifest:
        run = manifest.run()
        counts = manifest.counts()
        ended, last = manifest.ended_since(run.started) if run else (0, 0.0)
        rate = 60 * ended / (last - run.started) if run and ended else None
        return Status(run.dataset if run else "", shard, folder.under_way(shard), counts, rate)
