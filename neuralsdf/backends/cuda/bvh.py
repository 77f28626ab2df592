"""
bvh.py
------
Triangle BVHs on a CUDA device: built by the C++ core, queried by kernels/cuda/bvh.h with one thread per
query.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import numpy.typing as npt

from ...array_types import Faces, Index, Points, Values, Vectors
from ...geometry.bvh import Refinements
from .device import Device

#: Points on the device at once: some 300 MB with their results.
BLOCK = 1 << 22

#: Threads per block, as compiled in bvh.cu.
_THREADS = 128

#: Maximum distance of points from the mesh, in radii; its square is still finite in float32.
_FARTHEST = 1e15

#: The structs of kernels/shared/bvh.h and kernels/cuda/bvh.h.
TREE = np.dtype(
    [
        ("nodes", np.uintp),
        ("expansions", np.uintp),
        ("packets", np.uintp),
        ("origin", np.float64, 3),
        ("scale", np.float64),
    ],
    align=True,
)
QUERIES = np.dtype([("points", np.uintp), ("order", np.uintp), ("count", np.int64)], align=True)
CLOSEST_POINT = np.dtype(
    [
        ("tree", TREE),
        ("queries", QUERIES),
        ("distance", np.uintp),
        ("face", np.uintp),
        ("nearest", np.uintp),
    ],
    align=True,
)
WINDING_NUMBER = np.dtype(
    [("tree", TREE), ("queries", QUERIES), ("winding", np.uintp), ("accuracy", np.float64)], align=True
)
FIRST_HIT = np.dtype(
    [
        ("tree", TREE),
        ("queries", QUERIES),
        ("directions", np.uintp),
        ("length", np.uintp),
        ("face", np.uintp),
    ],
    align=True,
)

Order = npt.NDArray[np.uint32]


class CudaBVH:
    """`TriangleBVH` on a CUDA device, of finite vertices (V, 3) and faces (F, 3).

    Raises ImportError if the C++ core, which builds the BVH, was not built, and ValueError for meshes or
    points that it rejects.
    """

    def __init__(self, device: Device, vertices: Points, faces: Faces) -> None:
        from ...kernels import _core

        built = _core.TriangleBVH(
            np.ascontiguousarray(vertices, np.float64),
            np.ascontiguousarray(faces, np.int64),
            _core.supported_isas()[0],
        )
        self._device = device
        self._struct = np.zeros((), TREE)
        self._struct["origin"], self._struct["scale"] = built.origin, built.scale
        with device.current():
            for name in ("nodes", "expansions", "packets"):
                memory = device.array(getattr(built, name))
                weakref.finalize(self, device.free, memory)
                self._struct[name] = int(memory)

    def distance(self, points: Points) -> Values:
        """Distance (n,) of points (n, 3) to the closest triangle."""
        points = self._checked(points, "points")
        distance = np.empty(len(points))
        for block in _blocks(len(points)):
            with self._closest(points[block], with_face=False) as arguments:
                self._device.download(int(arguments["distance"]), distance[block])
        return distance

    def closest(self, points: Points) -> tuple[Values, Index, Points]:
        """Distance (n,), closest face (n,; the lowest index of ties) and closest point (n, 3)."""
        points = self._checked(points, "points")
        distance, nearest = np.empty(len(points)), np.empty_like(points)
        face = np.empty(len(points), np.int64)
        for block in _blocks(len(points)):
            with self._closest(points[block], with_face=True) as arguments:
                self._device.download(int(arguments["distance"]), distance[block])
                self._device.download(int(arguments["face"]), face[block])
                self._device.download(int(arguments["nearest"]), nearest[block])
        return distance, face, nearest

    def winding_number(self, points: Points, refinements: Refinements) -> Values:
        """Generalised winding number (n,) at points (n, 3)."""
        points = self._checked(points, "points")
        if not refinements or not all(accuracy >= 0 for accuracy, _ in refinements):
            raise ValueError("at least one accuracy is needed, and none may be negative")
        winding = np.empty(len(points))
        for block in _blocks(len(points)):
            self._refine(points[block], refinements, winding[block])
        return winding

    def first_hit(self, origins: Points, directions: Vectors) -> tuple[Values, Index]:
        """Ray parameter (n,) of the first hit, inf if none, and its face (n,), -1 if none."""
        origins = self._checked(origins, "origins")
        directions = np.ascontiguousarray(directions, np.float64)
        if directions.shape != origins.shape or not np.isfinite(directions).all():
            raise ValueError("each origin needs one direction, which must be finite")
        length, face = np.empty(len(origins)), np.empty(len(origins), np.int64)
        for block in _blocks(len(origins)):
            with self._device.current():
                arguments = self._arguments(FIRST_HIT, origins[block])
                arguments["directions"] = self._device.upload("directions", directions[block])
                arguments["length"] = self._device.buffer("lengths", length[block].nbytes)
                arguments["face"] = self._device.buffer("faces", face[block].nbytes)
                self._launch("first_hit", arguments, _in_space(origins[block]))
                self._device.download(int(arguments["length"]), length[block])
                self._device.download(int(arguments["face"]), face[block])
        return length, face

    @contextmanager
    def _closest(self, points: Points, with_face: bool) -> Iterator[Any]:
        """Launch a query; yields its arguments, with the result buffers filled."""
        with self._device.current():
            arguments = self._arguments(CLOSEST_POINT, points)
            arguments["distance"] = self._device.buffer("lengths", 8 * len(points))
            if with_face:
                arguments["face"] = self._device.buffer("faces", 8 * len(points))
                arguments["nearest"] = self._device.buffer("nearest", points.nbytes)
            self._launch("closest_point", arguments, _in_space(points))
            yield arguments

    def _refine(self, points: Points, refinements: Refinements, winding: Values) -> None:
        """Fill `winding` (n,). Points that need the next accuracy get a separate launch, so that the others
        in their warps do not wait for them."""
        order = _in_space(points)
        with self._device.current():
            arguments = self._arguments(WINDING_NUMBER, points)
            arguments["winding"] = self._device.buffer("windings", winding.nbytes)
            for accuracy, band in refinements:
                arguments["accuracy"] = accuracy
                self._launch("winding_number", arguments, order)
                self._device.download(int(arguments["winding"]), winding)
                order = order[np.abs(np.abs(winding[order]) - 0.5) < band]
                if len(order) == 0:
                    break

    def _arguments(self, struct: np.dtype[np.void], points: Points) -> Any:
        """A kernel's argument struct with the BVH and the points."""
        arguments = np.zeros((), struct)
        arguments["tree"] = self._struct
        arguments["queries"]["points"] = self._device.upload("points", points)
        return arguments

    def _launch(self, kernel: str, arguments: Any, order: Order) -> None:
        """Run a kernel on the points in `order`."""
        arguments["queries"]["order"] = self._device.upload("order", order)
        arguments["queries"]["count"] = len(order)
        self._device.launch(kernel, -(-len(order) // _THREADS), _THREADS, 0, arguments[()])

    def _checked(self, points: npt.NDArray[Any], name: str) -> Points:
        points = np.ascontiguousarray(points, np.float64)
        if points.ndim != 2 or points.shape[1] != 3:
            raise ValueError(f"{name} must have the shape (n, 3)")
        if not (np.abs(points - self._struct["origin"]) * self._struct["scale"] < _FARTHEST).all():
            raise ValueError(f"{name} must be finite and lie within 1e15 radii of the mesh")
        return points


def _in_space(points: Points) -> Order:
    """Indices (n,) of points in spatial order, so that a warp's queries traverse the same nodes."""
    from ...kernels import _core

    return _core.morton_order(points)


def _blocks(count: int) -> list[slice]:
    return [slice(start, start + BLOCK) for start in range(0, count, BLOCK)]
