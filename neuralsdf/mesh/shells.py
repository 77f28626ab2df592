"""
shells.py
---------
The shells of a closed mesh: its connected surfaces. A shell whose faces look outwards bounds a body; one
whose faces look inwards bounds a closed cavity."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from ..arrays import Faces, Index, Points, Values
from ..geometry.triangles import face_runs

#: A shell of a smaller fraction of the volume of all is a speck: a five hundredth of the shape across. Where
#: thin parts end, rounding leaves ever more of them the finer the cells are.
SPECK_VOLUME = 1e-8


@dataclass(frozen=True, eq=False)
class Shells:
    """The connected surfaces of a closed mesh: vertices (V, 3), faces (F, 3), parts that share a vertex.

    of_face (F,): the shell of each face, from 0 on. count: how many.
    """

    vertices: Points
    faces: Faces
    of_face: Index
    count: int

    @cached_property
    def volumes(self) -> Values:
        """Signed volumes (count,) in the vertices' unit cubed; negative for a cavity."""
        centre = self.vertices.mean(axis=0) if len(self.vertices) else 0.0
        volumes = np.zeros(self.count)
        for run in face_runs(len(self.faces)):
            a, b, c = (self.vertices[self.faces[run, corner]] - centre for corner in range(3))
            parts = np.einsum("ij,ij->i", a, np.cross(b, c)) / 6
            # The cones of a shell's faces add up to its volume wherever their common tip is.
            volumes += np.bincount(self.of_face[run], parts, self.count)
        return volumes

    @property
    def bodies(self) -> int:
        """How many shells look outwards."""
        return int((self.volumes > 0).sum())

    @property
    def cavities(self) -> Index:
        """The shells (n,) that look inwards, without specks, the largest first."""
        inward = np.flatnonzero(self.volumes < -SPECK_VOLUME * np.abs(self.volumes).sum())
        return inward[np.argsort(self.volumes[inward], kind="stable")]

    @cached_property
    def lowest(self) -> Points:
        """The point (count, 3) of each shell where z is smallest."""
        height, vertex = np.full(self.count, np.inf), np.zeros(self.count, np.int64)
        for run in face_runs(len(self.faces)):
            shell, z = self.of_face[run], self.vertices[:, 2][self.faces[run]]
            # Stable, by shell and then by height: the first of each shell is its lowest face.
            order = np.lexsort((z.min(axis=1), shell))
            first = order[np.diff(shell[order], prepend=-1) > 0]
            corner = z[first].argmin(axis=1)
            found = shell[first]
            lower = z[first, corner] < height[found]
            height[found[lower]] = z[first, corner][lower]
            vertex[found[lower]] = self.faces[run][first, corner][lower]
        return self.vertices[vertex]


def find_shells(vertices: Points, faces: Faces) -> Shells:
    """The shells of a closed mesh, vertices (V, 3) and faces (F, 3)."""
    try:
        from ..kernels._core import connected_faces
    except ImportError:  # the C++ core was not built
        return Shells(vertices, faces, *reference_connected_faces(faces, len(vertices)))
    return Shells(vertices, faces, *connected_faces(faces, len(vertices)))


def reference_connected_faces(faces: Faces, size: int) -> tuple[Index, int]:
    """The connected surface (F,) of each of faces (F, 3) of `size` vertices, and how many there are; numbered
    in the order of their first faces. The reference for the C++ core.
    """
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    start, end = faces[:, [0, 1]].ravel(), faces[:, [1, 2]].ravel()
    links = coo_array((np.ones(len(start), np.int8), (start, end)), shape=(size, size)).tocsr()
    # Faces run around their vertices, so what is weakly connected is connected.
    _, labels = connected_components(links, directed=True, connection="weak")
    used, first, of_face = np.unique(labels[faces[:, 0]], return_index=True, return_inverse=True)
    order: Index = np.argsort(np.argsort(first)).astype(np.int64)
    return order[of_face], len(used)
