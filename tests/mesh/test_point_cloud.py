"""Point clouds from files: what is read, and what is refused in one line."""

from __future__ import annotations

import io
import os
import struct
from pathlib import Path

import numpy as np
import pytest
import trimesh
from hypothesis import given, settings
from hypothesis import strategies as st

from neuralsdf.errors import MeshError, PointsError
from neuralsdf.files.bounded_input import set_max_input
from neuralsdf.files.point_lists import read_points
from neuralsdf.mesh.load_mesh import load_mesh
from neuralsdf.mesh.point_cloud import load_point_cloud
from neuralsdf.mesh.save_mesh import save_mesh

from ..helpers.shapes import sphere

RNG = np.random.default_rng(0)
POINTS = RNG.normal(size=(50, 3)).astype(np.float32).astype(np.float64)
NORMALS = (POINTS / np.linalg.norm(POINTS, axis=1, keepdims=True)).astype(np.float32).astype(np.float64)
BOTH = np.hstack([POINTS, NORMALS])


def ply(encoding: str = "ascii", *, normals: bool = True, extra: bool = False, code: str = "f") -> bytes:
    """The cloud as PLY; extra: with a colour before the coordinates, a list after them, and no faces."""
    order = ">" if "big" in encoding else "<"
    name = {"f": "float", "d": "double"}[code]
    names = ["x", "y", "z", *(["nx", "ny", "nz"] if normals else [])]
    header = f"ply\nformat {encoding} 1.0\ncomment made by hand\nelement vertex {len(POINTS)}\n"
    header += "property uchar red\n" * extra + "".join(f"property {name} {axis}\n" for axis in names)
    header += (
        "property list uchar int ids\nelement face 0\nproperty list uchar int vertex_indices\n"
    ) * extra
    content = (header + "end_header\n").encode()
    for number, row in enumerate(BOTH[:, : len(names)]):
        if encoding == "ascii":
            words = [*(["7"] * extra), *(repr(float(x)) for x in row), *(["2 1 2"] * extra)]
            content += (" ".join(words) + "\n").encode()
        else:
            content += struct.pack("B", number) * extra + struct.pack(f"{order}{len(names)}{code}", *row)
            content += struct.pack(f"{order}B{number % 3}i", number % 3, *range(number % 3)) * extra
    return content


def text(rows: np.ndarray, separator: str = " ") -> bytes:
    return "\n".join(separator.join(repr(float(x)) for x in row) for row in rows).encode()


def npy(array: np.ndarray) -> bytes:
    stream = io.BytesIO()
    np.save(stream, array)
    return stream.getvalue()


def saved(folder: Path, name: str, content: bytes) -> Path:
    path = folder / name
    path.write_bytes(content)
    return path


@pytest.mark.parametrize("normals", [False, True])
@pytest.mark.parametrize("extra", [False, True])
@pytest.mark.parametrize("encoding", ["ascii", "binary_little_endian", "binary_big_endian"])
def test_ply_files_are_read(tmp_path: Path, encoding: str, extra: bool, normals: bool) -> None:
    for code in "fd":
        path = saved(tmp_path, "cloud.ply", ply(encoding, normals=normals, extra=extra, code=code))
        cloud = load_point_cloud(path)
        assert np.array_equal(cloud.points, POINTS)
        assert cloud.normals is None if not normals else np.array_equal(cloud.normals, NORMALS)
        if encoding != "binary_big_endian" and not extra:
            assert np.array_equal(np.asarray(trimesh.load(path).vertices), POINTS)
    with pytest.raises(MeshError, match="is a point cloud: 50 points, no faces"):
        load_mesh(path)


def test_files_of_trimesh_are_read(tmp_path: Path) -> None:
    trimesh.PointCloud(POINTS, colors=np.full((50, 4), 200, np.uint8)).export(tmp_path / "cloud.ply")
    cloud = load_point_cloud(tmp_path / "cloud.ply")
    assert np.array_equal(cloud.points, POINTS)
    assert cloud.normals is None
    trimesh.PointCloud(POINTS).export(tmp_path / "cloud.xyz")
    np.testing.assert_allclose(load_point_cloud(tmp_path / "cloud.xyz").points, POINTS, atol=1e-6)


@pytest.mark.parametrize("columns", [3, 6])
@pytest.mark.parametrize("name", ["cloud.xyz", "cloud.npy", "cloud"])
def test_arrays_and_text_are_read_whatever_their_names(tmp_path: Path, columns: int, name: str) -> None:
    rows = BOTH[:, :columns]
    header = b"# x y z\n" if columns == 3 else b"\xef\xbb\xbfx,y,z,nx,ny,nz\r\n"
    for content in (
        npy(rows),
        npy(np.asfortranarray(rows)),
        text(rows),
        text(rows, ", "),
        header + text(rows),
    ):
        cloud = load_point_cloud(saved(tmp_path, name, content))
        assert np.array_equal(cloud.points, POINTS)
        assert cloud.normals is None if columns == 3 else np.array_equal(cloud.normals, NORMALS)


