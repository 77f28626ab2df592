"""
report.py
---------
What came of a batch run, as a page for a person (HTML, everything in one file) and a table for a program
(CSV, a row a shape). Both are made from the manifest alone, but for the pictures, which are rendered from
the model files; they can be made while a run is under way.
"""

from __future__ import annotations

import base64
import csv
import math
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from importlib.resources import files
from io import BytesIO
from itertools import groupby
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import jinja2
from markupsafe import Markup
from PIL import Image

from ..convert import STAGES
from ..errors import NeuralSDFError
from ..output import whole_file
from ..render import render
from ..storage import open_model
from ..text import printable
from ..units import DIMENSIONS
from .conversion import judged
from .folder import Folder
from .manifest import Manifest, Record, Run

#: What the paper reports of Thingi10k: 93 % of the shapes are below the first, and none is above the second.
GOOD, POOR = 0.003, 0.01

#: Pictures of the best, of the middle and of the worst shapes; pixels along a side.
_PICTURES, _SIDE = 6, 200

Progress = Callable[[int, int], None]


class Distribution(NamedTuple):
    """How an error is spread over the shapes: median, 95th percentile, greatest, and the shares (0 to 1)
    below `GOOD` and above `POOR`; NaN where no shape has it."""

    median: float
    p95: float
    greatest: float
    below: float
    above: float


class Stage(NamedTuple):
    """Seconds of a stage, over all shapes and in the median."""

    name: str
    total: float
    median: float


@dataclass(frozen=True)
class Summary:
    """A run in numbers.

    missed: of those done, those that miss the target error. Bytes are those of the meshes that became models,
    and of these models; errors are in model space (bounding radius 1). lost: seconds that went into shapes
    which then failed.
    """

    shapes: int
    done: int
    failed: int
    waiting: int
    missed: int
    source_bytes: int
    model_bytes: int
    loss: Distribution
    surface_error: Distribution
    stages: tuple[Stage, ...]
    lost: float

    @property
    def ratio(self) -> float:
        """Bytes of a mesh for each byte of its model, over the whole data set; NaN if there is no model."""
        return self.source_bytes / self.model_bytes if self.model_bytes else math.nan


def write_report(
    out: str | Path, page: str | Path, table: str | Path, *, progress: Progress | None = None
) -> Summary:
    """Write the page and the table of the batch run in the folder `out`, both or none.

    Files of these names are replaced. progress: called with the pictures that are rendered, and all of them.
    Raises `ManifestError` for a folder without a manifest, `OutputError` where a file cannot be written.
    """
    folder = Folder(Path(out))
    run, records = _run_of(folder)
    summary = summarise(records)
    with ExitStack() as outputs:
        html = outputs.enter_context(whole_file(Path(page)))
        rows = outputs.enter_context(whole_file(Path(table)))
        html.write_text(_page(folder, run, records, summary, progress), "utf-8")
        with rows.open("w", newline="", encoding="utf-8") as stream:
            # Quoted, so that a semicolon begins no cell where that is what separates cells.
            writer = csv.writer(stream, quoting=csv.QUOTE_NONNUMERIC)
            writer.writerows([_cell(value) for value in row] for row in _rows(records))
    return summary


def _run_of(folder: Folder) -> tuple[Run, list[Record]]:
    """The run in a folder, or that of its shards as far as they are, merged or not; and all its shapes."""
    run, records = Run("", {}), list[Record]()
    for shard in folder.parts():
        with Manifest.open(folder.manifest(shard)) as manifest:
            part = manifest.run()
            if part is not None:
                begun = min(run.started or part.started, part.started)
                run = Run(part.dataset, part.options, started=begun)
            records += map(judged, manifest.records())
    return run, sorted(records, key=lambda record: record.name)


def summarise(records: Sequence[Record]) -> Summary:
    """The numbers of a run."""
    states = Counter(record.state for record in records)
    done = [record for record in records if record.state == "done"]
    return Summary(
        len(records),
        states["done"],
        states["failed"],
        states["waiting"],
        sum(record.target_met is False for record in done),
        sum(record.source_bytes or 0 for record in done),
        sum(record.model_bytes or 0 for record in done),
        _distribution(_measured(done, "loss")),
        _distribution(_measured(done, "surface_mean")),
        tuple(_stage(name, done) for name in STAGES),
        sum(sum(record.seconds.values()) for record in records if record.state == "failed"),
    )


def _measured(records: Iterable[Record], metric: str) -> list[float]:
    """The values of a metric that there are, in ascending order."""
    values = (record.metrics.get(metric, math.nan) for record in records)
    return sorted(value for value in values if math.isfinite(value))


