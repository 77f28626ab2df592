"""
thread_count.py
---------------
Number of threads this process may use: one setting for the backends, libigl, and blocks of points
evaluated in parallel. Results do not depend on it.
"""

from __future__ import annotations

import operator
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from threading import local
from typing import TypeVar

from .errors import UsageError

Item = TypeVar("Item")
Result = TypeVar("Result")

_threads: int | None = None
_side_by_side = local()


def available_cores() -> int:
    """Number of cores this process may run on (its CPU affinity, not the machine's core count)."""
    if hasattr(os, "sched_getaffinity"):
        return max(1, len(os.sched_getaffinity(0)))
    return os.cpu_count() or 1


def threads() -> int:
    """Threads in use: the value of `set_threads`, else all available cores; 1 within `side_by_side`."""
    if getattr(_side_by_side, "others", False):
        return 1
    return _threads if _threads is not None else available_cores()


def set_threads(count: int | None) -> None:
    """Use `count` threads from now on; None means all available cores.

    libigl reads its own limit once, at its first call, so call this before any distance query.
    Raises `UsageError` if `count` is below 1, `TypeError` if it is not a whole number.
    """
    global _threads
    count = None if count is None else operator.index(count)
    if count is not None and count < 1:
        raise UsageError(f"{count} threads: at least one thread is needed")
    _threads = count
    os.environ["IGL_NUM_THREADS"] = str(threads())


def side_by_side(work: Callable[[Item], Result], items: Sequence[Item]) -> Iterator[Result]:
    """Yield `work(item)` for each item, in order, computed on `threads()` threads.

    Meant for sequences of NumPy operations, each of which keeps one core busy. Exceptions propagate.
    """
    workers = min(threads(), len(items))
    if workers <= 1:
        yield from map(work, items)
        return
    with ThreadPoolExecutor(workers, initializer=lambda: setattr(_side_by_side, "others", True)) as pool:
        try:
            yield from pool.map(work, items)
        except BaseException:  # on Ctrl-C too: cancel the items that have not started
            pool.shutdown(wait=False, cancel_futures=True)
            raise
