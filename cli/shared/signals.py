"""
signals.py
----------
What Ctrl-C and a polite request to end (SIGTERM, SIGHUP) do at any moment of a command: unwind the stack, so
that temporary files are removed, and exit with 128 + the signal's number, without a traceback.

Nothing heavy is imported here: handlers are installed before click is.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

INTERRUPTED = 128 + signal.SIGINT  # what a shell reports for a process ended by Ctrl-C

#: What a module's import is called in a stack of frames.
_IMPORTING = "<frozen importlib._bootstrap>"

_pending: int | None = None


@contextmanager
def handled(*, last: bool = False) -> Iterator[None]:
    """Handle signals within the block. last: the process ends after it, and signals then end it at once.

    Does nothing where somebody has installed handlers of their own, or in a thread, which cannot. A signal
    that is ignored stays so: `nohup` ignores a hangup, a shell Ctrl-C for what runs in the background.
    """
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    free = (signal.SIG_DFL, signal.default_int_handler)
    taken = {number: handler for number, handler in before.items() if handler in free}
    try:
        for number in taken:
            signal.signal(number, _end)
    except ValueError:  # not the main thread
        yield
        return
    hook = sys.unraisablehook
    sys.unraisablehook = _lost(hook)
    try:
        yield
    finally:
        for number, handler in taken.items():
            signal.signal(number, signal.SIG_DFL if last else handler)
        if _pending is not None:
            sys.setprofile(None)
        sys.unraisablehook = hook


def _end(number: int, frame: FrameType | None) -> None:
    """Raise what ends the command; within an import when that has ended, or at once if it was asked twice.

    A module in C++ that is being imported cannot pass on an exception from here: it reports another error, or
    ends the process.
    """
    global _pending
    if _pending is not None:
        os._exit(128 + number)
    _pending = number
    if _imports(frame):
        sys.setprofile(_look)
    else:
        _raise()


def _look(frame: FrameType, event: str, argument: object) -> None:
    """Raise what is pending, if no module is being imported any more; called whenever a function is."""
    if frame.f_code.co_filename == __file__:
        return
    if not _imports(frame.f_back if event == "return" else frame):
        sys.setprofile(None)
        _raise()


def _raise() -> None:
    global _pending
    number, _pending = _pending, None
    if number == signal.SIGINT:
        raise KeyboardInterrupt
    if number is not None:
        sys.exit(128 + number)


def _imports(frame: FrameType | None) -> bool:
    """Whether a module is being imported where a frame is."""
    while frame is not None:
        if frame.f_code.co_filename == _IMPORTING:
            return True
        frame = frame.f_back
    return False


def _lost(hook: Any) -> Any:
    """A hook for exceptions that Python cannot raise, such as in a finaliser: ours come again later."""

    def again(lost: Any) -> None:
        global _pending
        match lost.exc_value:
            case KeyboardInterrupt():
                _pending = signal.SIGINT
            case SystemExit(code=int(code)) if code > 128:
                _pending = code - 128
            case _:
                hook(lost)
                return
        sys.setprofile(_look)

    return again
