"""Data sets of parametric shapes: layout, bytes, splits, and what is refused or left after a failure."""

from __future__ import annotations

import json
import multiprocessing
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

pytest.importorskip("manifold3d")

from neuralsdf.errors import NeuralSDFError, OutputError, UsageError
from neuralsdf.latent.parametric import dataset
from neuralsdf.latent.parametric.dataset import DESCRIPTION, in_test_split, make_dataset
from neuralsdf.latent.parametric.families import FAMILIES
from neuralsdf.mesh.load_mesh import load_mesh
from neuralsdf.mesh.part_labels import load_labels

CLASSES = ["table", "car"]


def content(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("made") / "new" / "shapes"
    make_dataset(folder, count=5, seed=7, classes=CLASSES, workers=2)
    return folder


@pytest.fixture
def described(made: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((made / DESCRIPTION).read_text())
    return found


def test_the_layout_is_class_and_split(made: Path, described: dict[str, Any]) -> None:
    assert sorted(content(made)) == sorted([DESCRIPTION, *(shape["file"] for shape in described["shapes"])])
    assert [shape["name"] for shape in described["shapes"]] == [
        f"{name}_{index:05}" for name in CLASSES for index in range(5)
    ]
    for shape in described["shapes"]:
        assert shape["file"] == f"{shape['class']}/{shape['split']}/{shape['name']}.ply"
    splits = [shape["split"] for shape in described["shapes"]]
    assert splits == 2 * ["train", "train", "test", "train", "train"]
    assert described["seed"] == 7


def test_each_file_has_the_shape_of_its_parameters(made: Path, described: dict[str, Any]) -> None:
    for entry in described["shapes"]:
        family = FAMILIES[entry["class"]]
        shape = family.shape(entry["parameters"])
        mesh, labels = load_mesh(made / entry["file"]), load_labels(made / entry["file"])
        assert np.array_equal(mesh.vertices, shape.mesh.vertices.astype(np.float32))
        assert labels.vertices is not None
        assert labels.faces is not None
        assert np.array_equal(labels.vertices, shape.mesh.vertex_labels)
        assert np.array_equal(labels.faces, shape.mesh.face_labels)
        assert entry["parts"] == sorted(set(labels.faces.tolist()))
        assert described["classes"][entry["class"]]["parts"] == list(family.parts)
        assert (entry["vertices"], entry["faces"]) == (len(mesh.vertices), len(mesh.faces))
        assert entry["fraction"] == pytest.approx(shape.fraction, abs=1e-6)


def test_bytes_depend_on_the_seed_but_not_on_workers_count_and_classes(made: Path, tmp_path: Path) -> None:
    make_dataset(tmp_path / "one", count=5, seed=7, classes=CLASSES, workers=1)
    assert content(tmp_path / "one") == content(made)
    make_dataset(tmp_path / "part", count=3, seed=7, classes=["car"], workers=1)
    part = content(tmp_path / "part")
    del part[DESCRIPTION]
    assert part.items() <= content(made).items()
    make_dataset(tmp_path / "other", count=3, seed=8, classes=["car"], workers=1)
    assert not set(part.values()) & set(content(tmp_path / "other").values())


@pytest.mark.parametrize("test", [0.0, 0.1, 0.2, 1 / 3, 0.5, 0.9])
def test_splits_have_the_fraction_to_the_nearest_shape(test: float) -> None:
    is_test = np.array([in_test_split(index, test) for index in range(1000)])
    counts = np.cumsum(is_test)
    assert np.abs(counts - test * np.arange(1, 1001)).max() <= 0.5 + 1e-6
    assert not in_test_split(0, min(test, 0.5))


def test_the_summary_counts_what_was_made(tmp_path: Path) -> None:
    steps: list[tuple[int, int]] = []
    (summary,) = make_dataset(
        tmp_path / "out",
        count=3,
        classes=["bookshelf", "bookshelf"],
        workers=1,
        report=lambda *at: steps.append(at),
    )
    assert (summary.name, summary.train, summary.test) == ("bookshelf", 2, 1)
    assert steps == [(1, 3), (2, 3), (3, 3)]
    assert all(0.03 <= fraction <= 0.15 for fraction in summary.fractions)
    assert len(summary.faces) == 3


def test_only_a_data_set_is_replaced_and_only_with_force(tmp_path: Path) -> None:
    out, small = tmp_path / "out", {"count": 1, "classes": ["car"], "workers": 1}
    out.mkdir()
    make_dataset(out, **small)  # an empty folder is filled
    before = content(out)
    with pytest.raises(OutputError, match=r"holds a data set already; replace it with `force=True`"):
        make_dataset(out, **small)
    make_dataset(out, **small | {"classes": ["table"]}, force=True)
    assert {path.split("/")[0] for path in content(out)} == {"table", DESCRIPTION}
    (out / "notes.txt").write_text("mine")
    with pytest.raises(OutputError, match=r"also holds files of others \(notes.txt\); move them elsewhere"):
        make_dataset(out, **small, force=True)
    (out / DESCRIPTION).write_text('{"format": "another"}')
    with pytest.raises(OutputError, match="is not empty, and no data set of parametric shapes"):
        make_dataset(out, **small, force=True)
    with pytest.raises(OutputError, match="is a file, not a folder"):
        make_dataset(out / "notes.txt", **small, force=True)
    assert set(before) & set(content(out)) == {DESCRIPTION}


@pytest.mark.parametrize("existed", [False, True])
def test_an_interrupted_run_keeps_existing_files(tmp_path: Path, existed: bool) -> None:
    out = tmp_path / "new" / "out"
    if existed:
        make_dataset(out, count=1, classes=["car"], workers=1)
    before = content(tmp_path)

    def interrupt(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        make_dataset(out, count=3, classes=["car"], workers=1, force=True, report=interrupt)
    assert content(tmp_path) == before
    assert (tmp_path / "new").exists() == existed


def test_too_little_space_is_reported_before_any_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=10**9))
    with pytest.raises(OutputError, match=r"160,000 shapes need about 25\.6 GB, and 1 GB are free there"):
        make_dataset(tmp_path / "out", count=10_000)
    assert list(tmp_path.iterdir()) == []


def test_the_space_allowed_for_a_shape_is_not_exceeded_on_average() -> None:
    sizes = []
    for name in ("vase", "goblet"):  # the largest
        for index in range(5):
            mesh = FAMILIES[name].draw(0, index).mesh
            sizes.append(13 * len(mesh.vertices) + 14 * len(mesh.faces))
    assert np.mean(sizes) < dataset.BYTES_PER_SHAPE


def test_invalid_arguments_are_reported_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no class 'chiar'; did you mean 'chair'"):
        make_dataset(tmp_path / "out", count=1, classes=["chiar"])
    with pytest.raises(UsageError, match="no class 'x'; one of chair, stool"):
        make_dataset(tmp_path / "out", count=1, classes=["x"])
    for wrong in ({"count": 0}, {"count": 1, "test": 1.0}, {"count": 1, "test": float("nan")}):
        with pytest.raises(UsageError, match="`count="):
            make_dataset(tmp_path / "out", **wrong)
    assert list(tmp_path.iterdir()) == []


def test_a_worker_that_fails_or_dies_ends_the_run(tmp_path: Path) -> None:
    small = {"count": 2, "classes": ["car"], "workers": 1}

    def remove(done: int, total: int) -> None:
        shutil.rmtree(tmp_path / ".out.unfinished" / "car")

    def kill(done: int, total: int) -> None:
        for child in multiprocessing.active_children():
            child.kill()

    with pytest.raises(NeuralSDFError, match=r"car_00001.ply: its folder does not exist"):
        make_dataset(tmp_path / "out", **small, report=remove)
    with pytest.raises(NeuralSDFError, match=r"^car_00001: its process was killed"):
        make_dataset(tmp_path / "out", **small, report=kill)
    assert list(tmp_path.iterdir()) == []
