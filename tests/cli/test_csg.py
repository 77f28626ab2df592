"""`neuralsdf csg`, and tree files where other commands take a model."""

from __future__ import annotations

import json
import math
import re
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result
from PIL import Image

from neuralsdf.cli.main import main
from neuralsdf.mesh.load_mesh import load_mesh
from neuralsdf.mesh.save_mesh import save_mesh
from neuralsdf.pipeline.prepare_mesh import surface_mesh
from neuralsdf.storage import open_field, open_model

from ..helpers import shapes

PART = "box(2, 2, 1) - cylinder(0.4, 3)"


def run(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def report(*arguments: object) -> dict[str, object]:
    result = run(*arguments, "--json")
    assert result.exit_code == 0, result.stderr
    value: dict[str, object] = json.loads(result.stdout)
    return value


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, quick_metrics: None) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_without_an_output_the_properties_of_the_shape_are_printed() -> None:
    save_mesh("ball.obj", *shapes.sphere(1.0, 3))
    said = report("csg", f"{PART} | ball.obj.translate(3)")
    assert (said["solids"], said["files"], said["kind"], said["lipschitz"]) == (2, ["ball.obj"], "bound", 1)
    assert said["volume"] == pytest.approx(4 - math.pi * 0.16 + 4 / 3 * math.pi, rel=0.02)
    np.testing.assert_allclose(np.array(said["bounds"]), [[-1, -1, -1], [4, 1, 1]], atol=0.06)
    table = run("csg", PART)
    assert "bounds of the distance" in table.stdout
    assert re.search(r"^values +distances$", run("csg", "sphere(2)").stdout, re.MULTILINE)
    endless = report("csg", "plane()")
    assert (endless["bounds"], endless["volume"]) == (None, None)


def test_a_mesh_and_its_checks() -> None:
    said = report("csg", "sphere(1).hollow(0.1)", "-o", "hollow.stl", "--check", "--resolution", 96)
    mesh = load_mesh("hollow.stl")
    assert mesh.findings.closed
    assert mesh.findings.bodies == 2
    check = said["check"]
    assert isinstance(check, dict)
    assert check["closed"]
    assert check["volume"] == pytest.approx(4 / 3 * math.pi * (1 - 0.9**3), rel=0.01)
    assert check["thinnest_wall"] == pytest.approx(0.1, rel=0.03)
    assert check["cell"] == pytest.approx(2 / 96, rel=0.1)
    coarse = run("csg", "sphere(1).hollow(0.1)", "--check", "--resolution", 24)
    assert "too thin for cells" in coarse.stderr
    assert coarse.stderr.count("\n") == 2
    printed = run("csg", "box(1).hollow(0.1)", "--check", "--resolution", 64).stdout
    assert "thinnest wall" in printed
    assert "closed" in printed


def test_a_picture() -> None:
    said = report("csg", PART, "-o", "part.png", "--size", "64x48", "--background", "transparent")
    picture = np.asarray(Image.open("part.png"))
    assert picture.shape == (48, 64, 4)
    assert 0.1 < (picture[..., 3] > 0).mean() < 0.9
    assert said["size"] == "64x48"


def test_other_commands_accept_a_tree_as_a_model() -> None:
    run("csg", PART, "-o", "part.csg")
    assert report("info", "part.csg")["solids"] == 2
    assert report("extract", "part.csg", "--resolution", 64)["watertight"]
    assert run("render", "part.csg", "--size", "32x32").exit_code == 0
    Path("points.txt").write_text("0 0 0\n3 0 0\n0.7 0 0\n")
    asked = run("query", "part.csg", "points.txt")
    assert [float(line) for line in asked.stdout.split()] == pytest.approx([0.4, 2, -0.3], abs=1e-5)
    assert "lower bounds of the distance" in asked.stderr
    measured = report("eval", "part.csg", "part.ply", "--resolution", 64)["metrics"]
    assert isinstance(measured, dict)
    assert measured["iou"] > 0.98
    assert run("csg", "part.csg.scale(2) | sphere(0.1)", "-o", "nested.csg").exit_code == 0
    assert report("info", "nested.csg")["files"] == ["part.csg"]


