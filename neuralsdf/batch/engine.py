"""
engine.py
---------
What the driver of a batch expects of an engine, which performs tasks somewhere.
"""

from __future__ import annotations

from typing import Protocol

from .job import Task
from .record import Record


class Engine(Protocol):
    """Performs tasks somewhere, several at a time."""

    @property
    def free(self) -> int:
        """How many more tasks it would begin at once."""
        ...

    @property
    def busy(self) -> int:
        """How many tasks it has begun."""
        ...

    def submit(self, task: Task) -> None:
        """Begin a task."""
        ...

    def wait(self) -> list[Record]:
        """The records of tasks that have ended; waits a moment if none has.

        Raises `NeuralSDFError` for what would make all other shapes fail, too, such as a full disk.
        """
        ...

    def close(self) -> None:
        """Stop, and give up unfinished tasks."""
        ...
