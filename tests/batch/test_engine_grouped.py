"""Networks that are fitted in groups."""

from __future__ import annotations

import math
import os
import signal
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from neuralsdf.backends import get_backend
from neuralsdf.backends.batched_networks import Corrections, Fits, fit_many
from neuralsdf.batch import engine_grouped, perform_task
from neuralsdf.batch.convert_grouped import FitWork, StagedConvertJob
from neuralsdf.batch.convert_job import ConvertJob
from neuralsdf.batch.job import Task
from neuralsdf.batch.manifest import read_manifest
from neuralsdf.batch.resource_limits import Limits
from neuralsdf.batch.shape_record import Record
from neuralsdf.mesh.save_mesh import save_mesh
from neuralsdf.mesh.signed_distance import FACE_BYTES
from neuralsdf.pipeline.convert import Conversion
from neuralsdf.pipeline.prepare_mesh import Prepared, prepare, sample
from neuralsdf.pipeline.stage_times import Stages
from neuralsdf.program.network import Network, initialise
from neuralsdf.program.optimizer_settings import get_optimizer
from neuralsdf.program.sample_set import Samples
from neuralsdf.storage import open_field
from neuralsdf.training.fit import correction_steps
from neuralsdf.training.fit_settings import Training
from neuralsdf.training.learning_rate_schedule import learning_rates

from ..helpers import shapes
from ..helpers.batch_runs import (
    RECIPE,
    children,
    contents,
    done,
    finish,
    make_meshes,
    start,
    until,
)


