"""Meshes in place of models: the exact signed distance, in every command."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result
from PIL import Image

from neuralsdf.cli.main import main
from neuralsdf.errors import MeshError, ModelError, NoInteriorError, UsageError
from neuralsdf.evaluation.metrics import exact_measures
from neuralsdf.fields.mesh_field import MeshField
from neuralsdf.fields.query import closest_points, gradient, signed_distance
from neuralsdf.mesh.load_mesh import load_mesh
from neuralsdf.mesh.save_mesh import save_mesh
from neuralsdf.storage import open_field, open_model

from ..helpers import shapes

HALF = (1.0, 2.0, 3.0)
SHEET = np.array([[0.0, 0, 0], [1, 0, 0], [1, 1, 0], [0, 1, 0]]), np.array([[0, 1, 2], [0, 2, 3]])


def run(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def information(*arguments: object) -> dict[str, object]:
    result = run("info", *arguments, "--json")
    assert result.exit_code == 0, result.stderr
    report: dict[str, object] = json.loads(result.stdout)
    return report


@pytest.fixture
def box(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    save_mesh(tmp_path / "box.ply", *shapes.box(*HALF))
    return tmp_path / "box.ply"


@pytest.fixture
def sheet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A square, which encloses no volume."""
    monkeypatch.chdir(tmp_path)
    save_mesh(tmp_path / "sheet.obj", *SHEET)
    return tmp_path / "sheet.obj"


# --- the field --------------------------------------------------------------------------------------


@pytest.mark.parametrize("reach", [3.0, 100.0, 1e6])
def test_distances_are_exact_everywhere(box: Path, reach: float) -> None:
    """Also far outside the enclosing ball, where a network only has a bound."""
    field = open_field(box)
    points = np.random.default_rng(0).uniform(-reach, reach, (5000, 3))
    expected = shapes.box_distance(points, *HALF)
    np.testing.assert_allclose(signed_distance(field, points), expected, rtol=1e-12, atol=1e-12)
    assert (field.kind, field.exact) == ("distance", True)
    far = np.abs(expected) > 1e-3
    slopes = gradient(field, points)[far]
    np.testing.assert_allclose(np.linalg.norm(slopes, axis=1), 1, atol=1e-9)
    found = closest_points(field, points)
    assert found.residual.max() <= 1e-6 * field.transform.scale
    np.testing.assert_allclose(np.linalg.norm(found.points - points, axis=1), np.abs(expected), atol=1e-5)


@pytest.mark.parametrize("scale", [1e-30, 1e30])
def test_distances_scale_with_the_mesh(tmp_path: Path, scale: float) -> None:
    vertices, faces = shapes.box(*HALF)
    save_mesh(tmp_path / "a.obj", vertices * scale, faces)
    points = np.random.default_rng(0).uniform(-5, 5, (1000, 3))
    distances = open_field(tmp_path / "a.obj").distance(points * scale)
    np.testing.assert_allclose(distances / scale, shapes.box_distance(points, *HALF), rtol=1e-7, atol=1e-7)


def test_a_solid_around_a_sheet_is_within_half_its_thickness(sheet: Path) -> None:
    points = np.random.default_rng(0).uniform(-1, 2, (2000, 3))
    beyond = points - np.clip(points, [0, 0, 0], [1, 1, 0])
    expected = np.linalg.norm(beyond, axis=1) - 0.05
    np.testing.assert_allclose(open_field(sheet, thickness=0.1).distance(points), expected, atol=1e-12)


def test_options_that_do_not_apply_are_refused(box: Path) -> None:
    with pytest.raises(UsageError, match="`key=` belongs to a Keras file, and this is a mesh"):
        open_field(box, key="key.json")
    for options in ({"thickness": 0.1}, {"sign": "parity"}):
        for name, kind in (("a.h5", "model"), ("a.csg", "tree")):
            with pytest.raises(UsageError, match=f"only applies to meshes, and this is a {kind}"):
                open_field(name, **options)  # type: ignore[arg-type]
    with pytest.raises(ModelError, match="is a mesh, not a model; convert it first: neuralsdf convert"):
        open_model(box)  # the library's function for networks only


