"""
manifest_v1.py
--------------
Reads manifests of version 1. Their only job was `convert`, and its columns were columns of the table.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Generator
from contextlib import closing
from typing import Any

from .shape_record import Record

JOB = "convert"

Records = Generator[Record, None, None]

_SAME = "name", "source", "state", "cause", "reason", "key", "stamp", "source_bytes", "finished"
_OTHER = "faces", "architecture", "target_met", "model_bytes", "metrics", "seconds", "warnings"


def read(connection: sqlite3.Connection, where: str, values: tuple[str, ...]) -> Records:
    """Iterate over the records of a manifest, in order of name; where: a WHERE clause.

    Raises `ValueError` or `TypeError` for invalid values.
    """
    query = f"SELECT {', '.join(_SAME + _OTHER)} FROM shapes {where} ORDER BY name"
    with closing(connection.cursor()) as cursor:
        for row in cursor.execute(query, values):
            same, other = row[: len(_SAME)], dict(zip(_OTHER, row[len(_SAME) :], strict=True))
            yield _record(dict(zip(_SAME, same, strict=True)), **other)


def _record(
    same: dict[str, Any],
    *,
    faces: Any,
    architecture: Any,
    target_met: Any,
    model_bytes: Any,
    metrics: str,
    seconds: str,
    warnings: str,
) -> Record:
    free = {"faces": faces, "architecture": architecture}
    free = {name: value for name, value in free.items() if value is not None}
    numbers = {
        name: float("nan") if value is None else value for name, value in dict(json.loads(metrics)).items()
    }
    return Record(
        **same,
        result_bytes=model_bytes,
        target_met=None if target_met is None else bool(target_met),
        columns=free | numbers,
        seconds=dict(json.loads(seconds)),
        warnings=tuple(json.loads(warnings)),
    )
