"""
triangles.py
------------
Normals and areas of faces, and random points on a triangle mesh.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from ..array_types import Points, Values, Vectors

#: Faces processed at once; bounds the temporary memory.
FACES_AT_ONCE = 1 << 19


def face_runs(count: int) -> Iterator[slice]:
    """Slices of at most `FACES_AT_ONCE` faces that cover `count` faces in order."""
    return (slice(first, min(first + FACES_AT_ONCE, count)) for first in range(0, count, FACES_AT_ONCE))


def face_normals(vertices: Points, faces: npt.NDArray[np.int64]) -> Vectors:
    """Unnormalised normals (F, 3) of faces (F, 3); their length is twice the area."""
    a, b, c = (vertices[faces[:, corner]] for corner in range(3))
    normals: Vectors = np.cross(b - a, c - a)
    return normals


def unit_normals(vertices: Points, faces: npt.NDArray[np.int64]) -> Vectors:
    """Unit normals (F, 3) of faces (F, 3); zero for a face without area."""
    normals = face_normals(vertices, faces)
    normals /= np.maximum(np.linalg.norm(normals, axis=1, keepdims=True), 1e-300)
    return normals


def face_areas(vertices: Points, faces: npt.NDArray[np.int64]) -> Values:
    """Areas (F,) of faces (F, 3)."""
    areas = np.empty(len(faces))
    for run in face_runs(len(faces)):
        areas[run] = np.linalg.norm(face_normals(vertices, faces[run]), axis=1) / 2
    return areas


def vertex_normals(vertices: Points, faces: npt.NDArray[np.int64]) -> Vectors:
    """Unit normals (V, 3) of vertices: the area-weighted mean of their faces' normals; zero if that mean is
    zero or the vertex has no faces."""
    normals = np.zeros((len(vertices), 3))
    for run in face_runs(len(faces)):
        areas = face_normals(vertices, faces[run])
        for axis in range(3):
            each = np.repeat(areas[:, axis], 3)
            normals[:, axis] += np.bincount(faces[run].ravel(), each, len(vertices))
    normals /= np.maximum(np.linalg.norm(normals, axis=1, keepdims=True), 1e-300)
    return normals


def sample_surface(
    vertices: Points, faces: npt.NDArray[np.int64], count: int, rng: np.random.Generator
) -> tuple[Points, npt.NDArray[np.int64]]:
    """Sample points (count, 3) uniformly by area; also returns the face (count,) of each point."""
    cumulative = face_areas(vertices, faces)
    np.cumsum(cumulative, out=cumulative)
    face = np.searchsorted(cumulative, rng.random(count) * cumulative[-1], side="right")
    face = np.minimum(face, len(faces) - 1)
    u, v = rng.random((2, count))
    folded = u + v > 1  # the other half of the parallelogram
    u[folded], v[folded] = 1 - u[folded], 1 - v[folded]
    a, b, c = (vertices[faces[face, corner]] for corner in range(3))
    return a + u[:, None] * (b - a) + v[:, None] * (c - a), face
