"""
stages.py
---------
The stages of a conversion, their progress and their times.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

#: The stages in order; a caller's progress is told the stage and the share of it that is done.
STAGES = ("load", "prepare", "sample", "fit", "measure")
Progress = Callable[[str, float, str], None]


class Stages:
    """Seconds for each stage, and progress passed on with the stage's name."""

    def __init__(self, progress: Progress | None) -> None:
        self.seconds: dict[str, float] = {}
        self._progress = progress

    @contextmanager
    def stage(self, name: str) -> Iterator[Callable[[float, str], None]]:
        """A stage begins, and ends with the block; what it gives is told the share that is done."""

        def report(done: float, message: str) -> None:
            if self._progress is not None:
                self._progress(name, done, message)

        began = time.perf_counter()
        report(0.0, "")
        yield report
        report(1.0, "")
        self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - began
