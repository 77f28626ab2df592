"""What setup.py builds: the core if there is a compiler; CUDA kernels if they are requested."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]

#: A compiler that knows two architectures, and records its arguments.
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
def test_cuda_kernels_are_not_built_by_default(sources: Path, tmp_path: Path, wanted: str | None) -> None:
    path = compiler(tmp_path / "bin")
    done = build(sources, PATH=path, **({} if wanted is None else {"NEURALSDF_CUDA": wanted}))
    assert done.returncode == 0, done.stderr
    assert not list(sources.rglob("*.fatbin"))


def test_cuda_kernels_are_built_if_requested(sources: Path, tmp_path: Path) -> None:
    done = build(sources, PATH=compiler(tmp_path / "bin"), NEURALSDF_CUDA="1")
    assert done.returncode == 0, done.stderr
    (fatbin,) = sources.rglob("*.fatbin")
    assert fatbin == sources / "kernels/cuda/trace.fatbin"


@pytest.mark.parametrize("nvcc", ["", "/nowhere/nvcc"])
def test_if_requested_without_nvcc_the_install_fails_and_names_it(sources: Path, nvcc: str) -> None:
    done = build(sources, NEURALSDF_CUDA="1", NVCC=nvcc)
    assert done.returncode != 0
    assert "nvcc, was not found" in done.stderr
    assert "leave NEURALSDF_CUDA out" in done.stderr


def test_an_error_of_the_compiler_fails_the_install(sources: Path, tmp_path: Path) -> None:
    path = compiler(tmp_path / "bin", "#!/bin/sh\n[ $1 = --list-gpu-code ] && echo sm_80\n")
    done = build(sources, PATH=path, NEURALSDF_CUDA="1")
    assert done.returncode != 0
    assert "nvcc could not build the CUDA kernels" in done.stderr


def test_without_a_compiler_the_install_succeeds_and_says_what_is_missing(sources: Path) -> None:
    for name in ("CMakeLists.txt", "tests", "examples", "cpu", "bindings", "shared"):
        (sources / "kernels" / name).symlink_to(ROOT / "kernels" / name)
    done = build(sources, CXX="/nowhere/g++")
    assert done.returncode == 0, done.stderr
    assert 'building extension "neuralsdf.kernels._core" failed' in done.stderr
    assert "/nowhere/g++" in done.stderr
    assert not list(sources.rglob("*.so"))


def test_without_cmake_the_install_succeeds_and_reports_it(sources: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for name in ("cmake", "ninja"):  # packages without a program, before those that are installed
        (tmp_path / "empty" / f"{name}.py").write_text(
            f"CMAKE_BIN_DIR = BIN_DIR = {str(tmp_path / 'empty')!r}\n"
        )
    done = build(sources, PATH=str(tmp_path / "empty"), PYTHONPATH=str(tmp_path / "empty"))
    assert done.returncode == 0, done.stderr
    assert "cmake was not found" in done.stderr


def test_a_build_folder_of_other_sources_is_replaced(sources: Path) -> None:
    """As after a checkout was moved: CMake rejects it, and the build starts over."""
    (sources / "kernels/CMakeLists.txt").write_text(
        "cmake_minimum_required(VERSION 3.18)\nproject(none NONE)\n"
        "add_custom_target(_core COMMAND ${CMAKE_COMMAND} -E touch ${CMAKE_BINARY_DIR}/_core.abi.so)\n"
    )
    (sources / "neuralsdf/kernels").mkdir(parents=True)  # there is no pyproject.toml to name another folder
    assert build(sources).returncode == 0
    (module,) = sources.glob("neuralsdf/kernels/_core*.so")
    module.unlink()
    moved = sources.rename(sources.parent / "moved")
    done = build(moved)
    assert done.returncode == 0, done.stderr
    assert len(list(moved.glob("neuralsdf/kernels/_core*.so"))) == 1, done.stderr
