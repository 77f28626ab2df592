"""
hdf5.py
-------
HDF5 as the storage room uses it: a file from a stranger is read with every type and size checked
before it is used, and a file is built in memory, small and the same byte for byte.
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
from ..files.input_file import Budget, opened
from ..program.network import MAX_WEIGHTS

#: HDF5's own limit for an attribute beside the others; ours are far smaller.
MAX_ATTRIBUTE = 1 << 16

#: Groups that the name of a data set may lead through. Groups can contain each other, so a name could lead
#: round in a circle for as long as it is long.
MAX_DEPTH = 32

_SIGNATURE = b"\x89HDF\r\n\x1a\n"
_MAX_FILE = 4 * MAX_WEIGHTS + (1 << 20)
MESH_SUFFIXES = (".obj", ".stl", ".ply", ".off", ".glb", ".gltf", ".3mf")

#: The header of a heap of attributes or links (HDF5's "fractal heap") whose blocks are compressed: signature,
#: version, length of its identifiers, then the length of the description of its filters, which is not zero.
_FILTERED_HEAP = re.compile(rb"FRHP\0..(?!\0\0)..[\0-\3]", re.DOTALL)
_HEAP_HEADER, _BLOCK = 10, 1 << 22

_STRINGS = (h5py.h5t.STRING,)
_INTEGERS = (h5py.h5t.INTEGER,)
_NUMBERS = (h5py.h5t.INTEGER, h5py.h5t.FLOAT)


class Form(NamedTuple):
    """What a data set is declared to hold."""

    dtype: np.dtype[Any]
    shape: tuple[int, ...]


class ModelFile:
    """An HDF5 file of unknown origin, open for reading.

    Readers get values, never HDF5's own objects. A value is checked to be of the type and size that is
    expected and stored in this file itself, uncompressed: no link or virtual data set leads elsewhere. All
    values of a file draw from one budget before they are read, as one data set can be named many times.
    Only what is mapped into memory is exempt.
    """

    def __init__(self, path: Path, root: h5py.File, size: int, budget: Budget | None = None) -> None:
        self.path, self.size = path, size
        self.budget = Budget(path, ModelError, size) if budget is None else budget
        self._root = root

    def error(self, reason: str, remedy: str | None = None) -> ModelError:
        """What to raise about this file."""
        return ModelError(self.path, reason, remedy)

    def has_attribute(self, name: str) -> bool:
        """Whether the root has an attribute of this name."""
        return name in self._root.attrs

    def text(self, name: str) -> str:
        """The root's attribute `name`, one string."""
        value = self._attribute(self._root, name, _STRINGS, "a string")
        if value.size != 1:
            raise self.error(f"its attribute {name!r} is not a string")
        return _decoded(value.ravel()[0])

    def integer(self, name: str) -> int:
        """The root's attribute `name`, one integer."""
        value = self._attribute(self._root, name, _INTEGERS, "a number")
        if value.size != 1:
            raise self.error(f"its attribute {name!r} is not a number")
        return int(value.ravel()[0])

    def numbers(self, name: str) -> npt.NDArray[np.float64]:
        """The root's attribute `name`, numbers of any shape."""
        return self._attribute(self._root, name, _NUMBERS, "a number").astype("<f8")

    def octets(self, name: str) -> bytes:
        """The root's attribute `name`, integers from 0 to 255."""
        value = self._attribute(self._root, name, _INTEGERS, "bytes")
        if value.size and not (value.min() >= 0 and value.max() <= 255):
            raise self.error(f"its attribute {name!r} is not bytes")
        return value.astype(np.uint8).tobytes()

    def inflated(self, name: str, largest: int) -> bytes:
        """The root's attribute `name`, bytes that zlib deflated; at most `largest` of what they unpack to."""
        unpacked = zlib.decompressobj().decompress(self.octets(name), largest)
        self.budget.draw(len(unpacked))
        return unpacked

    def names(self, name: str, group: str | None = None) -> list[str]:
        """The attribute `name` of the root or a group, a list of strings of fixed or variable length."""
        owner = self._root if group is None else self._member(group, h5py.Group)
        value = self._attribute(owner, name, None, "a list of names")
        if value.size == 0:  # an empty list has numbers' type
            return []
        values = np.atleast_1d(value)
        if values.ndim != 1 or not all(isinstance(value, bytes) for value in values):
            raise self.error(f"its attribute {name!r} is not a list of names")
        return [_decoded(value) for value in values]

    def holds(self, path: str) -> bool:
        """Whether there is something at `path`."""
        return path in self._root

    def form(self, path: str) -> Form:
        """What the data set at `path` holds; raises `ModelError` unless all of it is there, in one piece."""
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
        """The data set at `path`, mapped into memory, not read."""
        dataset = self._member(path, h5py.Dataset)
        dtype, shape = self._checked(dataset, path)
        if not prod(shape):
            return np.empty(shape, dtype)
        return np.memmap(self.path, dtype, "r", dataset.id.get_offset(), shape).view(np.ndarray)

    # -- what everything above goes through -------------------------------------------------------------

    def _checked(self, dataset: h5py.Dataset, path: str) -> Form:
        """The form of a data set; raises `ModelError` where it is not stored whole in this file."""
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
            raise self.error(f"a name in it leads through {len(parts)} groups")
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
        """An attribute of one of HDF5's classes of types (None: of numbers or strings); `what` it should be.

        Strings of variable length are bytes objects in an array of objects.
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
        """An attribute that holds references to strings: how long they are shows once all are in memory.

        Each is as long as the file at most; HDF5 and Python hold a copy each.
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
def reading(path: str | Path, *, mapped: bool = False, budget: Budget | None = None) -> Iterator[ModelFile]:
    """The HDF5 file at `path`; whatever is wrong with it, inside the block too, is a `ModelError`.

    mapped: it is mapped into memory, not read, so it may be of any size. budget: that of the whole which the
    file is a part of; None for one of its own.
    """
    path = Path(path)
    size = _checked_size(path, mapped)
    try:
        # No locks: they fail on some network and read-only file systems, and a reader needs none.
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
    except Exception as error:  # a damaged file makes h5py raise almost anything
        raise ModelError(path, "the file is damaged or cut short", "copy or convert it again") from error