def test_a_mesh_without_an_inside_is_refused_with_a_remedy(sheet: Path) -> None:
    with pytest.raises(NoInteriorError, match=r"sheet\.obj: has no inside by winding number; .*`thickness="):
        open_field(sheet)
    (sheet.parent / "bad.obj").write_text("v 0 0 0\n")
    with pytest.raises(MeshError, match="no faces"):
        open_field(sheet.parent / "bad.obj")


# --- measures ---------------------------------------------------------------------------------------


def test_a_closed_mesh_is_measured_by_its_triangles(tmp_path: Path) -> None:
    """A thin rod, a cavity and an inverted body; a grid would miss most of the first."""
    rod, faces = shapes.box(0.05, 0.05, 50)
    outer, inner = shapes.box(2, 2, 2), shapes.box(1, 1, 1)
    cavity = inner[0] + [10, 0, 0], inner[1][:, ::-1]
    inverted = inner[0] + [-10, 0, 0], inner[1][:, ::-1]
    save_mesh(
        tmp_path / "a.ply", *shapes.joined((rod, faces), (outer[0] + [10, 0, 0], outer[1]), cavity, inverted)
    )
    field = open_field(tmp_path / "a.ply")
    assert isinstance(field, MeshField)
    measured = exact_measures(field)
    assert measured is not None
    assert measured["volume"] == pytest.approx(1.0 + (64 - 8) + 8, rel=1e-7)
    assert measured["area"] == pytest.approx(2 * 0.01 + 4 * 0.1 * 100 + 96 + 24 + 24, rel=1e-7)
    assert measured["bounds"] == [pytest.approx([-11, -2, -50]), pytest.approx([12, 2, 50])]


@pytest.mark.parametrize("open_side", [False, True])
def test_a_solid_other_than_the_triangles_is_extracted(tmp_path: Path, open_side: bool) -> None:
    """Parts that overlap are one solid; an open mesh is closed by a sheet."""
    if open_side:
        save_mesh(tmp_path / "a.ply", *shapes.hemisphere(0.8))
        volume, area = 2 / 3 * math.pi * 0.8**3, 3 * math.pi * 0.8**2
    else:
        cube, faces = shapes.box(1, 1, 1)
        save_mesh(tmp_path / "a.ply", *shapes.joined((cube, faces), (cube + 0.5, faces)))
        volume, area = 16 - 1.5**3, 48 - 6 * 1.5**2
    report = information(tmp_path / "a.ply")
    assert report["volume"] == pytest.approx(volume, rel=0.01)
    assert report["area"] == pytest.approx(area, rel=0.02)


def test_info_shows_a_mesh(box: Path) -> None:
    report = information(box)
    assert (report["faces"], report["vertices"], report["bodies"], report["closed"]) == (12, 8, 1, True)
    assert report["volume"] == pytest.approx(48)
    assert report["area"] == pytest.approx(88)
    assert report["bounds"] == [pytest.approx([-1, -2, -3]), pytest.approx([1, 2, 3])]
    assert report["radius"] == pytest.approx(math.sqrt(14))
    mesh = load_mesh(box)
    assert (report["sha256"], report["bytes"]) == (mesh.source.sha256, box.stat().st_size)
    shown = run("info", box)
    assert shown.exit_code == 0
    assert re.search(r"^closed +yes$", shown.stdout, re.M)
    assert re.search(r"^volume +48$", shown.stdout, re.M)
    assert run("info", box, "--verify").exit_code == 2


def test_info_lists_the_findings(tmp_path: Path) -> None:
    vertices, faces = shapes.box(1, 1, 1)
    save_mesh(tmp_path / "open.ply", vertices, faces[:-1])
    report = information(tmp_path / "open.ply")
    assert report["closed"] is False
    assert "open: 3 boundary edges" in str(report["found"])
    assert "closed where its winding number is 1/2" in str(report["found"])


# --- the commands -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "arguments",
    [("info",), ("query", "points.txt"), ("extract",), ("render", "--size", "32x32"), ("eval", "sheet.obj")],
)
def test_every_command_takes_a_sheet_with_a_thickness(sheet: Path, arguments: tuple[str, ...]) -> None:
    Path("points.txt").write_text("0.5 0.5 1\n")
    name, *rest = arguments
    refused = run(name, sheet, *rest)
    assert (refused.exit_code, refused.stdout) == (1, "")
    assert "sheet.obj: has no inside by winding number; " in refused.stderr
    assert "--thickness" in refused.stderr
    assert refused.stderr.count("\n") == 1
    done = run(name, sheet, *rest, "--thickness", "0.1")
    assert done.exit_code == 0, done.stderr


