"""
distance_outside_ball.py
------------------------
The extracted surface of a network. It gives closest points, and distances outside the ball, where the
network's values are only lower bounds.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from ..array_types import Points, Values
from ..geometry.bvh import MakeBVH
from .extract import model_surface
from .field import Field

#: Cells along the ball's bounding cube.
RESOLUTION = 256

#: Maximum displacement of a closest point to the zero set, in model units: two cells.
_MAX_DISPLACEMENT = 4 / RESOLUTION
#: Evaluations per closest point. |f| is at most 0.0014 on the mesh, and 1e-6 after two steps.
_NEWTON_STEPS = 3

#: Query points farther out are moved to this radius. This changes the closest point by at most
#: 1 / (2 * radius), and float32 boxes still separate the parts of the surface.
_MAX_RADIUS = 1e4


class Closest(NamedTuple):
    """Distances (n,), closest points (n, 3) and the residuals |f| (n,) there, in model space."""

    distance: Values
    points: Points
    residual: Values


class FieldSurface:
    """The surface of a field, extracted once. Raises `NoSurfaceError` if there is none."""

    def __init__(self, field: Field, make_bvh: MakeBVH) -> None:
        self._field = field
        surface = model_surface(field, RESOLUTION)
        self._bvh = make_bvh(surface.vertices, surface.faces)

    def closest(self, points: Points) -> Closest:
        """Closest points to finite points (n, 3) in model space."""
        radii = np.linalg.norm(points, axis=1, keepdims=True)
        _, _, on_mesh = self._bvh.closest(points / np.maximum(radii / _MAX_RADIUS, 1))
        closest, residual = self._project(on_mesh)
        return Closest(np.linalg.norm(points - closest, axis=1), closest, residual)

    def _project(self, on_mesh: Points) -> tuple[Points, Values]:
        """Project points (n, 3) of the mesh onto the zero set by Newton steps. Returns the points with the
        smallest |f| within `_MAX_DISPLACEMENT`, and that |f| (n,)."""
        best, residual = on_mesh.copy(), np.full(len(on_mesh), np.inf)
        position = on_mesh
        for _ in range(_NEWTON_STEPS):
            values, gradients = self._field.value_and_gradient(position.astype(np.float32))
            is_near = np.linalg.norm(position - on_mesh, axis=1) < _MAX_DISPLACEMENT
            better = (np.abs(values) < residual) & is_near
            best[better], residual[better] = position[better], np.abs(values[better])
            squared = np.maximum((gradients * gradients).sum(axis=1), np.finfo(np.float32).tiny)
            position = position - (values / squared)[:, None].astype(np.float64) * gradients
        return best, residual
