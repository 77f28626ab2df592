"""The orientation of nested, touching, overlapping and open bodies, compared with analytic interiors."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest

from neuralsdf.geometry.bvh import triangle_bvh
from neuralsdf.geometry.similarity_transform import Similarity
from neuralsdf.geometry.unit_ball import minimum_enclosing_ball
from neuralsdf.mesh.mesh import Mesh
from neuralsdf.mesh.orientation import Orientation, orientation
from neuralsdf.mesh.signed_distance import SignedDistance

from ..helpers.shapes import Arrays, box, hemisphere, inverted, joined, moved, sphere


def cube(half: float, centre: tuple[float, float, float] = (0, 0, 0), sign: int = 1) -> Arrays:
    mesh = moved(box(half, half, half), centre)
    return mesh if sign > 0 else inverted(mesh)


def in_cube(points: np.ndarray, half: float, centre: tuple[float, float, float] = (0, 0, 0)) -> np.ndarray:
    return np.abs(points - np.array(centre)).max(axis=1) < half


class Solid:
    """The oracle of a mesh in the mesh's own units, with uniform points of its padded box."""

    def __init__(self, *parts: Arrays, sign: str = "winding") -> None:
        mesh = Mesh.from_arrays(*joined(*parts))
        self.transform = Similarity.from_ball(*minimum_enclosing_ball(mesh.vertices))
        self.oracle = SignedDistance(self.transform.apply_inverse(mesh.vertices), mesh.faces, sign)
        low, high = mesh.vertices.min(axis=0), mesh.vertices.max(axis=0)
        self.points = np.random.default_rng(0).uniform(low - 0.1, high + 0.1, (20_000, 3))

    @property
    def decided(self) -> Orientation:
        assert self.oracle.orientation is not None
        return self.oracle.orientation

    @property
    def inside(self) -> np.ndarray:
        return self.oracle.inside(self.transform.apply_inverse(self.points))

    @property
    def flips(self) -> list[bool]:
        return self.decided.flipped_bodies.tolist()

    @property
    def line(self) -> str:
        return self.decided.line(self.transform)


@pytest.mark.parametrize("sign", ["winding", "pseudonormal"])
@pytest.mark.parametrize("small", [2.5, 0.5])
def test_an_inverted_body_beside_another_is_flipped(small: float, sign) -> None:
    solid = Solid(cube(5, (5, 5, 5)), cube(small, (25, 5, 5), -1), sign=sign)
    expected = in_cube(solid.points, 5, (5, 5, 5)) | in_cube(solid.points, small, (25, 5, 5))
    np.testing.assert_array_equal(solid.inside, expected)
    assert solid.flips == [False, True]
    low, high = (f"({25 + s * small:g}, {5 + s * small:g}, {5 + s * small:g})" for s in (-1, 1))
    assert (
        solid.line == "inverted orientation: faces of 1 of 2 closed bodies flipped "
        f"(body 2 from {low} to {high}, 12 faces)"
    )


@pytest.mark.parametrize("signs", list(product([1, -1], repeat=3)))
def test_three_nested_shells_alternate_between_solid_and_empty(signs: tuple[int, int, int]) -> None:
    """The outermost shell is solid, inner ones relative to it; a shell in empty space is solid again."""
    solid = Solid(*(cube(half, sign=sign) for half, sign in zip((3, 2, 1), signs, strict=True)))
    shells = [in_cube(solid.points, half) for half in (3, 2, 1)]
    relative = [sign * signs[0] for sign in signs]
    expected = shells[0].copy()
    if relative[1] < 0:
        expected &= ~shells[1]  # a cavity, and whatever lies in it is solid
        expected |= shells[2]
    # Otherwise two solids in the same place, and a cavity in the second does not empty the first.
    np.testing.assert_array_equal(solid.inside, expected)
    in_cavity = relative[1] < 0 and relative[2] < 0
    assert solid.flips == [signs[0] < 0, signs[0] < 0, (signs[0] < 0) != in_cavity]