def test_networks_fitted_together_do_not_depend_on_their_group(
    undisturbed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    meshes, _ = undisturbed
    groups = {}
    preparations = tmp_path / "preparations"

    def prepared() -> Counter[str]:
        return Counter(preparations.read_text().splitlines() if preparations.exists() else ())

    monkeypatch.setenv("PREPARATIONS", str(preparations))
    for size in (4, 100):
        out = tmp_path / str(size)
        arguments = (meshes, "-o", out, "--workers", 2, "--together", size, "--device", "cpu", "--epochs", 3)
        driver = start(*arguments)
        if size == 4:  # any process that samples, fits or measures
            moments = (
                lambda: len(prepared()) >= 1,
                lambda: len(prepared()) >= 5,  # while the first group is fitted
                lambda: done(out) >= 1,  # noqa: B023
            )
            for moment in moments:
                until(lambda: moment() or driver.poll() is not None)  # noqa: B023
                for worker in children(driver)[1:][-1:]:
                    os.kill(worker, signal.SIGKILL)
            driver.communicate()
            driver = start(*arguments)
        code, _, err = finish(driver)
        assert code == 1, err
        groups[size] = contents(out)
        counts = prepared()
        preparations.unlink()
    assert set(counts.values()) == {1}  # a mesh is prepared once for its four stages
    assert len(counts) == 11
    assert groups[4] == groups[100]
    assert len(groups[4]) == 11
    record = next(record for record in read_manifest(out) if record.state == "done")
    assert set(record.seconds) == {"load", "prepare", "sample", "fit", "measure"}

    field = open_field(out / f"models/{record.name}.h5")
    clock = Stages(None)
    shape = prepare(record.source, "winding", None, None, clock, get_backend())
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
    weights, _ = fit_many(fits, rates, backend=get_backend(), corrections=corrections)
    assert next(rngs, None) is None
    assert np.array_equal(field.network.weights, weights[0])


class Told:
    """Stands in for the pipe of the process that fits: corrections are drawn by a job in this process."""

    def __init__(self, draw: Callable[[list[bool]], list[bool]]) -> None:
        self.draw, self.drawn = draw, list[bool]()

    def send(self, correct: list[bool]) -> None:
        self.drawn = self.draw(correct)

    def receive(self) -> dict[str, list[bool]]:
        return {"corrected": self.drawn}


def grouped(meshes: list[Path], place: Path, max_kept: float) -> tuple[list[Record], Counter[str]]:
    """Convert meshes in stages in this process; also returns how often each was prepared."""
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
        return perform_task.perform(task, job, on_key=lambda key: None)

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


def test_a_cached_mesh_is_prepared_once_and_gives_the_same_model(tmp_path: Path, quick_metrics: None) -> None:
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


def test_a_changed_mesh_that_is_not_cached_fails(tmp_path: Path, quick_metrics: None) -> None:
    job = StagedConvertJob(replace(RECIPE, together=True), "native", 0)
    mesh = tmp_path / "a.ply"
    save_mesh(mesh, *shapes.box(1, 2, 3))
    task = Task(Record("a", str(mesh)), False, str(tmp_path / "a.h5"), str(tmp_path / "draft"), "sample")
    sampled = perform_task.perform(task, job, on_key=lambda key: None)
    assert sampled.state == "waiting"
    save_mesh(mesh, *shapes.box(2, 2, 2), force=True)
    task = replace(task, record=sampled, stage="correct", begun=True, number=1)
    record = perform_task.perform(task, job, on_key=lambda key: None)
    assert (record.state, record.key) == ("failed", None)
    assert "changed while it was read" in str(record.reason)


def test_every_stage_can_be_repeated(
    tmp_path: Path, quick_metrics: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As for a shape that needs too much memory beside cached ones; here at the end of each stage."""
    meshes = sorted(make_meshes(tmp_path / "meshes", 2, broken=False).rglob("*.ply"))
    grouped(meshes, tmp_path / "once", math.inf)
    stage, saved = StagedConvertJob._stage, StagedConvertJob.saved
    failed = set[str]()

    def fail_once(job: StagedConvertJob, task: Task) -> None:
        at = f"{task.record.name} {task.stage} {task.number}"
        if at not in failed and len(job.kept) > 1:
            failed.add(at)
            raise MemoryError

    def stage_then_fail(job: StagedConvertJob, task: Task) -> Record:
        record = stage(job, task)
        if task.stage != "measure":
            fail_once(job, task)
        return record

    def save_then_fail(job: StagedConvertJob, task: Task, made: Conversion) -> Record:
        record = saved(job, task, made)
        fail_once(job, task)
        return record

    monkeypatch.setattr(StagedConvertJob, "_stage", stage_then_fail)
    monkeypatch.setattr(StagedConvertJob, "saved", save_then_fail)
    again, prepared = grouped(meshes, tmp_path / "again", math.inf)
    assert [record.state for record in again] == ["done", "done"]
    assert {at.split()[1] for at in failed} == {"sample", "correct", "measure"}
    assert sum(prepared.values()) > 2
    for mesh in meshes:
        name = f"{mesh.name}.h5"
        assert (tmp_path / "again" / name).read_bytes() == (tmp_path / "once" / name).read_bytes()


def test_cached_meshes_are_released_if_memory_is_short(
    tmp_path: Path, quick_metrics: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = StagedConvertJob(replace(RECIPE, together=True), "native", math.inf)

    def sampled(name: str) -> Record:
        mesh = tmp_path / f"{name}.ply"
        save_mesh(mesh, *shapes.box(1, 2, 3))
        paths = str(tmp_path / f"{name}.h5"), str(tmp_path / name)
        task = Task(Record(name, str(mesh)), False, *paths, "sample")
        return perform_task.perform(task, job, on_key=lambda key: None)

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

    def send(self, **work: object) -> None:
        self.given.append(work)
        count = len(self.given)
        self.answers = [{"correct": [True, False, True]} if count < 3 else {"losses": [0.1, math.nan, 0.3]}]

    def poll(self) -> object:
        return self.answers.pop() if self.answers else None

    def kill(self) -> None: ...


class Workers:
    """Stand in for the processes that sample, correct and measure; the third shape's correction fails."""

    def __init__(self, *arguments: object) -> None:
        self.free, self.tasks, self.seen = 2, list[Task](), list[tuple[str, str, int]]()
        self.removed: list[str] = []

    def takes(self, task: Task) -> bool:
        return True

    def forget(self, name: str) -> None:
        self.removed.append(name)

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


def test_a_shape_that_fails_does_not_affect_its_group(monkeypatch, tmp_path: Path) -> None:
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
    assert engine._workers.removed == ["b"]
    corrections = [(name, number) for stage, name, number in engine._workers.seen if stage == "correct"]
    assert corrections == [("a", 1), ("c", 1), ("a", 2)]
