"""
similarity_transform.py
-----------------------
Similarity transforms. A field's transform maps model space to mesh space, so that the unit ball about the
origin becomes the minimum enclosing ball of the shape (paper, appendix A.1).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from ..array_types import Matrix4, Points, Vectors
from ..errors import UsageError

#: Range of lengths whose squares and cubes neither overflow nor underflow, and the distance from the origin,
#: in radii, up to which double precision resolves the points of a shape.
MIN_LENGTH, MAX_LENGTH, FARTHEST = 1e-100, 1e100, 1e15


@dataclass(frozen=True, eq=False)
class Similarity:
    """x -> s R x + t with s > 0 and R orthogonal, as a 4x4 float64 matrix acting on column vectors.

    A field's transform maps model space to mesh space; a length in model space times `scale` is a
    length in mesh units. Raises `UsageError` if the matrix is not a finite similarity.
    """

    matrix: Matrix4

    def __post_init__(self) -> None:
        matrix = np.asarray(self.matrix, np.float64)
        object.__setattr__(self, "matrix", matrix)
        if matrix.shape != (4, 4) or not np.isfinite(matrix).all():
            raise UsageError("a similarity is a finite 4x4 matrix")
        linear, scale = matrix[:3, :3], self.scale
        if not 0 < scale < np.inf or not np.array_equal(matrix[3], [0, 0, 0, 1]):
            raise UsageError("the matrix is not a similarity: its scale or last row is wrong")
        if not MIN_LENGTH < scale < MAX_LENGTH or not np.abs(matrix[:3, 3]).max() < MAX_LENGTH:
            raise UsageError(
                f"its size or position is out of the range of double precision (scale {scale:.3g})"
            )
        if np.abs(matrix[:3, 3]).max() > FARTHEST * scale:
            raise UsageError("it lies too far from the origin for its size: its position is rounded off")
        unit = linear / scale
        if np.abs(unit @ unit.T - np.eye(3)).max() > 1e-6:
            raise UsageError("the matrix is not a similarity: it has shear or non-uniform scale")

    @classmethod
    def identity(cls) -> Similarity:
        """The identity, for files without a transform."""
        return cls(np.eye(4))

    @classmethod
    def from_ball(cls, centre: npt.ArrayLike, radius: float) -> Similarity:
        """The map from the unit ball to the ball with this centre (3,) and radius."""
        matrix = np.diag([radius, radius, radius, 1.0])
        matrix[:3, 3] = centre
        return cls(matrix)

    @cached_property
    def scale(self) -> float:
        """Length in mesh units of a length of 1 in model space."""
        with np.errstate(over="ignore", invalid="ignore"):
            # hypot does not underflow at 1e-200, unlike a squared length.
            return float(np.hypot(np.hypot(*self.matrix[:2, 0]), self.matrix[2, 0]))

    @property
    def centre(self) -> Points:
        """Image of the model-space origin in mesh space, (3,)."""
        return self.matrix[:3, 3]

    def scaled(self, factor: float) -> Similarity:
        """This transform followed by a scaling of mesh space by `factor`."""
        return Similarity(np.diag([factor, factor, factor, 1.0]) @ self.matrix)

    def apply(self, points: npt.NDArray[Any]) -> Points:
        """Map points (n, 3) from model space to mesh space, float64."""
        return np.asarray(points, np.float64) @ self.matrix[:3, :3].T + self.centre

    def apply_inverse(self, points: npt.NDArray[Any]) -> Points:
        """Map points (n, 3) from mesh space to model space, float64."""
        rotation = self.matrix[:3, :3] / self.scale
        # Subtract first, divide by the scale once: no cancellation far from the origin, no overflow.
        result: Points = ((np.asarray(points, np.float64) - self.centre) / self.scale) @ rotation
        return result

    def rotate(self, vectors: npt.NDArray[Any]) -> Vectors:
        """Rotate directions (n, 3) from model space to mesh space; lengths are unchanged."""
        rotated: Points = np.asarray(vectors, np.float64) @ (self.matrix[:3, :3] / self.scale).T
        return rotated
