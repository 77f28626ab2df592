"""What setup.py builds: the CUDA kernels where they are asked for, and never otherwise."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]

#: A compiler that knows two architectures, and writes what it was called with.
NVCC = """#!/bin/sh
if [ "$1" = --list-gpu-code ]; then echo sm_80; echo sm_90; exit 0; fi
while [ $# -gt 1 ]; do [ "$1" = -o ] && echo "$@" > "$2"; shift; done
"""


@pytest.fixture
def sources(tmp_path: Path) -> Path:
    """setup.py with a kernel for CUDA and no C++: the core is optional, so that nothing else is built."""
    folder = tmp_path / "sources"
    (folder / "kernels/cuda").mkdir(parents=True)
    shutil.copy(ROOT / "setup.py", folder)
    (folder / "kernels/cuda/trace.cu").write_text("")
    return folder


def compiler(folder: Path, text: str = NVCC) -> str:
    folder.mkdir(exist_ok=True)
    (folder / "nvcc").write_text(text)
    (folder / "nvcc").chmod(0o755)
    return f"{folder}{os.pathsep}{os.environ['PATH']}"


def build(sources: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    plain = {name: value for name, value in os.environ.items() if name not in ("NEURALSDF_CUDA", "NVCC")}
    command = [sys.executable, "setup.py", "build_ext", "--inplace"]
    return subprocess.run(
        command,
        cwd=sources,
        env=plain | environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


@pytest.mark.parametrize("wanted", [None, "", "0"])
def test_cuda_kernels_are_not_built_unasked(sources: Path, tmp_path: Path, wanted: str | None) -> None:
    path = compiler(tmp_path / "bin")
    done = build(sources, PATH=path, **({} if wanted is None else {"NEURALSDF_CUDA": wanted}))
    assert done.returncode == 0, done.stderr
    assert not list(sources.rglob("*.fatbin"))


def test_cuda_kernels_are_built_where_they_are_asked_for(sources: Path, tmp_path: Path) -> None:
    done = build(sources, PATH=compiler(tmp_path / "bin"), NEURALSDF_CUDA="1")
    assert done.returncode == 0, done.stderr
    (fatbin,) = sources.rglob("*.fatbin")
    assert fatbin == sources / "kernels/cuda/trace.fatbin"


@pytest.mark.parametrize("nvcc", ["", "/nowhere/nvcc"])
def test_asked_for_without_nvcc_the_install_fails_and_names_it(sources: Path, nvcc: str) -> None:
    done = build(sources, NEURALSDF_CUDA="1", NVCC=nvcc)
    assert done.returncode != 0
    assert "nvcc, was not found" in done.stderr
    assert "leave NEURALSDF_CUDA out" in done.stderr


def test_a_compiler_that_fails_fails_the_install(sources: Path, tmp_path: Path) -> None:
    path = compiler(tmp_path / "bin", "#!/bin/sh\n[ $1 = --list-gpu-code ] && echo sm_80\n")
    done = build(sources, PATH=path, NEURALSDF_CUDA="1")
    assert done.returncode != 0
    assert "nvcc could not build the CUDA kernels" in done.stderr
