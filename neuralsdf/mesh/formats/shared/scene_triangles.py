"""
scene_triangles.py
------------------
Triangles of a scene, which places each mesh once or several times.
"""

from __future__ import annotations

from collections import Counter

import numpy as np
import numpy.typing as npt

from ....array_types import Faces, Matrix4, Points
from ....files.bounded_input import Budget
from .raw_mesh import FormatError, RawMesh

#: Bytes drawn from the budget per item, component or node of a scene. This limits their number, so that a
#: small file cannot repeat its parts for hours.
NODE_BYTES = 512

#: Bytes drawn per placed vertex and face: their own 24, and as much again for the later search for edges and
#: coincident vertices. A budget of 256 MB then corresponds to 1.5 GB of memory.
PLACED_BYTES = 48


class Scene:
    """Collects placed meshes; draws their bytes from a budget before allocating them."""

    def __init__(self, budget: Budget) -> None:
        self._budget = budget
        self._vertices: list[Points] = []
        self._faces: list[Faces] = []
        self._vertex_count = 0
        self._places: dict[tuple[int, bytes], object] = {}
        self._repeats = 0

    def is_new(self, shape: object, matrix: Matrix4) -> bool:
        """Whether a shape (identified by any object) has not been placed with this 4x4 matrix before.

        A second copy adds nothing to a solid, and thousands of copies, which a small file can request, would
        slow down every query. Copies are counted for a note.
        """
        self._budget.draw(NODE_BYTES)
        key = id(shape), (matrix + 0.0).tobytes()  # 0 and -0 are equal
        if key in self._places:
            self._repeats += 1
            return False
        self._places[key] = shape
        return True

    def place(self, vertices: Points, faces: Faces, matrix: Matrix4 | None = None) -> None:
        """Add a mesh, transformed by a 4x4 matrix (column vectors) unless it is None.

        A mirroring matrix flips the faces, which keeps the orientation. Raises `FormatError` for faces (n, 3)
        with an index out of range.
        """
        if not len(faces):
            return
        check_indices(faces, len(vertices))
        if faces.size < len(vertices):  # the parts of a model may share one list of vertices
            self._budget.draw(PLACED_BYTES * faces.size)
            used, corners = np.unique(faces, return_inverse=True)
            vertices, faces = vertices[used], corners.reshape(-1, 3)
        self._budget.draw(PLACED_BYTES * (len(vertices) + len(faces)))
        if matrix is not None:
            vertices = vertices @ matrix[:3, :3].T + matrix[:3, 3]
            if np.linalg.det(matrix[:3, :3]) < 0:
                faces = faces[:, ::-1]
        self._vertices.append(vertices)
        self._faces.append(faces + self._vertex_count)
        self._vertex_count += len(vertices)

    def raw_mesh(self, notes: list[str], unit: str | None = None) -> RawMesh:
        """The whole scene as one mesh; raises `FormatError` if it is empty."""
        if not self._faces:
            left_out = f" ({'; '.join(notes)})" if notes else ""
            raise FormatError(f"has no faces: its scene contains no mesh{left_out}", "export the mesh itself")
        if self._repeats:
            notes = [*notes, f"{counted(self._repeats, 'coincident copy', 'coincident copies')} left out"]
        return RawMesh(np.concatenate(self._vertices), np.concatenate(self._faces), notes, unit)


#: Maximum characters of a name from a file in messages.
LONGEST = 80


def check_indices(indices: npt.NDArray[np.integer], vertex_count: int) -> None:
    """Raise `FormatError` if an index (...) is out of range."""
    if indices.size and (indices.min() < 0 or indices.max() >= vertex_count):
        culprit = indices[(indices < 0) | (indices >= vertex_count)][0]
        raise FormatError(f"vertex index {culprit} out of range ({vertex_count} vertices)")


def counted(count: int, one: str, many: str) -> str:
    """`1 node`, `2 nodes`."""
    return f"{count:,} {one if count == 1 else many}"


def left_out(counts: Counter[tuple[str, str]]) -> list[str]:
    """Notes on what was left out of a scene; counts by (singular, plural) name."""
    return [f"{counted(count, *names)} left out" for names, count in counts.items() if count]