def file_image(build: Callable[[h5py.File], None]) -> bytes:
    """The bytes of an HDF5 file with what `build` puts into it; the same content gives the same bytes.

    Written for HDF5 1.8 and later whatever library is installed here, without times, and without the
    kilobytes of padding that are HDF5's defaults.
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
    """A new HDF5 file at `path`, of any size, open for writing; the same content gives the same bytes.

    Its data sets begin at multiples of 64 bytes, so that they can be mapped into memory.
    """
    creation, access = _properties()
    access.set_alignment(1, 64)
    return h5py.File(h5py.h5f.create(fsencode(path), h5py.h5f.ACC_TRUNC, creation, access))


def _properties() -> tuple[Any, Any]:
    """How a file is created and accessed: as HDF5 1.8 would, without times."""
    creation = h5py.h5p.create(h5py.h5p.FILE_CREATE)
    creation.set_obj_track_times(False)
    access = h5py.h5p.create(h5py.h5p.FILE_ACCESS)
    access.set_libver_bounds(h5py.h5f.LIBVER_V18, h5py.h5f.LIBVER_V18)
    return creation, access


def _checked_size(path: Path, mapped: bool) -> int:
    """The size of a file that begins as HDF5 does; raises `ModelError` for another."""
    with opened(path, ModelError, "a model", mapped=mapped) as stream:
        start = stream.read(len(_SIGNATURE))
        size = stream.seek(0, 2)
    if size == 0:
        raise ModelError(path, "the file is empty", "copy or convert it again")
    if path.suffix.lower() in MESH_SUFFIXES and start != _SIGNATURE:
        raise ModelError(path, "is a mesh, not a model", f"convert it first: neuralsdf convert {path}")
    if start != _SIGNATURE:
        raise ModelError(path, "is not a model: not an HDF5 file", "make one with neuralsdf convert")
    if size > _MAX_FILE and not mapped:
        raise ModelError(path, f"has {size:,} bytes, more than a model can have")
    return size


def _refuse_filtered_heaps(path: Path, size: int) -> None:
    """Raise `ModelError` for a file with a compressed heap, which HDF5 unpacks whole, whatever its size.

    No program is known to write one. A file that is too large to be searched is refused, too.
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
    """Whether the root keeps attributes, links or messages in a heap; a data set of ours does not."""
    info = h5py.h5o.get_info(root.id)
    has_links_there = info.hdr.version > 1 and info.meta_size.obj.heap_size > 0
    return bool(info.meta_size.attr.heap_size or has_links_there or info.hdr.mesg.shared)
