"""Structs passed to CUDA kernels: every field has the offset that the C++ compiler gives it."""

from __future__ import annotations

import re
import subprocess
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest

from neuralsdf.backends.cuda.program import evaluation_of, shadow_of, tracing_of
from neuralsdf.backends.cuda.structs import NETWORK
from neuralsdf.backends.cuda.tape import TAPE

from ...helpers.cuda_host import COMPILER, REPOSITORY

CUDA = REPOSITORY / "kernels" / "cuda"
#: Structs that kernels take by themselves or as a field, by their names in C++.
TEMPLATES = {
    f"{name}<{field}>": make(dtype)
    for name, make in {"EvaluationOf": evaluation_of, "TracingOf": tracing_of, "ShadowOf": shadow_of}.items()
    for field, dtype in {"Network": NETWORK, "Tape": TAPE}.items()
}
HEADERS = ("evaluate.h", "fit.h", "sparse_grid.h", "loss.h", "tape.h", "tensor_cores.h", "trace.h", "bvh.h")
#: numpy types and the equivalent types of C++.
NUMBERS = {"i": "std::is_integral_v<{0}> && std::is_signed_v<{0}>", "u": "std::is_unsigned_v<{0}>"}


def structs() -> dict[str, np.dtype]:
    """Every struct of the backend's modules: MARCHING_CUBES is MarchingCubes in C++."""
    found = dict(TEMPLATES)
    for path in Path(import_module("neuralsdf.backends.cuda").__path__[0]).glob("*.py"):
        name = "" if path.stem == "__init__" else f".{path.stem}"
        for constant, value in vars(import_module(f"neuralsdf.backends.cuda{name}")).items():
            if isinstance(value, np.dtype) and value.names is not None and constant.isupper():
                found[constant.title().replace("_", "")] = value
    return found


def kind_of(dtype: np.dtype, known: dict[str, np.dtype], field: str) -> str:
    """A condition on the C++ type of a field."""
    if dtype == np.dtype(np.uintp):
        return f"std::is_pointer_v<{field}>"
    if dtype.shape:
        element = {"f8": "double", "f4": "float"}[dtype.base.str[1:]]
        return f"std::is_same_v<{field}, {element}[{dtype.shape[0]}]>"
    if dtype.names is not None:
        same = [name for name, other in known.items() if other == dtype and name not in TEMPLATES]
        return " || ".join(f"std::is_same_v<{field}, {name}>" for name in same)
    if dtype.kind == "f":
        return f"std::is_same_v<{field}, {'float' if dtype.itemsize == 4 else 'double'}>"
    return NUMBERS[dtype.kind].format(field)


def assertions(structs: dict[str, np.dtype]) -> str:
    """C++ that compiles only if the structs have these fields, no others, at the same offsets."""
    lines = [f'#include "{header}"' for header in HEADERS]
    lines += ["#include <cstddef>", "#include <type_traits>", "using namespace neuralsdf;"]
    lines += ["using namespace neuralsdf::gpu;", "namespace {"]
    for number, (name, dtype) in enumerate(structs.items()):
        assert dtype.names is not None
        lines.append(f'static_assert(sizeof({name}) == {dtype.itemsize}, "{name}: size");')
        for field, (kind, offset, *_) in dtype.fields.items():
            lines.append(f'static_assert(offsetof({name}, {field}) == {offset}, "{name}.{field}: offset");')
            lines.append(
                f'static_assert(sizeof({name}::{field}) == {kind.itemsize}, "{name}.{field}: size");'
            )
            condition = kind_of(kind, known=structs, field=f"decltype({name}::{field})")
            lines.append(f'static_assert({condition}, "{name}.{field}: type");')
        # Compiles for exactly as many fields as the struct has.
        names = ", ".join(f"field{i}" for i in range(len(dtype.names)))
        lines.append(f"void fields_{number}(const {name}& s) {{ const auto& [{names}] = s; }}")
    return "\n".join([*lines, "}"])


def compile_errors(structs: dict[str, np.dtype], folder: Path) -> str:
    source = folder / "structs.cpp"
    source.write_text(assertions(structs))
    command = [COMPILER, "-std=c++17", "-fsyntax-only", "-Wno-invalid-offsetof", f"-I{CUDA}", str(source)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.stderr if done.returncode else ""


needs_compiler = pytest.mark.skipif(COMPILER is None, reason="no C++ compiler")


@needs_compiler
def test_every_field_of_every_struct_has_the_offset_of_cpp(tmp_path: Path) -> None:
    assert len(structs()) >= 28
    assert compile_errors(structs(), tmp_path) == ""


def test_every_struct_that_a_kernel_takes_is_checked() -> None:
    """A kernel is `void name(const Block& block, const Arguments& a)`."""
    text = "".join(header.read_text() for header in CUDA.glob("*.h"))
    taken = set(re.findall(r"\(const Block& block, const (\w+)[<>\w]*& a\)", text))
    aliases = {"Evaluation": "EvaluationOf", "Tracing": "TracingOf", "Shadow": "ShadowOf"}
    checked = {name.partition("<")[0] for name in structs()}
    # Template parameters, and the one that only a benchmark launches.
    assert {aliases.get(name, name) for name in taken} - checked == {"Answer", "March", "Peak"} & taken
    assert {"Fit", "MarchingCubes"} <= taken


@needs_compiler
@pytest.mark.parametrize("change", ["swapped", "missing", "retyped"])
def test_a_struct_that_differs_is_detected(tmp_path: Path, change: str) -> None:
    """Changes that keep the size."""
    pointers = [("counts", np.uintp), ("sums", np.uintp)]
    scan = {
        "swapped": np.dtype([*pointers, ("tiles", np.int64), ("count", np.int64)]),
        "missing": np.dtype(
            {"names": ["counts", "sums", "count"], "formats": ["u8", "u8", "i8"], "itemsize": 32}
        ),
        "retyped": np.dtype([*pointers, ("count", np.float64), ("tiles", np.int64)]),
    }[change]
    known = structs()
    assert scan.itemsize == known["Scan"].itemsize
    errors = compile_errors(known | {"Scan": scan}, tmp_path)
    found = {"swapped": "Scan.tiles: offset", "missing": "Scan", "retyped": "Scan.count: type"}[change]
    assert found in errors
