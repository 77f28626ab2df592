"""The commands of latent models, from meshes to a reconstruction in the units of its input."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result
from PIL import Image

from neuralsdf.cli.commands.train_latent import _SETTINGS, _settings
from neuralsdf.cli.main import main
from neuralsdf.latent import quick
from neuralsdf.latent_fields.latent_field import LatentField
from neuralsdf.mesh.load_mesh import load_mesh
from neuralsdf.mesh.save_mesh import save_mesh
from neuralsdf.storage import load

from ..helpers import shapes

#: Options of a quick search for a code.
FAST = ("--iterations", 60, "--starts", 1, "--threads", 1)
#: Options of a training that takes no time.
TINY = (
    *("--layers", 4, "--width", 32, "--code", 4, "--shapes", 3, "--samples", 64, "--steps", 5),
    *("--set", "decoder.skip=2", "--threads", 1),
)


def run(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the meshes `shapes`, prepared as `prepared`, and the run `run`."""
    folder = tmp_path_factory.mktemp("latent")
    for i, height in enumerate((0.4, 0.6, 0.8, 1.0)):
        path = folder / f"shapes/box/train/{i}.ply"
        path.parent.mkdir(parents=True, exist_ok=True)
        save_mesh(path, *shapes.box(1, 1, height))
    path = folder / "shapes/box/test/tall.ply"
    path.parent.mkdir()
    save_mesh(path, *shapes.box(1, 1, 0.7))
    counts = ("--distances", 20000, "--occupancies", 5000, "--surface", 1000)
    prepared = run("prepare", folder / "shapes", "-o", folder / "prepared", *counts)
    assert prepared.exit_code == 0, prepared.output
    assert "5 of 5 shapes prepared" in prepared.stdout
    size = ("--layers", 4, "--width", 48, "--code", 4, "--shapes", 4, "--samples", 256, "--steps", 300)
    settings = ("decoder.skip=2", "decoder.dropout=0", "validation.shapes=0", "training.learning_rate=4e-3")
    values = (word for setting in settings for word in ("--set", setting))
    trained = run("train-latent", folder / "prepared", "-o", folder / "run", *size, *values, "--threads", 1)
    assert trained.exit_code == 0, trained.output
    return folder


def test_a_dry_run_prints_the_size(folder: Path) -> None:
    found = json.loads(run("prepare", folder / "shapes", "-o", folder / "no", "--dry-run", "--json").stdout)
    assert found["shapes"] == 5
    assert found["bytes_each"] == pytest.approx(2.8e6, rel=0.02)
    assert not (folder / "no").exists()


def test_a_rotated_scaled_mesh_is_reconstructed_in_its_own_units(folder: Path, tmp_path: Path) -> None:
    vertices, faces = shapes.box(1, 1, 0.7)
    save_mesh(tmp_path / "box.obj", 25 * vertices + [100, 0, -50], faces)
    out = tmp_path / "again.ply"
    found = run(
        "reconstruct", folder / "run", tmp_path / "box.obj", "-o", out, "--iterations", 100, "--threads", 1
    )
    assert found.exit_code == 0, found.output
    mesh = load_mesh(out)
    assert mesh.vertices.min(axis=0) == pytest.approx([75, -25, -67.5], abs=4)
    assert mesh.vertices.max(axis=0) == pytest.approx([125, 25, -32.5], abs=4)


def test_a_cloud_with_normals_is_reconstructed(folder: Path, tmp_path: Path) -> None:
    np.save(tmp_path / "cloud.npy", box_cloud(0.7, 3000))
    out = tmp_path / "cloud.h5"
    found = run(
        "reconstruct",
        folder / "run",
        tmp_path / "cloud.npy",
        "-o",
        out,
        "--bake",
        "--iterations",
        100,
        "--threads",
        1,
    )
    assert found.exit_code == 0, found.output
    inside = load(out).distance([[0, 0, 0], [0.7, 0.7, 0.4]])
    outside = load(out).distance([[0, 0, 0.9], [1.2, 0, 0]])
    assert (inside < 0).all()
    assert (outside > 0).all()


