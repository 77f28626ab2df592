"""Prepared data sets: the samples are true, the same for every run, and checked when they are read."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest

from neuralsdf.errors import FileError, ModelError, UsageError
from neuralsdf.latent.cache import BOX_HALF, MODEL_RADIUS, Cache, from_fixed, to_fixed
from neuralsdf.latent.prepare import Counts, PrepareJob, is_prepared, prepare
from neuralsdf.latent.shape_list import classified, with_labels, with_splits
from neuralsdf.mesh.save_mesh import save_mesh

from ..helpers import shapes

COUNTS = Counts(2000, 4000, 1000)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six meshes: four balls of two classes, a box, and a file that is not a mesh."""
    folder = tmp_path_factory.mktemp("dataset")
    for name in ("ball/train/a.ply", "ball/train/b.ply", "ball/test/c.ply", "box/d.ply", "box/e.ply"):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        mesh = shapes.sphere() if "ball" in name else shapes.box(1, 2, 4)
        save_mesh(path, 3 * mesh[0] + [5, 0, 0], mesh[1])
    (folder / "box/broken.obj").write_text("f 1 2 3\n")
    return folder


@pytest.fixture(scope="module")
def cache(dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> Cache:
    folder = tmp_path_factory.mktemp("cache")
    summary = prepare(str(dataset), folder, PrepareJob(COUNTS), workers=2)
    assert (summary.counts.done, summary.counts.failed) == (5, 1)
    return Cache(folder)


def test_the_index_has_classes_and_splits(cache: Cache) -> None:
    found = {entry.name: (entry.category, entry.split) for entry in cache.entries}
    assert found["ball/train/a.ply"] == ("ball", "train")
    assert found["ball/test/c.ply"] == ("ball", "test")
    assert sorted(found[f"box/{name}.ply"][1] for name in "de") == ["test", "train"]
    assert "box/broken.obj" not in found
    assert all(entry.source.is_file() for entry in cache.entries)


def test_distances_of_a_ball_are_true_at_the_stored_points(cache: Cache) -> None:
    shape = cache.shape(cache.entries[0])
    points = from_fixed(shape.samples.distance_points, MODEL_RADIUS)
    true = np.linalg.norm(points, axis=1) - 1  # of the ball; the icosphere is a little smaller
    assert shape.samples.distances == pytest.approx(true, abs=3e-3)
    inside = shape.prepared.inside
    assert (shape.samples.distances[:inside] < 0).all()
    assert (shape.samples.distances[inside:] >= 0).all()


def test_a_ball_fills_its_share_of_the_padded_box(cache: Cache) -> None:
    points, inside = cache.shape(cache.entries[0]).occupancies()
    share = math.pi / 6 / (2 * BOX_HALF) ** 3
    assert inside.mean() == pytest.approx(share, abs=4 * math.sqrt(share / len(points)))
    assert np.abs(points).max() == pytest.approx(BOX_HALF, abs=1e-3)
    clear = np.abs(np.linalg.norm(points, axis=1) - 0.5) > 0.003
    assert (inside == (np.linalg.norm(points, axis=1) < 0.5))[clear].all()


def test_surface_points_of_a_ball_are_on_it_with_outward_normals(cache: Cache) -> None:
    points, normals = cache.shape(cache.entries[0]).surface()
    assert np.linalg.norm(points, axis=1) == pytest.approx(1, abs=3e-3)
    assert np.einsum("ij,ij->i", points, normals) == pytest.approx(1, abs=5e-3)


def test_half_of_the_samples_drawn_are_inside(cache: Cache) -> None:
    points, distances = cache.shape(cache.entries[0]).draw(500, np.random.default_rng(0))
    assert np.count_nonzero(distances < 0) == 250
    assert distances == pytest.approx(np.linalg.norm(points, axis=1) - 1, abs=3e-3)


def test_fixed_point_numbers_are_exact_to_half_a_step() -> None:
    points = np.random.default_rng(0).uniform(-1.05, 1.05, (1000, 3))
    assert from_fixed(to_fixed(points, 1.05), 1.05) == pytest.approx(points, abs=0.51 * 1.05 / 32767)


def test_the_same_data_set_gives_the_same_bytes(dataset: Path, cache: Cache, tmp_path: Path) -> None:
    prepare(str(dataset), tmp_path, PrepareJob(COUNTS), workers=1)
    for entry in cache.entries:
        name = f"shapes/{entry.name}.h5"
        assert (tmp_path / name).read_bytes() == (cache.folder / name).read_bytes()
    other = [json.loads((folder / "cache.json").read_text()) for folder in (tmp_path, cache.folder)]
    assert [shape[:3] for shape in other[0]["shapes"]] == [shape[:3] for shape in other[1]["shapes"]]


def test_classes_and_splits_come_from_the_folders() -> None:
    names = ["a.ply", "chair/x.ply", "psb/ant/Train/y.off", "psb/ant/val/z.off"]
    assert [shape[1:] for shape in classified(names)] == [
        ("shapes", ""), ("chair", ""), ("ant", "train"), ("ant", "validation"),
    ]  # fmt: skip


def test_a_list_gives_splits_and_classes(dataset: Path, tmp_path: Path) -> None:
    """They override the folders; after a change of the split, nothing is prepared again."""
    path, out = tmp_path / "list.txt", tmp_path / "out"
    lines = ["ball/train/a.ply test round", "ball/test/c.ply\ttrain", "# box/e.ply", "box/d.ply"]
    path.write_text("".join(f"{dataset}/{line}\n" if line[0] != "#" else f"{line}\n" for line in lines))
    job = PrepareJob(Counts(1000, 1000, 1000))
    assert prepare(str(path), out, job, workers=1).done_now == 3
    found = {Path(entry.name).name: (entry.category, entry.split) for entry in Cache(out).entries}
    assert found == {"a.ply": ("round", "test"), "c.ply": ("ball", "train"), "d.ply": ("box", "train")}
    path.write_text(path.read_text().replace("test round", "val"))
    assert prepare(str(path), out, job, workers=1).done_now == 0
    assert [entry.name[-5:] for entry in Cache(out).split("validation")] == ["a.ply"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("tarin",), "c/a.ply has the split 'tarin'; it is one of train, test, validation"),
        (("train", "a", "b"), "c/a.ply is followed by 'train a b'; write a split"),
    ],
)
def test_other_words_in_a_list_are_refused(words: tuple[str, ...], said: str) -> None:
    with pytest.raises(UsageError) as error:
        with_labels(classified(["c/a.ply"]), {"c/a.ply": words}, "list.txt")
    assert str(error.value).startswith(f"list.txt: {said}")


