"""
signals.py
----------
Handles Ctrl-C, SIGTERM and SIGHUP: unwinds the stack, so that temporary files are removed, and exits with
128 + the signal number, without a traceback.

This module imports nothing heavy, since handlers are installed before click is imported.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

INTERRUPTED = 128 + signal.SIGINT  # exit code that shells report after Ctrl-C

#: File name of import frames in a stack.
_IMPORTING = "<frozen importlib._bootstrap>"

_pending: int | None = None


@contextmanager
def handled(*, last: bool = False) -> Iterator[None]:
    """Handle signals within the block. last: the process ends after it, so signals get the default action.

    Does nothing outside the main thread, and keeps handlers installed by others. Ignored signals stay
    ignored: `nohup` ignores SIGHUP, and shells ignore Ctrl-C for background jobs.
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
    """Raise the exception that ends the command, after any running import; a second signal exits at once.

    An exception raised here while a C++ module is imported does not propagate: the import reports another
    error, or aborts the process.
    """
    global _pending
    if _pending is not None:
        os._exit(128 + number)
    _pending = number
    if _imports(frame):
        sys.setprofile(_raise_after_import)
    else:
        _raise()


def _raise_after_import(frame: FrameType, event: str, argument: object) -> None:
    """Profile function (called at each call and return): raise the pending exception outside of imports."""
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
    """Whether a frame is inside the import of a module."""
    while frame is not None:
        if frame.f_code.co_filename == _IMPORTING:
            return True
        frame = frame.f_back
    return False


def _lost(hook: Any) -> Any:
    """Hook for unraisable exceptions, such as in a finaliser: raises those of signals again later."""

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
        sys.setprofile(_raise_after_import)

    return again
