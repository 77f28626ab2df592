"""
batch_convert.py
----------------
`neuralsdf batch-convert`: a data set of meshes to models and one data-set file.
"""

from __future__ import annotations

import math
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ...errors import UsageError
from ..shared import conversion_options as conversion
from ..shared import options, terminal
from ..shared.numbers import Number, WholeNumber
from .convert import stage_times

if TYPE_CHECKING:
    from ...batch.dry_run import Preview
    from ...batch.engine_processes import Engine
    from ...batch.manifest import Record
    from ...batch.recipe import Recipe
    from ...batch.run import Progress, Summary
    from ...batch.status import Status

_INTERRUPTED = 130

#: Folders that cannot be listed are named, so many of them.
_MOST_FOLDERS = 20

#: Seconds from one line of a log to the next.
_LOG_EVERY = 60.0

#: Networks that a GPU fits at once, unless --together says otherwise.
_TOGETHER = 64


def _shard(ctx: click.Context, parameter: click.Parameter, value: str | None) -> tuple[int, int] | None:
    if value is None:
        return None
    match = re.fullmatch(r"(\d+)/(\d+)", value)
    if match is None or not 1 <= int(match[1]) <= int(match[2]):
        raise click.BadParameter(f"{value!r} is not i/n with i from 1 to n", ctx, parameter)
    return int(match[1]), int(match[2])


def _size(ctx: click.Context, parameter: click.Parameter, value: str | None) -> float | None:
    if value is None:
        return None
    match = re.fullmatch(r"(\d+(?:\.\d*)?)\s*([kMGT])i?B?", value)
    if match is None:
        raise click.BadParameter(f"{value!r} is not a size such as 500M or 2G", ctx, parameter)
    return float(match[1]) * 1024.0 ** ("kMGT".index(match[2]) + 1)


@options.command(
    epilog=options.example(
        "neuralsdf batch-convert meshes/ -o models/",
        "neuralsdf batch-convert 'meshes/**/*.stl' -o models/ --width 64 --workers 8",
        "find meshes -size -10M -name '*.stl' | neuralsdf batch-convert - -o models/",
        "neuralsdf batch-convert meshes/ -o models/ --shard 3/16   # and batch-merge after all 16",
        "neuralsdf batch-convert -o models/ --status",
    )
)
@click.argument("datasets", nargs=-1, metavar="DATASET")
@options.output("Folder to write.", required=True)
@click.option("-f", "--force", is_flag=True, help="Convert anew what was converted with other options.")
@click.option(
    "--engine",
    type=click.Choice(["local", "ray"]),
    default="local",
    show_default=True,
    help="Where workers are: on this machine, or on a Ray cluster that shares its files.",
)
@click.option(
    "--workers",
    type=WholeNumber(1, 10_000),
    metavar="N",
    help="Processes of a thread each.  [default: --threads]",
)
@click.option(
    "--timeout",
    type=Number(0),
    default=3600,
    show_default=True,
    metavar="SECONDS",
    help="Give up a shape that takes longer; 0 for never.",
)
@click.option(
    "--max-memory",
    "worker_memory",
    callback=_size,
    metavar="SIZE",
    help="Give up a shape that needs more, such as 2G.  [default: a worker's share of the machine's]",
)
@click.option(
    "--together",
    type=WholeNumber(1, 4096),
    metavar="N",
    help="Fit N networks at once, without the corrections of a single fit.  [default: 64 on a GPU, else 1]",
)
@click.option("--retry-failed", is_flag=True, help="Try again what failed.")
@click.option(
    "--shard", callback=_shard, metavar="I/N", help="Convert the I-th of N parts of the data set, I from 1."
)
@click.option("--dry-run", is_flag=True, help="Say what would be done and how long it would take.")
@click.option("--status", is_flag=True, help="Say how far the run in the folder is, and end.")
@conversion.conversion
@options.device
@options.as_json
def command(
    datasets: tuple[str, ...],
    output: Path,
    force: bool,
    engine: str,
    workers: int | None,
    timeout: float,
    worker_memory: float | None,
    together: int | None,
    retry_failed: bool,
    shard: tuple[int, int] | None,
    dry_run: bool,
    status: bool,
    backend: str | None,
    as_json: bool,
    **settings: Any,
) -> None:
    """Convert every mesh of DATASET: a folder, a pattern in quotes, or a file that lists meshes (- for
    standard input).

    Writes models/, dataset.h5 with all of them, and manifest.sqlite with what became of each. A mesh that
    fails, hangs or crashes stops no other. The same command continues a run that was ended, and redoes only
    meshes that have changed. Exits with 1 if a shape failed or misses --target-error, or a folder could not
    be listed.
    """
    if status:
        _print_status(output, as_json)
        return
    dataset = _one_of(datasets)
    from ...batch.recipe import Recipe
    from ...parallel import threads

    arguments = conversion.arguments(settings)
    together = together or _default_together(backend, engine, arguments)
    if together > 1 and engine == "ray":
        raise UsageError("--together with --engine ray: a cluster's workers fit one network each")
    recipe = Recipe(**arguments, together=together > 1)
    start = partial(_engine, engine, recipe, timeout or math.inf, worker_memory, backend, together)
    if dry_run:
        from ...batch.dry_run import preview

        found = preview(dataset, output, recipe, lambda: start(1), shard=shard, retry_failed=retry_failed)
        _print_preview(found, workers or threads(), as_json)
        return
    from ...batch.run import batch_convert

    try:
        with _progress() as report:
            summary = batch_convert(
                dataset,
                output,
                recipe,
                lambda: start(workers),
                shard=shard,
                retry_failed=retry_failed,
                force=force,
                report=report,
            )
    except (KeyboardInterrupt, SystemExit) as end:  # Ctrl-C; SIGTERM and SIGHUP, as main.py takes them
        terminal.error("interrupted; the same command continues")
        raise SystemExit(end.code if isinstance(end, SystemExit) else _INTERRUPTED) from None
    print_summary(output, summary, as_json, shard)
    raise SystemExit(1 if summary.counts.failed or summary.counts.missed or summary.unlisted else 0)


