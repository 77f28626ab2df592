"""
field.py
--------
A tree as a field: placed in the unit ball, compiled, ready to render, extract and ask.
"""

from __future__ import annotations

from collections.abc import Iterator
from copy import copy
from functools import cached_property

import numpy as np

from ..arrays import FloatArray, Points
from ..backends import Program, get_backend
from ..backends.reference.tape import TapeProgram
from ..errors import EmptyShapeError, UsageError
from ..fields.field import FILM, Field
from ..geometry.similarity import Similarity, minimum_enclosing_ball
from ..program.tape import Op, Tape
from .compile import compile_shape
from .shape import Shape

#: The ball is found from cells of this share of the extent; 2 to the power of how often they are halved.
_HALVINGS = 6
#: Cells at a time: a tree whose slope is hardly known leaves too many, and then the ball is a larger one.
_MOST_CELLS = 1 << 18
#: Operations times cells that the search for the ball may take, or the ball is a larger one; a block of cells
#: costs as much as this many.
_MOST_WORK, _BLOCK = 1 << 28, 1 << 8
#: Operations that cost as much as the value of a mesh or another field, and of a network.
_OF_FIELD, _OF_NETWORK = 100, 20

#: Sizes of a shape, and the size over the distance from the origin, that double precision does for.
_LEAST_SIZE, _GREATEST_SIZE, _FARTHEST = 1e-100, 1e100, 1e-10

#: Slopes that are measured of all leaves together, and at least and at most of each.
_SLOPES, _SLOPES_OF_A_FIELD = 1 << 17, (1 << 11, 1 << 14)

_CORNERS = np.array([[x, y, z] for x in (-1, 1) for y in (-1, 1) for z in (-1, 1)], np.float64)


