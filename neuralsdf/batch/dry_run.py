"""
dry_run.py
----------
Predicts the work and the duration of a run. Nothing is written to the output folder.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from .engine_interface import Engine
from .find_meshes import find_sources
from .job import Job, Task, difference
from .manifest import Manifest
from .output_folder import Folder, Shard
from .run_batch import plan
from .shape_record import Record

#: Maximum number of meshes to convert for an estimate, if conversions fail.
_TRIALS = 3


@dataclass(frozen=True)
class Preview:
    """The predicted work of a run.

    shapes: number in the data set or the shard. to_do: shapes to be processed. to_check: shapes whose file
    may have changed and is to be hashed. ignored: files that are not meshes. seconds_each: time per shape in
    one worker; None if unknown. unlisted: as in `Sources`.
    """

    shapes: int
    to_do: int
    to_check: int
    ignored: int
    seconds_each: float | None
    unlisted: tuple[str, ...] = ()


def preview(
    dataset: str,
    out: str | Path,
    job: Job,
    engine: Callable[[], Engine],
    *,
    shard: Shard | None = None,
    retry_failed: bool = False,
) -> Preview:
    """Predict the work of `run_batch`.

    The time per shape is the mean over the shapes that are done, or else the time of a mesh of median size,
    which is processed for this. Raises `UsageError` as `find_sources` does.
    """
    sources = find_sources(dataset, out).shard(shard)
    folder = Folder(Path(out))
    known = _known(folder, shard, job)
    records = [known.get(name) or Record(name, str(path)) for name, path in sources.meshes]
    tasks = list(plan(records, job, sources, folder, shard, retry_failed=retry_failed))
    to_do = [task for task in tasks if not task.settled]
    done = [sum(record.seconds.values()) for record in records if record.state == "done"]
    each = sum(done) / len(done) if done else _trial(to_do, job, engine)
    to_check = len(tasks) - len(to_do)
    return Preview(len(records), len(to_do), to_check, sources.ignored, each, sources.unlisted)


def _known(folder: Folder, shard: Shard | None, job: Job) -> dict[str, Record]:
    """The records of an earlier run of the same job and options."""
    if not folder.manifest(shard).exists():
        return {}
    with Manifest.open(folder.manifest(shard)) as manifest:
        run = manifest.run()
        if run is None or run.job != job.name or difference(job.options(), run.options) is not None:
            return {}
        return {record.name: record for record in manifest.records()}


def _trial(tasks: list[Task], job: Job, engine: Callable[[], Engine]) -> float | None:
    """Seconds for a shape of median size."""
    by_size = sorted(tasks, key=lambda task: task.record.source_bytes or 0)
    with tempfile.TemporaryDirectory(prefix="neuralsdf-") as folder, closing(engine()) as workers:
        for task in by_size[len(by_size) // 2 :][:_TRIALS]:
            result = Folder(Path(folder)).result("trial", job.place)
            workers.submit(Task(task.record, False, str(result), f"{folder}/draft{job.place.suffix}"))
            while not (ended := workers.wait()):
                pass
            if ended[0].state == "done":
                return sum(ended[0].seconds.values())
    return None
