"""
tensor_file.py
--------------
Named arrays in a file of the safetensors format (https://huggingface.co/docs/safetensors), which contains no
code: 8 bytes with the length of the header, the header as JSON, and the arrays, little-endian and row-major.

    {"__metadata__": {"key": "text"}, "name": {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24]}}

Files may come from anywhere, so the header is checked against the size of the file before anything is
allocated.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from math import prod
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np
import numpy.typing as npt

from ..errors import ModelError, UsageError
from ..files.atomic_write import whole_file
from ..files.bounded_input import Budget, opened

SUFFIX = ".safetensors"

#: Limit of the header: the names of 100 000 shapes fit into it.
MAX_HEADER = 8 << 20

#: Bytes of Python objects that a byte of JSON can become.
_JSON_EXPANSION = 32

#: numpy dtypes of the format, in the order in which safetensors stores arrays, so that each is aligned.
_DTYPES = {
    "U64": "<u8", "I64": "<i8", "F64": "<f8", "F32": "<f4", "U32": "<u4", "I32": "<i4",
    "F16": "<f2", "U16": "<u2", "I16": "<i2", "I8": "|i1", "U8": "|u1",
}  # fmt: skip
_NAMES = {np.dtype(dtype): name for name, dtype in _DTYPES.items()}

_METADATA = "__metadata__"
_ALIGNMENT = 8

#: Maximum number of axes of a numpy array, in all versions.
_MAX_AXES = 32


class TensorFile(NamedTuple):
    """The contents of a file: writable arrays by name, and texts by key."""

    tensors: dict[str, npt.NDArray[Any]]
    metadata: dict[str, str]


class _Entry(NamedTuple):
    """An array's place in the data: bytes `begin` to `end`."""

    begin: int
    end: int
    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    name: str


def write_tensors(
    path: str | Path,
    tensors: Mapping[str, npt.NDArray[Any]],
    metadata: Mapping[str, str] | None = None,
    *,
    force: bool = True,
) -> None:
    """Write arrays and texts to a file, completely or not at all; equal contents give equal bytes.

    Raises `UsageError` for a dtype that the format lacks or a header that is too large, `OutputError` if the
    file cannot be written, or exists and `force` is false.
    """
    order = list(_NAMES)
    for name, tensor in tensors.items():
        if tensor.dtype not in _NAMES or name == _METADATA:
            raise UsageError(f"{path}: cannot hold {name!r} of dtype {tensor.dtype}")
    names = sorted(tensors, key=lambda name: (order.index(tensors[name].dtype), name))
    header: dict[str, Any] = {_METADATA: dict(metadata)} if metadata else {}
    end = 0
    for name in names:
        begin, end = end, end + tensors[name].nbytes
        form = {"dtype": _NAMES[tensors[name].dtype], "shape": list(tensors[name].shape)}
        header[name] = form | {"data_offsets": [begin, end]}
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % _ALIGNMENT)
    if len(text) > MAX_HEADER:
        raise UsageError(f"{path}: {len(text):,} bytes of names and notes are too many for its header")
    with whole_file(path, force=force) as temporary, temporary.open("wb") as stream:
        stream.write(len(text).to_bytes(8, "little") + text)
        for name in names:
            stream.write(np.ascontiguousarray(tensors[name]).reshape(-1).view(np.uint8).data)


def read_tensors(
    path: str | Path,
    *,
    kind: str = "a tensor file",
    largest: float = float("inf"),
    budget: Budget | None = None,
) -> TensorFile:
    """The arrays and texts in a file.

    kind: expected content, such as "a decoder", for errors. largest: limit of the file's bytes. budget:
    shared with the whole that the file is part of; None for a separate one. Raises `ModelError` for a file
    that is missing, damaged, or not of this format.
    """
    path = Path(path)
    with opened(path, ModelError, kind, largest) as stream:
        size = stream.seek(0, 2)
        stream.seek(0)
        budget = Budget(path, ModelError, size) if budget is None else budget
        metadata, entries = _header(path, stream, size, kind, budget)
        budget.draw(sum(entry.end - entry.begin for entry in entries))
        return TensorFile({entry.name: _read(path, stream, entry) for entry in entries}, metadata)


