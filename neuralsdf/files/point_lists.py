"""
point_lists.py
--------------
Reads and writes points and per-point values: npy files, or text with one point per line.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator, Mapping
from io import BytesIO, TextIOWrapper
from pathlib import Path
from typing import IO, Any, BinaryIO

import numpy as np
import numpy.typing as npt

from ..array_types import Points
from ..errors import PointsError, UsageError
from .atomic_write import whole_file
from .bounded_input import opened

_NPY, _HDF5 = b"\x93NUMPY", b"\x89HDF\r\n\x1a\n"
#: Expected content of a point file, by the allowed numbers of columns; the remedy of all errors.
_WANTED = {
    (3,): "points are an .npy array (n, 3) of numbers, or text with x, y and z on each line",
    (3, 6): "points are an .npy array (n, 3), (n, 6) with normals, or text with as many numbers on each line",
}
_XYZ, _WITH_NORMALS = (3,), (3, 6)
SUFFIXES = (".npy", ".csv", ".txt")


def read_points(path: str | Path) -> Points:
    """Read points (n, 3) float64 from a file; raises `PointsError` as `opened` and `parse_points` do."""
    return _read(path, _XYZ)


def read_oriented_points(path: str | Path) -> Points:
    """Like `read_points`, but (n, 6) if each point has a normal."""
    return _read(path, _WITH_NORMALS)


def _read(path: str | Path, columns: tuple[int, ...]) -> Points:
    with opened(path, PointsError, "points") as stream:
        start = stream.read(len(_NPY))
        if start == _NPY:
            stream.seek(0)
            return _from_npy(stream, path, columns)  # read into the array without a copy
        return _from_text(start + stream.read(), path, columns)


def parse_points(content: bytes, name: str | Path) -> Points:
    """Parse points (n, 3) float64 from a file's content, from which the format is detected.

    npy: an (n, 3) numeric array. Text: three numbers per line, separated by commas, semicolons or spaces;
    empty lines, comments after "#", and a first line without numbers are skipped. Raises `PointsError`, with
    the line number, for anything else.
    """
    if content.startswith(_NPY):
        return _from_npy(BytesIO(content), name, _XYZ)
    return _from_text(content, name, _XYZ)


def write_columns(columns: Mapping[str, Points], path: str | Path, *, force: bool = False) -> None:
    """Write columns (n,) to `path`: npy ((n,) for a single one, else (n, k)), or csv or txt with a header.

    Raises `UsageError` for another suffix, `OutputError` if the file cannot be written.
    """
    suffix = check_suffix(path)
    with whole_file(path, force=force) as temporary:
        if suffix == ".npy":
            values = list(columns.values())
            np.save(temporary, values[0] if len(values) == 1 else np.stack(values, axis=1))
        else:
            with temporary.open("w") as stream:
                stream.write(",".join(columns) + "\n")
                print_columns(columns, stream)


def print_columns(columns: Mapping[str, Points], stream: IO[str]) -> None:
    """Write columns (n,) to a stream: one point per line, comma-separated, with enough digits for float32
    precision relative to the size of the mesh, even far from the origin."""
    np.savetxt(stream, np.stack(list(columns.values()), axis=1), fmt="%.12g", delimiter=",")


def check_suffix(path: str | Path) -> str:
    """The suffix of an output file; raises `UsageError` if it is not in `SUFFIXES`."""
    suffix = Path(path).suffix.lower()
    if suffix not in SUFFIXES:
        raise UsageError(
            f"{path}: results are written as {', '.join(SUFFIXES)}, not {suffix or 'without a suffix'}"
        )
    return suffix


def _from_npy(stream: BinaryIO, name: str | Path, columns: tuple[int, ...]) -> Points:
    try:
        points: Any = np.load(stream, allow_pickle=False)
    except Exception as error:  # numpy raises almost any exception for a damaged header
        raise PointsError(name, "is a damaged npy file, or an array of objects", _WANTED[columns]) from error
    return _checked(points, name, columns)


def _checked(points: npt.NDArray[Any], name: str | Path, columns: tuple[int, ...]) -> Points:
    if points.ndim != 2 or points.shape[1] not in columns or points.dtype.kind not in "iuf":
        raise PointsError(name, f"holds {points.dtype} {points.shape}", _WANTED[columns])
    return np.asarray(points, np.float64)


def _from_text(content: bytes, name: str | Path, columns: tuple[int, ...]) -> Points:
    """columns: allowed numbers of columns of the first line; the other lines must have the same number."""
    numbers, wanted = array("d"), _WANTED[columns]
    may_be_header = True
    for number, line in _lines(content, name, wanted):
        text = line.partition("#")[0]
        words = text.replace(",", " ").replace(";", " ").split()
        if not words:
            continue
        values = [value for value in map(_number, words) if value is not None]
        if not values and may_be_header:
            may_be_header = False
            continue
        if len(values) < len(words):
            reason = f"line {number} is not {_in_words(columns)} numbers: {line.strip()[:60]!r}"
            raise PointsError(name, reason, wanted)
        if "," in text and ";" in text:
            reason = f"line {number} has commas and semicolons: {line.strip()[:60]!r}"
            raise PointsError(name, reason, "write decimal points, not commas")
        may_be_header = False
        if len(values) not in columns:
            reason = f"line {number} has {len(values)} numbers, not {_in_words(columns)}"
            raise PointsError(name, reason, wanted)
        columns = (len(values),)
        numbers.extend(values)
    if not numbers:
        raise PointsError(name, "holds no points", wanted)
    return np.frombuffer(numbers, np.float64).reshape(-1, columns[0])


def _number(word: str) -> float | None:
    """The number in a word; None if it is not a number."""
    try:
        return None if "_" in word else float(word)
    except ValueError:
        return None


def _in_words(columns: tuple[int, ...]) -> str:
    return " or ".join({3: "three", 6: "six"}[count] for count in columns)


def _lines(content: bytes, name: str | Path, wanted: str) -> Iterator[tuple[int, str]]:
    """Lines of a text, numbered from 1; raises `PointsError` if the content is not text."""
    if content.startswith(_HDF5):
        raise PointsError(name, "is an HDF5 file, such as a model, and holds no points", wanted)
    if b"\0" in content:
        raise PointsError(name, "is neither npy nor text", wanted)
    try:
        yield from enumerate(TextIOWrapper(BytesIO(content), "utf-8-sig"), start=1)
    except UnicodeDecodeError as error:
        raise PointsError(name, "is neither npy nor text", wanted) from error
