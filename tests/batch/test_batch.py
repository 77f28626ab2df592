"""A batch: what is left to do, what is done again, what a run that was killed leaves behind."""

from __future__ import annotations

import errno
import json
import math
import multiprocessing.util
import os
import pickle
import random
import re
import resource
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import fields, replace
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import pytest
from click.testing import CliRunner

from neuralsdf.backends import get_backend
from neuralsdf.backends.batched import Corrections, Fits, fit_many
from neuralsdf.batch import convert_job, engine_grouped, tasks
from neuralsdf.batch.convert_grouped import FitWork, StagedConvertJob
from neuralsdf.batch.convert_job import ConvertJob, dataset_file
from neuralsdf.batch.dry_run import preview
from neuralsdf.batch.engine_processes import LocalEngine
from neuralsdf.batch.folder import Folder
from neuralsdf.batch.job import Job, Task
from neuralsdf.batch.limits import Limits
from neuralsdf.batch.manifest import Manifest, read_manifest
from neuralsdf.batch.merge import merge_shards
from neuralsdf.batch.recipe import Recipe
from neuralsdf.batch.record import Record
from neuralsdf.batch.run import Progress, Summary, run_batch
from neuralsdf.batch.status import batch_status
from neuralsdf.batch.worker import Worker
from neuralsdf.cli.commands import batch_convert as batch_convert_command
from neuralsdf.cli.main import main
from neuralsdf.cli.shared.keywords import as_options
from neuralsdf.errors import ManifestError, OutputError, UsageError
from neuralsdf.evaluation import metrics
from neuralsdf.files.input_file import set_max_input
from neuralsdf.mesh.files import save_mesh
from neuralsdf.mesh.signed_distance import FACE_BYTES
from neuralsdf.pipeline.convert import fit_mesh
from neuralsdf.pipeline.prepare import Prepared, prepare, sample
from neuralsdf.pipeline.stages import Stages
from neuralsdf.program.network import Architecture, Network, initialise
from neuralsdf.program.optimizers import get_optimizer
from neuralsdf.program.samples import Samples
from neuralsdf.storage import open_field, save_field
from neuralsdf.storage.dataset import Dataset
from neuralsdf.training.fit import Training, correction_steps, learning_rates
from neuralsdf.training.sampling import Density
from neuralsdf.training.size_search import Target

from ..helpers import shapes
from . import manifest_v1

COMMAND = Path(__file__).with_name("batch_command.py")

RECIPE = Recipe(Architecture.uniform(2, 8), samples=1000, training=Training(epochs=1, batch=100))
JOB = ConvertJob(RECIPE)
OPTIONS = ("--layers", "2", "--width", "8", "--samples", "1000", "--epochs", "1", "--batch", "100")


class Inline:
    """An engine without processes: a task is performed as it is waited for."""

    def __init__(self, job: Job = JOB, seen: list[str] | None = None) -> None:
        self.job, self.tasks = job, list[Task]()
        self.seen = [] if seen is None else seen

    @property
    def free(self) -> int:
        return 2 - len(self.tasks)

    @property
    def busy(self) -> int:
        return len(self.tasks)

    def submit(self, task: Task) -> None:
        self.tasks.append(task)

    def wait(self) -> list[Record]:
        task = self.tasks.pop()  # the last first: the order must not matter
        self.seen.append(task.record.name)
        return [tasks.perform(task, self.job, on_key=lambda key: None)]

    def close(self) -> None:
        self.tasks.clear()


@pytest.fixture
def coarse_metrics(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metrics, "POINTS", 1000)
    monkeypatch.setattr(metrics, "FAR_POINTS", 200)
    monkeypatch.setattr(metrics, "RESOLUTION", 32)


def make_meshes(folder: Path, count: int, broken: bool = True) -> Path:
    (folder / "sub").mkdir(parents=True)
    for i in range(count):
        save_mesh(folder / ("sub" if i % 3 == 0 else ".") / f"box{i}.ply", *shapes.box(5, 3, 1 + i))
    if broken:
        (folder / "broken.obj").write_text("v 0 0 0\nf 1 2 3\n")
        (folder / "notes.txt").write_text("no mesh")
    return folder


