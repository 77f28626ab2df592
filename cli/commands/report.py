"""
report.py
---------
`neuralsdf report`: what came of a batch run, as a page and a table.
"""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..shared import options, terminal

if TYPE_CHECKING:
    from ...batch.summary import Summary


@options.command(
    epilog=options.example("neuralsdf report models/", "neuralsdf report models/ -o thingi.html")
)
@click.argument("folder", type=options.INPUT, metavar="OUT")
@options.output("Page to write; the table goes beside it, as .csv.  [default: OUT/report.html, replaced]")
@options.force
@click.option("--pictures/--no-pictures", default=True, help="Render every shape.  [default: on]")
@options.seed
@options.as_json
def command(folder: Path, output: Path | None, force: bool, pictures: bool, seed: int, as_json: bool) -> None:
    """Show what came of a batch run in the folder OUT: a self-contained HTML page, and a CSV table.

    The page has the distributions of IoU, two-way distance and surface error, the warnings, the time of each
    stage, pictures of the best, median and worst shapes, the failures with their reasons, and a table of all
    shapes with pictures and links. A run that is still under way can be looked at, too.
    """
    from ...batch.report import write_report
    from ...errors import UsageError
    from ...files.atomic_write import check_writable

    page = output or folder / "report.html"
    table = page.with_suffix(".csv")
    if page.suffix.lower() not in (".html", ".htm"):
        raise UsageError(f"-o {page}: a page ends in .html; the table beside it in .csv")
    if output is not None:
        for path in (page, table):
            check_writable(path, force=force)
    with terminal.bar("pictures") as bar:

        def progress(made: int, count: int) -> None:
            bar.total = count
            bar.update(made - bar.n)

        summary = write_report(folder, page, table, pictures=pictures, seed=seed, progress=progress)
    if as_json:
        terminal.print_json(_plain(summary) | {"page": str(page), "table": str(table)})
    else:
        _print(summary, page, table)


def _plain(summary: Summary) -> dict[str, Any]:
    return asdict(summary) | {
        "ratio": summary.ratio,
        "iou": summary.iou._asdict(),
        "two_way": summary.two_way._asdict(),
        "surface_error": summary.surface_error._asdict(),
        "warnings": [remark._asdict() for remark in summary.warnings],
        "stages": {stage.name: {"total": stage.total, "median": stage.median} for stage in summary.stages},
    }


def _print(summary: Summary, page: Path, table: Path) -> None:
    from ...batch.summary import MEASURES

    spreads = summary.iou, summary.two_way, summary.surface_error
    terminal.print_table(
        [
            ("converted", f"{summary.done:,} of {summary.shapes:,}, {summary.failed:,} failed"),
            *([("missed", f"{summary.missed:,} have more than the target error")] if summary.missed else []),
            *([("warnings", f"for {summary.warned:,}")] if summary.warned else []),
            ("compression", f"1 : {terminal.shown(summary.ratio)}"),
            *(
                (
                    measure.title,
                    f"median {terminal.shown(spread.median)}, worst {terminal.shown(spread.worst)}",
                )
                for measure, spread in zip(MEASURES, spreads, strict=True)
                if spread.shapes
            ),
        ]
    )
    terminal.say(f"{page}, {table}")
