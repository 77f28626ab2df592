"""
worker_process.py
-----------------
What runs in a worker process: it does one piece of work after the other, on one thread, as long as its driver
lives.
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
from ..files.input_file import set_max_input
from ..thread_count import set_threads


class Channel:
    """The worker's end of the pipe to its driver; messages are JSON objects."""

    def __init__(self, pipe: Connection) -> None:
        self._pipe = pipe

    def tell(self, **message: Any) -> None:
        """Send a message to the driver."""
        self._pipe.send_bytes(json.dumps(message).encode())

    def receive(self) -> dict[str, Any]:
        """Wait for a message from the driver."""
        message: dict[str, Any] = json.loads(self._pipe.recv_bytes())
        return message


class Work(Protocol):
    """What a worker does. It is sent to the process by pickle, and may keep state there."""

    def perform(self, message: dict[str, Any], channel: Channel) -> dict[str, Any]:
        """Do what a driver's message asks for; returns the answer. Raises `NeuralSDFError` to end the run."""
        ...


def serve(pipe: Connection, work: Work, parent: int, largest_input: int) -> None:
    """The main function of a worker process."""
    _end_with(parent)
    set_threads(1)
    set_max_input(largest_input)
    channel = Channel(pipe)
    _silence()
    channel.tell(ready=True)
    while True:
        message = channel.receive()
        try:
            channel.tell(**work.perform(message, channel))
        except NeuralSDFError as error:
            channel.tell(stop=str(error))


def _end_with(parent: int) -> None:
    """Make the kernel kill this process when its parent ends for any reason (Linux)."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it has ended already
        sys.exit(1)


_PR_SET_PDEATHSIG = 1  # <linux/prctl.h>


def _silence() -> None:
    """Discard what libraries print, which would disturb the driver's progress display."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    os.dup2(nowhere, 2)


@contextmanager
def inherited_settings() -> Iterator[None]:
    """What a process started in this block inherits: one thread, and no Ctrl-C, which is for the driver."""
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
    """Handle signals (Ctrl-C, SIGTERM) only after the block.

    A process that is started and then never receives its arguments prints a traceback.
    """
    if threading.current_thread() is not threading.main_thread():
        yield  # signals are handled in the main thread
        return
    came: list[int] = []
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    taken = {number: handler for number, handler in handlers.items() if handler not in (None, signal.SIG_IGN)}
    for number in taken:
        signal.signal(number, lambda number, _: came.append(number))
    try:
        yield
    finally:
        for number, handler in taken.items():
            signal.signal(number, handler)
        for caught in came:
            signal.raise_signal(caught)


#: Read by libraries when they are loaded.
_THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "IGL_NUM_THREADS")
