"""Builds the C++ core, an optional extension: one object for each instruction set, chosen as it is loaded.

Everything else about the package is in pyproject.toml.
"""

from __future__ import annotations

import platform
from pathlib import Path

import pybind11
from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

FLAGS = [
    "-std=c++17",
    "-O3",
    "-g0",
    "-fno-math-errno",
    "-ffp-contract=fast",
    "-fvisibility=hidden",
    "-pthread",
]
#: Flags for the kernels of each instruction set, by the name that NEURALSDF_ISA takes.
ISAS: dict[str, list[str]] = {"baseline": []}
if platform.machine().lower() in ("x86_64", "amd64"):
    ISAS["avx2"] = ["-mavx2", "-mfma"]
    ISAS["avx512"] = [
        "-mavx2", "-mfma", "-mavx512f", "-mavx512bw", "-mavx512dq", "-mavx512vl", "-mprefer-vector-width=512"
    ]  # fmt: skip


class BuildKernels(build_ext):
    """Compiles kernel.cpp once for each instruction set and links the objects into the extension."""

    def build_extension(self, ext: Extension) -> None:
        """One object for each of `ISAS`, then the extension as usual."""
        ext.extra_objects = [
            built
            for isa, flags in ISAS.items()
            for built in self.compiler.compile(
                ["kernels/kernel.cpp"],
                output_dir=str(Path(self.build_temp) / isa),
                macros=[("NEURALSDF_KERNEL", isa)],
                extra_postargs=FLAGS + flags,
                depends=ext.depends,
            )
        ]
        super().build_extension(ext)


core = Extension(
    "neuralsdf.kernels._core",
    sources=["kernels/core.cpp", "kernels/layout.cpp", "kernels/pool.cpp"],
    depends=[str(path) for path in sorted(Path("kernels").glob("*.h"))],
    include_dirs=[pybind11.get_include()],
    define_macros=[("NEURALSDF_X86", "1")] if "avx2" in ISAS else [],
    extra_compile_args=FLAGS,
    extra_link_args=["-pthread"],
    language="c++",
    optional=True,
)

setup(ext_modules=[core], cmdclass={"build_ext": BuildKernels})
