"""The manifest of a batch, and the lock beside it."""

from __future__ import annotations

import math
import os
import shutil
import sqlite3
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from neuralsdf.batch.manifest import SCHEMA_VERSION, Counts, Manifest, Run, read_manifest
from neuralsdf.batch.output_folder import Folder
from neuralsdf.batch.shape_record import Record
from neuralsdf.errors import ManifestError, OutputError

from ..helpers import manifest_v1

RUN = Run("convert", "meshes", {"samples": 1000, "density": {"beta": 120.0}})
DONE = Record(
    "a/b.obj",
    "/meshes/a/b.obj",
    "done",
    key="0" * 64,
    stamp="1 2 3 4",
    source_bytes=100,
    result_bytes=1000,
    target_met=False,
    columns={
        "faces": 12,
        "architecture": "2x8 relu",
        "closed": True,
        "loss": 0.25,
        "hausdorff": math.inf,
        "iou": math.nan,
    },
    seconds={"load": 0.5},
    warnings=("open: 3 boundary edges",),
    finished=1e9,
)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return Folder(tmp_path).manifest()


def begin(path: Path, *names: str, run: Run = RUN) -> int:
    with Manifest.create(path) as manifest:
        return manifest.begin(run, [(name, f"/meshes/{name}") for name in names])


def test_written_records_are_read_back(path: Path) -> None:
    begin(path, "a/b.obj", "c.obj")
    with Manifest.create(path) as manifest:
        manifest.write([DONE])
        assert manifest.counts() == Counts(shapes=2, done=1, failed=0, waiting=1, missed=1)
        run = manifest.run()
        assert run is not None
        assert (run.dataset, run.options, run.shard) == ("meshes", RUN.options, None)
        assert manifest.ended_since(1e9) == (1, 1e9)
    read, waiting = read_manifest(path.parent)
    finite = {name: value for name, value in DONE.columns.items() if name not in ("hausdorff", "iou")}
    assert replace(read, columns={}) == replace(DONE, columns={})
    assert {name: read.columns[name] for name in finite} == finite
    assert all(math.isnan(read.columns[name]) for name in ("hausdorff", "iou"))  # JSON has neither
    assert waiting == Record("c.obj", "/meshes/c.obj")


def test_a_new_run_keeps_records_of_existing_shapes(path: Path) -> None:
    begin(path, "a/b.obj", "c.obj")
    with Manifest.create(path) as manifest:
        manifest.write([DONE])
    assert begin(path, "a/b.obj", "d.obj") == 1
    records = list(read_manifest(path.parent))
    assert [(record.name, record.state) for record in records] == [("a/b.obj", "done"), ("d.obj", "waiting")]
    assert records[0].stamp == DONE.stamp
    begin(path, "a/b.obj", run=replace(RUN, options={"samples": 2000}))
    assert next(read_manifest(path.parent)).stamp is None  # other options: no result is known to be valid


def test_records_are_written_atomically(path: Path) -> None:
    begin(path, "a/b.obj", "c.obj")

    def records():
        yield DONE
        raise RuntimeError

    with Manifest.create(path) as manifest:
        with pytest.raises(RuntimeError):
            manifest.write(records())
        assert manifest.counts().waiting == 2
        manifest.write([DONE])  # the connection is still usable


def test_a_reader_rolls_back_an_interrupted_transaction(path: Path, tmp_path: Path) -> None:
    begin(path, "a/b.obj", *(f"{i}.obj" for i in range(2000)))
    crashed = tmp_path / "crashed"
    crashed.mkdir()
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("PRAGMA cache_size = 1")  # so that changed pages are in the file before the end
    connection.execute("BEGIN IMMEDIATE")
    connection.execute("UPDATE shapes SET state = 'done', reason = 'a change of every page of the table'")
    for suffix in ("", "-journal"):
        shutil.copy(f"{path}{suffix}", crashed / f"manifest.sqlite{suffix}")
    connection.close()
    assert (crashed / "manifest.sqlite-journal").stat().st_size
    assert b"every page" in (crashed / "manifest.sqlite").read_bytes()
    assert {record.state for record in read_manifest(crashed)} == {"waiting"}


def test_a_reader_changes_nothing(path: Path) -> None:
    begin(path, "a/b.obj")
    with Manifest.open(path) as manifest, pytest.raises(OutputError, match="readonly"):
        manifest.write([DONE])


@pytest.mark.parametrize(
    ("content", "reason"),
    [(None, "does not exist"), (b"junk" * 1000, "cannot be read"), ("other", "not the manifest")],
)
def test_other_files_are_refused(path: Path, content: bytes | str | None, reason: str) -> None:
    if content == "other":
        with sqlite3.connect(path) as connection:
            connection.execute("CREATE TABLE notes (text)")
    elif isinstance(content, bytes):
        path.write_bytes(content)
    with pytest.raises(ManifestError, match=reason):
        next(read_manifest(path.parent))
    if content is not None:
        with pytest.raises(ManifestError, match=reason):
            Manifest.create(path)