def test_a_mesh_is_not_a_point_cloud(tmp_path: Path) -> None:
    vertices, faces = sphere(subdivisions=1)
    save_mesh(tmp_path / "ball.ply", vertices, faces, normals=vertices)
    with pytest.raises(PointsError, match="is a mesh of 80 faces, not a point cloud; load it as a mesh"):
        load_point_cloud(tmp_path / "ball.ply")
    assert len(load_mesh(tmp_path / "ball.ply").faces) == 80


def test_points_to_query_have_no_normals(tmp_path: Path) -> None:
    for content in (npy(BOTH), text(BOTH)):
        with pytest.raises(PointsError, match=r"not three|\(50, 6\)"):
            read_points(saved(tmp_path, "points.txt", content))


NAN = BOTH.copy()
NAN[[7, 9], 4] = np.nan


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "holds no points"),
        (npy(np.empty((0, 3))), "holds no points"),
        (npy(np.zeros((4, 5))), r"holds float64 \(4, 5\)"),
        (npy(np.zeros((4, 3), complex)), "holds complex128"),
        (npy(BOTH)[:-8], "damaged npy"),
        (text(BOTH) + b"\n1 2 3", "line 51 has 3 numbers, not six"),
        (text(POINTS) + b"\n" + text(BOTH), "line 51 has 6 numbers, not three"),
        (b"1 2 3 4", "line 1 has 4 numbers, not three or six"),
        (b"x y z\n1 2 three", "line 2 is not three or six numbers"),
        (text(NAN), r"point 7 has a non-finite normal \(and 1 more\)"),
        (b"1 2 3\n1 inf 3", "point 1 has non-finite coordinates"),
        (b"ply\nformat ascii 1.0\nelement vertex 0\nproperty float x\nend_header\n", "no vertices"),
        (ply("binary_little_endian")[:-5], "is truncated"),
        (ply().replace(b"element vertex 50", b"element vertex 999999999999"), "is truncated"),
        (ply().replace(b"property float nx", b"property list uchar float nx"), "list for a coord"),
        (b"\x89HDF\r\n\x1a\n" + bytes(50), "is an HDF5 file"),
        (b"\0\1\2" * 30, "is neither npy nor text"),
    ],
)
def test_invalid_files_are_refused(tmp_path: Path, content: bytes, reason: str) -> None:
    path = saved(tmp_path, "cloud.dat", content)
    with pytest.raises(PointsError, match=reason) as refused:
        load_point_cloud(path)
    said = str(refused.value)
    assert said.startswith(f"{path}: ")
    assert said.isprintable()


def test_unreadable_paths_are_refused(tmp_path: Path) -> None:
    with pytest.raises(PointsError, match="no such file"):
        load_point_cloud(tmp_path / "none.ply")
    with pytest.raises(PointsError, match="is a folder"):
        load_point_cloud(tmp_path)
    os.mkfifo(tmp_path / "pipe.ply")
    with pytest.raises(PointsError, match="not a regular file"):
        load_point_cloud(tmp_path / "pipe.ply")
    try:
        set_max_input(100)
        for content in (ply(), npy(BOTH), text(BOTH)):
            with pytest.raises(PointsError, match="more than the limit of 100"):
                load_point_cloud(saved(tmp_path, "cloud", content))
    finally:
        set_max_input(None)


@pytest.mark.parametrize("kind", ["ascii", "binary_little_endian", "npy", "text"])
@given(data=st.data())
@settings(max_examples=40)
def test_any_bytes_are_points_or_an_error_in_one_line(
    tmp_path_factory, kind: str, data: st.DataObject
) -> None:
    content = bytearray({"npy": npy(BOTH), "text": text(BOTH)}.get(kind) or ply(kind, extra=True))
    for _ in range(data.draw(st.integers(1, 6))):
        at = data.draw(st.integers(0, len(content) - 1))
        if data.draw(st.booleans()):
            content[at] = data.draw(st.integers(0, 255))
        else:
            del content[at : at + data.draw(st.integers(1, 40))]
    path = saved(tmp_path_factory.getbasetemp(), f"fuzz-{kind}", bytes(content))
    try:
        cloud = load_point_cloud(path)
    except PointsError as error:
        said = str(error)
    else:
        said = ""
        assert np.isfinite(cloud.points).all()
        assert len(cloud.points) > 0
    assert said.isprintable()


def test_the_first_of_two_properties_with_one_name_is_read(tmp_path: Path) -> None:
    """In rows of different lengths, too, which are read one by one; and by the reader of meshes."""
    header = "ply\nformat binary_little_endian 1.0\nelement vertex 3\n"
    header += "property list uchar uchar tags\n" + "".join(f"property float {axis}\n" for axis in "xyzx")
    triangle = np.array([[0.0, 0, 0], [1, 0, 0], [0, 1, 0]])
    rows = b"".join(bytes([i, *range(i)]) + struct.pack("<4f", *point, 9) for i, point in enumerate(triangle))
    path = saved(tmp_path, "twice.ply", (header + "end_header\n").encode() + rows)
    assert np.array_equal(load_point_cloud(path).points, triangle)
    header += "element face 1\nproperty list uchar int vertex_indices\nend_header\n"
    path = saved(tmp_path, "twice.ply", header.encode() + rows + struct.pack("<B3i", 3, 0, 1, 2))
    assert np.array_equal(load_mesh(path).vertices, triangle)
