"""
report.py
---------
The report of a batch run: a self-contained HTML page and a CSV table. Both are made from the manifest; the
pictures are rendered from the results. A report can also be made during a run.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

from ..errors import UsageError
from ..files.atomic_write import whole_file
from .job import Job
from .manifest import Manifest, Run
from .output_folder import Folder
from .report_page import Progress, page
from .report_table import write_table
from .run_statistics import Summary, summarise
from .shape_record import Record


def write_report(
    out: str | Path,
    html: str | Path,
    table: str | Path,
    job: type[Job],
    *,
    pictures: bool = True,
    seed: int = 0,
    wording: Callable[[str], str] = str,
    progress: Progress = lambda made, count: None,
) -> Summary:
    """Write the page and the table of the batch run in the folder `out`. On an error neither is written.

    Existing files are replaced. job: the job of the run. pictures: whether the page has pictures of the
    shapes. seed: random seed for rendering. wording: changes the reasons and warnings of the shapes, which
    name keyword arguments. progress: called with the number of pictures that have been rendered and their
    total number. Raises `ManifestError` for a folder without a manifest, `UsageError` for a run of another
    job, `OutputError` if a file cannot be written.
    """
    folder, html, table = Folder(Path(out)), Path(html), Path(table)
    run, records = _run_of(folder, job)
    records = [_worded(record, wording) for record in records]
    summary = summarise(records, job.reported)
    with ExitStack() as outputs:
        # The table first, so that the page finds it and links to it.
        write_table(outputs.enter_context(whole_file(table)), records, job.reported)
        parts = page(
            html,
            folder,
            run,
            records,
            summary,
            job,
            table=table,
            pictures=pictures,
            seed=seed,
            progress=progress,
        )
        with outputs.enter_context(whole_file(html)).open("w", encoding="utf-8") as stream:
            stream.writelines(parts)
    return summary


def _worded(record: Record, wording: Callable[[str], str]) -> Record:
    reason = None if record.reason is None else wording(record.reason)
    return replace(record, reason=reason, warnings=tuple(map(wording, record.warnings)))


def _run_of(folder: Folder, job: type[Job]) -> tuple[Run, list[Record]]:
    """The run in a folder and the records of all shapes. Shards are combined, whether merged or not."""
    run, records = Run(job.name, "", {}), list[Record]()
    for shard in folder.parts():
        with Manifest.open(folder.manifest(shard)) as manifest:
            part = manifest.run()
            if part is not None and part.job != job.name:
                raise UsageError(f"{manifest.path}: belongs to the job {part.job}, not {job.name}")
            if part is not None:
                begun = min(run.started or part.started, part.started)
                run = Run(job.name, part.dataset, part.options, started=begun)
            records += map(job.judge, manifest.records())
    return run, sorted(records, key=lambda record: record.name)
