"""
hdf5.py
-------
HDF5 as the storage room uses it: a file from a stranger is read with every type and size checked
before it is used, and a file is built in memory, small and the same byte for byte.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from math import prod
from os import fsencode
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt

from ..errors import ModelError, NeuralSDFError
from ..input import opened
from ..network import MAX_WEIGHTS

#: HDF5's own limit for an attribute beside the others; ours are far smaller.
MAX_ATTRIBUTE = 1 << 16

_SIGNATURE = b"\x89HDF\r\n\x1a\n"
_MAX_FILE = 4 * MAX_WEIGHTS + (1 << 20)
MESH_SUFFIXES = (".obj", ".stl", ".ply", ".off", ".glb", ".gltf", ".3mf")


class ModelFile:
    """An HDF5 file of unknown origin, open for reading.

    What is read is checked to be of the type and size that is expected, stored in this file itself and
    uncompressed: no link or virtual data set leads elsewhere, nothing small unpacks into something huge.
    """

    def __init__(self, path: Path, root: h5py.File) -> None:
        self.path = path
        self._root = root

    def error(self, reason: str, remedy: str | None = None) -> ModelError:
        """What to raise about this file."""
        return ModelError(self.path, reason, remedy)

    def has_attribute(self, name: str) -> bool:
        """Whether the root has an attribute of this name."""
        return name in self._root.attrs

    def text(self, name: str) -> str:
        """The root's attribute `name`, one string."""
        value = self._attribute(self._root, name)
        if not isinstance(value, bytes | str):
            raise self.error(f"its attribute {name!r} is no string")
        return value.decode() if isinstance(value, bytes) else value

    def array(self, name: str) -> npt.NDArray[Any]:
        """The root's attribute `name`, numbers of any shape."""
        value = np.asarray(self._attribute(self._root, name))
        if value.dtype.kind not in "iuf":
            raise self.error(f"its attribute {name!r} is no number")
        return value

    def names(self, name: str, group: str | None = None) -> list[str]:
        """The attribute `name` of the root or a group, a list of strings of fixed or variable length."""
        owner = self._root if group is None else self._member(group, h5py.Group)
        value = self._attribute(owner, name)
        if isinstance(value, h5py.Empty) or np.size(value) == 0:  # an empty list has numbers' type
            return []
        values = np.atleast_1d(value)
        if values.ndim != 1 or not all(isinstance(value, bytes | str) for value in values):
            raise self.error(f"its attribute {name!r} is no list of names")
        return [value.decode() if isinstance(value, bytes) else value for value in values]

    def dataset(self, path: str) -> h5py.Dataset:
        """The data set at `path`: contiguous (so no larger than the file), its values not yet read."""
        dataset = self._member(path, h5py.Dataset)
        if dataset.is_virtual or dataset.external or dataset.chunks is not None or dataset.shape is None:
            raise self.error(f"its data set {path!r} is not stored in one piece in this file")
        if dataset.id.get_storage_size() != dataset.size * dataset.dtype.itemsize:
            raise self.error(f"its data set {path!r} is incomplete")
        return dataset

    def _member(self, path: str, kind: type[Any]) -> Any:
        member: Any = self._root
        for part in path.split("/"):
            link = member.get(part, getlink=True) if isinstance(member, h5py.Group) else None
            if not isinstance(link, h5py.HardLink):
                raise self.error(f"it has no {path!r}")
            member = member[part]
        if not isinstance(member, kind):
            raise self.error(f"its {path!r} is no {kind.__name__.lower()}")
        return member

    def _attribute(self, owner: Any, name: str) -> Any:
        if name not in owner.attrs:
            raise self.error(f"it has no attribute {name!r}")
        stored = owner.attrs.get_id(name)
        if prod(stored.shape) * stored.dtype.itemsize > MAX_ATTRIBUTE:
            raise self.error(f"its attribute {name!r} is too large")
        return owner.attrs[name]


@contextmanager
def reading(path: str | Path, *, largest: int | None = _MAX_FILE) -> Iterator[ModelFile]:
    """The HDF5 file at `path`; whatever is wrong with it, inside the block too, is a `ModelError`.

    largest: bytes that it may have; None for any number, where it is not read as a whole.
    """
    path = Path(path)
    _check_signature(path, largest)
    try:
        # No locks: they fail on some network and read-only file systems, and a reader needs none.
        with h5py.File(path, "r", locking=False) as root:
            yield ModelFile(path, root)
    except NeuralSDFError as error:
        if isinstance(error, ModelError):
            raise
        raise ModelError(path, str(error)) from error
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


def _check_signature(path: Path, largest: int | None) -> None:
    with opened(path, ModelError, "a model") as stream:
        start = stream.read(len(_SIGNATURE))
        size = stream.seek(0, 2)
    if size == 0:
        raise ModelError(path, "the file is empty", "copy or convert it again")
    if path.suffix.lower() in MESH_SUFFIXES and start != _SIGNATURE:
        raise ModelError(path, "is a mesh, not a model", f"convert it first: neuralsdf convert {path}")
    if start != _SIGNATURE:
        raise ModelError(path, "is no model: not an HDF5 file", "make one with neuralsdf convert")
    if largest is not None and size > largest:
        raise ModelError(path, f"has {size} bytes, more than a model can have")
