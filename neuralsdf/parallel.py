"""
parallel.py
-----------
How many threads this process may use. One number for all of it: the backends, libigl and the
blocks of points that are evaluated side by side. Results never depend on it.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from threading import local
from typing import TypeVar

from .errors import UsageError

Item = TypeVar("Item")
Result = TypeVar("Result")

_threads: int | None = None
_beside = local()


def available_cores() -> int:
    """Cores this process may run on (its CPU affinity, not the machine's count)."""
    if hasattr(os, "sched_getaffinity"):
        return max(1, len(os.sched_getaffinity(0)))
    return os.cpu_count() or 1


def threads() -> int:
    """Threads in use: what `set_threads` said, or all cores available; one within `side_by_side`."""
    if getattr(_beside, "others", False):
        return 1
    return _threads if _threads is not None else available_cores()


def set_threads(count: int | None) -> None:
    """Use `count` threads from now on; None means all available cores.

    libigl reads its own limit once, when it first runs, so call this before any distance query.
    Raises `UsageError` for a count below one.
    """
    global _threads
    if count is not None and count < 1:
        raise UsageError(f"{count} threads: at least one thread is needed")
    _threads = count
    os.environ["IGL_NUM_THREADS"] = str(threads())


def side_by_side(work: Callable[[Item], Result], items: Sequence[Item]) -> Iterator[Result]:
    """`work(item)` of each item, in order, on as many threads as are in use.

    For work of many numpy operations, of which each alone keeps one core busy. What it raises is raised here.
    """
    beside = min(threads(), len(items))
    if beside <= 1:
        yield from map(work, items)
        return
    with ThreadPoolExecutor(beside, initializer=lambda: setattr(_beside, "others", True)) as pool:
        try:
            yield from pool.map(work, items)
        except BaseException:  # Ctrl-C, too, leaves what has not begun
            pool.shutdown(wait=False, cancel_futures=True)
            raise