@pytest.mark.parametrize("offset", [(2, 2, 2), (2, 2, 0), (2, 0, 0), (1, 1, 1), (1.9, 0, 0)])
@pytest.mark.parametrize("signs", list(product([1, -1], repeat=2)))
def test_touching_and_overlapping_bodies_are_both_solid(offset, signs) -> None:
    solid = Solid(cube(1, sign=signs[0]), cube(1, offset, signs[1]))
    expected = in_cube(solid.points, 1) | in_cube(solid.points, 1, offset)
    np.testing.assert_array_equal(solid.inside, expected)


@pytest.mark.parametrize("order", [1, -1])
@pytest.mark.parametrize("touching", ["nothing", "vertex", "edge", "face"])
def test_a_cavity_may_touch_the_surface_around_it(touching: str, order: int) -> None:
    """At a face it is an opening of width zero, which does not change the winding number."""
    reach = {"nothing": 0, "vertex": 3, "edge": 2, "face": 1}[touching]
    centre = tuple(0.5 * (axis < reach) for axis in range(3))
    parts = [cube(1), cube(0.5, centre, -1)][::order]
    for whole in (1, -1):
        solid = Solid(*(part if whole > 0 else inverted(part) for part in parts))
        expected = in_cube(solid.points, 1) & ~in_cube(solid.points, 0.5, centre)
        np.testing.assert_array_equal(solid.inside, expected)


def test_a_ring_around_a_body_does_not_contain_it() -> None:
    """The bounding box of the ring contains the body, but the ring does not."""
    import trimesh

    ring = trimesh.creation.annulus(2, 3, 1)
    solid = Solid((np.array(ring.vertices), np.array(ring.faces)), cube(0.4, sign=-1))
    assert solid.flips == [False, True]
    assert solid.oracle.inside(solid.transform.apply_inverse(np.zeros((1, 3)))).all()


def test_a_surface_duplicated_in_both_orientations_is_a_solid() -> None:
    solid = Solid(cube(5), inverted(cube(5)))
    np.testing.assert_array_equal(solid.inside, in_cube(solid.points, 5))
    assert solid.oracle.has_interior


def test_a_body_that_intersects_itself_is_judged_by_the_larger_volume() -> None:
    """Walls over the outline of a bow tie: two lobes of opposite winding numbers, of areas 1 and 2.56."""
    outline = np.array([[-1, -1], [1.6, 1.6], [1.6, -1.6], [-1, 1]])
    bottom, top = (np.insert(outline, 2, z, axis=1) for z in (-0.5, 0.5))
    sides = [[i, (i + 1) % 4, 4 + (i + 1) % 4, i, 4 + (i + 1) % 4, 4 + i] for i in range(4)]
    vertices = np.vstack([bottom, top, [[0, 0, -0.5], [0, 0, 0.5]]])
    caps = [[0, 3, 8], [2, 1, 8], [5, 6, 9], [7, 4, 9]]
    faces = np.vstack([np.reshape(sides, (-1, 3)), caps])
    for whole in (faces, faces[:, ::-1]):
        solid = Solid((vertices, whole))
        x, y, z = solid.points.T
        np.testing.assert_array_equal(solid.inside, (x < 1.6) & (np.abs(y) < x) & (np.abs(z) < 0.5))


def test_open_parts_share_an_orientation_and_closed_bodies_have_their_own() -> None:
    """A half ball without its base beside a cube; either may be inverted."""
    bowl = moved(hemisphere(2.0, 24), [6, 0, 0])
    for bowl_sign, cube_sign in product([1, -1], repeat=2):
        solid = Solid(bowl if bowl_sign > 0 else inverted(bowl), cube(2, sign=cube_sign))
        assert solid.flips == [cube_sign < 0]
        assert solid.decided.flipped_open == (bowl_sign < 0)
        deep = np.linalg.norm(solid.points - [6, 0, 0.9], axis=1) < 0.7
        assert solid.inside[deep].all()
        assert solid.inside[in_cube(solid.points, 2)].all()
        if bowl_sign < 0 < cube_sign:
            assert solid.line == "inverted orientation: faces of the open parts flipped"


