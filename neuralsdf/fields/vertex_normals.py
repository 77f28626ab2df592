"""
vertex_normals.py
-----------------
Smooth vertex normals of an extracted surface: gradients of the field, averaged over a cell.
"""

from __future__ import annotations

import numpy as np

from ..array_types import Points, Vectors
from ..geometry.triangles import vertex_normals
from .extract import Surface
from .field import Field

#: Vertices whose normals are computed at once.
_NORMAL_BLOCK = 1 << 18


def surface_normals(field: Field, surface: Surface) -> Vectors:
    """Unit vertex normals (V, 3) of a field's extracted surface, in mesh space, outwards.

    They are gradients averaged over a cell to either side along each axis: the gradient of a ReLU network is
    piecewise constant and would show facets. Where a part is thinner than that, the gradient is not averaged.
    For an occupancy field they are computed from the mesh, since the gradient may vanish.
    """
    if field.kind == "occupancy":
        return vertex_normals(surface.vertices, surface.faces)
    normals = np.empty_like(surface.vertices)
    radius = surface.cell / field.transform.scale
    for first in range(0, len(normals), _NORMAL_BLOCK):
        run = slice(first, first + _NORMAL_BLOCK)
        points = field.transform.apply_inverse(surface.vertices[run])
        normals[run] = field.transform.rotate(_mean_gradients(field, points, radius))
    return normals


def _mean_gradients(field: Field, points: Points, radius: float) -> Vectors:
    """Unit gradients (n, 3) at points (n, 3) of model space, averaged over `radius` to either side."""
    gradients = np.empty((len(points), 3))
    for axis, step in enumerate(radius * np.eye(3)):
        ahead, behind = (field.value((points + side * step).astype(np.float32)) for side in (1, -1))
        gradients[:, axis] = ahead.astype(np.float64) - behind
    norms = np.linalg.norm(gradients, axis=1)
    small = np.flatnonzero(~(norms > radius))  # less than half of the norm for a distance
    gradients[small] = field.value_and_gradient(points[small].astype(np.float32))[1]
    norms[small] = np.linalg.norm(gradients[small], axis=1)
    unit: Points = gradients / np.maximum(norms, 1e-12)[:, None]
    return unit
