"""
limits.py
---------
What a shape may use before it is given up: time and memory, and how machines' memory is divided.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Limits:
    """What a shape may use: seconds, and bytes of resident memory; infinite for no limit.

    Resident memory, not address space: that is what a machine runs out of, while a GPU driver or torch
    reserve many gigabytes of addresses that they never touch.
    """

    timeout: float
    max_memory: float


def share_of_memory(workers: int) -> float:
    """Bytes of memory for each worker, so that all of them fit into the machine's memory together."""
    return 0.8 * machine_memory() / workers


def machine_memory() -> int:
    """Bytes of memory that the processes of this machine, or of this container, may use together."""
    machine = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    limits = [Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory/memory.limit_in_bytes")]
    texts = [path.read_text().strip() for path in limits if path.is_file()]
    return min([machine, *(int(text) for text in texts if text.isdecimal())])


def resident_memory(process: int | None) -> int:
    """Bytes of memory that a process uses; 0 if it has just ended."""
    try:
        pages = Path(f"/proc/{process}/statm").read_text().split()[1]
    except OSError:
        return 0
    return int(pages) * os.sysconf("SC_PAGE_SIZE")