def test_a_manifest_of_version_1_is_read_and_converted(path: Path) -> None:
    run = Run("convert", "meshes", {"samples": 1000}, (2, 3), started=5.0)
    columns = {name: value for name, value in DONE.columns.items() if name not in ("closed", "hausdorff")}
    failed = Record("b.obj", "/b.obj", "failed", "memory", "needs more", finished=6.0, seconds={"lost": 1.0})
    records = [replace(DONE, columns=columns), failed, Record("c.obj", "/c.obj")]
    manifest_v1.write(path, run, records, "digest")
    before = path.read_bytes()

    def check(manifest: Manifest) -> None:
        assert manifest.run() == run
        assert manifest.counts() == Counts(shapes=3, done=1, failed=1, waiting=1, missed=1)
        done, *others = manifest.records()
        assert str(done) == str(records[0])  # NaN is not equal to itself
        assert others == records[1:]
        assert list(manifest.records("failed")) == [failed]
        assert manifest.ended_since(5.0) == (2, 1e9)
        assert manifest.written == "digest"

    with Manifest.open(path) as manifest:
        check(manifest)
    assert path.read_bytes() == before  # a reader changes nothing
    for _ in range(2):
        with Manifest.create(path) as manifest:
            check(manifest)
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA user_version").fetchone() == (SCHEMA_VERSION,)
    with Manifest.create(path) as manifest:
        assert manifest.begin(run, [("a/b.obj", "/a/b.obj"), ("b.obj", "/b.obj")]) == 1
        assert next(manifest.records()).stamp == DONE.stamp


@pytest.mark.parametrize(
    "change", ["metrics = '[1]'", "faces = x'ff'", "seconds = 'none'", "state = 'asleep'"]
)
def test_a_damaged_manifest_of_version_1_is_an_error_and_is_not_changed(path: Path, change: str) -> None:
    manifest_v1.write(path, RUN, [Record("a.obj", "/a.obj")])
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute(f"UPDATE shapes SET {change}")
    before = path.read_bytes()
    with pytest.raises(ManifestError, match=r"cannot be read \("):
        Manifest.create(path)
    assert path.read_bytes() == before


def test_a_later_version_is_refused(path: Path) -> None:
    begin(path, "a.obj")
    with sqlite3.connect(path) as connection:
        connection.execute("PRAGMA user_version = 99")
    with pytest.raises(ManifestError, match="version 99"):
        next(read_manifest(path.parent))


@pytest.mark.parametrize(
    "change",
    [
        "state = 'asleep'", "cause = 'magic'", "reason = x'ff00'", "result_bytes = 'many'", "columns = '[1]'",
        "columns = '{\"iou\": [1]}'",
        "columns = 'none'", "columns = NULL", "seconds = '3'", "warnings = '[3]'",
        "warnings = 'null'", "finished = 'yesterday'", "columns = '" + "[" * 100_000 + "'", "source = x'41'",
    ],
)  # fmt: skip
def test_an_invalid_record_is_an_error_in_one_line(path: Path, change: str) -> None:
    with Manifest.create(path) as manifest:
        manifest.begin(Run("convert", "meshes", {}), [("a.obj", "meshes/a.obj")])
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute(f"UPDATE shapes SET {change}")
    with Manifest.open(path) as manifest, pytest.raises(ManifestError, match=r"cannot be read \(") as caught:
        list(manifest.records())
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "change",
    ["options = '[]'", "options = '{'", "options = NULL", "shard = '[1]'", "shard = '3'", "started = 'now'",
     "started = 1e300", "started = -5", "dataset = x'41'", "job = NULL"],
)  # fmt: skip
def test_an_invalid_run_is_an_error_in_one_line(path: Path, change: str) -> None:
    with Manifest.create(path) as manifest:
        manifest.begin(Run("convert", "meshes", {}), [("a.obj", "meshes/a.obj")])
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute(f"UPDATE run SET {change}")
    with Manifest.open(path) as manifest, pytest.raises(ManifestError, match=r"cannot be read \("):
        manifest.run()


@pytest.mark.parametrize("finished", ["'now'", "x'41'"])
def test_an_invalid_time_is_an_error_in_one_line(path: Path, finished: str) -> None:
    with Manifest.create(path) as manifest:
        manifest.begin(Run("convert", "meshes", {}), [("a.obj", "meshes/a.obj")])
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute(f"UPDATE shapes SET finished = {finished}")
    with Manifest.open(path) as manifest, pytest.raises(ManifestError, match="damaged record"):
        manifest.ended_since(0.0)


def test_a_lock_is_exclusive(tmp_path: Path) -> None:
    folder = Folder(tmp_path)
    assert not folder.running()
    with folder.locked():
        assert folder.running()
        assert not folder.running((1, 2))
        with (
            pytest.raises(OutputError, match=f"in progress there .process {os.getpid()} on "),
            folder.locked(),
        ):
            pass
        with folder.locked((1, 2)):
            pass
    assert not folder.running()
    with folder.locked():
        pass
