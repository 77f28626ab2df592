"""Builds the C++ core with kernels/CMakeLists.txt. It is optional: without a compiler the package installs
without it, and torch is used instead. With NEURALSDF_CUDA=1 it also builds the CUDA kernels, as fatbins
beside their sources, which takes minutes.

Everything else about the package is in pyproject.toml.
"""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from importlib import import_module
from pathlib import Path

import pybind11
from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext
from setuptools.errors import CompileError, PlatformError
from setuptools.modified import newer_group

#: Machine code for Ampere, Hopper and Blackwell, if nvcc supports them, and PTX for all others. All are made
#: from one PTX; otherwise nvcc would run its front end, which takes most of the time, once for each.
CUDA_CODES = ("sm_80", "sm_90", "sm_100")
CUDA_PTX = "compute_80"
CUDA_FLAGS = ["-std=c++17", "-O3", "-fatbin"]


def cuda_wanted() -> bool:
    """Whether NEURALSDF_CUDA requests the CUDA kernels."""
    return os.environ.get("NEURALSDF_CUDA", "") not in ("", "0")


def find_nvcc() -> str:
    """CUDA's compiler: NVCC, or nvcc on the PATH or in CUDA_HOME; raises `PlatformError` if there is none."""
    home = os.environ.get("CUDA_HOME", "/usr/local/cuda")
    names = [os.environ["NVCC"]] if "NVCC" in os.environ else ["nvcc", str(Path(home) / "bin" / "nvcc")]
    for name in names:
        if found := shutil.which(name):
            return found
    tried = " or ".join(filter(None, names)) or "NVCC is empty"
    raise PlatformError(
        f"NEURALSDF_CUDA=1 asks for the CUDA kernels, but their compiler, nvcc, was not found ({tried}); "
        "install CUDA's toolkit or name nvcc in NVCC, or leave NEURALSDF_CUDA out"
    )


def find_tool(name: str) -> str | None:
    """cmake or ninja, on the PATH or in the Python package of that name; None if it is in neither."""
    if found := shutil.which(name):
        return found
    try:
        package = import_module(name)
    except ImportError:
        return None
    folder = package.CMAKE_BIN_DIR if name == "cmake" else package.BIN_DIR
    return shutil.which(name, path=folder)


class BuildKernels(build_ext):
    """Builds the extension with CMake; then the CUDA kernels, if they are requested."""

    def run(self) -> None:
        """The extension as usual, then the fatbins; these are not optional if they are requested."""
        nvcc = find_nvcc() if cuda_wanted() else None
        super().run()
        if nvcc is not None:
            try:
                self.build_fatbins(nvcc)
            except (OSError, subprocess.CalledProcessError) as error:
                raise CompileError(f"nvcc could not build the CUDA kernels: {error}") from error

    def build_fatbins(self, nvcc: str) -> None:
        """Each .cu file's fatbin, as many at once as there are cores, unless it is up to date."""
        package = Path("kernels") if self.inplace else Path(self.build_lib, "neuralsdf", "kernels")
        folder, sources = package / "cuda", Path("kernels", "cuda")
        folder.mkdir(parents=True, exist_ok=True)
        listed = subprocess.run([nvcc, "--list-gpu-code"], check=True, capture_output=True, text=True).stdout
        codes = [code for code in CUDA_CODES if code in listed.split()]
        target = f"-gencode=arch={CUDA_PTX},code=[{','.join([*codes, CUDA_PTX])}]"
        shared = [str(path) for path in Path("kernels", "shared").glob("*.h")]
        headers = ["setup.py", *shared, *(str(path) for path in sources.glob("*.h"))]

        def build(source: Path) -> None:
            fatbin = str(folder / f"{source.stem}.fatbin")
            if self.force or newer_group([str(source), *headers], fatbin):
                subprocess.run([nvcc, *CUDA_FLAGS, target, "-o", fatbin, str(source)], check=True)

        for fatbin in folder.glob("*.fatbin"):
            if not (sources / f"{fatbin.stem}.cu").exists():
                fatbin.unlink()  # its source was renamed or removed, and the driver would still load it
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            list(pool.map(build, sorted(sources.glob("*.cu"))))

    def build_extension(self, ext: Extension) -> None:
        """Compiles what has changed since the last call; copies the module to where it belongs."""
        cmake, ninja = find_tool("cmake"), find_tool("ninja")
        if cmake is None:
            raise CompileError("cmake was not found; install it with pip or the system's packages")
        # Not build_temp, which is a fresh folder in an editable install.
        tag = f"{self.plat_name}-{sys.implementation.cache_tag}-{'ninja' if ninja else 'make'}"
        folder = Path("build", "core", tag)
        if self.force:
            shutil.rmtree(folder, ignore_errors=True)
        configure = [
            cmake, "-S", "kernels", "-B", str(folder),
            *(["-G", "Ninja", f"-DCMAKE_MAKE_PROGRAM={ninja}"] if ninja else []),
            "-DNEURALSDF_PYTHON=ON", f"-DPython_EXECUTABLE={sys.executable}",
            f"-Dpybind11_DIR={pybind11.get_cmake_dir()}",
            *shlex.split(os.environ.get("CMAKE_ARGS", "")),
        ]  # fmt: skip
        try:
            self.call(configure)
        except CompileError:
            if not folder.exists():
                raise
            shutil.rmtree(folder)  # of other sources, or of a compiler that was removed
            self.call(configure)
        self.call(
            [cmake, "--build", str(folder), "--target", "_core", "--parallel", str(os.cpu_count() or 1)]
        )
        (module,) = folder.glob("_core.*.so")
        target = Path(self.get_ext_fullpath(ext.name))
        target.parent.mkdir(parents=True, exist_ok=True)
        self.copy_file(str(module), str(target))

    def call(self, command: list[str]) -> None:
        """Runs a command; raises `CompileError` with its output if it fails."""
        try:
            done = subprocess.run(
                command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
            )
        except OSError as error:
            raise CompileError(str(error)) from error
        if done.returncode:
            raise CompileError(f"{shlex.join(command)} failed:\n{done.stdout}")


core = Extension("neuralsdf.kernels._core", sources=[], language="c++", optional=True)

setup(ext_modules=[core], cmdclass={"build_ext": BuildKernels})
