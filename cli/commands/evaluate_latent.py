"""
evaluate_latent.py
------------------
`neuralsdf evaluate-latent`: measure how well a trained latent model reconstructs shapes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..shared import options, terminal
from ..shared.code_search import code_search
from ..shared.number_types import WholeNumber

if TYPE_CHECKING:
    from ...latent.cache import Entry
    from ...latent.evaluate import Evaluated
    from ...latent.reconstruct import TrainedModel

#: Metrics of the first table, and their titles.
_COLUMNS = {
    "iou": "IoU",
    "two_way": "two-way",
    "chamfer_squared": "Chamfer²",
    "f_score": "F-score",
    "normal_consistency": "normals",
    "seconds": "seconds",
}

#: Those of the second: distances from the reconstruction to the mesh, and fractions of them above thresholds.
_DISTANCES = {
    "to_mesh_mean": "mean",
    "to_mesh_deviation": "deviation",
    "to_mesh_median": "50 %",
    "to_mesh_p90": "90 %",
    "beyond_0.005": "> 0.005",
    "beyond_0.01": "> 0.01",
    "beyond_0.02": "> 0.02",
    "beyond_0.05": "> 0.05",
}


@options.command(
    epilog=options.example(
        "neuralsdf evaluate-latent run/ prepared/",
        "neuralsdf evaluate-latent run/ prepared/ --class chair --count 20 --json",
        "neuralsdf evaluate-latent run/ prepared/ --split train --shapes --picture train.png",
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
@click.option("--shapes", "by_shape", is_flag=True, help="Print a line for each shape, too.")
@click.option(
    "--picture",
    type=options.INPUT,
    metavar="FILE",
    help="Picture of six reconstructions beside their meshes (.png, .jpg, .webp).  "
    "[default: RUN/evaluation.png, which is replaced]",
)
@options.force
@code_search
@options.as_json
def command(
    run: Path,
    dataset: Path,
    split: str,
    category: str | None,
    count: int | None,
    points: int,
    by_shape: bool,
    picture: Path | None,
    force: bool,
    as_json: bool,
    **search: Any,
) -> None:
    """Reconstruct meshes of DATASET with the model trained in RUN, and measure the errors.

    DATASET is a folder that `neuralsdf prepare` has written. Lengths are relative to the radius of the
    enclosing ball. The exit code is 1 if a shape failed.
    """
    from ...files.atomic_write import check_writable
    from ...latent.evaluate import evaluate
    from ...latent.inference import InferenceSettings
    from ...latent.picture import save_picture
    from ...latent.reconstruct import TrainedModel
    from ...render.picture_files import still_format

    model = TrainedModel.open(run)
    entries = _chosen(dataset, split, category, count)
    sheet, replace = (run / "evaluation.png", True) if picture is None else (picture, force)
    still_format(sheet)
    check_writable(sheet, force=replace)
    settings = InferenceSettings(**search)
    shapes = []
    with terminal.bar("reconstruct", total=len(entries)) as bar:
        for shape in evaluate(model, entries, settings, points=points):
            shapes.append(shape)
            bar.update()
            if shape.failure:
                terminal.error(f"{shape.name}: {shape.failure}")
    with terminal.stage(f"write {sheet}"):
        pairs = save_picture(sheet, shapes, force=replace)
    if as_json:
        terminal.print_json(_plain(model, shapes) | {"picture": str(sheet) if pairs else None})
    else:
        _print(model, shapes, by_shape)
        if pairs:
            terminal.say(f"{sheet}: {pairs} reconstructions beside their meshes")
    raise SystemExit(1 if any(shape.failure for shape in shapes) else 0)


def _chosen(dataset: Path, split: str, category: str | None, count: int | None) -> list[Entry]:
    """The first `count` entries of each class of a split, None for all; raises `UsageError` for none."""
    from ...errors import UsageError
    from ...latent.cache import Cache

    cache, seen, chosen = Cache(dataset), Counter[str](), []
    for entry in cache.split(split, category):
        seen[entry.category] += 1
        if count is None or seen[entry.category] <= count:
            chosen.append(entry)
    classes = sorted({entry.category for entry in cache.entries})
    if category is not None and category not in classes:
        raise UsageError(f"{dataset}: has no class {category!r}; its classes are {', '.join(classes)}")
    if not chosen:
        of_class = f" of the class {category!r}" if category else ""
        splits = sorted({entry.split for entry in cache.entries if category in (None, entry.category)})
        raise UsageError(
            f"{dataset}: has no shapes{of_class} in the split {split!r}, only in {', '.join(splits)}"
        )
    return chosen


def _plain(model: TrainedModel, shapes: list[Evaluated]) -> dict[str, Any]:
    """The metrics of each shape, their averages, and the sizes of the model."""
    from ...latent.evaluate import means, medians

    each = [
        {"name": one.name, "class": one.category, "failure": one.failure, **one.metrics} for one in shapes
    ]
    shape = model.decoder.shape
    sizes = {"parameters": shape.parameter_count, "code": shape.code}
    return {**sizes, "means": means(shapes), "medians": medians(shapes), "shapes": each}


def _print(model: TrainedModel, shapes: list[Evaluated], by_shape: bool) -> None:
    """Print the metrics, the sizes of the model, and the worst shapes."""
    from ...latent.evaluate import means, medians, worst

    averages: dict[str, Mapping[str, float]] = dict(means(shapes))
    count = averages["all"]["shapes"]
    if len(averages) == 2:  # one class, whose means are those of all
        averages.pop(shapes[0].category)
    of_all = averages.pop("all")
    classes = {f"{name} ({mean['shapes']:.0f})": mean for name, mean in averages.items()}
    each = {shape.name: shape.metrics for shape in shapes} if by_shape else {}
    rows = {**each, **classes, f"mean of {count:.0f}": of_all, "median": medians(shapes)["all"]}
    terminal.print_table(_cells(rows, _COLUMNS), ["", *_COLUMNS.values()])
    terminal.say()
    terminal.say("Distances from the reconstruction to the mesh, and the fractions above thresholds:")
    terminal.print_table(_cells(rows, _DISTANCES), ["", *_DISTANCES.values()])
    terminal.say()
    shape = model.decoder.shape
    terminal.say(f"decoder: {shape.parameter_count:,} parameters; a shape: {shape.code} numbers")
    terminal.say("worst: " + ", ".join(f"{one.name} ({_overlap(one)})" for one in worst(shapes)))


def _cells(rows: Mapping[str, Mapping[str, float]], columns: Mapping[str, str]) -> list[list[Any]]:
    return [[name, *(metrics.get(column) for column in columns)] for name, metrics in rows.items()]


def _overlap(shape: Evaluated) -> str:
    return f"IoU {shape.metrics['iou']:.3f}" if "iou" in shape.metrics else "failed"
