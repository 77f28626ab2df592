"""Tensor files: those of the safetensors package, and errors in one line for what is not one."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from neuralsdf.errors import ModelError, OutputError, UsageError
from neuralsdf.files.bounded_input import Budget
from neuralsdf.latent_fields.tensor_file import MAX_HEADER, read_tensors, write_tensors

DTYPES = ["u8", "i8", "f8", "f4", "u4", "i4", "f2", "u2", "i2", "i1", "u1"]

TENSORS = {
    "layers.0.weight": np.arange(6, dtype=np.float32).reshape(2, 3),
    "step": np.array(7, np.int64),
    "empty": np.empty((0, 4), np.float64),
    "flags": np.array([1, 0, 255], np.uint8),
}
METADATA = {"shape": '{"hidden": [1]}'}


def raw(path: Path, header: object, data: bytes = b"", length: int | None = None) -> Path:
    """A file with this header (JSON, or text as it is) and data."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text) if length is None else length) + text + data)
    return path


def entry(begin: int = 0, end: int = 8, shape: Any = (2,), dtype: Any = "F32") -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}


def test_what_was_written_is_read_back(tmp_path: Path) -> None:
    write_tensors(tmp_path / "a.safetensors", TENSORS, METADATA)
    tensors, metadata = read_tensors(tmp_path / "a.safetensors")
    assert metadata == METADATA
    assert tensors.keys() == TENSORS.keys()
    for name, values in tensors.items():
        assert values.dtype == TENSORS[name].dtype
        assert values.shape == TENSORS[name].shape
        assert np.array_equal(values, TENSORS[name])
        assert values.flags.writeable
    write_tensors(tmp_path / "b.safetensors", dict(reversed(tensors.items())), metadata)
    assert (tmp_path / "a.safetensors").read_bytes() == (tmp_path / "b.safetensors").read_bytes()


def test_arrays_that_are_not_contiguous_and_names_that_are_not_ascii(tmp_path: Path) -> None:
    values = np.arange(12.0).reshape(3, 4)
    write_tensors(tmp_path / "a", {"é\n": values.T[::2]})
    assert np.array_equal(read_tensors(tmp_path / "a").tensors["é\n"], values.T[::2])
    write_tensors(tmp_path / "none", {})
    assert read_tensors(tmp_path / "none") == ({}, {})


@settings(max_examples=25)
@given(
    tensors=st.dictionaries(
        st.text(st.characters(codec="utf-8"), max_size=8),
        st.sampled_from(DTYPES).flatmap(
            lambda dtype: hnp.arrays(dtype, hnp.array_shapes(min_dims=0, max_dims=3, min_side=0))
        ),
        max_size=5,
    ),
    note=st.text(st.characters(codec="utf-8"), max_size=8),
)
def test_files_are_those_of_the_safetensors_package(
    tmp_path_factory: pytest.TempPathFactory, tensors: dict[str, np.ndarray], note: str
) -> None:
    package = pytest.importorskip("safetensors.numpy")
    path = tmp_path_factory.mktemp("tensors") / "a.safetensors"
    write_tensors(path, tensors, {"note": note})
    theirs = package.load(path.read_bytes())
    ours = read_tensors(path).tensors
    assert ours.keys() == theirs.keys() == tensors.keys()
    for name, values in tensors.items():
        for read in (ours[name], theirs[name]):
            assert (read.dtype, read.shape, read.tobytes()) == (values.dtype, values.shape, values.tobytes())
    package.save_file(tensors, path.with_name("b"), {"note": note})
    assert path.with_name("b").read_bytes() == path.read_bytes()


def test_what_the_format_cannot_hold_is_refused(tmp_path: Path) -> None:
    for tensors, metadata, reason in (
        ({"a": np.array(["text"])}, {}, "dtype"),
        ({"a": np.zeros(2, complex)}, {}, "dtype"),
        ({"__metadata__": np.zeros(2)}, {}, "__metadata__"),
        ({}, {"note": "x" * MAX_HEADER}, "too many for its header"),
    ):
        with pytest.raises(UsageError, match=reason):
            write_tensors(tmp_path / "a", tensors, metadata)
    (tmp_path / "a").write_text("kept")
    with pytest.raises(OutputError, match="exists already"):
        write_tensors(tmp_path / "a", {}, force=False)
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


DEEP = b'{"a": ' + b"[" * 100_000 + b"]" * 100_000 + b"}"