class TreeField(Field):
    """The field of a tree of solids and files.

    kind: "distance" for a single leaf however placed, "bound" for anything combined. lipschitz: what its
    slope does not exceed; |value| / lipschitz is at most the distance. low, high: corners (3,) of a box in
    mesh space that holds it. exact: whether all its leaves are, and none is combined. Its ball is a few
    hundredths larger than it need be. Raises `UsageError` for a shape without an end, `EmptyShapeError` for
    one that is empty.
    """

    rounding = FILM

    def __init__(self, shape: Shape) -> None:
        if not shape.bounded:
            raise UsageError(
                "the shape has no end (a plane, a complement, a repetition): cut it with & box(...)"
            )
        self.shape = shape
        self.kind = shape.kind
        self.lipschitz = shape.lipschitz
        self.low, self.high, self.transform = _enclosed(shape)
        errors = [field.error * field.transform.scale * scale for field, scale in _leaves(shape)]
        self._error = max(errors, default=0.0) / self.transform.scale
        self.unit, _ = units_of(shape)
        self.exact = shape.kind == "distance" and all(field.exact for field in shape.fields())

    def _rescaled(self, factor: float, unit: str) -> TreeField:
        program = self.program  # made of the shape, whose lengths stay what they are
        other = copy(self)
        other.transform, other.unit = self.transform.scaled(factor), unit
        other.low, other.high = factor * self.low, factor * self.high
        vars(other)["program"] = program
        return other

    @property
    def is_bound(self) -> bool:
        """Whether `distance` may be less than the true one: of a single network, too, outside its ball."""
        return not self.exact

    @cached_property
    def program(self) -> Program:
        """Its tape, made ready by the backend."""
        return get_backend().assemble(compile_shape(self.shape, self.transform))

    @property
    def operations(self) -> int:
        """Operations of its tape, and of its slowest leaf: of many, few are near a point."""
        return self.shape.size + max((field.operations for field in self.shape.fields()), default=0)

    @property
    def error(self) -> float:
        """The greatest error of its leaves, in this field's model space."""
        return self._error

    def value(self, points: FloatArray) -> FloatArray:
        """Values (n,) at points (n, 3) of model space."""
        return self.program.evaluate(np.ascontiguousarray(points, np.float32))

    def value_and_gradient(self, points: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Values (n,) and gradients (n, 3) at points (n, 3) of model space."""
        return self.program.evaluate_with_gradient(np.ascontiguousarray(points, np.float32))


def units_of(shape: Shape) -> tuple[str | None, str | None]:
    """The unit of a tree's lengths, None unless all of its files that state one agree, and a warning if not.

    A file that states none counts as one of the others' unit: its numbers are combined as they are.
    """
    names: dict[str, str] = {}
    waiting = [shape]
    while waiting:
        node = waiting.pop()
        waiting.extend(node.parts)
        if node.field is not None and node.field.unit is not None:
            names.setdefault(node.field.unit, node.name)
    if len(names) < 2:
        return next(iter(names), None), None
    told = ", ".join(f"{name} in {unit}" for unit, name in sorted(names.items()))
    return None, f"files in different units are combined as they are ({told}): scale(...) one of them"


def _leaves(shape: Shape) -> Iterator[tuple[Field, float]]:
    """The fields of a shape, and how much larger each is there."""
    stack = [(shape, 1.0)]
    while stack:
        node, scale = stack.pop()
        if node.field is not None:
            yield node.field, scale
        scale *= node.numbers[0] if node.word == "scale" else 1.0
        stack.extend((part, scale) for part in node.parts)


def _steepest(field: Field, samples: int) -> float:
    """The slope that a field exceeds at one in a thousand points of its ball, at least 1."""
    rng = np.random.default_rng(0)
    points = rng.normal(size=(samples, 3))
    points *= rng.random((len(points), 1)) ** (1 / 3) / np.linalg.norm(points, axis=1, keepdims=True)
    _, gradients = field.value_and_gradient(points.astype(np.float32))
    return max(1.0, float(np.quantile(np.linalg.norm(gradients, axis=1), 0.999)))


def _enclosed(shape: Shape) -> tuple[Points, Points, Similarity]:
    """A box and a ball that hold a shape, tighter than its known bounds."""
    low, high = shape.low, shape.high
    work = _MOST_WORK
    while True:
        with np.errstate(over="ignore"):
            extent = float((high - low).max())
        low, high, corners, work = _tightened(shape, low, high, work)
        if float((high - low).max()) > extent / 4 or not work:  # else its cells were large for it: once more
            break
    middle, radius = minimum_enclosing_ball(corners)
    return low, high, Similarity.from_ball(middle, radius)


def _tightened(shape: Shape, low: Points, high: Points, work: int) -> tuple[Points, Points, Points, int]:
    """A box within the one from `low` to `high` that holds a shape, and points (n, 3) whose hull does.

    work: operations times cells that it may take; returns how many are left, 0 if they were too few.

    A cell with centre c and half-diagonal r holds nothing of it if f(c) > L r, and no part of its surface
    if f(c) < -L r; L is larger by how much steeper than a distance the networks in it are.
    """
    with np.errstate(over="ignore"):
        centre, extent = low / 2 + high / 2, float((high - low).max())
    if not extent > 0:
        raise EmptyShapeError("the shape is empty: nothing is inside of it")
    if not _LEAST_SIZE < extent < _GREATEST_SIZE:
        size = f"{extent:.3g}" if extent < _GREATEST_SIZE else f"more than {_GREATEST_SIZE:g}"
        raise UsageError(f"the shape is {size} across: out of the range that can be computed with")
    if extent < _FARTHEST * np.abs(centre).max():
        raise UsageError("the shape lies too far from the origin, for its size: its place is rounded off")
    # In a space where its box is of size one, whatever the size.
    tape = compile_shape(shape, Similarity.from_ball(centre, extent))
    program = TapeProgram(tape, get_backend().compile)  # the one that is as precise as the points
    unknown = {id(field): field for field in shape.fields() if field.lipschitz is None}
    samples = int(np.clip(_SLOPES // max(1, len(unknown)), *_SLOPES_OF_A_FIELD))
    measured = [_steepest(field, samples) for field in unknown.values()]
    steepest = shape.lipschitz * max([1.0, *measured])
    each = _operations(tape)
    half, cells, kept = 0.5, np.zeros((1, 3)), []
    for halving in range(_HALVINGS + 1):
        value = program.evaluate(cells)
        work -= each * max(len(cells), _BLOCK)
        reach = steepest * half * np.sqrt(3) * (1 + 1e-9)
        whole, some = value < -reach, np.abs(value) <= reach
        kept.append(_corners(cells[whole], half))
        cells = cells[some]
        if halving == _HALVINGS or 8 * len(cells) > _MOST_CELLS:
            break
        if work < each * max(8 * len(cells), _BLOCK):
            work = 0
            break
        half /= 2
        cells = _corners(cells, half)
    corners = np.concatenate([*kept, _corners(cells, half)])
    if not len(corners):
        raise EmptyShapeError("the shape is empty: nothing is inside of it")
    corners = corners * extent + centre
    low = np.maximum(corners.min(axis=0), low)
    high = np.minimum(corners.max(axis=0), high)
    return low, high, np.clip(corners, low, high), work


def _operations(tape: Tape) -> int:
    """What a tape costs at one cell, in operations."""
    op, count = tape.code[:, 0], tape.code[:, 3]
    networks = int(count[op == Op.NEAREST].sum())
    return len(op) + _OF_FIELD * int((op == Op.FIELD).sum()) + _OF_NETWORK * networks


def _corners(centres: Points, half: float) -> Points:
    """The corners (8 n, 3) of cells (n, 3), or the centres of those that they are parted into, `half` as far
    off.
    """
    return (centres[:, None] + half * _CORNERS).reshape(-1, 3)
