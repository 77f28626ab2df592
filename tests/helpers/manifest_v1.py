"""Writes a manifest as version 1 did, whose only job was `convert`."""

from __future__ import annotations

import json
import math
import sqlite3
from collections.abc import Iterable
from contextlib import closing
from pathlib import Path

from neuralsdf.batch.manifest import Manifest, Run
from neuralsdf.batch.shape_record import Record

TABLES = """
PRAGMA application_id = 1853056102;
PRAGMA user_version = 1;
CREATE TABLE shapes (name TEXT PRIMARY KEY, source TEXT, state TEXT, cause TEXT, reason TEXT, key TEXT, stamp TEXT,
    source_bytes INTEGER, faces INTEGER, architecture TEXT, target_met INTEGER, model_bytes INTEGER, metrics TEXT,
    seconds TEXT, warnings TEXT, finished REAL) WITHOUT ROWID;
CREATE TABLE run (dataset TEXT, options TEXT, shard TEXT, started REAL, written TEXT);
"""  # noqa: E501


def write(path: Path, run: Run, records: Iterable[Record], written: str | None = None) -> None:
    """Write a manifest of version 1."""
    path.unlink(missing_ok=True)
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.executescript(TABLES)
        shard = None if run.shard is None else json.dumps(run.shard)
        row = run.dataset, json.dumps(run.options), shard, run.started, written
        connection.execute("INSERT INTO run VALUES (?, ?, ?, ?, ?)", row)
        places = ", ".join("?" * 16)
        connection.executemany(f"INSERT INTO shapes VALUES ({places})", map(_row, records))


def rewrite(path: Path) -> None:
    """Replace a manifest by one of version 1 with the same content."""
    with Manifest.open(path) as manifest:
        run, records, written = manifest.run(), list(manifest.records()), manifest.written
    assert run is not None
    write(path, run, records, written)


def _row(record: Record) -> tuple[object, ...]:
    metrics = {
        name: None if isinstance(value, float) and not math.isfinite(value) else value
        for name, value in record.columns.items()
        if name not in ("faces", "architecture")
    }
    return (
        record.name,
        record.source,
        record.state,
        record.cause,
        record.reason,
        record.key,
        record.stamp,
        record.source_bytes,
        record.columns.get("faces"),
        record.columns.get("architecture"),
        record.target_met,
        record.result_bytes,
        json.dumps(metrics),
        json.dumps(record.seconds),
        json.dumps(record.warnings),
        record.finished,
    )
