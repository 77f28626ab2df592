"""BVHs compared with brute force and with libigl, and properties that hold for every mesh."""

from __future__ import annotations

import igl
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from neuralsdf.geometry.bvh import IglBVH, NativeBVH, triangle_bvh
from neuralsdf.thread_count import set_threads

from ..helpers import shapes
from ..helpers.core import ISAS
from ..helpers.triangles import EXACT, SHARP, brute_distance, lie_on, queries, soup

core = pytest.importorskip("neuralsdf.kernels._core", reason="the C++ core was not built")


@pytest.mark.parametrize("isa", ISAS)
@settings(max_examples=25)
@given(seed=st.integers(0, 2**32 - 1), count=st.sampled_from([9, 33, 200]))
def test_distances_are_those_of_brute_force(isa, seed, count):
    mesh = soup(seed, count)
    points = queries(mesh, seed)
    bvh = NativeBVH(*mesh, isa)
    distance, face, nearest = bvh.closest(points)
    every = brute_distance(mesh, points)
    np.testing.assert_allclose(distance, every.min(axis=1), atol=1e-8)
    np.testing.assert_allclose(every[np.arange(len(points)), face], distance, atol=1e-8)
    np.testing.assert_allclose(np.linalg.norm(points - nearest, axis=1), distance, rtol=1e-12, atol=1e-12)
    assert brute_distance(mesh, nearest).min(axis=1).max() < 1e-8
    np.testing.assert_array_equal(bvh.distance(points), distance)


@pytest.mark.parametrize("isa", ISAS)
def test_the_first_of_equally_close_faces_is_found(isa):
    """Above a vertex of a fan all its faces are equally close."""
    around = np.linspace(0, 2 * np.pi, 12, endpoint=False)
    vertices = np.vstack([[0, 0, 1], np.stack([np.cos(around), np.sin(around), 0 * around], axis=1)])
    faces = np.stack([np.zeros(12, int), 1 + np.arange(12), 1 + (np.arange(12) + 1) % 12], axis=1)
    _, face, nearest = NativeBVH(vertices, faces[::-1].copy(), isa).closest(
        np.array([[0.0, 0.0, 1.5], [3, 0, 1e-9]])
    )
    assert face[0] == 0
    np.testing.assert_array_equal(nearest[0], [0, 0, 1])


@pytest.mark.parametrize("scale", [1e-9, 1.0, 1e12])
@pytest.mark.parametrize("offset", [0.0, 1e3])
def test_a_mesh_may_have_any_size_and_lie_anywhere(scale, offset):
    vertices, faces = shapes.sphere(0.8, 2)
    points = np.random.default_rng(0).uniform(-2, 2, (500, 3))
    bvh = NativeBVH((vertices + offset) * scale, faces)
    moved = (points + offset) * scale
    expected = brute_distance((vertices, faces), points).min(axis=1)
    np.testing.assert_allclose(bvh.distance(moved) / scale, expected, atol=1e-14 * (1 + 10 * offset))
    np.testing.assert_allclose(
        bvh.winding_number(moved, EXACT),
        NativeBVH(vertices, faces).winding_number(points, EXACT),
        atol=1e-6,
    )


@pytest.mark.parametrize("isa", ISAS)
def test_distances_and_winding_numbers_equal_those_of_libigl_on_a_real_mesh(isa, test_data):
    import trimesh

    mesh = trimesh.load(test_data / "meshes" / "suzanne.obj", process=False, force="mesh")
    vertices, faces = np.asarray(mesh.vertices), np.asarray(mesh.faces, np.int64)
    ours, theirs = NativeBVH(vertices, faces, isa), IglBVH(vertices, faces)
    points = np.random.default_rng(0).uniform(-1.5, 1.5, (3000, 3))
    distance, _, nearest = ours.closest(points)
    np.testing.assert_allclose(distance, theirs.distance(points), atol=1e-13)
    np.testing.assert_allclose(nearest, theirs.closest(points)[2], atol=1e-12)
    exact = np.asarray(igl.winding_number(vertices, faces, points)).reshape(-1)
    np.testing.assert_allclose(ours.winding_number(points, EXACT), exact, atol=1e-12)
    clear = np.abs(exact - 0.5) > 1e-3
    for bvh in (ours, theirs):
        np.testing.assert_array_equal(bvh.winding_number(points, SHARP)[clear] > 0.5, exact[clear] > 0.5)


