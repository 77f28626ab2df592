"""
retry.py
--------
The retry rules: which shapes a run processes again, and how often it retries one whose process was killed.

A shape that failed because of its mesh would fail again. So it is retried only if the mesh or the
options change, or if the user requests it. A process that was killed externally does not
indicate a fault of the mesh.
"""

from __future__ import annotations

import time
from collections import Counter
from pathlib import Path

from .job import Job
from .record import Record

#: Maximum number of attempts in one run for a shape whose process is killed externally.
MAX_ATTEMPTS = 3

#: Seconds after a change during which another change may result in the same file times.
_RECENT_SECONDS = 2.0


class Attempts:
    """Counts how often the process of each shape was killed in this run."""

    def __init__(self) -> None:
        self._killed: Counter[str] = Counter()

    def again(self, record: Record) -> bool:
        """Whether to retry a shape that ended with this record."""
        if record.cause != "killed":
            return False
        self._killed[record.name] += 1
        return self._killed[record.name] < MAX_ATTEMPTS


def is_settled(record: Record, job: Job, result: Path, *, retry_failed: bool) -> bool:
    """Whether an earlier result is valid if the mesh and the options have not changed."""
    if job.judge(record).state == "done":
        return result.is_file() and result.stat().st_size == record.result_bytes
    return record.state == "failed" and record.cause != "killed" and not retry_failed


def file_stamp(path: Path) -> tuple[str, int | None]:
    """A stamp that changes whenever a file does, and its size in bytes; "" if no stamp is reliable."""
    try:
        status = path.stat()
    except (OSError, ValueError):
        return "", None
    size = status.st_size
    # Programs cannot set ctime, the time of the last change of the file's data or metadata.
    if path.suffix.lower() in (".gltf", ".glb") or time.time() - status.st_ctime < _RECENT_SECONDS:
        return "", size  # a glTF may refer to other files
    return f"{size} {status.st_mtime_ns} {status.st_ctime_ns} {status.st_ino}", size
