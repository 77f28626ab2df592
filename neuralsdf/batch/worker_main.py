"""
worker_main.py
--------------
The code that runs in a worker process. It performs units of work in sequence, on one thread, until its driver
exits.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection
from typing import Any, Protocol

from ..errors import NeuralSDFError
from ..files.bounded_input import set_max_input
from ..thread_count import set_threads


class Channel:
    """The worker's end of the pipe to its driver; messages are JSON objects."""

    def __init__(self, pipe: Connection) -> None:
        self._pipe = pipe

    def send(self, **message: Any) -> None:
        """Send a message to the driver."""
        self._pipe.send_bytes(json.dumps(message).encode())

    def receive(self) -> dict[str, Any]:
        """Wait for a message from the driver."""
        message: dict[str, Any] = json.loads(self._pipe.recv_bytes())
        return message


class Work(Protocol):
    """The work of a process. It is pickled and sent to the process, and may keep state there."""

    def perform(self, message: dict[str, Any], channel: Channel) -> dict[str, Any]:
        """Handle a message of the driver; returns the answer. Raises `NeuralSDFError` to end the run."""
        ...


def serve(pipe: Connection, work: Work, parent: int, largest_input: int) -> None:
    """The main function of a worker process."""
    _exit_with(parent)
    set_threads(1)
    set_max_input(largest_input)
    channel = Channel(pipe)
    _discard_output()
    channel.send(ready=True)
    while True:
        message = channel.receive()
        try:
            channel.send(**work.perform(message, channel))
        except NeuralSDFError as error:
            channel.send(stop=str(error))


def _exit_with(parent: int) -> None:
    """Make the kernel kill this process when its parent ends for any reason (Linux)."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # the parent has already ended
        sys.exit(1)


_PR_SET_PDEATHSIG = 1  # <linux/prctl.h>


def _discard_output() -> None:
    """Discard the output of libraries, which would disturb the driver's progress display."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    os.dup2(nowhere, 2)


@contextmanager
def inherited_settings() -> Iterator[None]:
    """Processes that are started in this block use one thread and block SIGINT; the driver handles Ctrl-C."""
    before = {name: os.environ.get(name) for name in _THREADS}
    with _deferred_signals():
        resource_tracker.ensure_running()  # otherwise `start` runs it and unblocks SIGINT
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
def _deferred_signals() -> Iterator[None]:
    """Defer signals (SIGINT, SIGTERM, SIGHUP) to the end of the block.

    If a signal interrupts the start of a process, the process does not receive its arguments and prints a
    traceback.
    """
    if threading.current_thread() is not threading.main_thread():
        yield  # signals are handled in the main thread
        return
    received: list[int] = []
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    taken = {number: handler for number, handler in handlers.items() if handler not in (None, signal.SIG_IGN)}
    for number in taken:
        signal.signal(number, lambda number, _: received.append(number))
    try:
        yield
    finally:
        for number, handler in taken.items():
            signal.signal(number, handler)
        for caught in received:
            signal.raise_signal(caught)


#: Environment variables for the number of threads, which libraries read when they are loaded.
_THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "IGL_NUM_THREADS")
