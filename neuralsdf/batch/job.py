"""
job.py
------
What a batch does with each mesh, as a parameter of the engine. `convert_job.py` is one job.

A job is a value: it is sent to the worker processes, and its options are stored in the manifest, so that a
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
from .folder import Folder, Place
from .record import Record

if TYPE_CHECKING:
    from PIL import Image

    from .manifest import Manifest


@dataclass(frozen=True, slots=True)
class Task:
    """A shape to work on, or one stage of the work.

    record: what is known of the shape. settled: whether its result can stay if the mesh still has the
    record's key. result: the path where the result goes. draft: a path for unfinished files, on the same file
    system. stage: of a job with several stages; "" for all of the work. begun: whether an earlier stage has
    ended. number: of a stage that is repeated, from 1.
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
        """The task whose fields were written as JSON."""
        return cls(**values | {"record": Record.from_json(values["record"])})


class Measure(NamedTuple):
    """A number that says how good a result is.

    name: in JSON. column: of the record. title: for a person. good, poor: limits beyond which a shape came
    out well or badly. better: 1 where more is better, -1 where less is.
    """

    name: str
    column: str
    title: str
    good: float
    poor: float
    better: int


class Reported(NamedTuple):
    """What a report shows of a job's results.

    columns: of the table, in order. listed: numbers among them that the page
    shows, too. stages: whose seconds are shown. measures: whose distribution is shown.
    rank: the measure by which shapes are sorted from best to worst. comparison: a sentence below the
    distributions. counted: a column whose values are counted, and a title for a person.
    """

    columns: tuple[str, ...] = ()
    listed: tuple[str, ...] = ()
    stages: tuple[str, ...] = ()
    measures: tuple[Measure, ...] = ()
    rank: Measure | None = None
    comparison: str = ""
    counted: tuple[str, str] | None = None


class ChangedError(MeshError):
    """A mesh whose content is not the one that its key was made of."""


class Job(ABC):
    """What a batch does with each mesh. Immutable, and can be pickled.

    name: stored in the manifest. place: where results go. reported: what a report shows of them.
    """

    name: ClassVar[str]
    place: ClassVar[Place]
    reported: ClassVar[Reported] = Reported()

    @abstractmethod
    def options(self) -> dict[str, Any]:
        """All options that a result depends on, as JSON values; the manifest stores and compares them."""

    def key(self, content: str) -> str:
        """SHA-256 (hex) of everything that a result depends on; content: the hash of the mesh file."""
        return digest([content, self.name, self.options()])

    @abstractmethod
    def perform(self, task: Task) -> Record:
        """Write the result of a task to `task.draft`, and return `task.record.done(...)` with its columns.

        Calls `check_unchanged` with the content that was read. A stage that is not the last returns a record
        that is still waiting. Raises `NeuralSDFError` for a mesh that fails, and `OutputError` where nothing
        can be written, which ends the run.
        """

    def check_unchanged(self, record: Record, content: str | None) -> None:
        """Raise `ChangedError` unless the content that was read is that of the record's key."""
        if content is None or self.key(content) != record.key:
            raise ChangedError(record.source, "changed while it was read", "run the same command again")

    @property
    def kept(self) -> dict[str, int]:
        """Bytes that this process keeps of each shape for its later stages, by name."""
        return {}

    def forget(self, names: list[str]) -> None:  # noqa: B027
        """Drop what is kept of these shapes, which have no more stages."""

    @classmethod
    def judge(cls, record: Record) -> Record:
        """The record as it counts now, where an earlier version judged a result otherwise."""
        return record

    @classmethod
    def finish(cls, manifest: Manifest, folder: Folder) -> tuple[Path, ...]:
        """Write what is made of all results together, after a run or a merge; returns these files."""
        return ()

    @classmethod
    def finished(cls, folder: Folder) -> list[Path]:
        """The files that `finish` has written."""
        return []

    @classmethod
    def picture(cls, result: Path, side: int, seed: int) -> Image.Image | None:
        """A square picture of a result for the report; None for a job without pictures."""
        return None


def digest(value: Any) -> str:
    """SHA-256 (hex) of JSON values."""
    return sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def difference(options: dict[str, Any], others: dict[str, Any]) -> str | None:
    """The first option that differs, such as `training.epochs: 30, not 12`; or None."""
    here, there = _flat(options), _flat(others)
    for name in here | there:
        if here.get(name) != there.get(name):
            return f"{name}: {there.get(name)}, not {here.get(name)}"
    return None


def _flat(options: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in options.items():
        flat |= _flat(value, f"{prefix}{name}.") if isinstance(value, dict) else {f"{prefix}{name}": value}
    return flat
