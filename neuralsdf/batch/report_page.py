"""
report_page.py
--------------
The page of a report: one HTML file that needs no other. Its pictures are in it as data URIs, and the script
that sorts its table is allowed by its hash alone.
"""

from __future__ import annotations

import base64
import hashlib
import math
import os
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib.resources import files
from io import BytesIO
from itertools import groupby
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote

import jinja2
from markupsafe import Markup
from PIL import Image

from ..errors import NeuralSDFError
from ..parallel import side_by_side
from ..printable import printable
from ..render import Tracer, render
from ..storage import open_model
from .folder import Folder
from .manifest import Record, Run
from .summary import MEASURES, Measure, Summary, measured

#: Pictures of the best, of the middle and of the worst shapes; pixels along a side.
_PICTURES, _SIDE = 6, 200
#: Pixels along a side of a picture in the table, about 1 kB: ten thousand shapes make a page of 20 MB.
_SMALL_SIDE = 96
#: Pictures of the table that are rendered side by side, a thread each, and in memory together.
_TOGETHER = 64

Progress = Callable[[int, int], None]


class Shown(NamedTuple):
    """What the page shows of a shape beside its record.

    picture: a data URI; None with the problem that there is none, or where none is wanted. mesh, model: links
    relative to the page, None where the file is gone.
    """

    record: Record
    picture: str | None
    problem: str | None
    mesh: str | None
    model: str | None

    @property
    def remarks(self) -> str:
        """Why it failed or has no picture, and the warnings of its conversion."""
        remarks = (self.record.reason, self.problem, *self.record.warnings)
        return "; ".join(remark for remark in remarks if remark)


def page(
    path: Path,
    folder: Folder,
    run: Run,
    records: Sequence[Record],
    summary: Summary,
    *,
    table: Path,
    pictures: bool,
    seed: int,
    progress: Progress,
) -> Iterator[str]:
    """The page to be written to `path`, piece by piece, so that few of its pictures are in memory together.

    The environment cleans and escapes what comes from outside: names, reasons, options.
    """
    done = [record for record in records if record.state == "done"]
    environment = jinja2.Environment(
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=_visible,
    )
    environment.filters |= {"size": _size, "duration": _duration, "number": _number, "share": _share}
    template = environment.from_string(_resource("report.html"))
    script = _resource("report.js")
    sheet = _sheet(done) if pictures else []
    painter = _Painter(path, folder, seed, progress, sum(len(chosen) for _, chosen in sheet) + len(done))
    return template.generate(
        run=run,
        title=_title(run, folder),
        shards=_shards(folder),
        begun=time.strftime("%Y-%m-%d %H:%M", time.localtime(run.started)) if run.started else "",
        options=[(name, _stated(value)) for name, value in run.options.items() if _stated(value)],
        summary=summary,
        spent=sum(stage.total for stage in summary.stages) + summary.lost,
        spreads=list(zip(MEASURES, (summary.iou, summary.two_way, summary.surface_error), strict=True)),
        histograms=[(measure, histogram(measured(done, measure), measure)) for measure in MEASURES],
        networks=Counter(record.architecture or "?" for record in done).most_common(),
        sheet=((title, painter.shown(chosen, _SIDE)) for title, chosen in sheet),
        failures=[record for record in records if record.state == "failed"],
        causes=Counter(record.cause or "?" for record in records if record.state == "failed").most_common(),
        links=[(file.name, _address(file, path)) for file in (table, *folder.datasets())],
        pictures=pictures,
        shapes=painter.shown(records, _SMALL_SIDE if pictures else None),
        script=Markup(script),
        script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
    )


def _title(run: Run, folder: Folder) -> str:
    """The data set as it was given; for `.` and standard input, which name none, the folder of the run."""
    return folder.path.resolve().name if run.dataset in ("", ".", "-") else run.dataset


def _resource(name: str) -> str:
    return files(__package__).joinpath(name).read_text("utf-8")


