"""
tasks.py
--------
Work whose results are kept. A task is a frozen dataclass: its fields are its configuration, and its result is
a JSON file named by their hash, so a benchmark that was stopped continues. Tasks run in single-thread
processes, two at a time.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Iterable
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import Any

from neuralsdf.files.atomic_write import make_folder, whole_file
from neuralsdf.thread_count import set_threads

Result = dict[str, Any]

#: Increment it when tasks measure something else: results of other versions are not used.
VERSION = 1

#: Tasks that run at a time.
WORKERS = 2


@dataclass(frozen=True)
class Task(ABC):
    """Something to compute in a work folder. Fields are JSON, or other tasks and such dataclasses."""

    @property
    def key(self) -> str:
        """A name that no other configuration has."""
        text = json.dumps([VERSION, asdict(self)], sort_keys=True)
        return f"{type(self).__name__.lower()}-{sha256(text.encode()).hexdigest()[:16]}"

    @property
    def label(self) -> str:
        """What the progress line says."""
        return type(self).__name__.lower()

    @property
    @abstractmethod
    def estimate(self) -> float:
        """Seconds of one core that it is expected to take."""

    @abstractmethod
    def perform(self, work: Path) -> Result:
        """Compute the result."""

    def path(self, work: Path) -> Path:
        """The file of the result."""
        return work / "results" / f"{self.key}.json"

    def result(self, work: Path) -> Result:
        """The stored result."""
        result: Result = json.loads(self.path(work).read_text())
        return result


def unfinished(work: Path, tasks: Iterable[Task]) -> list[Task]:
    """The tasks without a result, each once."""
    return [task for task in dict.fromkeys(tasks) if not task.path(work).exists()]


def perform_all(work: Path, tasks: Iterable[Task], workers: int = WORKERS) -> None:
    """Perform the tasks that have no result yet, the longest first; says on stderr what is done."""
    waiting = sorted(unfinished(work, tasks), key=lambda task: -task.estimate)
    if not waiting:
        return
    make_folder(work / "results")
    os.environ.update(OMP_NUM_THREADS="1", MKL_NUM_THREADS="1")  # for the processes that begin now
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, context, initializer=partial(set_threads, 1)) as pool:
        futures = {pool.submit(_perform, work, task): task for task in waiting}
        try:
            for done, future in enumerate(as_completed(futures), 1):
                seconds = future.result()
                task = futures[future]
                print(f"[{done}/{len(waiting)}] {task.label}: {seconds:.0f} s", file=sys.stderr, flush=True)
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


def _perform(work: Path, task: Task) -> float:
    began = time.perf_counter()
    result = task.perform(work)
    with whole_file(task.path(work)) as temporary:
        temporary.write_text(json.dumps(result, indent=1))
    return time.perf_counter() - began
