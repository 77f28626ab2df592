"""Trainings learn, continue after an interruption, and give the same result with several processes."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch

from neuralsdf.errors import BackendError, ModelError, OutputError, UsageError
from neuralsdf.latent import resources
from neuralsdf.latent.cache import Cache
from neuralsdf.latent.config import (
    DecoderSettings,
    Settings,
    TrainingSettings,
    ValidationSettings,
    parse_assignments,
    read_settings,
)
from neuralsdf.latent.event_file import EventFile
from neuralsdf.latent.inference import InferenceSettings, infer_code
from neuralsdf.latent.prepare import Counts, PrepareJob, prepare
from neuralsdf.latent.reconstruct import TrainedModel
from neuralsdf.latent.run_folder import RunFolder, read_codes, write_codes
from neuralsdf.latent.training import Progress, train
from neuralsdf.latent.validation import logged_validation, occupancy_iou
from neuralsdf.latent_fields.decoder_file import read_decoder
from neuralsdf.latent_fields.tensor_file import read_tensors, write_tensors
from neuralsdf.mesh.save_mesh import save_mesh

from ..helpers import shapes

#: A decoder that a test trains in seconds.
DECODER = DecoderSettings(layers=4, width=64, code=8, skip=2, dropout=0.0)


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Cache:
    """Three boxes and a ball to train on, one box for validation, a torus to test."""
    folder = tmp_path_factory.mktemp("shapes")
    meshes = {
        "train/flat": shapes.box(1, 1, 0.3),
        "train/long": shapes.box(0.4, 0.4, 1),
        "train/ball": shapes.sphere(),
        "train/thick": shapes.box(1, 1, 0.8),
        "val/middle": shapes.box(1, 1, 0.6),
        "test/torus": shapes.torus(0.7, 0.3),
    }
    for name, mesh in meshes.items():
        path = folder / f"{name}.ply"
        path.parent.mkdir(exist_ok=True)
        save_mesh(path, *mesh)
    out = tmp_path_factory.mktemp("cache")
    prepare(str(folder), out, PrepareJob(Counts(20_000, 10_000, 1000)), workers=2)
    return Cache(out)


def settings(steps: int, **training: Any) -> Settings:
    return Settings(
        decoder=DECODER,
        training=TrainingSettings(
            shapes=4, samples=256, steps=steps, epochs=0, learning_rate=2e-3, **training
        ),
        validation=ValidationSettings(shapes=1, iterations=20, every=10),
    )


def losses(run: Path) -> dict[int, float]:
    return {line["step"]: line["loss"] for line in RunFolder(run).read_log() if "loss" in line}


def tensors(run: Path) -> dict[str, npt.NDArray[Any]]:
    return read_tensors(run / "last.safetensors").tensors


@pytest.fixture(scope="module")
def trained(cache: Cache, tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("trained") / "run"
    train(cache, run, settings(40))
    return run


@pytest.mark.slow
def test_shapes_of_a_training_are_learned_and_found_again(cache: Cache, tmp_path: Path) -> None:
    many = settings(600, code_learning_rate=1e-2).updated(
        {"training": {"learning_rate": 4e-3}, "validation": {"shapes": 0}}, "test"
    )
    train(cache, tmp_path / "run", many)
    decoder = read_decoder(tmp_path / "run/decoder.safetensors")
    codes = read_codes(tmp_path / "run/codes.safetensors")
    inference = InferenceSettings(iterations=200, samples=512, learning_rate=2e-2, starts=3)
    for entry in cache.split("train"):
        shape = cache.shape(entry)
        assert occupancy_iou(decoder, codes[entry.name], shape) > 0.95, entry.name
        points, distances = shape.draw(8192, np.random.default_rng(0))
        found = infer_code(decoder, points, distances, inference, np.stack(list(codes.values())))
        assert occupancy_iou(decoder, found.code, shape) > 0.9, entry.name


def test_a_training_that_is_interrupted_continues_to_the_bit(
    cache: Cache, trained: Path, tmp_path: Path
) -> None:
    def interrupt(progress: Progress) -> None:
        if progress.step == 20:
            raise KeyboardInterrupt

    run = tmp_path / "run"
    with pytest.raises(KeyboardInterrupt):
        train(cache, run, settings(40), report=interrupt)
    train(cache, run, settings(40))
    assert losses(run) == losses(trained)
    for name, values in tensors(trained).items():
        assert np.array_equal(tensors(run)[name], values), name
    assert (run / "decoder.safetensors").read_bytes() == (trained / "decoder.safetensors").read_bytes()


def test_a_training_that_is_killed_after_a_checkpoint_continues_to_the_bit(
    cache: Cache, trained: Path, tmp_path: Path
) -> None:
    script = (
        "import os, signal, sys\n"
        "from neuralsdf.latent import training\n"
        "from neuralsdf.thread_count import set_threads\n"
        "from tests.latent.test_training import settings, Cache\n"
        "set_threads(1)\n"
        "training.CHECKPOINT_SECONDS = training.CHECKPOINT_COSTS = 0\n"
        "def kill(progress):\n"
        "    if progress.step == 20: os.kill(os.getpid(), signal.SIGKILL)\n"
        "training.train(Cache(sys.argv[1]), sys.argv[2], settings(40), report=kill)\n"
    )
    run = tmp_path / "run"
    done = subprocess.run(
        [sys.executable, "-c", script, cache.folder, run], cwd=Path(__file__).parents[2], check=False
    )
    assert done.returncode == -signal.SIGKILL
    train(cache, run, settings(40))
    assert losses(run) == losses(trained)
    for name, values in tensors(trained).items():
        assert np.array_equal(tensors(run)[name], values), name


def test_two_processes_train_what_one_trains(cache: Cache, trained: Path, tmp_path: Path) -> None:
    script = (
        "import sys\n"
        "from neuralsdf.thread_count import set_threads\n"
        "from tests.latent.test_training import settings, train, Cache\n"
        "set_threads(1)\n"
        "train(Cache(sys.argv[1]), sys.argv[2], settings(40))\n"
    )
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", script, cache.folder, tmp_path / "run"],
            cwd=Path(__file__).parents[2],
            env={
                **os.environ,
                "RANK": str(rank),
                "WORLD_SIZE": "2",
                "MASTER_ADDR": "127.0.0.1",
                "MASTER_PORT": port,
            },
        )
        for rank in range(2)
    ]
    assert [process.wait() for process in processes] == [0, 0]
    assert losses(tmp_path / "run") == pytest.approx(losses(trained), rel=1e-3)
    # Adam divides by the gradient's own size, so rounding in a tiny gradient moves a weight by up to a step.
    for name, values in tensors(trained).items():
        if not name.startswith("exp_avg"):
            assert np.abs(tensors(tmp_path / "run")[name] - values).mean() < 1e-3, name


def test_a_run_continues_only_with_its_own_settings_and_shapes(cache: Cache, trained: Path) -> None:
    with pytest.raises(UsageError, match=r"with other settings \(steps: 40, not 50\)"):
        train(cache, trained, settings(50))
    with pytest.raises(ModelError, match="checkpoint of another model"):
        train(cache, trained, settings(40).updated({"decoder": {"width": 32}}, "test"))


def test_a_running_training_is_not_interrupted(cache: Cache, tmp_path: Path) -> None:
    with RunFolder(tmp_path).locked(), pytest.raises(OutputError, match="another training is running"):
        train(cache, tmp_path, settings(40))


def test_a_truncated_checkpoint_is_named(cache: Cache, trained: Path, tmp_path: Path) -> None:
    content = (trained / "last.safetensors").read_bytes()
    (tmp_path / "last.safetensors").write_bytes(content[:-100])
    with pytest.raises(ModelError, match=r"last\.safetensors"):
        train(cache, tmp_path, settings(40))


def test_training_stops_when_validation_does_not_improve(cache: Cache, tmp_path: Path) -> None:
    still = settings(200, code_learning_rate=1e-12).updated(
        {"training": {"learning_rate": 1e-12}, "validation": {"patience": 2}}, "test"
    )
    found = train(cache, tmp_path, still)
    assert found.stopped_early
    assert (found.steps, found.best_step) == (30, 10)


def test_the_end_of_a_training_names_the_shapes_of_its_best_validation(cache: Cache, trained: Path) -> None:
    """Also if the training had ended before."""
    found = train(cache, trained, settings(40))
    lines = {line["step"]: line for line in RunFolder(trained).read_log() if "validation_iou" in line}
    assert found.best_iou == max(line["validation_iou"] for line in lines.values())
    assert found.validation is not None
    assert found.validation.worst == [("val/middle.ply", lines[found.best_step]["validation_iou"])]


def test_without_validation_the_last_decoder_is_kept(cache: Cache, tmp_path: Path) -> None:
    none = settings(30).updated({"validation": {"shapes": 0}}, "test")
    found = train(cache, tmp_path, none)
    assert (found.best_step, found.validation) == (30, None)


def test_the_log_is_written_for_tensorboard(cache: Cache, trained: Path) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_file_loader import EventFileLoader

    (path,) = (trained / "tensorboard").iterdir()
    events = list(EventFileLoader(str(path)).Load())
    found = {
        (event.step, value.tag): value.tensor.float_val[0]
        for event in events
        for value in event.summary.value
    }
    lines = RunFolder(trained).read_log()
    wanted = {
        (line["step"], name): value
        for line in lines
        for name, value in line.items()
        if isinstance(value, float)
    }
    assert found == pytest.approx(wanted, rel=1e-6)


def test_a_training_that_continues_drops_later_events(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    for first in (0, 20):
        events = EventFile(tmp_path, first)
        for step in (20, 40, 60):
            if step > first:
                events.write(step, {"loss": float(step + first)})
        events.close()
    found = EventAccumulator(str(tmp_path)).Reload().Scalars("loss")
    assert [(event.step, event.value) for event in found] == [(20, 20), (40, 60), (60, 80)]


def test_a_broken_tensorboard_does_not_stop_the_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "tensorboard.compat.proto", None)
    events = EventFile(tmp_path / "events", 0)
    events.write(1, {"loss": 1.0})
    events.close()
    assert not (tmp_path / "events").exists()


def test_hidden_values_in_bfloat16_train_alike(cache: Cache, trained: Path, tmp_path: Path) -> None:
    low = settings(40).updated({"training": {"precision": "bf16"}}, "test")
    train(cache, tmp_path / "run", low, device="cpu")
    assert losses(tmp_path / "run") != losses(trained)
    assert losses(tmp_path / "run") == pytest.approx(losses(trained), rel=0.02)
    assert {values.dtype for values in tensors(tmp_path / "run").values()} == {np.dtype(np.float32)}


def test_the_precision_that_auto_stands_for_is_kept(trained: Path) -> None:
    assert 'precision = "f32"' in (trained / "config.toml").read_text()


@pytest.mark.skipif(torch.cuda.is_available(), reason="with a GPU it trains there")
def test_a_missing_gpu_is_reported_in_one_line(cache: Cache, tmp_path: Path) -> None:
    with pytest.raises(BackendError, match=r"`device='cuda'`: .*; use `device='cpu'`$"):
        train(cache, tmp_path / "run", settings(10), device="cuda")
    with pytest.raises(UsageError, match="one of auto, cpu, cuda"):
        train(cache, tmp_path / "run", settings(10), device="gpu")
    assert not (tmp_path / "run").exists()


def test_too_little_memory_and_space_are_reported_before_the_training(
    cache: Cache, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    huge = settings(10).updated({"decoder": {"width": 4096}, "training": {"samples": 1 << 20}}, "test")
    monkeypatch.setattr(resources, "_available_memory", lambda device: 10**9)
    with pytest.raises(UsageError, match=r"needs about [\d.e+]+ GB of memory, and has 1 GB; set a smaller"):
        train(cache, tmp_path, huge)
    monkeypatch.setattr(resources.shutil, "disk_usage", lambda path: SimpleNamespace(free=1000))
    with pytest.raises(
        OutputError, match=r"needs about 0\.\d+ MB for checkpoints, and its disk has 0.001 MB"
    ):
        train(cache, tmp_path, settings(10))
    assert not (tmp_path / "log.jsonl").exists()


def test_a_run_takes_the_space_that_was_counted(trained: Path) -> None:
    sizes = {path.name: path.stat().st_size for path in trained.glob("*.safetensors")}
    most = sum(sizes.values()) + sizes["last.safetensors"]  # while one is written
    assert 0.9 * most < resources.disk_needed(settings(40), 4) < 1.3 * most


def test_a_class_with_only_test_shapes_is_named(cache: Cache, tmp_path: Path) -> None:
    only = Cache(cache.folder)
    only.entries = tuple(entry._replace(category="box", split="test") for entry in cache.entries)
    with pytest.raises(UsageError, match="has 0 training shapes of the class 'box'"):
        train(only, tmp_path / "run", settings(10), category="box")


def test_one_shape_is_too_few(tmp_path: Path) -> None:
    folder = tmp_path / "shapes/only"
    folder.mkdir(parents=True)
    save_mesh(folder / "a.ply", *shapes.box(1, 1, 1))
    prepare(str(tmp_path / "shapes"), tmp_path / "cache", PrepareJob(Counts(1000, 1000, 1000)), workers=1)
    cache = Cache(tmp_path / "cache")
    with pytest.raises(UsageError, match="has 1 training shapes, and a latent model needs two;"):
        train(cache, tmp_path / "run", settings(10))
    with pytest.raises(UsageError, match="no class 'chair'; its classes are only"):
        train(cache, tmp_path / "run", settings(10), category="chair")


def test_settings_survive_a_file(tmp_path: Path) -> None:
    path = tmp_path / "config.toml"
    wanted = settings(123, seed=7)
    path.write_text(wanted.to_toml())
    assert read_settings(path, Settings()) == wanted
    assert json.loads(json.dumps(parse_assignments(["training.steps=5", 'model="deepsdf"']))) == {
        "training": {"steps": 5},
        "model": "deepsdf",
    }


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"training": {"step": 5}}, "unknown setting `training.step`; did you mean `training.steps`"),
        ({"trainign": {}}, "did you mean `training`"),
        ({"training": {"steps": "many"}}, "`training.steps` is a whole number, not 'many'"),
        ({"training": 3}, "`training` is a section"),
        ({"decoder": {"dropout": 1.0}}, "`dropout` is at least 0 and below 1"),
        ({"decoder": {"skip": 9}}, "skip"),
        ({"training": {"steps": 5, "epochs": 5}}, "`steps` or `epochs`, not both"),
    ],
)
def test_wrong_settings_are_named(values: dict[str, Any], said: str) -> None:
    with pytest.raises(UsageError) as error:
        Settings().updated(values, "config.toml")
    assert said in str(error.value)
    assert str(error.value).startswith("config.toml: ")


@pytest.mark.parametrize(
    "position", [{"step": -5}, {"step": 10**30}, {"best": float("inf")}, {"seconds": 10**400}, {"losses": 5}]
)
def test_a_checkpoint_with_an_impossible_position_is_named(
    position: dict[str, Any], cache: Cache, trained: Path, tmp_path: Path
) -> None:
    content = read_tensors(trained / "last.safetensors")
    values = json.dumps(json.loads(content.metadata["position"]) | position)
    metadata = dict(content.metadata) | {"position": values}
    write_tensors(tmp_path / "last.safetensors", content.tensors, metadata)
    with pytest.raises(ModelError, match=r"last\.safetensors"):
        train(cache, tmp_path, settings(40))


@pytest.mark.parametrize(
    "value", [{"validation_iou": "x"}, {"validation_ious": [1]}, {"validation_ious": {"a": "b"}}]
)
def test_damaged_lines_of_a_log_are_no_validations(value: dict[str, Any]) -> None:
    line = {"step": 5, "validation_iou": 0.5, "validation_loss": 0.1, "validation_ious": {"a": 0.5}}
    assert logged_validation([line], 5) is not None
    assert logged_validation([line | value], 5) is None


@pytest.mark.parametrize(
    ("codes", "names"),
    [
        (np.zeros((1, 5)), ["a"]),
        (np.zeros((0, 8)), []),
        (np.zeros((1, 8)), [""]),
        (np.zeros((1, 8)), ["a//b"]),
    ],
)
def test_codes_of_another_decoder_are_named(
    codes: npt.NDArray[Any], names: list[str], trained: Path, tmp_path: Path
) -> None:
    (tmp_path / "decoder.safetensors").write_bytes((trained / "decoder.safetensors").read_bytes())
    write_codes(tmp_path / "codes.safetensors", codes.astype(np.float32), names)
    with pytest.raises(ModelError, match=r"codes\.safetensors"):
        TrainedModel.open(tmp_path)


@pytest.mark.parametrize(
    "assignments",
    [
        ["training=5"], ["decoder=[1]"],
        ["training=1", "training.steps=2"], ["training.steps=2", "training=1"],
        ["training.samples=" + "9" * 5000], ["codes.bound=" + "9" * 400], ["training.steps=" + "[" * 100_000],
    ],
)  # fmt: skip
def test_impossible_settings_are_errors_in_words(assignments: list[str]) -> None:
    with pytest.raises(UsageError):
        Settings().updated(parse_assignments(assignments), "settings")
