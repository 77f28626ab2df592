"""
manifest.py
-----------
What a batch run knows of every shape: an SQLite database in the output folder. The driver alone writes it,
with a rollback journal (a write-ahead log does not work on a network file system), so that it is whole
after a crash at any moment; readers see it while a run is under way.

`read_manifest` is for those who only want to know; `Manifest` is the driver's.
"""

from __future__ import annotations

import json
import math
import sqlite3
import time
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args

from ..errors import ManifestError, OutputError
from ..files.atomic_write import whole_file
from ..printable import storable
from .folder import Folder, Shard

SCHEMA_VERSION = 1

#: Marks the database as ours ("nsdf"), see https://sqlite.org/pragma.html#pragma_application_id.
_APPLICATION_ID = 0x6E736466

#: Seconds to wait for another process's lock on the database.
_PATIENCE = 60.0

State = Literal["waiting", "done", "failed"]

#: Why a shape failed: `error`, what is wrong with the mesh; `timeout` and `memory`, it went over a limit;
#: `crash`, it ended the process; `killed`, somebody else ended the process, so it is not the mesh's fault.
Cause = Literal["error", "timeout", "memory", "crash", "killed"]


@dataclass(frozen=True, slots=True)
class Record:
    """What is known of one shape.

    name: unique, the mesh's path within the data set. source: the mesh file. key: SHA-256 (hex) of what the
    result depends on, the file's content and the options. stamp: what the file system says of the source
    as long as nobody changes it. source_bytes, faces: of the mesh file. architecture: of the network, for a
    person. target_met: whether it meets the target error; None without one. model_bytes: of the model file.
    metrics: as `metrics.measure` returns them (model space). seconds: of each stage of `convert.STAGES`;
    of a shape that went over a limit or crashed, the time `lost`. finished: when, in seconds since 1970; None
    for a shape that is waiting. One that failed has a reason, in one line, and its cause.
    """

    name: str
    source: str
    state: State = "waiting"
    cause: Cause | None = None
    reason: str | None = None
    key: str | None = None
    stamp: str | None = None
    source_bytes: int | None = None
    faces: int | None = None
    architecture: str | None = None
    target_met: bool | None = None
    model_bytes: int | None = None
    metrics: dict[str, float] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    finished: float | None = None

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> Record:
        """The record whose fields were written as JSON."""
        return cls(**values | {"warnings": tuple(values["warnings"])})


_COLUMNS = tuple(column.name for column in fields(Record))
_JSON = ("metrics", "seconds", "warnings")


@dataclass(frozen=True)
class Run:
    """What a manifest is of: the data set as it was named, the options that shape a result (a flat JSON
    object), the share of the data set, (i, n) with i from 1, and when the latest run began."""

    dataset: str
    options: dict[str, Any]
    shard: Shard | None = None
    started: float = 0.0


class Counts(NamedTuple):
    """How many shapes there are, how many of them are done, have failed and are waiting.

    missed: those that are done, but miss the target error.
    """

    shapes: int
    done: int
    failed: int
    waiting: int
    missed: int


