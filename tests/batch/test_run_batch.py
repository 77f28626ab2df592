"""A batch run: which shapes are converted, converted again, and kept."""

from __future__ import annotations

import errno
import json
import os
import socket
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from neuralsdf.batch import convert_job
from neuralsdf.batch.conversion_recipe import Recipe
from neuralsdf.batch.convert_job import ConvertJob, dataset_file
from neuralsdf.batch.dry_run import preview
from neuralsdf.batch.manifest import Manifest, read_manifest
from neuralsdf.batch.merge_shards import merge_shards
from neuralsdf.batch.output_folder import Folder
from neuralsdf.batch.run_batch import Summary, run_batch
from neuralsdf.batch.run_status import batch_status
from neuralsdf.batch.shape_record import Record
from neuralsdf.cli.main import main
from neuralsdf.errors import ManifestError, OutputError, UsageError
from neuralsdf.mesh.save_mesh import save_mesh
from neuralsdf.pipeline.convert import fit_mesh
from neuralsdf.program.network import Architecture
from neuralsdf.storage import save_field
from neuralsdf.storage.dataset import Dataset
from neuralsdf.training.fit_settings import Training
from neuralsdf.training.size_search import Target

from ..helpers import manifest_v1, shapes
from ..helpers.batch_runs import (
    JOB,
    OPTIONS,
    RECIPE,
    Inline,
    age,
    contents,
    make_meshes,
    states,
)


@pytest.fixture
def run(tmp_path: Path, quick_metrics: None) -> Callable[..., tuple[Summary, list[str]]]:
    """Run a batch; returns its summary and the sorted names of the shapes that were performed."""
    meshes = make_meshes(tmp_path / "meshes", 4)

    def run(out: str = "out", recipe: Recipe = RECIPE, **options: object) -> tuple[Summary, list[str]]:
        seen: list[str] = []
        job = ConvertJob(recipe)
        summary = run_batch(str(meshes), tmp_path / out, job, lambda: Inline(job, seen), **options)  # type: ignore[arg-type]
        return summary, sorted(seen)

    return run


