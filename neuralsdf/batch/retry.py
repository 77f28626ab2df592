"""
retry.py
--------
The retry rule: which shapes a run does again, and how often one whose process is killed.

A shape that failed because of its mesh would fail again, so it waits until the mesh or the options change, or
until the user asks for it. A process that was killed from outside says nothing about its mesh.
"""

from __future__ import annotations

import time
from collections import Counter
from pathlib import Path

from .job import Job
from .record import Record

#: How often a run tries a shape whose process is killed from outside.
MAX_ATTEMPTS = 3

#: Seconds after a change during which another change may leave the same times behind.
_RECENT = 2.0


class Attempts:
    """How often the processes of shapes were killed in this run."""

    def __init__(self) -> None:
        self._killed: Counter[str] = Counter()

    def again(self, record: Record) -> bool:
        """Whether this run tries a shape again that ended like this."""
        if record.cause != "killed":
            return False
        self._killed[record.name] += 1
        return self._killed[record.name] < MAX_ATTEMPTS


def is_settled(record: Record, job: Job, result: Path, *, retry_failed: bool) -> bool:
    """Whether an earlier result can stay while the mesh and the options are the same."""
    if job.judge(record).state == "done":
        return result.is_file() and result.stat().st_size == record.result_bytes
    return record.state == "failed" and record.cause != "killed" and not retry_failed


def file_stamp(path: Path) -> tuple[str, int | None]:
    """A stamp that changes whenever a file does, and its size; "" where no stamp can be trusted."""
    try:
        status = path.stat()
    except (OSError, ValueError):
        return "", None
    size = status.st_size
    # ctime, the last change of the file's data or status, cannot be set back by a program.
    if path.suffix.lower() in (".gltf", ".glb") or time.time() - status.st_ctime < _RECENT:
        return "", size  # a glTF may refer to other files
    return f"{size} {status.st_mtime_ns} {status.st_ctime_ns} {status.st_ino}", size
