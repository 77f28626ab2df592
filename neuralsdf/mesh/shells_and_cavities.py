"""
shells_and_cavities.py
----------------------
Shells of a closed mesh: its connected surfaces. A shell with outward normals bounds a body; one with inward
normals bounds a closed cavity.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from ..array_types import Faces, Index, Points, Values
from ..geometry.triangles import face_runs

#: Shells below this fraction of the total volume are specks, about 1/500 of the shape's size. Rounding
#: creates them at the ends of thin parts, and more of them with finer cells.
SPECK_VOLUME = 1e-8


@dataclass(frozen=True, eq=False)
class Shells:
    """Connected surfaces of a closed mesh, vertices (V, 3) and faces (F, 3); faces sharing a vertex connect.

    of_face (F,): shell of each face, from 0. count: number of shells.
    """

    vertices: Points
    faces: Faces
    of_face: Index
    count: int

    @cached_property
    def volumes(self) -> Values:
        """Signed volumes (count,) in cubed units of the vertices; negative for a cavity."""
        centre = self.vertices.mean(axis=0) if len(self.vertices) else 0.0
        volumes = np.zeros(self.count)
        for run in face_runs(len(self.faces)):
            a, b, c = (self.vertices[self.faces[run, corner]] - centre for corner in range(3))
            parts = np.einsum("ij,ij->i", a, np.cross(b, c)) / 6
            # The tetrahedra of a shell's faces add up to its volume for any common apex.
            volumes += np.bincount(self.of_face[run], parts, self.count)
        return volumes

    @property
    def bodies(self) -> int:
        """Number of shells with outward normals."""
        return int((self.volumes > 0).sum())

    @property
    def cavities(self) -> Index:
        """Shells (n,) with inward normals, without specks, the largest first."""
        inward = np.flatnonzero(self.volumes < -SPECK_VOLUME * np.abs(self.volumes).sum())
        return inward[np.argsort(self.volumes[inward], kind="stable")]

    @cached_property
    def lowest(self) -> Points:
        """Point (count, 3) of each shell with the smallest z."""
        height, vertex = np.full(self.count, np.inf), np.zeros(self.count, np.int64)
        for run in face_runs(len(self.faces)):
            shell, z = self.of_face[run], self.vertices[:, 2][self.faces[run]]
            # Sorted by shell, then height: the first face of each shell is its lowest.
            order = np.lexsort((z.min(axis=1), shell))
            first = order[np.diff(shell[order], prepend=-1) > 0]
            corner = z[first].argmin(axis=1)
            found = shell[first]
            lower = z[first, corner] < height[found]
            height[found[lower]] = z[first, corner][lower]
            vertex[found[lower]] = self.faces[run][first, corner][lower]
        return self.vertices[vertex]


def find_shells(vertices: Points, faces: Faces) -> Shells:
    """Find the shells of a closed mesh, vertices (V, 3) and faces (F, 3)."""
    try:
        from ..kernels._core import connected_faces
    except ImportError:  # the C++ core was not built
        return Shells(vertices, faces, *reference_connected_faces(faces, len(vertices)))
    return Shells(vertices, faces, *connected_faces(faces, len(vertices)))


def reference_connected_faces(faces: Faces, size: int) -> tuple[Index, int]:
    """Shell (F,) of each of faces (F, 3) on `size` vertices, in the order of first faces, and their number.

    The reference for the C++ core.
    """
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    start, end = faces[:, [0, 1]].ravel(), faces[:, [1, 2]].ravel()
    links = coo_array((np.ones(len(start), np.int8), (start, end)), shape=(size, size)).tocsr()
    # The edges of a face form a cycle, so weakly connected vertices are connected.
    _, labels = connected_components(links, directed=True, connection="weak")
    used, first, of_face = np.unique(labels[faces[:, 0]], return_index=True, return_inverse=True)
    order: Index = np.argsort(np.argsort(first)).astype(np.int64)
    return order[of_face], len(used)
