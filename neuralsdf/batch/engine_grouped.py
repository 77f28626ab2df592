"""
engine_grouped.py
-----------------
An engine that fits many networks at once: workers load and sample meshes ahead on the CPU, one process fits a
group of networks (on a GPU, in one launch), workers draw the corrections that it asks for, measure and save.
The result of a shape does not depend on its group.
"""

from __future__ import annotations

import math
import time
from collections import deque
from dataclasses import replace

from ..backends import CPU_BACKENDS, fastest
from ..errors import NeuralSDFError
from ..training.fit import DIVERGED
from .convert_grouped import FitWork, StagedConvertJob, samples_file
from .convert_job import ConvertJob
from .engine_processes import LocalEngine
from .job import Task
from .limits import Limits
from .record import Record
from .worker import Death, Worker

#: Fraction of a worker's memory limit for meshes that it keeps for their later stages.
_KEPT_MEMORY = 0.25


class GroupedEngine:
    """Implements `Engine` for conversions with `together`, in groups of `group_size`."""

    def __init__(self, job: ConvertJob, workers: int, limits: Limits, group_size: int) -> None:
        self._job, self._limits, self._group_size = job, limits, group_size
        stages = StagedConvertJob(job.recipe, fastest(CPU_BACKENDS), _KEPT_MEMORY * limits.max_memory)
        self._workers = LocalEngine(stages, workers, limits)
        self._fitter: Worker | None = None
        self._to_sample: deque[Task] = deque()
        self._sampled: deque[Task] = deque()
        self._group: list[Task] = []  # being fitted
        self._left: set[str] = set()  # names of shapes of the group that have failed since
        self._finite: list[bool] | None = (
            None  # fits of the group; None unless the fitter waits for corrections
        )
        self._corrections = 0  # of the group so far
        self._to_correct: deque[Task] = deque()
        self._fitted: deque[Task] = deque()
        self._at_work: dict[str, Task] = {}  # given to the workers
        self._began = 0.0

    @property
    def free(self) -> int:
        """How many more tasks it would begin: up to one more group than the one that is being fitted."""
        return 2 * self._group_size - self.busy

    @property
    def busy(self) -> int:
        """How many tasks it has begun."""
        queued = len(self._to_sample) + len(self._sampled) + len(self._fitted)
        fitting = len(self._group) - len(self._left)
        return queued + fitting + len(self._at_work) - self._working("correct")

    def submit(self, task: Task) -> None:
        """Begin a task."""
        self._to_sample.append(replace(task, stage="sample"))

    def wait(self) -> list[Record]:
        """The records of tasks that have ended; returns after a moment if none has."""
        ended = self._fit()
        while (task := self._next()) is not None:
            self._at_work[task.record.name] = task
            self._workers.submit(task)
        for record in self._workers.wait():
            task = self._at_work.pop(record.name)
            if record.state != "waiting":
                ended.append(record)
                if task.stage == "correct":
                    self._left.add(record.name)
            elif task.stage == "sample":
                self._sampled.append(replace(task, record=record, settled=False, begun=True))
        return ended

    def _next(self) -> Task | None:
        """The next task that a worker can begin now; first those that a group waits for."""
        for queue in (self._to_correct, self._fitted, self._to_sample):
            for task in queue if self._workers.free else ():
                if self._workers.takes(task):
                    queue.remove(task)
                    return task
        return None

    def _working(self, stage: str) -> int:
        """How many tasks the workers have in a stage."""
        return sum(task.stage == stage for task in self._at_work.values())

    def _fit(self) -> list[Record]:
        """Continue with the group that is being fitted, or begin the next; returns records of failed fits."""
        if self._finite is not None:
            self._continue(self._finite)
        if self._group and self._finite is None:
            assert self._fitter is not None
            end = self._fitter.look()
            if isinstance(end, Death):
                self._lost(end)
            elif end is not None and "correct" in end:
                self._correct(end["correct"])
            elif end is not None:
                return self._fit_ended(end["losses"])
        if not self._group:
            self._begin()
        return []

    def _begin(self) -> None:
        """Fit the next group, if it is complete."""
        no_more = not self._to_sample and not self._working("sample")
        if len(self._sampled) < self._group_size and not (self._sampled and no_more):
            return
        count = min(self._group_size, len(self._sampled))
        self._group = [self._sampled.popleft() for _ in range(count)]
        self._corrections = 0
        if self._fitter is None:
            limits = Limits(self._limits.timeout * self._group_size, math.inf)
            self._fitter = Worker(FitWork(self._job.recipe, self._job.backend), limits)
        self._began = time.monotonic()
        self._fitter.give(drafts=[task.draft for task in self._group])

    def _correct(self, finite: list[bool]) -> None:
        """Queue the corrections of all shapes of the group, except for those whose fit diverged."""
        self._finite = finite
        self._corrections += 1
        for task, converges in zip(self._group, finite, strict=True):
            if converges and task.record.name not in self._left:
                self._to_correct.append(replace(task, stage="correct", number=self._corrections))

    def _continue(self, finite: list[bool]) -> None:
        """Continue the fit, if all corrections have been drawn."""
        if self._to_correct or self._working("correct"):
            return
        assert self._fitter is not None
        there = [
            converges and task.record.name not in self._left
            for task, converges in zip(self._group, finite, strict=True)
        ]
        self._fitter.give(corrected=there)
        self._finite = None

    def _fit_ended(self, losses: list[float]) -> list[Record]:
        """Queue the measuring of the group; returns records of the fits that diverged."""
        each = (time.monotonic() - self._began) / len(self._group)
        diverged = []
        for task, loss in zip(self._group, losses, strict=True):
            if task.record.name in self._left:
                continue
            samples_file(task.draft).unlink(missing_ok=True)
            if math.isfinite(loss):
                record = replace(task.record, seconds=task.record.seconds | {"fit": each})
                self._fitted.append(replace(task, record=record, stage="measure"))
            else:
                diverged.append(task.record.failed("error", DIVERGED))
                self._workers.forget(task.record.name)
        self._group, self._left = [], set()
        return diverged

    def _lost(self, end: Death) -> None:
        """The process that fits has ended: begin the group again, if it was killed from outside."""
        self._fitter = None
        if end.cause != "killed":
            raise NeuralSDFError(
                f"fitting {len(self._group)} shapes together: {end.reason}; fewer networks at once may help, "
                "and the same command continues"
            )
        there = [task for task in self._group if task.record.name not in self._left]
        self._sampled.extendleft(reversed(there))
        self._group, self._left = [], set()

    def close(self) -> None:
        """End all processes."""
        self._workers.close()
        if self._fitter is not None:
            self._fitter.kill()