def test_a_code_and_its_baked_model_agree(folder: Path, tmp_path: Path) -> None:
    mesh = folder / "shapes/box/test/tall.ply"
    options = ("--iterations", 50, "--threads", 1)
    assert run("reconstruct", folder / "run", mesh, "-o", folder / "code.h5", *options).exit_code == 0
    assert (
        run("reconstruct", folder / "run", mesh, "-o", tmp_path / "baked.h5", "--bake", *options).exit_code
        == 0
    )
    code, baked = load(folder / "code.h5"), load(tmp_path / "baked.h5")
    assert isinstance(code, LatentField)
    points = np.random.default_rng(0).uniform(-1, 1, (1000, 3))
    assert code.distance(points) == pytest.approx(baked.distance(points), abs=1e-5)
    refused = run("reconstruct", folder / "run", mesh, "-o", tmp_path / "code.h5", *options)
    assert refused.exit_code != 0
    assert "--allow-outside" in refused.stderr


def test_an_interpolation_begins_and_ends_with_its_shapes(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "step.ply"
    found = run("interpolate", folder / "run", "box/train/0", "box/train/3.ply", "--steps", 3, "-o", out)
    assert found.exit_code == 0, found.output
    heights = [np.ptp(load_mesh(tmp_path / f"step-{i}.ply").vertices[:, 2]) for i in (1, 2, 3)]
    radius = np.sqrt([2.16, 3])  # of the enclosing balls, which are the unit ball in model space
    assert heights[::2] == pytest.approx([0.8 / radius[0], 2 / radius[1]], abs=0.15)
    assert heights[0] < heights[1] < heights[2]
    assert (
        run(
            "interpolate",
            folder / "run",
            "box/train/0",
            "box/train/3",
            "--steps",
            2,
            "-o",
            tmp_path / "a.gif",
        ).exit_code
        == 0
    )
    with Image.open(tmp_path / "a.gif") as animation:
        assert animation.n_frames == 2


def test_meshes_are_prepared_before_a_training_and_only_once(folder: Path, tmp_path: Path) -> None:
    """With --quick, the test shapes are reconstructed at the end."""
    command = (
        "train-latent",
        folder / "shapes",
        "--quick",
        "-o",
        tmp_path,
        *TINY,
    )
    found = run(*command)
    assert found.exit_code == 0, found.output
    assert f"5 meshes are prepared in {tmp_path}/prepared first" in found.stderr
    assert "no shapes to validate on: the decoder of the last step is kept" in found.stderr
    assert "1 test shapes: median IoU 0." in found.stdout
    assert "worst: box/test/tall.ply (IoU 0." in found.stdout
    with Image.open(tmp_path / "held_out.png") as picture:
        assert picture.width > 2 * 240
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "prepared/shapes").rglob("*.h5")}
    again = run(*command, "--json")
    result = json.loads(again.stdout)
    assert (result["steps"], result["validation"], list(result["test"]["ious"])) == (
        5,
        None,
        ["box/test/tall.ply"],
    )
    assert {path: path.stat().st_mtime_ns for path in before} == before


@pytest.mark.parametrize(("layers", "skip"), [(1, 0), (4, 2), (5, 4)])
def test_a_skip_that_does_not_fit_the_layers_is_moved(layers: int, skip: int) -> None:
    given = dict.fromkeys(_SETTINGS) | {"layers": layers}
    assert _settings("small", "deepsdf", None, (), given).decoder.skip == skip


def test_quick_without_a_data_set_makes_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("manifold3d")
    monkeypatch.setattr(quick, "SHAPES", 4)
    monkeypatch.setattr(quick, "TEST", 0.25)
    command = (
        "train-latent",
        "--quick",
        "-o",
        tmp_path,
        *TINY,
        "--class",
        "stool",
    )
    for _ in range(2):
        found = run(*command, "-q")
        assert found.exit_code == 0, found.output
        assert "1 test shapes: median IoU 0." in found.stdout
    assert len(list((tmp_path / "shapes/stool/train").iterdir())) == 3


