"""The commands on a field of which only the sign is meaningful: its values are not reported as lengths."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result
from PIL import Image

from neuralsdf import storage
from neuralsdf.cli.main import main
from neuralsdf.errors import FieldKindError
from neuralsdf.fields.field import NeuralField
from neuralsdf.geometry.similarity_transform import Similarity
from neuralsdf.mesh.load_mesh import load_mesh
from neuralsdf.mesh.save_mesh import save_mesh
from neuralsdf.program.network import Architecture, Network

SIZE = 0.7
VOLUME = 4 / 3 * (10 * SIZE) ** 3
OCTAHEDRON = (
    5 + 10 * SIZE * np.concatenate([np.eye(3), -np.eye(3)]),
    np.array([[0, 1, 2], [1, 3, 2], [3, 4, 2], [4, 0, 2], [1, 0, 5], [3, 1, 5], [4, 3, 5], [0, 4, 5]]),
)


def logits() -> NeuralField:
    """Logits 50 (|x| + |y| + |z| - 0.7) as a network; in mesh space 10 wide about (5, 5, 5)."""
    kernel = np.hstack([np.eye(3), -np.eye(3)]).ravel()
    weights = np.concatenate([kernel, np.zeros(6), np.full(6, 50.0), [-50 * SIZE]])
    network = Network(Architecture((6,), output="linear"), weights.astype(np.float32))
    return NeuralField(network, Similarity.from_ball([5, 5, 5], 10), kind="occupancy")


@pytest.fixture
def model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(storage, "open_field", lambda path, **options: logits())
    save_mesh("octahedron.obj", *OCTAHEDRON)
    path = Path("latent.h5")
    path.touch()
    return path


def run(*arguments: object) -> Result:
    return CliRunner().invoke(main, list(map(str, arguments)))


@pytest.mark.parametrize("options", [[], ["--gradient"], ["--closest"], ["--bound"]])
def test_query_refuses_in_one_line(model: Path, options: list[str]) -> None:
    Path("points.txt").write_text("1 2 3\n")
    result = run("query", model, "points.txt", *options)
    assert result.exit_code == 1
    assert result.stdout == ""
    assert "has no distance" in result.stderr
    assert result.stderr.count("\n") == 1


def test_extract(model: Path) -> None:
    result = run("extract", model, "--json")
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    assert found["volume"] == pytest.approx(VOLUME, rel=2e-3)
    assert found["watertight"]
    assert found["notes"] == []
    np.testing.assert_allclose(load_mesh("latent.ply").vertices.max(axis=0), 12, atol=0.1)
    result = run("extract", model, "-o", "few.glb", "--resolution", "64", "--faces", "2000", "--json")
    assert (
        json.loads(result.stdout)["notes"] == []
    )  # which the field's values, 50 times the distance, would have


def test_eval(model: Path) -> None:
    result = run("eval", model, "octahedron.obj", "--align", "none", "--resolution", "128", "--json")
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)["metrics"]
    assert found["iou"] > 0.99
    assert found["two_way"] < 1e-3
    assert not {"loss", "far_error", "surface_mean", "surface_p95", "surface_max"} & found.keys()
    assert run("eval", model, "octahedron.obj", "--resolution", "64").exit_code == 0


def test_render(model: Path) -> None:
    """The silhouette of an octahedron from the front is a square on its corner."""
    result = run("render", model, "-o", "a.png", "--size", "101x101", "--azimuth", "0", "--elevation", "0",
                 "--distance", "1000", "--fov", "0.1", "--background", "transparent", "--json")  # fmt: skip
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["unresolved"] == 0
    seen = np.asarray(Image.open("a.png"))[..., 3] / 255
    half = np.tan(np.radians(0.05)) * 1000
    assert seen.mean() * (2 * half) ** 2 == pytest.approx(2 * SIZE**2, rel=0.01)
    assert run("render", model, "-o", "b.png", "--size", "32x32", "--no-ao", "--no-shadow").exit_code == 0


def test_a_model_file_holds_distances_only(tmp_path: Path) -> None:
    with pytest.raises(FieldKindError, match="occupancy"):
        storage.save_field(logits(), tmp_path / "a.h5")
    assert not (tmp_path / "a.h5").exists()
