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

from ...errors import UsageError
from ..shared import options, terminal
from ..shared.number_types import Number, WholeNumber
from .batch_convert import batch_progress, note_unlisted

if TYPE_CHECKING:
    from ...latent.cache import Cache, Entry
    from ...latent.config import Settings
    from ...latent.training import Progress, Trained
    from ...latent.validation import Validation

_INTERRUPTED = 130

#: Shapes that are named as the worst.
_WORST = 5

#: Options that set one setting each.
_SETTINGS = {
    "layers": "decoder.layers",
    "width": "decoder.width",
    "code": "decoder.code",
    "step_count": "training.steps",
    "epochs": "training.epochs",
    "shapes": "training.shapes",
    "samples": "training.samples",
    "learning_rate": "training.learning_rate",
    "seed": "training.seed",
    "patience": "validation.patience",
    "precision": "training.precision",
}


@options.command(
    epilog=options.example(
        "neuralsdf train-latent prepared/ -o run/",
        "neuralsdf train-latent shapes/ -o run/",
        "neuralsdf train-latent --quick -o run/",
        "neuralsdf train-latent prepared/ -o run/ --class chair --steps 5000",
        "neuralsdf train-latent prepared/ -o run/ --preset paper --config mine.toml --set codes.bound=2",
        "torchrun --nproc-per-node 2 -m neuralsdf train-latent prepared/ -o run/",
    )
)
@click.argument("dataset", required=False)
@options.output("Folder of the run; the same command continues a run that was stopped.", required=True)
@click.option(
    "--model", type=click.Choice(["deepsdf"]), default="deepsdf", show_default=True, help="Kind of model."
)
@click.option(
    "--preset",
    type=click.Choice(["small", "paper"]),
    help="Settings to start from: for two cores, or as published, for a GPU.  [default: small]",
)
@click.option(
    "--quick",
    is_flag=True,
    help="Train for minutes, then reconstruct test shapes; without DATASET, shapes are generated.",
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
    "--steps",
    "step_count",
    type=WholeNumber(1, 10**9),
    metavar="N",
    help="Steps of the optimizer.  [default: preset]",
)
@click.option(
    "--epochs", type=WholeNumber(1, 10**9), metavar="N", help="Passes over all shapes, instead of --steps."
)
@click.option(
    "--shapes", type=WholeNumber(1, 1 << 16), metavar="N", help="Shapes per step.  [default: preset]"
)
@click.option(
    "--samples",
    type=WholeNumber(2, 1 << 20),
    metavar="N",
    help="Samples of each shape per step.  [default: preset]",
)
@click.option(
    "--learning-rate",
    type=Number(),
    metavar="RATE",
    help="Initial learning rate of the decoder.  [default: preset]",
)
@click.option(
    "--patience",
    type=WholeNumber(0, 10**6),
    metavar="N",
    help="Stop after N validations without a better one; 0 disables it.  [default: 0]",
)
@click.option("--seed", type=WholeNumber(0, 2**63 - 1), metavar="N", help="Random seed.  [default: 0]")
@click.option(
    "--device",
    type=click.Choice(["auto", "cpu", "cuda"]),
    default="auto",
    show_default=True,
    help="Where to train; auto is a GPU if there is one.",
)
@click.option(
    "--precision",
    type=click.Choice(["auto", "f32", "bf16"]),
    help="Type of hidden values; auto is bf16 on a GPU that has it, else f32.  [default: auto]",
)
@options.as_json
def command(
    dataset: str | None,
    output: Path,
    quick: bool,
    model: str,
    preset: str | None,
    config: Path | None,
    assignments: tuple[str, ...],
    category: str | None,
    device: str,
    as_json: bool,
    **given: Any,
) -> None:
    """Train one network for the many shapes of DATASET.

    DATASET is a folder that `neuralsdf prepare` has written; or meshes as `prepare` takes them, which are
    prepared in RUN/prepared first. RUN is the folder of --output: it has the settings, a log, checkpoints,
    the decoder and the codes of the training shapes. `reconstruct`, `interpolate` and `evaluate-latent` use
    it.
    """
    if dataset is None and not quick:
        raise click.UsageError("Missing argument 'DATASET'; only --quick does without it.")
    if preset and quick:
        raise click.UsageError("--quick cannot be combined with --preset: it has settings of its own")
    is_first = int(os.environ.get("RANK", "0")) == 0
    from ...latent.device import chosen_device

    chosen_device(device)
    settings = _settings(preset or ("quick" if quick else "small"), model, config, assignments, given)
    try:
        cache = _generated(output, category) if dataset is None else _opened(dataset, output)
        trained = _train(cache, output, settings, category, device)
        if is_first:
            _finish(cache, output, settings, category, trained, quick, as_json)
    except (KeyboardInterrupt, SystemExit) as end:
        terminal.error("interrupted; run the same command again to continue")
        raise SystemExit(end.code if isinstance(end, SystemExit) else _INTERRUPTED) from None


def _opened(dataset: str, run: Path) -> Cache:
    """A prepared data set; one of meshes is prepared first."""
    from ...batch.find_meshes import find_sources
    from ...latent.cache import Cache
    from ...latent.prepare import is_prepared, prepare
    from ...latent.run_folder import RunFolder

    if is_prepared(dataset):
        with terminal.stage(f"open {dataset}"):
            return Cache(dataset)
    _check_alone(dataset)
    prepared = RunFolder(run).prepared
    sources = find_sources(dataset, prepared)
    terminal.note(f"{dataset}: {len(sources.meshes):,} meshes are prepared in {prepared} first")
    with batch_progress() as report:
        summary = prepare(dataset, prepared, sources=sources, report=report)
    note_unlisted(summary.unlisted)
    if summary.counts.failed:
        terminal.note(
            f"{summary.counts.failed:,} of {summary.counts.shapes:,} shapes failed and are left out"
        )
    return Cache(prepared)


