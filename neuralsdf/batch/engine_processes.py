"""
engine_processes.py
-------------------
Processes that convert shapes, one shape at a time and on one thread each. Whatever a mesh does to its
process (crash it, hang, use up the memory), only that shape fails: the process is replaced.

Processes are spawned, not forked: nothing of the driver's (locks, threads, a GPU's context) is copied. A
result goes into a file, written by the worker; what is told about it goes through a pipe, as JSON.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from multiprocessing import connection, get_context, resource_tracker
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Protocol

from ..errors import NeuralSDFError
from ..files.input_file import max_input, set_max_input
from ..parallel import set_threads
from .manifest import Cause, Record
from .recipe import Recipe
from .tasks import Task, failure, fit_group, perform

#: Seconds from one look at a worker's memory and time to the next.
_TICK = 0.1

#: Signals that come from outside: a person, the system short of memory, a cluster's scheduler.
_FROM_OUTSIDE = {signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGHUP}


@dataclass(frozen=True)
class Limits:
    """What a shape may use: seconds, and bytes of resident memory; infinite for no limit.

    Resident memory, not address space: that is what a machine runs out of, while a GPU's driver or torch
    reserve many gigabytes of addresses that they never touch.
    """

    timeout: float
    max_memory: float


def share_of_memory(workers: int) -> float:
    """Bytes of memory that each of some workers may have, so that all of them together find room."""
    return 0.8 * machine_memory() / workers


def machine_memory() -> int:
    """Bytes of memory that the processes of this machine, or of this container, may have together."""
    machine = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    limits = [Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory/memory.limit_in_bytes")]
    texts = [path.read_text().strip() for path in limits if path.is_file()]
    return min([machine, *(int(text) for text in texts if text.isdecimal())])


class Engine(Protocol):
    """Converts shapes somewhere, several at a time."""

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
        """What became of tasks that have ended; waits a moment if none has.

        Raises `NeuralSDFError` for what no other shape would survive, such as a full disk.
        """
        ...

    def close(self) -> None:
        """Give up what is under way."""
        ...


class LocalEngine:
    """Implements `Engine` with processes of this machine."""

    def __init__(self, recipe: Recipe, workers: int, limits: Limits, backend: str | None = None) -> None:
        self._recipe, self._limits, self._backend = recipe, limits, backend
        self._count = workers
        self._idle: list[Worker] = []
        self._busy: list[tuple[Worker, Task]] = []

    @property
    def free(self) -> int:
        """How many more tasks it would begin at once."""
        return self._count - len(self._busy)

    @property
    def busy(self) -> int:
        """How many tasks it has begun."""
        return len(self._busy)

    def submit(self, task: Task) -> None:
        """Begin a task, in a process that is idle or a new one."""
        self._idle = [worker for worker in self._idle if worker.alive]
        worker = self._idle.pop() if self._idle else Worker(self._recipe, self._limits, self._backend)
        self._busy.append((worker, task))
        worker.give(task=asdict(task))

    def wait(self) -> list[Record]:
        """What became of tasks that have ended; returns after a moment if none has."""
        connection.wait([handle for worker, _ in self._busy for handle in worker.handles], _TICK)
        ended = []
        for worker, task in tuple(self._busy):
            end = worker.look()
            if end is None:
                continue
            if isinstance(end, Death):
                begun = replace(task.record, key=worker.key or task.record.key)
                ended.append(failure(begun, end.cause, end.reason, {"lost": end.seconds}))
            else:
                ended.append(Record.from_json(end["record"]))
                self._idle.append(worker)
            self._busy.remove((worker, task))
        return ended

    def close(self) -> None:
        """End all processes."""
        for worker in [*self._idle, *(worker for worker, _ in self._busy)]:
            worker.kill()
        self._busy, self._idle = [], []


@dataclass(frozen=True)
class Death:
    """How a process ended, and after how many seconds of its work."""

    cause: Cause
    reason: str
    seconds: float


class Worker:
    """A process that does one piece of work at a time, seen from the one that started it.

    key: of the mesh that it has, when it has told it.
    """

    def __init__(self, recipe: Recipe, limits: Limits, backend: str | None) -> None:
        self._limits = limits
        self._pipe, theirs = get_context("spawn").Pipe()
        arguments = (theirs, json.dumps(recipe.options()), backend, os.getpid(), max_input())
        self._process = get_context("spawn").Process(target=_serve, args=arguments, daemon=True)
        with _for_a_worker():
            self._process.start()
        theirs.close()
        self._ready = False
        self._began = 0.0
        self.key: str | None = None

    @property
    def handles(self) -> tuple[Connection, int]:
        """What becomes ready when `look` has something to see."""
        return self._pipe, self._process.sentinel

    @property
    def alive(self) -> bool:
        """Whether the process has not ended."""
        return self._process.is_alive()

    def give(self, **work: Any) -> None:
        """Begin some work: see `_serve`."""
        self.key, self._began = None, time.monotonic()
        with suppress(OSError):  # `look` finds the process dead
            self._pipe.send_bytes(json.dumps(work).encode())

    def look(self) -> dict[str, Any] | Death | None:
        """What came of the work, or how it ended the process; None as long as it is under way.

        A process that goes over its limits is ended here. Raises `NeuralSDFError` for what the work is not
        to blame for.
        """
        while (message := self._message()) is not None:
            if "stop" in message:
                raise NeuralSDFError(message["stop"])
            if "ready" in message:
                self._ready, self._began = True, time.monotonic()
            elif "key" in message:
                self.key = message["key"]
            else:
                if self._resident() > self._limits.max_memory / 2:
                    self.kill()  # what it holds on to is not the next shape's
                return message
        if not self.alive:
            return self._ended(*self._died())
        if time.monotonic() - self._began > self._limits.timeout:
            reason = f"took longer than {self._limits.timeout:g} s; allow more with `timeout=`"
            return self._ended("timeout", reason)
        if self._resident() > self._limits.max_memory:
            limit = f"{self._limits.max_memory / 2**20:.0f} MiB of memory"
            return self._ended("memory", f"needs more than {limit}; allow more with `max_memory=`")
        return None

    def kill(self) -> None:
        """End the process."""
        self._process.kill()
        self._process.join(5)  # one that waits for a dead network disk cannot be ended: let it be
        self._pipe.close()

    def _message(self) -> dict[str, Any] | None:
        try:
            return json.loads(self._pipe.recv_bytes()) if self._pipe.poll() else None
        except (EOFError, OSError):  # it died, perhaps while it wrote
            self._process.join(5)
            return None

    def _resident(self) -> int:
        """Bytes of memory that the process has."""
        try:
            pages = Path(f"/proc/{self._process.pid}/statm").read_text().split()[1]
        except OSError:  # it ends at this moment
            return 0
        return int(pages) * os.sysconf("SC_PAGE_SIZE")

    def _died(self) -> tuple[Cause, str]:
        code = self._process.exitcode or 0
        if -code in _FROM_OUTSIDE:
            name = signal.Signals(-code).name
            return "killed", f"its process was killed ({name}), perhaps for lack of memory"
        if not self._ready:
            raise NeuralSDFError(f"a worker process did not start (exit code {code})")
        how = signal.Signals(-code).name if code < 0 else f"exit code {code}"
        return "crash", f"its process crashed ({how})"

    def _ended(self, cause: Cause, reason: str) -> Death:
        self.kill()
        return Death(cause, reason, time.monotonic() - self._began)


def _serve(pipe: Connection, options: str, backend: str | None, parent: int, largest_input: int) -> None:
    """What a worker process does: one piece of work after the other, as long as its parent lives."""
    _end_with(parent)
    set_threads(1)
    set_max_input(largest_input)
    recipe = Recipe.from_options(json.loads(options))

    def tell(**message: Any) -> None:
        pipe.send_bytes(json.dumps(message).encode())

    def correct(finite: list[bool]) -> list[bool]:
        """Have corrections drawn by others."""
        tell(correct=finite)
        drawn: list[bool] = json.loads(pipe.recv_bytes())["corrected"]
        return drawn

    _silence()
    tell(ready=True)
    while True:
        work = json.loads(pipe.recv_bytes())
        try:
            if "task" in work:
                task = Task.from_json(work["task"])
                tell(record=asdict(perform(task, recipe, backend, on_key=lambda key: tell(key=key))))
            else:
                tell(losses=fit_group(work["drafts"], recipe, backend, correct))
        except NeuralSDFError as error:
            tell(stop=str(error))


def _end_with(parent: int) -> None:
    """Let this process end when its parent does, however that ends (Linux)."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it ended before
        sys.exit(1)


