"""No raw text from a file reaches a terminal, in any encoding and with any streams."""

from __future__ import annotations

import ast
import csv
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner

from neuralsdf import cli
from neuralsdf.batch.convert_job import ConvertJob
from neuralsdf.batch.manifest import Manifest, Run
from neuralsdf.batch.output_folder import Folder
from neuralsdf.batch.report import write_report
from neuralsdf.batch.shape_record import Record
from neuralsdf.cli.main import main
from neuralsdf.cli.shared import terminal
from neuralsdf.mesh.mesh import Source
from neuralsdf.mesh.save_mesh import save_mesh
from neuralsdf.printable_text import printable
from neuralsdf.storage import save_field

from ..helpers import shapes
from ..helpers.fields import ball_field

CLI = Path(cli.__file__).parent
HOSTILE = "\x1b[31m\x1b]0;owned\x07\n\r\x9b2J\u202egnp.exe\ud800\udcff"

#: Small enough that a test can convert.
QUICK = ("--layers", "2", "--width", "16", "--samples", "2000", "--epochs", "5", "--batch", "100",
         "--no-measure")  # fmt: skip


def assert_clean(text: str) -> None:
    for line in text.split("\n"):
        assert line.isprintable(), line


# --- printing ---------------------------------------------------------------------------------------


def _printing_calls(path: Path) -> Iterator[str]:
    """The calls in a module that print without the functions of `terminal`."""
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Call):
            called = ast.unparse(node.func)
            if called in ("print", "click.echo", "click.secho", "echo", "secho", "tqdm", "tqdm.write"):
                yield f"{path.name}:{node.lineno}: {called}"
            if called.endswith(".write") and "sys.std" in ast.unparse(node):
                yield f"{path.name}:{node.lineno}: {called}"
        if isinstance(node, ast.ImportFrom) and node.module == "tqdm":
            yield f"{path.name}:{node.lineno}: tqdm is imported"


def test_commands_print_only_through_terminal() -> None:
    found = [
        call for path in CLI.rglob("*.py") if path.name != "terminal.py" for call in _printing_calls(path)
    ]
    assert found == []
    assert list(_printing_calls(CLI / "shared" / "terminal.py")), "the search finds what it looks for"


def test_the_library_does_not_print() -> None:
    modules = list(CLI.parent.glob("neuralsdf/**/*.py"))
    assert len(modules) > 50
    assert [call for path in modules for call in _printing_calls(path)] == []


def test_every_print_function_escapes_text(capsys: pytest.CaptureFixture[str]) -> None:
    terminal.say(HOSTILE)
    terminal.note(HOSTILE)
    terminal.warn(HOSTILE)
    terminal.excerpt(HOSTILE)
    terminal.print_table([(HOSTILE, HOSTILE, 1.5)], header=("a", "b", "c"))
    out, err = capsys.readouterr()
    assert_clean(out)
    assert_clean(err)
    assert out.count("\n") == 3
    terminal.print_json({HOSTILE: [HOSTILE]})
    out = capsys.readouterr().out
    assert out.isascii()
    assert_clean(out)
    (value,) = json.loads(out).values()
    json.dumps(value, ensure_ascii=False).encode("utf-8")  # no lone surrogates, which other parsers refuse


def test_long_texts_are_shortened(capsys: pytest.CaptureFixture[str]) -> None:
    terminal.say(10**6 * "x")
    terminal.print_table([("source", 10**6 * "y")])
    assert all(len(line) <= 2100 for line in capsys.readouterr().out.splitlines())


def test_deep_values_print_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    deep: list[object] = []
    for _ in range(5000):
        deep = [deep]
    terminal.print_json({"deep": deep, "after": 1})
    assert json.loads(capsys.readouterr().out)["after"] == 1