class _Painter:
    """Makes what the page shows of shapes, a few at a time."""

    def __init__(self, path: Path, folder: Folder, seed: int, progress: Progress, count: int) -> None:
        self._path, self._folder, self._seed, self._progress = path, folder, seed, progress
        self._made, self._count = 0, count

    def shown(self, records: Sequence[Record], side: int | None) -> Iterator[Shown]:
        """What is shown of records, in order; pictures of `side` pixels, None for none."""
        for start in range(0, len(records), _TOGETHER):
            for shown in side_by_side(lambda r: self._one(r, side), records[start : start + _TOGETHER]):
                if side is not None and shown.record.state == "done":
                    self._made += 1
                    self._progress(self._made, self._count)
                yield shown

    def _one(self, record: Record, side: int | None) -> Shown:
        model = self._folder.model(record.name)
        picture, problem = None, None
        if side is not None and record.state == "done":
            try:
                picture = _picture(model, side, self._seed)
            except NeuralSDFError as error:
                problem = str(error)
        return Shown(
            record, picture, problem, _link(Path(record.source), self._path), _link(model, self._path)
        )


def _picture(model: Path, side: int, seed: int) -> Markup:
    """A picture of a model, as a data URI."""
    field = open_model(model)
    tracer = Tracer(field, seed=seed)
    pixels = render(field, width=side, height=side, background="transparent", antialias=2, tracer=tracer).rgba
    encoded = BytesIO()
    Image.fromarray(pixels).save(encoded, "WEBP", quality=85)
    return Markup(f"data:image/webp;base64,{base64.b64encode(encoded.getvalue()).decode()}")


def _link(file: Path, page: Path) -> str | None:
    """A file's address relative to a page; None where there is no such file."""
    try:
        return _address(file, page) if file.is_file() else None
    except (OSError, ValueError):  # a name that cannot be one
        return None


def _address(file: Path, page: Path) -> str:
    return quote(os.fsencode(os.path.relpath(file, page.parent)))


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


#: Of a histogram, in SVG's units: the plot, and the room at its left and below it.
_WIDTH, _HEIGHT, _LEFT, _BELOW = 480, 160, 44, 20
_BINS = 10  # in a decade
#: Errors below this are in one bar with it.
_LEAST = 1e-6


def histogram(values: Sequence[float], measure: Measure) -> Markup:
    """How many of the values lie where, as SVG: the axis is logarithmic, in decades, of errors.

    The error of a measure of which more is better is what it lacks to 1; the axis is labelled by the measure.
    """
    if not values:
        return Markup("")

    def error(value: float) -> float:
        return max(1 - value if measure.better > 0 else value, _LEAST)

    def label(decade: float) -> str:
        return f"{1 - 10.0**decade:.4g}" if measure.better > 0 else f"{10.0**decade:.2g}"

    logs = [math.log10(error(value)) for value in values]
    low, high = min(-4, math.floor(min(logs))), max(-1, math.ceil(max(logs)))
    counts = Counter(min(int((log - low) * _BINS), (high - low) * _BINS - 1) for log in logs)
    most = max(counts.values())

    def x(log: float) -> float:
        return round(_LEFT + (log - low) / (high - low) * _WIDTH, 1)

    parts = [
        f'<rect x="{x(low + place / _BINS)}" y="{_HEIGHT * (1 - count / most):.1f}" '
        f'width="{_WIDTH / (high - low) / _BINS - 1:.1f}" height="{_HEIGHT * count / most:.1f}">'
        f"<title>{count}: {label(low + place / _BINS)} to {label(low + (place + 1) / _BINS)}</title></rect>"
        for place, count in sorted(counts.items())
    ]
    limits = [x(math.log10(error(limit))) for limit in (measure.good, measure.poor)]
    parts += [f'<line class="limit" x1="{limit}" x2="{limit}" y1="0" y2="{_HEIGHT}"/>' for limit in limits]
    parts += [f'<line x1="{_LEFT}" x2="{_LEFT + _WIDTH}" y1="{_HEIGHT}" y2="{_HEIGHT}"/>']
    parts += [
        f'<text x="{x(decade)}" y="{_HEIGHT + 16}">{label(decade)}</text>' for decade in range(low, high + 1)
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
