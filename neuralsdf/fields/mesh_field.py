"""
mesh_field.py
-------------
The exact signed distance of a mesh as a field.
"""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from ..arrays import FloatArray, Points, Values, Vectors
from ..geometry.similarity import Similarity
from ..mesh.mesh import Mesh
from .field import FILM, Field, Kind

if TYPE_CHECKING:
    from ..mesh.signed_distance import SignedDistance


#: Faces near a point, on average, from which on a mesh takes longer than others; operations for each.
_MANY_NEAR, _OPERATIONS_OF_A_FACE = 80, 60


class MeshField(Field):
    """The exact signed distance of a mesh, as a field: what a neural field is compared with.

    Its gradient is the direction away from the closest point; within rounding of the surface, where
    that has none, the normal of the closest face. `oracle` is in model space. mesh: what it was made of.
    """

    kind: Kind = "distance"
    exact = True
    lipschitz: float | None = 1.0
    rounding = FILM

    def __init__(
        self,
        oracle: SignedDistance,
        transform: Similarity,
        unit: str | None = None,
        mesh: Mesh | None = None,
    ) -> None:
        self.oracle, self.transform, self.unit, self.mesh = oracle, transform, unit, mesh

    def block_distance(self, points: npt.NDArray[Any], *, bound: bool = False) -> Values:
        """Signed distances (n,) in mesh units at points (n, 3) of mesh space, in double precision."""
        local = self.transform.apply_inverse(points)
        return self.oracle.signed(local) * self.transform.scale

    def block_distance_and_gradient(
        self, points: npt.NDArray[Any], *, bound: bool = False
    ) -> tuple[Values, Vectors]:
        """Distances (n,) in mesh units and gradients (n, 3), at points (n, 3) of mesh space."""
        local = self.transform.apply_inverse(points)
        gradients = self.transform.rotate(self.oracle.gradient(local))
        return self.oracle.signed(local) * self.transform.scale, gradients

    @cached_property
    def _measures(self) -> tuple[Points, float]:
        """The bounds (2, 3), and the volume, in mesh units: of its faces, if they are closed."""
        from ..evaluation.metrics import exact_measures

        exact = exact_measures(self)
        return super()._measures if exact is None else (np.stack(exact["bounds"]), exact["volume"])

    @property
    def operations(self) -> int:
        """Operations that one value takes: a microsecond, for the closest triangle and the winding number, or
        more where many faces are near every point.
        """
        near = int(self.oracle.near_faces)
        return 1000 if near < _MANY_NEAR else _OPERATIONS_OF_A_FACE * near

    def value(self, points: FloatArray) -> FloatArray:
        """Signed distances (n,) at points (n, 3) of model space."""
        return self.oracle.signed(points.astype(np.float64)).astype(np.float32)

    def value_and_gradient(self, points: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Signed distances (n,) and gradients (n, 3) at points (n, 3) of model space."""
        values = self.value(points)
        gradients = self.oracle.gradient(points.astype(np.float64))
        return values, gradients.astype(np.float32)