def test_query_gives_exact_distances(box: Path) -> None:
    Path("points.txt").write_text("0 0 0\n1000 0 0\n2 3 4\n0.5 0 0\n")
    result = run("query", box, "points.txt", "--closest")
    assert (result.exit_code, result.stderr) == (0, "")
    values = np.array([line.split(",") for line in result.stdout.split()], float)
    np.testing.assert_allclose(values[:, 0], [-1, 999, math.sqrt(3), -0.5], rtol=1e-9)
    np.testing.assert_allclose(values[1:3, 1:4], [[1, 0, 0], [1, 2, 3]], atol=1e-4)


def test_extract_gives_the_same_solid(box: Path) -> None:
    result = run("extract", box, "-o", "out.ply", "--json", "--resolution", "128")
    assert result.exit_code == 0, result.stderr
    assert json.loads(result.stdout)["volume"] == pytest.approx(48, rel=0.002)
    vertices = load_mesh("out.ply").vertices
    assert np.abs(shapes.box_distance(vertices, *HALF)).max() < 0.03


def test_eval_of_a_mesh_against_itself_finds_no_error(box: Path) -> None:
    result = run("eval", box, box, "--json", "--resolution", "64")
    assert (result.exit_code, result.stderr) == (0, "")
    metrics = json.loads(result.stdout)["metrics"]
    assert metrics["iou"] == 1
    assert max(metrics[name] for name in ("loss", "far_error", "surface_max")) < 1e-6


def test_eval_of_a_mesh_against_another_finds_their_distance(box: Path) -> None:
    """The same box, 0.1 larger on every side: |f| on its surface is 0.1 except at edges."""
    save_mesh("larger.ply", *shapes.box(*(half + 0.1 for half in HALF)))
    result = run("eval", box, "larger.ply", "--json", "--resolution", "64")
    report = json.loads(result.stdout)
    assert report["metrics_mesh_units"]["surface_mean"] == pytest.approx(0.1, rel=0.02)
    assert report["metrics"]["iou"] == pytest.approx(48 / (2.2 * 4.2 * 6.2), abs=0.01)


@pytest.mark.parametrize("thickness", [None, 0.5])
def test_the_picture_of_a_ball_is_a_disc_of_its_size(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, thickness: float | None
) -> None:
    """A ball of radius 1, or the shell of 1.25, from a distance of 5 through 30 degrees."""
    monkeypatch.chdir(tmp_path)
    save_mesh("ball.ply", *shapes.sphere(1.0, 4))
    options = [] if thickness is None else ["--thickness", thickness]
    eye = ("--eye", "0,0,5", "--fov", "30", "--size", "200x200", "--background", "transparent")
    result = run("render", "ball.ply", *eye, *options)
    assert (result.exit_code, result.stderr) == (0, "")
    covered = np.asarray(Image.open("ball.png"))[..., 3].mean() / 255
    radius = math.tan(math.asin((1 + (thickness or 0) / 2) / 5)) / math.tan(math.radians(15)) / 2
    assert covered == pytest.approx(math.pi * radius**2, rel=0.01)


@pytest.mark.parametrize("size", [(1e5, 1, 1), (1, 1, 1e-5)])
def test_a_closed_mesh_that_is_too_thin_is_refused_as_too_thin(
    size: tuple[float, ...], tmp_path: Path
) -> None:
    save_mesh(tmp_path / "thin.ply", *shapes.box(*size))
    with pytest.raises(NoInteriorError, match=r"thin\.ply: is too thin to sample: .* `thickness="):
        open_field(tmp_path / "thin.ply")


def test_a_heap_of_overlapping_faces_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A distance to 100 000 faces takes milliseconds: `info` would take many minutes, a conversion hours."""
    rng = np.random.default_rng(0)
    heap = shapes.joined(*[shapes.moved(shapes.box(1, 1, 1), at) for at in rng.random((30, 3))])
    save_mesh(tmp_path / "heap.ply", *heap)
    assert 40 < open_field(tmp_path / "heap.ply").oracle.near_faces < 360  # of 360
    monkeypatch.setattr("neuralsdf.fields.exact_distance._MAX_NEAR_FACES", 40)
    with pytest.raises(MeshError, match="too many overlapping faces"):
        open_field(tmp_path / "heap.ply")
