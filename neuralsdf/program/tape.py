"""
tape.py
-------
What a backend evaluates besides a single network: a flat tape of instructions over registers, which a loop
without recursion evaluates for a block of points at a time. Trees of shapes compile to it (csg/compile.py);
backends/reference/tape.py says what it means, in numpy.

An instruction is five integers: operation, `out`, `a`, `b`, and where its parameters begin. There are
registers of points, of which number 0 holds the points asked for, and registers of values. The operations:

    solid       value[out] from point[a], by the solid's own numbers (primitives.py)
    FIELD       value[out] from point[a], by the leaf whose number is its parameter
    NEAREST     value[out] from point[a], the least of `b` networks; its parameters are those of FIELD, for
                each of them
    UNION ...   value[out] from value[a] and value[b]; the parameter is the radius of the blend
    NEGATE ...  value[out] from value[a]
    DISPLACE    value[out] from value[a] and point[b]
    ENTER_...   point[out] from point[a]: into the space of a part whose space is bent, folded or repeated
    LEAVE_...   value[out] from value[a] and point[b]: back out of it, b being the point that was entered from

What reads points has a frame first among its parameters: q = M p + t, M (3, 3) by rows, t (3,), and s, the
length in p's space of a length of 1 in q's. A value found at q times s is the value at p, a gradient g there
is s M^T g. So translations, rotations, scales and mirror images cost nothing: they are in the frames of the
leaves. All lengths are in the unit of point register 0, and s is 1 but for a field, whose unit is its own:
however small a shape is, single precision does for it.

A value's register holds its gradient as well, where that is asked for, with respect to the point register
that it was evaluated from: LEAVE takes it back through the bend. The last value is in register 0.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import Protocol

import numpy as np
import numpy.typing as npt

from ..arrays import FloatArray
from .network import Network

#: Numbers of a frame: M, t and s.
FRAME = 13


class Op(IntEnum):
    """Operations; the solids are called as in `primitives.PRIMITIVES`."""

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
    """What only the processor evaluates, a block of points at a time: a mesh, any field without a network."""

    def value(self, points: FloatArray) -> FloatArray:
        """Values (n,) at points (n, 3), anywhere."""
        ...

    def value_and_gradient(self, points: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Values (n,) and gradients (n, 3) at points (n, 3), anywhere."""
        ...


#: A network is evaluated by the backend itself, and outside its ball as backends/outside_ball.py says.
Leaf = Network | HostField


@dataclass(frozen=True, eq=False)
class Tape:
    """A compiled tree.

    code: (m, 5) int32, m >= 1. parameters: (k,) float64, each instruction's up to where the next one's begin.
    leaves: of FIELD and NEAREST instructions. points, values: how many registers there are of each.
    lipschitz: what the slope of its values does not exceed, but for networks' errors. tolerances: what a
    backend may add to the error of each leaf, as `Backend.compile` has it; nothing to any if there are none.
    """

    code: npt.NDArray[np.int32]
    parameters: npt.NDArray[np.float64]
    leaves: tuple[Leaf, ...]
    points: int
    values: int
    lipschitz: float
    tolerances: tuple[float | None, ...] = ()
