"""
run.py
------
The driver of a batch: what is left to do, and one loop that does it.

    sources -> manifest -> tasks -> engine -> records -> manifest -> data-set file
"""

from __future__ import annotations

import shutil
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path
from typing import NamedTuple

from ..errors import UsageError
from ..files.atomic_write import make_folder
from ..storage.dataset import write_dataset
from .engine_processes import Engine
from .folder import Folder, Shard
from .manifest import Counts, Manifest, Record, Run
from .recipe import Recipe, difference
from .sources import Sources, find_sources
from .tasks import Task, judged

#: How often a shape is begun whose process is killed from outside.
_ATTEMPTS = 3

#: Seconds after a change during which another might leave the same time behind.
_RECENT = 2.0


class Progress(NamedTuple):
    """How many shapes are done and have failed, in all, and how many this run has still to look at."""

    done: int
    failed: int
    left: int


#: Called with what became of a shape (None if an earlier result stands), and how far the run is.
Report = Callable[[Record | None, Progress], None]


@dataclass(frozen=True)
class Summary:
    """The end of a run.

    counts: of the whole manifest. converted, failed_now: what this run did. forgotten: shapes that are no
    longer in the data set. ignored: files that are no mesh. datasets: the data-set file; none for a shard and
    where no shape is done, several where there are several architectures. unlisted: folders of the data set
    that could not be listed, each with the reason.
    """

    counts: Counts
    converted: int
    failed_now: int
    forgotten: int
    ignored: int
    datasets: tuple[Path, ...]
    seconds: float
    unlisted: tuple[str, ...] = ()


def batch_convert(
    dataset: str,
    out: str | Path,
    recipe: Recipe,
    engine: Callable[[], Engine],
    *,
    shard: Shard | None = None,
    retry_failed: bool = False,
    force: bool = False,
    report: Report = lambda record, counts: None,
) -> Summary:
    """Convert all meshes of a data set (see `find_sources`) into models and one data-set file.

    What an earlier run into the same folder did is not done again, unless the mesh has changed; shapes that
    failed are tried again if their mesh has changed, if they were killed from outside, or with
    `retry_failed`. So the same call continues a run that was ended, however it was, and the files are then
    those of a run that was not. force: do all anew where the folder holds a run of another recipe.

    Raises `UsageError` for a folder that holds another run, `OutputError` where it cannot be written or
    another run is under way in it.
    """
    began = time.monotonic()
    sources = find_sources(dataset, out).shard(shard)
    folder = Folder(make_folder(out))
    _check_split(folder, shard)
    with folder.locked(shard), _work(folder, shard), Manifest.create(folder.manifest(shard)) as manifest:
        _check_same_run(manifest, folder, sources, recipe, force=force)
        run = Run(dataset, recipe.options(), shard)
        forgotten = manifest.begin(run, ((name, str(path)) for name, path in sources.meshes))
        tasks = deque(plan(manifest.records(), sources, folder, shard, retry_failed=retry_failed))
        states = Counter(manifest.counts()._asdict())
        made: Counter[str] = Counter()
        with closing(engine()) as workers:
            for ended in _performed(tasks, workers):
                manifest.write(record for _, record in ended)
                for task, record in ended:
                    states[task.record.state] -= 1
                    states[record.state] += 1
                    fresh = record if record.finished != task.record.finished else None
                    made[record.state] += fresh is not None
                    report(fresh, Progress(states["done"], states["failed"], len(tasks) + workers.busy))
        written = () if shard else write_done(manifest, folder)
        counts = manifest.counts()
    seconds = time.monotonic() - began
    return Summary(
        counts, made["done"], made["failed"], forgotten, sources.ignored, written, seconds, sources.unlisted
    )


def _performed(tasks: deque[Task], engine: Engine) -> Iterator[list[tuple[Task, Record]]]:
    """Tasks and what became of them, as they end; what was killed from outside is begun again."""
    begun: dict[str, Task] = {}
    killed: Counter[str] = Counter()
    while tasks or engine.busy:
        while tasks and engine.free:
            task = tasks.popleft()
            begun[task.record.name] = task
            engine.submit(task)
        ended = []
        for record in engine.wait():
            task = begun.pop(record.name)
            if record.cause == "killed":
                killed[record.name] += 1
            if record.cause == "killed" and killed[record.name] < _ATTEMPTS:
                tasks.appendleft(task)
            else:
                ended.append((task, record))
        if ended:
            yield ended


