"""The oracle compared with analytic distances, and its inside tests on difficult meshes."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from neuralsdf.errors import UsageError
from neuralsdf.mesh.inside_or_outside import SIGNS
from neuralsdf.mesh.signed_distance import SignedDistance, near_faces

from ..helpers import shapes

HALF = (0.6, 0.4, 0.3)


@pytest.fixture(scope="module")
def points() -> np.ndarray:
    return np.random.default_rng(0).uniform(-1, 1, (4000, 3))


@pytest.mark.parametrize("sign", SIGNS)
def test_box_distance_is_exact(sign, points):
    oracle = SignedDistance(*shapes.box(*HALF), sign)
    np.testing.assert_allclose(oracle.signed(points), shapes.box_distance(points, *HALF), atol=1e-12)


def test_the_closest_point_lies_on_its_face_at_the_distance(points):
    vertices, faces = shapes.torus()
    distance, face, nearest = SignedDistance(vertices, faces).closest(points)
    np.testing.assert_allclose(np.linalg.norm(points - nearest, axis=1), distance, atol=1e-12)
    corners = vertices[faces[face]]
    normal = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    normal /= np.linalg.norm(normal, axis=1, keepdims=True)
    assert np.abs(((nearest - corners[:, 0]) * normal).sum(axis=1)).max() < 1e-12


@pytest.mark.parametrize("case", ["inverted", "duplicated", "overlapping", "nested"])
def test_winding_signs_messy_solids_and_never_scales_the_distance(case, points):
    box, small = shapes.box(*HALF), shapes.box(0.2, 0.2, 0.2)
    mesh = {
        "inverted": (box[0], box[1][:, ::-1]),
        "duplicated": shapes.joined(box, box),
        "overlapping": shapes.joined(box, (small[0] + [0.6, 0, 0], small[1])),
        "nested": shapes.joined(box, small),  # winding number 2 in the inner box
    }[case]
    oracle = SignedDistance(*mesh)
    signed = oracle.signed(points)
    np.testing.assert_array_equal(np.abs(signed), oracle.unsigned(points))
    inside = shapes.box_distance(points, *HALF) < 0
    if case == "overlapping":
        inside |= shapes.box_distance(points - [0.6, 0, 0], 0.2, 0.2, 0.2) < 0
    np.testing.assert_array_equal(signed < 0, inside)
    assert oracle.flipped == (case == "inverted")


def test_an_open_hemisphere_is_a_solid_by_winding_number(points):
    oracle = SignedDistance(*shapes.hemisphere())
    ball = np.linalg.norm(points, axis=1) < 0.79
    # Above the plane and well within: inside. Outside the sphere: never.
    assert oracle.inside(points[ball & (points[:, 2] > 0.15)]).all()
    assert not oracle.inside(points[np.linalg.norm(points, axis=1) > 0.81]).any()


def test_sheets_have_no_inside_without_a_thickness(points):
    vertices, faces = shapes.box(0.5, 0.5, 0.5)
    top = faces[(vertices[faces, 2] > 0).all(axis=1)]
    for sheet in (top, np.vstack([top, top[:, ::-1]])):
        assert not SignedDistance(vertices, sheet).has_interior
    thick = SignedDistance(vertices, top, thickness=0.2)
    assert thick.has_interior
    np.testing.assert_allclose(thick.signed(points), thick.unsigned(points) - 0.1)


def test_a_thin_inverted_plate_is_flipped():
    vertices, faces = shapes.box(0.7, 0.7, 0.0005)
    oracle = SignedDistance(vertices, faces[:, ::-1])
    assert oracle.flipped
    assert oracle.has_interior
    assert oracle.signed(np.zeros((1, 3)))[0] == pytest.approx(-0.0005)


def test_shape_diameter_of_a_torus_is_that_of_its_tube():
    vertices, faces = shapes.torus(0.7, 0.2)
    np.testing.assert_allclose(SignedDistance(vertices, faces).shape_diameter(), 0.4, rtol=0.05)


@settings(max_examples=30)
@given(st.integers(0, 2**32 - 1))
def test_the_distance_is_1_lipschitz(seed):
    oracle = SignedDistance(*shapes.torus(), thickness=0.1)
    a, b = np.random.default_rng(seed).uniform(-1, 1, (2, 50, 3))
    change = np.abs(oracle.magnitude(oracle.unsigned(a)) - oracle.magnitude(oracle.unsigned(b)))
    assert (change <= np.linalg.norm(a - b, axis=1) + 1e-12).all()


def test_an_empty_query_has_an_empty_result():
    oracle = SignedDistance(*shapes.box(*HALF))
    assert oracle.signed(np.empty((0, 3))).shape == (0,)
    assert oracle.winding_number(np.empty((0, 3))).shape == (0,)


@pytest.mark.parametrize("bad", [{"sign": "guess"}, {"thickness": 0.0}, {"thickness": float("nan")}])
def test_invalid_options_are_usage_errors(bad):
    with pytest.raises(UsageError, match=r"`(sign|thickness)="):
        SignedDistance(*shapes.box(*HALF), **bad)


def test_winding_signs_agree_with_the_exact_winding_number_on_a_real_open_mesh(test_data):
    import igl
    import trimesh

    mesh = trimesh.load(test_data / "meshes" / "suzanne.obj", process=False, force="mesh")
    vertices = np.asarray(mesh.vertices) / 2
    oracle = SignedDistance(vertices, np.asarray(mesh.faces))
    points = np.random.default_rng(0).uniform(-0.7, 0.7, (3000, 3))
    exact = np.asarray(igl.winding_number(vertices, oracle.faces, points)).reshape(-1)
    clear = np.abs(exact - 0.5) > 1e-3
    np.testing.assert_array_equal(oracle.inside(points)[clear], exact[clear] > 0.5)


@pytest.mark.parametrize("inverted", [False, True])
@pytest.mark.parametrize("distance", [0.1, 1e-3, 1e-7])
def test_the_gradient_points_outwards_at_any_distance(inverted, distance):
    vertices, faces = shapes.sphere(0.7)
    oracle = SignedDistance(vertices, faces[:, ::-1] if inverted else faces)
    centres = vertices[faces].mean(axis=1)
    normals = np.cross(
        vertices[faces[:, 1]] - vertices[faces[:, 0]], vertices[faces[:, 2]] - vertices[faces[:, 0]]
    )
    normals /= np.linalg.norm(normals, axis=1, keepdims=True)
    for side in (-1, 1):
        gradient = oracle.gradient(centres + side * distance * normals)
        assert (gradient * normals).sum(axis=1).min() > 1 - 1e-6


def test_the_gradient_of_a_shell_points_away_from_the_mesh_on_both_sides():
    vertices, faces = shapes.sphere(0.7)
    oracle = SignedDistance(vertices, faces, thickness=0.1)
    points = np.array([[0.6, 0.0, 0.0], [0.8, 0.0, 0.0]])
    np.testing.assert_allclose(oracle.gradient(points)[:, 0], [-1, 1], atol=0.01)


def test_a_flat_closed_mesh_has_no_inside_by_parity() -> None:
    """Its faces lie on one another, which parity counts as one: a sheet with shadows along the rays."""
    vertices = np.array([[0, 0, 0], [1, 0, 0], [0, 1, 0], [0.3, 0.3, 0]]) * 1.2 - [0.4, 0.4, 0]
    faces = np.array([[0, 2, 1], [0, 1, 3], [0, 3, 2], [1, 2, 3]])
    assert not SignedDistance(vertices, faces, "parity").has_interior
    vertices[3, 2] = 0.3
    assert SignedDistance(vertices, faces, "parity").has_interior


def test_near_faces_are_those_closer_than_their_own_size() -> None:
    rng = np.random.default_rng(0)
    points = rng.normal(size=(200_000, 3))
    points *= rng.random((len(points), 1)) ** (1 / 3) / np.linalg.norm(points, axis=1, keepdims=True)
    turns = np.linalg.qr(rng.normal(size=(20, 3, 3)))[0]
    equilateral = 0.3 * np.array([[1, 0, 0], [-0.5, math.sqrt(0.75), 0], [-0.5, -math.sqrt(0.75), 0]])
    corners = rng.uniform(-0.3, 0.3, (20, 1, 3)) + rng.uniform(0.3, 1, (20, 1, 1)) * (equilateral @ turns)
    centres = corners.mean(axis=1)
    radii = np.linalg.norm(corners - centres[:, None], axis=2).max(axis=1)
    near = sum(
        (np.linalg.norm(points - centre, axis=1) < radius).mean()
        for centre, radius in zip(centres, radii, strict=True)
    )
    faces = np.arange(60).reshape(-1, 3)
    assert near_faces(corners.reshape(-1, 3), faces) == pytest.approx(near, rel=0.05)
    assert near_faces(*shapes.sphere(1.0, 5)) < 1  # an ordinary mesh, however fine
    slivers = corners * (1, 1e-4, 1e-4)
    assert near_faces(slivers.reshape(-1, 3), faces) < near_faces(corners.reshape(-1, 3), faces) / 3
