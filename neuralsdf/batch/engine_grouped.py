"""
engine_grouped.py
-----------------
An engine that fits many networks at once. Workers load and sample meshes in advance on the CPU. One process
fits a group of networks (on a GPU, in one launch). Workers draw the corrections that it requests, and measure
and save the models. The result of a shape does not depend on its group.
"""

from __future__ import annotations

import math
import time
from collections import deque
from dataclasses import replace

from ..errors import NeuralSDFError
from ..training.fit import DIVERGED
from .convert_grouped import FitWork, StagedConvertJob, samples_file
from .convert_job import ConvertJob
from .engine_processes import LocalEngine
from .job import Task
from .resource_limits import Limits
from .shape_record import Record
from .worker_handle import ProcessExit, Worker

#: Fraction of a worker's memory limit for meshes that it keeps for their later stages.
_KEPT_MEMORY = 0.25


class GroupedEngine:
    """Implements `Engine` for conversions with `together`, in groups of `group_size`."""

    def __init__(self, job: ConvertJob, workers: int, limits: Limits, group_size: int) -> None:
        self._job, self._limits, self._group_size = job, limits, group_size
        stages = StagedConvertJob(job.recipe, "cpu", _KEPT_MEMORY * limits.max_memory)
        self._workers = LocalEngine(stages, workers, limits)
        self._fitter: Worker | None = None
        self._to_sample: deque[Task] = deque()
        self._sampled: deque[Task] = deque()
        self._group: list[Task] = []  # the tasks that are being fitted
        self._failed: set[str] = set()  # names of shapes of the group that have failed during the fit
        #: Which fits of the group are finite; None unless the fitter waits for corrections.
        self._finite_fits: list[bool] | None = None
        self._corrections = 0  # rounds of corrections of the group so far
        self._to_correct: deque[Task] = deque()
        self._fitted: deque[Task] = deque()
        self._running: dict[str, Task] = {}  # tasks in the workers, by name of the shape
        self._started = 0.0

    @property
    def free(self) -> int:
        """Number of additional tasks that it can start: up to one group beyond the one being fitted."""
        return 2 * self._group_size - self.busy

    @property
    def busy(self) -> int:
        """Number of tasks in progress."""
        queued = len(self._to_sample) + len(self._sampled) + len(self._fitted)
        fitting = len(self._group) - len(self._failed)
        return queued + fitting + len(self._running) - self._count_running("correct")

    def submit(self, task: Task) -> None:
        """Start a task."""
        self._to_sample.append(replace(task, stage="sample"))

    def wait(self) -> list[Record]:
        """The records of tasks that have ended. If none has, waits briefly and may return an empty list."""
        ended = self._fit()
        while (task := self._next()) is not None:
            self._running[task.record.name] = task
            self._workers.submit(task)
        for record in self._workers.wait():
            task = self._running.pop(record.name)
            if record.state != "waiting":
                ended.append(record)
                if task.stage == "correct":
                    self._failed.add(record.name)
            elif task.stage == "sample":
                self._sampled.append(replace(task, record=record, settled=False, begun=True))
        return ended

    def _next(self) -> Task | None:
        """The next task that a worker can start now. Tasks that the fit waits for come first."""
        for queue in (self._to_correct, self._fitted, self._to_sample):
            for task in queue if self._workers.free else ():
                if self._workers.takes(task):
                    queue.remove(task)
                    return task
        return None

    def _count_running(self, stage: str) -> int:
        """Number of tasks in the workers that are in a stage."""
        return sum(task.stage == stage for task in self._running.values())

    def _fit(self) -> list[Record]:
        """Continue to fit the current group, or start the next one; returns the records of failed fits."""
        if self._finite_fits is not None:
            self._continue_fit(self._finite_fits)
        if self._group and self._finite_fits is None:
            assert self._fitter is not None
            end = self._fitter.poll()
            if isinstance(end, ProcessExit):
                self._fitter_ended(end)
            elif end is not None and "correct" in end:
                self._queue_corrections(end["correct"])
            elif end is not None:
                return self._fit_ended(end["losses"])
        if not self._group:
            self._start()
        return []

    def _start(self) -> None:
        """Start to fit the next group, if it is complete."""
        no_more = not self._to_sample and not self._count_running("sample")
        if len(self._sampled) < self._group_size and not (self._sampled and no_more):
            return
        count = min(self._group_size, len(self._sampled))
        self._group = [self._sampled.popleft() for _ in range(count)]
        self._corrections = 0
        if self._fitter is None:
            limits = Limits(self._limits.timeout * self._group_size, math.inf)
            self._fitter = Worker(FitWork(self._job.recipe, self._job.device), limits)
        self._started = time.monotonic()
        self._fitter.send(drafts=[task.draft for task in self._group])

    def _queue_corrections(self, finite: list[bool]) -> None:
        """Queue the corrections of all shapes of the group whose fit has not diverged."""
        self._finite_fits = finite
        self._corrections += 1
        for task, converges in zip(self._group, finite, strict=True):
            if converges and task.record.name not in self._failed:
                self._to_correct.append(replace(task, stage="correct", number=self._corrections))

    def _continue_fit(self, finite: list[bool]) -> None:
        """Continue the fit, if all corrections have been drawn."""
        if self._to_correct or self._count_running("correct"):
            return
        assert self._fitter is not None
        there = [
            converges and task.record.name not in self._failed
            for task, converges in zip(self._group, finite, strict=True)
        ]
        self._fitter.send(corrected=there)
        self._finite_fits = None

    def _fit_ended(self, losses: list[float]) -> list[Record]:
        """Queue the shapes of the group to be measured; returns the records of fits that diverged."""
        each = (time.monotonic() - self._started) / len(self._group)
        diverged = []
        for task, loss in zip(self._group, losses, strict=True):
            if task.record.name in self._failed:
                continue
            samples_file(task.draft).unlink(missing_ok=True)
            if math.isfinite(loss):
                record = replace(task.record, seconds=task.record.seconds | {"fit": each})
                self._fitted.append(replace(task, record=record, stage="measure"))
            else:
                diverged.append(task.record.failed("error", DIVERGED))
                self._workers.forget(task.record.name)
        self._group, self._failed = [], set()
        return diverged

    def _fitter_ended(self, end: ProcessExit) -> None:
        """Handle the exit of the fitting process: fit the group again if the process was killed externally.

        Raises `NeuralSDFError` for any other cause.
        """
        self._fitter = None
        if end.cause != "killed":
            raise NeuralSDFError(
                f"fitting {len(self._group)} shapes together: {end.reason}; run the same command again, "
                "perhaps with fewer networks at once"
            )
        there = [task for task in self._group if task.record.name not in self._failed]
        self._sampled.extendleft(reversed(there))
        self._group, self._failed = [], set()

    def close(self) -> None:
        """End all processes."""
        self._workers.close()
        if self._fitter is not None:
            self._fitter.kill()
