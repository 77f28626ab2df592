"""
engine_processes.py
-------------------
The engine of one machine: worker processes with one thread each, which process one shape at a time. If a mesh
crashes its process, exceeds the timeout or exhausts the memory, only that shape fails. The process is
replaced.
"""

from __future__ import annotations

from dataclasses import asdict, replace
from multiprocessing import connection

from .job import Job, Task
from .perform_task import TaskWork
from .resource_limits import Limits
from .shape_record import Record
from .worker_handle import ProcessExit, Worker

#: Seconds between checks of the workers' memory and time.
_POLL_SECONDS = 0.1


class LocalEngine:
    """Implements `Engine` with processes of this machine.

    A later stage of a shape goes to the worker that has the shape cached, while that process runs.
    """

    def __init__(self, job: Job, workers: int, limits: Limits) -> None:
        self._job, self._count, self._limits = job, workers, limits
        self._idle: list[Worker] = []
        self._busy: list[tuple[Worker, Task]] = []
        self._forget: set[str] = set()

    @property
    def free(self) -> int:
        """Number of additional tasks that it can start now."""
        return self._count - len(self._busy)

    @property
    def busy(self) -> int:
        """Number of tasks in progress."""
        return len(self._busy)

    def takes(self, task: Task) -> bool:
        """Whether it can start this task now. It cannot if the worker that has the shape cached is busy."""
        return self.free > 0 and not any(task.record.name in worker.kept for worker, _ in self._busy)

    def submit(self, task: Task) -> None:
        """Start a task, in the worker that has its shape cached, in another idle one, or in a new one."""
        self._idle = [worker for worker in self._idle if worker.alive]
        if not self._idle:
            self._start(task, Worker(TaskWork(self._job), self._limits))
            return
        name = task.record.name
        worker = min(self._idle, key=lambda worker: (name not in worker.kept, sum(worker.kept.values())))
        self._idle.remove(worker)
        self._start(task, worker)

    def _start(self, task: Task, worker: Worker) -> None:
        self._busy.append((worker, task))
        worker.send(task=asdict(task), forget=sorted(self._forget & worker.kept.keys()))

    def wait(self) -> list[Record]:
        """The records of tasks that have ended. If none has, waits briefly and may return an empty list."""
        connection.wait([handle for worker, _ in self._busy for handle in worker.handles], _POLL_SECONDS)
        ended = []
        for worker, task in tuple(self._busy):
            end = worker.poll()
            if end is None:
                continue
            self._busy.remove((worker, task))
            if not isinstance(end, ProcessExit):
                ended.append(Record.from_json(end["record"]))
                self._idle.append(worker)
            elif end.cause == "memory" and worker.kept.keys() - {task.record.name}:
                # The process had cached other shapes, too: this one alone may need less than the limit.
                self._start(task, Worker(TaskWork(self._job), self._limits))
            else:
                begun = replace(task.record, key=worker.key or task.record.key)
                ended.append(begun.failed(end.cause, end.reason, {"lost": end.seconds}))
        return ended

    def forget(self, name: str) -> None:
        """Tell the worker that has a shape cached to drop it, because it has no more stages."""
        self._forget.add(name)

    def close(self) -> None:
        """End all processes."""
        for worker in [*self._idle, *(worker for worker, _ in self._busy)]:
            worker.kill()
        self._busy, self._idle = [], []
