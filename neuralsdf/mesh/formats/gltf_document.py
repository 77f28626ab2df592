"""
gltf_document.py
----------------
JSON and binary data of a glTF: validated look-ups, buffers and accessors.
"""

from __future__ import annotations

import base64
import json
from functools import cached_property
from pathlib import Path
from typing import Any
from urllib.parse import unquote, unquote_to_bytes

import numpy as np
import numpy.typing as npt

from ...array_types import Points
from ...errors import MeshError
from ...files.bounded_input import InputFile, read_file
from ...printable_text import printable
from .shared.raw_mesh import BROKEN, TRUNCATED, FormatError
from .shared.scene_triangles import LONGEST, check_indices

Json = dict[str, Any]

_COMPONENTS = {5120: "<i1", 5121: "<u1", 5122: "<i2", 5123: "<u2", 5125: "<u4", 5126: "<f4"}
_WIDTHS = {"SCALAR": 1, "VEC2": 2, "VEC3": 3, "VEC4": 4, "MAT4": 16}
_BINARY_CHUNK = 0x004E4942

NOT_COMPRESSED = "export it without compression"


class Document:
    """A glTF or GLB document; raises `FormatError` for invalid content.

    Decoded data is drawn from the file's budget; the files it refers to count as part of the input.
    """

    def __init__(self, file: InputFile) -> None:
        self._file = file
        text, self._binary = _chunks(file.data)
        try:
            tree = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise _invalid("its JSON cannot be parsed") from error
        self.tree: Json = mapping(tree, "its JSON")
        version = mapping(self.tree.get("asset", {}), "asset").get("version", "2.0")
        if not str(version).startswith("2"):
            raise FormatError(f"is glTF {printable(str(version), LONGEST)}, not 2.0", "export it as glTF 2.0")
        self._items: dict[str, list[Json]] = {}
        self._buffers: dict[int, bytes] = {}
        self._vectors: dict[int, Points] = {}
        self._integers: dict[int, npt.NDArray[np.int64]] = {}

    def items(self, kind: str) -> list[Json]:
        """All items of a kind, such as "nodes" or "meshes"."""
        if kind not in self._items:
            self._items[kind] = [
                mapping(item, f"{kind}[{number}]")
                for number, item in enumerate(sequence(self.tree.get(kind, []), kind))
            ]
        return self._items[kind]

    def item(self, kind: str, index: object) -> Json:
        """The item of a kind at an index, which is checked."""
        return self.items(kind)[self.index(kind, index)]

    def index(self, kind: str, index: object) -> int:
        """Validate an index of an item of a kind."""
        count = len(self.items(kind))
        if type(index) is not int or not 0 <= index < count:
            raise _invalid(f"it refers to {kind}[{printable(str(index), LONGEST)}] of {count}")
        return index

    def vectors(self, index: object, type_: str) -> Points:
        """Values of an accessor of the given type as float64 (n, width); normalised integers are scaled.

        All uses of an accessor share one array, which must not be modified.
        """
        number = self._accessor(index, type_)
        if number not in self._vectors:
            values = self._read_accessor(number, type_)
            if self.items("accessors")[number].get("normalized") and values.dtype.kind != "f":
                self._vectors[number] = np.maximum(values / np.iinfo(values.dtype).max, -1.0)
            else:
                self._vectors[number] = values.astype(np.float64)
        return self._vectors[number]

    def integers(self, index: object, type_: str = "SCALAR") -> npt.NDArray[np.int64]:
        """Values of an accessor of the given type as int64 (n, width); shared as in `vectors`."""
        number = self._accessor(index, type_)
        if number not in self._integers:
            values = self._read_accessor(number, type_)
            if values.dtype.kind == "f":
                raise _invalid("an index is not an integer")
            self._integers[number] = values.astype(np.int64)
        return self._integers[number]

    def holds_data(self, index: object) -> bool:
        """Whether an accessor has values, and is not only a placeholder for compressed ones."""
        accessor = self.item("accessors", index)
        return "bufferView" in accessor or "sparse" in accessor

    def _accessor(self, index: object, type_: str) -> int:
        """Validate the index and type of an accessor."""
        number = self.index("accessors", index)
        if self.items("accessors")[number].get("type") != type_:
            raise _invalid(f"accessor {number} is not of type {type_}")
        return number

    def _read_accessor(self, number: int, type_: str) -> npt.NDArray[Any]:
        """Values (n, width) as stored, drawn from the budget at 8 bytes per value."""
        accessor = self.items("accessors")[number]
        dtype = _dtype(accessor)
        count = integer(accessor, "count")
        self._file.budget.draw(8 * count * _WIDTHS[type_])
        if "bufferView" not in accessor:
            values = np.zeros((count, _WIDTHS[type_]), dtype)
        else:
            values = self._strided(accessor, (count, _WIDTHS[type_]), dtype)
        if "sparse" in accessor:
            values = values.copy()
            self._put_sparse(values, mapping(accessor["sparse"], "sparse"))
        return values

    def _put_sparse(self, values: npt.NDArray[Any], sparse: Json) -> None:
        count = integer(sparse, "count")
        self._file.budget.draw(8 * count * (1 + values.shape[1]))
        where, what = (mapping(sparse.get(key), f"sparse.{key}") for key in ("indices", "values"))
        indices = self._strided(where, (count, 1), _dtype(where))[:, 0].astype(np.int64)
        check_indices(indices, len(values))
        values[indices] = self._strided(what, (count, values.shape[1]), values.dtype)

    def _strided(self, at: Json, shape: tuple[int, int], dtype: np.dtype[Any]) -> npt.NDArray[Any]:
        """Rows (n, width) of a buffer view, starting at `byteOffset` of `at`."""
        view = self.item("bufferViews", at.get("bufferView"))
        data = self._buffer(view)
        begin, length = integer(view, "byteOffset", 0), integer(view, "byteLength")
        offset = integer(at, "byteOffset", 0)
        size = dtype.itemsize * shape[1]
        stride = integer(view, "byteStride", size)
        if stride < size:
            raise _invalid(f"byteStride {stride} is too small")
        if shape[0] and offset + stride * (shape[0] - 1) + size > min(length, len(data) - begin):
            raise FormatError("is truncated: an accessor exceeds its buffer", TRUNCATED)
        strides = (
            stride if shape[0] > 1 else size,
            dtype.itemsize,
        )  # numpy rejects a huge stride even if unused
        return np.ndarray(shape, dtype, data, begin + offset if shape[0] else 0, strides)

    def _buffer(self, view: Json) -> bytes:
        number = self.index("buffers", view.get("buffer"))
        if number not in self._buffers:
            buffer = self.items("buffers")[number]
            uri = buffer.get("uri")
            if uri is None and number == 0 and self._binary is not None:
                self._buffers[number] = self._binary
            elif uri is None and is_compressed(buffer):
                raise FormatError("has compressed geometry, which is not supported", NOT_COMPRESSED)
            elif uri is None:
                raise FormatError(f"has no data for its buffer {number}", TRUNCATED)
            elif str(uri).startswith("data:"):
                self._buffers[number] = _from_data_uri(str(uri))
            else:
                self._buffers[number] = self.files[str(uri)]
        return self._buffers[number]

    @cached_property
    def files(self) -> dict[str, bytes]:
        """Contents of the files that buffers refer to, by the name used in the glTF.

        Raises `FormatError` for a file outside the glTF's folder or one that cannot be read.
        """
        uris = (buffer.get("uri") for buffer in self.items("buffers"))
        names = {str(uri) for uri in uris if uri is not None and not str(uri).startswith("data:")}
        folder = self._file.path.parent.resolve()
        paths = {name: _path_beside(folder, name) for name in sorted(names)}
        names_of = {path: name for name, path in paths.items()}  # one name per file
        contents = {path: self._read(path, name) for path, name in names_of.items()}
        self._file.parts.update({name: contents[path] for name, path in paths.items()})
        return self._file.parts

    def _read(self, path: Path, name: str) -> bytes:
        self._file.budget.add_file(path)
        try:
            return read_file(path, MeshError, "the binary data of a glTF").data
        except MeshError as error:
            reason = f"refers to '{printable(name, LONGEST)}', which {error.reason}"
            raise FormatError(reason, error.remedy or BROKEN) from error


