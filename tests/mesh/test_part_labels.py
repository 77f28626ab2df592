"""Labels of vertices and faces in PLY files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import trimesh

from neuralsdf.errors import MeshError, UsageError
from neuralsdf.mesh.load_mesh import load_mesh
from neuralsdf.mesh.part_labels import load_labels
from neuralsdf.mesh.save_mesh import save_mesh

from ..helpers.shapes import sphere

BALL = sphere(1.0, 2)
RNG = np.random.default_rng(0)
VERTICES, FACES = (RNG.integers(0, 256, len(rows)).astype(np.uint8) for rows in BALL)

SQUARE = """ply
format ascii 1.0
element vertex 4
property float x
property float y
property float z
property {} label
element face 1
property list uchar int vertex_indices
{}end_header
0 0 0 {}
1 0 0 1
1 1 0 2
0 1 0 3
{}
"""


@pytest.mark.parametrize("of_vertices", [True, False])
@pytest.mark.parametrize("of_faces", [True, False])
def test_labels_are_read_back(tmp_path: Path, of_vertices: bool, of_faces: bool) -> None:
    path = tmp_path / "ball.ply"
    given = {"labels": VERTICES} if of_vertices else {}
    given |= {"face_labels": FACES} if of_faces else {}
    colours = np.zeros((len(VERTICES), 3), np.uint8)
    save_mesh(path, *BALL, colours=colours, **given)
    labels = load_labels(path)
    assert (labels.vertices is None) != of_vertices
    assert (labels.faces is None) != of_faces
    assert labels.vertices is None or np.array_equal(labels.vertices, VERTICES)
    assert labels.faces is None or np.array_equal(labels.faces, FACES)
    mesh = load_mesh(path)
    assert np.array_equal(mesh.vertices.astype(np.float32), BALL[0].astype(np.float32))
    assert np.array_equal(mesh.faces, BALL[1])


def test_another_reader_finds_the_labels(tmp_path: Path) -> None:
    path = tmp_path / "ball.ply"
    save_mesh(path, *BALL, labels=VERTICES, face_labels=FACES)
    raw = trimesh.load(path, process=False).metadata["_ply_raw"]
    assert np.array_equal(raw["vertex"]["data"]["label"].ravel(), VERTICES)
    assert np.array_equal(raw["face"]["data"]["label"].ravel(), FACES)


def test_labels_of_removed_vertices_and_faces_are_left_out(tmp_path: Path) -> None:
    """A mesh with an unused vertex and a degenerate face in front of the others."""
    vertices, faces = BALL
    path = tmp_path / "ball.ply"
    save_mesh(
        path,
        np.vstack([[0, 0, 0], vertices]),
        np.vstack([[1, 1, 2], faces + 1]),
        labels=[7, *VERTICES],
        face_labels=[7, *FACES],
    )
    mesh, labels = load_mesh(path), load_labels(path)
    assert labels.vertices is not None
    assert labels.faces is not None
    assert np.array_equal(mesh.per_vertex(labels.vertices), VERTICES)
    assert np.array_equal(mesh.per_face(labels.faces), FACES)


def test_text_and_any_type_of_label(tmp_path: Path) -> None:
    path = tmp_path / "square.ply"
    path.write_text(SQUARE.format("double", "", "0", "4 0 1 2 3"))
    vertices, faces = load_labels(path)
    assert vertices is not None
    assert vertices.tolist() == [0, 1, 2, 3]
    assert faces is None


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (SQUARE.format("double", "", "0.5", "4 0 1 2 3"), "has a vertex label that is not a whole number"),
        (SQUARE.format("double", "", "nan", "4 0 1 2 3"), "has a vertex label that is not a whole number"),
        (
            SQUARE.format("uchar", "property uchar label\n", "0", "4 0 1 2 3 1"),
            "has labels of polygons; triangulate it",
        ),
        ("OFF\n", "is not a PLY, the only format with labels; save the mesh as PLY"),
        ("", "is not a PLY"),
        ("ply\nformat ascii 1.0\nelement vertex 9\n", "is truncated"),
    ],
)
def test_invalid_labels_are_reported_in_one_line(tmp_path: Path, content: str, reason: str) -> None:
    path = tmp_path / "square.ply"
    path.write_text(content)
    with pytest.raises(MeshError) as error:
        load_labels(path)
    assert str(error.value).startswith(f"{path}: {reason}")


def test_labels_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"labels of shape \(3,\) for a mesh with 162 of them"):
        save_mesh(tmp_path / "a.ply", *BALL, labels=[1, 2, 3])
    with pytest.raises(UsageError, match=r"face labels of shape \(1, 320\)"):
        save_mesh(tmp_path / "a.ply", *BALL, face_labels=FACES[None])
    with pytest.raises(UsageError, match=r"\.obj holds no labels; use \.ply"):
        save_mesh(tmp_path / "a.obj", *BALL, labels=VERTICES)
    assert list(tmp_path.iterdir()) == []
