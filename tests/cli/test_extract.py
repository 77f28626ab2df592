"""`extract` and `eval` as a user calls them: what they print and write, and one line for each mistake."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
import trimesh
from click.testing import CliRunner, Result

from neuralsdf.cli.main import main
from neuralsdf.fields.field import NeuralField
from neuralsdf.geometry.similarity_transform import Similarity
from neuralsdf.mesh.load_mesh import load_mesh
from neuralsdf.program.network import Architecture, Network
from neuralsdf.storage import save_field

from ..helpers import shapes

SCALE, CENTRE = 5.0, (100.0, 0.0, -20.0)


def tent(apex: float) -> Network:
    """|x| + |y| + |z| - apex as a network: an octahedron, exactly."""
    architecture = Architecture((6,), output="linear")
    weights = np.zeros(architecture.weight_count, np.float32)
    (kernel, _), (output, bias) = architecture.layers(weights)
    kernel[:] = np.hstack([np.eye(3), -np.eye(3)])
    output[:], bias[:] = 1.0, -apex
    return Network(architecture, weights)


@pytest.fixture
def model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "octahedron.h5"
    save_field(NeuralField(tent(0.9), Similarity.from_ball(CENTRE, SCALE)), path)
    return path


def run(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def test_extract_writes_a_mesh_in_mesh_units(model: Path) -> None:
    result = run("extract", model, "--resolution", 64, "--json")
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    mesh = load_mesh(model.with_suffix(".ply"))
    assert (found["vertices"], found["faces"]) == (len(mesh.vertices), len(mesh.faces))
    assert found["watertight"] is True
    assert found["bytes"] == model.with_suffix(".ply").stat().st_size
    assert found["volume"] == pytest.approx(4 / 3 * (0.9 * SCALE) ** 3, rel=0.01)
    assert mesh.findings.closed
    octahedron = np.abs(mesh.vertices - CENTRE).sum(axis=1)
    assert octahedron == pytest.approx(0.9 * SCALE, abs=0.02 * SCALE)


@pytest.mark.parametrize("suffix", [".ply", ".obj", ".stl", ".glb", ".off"])
def test_extract_writes_every_format_closed(model: Path, suffix: str) -> None:
    path = model.with_name(f"mesh{suffix}")
    result = run("extract", model, "-o", path, "--resolution", 40)
    assert result.exit_code == 0, result.output
    assert "watertight  yes" in result.stdout
    assert load_mesh(path).findings.closed


def test_extract_replaces_a_file_only_with_force(model: Path) -> None:
    path = model.with_suffix(".ply")
    path.write_bytes(b"mine")
    refused = run("extract", model, "--resolution", 32)
    assert refused.exit_code == 1
    assert "--force" in refused.stderr
    assert path.read_bytes() == b"mine"
    assert run("extract", model, "--resolution", 32, "--force").exit_code == 0
    assert load_mesh(path).findings.closed


def test_a_field_without_a_surface_writes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "empty.h5"
    save_field(NeuralField(tent(-0.1), Similarity.identity()), path)
    result = run("extract", path, "--resolution", 32)
    assert result.exit_code == 1
    assert len(result.stderr.splitlines()) == 1
    assert "empty.h5" in result.stderr
    assert "no surface" in result.stderr
    assert [file.name for file in tmp_path.iterdir()] == ["empty.h5"]


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["--max-memory", "1MB", "--resolution", "256"], 1, "no resolution fits"),
        (["--max-memory", "150MB", "--resolution", "256"], 1, "--resolution"),
        (["--max-memory", "plenty"], 2, "500MB or 2GB"),
        (["--max-memory", "0"], 2, "500MB or 2GB"),
        (["--resolution", "4"], 2, "--resolution"),
        (["-o", "mesh.xyz"], 2, ".xyz"),
        (["-o", "nowhere/mesh.ply"], 1, "folder"),
    ],
)
def test_mistakes_of_extract(model: Path, arguments: list[str], code: int, said: str) -> None:
    result = run("extract", model, *arguments)
    assert result.exit_code == code
    assert said in result.stderr
    assert "Traceback" not in result.output


def test_eval_of_a_models_own_mesh(model: Path, quick_metrics: None) -> None:
    assert run("extract", model, "--resolution", 64).exit_code == 0
    result = run("eval", model, model.with_suffix(".ply"), "--resolution", 48, "--json")
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    assert found["radius"] == SCALE
    assert found["metrics"]["iou"] > 0.97
    assert found["metrics"]["two_way"] < 0.005
    assert found["metrics_mesh_units"]["two_way"] == pytest.approx(SCALE * found["metrics"]["two_way"])
    table = run("eval", model, model.with_suffix(".ply"), "--resolution", 48).stdout
    assert "IoU" in table
    assert "mesh units" in table


def test_eval_of_a_mesh_in_other_units(model: Path, quick_metrics: None) -> None:
    """The octahedron in thousandths of its unit, at another place: reported, and aligned on request."""
    assert run("extract", model, "--resolution", 64).exit_code == 0
    mesh = load_mesh(model.with_suffix(".ply"))
    trimesh.Trimesh(1000 * mesh.vertices + 77, mesh.faces, process=False).export("large.ply")
    apart = run("eval", model, "large.ply", "--resolution", 48)
    assert apart.exit_code == 0, apart.output
    (line,) = apart.stderr.splitlines()
    assert "times as large as the model" in line
    assert float(re.search(r"it is ([\d.]+) times", line)[1]) == pytest.approx(1000, rel=0.01)
    for align in ("scale", "similarity"):
        result = run("eval", model, "large.ply", "--resolution", 48, "--align", align, "--json")
        found = json.loads(result.stdout)
        assert found["align"] == align
        assert found["metrics"]["iou"] > 0.97
        alignment = np.array(found["alignment"])
        # An octahedron may be turned onto itself, but its centre stays.
        centre = alignment @ [*(1000 * np.array(CENTRE) + 77), 1]
        np.testing.assert_allclose(centre[:3], CENTRE, atol=0.02)
        assert np.cbrt(np.linalg.det(alignment[:3, :3])) == pytest.approx(1e-3, rel=0.01)
    assert run("eval", model, "large.ply", "--align", "sideways").exit_code == 2


@pytest.mark.parametrize(
    "command",
    [["extract", "two.ply", "-o", "out.ply"], ["query", "two.ply", "points.txt"], ["csg", "two.ply & box(9)"],
     ["eval", "two.ply", "two.ply"], ["render", "two.ply", "-o", "two.png", "--size", "32x32"]],
    ids=lambda command: command[0],
)  # fmt: skip
def test_commands_report_which_body_of_a_mesh_was_flipped(
    command, tmp_path, monkeypatch, quick_metrics
) -> None:
    monkeypatch.chdir(tmp_path)
    pair = shapes.joined(shapes.box(2, 2, 2), shapes.inverted(shapes.moved(shapes.box(1, 1, 1), [5, 0, 0])))
    trimesh.Trimesh(*pair, process=False).export("two.ply")
    (tmp_path / "points.txt").write_text("5 0 0\n")
    result = run(*command, *(["--resolution", "32"] if command[0] in ("extract", "eval") else []))
    assert result.exit_code == 0, result.output
    lines = [line for line in result.stderr.splitlines() if "flipped" in line]
    assert lines == [
        "neuralsdf: two.ply: inverted orientation: faces of 1 of 2 closed bodies flipped "
        "(body 2 from (4, -1, -1) to (6, 1, 1), 12 faces)"
    ]


def test_mistakes_of_eval(model: Path, tmp_path: Path) -> None:
    missing = run("eval", model, tmp_path / "missing.obj")
    assert missing.exit_code == 1
    assert "missing.obj" in missing.stderr
    assert run("eval", model).exit_code == 2


def test_extract_reaches_a_number_of_faces_and_reports_the_error(model: Path) -> None:
    result = run("extract", model, "-o", "few.obj", "--resolution", 64, "--faces", 60, "--json")
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    mesh = load_mesh("few.obj")
    assert len(mesh.faces) == found["faces"] <= 60
    assert mesh.findings.closed
    assert result.stderr.count("\n") == len(found["notes"])
    many = run("extract", model, "-o", "many.ply", "--resolution", 64, "--faces", 10_000)
    assert many.exit_code == 0
    assert many.stderr == ""
    assert len(load_mesh("many.ply").faces) <= 10_000
    refused = run("extract", model, "-o", "none.ply", "--faces", 3)
    assert refused.exit_code == 2


@pytest.mark.parametrize("suffix", [".ply", ".obj", ".glb"])
def test_extract_writes_smooth_normals(model: Path, suffix: str) -> None:
    import trimesh

    plain, smooth = f"plain{suffix}", f"smooth{suffix}"
    assert run("extract", model, "-o", plain, "--no-normals", "--resolution", 64).exit_code == 0
    assert run("extract", model, "-o", smooth, "--normals", "--resolution", 64).exit_code == 0
    assert load_mesh(smooth).findings.closed
    mark = {".ply": b"property float nx", ".obj": b"\nvn ", ".glb": b'"NORMAL"'}[suffix]
    assert mark in Path(smooth).read_bytes()
    assert mark not in Path(plain).read_bytes()
    read = trimesh.load_mesh(smooth, process=False)
    offset = read.vertices - CENTRE
    face = (np.abs(offset) > 0.1 * SCALE).all(axis=1)  # away from the octahedron's edges
    expected = np.sign(offset[face]) / np.sqrt(3)
    assert (read.vertex_normals[face] * expected).sum(axis=1).min() > 0.999


def test_normals_are_written_by_default_for_glb_only(model: Path) -> None:
    for name, normal in (("a.ply", False), ("a.glb", True)):
        sizes = []
        for option in ([], ["--normals"], ["--no-normals"]):
            assert run("extract", model, "-o", name, "--resolution", 40, "-f", *option).exit_code == 0
            sizes.append(Path(name).stat().st_size)
        assert sizes[0] == sizes[1 if normal else 2]
        assert sizes[1] > sizes[2]
    refused = run("extract", model, "-o", "a.stl", "--normals")
    assert refused.exit_code == 2
    assert "holds no normals" in refused.stderr


def test_extract_checks_a_mesh(model: Path) -> None:
    result = run("extract", model, "--resolution", 64, "--check")
    assert result.exit_code == 0
    assert "bodies           1" in result.stdout


def test_more_faces_are_suggested_for_a_wall_that_only_decimation_makes_too_thin(
    tmp_path, monkeypatch
) -> None:
    """A shell of 0.1 keeps its wall at this resolution, and with the suggested number of faces."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "shell.csg").write_text("sphere(1).hollow(0.1)")

    def thin(*options: object) -> list[str]:
        result = run("extract", "shell.csg", "-f", "--resolution", 64, "--check", *options)
        assert result.exit_code == 0, result.output
        return [line for line in result.stderr.splitlines() if "too thin" in line]

    assert thin() == []
    assert thin("--faces", 5000) == []
    (warning,) = thin("--faces", 60)
    assert "--faces" in warning
    (warning,) = thin("--resolution", 24)
    assert "--resolution" in warning
    assert "--faces" not in warning


def test_a_thin_spot_is_distinguished_from_a_wall(tmp_path, monkeypatch) -> None:
    """Two cavities whose round ends nearly meet: material thinner than any wall, reported as a spot."""
    monkeypatch.chdir(tmp_path)
    hole = "capsule(0.1, 0.6).rotate(90, 0, 1)"
    tree = f"box(2, 1.2, 1) - {hole}.translate(-0.42) - {hole}.translate(0.42)"
    lines = run("csg", tree, "--check", "--resolution", 96).stdout.splitlines()
    (wall,) = (line for line in lines if line.startswith("thinnest wall"))
    (spot,) = (line for line in lines if line.startswith("thinnest spot"))
    assert float(wall.split()[2]) > float(spot.split()[2])
    assert "too small to count as a wall" in spot
