"""Builds the C++ core, an optional extension: one object for each instruction set, chosen as it is loaded;
and where NEURALSDF_CUDA=1 asks for them, the CUDA kernels, as fatbins beside their sources, which takes nvcc
minutes.

Everything else about the package is in pyproject.toml.
"""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from tempfile import TemporaryDirectory

import pybind11
from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext
from setuptools.errors import CompileError, PlatformError
from setuptools.modified import newer_group

FLAGS = [
    "-std=c++17",
    "-O3",
    "-g0",
    "-fno-math-errno",
    "-ffp-contract=fast",
    "-fvisibility=hidden",
    "-pthread",
    "-Wno-psabi",  # vectors are passed between inlined functions alone
]
#: Flags for the kernels of each instruction set, by the name that NEURALSDF_ISA takes.
ISAS: dict[str, list[str]] = {"baseline": []}
if platform.machine().lower() in ("x86_64", "amd64"):
    ISAS["avx2"] = ["-mavx2", "-mfma"]
    ISAS["avx512"] = [
        "-mavx2", "-mfma", "-mavx512f", "-mavx512bw", "-mavx512dq", "-mavx512vl", "-mprefer-vector-width=512",
        "-Wno-maybe-uninitialized",  # of gcc 12, about its own intrinsics
    ]  # fmt: skip


#: For kernels/cpu/mlp/amx_tiles.cpp, beside AVX-512's; compilers before 2020 do not know them.
AMX_FLAGS = ["-mamx-tile", "-mamx-bf16", "-mgfni", "-mavx512vbmi"]

#: Sources in kernels/ that are vectorised, compiled once for each of `ISAS`; and all others.
VECTORISED = (
    "cpu/mlp/evaluate_and_differentiate", "cpu/training/soap", "cpu/bvh/traversal", "cpu/tape/instructions",
    "cpu/tape/sphere_bvh", "cpu/placement",
)  # fmt: skip
SOURCES = (
    "bindings/module", "bindings/programs", "bindings/trainer", "bindings/bvh", "bindings/sparse_grid",
    "cpu/isas", "cpu/program", "cpu/pool", "cpu/mlp/weight_layout",
    "cpu/tape/tape_program", "cpu/tape/network_union", "cpu/trace/sphere_tracing", "cpu/training/trainer",
    "cpu/grid/sparse_grid", "cpu/bvh/build", "cpu/bvh/triangle_bvh", "cpu/mlp/network_program",
)  # fmt: skip

#: Machine code for Ampere, Hopper and Blackwell, as far as nvcc knows them, and PTX for all the others. All
#: of it from the one PTX, or nvcc's front end, most of its time, would run once for each.
CUDA_CODES = ("sm_80", "sm_90", "sm_100")
CUDA_PTX = "compute_80"
CUDA_FLAGS = ["-std=c++17", "-O3", "-fatbin"]


def cuda_wanted() -> bool:
    """Whether NEURALSDF_CUDA asks for the CUDA kernels."""
    return os.environ.get("NEURALSDF_CUDA", "") not in ("", "0")


def find_nvcc() -> str:
    """CUDA's compiler: what NVCC names, or on the PATH, or under CUDA_HOME; `PlatformError` without one."""
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


class BuildKernels(build_ext):
    """Compiles what is vectorised once for each instruction set, and links all into the extension; then the
    CUDA kernels, if they are wanted."""

    def run(self) -> None:
        """The extension as usual, then the fatbins; these are not optional where they are asked for."""
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

        with ThreadPoolExecutor(os.cpu_count()) as pool:
            list(pool.map(build, sorted(sources.glob("*.cu"))))

    def build_extension(self, ext: Extension) -> None:
        """All objects, as many at once as there are cores, then the extension as usual."""
        jobs = [(name, isa, flags) for isa, flags in ISAS.items() for name in VECTORISED]
        jobs += [(name, "", []) for name in SOURCES]
        if "avx512" in ISAS and platform.system() == "Linux" and self.takes(AMX_FLAGS):
            jobs.append(("cpu/mlp/amx_tiles", "", ISAS["avx512"] + AMX_FLAGS))
            ext.define_macros.append(("NEURALSDF_AMX", "1"))
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            ext.extra_objects = list(pool.map(lambda job: self.compiled(ext, *job), jobs))
        ext.depends = [*ext.depends, *ext.extra_objects]  # or a new object would not be linked
        super().build_extension(ext)

    def takes(self, flags: list[str]) -> bool:
        """Whether the compiler knows some flags."""
        with TemporaryDirectory() as folder:
            source = Path(folder, "empty.cpp")
            source.touch()
            try:
                self.compiler.compile([str(source)], output_dir=folder, extra_postargs=flags)
            except CompileError:
                return False
        return True

    def compiled(self, ext: Extension, name: str, isa: str, flags: list[str]) -> str:
        """The object of a source, for an instruction set if any; compiled unless it is up to date."""
        source, folder = f"kernels/{name}.cpp", Path(self.build_temp) / isa
        built = folder / "kernels" / f"{name}.o"
        if self.force or newer_group([source, *ext.depends], str(built)):
            self.compiler.compile(
                [source],
                output_dir=str(folder),
                macros=[*ext.define_macros, *([("NEURALSDF_KERNEL", isa)] if isa else [])],
                include_dirs=ext.include_dirs,
                extra_postargs=FLAGS + flags,
            )
        return str(built)


core = Extension(
    "neuralsdf.kernels._core",
    sources=[],
    depends=["setup.py", *sorted(str(path) for path in Path("kernels").rglob("*.h"))],
    include_dirs=["kernels", pybind11.get_include()],
    define_macros=[("NEURALSDF_X86", "1")] if "avx2" in ISAS else [],
    extra_link_args=["-pthread"],
    language="c++",
    optional=True,
)

setup(ext_modules=[core], cmdclass={"build_ext": BuildKernels})
