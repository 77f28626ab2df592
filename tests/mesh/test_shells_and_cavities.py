"""The connected surfaces of a mesh: bodies, cavities and their lowest points."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from neuralsdf.array_types import Index, Points
from neuralsdf.csg import box, cylinder, sphere
from neuralsdf.fields.extract import Surface, extract
from neuralsdf.geometry.triangles import sample_surface
from neuralsdf.mesh.shells_and_cavities import find_shells, reference_connected_faces
from neuralsdf.mesh.wall_thickness import Walls, thinnest_walls

from ..helpers import shapes
from ..helpers.core import needs_core


@needs_core
@settings(max_examples=60)
@given(st.integers(0, 2**32 - 1), st.integers(1, 300), st.integers(1, 400))
def test_connected_components_are_those_of_scipy(seed: int, faces: int, vertices: int) -> None:
    from neuralsdf.kernels._core import connected_faces

    random = np.random.default_rng(seed).integers(0, vertices, (faces, 3))
    ours, theirs = connected_faces(random, vertices), reference_connected_faces(random, vertices)
    assert np.array_equal(ours[0], theirs[0])
    assert ours[1] == theirs[1]


@needs_core
def test_the_core_refuses_indices_out_of_range() -> None:
    from neuralsdf.kernels._core import connected_faces

    for faces in ([[0, 1, 3]], [[-1, 0, 1]]):
        with pytest.raises(ValueError, match="vertex index in faces is out of range"):
            connected_faces(np.array(faces), 3)
    with pytest.raises(ValueError, match="shape"):
        connected_faces(np.zeros((2, 4), np.int64), 3)


def test_shells_are_bodies_or_cavities_by_their_orientation() -> None:
    """A box with two cavities, one of which contains a ball, and a box beside it."""

    def moved(mesh: shapes.Arrays, x: float, z: float) -> shapes.Arrays:
        return mesh[0] + np.array([x, 0, z]), mesh[1]

    vertices, faces = shapes.joined(
        shapes.box(2, 1, 1),
        moved(shapes.inverted(shapes.box(0.5, 0.4, 0.3)), -1, 0.1),
        moved(shapes.inverted(shapes.box(0.5, 0.5, 0.5)), 1, 0),
        moved(shapes.sphere(0.3, 2), 1, 0),
        moved(shapes.box(0.5, 0.5, 0.5), 4, 0),
    )
    far = vertices + np.array([1e6, 0, 0])
    shells = find_shells(far, faces)
    assert (shells.count, shells.bodies) == (5, 3)
    assert shells.volumes == pytest.approx([16, -0.48, -1, shells.volumes[3], 1], rel=1e-6)
    assert list(shells.cavities) == [2, 1]  # the largest first
    assert shells.lowest[1][2] == pytest.approx(-0.2)
    assert shells.lowest[2][2] == pytest.approx(-0.5)


def test_a_hollow_shape_has_a_cavity_until_it_is_drilled() -> None:
    hollow = sphere(1).hollow(0.2)
    shells = extract(hollow).shells
    assert (shells.bodies, len(shells.cavities)) == (1, 1)
    assert -shells.volumes[shells.cavities[0]] == pytest.approx(4 / 3 * np.pi * 0.8**3, rel=0.001)
    assert shells.lowest[shells.cavities[0]] == pytest.approx([0, 0, -0.8], abs=0.03)
    drilled = extract(hollow - cylinder(0.2, 1).translate(0, 0, -0.8)).shells
    assert (drilled.count, drilled.bodies, len(drilled.cavities)) == (1, 1, 0)


def test_a_pit_is_not_a_cavity() -> None:
    shells = extract(box(2) - box(1).translate(0.5)).shells
    assert (shells.count, len(shells.cavities)) == (1, 0)


def test_a_speck_is_not_a_cavity() -> None:
    vertices, faces = shapes.sphere(1.0, 3)
    inner, speck = (shapes.sphere(radius, 3)[0] for radius in (0.5, 0.001))
    three = np.vstack([vertices, inner, speck])
    turned = faces[:, ::-1]
    shells = find_shells(three, np.vstack([faces, turned + len(vertices), turned + 2 * len(vertices)]))
    assert shells.count == 3
    assert shells.cavities.tolist() == [1]


def test_results_do_not_depend_on_the_block_size(monkeypatch: pytest.MonkeyPatch) -> None:
    """Volumes, lowest points, areas, walls and closedness equal those of a single block."""
    spheres = sphere(1).hollow(0.1) | sphere(0.3).translate(0.2) | box(0.5).translate(2, 0.1, 0.3)
    surface = extract(spheres, 96)
    rng = np.random.default_rng(0)
    faces = surface.faces[rng.permutation(len(surface.faces))]

    def found() -> tuple[Surface, Walls, tuple[Points, Index]]:
        made = Surface(surface.vertices, faces)
        points = sample_surface(made.vertices, faces, 1000, np.random.default_rng(0))
        return made, thinnest_walls(made.vertices, faces, cell=surface.cell), points

    whole, wall, points = found()
    assert (whole.watertight, whole.shells.bodies, len(whole.shells.cavities)) == (True, 3, 1)
    for shell, lowest in enumerate(whole.shells.lowest):
        corners = surface.vertices[faces[whole.shells.of_face == shell].ravel()]
        assert np.array_equal(lowest, corners[corners[:, 2].argmin()])
    monkeypatch.setattr("neuralsdf.geometry.triangles.FACES_AT_ONCE", 1000)
    runs, wall_of_runs, points_of_runs = found()
    assert runs.watertight
    assert runs.volume == pytest.approx(whole.volume, rel=1e-12)
    assert runs.area == whole.area
    assert runs.shells.volumes == pytest.approx(whole.shells.volumes, rel=1e-9)
    assert np.array_equal(runs.shells.lowest, whole.shells.lowest)
    assert all(map(np.array_equal, points, points_of_runs))
    for one, other in zip(wall, wall_of_runs, strict=True):
        assert one is not None
        assert other is not None
        assert other.thickness == pytest.approx(one.thickness, rel=1e-9)
        assert other.place == pytest.approx(one.place, abs=1e-9)


def test_a_watertight_mesh_has_two_faces_at_every_edge() -> None:
    vertices, faces = shapes.sphere(1.0, 2)
    turned = np.roll(faces[:, ::-1], 1, axis=1)
    one_turned = np.vstack([faces[:-1], turned[-1:]])
    both = np.vstack([faces, faces + len(vertices)])
    twice = np.vstack([vertices, vertices])
    assert Surface(vertices, faces).watertight
    assert Surface(vertices, turned).watertight
    assert Surface(twice, both).watertight
    for open_faces in (faces[1:], one_turned, np.vstack([faces, faces]), np.vstack([faces, turned])):
        assert not Surface(vertices, open_faces).watertight
