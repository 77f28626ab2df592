"""
worker.py
---------
A worker process as its driver sees it: start it, give it work, watch its time and memory, see how it ends.
`worker_process.py` is what runs inside.

Processes are spawned, not forked: nothing of the driver's (locks, threads, a GPU context) is copied. Results
go into files that the worker writes; what is reported about them goes through a pipe, as JSON.
"""

from __future__ import annotations

import json
import os
import signal
import time
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing import get_context
from multiprocessing.connection import Connection
from typing import Any

from ..errors import NeuralSDFError
from ..files.input_file import max_input
from .limits import Limits, resident_memory
from .record import Cause
from .worker_process import Work, inherited_settings, serve

#: Signals that come from outside: a person, the out-of-memory killer, a cluster's scheduler.
_FROM_OUTSIDE = {signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGHUP}


@dataclass(frozen=True)
class Death:
    """How a process ended, and after how many seconds of its work."""

    cause: Cause
    reason: str
    seconds: float


class Worker:
    """A process that does one piece of work at a time.

    key: of the mesh that it works on, once it has reported it. kept: bytes that it keeps of shapes for their
    later stages, by name.
    """

    def __init__(self, work: Work, limits: Limits) -> None:
        self._limits = limits
        self._pipe, theirs = get_context("spawn").Pipe()
        arguments = (theirs, work, os.getpid(), max_input())
        self._process = get_context("spawn").Process(target=serve, args=arguments, daemon=True)
        with inherited_settings():
            self._process.start()
        theirs.close()
        self._ready = False
        self._began = 0.0
        self.key: str | None = None
        self.kept: dict[str, int] = {}

    @property
    def handles(self) -> tuple[Connection, int]:
        """What to wait on for the next result of `look`."""
        return self._pipe, self._process.sentinel

    @property
    def alive(self) -> bool:
        """Whether the process has not ended."""
        return self._process.is_alive()

    def give(self, **message: Any) -> None:
        """Begin some work, or answer a question: JSON values for `Work.perform`."""
        self.key, self._began = None, time.monotonic()
        with suppress(OSError):  # `look` finds the process dead
            self._pipe.send_bytes(json.dumps(message).encode())

    def look(self) -> dict[str, Any] | Death | None:
        """The result of the work, a question, or how the process ended; None while it works.

        A process that exceeds its limits is killed here. Raises `NeuralSDFError` for an error that is not
        the fault of the work.
        """
        while (message := self._message()) is not None:
            if "stop" in message:
                raise NeuralSDFError(message["stop"])
            if "ready" in message:
                self._ready, self._began = True, time.monotonic()
            elif "key" in message:
                self.key = message["key"]
            else:
                self.kept = message.pop("kept", {})
                if self._resident() - sum(self.kept.values()) > self._limits.max_memory / 2:
                    self.kill()  # memory that it does not return would count for the next shape
                return message
        if not self.alive:
            return self._ended(*self._cause_of_death())
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
        self._process.join(5)  # a process that waits for a dead network disk cannot be ended: leave it
        self._pipe.close()

    def _message(self) -> dict[str, Any] | None:
        try:
            return json.loads(self._pipe.recv_bytes()) if self._pipe.poll() else None
        except (EOFError, OSError):  # it died, perhaps while it wrote
            self._process.join(5)
            return None

    def _resident(self) -> int:
        return resident_memory(self._process.pid)

    def _cause_of_death(self) -> tuple[Cause, str]:
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
