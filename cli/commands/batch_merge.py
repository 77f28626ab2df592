"""
batch_merge.py
--------------
`neuralsdf batch-merge`: join the shards of a batch.
"""

from __future__ import annotations

from pathlib import Path

import click

from ..shared import options
from .batch_convert import print_summary


@options.command(epilog=options.example("neuralsdf batch-merge models/"))
@click.argument("folder", type=options.INPUT, metavar="FOLDER")
@options.as_json
def command(folder: Path, as_json: bool) -> None:
    """Join the shards that batch-convert made in FOLDER.

    Writes one manifest and one dataset.h5, the same as those of a run without shards. Can be run again when a
    shard has changed. The exit code is 1 if a shape failed or misses --target-error.
    """
    from ...batch.convert_job import ConvertJob
    from ...batch.merge_shards import merge_shards

    summary = merge_shards(folder, ConvertJob)
    print_summary(folder, summary, as_json, None)
    raise SystemExit(1 if summary.counts.failed or summary.counts.missed else 0)
