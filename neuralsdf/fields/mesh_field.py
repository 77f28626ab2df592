"""
mesh_field.py
-------------
The exact signed distance to a mesh, as a field.
"""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from ..array_types import FloatArray, Points, Values, Vectors
from ..backends import Backend
from ..geometry.similarity_transform import Similarity
from ..mesh.mesh import Mesh
from .field import VALUE_ROUNDING, Field, Kind, described_ball

if TYPE_CHECKING:
    from ..mesh.signed_distance import SignedDistance


#: Operations per distance to a usual mesh: a microsecond for the closest triangle and the winding number.
_OPERATIONS = 1000
#: Distances take longer if at least this many faces are near a point, on average, and then take this many
#: operations per near face.
_MANY_NEAR_FACES, _OPERATIONS_PER_FACE = 80, 60


class MeshField(Field):
    """The exact signed distance to a mesh, as a field: the reference for neural fields.

    The gradient is the direction away from the closest point or, within rounding of the surface, the normal
    of the closest face.

    oracle: the signed distance in model space. mesh: the original mesh, if known.
    """

    kind: Kind = "distance"
    exact = True
    lipschitz: float | None = 1.0
    rounding = VALUE_ROUNDING

    def __init__(
        self,
        oracle: SignedDistance,
        transform: Similarity,
        unit: str | None = None,
        mesh: Mesh | None = None,
        backend: Backend | None = None,
    ) -> None:
        self.oracle, self.transform, self.unit, self.mesh = oracle, transform, unit, mesh
        self.chosen_backend = backend

    def __repr__(self) -> str:
        name = "" if self.mesh is None else f"of {self.mesh.source.name!r}, "
        return f"MeshField({name}{len(self.oracle.faces)} faces, {described_ball(self)})"

    @property
    def is_plain(self) -> bool:
        """Whether it is `exact(mesh)`: in the mesh's unit, with the default inside/outside test."""
        known = None if self.mesh is None else self.mesh.source.unit
        return self.unit == known and self.oracle.sign == "winding" and self.oracle.thickness is None

    def block_distance(self, points: npt.NDArray[Any], *, bound: bool = False) -> Values:
        """Signed distances (n,) in mesh units at points (n, 3) of mesh space, in double precision."""
        local = self.transform.apply_inverse(points)
        return self.oracle.signed(local) * self.transform.scale

    def block_distance_and_gradient(
        self, points: npt.NDArray[Any], *, bound: bool = False
    ) -> tuple[Values, Vectors]:
        """Signed distances (n,) in mesh units and gradients (n, 3) at points (n, 3) of mesh space."""
        local = self.transform.apply_inverse(points)
        gradients = self.transform.rotate(self.oracle.gradient(local))
        return self.oracle.signed(local) * self.transform.scale, gradients

    @cached_property
    def _measures(self) -> tuple[Points, float]:
        """Bounds (2, 3) and volume in mesh units; of the faces if they are closed, else of the extracted
        surface."""
        from ..evaluation.metrics import exact_measures

        exact = exact_measures(self)
        return super()._measures if exact is None else (np.stack(exact["bounds"]), exact["volume"])

    @property
    def operations(self) -> int:
        """Operations per value; more if many faces are near every point."""
        near = int(self.oracle.near_faces)
        return _OPERATIONS if near < _MANY_NEAR_FACES else _OPERATIONS_PER_FACE * near

    def value(self, points: FloatArray) -> FloatArray:
        """Signed distances (n,) at points (n, 3) of model space."""
        return self.oracle.signed(points.astype(np.float64)).astype(np.float32)

    def value_and_gradient(self, points: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Signed distances (n,) and gradients (n, 3) at points (n, 3) of model space."""
        values = self.value(points)
        gradients = self.oracle.gradient(points.astype(np.float64))
        return values, gradients.astype(np.float32)
