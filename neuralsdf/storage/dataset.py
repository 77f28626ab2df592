"""
dataset.py
----------
Many shapes of one architecture in one HDF5 file:

    weights      (n, P) float32, decoded: exactly the weights of a file of any precision
    transforms   (n, 4, 4) float64: model space to mesh space
    names        (n,) UTF-8 with the length of the longest name, in ascending order
    metrics      (n,) one float64 per metric, lengths in model space, NaN if not measured
    checksums    (n,) uint32: CRC-32 of the bytes of a shape's weights, transform, name and metrics
    units        (n,) UTF-8, the unit of each shape's mesh space, empty if unknown; omitted if all are

and the root attributes `format`, `format_version` and `architecture` (JSON). Data sets are contiguous, so
that readers can memory-map them: opening takes the same time for any n, and processes that read the same file
share one copy of it.
"""

from __future__ import annotations

import json
import operator
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from difflib import get_close_matches
from itertools import pairwise
from os.path import basename, splitext
from pathlib import Path
from typing import Any, NamedTuple, overload
from zlib import crc32

import h5py
import numpy as np
import numpy.typing as npt

from ..arguments import numeric_points
from ..array_types import FloatArray
from ..backends import backend_name, backend_on, chosen_backend
from ..backends.batched_networks import values_of_many
from ..backends.value_outside_ball import extended, into_ball, model_points
from ..errors import ModelError, UnknownShapeError, UsageError
from ..fields.field import NeuralField
from ..files.atomic_write import check_writable, whole_file
from ..geometry.similarity_transform import Similarity
from ..printable_text import printable
from ..program.network import Architecture
from ..units import DIMENSIONS, LENGTHS
from . import MODEL_SUFFIXES, open_model
from .hdf5 import Form, new_file, reading
from .model_attributes import DATASET_FORMAT, is_code, is_dataset, is_ours, known_metrics
from .weight_checks import network_of

FORMAT_VERSION = 1

#: Columns of every data set: those covered by the checksum, and the checksums.
_COLUMNS = ("weights", "transforms", "names", "metrics", "checksums")

#: Number of shapes whose weights are gathered at once, if they are not contiguous.
_GATHERED = 256


class Shape(NamedTuple):
    """One shape of a data set, with its own writable arrays.

    weights: (P,) float32. transform: (4, 4) float64, model space to mesh space. metrics: those in the file,
    NaN if not measured (so that shapes can be collated); lengths in model space.
    """

    weights: FloatArray
    transform: npt.NDArray[np.float64]
    name: str
    metrics: dict[str, float]

    def __repr__(self) -> str:
        return f"Shape({self.name!r}, {len(self.weights)} weights)"


