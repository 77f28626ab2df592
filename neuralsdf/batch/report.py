"""
report.py
---------
What came of a batch run, as a page for a person (HTML, everything in one file) and a table for a program
(CSV, a row a shape). Both are made from the manifest alone, but for the pictures, which are rendered from
the model files; they can be made while a run is under way.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from ..files.atomic_write import whole_file
from ..pipeline.stages import STAGES
from ..printable import printable
from ..units import DIMENSIONS
from .folder import Folder
from .manifest import Manifest, Record, Run
from .report_page import Progress, page
from .summary import Summary, summarise
from .tasks import judged


def write_report(
    out: str | Path,
    html: str | Path,
    table: str | Path,
    *,
    pictures: bool = True,
    seed: int = 0,
    progress: Progress = lambda made, count: None,
) -> Summary:
    """Write the page and the table of the batch run in the folder `out`, both or none.

    Files of these names are replaced. pictures: whether the page shows the shapes; seed: of their rendering.
    progress: called with the pictures that are rendered, and all of them. Raises `ManifestError` for a folder
    without a manifest, `OutputError` where a file cannot be written.
    """
    folder, html, table = Folder(Path(out)), Path(html), Path(table)
    run, records = _run_of(folder)
    summary = summarise(records)
    with ExitStack() as outputs:
        # The table first, so that the page finds it and links to it.
        _write_table(outputs.enter_context(whole_file(table)), records)
        parts = page(
            html, folder, run, records, summary, table=table, pictures=pictures, seed=seed, progress=progress
        )
        with outputs.enter_context(whole_file(html)).open("w", encoding="utf-8") as stream:
            stream.writelines(parts)
    return summary


def _write_table(path: Path, records: Iterable[Record]) -> None:
    with path.open("w", newline="", encoding="utf-8") as stream:
        # Quoted, so that a semicolon begins no cell where that is what separates cells.
        writer = csv.writer(stream, quoting=csv.QUOTE_NONNUMERIC)
        writer.writerows([_cell(value) for value in row] for row in _rows(records))


def _run_of(folder: Folder) -> tuple[Run, list[Record]]:
    """The run in a folder, or that of its shards as far as they are, merged or not; and all its shapes."""
    run, records = Run("", {}), list[Record]()
    for shard in folder.parts():
        with Manifest.open(folder.manifest(shard)) as manifest:
            part = manifest.run()
            if part is not None:
                begun = min(run.started or part.started, part.started)
                run = Run(part.dataset, part.options, started=begun)
            records += map(judged, manifest.records())
    return run, sorted(records, key=lambda record: record.name)


def _rows(records: Iterable[Record]) -> Iterator[list[Any]]:
    """The table, its header first; nothing where there is nothing to say."""
    plain = (
        "name",
        "state",
        "cause",
        "reason",
        "source",
        "source_bytes",
        "faces",
        "architecture",
        "target_met",
        "model_bytes",
    )
    yield [*plain, *DIMENSIONS, *(f"seconds_{stage}" for stage in (*STAGES, "lost")), "warnings"]
    for record in records:
        yield [
            *(getattr(record, column) for column in plain),
            *(record.metrics.get(metric) for metric in DIMENSIONS),
            *(record.seconds.get(stage) for stage in (*STAGES, "lost")),
            "; ".join(record.warnings),
        ]


def _cell(value: Any) -> Any:
    """A value as a cell; text that a spreadsheet would take for a formula gets an apostrophe before it."""
    if not isinstance(value, str):
        return value
    text = printable(value)
    return f"'{text}" if text.lstrip()[:1] in _FORMULA else text


#: What a formula begins with, full-width forms included.
_FORMULA = tuple("=+-@＝＋－＠")
