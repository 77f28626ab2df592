"""
manifest.py
-----------
The records of all shapes of a batch run: an SQLite database in the output folder. Only the driver writes it.
It uses a rollback journal, so that the database is consistent after a crash at any time (a write-ahead log
does not work on network file systems). Other processes can read it during a run.

`read_manifest` is for other processes; `Manifest` is for the driver.
"""

from __future__ import annotations

import json
import math
import sqlite3
import time
from collections.abc import Generator, Iterable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, NamedTuple, get_args

from ..errors import ManifestError, OutputError
from ..files.atomic_write import whole_file
from ..printable_text import storable
from . import manifest_v1
from .output_folder import Folder, Shard
from .shape_record import Record, State

SCHEMA_VERSION = 2

#: Identifies the database as a manifest ("nsdf"), see https://sqlite.org/pragma.html#pragma_application_id.
_APPLICATION_ID = 0x6E736466

#: Maximum seconds to wait for another process's lock on the database.
_WAIT_SECONDS = 60.0
#: Upper limit of valid times in seconds since 1970: about the year 9999.
_LAST_TIME = 253_000_000_000

Records = Generator[Record, None, None]

_COLUMNS = tuple(column.name for column in fields(Record))
_JSON = ("columns", "seconds", "warnings")


@dataclass(frozen=True)
class Run:
    """A run.

    job: name of the job. dataset: the data set as the user gave it. options: the job's options as JSON
    values. shard: part (i, n) of the data set, i from 1. started: start of the latest run in seconds since
    1970.
    """

    job: str
    dataset: str
    options: dict[str, Any]
    shard: Shard | None = None
    started: float = 0.0


class Counts(NamedTuple):
    """Number of all shapes, and of those that are done, have failed and are waiting.

    missed: shapes that are done but miss the job's target.
    """

    shapes: int
    done: int
    failed: int
    waiting: int
    missed: int