def _distribution(values: Sequence[float]) -> Distribution:
    """Of values in ascending order."""
    if not values:
        return Distribution(*[math.nan] * 5)
    below, above = (sum(value < GOOD for value in values), sum(value > POOR for value in values))
    p95 = values[min(len(values) - 1, math.ceil(0.95 * len(values)) - 1)]
    return Distribution(median(values), p95, values[-1], below / len(values), above / len(values))


def _stage(name: str, records: Iterable[Record]) -> Stage:
    seconds = [record.seconds[name] for record in records if name in record.seconds]
    return Stage(name, sum(seconds), median(seconds) if seconds else math.nan)


def _rows(records: Iterable[Record]) -> Iterator[list[Any]]:
    """The table, its header first; nothing where there is nothing to say."""
    plain = (
        "name",
        "state",
        "cause",
        "reason",
        "source",
        "source_bytes",
        "faces",
        "architecture",
        "target_met",
        "model_bytes",
    )
    yield [*plain, *DIMENSIONS, *(f"seconds_{stage}" for stage in (*STAGES, "lost")), "warnings"]
    for record in records:
        yield [
            *(getattr(record, column) for column in plain),
            *(record.metrics.get(metric) for metric in DIMENSIONS),
            *(record.seconds.get(stage) for stage in (*STAGES, "lost")),
            "; ".join(record.warnings),
        ]


def _cell(value: Any) -> Any:
    """A value as a cell; text that a spreadsheet would take for a formula gets an apostrophe before it."""
    if not isinstance(value, str):
        return value
    text = printable(value)
    return f"'{text}" if text.lstrip()[:1] in _FORMULA else text


#: What a formula begins with, full-width forms included.
_FORMULA = tuple("=+-@＝＋－＠")


def _page(
    folder: Folder, run: Run, records: Sequence[Record], summary: Summary, progress: Progress | None
) -> str:
    """The page. The environment cleans and escapes what comes from outside: names, reasons, options."""
    done = [record for record in records if record.state == "done"]
    environment = jinja2.Environment(
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=_visible,
    )
    environment.filters |= {"size": _size, "duration": _duration, "number": _number, "share": _share}
    template = environment.from_string(files(__package__).joinpath("report.html").read_text("utf-8"))
    return template.render(
        run=run,
        shards=_shards(folder),
        begun=time.strftime("%Y-%m-%d %H:%M", time.localtime(run.started)) if run.started else "",
        options=[(name, _stated(value)) for name, value in run.options.items() if _stated(value)],
        summary=summary,
        spent=sum(stage.total for stage in summary.stages) + summary.lost,
        good=GOOD,
        poor=POOR,
        histograms=[
            ("Surface error", summary.surface_error, histogram(_measured(done, "surface_mean"))),
            ("Loss", summary.loss, histogram(_measured(done, "loss"))),
        ],
        networks=Counter(record.architecture or "?" for record in done).most_common(),
        sheet=_pictured(folder, _sheet(done), progress or (lambda made, count: None)),
        failures=[record for record in records if record.state == "failed"],
        causes=Counter(record.cause or "?" for record in records if record.state == "failed").most_common(),
    )


def _visible(value: Any) -> Any:
    """A value that the template prints, without characters that would reorder or hide what is beside it."""
    return printable(value) if isinstance(value, str) and not isinstance(value, Markup) else value


def _shards(folder: Folder) -> str:
    """Which shards of the run are here, unless it is in one piece."""
    shards = folder.shards()
    if not shards:
        return ""
    count = shards[0][1]
    missing = sorted(set(range(1, count + 1)) - {i for i, _ in shards})
    return f"{count} shards" + (f", of which {', '.join(map(str, missing))} not begun" if missing else "")


def _stated(value: Any) -> str:
    """An option in a few words, a group of them in a line; "" for what is not set."""
    if isinstance(value, Mapping):
        stated = {name: _stated(item) for name, item in value.items()}
        return ", ".join(f"{name} {text}" for name, text in stated.items() if text)
    if isinstance(value, list):  # widths of the layers, mostly the same
        return " + ".join(f"{len(list(group))} × {item}" for item, group in groupby(value))
    if isinstance(value, int | float) and not isinstance(value, bool):
        return f"{value:,}" if isinstance(value, int) else f"{value:g}"
    return {True: "yes", False: "", None: ""}.get(value, str(value))


def _sheet(done: Sequence[Record]) -> list[tuple[str, list[Record]]]:
    """The shapes to show, by two-way distance; one without it, for lack of a surface, is worse than all.

    Not by surface error, which is least of all where a field is zero everywhere.
    """
    ranked = sorted(done, key=lambda record: _or_worst(record.metrics.get("two_way", math.nan)))
    if len(ranked) <= 3 * _PICTURES:
        return [("From the best to the worst", ranked)] if ranked else []
    middle = (len(ranked) - _PICTURES) // 2
    return [
        ("Best", ranked[:_PICTURES]),
        ("Median", ranked[middle : middle + _PICTURES]),
        ("Worst", ranked[-_PICTURES:]),
    ]