@pytest.mark.parametrize("isa", ISAS)
def test_solid_angles_of_a_closed_mesh_sum_to_one_inside_and_zero_outside(isa):
    vertices, faces = shapes.box(0.6, 0.4, 0.3)
    points = np.random.default_rng(0).uniform(-1, 1, (4000, 3))
    # Next to faces, edges and corners too.
    points = np.vstack([points, points * 1e-7 + vertices[0], [0.6 - 1e-12, 0, 0], [0.6 + 1e-12, 0, 0]])
    inside = shapes.box_distance(points, 0.6, 0.4, 0.3) < 0
    winding = NativeBVH(vertices, faces, isa).winding_number(points, EXACT)
    np.testing.assert_allclose(winding, inside, atol=1e-7)
    nested = NativeBVH(
        *shapes.joined((vertices, faces), (vertices / 2, faces), (vertices, faces[:, ::-1])), isa
    )
    inner = shapes.box_distance(points, 0.3, 0.2, 0.15) < 0
    np.testing.assert_allclose(nested.winding_number(points[:-2], EXACT), inner[:-2], atol=1e-7)


@pytest.mark.parametrize("isa", ISAS)
@settings(max_examples=20)
@given(seed=st.integers(0, 2**32 - 1))
def test_the_expansions_error_falls_as_the_fourth_power_of_the_accuracy(isa, seed):
    """Three terms of a Taylor series: the first omitted term has one more power of radius / distance."""
    mesh = soup(seed, 500)
    bvh = NativeBVH(*mesh, isa)
    points = np.random.default_rng(seed).uniform(-2, 2, (300, 3))
    exact = bvh.winding_number(points, EXACT)
    for accuracy in (2.0, 4.0, 8.0):
        error = np.abs(bvh.winding_number(points, [(accuracy, 0.0)]) - exact)
        assert np.median(error) < 0.05 / accuracy**4 + 1e-6
        assert error.max() < 1 / accuracy**4 + 1e-5


def test_refined_winding_numbers_equal_those_of_the_final_accuracy():
    bvh = triangle_bvh(*shapes.hemisphere())
    points = np.random.default_rng(0).uniform(-1, 1, (5000, 3))
    coarse, fine = (bvh.winding_number(points, [(accuracy, 0.0)]) for accuracy in (1.0, 6.0))
    again = np.abs(np.abs(coarse) - 0.5) < 0.25
    assert 0 < again.sum() < len(points)
    np.testing.assert_array_equal(
        bvh.winding_number(points, [(1.0, 0.25), (6.0, 0.0)]), np.where(again, fine, coarse)
    )