def test_a_shape_that_does_not_exist_is_named(folder: Path, tmp_path: Path) -> None:
    found = run("interpolate", folder / "run", "box/train/0", "box/train/33", "-o", tmp_path / "a.gif")
    assert found.exit_code == 2
    assert "no such file" in found.stderr
    assert "no training shape 'box/train/33'; did you mean" in found.stderr


def test_an_interpolation_with_a_file_is_in_its_units(folder: Path, tmp_path: Path) -> None:
    vertices, faces = shapes.box(1, 1, 0.4)
    save_mesh(tmp_path / "box.obj", 25 * vertices + [100, 0, -50], faces)
    ends = ("3", tmp_path / "box.obj")
    found = run("interpolate", folder / "run", *ends, "-o", tmp_path / "a.ply", "--steps", 2, *FAST)
    assert found.exit_code == 0, found.output
    for name, height in (("a-1.ply", 50), ("a-2.ply", 20)):
        bounds = load_mesh(tmp_path / name).vertices
        assert np.mean([bounds.min(axis=0), bounds.max(axis=0)], axis=0) == pytest.approx(
            [100, 0, -50], abs=3
        )
        assert np.ptp(bounds[:, 2]) == pytest.approx(height, abs=12)


def box_cloud(height: float, count: int, low: float = -1.0) -> np.ndarray:
    """Points with normals (n, 6) of the box (2, 2, 2 height), those with x of at least `low`."""
    rng = np.random.default_rng(0)
    points, axis = rng.uniform(-1, 1, (count, 3)), rng.integers(0, 3, count)
    normals, rows = np.zeros((count, 3)), np.arange(count)
    normals[rows, axis] = points[rows, axis] = rng.choice([-1, 1], count)
    columns = np.hstack([points * [1, 1, height], normals])
    return columns[columns[:, 0] >= low]


def test_a_part_of_a_shape_is_completed_without_a_known_ball(folder: Path, tmp_path: Path) -> None:
    half = box_cloud(0.7, 4000, low=0.0)
    half[:, :3] = 40 * half[:, :3] + [500, -30, 7]
    np.save(tmp_path / "half.npy", half)
    known = np.diag([40 * np.sqrt(2 + 0.49)] * 3 + [1.0])
    known[:3, 3] = 500, -30, 7
    np.savetxt(tmp_path / "ball.txt", known)
    options = ("--iterations", 200, "--starts", 1, "--threads", 1, "--json")
    overlaps, transforms = [], []
    for name, how in (
        ("known", ("--partial", "--transform", tmp_path / "ball.txt")),
        ("fit", ("--fit-pose",)),
    ):
        out = tmp_path / f"{name}.h5"
        found = run("reconstruct", folder / "run", tmp_path / "half.npy", "-o", out, "--bake", *how, *options)
        assert found.exit_code == 0, found.output
        transforms.append(np.array(json.loads(found.stdout)["transform"]))
        points = np.random.default_rng(1).uniform(-1.4, 1.4, (20_000, 3))
        wanted = (np.abs(points) <= [1, 1, 0.7]).all(axis=1)
        inside = load(out).distance(40 * points + [500, -30, 7], bound=True) < 0
        overlaps.append((inside & wanted).sum() / (inside | wanted).sum())
    assert overlaps[0] > 0.85
    assert overlaps[1] > overlaps[0] - 0.05
    assert transforms[0] == pytest.approx(known)
    assert transforms[1] == pytest.approx(known, abs=6)  # a tenth of the radius