def plan(
    records: Iterable[Record],
    sources: Sources,
    folder: Folder,
    shard: Shard | None = None,
    *,
    retry_failed: bool = False,
) -> Iterator[Task]:
    """The shapes that a run has to look at: all but those whose result stands and whose file is as it was."""
    paths = dict(sources.meshes)
    for number, was in enumerate(records):
        stamp, size = _stamp(paths[was.name])
        model = folder.model(was.name)
        settled = _stands(was, model, retry_failed=retry_failed)
        if not (settled and stamp and stamp == was.stamp):
            record = replace(was, source=str(paths[was.name]), stamp=stamp, source_bytes=size)
            yield Task(record, settled, str(model), str(folder.work(shard) / f"{number}.h5"))


def _stands(record: Record, model: Path, *, retry_failed: bool) -> bool:
    """Whether what became of a shape need not be done again while its mesh and the options are the same."""
    if judged(record).state == "done":
        return model.is_file() and model.stat().st_size == record.model_bytes
    return record.state == "failed" and record.cause != "killed" and not retry_failed


def _stamp(path: Path) -> tuple[str, int | None]:
    """What changes whenever a file does, and its size; "" where nothing can be said to be unchanged."""
    try:
        status = path.stat()
    except (OSError, ValueError):
        return "", None
    size = status.st_size
    # The time of the last change of the file's data or status, which no program can set back.
    if path.suffix.lower() in (".gltf", ".glb") or time.time() - status.st_ctime < _RECENT:
        return "", size  # a glTF may refer to other files
    return f"{size} {status.st_mtime_ns} {status.st_ctime_ns} {status.st_ino}", size


def _check_split(folder: Folder, shard: Shard | None) -> None:
    """Raise `UsageError` where the folder holds a run that is divided into shards in another way."""
    counts = sorted({count for _, count in folder.shards()})
    if shard is None and counts:
        way = "convert each with `shard=`, then merge them"
        raise UsageError(f"{folder.path}: holds a run in {counts[0]} shards; {way}")
    if shard is not None and counts not in ([], [shard[1]]):
        raise UsageError(f"{folder.path}: holds a run in {counts[0]} shards, not {shard[1]}")
    if shard is not None and not counts and folder.manifest().exists():
        raise UsageError(f"{folder.path}: holds a run in one piece; leave out `shard=`, or write elsewhere")


def _check_same_run(
    manifest: Manifest, folder: Folder, sources: Sources, recipe: Recipe, *, force: bool
) -> None:
    """Raise `UsageError` where a night's work would be done anew, or forgotten, by mistake."""
    before = manifest.run()
    if before is None or force:
        return
    if (other := difference(recipe.options(), before.options)) is not None:
        raise UsageError(
            f"{folder.path}: holds a run with {other}; continue it with the same options, "
            "convert all anew with `force=True`, or write elsewhere"
        )
    now = {name for name, _ in sources.meshes}
    if manifest.counts().shapes and not any(record.name in now for record in manifest.records()):
        raise UsageError(
            f"{folder.path}: holds a run over {before.dataset}, with none of these meshes; "
            "write elsewhere, or forget it with `force=True`"
        )


@contextmanager
def _work(folder: Folder, shard: Shard | None) -> Iterator[None]:
    """The folder of what is not finished, empty; gone in the end."""
    work = folder.work(shard)
    shutil.rmtree(work, ignore_errors=True)  # a run that was killed left it
    make_folder(work)
    make_folder(folder.models)
    try:
        yield
    finally:
        shutil.rmtree(work, ignore_errors=True)


def write_done(manifest: Manifest, folder: Folder) -> tuple[Path, ...]:
    """Write the data-set file of the shapes that are done, unless it holds them already.

    A data set has one architecture: where a target error led to several, each has a file of its own.
    """
    digest = sha256()
    names: dict[str, list[str]] = {}
    for record in manifest.records("done"):
        digest.update(repr((record.name, record.key)).encode())
        names.setdefault(str(record.architecture), []).append(record.name)
    paths = {kind: folder.dataset(kind if len(names) > 1 else None) for kind in sorted(names)}
    if manifest.written != digest.hexdigest() or folder.datasets() != sorted(paths.values()):
        manifest.set_written(None)
        for path in set(folder.datasets()) - set(paths.values()):
            path.unlink()
        for kind, path in paths.items():
            write_dataset(path, [(name, folder.model(name)) for name in names[kind]])
        manifest.set_written(digest.hexdigest())
    return tuple(paths.values())
