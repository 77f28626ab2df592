"""The C++ core without Python: its unit tests (kernels/tests) and the example that links the library."""

from __future__ import annotations

import fcntl
import re
import runpy
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

from neuralsdf.backends import get_backend
from neuralsdf.program.network import Architecture, Network

ROOT = Path(__file__).resolve().parents[1]
KERNELS = ROOT / "kernels"


def run(*command: str | Path) -> str:
    done = subprocess.run([*map(str, command)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def tool(name: str) -> str | None:
    """A program beside this Python, as pip installs cmake and ninja, or on the PATH."""
    return shutil.which(name, path=str(Path(sys.executable).parent)) or shutil.which(name)


@pytest.fixture(scope="module")
def build() -> Path:
    """The folder in which setup.py built the core, with its tests and examples built too."""
    folders = sorted((ROOT / "build" / "core").glob(f"*-{sys.implementation.cache_tag}-*/CMakeCache.txt"))
    cmake, ninja = tool("cmake"), tool("ninja")
    if not folders or cmake is None or ninja is None or find_spec("pybind11") is None:
        pytest.skip("setup.py has not built the core here, or cmake or ninja is missing")
    import pybind11

    folder = folders[0].parent
    with open(folder / "tests.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        # pip's own cmake and ninja are removed when it ends.
        tools = [f"-DCMAKE_MAKE_PROGRAM={ninja}"] if "ninja" in folder.name else []
        python = [f"-DPython_EXECUTABLE={sys.executable}", f"-Dpybind11_DIR={pybind11.get_cmake_dir()}"]
        run(cmake, "-S", KERNELS, "-B", folder, "-DNEURALSDF_TESTS=ON", *tools, *python)
        run(cmake, "--build", folder, "--target", "core_tests", "evaluate")
    return folder


def test_the_unit_tests_of_the_core_pass(build: Path) -> None:
    report = run(tool("ctest") or "ctest", "--test-dir", build, "--output-on-failure")
    suites = len(list((KERNELS / "tests").glob("*_test.cpp")))
    # Versions of ctest differ in whether they count failures if there are none.
    assert re.search(rf"^100% tests passed.* out of {suites}$", report, re.M)


@pytest.mark.parametrize("hidden", [(8,), (32, 32, 32), (17, 40)])
def test_the_example_evaluates_weights_that_numpy_wrote(
    build: Path, tmp_path: Path, hidden: tuple[int, ...]
) -> None:
    rng = np.random.default_rng(sum(hidden))
    architecture = Architecture(hidden)
    weights = rng.uniform(-0.4, 0.4, architecture.weight_count).astype(np.float32)
    points = rng.uniform(-1, 1, (200, 3)).astype(np.float32)
    weights.tofile(tmp_path / "weights.f32")
    points.tofile(tmp_path / "points.f32")
    files = tmp_path / "weights.f32", tmp_path / "points.f32"
    values = np.array(run(build / "evaluate", *files, *map(str, hidden)).split(), np.float32)
    expected = get_backend("torch").compile(Network(architecture, weights)).evaluate(points)
    np.testing.assert_allclose(values, expected, atol=2e-6)


def test_the_example_names_what_is_wrong(build: Path, tmp_path: Path) -> None:
    np.zeros(5, np.float32).tofile(tmp_path / "few.f32")
    command = [str(build / "evaluate"), str(tmp_path / "few.f32"), str(tmp_path / "few.f32"), "8"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (1, "evaluate: the network has 41 weights, not 5\n")


def test_only_the_bindings_mention_python() -> None:
    sources = [path for path in KERNELS.rglob("*") if path.suffix in (".h", ".cpp", ".cu")]
    assert len(sources) > 60
    mentioned = [
        path.relative_to(KERNELS)
        for path in sources
        if "bindings" not in path.parts
        and any(word in path.read_text() for word in ("pybind11", "Python.h", "py::"))
    ]
    assert mentioned == []


def test_the_stub_is_what_the_generator_makes() -> None:
    for module in ("neuralsdf.kernels._core", "pybind11_stubgen", "ruff"):
        pytest.importorskip(module)
    generate = runpy.run_path(str(KERNELS / "bindings" / "make_stub.py"))["generate"]
    assert (KERNELS / "_core.pyi").read_text() == generate(), "run python kernels/bindings/make_stub.py"
