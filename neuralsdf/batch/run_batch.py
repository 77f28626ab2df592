"""
run_batch.py
------------
The driver of a batch: it determines which shapes to process, and performs a job on each of them.

    sources -> manifest -> tasks -> engine -> records -> manifest -> combined files
"""

from __future__ import annotations

import shutil
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

from ..errors import UsageError
from ..files.atomic_write import make_folder
from .engine_interface import Engine
from .find_meshes import Sources, find_sources
from .job import Job, Task, difference
from .manifest import Counts, Manifest, Run
from .output_folder import Folder, Shard
from .retry_rule import Attempts
from .shape_record import Record
from .skip_finished import file_stamp, is_settled


class Progress(NamedTuple):
    """Total number of shapes that are done and that have failed, and number left to check in this run."""

    done: int
    failed: int
    left: int


#: Called with the record of a shape (None if an earlier result is still valid), and the progress of the run.
Report = Callable[[Record | None, Progress], None]


@dataclass(frozen=True)
class Summary:
    """The outcome of a run.

    counts: of the whole manifest. done_now, failed_now: number of shapes in this run. removed: number of
    shapes that are no longer in the data set. ignored: number of files that are not meshes. files: the
    combined files of the job; none for a shard. unlisted: folders of the data set that could not be listed,
    each with the reason.
    """

    counts: Counts
    done_now: int
    failed_now: int
    removed: int
    ignored: int
    files: tuple[Path, ...]
    seconds: float
    unlisted: tuple[str, ...] = ()


def run_batch(
    dataset: str,
    out: str | Path,
    job: Job,
    engine: Callable[[], Engine],
    *,
    sources: Sources | None = None,
    shard: Shard | None = None,
    retry_failed: bool = False,
    force: bool = False,
    report: Report = lambda record, progress: None,
) -> Summary:
    """Perform a job for all meshes of a data set (see `find_sources`); sources: these, if they are known.

    Results of an earlier run in the same folder are reused unless the mesh has changed. Shapes that failed
    are retried if their mesh has changed, if their process was killed externally, or with `retry_failed`. So
    the same call continues a run that was stopped for any reason, and the result is the same as without the
    interruption. force: process all shapes again if the folder contains a run with other options.

    Raises `UsageError` if the folder contains a different run, `OutputError` if it cannot be written or
    another run is in progress in it.
    """
    began = time.monotonic()
    sources = (sources or find_sources(dataset, out)).shard(shard)
    folder = Folder(make_folder(out))
    _check_split(folder, shard)
    with (
        folder.locked(shard),
        _work(folder, job, shard),
        Manifest.create(folder.manifest(shard)) as manifest,
    ):
        _check_same_run(manifest, folder, sources, job, force=force)
        run = Run(job.name, dataset, job.options(), shard)
        removed = manifest.begin(run, ((name, str(path)) for name, path in sources.meshes))
        tasks = deque(plan(manifest.records(), job, sources, folder, shard, retry_failed=retry_failed))
        ended_now = _perform_all(tasks, manifest, engine, report)
        files = () if shard else job.finish(manifest, folder)
        counts = manifest.counts()
    return Summary(
        counts,
        ended_now["done"],
        ended_now["failed"],
        removed,
        sources.ignored,
        files,
        time.monotonic() - began,
        sources.unlisted,
    )


def _perform_all(
    tasks: deque[Task], manifest: Manifest, engine: Callable[[], Engine], report: Report
) -> Counter[str]:
    """Perform tasks and store their records; returns the number of shapes that ended in each state."""
    states = Counter(manifest.counts()._asdict())
    ended_now: Counter[str] = Counter()
    with closing(engine()) as workers:
        for ended in _performed(tasks, workers):
            manifest.write(record for _, record in ended)
            for task, record in ended:
                states[task.record.state] -= 1
                states[record.state] += 1
                fresh = record if record.finished != task.record.finished else None
                ended_now[record.state] += fresh is not None
                report(fresh, Progress(states["done"], states["failed"], len(tasks) + workers.busy))
    return ended_now


def _performed(tasks: deque[Task], engine: Engine) -> Iterator[list[tuple[Task, Record]]]:
    """Perform tasks; yields lists of tasks with their records as they end."""
    begun: dict[str, Task] = {}
    attempts = Attempts()
    while tasks or engine.busy:
        while tasks and engine.free:
            task = tasks.popleft()
            begun[task.record.name] = task
            engine.submit(task)
        ended = []
        for record in engine.wait():
            task = begun.pop(record.name)
            if attempts.again(record):
                tasks.appendleft(task)
            else:
                ended.append((task, record))
        if ended:
            yield ended


def plan(
    records: Iterable[Record],
    job: Job,
    sources: Sources,
    folder: Folder,
    shard: Shard | None = None,
    *,
    retry_failed: bool = False,
) -> Iterator[Task]:
    """The tasks of a run: all shapes except those with a valid result and an unchanged file stamp."""
    paths = dict(sources.meshes)
    for number, was in enumerate(records):
        stamp, size = file_stamp(paths[was.name])
        result = folder.result(was.name, job.place)
        settled = is_settled(was, job, result, retry_failed=retry_failed)
        if not (settled and stamp and stamp == was.stamp):
            record = replace(was, source=str(paths[was.name]), stamp=stamp, source_bytes=size)
            draft = folder.work(shard) / f"{number}{job.place.suffix}"
            yield Task(record, settled, str(result), str(draft))


def _check_split(folder: Folder, shard: Shard | None) -> None:
    """Raise `UsageError` if the folder contains a run with another number of shards."""
    counts = sorted({count for _, count in folder.shards()})
    if shard is None and counts:
        remedy = "run each with `shard=`, then merge them"
        raise UsageError(f"{folder.path}: contains a run in {counts[0]} shards; {remedy}")
    if shard is not None and counts not in ([], [shard[1]]):
        raise UsageError(f"{folder.path}: contains a run in {counts[0]} shards, not {shard[1]}")
    if shard is not None and not counts and folder.manifest().exists():
        raise UsageError(f"{folder.path}: contains a run without shards; omit `shard=`, or write elsewhere")


def _check_same_run(manifest: Manifest, folder: Folder, sources: Sources, job: Job, *, force: bool) -> None:
    """Raise `UsageError` if existing results would be replaced or dropped by mistake."""
    before = manifest.run()
    if before is None or force:
        return
    if before.job != job.name:
        raise UsageError(
            f"{folder.path}: contains a run of the job {before.job}, not {job.name}; "
            "write elsewhere, or replace it with `force=True`"
        )
    if (other := difference(job.options(), before.options)) is not None:
        raise UsageError(
            f"{folder.path}: contains a run with {other}; continue it with the same options, "
            "process all shapes again with `force=True`, or write elsewhere"
        )
    now = {name for name, _ in sources.meshes}
    if manifest.counts().shapes and not any(record.name in now for record in manifest.records()):
        raise UsageError(
            f"{folder.path}: contains a run over {before.dataset}, with none of these meshes; "
            "write elsewhere, or replace it with `force=True`"
        )


@contextmanager
def _work(folder: Folder, job: Job, shard: Shard | None) -> Iterator[None]:
    """Create an empty folder for temporary files, and remove it at the end."""
    work = folder.work(shard)
    shutil.rmtree(work, ignore_errors=True)  # left over from a run that was killed
    make_folder(work)
    make_folder(folder.results(job.place))
    try:
        yield
    finally:
        shutil.rmtree(work, ignore_errors=True)