def age(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let all files be old enough for their stamps to be trusted."""
    now = time.time
    monkeypatch.setattr("neuralsdf.batch.retry.time.time", lambda: now() + 3600)


def contents(out: Path) -> dict[str, bytes]:
    """Every file of a run that a user may look at, but the manifests, which hold times."""
    files = (path for path in out.rglob("*") if path.is_file() and not path.name.startswith("manifest"))
    return {path.relative_to(out).as_posix(): path.read_bytes() for path in files}


def states(out: Path, shard: tuple[int, int] | None = None) -> dict[str, tuple[str, str | None]]:
    with Manifest.open(Folder(out).manifest(shard)) as manifest:
        return {record.name: (record.state, record.cause) for record in manifest.records()}


# In this process: what is done and what is not


@pytest.fixture
def run(tmp_path: Path, coarse_metrics: None) -> Callable[..., tuple[Summary, list[str]]]:
    """Run a batch; returns its summary and the names of the shapes that were looked at, in order."""
    meshes = make_meshes(tmp_path / "meshes", 4)

    def run(out: str = "out", recipe: Recipe = RECIPE, **options: object) -> tuple[Summary, list[str]]:
        seen: list[str] = []
        job = ConvertJob(recipe)
        summary = run_batch(str(meshes), tmp_path / out, job, lambda: Inline(job, seen), **options)  # type: ignore[arg-type]
        return summary, sorted(seen)

    return run


def test_a_mesh_that_changes_while_it_is_read_fails_and_is_looked_at_again(
    tmp_path: Path, coarse_metrics: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The key was taken of other bytes than those that were read, when they were back in time."""
    mesh = tmp_path / "meshes/a.ply"
    mesh.parent.mkdir()
    save_mesh(mesh, *shapes.box(1, 2, 3))
    save_mesh(tmp_path / "other.ply", *shapes.box(2, 2, 2))
    age(mesh, monkeypatch)
    first, other = mesh.read_bytes(), (tmp_path / "other.ply").read_bytes()
    read = convert_job.fit_mesh

    def changed(source: str, **options: object) -> object:
        mesh.write_bytes(other)  # behind the first look at it, and back before the second
        made = read(source, **options)  # type: ignore[arg-type]
        mesh.write_bytes(first)
        return made

    def run() -> list[Record]:
        run_batch(str(mesh.parent), tmp_path / "out", JOB, Inline)
        return list(read_manifest(tmp_path / "out"))

    monkeypatch.setattr(convert_job, "fit_mesh", changed)
    (record,) = run()
    assert (record.state, record.cause, record.result_bytes) == ("failed", "error", None)
    assert record.reason == "changed while it was read; run the same command again"
    assert not (tmp_path / "out/models/a.ply.h5").exists()
    monkeypatch.setattr(convert_job, "fit_mesh", read)
    (record,) = run()
    assert record.state == "done"
    (record,) = run()
    assert record.state == "done"


def test_files_that_are_none_fail_with_a_reason_and_stop_nothing(
    tmp_path: Path, coarse_metrics: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    meshes = tmp_path / "meshes"
    meshes.mkdir()
    monkeypatch.chdir(meshes)  # the name of a socket is short
    save_mesh(meshes / "a.ply", *shapes.box(1, 2, 3))
    for name in ("loop.obj", "round.obj"):
        os.symlink({"loop.obj": "round.obj", "round.obj": "loop.obj"}[name], meshes / name)
    os.symlink("nothing.obj", meshes / "dangling.obj")
    os.mkfifo(meshes / "pipe.obj")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("socket.obj")
    summary = run_batch(str(meshes), tmp_path / "out", JOB, Inline)
    assert (summary.done_now, summary.failed_now) == (1, 5)
    reasons = {record.name: record.reason or "" for record in read_manifest(tmp_path / "out")}
    assert "no such file" in reasons["dangling.obj"]
    assert "links" in reasons["loop.obj"]
    assert "not a regular file" in reasons["pipe.obj"]
    assert "not a regular file" in reasons["socket.obj"]
    assert not any("bug" in reason for reason in reasons.values())


ALL = ["box1.ply", "box2.ply", "broken.obj", "sub/box0.ply", "sub/box3.ply"]


def test_every_mesh_becomes_the_model_that_convert_makes_of_it(tmp_path: Path, run) -> None:
    summary, seen = run()
    out = tmp_path / "out"
    assert seen == ALL
    assert (summary.done_now, summary.failed_now, summary.ignored) == (4, 1, 1)
    good = [name for name in ALL if name != "broken.obj"]
    for name in good:
        made = fit_mesh(tmp_path / "meshes" / name, **RECIPE.arguments())
        save_field(made.field, tmp_path / "alone.h5", force=True)
        assert (out / f"models/{name}.h5").read_bytes() == (tmp_path / "alone.h5").read_bytes()
    assert sorted(contents(out)) == ["dataset.h5", *(f"models/{name}.h5" for name in good)]
    assert Dataset(out / "dataset.h5").names == good
    broken, done = (next(r for r in read_manifest(out) if r.name == name) for name in ("broken.obj", good[0]))
    assert (broken.state, broken.cause) == ("failed", "error")
    assert "vertex index out of range" in str(broken.reason)
    assert done.result_bytes == len(contents(out)[f"models/{good[0]}.h5"])
    assert (done.columns["faces"], done.columns["architecture"]) == (12, str(RECIPE.architecture))
    assert done.source_bytes == (tmp_path / "meshes" / good[0]).stat().st_size
    assert list(done.seconds) == ["load", "prepare", "sample", "fit", "measure"]


def test_nothing_is_done_twice(tmp_path: Path, run, monkeypatch: pytest.MonkeyPatch) -> None:
    age(tmp_path, monkeypatch)
    run()
    before = contents(tmp_path / "out"), (tmp_path / "out/dataset.h5").stat().st_mtime_ns
    summary, seen = run()
    assert (seen, summary.done_now, summary.failed_now, summary.counts.failed) == ([], 0, 0, 1)
    assert (contents(tmp_path / "out"), (tmp_path / "out/dataset.h5").stat().st_mtime_ns) == before
    assert run(retry_failed=True)[1] == ["broken.obj"]


def test_a_touched_file_is_looked_at_and_a_changed_one_done_again(
    tmp_path: Path, run, monkeypatch: pytest.MonkeyPatch
) -> None:
    age(tmp_path, monkeypatch)
    meshes, models = tmp_path / "meshes", tmp_path / "out/models"
    run()
    old = contents(tmp_path / "out")
    (meshes / "box1.ply").touch()
    (meshes / "broken.obj").touch()
    summary, seen = run()
    assert (seen, summary.done_now, summary.failed_now) == (["box1.ply", "broken.obj"], 0, 0)
    assert contents(tmp_path / "out") == old
    assert run()[1] == []

    save_mesh(meshes / "box1.ply", *shapes.box(1, 2, 3), force=True)
    times = os.stat(meshes / "box2.ply")
    save_mesh(meshes / "broken.obj", *shapes.box(3, 2, 1), force=True)
    os.utime(meshes / "broken.obj", ns=(times.st_atime_ns, times.st_mtime_ns))  # as cp -p and tar do
    summary, seen = run()
    assert (seen, summary.done_now, summary.counts.failed) == (["box1.ply", "broken.obj"], 2, 0)
    new = contents(tmp_path / "out")
    changed = {"dataset.h5", "models/box1.ply.h5", "models/broken.obj.h5"}
    assert {name for name in new if new[name] != old.get(name)} == changed
    assert Dataset(tmp_path / "out/dataset.h5").names == ALL

    (meshes / "box1.ply").write_text("ply")  # what becomes a bad mesh leaves no model of the good one
    run()
    assert states(tmp_path / "out")["box1.ply"] == ("failed", "error")
    assert not (models / "box1.ply.h5").exists()


def test_a_fresh_file_is_never_taken_for_unchanged(tmp_path: Path, run) -> None:
    run()  # moments after the meshes were written: another change might leave the same times
    assert run()[1] == ALL


def test_what_was_removed_is_made_again(tmp_path: Path, run, monkeypatch: pytest.MonkeyPatch) -> None:
    age(tmp_path, monkeypatch)
    run()
    before = contents(tmp_path / "out")
    (tmp_path / "out/models/box1.ply.h5").unlink()
    (tmp_path / "out/models/box2.ply.h5").write_bytes(b"")
    assert run()[1] == ["box1.ply", "box2.ply"]
    (tmp_path / "out/dataset.h5").unlink()
    assert run()[1] == []
    assert contents(tmp_path / "out") == before


def test_meshes_that_come_and_go(tmp_path: Path, run, monkeypatch: pytest.MonkeyPatch) -> None:
    age(tmp_path, monkeypatch)
    run()
    (tmp_path / "meshes/box1.ply").rename(tmp_path / "meshes/box9.ply")
    summary, seen = run()
    assert (seen, summary.forgotten) == (["box9.ply"], 1)
    assert Dataset(tmp_path / "out/dataset.h5").names == [
        "box2.ply",
        "box9.ply",
        "sub/box0.ply",
        "sub/box3.ply",
    ]


def test_another_recipe_or_other_meshes_need_force(
    tmp_path: Path, run, monkeypatch: pytest.MonkeyPatch
) -> None:
    age(tmp_path, monkeypatch)
    run()
    wider = replace(RECIPE, architecture=Architecture.uniform(2, 12))
    with pytest.raises(UsageError, match=r"holds a run with architecture.hidden: \[8, 8\], not \[12, 12\]"):
        run(recipe=wider)
    summary, seen = run(recipe=wider, force=True)
    assert (seen, summary.done_now) == (ALL, 4)
    assert Dataset(tmp_path / "out/dataset.h5").architecture == wider.architecture
    assert run(recipe=wider)[1] == []
    for path in list((tmp_path / "meshes").rglob("*.*")):
        path.rename(path.with_name(f"new-{path.name}"))
    with pytest.raises(UsageError, match="none of these meshes"):
        run(recipe=wider)
    assert run(recipe=wider, force=True)[0].forgotten == 5


def test_a_batch_without_measuring(tmp_path: Path, run, monkeypatch: pytest.MonkeyPatch) -> None:
    age(tmp_path, monkeypatch)
    recipe = replace(RECIPE, measure=False)
    assert recipe.options()["measure"] is False
    assert "measure" not in RECIPE.options()  # so that a run of an earlier version resumes
    summary, _ = run(recipe=recipe)
    assert (summary.counts.done, summary.counts.failed) == (4, 1)
    out = tmp_path / "out"
    assert {name for record in read_manifest(out) for name in record.columns} == {"faces", "architecture"}
    assert np.isnan(Dataset(out / "dataset.h5").metrics["iou"]).all()
    assert run(recipe=recipe)[1] == []
    report = json.loads(CliRunner().invoke(main, ["report", str(out), "--json"]).stdout)
    assert (report["done"], report["iou"]["shapes"], report["iou"]["median"]) == (4, 0, None)
    with pytest.raises(UsageError, match="measure"):
        run()


HOPELESS = replace(RECIPE, samples=1000, training=Training(epochs=1))


def test_a_fit_without_a_surface_counts_as_failed(
    tmp_path: Path, run, monkeypatch: pytest.MonkeyPatch
) -> None:
    age(tmp_path, monkeypatch)
    out = tmp_path / "out"
    summary, _ = run(recipe=HOPELESS)
    assert summary.counts == (5, 0, 5, 0, 0)
    assert contents(out) == {}
    reasons = {record.name: str(record.reason) for record in read_manifest(out)}
    assert sum("the fit failed: no usable surface" in reason for reason in reasons.values()) == 4
    assert "try more `epochs=`" in reasons["box1.ply"]
    assert all(record.seconds["lost"] > 0 for record in read_manifest(out))
    assert run(recipe=HOPELESS)[1] == []  # it would fail again


@pytest.mark.parametrize("shard", [None, (1, 1)])
def test_a_run_with_a_manifest_of_version_1_is_continued(
    tmp_path: Path, run, monkeypatch: pytest.MonkeyPatch, shard: tuple[int, int] | None
) -> None:
    age(tmp_path, monkeypatch)
    run(shard=shard)
    before, known = contents(tmp_path / "out"), states(tmp_path / "out", shard)
    manifest_v1.rewrite(Folder(tmp_path / "out").manifest(shard))
    assert states(tmp_path / "out", shard) == known
    (tmp_path / "meshes/box1.ply").touch()
    summary, seen = run(shard=shard)
    assert (seen, summary.done_now, summary.failed_now) == (["box1.ply"], 0, 0)  # its key is the same
    assert contents(tmp_path / "out") == before
    assert states(tmp_path / "out", shard) == known
    with pytest.raises(UsageError, match=r"holds a run with seed: 0, not 1"):
        run(shard=shard, recipe=replace(RECIPE, seed=1))


@pytest.mark.parametrize("shards", [1, 2])
def test_a_failed_fit_that_an_earlier_version_called_done_is_no_success(
    tmp_path: Path, run, monkeypatch: pytest.MonkeyPatch, shards: int
) -> None:
    age(tmp_path, monkeypatch)
    folder, parts = Folder(tmp_path / "out"), [(i, shards) for i in range(1, shards + 1) if shards > 1]
    for shard in parts or [None]:
        run(shard=shard)
        with Manifest.create(folder.manifest(shard)) as manifest:
            was = {"box1.ply": {"iou": 0.0}, "box2.ply": {"iou": 0.01, "two_way": 0.3}}
            records = [record for record in manifest.records("done") if record.name in was]
            manifest.write(replace(record, columns=was[record.name]) for record in records)
    report = CliRunner().invoke(main, ["report", str(folder.path), "--json"])
    assert (json.loads(report.stdout)["done"], json.loads(report.stdout)["failed"]) == (2, 3)
    if shards > 1:
        merged = CliRunner().invoke(main, ["batch-merge", str(folder.path)])
        assert merged.exit_code == 1
        assert "2 of 5 shapes done" in merged.stdout
        assert Dataset(dataset_file(folder)).names == ["sub/box0.ply", "sub/box3.ply"]
        assert "no usable surface (IoU 0.01); convert it again" in str(
            next(r.reason for r in read_manifest(folder.path) if r.name == "box2.ply")
        )
    else:
        summary, seen = run()
        assert (seen, summary.counts.done) == (["box1.ply", "box2.ply"], 4)


def test_shards_and_merge_equal_one_run(tmp_path: Path, run) -> None:
    run("whole")
    seen = [run("parts", shard=(i, 3))[1] for i in (3, 1)]
    with pytest.raises(UsageError, match="shard 2/3 is missing"):
        merge_shards(tmp_path / "parts", ConvertJob)
    with pytest.raises(UsageError, match="in 3 shards"):
        run("parts")
    with pytest.raises(UsageError, match="in 3 shards, not 2"):
        run("parts", shard=(1, 2))
    seen.append(run("parts", shard=(2, 3))[1])
    assert sorted(name for names in seen for name in names) == ALL
    with pytest.raises(ManifestError):
        list(read_manifest(tmp_path / "parts"))
    for _ in range(2):  # merging again changes nothing
        summary = merge_shards(tmp_path / "parts", ConvertJob)
        assert summary.counts == batch_convert_counts(tmp_path / "whole")
        assert contents(tmp_path / "parts") == contents(tmp_path / "whole")
        assert states(tmp_path / "parts") == states(tmp_path / "whole")
    with pytest.raises(UsageError, match="in one piece"):
        run("whole", shard=(1, 3))
    assert [status.shard for status in batch_status(tmp_path / "parts")] == [(1, 3), (2, 3), (3, 3)]
    command = ["batch-convert", "-o", str(tmp_path / "parts"), "--status"]
    *_, total = CliRunner().invoke(main, command).stdout.splitlines()
    assert total.split() == ["3", "of", "3", "shards", "5", "4", "1", "0", "-", "-", "finished"]


def batch_convert_counts(out: Path):
    (status,) = batch_status(out)
    return status.counts


def test_a_shard_of_another_recipe_is_not_merged(tmp_path: Path, run) -> None:
    run(shard=(1, 2))
    run(shard=(2, 2), recipe=replace(RECIPE, seed=1))
    with pytest.raises(UsageError, match="seed: 1, not 0"):
        merge_shards(tmp_path / "out", ConvertJob)
    with pytest.raises(ManifestError, match="holds no shards"):
        merge_shards(tmp_path / "meshes", ConvertJob)


def test_each_architecture_has_a_data_set_of_its_own(tmp_path: Path, run) -> None:
    small, _ = run(recipe=replace(RECIPE, target=Target(1.0)))
    assert [path.name for path in small.files] == ["dataset.h5"]
    assert small.counts.missed == 0
    out = tmp_path / "out"
    first = next(iter(read_manifest(out)))
    other = fit_mesh(
        tmp_path / "meshes/box1.ply", **RECIPE.arguments() | {"architecture": Architecture((16,))}
    )
    save_field(other.field, out / f"models/{first.name}.h5", force=True)
    with Manifest.create(out / "manifest.sqlite") as manifest:
        manifest.write([replace(first, columns={"architecture": "1x16 relu"}, target_met=False, key="0")])
        paths = JOB.finish(manifest, Folder(out))
        assert manifest.counts().missed == 1
    assert sorted(path.name for path in out.glob("dataset*")) == sorted(path.name for path in paths)
    assert sorted(name for path in paths for name in Dataset(path).names) == [
        name for name in ALL if name != "broken.obj"
    ]


def test_a_preview_leaves_no_trace(tmp_path: Path, run, monkeypatch: pytest.MonkeyPatch) -> None:
    age(tmp_path, monkeypatch)
    meshes, out = str(tmp_path / "meshes"), tmp_path / "out"
    seen: list[str] = []
    found = preview(meshes, out, JOB, lambda: Inline(JOB, seen))
    assert (found.shapes, found.to_do, found.to_check, found.ignored) == (5, 5, 0, 1)
    assert found.seconds_each is not None
    assert found.seconds_each > 0
    assert 1 <= len(seen) <= 3
    assert not out.exists()
    run()
    (tmp_path / "meshes/box1.ply").touch()
    (out / "models/box2.ply.h5").unlink()
    found = preview(meshes, out, JOB, lambda: Inline(JOB, seen))
    assert (found.shapes, found.to_do, found.to_check) == (5, 1, 1)
    done = [sum(record.seconds.values()) for record in read_manifest(out) if record.state == "done"]
    assert found.seconds_each == pytest.approx(sum(done) / len(done))


def test_a_full_disk_ends_the_run_and_nothing_else(
    tmp_path: Path, run, monkeypatch: pytest.MonkeyPatch
) -> None:
    run("whole")
    written = []

    def write_bytes(path: Path, data: bytes) -> None:
        written.append(path)
        if len(written) == 3:
            raise OSError(errno.ENOSPC, "No space left on device")
        with path.open("wb") as stream:
            stream.write(data)

    monkeypatch.setattr(Path, "write_bytes", write_bytes)
    with pytest.raises(OutputError, match=r"no space left on the disk; .*the same command continues"):
        run()
    assert Counter(state for state, _ in states(tmp_path / "out").values())["done"] == 2
    assert not (tmp_path / "out/dataset.h5").exists()
    run()
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")


class Killed(Inline):
    """An engine whose process is killed at the first `times` tasks."""

    def __init__(self, times: int) -> None:
        super().__init__()
        self.times = times

    def wait(self) -> list[Record]:
        self.times -= 1
        if self.times >= 0:
            return [self.tasks.pop().record.failed("killed", "by somebody")]
        return super().wait()


def test_a_shape_whose_process_is_killed_is_begun_again(tmp_path: Path, coarse_metrics: None) -> None:
    meshes = make_meshes(tmp_path / "meshes", 1)
    engine = Killed(2)
    run_batch(str(meshes), tmp_path / "out", JOB, lambda: engine)
    assert states(tmp_path / "out")["sub/box0.ply"] == ("done", None)
    run_batch(str(meshes), tmp_path / "often", JOB, lambda: Killed(3))
    killed = [name for name, state in states(tmp_path / "often").items() if state == ("failed", "killed")]
    assert len(killed) == 1
    run_batch(str(meshes), tmp_path / "often", JOB, Inline)  # the next run tries it without being told
    assert states(tmp_path / "often") == states(tmp_path / "out")


def test_workers_keep_to_the_largest_input(tmp_path: Path) -> None:
    save_mesh(tmp_path / "box.ply", *shapes.box(5, 3, 1))
    record = Record("box.ply", str(tmp_path / "box.ply"))
    engine = LocalEngine(JOB, 1, Limits(math.inf, math.inf))
    set_max_input(100)
    try:
        engine.submit(Task(record, False, str(tmp_path / "box.h5"), str(tmp_path / "draft")))
        while not (ended := engine.wait()):
            pass
    finally:
        set_max_input(None)
        engine.close()
    assert ended[0].reason is not None
    assert "more than the limit of 100; raise `max_input=`" in ended[0].reason


def test_a_weight_file_is_for_one_mesh() -> None:
    with pytest.raises(UsageError, match="not a file"):
        Recipe(weight="weights.npy")


def test_what_cannot_be_fitted_together() -> None:
    for alone in (
        {"target": Target(0.1)},
        {"training": Training(patience=3)},
        {"training": Training(seconds=1)},
    ):
        with pytest.raises(UsageError, match=r"`together=True` with `(target_error|time)=`"):
            replace(RECIPE, together=True, **alone)


def test_a_key_depends_on_every_option() -> None:
    others: dict[str, Any] = {
        "architecture": Architecture.uniform(2, 9),
        "density": Density(beta=1.0),
        "samples": 1001,
        "training": Training(epochs=1, batch=101),
        "sign": "parity",
        "thickness": 0.25,
        "weight": "curvature",
        "precision": "f16",
        "target": Target(0.1, mesh_units=True),
        "seed": 1,
        "together": True,
        "unit": "mm",
        "measure": False,
    }
    assert others.keys() == {option.name for option in fields(Recipe)}
    recipes = [RECIPE, *(replace(RECIPE, **{name: value}) for name, value in others.items())]
    keys = [ConvertJob(recipe).key("a") for recipe in recipes]
    assert len({*keys, JOB.key("b")}) == len(others) + 2
    assert ConvertJob(RECIPE, "torch").key("a") == JOB.key("a")  # where it runs is no option
    for recipe in recipes:
        assert json.loads(json.dumps(recipe.options())) == recipe.options()
        assert pickle.loads(pickle.dumps(ConvertJob(recipe))) == ConvertJob(recipe)


# Of processes


def command(*arguments: object) -> list[str]:
    return [sys.executable, str(COMMAND), "batch-convert", *OPTIONS, *map(str, arguments)]


_started: list[subprocess.Popen[str]] = []


def start(
    *arguments: object, before: Callable[[], object] = lambda: None, **options: object
) -> subprocess.Popen[str]:
    """The command in a process of its own, which ends with the test; before: is called in it."""

    def prepared() -> None:
        signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job ignores it
        before()

    pipe = subprocess.PIPE
    line = command(*arguments)
    process = subprocess.Popen(line, stdout=pipe, stderr=pipe, text=True, preexec_fn=prepared, **options)  # type: ignore
    _started.append(process)
    return process


@pytest.fixture(autouse=True)
def nothing_runs_on() -> Iterator[None]:
    yield
    for process in _started:
        process.kill()
        process.wait()
    _started.clear()


def finish(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    out, err = process.communicate(timeout=300)
    return process.returncode, out, err


def children(process: subprocess.Popen[str]) -> list[int]:
    """The processes that another has started: workers, and Python's resource tracker."""
    try:
        return [
            int(pid) for pid in Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        ]
    except OSError:
        return []


def until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + 120
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, bytes]]:
    """A folder of meshes, and the files of a run over them that nothing happens to."""
    folder = tmp_path_factory.mktemp("undisturbed")
    meshes = make_meshes(folder / "meshes", 10)
    code, out, err = finish(start(meshes, "-o", folder / "out", "--workers", 2))
    assert code == 1, err
    assert "10 of 11 shapes done (10 now), 1 failed" in out
    assert err.count("broken.obj: ") == 1
    return meshes, contents(folder / "out")


def test_processes_make_what_one_makes(undisturbed, tmp_path: Path, coarse_metrics: None) -> None:
    meshes, expected = undisturbed
    run_batch(str(meshes), tmp_path, JOB, Inline)
    assert contents(tmp_path) == expected


def test_a_driver_that_is_killed_loses_nothing(undisturbed, tmp_path: Path) -> None:
    meshes, expected = undisturbed
    moments = random.Random(0)
    arguments = (meshes, "-o", tmp_path / "out", "--workers", 2)
    manifest = tmp_path / "out/manifest.sqlite"
    for _ in range(3):
        driver = start(*arguments)
        until(lambda: manifest.exists() or driver.poll() is not None)  # noqa: B023
        time.sleep(moments.uniform(0, 1.5))
        workers = children(driver)
        driver.kill()
        driver.communicate()
        until(lambda: not any(Path(f"/proc/{worker}").exists() for worker in workers))  # noqa: B023
        for name, content in contents(tmp_path / "out").items():
            assert name.startswith(".work") or content == expected[name]  # whole, or not there
    code, _, err = finish(start(*arguments))
    assert code == 1, err
    assert contents(tmp_path / "out") == expected


def test_workers_that_are_killed_lose_nothing(undisturbed, tmp_path: Path) -> None:
    meshes, expected = undisturbed
    moments = random.Random(0)
    driver = start(meshes, "-o", tmp_path / "out", "--workers", 2)
    for _ in range(4):
        time.sleep(moments.uniform(0.1, 0.7))
        for worker in moments.sample(children(driver)[1:], k=min(1, len(children(driver)[1:]))):
            os.kill(worker, signal.SIGKILL)
    code, _, err = finish(driver)
    assert code == 1, err
    code, _, err = finish(start(meshes, "-o", tmp_path / "out"))
    assert contents(tmp_path / "out") == expected, err


def test_networks_fitted_together_do_not_depend_on_their_group(
    undisturbed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    meshes, _ = undisturbed
    groups = {}
    preparations = tmp_path / "preparations"
    for size in (4, 100):
        out = tmp_path / str(size)
        arguments = (meshes, "-o", out, "--workers", 2, "--together", size, "--device", "cpu", "--epochs", 3)
        if size == 100:
            monkeypatch.setenv("PREPARATIONS", str(preparations))
        driver = start(*arguments)
        if size == 4:  # whichever process it is that samples, fits or measures
            for _ in range(3):
                time.sleep(0.8)
                for worker in children(driver)[1:][-1:]:
                    os.kill(worker, signal.SIGKILL)
            driver.communicate()
            driver = start(*arguments)
        code, _, err = finish(driver)
        assert code == 1, err
        groups[size] = contents(out)
    prepared = Counter(preparations.read_text().splitlines())
    assert set(prepared.values()) == {1}  # a mesh is prepared once for its four stages
    assert len(prepared) == 11
    assert groups[4] == groups[100]
    assert len(groups[4]) == 11
    record = next(record for record in read_manifest(out) if record.state == "done")
    assert set(record.seconds) == {"load", "prepare", "sample", "fit", "measure"}

    field = open_field(out / f"models/{record.name}.h5")
    clock = Stages(None)
    shape = prepare(record.source, "winding", None, None, clock)
    sampler, drawn, _ = sample(shape, RECIPE.density, RECIPE.samples, RECIPE.seed, clock)
    training = replace(RECIPE.training, epochs=3)
    rngs = iter([np.random.default_rng([RECIPE.seed, 0, number]) for number in (1, 2)])

    def corrected(weights: np.ndarray) -> list[Samples]:
        program = get_backend().compile(Network(RECIPE.architecture, weights[0]))
        return [sampler.draw_errors(program.evaluate, RECIPE.samples // 10, next(rngs))]

    fits = Fits(
        RECIPE.architecture,
        initialise(RECIPE.architecture, RECIPE.seed)[None],
        drawn.points[None],
        drawn.distances[None],
        get_optimizer("soap"),
        training.batch,
    )
    corrections = Corrections(correction_steps(training, RECIPE.samples), corrected)
    rates = learning_rates(RECIPE.architecture, training, RECIPE.samples)
    weights, _ = fit_many(fits, rates, corrections=corrections)
    assert next(rngs, None) is None
    assert np.array_equal(field.network.weights, weights[0])


def test_a_mesh_that_misbehaves_takes_only_itself_down(tmp_path: Path) -> None:
    meshes = make_meshes(tmp_path / "meshes", 3, broken=False)
    for name in ("crash", "hog"):
        shutil.copy(meshes / "box1.ply", meshes / f"{name}.ply")
    limits = ("--max-memory", "400M", "--workers", 2)
    code, out, err = finish(start(meshes, "-o", tmp_path / "out", *limits))
    assert code == 1, err
    assert states(tmp_path / "out") == {
        "box1.ply": ("done", None),
        "box2.ply": ("done", None),
        "crash.ply": ("failed", "crash"),
        "hog.ply": ("failed", "memory"),
        "sub/box0.ply": ("done", None),
    }
    reasons = {record.name: str(record.reason) for record in read_manifest(tmp_path / "out") if record.reason}
    assert "SIGABRT" in reasons["crash.ply"]
    assert "400 MiB" in reasons["hog.ply"]
    said = (f"neuralsdf: {name}: {as_options(why)}" for name, why in reasons.items())
    assert sorted(err.splitlines()) == sorted(said)
    assert "3 of 5 shapes done (3 now), 2 failed" in out


def test_a_mesh_that_hangs_is_given_up(tmp_path: Path) -> None:
    (tmp_path / "meshes").mkdir()
    save_mesh(tmp_path / "meshes/hang.ply", *shapes.box(1, 2, 3))
    code, _, err = finish(start(tmp_path / "meshes", "-o", tmp_path / "out", "--timeout", 10))
    assert code == 1
    assert err == "neuralsdf: hang.ply: took longer than 10 s; allow more with --timeout\n"
    (record,) = read_manifest(tmp_path / "out")
    assert (record.state, record.cause) == ("failed", "timeout")
    assert record.key is not None  # so that the same mesh is not tried again
    assert record.seconds["lost"] >= 10


def test_a_run_under_way_is_seen_locked_and_interrupted(undisturbed, tmp_path: Path) -> None:
    meshes = make_meshes(tmp_path / "meshes", 2, broken=False)
    shutil.copy(meshes / "box1.ply", meshes / "hang.ply")
    out = tmp_path / "out"
    driver = start(meshes, "-o", out, "--workers", 2, start_new_session=True)
    until(lambda: (out / "manifest.sqlite").exists() and [r for r in read_manifest(out) if r.state == "done"])
    until(lambda: [r.state for r in read_manifest(out)].count("done") == 2)

    (status,) = batch_status(out)
    assert status.under_way
    assert (status.counts.shapes, status.counts.done, status.counts.waiting) == (3, 2, 1)
    assert status.per_minute is not None
    code, text, err = finish(start("-o", out, "--status"))
    assert (code, err) == (0, "")
    assert "under way" in text
    code, _, err = finish(start(meshes, "-o", out))
    assert code == 1
    assert err.count("\n") == 1
    assert f"another run is under way there (process {driver.pid}" in err

    os.killpg(driver.pid, signal.SIGINT)  # as a terminal does: to the workers, too
    assert_interrupted(driver, out, 130)
    driver = start(meshes, "-o", out, "--workers", 2)
    until(lambda: batch_status(out)[0].under_way)
    driver.terminate()  # as a cluster's scheduler does, when the time is up
    assert_interrupted(driver, out, 143)
    (meshes / "hang.ply").unlink()
    code, text, err = finish(start(meshes, "-o", out, "--json"))
    assert code == 0, err
    summary = json.loads(text)
    assert (summary["converted"], summary["forgotten"], summary["failures"]) == (0, 1, [])


def assert_interrupted(driver: subprocess.Popen[str], out: Path, expected: int) -> None:
    code, text, err = finish(driver)
    assert (code, text) == (expected, "")
    assert err.splitlines()[-1] == "neuralsdf: interrupted; the same command continues"
    assert "Traceback" not in err
    assert not batch_status(out)[0].under_way
    assert not (out / ".work").exists()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP], ids=lambda n: n.name)
def test_a_worker_that_is_being_started_hears_of_its_work_before_a_signal_is_heeded(
    number: signal.Signals, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    class Heeded(Exception):
        pass

    def heed(number: int, frame: object) -> NoReturn:
        raise Heeded

    spawn = multiprocessing.util.spawnv_passfds  # type: ignore[attr-defined]

    def spawn_and_signal(*arguments: object) -> int:
        pid: int = spawn(*arguments)
        signal.raise_signal(number)
        return pid

    monkeypatch.setattr("multiprocessing.util.spawnv_passfds", spawn_and_signal)
    before = signal.signal(number, heed)
    known = set(multiprocessing.active_children())
    try:
        with pytest.raises(Heeded):
            Worker(tasks.TaskWork(JOB), Limits(math.inf, math.inf))
        assert signal.getsignal(number) is heed
    finally:
        signal.signal(number, before)
    (begun,) = set(multiprocessing.active_children()) - known
    begun.join(120)  # nobody holds the other end of its pipe
    assert begun.exitcode == 1
    assert capfd.readouterr().err == ""


def test_a_log_says_how_far_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(batch_convert_command, "_LOG_EVERY", 0)
    with batch_convert_command._progress() as report:
        report(Record("a", "a", "done", finished=1), Progress(1, 0, 2))
        report(Record("b\n\x1b[2J", "b", "failed", reason="is empty", finished=1), Progress(1, 1, 1))
        report(None, Progress(2, 1, 0))
    lines = [
        re.sub(r"; .* a minute, .* to go", "; ...", line) for line in capsys.readouterr().err.splitlines()
    ]
    assert lines == [
        "neuralsdf: 1 done, 0 failed, 2 left; ...",
        r"neuralsdf: b\n\x1b[2J: is empty",
        "neuralsdf: 1 done, 1 failed, 1 left; ...",
        "neuralsdf: 2 done, 1 failed, 0 left; ...",
    ]


def test_a_pattern_that_a_shell_has_expanded_is_said(tmp_path: Path) -> None:
    code, _, err = finish(start("a.obj", "b.obj", "-o", tmp_path / "out"))
    assert (code, err.count("\n")) == (2, 1)
    assert "give one, a pattern in quotes" in err


def test_a_worker_that_cannot_write_ends_the_run(undisturbed, tmp_path: Path) -> None:
    meshes, _ = undisturbed

    def small_files() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (24 << 10, 24 << 10))

    out = tmp_path / "out"
    wide = ("--width", 128, "--workers", 1)  # 80 kB a model
    code, _, err = finish(start(meshes, "-o", out, *wide, before=small_files))
    assert code == 1
    assert "larger than allowed here; after fixing that, the same command continues" in err.splitlines()[-1]
    assert not any((out / "models").rglob("*.h5"))
    assert {state for state, cause in states(out).values() if cause is None} == {"waiting"}


def test_a_worker_that_cannot_start_ends_the_run(tmp_path: Path) -> None:
    script = tmp_path / "broken.py"
    script.write_text(
        "import sys\n"
        "if __name__ != '__main__': sys.exit(3)\n"
        f"sys.argv[0] = {str(COMMAND)!r}\n"
        "from neuralsdf.cli.main import main\n"
        "main()\n"
    )
    meshes = make_meshes(tmp_path / "meshes", 1)
    line = [sys.executable, str(script), *command(meshes, "-o", tmp_path / "out")[2:]]
    done = subprocess.run(line, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 1
    assert done.stderr == "neuralsdf: error: a worker process did not start (exit code 3)\n"


class Told:
    """Stands in for the pipe of the process that fits: corrections are drawn by a job in this process."""

    def __init__(self, draw: Callable[[list[bool]], list[bool]]) -> None:
        self.draw, self.drawn = draw, list[bool]()

    def tell(self, correct: list[bool]) -> None:
        self.drawn = self.draw(correct)

    def receive(self) -> dict[str, list[bool]]:
        return {"corrected": self.drawn}


def grouped(meshes: list[Path], place: Path, max_kept: float) -> tuple[list[Record], Counter[str]]:
    """Meshes converted in stages in this process; and how often each was prepared."""
    recipe = replace(RECIPE, together=True, training=Training(epochs=8, batch=100))
    job = StagedConvertJob(recipe, "native", max_kept)
    place.mkdir()
    begun = [
        Task(Record(mesh.name, str(mesh)), False, str(place / f"{mesh.name}.h5"), str(place / f"draft{i}"))
        for i, mesh in enumerate(meshes)
    ]
    prepared: Counter[str] = Counter()

    def counted(mesh: str, *arguments: Any) -> Prepared:
        prepared[Path(mesh).name] += 1
        return prepare(mesh, *arguments)

    def perform(task: Task, stage: str, correction: int = 0) -> Record:
        task = replace(task, stage=stage, number=correction, begun=stage != "sample")
        return tasks.perform(task, job, on_key=lambda key: None)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("neuralsdf.batch.convert_grouped.prepare", counted)
        sampled = [replace(task, record=perform(task, "sample")) for task in begun]
        corrections = iter(range(1, 5))

        def draw(finite: list[bool]) -> list[bool]:
            number = next(corrections)
            return [perform(task, "correct", number).state == "waiting" for task in sampled]

        drafts = [task.draft for task in sampled]
        FitWork(recipe, "native").perform({"drafts": drafts}, Told(draw))  # type: ignore[arg-type]
        assert next(corrections, None) is None
        ended = [perform(task, "measure") for task in sampled]
    assert job.kept == {}
    return ended, prepared


def test_a_mesh_that_is_kept_is_prepared_once_and_makes_the_same_model(
    tmp_path: Path, coarse_metrics: None
) -> None:
    """In six stages: samples, four corrections, measuring."""
    meshes = sorted(make_meshes(tmp_path / "meshes", 3, broken=False).rglob("*.ply"))
    one = FACE_BYTES * 12
    models = {}
    for room, expected in ((10 * one, [1, 1, 1]), (2 * one, [1, 1, 6]), (0, [6, 6, 6])):
        ended, prepared = grouped(meshes, tmp_path / str(room), room)
        assert [record.state for record in ended] == ["done"] * 3
        assert [prepared[mesh.name] for mesh in meshes] == expected
        models[room] = [(tmp_path / str(room) / f"{mesh.name}.h5").read_bytes() for mesh in meshes]
    assert models[0] == models[2 * one] == models[10 * one]


def test_a_mesh_that_is_not_kept_must_not_have_changed(tmp_path: Path, coarse_metrics: None) -> None:
    job = StagedConvertJob(replace(RECIPE, together=True), "native", 0)
    mesh = tmp_path / "a.ply"
    save_mesh(mesh, *shapes.box(1, 2, 3))
    task = Task(Record("a", str(mesh)), False, str(tmp_path / "a.h5"), str(tmp_path / "draft"), "sample")
    sampled = tasks.perform(task, job, on_key=lambda key: None)
    assert sampled.state == "waiting"
    save_mesh(mesh, *shapes.box(2, 2, 2), force=True)
    task = replace(task, record=sampled, stage="correct", begun=True, number=1)
    record = tasks.perform(task, job, on_key=lambda key: None)
    assert (record.state, record.key) == ("failed", None)
    assert "changed while it was read" in str(record.reason)


def test_without_memory_the_meshes_of_other_shapes_are_let_go(
    tmp_path: Path, coarse_metrics: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = StagedConvertJob(replace(RECIPE, together=True), "native", math.inf)

    def sampled(name: str) -> Record:
        mesh = tmp_path / f"{name}.ply"
        save_mesh(mesh, *shapes.box(1, 2, 3))
        paths = str(tmp_path / f"{name}.h5"), str(tmp_path / name)
        task = Task(Record(name, str(mesh)), False, *paths, "sample")
        return tasks.perform(task, job, on_key=lambda key: None)

    def only_alone(*arguments: Any) -> Prepared:
        if job.kept:
            raise MemoryError
        return prepare(*arguments)

    assert sampled("a").state == "waiting"
    assert list(job.kept) == ["a"]
    monkeypatch.setattr("neuralsdf.batch.convert_grouped.prepare", only_alone)
    assert sampled("b").state == "waiting"
    assert list(job.kept) == ["b"]
    monkeypatch.setattr("neuralsdf.batch.convert_grouped.prepare", lambda *arguments: bytes(1 << 62))
    record = sampled("c")
    assert (record.state, record.cause) == ("failed", "memory")
    assert job.kept == {}


class Group:
    """Stands in for the process that fits: two corrections, of which the second shape's network has none."""

    def __init__(self, *arguments: object) -> None:
        self.answers: list[dict] = []
        self.given: list[dict] = []

    def give(self, **work: object) -> None:
        self.given.append(work)
        count = len(self.given)
        self.answers = [{"correct": [True, False, True]} if count < 3 else {"losses": [0.1, math.nan, 0.3]}]

    def look(self) -> object:
        return self.answers.pop() if self.answers else None

    def kill(self) -> None: ...


class Workers:
    """Stand in for the processes that sample, correct and measure; the third shape's correction fails."""

    def __init__(self, *arguments: object) -> None:
        self.free, self.tasks, self.seen = 2, list[Task](), list[tuple[str, str, int]]()
        self.forgotten: list[str] = []

    def takes(self, task: Task) -> bool:
        return True

    def forget(self, name: str) -> None:
        self.forgotten.append(name)

    def submit(self, task: Task) -> None:
        self.tasks.append(task)

    def wait(self) -> list[Record]:
        records = []
        for task in self.tasks:
            self.seen.append((task.stage, task.record.name, task.number))
            fails = task.stage == "correct" and task.record.name == "c"
            state = "failed" if fails else "done" if task.stage == "measure" else "waiting"
            records.append(replace(task.record, state=state))
        self.tasks = []
        return records

    def close(self) -> None: ...


def test_a_shape_that_fails_leaves_its_group_alone(monkeypatch, tmp_path: Path) -> None:
    monkeypatch.setattr(engine_grouped, "LocalEngine", Workers)
    monkeypatch.setattr(engine_grouped, "Worker", Group)
    engine = engine_grouped.GroupedEngine(ConvertJob(RECIPE, "native"), 2, Limits(math.inf, math.inf), 3)
    for name in "abc":
        record = Record(name, f"{name}.obj")
        engine.submit(Task(record, False, f"{name}.h5", str(tmp_path / name)))
    ended: dict[str, Record] = {}
    for _ in range(30):
        assert engine.busy == 3 - len(ended)
        ended |= {record.name: record for record in engine.wait()}
    assert {name: record.state for name, record in ended.items()} == {
        "a": "done",
        "b": "failed",
        "c": "failed",
    }
    assert "diverged" in str(ended["b"].reason)
    assert [work.get("corrected") for work in engine._fitter.given] == [
        None,
        [True, False, False],
        [True, False, False],
    ]
    assert engine._workers.forgotten == ["b"]
    corrections = [(name, number) for stage, name, number in engine._workers.seen if stage == "correct"]
    assert corrections == [("a", 1), ("c", 1), ("a", 2)]


def test_a_folder_that_cannot_be_listed_is_an_error_at_the_end(tmp_path, monkeypatch, coarse_metrics) -> None:
    """The other meshes are converted, and the command fails."""
    meshes = make_meshes(tmp_path / "meshes", 2, broken=False)
    (meshes / "closed").mkdir()
    listed = os.scandir

    def scandir(folder: Path):
        if str(folder).endswith("closed"):
            raise OSError(errno.EACCES, os.strerror(errno.EACCES), str(folder))
        return listed(folder)

    monkeypatch.setattr(os, "scandir", scandir)
    summary = run_batch(str(meshes), tmp_path / "out", JOB, Inline)
    assert (summary.counts.shapes, len(summary.unlisted)) == (2, 1)
    for arguments in ((), ("--dry-run",)):
        result = CliRunner().invoke(
            main, ["batch-convert", str(meshes), "-o", str(tmp_path / "out"), *OPTIONS, *arguments]
        )
        assert f"error: {meshes / 'closed'}: cannot be listed (Permission denied)" in result.stderr
        assert "its meshes are left out" in result.stderr
        assert result.exit_code == (0 if arguments else 1)
    closed = preview(str(meshes), tmp_path / "new", JOB, Inline)
    assert (closed.shapes, closed.unlisted) == (2, summary.unlisted)