def _one_of(datasets: tuple[str, ...]) -> str:
    """The data set; raises `UsageError` where there is none, or what a shell makes of a pattern."""
    if not datasets:
        raise UsageError("DATASET is missing: a folder of meshes, a pattern, or a file that lists them")
    if len(datasets) > 1:
        raise UsageError(
            f"{len(datasets)} data sets ({datasets[0]}, {datasets[1]}...): give one, a pattern in quotes"
        )
    return datasets[0]


def _default_together(backend: str | None, engine: str, arguments: dict[str, Any]) -> int:
    """How many networks to fit at once where nobody says: a GPU is for many, and a target error for one."""
    from ...backends import get_backend

    alone = arguments["target"] is not None or arguments["training"].seconds or arguments["training"].patience
    return 1 if alone or engine == "ray" or get_backend(backend).name != "cuda" else _TOGETHER


def _engine(
    kind: str,
    recipe: Recipe,
    seconds: float,
    memory: float | None,
    backend: str | None,
    together: int,
    workers: int | None,
) -> Engine:
    """The engine that these options ask for."""
    from ...batch.engine_grouped import TogetherEngine
    from ...batch.engine_processes import Limits, LocalEngine, share_of_memory
    from ...batch.engine_ray import RayEngine
    from ...parallel import threads

    if kind == "ray":
        return RayEngine(recipe, workers, seconds, memory, backend)
    count = workers or threads()
    limits = Limits(seconds, memory or share_of_memory(count))
    if together > 1:
        return TogetherEngine(recipe, count, limits, backend, together)
    return LocalEngine(recipe, count, limits, backend)


def _print_status(out: Path, as_json: bool) -> None:
    from ...batch.status import batch_status

    parts = batch_status(out)
    if len(parts) > 1 and not as_json:
        parts.append(_all_of(parts))
    if as_json:
        terminal.print_json(
            [
                {
                    "dataset": part.dataset,
                    "shard": part.shard,
                    "under_way": part.under_way,
                    **part.counts._asdict(),
                    "per_minute": part.per_minute,
                    "minutes_left": part.minutes_left,
                }
                for part in parts
            ]
        )
        return
    header = ["", "shapes", "done", "failed", "left", "per minute", "time left", ""]
    rows = [
        [
            part.dataset if part.shard is None else "shard {}/{}".format(*part.shard),
            part.counts.shapes,
            part.counts.done,
            part.counts.failed,
            part.counts.waiting,
            part.per_minute,
            None if part.minutes_left is None else _duration(60 * part.minutes_left),
            "under way" if part.under_way else "stopped" if part.counts.waiting else "finished",
        ]
        for part in parts
    ]
    terminal.print_table(rows, header)


