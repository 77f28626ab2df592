"""
shape_record.py
---------------
The record of one shape: its state, the reason for a failure, the inputs of its result, and the job's columns.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, get_args

State = Literal["waiting", "done", "failed"]

#: Why a shape failed: `error`: invalid mesh; `timeout`, `memory`: it exceeded a limit; `crash`: it crashed
#: the process; `killed`: the process was killed externally, for a reason unrelated to the mesh.
Cause = Literal["error", "timeout", "memory", "crash", "killed"]

#: A value in a column of the job.
Column = bool | int | float | str


@dataclass(frozen=True, slots=True)
class Record:
    """The record of one shape.

    name: path of the mesh within the data set, unique. source: the mesh file. key: SHA-256 (hex) of
    everything that affects the result: the content of the file and the job's options. stamp: size, times and
    inode of the source file, which change whenever the file does. source_bytes, result_bytes: file sizes.
    target_met: whether the result meets the job's target; None without a target. columns: values that the job
    reports, by name; numbers may be NaN. seconds: time per stage; for a failed shape, only the time `lost`.
    finished: seconds since 1970; None while the shape is waiting. cause, reason: of a failure; the reason is
    one line.
    """

    name: str
    source: str
    state: State = "waiting"
    cause: Cause | None = None
    reason: str | None = None
    key: str | None = None
    stamp: str | None = None
    source_bytes: int | None = None
    result_bytes: int | None = None
    target_met: bool | None = None
    columns: dict[str, Column] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    finished: float | None = None

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> Record:
        """A record from its fields as JSON values."""
        return cls(**values | {"warnings": tuple(values["warnings"])})

    def number(self, column: str) -> float | None:
        """The number in a column; None if there is none."""
        value = self.columns.get(column)
        return None if value is None or isinstance(value, str) else value

    def cleared(self) -> Record:
        """The record without a result."""
        return Record(self.name, self.source, key=self.key, stamp=self.stamp, source_bytes=self.source_bytes)

    def failed(self, cause: Cause, reason: str, seconds: Mapping[str, float] | None = None) -> Record:
        """The record marked as failed now; line breaks in `reason` are replaced by spaces."""
        return replace(
            self.cleared(),
            state="failed",
            cause=cause,
            reason=" ".join(reason.split()),
            seconds=dict(seconds or {}),
            finished=time.time(),
        )

    def done(
        self,
        columns: Mapping[str, Column],
        seconds: Mapping[str, float],
        *,
        warnings: Sequence[str] = (),
        target_met: bool | None = None,
    ) -> Record:
        """The record marked as done.

        The caller sets `result_bytes` and `finished` once the result is in place.
        """
        return replace(
            self.cleared(),
            state="done",
            target_met=target_met,
            columns=dict(columns),
            seconds=dict(seconds),
            warnings=tuple(warnings),
        )

    @property
    def has_valid_types(self) -> bool:
        """Whether all values have the declared types; SQLite allows any value in any column."""
        texts = self.reason, self.key, self.stamp
        counts = self.source_bytes, self.result_bytes
        numbers = [*self.seconds.values(), self.finished]
        return (
            isinstance(self.name, str)
            and isinstance(self.source, str)
            and self.state in get_args(State)
            and self.cause in (None, *get_args(Cause))
            and all(text is None or isinstance(text, str) for text in texts)
            and all(count is None or isinstance(count, int) for count in counts)
            and self.target_met in (None, True, False)
            and all(isinstance(value, Column) for value in self.columns.values())
            and all(number is None or isinstance(number, int | float) for number in numbers)
            and all(isinstance(warning, str) for warning in self.warnings)
        )