def test_a_progress_bar_escapes_its_description(monkeypatch: pytest.MonkeyPatch) -> None:
    class Screen:
        text = ""

        def write(self, text: str) -> None:
            self.text += text

        def flush(self) -> None:
            pass

        def isatty(self) -> bool:
            return True

    screen = Screen()
    monkeypatch.setattr(sys, "stderr", screen)
    with terminal.bar("a\x1b[31m\u202eb", total=2, bar_format="{desc}|") as bar:
        bar.set_description_str("c\x1b[32m\nd")
        bar.update()
        terminal.warn("in between")
    assert r"a\x1b[31m\u202eb|" in screen.text
    assert r"c\x1b[32m\nd|" in screen.text
    assert "neuralsdf: warning: in between\n" in screen.text


# --- text from files --------------------------------------------------------------------------------


def test_metadata_of_a_model_is_escaped(tmp_path: Path) -> None:
    source = Source(HOSTILE.replace("\ud800", ""), "0" * 64, 4, 100)
    metrics = {"loss": 0.1, "volume": 1.0, "area": 1.0, "iou\x1b[31m\n": 0.5}
    settings = {"sign": HOSTILE, "key\x1b[0m": 1}
    save_field(ball_field(source=source, metrics=metrics, settings=settings), tmp_path / "a.h5")
    for arguments in (["info"], ["info", "--json"], ["info", "--verify"]):
        result = CliRunner().invoke(main, [*arguments, str(tmp_path / "a.h5")])
        assert result.exit_code == 0, result.output
        assert_clean(result.stdout)
        assert_clean(result.stderr)
    report = json.loads(CliRunner().invoke(main, ["info", "--json", str(tmp_path / "a.h5")]).stdout)
    assert report["source"]["name"].startswith("\x1b[31m"), "JSON keeps what was there, escaped"


