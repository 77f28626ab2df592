"""
evaluate_latent.py
------------------
`neuralsdf evaluate-latent`: measure how well a trained latent model reconstructs shapes.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ..shared import options, terminal
from ..shared.number_types import WholeNumber
from .reconstruct import iterations, starts

if TYPE_CHECKING:
    from ...latent.cache import Entry
    from ...latent.evaluate import Evaluated
    from ...latent.reconstruct import TrainedModel

#: Metrics of the table, and their titles.
_COLUMNS = {
    "iou": "IoU",
    "two_way": "two-way",
    "chamfer_squared": "Chamfer²",
    "to_mesh_mean": "to mesh",
    "to_mesh_median": "50 %",
    "to_mesh_p90": "90 %",
    "f_score": "F-score",
    "normal_consistency": "normals",
    "seconds": "seconds",
}


@options.command(
    epilog=options.example(
        "neuralsdf evaluate-latent run/ prepared/",
        "neuralsdf evaluate-latent run/ prepared/ --class chair --count 20 --json",
    )
)
@click.argument("run", type=options.INPUT)
@click.argument("dataset", type=options.INPUT)
@click.option(
    "--split",
    type=click.Choice(["test", "train", "validation"]),
    default="test",
    show_default=True,
    help="Shapes to reconstruct.",
)
@click.option("--class", "category", metavar="NAME", help="Only shapes of this class.  [default: all]")
@click.option("--count", type=WholeNumber(1), metavar="N", help="Only the first N shapes of each class.")
@click.option(
    "--points",
    type=WholeNumber(1000, 10**7),
    default=100_000,
    show_default=True,
    metavar="N",
    help="Points of each metric.",
)
@iterations
@starts
@options.seed
@options.as_json
def command(
    run: Path,
    dataset: Path,
    split: str,
    category: str | None,
    count: int | None,
    points: int,
    iterations: int,
    starts: int,
    seed: int,
    as_json: bool,
) -> None:
    """Reconstruct meshes of DATASET with the model trained in RUN, and measure the errors.

    DATASET is a folder that `neuralsdf prepare` has written. Lengths are relative to the radius of the
    enclosing ball. The exit code is 1 if a shape failed.
    """
    from ...errors import UsageError
    from ...latent.cache import Cache
    from ...latent.evaluate import evaluate
    from ...latent.inference import InferenceSettings
    from ...latent.reconstruct import TrainedModel

    model, cache = TrainedModel.open(run), Cache(dataset)
    entries = _chosen(cache.split(split, category), count)
    if not entries:
        of_class = f" of the class {category!r}" if category else ""
        raise UsageError(f"{dataset}: has no shapes{of_class} in the split {split!r}")
    settings = InferenceSettings(iterations=iterations, starts=starts, seed=seed)
    shapes = []
    with terminal.bar("reconstruct", total=len(entries)) as bar:
        for shape in evaluate(model, entries, settings, points=points):
            shapes.append(shape)
            bar.update()
            if shape.failure:
                terminal.error(f"{shape.name}: {shape.failure}")
    _print(model, shapes, as_json)
    raise SystemExit(1 if any(shape.failure for shape in shapes) else 0)


def _chosen(entries: list[Entry], count: int | None) -> list[Entry]:
    """The first `count` entries of each class; None for all."""
    seen: Counter[str] = Counter()
    chosen = []
    for entry in entries:
        seen[entry.category] += 1
        if count is None or seen[entry.category] <= count:
            chosen.append(entry)
    return chosen


def _print(model: TrainedModel, shapes: list[Evaluated], as_json: bool) -> None:
    """Print the means by class, the sizes of the model, and the worst shapes."""
    from ...latent.evaluate import means, worst

    averages, shape = means(shapes), model.decoder.shape
    sizes = {"parameters": shape.parameter_count, "code": shape.code}
    if as_json:
        each = [
            {"name": one.name, "class": one.category, "failure": one.failure, **one.metrics} for one in shapes
        ]
        terminal.print_json({**sizes, "means": averages, "shapes": each})
        return
    rows = [
        [name, int(mean["shapes"]), *(mean.get(column) for column in _COLUMNS)]
        for name, mean in averages.items()
    ]
    terminal.print_table(rows, ["", "shapes", *_COLUMNS.values()])
    terminal.say(f"decoder: {shape.parameter_count:,} parameters; a shape: {shape.code} numbers")
    terminal.say("worst: " + ", ".join(f"{one.name} ({_overlap(one)})" for one in worst(shapes)))


def _overlap(shape: Evaluated) -> str:
    return f"IoU {shape.metrics['iou']:.3f}" if "iou" in shape.metrics else "failed"