@pytest.mark.parametrize("whole", [1, -1])
def test_a_cavity_in_an_open_body_stays_and_so_does_an_open_one_in_a_closed_body(whole: int) -> None:
    vertices, faces = sphere(2.0, 3)
    punctured = vertices, faces[20:]
    cavity = inverted(sphere(1.0, 3))
    outside_in = [(punctured, cavity), (sphere(2.0, 3), inverted((0.5 * vertices, faces[20:])))]
    for parts in outside_in:
        solid = Solid(*(part if whole > 0 else inverted(part) for part in parts))
        radius = np.linalg.norm(solid.points, axis=1)
        assert solid.inside[(radius > 1.1) & (radius < 1.4)].all()
        assert not solid.inside[radius < 0.6].any()
        assert solid.decided.flipped.all() if whole < 0 else not solid.decided.flipped.any()


def test_many_bodies_in_a_hollow_box_are_flipped_one_by_one() -> None:
    """A hollow box with 20 x 20 x 25 small cubes in it, every third one inverted, and one of them hollow."""
    x, y, z = (np.linspace(-0.9, 0.9, count) for count in (20, 20, 25))
    centres = np.stack(np.meshgrid(x, y, z, indexing="ij"), axis=-1).reshape(-1, 3)
    vertices, faces = box(0.02, 0.02, 0.02)
    turned = np.arange(len(centres)) % 3 == 0
    each = np.where(turned[:, None, None], faces[:, ::-1], faces) + 8 * np.arange(len(centres))[:, None, None]
    small = (centres[:, None] + vertices).reshape(-1, 3), each.reshape(-1, 3)
    # Body 5 is oriented correctly and has a cavity; body 6 and its cavity are inverted.
    hollows = [cube(0.01, tuple(centres[5]), -1), cube(0.01, tuple(centres[6]), 1)]
    mesh = joined(small, inverted(box(0.95, 0.95, 0.95)), box(1, 1, 1), *hollows)
    decided = orientation(*mesh, triangle_bvh(*mesh))
    np.testing.assert_array_equal(decided.flipped_bodies[: len(centres)], turned)
    np.testing.assert_array_equal(decided.flipped_bodies[len(centres) :], [False, False, False, True])
    line = decided.line(Similarity.identity())
    assert line == f"inverted orientation: faces of {turned.sum() + 1} of 10004 closed bodies flipped"


def test_a_hundred_nested_shells_alternate_between_solid_and_empty() -> None:
    """A hundred nested shells, with the same orientation within pairs, in any order."""
    order = np.random.default_rng(0).permutation(100)
    mesh = joined(*(cube(1 - 0.009 * i, sign=1 if i % 2 else -1) for i in order))
    decided = orientation(*mesh, triangle_bvh(*mesh))
    assert decided.flipped_bodies.all()


def test_orientation_does_not_depend_on_order_or_threads() -> None:
    parts = [cube(1), cube(0.5, sign=-1), cube(0.2, sign=-1), cube(1, (3, 0, 0), -1), hemisphere(0.3, 8)]
    first = Solid(*parts)
    again = Solid(*parts)
    backwards = Solid(*parts[::-1])
    assert first.flips == again.flips == [False, False, True, True]
    assert backwards.flips == first.flips[::-1]
    assert first.line == again.line


def test_reported_assemblies_have_their_known_volumes(test_data) -> None:
    from neuralsdf.mesh.load_mesh import load_mesh

    expected = {
        "two_bodies_one_inside_out.ply": (1125, 2, 1),
        "stl_assembly_four_parts_one_mirrored.stl": (108.8, 4, 1),
        "closed_cube_double_sided.ply": (1000, 2, 1),
    }
    for name, (volume, bodies, flipped) in expected.items():
        mesh = load_mesh(test_data / "meshes" / "reported" / name)
        solid = Solid((mesh.vertices, mesh.faces))
        assert solid.decided.bodies.count == bodies
        assert sum(solid.flips) == flipped
        extent = np.ptp(mesh.vertices, axis=0) + 0.2
        assert solid.inside.mean() * np.prod(extent) == pytest.approx(volume, rel=0.05)
