"""
tape_format.py
--------------
A program that a backend evaluates: a flat tape of instructions over registers, evaluated without recursion
for a block of points at a time. CSG trees compile to it (csg/compile.py);
backends/reference/tape_interpreter.py defines its semantics in NumPy.

An instruction is five integers: operation, `out`, `a`, `b`, and the offset of its parameters. There are point
registers, of which number 0 holds the query points, and value registers. The operations:

    solid       value[out] from point[a] and the solid's parameters (primitive_distances.py)
    FIELD       value[out] from point[a] and the leaf whose index is its parameter
    NEAREST     value[out] from point[a]: the minimum of `b` networks; its parameters are those of FIELD, for
                each of them
    UNION ...   value[out] from value[a] and value[b]; the parameter is the blend radius
    NEGATE ...  value[out] from value[a]
    DISPLACE    value[out] from value[a] and point[b]
    ENTER_...   point[out] from point[a]: into the space of a twisted, folded or repeated part
    LEAVE_...   value[out] from value[a] and point[b]: back out of it; point[b] is the point before ENTER

The parameters of instructions that read points begin with a frame: q = M p + t, with M (3, 3) row-major,
t (3,), and s, the length in p's space of a unit length in q's. A value at q times s is the value at p; a
gradient g at q becomes s M^T g. So translations, rotations, scales and reflections cost nothing: they are
part of the leaves' frames. All lengths are in the unit of point register 0, and s is 1 except for fields,
which have their own unit: single precision suffices for shapes of any size.

If gradients are requested, a value register also holds the gradient with respect to the point register that
it was evaluated from; LEAVE transforms it back. The result is in value register 0.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import Protocol

import numpy as np
import numpy.typing as npt

from ..array_types import FloatArray
from .network import Network

#: Number of parameters of a frame: M, t and s.
FRAME = 13


class Op(IntEnum):
    """Operations; the solids are named as in `primitive_distances.PRIMITIVES`."""

    SPHERE = 0
    BOX = 1
    ROUNDED_BOX = 2
    CYLINDER = 3
    CAPSULE = 4
    CONE = 5
    TORUS = 6
    PLANE = 7
    ELLIPSOID = 8
    FIELD = 32
    NEAREST = 33
    UNION = 40
    INTERSECTION = 41
    DIFFERENCE = 42
    BLEND = 43
    NEGATE = 50
    OFFSET = 51
    WALL = 52
    DISPLACE = 53
    ENTER_FOLD = 60
    LEAVE_FOLD = 61
    ENTER_REPEAT = 62
    LEAVE_REPEAT = 63
    ENTER_TWIST = 64
    LEAVE_TWIST = 65


class HostField(Protocol):
    """A field without a network, such as a mesh, evaluated on the CPU a block of points at a time."""

    def value(self, points: FloatArray) -> FloatArray:
        """Values (n,) at points (n, 3), anywhere."""
        ...

    def value_and_gradient(self, points: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Values (n,) and gradients (n, 3) at points (n, 3), anywhere."""
        ...


#: Backends evaluate networks themselves, extended outside the ball as in backends/value_outside_ball.py.
Leaf = Network | HostField


@dataclass(frozen=True, eq=False)
class Tape:
    """A compiled tree.

    code: (m, 5) int32, m >= 1. parameters: (k,) float64, contiguous, in the order of the instructions.
    leaves: of FIELD and NEAREST instructions. points, values: number of point and value registers.
    lipschitz: Lipschitz constant of the values, except for errors of networks. tolerances: the error that a
    backend may add to each leaf, as in `Backend.compile`; empty means none for any leaf.
    """

    code: npt.NDArray[np.int32]
    parameters: npt.NDArray[np.float64]
    leaves: tuple[Leaf, ...]
    points: int
    values: int
    lipschitz: float
    tolerances: tuple[float | None, ...] = ()