def test_a_mesh_that_changes_while_it_is_read_fails_and_is_checked_again(
    tmp_path: Path, quick_metrics: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise the key could belong to other bytes than those read, if the old ones are restored in time."""
    mesh = tmp_path / "meshes/a.ply"
    mesh.parent.mkdir()
    save_mesh(mesh, *shapes.box(1, 2, 3))
    save_mesh(tmp_path / "other.ply", *shapes.box(2, 2, 2))
    age(mesh, monkeypatch)
    first, other = mesh.read_bytes(), (tmp_path / "other.ply").read_bytes()
    read = convert_job.fit_mesh

    def changed(source: str, **options: object) -> object:
        mesh.write_bytes(other)  # changed after the first read, and restored before the second
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


def test_unreadable_files_fail_with_a_reason_and_do_not_stop_the_run(
    tmp_path: Path, quick_metrics: None, monkeypatch: pytest.MonkeyPatch
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


def test_models_equal_those_of_convert(tmp_path: Path, run) -> None:
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


def test_finished_shapes_are_not_converted_again(
    tmp_path: Path, run, monkeypatch: pytest.MonkeyPatch
) -> None:
    age(tmp_path, monkeypatch)
    run()
    before = contents(tmp_path / "out"), (tmp_path / "out/dataset.h5").stat().st_mtime_ns
    summary, seen = run()
    assert (seen, summary.done_now, summary.failed_now, summary.counts.failed) == ([], 0, 0, 1)
    assert (contents(tmp_path / "out"), (tmp_path / "out/dataset.h5").stat().st_mtime_ns) == before
    assert run(retry_failed=True)[1] == ["broken.obj"]


def test_a_touched_file_is_read_and_a_changed_one_converted_again(
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

    (meshes / "box1.ply").write_text("ply")  # the model of a mesh that became invalid is removed
    run()
    assert states(tmp_path / "out")["box1.ply"] == ("failed", "error")
    assert not (models / "box1.ply.h5").exists()


def test_a_new_file_is_never_assumed_to_be_unchanged(tmp_path: Path, run) -> None:
    run()  # moments after the meshes were written: another change might leave the same times
    assert run()[1] == ALL


def test_removed_results_are_made_again(tmp_path: Path, run, monkeypatch: pytest.MonkeyPatch) -> None:
    age(tmp_path, monkeypatch)
    run()
    before = contents(tmp_path / "out")
    (tmp_path / "out/models/box1.ply.h5").unlink()
    (tmp_path / "out/models/box2.ply.h5").write_bytes(b"")
    assert run()[1] == ["box1.ply", "box2.ply"]
    (tmp_path / "out/dataset.h5").unlink()
    assert run()[1] == []
    assert contents(tmp_path / "out") == before


def test_new_meshes_are_converted_and_removed_ones_forgotten(
    tmp_path: Path, run, monkeypatch: pytest.MonkeyPatch
) -> None:
    age(tmp_path, monkeypatch)
    run()
    (tmp_path / "meshes/box1.ply").rename(tmp_path / "meshes/box9.ply")
    summary, seen = run()
    assert (seen, summary.removed) == (["box9.ply"], 1)
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
    with pytest.raises(UsageError, match=r"contains a run with hidden: \[8, 8\], not \[12, 12\]"):
        run(recipe=wider)
    summary, seen = run(recipe=wider, force=True)
    assert (seen, summary.done_now) == (ALL, 4)
    assert Dataset(tmp_path / "out/dataset.h5").architecture == wider.architecture
    assert run(recipe=wider)[1] == []
    for path in list((tmp_path / "meshes").rglob("*.*")):
        path.rename(path.with_name(f"new-{path.name}"))
    with pytest.raises(UsageError, match="none of these meshes"):
        run(recipe=wider)
    assert run(recipe=wider, force=True)[0].removed == 5


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
    assert sum("the fit failed: the field " in reason for reason in reasons.values()) == 4
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
    with pytest.raises(UsageError, match=r"contains a run with seed: 0, not 1"):
        run(shard=shard, recipe=replace(RECIPE, seed=1))


def test_a_run_removes_only_its_own_data_set_files(tmp_path: Path, run) -> None:
    out = tmp_path / "out"
    run()
    Dataset(out / "dataset.h5")[:2].save(out / "dataset-small.h5")
    stale = ["dataset-8x16-relu.h5", "dataset-16-8-tanh.h5"]
    for name in ("dataset_notes.h5", "dataset-8x16.h5", *stale):
        (out / name).write_text(name)
    before = (out / "dataset.h5").read_bytes()
    run()
    assert not any((out / name).exists() for name in stale)
    assert (out / "dataset_notes.h5").read_text() == "dataset_notes.h5"
    assert (out / "dataset-8x16.h5").exists()
    assert len(Dataset(out / "dataset-small.h5")) == 2
    assert (out / "dataset.h5").read_bytes() == before
    assert ConvertJob.finished(Folder(out)) == [out / "dataset.h5"]


@pytest.mark.parametrize("shards", [1, 2])
def test_a_failed_fit_that_an_earlier_version_accepted_counts_as_failed(
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
        assert "its IoU is 0.01, below 0.05; convert it again" in str(
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
    with pytest.raises(UsageError, match="without shards"):
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
    with pytest.raises(ManifestError, match="contains no shards"):
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


def test_a_preview_writes_nothing(tmp_path: Path, run, monkeypatch: pytest.MonkeyPatch) -> None:
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


def test_a_full_disk_ends_the_run(tmp_path: Path, run, monkeypatch: pytest.MonkeyPatch) -> None:
    run("whole")
    written = []

    def write_bytes(path: Path, data: bytes) -> None:
        written.append(path)
        if len(written) == 3:
            raise OSError(errno.ENOSPC, "No space left on device")
        with path.open("wb") as stream:
            stream.write(data)

    monkeypatch.setattr(Path, "write_bytes", write_bytes)
    with pytest.raises(OutputError, match=r"no space left on the disk; .*run the same command again"):
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


def test_a_shape_whose_process_is_killed_is_retried(tmp_path: Path, quick_metrics: None) -> None:
    meshes = make_meshes(tmp_path / "meshes", 1)
    engine = Killed(2)
    run_batch(str(meshes), tmp_path / "out", JOB, lambda: engine)
    assert states(tmp_path / "out")["sub/box0.ply"] == ("done", None)
    run_batch(str(meshes), tmp_path / "often", JOB, lambda: Killed(3))
    killed = [name for name, state in states(tmp_path / "often").items() if state == ("failed", "killed")]
    assert len(killed) == 1
    run_batch(str(meshes), tmp_path / "often", JOB, Inline)  # the next run retries it by default
    assert states(tmp_path / "often") == states(tmp_path / "out")


def test_a_folder_that_cannot_be_listed_is_an_error_at_the_end(tmp_path, monkeypatch, quick_metrics) -> None:
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
