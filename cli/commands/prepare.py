"""
prepare.py
----------
`neuralsdf prepare`: draw the samples of a data set that latent models are trained on.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ..shared import options, terminal
from ..shared.number_types import Number, WholeNumber
from .batch_convert import batch_progress, duration, note_unlisted

if TYPE_CHECKING:
    from ...batch.run_batch import Summary
    from ...latent.prepare import PrepareJob

_INTERRUPTED = 130

_SPLITS = ("train", "validation", "test")


def _count(name: str, what: str) -> Callable[[options.Function], options.Function]:
    return click.option(
        f"--{name}",
        type=WholeNumber(1000, 1 << 24),
        default=100_000,
        show_default=True,
        metavar="N",
        help=f"{what} of each shape.",
    )


@options.command(
    epilog=options.example(
        "neuralsdf prepare shapes/ -o prepared/",
        "neuralsdf prepare shapes/ -o prepared/ --dry-run",
        "neuralsdf prepare shapes/ -o prepared/ --distances 50000 --occupancies 1000 --surface 1000",
    )
)
@click.argument("dataset")
@options.output("Folder to write.", required=True)
@click.option("-f", "--force", is_flag=True, help="Prepare again what was prepared with other options.")
@_count("distances", "Signed distances")
@_count("occupancies", "Points in the padded bounding box, with whether they are inside,")
@_count("surface", "Surface points with normals")
@click.option(
    "--test-fraction",
    type=Number(0, 0.9),
    default=0.2,
    show_default=True,
    metavar="FRACTION",
    help="Fraction of test shapes in classes that have no train and test folders.",
)
@click.option(
    "--workers", type=WholeNumber(1, 10_000), metavar="N", help="Worker processes.  [default: --threads]"
)
@click.option("--retry-failed", is_flag=True, help="Try shapes again that failed.")
@click.option("--dry-run", is_flag=True, help="Print the number of shapes and the size on disk, and exit.")
@options.seed
@options.as_json
def command(
    dataset: str,
    output: Path,
    force: bool,
    distances: int,
    occupancies: int,
    surface: int,
    test_fraction: float,
    workers: int | None,
    retry_failed: bool,
    dry_run: bool,
    seed: int,
    as_json: bool,
) -> None:
    """Draw samples of all meshes of DATASET, for training latent models.

    DATASET is a folder with CLASS/SHAPE or CLASS/train|test/SHAPE, a pattern in quotes, or a list: a text
    file with a mesh in each line, which a split (train, validation or test) and a class may follow. A mesh
    that fails is skipped and reported. The same command continues a run that was stopped, and prepares only
    new and changed meshes. The exit code is 1 if a mesh failed.
    """
    from ...latent.prepare import Counts, PrepareJob, prepare

    job = PrepareJob(Counts(distances, occupancies, surface), test_fraction, seed)
    if dry_run:
        _print_preview(dataset, output, job, as_json)
        return
    try:
        with batch_progress() as report:
            summary = prepare(
                dataset, output, job, workers=workers, retry_failed=retry_failed, force=force, report=report
            )
    except (KeyboardInterrupt, SystemExit) as end:
        terminal.error("interrupted; run the same command again to continue")
        raise SystemExit(end.code if isinstance(end, SystemExit) else _INTERRUPTED) from None
    note_unlisted(summary.unlisted)
    _print_summary(output, summary, as_json)
    raise SystemExit(1 if summary.counts.failed or summary.unlisted else 0)


def _print_preview(dataset: str, out: Path, job: PrepareJob, as_json: bool) -> None:
    """Print how many shapes there are, and how many bytes they will take."""
    from ...batch.find_meshes import find_sources
    from ...latent.shape_list import classified, with_labels

    sources = find_sources(dataset, out)
    with_labels(classified(name for name, _ in sources.meshes), sources.labels, dataset)
    note_unlisted(sources.unlisted)
    shapes, each = len(sources.meshes), job.counts.bytes
    if as_json:
        terminal.print_json({"shapes": shapes, "bytes_each": each, "bytes": shapes * each})
        return
    terminal.print_table(
        [
            ["shapes", shapes],
            ["files that are not meshes", sources.ignored],
            ["size of a shape", f"{each / 1e6:.2f} MB"],
            ["size of all", f"{shapes * each / 1e6:,.1f} MB"],
        ]
    )


def _print_summary(out: Path, summary: Summary, as_json: bool) -> None:
    """Print the shapes of each class and split."""
    from ...latent.cache import Cache

    counts = Counter((entry.category, entry.split) for entry in Cache(out).entries)
    classes = sorted({category for category, _ in counts})
    if as_json:
        of_classes = {name: {split: counts[name, split] for split in _SPLITS} for name in classes}
        plain = {"counts": summary.counts._asdict(), "classes": of_classes, "seconds": summary.seconds}
        terminal.print_json({"out": str(out), **plain})
        return
    terminal.print_table(
        [[name, *(counts[name, split] for split in _SPLITS)] for name in classes], ["", *_SPLITS]
    )
    terminal.say(
        f"{out}: {summary.counts.done:,} of {summary.counts.shapes:,} shapes prepared "
        f"({summary.done_now:,} now), {summary.counts.failed:,} failed, in {duration(summary.seconds)}"
    )
