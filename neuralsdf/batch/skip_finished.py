"""
skip_finished.py
----------------
Which shapes a resumed run skips: those with a valid result, and those whose mesh and options are the same as
when they failed.

A shape that failed because of its mesh would fail again. So it is processed again only if the mesh or the
options change, or if the user requests it.
"""

from __future__ import annotations

import time
from pathlib import Path

from .job import Job
from .shape_record import Record

#: Seconds after a change during which another change may result in the same file times.
_RECENT_SECONDS = 2.0


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
