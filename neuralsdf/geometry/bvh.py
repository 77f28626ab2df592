"""
bvh.py
------
Bounding volume hierarchies of triangles for closest points, winding numbers (Barill et al. 2018) and rays:
from the C++ core, or from libigl if the core was not built or NEURALSDF_BACKEND is torch. The CUDA backend
has its own. All implement `TriangleBVH`. Queries use all threads; results do not depend on their number.

libigl crashes on out-of-range indices and empty face arrays; the core raises ValueError.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from ..array_types import Faces, Index, Points, Values, Vectors
from ..thread_count import threads

#: (accuracy, band): winding numbers w are computed at the first accuracy, and again at the next where
#: ||w| - 1/2| < band. Accuracy is the ratio of distance to radius beyond which a node is far (Barill's beta).
Refinements = Sequence[tuple[float, float]]

#: Refine where the winding number is close to one half. Costs a quarter of accuracy 2 everywhere, with no
#: wrong sign in 200 000 points.
WINDING_ACCURACY: Refinements = ((1.0, 0.25), (2.0, 0.01), (6.0, 0.0))


class TriangleBVH(Protocol):
    """BVH of a mesh's triangles. Points, origins and directions are (n, 3) float64 and finite; n may be 0."""

    def distance(self, points: Points) -> Values:
        """Distance (n,) of points to the closest triangle."""
        ...

    def closest(self, points: Points) -> tuple[Values, Index, Points]:
        """Distance (n,), closest face (n,) and closest point (n, 3) of points."""
        ...

    def winding_number(self, points: Points, refinements: Refinements) -> Values:
        """Generalised winding number (n,) at points."""
        ...

    def first_hit(self, origins: Points, directions: Vectors) -> tuple[Values, Index]:
        """Ray parameter (n,) of the first hit, in units of the direction's length, inf if there is none; and
        the face (n,) hit, -1 if there is none."""
        ...


#: Builds the BVH of finite vertices (V, 3) and faces (F, 3), F > 0.
MakeBVH = Callable[[Points, Index], TriangleBVH]


def triangle_bvh(vertices: Points, faces: Faces) -> TriangleBVH:
    """The fastest CPU BVH of finite vertices (V, 3) and faces (F, 3), F > 0."""
    vertices, faces = np.ascontiguousarray(vertices, np.float64), np.ascontiguousarray(faces, np.int64)
    if os.environ.get("NEURALSDF_BACKEND") != "torch":
        try:
            return NativeBVH(vertices, faces)
        except ImportError:
            pass
    return IglBVH(vertices, faces)


class NativeBVH:
    """BVH of the C++ core; implements `TriangleBVH`.

    isa: the instruction set; if None, that of NEURALSDF_ISA, else the fastest.
    """

    def __init__(self, vertices: Points, faces: Faces, isa: str | None = None) -> None:
        from ..kernels import _core

        supported = _core.supported_isas()
        wanted = isa or os.environ.get("NEURALSDF_ISA")
        self._bvh = _core.TriangleBVH(vertices, faces, wanted if wanted in supported else supported[0])

    def distance(self, points: Points) -> Values:
        """Distance (n,) of points to the closest triangle."""
        return self._bvh.distance(_float64(points), threads())

    def closest(self, points: Points) -> tuple[Values, Index, Points]:
        """Distance (n,), closest face (n,; the lowest index of ties) and closest point (n, 3)."""
        return self._bvh.closest(_float64(points), threads())

    def winding_number(self, points: Points, refinements: Refinements) -> Values:
        """Generalised winding number (n,) at points."""
        return self._bvh.winding_number(_float64(points), refinements, threads())

    def first_hit(self, origins: Points, directions: Vectors) -> tuple[Values, Index]:
        """Ray parameter (n,) of the first hit, inf if there is none, and its face (n,; the lowest index of
        ties), -1 if there is none."""
        return self._bvh.first_hit(_float64(origins), _float64(directions), threads())


class IglBVH:
    """BVHs of libigl; implements `TriangleBVH`. Faster if points close in space are close in memory."""

    def __init__(self, vertices: Points, faces: Faces) -> None:
        import igl

        self._mesh = vertices, faces
        self._bvh = igl.AABB()
        self._bvh.init(vertices, faces)

    @cached_property
    def _windings(self) -> Any:
        import igl

        bvh = igl.FastWindingNumberBVH()
        bvh.init(*self._mesh, 2)
        return bvh

    def distance(self, points: Points) -> Values:
        """Distance (n,) of points to the closest triangle."""
        return self.closest(points)[0]

    def closest(self, points: Points) -> tuple[Values, Index, Points]:
        """Distance (n,), closest face (n,) and closest point (n, 3) of points."""
        if len(points) == 0:
            return np.empty(0), np.empty(0, np.int64), np.empty((0, 3))
        squared, face, nearest = self._bvh.squared_distance(*self._mesh, _float64(points))
        return np.sqrt(squared.reshape(-1)), face.reshape(-1), nearest.reshape(-1, 3)

    def winding_number(self, points: Points, refinements: Refinements) -> Values:
        """Generalised winding number (n,) at points."""
        points = _float64(points)
        winding, chosen = np.empty(len(points)), np.arange(len(points))
        for accuracy, band in refinements:
            if len(chosen) == 0:
                break
            winding[chosen] = np.reshape(self._windings.winding_number(points[chosen], accuracy), -1)
            chosen = np.flatnonzero(np.abs(np.abs(winding) - 0.5) < band)
        return winding

    def first_hit(self, origins: Points, directions: Vectors) -> tuple[Values, Index]:
        """Ray parameter (n,) of the first hit, inf if none, and its face (n,), -1 if none."""
        if len(origins) == 0:
            return np.empty(0), np.empty(0, np.int64)
        face, t, _ = self._bvh.intersect_ray_first(*self._mesh, _float64(origins), _float64(directions))
        t, face = np.asarray(t, np.float64).reshape(-1), np.asarray(face, np.int64).reshape(-1)
        hit = np.isfinite(t) & (t >= 0)
        return np.where(hit, t, np.inf), np.where(hit, face, -1)


def _float64(points: npt.NDArray[Any]) -> Points:
    return np.ascontiguousarray(points, np.float64)
