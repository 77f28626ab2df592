"""
stage_times.py
--------------
The stages of a conversion, with their progress and times.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

#: Stages in order. Progress is called with the stage, the fraction of it done, and a message.
STAGES = ("load", "prepare", "sample", "fit", "measure")
Progress = Callable[[str, float, str], None]


class Stages:
    """Measures the seconds of each stage and reports progress."""

    def __init__(self, progress: Progress | None) -> None:
        self.seconds: dict[str, float] = {}
        self._progress = progress

    @contextmanager
    def stage(self, name: str) -> Iterator[Callable[[float, str], None]]:
        """Run a stage in a `with` block; yields a function that reports the fraction done and a message."""

        def report(done: float, message: str) -> None:
            if self._progress is not None:
                self._progress(name, done, message)

        began = time.perf_counter()
        report(0.0, "")
        yield report
        report(1.0, "")
        self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - began
