"""
worker_handle.py
----------------
The driver's interface to a worker process: it starts the process, sends it work, and monitors its time, its
memory and its exit. `worker_main.py` has the code that runs inside the process.

Processes are spawned rather than forked, so that they inherit no locks, threads or GPU context from the
driver. The worker writes results to files, and sends records as JSON through a pipe.
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
from ..files.bounded_input import max_input
from .resource_limits import Limits, resident_memory
from .shape_record import Cause
from .worker_main import Work, inherited_settings, serve

#: Signals of external origin: from a user, the out-of-memory killer, or a cluster's scheduler.
_EXTERNAL_SIGNALS = {signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGHUP}


@dataclass(frozen=True)
class ProcessExit:
    """Why a process ended, and the seconds that it had worked."""

    cause: Cause
    reason: str
    seconds: float


class Worker:
    """A process that performs one unit of work at a time.

    key: key of the current mesh; None until the process reports it. kept: bytes of each shape that the
    process has cached for later stages, by name.
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
        self._started = 0.0
        self.key: str | None = None
        self.kept: dict[str, int] = {}

    @property
    def handles(self) -> tuple[Connection, int]:
        """Handles for `multiprocessing.connection.wait`; one is ready when `poll` has a result."""
        return self._pipe, self._process.sentinel

    @property
    def alive(self) -> bool:
        """Whether the process is running."""
        return self._process.is_alive()

    def send(self, **message: Any) -> None:
        """Send work, or the reply to a request: JSON values for `Work.perform`."""
        self.key, self._started = None, time.monotonic()
        with suppress(OSError):  # `poll` detects that the process has ended
            self._pipe.send_bytes(json.dumps(message).encode())

    def poll(self) -> dict[str, Any] | ProcessExit | None:
        """The result of the work, a request, or the exit of the process; None while it is working.

        Kills a process that exceeds its limits. Raises `NeuralSDFError` for an error that ends the run.
        """
        while (message := self._message()) is not None:
            if "stop" in message:
                raise NeuralSDFError(message["stop"])
            if "ready" in message:
                self._ready, self._started = True, time.monotonic()
            elif "key" in message:
                self.key = message["key"]
            else:
                self.kept = message.pop("kept", {})
                if self._resident() - sum(self.kept.values()) > self._limits.max_memory / 2:
                    self.kill()  # memory that it has not released would count against the next shape
                return message
        if not self.alive:
            return self._ended(*self._cause_of_death())
        if time.monotonic() - self._started > self._limits.timeout:
            reason = f"took longer than {self._limits.timeout:g} s; allow more with `timeout=`"
            return self._ended("timeout", reason)
        if self._resident() > self._limits.max_memory:
            limit = f"{self._limits.max_memory / 1e6:.0f} MB of memory"
            return self._ended("memory", f"needs more than {limit}; allow more with `max_memory=`")
        return None

    def kill(self) -> None:
        """End the process."""
        self._process.kill()
        self._process.join(5)  # with a timeout: a process blocked by a failed network disk cannot be killed
        self._pipe.close()

    def _message(self) -> dict[str, Any] | None:
        try:
            return json.loads(self._pipe.recv_bytes()) if self._pipe.poll() else None
        except (EOFError, OSError):  # the process ended, possibly during a write
            self._process.join(5)
            return None

    def _resident(self) -> int:
        return resident_memory(self._process.pid)

    def _cause_of_death(self) -> tuple[Cause, str]:
        code = self._process.exitcode or 0
        if -code in _EXTERNAL_SIGNALS:
            name = signal.Signals(-code).name
            return "killed", f"its process was killed ({name}), perhaps for lack of memory"
        if not self._ready:
            raise NeuralSDFError(f"a worker process did not start (exit code {code})")
        how = signal.Signals(-code).name if code < 0 else f"exit code {code}"
        return "crash", f"its process crashed ({how})"

    def _ended(self, cause: Cause, reason: str) -> ProcessExit:
        self.kill()
        return ProcessExit(cause, reason, time.monotonic() - self._started)
