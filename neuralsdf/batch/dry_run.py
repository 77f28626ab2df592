"""
dry_run.py
----------
What a run would do and how long it would take, without a trace in its output folder.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from .engine_processes import Engine
from .folder import Folder, Shard
from .manifest import Manifest, Record
from .recipe import Recipe, difference
from .run import plan
from .sources import find_sources
from .tasks import Task

#: How many meshes are tried for an estimate, if the first cannot be converted.
_TRIALS = 3


@dataclass(frozen=True)
class Preview:
    """What a run would do.

    shapes: of the data set, or of the shard. to_convert: those it would convert. to_check: those that it
    would look at, because their file may have changed. ignored: files that are no mesh. seconds_each: of one
    shape in one worker; None where that could not be found out. unlisted: as of `Sources`.
    """

    shapes: int
    to_convert: int
    to_check: int
    ignored: int
    seconds_each: float | None
    unlisted: tuple[str, ...] = ()


def preview(
    dataset: str,
    out: str | Path,
    recipe: Recipe,
    engine: Callable[[], Engine],
    *,
    shard: Shard | None = None,
    retry_failed: bool = False,
) -> Preview:
    """What `batch_convert` would do. The time is that of the shapes that are done already, or else of one of
    median size, which is converted for it. Raises `UsageError` as `find_sources`.
    """
    sources = find_sources(dataset, out).shard(shard)
    folder = Folder(Path(out))
    known = _known(folder, shard, recipe)
    records = [known.get(name) or Record(name, str(path)) for name, path in sources.meshes]
    tasks = list(plan(records, sources, folder, shard, retry_failed=retry_failed))
    to_convert = [task for task in tasks if not task.settled]
    done = [sum(record.seconds.values()) for record in records if record.state == "done"]
    each = sum(done) / len(done) if done else _trial(to_convert, engine)
    to_check = len(tasks) - len(to_convert)
    return Preview(len(records), len(to_convert), to_check, sources.ignored, each, sources.unlisted)


def _known(folder: Folder, shard: Shard | None, recipe: Recipe) -> dict[str, Record]:
    """The records of an earlier run with the same options."""
    if not folder.manifest(shard).exists():
        return {}
    with Manifest.open(folder.manifest(shard)) as manifest:
        run = manifest.run()
        if run is None or difference(recipe.options(), run.options) is not None:
            return {}
        return {record.name: record for record in manifest.records()}


def _trial(tasks: list[Task], engine: Callable[[], Engine]) -> float | None:
    """Seconds that a shape of median size takes."""
    by_size = sorted(tasks, key=lambda task: task.record.source_bytes or 0)
    with tempfile.TemporaryDirectory(prefix="neuralsdf-") as folder, closing(engine()) as workers:
        for task in by_size[len(by_size) // 2 :][:_TRIALS]:
            place = Folder(Path(folder)).model("trial")
            workers.submit(Task(task.record, False, str(place), f"{folder}/draft.h5"))
            while not (ended := workers.wait()):
                pass
            if ended[0].state == "done":
                return sum(ended[0].seconds.values())
    return None
