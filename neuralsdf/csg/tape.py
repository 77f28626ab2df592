"""
tape.py
-------
A tree as a flat tape: a list of instructions over registers, which a loop without recursion evaluates for a
block of points at a time. numpy does in `interpreter.py`.

An instruction is five integers: operation, `out`, `a`, `b`, and where its parameters begin. There are
registers of points, of which number 0 holds the points asked for, and registers of values. The operations:

    solid       value[out] from point[a], by the solid's own numbers (`primitives.PRIMITIVES`, in its order)
    FIELD       value[out] from point[a], by the leaf whose number is its parameter
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
that it was evaluated from: LEAVE takes it back through the bend. Of the two sides of an operation the one
that needs more registers comes first, so that a tree of n leaves needs log2 n + 1 of them, however deep it
is.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from ..field import Field
from ..similarity import Points, Similarity
from .primitives import PRIMITIVES
from .shape import PLACEMENTS, Shape, copies, placement, radius_about_z, unit

#: Numbers of a frame: M, t and s.
FRAME = 13


class Op(IntEnum):
    """Operations; those below `FIELD` are the solids of `PRIMITIVES`, in its order."""

    FIELD = 32
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


SOLID_OPS = {word: number for number, word in enumerate(PRIMITIVES)}
_BINARY = {"|": Op.UNION, "&": Op.INTERSECTION, "-": Op.DIFFERENCE, "blend": Op.BLEND}


@dataclass(frozen=True, eq=False)
class Tape:
    """A compiled tree.

    code: (m, 5) int32. parameters: (k,) float64. leaves: the fields of FIELD instructions. points, values:
    how many registers there are of each. The values are in the unit of point register 0.
    """

    code: npt.NDArray[np.int32]
    parameters: npt.NDArray[np.float64]
    leaves: tuple[Field, ...]
    points: int
    values: int


class _Instruction(NamedTuple):
    op: int
    out: int
    a: int
    b: int
    parameters: tuple[float, ...]


class _Visit(NamedTuple):
    """A shape to compile: `place` maps point register `point` to its space, its value goes to `out`."""

    shape: Shape
    place: Points
    point: int
    out: int


_Task = _Instruction | _Visit


def compile_shape(shape: Shape, transform: Similarity) -> Tape:
    """The tape of a shape, for points of the space that `transform` maps to the shape's own."""
    code: list[tuple[int, int, int, int, int]] = []
    parameters: list[float] = []
    leaves: dict[int, tuple[int, Field]] = {}
    tasks: list[_Task] = [_Visit(shape, transform.matrix, 0, 0)]
    points = 1
    while tasks:
        task = tasks.pop()
        if isinstance(task, _Instruction):
            code.append((*task[:4], len(parameters)))
            parameters.extend(task.parameters)
        elif task.shape.field is not None:
            number, _ = leaves.setdefault(id(task.shape.field), (len(leaves), task.shape.field))
            tasks.append(_field(task, task.shape.field, number))
        else:
            points = max(points, task.point + 1)
            tasks.extend(reversed(_tasks(task)))
    return Tape(
        np.array(code, np.int32).reshape(-1, 5),
        np.array(parameters, np.float64),
        tuple(field for _, field in leaves.values()),
        points,
        shape.registers,
    )


def _tasks(visit: _Visit) -> list[_Task]:
    """What compiling a shape that is no field comes to, in order."""
    shape, place, point, out = visit
    word, numbers, length = shape.word, shape.numbers, _unit_length(place)
    if word in SOLID_OPS:
        own = tuple(unit(numbers)) if word == "plane" else tuple(number * length for number in numbers)
        return [_Instruction(SOLID_OPS[word], out, point, 0, (*_rigid_frame(place), *own))]
    if word in _BINARY:
        return _binary(visit)
    (part,) = shape.parts
    inner = visit._replace(shape=part)
    match word:
        case "file":
            return [inner]
        case _ if word in PLACEMENTS:
            return [inner._replace(place=np.linalg.inv(placement(word, numbers)) @ place)]
        case "~":
            return [inner, _Instruction(Op.NEGATE, out, out, 0, ())]
        case "offset":
            return [inner, _Instruction(Op.OFFSET, out, out, 0, (numbers[0] * length,))]
        case "shell" | "hollow":
            outside = numbers[0] / 2 if word == "shell" else 0.0
            walls = outside * length, (numbers[0] - outside) * length
            return [inner, _Instruction(Op.WALL, out, out, 0, walls)]
        case "displace":
            wave = (*_rigid_frame(place), numbers[0] * length, 2 * np.pi / numbers[1] / length)
            return [inner, _Instruction(Op.DISPLACE, out, out, point, wave)]
        case "symmetry":
            return _through(visit, part, Op.ENTER_FOLD, Op.LEAVE_FOLD, tuple(unit(numbers)))
        case "twist":
            own = np.radians(numbers[0]) / length, radius_about_z(part) * length
            return _through(visit, part, Op.ENTER_TWIST, Op.LEAVE_TWIST, own)
        case "repeat":
            return _repeated(visit, part)
    raise AssertionError(word)