class Dataset:
    """The shapes in a data-set file, or a subset: `data[3]` and `data["bunny"]` are a `Shape`, `data[10:20]`
    is a `Dataset`.

    Data are read on access. It is safe to fork, and pickles as the path and the selection, so it works with
    torch's DataLoader. device: evaluates it, as for `neuralsdf.load`. Raises `ModelError` for a file that is
    missing, damaged, too new, or not a data set.

    A shape's checksum is verified when the shape is read or evaluated. The columns (`weights`, `transforms`,
    `names`, `metrics`, `units`) are read without a check: call `verify` first for a file that may be damaged.
    The file must not be overwritten in place while it is open; replacing it is safe.
    """

    def __init__(self, path: str | Path, *, device: str = "auto") -> None:
        backend_name(device)  # raises for an invalid device; the backend is loaded on first use
        self.path, self.device = Path(path), device
        self.architecture, self._columns = _open(self.path)
        self._chosen = np.arange(len(self._columns["weights"]))
        self._verified = np.zeros(len(self._chosen), bool)  # rows of the file, shared with its subsets

    def __len__(self) -> int:
        return len(self._chosen)

    def __repr__(self) -> str:
        return f"Dataset({str(self.path)!r}, {len(self)} shapes, {self.architecture})"

    def __iter__(self) -> Iterator[Shape]:
        return (self[i] for i in range(len(self)))

    def __contains__(self, name: object) -> bool:
        """Whether `data[name]` is a shape."""
        if not isinstance(name, str):
            return False
        try:
            self.index(name)
        except UnknownShapeError:
            return False
        return True

    @overload
    def __getitem__(self, key: int | np.integer[Any] | str) -> Shape: ...
    @overload
    def __getitem__(self, key: slice | Sequence[int] | npt.NDArray[Any]) -> Dataset: ...
    def __getitem__(
        self, key: int | np.integer[Any] | str | slice | Sequence[int] | npt.NDArray[Any]
    ) -> Shape | Dataset:
        """A shape, by index or name; for a slice, indices or a mask (n,), the data set of those shapes.

        A name is one of `names`, or one without its suffix if that is unique. Raises `UnknownShapeError` (a
        `KeyError`), which lists similar names. Selecting a subset reads nothing.
        """
        if isinstance(key, str):
            return self._shape(self.index(key))
        if isinstance(key, int | np.integer) and not isinstance(key, bool):
            return self._shape(key)
        try:
            chosen = self._chosen[key]
        except IndexError as error:
            raise IndexError(f"{self.path} has {len(self)} shapes: {error}") from error
        if chosen.ndim != 1:
            raise IndexError(
                f"{self.path}: a shape has an index or a name; several are a slice, a list of indices or a "
                f"mask of {len(self)} bools, not {type(key).__name__}"
            )
        return self._subset(chosen)

    def shuffled(self, seed: int) -> Dataset:
        """The same shapes in random order."""
        return self._subset(np.random.default_rng(seed).permutation(self._chosen))

    def index(self, name: str) -> int:
        """Index of the shape `data[name]`; raises `UnknownShapeError`."""
        exact = self._with_name(name)
        if len(exact):
            return int(exact[0])
        known = self.names
        similar = [i for i, other in enumerate(known) if splitext(other)[0] == name]
        if len(similar) != 1:
            raise _unknown(self.path, name, known, [known[i] for i in similar])
        return similar[0]

    def save(self, path: str | Path, *, force: bool = False) -> None:
        """Write these shapes, sorted by name, to a new data-set file, completely or not at all.

        Holds one shape at a time in memory and verifies its checksum. Raises `UsageError` for an empty
        selection, a duplicate, or a suffix other than .h5 and .hdf5, `ModelError` for a damaged shape,
        `OutputError` if the file cannot be written, exists and `force` is false, or is the file being read.
        """
        if Path(path).suffix.lower() not in MODEL_SUFFIXES:
            raise UsageError(f"{path}: a data set is saved as .h5")
        check_writable(path, force=force, source=self.path)
        names = self.names
        order = sorted(range(len(names)), key=names.__getitem__)
        encoded = [_encoded(names[i]) for i in order]
        metrics = self._columns["metrics"].dtype
        with _written(Path(path), self.architecture, encoded, metrics) as columns:
            for place, row in enumerate(self._chosen[order]):
                columns.copy(place, *self._row(row))
                if "units" in self._columns:
                    columns.small["units"][place] = self._columns["units"][row]

    def field(self, i: int | str) -> NeuralField:
        """A shape, by index or name, as a field to render, extract or query.

        Raises `ModelError` if its weights or transform are invalid.
        """
        row = self.index(i) if isinstance(i, str) else i
        shape = self._shape(row)
        measured = {name: value for name, value in shape.metrics.items() if not np.isnan(value)}
        try:
            network = network_of(self.path, self.architecture, shape.weights)
            transform = Similarity(shape.transform)
        except UsageError as error:
            raise ModelError(self.path, f"shape {shape.name!r}: {error}") from error
        backend = chosen_backend(self.device)
        unit = self[row : row + 1 or None].units[0]
        return NeuralField(network, transform, metrics=measured, chosen_backend=backend, unit=unit)

    def evaluate(self, points: npt.NDArray[Any]) -> FloatArray:
        """Values (n, m) float32 of all n shapes at the same points (m, 3) of model space.

        Equal to `field(i).value(points)`, in one call of the backend and on all threads. A point that is not
        finite gives NaN. Raises `ModelError` for a damaged shape, `UsageError` for points of another shape.
        """
        places = numeric_points(points)
        if places.ndim != 2:
            raise UsageError(f"points must have shape (m, 3), not {places.shape}")
        for row in self._chosen[~self._verified[self._chosen]]:
            self._row(row)
        inner, excess = into_ball(model_points(places, Similarity.identity()))
        backend, values = backend_on(self.device), np.empty((len(self), len(inner)), np.float32)
        for start in range(0, len(self), _GATHERED):
            block = slice(start, start + _GATHERED)
            weights = np.require(self[block].weights, np.float32, ["C", "A"])
            values[block] = values_of_many(backend, self.architecture, weights, inner)
        return values if excess is None else extended(values, excess)

    def verify(self) -> None:
        """Read every shape; raises `ModelError` for the first that is damaged."""
        for i in range(len(self)):
            self._shape(i)

    @property
    def weights(self) -> FloatArray:
        """The weights (n, P): a view of the file if the shapes are contiguous, else a copy."""
        return self._column("weights")

    @property
    def transforms(self) -> npt.NDArray[np.float64]:
        """Model space to mesh space, (n, 4, 4)."""
        return self._column("transforms")

    @property
    def names(self) -> list[str]:
        """The shapes' names."""
        return [_decoded(name) for name in self._column("names")]

    @property
    def units(self) -> list[str | None]:
        """Units of the shapes' mesh spaces (`units.LENGTHS`), None if unknown."""
        if "units" not in self._columns:
            return [None] * len(self)
        known = (_decoded(unit) for unit in self._column("units"))
        return [unit if unit in LENGTHS else None for unit in known]

    @property
    def metrics(self) -> npt.NDArray[Any]:
        """Metrics (n,), one record per shape: `data.metrics["iou"]` is a column (n,), NaN if not measured.

        Only metrics known to this version.
        """
        records: Any = self._column("metrics")
        known: npt.NDArray[Any] = records[[name for name in records.dtype.names or () if name in DIMENSIONS]]
        return known

    def _column(self, name: str) -> npt.NDArray[Any]:
        column, chosen = self._columns[name], self._chosen
        if len(chosen) and np.array_equal(chosen, np.arange(chosen[0], chosen[0] + len(chosen))):
            return column[chosen[0] : chosen[0] + len(chosen)]
        return column[chosen]

    def _with_name(self, name: str) -> npt.NDArray[np.int64]:
        """Indices of the shapes with exactly this name."""
        try:
            encoded = _encoded(name)
        except UnicodeEncodeError:  # a surrogate, which no file name contains
            return np.empty(0, np.int64)
        return np.flatnonzero(self._column("names") == encoded)

    def _row(self, row: int | np.integer[Any]) -> tuple[Any, Any, Any, Any]:
        """Weights, transform, name and metrics of a row of the file; verifies their checksum."""
        weights, transform, name, metrics, expected = (self._columns[name][row] for name in _COLUMNS)
        self._verified[row] = checksum(weights, transform, name, metrics) == expected
        if not self._verified[row]:
            reason = f"shape {_decoded(name)!r} is damaged: its checksum does not match"
            raise ModelError(self.path, reason, "copy or make it again")
        return weights, transform, name, metrics

    def _shape(self, i: int | np.integer[Any]) -> Shape:
        try:
            row = self._chosen[operator.index(i)]
        except (IndexError, TypeError) as error:
            raise IndexError(f"{self.path}: no shape has the index {i!r}; there are {len(self)}") from error
        weights, transform, name, metrics = self._row(row)
        measured = known_metrics(dict(zip(metrics.dtype.names, metrics.tolist(), strict=True)))
        return Shape(np.array(weights), np.array(transform), _decoded(name), measured)

    def _subset(self, chosen: npt.NDArray[np.int64]) -> Dataset:
        some = object.__new__(Dataset)
        some.__dict__ = self.__dict__ | {"_chosen": chosen}
        return some

    def __reduce__(self) -> tuple[Any, tuple[Any, ...]]:
        return _reopened, (self.path.absolute(), self.device, self._chosen, self._fingerprint)

    @property
    def _fingerprint(self) -> int:
        """CRC-32 of the checksums of the shapes."""
        return crc32(self._column("checksums").tobytes())


