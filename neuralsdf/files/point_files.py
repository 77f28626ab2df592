"""
point_files.py
--------------
Files of points and of numbers for each point: npy, or text with a line a point.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator, Mapping
from io import BytesIO, TextIOWrapper
from pathlib import Path
from typing import IO, Any, BinaryIO

import numpy as np
import numpy.typing as npt

from ..arrays import Points
from ..errors import PointsError, UsageError
from .atomic_write import whole_file
from .input_file import opened

_NPY, _HDF5 = b"\x93NUMPY", b"\x89HDF\r\n\x1a\n"
#: What a file of points is, by the columns that it may have; the remedy of all errors.
_WANTED = {
    (3,): "points are an .npy array (n, 3) of numbers, or text with x, y and z on each line",
    (3, 6): "points are an .npy array (n, 3), (n, 6) with normals, or text with as many numbers on each line",
}
_XYZ, _WITH_NORMALS = (3,), (3, 6)
SUFFIXES = (".npy", ".csv", ".txt")


def read_points(path: str | Path) -> Points:
    """Points (n, 3) float64 from a file; raises `PointsError` as `input.opened` and `parse_points` do."""
    return _read(path, _XYZ)


def read_oriented_points(path: str | Path) -> Points:
    """As `read_points`, but with six columns (n, 6) where each point has a normal."""
    return _read(path, _WITH_NORMALS)


def _read(path: str | Path, columns: tuple[int, ...]) -> Points:
    with opened(path, PointsError, "points") as stream:
        start = stream.read(len(_NPY))
        if start == _NPY:
            stream.seek(0)
            return _from_npy(stream, path, columns)  # into the array, without a copy in between
        return _from_text(start + stream.read(), path, columns)


def parse_points(content: bytes, name: str | Path) -> Points:
    """Points (n, 3) float64 from the content of a file, which decides its kind, not its name.

    npy: an (n, 3) array of numbers. Text: three numbers a line, with commas, semicolons or spaces between;
    empty lines, what follows a "#", and a first line of words are passed over. Raises `PointsError`, with
    the line's number, for anything else.
    """
    if content.startswith(_NPY):
        return _from_npy(BytesIO(content), name, _XYZ)
    return _from_text(content, name, _XYZ)


def write_columns(columns: Mapping[str, Points], path: str | Path, *, force: bool = False) -> None:
    """Write columns (n,) to `path`: npy ((n,) for a single one, else (n, k)), or csv or txt with a header.

    Raises `UsageError` for another suffix, `OutputError` where the file cannot be written.
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
    """Write columns (n,) to a stream: a line a point, commas between, digits enough for float32 lengths
    wherever the mesh lies."""
    np.savetxt(stream, np.stack(list(columns.values()), axis=1), fmt="%.12g", delimiter=",")


def check_suffix(path: str | Path) -> str:
    """The suffix of a file to write; raises `UsageError` if it is none of `SUFFIXES`."""
    suffix = Path(path).suffix.lower()
    if suffix not in SUFFIXES:
        raise UsageError(
            f"{path}: results are written as {', '.join(SUFFIXES)}, not {suffix or 'without a suffix'}"
        )
    return suffix


def _from_npy(stream: BinaryIO, name: str | Path, columns: tuple[int, ...]) -> Points:
    try:
        points: Any = np.load(stream, allow_pickle=False)
    except Exception as error:  # a damaged header makes numpy raise almost anything
        raise PointsError(name, "is a damaged npy file, or one of objects", _WANTED[columns]) from error
    return _checked(points, name, columns)


def _checked(points: npt.NDArray[Any], name: str | Path, columns: tuple[int, ...]) -> Points:
    if points.ndim != 2 or points.shape[1] not in columns or points.dtype.kind not in "iuf":
        raise PointsError(name, f"holds {points.dtype} {points.shape}", _WANTED[columns])
    return np.asarray(points, np.float64)


def _from_text(content: bytes, name: str | Path, columns: tuple[int, ...]) -> Points:
    """columns: what the first line may have; the others have as many."""
    numbers, wanted = array("d"), _WANTED[columns]
    may_be_header = True
    for number, line in _lines(content, name, wanted):
        words = line.partition("#")[0].replace(",", " ").replace(";", " ").split()
        if not words:
            continue
        try:
            values = [float(word) for word in words]
        except ValueError as error:
            if may_be_header:
                may_be_header = False
                continue
            reason = f"line {number} is not {_in_words(columns)} numbers: {line.strip()[:60]!r}"
            raise PointsError(name, reason, wanted) from error
        may_be_header = False
        if len(values) not in columns:
            reason = f"line {number} has {len(values)} numbers, not {_in_words(columns)}"
            raise PointsError(name, reason, wanted)
        columns = (len(values),)
        numbers.extend(values)
    if not numbers:
        raise PointsError(name, "holds no points", wanted)
    return np.frombuffer(numbers, np.float64).reshape(-1, columns[0])


def _in_words(columns: tuple[int, ...]) -> str:
    return " or ".join({3: "three", 6: "six"}[count] for count in columns)


def _lines(content: bytes, name: str | Path, wanted: str) -> Iterator[tuple[int, str]]:
    """The lines of a text with their numbers from 1 on; raises `PointsError` for what is no text."""
    if content.startswith(_HDF5):
        raise PointsError(name, "is an HDF5 file, such as a model, and holds no points", wanted)
    if b"\0" in content:
        raise PointsError(name, "is neither npy nor text", wanted)
    try:
        yield from enumerate(TextIOWrapper(BytesIO(content), "utf-8-sig"), start=1)
    except UnicodeDecodeError as error:
        raise PointsError(name, "is neither npy nor text", wanted) from error
