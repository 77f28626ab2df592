"""
together.py
-----------
An engine that fits many networks at once: workers load and sample ahead on the processor, one process fits
a group of shapes (on a GPU, in one launch), workers measure and write. What becomes of a shape does not
depend on its group.
"""

from __future__ import annotations

import math
import time
from collections import deque
from dataclasses import replace

from ..backends import CPU_BACKENDS, fastest
from ..errors import NeuralSDFError
from ..fit import DIVERGED
from .conversion import Task, failure
from .manifest import Record
from .recipe import Recipe
from .workers import Death, Limits, LocalEngine, Worker


class TogetherEngine:
    """Implements `Engine` for a recipe with `together`; backend: of the fits."""

    def __init__(
        self, recipe: Recipe, workers: int, limits: Limits, backend: str | None, together: int
    ) -> None:
        self._recipe, self._limits, self._backend, self._together = recipe, limits, backend, together
        self._workers = LocalEngine(recipe, workers, limits, fastest(CPU_BACKENDS))
        self._fitter: Worker | None = None
        self._to_sample: deque[Task] = deque()
        self._sampling: dict[str, Task] = {}
        self._sampled: deque[Task] = deque()
        self._fitting: list[Task] = []
        self._fitted: deque[Task] = deque()
        self._measuring: set[str] = set()
        self._began = 0.0

    @property
    def free(self) -> int:
        """How many more tasks it would begin: those of a group beyond the one that is being fitted."""
        return 2 * self._together - self.busy

    @property
    def busy(self) -> int:
        """How many tasks it has begun."""
        ahead = len(self._to_sample) + len(self._sampling) + len(self._sampled)
        return ahead + len(self._fitting) + len(self._fitted) + len(self._measuring)

    def submit(self, task: Task) -> None:
        """Begin a task."""
        self._to_sample.append(replace(task, stage="sample"))

    def wait(self) -> list[Record]:
        """What became of tasks that have ended; returns after a moment if none has."""
        ended = self._fit()
        while self._workers.free and (self._fitted or self._to_sample):
            if self._fitted:  # first what is almost done
                task = self._fitted.popleft()
                self._measuring.add(task.record.name)
            else:
                task = self._to_sample.popleft()
                self._sampling[task.record.name] = task
            self._workers.submit(task)
        for record in self._workers.wait():
            if record.name in self._measuring:
                self._measuring.remove(record.name)
                ended.append(record)
                continue
            task = self._sampling.pop(record.name)
            if record.state == "waiting":
                self._sampled.append(replace(task, record=record, settled=False, stage="measure"))
            else:
                ended.append(record)
        return ended

    def _fit(self) -> list[Record]:
        """Take what has been fitted and begin the next group, if there is one; returns what diverged."""
        diverged = []
        if self._fitting:
            assert self._fitter is not None
            end = self._fitter.look()
            if end is None:
                return []
            if isinstance(end, Death):
                self._lost(end)
            else:
                diverged = self._took(end["losses"])
            self._fitting = []
        no_more = not self._to_sample and not self._sampling
        if len(self._sampled) >= self._together or (self._sampled and no_more):
            count = min(self._together, len(self._sampled))
            self._fitting = [self._sampled.popleft() for _ in range(count)]
            if self._fitter is None:
                limits = Limits(self._limits.seconds * self._together, math.inf)
                self._fitter = Worker(self._recipe, limits, self._backend)
            self._began = time.monotonic()
            self._fitter.give(drafts=[task.draft for task in self._fitting])
        return diverged

    def _took(self, losses: list[float]) -> list[Record]:
        """Let the group be measured, but for what diverged, which is returned."""
        each = (time.monotonic() - self._began) / len(self._fitting)
        diverged = []
        for task, loss in zip(self._fitting, losses, strict=True):
            task.samples.unlink(missing_ok=True)
            if math.isfinite(loss):
                record = replace(task.record, seconds=task.record.seconds | {"fit": each})
                self._fitted.append(replace(task, record=record))
            else:
                diverged.append(failure(task.record, "error", DIVERGED))
        return diverged

    def _lost(self, end: Death) -> None:
        """The process that fits has ended: begin the group again, if that was not its own doing."""
        self._fitter = None
        if end.cause != "killed":
            raise NeuralSDFError(
                f"fitting {len(self._fitting)} shapes together: {end.reason}; fewer --together may help, "
                "and the same command continues"
            )
        self._sampled.extendleft(reversed(self._fitting))

    def close(self) -> None:
        """End all processes."""
        self._workers.close()
        if self._fitter is not None:
            self._fitter.kill()