def _field(visit: _Visit, field: Field, number: int) -> _Instruction:
    """A leaf: its own transform is a part of its frame."""
    frame = _frame(np.linalg.inv(field.transform.matrix) @ visit.place)
    return _Instruction(Op.FIELD, visit.out, visit.point, 0, (*frame, number))


def _binary(visit: _Visit) -> list[_Task]:
    shape, place, point, out = visit
    a, b = shape.parts
    number = shape.numbers[0] if shape.numbers else 0.0
    own = (number if shape.word == "blend" else number * _unit_length(place),)
    if a.registers >= b.registers:
        first, second, at = _Visit(a, place, point, out), _Visit(b, place, point, out + 1), (out, out + 1)
    else:
        first, second, at = _Visit(b, place, point, out), _Visit(a, place, point, out + 1), (out + 1, out)
    return [first, second, _Instruction(_BINARY[shape.word], out, *at, own)]


def _through(
    visit: _Visit, part: Shape, enter: Op, leave: Op, own: tuple[float, ...], out: int | None = None
) -> list[_Task]:
    """A part in a space of its own, which the next register of points holds, in this one's unit of length."""
    out = visit.out if out is None else out
    parameters = (*_rigid_frame(visit.place), *own)
    inside = np.diag([*[1 / _unit_length(visit.place)] * 3, 1.0])
    return [
        _Instruction(enter, visit.point + 1, visit.point, 0, parameters),
        _Visit(part, inside, visit.point + 1, out),
        _Instruction(leave, out, out, visit.point, parameters),
    ]


def _repeated(visit: _Visit, part: Shape) -> list[_Task]:
    """The union of the copies that can be the closest.

    Parameters of a copy: spacings (3,), the greatest numbers of a copy (3,), or -1 where there is no
    greatest, where along each axis the middle of the shape is (3,), how many copies are looked at (3,), and
    which of them this is (3,).
    """
    spacing, counts = visit.shape.numbers[:3], visit.shape.numbers[3:]
    around = copies(part, spacing, counts)
    length = _unit_length(visit.place)
    with np.errstate(invalid="ignore"):
        middle = np.nan_to_num((part.low + part.high) / 2, nan=0.0, posinf=0.0, neginf=0.0)
    greatest = [count - 1 if count and step else -1.0 for step, count in zip(spacing, counts, strict=True)]
    tasks: list[_Task] = []
    for index in np.ndindex(around):
        lengths = [step * length for step in spacing], middle * length
        own = (*lengths[0], *greatest, *lengths[1], *map(float, around), *map(float, index))
        # The first copy's value waits in `out`, the next one's needs a register more.
        out = visit.out if not tasks else visit.out + 1
        first = not tasks
        tasks += _through(visit, part, Op.ENTER_REPEAT, Op.LEAVE_REPEAT, own, out)
        if not first:
            tasks.append(_Instruction(Op.UNION, visit.out, visit.out, out, (0.0,)))
    return tasks


def _frame(place: Points) -> tuple[float, ...]:
    """M, t and s of a similarity (4, 4)."""
    return (*place[:3, :3].ravel(), *place[:3, 3], _unit_length(place))


def _rigid_frame(place: Points) -> tuple[float, ...]:
    """The frame of what has its own numbers in the point register's unit of length: s is 1."""
    rigid = place.copy()
    rigid[:3] *= _unit_length(place)
    return _frame(rigid)


def _unit_length(place: Points) -> float:
    """The length in a point register's space of a length of 1 in the space that `place` maps it to."""
    return 1 / float(np.linalg.norm(place[:3, 0]))
