"""
job.py
------
The interface of jobs. A job defines what a batch does with each mesh; `convert_job.py` is one job.

A job is immutable. It is sent to the worker processes, and its options are stored in the manifest, so that a
later run with the same options continues where this one stopped.
"""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

from ..errors import MeshError
from .output_folder import Folder, Place
from .shape_record import Record

if TYPE_CHECKING:
    from PIL import Image

    from .manifest import Manifest


@dataclass(frozen=True, slots=True)
class Task:
    """A shape to process, or one stage of processing it.

    record: the current record of the shape. settled: whether an existing result is valid if the mesh still
    has the record's key. result: path of the result. draft: a path for temporary files, on the same file
    system. stage: name of the stage for a job with several stages; "" for the whole job. begun: whether an
    earlier stage has ended. number: counter of a stage that is repeated, from 1.
    """

    record: Record
    settled: bool
    result: str
    draft: str
    stage: str = ""
    begun: bool = False
    number: int = 0

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> Task:
        """A task from its fields as JSON values."""
        return cls(**values | {"record": Record.from_json(values["record"])})


class Measure(NamedTuple):
    """A measure of the quality of a result.

    name: key in JSON output. column: column of the record. title: heading in the report. good, poor:
    thresholds beyond which a result counts as good or poor. better: 1 if larger values are better, -1 if
    smaller ones are.
    """

    name: str
    column: str
    title: str
    good: float
    poor: float
    better: int


class Reported(NamedTuple):
    """The contents of a report on a job's results.

    columns: columns of the table, in order. listed: those of them that the page shows, too. stages: stages
    whose time is shown. measures: measures whose distribution is shown. rank: the measure by which shapes are
    sorted from best to worst. comparison: a note below the distributions. counted: a column whose values are
    counted, and its heading.
    """

    columns: tuple[str, ...] = ()
    listed: tuple[str, ...] = ()
    stages: tuple[str, ...] = ()
    measures: tuple[Measure, ...] = ()
    rank: Measure | None = None
    comparison: str = ""
    counted: tuple[str, str] | None = None


class ChangedError(MeshError):
    """The content of a mesh file changed after its key was computed."""


class Job(ABC):
    """Defines what a batch does with each mesh. Jobs are immutable and can be pickled.

    name: stored in the manifest. place: location of the results. reported: contents of the report.
    """

    name: ClassVar[str]
    place: ClassVar[Place]
    reported: ClassVar[Reported] = Reported()

    @abstractmethod
    def options(self) -> dict[str, Any]:
        """All options that affect a result, as JSON values. The manifest stores and compares them."""

    def key(self, content: str) -> str:
        """SHA-256 (hex) of everything that affects a result; content: the hash of the mesh file."""
        return digest([content, self.name, self.options()])

    @abstractmethod
    def perform(self, task: Task) -> Record:
        """Write the result of a task to `task.draft`, and return `task.record.done(...)` with its columns.

        Implementations call `check_unchanged` with the hash of the content that was read. All stages except
        the last return a record in the state "waiting". Raises `NeuralSDFError` if the mesh fails, and
        `OutputError` if the output cannot be written, which ends the run.
        """

    def check_unchanged(self, record: Record, content: str | None) -> None:
        """Raise `ChangedError` unless the hash of the content that was read matches the record's key."""
        if content is None or self.key(content) != record.key:
            raise ChangedError(record.source, "changed while it was read", "run the same command again")

    @property
    def kept(self) -> dict[str, int]:
        """Bytes of each shape that this process has cached for later stages, by name."""
        return {}

    def forget(self, names: list[str]) -> None:  # noqa: B027
        """Drop these shapes from the cache; they have no more stages."""

    @classmethod
    def judge(cls, record: Record) -> Record:
        """The record under the current criteria.

        An earlier version may have judged the result differently.
        """
        return record

    @classmethod
    def finish(cls, manifest: Manifest, folder: Folder) -> tuple[Path, ...]:
        """Write the files that combine all results, after a run or a merge; returns their paths."""
        return ()

    @classmethod
    def finished(cls, folder: Folder) -> list[Path]:
        """The existing files of `finish`."""
        return []

    @classmethod
    def picture(cls, result: Path, side: int, seed: int) -> Image.Image | None:
        """A square picture of a result, for the report; side: in pixels. None for a job without pictures."""
        return None


def digest(value: Any) -> str:
    """SHA-256 (hex) of JSON values."""
    return sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def difference(options: dict[str, Any], others: dict[str, Any]) -> str | None:
    """The first option that differs, such as `epochs: 30, not 12`; or None."""
    here, there = _flat(options), _flat(others)
    for name in here | there:
        if here.get(name) != there.get(name):
            return f"{name.rpartition('.')[2]}: {there.get(name)}, not {here.get(name)}"
    return None


def _flat(options: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in options.items():
        flat |= _flat(value, f"{prefix}{name}.") if isinstance(value, dict) else {f"{prefix}{name}": value}
    return flat