def _all_of(shards: list[Status]) -> Status:
    """What the shards that have begun are together; those that run do so at the same time."""
    from ...batch.status import Status

    rates = [shard.per_minute for shard in shards if shard.per_minute and shard.under_way]
    counts = type(shards[0].counts)(*map(sum, zip(*(shard.counts for shard in shards), strict=True)))
    name = f"{len(shards)} of {shards[0].shard[1]} shards" if shards[0].shard else ""
    return Status(name, None, any(shard.under_way for shard in shards), counts, sum(rates) or None)


def _print_preview(found: Preview, workers: int, as_json: bool) -> None:
    each = found.seconds_each
    _note_unlisted(found.unlisted)
    seconds = None if each is None else each * found.to_convert / min(workers, max(1, found.to_convert))
    if as_json:
        terminal.print_json({**vars(found), "workers": workers, "seconds": seconds})
        return
    terminal.print_table(
        [
            ["shapes", found.shapes],
            ["to convert", found.to_convert],
            ["to look at, for a change", found.to_check],
            ["files that are no mesh", found.ignored],
            ["workers", workers],
            ["time, estimated", None if seconds is None else _duration(seconds)],
        ]
    )


def print_summary(out: Path, summary: Summary, as_json: bool, shard: tuple[int, int] | None) -> None:
    """Print how a run ended."""
    counts = summary.counts
    _note_unlisted(summary.unlisted)
    if as_json:
        ended = {"out": out, **vars(summary), "counts": counts._asdict(), "failures": _failures(out, shard)}
        terminal.print_json(ended)
        return
    terminal.say(
        f"{', '.join(map(str, summary.datasets)) or out}: {counts.done:,} of {counts.shapes:,} shapes done "
        f"({summary.converted:,} now), {counts.failed:,} failed, in {_duration(summary.seconds)}"
    )
    for what, count in (
        ("files of the data set that are no mesh", summary.ignored),
        ("shapes of an earlier run that are no longer there (their models are left)", summary.forgotten),
        ("models that miss the target error", counts.missed),
        ("shapes that failed before (--retry-failed tries them again)", counts.failed - summary.failed_now),
    ):
        if count:
            terminal.note(f"{what}: {count:,}")


def _note_unlisted(folders: tuple[str, ...]) -> None:
    """Say which folders of a data set are left out because they could not be listed."""
    for line in folders[:_MOST_FOLDERS]:
        terminal.error(f"error: {line}; its meshes are left out")
    if len(folders) > _MOST_FOLDERS:
        terminal.error(f"error: {len(folders) - _MOST_FOLDERS:,} more folders cannot be listed")


def _failures(out: Path, shard: tuple[int, int] | None) -> list[dict[str, Any]]:
    from ...batch.folder import Folder
    from ...batch.manifest import Manifest

    with Manifest.open(Folder(out).manifest(shard)) as manifest:
        return [
            {"name": record.name, "cause": record.cause, "reason": record.reason}
            for record in manifest.records("failed")
        ]


def _duration(seconds: float) -> str:
    hours, rest = divmod(round(seconds), 3600)
    return f"{hours}:{rest // 60:02}:{rest % 60:02}" if seconds >= 60 else f"{seconds:.1f} s"


@contextmanager
def _progress() -> Iterator[Callable[[Record | None, Progress], None]]:
    """A line for each failure; and how far it is, as a bar on a terminal, or else in a line a minute."""
    began = logged = time.monotonic()
    ended = 0
    with terminal.bar("workers start", bar_format="{bar} {desc}") as bar:

        def report(record: Record | None, progress: Progress) -> None:
            nonlocal ended, logged
            ended += 1
            if record is not None and record.state == "failed":
                terminal.error(f"{record.name}: {record.reason}")
            elif record is not None:
                terminal.detail(f"{record.name}: {stage_times(record.seconds)}")
            now = time.monotonic()
            state = _how_far(progress, ended, now - began)
            if bar.disable and now - logged >= _LOG_EVERY:
                terminal.note(state)
                logged = now
            bar.total = ended + progress.left
            bar.set_description_str(state, refresh=False)
            bar.update()

        yield report


def _how_far(progress: Progress, ended: int, seconds: float) -> str:
    """In one line; ended: shapes in these seconds."""
    rate = ended / max(seconds, 1e-3)
    return (
        f"{progress.done:,} done, {progress.failed:,} failed, {progress.left:,} left; "
        f"{60 * rate:.1f} a minute, {_duration(progress.left / rate)} to go"
    )