class Manifest:
    """A manifest in a file. Use it as a context manager, or call `close`."""

    def __init__(self, connection: sqlite3.Connection, path: Path) -> None:
        self._connection, self.path = connection, path

    @classmethod
    def open(cls, path: Path) -> Manifest:
        """Open the manifest at `path` for reading.

        Nothing is written, except that a transaction that a crash has left unfinished is rolled back. Raises
        `ManifestError` if the file is missing, damaged, of a newer version or not a manifest.
        """
        if not path.is_file():
            raise ManifestError(path, "does not exist", "give the output folder of a batch run")
        with _reading(path):
            # "rw", so that SQLite can roll back; on a read-only file system it falls back to "ro".
            manifest = cls(_connection(path, "rw"), path)
            manifest._connection.execute("PRAGMA query_only = ON")
            manifest._check()
        return manifest

    @classmethod
    def create(cls, path: Path) -> Manifest:
        """Open the manifest at `path` for writing. It is created if missing, and converted from version 1.

        Raises as `open` does, and `OutputError` if it cannot be written.
        """
        if not path.exists():
            with whole_file(path) as temporary, closing(cls(_connection(temporary, "rwc"), path)) as new:
                new._create_tables()
        with _reading(path):
            manifest = cls(_connection(path, "rw"), path)
            manifest._check()
            if manifest._version() == 1:
                manifest._convert_v1()
        return manifest

    def _create_tables(self) -> None:
        with self._changes() as connection:
            connection.execute(f"PRAGMA application_id = {_APPLICATION_ID}")
            connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
            connection.execute(_SHAPES)
            connection.execute(_RUN)

    def _convert_v1(self) -> None:
        """Convert the tables from version 1 to the current version."""
        with self._changes() as connection:
            records = list(self.records())
            connection.execute("DROP TABLE shapes")
            connection.execute(_SHAPES)
            self._insert(records)
            connection.execute(f"ALTER TABLE run ADD COLUMN job TEXT DEFAULT '{manifest_v1.JOB}'")
            connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")

    def _version(self) -> int:
        version: int = self._connection.execute("PRAGMA user_version").fetchone()[0]
        return version

    def _check(self) -> None:
        """Raise `ManifestError` if the database is of another program or of a later version."""
        kind = self._connection.execute("PRAGMA application_id").fetchone()[0]
        version = self._version()
        if kind != _APPLICATION_ID:
            raise ManifestError(self.path, "not the manifest of a batch run", "choose another folder")
        if not 1 <= version <= SCHEMA_VERSION:
            reason = f"is a manifest of version {version}; only versions up to {SCHEMA_VERSION} are supported"
            raise ManifestError(self.path, reason, "install a newer neuralsdf")

    def __enter__(self) -> Manifest:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file."""
        self._connection.close()

    def run(self) -> Run | None:
        """The latest run; None if there is none yet."""
        with _reading(self.path):
            job = f"'{manifest_v1.JOB}'" if self._version() == 1 else "job"
            query = f"SELECT {job}, dataset, options, shard, started FROM run"
            row = self._connection.execute(query).fetchone()
            return None if row is None else _run(*row)

    def counts(self) -> Counts:
        """The number of shapes in each state."""
        with _reading(self.path):
            rows = self._connection.execute("SELECT state, count(*) FROM shapes GROUP BY state")
            by_state = dict(rows.fetchall())
            query = "SELECT count(*) FROM shapes WHERE state = 'done' AND target_met = 0"
            missed = self._connection.execute(query).fetchone()[0]
        of = {state: by_state.get(state, 0) for state in get_args(State)}
        return Counts(sum(of.values()), of["done"], of["failed"], of["waiting"], missed)

    def records(self, state: State | None = None) -> Iterator[Record]:
        """Iterate over all shapes, or those in a state, in order of name. They are read one at a time."""
        where, values = ("", ()) if state is None else ("WHERE state = ?", (state,))
        with _reading(self.path):
            read = manifest_v1.read if self._version() == 1 else _read
            with closing(read(self._connection, where, values)) as records:
                yield from _validated(records)

    def ended_since(self, start: float) -> tuple[int, float]:
        """Number of shapes that have ended since `start`, and the time at which the last of them ended."""
        query = "SELECT count(*), coalesce(max(finished), 0) FROM shapes WHERE finished >= ?"
        with _reading(self.path):
            ended, last = self._connection.execute(query, (start,)).fetchone()
            if not isinstance(last, int | float):  # SQLite allows text in any column, and sorts it last
                raise ValueError("damaged record")
        return ended, last

    def begin(self, run: Run, sources: Iterable[tuple[str, str]]) -> int:
        """Store a run over (name, source) pairs. New shapes get the state "waiting".

        Shapes that are not in `sources` are removed; returns their number.
        """
        with self._changes() as connection:
            connection.execute("CREATE TEMP TABLE now (name TEXT PRIMARY KEY, source TEXT) WITHOUT ROWID")
            named = ((name, storable(source)) for name, source in sources)
            connection.executemany("INSERT INTO now VALUES (?, ?)", named)
            gone = "DELETE FROM shapes WHERE name NOT IN (SELECT name FROM now)"
            removed = connection.execute(gone).rowcount
            connection.execute(
                "INSERT INTO shapes (name, source, state, columns, seconds, warnings) "
                "SELECT name, source, 'waiting', '{}', '{}', '[]' FROM now WHERE true "
                "ON CONFLICT (name) DO UPDATE SET source = excluded.source"
            )
            connection.execute("DROP TABLE now")
            before = connection.execute("SELECT job, options, written FROM run").fetchone()
            job, options, written = before or (None, None, None)
            if before is not None and (job, options) != (run.job, json.dumps(run.options)):
                connection.execute("UPDATE shapes SET stamp = NULL")  # forces a comparison of all keys
            connection.execute("DELETE FROM run")
            shard = None if run.shard is None else json.dumps(run.shard)
            connection.execute(
                "INSERT INTO run (job, dataset, options, shard, started, written) VALUES (?, ?, ?, ?, ?, ?)",
                (run.job, run.dataset, json.dumps(run.options), shard, time.time(), written),
            )
        return removed

    def write(self, records: Iterable[Record]) -> None:
        """Replace the records of the same names, in one transaction."""
        with self._changes():
            self._insert(records)

    def _insert(self, records: Iterable[Record]) -> None:
        places = ", ".join("?" * len(_COLUMNS))
        insert = f"INSERT OR REPLACE INTO shapes ({', '.join(_COLUMNS)}) VALUES ({places})"
        self._connection.executemany(insert, map(_row, records))

    @property
    def written(self) -> str | None:
        """The hash that `set_written` has stored; None if there is none."""
        with _reading(self.path):
            row = self._connection.execute("SELECT written FROM run").fetchone()
        return None if row is None else row[0]

    def set_written(self, digest: str | None) -> None:
        """Store a hash of the results that the files of `Job.finish` contain."""
        with self._changes() as connection:
            connection.execute("UPDATE run SET written = ?", (digest,))

    @contextmanager
    def _changes(self) -> Iterator[sqlite3.Connection]:
        with _writing(self.path), _transaction(self._connection):
            yield self._connection


def read_manifest(out: str | Path) -> Iterator[Record]:
    """Iterate over the records in the output folder of a batch run, in order of name.

    This also works during a run. Raises `ManifestError` for a folder without a manifest.
    """
    with Manifest.open(Folder(Path(out)).manifest()) as manifest:
        yield from manifest.records()


_TYPES = {"source_bytes": "INTEGER", "result_bytes": "INTEGER", "target_met": "INTEGER", "finished": "REAL"}
_SHAPES = (
    "CREATE TABLE shapes (name TEXT PRIMARY KEY, "
    + ", ".join(f"{column} {_TYPES.get(column, 'TEXT')}" for column in _COLUMNS[1:])
    + ") WITHOUT ROWID"
)
_RUN = "CREATE TABLE run (job TEXT, dataset TEXT, options TEXT, shard TEXT, started REAL, written TEXT)"


def _connection(path: Path, mode: str) -> sqlite3.Connection:
    uri = f"{path.absolute().as_uri()}?mode={mode}"
    return sqlite3.connect(uri, uri=True, timeout=_WAIT_SECONDS, isolation_level=None)


def _row(record: Record) -> tuple[Any, ...]:
    values = {name: getattr(record, name) for name in _COLUMNS}
    columns = {
        name: None if isinstance(value, float) and not math.isfinite(value) else value  # JSON has no NaN
        for name, value in record.columns.items()
    }
    values |= {name: json.dumps(values[name]) for name in _JSON} | {"columns": json.dumps(columns)}
    return tuple(storable(value) if isinstance(value, str) else value for value in values.values())


def _read(connection: sqlite3.Connection, where: str, values: tuple[str, ...]) -> Records:
    query = f"SELECT {', '.join(_COLUMNS)} FROM shapes {where} ORDER BY name"
    with closing(connection.cursor()) as cursor:
        for row in cursor.execute(query, values):
            yield _record(row)


def _record(row: tuple[Any, ...]) -> Record:
    """The record of a row. Raises `ValueError` or `TypeError` for invalid values."""
    values = dict(zip(_COLUMNS, row, strict=True))
    values |= {name: json.loads(values[name]) for name in _JSON}
    columns = {name: math.nan if value is None else value for name, value in dict(values["columns"]).items()}
    met = None if values["target_met"] is None else bool(values["target_met"])
    found = {"columns": columns, "target_met": met, "warnings": tuple(values["warnings"])}
    return Record(**values | found)


def _validated(records: Iterator[Record]) -> Iterator[Record]:
    """Iterate over records. Raises `ValueError` for invalid ones."""
    try:
        for record in records:
            if not record.has_valid_types:
                raise ValueError("damaged record")
            yield record
    except (AttributeError, RecursionError, TypeError) as error:
        raise ValueError("damaged record") from error


def _run(job: Any, dataset: Any, options: Any, shard: Any, started: Any) -> Run:
    """The run of a row. Raises `ValueError` for invalid values."""
    try:
        named, share = json.loads(options), None if shard is None else json.loads(shard)
        began = float(started)
        texts_sound = isinstance(job, str) and isinstance(dataset, str)
        if texts_sound and isinstance(named, dict) and 0 <= began < _LAST_TIME:
            if share is None:
                return Run(job, dataset, named, None, began)
            index, count = share
            return Run(job, dataset, named, (int(index), int(count)), began)
    except (RecursionError, TypeError) as error:
        raise ValueError("damaged entry of the run") from error
    raise ValueError("damaged entry of the run")


@contextmanager
def _transaction(connection: sqlite3.Connection) -> Iterator[None]:
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
        connection.execute("COMMIT")
    finally:
        if connection.in_transaction:
            connection.execute("ROLLBACK")


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    try:
        yield
    except (sqlite3.Error, ValueError) as error:
        raise ManifestError(path, f"cannot be read ({error})", "move it away to start over") from error


@contextmanager
def _writing(path: Path) -> Iterator[None]:
    try:
        yield
    except sqlite3.Error as error:
        raise OutputError(path, f"cannot be written ({error})", "run the same command again later") from error
