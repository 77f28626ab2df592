"""Meshes made from arrays: guarantees, findings and errors."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from neuralsdf.errors import MeshError, UsageError
from neuralsdf.mesh.mesh import Mesh
from neuralsdf.mesh.mesh_cleaning import MAX_COPIES
from neuralsdf.mesh.mesh_findings import Findings

from ..helpers.shapes import Arrays, box, hemisphere, joined, sphere, torus

CUBE = box(1, 1, 1)


def soup(mesh: Arrays) -> Arrays:
    """The same triangles, each with vertices of its own."""
    vertices, faces = mesh
    return vertices[faces].reshape(-1, 3), np.arange(3 * len(faces)).reshape(-1, 3)


def messy() -> Arrays:
    """A mesh with every fault that can be converted: see `test_findings_of_a_messy_mesh`."""
    vertices, faces = joined(CUBE, (CUBE[0] + [3, 0, 0], CUBE[1]), soup((CUBE[0] + [6, 0, 0], CUBE[1])))
    vertices = np.vstack([vertices, [[0, 0, 9], [np.nan, 0, 0]]])
    faces[12] = faces[12, ::-1]  # of the second body, inverted
    third = faces[24:]
    return vertices, np.vstack([faces[1:], third[:2], [[0, 0, 1], [0, 1, len(vertices) - 2]], [[0, 1, 0]]])


@pytest.mark.parametrize("shape", [CUBE, sphere(subdivisions=2), torus(), joined(CUBE, sphere(0.3, 2))])
def test_a_clean_mesh_has_no_findings(shape: Arrays) -> None:
    mesh = Mesh.from_arrays(*shape)
    assert mesh.findings.line() == ""
    assert mesh.findings.closed
    np.testing.assert_array_equal(mesh.vertices[mesh.faces], shape[0][shape[1]])


def test_copies_of_a_face_are_kept_up_to_a_limit_in_each_orientation() -> None:
    vertices, faces = CUBE
    rotated = np.roll(faces, 1, axis=1)  # the same orientation
    mesh = Mesh.from_arrays(vertices, np.vstack([faces, *[rotated] * 99, *[faces[:, ::-1]] * 3]))
    np.testing.assert_array_equal(mesh.faces[: len(faces)], faces)
    assert len(mesh.faces) == (MAX_COPIES + 3) * len(faces)
    assert mesh.findings.surplus_copies == (100 - MAX_COPIES) * len(faces)
    assert f"{mesh.findings.surplus_copies} surplus copies of faces left out" in mesh.findings.line()


def test_bodies_are_counted() -> None:
    assert Mesh.from_arrays(*joined(CUBE, sphere(0.3, 2), torus())).findings.bodies == 3


def test_a_soup_of_a_closed_shape_is_closed_once_merged() -> None:
    mesh = Mesh.from_arrays(*soup(CUBE))
    assert len(mesh.vertices) == 8
    assert mesh.findings == replace(Mesh.from_arrays(*CUBE).findings, merged_vertices=28)
    np.testing.assert_array_equal(mesh.vertices, soup(CUBE)[0][mesh.origin])


def test_a_missing_face_leaves_three_boundary_edges() -> None:
    findings = Mesh.from_arrays(CUBE[0], CUBE[1][1:]).findings
    assert findings == Findings(closed=False, bodies=1, boundary_edges=3)
    assert findings.line() == "open: 3 boundary edges"


def test_an_inverted_face_disagrees_along_its_edges() -> None:
    faces = CUBE[1].copy()
    faces[0] = faces[0, ::-1]
    findings = Mesh.from_arrays(CUBE[0], faces).findings
    assert findings == Findings(closed=False, bodies=1, misoriented_edges=3)
    assert (
        findings.line()
        == "not closed because of inconsistent orientation; 3 edges of inconsistent orientation"
    )


def test_doubled_sheets_are_closed() -> None:
    vertices, faces = hemisphere()
    findings = Mesh.from_arrays(vertices, np.vstack([faces, faces[:, ::-1]])).findings
    assert findings.closed
    assert findings.duplicate_faces == len(faces)
    assert findings.boundary_edges == 0


def test_findings_of_a_messy_mesh() -> None:
    mesh = Mesh.from_arrays(*messy(), notes=["a note"])
    assert mesh.findings == Findings(
        closed=False,
        bodies=3,
        boundary_edges=4,  # two sides of the missing face and two of the fin, which stands on the third
        nonmanifold_edges=5,  # of the two duplicated faces, which are neighbours
        misoriented_edges=3,  # of the inverted face
        duplicate_faces=2,
        degenerate_faces=2,
        unused_vertices=1,
        merged_vertices=28,
        notes=("a note",),
    )
    assert mesh.findings.line() == (
        "a note; open: 4 boundary edges; 5 non-manifold edges; 3 edges of inconsistent orientation; "
        "2 duplicate faces; 2 degenerate faces left out; 1 unused vertex left out"
    )
    assert np.isfinite(mesh.vertices).all()
    assert mesh.source.faces == len(messy()[1])


def test_a_flat_face_in_the_slit_of_a_t_junction_closes_the_mesh() -> None:
    """An edge of the cube is split on one side only; a face without area fills the slit."""
    vertices, faces = CUBE
    a, b, c = faces[0]
    middle = len(vertices)
    split = np.vstack([faces[1:], [[a, middle, c], [middle, b, c]]])
    points = np.vstack([vertices, [(vertices[a] + vertices[b]) / 2]])
    assert not Mesh.from_arrays(points, split).findings.closed
    filled = Mesh.from_arrays(points, np.vstack([split, [[a, b, middle]]]))
    assert filled.findings == Findings(closed=True, bodies=1, degenerate_faces=1)
    assert len(filled.faces) == 13
    # A flat face on top of an edge does not open the mesh.
    laid = Mesh.from_arrays(points, np.vstack([faces, [[a, b, middle]]]))
    assert laid.findings == replace(filled.findings, unused_vertices=0)


@settings(max_examples=60)
@given(
    st.integers(-30, 30).map(lambda exponent: 10.0**exponent),
    st.tuples(*[st.sampled_from([-1e6, -3.7, 0.0, 1e3])] * 3),
    st.booleans(),
)
def test_findings_do_not_depend_on_size_or_place(scale: float, shift: tuple[float, ...], clean: bool) -> None:
    vertices, faces = sphere(subdivisions=2) if clean else messy()
    expected = Mesh.from_arrays(vertices, faces)
    moved = Mesh.from_arrays((vertices + shift) * scale, faces)
    assert moved.findings == expected.findings
    np.testing.assert_array_equal(moved.faces, expected.faces)
    np.testing.assert_array_equal(moved.origin, expected.origin)


@settings(max_examples=30)
@given(st.integers(0, 2**32 - 1))
def test_findings_do_not_depend_on_the_order_of_faces_and_corners(seed: int) -> None:
    rng = np.random.default_rng(seed)
    vertices, faces = messy()
    turned = np.array(
        [np.roll(face, turn) for face, turn in zip(faces, rng.integers(0, 3, len(faces)), strict=True)]
    )
    shuffled = turned[rng.permutation(len(faces))]
    assert Mesh.from_arrays(vertices, shuffled).findings == Mesh.from_arrays(vertices, faces).findings


def test_vertices_closer_than_rounding_are_merged() -> None:
    vertices, faces = soup(CUBE)
    rng = np.random.default_rng(0)
    near = Mesh.from_arrays(vertices + 1e-11 * rng.uniform(-1, 1, vertices.shape), faces)
    assert near.findings.closed
    assert len(near.vertices) == 8
    apart = Mesh.from_arrays(vertices + 1e-6 * rng.uniform(-1, 1, vertices.shape), faces)
    assert len(apart.vertices) == 36


@pytest.mark.parametrize(
    ("vertices", "faces", "reason"),
    [
        (CUBE[0], np.empty((0, 3), int), "has no faces"),
        (CUBE[0], [[0, 1, 8]], r"face 0: vertex index 8 out of range \(8 vertices"),
        (CUBE[0], [[0, 1, 2], [0, -1, 2]], "face 1: vertex index -1 out of range"),
        (
            np.where(CUBE[0] > 5, 0, np.nan),
            CUBE[1],
            r"vertex 0 has non-finite coordinates \(nan, nan, nan\).*; so are 7 more",
        ),
        (
            np.where(np.arange(8)[:, None] == 3, np.inf, CUBE[0]),
            CUBE[1],
            r"vertex 3 has non-finite coordinates \(inf",
        ),
        (np.zeros((8, 3)), CUBE[1], "all faces are degenerate"),
        (np.outer(np.arange(8), [1, 2, 3]), CUBE[1], "all faces are degenerate"),
        (CUBE[0], [[0, 0, 1], [2, 3, 2]], "all faces are degenerate"),
        (CUBE[0] + 1e16, CUBE[1], "all faces are degenerate"),
        (CUBE[0] + 2e15, CUBE[1], r"is 2 across and 2e\+15 from the origin: its coordinates are rounded"),
        (CUBE[0] * 1e90 + 1e101, CUBE[1], "rounded; move the mesh to the origin|degenerate"),
        (CUBE[0] * 1.5e308, CUBE[1], "too large to compute with; scale the mesh down"),
        (CUBE[0] * 1e150, CUBE[1], r"is \S+e\+150 across, too large to compute with"),
        (CUBE[0] * 1e-150, CUBE[1], r"is \S+e-150 across, too small to compute with; scale the mesh up"),
    ],
)
def test_invalid_arrays_are_refused_in_one_line(vertices: object, faces: object, reason: str) -> None:
    with pytest.raises(MeshError, match=reason) as caught:
        Mesh.from_arrays(vertices, faces, name="folder/a.obj")  # type: ignore[arg-type]
    assert str(caught.value).startswith("folder/a.obj: ")
    assert "; " in str(caught.value)
    assert "\n" not in str(caught.value)


def test_arrays_of_other_shapes_are_usage_errors() -> None:
    with pytest.raises(UsageError, match=r"expected vertices \(n, 3\)"):
        Mesh.from_arrays(np.zeros((4, 2)), [[0, 1, 2]])


@pytest.mark.parametrize("spike", [1e30, 1e6, -1e9])
def test_a_spike_is_refused_by_its_vertex(spike: float) -> None:
    vertices, faces = sphere(subdivisions=3)
    vertices[77, 1] = spike
    with pytest.raises(MeshError, match=r"vertex 77 at \(.*\) is so far away .* delete that vertex"):
        Mesh.from_arrays(vertices, faces)


def ground_plane() -> Arrays:
    """A small statue on a large plane of two triangles: small, but above the resolution."""
    plane = np.array([[-500, -500, 0], [500, -500, 0], [500, 500, 0], [-500, 500, 0.0]])
    return joined(sphere(subdivisions=3), (plane, np.array([[0, 1, 2], [0, 2, 3]])))


@pytest.mark.parametrize(
    "shape",
    [
        box(1e5, 1, 1),
        box(1, 1, 1e-7),
        (sphere(subdivisions=3)[0] * [1, 1, 1e6], sphere(subdivisions=3)[1]),
        (np.array([[0.0, 0, 0], [1, 0, 0], [0, 1e-6, 0]]), np.array([[0, 1, 2]])),
        ground_plane(),
        (np.vstack([CUBE[0], [[1e30, 0, 0]]]), CUBE[1]),  # a far vertex that no face uses
    ],
    ids=["needle", "sheet", "ellipsoid", "sliver", "ground plane", "unused"],
)
def test_long_thin_and_uneven_shapes_are_not_spikes(shape: Arrays) -> None:
    assert len(Mesh.from_arrays(*shape).faces) == len(shape[1])


def test_values_of_the_file_follow_its_vertices() -> None:
    vertices, faces = messy()
    mesh = Mesh.from_arrays(vertices, faces)
    np.testing.assert_array_equal(mesh.per_vertex(vertices), mesh.vertices)
    np.testing.assert_array_equal(mesh.per_vertex(np.arange(len(vertices))), mesh.origin)
    with pytest.raises(UsageError, match=f"mesh has {len(vertices)} vertices, but there are 3 values"):
        mesh.per_vertex(np.zeros(3))


def test_arrays_are_their_own_source() -> None:
    first, second = (Mesh.from_arrays(*CUBE, name="folder/cube").source for _ in range(2))
    assert first == second
    assert first.name == "cube"
    assert first.faces == 12
    assert first.bytes == 8 * 3 * (8 + 12)
    assert Mesh.from_arrays(CUBE[0] * 2, CUBE[1]).source.sha256 != first.sha256


def test_kept_faces_refer_to_the_faces_of_the_file() -> None:
    """A messy mesh, whose faces are left out for three reasons; the others keep their labels."""
    vertices, faces = messy()
    faces = np.vstack([faces, *[faces[:1]] * (MAX_COPIES + 3)])
    mesh = Mesh.from_arrays(vertices, faces)
    assert mesh.findings.degenerate_faces > 0
    assert mesh.findings.surplus_copies > 0
    np.testing.assert_array_equal(mesh.vertices[mesh.faces], vertices[faces[mesh.face_origin]])
    left_out = mesh.findings.degenerate_faces + mesh.findings.surplus_copies
    assert len(mesh.faces) + left_out == mesh.faces_in_file == len(faces)
    centroids = vertices[faces].mean(axis=1)
    np.testing.assert_allclose(mesh.per_face(centroids), mesh.vertices[mesh.faces].mean(axis=1))
    with pytest.raises(UsageError, match=f"{len(faces)} triangles, but there are {len(mesh.faces)} values"):
        mesh.per_face(mesh.face_origin)
