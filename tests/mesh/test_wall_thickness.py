"""The thinnest wall of a mesh."""

from __future__ import annotations

import numpy as np
import pytest

from neuralsdf.csg import Shape, box, capsule, cylinder, sphere
from neuralsdf.fields.extract import extract
from neuralsdf.mesh.wall_thickness import Walls, thinnest_walls

from ..helpers import shapes


def test_the_wall_of_a_box_is_its_shortest_side() -> None:
    for wall in thinnest_walls(*shapes.box(0.5, 0.3, 0.1)):
        assert wall is not None
        assert wall.thickness == pytest.approx(0.2, rel=1e-5)
        assert abs(wall.place[2]) < 1e-5


@pytest.mark.parametrize("shape", [sphere(0.5).hollow(0.05), box(1, 2, 3).hollow(0.05)], ids=str)
def test_the_wall_of_a_hollow_shape_has_the_given_thickness(shape: object) -> None:
    for wall in _walls_of(shape, 128):  # type: ignore[arg-type]
        assert wall is not None
        assert wall.thickness == pytest.approx(0.05, rel=0.03)


def _walls_of(shape: Shape, resolution: int) -> Walls:
    field = shape
    surface = extract(field, resolution)
    return thinnest_walls(surface.vertices, surface.faces, cell=2 * field.transform.scale / resolution)


def test_the_web_between_two_holes_is_a_wall() -> None:
    hole = cylinder(2.6, 20)
    wall, _ = _walls_of(box(20, 10, 6) - hole.translate(-2.75) - hole.translate(2.75), 256)
    assert wall is not None
    assert wall.thickness == pytest.approx(0.3, rel=0.03)
    assert wall.place[:2] == pytest.approx([0, 0], abs=0.1)


def test_a_small_part_with_a_thin_wall_is_found() -> None:
    """A fin with a fiftieth of the surface area."""
    wall, _ = _walls_of(box(40, 25, 4) | box(0.8, 3, 10).translate(10, 0, 5), 256)
    assert wall is not None
    assert wall.thickness == pytest.approx(0.8, rel=0.03)
    assert wall.place[0] == pytest.approx(10, abs=0.1)


def test_cavities_that_nearly_meet_leave_a_spot_not_a_wall() -> None:
    """Two long cavities with round ends 0.04 apart, in the middle of a block."""
    hole = capsule(0.1, 0.6).rotate(90, 0, 1)
    wall, spot = _walls_of(box(2, 1.2, 1) - hole.translate(-0.42) - hole.translate(0.42), 128)
    assert wall is not None
    assert spot is not None
    assert spot.thickness == pytest.approx(0.04, rel=0.3)
    assert spot.place == pytest.approx([0, 0, 0], abs=0.05)
    assert wall.thickness == pytest.approx(0.18, rel=0.05)  # from the cavities to the outside


def test_the_edge_of_a_wedge_is_not_a_wall() -> None:
    corners = np.array([[0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1]], np.float64)
    faces = np.array([[0, 2, 1], [0, 1, 3], [0, 3, 2], [1, 2, 3]])
    assert thinnest_walls(corners, faces) == (None, None)