def test_a_folder_is_reconstructed_and_continued(folder: Path, tmp_path: Path) -> None:
    inputs, out = tmp_path / "in", tmp_path / "out"
    (inputs / "more").mkdir(parents=True)
    save_mesh(inputs / "a.obj", *shapes.box(1, 1, 0.7))
    np.save(inputs / "more/b.npy", box_cloud(0.5, 1000))
    np.savetxt(inputs / "bare.xyz", box_cloud(0.5, 1000)[:, :3])
    (inputs / "notes.md").write_text("not an input")
    command = ("reconstruct", folder / "run", inputs, "-o", out, "--format", "h5", "--bake", *FAST)
    first = run(*command)
    assert first.exit_code == 1
    (line,) = first.stderr.splitlines()
    assert "bare.xyz: has no normals" in line
    assert "2 of 3 inputs reconstructed, 1 failed" in first.stdout
    assert sorted(path.relative_to(out).as_posix() for path in out.rglob("*.*")) == ["a.h5", "more/b.h5"]
    times = [path.stat().st_mtime_ns for path in (out / "a.h5", out / "more/b.h5")]
    (out / "a.h5").unlink()
    (inputs / "bare.xyz").unlink()
    again = run(*command, "--json")
    assert again.exit_code == 0, again.output
    result = json.loads(again.stdout)
    assert [Path(one["output"]) for one in result["done"]] == [out / "a.h5"]
    assert result["kept"] == 1
    assert (out / "more/b.h5").stat().st_mtime_ns == times[1]
    assert run(*command, "--force").exit_code == 0
    assert (out / "more/b.h5").stat().st_mtime_ns != times[1]


def test_a_folder_can_be_written_into_itself(folder: Path, tmp_path: Path) -> None:
    save_mesh(tmp_path / "a.obj", *shapes.box(1, 1, 0.7))
    command = ("reconstruct", folder / "run", tmp_path, "-o", tmp_path / "out", *FAST)
    assert run(*command).exit_code == 0
    assert "0 of 1 inputs" in run(*command).stdout  # its results are not inputs


