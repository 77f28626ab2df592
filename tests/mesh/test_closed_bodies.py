"""Closed bodies are separated by the volumes that they bound, whatever touches them, in any orientation."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest

from neuralsdf.mesh.closed_bodies import closed_bodies
from neuralsdf.mesh.mesh import Mesh

from ..helpers.shapes import Arrays, box, hemisphere, inverted, joined, moved, sphere, torus

CUBE = box(0.5, 0.5, 0.5)


def found(mesh: Arrays):
    merged = Mesh.from_arrays(*mesh)
    return closed_bodies(merged.vertices, merged.faces)


@pytest.mark.parametrize("offset", [(3, 0, 0), (1, 1, 1), (1, 1, 0), (1, 0, 0)])
@pytest.mark.parametrize(("first", "second"), list(product([1, -1], repeat=2)))
def test_two_cubes_apart_or_touching_at_a_corner_an_edge_or_a_face(offset, first, second) -> None:
    pair = [CUBE if sign > 0 else inverted(CUBE) for sign in (first, second)]
    bodies = found(joined(pair[0], moved(pair[1], offset)))
    if offset == (1, 0, 0) or (first == second == -1 and bodies.count == 1):
        # What is inverted on both sides of an edge may count as one piece; its volume says the same.
        assert bodies.volumes.sum() == pytest.approx(first + second)
        assert set(np.sign(bodies.volumes)) - {0.0} == {first, second}
    else:
        np.testing.assert_allclose(bodies.volumes, [first, second])
        assert (bodies.label == np.repeat([0, 1], 12)).all()
    assert not bodies.open_faces.any()


@pytest.mark.parametrize("shape", [CUBE, sphere(1.0, 2), torus()], ids=["cube", "sphere", "torus"])
@pytest.mark.parametrize("interleaved", [False, True])
def test_faces_duplicated_in_both_orientations_are_two_surfaces(shape: Arrays, interleaved) -> None:
    vertices, faces = shape
    order = np.arange(2 * len(faces))
    order = order.reshape(2, -1).T.ravel() if interleaved else order
    bodies = found((vertices, np.vstack([faces, faces[:, ::-1]])[order]))
    volume = found(shape).volumes[0]
    np.testing.assert_allclose(bodies.volumes, [volume, -volume])


def test_a_doubled_sheet_has_no_volume_and_a_sheet_is_open() -> None:
    vertices, faces = hemisphere(rings=8)
    assert found((vertices, np.vstack([faces, faces[:, ::-1]]))).volumes.tolist() == [0]
    bodies = found(joined(CUBE, moved((vertices, faces), [3, 0, 0])))
    assert bodies.count == 1
    assert (bodies.label == np.repeat([0, -1], [12, len(faces)])).all()


def test_a_cavity_that_touches_the_outer_surface_along_an_edge_belongs_to_it() -> None:
    """A wedge is cut out of a cube so that it meets the surface in one edge: material on either side."""
    outer = moved(box(1, 1, 1), [0, 0, 0])
    points = np.array(
        [[1, 1, -1], [1, 1, 1], [0, 0.5, -0.5], [0, 0.5, 0.5], [0.5, 0, -0.5], [0.5, 0, 0.5]], float
    )
    bodies = found(joined(outer, inverted(_hull(points))))
    assert bodies.count == 1
    assert bodies.volumes[0] == pytest.approx(8 - _volume(_hull(points)))


def _hull(points: np.ndarray) -> Arrays:
    import trimesh

    hull = trimesh.convex.convex_hull(points)
    return np.array(hull.vertices), np.array(hull.faces)


def _volume(mesh: Arrays) -> float:
    import trimesh

    return float(trimesh.Trimesh(*mesh, process=False).volume)


@pytest.mark.parametrize("hole", [False, True])
def test_slits_of_t_junctions_do_not_open_a_body_but_a_hole_does(hole: bool) -> None:
    """An edge is split on one side only, off its line by rounding; sides that share no edge at all."""
    vertices, faces = CUBE
    a, b, c = faces[0]
    middle = (vertices[a] + 2 * vertices[b]) / 3 + 1e-9
    split = np.vstack([faces[1:], [[a, 8, c], [8, b, c]]])
    bodies = found((np.vstack([vertices, middle[None]]), split[hole:]))
    assert bodies.count == (0 if hole else 1)
    if not hole:
        assert bodies.volumes[0] == pytest.approx(1)
    sides = [_divided_side(axis, sign, 2 + axis + (sign > 0)) for axis in range(3) for sign in (-1, 1)]
    patches = joined(*sides[hole:])
    bodies = found(joined(patches, moved(CUBE, [4, 0, 0])))
    assert bodies.count == (1 if hole else 2)
    if not hole:
        np.testing.assert_allclose(bodies.volumes, [1, 1])


def _divided_side(axis: int, sign: int, count: int) -> Arrays:
    """One side of the unit cube, divided into count x count squares."""
    steps = np.linspace(-0.5, 0.5, count + 1)
    u, v = (values.ravel() for values in np.meshgrid(steps, steps, indexing="ij"))
    vertices = np.roll(np.stack([np.full(len(u), sign / 2), u, v], axis=1), axis, axis=1)
    corner = np.arange((count + 1) ** 2).reshape(count + 1, -1)
    a, b, c, d = corner[:-1, :-1], corner[1:, :-1], corner[1:, 1:], corner[:-1, 1:]
    faces = np.stack([a, b, c, a, c, d], axis=-1).reshape(-1, 3)
    return vertices, faces if sign > 0 else faces[:, ::-1]


def test_far_and_tiny_bodies_keep_their_volumes() -> None:
    tiny = moved((1e-4 * CUBE[0], CUBE[1]), [900, 900, 900])
    np.testing.assert_allclose(found(joined(CUBE, inverted(tiny))).volumes, [1, -1e-12], rtol=1e-6)


def test_the_order_of_faces_and_vertices_does_not_matter() -> None:
    mesh = joined(
        CUBE, moved(inverted(CUBE), [1, 1, 0]), moved(CUBE, [3, 0, 0]), moved(hemisphere(0.4, 8), [0, 3, 0])
    )
    vertices, faces = mesh
    expected = found(mesh)
    rng = np.random.default_rng(0)
    for _ in range(5):
        where, order = rng.permutation(len(vertices)), rng.permutation(len(faces))
        bodies = found((vertices[np.argsort(where)], np.roll(where[faces][order], rng.integers(3), axis=1)))
        assert sorted(bodies.volumes) == pytest.approx(sorted(expected.volumes))
        assert bodies.open_faces.sum() == expected.open_faces.sum()
