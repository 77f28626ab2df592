"""
report.py
---------
`neuralsdf report`: the results of a batch run, as a page and a table.
"""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..shared import options, terminal
from ..shared.option_names import as_options

if TYPE_CHECKING:
    from ...batch.job import Measure
    from ...batch.run_statistics import Distribution, Summary


@options.command(
    epilog=options.example("neuralsdf report models/", "neuralsdf report models/ -o thingi.html")
)
@click.argument("folder", type=options.INPUT, metavar="OUT")
@options.output(
    "Page to write; the table is written beside it, as .csv.  [default: OUT/report.html, replaced]"
)
@options.force
@click.option("--pictures/--no-pictures", default=True, help="Render all shapes.  [default: on]")
@options.seed
@options.as_json
def command(folder: Path, output: Path | None, force: bool, pictures: bool, seed: int, as_json: bool) -> None:
    """Report the results of a batch run in the folder OUT: a self-contained HTML page, and a CSV table.

    The page has the distributions of IoU, two-way distance and surface error, the warnings, the time of each
    stage, pictures of the best, median and worst shapes, the failures with their reasons, and a table of all
    shapes with pictures and links. A run that is not finished can be reported, too.
    """
    from ...batch.convert_job import ConvertJob
    from ...batch.report import write_report
    from ...errors import UsageError
    from ...files.atomic_write import check_writable

    page = output or folder / "report.html"
    table = page.with_suffix(".csv")
    if page.suffix.lower() not in (".html", ".htm"):
        raise UsageError(f"-o {page}: the page must end in .html; the table is written beside it as .csv")
    if output is not None:
        for path in (page, table):
            check_writable(path, force=force)
    with terminal.bar("pictures") as bar:

        def progress(made: int, count: int) -> None:
            bar.total = count
            bar.update(made - bar.n)

        summary = write_report(
            folder,
            page,
            table,
            ConvertJob,
            pictures=pictures,
            seed=seed,
            wording=as_options,
            progress=progress,
        )
    measures = ConvertJob.reported.measures
    spreads = dict(zip(measures, summary.distributions, strict=True))
    if as_json:
        terminal.print_json(_plain(summary, spreads) | {"page": str(page), "table": str(table)})
    else:
        _print(summary, spreads)
        terminal.say(f"{page}, {table}")


def _plain(summary: Summary, spreads: dict[Measure, Distribution]) -> dict[str, Any]:
    plain = asdict(summary)
    del plain["distributions"]
    return plain | {
        "ratio": summary.ratio,
        **{measure.name: spread._asdict() for measure, spread in spreads.items()},
        "warnings": [remark._asdict() for remark in summary.warnings],
        "stages": {stage.name: {"total": stage.total, "median": stage.median} for stage in summary.stages},
    }


def _print(summary: Summary, spreads: dict[Measure, Distribution]) -> None:
    terminal.print_table(
        [
            ("converted", f"{summary.done:,} of {summary.shapes:,}, {summary.failed:,} failed"),
            *([("missed", f"{summary.missed:,} exceed the target error")] if summary.missed else []),
            *([("warnings", f"for {summary.warned:,}")] if summary.warned else []),
            ("compression", f"1 : {terminal.shown(summary.ratio)}"),
            *(
                (
                    measure.title,
                    f"median {terminal.shown(spread.median)}, worst {terminal.shown(spread.worst)}",
                )
                for measure, spread in spreads.items()
                if spread.shapes
            ),
        ]
    )
