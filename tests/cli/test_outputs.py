"""Output files of every command that writes, and the errors that are raised before any work."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from neuralsdf.cli.commands.convert import _outputs
from neuralsdf.cli.main import main
from neuralsdf.errors import UsageError
from neuralsdf.fields.field import NeuralField
from neuralsdf.geometry.similarity_transform import Similarity
from neuralsdf.mesh.save_mesh import save_mesh
from neuralsdf.storage import save_field

from ..helpers import shapes
from ..helpers.fields import octahedron

QUICK = ("--layers", 2, "--width", 16, "--samples", 2000, "--epochs", 5, "--batch", 100)

#: Commands with a default output, and its suffix.
DEFAULTS = [
    (("convert", "in/box.ply", *QUICK), "box.h5"),
    (("extract", "in/ball.h5", "--resolution", 16), "ball.ply"),
    (("render", "in/ball.h5", "--size", "8x8"), "ball.png"),
    (("render", "in/ball.h5", "--size", "8x8", "--turntable", 2), "ball.gif"),
]

#: Commands that write where -o says, without it.
WRITERS = {
    "convert": ("convert", "in/box.ply", *QUICK),
    "extract": ("extract", "in/ball.h5"),
    "render": ("render", "in/ball.h5"),
    "turntable": ("render", "in/ball.h5", "--turntable", 2),
    "query": ("query", "in/ball.h5", "in/points.txt"),
    "csg": ("csg", "sphere(1)"),
    "report": ("report", "in"),
}


def run(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with inputs in the folder `in`."""
    monkeypatch.chdir(tmp_path)
    Path("in").mkdir()
    save_mesh("in/box.ply", *shapes.box(5, 3, 2))
    save_field(NeuralField(octahedron(0.5), Similarity.identity()), "in/ball.h5")
    Path("in/points.txt").write_text("0 0 0\n")
    return tmp_path


@pytest.fixture
def no_work(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fail if an input is used."""

    def begin(*arguments: object, **options: object) -> None:
        raise AssertionError("the work began")

    for name in (
        "pipeline.convert.fit_mesh",
        "storage.open_field",
        "storage.csg_file.parse_tree",
        "batch.report.write_report",
    ):
        monkeypatch.setattr(f"neuralsdf.{name}", begin)


def files() -> list[str]:
    return sorted(path.name for path in Path().iterdir())


@pytest.mark.parametrize(("command", "name"), DEFAULTS)
def test_results_go_to_the_current_folder(command: tuple[object, ...], name: str) -> None:
    before = sorted(path.name for path in Path("in").iterdir())
    result = run(*command)
    assert result.exit_code == 0, result.output
    assert files() == sorted(["in", name])
    assert sorted(path.name for path in Path("in").iterdir()) == before
    Path(name).write_bytes(b"mine")
    again = run(*command)
    assert again.exit_code == 1
    assert "--force" in again.stderr
    assert Path(name).read_bytes() == b"mine"


@pytest.mark.usefixtures("no_work")
@pytest.mark.parametrize("suffix", ["", ".txtt", ".exe", ".h5.", "/x"])
@pytest.mark.parametrize("command", WRITERS)
def test_unknown_suffixes_are_refused_before_any_work(command: str, suffix: str) -> None:
    result = run(*WRITERS[command], "-o", f"out{suffix}")
    assert result.exit_code == 2, result.output
    assert result.stderr.count("\n") == 1
    assert "out" in result.stderr
    assert files() == ["in"]


@pytest.mark.usefixtures("no_work")
@pytest.mark.parametrize("command", WRITERS)
def test_standard_output_is_refused_with_a_message(command: str) -> None:
    result = run(*WRITERS[command], "-o", "-")
    assert result.exit_code == 2
    assert "standard output is not supported; name a file" in result.stderr
    assert files() == ["in"]


@pytest.mark.parametrize(
    "command",
    [
        ("convert", "-"), ("convert", "in/box.ply", "-"), ("info", "-"), ("render", "-"), ("extract", "-"),
        ("query", "-", "in/points.txt"), ("eval", "-", "in/box.ply"), ("eval", "in/ball.h5", "-"),
        ("report", "-"), ("batch-merge", "-"), ("render", "in/ball.h5", "--matcap", "-"),
        ("info", "in/ball.h5", "--key", "-"),
    ],
)  # fmt: skip
def test_standard_input_is_refused_with_a_message(command: tuple[str, ...]) -> None:
    result = run(*command)
    assert result.exit_code == 2
    assert "standard input is not supported; name a file" in result.stderr
    assert files() == ["in"]


def test_a_file_called_dash_can_be_named() -> None:
    Path("in/ball.h5").rename("-")
    assert run("info", "./-").exit_code == 0


def test_an_input_is_never_replaced() -> None:
    before = Path("in/ball.h5").read_bytes()
    Path("in/ball.h5").rename("ball.ply")
    result = run("extract", "ball.ply", "--force")
    assert result.exit_code == 1
    assert "is the input" in result.stderr
    assert Path("ball.ply").read_bytes() == before


@pytest.mark.parametrize("command", [("extract", "t.csg"), ("csg", "t.csg"), ("convert", "t.csg", *QUICK)])
def test_a_part_of_a_tree_is_never_replaced(command: tuple[str, ...]) -> None:
    """Also if it is in a tree file that the tree uses."""
    part = Path("part.h5" if command[0] == "convert" else "part.ply")
    Path("in/ball.h5").rename(part) if part.suffix == ".h5" else Path("in/box.ply").rename(part)
    Path("inner.csg").write_text(f"{part} | sphere(0.1)")
    Path("t.csg").write_text("inner.csg | sphere(0.2)")
    before = part.read_bytes()
    resolution = () if command[0] == "convert" else ("--resolution", 16)
    result = run(*command, "-o", part, "--force", *resolution)
    assert result.exit_code == 1, result.output
    assert f"{part}: is the input, which is never replaced" in result.stderr
    assert part.read_bytes() == before


def test_two_meshes_of_one_stem_are_refused() -> None:
    save_mesh("in/box.obj", *shapes.box(1, 1, 1))
    result = run("convert", "in/box.ply", "in/box.obj")
    assert result.exit_code == 2
    assert "box.h5 would be written by more than one mesh" in result.stderr
    assert files() == ["in"]


def test_many_meshes_are_named_in_linear_time() -> None:
    """Each name was compared with all others, which would take an hour for these."""
    meshes = tuple(Path(f"in/part{index}.obj") for index in range(100_000))
    folder, outputs = _outputs(meshes, "models/")
    assert folder == Path("models")
    assert outputs[::50_000] == [Path("models/part0.h5"), Path("models/part50000.h5")]
    with pytest.raises(UsageError, match=r"part7\.h5 would be written by more than one mesh"):
        _outputs((*meshes, Path("other/part7.stl")), "models/")


@pytest.mark.parametrize(
    ("command", "name", "output"),
    [
        ("convert", "ball.obj", "ball.h5"),
        ("extract", "ball.of", "ball.ply"),
        ("render", "ball.h5", "ball.png"),
    ],
)
def test_a_missing_input_is_reported_before_an_existing_output(
    command: str, name: str, output: str, tmp_path: Path
) -> None:
    (tmp_path / output).touch()
    result = CliRunner().invoke(main, [command, str(tmp_path / name), "-o", str(tmp_path / output)])
    assert result.exit_code == 1
    assert f"{name}: no such file" in result.stderr