class Manifest:
    """A manifest in a file; use it as a context manager, or close it."""

    def __init__(self, connection: sqlite3.Connection, path: Path) -> None:
        self._connection, self.path = connection, path

    @classmethod
    def open(cls, path: Path) -> Manifest:
        """The manifest at `path`, to read: nothing is written, but what a crash left half-written is taken
        back. Raises `ManifestError` if it is missing, damaged, too new or something else."""
        if not path.is_file():
            raise ManifestError(path, "does not exist", "make it with neuralsdf batch-convert")
        with _reading(path):
            # "rw", to take back; on a read-only file system SQLite makes it "ro".
            manifest = cls(_connection(path, "rw"), path)
            manifest._connection.execute("PRAGMA query_only = ON")
            manifest._check()
        return manifest

    @classmethod
    def create(cls, path: Path) -> Manifest:
        """The manifest at `path`, to write; made if there is none. Raises as `open`, and `OutputError`."""
        if not path.exists():
            with whole_file(path) as temporary, closing(cls(_connection(temporary, "rwc"), path)) as new:
                new._lay_out()
        with _reading(path):
            manifest = cls(_connection(path, "rw"), path)
            manifest._check()
        return manifest

    def _lay_out(self) -> None:
        """Make the tables."""
        others = ", ".join(f"{column} {_TYPES.get(column, 'TEXT')}" for column in _COLUMNS[1:])
        with self._changes() as connection:
            connection.execute(f"PRAGMA application_id = {_APPLICATION_ID}")
            connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
            connection.execute(f"CREATE TABLE shapes (name TEXT PRIMARY KEY, {others}) WITHOUT ROWID")
            connection.execute(
                "CREATE TABLE run (dataset TEXT, options TEXT, shard TEXT, started REAL, written TEXT)"
            )

    def _check(self) -> None:
        """Raise `ManifestError` for another program's database, and for one of a later version."""
        kind = self._connection.execute("PRAGMA application_id").fetchone()[0]
        version = self._connection.execute("PRAGMA user_version").fetchone()[0]
        if kind != _APPLICATION_ID:
            raise ManifestError(self.path, "is no manifest of a batch run", "choose another folder")
        if version > SCHEMA_VERSION:
            reason = f"is a manifest of version {version}; up to {SCHEMA_VERSION} can be read"
            raise ManifestError(self.path, reason, "install a newer neuralsdf")

    def __enter__(self) -> Manifest:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file."""
        self._connection.close()

    def run(self) -> Run | None:
        """What the manifest is of; None before the first run."""
        with _reading(self.path):
            row = self._connection.execute("SELECT dataset, options, shard, started FROM run").fetchone()
            return None if row is None else _run(*row)

    def counts(self) -> Counts:
        """How far it is."""
        with _reading(self.path):
            rows = self._connection.execute("SELECT state, count(*) FROM shapes GROUP BY state")
            by_state = dict(rows.fetchall())
            query = "SELECT count(*) FROM shapes WHERE state = 'done' AND target_met = 0"
            missed = self._connection.execute(query).fetchone()[0]
        of = {state: by_state.get(state, 0) for state in get_args(State)}
        return Counts(sum(of.values()), of["done"], of["failed"], of["waiting"], missed)

    def records(self, state: State | None = None) -> Iterator[Record]:
        """All shapes, or those of a state, in order of name; one at a time is in memory."""
        where = "" if state is None else "WHERE state = ?"
        query = f"SELECT {', '.join(_COLUMNS)} FROM shapes {where} ORDER BY name"
        with _reading(self.path), closing(self._connection.cursor()) as cursor:
            for row in cursor.execute(query, () if state is None else (state,)):
                yield _record(row)

    def ended_since(self, start: float) -> tuple[int, float]:
        """How many shapes have ended since a time, and when the last of them did."""
        query = "SELECT count(*), coalesce(max(finished), 0) FROM shapes WHERE finished >= ?"
        with _reading(self.path):
            ended, last = self._connection.execute(query, (start,)).fetchone()
        return ended, last

    def begin(self, run: Run, sources: Iterable[tuple[str, str]]) -> int:
        """Note a run over (name, source) pairs; those that were not there are waiting.

        Shapes that are no longer among them are forgotten; returns how many.
        """
        with self._changes() as connection:
            connection.execute("CREATE TEMP TABLE now (name TEXT PRIMARY KEY, source TEXT) WITHOUT ROWID")
            named = ((name, storable(source)) for name, source in sources)
            connection.executemany("INSERT INTO now VALUES (?, ?)", named)
            gone = "DELETE FROM shapes WHERE name NOT IN (SELECT name FROM now)"
            forgotten = connection.execute(gone).rowcount
            connection.execute(
                "INSERT INTO shapes (name, source, state, metrics, seconds, warnings) "
                "SELECT name, source, 'waiting', '{}', '{}', '[]' FROM now WHERE true "
                "ON CONFLICT (name) DO UPDATE SET source = excluded.source"
            )
            connection.execute("DROP TABLE now")
            options, written = connection.execute("SELECT options, written FROM run").fetchone() or (
                None,
                None,
            )
            if options not in (None, json.dumps(run.options)):
                connection.execute("UPDATE shapes SET stamp = NULL")  # so that every key is looked at
            connection.execute("DELETE FROM run")
            shard = None if run.shard is None else json.dumps(run.shard)
            connection.execute(
                "INSERT INTO run VALUES (?, ?, ?, ?, ?)",
                (run.dataset, json.dumps(run.options), shard, time.time(), written),
            )
        return forgotten

    def write(self, records: Iterable[Record]) -> None:
        """Put records in the place of those of the same names, all of them or none."""
        places = ", ".join("?" * len(_COLUMNS))
        with self._changes() as connection:
            connection.executemany(f"INSERT OR REPLACE INTO shapes VALUES ({places})", map(_row, records))

    @property
    def written(self) -> str | None:
        """What the data-set file was made of, as `set_written` was told."""
        with _reading(self.path):
            row = self._connection.execute("SELECT written FROM run").fetchone()
        return None if row is None else row[0]

    def set_written(self, digest: str | None) -> None:
        """Note what the data-set file was made of."""
        with self._changes() as connection:
            connection.execute("UPDATE run SET written = ?", (digest,))

    @contextmanager
    def _changes(self) -> Iterator[sqlite3.Connection]:
        with _writing(self.path), _transaction(self._connection):
            yield self._connection


def read_manifest(out: str | Path) -> Iterator[Record]:
    """What is known of every shape of a batch run's output folder, in order of name, one at a time.

    Works while a run is under way. Raises `ManifestError` for a folder without a manifest.
    """
    with Manifest.open(Folder(Path(out)).manifest()) as manifest:
        yield from manifest.records()


_TYPES = {
    "source_bytes": "INTEGER",
    "faces": "INTEGER",
    "target_met": "INTEGER",
    "model_bytes": "INTEGER",
    "finished": "REAL",
}


def _connection(path: Path, mode: str) -> sqlite3.Connection:
    uri = f"{path.absolute().as_uri()}?mode={mode}"
    return sqlite3.connect(uri, uri=True, timeout=_PATIENCE, isolation_level=None)


def _row(record: Record) -> tuple[Any, ...]:
    values = {name: getattr(record, name) for name in _COLUMNS}
    finite = {name: value if math.isfinite(value) else None for name, value in record.metrics.items()}
    values |= {name: json.dumps(values[name]) for name in _JSON} | {"metrics": json.dumps(finite)}
    return tuple(storable(value) if isinstance(value, str) else value for value in values.values())


def _record(row: tuple[Any, ...]) -> Record:
    """The record of a row; raises `ValueError` for what no run has written."""
    values = dict(zip(_COLUMNS, row, strict=True))
    try:
        values |= {name: json.loads(values[name]) for name in _JSON}
        metrics = {name: math.nan if value is None else value for name, value in values["metrics"].items()}
        met = None if values["target_met"] is None else bool(values["target_met"])
        record = Record(
            **values | {"metrics": metrics, "target_met": met, "warnings": tuple(values["warnings"])}
        )
        is_sound = _is_sound(record)
    except (AttributeError, RecursionError, TypeError) as error:
        raise ValueError("a record in it is damaged") from error
    if not is_sound:
        raise ValueError("a record in it is damaged")
    return record


def _is_sound(record: Record) -> bool:
    """Whether all values of a record are of their types: SQLite keeps any in any column."""
    texts = record.reason, record.key, record.stamp, record.architecture
    counts = record.source_bytes, record.faces, record.model_bytes
    numbers = [*record.metrics.values(), *record.seconds.values(), record.finished]
    return (
        isinstance(record.name, str)
        and isinstance(record.source, str)
        and record.state in get_args(State)
        and record.cause in (None, *get_args(Cause))
        and all(text is None or isinstance(text, str) for text in texts)
        and all(count is None or isinstance(count, int) for count in counts)
        and all(number is None or isinstance(number, int | float) for number in numbers)
        and all(isinstance(warning, str) for warning in record.warnings)
    )


def _run(dataset: Any, options: Any, shard: Any, started: Any) -> Run:
    """The run of a row; raises `ValueError` for what no run has written."""
    try:
        named, share = json.loads(options), None if shard is None else json.loads(shard)
        if isinstance(dataset, str) and isinstance(named, dict):
            if share is None:
                return Run(dataset, named, None, float(started))
            index, count = share
            return Run(dataset, named, (int(index), int(count)), float(started))
    except (RecursionError, TypeError) as error:
        raise ValueError("its account of the run is damaged") from error
    raise ValueError("its account of the run is damaged")


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
        raise ManifestError(path, f"cannot be read ({error})", "move it away to begin anew") from error


@contextmanager
def _writing(path: Path) -> Iterator[None]:
    try:
        yield
    except sqlite3.Error as error:
        raise OutputError(path, f"cannot be written ({error})", "the same command continues later") from error
