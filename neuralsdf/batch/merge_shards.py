"""
merge_shards.py
---------------
Merges the shards of a run into one manifest and writes the combined files, as a run without shards does.
"""

from __future__ import annotations

import time
from contextlib import ExitStack
from itertools import chain
from pathlib import Path

from ..errors import ManifestError, UsageError
from .job import Job, difference
from .manifest import Manifest, Run
from .output_folder import Folder
from .run_batch import Summary


def merge_shards(out: str | Path, job: type[Job]) -> Summary:
    """Merge the shards of a job in an output folder. It can be repeated after a shard has changed.

    Raises `UsageError` if shards are missing, unfinished or from different runs, `ManifestError` if there are
    no shards, `OutputError` if one is being written.
    """
    began, folder = time.monotonic(), Folder(Path(out))
    shards = folder.shards()
    if not shards:
        raise ManifestError(folder.path, "contains no shards", "run all shards with `shard=` first")
    count = shards[0][1]
    if missing := sorted({(i, count) for i in range(1, count + 1)} - set(shards)):
        raise UsageError(
            f"{out}: shard {missing[0][0]}/{count} is missing ({len(missing)} of {count} missing)"
        )
    with ExitStack() as stack:
        for shard in (None, *shards):
            stack.enter_context(folder.locked(shard))
        parts = [stack.enter_context(Manifest.open(folder.manifest(shard))) for shard in shards]
        run = _common_run(job, parts)
        whole = stack.enter_context(Manifest.create(folder.manifest()))
        whole.begin(run, ((record.name, record.source) for part in parts for record in part.records()))
        whole.write(map(job.judge, chain.from_iterable(part.records() for part in parts)))
        files = job.finish(whole, folder)
        return Summary(whole.counts(), 0, 0, 0, 0, files, time.monotonic() - began)


def _common_run(job: type[Job], parts: list[Manifest]) -> Run:
    """The run of all shards. Raises `UsageError` if they are from different runs, or one is not finished."""
    runs = [part.run() for part in parts]
    for part, run in zip(parts, runs, strict=True):
        if run is None or part.counts().waiting:
            raise UsageError(f"{part.path}: is not finished; run this shard again to continue it")
        first = runs[0] or run
        if run.job != job.name:
            raise UsageError(f"{part.path}: belongs to the job {run.job}, not {job.name}")
        if (other := difference(first.options, run.options)) is not None:
            raise UsageError(f"{part.path}: was created with {other}; run it again with `force=True`")
    assert runs[0] is not None
    return Run(job.name, runs[0].dataset, runs[0].options)
