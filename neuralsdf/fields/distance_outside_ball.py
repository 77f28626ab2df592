"""
distance_outside_ball.py
------------------------
The extracted surface of a field, and the closest points on it: what a network's closest points are, and its
distances outside its ball, where its values are lower bounds.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from ..arrays import Points, Values
from ..geometry.bvh import MakeTree
from .extract import model_surface
from .field import Field

#: Cells along the ball's bounding cube.
RESOLUTION = 256

#: How far a closest point may move onto the zero set, in model units: two cells.
_NEAR = 4 / RESOLUTION
#: Evaluations that it takes. Where marching cubes cut a corner, |f| is up to 0.0014; after two steps, 1e-6.
_STEPS = 3

#: A point farther away is first moved to this radius: from there the closest point is the same to within
#: 1 / (2 * radius), and boxes in float32 still tell one part of the surface from another.
_FAR = 1e4


class Closest(NamedTuple):
    """Distances (n,), closest points (n, 3), and residuals (n,): |f| at those. In model space."""

    distance: Values
    points: Points
    residual: Values


class FieldSurface:
    """The surface of a field, extracted once; raises `NoSurfaceError` if there is none."""

    def __init__(self, field: Field, make_tree: MakeTree) -> None:
        self._field = field
        surface = model_surface(field, RESOLUTION)
        self._tree = make_tree(surface.vertices, surface.faces)

    def closest(self, points: Points) -> Closest:
        """The closest points to finite points (n, 3) of model space."""
        radii = np.linalg.norm(points, axis=1, keepdims=True)
        _, _, meshed = self._tree.closest(points / np.maximum(radii / _FAR, 1))
        closest, residual = self._on_zero_set(meshed)
        return Closest(np.linalg.norm(points - closest, axis=1), closest, residual)

    def _on_zero_set(self, meshed: Points) -> tuple[Points, Values]:
        """Points (n, 3) moved along the gradient to where |f| (n,) is least, but not far; and that |f|."""
        best, least = meshed.copy(), np.full(len(meshed), np.inf)
        moved = meshed
        for _ in range(_STEPS):
            values, slopes = self._field.value_and_gradient(moved.astype(np.float32))
            closer = (np.abs(values) < least) & (np.linalg.norm(moved - meshed, axis=1) < _NEAR)
            best[closer], least[closer] = moved[closer], np.abs(values[closer])
            squared = np.maximum((slopes * slopes).sum(axis=1), np.finfo(np.float32).tiny)
            moved = moved - (values / squared)[:, None].astype(np.float64) * slopes
        return best, least
