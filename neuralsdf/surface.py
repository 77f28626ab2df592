"""
surface.py
----------
Points on a triangle mesh.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from .similarity import Points


def sample_surface(
    vertices: Points, faces: npt.NDArray[np.int64], count: int, rng: np.random.Generator
) -> tuple[Points, npt.NDArray[np.int64]]:
    """`count` points (count, 3) uniform by area on the mesh, and the face (count,) each lies on."""
    corners = vertices[faces]
    areas = np.linalg.norm(np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]), axis=1)
    cumulative = np.cumsum(areas)
    face = np.searchsorted(cumulative, rng.random(count) * cumulative[-1], side="right")
    face = np.minimum(face, len(faces) - 1)
    u, v = rng.random((2, count))
    folded = u + v > 1  # the other half of the parallelogram
    u[folded], v[folded] = 1 - u[folded], 1 - v[folded]
    a, b, c = corners[face, 0], corners[face, 1], corners[face, 2]
    return a + u[:, None] * (b - a) + v[:, None] * (c - a), face
