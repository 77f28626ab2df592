"""
perform_task.py
---------------
Performs a task of any job in a worker: compute the key of the mesh, perform the job, move the result into
place.
"""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from ..errors import FileError, MeshError, NeuralSDFError, OutputError
from ..mesh.load_mesh import content_hash
from .job import ChangedError, Job, Task
from .shape_record import Cause, Record
from .worker_main import Channel


class TaskWork:
    """Implements `Work`: performs tasks of a job.

    A message has a `task` and the names of shapes to `forget`.
    """

    def __init__(self, job: Job) -> None:
        self._job = job

    def perform(self, message: dict[str, Any], channel: Channel) -> dict[str, Any]:
        """Perform a task; the answer has its `record` and the bytes of each cached shape (`kept`)."""
        self._job.forget(message.get("forget", []))
        task = Task.from_json(message["task"])
        record = perform(task, self._job, on_key=lambda key: channel.send(key=key))
        return {"record": asdict(record), "kept": self._job.kept}


def perform(task: Task, job: Job, on_key: Callable[[str], None]) -> Record:
    """Perform a task; returns the record. A settled result is reused if the mesh still has its key.

    If the shape has more stages, the state of the record is "waiting". on_key: called with the key before the
    job starts, so that the driver knows it even if the mesh crashes the process. Raises `OutputError` if the
    output folder cannot be written.
    """
    record, began = task.record, time.perf_counter()
    before = sum(record.seconds.values()) if task.begun else 0.0

    def failed(cause: Cause, reason: str) -> Record:
        return record.failed(cause, reason, {"lost": before + time.perf_counter() - began})

    try:
        if task.begun:
            on_key(record.key or "")
        else:
            key = job.key(content_hash(record.source))
            on_key(key)
            if task.settled and key == record.key:
                return record
            record = replace(record.cleared(), key=key)
            _remove(Path(task.result), record.source)  # the result of an older mesh or of other options
        made = job.perform(replace(task, record=record))
        if made.state != "done":
            return made
        size = _publish(Path(task.draft), Path(task.result), record.source)
        return replace(made, result_bytes=size, finished=time.time())
    except OutputError as error:
        remedy = "fix this, then run the same command again"
        raise OutputError(task.result, error.reason, remedy) from error
    except MemoryError:
        return failed("memory", "not enough memory")
    except ChangedError as error:
        record = replace(record, key=None, stamp=None)  # so that the next run checks it again
        return failed("error", f"{error.reason}; {error.remedy}")
    except FileError as error:
        return failed("error", f"{error.reason}; {error.remedy}" if error.remedy else error.reason)
    except NeuralSDFError as error:
        return failed("error", str(error))
    except Exception as error:
        return failed("error", f"{type(error).__name__}: {error}; this is a bug")


def _remove(result: Path, source: str) -> None:
    try:
        result.unlink(missing_ok=True)
    except OSError as error:
        raise _not_written(result, source, error) from error


def _publish(draft: Path, result: Path, source: str) -> int:
    """Flush a draft to disk and move it into place atomically; returns its size in bytes."""
    with draft.open("rb") as stream:
        os.fsync(stream.fileno())
    try:
        result.parent.mkdir(parents=True, exist_ok=True)
        draft.replace(result)
        return result.stat().st_size
    except OSError as error:
        raise _not_written(result, source, error) from error


def _not_written(result: Path, source: str, error: OSError) -> FileError:
    """The error for an unwritable result: `MeshError` if its name is invalid, else `OutputError`."""
    if error.errno in (errno.ENAMETOOLONG, errno.EISDIR, errno.ENOTDIR, errno.EEXIST):
        return MeshError(source, f"its result cannot be written as {result} ({error.strerror})", "rename it")
    remedy = "run the same command again later"
    return OutputError(result, f"could not be written ({error.strerror})", remedy)