def brute_first_hit(
    mesh: shapes.Arrays, origin: np.ndarray, direction: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Length (n,) of rays up to the first triangle, and its face (n,), by Cramer's rule for every pair."""
    a, b, c = np.moveaxis(mesh[0][mesh[1]], 1, 0)
    cross = np.cross(direction[:, None], c - a)
    determinant = ((b - a) * cross).sum(axis=-1)
    offset = origin[:, None] - a
    with np.errstate(all="ignore"):
        u = (offset * cross).sum(axis=-1) / determinant
        across = np.cross(offset, b - a)
        v = (direction[:, None] * across).sum(axis=-1) / determinant
        t = ((c - a) * across).sum(axis=-1) / determinant
        hit = (u >= 0) & (v >= 0) & (u + v <= 1) & (t >= 0)
    lengths = np.where(hit, t, np.inf)
    return lengths.min(axis=1), np.where(hit.any(axis=1), lengths.argmin(axis=1), -1)


@pytest.mark.parametrize("isa", ISAS)
@settings(max_examples=20)
@given(seed=st.integers(0, 2**32 - 1))
def test_rays_hit_what_brute_force_hits(isa, seed):
    mesh = soup(seed)
    rng = np.random.default_rng(seed)
    origins, directions = rng.uniform(-2, 2, (200, 3)), rng.normal(size=(200, 3))
    origins[:20] *= 1e6  # from far away
    directions[:20] = rng.uniform(-1, 1, (20, 3)) - origins[:20]
    directions[20:40, rng.integers(3)] = 0
    expected, expected_face = brute_first_hit(mesh, origins, directions)
    length, face = NativeBVH(*mesh, isa).first_hit(origins, directions)
    np.testing.assert_allclose(length, expected, rtol=1e-9)
    np.testing.assert_array_equal(face < 0, expected_face < 0)
    assert lie_on(mesh, face, length, origins, directions)
    near = ~np.isclose(length, expected, rtol=1e-6) | (face != expected_face)
    assert near[20:].mean() < 0.01  # two triangles at the same distance, up to rounding


@pytest.mark.parametrize("isa", ISAS)
def test_no_ray_slips_between_two_triangles(isa):
    """From inside a closed mesh every ray hits it, in particular through its vertices and along its edges."""
    vertices, faces = shapes.sphere(0.7, 3)
    bvh = NativeBVH(vertices, faces, isa)
    edges = np.vstack([faces[:, [0, 1]], faces[:, [1, 2]]])
    rng = np.random.default_rng(0)
    on_edges = vertices[edges[:, 0]] + rng.random((len(edges), 1)) * (
        vertices[edges[:, 1]] - vertices[edges[:, 0]]
    )
    for start in ([0.0, 0.0, 0.0], [0.1, -0.2, 0.3]):
        aims = np.vstack([vertices, on_edges]) - start
        rays = np.broadcast_to(start, aims.shape), aims
        hits, face = bvh.first_hit(*rays)
        np.testing.assert_allclose(hits, 1, atol=1e-9)
        assert lie_on((vertices, faces), face, hits, *rays)
    np.testing.assert_allclose(
        bvh.first_hit(np.zeros((6, 3)), np.vstack([np.eye(3), -np.eye(3)]))[0], 0.7, atol=0.01
    )
    for miss in ((np.full((1, 3), 2.0), np.array([[1.0, 0, 0]])), (np.zeros((1, 3)), np.zeros((1, 3)))):
        length, face = bvh.first_hit(*miss)
        assert np.isinf(length).all()
        assert (face == -1).all()


def test_results_do_not_depend_on_threads():
    mesh = shapes.torus()
    bvh = NativeBVH(*mesh)
    points = np.random.default_rng(0).normal(size=(5000, 3))
    answers = []
    try:
        for count in (1, 2, 5):
            set_threads(count)
            answers.append(
                [*bvh.closest(points), bvh.winding_number(points, SHARP), *bvh.first_hit(points, -points)]
            )
    finally:
        set_threads(None)
    for other in answers[1:]:
        for one, same in zip(answers[0], other, strict=True):
            np.testing.assert_array_equal(one, same)


@pytest.mark.parametrize("count", [1, 2, 1000])
def test_one_place_may_hold_any_number_of_triangles(count):
    """If no plane separates them, they are split by index."""
    vertices = np.array([[0.0, 0, 0], [1, 0, 0], [0, 1, 0]])
    bvh = NativeBVH(vertices, np.tile([[0, 1, 2]], (count, 1)))
    distance, face, _ = bvh.closest(np.array([[0.2, 0.2, 1.0]]))
    assert distance[0] == 1
    assert face[0] == 0
    length, face = bvh.first_hit(np.array([[0.2, 0.2, 1.0]]), np.array([[0, 0, -1.0]]))
    assert (length[0], face[0]) == (1, 0)  # the first of equally far faces
    point = NativeBVH(np.zeros((1, 3)), np.zeros((count, 3), np.int64))
    np.testing.assert_allclose(point.distance(np.array([[3.0, 4, 0], [0, 0, 0]])), [5, 0])
    np.testing.assert_array_equal(point.winding_number(np.ones((1, 3)), SHARP), [0])


@pytest.mark.parametrize("bvh", [NativeBVH, IglBVH])
def test_an_empty_query_has_an_empty_result(bvh):
    bvh = bvh(*shapes.box(1, 1, 1))
    none = np.empty((0, 3))
    assert [len(answer) for answer in bvh.closest(none)] == [0, 0, 0]
    assert bvh.distance(none).shape == bvh.winding_number(none, SHARP).shape == (0,)
    assert [answer.shape for answer in bvh.first_hit(none, none)] == [(0,), (0,)]


VERTICES, FACES = shapes.box(1, 1, 1)


@pytest.mark.parametrize(
    ("vertices", "faces"),
    [
        (VERTICES, FACES + 1),
        (VERTICES, FACES - 1),
        (VERTICES, FACES[:0]),
        (VERTICES, FACES[:, :2]),
        (VERTICES, FACES.astype(np.int32)),
        (VERTICES, FACES.ravel()),
        (VERTICES[:, :2], FACES),
        (VERTICES.astype(np.float32), FACES),
        (np.asfortranarray(VERTICES), FACES),
        (VERTICES * np.inf, FACES),
        (VERTICES * np.nan, FACES),
        (VERTICES[:0], FACES[:0]),
    ],
)
def test_a_bad_mesh_is_refused(vertices, faces):
    with pytest.raises(ValueError, match=r"vertices|faces"):
        core.TriangleBVH(vertices, faces, ISAS[0])


@pytest.mark.parametrize(
    "points",
    [
        np.zeros(3),
        np.zeros((3, 2)),
        np.zeros((3, 3), np.float32),
        np.zeros((6, 6))[::2, ::2],
        np.full((1, 3), np.nan),
        np.full((1, 3), np.inf),
        np.full((1, 3), 1e20),
    ],
)
def test_bad_points_are_refused(points):
    bvh = core.TriangleBVH(VERTICES, FACES, ISAS[0])
    for ask in (
        lambda: bvh.distance(points, 1),
        lambda: bvh.closest(points, 1),
        lambda: bvh.winding_number(points, SHARP, 1),
        lambda: bvh.first_hit(points, np.ones((len(points), 3)), 1),
    ):
        with pytest.raises(ValueError, match=r"points|origins"):
            ask()


def test_bad_refinements_and_directions_are_refused():
    bvh = core.TriangleBVH(VERTICES, FACES, ISAS[0])
    points = np.zeros((2, 3))
    for ask in (
        lambda: bvh.winding_number(points, [], 1),
        lambda: bvh.winding_number(points, [(np.nan, 0.0)], 1),
        lambda: bvh.first_hit(points, np.ones((1, 3)), 1),
        lambda: bvh.first_hit(points, np.full((2, 3), np.nan), 1),
        lambda: core.TriangleBVH(VERTICES, FACES, "abacus"),
    ):
        with pytest.raises(ValueError, match=r"accuracy|direction|abacus"):
            ask()


def test_the_torch_backend_uses_the_bvh_of_libigl(monkeypatch):
    assert isinstance(triangle_bvh(*shapes.box(1, 1, 1)), NativeBVH)
    monkeypatch.setenv("NEURALSDF_BACKEND", "torch")
    bvh = triangle_bvh(*shapes.box(1, 1, 1))
    assert isinstance(bvh, IglBVH)
    points = np.random.default_rng(0).uniform(-2, 2, (200, 3))
    native = NativeBVH(*shapes.box(1, 1, 1))
    np.testing.assert_allclose(bvh.distance(points), native.distance(points), atol=1e-14)
    rays = points, -points
    (length, face), (native_length, _) = bvh.first_hit(*rays), native.first_hit(*rays)
    np.testing.assert_allclose(length, native_length, rtol=1e-6)
    np.testing.assert_array_equal(face < 0, np.isinf(length))
    hit = face >= 0
    ends = points[hit] * (1 - length[hit, None])
    assert (brute_distance(shapes.box(1, 1, 1), ends)[np.arange(len(ends)), face[hit]] < 1e-6).all()
