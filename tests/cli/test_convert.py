"""The convert and demo commands: what they print and write, what they refuse and when."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result

from neuralsdf import thread_count
from neuralsdf.cli.main import main
from neuralsdf.mesh.save_mesh import save_mesh
from neuralsdf.pipeline import convert
from neuralsdf.storage import open_field

from ..helpers import shapes

pytestmark = pytest.mark.usefixtures("quick_metrics")

#: Enough to run every stage; far too little to show a shape well.
TINY = ("--samples", 2000, "--epochs", 1, "--batch", 100, "--layers", 2, "--width", 8)


def run(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


@pytest.fixture
def mesh(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    save_mesh(tmp_path / "box.ply", *shapes.box(5, 3, 2))
    return tmp_path / "box.ply"


@pytest.fixture
def no_work(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fail if a conversion starts."""

    def begin(*arguments: object, **options: object) -> None:
        raise AssertionError("the work began")

    monkeypatch.setattr("neuralsdf.pipeline.convert.fit_mesh", begin)


def once(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function with its first result cached for all calls."""
    results: list[Any] = []

    def first(*arguments: object, **options: object) -> Any:
        if not results:
            results.append(function(*arguments, **options))
        return results[0]

    return first


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_convert_writes_a_model_and_ends_with_a_table(mesh: Path) -> None:
    result = run("convert", mesh, *TINY)
    assert result.exit_code == 0, result.output
    model = mesh.with_suffix(".h5")
    lines = result.stdout.splitlines()
    assert lines[0] == f"{mesh} -> {model.name}"
    rows = {match[1]: match[2].split() for match in re.finditer(r"^(\S.*?)  +(\S.*)$", result.stdout, re.M)}
    assert rows["faces"] == ["12"]
    assert rows["bytes before"] == [f"{mesh.stat().st_size:,}"]
    assert rows["bytes after"][0] == f"{model.stat().st_size:,}"
    measured = open_field(model).metrics
    for label, name in (("loss", "loss"), ("surface error, mean", "surface_mean")):
        assert float(rows[label][1]) == pytest.approx(measured[name], rel=1e-3)
        assert float(rows[label][0]) == pytest.approx(measured[name] * np.sqrt(38), rel=1e-3)
    assert re.fullmatch(r"[\d.]+ s: load [\d.]+  prepare [\d.]+  sample [\d.]+  fit .*measure .*", lines[-1])
    assert all(line.startswith("neuralsdf: ") for line in result.stderr.splitlines())
    assert names(mesh.parent) == ["box.h5", "box.ply"]


def test_convert_as_json_has_the_metrics_of_the_file(mesh: Path) -> None:
    report = json.loads(run("convert", mesh, *TINY, "--json", "--precision", "f16").stdout)
    assert report["metrics"] == pytest.approx(
        open_field(mesh.with_suffix(".h5")).metrics, rel=1e-5
    )  # rounded in the file
    assert report["radius"] == pytest.approx(np.sqrt(38))
    assert report["bytes_after"] == mesh.with_suffix(".h5").stat().st_size
    assert set(report["seconds"]) == {"load", "prepare", "sample", "fit", "measure"}


def test_no_measure_shows_only_what_is_known(mesh: Path) -> None:
    result = run("convert", mesh, *TINY, "--no-measure")
    assert result.exit_code == 0, result.output
    shown = run("info", "box.h5")
    assert shown.exit_code == 0
    lines = {line.split("  ")[0]: line.split() for line in shown.stdout.splitlines()}
    for output in (result.stdout, shown.stdout):
        assert "-" not in output.split()
        assert "IoU" not in output
    assert result.stdout.splitlines()[1].split()[0] == "faces"
    assert float(lines["volume"][1].replace(",", "")) > 0  # measured on request
    report = json.loads(run("convert", mesh, *TINY, "--no-measure", "--json", "-f").stdout)
    assert report["metrics"] == {}
    failed = run(
        "convert", mesh, "--no-measure", "-f", "--samples", 1000, "--epochs", 1, "--width", 8, "--layers", 2
    )
    assert failed.exit_code == 1
    assert re.search("the fit failed: the field (has no shape|has no surface): ", failed.stderr)


def test_several_meshes_go_into_a_folder_and_a_failure_does_not_stop_the_others(
    mesh: Path, tmp_path: Path
) -> None:
    broken, other = tmp_path / "broken.obj", tmp_path / "other.off"
    broken.write_bytes(b"")
    save_mesh(other, *shapes.torus())
    result = run("convert", mesh, broken, other, "-o", tmp_path / "models", *TINY, "--json")
    assert result.exit_code == 1
    first, second, third = json.loads(result.stdout)
    assert (first["model"], third["faces"]) == (str(tmp_path / "models" / "box.h5"), len(shapes.torus()[1]))
    assert second == {"mesh": str(broken), "error": f"{broken}: is empty; download or export it again"}
    assert f"neuralsdf: error: {broken}: is empty" in result.stderr
    assert result.stderr.endswith("neuralsdf: 1 of 3 meshes could not be converted\n")
    assert names(tmp_path / "models") == ["box.h5", "other.h5"]


def test_no_folder_is_left_where_nothing_was_written(mesh: Path, tmp_path: Path) -> None:
    """Nor its parents, unless they existed before or are not empty."""
    broken = tmp_path / "broken.obj"
    broken.write_bytes(b"")
    (tmp_path / "mine").mkdir()
    for folder in ("a", "a/b/c", "mine/a", "mine"):
        for meshes in ((broken,), (broken, broken.with_name("none.obj"))):
            before = sorted(tmp_path.rglob("*"))
            assert run("convert", *meshes, "-o", f"{tmp_path / folder}/", *TINY).exit_code == 1
            assert sorted(tmp_path.rglob("*")) == before
    assert run("convert", mesh, broken, "-o", f"{tmp_path}/a/b/c/", *TINY).exit_code == 1
    assert names(tmp_path / "a/b/c") == ["box.h5"]


def test_a_slash_at_the_end_names_a_folder(mesh: Path, tmp_path: Path) -> None:
    assert run("convert", mesh, *TINY, "-o", f"{tmp_path}/new/").exit_code == 0
    assert names(tmp_path / "new") == ["box.h5"]


@pytest.mark.usefixtures("no_work")
@pytest.mark.parametrize(
    ("arguments", "code", "reason"),
    [
        (("box.ply", "-o", "there.h5"), 1, "there.h5: exists already; replace it with --force"),
        (("box.ply", "-o", "none/x.h5"), 1, "none/x.h5: its folder does not exist"),
        (("there.h5", "-o", "there.h5", "--force"), 1, "there.h5: is the input"),
        (("box.ply", "box.ply", "-o", "new"), 2, "would be written by more than one mesh"),
        (("box.ply", "b.ply", "-o", "there.h5"), 2, "several meshes need a folder"),
        (("box.ply", "b.ply", "-o", "new.h5"), 2, "several meshes need a folder"),
        (("box.ply", "--layout", "keras", "--precision", "int8"), 2, "float32 only"),
        (("box.ply", "--layout", "keras", "--activation", "sine"), 2, "Keras has no equivalent of sine"),
        (("box.ply", "--layout", "keras", "-o", "x.json"), 2, "a model must end in .h5"),
        (("box.ply", "--layout", "keras", "-o", "key.h5"), 1, "key.json: exists already"),
        (("box.ply", "--beta", "nan"), 2, "--beta"),
        (("box.ply", "--time", "0"), 2, "--time"),
        (("box.ply", "--device", "cuda"), 1, "CUDA"),
    ],
)
def test_invalid_outputs_and_options_are_refused_before_any_work(
    mesh: Path, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...], code: int, reason: str
) -> None:
    monkeypatch.chdir(mesh.parent)
    Path("there.h5").write_text("kept")
    Path("key.json").write_text("kept")
    before = {path.name: path.read_bytes() for path in mesh.parent.iterdir()}
    result = run("convert", *arguments)
    assert (result.exit_code, result.stdout) == (code, ""), result.output
    assert reason in result.stderr
    assert result.stderr.count("\n") == 1
    assert {path.name: path.read_bytes() for path in mesh.parent.iterdir()} == before


def test_force_replaces(mesh: Path) -> None:
    model = mesh.with_suffix(".h5")
    model.write_text("old")
    assert run("convert", mesh, *TINY, "--force").exit_code == 0
    assert open_field(model).source is not None


def test_the_bytes_do_not_depend_on_the_threads(mesh: Path, tmp_path: Path) -> None:
    for threads in (1, 2):
        result = run("convert", mesh, "-o", tmp_path / f"{threads}.h5", *TINY, "--threads", threads, "--json")
        assert json.loads(result.stdout)["metrics"]["loss"] > 0
        assert thread_count.threads() == threads
    assert (tmp_path / "1.h5").read_bytes() == (tmp_path / "2.h5").read_bytes()


@pytest.mark.skipif(os.name != "posix", reason="sends a signal")
def test_an_interrupted_conversion_leaves_nothing(mesh: Path) -> None:
    # A process started in the background may have inherited that it ignores the signal.
    code = (
        "import signal\nsignal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "import neuralsdf.pipeline.convert as module\n"
        "real = module.fit\n"
        "def fit(*arguments, progress, **options):\n"
        "    def report(done, loss):\n"
        "        if report.first: print('fitting', flush=True)\n"
        "        report.first = False\n"
        "        progress(done, loss)\n"
        "    report.first = True\n"
        "    return real(*arguments, progress=report, **options)\n"
        "module.fit = fit\n"
        "from neuralsdf.cli.main import main\nmain()"
    )
    command = [sys.executable, "-c", code, "convert", str(mesh), "--samples", "20000", "--time", "100"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as fitting:
        assert fitting.stdout is not None
        assert fitting.stdout.readline() == "fitting\n"
        fitting.send_signal(signal.SIGINT)
        _, stderr = fitting.communicate(timeout=60)
    assert (fitting.returncode, stderr.strip()) == (130, "neuralsdf: interrupted")
    assert names(mesh.parent) == ["box.ply"]


@pytest.mark.slow
def test_the_whole_demo_and_not_twice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(convert, "fit_mesh", once(convert.fit_mesh))
    folder = tmp_path / "made"
    result = run("demo", "-o", folder, "--quick", "--json")
    assert result.exit_code == 0, result.output
    report = json.loads(result.stdout)
    assert names(folder) == ["knot.h5", "knot.ply", "knot.png", "knot_extracted.ply"]
    assert report["watertight"]
    assert report["metrics"] == pytest.approx(
        open_field(report["model"]).metrics, rel=1e-5
    )  # rounded in the file
    again = run("demo", "-o", folder, "--quick")
    assert (again.exit_code, again.stdout) == (1, "")
    assert "--force" in again.stderr
    stages = run("demo", "-o", folder, "--quick", "--force").stdout.splitlines()
    said = " ".join(line.split()[0] for line in stages if line)
    assert said == "generating generated converting converted rendering rendered extracting extracted Next:"
