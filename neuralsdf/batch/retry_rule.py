"""
retry_rule.py
-------------
How often a run retries a shape whose process was killed. A process that was killed externally does not
indicate a fault of the mesh.
"""

from __future__ import annotations

from collections import Counter

from .shape_record import Record

#: Maximum number of attempts in one run for a shape whose process is killed externally.
MAX_ATTEMPTS = 3


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