def _check_alone(dataset: str) -> None:
    """Raise `UsageError` if several processes train, of which only one may prepare the data set."""
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise click.UsageError(f"{dataset}: is not prepared; run neuralsdf prepare before torchrun")


def _generated(run: Path, category: str | None) -> Cache:
    """Parametric shapes of a class, generated and prepared in the run."""
    from ...latent import quick
    from ...latent.cache import Cache
    from ...latent.parametric.dataset import known_classes
    from ...latent.run_folder import RunFolder

    _check_alone("--quick without DATASET")
    folder, (category,) = RunFolder(run), known_classes([category or quick.CLASS])
    terminal.note(f"{quick.SHAPES} shapes of the class {category} are generated and prepared in {run} first")
    with _counting("shapes") as count:
        quick.make_shapes(folder.shapes, category, count)
    with batch_progress() as report:
        quick.prepare_shapes(folder.shapes, folder.prepared, report)
    return Cache(folder.prepared)


def _finish(
    cache: Cache,
    run: Path,
    settings: Settings,
    category: str | None,
    trained: Trained,
    quick: bool,
    as_json: bool,
) -> None:
    """Reconstruct shapes that were not trained on, print how good the decoder is, and draw them."""
    from ...latent.quick import MAX_TEST, unseen
    from ...latent.training import chosen_shapes

    entries = cache.split("test", category)[:MAX_TEST] if quick else []
    tested = None
    if entries:
        with _counting("reconstruct") as count:
            tested = unseen(cache, run, entries, count)
    else:
        entries = chosen_shapes(cache, settings, category)[1]
    picture = _draw(cache, run, settings, entries, tested) if entries else None
    _print(run, trained, tested, picture, as_json)


def _draw(
    cache: Cache, run: Path, settings: Settings, entries: list[Entry], found: Validation | None
) -> Path | None:
    """Draw reconstructions beside their meshes, if these are still there; found: their codes, if known."""
    from ...errors import NeuralSDFError
    from ...latent.held_out_picture import save_held_out_picture
    from ...latent.run_folder import RunFolder
    from ...latent.validation import inference_settings, validate
    from ...latent_fields.decoder_file import read_decoder

    folder = RunFolder(run)
    with terminal.stage(f"write {folder.picture}"):
        if found is None:
            shapes = [cache.shape(entry) for entry in entries]
            found = validate(read_decoder(folder.decoder), shapes, inference_settings(settings))
        try:
            save_held_out_picture(folder.picture, run, cache, entries, found)
        except NeuralSDFError as error:
            terminal.note(f"no picture of the reconstructions: {error}")
            return None
    return folder.picture


@contextmanager
def _counting(what: str) -> Iterator[Callable[[int, int], None]]:
    """A bar for numbers of shapes that are done, and of all."""
    with terminal.bar(what) as bar:

        def report(done: int, total: int) -> None:
            bar.total = total
            bar.update(done - bar.n)

        yield report


def _train(cache: Cache, run: Path, settings: Settings, category: str | None, device: str) -> Trained:
    """Train, with a note if no shape is left for validation."""
    from ...latent.checkpoint import read_position
    from ...latent.run_folder import RunFolder
    from ...latent.training import chosen_shapes, train

    last = RunFolder(run).last
    if last.exists():
        terminal.note(f"{run}: continues at step {read_position(last).step:,}")

    if not chosen_shapes(cache, settings, category)[1]:
        terminal.note("no shapes to validate on: the decoder of the last step is kept")
    with _progress() as report:
        return train(cache, run, settings, category=category, device=device, report=report)


def _print(
    run: Path, trained: Trained, tested: Validation | None, picture: Path | None, as_json: bool
) -> None:
    """Print the length of the training, how good the decoder is, and the worst shapes."""
    valid = trained.validation
    if as_json:
        plain = {"validation": valid and _plain(valid), "best_iou": trained.best_iou, "picture": picture}
        if tested is not None:
            plain["test"] = {"median_iou": tested.median, **_plain(tested)}
        terminal.print_json({"run": str(run), **vars(trained), **plain})
        return
    early = ", stopped early" if trained.stopped_early else ""
    terminal.say(f"{run}: {trained.steps:,} steps in {trained.seconds:.0f} s{early}")
    if valid is not None:
        terminal.say(
            f"{len(valid.ious)} validation shapes at step {trained.best_step:,}: "
            f"mean IoU {valid.iou:.3f}, error {valid.loss:.4f}; worst: {_worst(valid)}"
        )
    if tested is not None:
        terminal.say(
            f"{len(tested.ious)} test shapes: median IoU {tested.median:.3f}, mean {tested.iou:.3f}; "
            f"worst: {_worst(tested)}"
        )

    if picture is not None:
        terminal.say(f"{picture}: reconstructions beside their meshes")


def _plain(found: Validation) -> dict[str, Any]:
    return {"loss": found.loss, "iou": found.iou, "ious": dict(found.ious)}


def _worst(found: Validation) -> str:
    return ", ".join(f"{name} (IoU {iou:.3f})" for name, iou in found.worst[:_WORST])


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
            inner = values.setdefault(section, {})
            if not isinstance(inner, dict):
                raise UsageError(f"--set {section}: is a section; name one of its settings")
            inner[key] = value
    if given["layers"] is not None and settings.decoder.skip >= given["layers"]:
        values["decoder"].setdefault("skip", given["layers"] // 2)
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
