"""
hdf5.py
-------
HDF5 access: untrusted files are read with every type and size checked before use; files are built in memory,
small and byte-for-byte reproducible.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from math import prod
from os import fsencode
from pathlib import Path
from typing import Any, NamedTuple

import h5py
import numpy as np
import numpy.typing as npt

from ..errors import ModelError, NeuralSDFError
from ..files.bounded_input import Budget, opened
from ..program.network import MAX_WEIGHTS

#: HDF5's limit for an attribute stored with the others; ours are far smaller.
MAX_ATTRIBUTE = 1 << 16

#: Maximum depth of a data set's path. Groups can contain each other, so a path could run through a cycle for
#: its whole length.
MAX_DEPTH = 32

_SIGNATURE = b"\x89HDF\r\n\x1a\n"
_MAX_FILE = 4 * MAX_WEIGHTS + (1 << 20)
MESH_SUFFIXES = (".obj", ".stl", ".ply", ".off", ".glb", ".gltf", ".3mf")

#: Header of a heap of attributes or links (HDF5's "fractal heap") with compressed blocks: signature, version,
#: length of its identifiers, then the nonzero length of the filter description.
_FILTERED_HEAP = re.compile(rb"FRHP\0..(?!\0\0)..[\0-\3]", re.DOTALL)
_HEAP_HEADER, _BLOCK = 10, 1 << 22

_STRINGS = (h5py.h5t.STRING,)
_INTEGERS = (h5py.h5t.INTEGER,)
_NUMBERS = (h5py.h5t.INTEGER, h5py.h5t.FLOAT)


class Form(NamedTuple):
    """Declared dtype and shape of a data set."""

    dtype: np.dtype[Any]
    shape: tuple[int, ...]


class ModelFile:
    """An untrusted HDF5 file, open for reading.

    Readers get values, never h5py objects. A value must have the expected type and size, and be stored
    uncompressed in this file: links and virtual data sets to other files are rejected. All values are counted
    against one budget before they are read, because one data set can be read under many names. Memory-mapped
    values are exempt.
    """

    def __init__(self, path: Path, root: h5py.File, size: int, budget: Budget | None = None) -> None:
        self.path, self.size = path, size
        self.budget = Budget(path, ModelError, size) if budget is None else budget
        self._root = root

    def error(self, reason: str, remedy: str | None = None) -> ModelError:
        """An error about this file."""
        return ModelError(self.path, reason, remedy)

    def has_attribute(self, name: str) -> bool:
        """Whether the root has an attribute called `name`."""
        return name in self._root.attrs

    def text(self, name: str) -> str:
        """The root attribute `name`, a single string."""
        value = self._attribute(self._root, name, _STRINGS, "a string")
        if value.size != 1:
            raise self.error(f"its attribute {name!r} is not a string")
        return _decoded(value.ravel()[0])

    def integer(self, name: str) -> int:
        """The root attribute `name`, a single integer."""
        value = self._attribute(self._root, name, _INTEGERS, "a number")
        if value.size != 1:
            raise self.error(f"its attribute {name!r} is not a number")
        return int(value.ravel()[0])

    def numbers(self, name: str) -> npt.NDArray[np.float64]:
        """The root attribute `name`, numbers of any shape."""
        return self._attribute(self._root, name, _NUMBERS, "a number").astype("<f8")

    def octets(self, name: str) -> bytes:
        """The root attribute `name`, integers from 0 to 255."""
        value = self._attribute(self._root, name, _INTEGERS, "bytes")
        if value.size and not (value.min() >= 0 and value.max() <= 255):
            raise self.error(f"its attribute {name!r} is not bytes")
        return value.astype(np.uint8).tobytes()

    def inflated(self, name: str, largest: int) -> bytes:
        """The root attribute `name`, decompressed with zlib; at most `largest` bytes of output."""
        unpacked = zlib.decompressobj().decompress(self.octets(name), largest)
        self.budget.draw(len(unpacked))
        return unpacked

    def names(self, name: str, group: str | None = None) -> list[str]:
        """Attribute `name` of the root or a group, a list of strings of fixed or variable length."""
        owner = self._root if group is None else self._member(group, h5py.Group)
        value = self._attribute(owner, name, None, "a list of names")
        if value.size == 0:  # an empty list has a numeric dtype
            return []
        values = np.atleast_1d(value)
        if values.ndim != 1 or not all(isinstance(value, bytes) for value in values):
            raise self.error(f"its attribute {name!r} is not a list of names")
        return [_decoded(value) for value in values]

    def holds(self, path: str) -> bool:
        """Whether `path` exists."""
        return path in self._root

    def form(self, path: str) -> Form:
        """Dtype and shape of the data set at `path`; raises `ModelError` unless complete and contiguous."""
        return self._checked(self._member(path, h5py.Dataset), path)

    def values(self, path: str) -> npt.NDArray[Any]:
        """The data set at `path`."""
        dataset = self._member(path, h5py.Dataset)
        dtype, shape = self._checked(dataset, path)
        self.budget.draw(prod(shape) * dtype.itemsize)
        values = np.empty(shape, dtype)
        dataset.read_direct(values) if values.size else None
        return values

    def mapped(self, path: str) -> npt.NDArray[Any]:
        """The data set at `path`, memory-mapped."""
        dataset = self._member(path, h5py.Dataset)
        dtype, shape = self._checked(dataset, path)
        if not prod(shape):
            return np.empty(shape, dtype)
        return np.memmap(self.path, dtype, "r", dataset.id.get_offset(), shape).view(np.ndarray)

    # -- shared checks ----------------------------------------------------------------------------------

    def _checked(self, dataset: h5py.Dataset, path: str) -> Form:
        """Dtype and shape of a data set; raises `ModelError` unless it is stored completely in this file."""
        if dataset.is_virtual or dataset.external or dataset.chunks is not None or dataset.shape is None:
            raise self.error(f"its data set {path!r} is not stored in one piece in this file")
        form = Form(dataset.dtype, dataset.shape)
        size = prod(form.shape) * form.dtype.itemsize
        if form.dtype.hasobject or dataset.id.get_storage_size() != size:
            raise self.error(f"its data set {path!r} is incomplete")
        if size and (dataset.id.get_offset() or 0) + size > self.size:
            raise self.error(f"its data set {path!r} is incomplete")
        return form

    def _member(self, path: str, kind: type[Any]) -> Any:
        parts = path.split("/")
        if len(parts) > MAX_DEPTH:
            raise self.error(f"a name in it passes through {len(parts)} groups")
        member: Any = self._root
        for part in parts:
            link = member.get(part, getlink=True) if isinstance(member, h5py.Group) else None
            if not isinstance(link, h5py.HardLink):
                raise self.error(f"it has no {path!r}")
            member = member[part]
        if not isinstance(member, kind):
            raise self.error(f"its {path!r} is not a {kind.__name__.lower()}")
        return member

    def _attribute(
        self, owner: Any, name: str, classes: Collection[int] | None, what: str
    ) -> npt.NDArray[Any]:
        """An attribute of the given HDF5 type classes (None: numbers or strings); `what`: expected content.

        Variable-length strings are bytes objects in an object array.
        """
        if name not in owner.attrs:
            raise self.error(f"it has no attribute {name!r}")
        stored = owner.attrs.get_id(name)
        kind, shape = stored.get_type(), stored.shape
        if kind.get_class() not in (classes or (*_NUMBERS, *_STRINGS)) or kind.get_size() == 0:
            raise self.error(f"its attribute {name!r} is not {what}")
        if stored.get_space().get_simple_extent_type() == h5py.h5s.NULL:
            return np.empty(0)
        if prod(shape) * kind.get_size() > MAX_ATTRIBUTE:
            raise self.error(f"its attribute {name!r} is too large")
        if kind.get_class() == h5py.h5t.STRING and kind.is_variable_str():
            return self._variable_strings(stored, name)
        self.budget.draw(prod(shape) * kind.get_size())
        value = np.empty(shape, stored.dtype)
        stored.read(value)
        return value

    def _variable_strings(self, stored: Any, name: str) -> npt.NDArray[Any]:
        """An attribute of variable-length strings, whose lengths are only known after reading.

        Each is at most as long as the file; HDF5 and Python hold a copy each.
        """
        if 2 * prod(stored.shape) * self.size > self.budget.left:
            raise self.error(f"its attribute {name!r} has too many strings of variable length")
        value = np.empty(stored.shape, stored.dtype)
        stored.read(value)
        size = sum(map(len, value.flat))
        self.budget.draw(size)
        if size > MAX_ATTRIBUTE:
            raise self.error(f"its attribute {name!r} is too large")
        return value


def _decoded(value: bytes | str) -> str:
    return value.decode() if isinstance(value, bytes) else value


@contextmanager
def reading(
    path: str | Path, *, mapped: bool = False, budget: Budget | None = None, kind: str = "a model"
) -> Iterator[ModelFile]:
    """Open the HDF5 file at `path`; any error, also within the block, is raised as `ModelError`.

    mapped: memory-map the file, so that it may have any size. budget: shared with the whole that the file is
    part of; None for a separate one. kind: expected content, for errors.
    """
    path = Path(path)
    size = _checked_size(path, mapped, kind)
    try:
        # No locking: it fails on some network and read-only file systems, and readers do not need it.
        with h5py.File(path, "r", locking=False) as root:
            if not mapped or _has_heap(root):
                _refuse_filtered_heaps(path, size)
            yield ModelFile(path, root, size, budget)
    except NeuralSDFError as error:
        if isinstance(error, ModelError):
            raise
        raise ModelError(path, str(error)) from error
    except MemoryError:
        raise
    except Exception as error:  # h5py raises almost any exception for a damaged file
        raise ModelError(path, "the file is damaged or truncated", "copy or convert it again") from error


def file_image(build: Callable[[h5py.File], None]) -> bytes:
    """The bytes of an HDF5 file filled by `build`; equal content gives equal bytes.

    Written for HDF5 1.8 and later, independent of the installed version, without timestamps and without
    HDF5's default padding of several kilobytes.
    """
    creation, access = _properties()
    access.set_fapl_core(block_size=1 << 16, backing_store=False)
    access.set_meta_block_size(1)
    creation.set_sizes(4, 4)  # 4-byte offsets: a model is far below 4 GB
    with h5py.File(h5py.h5f.create(b"model", h5py.h5f.ACC_TRUNC, creation, access)) as root:
        build(root)
        root.flush()
        image: bytes = root.id.get_file_image()
        return image


def new_file(path: Path) -> h5py.File:
    """A new HDF5 file at `path`, of any size, open for writing; equal content gives equal bytes.

    Data sets are aligned to 64 bytes, so that they can be memory-mapped.
    """
    creation, access = _properties()
    access.set_alignment(1, 64)
    return h5py.File(h5py.h5f.create(fsencode(path), h5py.h5f.ACC_TRUNC, creation, access))


def _properties() -> tuple[Any, Any]:
    """Properties to create and access a file: HDF5 1.8 format, no timestamps."""
    creation = h5py.h5p.create(h5py.h5p.FILE_CREATE)
    creation.set_obj_track_times(False)
    access = h5py.h5p.create(h5py.h5p.FILE_ACCESS)
    access.set_libver_bounds(h5py.h5f.LIBVER_V18, h5py.h5f.LIBVER_V18)
    return creation, access


def _checked_size(path: Path, mapped: bool, kind: str) -> int:
    """Size of a file with HDF5's signature; raises `ModelError` for other files."""
    with opened(path, ModelError, kind, mapped=mapped) as stream:
        start = stream.read(len(_SIGNATURE))
        size = stream.seek(0, 2)
    if size == 0:
        raise ModelError(path, "the file is empty", "copy or convert it again")
    if path.suffix.lower() in MESH_SUFFIXES and start != _SIGNATURE:
        raise ModelError(path, f"is a mesh, not {kind}", f"convert it first: neuralsdf convert {path}")
    if start != _SIGNATURE:
        raise ModelError(path, f"is not {kind}: not an HDF5 file", "make one with neuralsdf convert")
    if size > _MAX_FILE and not mapped:
        raise ModelError(path, f"has {size:,} bytes, more than {kind} can have")
    return size


def _refuse_filtered_heaps(path: Path, size: int) -> None:
    """Raise `ModelError` for a file with a compressed heap, which HDF5 decompresses completely at any size.

    No program is known to write one. Files too large to search are also rejected.
    """
    if size > _MAX_FILE:
        raise ModelError(path, "has more attributes or members than a data set")
    with path.open("rb") as stream:
        end = b""
        while block := stream.read(_BLOCK):
            if _FILTERED_HEAP.search(end + block):
                raise ModelError(path, "its attributes are compressed, which no model needs")
            end = (end + block)[1 - _HEAP_HEADER :]


def _has_heap(root: h5py.File) -> bool:
    """Whether the root stores attributes, links or messages in a heap; our data sets do not."""
    info = h5py.h5o.get_info(root.id)
    has_links_there = info.hdr.version > 1 and info.meta_size.obj.heap_size > 0
    return bool(info.meta_size.attr.heap_size or has_links_there or info.hdr.mesg.shared)
