"""
scene.py
--------
The triangles of a scene: meshes, each at every place where the scene has it.
"""

from __future__ import annotations

from collections import Counter

import numpy as np
import numpy.typing as npt

from ...arrays import Faces, Matrix4, Points
from ...files.input_file import Budget
from .raw_mesh import FormatError, RawMesh

#: Bytes drawn from the budget for each item, component or node of a scene: what handling one takes. It bounds
#: the number of them, so that a small file cannot repeat its parts for hours.
NODE_BYTES = 512

#: Bytes drawn for each vertex and face that is placed: their own 24, and as much again for the edges and
#: equal vertices that are looked for afterwards. With it, 256 MB of budget come to 1.5 GB of memory.
PLACED_BYTES = 48


class Scene:
    """Collects placed meshes; draws their bytes from a budget before it makes them."""

    def __init__(self, budget: Budget) -> None:
        self._budget = budget
        self._vertices: list[Points] = []
        self._faces: list[Faces] = []
        self._vertex_count = 0
        self._places: dict[tuple[int, bytes], object] = {}
        self._repeats = 0

    def is_new(self, shape: object, matrix: Matrix4) -> bool:
        """Whether a shape (any object that stands for it) is not yet at the place of a 4x4 matrix.

        A second copy there adds nothing to a solid, and thousands of them, which a small file can ask for,
        would make every search among the triangles slow. They are counted, for a note.
        """
        self._budget.draw(NODE_BYTES)
        key = id(shape), (matrix + 0.0).tobytes()  # 0 and -0 are one place
        if key in self._places:
            self._repeats += 1
            return False
        self._places[key] = shape
        return True

    def place(self, vertices: Points, faces: Faces, matrix: Matrix4 | None = None) -> None:
        """Add a mesh, moved by a 4x4 matrix (column vectors) unless that is None.

        A matrix that mirrors turns the faces around, so that outside stays outside. Raises `FormatError` for
        faces (n, 3) that name a missing vertex.
        """
        if not len(faces):
            return
        check_indices(faces, len(vertices))
        if faces.size < len(vertices):  # the parts of a model may share one long list of vertices
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
        """All of it in one; raises `FormatError` if there is nothing."""
        if not self._faces:
            left_out = f" ({'; '.join(notes)})" if notes else ""
            raise FormatError(f"has no faces: its scene holds no mesh{left_out}", "export the mesh itself")
        if self._repeats:
            notes = [*notes, f"{counted(self._repeats, 'copy', 'copies')} at the place of another left out"]
        return RawMesh(np.concatenate(self._vertices), np.concatenate(self._faces), notes, unit)


#: Characters of a name in a file that a message shows.
LONGEST = 80


def check_indices(indices: npt.NDArray[np.integer], vertex_count: int) -> None:
    """Raise `FormatError` unless all of the indices (...) are those of a vertex."""
    if indices.size and (indices.min() < 0 or indices.max() >= vertex_count):
        culprit = indices[(indices < 0) | (indices >= vertex_count)][0]
        raise FormatError(f"vertex index {culprit} out of range ({vertex_count} vertices)")


def counted(count: int, one: str, many: str) -> str:
    """`1 node`, `2 nodes`."""
    return f"{count:,} {one if count == 1 else many}"


def left_out(counts: Counter[tuple[str, str]]) -> list[str]:
    """A note for each kind of thing, named in the singular and the plural, that was left out of a scene."""
    return [f"{counted(count, *names)} left out" for names, count in counts.items() if count]
