"""The thinnest wall of a mesh."""

from __future__ import annotations

import numpy as np
import pytest

from neuralsdf.csg import TreeField, box, sphere
from neuralsdf.extract import extract
from neuralsdf.walls import thinnest_wall

from . import shapes


def test_the_wall_of_a_box_is_its_least_side() -> None:
    wall = thinnest_wall(*shapes.box(0.5, 0.3, 0.1))
    assert wall is not None
    assert wall.thinnest == pytest.approx(0.2, rel=1e-5)
    assert abs(wall.place[2]) < 1e-5
    assert wall.usual == pytest.approx(0.2, rel=1e-5)


@pytest.mark.parametrize("shape", [sphere(0.5).hollow(0.05), box(1, 2, 3).hollow(0.05)], ids=str)
def test_the_wall_of_a_hollow_shape_is_what_was_asked_for(shape: object) -> None:
    surface = extract(TreeField(shape), 128)  # type: ignore[arg-type]
    wall = thinnest_wall(surface.vertices, surface.faces)
    assert wall is not None
    assert wall.thinnest == pytest.approx(0.05, rel=0.03)
    assert wall.usual == pytest.approx(0.05, rel=0.01)


def test_the_edge_of_a_wedge_is_no_wall() -> None:
    corners = np.array([[0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1]], np.float64)
    faces = np.array([[0, 2, 1], [0, 1, 3], [0, 3, 2], [1, 2, 3]])
    assert thinnest_wall(corners, faces) is None