def _header(
    path: Path, stream: BinaryIO, size: int, kind: str, budget: Budget
) -> tuple[dict[str, str], list[_Entry]]:
    """Metadata and entries in order of their place, which cover the rest of the file exactly."""
    length = int.from_bytes(stream.read(8), "little")
    if size < 8 + length or length < 2 or stream.read(1) != b"{":
        raise ModelError(
            path, f"is not {kind}, or is cut short: no safetensors header", "copy it again or name another"
        )
    if length > MAX_HEADER:
        raise ModelError(path, f"its header has {length:,} bytes (at most {MAX_HEADER:,})")
    budget.draw(_JSON_EXPANSION * length)
    try:
        header = json.loads(
            b"{" + stream.read(length - 1), object_pairs_hook=_distinct, parse_constant=_refuse_constant
        )
        metadata = _metadata(header.pop(_METADATA, {}))
        entries = [_entry(name, value) for name, value in header.items()]
        entries.sort(key=lambda entry: (entry.begin, entry.end))
        _check_places(entries, size - 8 - length)
    except RecursionError as error:
        raise ModelError(path, "the header is nested too deeply", "copy or write it again") from error
    except ValueError as error:
        reason = str(error) if isinstance(error, _Invalid) else "it is not the JSON of safetensors"
        raise ModelError(path, f"its header is damaged: {reason}", "copy or write it again") from error
    return metadata, entries


class _Invalid(ValueError):
    """A fault of the header, worded for the user."""


def _distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) != len(pairs):
        raise _Invalid("two of its names are equal")
    return value


def _refuse_constant(name: str) -> None:
    raise _Invalid(f"{name} is not JSON")


def _metadata(value: Any) -> dict[str, str]:
    if not isinstance(value, dict) or not all(isinstance(text, str) for text in value.values()):
        raise _Invalid("its metadata is not an object of strings")
    return value


def _entry(name: str, value: Any) -> _Entry:
    if not isinstance(value, dict) or value.keys() != {"dtype", "shape", "data_offsets"}:
        raise _Invalid(f"{name!r} lacks its dtype, shape or place")
    shape, offsets = value["shape"], value["data_offsets"]
    counts = [*shape, *offsets] if isinstance(shape, list) and isinstance(offsets, list) else [None]
    if not all(type(count) is int and 0 <= count < 1 << 63 for count in counts):
        raise _Invalid(f"the shape or place of {name!r} is not whole numbers")
    if not isinstance(value["dtype"], str) or value["dtype"] not in _DTYPES:
        raise _Invalid(f"{name!r} has an unsupported dtype")
    dtype = np.dtype(_DTYPES[value["dtype"]])
    if len(shape) > _MAX_AXES or len(offsets) != 2 or offsets[1] - offsets[0] != prod(shape) * dtype.itemsize:
        raise _Invalid(f"the shape of {name!r} does not match its place")
    return _Entry(offsets[0], offsets[1], dtype, tuple(shape), name)


def _check_places(entries: list[_Entry], size: int) -> None:
    """Raise unless the arrays follow each other without gaps and fill the data of the file."""
    end = 0
    for entry in entries:
        if entry.begin != end:
            raise _Invalid(f"{entry.name!r} overlaps another array or leaves a gap")
        end = entry.end
    if end != size:
        raise _Invalid(f"its arrays have {end:,} bytes, the file has {size:,}")


def _read(path: Path, stream: BinaryIO, entry: _Entry) -> npt.NDArray[Any]:
    """The array of an entry, which starts where the stream is."""
    count = prod(entry.shape)
    values = np.fromfile(stream, entry.dtype, count)
    if values.size != count:
        raise ModelError(path, "was cut short while it was read", "read it again")
    return values.reshape(entry.shape)
