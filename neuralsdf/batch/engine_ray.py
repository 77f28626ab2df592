"""
engine_ray.py
-------------
An engine on a Ray cluster. All machines need this package (and that of the job), and the meshes and the
output folder at the same absolute paths. Only the driver writes the manifest.

An actor on the cluster runs one worker process, as the driver of a local run does, so that a mesh that
crashes its process does not stop the actor.
"""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

from ..errors import NeuralSDFError, UsageError
from ..files.bounded_input import max_input, set_max_input
from .engine_processes import LocalEngine
from .job import Job, Task
from .resource_limits import Limits, memory_per_worker
from .shape_record import Record

#: Maximum number of seconds for which `wait` blocks.
_WAIT_SECONDS = 1.0


class RayEngine:
    """Implements `Engine` with the workers of a Ray cluster.

    The cluster is the one to which this process is connected, or that of RAY_ADDRESS, or the one on this
    machine, in this order. workers: their number; None for one per CPU of the cluster. memory: bytes per
    worker; None for an equal fraction of its machine's memory. Raises `UsageError` if Ray is not installed,
    `NeuralSDFError` if no cluster is running.
    """

    def __init__(self, job: Job, workers: int | None, seconds: float, memory: float | None) -> None:
        self._ray = ray = _ray()
        self._connected_here = not ray.is_initialized()
        if self._connected_here:
            try:
                ray.init(address="auto", log_to_driver=False, logging_level="ERROR")
            except ConnectionError as error:
                remedy = "start one with `ray start --head`, or set RAY_ADDRESS"
                raise NeuralSDFError(f"no Ray cluster is running; {remedy}") from error
        self._actor = ray.remote(num_cpus=1)(_Actor)
        self._arguments = job, seconds, memory, max_input()
        self._count = workers or max(1, int(ray.cluster_resources().get("CPU", 1)))
        self._idle: list[Any] = []
        self._busy: dict[Any, tuple[Task, Any]] = {}

    @property
    def free(self) -> int:
        """Number of additional tasks that it can start now."""
        return self._count - len(self._busy)

    @property
    def busy(self) -> int:
        """Number of tasks in progress."""
        return len(self._busy)

    def submit(self, task: Task) -> None:
        """Start a task."""
        actor = self._idle.pop() if self._idle else self._actor.remote(*self._arguments)
        record = replace(task.record, source=str(Path(task.record.source).absolute()))
        result, draft = (str(Path(path).absolute()) for path in (task.result, task.draft))
        there = replace(task, record=record, result=result, draft=draft)
        self._busy[actor.perform.remote(there)] = task, actor

    def wait(self) -> list[Record]:
        """The records of tasks that have ended. If none has, waits briefly and may return an empty list."""
        ready, _ = self._ray.wait(list(self._busy), num_returns=1, timeout=_WAIT_SECONDS)
        ended = []
        for reference in ready:
            task, actor = self._busy.pop(reference)
            try:
                end = self._ray.get(reference)
            except self._ray.exceptions.RayActorError:
                ended.append(task.record.failed("killed", "its machine or its process was lost"))
                continue
            if isinstance(end, str):
                raise NeuralSDFError(end)
            ended.append(replace(end, source=task.record.source))
            self._idle.append(actor)
        return ended

    def close(self) -> None:
        """Stop all workers; the cluster keeps running."""
        for actor in [*self._idle, *(actor for _, actor in self._busy.values())]:
            self._ray.kill(actor)
        self._idle, self._busy = [], {}
        if self._connected_here:
            self._ray.shutdown()


class _Actor:
    """A Ray actor that runs one worker process on a machine of the cluster."""

    def __init__(self, job: Job, seconds: float, memory: float | None, largest_input: int) -> None:
        set_max_input(largest_input)
        limits = Limits(seconds, memory or memory_per_worker(os.cpu_count() or 1))
        self._engine = LocalEngine(job, 1, limits)

    def perform(self, task: Task) -> Record | str:
        """The record of a task, or the message of an error that ends the run."""
        try:
            self._engine.submit(task)
            while not (ended := self._engine.wait()):
                pass
        except NeuralSDFError as error:
            return str(error)
        return ended[0]


def _ray() -> Any:
    try:
        import ray
    except ImportError as error:
        raise UsageError("this engine needs Ray: pip install 'neuralsdf[ray]'") from error
    return ray