#: Header, data, and the reason that the error gives.
HEADERS: dict[str, tuple[object, bytes, str]] = {
    "not JSON": (b"{nonsense}", b"", "not the JSON"),
    "not an object": (b'["a"]', b"", "no safetensors header"),
    "not UTF-8": (b'{"\xff": 1}', b"", "not the JSON"),
    "NaN": (b'{"a": NaN}', b"", "NaN"),
    "many digits": (b'{"a": ' + b"9" * 100_000 + b"}", b"", "damaged"),
    "deep": (DEEP, b"", "nested too deeply"),
    "equal names": (b'{"a": 1, "a": 2}', b"", "equal"),
    "metadata that is no text": ({"__metadata__": {"a": 1}}, b"", "object of strings"),
    "metadata that is a list": ({"__metadata__": ["a"]}, b"", "object of strings"),
    "entry that is a number": ({"a": 3}, b"", "lacks its dtype"),
    "entry without a place": ({"a": {"dtype": "F32", "shape": [2]}}, b"", "lacks its dtype"),
    "control characters": ({"\x1b[31m\n": 3}, b"", r"'\\x1b\[31m\\n'"),
    "dtype without an equal": ({"a": entry(dtype="BF16", end=4)}, bytes(4), "unsupported dtype"),
    "dtype that is a list": ({"a": entry(dtype=["F32"])}, bytes(8), "unsupported dtype"),
    "negative size": ({"a": entry(shape=[-2])}, bytes(8), "not whole numbers"),
    "fractional size": ({"a": entry(shape=[2.0])}, bytes(8), "not whole numbers"),
    "boolean size": ({"a": entry(shape=[True, 2])}, bytes(8), "not whole numbers"),
    "shape that is a number": ({"a": entry(shape=2)}, bytes(8), "not whole numbers"),
    "three offsets": ({"a": entry() | {"data_offsets": [0, 8, 8]}}, bytes(8), "does not match"),
    "huge shape": ({"a": entry(shape=[1 << 62, 1 << 62])}, bytes(8), "does not match"),
    "huge shape of nothing": ({"a": entry(end=0, shape=[0, 1 << 62])}, b"", "cannot be read"),
    "huge number": ({"a": entry(shape=[1 << 80, 0], end=0)}, b"", "not whole numbers"),
    "many axes": ({"a": entry(shape=[1] * 100, end=4)}, bytes(4), "does not match"),
    "shape of another size": ({"a": entry(shape=[3])}, bytes(8), "does not match"),
    "backwards": ({"a": entry(8, 0)}, bytes(8), "does not match"),
    "beyond the end": ({"a": entry(0, 8)}, bytes(4), "8 bytes, the file has 4"),
    "bytes of nobody": ({"a": entry(0, 8)}, bytes(12), "8 bytes, the file has 12"),
    "overlapping": ({"a": entry(0, 8), "b": entry(4, 12)}, bytes(12), "overlaps"),
    "the same place": ({"a": entry(0, 8), "b": entry(0, 8)}, bytes(8), "overlaps"),
    "gap": ({"a": entry(0, 8), "b": entry(12, 20)}, bytes(20), "gap"),
    "gap at the start": ({"a": entry(4, 12)}, bytes(12), "gap"),
}


@pytest.mark.parametrize(("header", "data", "reason"), HEADERS.values(), ids=HEADERS)
def test_headers_that_are_refused(tmp_path: Path, header: object, data: bytes, reason: str) -> None:
    path = raw(tmp_path / "a.safetensors", header, data)
    with pytest.raises(ModelError, match=reason) as refused:
        read_tensors(path)
    assert str(refused.value).startswith(str(path))
    assert len(str(refused.value).splitlines()) == 1
    assert len(str(refused.value)) < 300 + len(str(path))


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda path: path.write_bytes(b""), "is not a decoder"),
        (lambda path: path.write_bytes(b"\x80\x02pickle.dump"), "is not a decoder"),
        (lambda path: raw(path, {}, length=1 << 60), "cut short"),
        (lambda path: raw(path, b"{" + b" " * MAX_HEADER + b"}"), "at most 8,388,608"),
        (lambda path: path.mkdir(), "is a folder, not a decoder"),
        (lambda path: None, "no such file"),
    ],
)
def test_other_files_are_refused(tmp_path: Path, make: Callable[[Path], object], reason: str) -> None:
    make(tmp_path / "a")
    with pytest.raises(ModelError, match=reason):
        read_tensors(tmp_path / "a", kind="a decoder")


def test_every_truncation_and_every_changed_byte_of_the_header_is_an_error_or_harmless(
    tmp_path: Path,
) -> None:
    path = tmp_path / "a"
    write_tensors(path, TENSORS, METADATA)
    content = path.read_bytes()
    for length in range(len(content)):
        path.write_bytes(content[:length])
        with pytest.raises(ModelError):
            read_tensors(path)
    size = sum(values.nbytes for values in TENSORS.values())
    for index in range(len(content) - size):
        for byte in (content[index] ^ 1, 0xFF, ord("9")):
            path.write_bytes(content[:index] + bytes([byte]) + content[index + 1 :])
            try:
                read = read_tensors(path).tensors
            except ModelError:
                continue
            assert sum(values.nbytes for values in read.values()) == size


def test_a_file_draws_from_the_budget_of_the_whole(tmp_path: Path) -> None:
    write_tensors(tmp_path / "a", TENSORS)
    budget = Budget(tmp_path / "whole", ModelError, 0)
    read_tensors(tmp_path / "a", budget=budget)
    assert budget.drawn >= (tmp_path / "a").stat().st_size - 8
    budget.draw(budget.left)
    with pytest.raises(ModelError, match="whole"):
        read_tensors(tmp_path / "a", budget=budget)
