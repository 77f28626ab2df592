"""Files of points: npy and text, and their errors."""

from __future__ import annotations

import io
import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from neuralsdf.errors import OutputError, PointsError, UsageError
from neuralsdf.files.point_lists import parse_points, read_points, write_columns

EXPECTED = np.array([[1.0, 2.0, 3.0], [-4.5, 5e-3, 6.0]])


@pytest.mark.parametrize(
    "text",
    [
        "1 2 3\n-4.5 5e-3 6\n",
        "1,2,3\r\n-4.5,5e-3,6",
        "x,y,z\n1, 2, 3\n\n-4.5; 5e-3; 6 # the second\n",
        "# a comment\n1\t2\t3\n-4.5\t5e-3\t6\n",
        "\ufeffx y z\n1 2 3\n-4.5 5e-3 6\n",
    ],
    ids=["spaces", "commas", "header", "tabs", "byte order mark"],
)
def test_text(text: str) -> None:
    assert np.array_equal(parse_points(text.encode(), "points"), EXPECTED)


@pytest.mark.parametrize("dtype", [np.float64, np.float32, np.int32])
def test_npy_whatever_its_name(tmp_path: Path, dtype: type) -> None:
    points = np.arange(12).reshape(4, 3).astype(dtype)
    with (tmp_path / "points.csv").open("wb") as stream:
        np.save(stream, points)
    assert np.array_equal(read_points(tmp_path / "points.csv"), points)


@pytest.mark.parametrize("shape", [(4, 3), (0, 3)])
@pytest.mark.parametrize("order", ["C", "F"])
def test_points_of_an_npy_file_outlive_it(tmp_path: Path, order: str, shape: tuple[int, int]) -> None:
    """They are in memory: truncation of a mapped file would crash the process."""
    points = np.asarray(np.random.default_rng(0).normal(size=shape), order=order)
    np.save(tmp_path / "points.npy", points)
    found = read_points(tmp_path / "points.npy")
    os.truncate(tmp_path / "points.npy", 0)
    assert np.array_equal(found, points)


def test_a_damaged_npy_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "points.npy"
    np.save(path, EXPECTED)
    whole = path.read_bytes()
    for content in (whole[:-1], whole[:20], whole[:6]):
        path.write_bytes(content)
        with pytest.raises(PointsError, match="damaged npy"):
            read_points(path)
    path.write_bytes(whole.replace(b"(2, 3)", b"(9_000_000_000, 3)").replace(b" " * 13 + b"\n", b"\n"))
    with pytest.raises(PointsError, match="damaged npy"):
        read_points(path)
    np.save(path, EXPECTED[:, :2])
    with pytest.raises(PointsError, match=r"holds float64 .* an .npy array"):
        read_points(path)


@given(points=arrays(np.float64, st.tuples(st.integers(1, 20), st.just(3)), elements=st.floats(width=64)))
@settings(max_examples=50)
def test_what_python_writes_is_read_back(points: np.ndarray) -> None:
    text = "\n".join(",".join(repr(float(value)) for value in row) for row in points)
    assert np.array_equal(parse_points(text.encode(), "points"), points, equal_nan=True)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"1 2 3\n4 5\n", "line 2 has 2 numbers"),
        (b"1 2 3 4\n", "line 1 has 4 numbers"),
        (b"x y z\nu v w\n1 2 3\n", "line 2 is not three numbers: 'u v w'"),
        (b"1 2 3\n4 five 6\n", "line 2 is not three numbers"),
        (b"1 2 3.0f\n4 5 6\n", "line 1 is not three numbers: '1 2 3.0f'"),
        (b"1_0 2 3\n", "line 1 is not three numbers"),
        (b"", "holds no points"),
        (b"x,y,z\n", "holds no points"),
        (b"\xff\xfe\x00\x01", "neither npy nor text"),
        (b"\x93NUMPY\x01\x00", "damaged npy"),
        (b"\x89HDF\r\n\x1a\n\0\0", "an HDF5 file, such as a model"),
    ],
)
def test_errors_name_the_line_and_the_expected_format(content: bytes, reason: str) -> None:
    said = f"^points.csv: .*{reason}.*; points are an .npy array .* or text"
    with pytest.raises(PointsError, match=said):
        parse_points(content, "points.csv")


def test_decimal_commas_are_refused() -> None:
    """`1,5;2,5;3,5` would be six numbers, a point and its normal."""
    with pytest.raises(PointsError, match=r"line 2 has commas and semicolons: .*; write decimal points"):
        parse_points(b"x;y;z\n1,5;2,5;3,5\n", "points.csv")


@pytest.mark.parametrize(
    ("array", "reason"),
    [
        (np.zeros((4, 2)), r"holds float64 \(4, 2\)"),
        (np.zeros(3), r"holds float64 \(3,\)"),
        (np.zeros((4, 3), complex), "holds complex128"),
        (np.array([[{}, 1, 2]], dtype=object), "or an array of objects"),
    ],
)
def test_npy_of_something_else(array: np.ndarray, reason: str) -> None:
    stream = io.BytesIO()
    np.save(stream, array, allow_pickle=True)
    with pytest.raises(PointsError, match=reason):
        parse_points(stream.getvalue(), "points.npy")


def test_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(PointsError, match="no such file"):
        read_points(tmp_path / "none.npy")


def test_columns_written_are_read_back(tmp_path: Path) -> None:
    columns = {"a": np.array([1.0, 2.5]), "b": np.array([np.nan, -1e-7]), "c": np.array([1e9, 123456.789])}
    write_columns(columns, tmp_path / "out.csv")
    assert (tmp_path / "out.csv").read_text().splitlines()[0] == "a,b,c"
    expected = np.stack(list(columns.values()), axis=1)
    assert np.allclose(read_points(tmp_path / "out.csv"), expected, rtol=1e-11, equal_nan=True)
    write_columns(columns, tmp_path / "out.npy")
    assert np.array_equal(np.load(tmp_path / "out.npy"), expected, equal_nan=True)
    write_columns({"a": columns["a"]}, tmp_path / "one.npy")
    assert np.load(tmp_path / "one.npy").shape == (2,)


def test_columns_are_not_written_over_a_file_or_into_another_kind(tmp_path: Path) -> None:
    (tmp_path / "out.csv").write_text("kept")
    with pytest.raises(OutputError, match="exists already"):
        write_columns({"a": np.zeros(1)}, tmp_path / "out.csv")
    assert (tmp_path / "out.csv").read_text() == "kept"
    with pytest.raises(UsageError, match=r"\.npy, \.csv, \.txt"):
        write_columns({"a": np.zeros(1)}, tmp_path / "out.xlsx")


def test_endless_files_are_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", Path("/dev/zero"), tmp_path):
        with pytest.raises(PointsError, match=r"not a regular file|is a folder"):
            read_points(path)
    os.symlink("loop", tmp_path / "loop")
    with pytest.raises(PointsError, match="cannot be read"):
        read_points(tmp_path / "loop")


def test_binary_data_is_not_mistaken_for_text() -> None:
    with pytest.raises(PointsError, match="neither npy nor text"):
        parse_points(b"1 2 3\n" + b"\0" * 10_000_000, "zeros")


def test_an_array_that_the_file_does_not_contain_is_refused() -> None:
    header = b"{'descr': '<f8', 'fortran_order': False, 'shape': (1000000000000, 3), }"
    content = b"\x93NUMPY\x01\x00" + (len(header) + 1).to_bytes(2, "little") + header + b"\n"
    with pytest.raises(PointsError, match="damaged"):
        parse_points(content, "a.npy")