def _reopened(path: Path, device: str, chosen: npt.NDArray[np.int64], fingerprint: int) -> Dataset:
    whole = Dataset(path, device=device)
    if not len(chosen) or chosen.max() < len(whole):
        dataset = whole[chosen]
        if dataset._fingerprint == fingerprint:
            return dataset
    raise ModelError(path, "has changed since it was opened", "open it again")


def holds_dataset(path: str | Path) -> bool:
    """Whether the file is a data set; raises `ModelError` if it is not an HDF5 file."""
    with reading(path, mapped=True) as file:
        return is_dataset(file)


def _open(path: Path) -> tuple[Architecture, dict[str, npt.NDArray[Any]]]:
    """Architecture and memory-mapped columns of a file, in the order of their checksum."""
    with reading(path, mapped=True) as file:
        if not is_dataset(file):
            if is_ours(file) or is_code(file):
                raise file.error("is a model of one shape, not a data set", "open it with neuralsdf.load")
            raise file.error("is an HDF5 file, but not a neuralsdf data set")
        version = file.integer("format_version")
        if version < 1:
            raise file.error(f"its format version is {version}")
        if version > FORMAT_VERSION:
            raise file.error(f"is a data set of version {version}; up to {FORMAT_VERSION} can be read",
                             "install a newer neuralsdf")  # fmt: skip
        architecture = Architecture.from_json(json.loads(file.text("architecture")))
        has_units = file.holds("units")
        stored = {name: file.form(name) for name in (*_COLUMNS, *(["units"] if has_units else []))}
        count = (*stored["weights"].shape, 0)[0]
        forms = {
            "weights": Form(np.dtype("<f4"), (count, architecture.weight_count)),
            "transforms": Form(np.dtype("<f8"), (count, 4, 4)),
            "names": Form(np.dtype(f"S{stored['names'].dtype.itemsize}"), (count,)),
            "metrics": Form(
                np.dtype([(name, "<f8") for name in stored["metrics"].dtype.names or ()]), (count,)
            ),
            "checksums": Form(np.dtype("<u4"), (count,)),
        } | ({"units": Form(np.dtype("S2"), (count,))} if has_units else {})
        for name, form in forms.items():
            if stored[name] != form:
                raise file.error(
                    f"its {name} are {_described_form(stored[name])}, not {_described_form(form)}"
                )
        return architecture, {name: file.mapped(name) for name in forms}


