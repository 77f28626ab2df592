"""`neuralsdf make-dataset`: what it prints, and how it ends."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

pytest.importorskip("manifold3d")

from neuralsdf.cli.main import main

PROGRAM = (
    "import signal\nsignal.signal(signal.SIGINT, signal.default_int_handler)\n"
    "from neuralsdf.cli.main import main\nif __name__ == '__main__':\n    main()"
)


def run(*arguments: object) -> Result:
    return CliRunner().invoke(main, ["make-dataset", "parametric", *map(str, arguments)])


def test_it_prints_a_row_for_each_class(tmp_path: Path) -> None:
    out = tmp_path / "out"
    result = run(out, "--count", 3, "--classes", "car, table", "--workers", 1, "--test", 0.34)
    assert result.exit_code == 0, result.output
    header, *rows, total = (line.split("  ") for line in result.stdout.splitlines())
    assert header[0] == "class"
    assert [row[0] for row in rows] == ["car", "table"]
    assert total[0].startswith(f"{out}: 6 shapes, ")
    again = run(out, "--count", 3, "--classes", "car,table", "--workers", 1, "--test", 0.34)
    assert again.exit_code == 1
    assert again.stderr == f"neuralsdf: error: {out}: holds a data set already; replace it with --force\n"
    found = json.loads(run(out, "--count", 3, "--classes", "car", "-f", "--json", "-q").stdout)
    assert found["bytes"] == sum(path.stat().st_size for path in out.rglob("*") if path.is_file())
    (row,) = found["classes"]
    assert (row["class"], row["train"], row["test"]) == ("car", 2, 1)
    assert 0.03 <= row["fraction_min"] <= row["fraction_mean"] <= row["fraction_max"] <= 0.15


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (("out", "--count", 1, "--classes", "chairs"), "no class 'chairs'; did you mean 'chair'?"),
        (("out", "--count", 1, "--classes", ","), "',' names no class"),
        (("out", "--count", 0), "'0' is not a whole number from 1 to 100000"),
        (("out", "--count", 1, "--test", 1), "'1' is not a number from 0 to 0.99"),
        (("out",), "Missing option '--count'"),
    ],
)
def test_wrong_usage_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: tuple[object, ...], reason: str
) -> None:
    monkeypatch.chdir(tmp_path)
    result = run(*arguments)
    assert result.exit_code == 2
    assert reason in result.stderr
    assert result.stderr.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_errors_of_the_folder_name_the_argument(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("link")
    result = run(tmp_path / "link" / "out", "--count", 1)
    assert result.exit_code == 1
    assert result.stderr.endswith("link: is a dangling link; choose another name as OUT\n")
    assert result.stderr.count("\n") == 1


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_command_leaves_nothing(tmp_path: Path, number: signal.Signals) -> None:
    script = tmp_path / "command.py"
    script.write_text(PROGRAM)
    out = tmp_path / "out"
    command = [sys.executable, str(script), "make-dataset", "parametric", str(out), "--count", "1000"]
    with subprocess.Popen([*command, "--workers", "1"], stderr=subprocess.PIPE, text=True) as making:
        deadline = time.monotonic() + 60
        while not list(tmp_path.rglob("chair_00000.ply")) and time.monotonic() < deadline:
            time.sleep(0.05)
        making.send_signal(number)
        _, stderr = making.communicate(timeout=60)
    assert making.returncode == 128 + number
    assert stderr.strip() in ("neuralsdf: interrupted", "")
    assert list(tmp_path.iterdir()) == [script]


def test_the_help_names_every_class() -> None:
    from neuralsdf.latent.parametric.families import FAMILIES

    words = " ".join(run("--help").stdout.split())
    assert f"Classes: {', '.join(FAMILIES)}." in words
