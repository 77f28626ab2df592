"""
run_statistics.py
-----------------
Statistics of a batch run, computed from the records of its manifest.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import median
from typing import NamedTuple

from .job import Measure, Reported
from .shape_record import Record


class Distribution(NamedTuple):
    """The distribution of a measure over the shapes that have a value.

    shapes: number of these shapes. p95: 95 % of them are at least as good. good, poor: fractions that are
    better than the measure's `good` and worse than its `poor`. All are NaN if there are no shapes.
    """

    shapes: int
    median: float
    p95: float
    worst: float
    good: float
    poor: float


class Stage(NamedTuple):
    """Total and median seconds of a stage."""

    name: str
    total: float
    median: float


class Remark(NamedTuple):
    """A warning: the number of shapes that have it, its text without numbers, and one of these shapes."""

    shapes: int
    text: str
    example: str


@dataclass(frozen=True)
class Summary:
    """Statistics of a run.

    missed: shapes that are done but miss the job's target. source_bytes, result_bytes: total sizes of the
    meshes that are done and of their results. distributions: one per measure of the job. warned: number of
    shapes with warnings. warnings: most frequent first. lost: seconds spent on shapes that failed.
    """

    shapes: int
    done: int
    failed: int
    waiting: int
    missed: int
    source_bytes: int
    result_bytes: int
    distributions: tuple[Distribution, ...]
    warned: int
    warnings: tuple[Remark, ...]
    stages: tuple[Stage, ...]
    lost: float

    @property
    def ratio(self) -> float:
        """Compression ratio: size of the meshes over size of their results; NaN if there are no results."""
        return self.source_bytes / self.result_bytes if self.result_bytes else math.nan


def summarise(records: Sequence[Record], reported: Reported) -> Summary:
    """Compute the statistics of a run; reported: the contents of the job's report."""
    states = Counter(record.state for record in records)
    done = [record for record in records if record.state == "done"]
    return Summary(
        shapes=len(records),
        done=states["done"],
        failed=states["failed"],
        waiting=states["waiting"],
        missed=sum(record.target_met is False for record in done),
        source_bytes=sum(record.source_bytes or 0 for record in done),
        result_bytes=sum(record.result_bytes or 0 for record in done),
        distributions=tuple(_distribution(measured(done, measure), measure) for measure in reported.measures),
        warned=sum(bool(record.warnings) for record in done),
        warnings=_warnings(done),
        stages=tuple(_stage(name, done) for name in reported.stages),
        lost=sum(sum(record.seconds.values()) for record in records if record.state == "failed"),
    )


def measured(records: Iterable[Record], measure: Measure) -> list[float]:
    """The finite values of a measure, best first."""
    values = (record.number(measure.column) for record in records)
    finite = (value for value in values if value is not None and math.isfinite(value))
    return sorted(finite, reverse=measure.better > 0)


def _distribution(values: Sequence[float], measure: Measure) -> Distribution:
    """The distribution of values that are sorted, best first."""
    if not values:
        return Distribution(0, *[math.nan] * 5)
    count, sign = len(values), measure.better
    good = sum(sign * value > sign * measure.good for value in values) / count
    poor = sum(sign * value < sign * measure.poor for value in values) / count
    p95 = values[math.ceil(0.95 * count) - 1]
    return Distribution(count, median(values), p95, values[-1], good, poor)


def _stage(name: str, records: Iterable[Record]) -> Stage:
    seconds = [record.seconds[name] for record in records if name in record.seconds]
    return Stage(name, sum(seconds), median(seconds) if seconds else math.nan)


#: A number in a warning.
_NUMBER = re.compile(r"\d[\d.,]*(?:e[-+]?\d+)?")


def _warnings(records: Iterable[Record]) -> tuple[Remark, ...]:
    """The warnings with their counts; warnings that differ only in numbers count as one."""
    counts: Counter[str] = Counter()
    examples: dict[str, str] = {}
    for record in records:
        for text in {_NUMBER.sub("#", part.strip()) for line in record.warnings for part in line.split(";")}:
            counts[text] += 1
            examples.setdefault(text, record.name)
    ranked = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    return tuple(Remark(count, text, examples[text]) for text, count in ranked)
