"""
train_latent.py
---------------
`neuralsdf train-latent`: train one network for many shapes.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..shared import options, terminal
from ..shared.number_types import Number, WholeNumber

if TYPE_CHECKING:
    from ...latent.config import Settings
    from ...latent.training import Progress

_INTERRUPTED = 130

#: Options that set one setting each.
_SETTINGS = {
    "layers": "decoder.layers",
    "width": "decoder.width",
    "code": "decoder.code",
    "steps": "training.steps",
    "epochs": "training.epochs",
    "shapes": "training.shapes",
    "samples": "training.samples",
    "learning_rate": "training.learning_rate",
    "seed": "training.seed",
    "patience": "validation.patience",
}


@options.command(
    epilog=options.example(
        "neuralsdf train-latent prepared/ -o run/",
        "neuralsdf train-latent prepared/ -o run/ --class chair --steps 5000",
        "neuralsdf train-latent prepared/ -o run/ --preset paper --config mine.toml --set codes.bound=2",
        "torchrun --nproc-per-node 2 -m neuralsdf train-latent prepared/ -o run/",
    )
)
@click.argument("dataset", type=options.INPUT)
@options.output("Folder of the run; the same command continues a run that was stopped.", required=True)
@click.option(
    "--model", type=click.Choice(["deepsdf"]), default="deepsdf", show_default=True, help="Kind of model."
)
@click.option(
    "--preset",
    type=click.Choice(["small", "paper"]),
    default="small",
    show_default=True,
    help="Settings to start from: for two cores, or as published, for a GPU.",
)
@click.option("--config", type=options.INPUT, metavar="FILE", help="TOML file with settings.")
@click.option(
    "--set",
    "assignments",
    multiple=True,
    metavar="NAME=VALUE",
    help="A setting, such as validation.every=100; repeatable. All are in RUN/config.toml.",
)
@click.option("--class", "category", metavar="NAME", help="Train on one class.  [default: all]")
@click.option("--layers", type=WholeNumber(1, 64), metavar="N", help="Hidden layers.  [default: preset]")
@click.option(
    "--width", type=WholeNumber(8, 4096), metavar="N", help="Neurons per hidden layer.  [default: preset]"
)
@click.option("--code", type=WholeNumber(1, 4096), metavar="N", help="Numbers in a code.  [default: preset]")
@click.option(
    "--steps", type=WholeNumber(1, 10**9), metavar="N", help="Steps of the optimizer.  [default: preset]"
)
@click.option(
    "--epochs", type=WholeNumber(1, 10**9), metavar="N", help="Passes over all shapes, instead of --steps."
)
@click.option(
    "--shapes", type=WholeNumber(1, 1 << 16), metavar="N", help="Shapes in a step.  [default: preset]"
)
@click.option(
    "--samples", type=WholeNumber(2, 1 << 20), metavar="N", help="Samples of each.  [default: preset]"
)
@click.option(
    "--learning-rate", type=Number(), metavar="RATE", help="That of the decoder.  [default: preset]"
)
@click.option(
    "--patience",
    type=WholeNumber(0, 10**6),
    metavar="N",
    help="Stop after N validations without a better one; 0 disables it.  [default: 0]",
)
@click.option("--seed", type=WholeNumber(0, 2**63 - 1), metavar="N", help="Random seed.  [default: 0]")
@options.as_json
def command(
    dataset: Path,
    output: Path,
    model: str,
    preset: str,
    config: Path | None,
    assignments: tuple[str, ...],
    category: str | None,
    as_json: bool,
    **given: Any,
) -> None:
    """Train one network for the many shapes of DATASET, a folder that `neuralsdf prepare` has written.

    The run has the settings, a log, checkpoints, the decoder and the codes of the training shapes.
    `reconstruct`, `interpolate` and `evaluate-latent` use it.
    """
    from ...latent.cache import Cache
    from ...latent.training import train

    settings = _settings(preset, model, config, assignments, given)
    with terminal.stage(f"open {dataset}"):
        cache = Cache(dataset)
    try:
        with _progress() as report:
            trained = train(cache, output, settings, category=category, report=report)
    except (KeyboardInterrupt, SystemExit) as end:
        terminal.error("interrupted; the same command continues")
        raise SystemExit(end.code if isinstance(end, SystemExit) else _INTERRUPTED) from None
    if int(os.environ.get("RANK", "0")):
        return
    if as_json:
        terminal.print_json({"run": str(output), **vars(trained)})
        return
    early = ", stopped early" if trained.stopped_early else ""
    best = (
        ""
        if trained.best_iou is None
        else f"; best validation IoU {trained.best_iou:.3f} at step {trained.best_step:,}"
    )
    terminal.say(f"{output}: {trained.steps:,} steps in {trained.seconds:.0f} s{early}{best}")


def _settings(
    preset: str, model: str, config: Path | None, assignments: tuple[str, ...], given: dict[str, Any]
) -> Settings:
    """The preset, changed by the file, then by single settings and options."""
    from ...latent.config import PRESETS, parse_assignments, read_settings

    settings = PRESETS[preset].updated({"model": model}, "--model")
    if config is not None:
        settings = read_settings(config, settings)
    values = parse_assignments(list(assignments))
    for name, value in given.items():
        if value is not None:
            section, key = _SETTINGS[name].split(".")
            values.setdefault(section, {})[key] = value
    return settings.updated(values, "settings")


@contextmanager
def _progress() -> Iterator[Callable[[Progress], None]]:
    """A bar with the loss and the latest validation."""
    with terminal.bar("train", total=1, bar_format="{desc} {bar} {percentage:3.0f} % {remaining}") as bar:

        def report(progress: Progress) -> None:
            valid = progress.validation
            known = "" if valid is None else f", validation IoU {valid.iou:.3f}"
            state = f"step {progress.step:,} of {progress.steps:,}: loss {progress.loss:.5f}{known}"
            terminal.detail(state)
            bar.total = progress.steps
            bar.set_description_str(state, refresh=False)
            bar.update(progress.step - bar.n)

        yield report