def test_a_data_set_whose_preparation_was_stopped_is_not_a_data_set_of_meshes(
    dataset: Path, cache: Cache, tmp_path: Path
) -> None:
    assert is_prepared(str(cache.folder))
    assert not is_prepared(str(dataset))
    (tmp_path / "shapes").mkdir()
    (tmp_path / "manifest.sqlite").touch()
    with pytest.raises(FileError, match="not prepared to its end; continue with neuralsdf prepare"):
        is_prepared(str(tmp_path))


def test_a_missing_split_depends_on_names_and_seed_only() -> None:
    shapes = classified([f"c/{i}.ply" for i in range(20)])
    split = with_splits(shapes, 0.2, 1)
    assert sum(shape.split == "test" for shape in split) == 4
    assert with_splits(shapes[::-1], 0.2, 1) == split[::-1]
    assert with_splits(shapes, 0.2, 2) != split
    assert [shape.split for shape in with_splits(shapes[:1], 0.2, 1)] == ["train"]
    with pytest.raises(UsageError, match="test_fraction"):
        with_splits(shapes, 1.5, 1)


def test_a_folder_without_an_index_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FileError, match="holds no prepared data set; make one"):
        Cache(tmp_path)
    (tmp_path / "cache.json").write_text('{"format": "other"}')
    with pytest.raises(FileError, match="is damaged"):
        Cache(tmp_path)
    index = {"format": "neuralsdf cache", "version": 1, "shapes": [["../x", "a", "train", "x"]]}
    (tmp_path / "cache.json").write_text(json.dumps(index))
    with pytest.raises(FileError, match="outside the folder"):
        Cache(tmp_path)


@pytest.mark.parametrize("size", [0, 100, 3000, -8])
def test_a_truncated_shape_is_refused(cache: Cache, tmp_path: Path, size: int) -> None:
    entry = cache.entries[0]
    content = (cache.folder / f"shapes/{entry.name}.h5").read_bytes()
    path = tmp_path / "shapes" / f"{entry.name}.h5"
    path.parent.mkdir(parents=True)
    path.write_bytes(content[:size])
    (tmp_path / "cache.json").write_text((cache.folder / "cache.json").read_text())
    with pytest.raises(ModelError, match=r"\.ply\.h5"):
        _ = Cache(tmp_path).shape(entry).samples