def integer(item: Json, key: str, default: int | None = None) -> int:
    """A count or an offset: an integer >= 0."""
    value = item.get(key, default)
    if type(value) is not int or value < 0:
        raise _invalid(f"'{key}' is not a whole number")
    return value


def numbers(item: Json, key: str, count: int, default: list[float]) -> npt.NDArray[np.float64]:
    """A list of `count` numbers."""
    values = sequence(item.get(key, default), key)
    if len(values) != count or not all(type(value) in (int, float) for value in values):
        raise _invalid(f"'{key}' is not a list of {count} numbers")
    try:
        return np.array([float(value) for value in values])
    except OverflowError as error:
        raise _invalid(f"'{key}' is too large") from error


def mapping(value: object, name: str) -> Json:
    """The value; raises `FormatError` unless it is a JSON object."""
    if not isinstance(value, dict):
        raise _invalid(f"'{name}' is not an object")
    return value


def sequence(value: object, name: str) -> list[Any]:
    """The value; raises `FormatError` unless it is a JSON array."""
    if not isinstance(value, list):
        raise _invalid(f"'{name}' is not an array")
    return value


def is_compressed(item: Json) -> bool:
    """Whether an item has an extension that compresses its data (Draco or meshopt)."""
    names = mapping(item.get("extensions", {}), "extensions")
    return any(name.endswith("_compression") for name in names)


