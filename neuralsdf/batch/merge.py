"""
merge.py
--------
Shards of a run become one: one manifest and one data-set file, those of a run in one piece.
"""

from __future__ import annotations

import time
from contextlib import ExitStack
from itertools import chain
from pathlib import Path

from ..errors import ManifestError, UsageError
from .folder import Folder
from .manifest import Manifest, Run
from .recipe import difference
from .run import Summary, write_done
from .tasks import judged


def batch_merge(out: str | Path) -> Summary:
    """Join the shards in an output folder; may be done again after a shard has changed.

    Raises `UsageError` where there are none, where some are missing or unfinished, or made with other
    options; `OutputError` where one is under way.
    """
    began, folder = time.monotonic(), Folder(Path(out))
    shards = folder.shards()
    if not shards:
        raise ManifestError(folder.path, "holds no shards", "convert the data set with `shard=` first")
    count = shards[0][1]
    if missing := sorted({(i, count) for i in range(1, count + 1)} - set(shards)):
        raise UsageError(f"{out}: shard {missing[0][0]}/{count} is missing ({len(missing)} of {count} are)")
    with ExitStack() as stack:
        for shard in (None, *shards):
            stack.enter_context(folder.locked(shard))
        parts = [stack.enter_context(Manifest.open(folder.manifest(shard))) for shard in shards]
        run = _common_run(folder, parts)
        whole = stack.enter_context(Manifest.create(folder.manifest()))
        whole.begin(run, ((record.name, record.source) for part in parts for record in part.records()))
        whole.write(map(judged, chain.from_iterable(part.records() for part in parts)))
        written = write_done(whole, folder)
        return Summary(whole.counts(), 0, 0, 0, 0, written, time.monotonic() - began)


def _common_run(folder: Folder, parts: list[Manifest]) -> Run:
    """What all shards are of; raises `UsageError` where they are of several runs, or one is not finished."""
    runs = [part.run() for part in parts]
    for part, run in zip(parts, runs, strict=True):
        if run is None or part.counts().waiting:
            raise UsageError(f"{part.path}: is not finished; run its shard again, which continues it")
        first = runs[0] or run
        if (other := difference(first.options, run.options)) is not None:
            raise UsageError(f"{part.path}: was made with {other}; convert it anew with `force=True`")
    assert runs[0] is not None
    return Run(runs[0].dataset, runs[0].options)