def _described_form(form: Form) -> str:
    return f"{printable(str(form.dtype), 60)} {form.shape}"


def _decoded(name: bytes) -> str:
    return name.decode("utf-8", "surrogateescape")


def _encoded(name: str) -> bytes:
    return name.encode("utf-8", "surrogateescape")


def write_dataset(path: str | Path, shapes: Sequence[tuple[str, Path]]) -> None:
    """Write a data set of (name, model file) pairs to `path`, completely or not at all, replacing an old one.

    The bytes do not depend on the order of the pairs. Holds one model at a time in memory.
    Raises `UsageError` if there are none, for duplicate names and for mixed architectures, `ModelError` for a
    model that cannot be read or is foreign, `OutputError` if the file cannot be written.
    """
    shapes = sorted(shapes)
    names = [_encoded(name) for name, _ in shapes]
    _check_names(path, names)
    architecture = _model(shapes[0][1]).network.architecture
    metrics = np.dtype([(name, "<f8") for name in DIMENSIONS])
    with _written(Path(path), architecture, names, metrics) as columns:
        for row, ((_, model), name) in enumerate(zip(shapes, names, strict=True)):
            field = _model(model)
            if field.network.architecture != architecture:
                raise _mixed(shapes)
            columns.put(row, field, name)


def _check_names(path: str | Path, names: Sequence[bytes]) -> None:
    """Raise `UsageError` if there are no names, or duplicates; `names` are sorted."""
    if not names:
        raise UsageError(f"{path}: a data set needs at least one shape")
    if duplicates := {name for name, after in pairwise(names) if name == after}:
        raise UsageError(f"{path}: duplicate names: {_some(sorted(map(_decoded, duplicates)))}")


@contextmanager
def _written(
    path: Path, architecture: Architecture, names: Sequence[bytes], metrics: np.dtype[Any]
) -> Iterator[_Columns]:
    """The columns of a data set with these names, to be filled; then they are written to `path`."""
    _check_names(path, names)
    longest = max(map(len, names))
    with whole_file(path) as temporary:
        each = 4 * architecture.weight_count + longest + _OTHER_COLUMNS
        _make_room(temporary, _METADATA + len(names) * each)
        with new_file(temporary) as root:
            columns = _create(root, architecture, len(names), longest, metrics)
            yield columns
            columns.finish()


#: Upper bounds for the bytes of a shape's other columns, and of the file's metadata.
_OTHER_COLUMNS, _METADATA = 512, 1 << 14


def _make_room(path: Path, size: int) -> None:
    """Raise `OSError` if the disk is full, which would end the process within HDF5."""
    with path.open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, size)


