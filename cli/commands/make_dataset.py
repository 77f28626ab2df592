"""
make_dataset.py
---------------
`neuralsdf make-dataset`: generate a data set of shapes of known classes.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ...errors import NeuralSDFError
from ..shared import options, terminal
from ..shared.number_types import Number, WholeNumber

if TYPE_CHECKING:
    from ...latent.parametric.dataset import ClassSummary


def _names(ctx: click.Context, parameter: click.Parameter, value: str | None) -> list[str] | None:
    if value is None:
        return None
    names = [name.strip() for name in value.split(",") if name.strip()]
    if not names:
        raise click.BadParameter(f"{value!r} names no class", ctx, parameter)
    return names


@options.command(
    epilog=options.example(
        "neuralsdf make-dataset parametric shapes/ --count 100",
        "neuralsdf make-dataset parametric seats/ --count 500 --classes chair,stool,bench --seed 1",
    )
)
@click.argument("kind", type=click.Choice(["parametric"]))
@click.argument("folder", type=options.INPUT, metavar="OUT")
@click.option(
    "-f", "--force", is_flag=True, help="Replace the data set in OUT; any other folder must be empty."
)
@click.option("--count", type=WholeNumber(1, 100_000), required=True, metavar="N", help="Shapes per class.")
@click.option(
    "--classes",
    callback=_names,
    metavar="A,B,...",
    help="Classes to make.  [default: all]",
)
@click.option(
    "--test",
    type=Number(0, 0.99),
    default=0.2,
    show_default=True,
    metavar="FRACTION",
    help="Fraction of the shapes of each class in the test split.",
)
@click.option(
    "--workers", type=WholeNumber(1, 1000), metavar="N", help="Worker processes.  [default: --threads]"
)
@options.seed
@options.as_json
def command(
    kind: str,
    folder: Path,
    force: bool,
    count: int,
    classes: list[str] | None,
    test: float,
    workers: int | None,
    seed: int,
    as_json: bool,
) -> None:
    """Generate a data set of closed meshes of known classes, with part labels, in the folder OUT.

    Classes: chair, stool, bench, sofa, table, desk, bookshelf, cabinet, mug, vase, bottle, goblet, lamp,
    airplane, car, truck. All shapes are aligned (y is up, z is the front), centred, and have a longest side
    of 1. Each is one body with a volume of 3 to 15 % of the box that training points are drawn from.

    Writes OUT/CLASS/train/NAME.ply and OUT/CLASS/test/NAME.ply, with the property `label` on vertices and
    faces, and OUT/dataset.json with the parts of each class and the parameters of each shape. A larger
    --count adds shapes to the same ones. Requires manifold3d (`pip install 'neuralsdf[latent]'`).
    """
    from ...latent.parametric.dataset import make_dataset

    began = time.perf_counter()
    with terminal.bar("shapes") as bar, _out_is_an_argument():

        def report(done: int, total: int) -> None:
            bar.total = total
            bar.update(done - bar.n)

        made = make_dataset(
            folder,
            count=count,
            seed=seed,
            classes=classes,
            test=test,
            workers=workers,
            force=force,
            report=report,
        )
    seconds = time.perf_counter() - began
    size = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
    rows = [_row(summary) for summary in made]
    if as_json:
        terminal.print_json({"folder": folder, "classes": rows, "bytes": size, "seconds": seconds})
        return
    header = ["class", "train", "test", "fill mean", "min", "max", "faces"]
    terminal.print_table(([_shown(value) for value in row.values()] for row in rows), header)
    total = sum(len(summary.faces) for summary in made)
    terminal.say(f"{folder}: {total:,} shapes, {size / 1e6:.1f} MB, in {seconds:.1f} s")


@contextmanager
def _out_is_an_argument() -> Iterator[None]:
    """Name the folder OUT in errors; for the other commands, the library's `path=` is the option -o."""
    try:
        yield
    except NeuralSDFError as error:
        error.args = (str(error).replace("with `path=`", "as OUT"),)
        raise


def _row(summary: ClassSummary) -> dict[str, Any]:
    """The class, the sizes of its splits, its fractions of the padded box, and its mean number of faces."""
    fractions = summary.fractions
    return {
        "class": summary.name,
        "train": summary.train,
        "test": summary.test,
        "fraction_mean": sum(fractions) / len(fractions),
        "fraction_min": min(fractions),
        "fraction_max": max(fractions),
        "faces": round(sum(summary.faces) / len(summary.faces)),
    }


def _shown(value: Any) -> Any:
    """Fractions as percentages."""
    return f"{100 * value:.1f} %" if isinstance(value, float) else value