def _or_worst(distance: float) -> float:
    return distance if math.isfinite(distance) else math.inf


class _Thumbnail(NamedTuple):
    """A shape with its picture as a data URI, or the reason that there is none."""

    record: Record
    picture: str | None
    problem: str | None = None


def _pictured(
    folder: Folder, sheet: Sequence[tuple[str, list[Record]]], progress: Progress
) -> list[tuple[str, list[_Thumbnail]]]:
    count = sum(len(chosen) for _, chosen in sheet)
    pictured: list[tuple[str, list[_Thumbnail]]] = []
    made = 0
    for title, chosen in sheet:
        thumbnails = []
        for record in chosen:
            thumbnails.append(_thumbnail(folder, record))
            made += 1
            progress(made, count)
        pictured.append((title, thumbnails))
    return pictured


def _thumbnail(folder: Folder, record: Record) -> _Thumbnail:
    try:
        field = open_model(folder.model(record.name))
        pixels = render(field, width=_SIDE, height=_SIDE, background="transparent", antialias=2).rgba
    except NeuralSDFError as error:
        return _Thumbnail(record, None, str(error))
    encoded = BytesIO()
    Image.fromarray(pixels).save(encoded, "WEBP", quality=85)
    return _Thumbnail(record, f"data:image/webp;base64,{base64.b64encode(encoded.getvalue()).decode()}")


#: Of a histogram, in SVG's units: the plot, and the room at its left and below it.
_WIDTH, _HEIGHT, _LEFT, _BELOW = 480, 160, 44, 20
_BINS = 10  # in a decade


def histogram(values: Sequence[float]) -> Markup:
    """How many of the values (positive, ascending) lie where, as SVG: the axis is logarithmic, in decades."""
    if not values:
        return Markup("")
    logs = [math.log10(max(value, 1e-12)) for value in values]
    low, high = min(-4, math.floor(logs[0])), max(-1, math.ceil(logs[-1]))
    counts = Counter(min(int((log - low) * _BINS), (high - low) * _BINS - 1) for log in logs)
    most = max(counts.values())

    def x(log: float) -> float:
        return round(_LEFT + (log - low) / (high - low) * _WIDTH, 1)

    parts = [
        f'<rect x="{x(low + place / _BINS)}" y="{_HEIGHT * (1 - count / most):.1f}" '
        f'width="{_WIDTH / (high - low) / _BINS - 1:.1f}" height="{_HEIGHT * count / most:.1f}">'
        f"<title>{count}: {10 ** (low + place / _BINS):.2g} to {10 ** (low + (place + 1) / _BINS):.2g}"
        "</title></rect>"
        for place, count in sorted(counts.items())
    ]
    parts += [
        f'<line class="limit" x1="{x(math.log10(limit))}" x2="{x(math.log10(limit))}" y1="0" y2="{_HEIGHT}"/>'
        for limit in (GOOD, POOR)
    ]
    parts += [f'<line x1="{_LEFT}" x2="{_LEFT + _WIDTH}" y1="{_HEIGHT}" y2="{_HEIGHT}"/>']
    parts += [
        f'<text x="{x(decade)}" y="{_HEIGHT + 16}">{10.0**decade:g}</text>' for decade in range(low, high + 1)
    ]
    parts += [f'<text class="count" x="{_LEFT - 6}" y="10">{most}</text>']
    size = f"0 -4 {_LEFT + _WIDTH + 24} {_HEIGHT + _BELOW + 8}"
    return Markup(f'<svg viewBox="{size}" role="img">{"".join(parts)}</svg>')


def _size(count: float) -> str:
    """Bytes, in decimal units as the paper has them."""
    for unit in ("bytes", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.3g} {unit}" if unit != "bytes" else f"{count:.0f} bytes"
        count /= 1000
    return f"{count:.4g} TB"


def _duration(seconds: float) -> str:
    if math.isnan(seconds):
        return "-"
    if seconds < 60:
        return f"{seconds:.2g} s" if seconds < 10 else f"{seconds:.0f} s"
    minutes, hours = int(seconds / 60) % 60, int(seconds / 3600)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {seconds % 60:.0f} s"


def _number(value: float | None) -> str:
    return "-" if value is None or math.isnan(value) else f"{value:.3g}"


def _share(value: float) -> str:
    return "-" if math.isnan(value) else f"{100 * value:.1f} %"
