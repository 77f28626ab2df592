"""
pseudonormals.py
----------------
Angle-weighted pseudonormals of a mesh, and the inside test that uses them.
"""

from __future__ import annotations

import igl
import numpy as np

from ..array_types import Faces, Index, Mask, Points


class Pseudonormals:
    """Angle-weighted pseudonormals (Baerentzen 2005) of a mesh: vertices (V, 3), faces (F, 3)."""

    def __init__(self, vertices: Points, faces: Faces) -> None:
        self._vertices, self._faces = vertices, faces
        self._of_faces: Points = igl.per_face_normals(vertices, faces, np.zeros(3))
        self._of_vertices: Points = igl.per_vertex_normals(
            vertices, faces, igl.PER_VERTEX_NORMALS_WEIGHTING_TYPE_ANGLE
        )
        tail, head = faces[:, [1, 2, 0]].ravel(), faces[:, [2, 0, 1]].ravel()
        keys = np.minimum(tail, head) * len(vertices) + np.maximum(tail, head)
        edges, index = np.unique(keys, return_inverse=True)
        total = np.zeros((len(edges), 3))
        np.add.at(total, index, np.repeat(self._of_faces, 3, axis=0))
        self._of_edges: Points = total[index].reshape(-1, 3, 3)  # of the edge opposite each corner

    def behind(self, points: Points, face: Index, nearest: Points) -> Mask:
        """Whether points (n, 3) are behind the surface, given their closest faces (n,) and points (n, 3)."""
        corners = self._faces[face]
        touching = _barycentric(nearest, self._vertices[corners]) > 1e-8
        normal = self._of_faces[face]
        on_vertex = touching.sum(axis=1) == 1
        normal[on_vertex] = self._of_vertices[corners[on_vertex, touching[on_vertex].argmax(axis=1)]]
        on_edge = touching.sum(axis=1) == 2
        normal[on_edge] = self._of_edges[face[on_edge], touching[on_edge].argmin(axis=1)]
        behind: Mask = ((points - nearest) * normal).sum(axis=1) < 0
        return behind


def _barycentric(points: Points, triangles: Points) -> Points:
    """Barycentric coordinates (n, 3) of points (n, 3) in their triangles (n, 3, 3)."""
    a, b, c = triangles[:, 0], triangles[:, 1], triangles[:, 2]
    normal = np.cross(b - a, c - a)
    squared = np.maximum((normal * normal).sum(axis=1), np.finfo(np.float64).tiny)
    u = (np.cross(c - b, points - b) * normal).sum(axis=1) / squared
    v = (np.cross(a - c, points - c) * normal).sum(axis=1) / squared
    return np.stack([u, v, 1 - u - v], axis=1)
