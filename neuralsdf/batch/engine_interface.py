"""
engine_interface.py
-------------------
The interface of engines. An engine performs the tasks of a batch in other processes or on other machines.
"""

from __future__ import annotations

from typing import Protocol

from .job import Task
from .shape_record import Record


class Engine(Protocol):
    """Performs several tasks at a time."""

    @property
    def free(self) -> int:
        """Number of additional tasks that it can start now."""
        ...

    @property
    def busy(self) -> int:
        """Number of tasks in progress."""
        ...

    def submit(self, task: Task) -> None:
        """Start a task."""
        ...

    def wait(self) -> list[Record]:
        """The records of tasks that have ended. If none has, waits briefly and may return an empty list.

        Raises `NeuralSDFError` for an error that would make all other shapes fail, too, such as a full disk.
        """
        ...

    def close(self) -> None:
        """Stop all workers and abandon unfinished tasks."""
        ...
