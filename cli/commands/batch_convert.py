"""
batch_convert.py
----------------
`neuralsdf batch-convert`: convert a data set of meshes to models and one data-set file.
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
from ..shared.byte_sizes import read_size
from ..shared.number_types import Number, WholeNumber
from .convert import stage_times

if TYPE_CHECKING:
    from ...batch.convert_job import ConvertJob
    from ...batch.dry_run import Preview
    from ...batch.engine_interface import Engine
    from ...batch.run_batch import Progress, Summary
    from ...batch.run_status import Status
    from ...batch.shape_record import Record

_INTERRUPTED = 130

#: How many of the folders that cannot be listed are printed.
_MAX_FOLDERS = 20

#: Seconds between two lines of progress in a log.
_LOG_EVERY = 60.0

#: The default of --together on a GPU.
_GROUP_SIZE = 64


def _shard(ctx: click.Context, parameter: click.Parameter, value: str | None) -> tuple[int, int] | None:
    if value is None:
        return None
    match = re.fullmatch(r"(\d{1,9})/(\d{1,9})", value)
    if match is None or not 1 <= int(match[1]) <= int(match[2]):
        raise click.BadParameter(f"{value!r} is not i/n with i from 1 to n", ctx, parameter)
    return int(match[1]), int(match[2])


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
@click.option("-f", "--force", is_flag=True, help="Convert all meshes again if the options have changed.")
@click.option(
    "--engine",
    type=click.Choice(["local", "ray"]),
    default="local",
    show_default=True,
    help="Where workers run: on this machine, or on a Ray cluster with shared files.",
)
@click.option(
    "--workers",
    type=WholeNumber(1, 10_000),
    metavar="N",
    help="Worker processes, with one thread each.  [default: --threads]",
)
@click.option(
    "--timeout",
    type=Number(0),
    default=3600,
    show_default=True,
    metavar="SECONDS",
    help="Time limit for a shape; 0 for none.",
)
@click.option(
    "--max-memory",
    "worker_memory",
    callback=read_size,
    metavar="SIZE",
    help="Memory limit for a worker, such as 2GB.  [default: an equal part of 80 % of the machine's]",
)
@click.option(
    "--together",
    type=WholeNumber(1, 4096),
    metavar="N",
    help="Fit N networks at once.  [default: 64 on a GPU, else 1]",
)
@click.option("--retry-failed", is_flag=True, help="Retry shapes that failed.")
@click.option(
    "--shard", callback=_shard, metavar="I/N", help="Convert part I of N of the data set, I from 1."
)
@click.option(
    "--dry-run", is_flag=True, help="Print what would be done and how long it would take, and exit."
)
@click.option("--status", is_flag=True, help="Print the progress of the run in the folder, and exit.")
@conversion.conversion
@options.device_of_workers
@options.as_json
def command(
    datasets: tuple[str, ...],
    output: Path,
    force: bool,
    engine: str,
    workers: int | None,
    timeout: float,
    worker_memory: int | None,
    together: int | None,
    retry_failed: bool,
    shard: tuple[int, int] | None,
    dry_run: bool,
    status: bool,
    device: str,
    as_json: bool,
    **settings: Any,
) -> None:
    """Convert all meshes of DATASET: a folder, a pattern in quotes, or a file that lists meshes (- for
    standard input).

    Writes models/, dataset.h5 with all models, and manifest.sqlite with the result of each mesh. A mesh that
    fails, hangs or crashes does not stop the others. The same command continues a run that was stopped, and
    converts only new and changed meshes. The exit code is 1 if a shape failed or misses --target-error, or a
    folder could not be listed.
    """
    if status:
        _print_status(output, as_json)
        return
    dataset = _one_of(datasets)
    from ...batch.conversion_recipe import Recipe
    from ...batch.convert_job import ConvertJob
    from ...thread_count import threads

    arguments = conversion.arguments(settings)
    group_size = together or _default_group_size(device, engine, arguments)
    if group_size > 1 and engine == "ray":
        raise UsageError("--together cannot be combined with --engine ray, which fits one network per worker")
    job = ConvertJob(Recipe(**arguments, together=group_size > 1), device)
    start = partial(_engine, engine, job, timeout or math.inf, worker_memory, group_size)
    if dry_run:
        from ...batch.dry_run import preview

        found = preview(dataset, output, job, lambda: start(1), shard=shard, retry_failed=retry_failed)
        _print_preview(found, workers or threads(), as_json)
        return
    from ...batch.run_batch import run_batch

    try:
        with batch_progress() as report:
            summary = run_batch(
                dataset,
                output,
                job,
                lambda: start(workers),
                shard=shard,
                retry_failed=retry_failed,
                force=force,
                report=report,
            )
    except (KeyboardInterrupt, SystemExit) as end:  # Ctrl-C; SIGTERM and SIGHUP, as main.py handles them
        terminal.error("interrupted; run the same command again to continue")
        raise SystemExit(end.code if isinstance(end, SystemExit) else _INTERRUPTED) from None
    print_summary(output, summary, as_json, shard)
    raise SystemExit(1 if summary.counts.failed or summary.counts.missed or summary.unlisted else 0)


def _one_of(datasets: tuple[str, ...]) -> str:
    """The data set; raises `UsageError` if there is none, or several, as when a shell expands a pattern."""
    if not datasets:
        raise UsageError(
            "DATASET is missing: give a folder of meshes, a pattern, or a file that lists meshes"
        )
    if len(datasets) > 1:
        raise UsageError(
            f"{len(datasets)} data sets ({datasets[0]}, {datasets[1]}...): give one, a pattern in quotes"
        )
    return datasets[0]


def _default_group_size(device: str, engine: str, arguments: dict[str, Any]) -> int:
    """How many networks to fit at once by default: many on a GPU, if the options allow it."""
    from ...backends.batched_networks import fits_together

    alone = arguments["target"] is not None or arguments["training"].seconds or arguments["training"].patience
    return 1 if alone or engine == "ray" or not fits_together(device) else _GROUP_SIZE


def _engine(
    kind: str,
    job: ConvertJob,
    seconds: float,
    memory: int | None,
    group_size: int,
    workers: int | None,
) -> Engine:
    """The engine for these options."""
    from ...batch.engine_grouped import GroupedEngine
    from ...batch.engine_processes import LocalEngine
    from ...batch.engine_ray import RayEngine
    from ...batch.resource_limits import Limits, memory_per_worker
    from ...thread_count import threads

    if kind == "ray":
        return RayEngine(job, workers, seconds, memory)
    count = workers or threads()
    limits = Limits(seconds, memory or memory_per_worker(count))
    if group_size > 1:
        return GroupedEngine(job, count, limits, group_size)
    return LocalEngine(job, count, limits)


def _print_status(out: Path, as_json: bool) -> None:
    from ...batch.run_status import batch_status

    parts = batch_status(out)
    if len(parts) > 1 and not as_json:
        parts.append(_all_of(parts))
    if as_json:
        terminal.print_json(
            [
                {
                    "dataset": part.dataset,
                    "shard": part.shard,
                    "running": part.running,
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
            None if part.minutes_left is None else duration(60 * part.minutes_left),
            "running" if part.running else "stopped" if part.counts.waiting else "finished",
        ]
        for part in parts
    ]
    terminal.print_table(rows, header)


def _all_of(shards: list[Status]) -> Status:
    """The sum of the shards that have started, with the total rate of those that are running."""
    from ...batch.run_status import Status

    rates = [shard.per_minute for shard in shards if shard.per_minute and shard.running]
    counts = type(shards[0].counts)(*map(sum, zip(*(shard.counts for shard in shards), strict=True)))
    name = f"{len(shards)} of {shards[0].shard[1]} shards" if shards[0].shard else ""
    return Status(name, None, any(shard.running for shard in shards), counts, sum(rates) or None)


def _print_preview(found: Preview, workers: int, as_json: bool) -> None:
    each = found.seconds_each
    note_unlisted(found.unlisted)
    seconds = None if each is None else each * found.to_do / min(workers, max(1, found.to_do))
    if as_json:
        plain = {"to_convert" if name == "to_do" else name: value for name, value in vars(found).items()}
        terminal.print_json(plain | {"workers": workers, "seconds": seconds})
        return
    terminal.print_table(
        [
            ["shapes", found.shapes],
            ["to convert", found.to_do],
            ["to check for changes", found.to_check],
            ["files that are not meshes", found.ignored],
            ["workers", workers],
            ["estimated time", None if seconds is None else duration(seconds)],
        ]
    )


def print_summary(out: Path, summary: Summary, as_json: bool, shard: tuple[int, int] | None) -> None:
    """Print how a run ended."""
    counts = summary.counts
    note_unlisted(summary.unlisted)
    if as_json:
        terminal.print_json(_plain(out, summary, shard))
        return
    terminal.say(
        f"{', '.join(map(str, summary.files)) or out}: {counts.done:,} of {counts.shapes:,} shapes done "
        f"({summary.done_now:,} now), {counts.failed:,} failed, in {duration(summary.seconds)}"
    )
    for what, count in (
        ("files of the data set that are not meshes", summary.ignored),
        (
            "shapes of an earlier run that are no longer in the data set (models are kept)",
            summary.removed,
        ),
        ("models that miss the target error", counts.missed),
        ("shapes that failed in an earlier run (--retry-failed)", counts.failed - summary.failed_now),
    ):
        if count:
            terminal.note(f"{what}: {count:,}")


def _plain(out: Path, summary: Summary, shard: tuple[int, int] | None) -> dict[str, Any]:
    return {
        "out": out,
        "counts": summary.counts._asdict(),
        "converted": summary.done_now,
        "failed_now": summary.failed_now,
        "removed": summary.removed,
        "ignored": summary.ignored,
        "datasets": summary.files,
        "seconds": summary.seconds,
        "unlisted": summary.unlisted,
        "failures": _failures(out, shard),
    }


def note_unlisted(folders: tuple[str, ...]) -> None:
    """Print which folders of a data set are left out because they could not be listed."""
    for line in folders[:_MAX_FOLDERS]:
        terminal.error(f"error: {line}; its meshes are left out")
    if len(folders) > _MAX_FOLDERS:
        terminal.error(f"error: {len(folders) - _MAX_FOLDERS:,} more folders cannot be listed")


def _failures(out: Path, shard: tuple[int, int] | None) -> list[dict[str, Any]]:
    from ...batch.manifest import Manifest
    from ...batch.output_folder import Folder

    with Manifest.open(Folder(out).manifest(shard)) as manifest:
        return [
            {"name": record.name, "cause": record.cause, "reason": record.reason}
            for record in manifest.records("failed")
        ]


def duration(seconds: float) -> str:
    """Hours, minutes and seconds, or seconds if there are less than 60."""
    hours, rest = divmod(round(seconds), 3600)
    return f"{hours}:{rest // 60:02}:{rest % 60:02}" if seconds >= 60 else f"{seconds:.1f} s"


@contextmanager
def batch_progress() -> Iterator[Callable[[Record | None, Progress], None]]:
    """A line for each failure; and the progress: a bar on a terminal, otherwise a line every minute."""
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
            state = _progress_line(progress, ended, now - began)
            if bar.disable and now - logged >= _LOG_EVERY:
                terminal.note(state)
                logged = now
            bar.total = ended + progress.left
            bar.set_description_str(state, refresh=False)
            bar.update()

        yield report


def _progress_line(progress: Progress, ended: int, seconds: float) -> str:
    """The progress in one line; ended: shapes in these seconds."""
    rate = ended / max(seconds, 1e-3)
    return (
        f"{progress.done:,} done, {progress.failed:,} failed, {progress.left:,} left; "
        f"{60 * rate:.1f} a minute, {duration(progress.left / rate)} to go"
    )
