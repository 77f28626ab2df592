"""
status.py
---------
The progress of the runs in an output folder, for another process.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from .folder import Folder, Shard
from .manifest import Counts, Manifest


@dataclass(frozen=True)
class Status:
    """The progress of a run, or of one of its shards.

    per_minute: shapes that ended per minute of the latest run, up to the last of them; None if none did.
    """

    dataset: str
    shard: Shard | None
    under_way: bool
    counts: Counts
    per_minute: float | None

    @property
    def minutes_left(self) -> float | None:
        """Minutes to the end at that rate; None if there is no rate, and when everything is done."""
        return (
            None if not self.per_minute or not self.counts.waiting else self.counts.waiting / self.per_minute
        )


def batch_status(out: str | Path) -> list[Status]:
    """The progress of the run in a folder, or of each of its shards; may be called while they are under way.

    Raises `ManifestError` if the folder has no run.
    """
    folder = Folder(Path(out))
    return [_status(folder, shard) for shard in folder.parts()]


def _status(folder: Folder, shard: Shard | None) -> Status:
    with Manifest.open(folder.manifest(shard)) as manifest:
        run = manifest.run()
        counts = manifest.counts()
        ended, last = manifest.ended_since(run.started) if run else (0, 0.0)
        rate = 60 * ended / (last - run.started) if run and last > run.started else None
        return Status(run.dataset if run else "", shard, folder.under_way(shard), counts, rate)
