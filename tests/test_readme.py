"""Every command and every line of Python in the README runs, in order, on the files that the demo left."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

README = Path(__file__).parents[1] / "README.md"


def blocks(language: str) -> list[str]:
    """The README's code blocks of a language, without those that make the environment."""
    found = re.findall(rf"^```{language}\n(.*?)^```$", README.read_text(encoding="utf-8"), re.M | re.S)
    return [block for block in found if "python3 -m venv" not in block]


def promised(block: str) -> list[str]:
    """The files that the comments of a block name, as in `# -> rope.png`."""
    return re.findall(r"# -> ([\w./-]+\.\w+)", block)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that the demo made, in a folder of its own."""
    here = tmp_path_factory.mktemp("readme")
    subprocess.run([sys.executable, "-m", "neuralsdf", "demo", "--quick"], cwd=here, check=True)
    return here / "neuralsdf-demo"


@pytest.fixture(scope="module")
def commands(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The demo's folder after all commands have run in it."""
    binaries = tmp_path_factory.mktemp("bin")
    command = binaries / "neuralsdf"
    command.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m neuralsdf "$@"\n')
    command.chmod(0o755)
    script = "\n".join(["set -eu", *blocks("sh")])
    done = subprocess.run(
        ["bash", "-c", script],
        cwd=folder.parent,
        env=os.environ | {"PATH": f"{binaries}{os.pathsep}{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    return folder


def test_the_commands_run_and_leave_the_files_that_they_name(commands: Path) -> None:
    named = [name for block in blocks("sh") for name in promised(block)]
    assert len(named) >= 8
    missing = [name for name in named if not (commands / name).is_file()]
    assert not missing


def test_no_combined_shape_is_empty(commands: Path) -> None:
    """A picture of an empty shape has the background's colours alone, which do not change along a row."""
    import numpy as np
    from PIL import Image

    for name in ("cut.png", "bracket.png"):
        pixels = np.asarray(Image.open(commands / name).convert("RGB"), np.int64)
        assert np.ptp(pixels, axis=1).max() > 50, name


def test_the_python_runs(commands: Path) -> None:
    for block in blocks("python"):
        subprocess.run([sys.executable, "-c", block], cwd=commands, check=True, timeout=600)