def test_every_command_needs_permission_for_files_outside_of_a_trees_folder(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("neuralsdf.pipeline.prepare_mesh.surface_mesh", partial(surface_mesh, resolution=24))
    Path("parts").mkdir()
    Path("ball.csg").write_text("sphere(1)")
    Path("parts/up.csg").write_text("../ball.csg - box(1)")
    save_mesh("ball.obj", *shapes.sphere(1.0, 2))
    Path("points.txt").write_text("0 0 0\n")
    quick = ["--samples", 2000, "--epochs", 5, "--batch", 100, "--layers", 2, "--width", 16]
    for command, *others in (
        ["info"], ["query", "points.txt"], ["eval", "ball.obj", "--resolution", 24],
        ["extract", "--resolution", 24], ["render", "--size", "16x16"], ["convert", *quick], ["csg"],
    ):  # fmt: skip
        refused = run(command, "parts/up.csg", *others)
        assert (refused.exit_code, refused.stderr.count("\n")) == (1, 1)
        assert "--allow-outside" in refused.stderr
        assert run(command, "parts/up.csg", *others, "--allow-outside").exit_code == 0, command
    listed = run("batch-convert", "ball.csg", "-o", "models")
    assert listed.exit_code == 2
    assert "is a CSG tree" in listed.stderr


def test_bounds_cut_unbounded_shapes() -> None:
    for expression in ("plane()", "~sphere(1)", "sphere(0.2).repeat(1, 1)"):
        result = run("csg", expression, "-o", "part.ply")
        assert result.exit_code == 2
        assert "--bounds" in result.stderr
    said = report("csg", "plane()", "--bounds", "-1,-1,-1,1,1,1", "-o", "half.ply", "--resolution", 64)
    assert said["volume"] == pytest.approx(4, rel=0.02)
    assert run("csg", "plane()", "--bounds", "1,1,1,-1,-1,-1").exit_code == 2
    assert run("csg", "~sphere(1)", "-o", "all.csg").exit_code == 0


def test_a_bundle() -> None:
    save_mesh("ball.obj", *shapes.sphere(1.0, 2))
    assert run("csg", "ball.obj - box(1)", "-o", "one.csg", "--bundle").exit_code == 0
    Path("ball.obj").unlink()
    assert open_field("one.csg").kind == "bound"
    assert report("info", "one.csg")["files"] == ["ball.obj"]


@pytest.mark.parametrize(
    ("arguments", "code", "complaint"),
    [
        (["spher(1)"], 2, "did you mean 'sphere'?"),
        (["sphere(1) |"], 2, "column 12, at the end: expected a solid"),
        (["gone.h5"], 1, "gone.h5: no such file"),
        (["gone.obj"], 1, "gone.obj"),
        (["gone.csg"], 1, "gone.csg: no such file"),
        (["sphere(1) & sphere(1).translate(5)", "-o", "a.ply"], 1, "empty"),
        (["sphere(1) - sphere(2)"], 1, "empty"),
        (["sphere(1)", "-o", "a.txt"], 2, "a.txt: unknown suffix"),
        (["sphere(1)", "-o", "a.ply", "--bundle"], 2, "--bundle cannot be combined with -o a.ply"),
        (["sphere(1)", "-o", "a.png", "--check"], 2, "--check cannot be combined with -o a.png"),
        (["sphere(1)", "-o", "a.ply", "--size", "9x9"], 2, "--size cannot be combined with"),
        (["sphere(1)", "--epochs", "3"], 2, "--epochs needs -o"),
        (["sphere(1)", "--faces", "32"], 2, "--faces needs -o"),
        (["sphere(1)", "-o", "a.stl", "--normals"], 2, "a.stl: .stl holds no normals"),
        (["sphere(1)", "--bounds", "1,2,3"], 2, "'1,2,3' is not X,Y,Z,X,Y,Z"),
        (["sphere(1)", "--bounds", "0,0,0,1,1,inf"], 2, "--bounds: coordinates must be finite"),
        (["sphere(1)", "--bounds", "0,0,0,1,1,nan"], 2, "--bounds: coordinates must be finite"),
        (["plane()", "-o", "a.h5"], 2, "--bounds"),
        (["sphere(1e-300)"], 2, "out of the range"),
        (["sphere(1e300)"], 2, "out of the range"),
        (["sphere(1).translate(1e300)"], 2, "too far from the origin"),
        (["sphere(1).scale(1e-320) | sphere(1)"], 2, "out of the range"),
        (["sphere(1)", "-o", "no/a.ply"], 1, "its folder does not exist"),
        ([], 2, "Missing argument 'EXPRESSION'"),
    ],
)
def test_mistakes_are_reported_in_one_line(arguments: list[str], code: int, complaint: str) -> None:
    result = run("csg", *arguments)
    assert result.exit_code == code
    first, *excerpt = result.stderr.splitlines()
    assert complaint in first
    assert not excerpt or (len(excerpt) == 2 and set(excerpt[1]) == {" ", "^"})
    assert not list(Path().iterdir())


def test_the_position_of_a_mistake_is_shown() -> None:
    Path("bad.csg").write_text("sphere(1) |\n\tsphre(2)\n")
    for arguments in (["csg", "bad.csg - box(1)"], ["info", "bad.csg"], ["convert", "bad.csg"]):
        result = run(*arguments)
        assert result.exit_code == 1
        assert result.stderr == (
            "neuralsdf: error: bad.csg: line 2, column 2, at 'sphre(2)': unknown solid 'sphre'; "
            "did you mean 'sphere'?\n"
            "     sphre(2)\n"
            "     ^^^^^\n"
        )


def test_an_empty_result_is_reported() -> None:
    """Its bounds do not show that it is empty: the rest is thinner than the resolution."""
    result = run("csg", "sphere(1) - sphere(1).scale(1.0000001)", "-o", "a.ply", "--resolution", 32)
    assert result.exit_code == 1
    assert result.stderr.count("\n") == 1
    assert not Path("a.ply").exists()


def test_an_output_is_not_replaced_without_force() -> None:
    Path("part.csg").write_text("sphere(1)")
    assert run("csg", "box(1)", "-o", "part.csg").exit_code == 1
    assert run("csg", "box(1)", "-o", "part.csg", "--force").exit_code == 0
    assert "box(1, 1, 1)" in Path("part.csg").read_text()
    replaced = run("csg", "part.csg - sphere(0.1)", "-o", "part.csg", "--force")
    assert replaced.exit_code == 1
    assert "is the input" in replaced.stderr


def test_a_tree_file_ten_thousand_levels_deep_can_be_queried() -> None:
    balls = "".join(f"sphere(0.01).translate({index / 10_000}) | (" for index in range(10_000))
    Path("deep.csg").write_text(f"{balls}sphere(0.01).translate(1){')' * 10_000}")
    Path("points.txt").write_text("0.5 0.5 0\n2 0 0\n")
    asked = run("query", "deep.csg", "points.txt")
    assert [float(line) for line in asked.stdout.split()] == pytest.approx([0.49, 0.99], abs=1e-4)


@pytest.mark.slow
def test_a_tree_becomes_one_network() -> None:
    result = report(
        "csg",
        "sphere(1) - box(1).translate(0.8, 0.8, 0.8)",
        "-o",
        "part.h5",
        "--resolution",
        "96",
        "--samples",
        "60000",
    )
    model = open_model("part.h5")
    metrics = result["metrics"]
    assert isinstance(metrics, dict)
    assert metrics["iou"] > 0.97
    assert model.metrics["surface_mean"] < 0.01
    points = np.array([[0.0, 0, 0], [0.4, 0.4, 0.4], [2, 0, 0]])
    assert model.distance(points) == pytest.approx([-0.3 * math.sqrt(3), 0.1, 1], abs=0.05)


@pytest.mark.parametrize(
    ("tree", "volume", "area", "top"),
    [
        ("box(1) - box(1, 1, 0.5).translate(0, 0, 0.25)", 0.5, 4, 0),
        ("box(1) | box(1).translate(1)", 2, 10, 0.5),
        ("box(1, 1, 150)", 150, 602, 75),
        ("box(3, 1, 0.02).rotate(20, 1, 1)", 0.06, 6.16, None),
    ],
)
def test_reports_on_a_tree_match_the_output(tree: str, volume: float, area: float, top: float | None) -> None:
    Path("part.csg").write_text(tree)
    described, informed = report("csg", tree), report("info", "part.csg")
    written = report("csg", tree, "-o", "part.ply")
    mesh = load_mesh("part.ply")
    for said in (described, informed):
        assert said["volume"] == written["volume"] == pytest.approx(volume, rel=0.03)
        assert said["area"] == written["area"] == pytest.approx(area, rel=0.06)
        assert said["resolution"] == written["resolution"]
        assert np.allclose(said["bounds"], [mesh.vertices.min(axis=0), mesh.vertices.max(axis=0)])  # type: ignore[arg-type]
        assert top is None or said["bounds"][1][2] == pytest.approx(top, abs=0.01)  # type: ignore[index]


@pytest.mark.parametrize("tree", ["box(2) - box(2)", "box(1) & box(1).translate(1)", "sphere(1) - sphere(2)"])
def test_every_command_reports_an_empty_tree(tree: str) -> None:
    Path("none.csg").write_text(tree)
    for arguments in (["csg", tree], ["info", "none.csg"], ["csg", tree, "--check"]):
        result = run(*arguments, "--json")
        assert result.exit_code == 1
        assert "the shape is empty" in result.stderr
        assert result.stderr.count("\n") == 1
        said = json.loads(result.stdout)
        assert (said["volume"], said["area"], said["bounds"]) == (0, 0, None)
    for arguments in (["csg", tree, "-o", "a.ply"], ["extract", "none.csg"]):
        result = run(*arguments)
        assert result.exit_code == 1
        assert "the shape is empty" in result.stderr


def test_check_shows_where_a_cavity_needs_a_drain_hole() -> None:
    result = run(
        "csg", "box(4, 2, 2) - box(1).translate(1, 0, 0.2) - sphere(0.5).translate(-1)", "--check", "--json"
    )
    assert "2 closed cavities" in result.stderr
    check = json.loads(result.stdout)["check"]
    assert (check["shells"], check["bodies"]) == (3, 1)
    box_cavity, ball_cavity = check["cavities"]
    assert box_cavity["volume"] == pytest.approx(1, rel=0.01)
    assert box_cavity["drain_at"][2] == pytest.approx(-0.3, abs=0.01)
    assert ball_cavity["drain_at"] == pytest.approx([-1, 0, -0.5], abs=0.05)
    assert "drain hole" in run("csg", "sphere(1).hollow(0.1)", "--check", "--resolution", 64).stdout


def test_a_network_has_the_volume_of_the_shape_in_its_units() -> None:
    quick = ["--samples", 20_000, "--epochs", 5, "--batch", 256, "--layers", 2, "--width", 16]
    found = run("csg", "box(2, 1, 1).scale(10)", "-o", "box.h5", *quick)
    assert found.exit_code == 0, found.stderr
    table = dict(line.rsplit(None, 1) for line in found.stdout.splitlines()[1:])
    assert float(table["volume"].replace(",", "")) == pytest.approx(2000, rel=0.1)
