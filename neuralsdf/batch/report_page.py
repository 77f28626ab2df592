"""
report_page.py
--------------
The page of a report: a self-contained HTML file. Pictures are data URIs. The content security policy allows
only the script that sorts the table, by its hash.
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

from ..errors import NeuralSDFError
from ..printable_text import printable
from ..thread_count import side_by_side
from .job import Job, Measure
from .manifest import Run
from .output_folder import Folder
from .report_histogram import histogram
from .run_statistics import Summary, measured
from .shape_record import Record

#: Number of pictures each of the best, median and worst shapes, and their side length in pixels.
_PICTURES, _SIDE = 6, 200
#: Side length in pixels of pictures in the table. One takes about 1 kB; a page of ten thousand shapes 20 MB.
_SMALL_SIDE = 96
#: Number of pictures that are rendered in parallel and are in memory at the same time.
_PARALLEL_PICTURES = 64

Progress = Callable[[int, int], None]


class Shown(NamedTuple):
    """The data of a shape that the page shows: its record, picture and links.

    picture: a data URI, or None; `problem` then has the reason if rendering failed. mesh, result: links
    relative to the page; None if the file does not exist.
    """

    record: Record
    picture: str | None
    problem: str | None
    mesh: str | None
    result: str | None

    @property
    def remarks(self) -> str:
        """The reason of a failure, the reason for a missing picture, and the warnings."""
        remarks = (self.record.reason, self.problem, *self.record.warnings)
        return "; ".join(remark for remark in remarks if remark)


def page(
    path: Path,
    folder: Folder,
    run: Run,
    records: Sequence[Record],
    summary: Summary,
    job: type[Job],
    *,
    table: Path,
    pictures: bool,
    seed: int,
    progress: Progress,
) -> Iterator[str]:
    """Generate the page for `path` in pieces, so that few pictures are in memory at a time."""
    done = [record for record in records if record.state == "done"]
    script = _resource("report.js")
    measures, rank = job.reported.measures, job.reported.rank
    sheet = _ranked_samples(done, rank) if pictures and rank is not None else []
    painter = _ShapeRenderer(
        path, folder, job, seed, progress, sum(len(chosen) for _, chosen in sheet) + len(done)
    )
    return _template().generate(
        run=run,
        title=_title(run, folder),
        shards=_shards(folder),
        begun=time.strftime("%Y-%m-%d %H:%M", time.localtime(run.started)) if run.started else "",
        options=[(name, _option_text(value)) for name, value in run.options.items() if _option_text(value)],
        summary=summary,
        spent=sum(stage.total for stage in summary.stages) + summary.lost,
        spreads=list(zip(measures, summary.distributions, strict=True)),
        histograms=[(measure, histogram(measured(done, measure), measure)) for measure in measures],
        reported=job.reported,
        counted=_counted(done, job),
        sheet=((title, painter.shown(chosen, _SIDE)) for title, chosen in sheet),
        failures=[record for record in records if record.state == "failed"],
        causes=Counter(record.cause or "?" for record in records if record.state == "failed").most_common(),
        links=[(file.name, _address(file, path)) for file in (table, *job.finished(folder))],
        pictures=pictures,
        shapes=painter.shown(records, _SMALL_SIDE if pictures else None),
        script=Markup(script),
        script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
    )


def _template() -> jinja2.Template:
    """The template. It escapes untrusted text, such as names, reasons and options."""
    environment = jinja2.Environment(
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=_escaped,
    )
    environment.filters |= {
        "size": _size,
        "duration": _duration,
        "number": _number,
        "percentage": _percentage,
    }
    environment.filters["value"] = _value
    return environment.from_string(_resource("report.html"))


def _counted(done: Sequence[Record], job: type[Job]) -> list[tuple[Any, int]]:
    """Values of the column `job.reported.counted` with their counts, most frequent first."""
    if job.reported.counted is None:
        return []
    column, _ = job.reported.counted
    return Counter(record.columns.get(column, "?") for record in done).most_common()


def _title(run: Run, folder: Folder) -> str:
    """The data set as the user gave it; the name of the output folder for `.` and standard input."""
    return folder.path.resolve().name if run.dataset in ("", ".", "-") else run.dataset


def _resource(name: str) -> str:
    return files(__package__).joinpath(name).read_text("utf-8")


class _ShapeRenderer:
    """Renders the pictures of shapes, a few at a time."""

    def __init__(
        self, path: Path, folder: Folder, job: type[Job], seed: int, progress: Progress, count: int
    ) -> None:
        self._path, self._folder, self._job = path, folder, job
        self._seed, self._progress = seed, progress
        self._made, self._count = 0, count

    def shown(self, records: Sequence[Record], side: int | None) -> Iterator[Shown]:
        """Iterate over the shown data of records, in order.

        Pictures have `side` pixels; None for no pictures.
        """
        for start in range(0, len(records), _PARALLEL_PICTURES):
            for shown in side_by_side(
                lambda r: self._one(r, side), records[start : start + _PARALLEL_PICTURES]
            ):
                if side is not None and shown.record.state == "done":
                    self._made += 1
                    self._progress(self._made, self._count)
                yield shown

    def _one(self, record: Record, side: int | None) -> Shown:
        result = self._folder.result(record.name, self._job.place)
        picture, problem = None, None
        if side is not None and record.state == "done":
            try:
                picture = self._picture(result, side)
            except NeuralSDFError as error:
                problem = str(error)
        mesh = _link(Path(record.source), self._path)
        return Shown(record, picture, problem, mesh, _link(result, self._path))

    def _picture(self, result: Path, side: int) -> Markup | None:
        """A picture of a result, as a data URI."""
        image = self._job.picture(result, side, self._seed)
        if image is None:
            return None
        encoded = BytesIO()
        image.save(encoded, "WEBP", quality=85)
        return Markup(f"data:image/webp;base64,{base64.b64encode(encoded.getvalue()).decode()}")


def _link(file: Path, page: Path) -> str | None:
    """The URL of a file relative to a page; None if the file does not exist."""
    try:
        return _address(file, page) if file.is_file() else None
    except (OSError, ValueError):  # an invalid file name
        return None


def _address(file: Path, page: Path) -> str:
    return quote(os.fsencode(os.path.relpath(file, page.parent)))


def _escaped(value: Any) -> Any:
    """A value to print. Characters that would reorder or hide adjacent text are escaped."""
    return printable(value) if isinstance(value, str) and not isinstance(value, Markup) else value


def _shards(folder: Folder) -> str:
    """The number of shards and the missing ones; "" for a run without shards."""
    shards = folder.shards()
    if not shards:
        return ""
    count = shards[0][1]
    missing = sorted(set(range(1, count + 1)) - {i for i, _ in shards})
    return f"{count} shards" + (f" ({', '.join(map(str, missing))} not started)" if missing else "")


def _option_text(value: Any) -> str:
    """The text of an option; a group of options on one line; "" for an option that is not set."""
    if isinstance(value, Mapping):
        stated = {name: _option_text(item) for name, item in value.items()}
        return ", ".join(f"{name} {text}" for name, text in stated.items() if text)
    if isinstance(value, list):  # widths of the layers, usually equal
        return " + ".join(f"{len(list(group))} × {item}" for item, group in groupby(value))
    if isinstance(value, int | float) and not isinstance(value, bool):
        return f"{value:,}" if isinstance(value, int) else f"{value:g}"
    return {True: "yes", False: "", None: ""}.get(value, str(value))


def _ranked_samples(done: Sequence[Record], rank: Measure) -> list[tuple[str, list[Record]]]:
    """Titles and records of the large pictures, sorted by a measure. Shapes without a value come last."""

    def error(record: Record) -> float:
        value = record.number(rank.column)
        return math.inf if value is None or not math.isfinite(value) else -rank.better * value

    ranked = sorted(done, key=error)
    if len(ranked) <= 3 * _PICTURES:
        return [("From the best to the worst", ranked)] if ranked else []
    middle = (len(ranked) - _PICTURES) // 2
    return [
        ("Best", ranked[:_PICTURES]),
        ("Median", ranked[middle : middle + _PICTURES]),
        ("Worst", ranked[-_PICTURES:]),
    ]


def _size(count: float) -> str:
    """The text of a number of bytes, in decimal units as in the paper."""
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


def _value(value: Any) -> str:
    """The text of a value in a column of the job."""
    if value is None:
        return "-"
    if isinstance(value, float):
        return _number(value)
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)


def _percentage(value: float) -> str:
    return "-" if math.isnan(value) else f"{100 * value:.1f} %"
