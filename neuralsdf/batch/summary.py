"""
summary.py
----------
What came of a batch run, in numbers. They are made from the manifest's records alone.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import median
from typing import NamedTuple

from ..pipeline.stages import STAGES
from .manifest import Record


class Measure(NamedTuple):
    """A metric that says how good a model is.

    metric: its name. title: for a person. good, poor: limits beyond which a shape came out well or badly.
    better: 1 where more is better, -1 where less is.
    """

    metric: str
    title: str
    good: float
    poor: float
    better: int


#: The paper reports of Thingi10k's surface errors that 93 % are below 0.003 and none is above 0.01. A surface
#: error alone says little: it is least for a field that is zero everywhere.
IOU = Measure("iou", "IoU", 0.93, 0.8, 1)
TWO_WAY = Measure("two_way", "Two-way distance", 0.003, 0.01, -1)
SURFACE = Measure("surface_mean", "Surface error", 0.003, 0.01, -1)
MEASURES = (IOU, TWO_WAY, SURFACE)


class Distribution(NamedTuple):
    """How a measure is spread over the shapes that have it.

    shapes: how many those are. p95: 95 % of them are at least as good. good, poor: shares (0 to 1) that are
    better or worse than the measure's limits. NaN where there is no shape.
    """

    shapes: int
    median: float
    p95: float
    worst: float
    good: float
    poor: float


class Stage(NamedTuple):
    """Seconds of a stage, over all shapes and in the median."""

    name: str
    total: float
    median: float


class Remark(NamedTuple):
    """A warning that conversions gave: of how many shapes, its text without numbers, and one shape."""

    shapes: int
    text: str
    example: str


@dataclass(frozen=True)
class Summary:
    """A run in numbers.

    missed: of those done, those that miss the target error. Bytes are those of the meshes that became models,
    and of these models; lengths are in model space (bounding radius 1). warnings: the most frequent first;
    warned: shapes that have any. lost: seconds that went into shapes which then failed.
    """

    shapes: int
    done: int
    failed: int
    waiting: int
    missed: int
    source_bytes: int
    model_bytes: int
    iou: Distribution
    two_way: Distribution
    surface_error: Distribution
    warned: int
    warnings: tuple[Remark, ...]
    stages: tuple[Stage, ...]
    lost: float

    @property
    def ratio(self) -> float:
        """Bytes of a mesh for each byte of its model, over the whole data set; NaN if there is no model."""
        return self.source_bytes / self.model_bytes if self.model_bytes else math.nan


def summarise(records: Sequence[Record]) -> Summary:
    """The numbers of a run."""
    states = Counter(record.state for record in records)
    done = [record for record in records if record.state == "done"]
    return Summary(
        shapes=len(records),
        done=states["done"],
        failed=states["failed"],
        waiting=states["waiting"],
        missed=sum(record.target_met is False for record in done),
        source_bytes=sum(record.source_bytes or 0 for record in done),
        model_bytes=sum(record.model_bytes or 0 for record in done),
        iou=_distribution(measured(done, IOU), IOU),
        two_way=_distribution(measured(done, TWO_WAY), TWO_WAY),
        surface_error=_distribution(measured(done, SURFACE), SURFACE),
        warned=sum(bool(record.warnings) for record in done),
        warnings=_warnings(done),
        stages=tuple(_stage(name, done) for name in STAGES),
        lost=sum(sum(record.seconds.values()) for record in records if record.state == "failed"),
    )


def measured(records: Iterable[Record], measure: Measure) -> list[float]:
    """The values of a measure that there are, the best first."""
    values = (record.metrics.get(measure.metric, math.nan) for record in records)
    return sorted((value for value in values if math.isfinite(value)), reverse=measure.better > 0)


def _distribution(values: Sequence[float], measure: Measure) -> Distribution:
    """Of values, the best first."""
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


#: A number in a warning, which differs from shape to shape.
_NUMBER = re.compile(r"\d[\d.,]*(?:e[-+]?\d+)?")


def _warnings(records: Iterable[Record]) -> tuple[Remark, ...]:
    """The warnings, those together that differ in numbers alone."""
    counts: Counter[str] = Counter()
    examples: dict[str, str] = {}
    for record in records:
        for text in {_NUMBER.sub("#", part.strip()) for line in record.warnings for part in line.split(";")}:
            counts[text] += 1
            examples.setdefault(text, record.name)
    ranked = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    return tuple(Remark(count, text, examples[text]) for text, count in ranked)
