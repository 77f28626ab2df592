"""The engine performs any job: here one that measures volumes."""

from __future__ import annotations

import json
import math
import multiprocessing
import os
import signal
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from neuralsdf.batch import engine_processes
from neuralsdf.batch.dry_run import preview
from neuralsdf.batch.engine_processes import LocalEngine
from neuralsdf.batch.job import Task, difference
from neuralsdf.batch.manifest import Manifest, read_manifest
from neuralsdf.batch.merge_shards import merge_shards
from neuralsdf.batch.report import write_report
from neuralsdf.batch.resource_limits import Limits
from neuralsdf.batch.run_batch import Progress, Summary, run_batch
from neuralsdf.batch.run_status import batch_status
from neuralsdf.batch.shape_record import Record
from neuralsdf.batch.worker_handle import ProcessExit
from neuralsdf.errors import UsageError
from neuralsdf.mesh.save_mesh import save_mesh

from ..helpers import shapes
from ..helpers.batch_runs import JOB, Inline, age, contents, make_meshes, states
from ..helpers.volume_job import VolumeJob

NO_LIMITS = Limits(math.inf, math.inf)
VOLUMES = {"box1.ply": 240.0, "box2.ply": 360.0, "sub/box0.ply": 120.0, "sub/box3.ply": 480.0}


@pytest.fixture
def meshes(tmp_path: Path) -> Path:
    return make_meshes(tmp_path / "meshes", 4)


def run(meshes: Path, out: Path, job: VolumeJob = VolumeJob(), **options: object) -> Summary:  # noqa: B008
    return run_batch(str(meshes), out, job, lambda: Inline(job), **options)  # type: ignore[arg-type]


def check_results(out: Path) -> None:
    assert sorted(contents(out)) == ["volumes.json", *(f"volumes/{name}.npz" for name in VOLUMES)]
    for name, volume in VOLUMES.items():
        with np.load(out / f"volumes/{name}.npz") as result:
            assert result["volume"] == pytest.approx(volume)
            assert np.prod(result["box"]) == pytest.approx(volume)
    assert json.loads((out / "volumes.json").read_text()) == pytest.approx(VOLUMES)
    records = {record.name: record for record in read_manifest(out)}
    for name in VOLUMES:
        assert records[name].columns == {"faces": 12, "volume": pytest.approx(VOLUMES[name])}
        assert records[name].result_bytes == (out / f"volumes/{name}.npz").stat().st_size
    assert (records["broken.obj"].state, records["broken.obj"].cause) == ("failed", "error")
    assert "vertex index out of range" in str(records["broken.obj"].reason)