def extension(item: Json, name: str) -> Json | None:
    """The item's data for an extension, or None."""
    extensions = mapping(item.get("extensions", {}), "extensions")
    return mapping(extensions[name], name) if name in extensions else None


def _invalid(what: str) -> FormatError:
    return FormatError(f"is not valid glTF: {what}", BROKEN)


def _chunks(data: bytes) -> tuple[bytes, bytes | None]:
    """JSON and binary chunk of a GLB; a glTF consists of JSON only."""
    if data[:4] != b"glTF":
        return data, None
    version, size = (int.from_bytes(data[at : at + 4], "little") for at in (4, 8))
    if len(data) < max(20, size):
        raise FormatError(f"is truncated: its header says {size} bytes, but it has {len(data)}", TRUNCATED)
    if version != 2:
        raise FormatError(f"is GLB of version {version}, not 2", "export it as glTF 2.0")
    text, binary, position = None, None, 12
    while position + 8 <= size:
        length, kind = (int.from_bytes(data[at : at + 4], "little") for at in (position, position + 4))
        chunk = data[position + 8 : position + 8 + length]
        if len(chunk) < length:
            raise FormatError("is truncated: its last chunk is too short", TRUNCATED)
        if text is None:
            text = chunk.rstrip(b"\0 ")  # the first chunk is the JSON
        elif kind == _BINARY_CHUNK and binary is None:
            binary = chunk
        position += 8 + length
    return text or b"", binary


def _dtype(item: Json) -> np.dtype[Any]:
    code = item.get("componentType")
    if type(code) is not int or code not in _COMPONENTS:
        raise _invalid("a componentType is unknown")
    return np.dtype(_COMPONENTS[code])


def _from_data_uri(uri: str) -> bytes:
    header, _, content = uri.partition(",")
    try:
        return base64.b64decode(content) if header.endswith(";base64") else unquote_to_bytes(content)
    except ValueError as error:
        raise FormatError("is truncated: a buffer is not valid base64", TRUNCATED) from error


def _path_beside(folder: Path, name: str) -> Path:
    """Path of a file that a glTF refers to; raises `FormatError` outside the glTF's folder."""
    shown = printable(name, LONGEST)
    try:
        target = (folder / unquote(name)).resolve()
        if not target.is_relative_to(folder):
            raise FormatError(f"refers to '{shown}', outside its folder", "put the files in one folder")
        if not target.is_file():
            raise FormatError(f"refers to '{shown}', which does not exist", "add that file, or export GLB")
    except (OSError, ValueError, RuntimeError) as error:  # RuntimeError: a link to itself, before Python 3.13
        raise FormatError(f"refers to '{shown}', which cannot be read", "export GLB") from error
    return target