_PR_SET_PDEATHSIG = 1  # <linux/prctl.h>


def _silence() -> None:
    """Let what libraries print go nowhere: it would stand in the driver's progress."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    os.dup2(nowhere, 2)


@contextmanager
def _for_a_worker() -> Iterator[None]:
    """What a process that is started inherits: one thread, and no Ctrl-C, which is for the driver."""
    before = {name: os.environ.get(name) for name in _THREADS}
    with _signals_later():
        resource_tracker.ensure_running()  # otherwise `start` does it, and lets SIGINT through
        os.environ.update(dict.fromkeys(_THREADS, "1"))
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            yield
        finally:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
            for name, value in before.items():
                os.environ.pop(name)
                if value is not None:
                    os.environ[name] = value


@contextmanager
def _signals_later() -> Iterator[None]:
    """Let what a signal does (Ctrl-C, a polite end) wait until the block has ended.

    A process that has been begun and is never told what to do complains on the terminal.
    """
    if threading.current_thread() is not threading.main_thread():
        yield  # no signal does anything here
        return
    came: list[int] = []
    does = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    taken = {number: handler for number, handler in does.items() if handler not in (None, signal.SIG_IGN)}
    for number in taken:
        signal.signal(number, lambda number, _: came.append(number))
    try:
        yield
    finally:
        for number, handler in taken.items():
            signal.signal(number, handler)
        for caught in came:
            signal.raise_signal(caught)


#: Read by libraries as they are loaded.
_THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "IGL_NUM_THREADS")