def test_another_job_survives_killed_workers_and_an_interrupted_driver(
    meshes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(Path(__file__).parents[2])  # a worker imports the job's module
    out = tmp_path / "out"

    def interrupt(record: Record | None, progress: Progress) -> None:
        if progress.done >= 2:
            raise KeyboardInterrupt

    killed: set[int] = set()

    def kill_workers(record: Record | None, progress: Progress) -> None:
        if not killed:  # once: a shape whose worker dies twice has failed
            killed.update(process.pid for process in multiprocessing.active_children())  # type: ignore[misc]
            for pid in killed:
                os.kill(pid, signal.SIGKILL)

    def local(report: Callable[[Record | None, Progress], None]) -> Summary:
        job = VolumeJob()
        return run_batch(str(meshes), out, job, lambda: LocalEngine(job, 2, NO_LIMITS), report=report)

    with pytest.raises(KeyboardInterrupt):
        local(interrupt)
    done = [name for name, state in states(out).items() if state == ("done", None)]
    assert len(done) >= 2  # two workers can end at once
    kept = {name: (out / f"volumes/{name}.npz").stat().st_ino for name in done}
    summary = local(kill_workers)
    assert killed
    assert summary.counts == (5, 4, 1, 0, 0)
    assert kept == {name: (out / f"volumes/{name}.npz").stat().st_ino for name in done}
    assert summary.files == (out / "volumes.json",)
    check_results(out)


def test_runs_shards_and_previews_of_another_job(
    meshes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    age(meshes, monkeypatch)
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    found = preview(str(meshes), whole, VolumeJob(), lambda: Inline(VolumeJob()))
    assert (found.shapes, found.to_do, found.seconds_each) == (5, 5, 0.5)
    run(meshes, whole)
    check_results(whole)
    assert run(meshes, whole).done_now == 0
    assert preview(str(meshes), whole, VolumeJob(), lambda: Inline(VolumeJob())).to_do == 0
    for shard in ((1, 2), (2, 2)):
        run(meshes, parts, shard=shard)
    assert merge_shards(parts, VolumeJob).counts == batch_status(whole)[0].counts
    check_results(parts)

    save_mesh(meshes / "box1.ply", *shapes.box(1, 1, 1), force=True)  # a changed mesh, and other options
    assert run(meshes, whole).done_now == 1
    assert next(read_manifest(whole)).columns["volume"] == pytest.approx(8)
    with pytest.raises(UsageError, match=r"contains a run with unit: 1\.0, not 10"):
        run(meshes, whole, VolumeJob(10))
    assert run(meshes, whole, VolumeJob(10.0), force=True).done_now == 4
    assert next(read_manifest(whole)).columns["volume"] == pytest.approx(8e-3)


def test_a_folder_has_one_job(meshes: Path, tmp_path: Path) -> None:
    run(meshes, tmp_path / "out")
    with Manifest.open(tmp_path / "out/manifest.sqlite") as manifest:
        assert manifest.run().job == "volume"  # type: ignore[union-attr]
    with pytest.raises(UsageError, match="contains a run of the job volume, not convert"):
        run_batch(str(meshes), tmp_path / "out", JOB, Inline)
    for shard in ((1, 2), (2, 2)):
        run(meshes, tmp_path / "parts", shard=shard)
    with pytest.raises(UsageError, match="belongs to the job volume, not convert"):
        merge_shards(tmp_path / "parts", type(JOB))
    with pytest.raises(UsageError, match="belongs to the job volume, not convert"):
        write_report(tmp_path / "out", tmp_path / "a.html", tmp_path / "a.csv", type(JOB))


def test_a_key_depends_on_the_content_the_job_and_its_options() -> None:
    keys = {VolumeJob().key("a"), VolumeJob().key("b"), VolumeJob(2.0).key("a"), JOB.key("a")}
    assert len(keys) == 4
    assert VolumeJob().key("a") == VolumeJob().key("a")
    assert difference({"a": {"b": 1}, "c": 2}, {"a": {"b": 3}, "c": 2}) == "b: 3, not 1"


def test_a_report_shows_the_columns_and_measures_of_the_job(meshes: Path, tmp_path: Path) -> None:
    run(meshes, tmp_path / "out")
    page, table = tmp_path / "a.html", tmp_path / "a.csv"
    summary = write_report(tmp_path / "out", page, table, VolumeJob)
    (volumes,) = summary.distributions
    assert (volumes.shapes, volumes.median, volumes.worst) == (4, pytest.approx(300), pytest.approx(120))
    assert (volumes.good, volumes.poor) == (1, 0)
    assert [(stage.name, stage.total) for stage in summary.stages] == [("read", 2.0)]
    header, *rows = table.read_text().splitlines()
    assert header.replace('"', "").endswith("target_met,faces,volume,seconds_read,seconds_lost,warnings")
    assert len(rows) == 5
    html = page.read_text()
    assert "Volume" in html
    assert "volumes.json" in html
    assert "IoU" not in html


class Process:
    """A substitute for a worker process that caches shapes; the test sets how it ends."""

    made: list[Process]

    def __init__(self, *arguments: object) -> None:
        self.kept: dict[str, int] = {}
        self.key, self.alive, self.handles = None, True, ()
        self.given: list[dict] = []
        self.end: object = None
        self.made.append(self)

    def send(self, **message: object) -> None:
        self.given.append(message)

    def poll(self) -> object:
        end, self.end = self.end, None
        return end

    def keeps(self, *names: str) -> None:
        """End its task, with these shapes in its cache."""
        self.kept = dict.fromkeys(names, 1)
        self.end = {"record": self.given[-1]["task"]["record"]}

    def kill(self) -> None: ...


@pytest.fixture
def engine(monkeypatch: pytest.MonkeyPatch) -> LocalEngine:
    """An engine of two processes: the first has cached the shape `a`, the second the shape `b`."""
    monkeypatch.setattr(Process, "made", [], raising=False)
    monkeypatch.setattr(engine_processes, "Worker", Process)
    monkeypatch.setattr(engine_processes, "_POLL_SECONDS", 0)
    engine = LocalEngine(VolumeJob(), 2, NO_LIMITS)
    for name in "ab":
        engine.submit(task(name))
    for process, name in zip(Process.made, "ab", strict=True):
        process.keeps(name)
    assert [record.name for record in engine.wait()] == ["a", "b"]
    return engine


def task(name: str) -> Task:
    return Task(Record(name, f"{name}.ply"), False, name, f"{name}.draft")


def test_a_stage_goes_to_the_worker_that_has_cached_its_shape(engine: LocalEngine) -> None:
    first, second = Process.made
    assert engine.takes(task("b"))
    engine.submit(task("b"))
    assert second.given[-1]["task"]["record"]["name"] == "b"
    assert not engine.takes(task("b"))  # while that worker is busy
    assert engine.takes(task("c"))
    engine.submit(task("a"))
    assert first.given[-1]["task"]["record"]["name"] == "a"
    assert not engine.takes(task("c"))  # no worker is free
    engine.close()


def test_a_shape_whose_worker_has_died_goes_to_another(engine: LocalEngine) -> None:
    first, second = Process.made
    first.alive = False
    assert engine.takes(task("a"))
    engine.submit(task("a"))
    assert second.given[-1]["task"]["record"]["name"] == "a"
    engine.submit(task("b"))  # its worker is busy, but it can start elsewhere
    assert len(Process.made) == 3


def test_shapes_that_are_not_needed_are_forgotten(engine: LocalEngine) -> None:
    engine.forget("a")
    engine.submit(task("a"))
    engine.submit(task("b"))
    assert [process.given[-1]["forget"] for process in Process.made] == [["a"], []]


def test_a_shape_fails_for_memory_only_if_no_other_was_cached(engine: LocalEngine) -> None:
    first, _ = Process.made
    engine.submit(task("b"))
    engine.submit(task("c"))
    assert first.given[-1]["task"]["record"]["name"] == "c"
    first.end = ProcessExit("memory", "needs more", 1.0)  # the shape a was cached, too
    assert engine.wait() == []
    third = Process.made[2]
    assert third.given[-1]["task"]["record"]["name"] == "c"
    third.end = ProcessExit("memory", "needs more", 1.0)
    (record,) = engine.wait()
    assert (record.name, record.state, record.cause) == ("c", "failed", "memory")
    assert engine.busy == 1