@dataclass(frozen=True)
class _Columns:
    """Columns being written; all except the weights are small and kept in memory until the end."""

    weights: h5py.Dataset
    small: dict[str, npt.NDArray[Any]]

    def put(self, row: int, field: NeuralField, name: bytes) -> None:
        """Set a row to `field`."""
        self.weights[row] = field.network.weights
        self.small["transforms"][row] = field.transform.matrix
        self.small["names"][row] = name
        self.small["units"][row] = (field.unit or "").encode()
        for metric, value in field.metrics.items():
            if metric in DIMENSIONS:
                self.small["metrics"][metric][row] = value
        rest = (self.small[column][row] for column in ("transforms", "names", "metrics"))
        self.small["checksums"][row] = checksum(field.network.weights, *rest)

    def copy(
        self, row: int, weights: FloatArray, transform: npt.NDArray[np.float64], name: bytes, metrics: Any
    ) -> None:
        """Set a row to a shape of another data set."""
        self.weights[row] = weights
        self.small["transforms"][row] = transform
        self.small["names"][row] = name
        self.small["metrics"][row] = metrics
        self.small["checksums"][row] = checksum(weights, transform, name, metrics)

    def finish(self) -> None:
        """Write the columns that are in memory."""
        for name, values in self.small.items():
            if name == "units" and not values.any():
                continue
            self.weights.parent.create_dataset(name, data=values, dtype=values.dtype, track_times=False)


def _create(
    root: h5py.File, architecture: Architecture, count: int, longest: int, metrics: np.dtype[Any]
) -> _Columns:
    """Attributes and empty columns of a data set of `count` shapes, with names up to `longest` bytes."""
    root.attrs.create("format", np.bytes_(DATASET_FORMAT))
    root.attrs.create("format_version", np.uint16(FORMAT_VERSION))
    stated = json.dumps(architecture.to_json(), separators=(",", ":"))
    root.attrs.create("architecture", np.bytes_(stated.encode()))
    weights = root.create_dataset("weights", (count, architecture.weight_count), "<f4", track_times=False)
    small = {
        "transforms": np.zeros((count, 4, 4), "<f8"),
        "names": np.zeros(count, f"S{max(1, longest)}"),
        "metrics": np.full(count, np.nan, metrics),
        "checksums": np.zeros(count, "<u4"),
        "units": np.zeros(count, "S2"),
    }
    return _Columns(weights, small)


def checksum(*parts: Any) -> int:
    """CRC-32 of the bytes of a shape's weights, transform, name and metrics."""
    value = 0
    for part in parts:
        value = crc32(part if isinstance(part, bytes) else part.tobytes(), value)
    return value


def _model(path: Path) -> NeuralField:
    field = open_model(path)
    if field.radius != 1:
        raise ModelError(path, "has no transform and no errors", "a data set needs models made by neuralsdf")
    return field


def _mixed(shapes: Sequence[tuple[str, Path]]) -> UsageError:
    """The error for mixed architectures, with the names of some shapes of each."""
    having: dict[str, list[str]] = {}
    for name, model in shapes:
        having.setdefault(_described(_model(model).network.architecture), []).append(name)
    listed = "; ".join(f"{kind}: {_some(names)}" for kind, names in sorted(having.items()))
    return UsageError(f"a data set needs shapes of one architecture; these have {len(having)}: {listed}")


def _unknown(path: Path, name: str, known: Sequence[str], similar: Sequence[str]) -> UnknownShapeError:
    """The error for an unknown name; known: all names, similar: those that match except for a suffix."""
    if similar:
        return UnknownShapeError(f"{path}: {name!r} is the name of several shapes: {_some(similar)}")
    stems = {splitext(basename(other))[0]: other for other in reversed(known)}
    close = [stems.get(match, match) for match in get_close_matches(name, [*known, *stems], n=6)]
    hint = f"did you mean {_some(list(dict.fromkeys(close)))}?" if close else f"there are {_some(known)}"
    return UnknownShapeError(f"{path}: no shape is called {name!r}; {hint}")


def _described(architecture: Architecture) -> str:
    return f"{architecture}, {architecture.output} output"


def _some(names: Sequence[str]) -> str:
    """The first names of a list, and how many more there are."""
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return ", ".join(printable(name, 100) for name in names[:3]) + more
