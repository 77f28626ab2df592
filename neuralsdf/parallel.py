"""
parallel.py
-----------
How many threads this process may use. One number for all of it: the backends, libigl and the
blocks of points that are evaluated side by side. Results never depend on it.
"""

from __future__ import annotations

import os

from .errors import UsageError

_threads: int | None = None


def available_cores() -> int:
    """Cores this process may run on (its CPU affinity, not the machine's count)."""
    if hasattr(os, "sched_getaffinity"):
        return max(1, len(os.sched_getaffinity(0)))
    return os.cpu_count() or 1


def threads() -> int:
    """Threads in use: what `set_threads` said, or all cores available."""
    return _threads if _threads is not None else available_cores()


def set_threads(count: int | None) -> None:
    """Use `count` threads from now on; None means all available cores.

    libigl reads its own limit once, when it first runs, so call this before any distance query.
    Raises `UsageError` for a count below one.
    """
    global _threads
    if count is not None and count < 1:
        raise UsageError(f"--threads {count}: at least one thread is needed")
    _threads = count
    os.environ["IGL_NUM_THREADS"] = str(threads())
