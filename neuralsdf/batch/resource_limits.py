"""
resource_limits.py
------------------
Limits on time and memory per shape, and the division of a machine's memory among workers.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Limits:
    """Limits for one shape: seconds, and bytes of resident memory; infinite for no limit.

    Address space is not limited, because GPU drivers and torch reserve many gigabytes of it that they never
    use.
    """

    timeout: float
    max_memory: float


def memory_per_worker(workers: int) -> float:
    """Memory limit per worker in bytes: 80 % of the machine's memory, divided equally."""
    return 0.8 * machine_memory() / workers


def machine_memory() -> int:
    """Bytes of memory of this machine, or the limit of this container if that is lower."""
    machine = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    limits = [Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory/memory.limit_in_bytes")]
    texts = [path.read_text().strip() for path in limits if path.is_file()]
    return min([machine, *(int(text) for text in texts if text.isdecimal())])


def resident_memory(process: int | None) -> int:
    """Bytes of resident memory of a process; 0 if it has ended."""
    try:
        pages = Path(f"/proc/{process}/statm").read_text().split()[1]
    except OSError:
        return 0
    return int(pages) * os.sysconf("SC_PAGE_SIZE")
