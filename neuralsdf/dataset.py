"""
dataset.py
----------
Many shapes of one architecture in one HDF5 file:

    weights      (n, P) float32, decoded: what a file of any precision holds, exactly
    transforms   (n, 4, 4) float64: model space to mesh space
    names        (n,) UTF-8 of the longest name's length, in ascending order
    metrics      (n,) a float64 for each metric, lengths in model space, NaN where it was not measured
    checksums    (n,) uint32: CRC-32 of the bytes of a shape's weights, transform, name and metrics

and the root attributes `format`, `format_version` and `architecture` (JSON). Every data set lies in one
piece in the file.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any
from zlib import crc32

import h5py
import numpy as np
import numpy.typing as npt

from .errors import ModelError, UsageError
from .field import NeuralField
from .network import Architecture
from .output import whole_file
from .storage import open_field
from .storage.hdf5 import new_file
from .units import DIMENSIONS

FORMAT = "neuralsdf-dataset"
FORMAT_VERSION = 1


def write_dataset(path: str | Path, shapes: Sequence[tuple[str, Path]]) -> None:
    """Write a data set of (name, model file) pairs to `path`, whole or not at all; an old one is replaced.

    The same pairs in any order give the same bytes. One model is in memory at a time.
    Raises `UsageError` where there are none, a name comes twice or their architectures differ, `ModelError`
    for a model that cannot be read or is none of ours, `OutputError` where the file cannot be written.
    """
    shapes = sorted(shapes)
    names = [name.encode("utf-8", "surrogateescape") for name, _ in shapes]
    if not shapes:
        raise UsageError(f"{path}: a data set needs at least one shape")
    if twice := {name for (name, _), (after, _) in pairwise(shapes) if name == after}:
        raise UsageError(f"{path}: names that come twice: {_some(sorted(twice))}")
    architecture = _model(shapes[0][1]).network.architecture
    with whole_file(Path(path)) as temporary, new_file(temporary) as root:
        columns = _create(root, architecture, len(shapes), max(map(len, names)))
        for row, ((_, model), name) in enumerate(zip(shapes, names, strict=True)):
            field = _model(model)
            if field.network.architecture != architecture:
                raise _mixed(shapes)
            columns.put(row, field, name)
        columns.finish()


@dataclass(frozen=True)
class _Columns:
    """The data sets under way; all but the weights are small, and in memory until the end."""

    weights: h5py.Dataset
    small: dict[str, npt.NDArray[Any]]

    def put(self, row: int, field: NeuralField, name: bytes) -> None:
        """Let `field` be the shape of this row."""
        self.weights[row] = field.network.weights
        self.small["transforms"][row] = field.transform.matrix
        self.small["names"][row] = name
        for metric, value in field.metrics.items():
            if metric in DIMENSIONS:
                self.small["metrics"][metric][row] = value
        rest = (self.small[column][row] for column in ("transforms", "names", "metrics"))
        self.small["checksums"][row] = checksum(field.network.weights, *rest)

    def finish(self) -> None:
        """Write what is still in memory."""
        for name, values in self.small.items():
            self.weights.parent.create_dataset(name, data=values, dtype=values.dtype, track_times=False)


def _create(root: h5py.File, architecture: Architecture, count: int, longest: int) -> _Columns:
    """The attributes and empty columns of a data set of `count` shapes, names up to `longest` bytes."""
    root.attrs.create("format", np.bytes_(FORMAT))
    root.attrs.create("format_version", np.uint16(FORMAT_VERSION))
    stated = json.dumps(architecture.to_json(), separators=(",", ":"))
    root.attrs.create("architecture", np.bytes_(stated.encode()))
    metrics = np.dtype([(name, "<f8") for name in DIMENSIONS])
    weights = root.create_dataset("weights", (count, architecture.weight_count), "<f4", track_times=False)
    small = {
        "transforms": np.zeros((count, 4, 4), "<f8"),
        "names": np.zeros(count, f"S{max(1, longest)}"),
        "metrics": np.full(count, np.nan, metrics),
        "checksums": np.zeros(count, "<u4"),
    }
    return _Columns(weights, small)


def checksum(*parts: Any) -> int:
    """CRC-32 of the bytes of a shape's weights, transform, name and metrics."""
    value = 0
    for part in parts:
        value = crc32(part if isinstance(part, bytes) else part.tobytes(), value)
    return value


def _model(path: Path) -> NeuralField:
    field = open_field(path)
    if field.radius != 1:
        raise ModelError(path, "has no transform and no errors", "a data set is made of our own models")
    return field


def _mixed(shapes: Sequence[tuple[str, Path]]) -> UsageError:
    """Which architectures there are, how often, and the names of some that have them."""
    having: dict[str, list[str]] = {}
    for name, model in shapes:
        having.setdefault(_described(_model(model).network.architecture), []).append(name)
    listed = "; ".join(f"{kind}: {_some(names)}" for kind, names in sorted(having.items()))
    return UsageError(f"a data set holds shapes of one architecture, and these have {len(having)}: {listed}")


def _described(architecture: Architecture) -> str:
    return f"{architecture}, {architecture.output} output"


def _some(names: Sequence[str]) -> str:
    """The first names of a list, and how many more there are."""
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return ", ".join(names[:3]) + more
