"""Volume, area and bounds of shapes that have a formula."""

from __future__ import annotations

import numpy as np
import pytest

from neuralsdf.properties import measure_shape
from neuralsdf.similarity import Similarity

from .fields import Analytic, Function, box, sphere, torus

PLACED = Similarity.from_ball([100.0, -50.0, 7.0], 20.0)


@pytest.mark.parametrize(
    ("function", "volume", "area", "half"),
    [
        (sphere(0.6), 4 / 3 * np.pi * 0.6**3, 4 * np.pi * 0.6**2, (0.6, 0.6, 0.6)),
        (torus(0.6, 0.25), 2 * np.pi**2 * 0.6 * 0.25**2, 4 * np.pi**2 * 0.6 * 0.25, (0.85, 0.85, 0.25)),
        (box(0.5, 0.4, 0.3), 8 * 0.5 * 0.4 * 0.3, 8 * (0.2 + 0.15 + 0.12), (0.5, 0.4, 0.3)),
    ],
    ids=["sphere", "torus", "box"],
)
@pytest.mark.parametrize("steepness", [0.7, 1.0, 1.4])
def test_known_shapes(
    function: Function, volume: float, area: float, half: tuple[float, ...], steepness: float
) -> None:
    shape = measure_shape(Analytic(lambda p: steepness * function(p), PLACED), resolution=80)
    assert shape.volume == pytest.approx(volume * 20.0**3, rel=0.005)
    assert shape.area == pytest.approx(area * 20.0**2, rel=0.025)  # the box's edges lose 2 %
    assert np.allclose(shape.low, PLACED.centre - 20.0 * np.array(half), atol=0.05)
    assert np.allclose(shape.high, PLACED.centre + 20.0 * np.array(half), atol=0.05)
    assert shape.filled == pytest.approx(volume / (4 / 3 * np.pi), rel=0.005)
    assert shape.cut == 0


def test_a_shape_that_leaves_its_ball_is_cut() -> None:
    shape = measure_shape(Analytic(lambda p: p[:, 0]), resolution=40)  # a half-space
    assert shape.cut == pytest.approx(0.5, abs=0.01)
    assert shape.filled == pytest.approx(0.5, abs=0.01)


def test_nothing_inside() -> None:
    shape = measure_shape(Analytic(lambda p: np.full(len(p), 0.5)), resolution=40)
    assert (shape.volume, shape.area, shape.filled, shape.cut) == (0, 0, 0, 0)
    assert shape.low is None
    assert shape.high is None


def test_bounds_turn_with_the_transform() -> None:
    matrix = np.eye(4)
    matrix[:3, :3] = [[0, -1, 0], [1, 0, 0], [0, 0, 1]]  # x to y
    shape = measure_shape(Analytic(box(0.6, 0.3, 0.2), Similarity(matrix)), resolution=60)
    assert np.allclose(shape.high, [0.3, 0.6, 0.2], atol=0.005)
