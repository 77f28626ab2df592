"""
run_status.py
-------------
Reports the progress of the runs in an output folder. It can be called from another process.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from .manifest import Counts, Manifest
from .output_folder import Folder, Shard


@dataclass(frozen=True)
class Status:
    """The progress of a run, or of one of its shards.

    per_minute: shapes per minute in the latest run, up to the last shape that ended; None if none ended.
    """

    dataset: str
    shard: Shard | None
    running: bool
    counts: Counts
    per_minute: float | None

    @property
    def minutes_left(self) -> float | None:
        """Estimated minutes to the end at that rate; None without a rate, and when all shapes are done."""
        return (
            None if not self.per_minute or not self.counts.waiting else self.counts.waiting / self.per_minute
        )


def batch_status(out: str | Path) -> list[Status]:
    """The progress of the run in a folder, or of each of its shards. It may be called during a run.

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
        return Status(run.dataset if run else "", shard, folder.running(shard), counts, rate)