def test_an_evaluation_gives_the_metrics_of_each_shape(folder: Path) -> None:
    found = run(
        "evaluate-latent",
        folder / "run",
        folder / "prepared",
        "--points",
        2000,
        "--iterations",
        60,
        "--threads",
        1,
        "--json",
    )
    assert found.exit_code == 0, found.output
    result = json.loads(found.stdout)
    (shape,) = result["shapes"]
    assert shape["name"] == "box/test/tall.ply"
    assert shape["iou"] > 0.85
    assert 0 < shape["to_mesh_median"] < shape["to_mesh_p90"] < 0.1
    assert shape["chamfer_squared"] < 0.01
    assert result["means"]["all"]["iou"] == result["means"]["box"]["iou"] == shape["iou"]
    assert result["medians"]["all"]["iou"] == shape["iou"]
    assert shape["beyond_0.005"] >= shape["beyond_0.01"] >= shape["beyond_0.02"] >= shape["beyond_0.05"]
    assert result["picture"] == str(folder / "run/evaluation.png")
    with Image.open(result["picture"]) as picture:
        assert picture.size[0] > picture.size[1]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["train-latent", "{folder}/nothing", "-o", "{out}"], "no such folder, list or pattern"),
        (["train-latent", "{folder}/run", "-o", "{out}"], "no meshes"),
        (["train-latent", "-o", "{out}"], "Missing argument 'DATASET'; only --quick does without it"),
        (["train-latent", "{folder}/prepared", "-o", "{out}", "--device", "cuda"], "use --device cpu"),
        (["train-latent", "--quick", "-o", "{out}", "--preset", "paper"], "cannot be combined"),
        (["train-latent", "--quick", "-o", "{out}", "--class", "chiar"], "did you mean 'chair'"),
        (["train-latent", "{folder}/prepared", "-o", "{out}", "--class", "ball"], "its classes are box"),
        (["train-latent", "{folder}/prepared", "-o", "{out}", "--set", "training.step=3"], "training.steps"),
        (["train-latent", "{folder}/prepared", "-o", "{out}", "--width", "48"], "must be larger"),
        (["reconstruct", "{folder}/prepared", "{folder}/a.ply", "-o", "{out}.ply"], "no trained"),
        (["reconstruct", "{folder}/run", "{folder}/shapes/box/test/tall.ply", "-o", "{out}.xyz"], ".xyz"),
        (["evaluate-latent", "{folder}/run", "{folder}/prepared", "--split", "validation"], "only in"),
        (["evaluate-latent", "{folder}/run", "{folder}/prepared", "--class", "bax"], "its classes are box"),
        (
            ["evaluate-latent", "{folder}/run", "{folder}/prepared", "--picture", "a.bmp"],
            "unsupported format",
        ),
        (["reconstruct", "{folder}/run", "{tmp}/inward.npy", "-o", "{out}.ply"], "point inwards"),
        (
            [
                "reconstruct",
                "{folder}/run",
                "{tmp}/cloud.npy",
                "-o",
                "{out}.ply",
                "--transform",
                "{tmp}/inches.txt",
            ],
            "times the radius of the ball of --transform",
        ),
        (
            [
                "reconstruct",
                "{folder}/run",
                "{tmp}/cloud.npy",
                "-o",
                "{out}.ply",
                "--transform",
                "{tmp}/aside.txt",
            ],
            "radii from the centre of the ball of --transform",
        ),
        (
            [
                "reconstruct",
                "{folder}/run",
                "{tmp}/twice/a.obj",
                "-o",
                "{out}.ply",
                "--transform",
                "{tmp}/aside.txt",
            ],
            "--transform only applies to point clouds",
        ),
        (
            ["reconstruct", "{folder}/run", "{tmp}/twice/a.obj", "-o", "{out}.ply", "--fit-pose"],
            "--fit-pose only applies to point clouds",
        ),
        (["reconstruct", "{folder}/run", "{tmp}/empty", "-o", "{out}"], "no meshes or point clouds"),
        (["reconstruct", "{folder}/run", "{tmp}/twice", "-o", "{out}"], "rename one"),
        (["reconstruct", "{folder}/run", "{tmp}/twice", "-o", "{tmp}/twice"], "is the folder of the inputs"),
        (["reconstruct", "{folder}/run", "{tmp}/twice", "-o", "{out}.ply"], "name a folder"),
        (["reconstruct", "{folder}/run", "{tmp}/twice", "-o", "{out}", "--format", "h5"], "--bake"),
        (["reconstruct", "{folder}/run", "{tmp}/cloud.npy", "-o", "{tmp}/empty"], "name a file in it"),
        (
            ["reconstruct", "{folder}/run", "{tmp}/cloud.npy", "-o", "{out}.ply", "--format", "obj"],
            "--format",
        ),
    ],
)
def test_mistakes_are_reported_in_one_line(
    folder: Path, tmp_path: Path, arguments: list[str], said: str
) -> None:
    np.save(tmp_path / "cloud.npy", box_cloud(0.7, 500))
    np.save(tmp_path / "inward.npy", box_cloud(0.7, 500) * [1, 1, 1, -1, -1, -1])
    np.savetxt(tmp_path / "inches.txt", np.diag([1.6 / 39.37] * 3 + [1]))
    np.savetxt(tmp_path / "aside.txt", [[1.6, 0, 0, 9], [0, 1.6, 0, 0], [0, 0, 1.6, 0], [0, 0, 0, 1]])
    (tmp_path / "empty").mkdir()
    (tmp_path / "twice").mkdir()
    for suffix in ("obj", "stl"):
        save_mesh(tmp_path / f"twice/a.{suffix}", *shapes.box(1, 1, 1))
    found = run(*(word.format(folder=folder, tmp=tmp_path, out=tmp_path / "out") for word in arguments))
    assert found.exit_code != 0
    assert said in found.stderr
    assert len(found.stderr.strip().splitlines()) == 1
