"""
engine_processes.py
-------------------
The engine of one machine: worker processes with one thread each, which do one shape at a time. Whatever a
mesh does to its process (crash it, hang, use up the memory), only that shape fails: the process is replaced.
"""

from __future__ import annotations

from dataclasses import asdict, replace
from multiprocessing import connection

from .job import Job, Task
from .limits import Limits
from .record import Record
from .tasks import TaskWork
from .worker import Death, Worker

#: Seconds between two looks at the workers' memory and time.
_TICK = 0.1


class LocalEngine:
    """Implements `Engine` with processes of this machine.

    A later stage of a shape goes to the worker that keeps the shape, as long as that lives.
    """

    def __init__(self, job: Job, workers: int, limits: Limits) -> None:
        self._job, self._count, self._limits = job, workers, limits
        self._idle: list[Worker] = []
        self._busy: list[tuple[Worker, Task]] = []
        self._forget: set[str] = set()

    @property
    def free(self) -> int:
        """How many more tasks it would begin at once."""
        return self._count - len(self._busy)

    @property
    def busy(self) -> int:
        """How many tasks it has begun."""
        return len(self._busy)

    def takes(self, task: Task) -> bool:
        """Whether it would begin this task now; not if the worker that keeps its shape is busy."""
        return self.free > 0 and not any(task.record.name in worker.kept for worker, _ in self._busy)

    def submit(self, task: Task) -> None:
        """Begin a task, in the worker that keeps its shape, in another idle one, or in a new one."""
        self._idle = [worker for worker in self._idle if worker.alive]
        if not self._idle:
            self._begin(task, Worker(TaskWork(self._job), self._limits))
            return
        name = task.record.name
        worker = min(self._idle, key=lambda worker: (name not in worker.kept, sum(worker.kept.values())))
        self._idle.remove(worker)
        self._begin(task, worker)

    def _begin(self, task: Task, worker: Worker) -> None:
        self._busy.append((worker, task))
        worker.give(task=asdict(task), forget=sorted(self._forget & worker.kept.keys()))

    def wait(self) -> list[Record]:
        """The records of tasks that have ended; returns after a moment if none has."""
        connection.wait([handle for worker, _ in self._busy for handle in worker.handles], _TICK)
        ended = []
        for worker, task in tuple(self._busy):
            end = worker.look()
            if end is None:
                continue
            self._busy.remove((worker, task))
            if not isinstance(end, Death):
                ended.append(Record.from_json(end["record"]))
                self._idle.append(worker)
            elif end.cause == "memory" and worker.kept.keys() - {task.record.name}:
                # Other shapes were in its memory, too: it may need less than the limit.
                self._begin(task, Worker(TaskWork(self._job), self._limits))
            else:
                begun = replace(task.record, key=worker.key or task.record.key)
                ended.append(begun.failed(end.cause, end.reason, {"lost": end.seconds}))
        return ended

    def forget(self, name: str) -> None:
        """Tell the worker that keeps a shape to drop it: it has no more stages."""
        self._forget.add(name)

    def close(self) -> None:
        """End all processes."""
        for worker in [*self._idle, *(worker for worker, _ in self._busy)]:
            worker.kill()
        self._busy, self._idle = [], []