@pytest.mark.parametrize(
    "arguments",
    [
        ["info", "NAME.h5"],
        ["convert", "NAME.obj"],
        ["convert", "NAME.obj", "b\x1b[31m.obj", "-o", "out/"],
        ["convert", "good.ply", "-o", "none\x1b[31m/a.h5"],
        ["render", "NAME.h5"],
        ["query", "NAME.h5", "points\x1b[0m.npy"],
        ["extract", "NAME.h5", "-o", "a.\x1b[31m"],
        ["batch-convert", "NAME", "-o", "out"],
        ["batch-convert", "NAME\x1b[31m*.obj", "-o", "out"],
        ["batch-convert", "-o", "NAME", "--status"],
        ["batch-merge", "NAME"],
        ["report", "NAME"],
        ["csg", "NAME\x1b[31m"],
        ["csg", '"NAME\x1b[31m.h5"'],
        ["csg", "sphere(1) | \x1b[31m\u202e(", "-o", "NAME.csg"],
        ["eval", "NAME.h5", "NAME.obj"],
        ["NAME\x1b[31m"],
        ["info", "--NAME\x1b[31m"],
        ["info", "--device", "NAME\x1b[31m"],
    ],
    ids=lambda arguments: " ".join(arguments).encode("unicode_escape").decode(),
)
def test_names_in_messages_are_escaped(
    arguments: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    save_mesh(tmp_path / "good.ply", *shapes.box(1, 1, 1))
    name = "n\x1b[31m\u202e\x9b\n\udcff"
    for suffix in (".h5", ".obj"):
        (tmp_path / f"{name}{suffix}").write_bytes(b"junk\n")
    result = CliRunner().invoke(main, [argument.replace("NAME", name) for argument in arguments])
    assert result.exit_code in (1, 2), result.output
    assert result.stderr.startswith("neuralsdf: ")
    assert "this is a bug" not in result.stderr
    assert_clean(result.stdout)
    assert_clean(result.stderr)


def test_failure_lines_and_status_of_a_batch_are_escaped(tmp_path: Path) -> None:
    meshes = tmp_path / "meshes"
    meshes.mkdir()
    save_mesh(meshes / "ok\x1b[31m\n\u202e.ply", *shapes.box(1, 2, 1))
    (meshes / "bad\x1b[31m\n\u202e.ply").write_bytes(b"ply\nformat \x1b[31m\x9b 1.0\nend_header\n")
    out = tmp_path / "out\x1b[31m"
    runner = CliRunner()
    arguments = ["batch-convert", str(meshes), "-o", str(out), "--workers", "1", *QUICK]
    result = runner.invoke(main, arguments)
    assert result.exit_code == 1
    assert "1 of 2 shapes done" in result.stdout
    assert r"bad\x1b[31m\n\u202e.ply: " in result.stderr
    for more in ([], ["--json"]):
        for again in (arguments, ["batch-convert", "-o", str(out), "--status"]):
            result = runner.invoke(main, [*again, *more])
            assert_clean(result.stdout)
            assert_clean(result.stderr)


# --- tables and pages of a run ----------------------------------------------------------------------

FORMULAS = ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1", " =1", "＝1+1", "a;=1", "a\n=1", 'a",=1']


def test_no_cell_of_the_table_is_a_formula(tmp_path: Path) -> None:
    records = [
        replace(Record(name, name, "failed", "error", name, finished=1.0), warnings=(name,))
        for name in FORMULAS
    ]
    with Manifest.create(Folder(tmp_path).manifest()) as manifest:
        manifest.begin(Run("convert", "=cmd()", {}), [(record.name, record.source) for record in records])
        manifest.write(records)
    write_report(tmp_path, tmp_path / "a.html", tmp_path / "a.csv", ConvertJob)
    with (tmp_path / "a.csv").open(newline="") as stream:
        content = stream.read()
    rows = list(csv.DictReader(content.splitlines()))
    assert len(rows) == len(FORMULAS), "no name breaks a line"
    for row in rows:
        for value in row.values():
            assert value.isprintable()
            assert value.lstrip()[:1] not in ("=", "+", "-", "@", "＝")
        assert row["name"].removeprefix("'") in map(printable, FORMULAS)
    # Text is quoted, so that a semicolon or a tab in it does not separate cells.
    assert '"a;=1"' in content


def test_numbers_of_the_table_stay_numbers(tmp_path: Path) -> None:
    record = Record("a", "a", "done", result_bytes=3, columns={"loss": -0.5, "faces": 1, "architecture": "x"})
    with Manifest.create(Folder(tmp_path).manifest()) as manifest:
        manifest.begin(Run("convert", "a", {}), [("a", "a")])
        manifest.write([record])
    write_report(tmp_path, tmp_path / "a.html", tmp_path / "a.csv", ConvertJob)
    with (tmp_path / "a.csv").open(newline="") as stream:
        (row,) = csv.DictReader(stream)
    assert (row["loss"], row["faces"]) == ("-0.5", "1")


def test_names_cannot_reorder_the_page(tmp_path: Path) -> None:
    name = "<b>\u202egnp\x1b[31m"
    with Manifest.create(Folder(tmp_path).manifest()) as manifest:
        manifest.begin(Run("convert", name, {}), [(name, name)])
        manifest.write([Record(name, name, "failed", "error", name)])
    write_report(tmp_path, tmp_path / "a.html", tmp_path / "a.csv", ConvertJob)
    page = (tmp_path / "a.html").read_text("utf-8")
    assert r"&lt;b&gt;\u202egnp\x1b[31m" in page
    assert "\u202e" not in page
    assert "\x1b" not in page
    assert "<svg" not in page
    assert page.startswith("<!")


# --- streams ----------------------------------------------------------------------------------------

ASCII = os.environ | {
    "LC_ALL": "C",
    "PYTHONUTF8": "0",
    "PYTHONCOERCECLOCALE": "0",
    "PYTHONIOENCODING": "ascii",
}


def shell(command: str, folder: Path, **options: object) -> subprocess.CompletedProcess[str]:
    """A command line of a shell in which `neuralsdf` is the command."""
    text = f'neuralsdf() {{ {sys.executable} -m neuralsdf "$@"; }}\n{command}'
    return subprocess.run(
        ["bash", "-c", text], cwd=folder, capture_output=True, text=True, timeout=120, check=False, **options
    )  # type: ignore[call-overload, no-any-return]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    save_field(ball_field(metrics={"volume": 1.0, "area": 1.0}), tmp_path / "a.h5")
    save_field(ball_field(metrics={"volume": 1.0, "area": 1.0}), tmp_path / "é角.h5")
    return tmp_path


def test_an_ascii_terminal_gets_escapes(folder: Path) -> None:
    done = shell("neuralsdf info é角.h5; neuralsdf info ü.h5", folder, env=ASCII)
    assert done.stdout.isascii()
    assert done.stdout.splitlines()[0].split() == ["model", r"\xe9\u89d2.h5"]
    assert done.stderr.count("\n") == 1
    assert "no such file" in done.stderr
    assert done.returncode == 1


def test_names_in_an_ascii_locale_are_converted(tmp_path: Path) -> None:
    (tmp_path / "meshes").mkdir()
    for name in ("é角", "e"):
        save_mesh(tmp_path / "meshes" / f"{name}.ply", *shapes.box(1, 2, 1))
    os.rename(os.fsencode(tmp_path / "meshes/e.ply"), os.fsencode(tmp_path) + b"/meshes/\xe9.ply")
    options = " ".join(QUICK)
    done = shell(f"neuralsdf batch-convert meshes -o out --workers 1 {options}", tmp_path, env=ASCII)
    assert (done.returncode, done.stderr) == (0, "")
    assert "2 of 2 shapes done" in done.stdout
    assert sorted(path.name for path in (tmp_path / "out/models").iterdir()) == [r"\xe9.ply.h5", "é角.ply.h5"]
    done = shell(f"neuralsdf convert meshes/*.ply -o single/ {options}; neuralsdf info single/*.h5", tmp_path,
                 env=ASCII)  # fmt: skip
    assert len(list((tmp_path / "single").iterdir())) == 2
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("command", "code", "reason"),
    [
        ("neuralsdf info a.h5 >&-", 1, "output: "),
        ("neuralsdf info a.h5 --json >&-", 1, "output: "),
        ("neuralsdf query a.h5 - >&- <<< '0 0 0'", 1, "output: "),
        ("neuralsdf extract a.h5 -o b.ply --resolution 16 2>&-", 0, None),
        ("neuralsdf convert none.obj 2>&-", 1, None),
        ("neuralsdf query a.h5 - <&-", 1, "standard input: holds no points"),
        ("neuralsdf batch-convert - -o out <&-", 2, "standard input: no meshes"),
        ("neuralsdf info a.h5 >&- 2>&- <&-", 1, None),
        ("neuralsdf --version >&-", 1, "output: "),
        ("neuralsdf info a.h5 > /dev/full", 1, "output: No space left on device"),
        ("neuralsdf query a.h5 - > /dev/full <<< '0 0 0'", 1, "output: No space left on device"),
        ("neuralsdf info none.h5 2> /dev/full", 1, None),
        ("env -u HOME neuralsdf --version", 0, None),
    ],
)
def test_closed_and_full_streams(folder: Path, command: str, code: int, reason: str | None) -> None:
    command = command.replace("env -u HOME neuralsdf", "unset HOME; neuralsdf")
    done = shell(command, folder)
    assert done.returncode == code, done
    if reason is None:
        assert done.stderr == ""
    else:
        assert done.stderr.startswith(f"neuralsdf: error: {reason}")
        assert done.stderr.count("\n") == 1


def test_a_file_never_takes_the_place_of_a_closed_stream(folder: Path) -> None:
    before = (folder / "a.h5").read_bytes()
    for streams in (">&-", "2>&-", ">&- 2>&-", "<&- >&- 2>&-"):
        shell(f"neuralsdf extract a.h5 -o b.off -f --resolution 16 {streams}", folder)
        assert (folder / "b.off").read_bytes().startswith(b"OFF"), streams
        assert (folder / "a.h5").read_bytes() == before
