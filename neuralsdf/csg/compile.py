"""
compile.py
----------
Compiles a tree of shapes to a tape (neuralsdf/program/tape_format.py).

A chain of sharp unions is treated as one union: all its networks become one NEAREST instruction. The operand
that needs more registers is evaluated first, so that a tree of n leaves of any depth needs at most log2 n + 1
registers.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from ..array_types import Matrix4
from ..errors import UsageError
from ..fields.field import Field
from ..geometry.similarity_transform import Similarity
from ..program.network import Network
from ..program.primitive_distances import PRIMITIVES
from ..program.tape_format import Op, Tape
from .placement_matrices import PLACEMENTS, placement, unit
from .shape import Shape, copies, radius_about_z

SOLID_OPS = {word: Op[word.upper()] for word in PRIMITIVES}
_BINARY = {"|": Op.UNION, "&": Op.INTERSECTION, "-": Op.DIFFERENCE, "blend": Op.BLEND}


#: Minimum length in a solid, relative to the extent of the whole shape; the maximum is its reciprocal.
_MIN_LENGTH = 1e-15


class _Instruction(NamedTuple):
    op: int
    out: int
    a: int
    b: int
    parameters: tuple[float, ...]


class _Visit(NamedTuple):
    """A shape to compile: `place` maps point register `point` to its space; its value goes to `out`."""

    shape: Shape
    place: Matrix4
    point: int
    out: int


class _Nearest(NamedTuple):
    """Networks whose minimum value goes to `out`; their places map point register `point`."""

    leaves: tuple[_Visit, ...]
    point: int
    out: int


_Task = _Instruction | _Visit | _Nearest


def compile_shape(shape: Shape, transform: Similarity) -> Tape:
    """Compile a shape to a tape; `transform` maps the tape's points to the space of the shape."""
    code: list[tuple[int, int, int, int, int]] = []
    parameters: list[float] = []
    leaves: dict[tuple[int, float | None], tuple[int, Field]] = {}

    def leaf_parameters(visit: _Visit) -> tuple[float, ...]:
        """A leaf's frame, including the field's own transform, and its index."""
        field = visit.shape.field
        assert field is not None
        number, _ = leaves.setdefault((id(field.leaf), field.tolerance), (len(leaves), field))
        return *_frame(np.linalg.inv(field.transform.matrix) @ visit.place), number

    tasks: list[_Task] = [_Visit(shape, transform.matrix, 0, 0)]
    points = values = 1
    while tasks:
        task = tasks.pop()
        if not isinstance(task, _Instruction):
            points, values = max(points, task.point + 1), max(values, task.out + 1)
        if isinstance(task, _Instruction):
            code.append((*task[:4], len(parameters)))
            parameters.extend(task.parameters)
        elif isinstance(task, _Nearest):
            code.append((Op.NEAREST, task.out, task.point, len(task.leaves), len(parameters)))
            parameters.extend(number for leaf in task.leaves for number in leaf_parameters(leaf))
        elif task.shape.field is not None:
            tasks.append(_Instruction(Op.FIELD, task.out, task.point, 0, leaf_parameters(task)))
        else:
            tasks.extend(reversed(_tasks(task)))
    return Tape(
        np.array(code, np.int32).reshape(-1, 5),
        np.array(parameters, np.float64),
        tuple(field.leaf for _, field in leaves.values()),
        points,
        values,
        shape.lipschitz,
        tuple(field.tolerance for _, field in leaves.values()),
    )


def _tasks(visit: _Visit) -> list[_Task]:
    """Tasks, in order, that compile a shape other than a field."""
    shape, place, point, out = visit
    word, numbers, length = shape.word, shape.numbers, _unit_length(place)
    if word in SOLID_OPS:
        own = tuple(unit(numbers)) if word == "plane" else tuple(number * length for number in numbers)
        positive = own[:2] if word == "cone" else () if word == "plane" else own  # a cone's top may be 0
        _check_lengths(word, own, positive)
        return [_Instruction(SOLID_OPS[word], out, point, 0, (*_rigid_frame(place), *own))]
    if _is_sharp_union(shape):
        return _union(visit)
    if word in _BINARY:
        return _binary(visit)
    (part,) = shape.parts
    inner = visit._replace(shape=part)
    match word:
        case "file":
            return [inner]
        case _ if word in PLACEMENTS:
            return [_placed(visit)]
        case "~":
            return [inner, _Instruction(Op.NEGATE, out, out, 0, ())]
        case "offset":
            _check_lengths(word, (numbers[0] * length,), ())
            return [inner, _Instruction(Op.OFFSET, out, out, 0, (numbers[0] * length,))]
        case "shell" | "hollow":
            outside = numbers[0] / 2 if word == "shell" else 0.0
            walls = outside * length, (numbers[0] - outside) * length
            _check_lengths(word, walls, ())
            return [inner, _Instruction(Op.WALL, out, out, 0, walls)]
        case "displace":
            _check_lengths(word, (numbers[0] * length,), (numbers[1] * length,))
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


def _check_lengths(word: str, lengths: tuple[float, ...], positive: tuple[float, ...]) -> None:
    """Raise `UsageError` for lengths that single precision cannot square or divide by."""
    if max(map(abs, lengths + positive)) > 1 / _MIN_LENGTH or min(positive, default=1) < _MIN_LENGTH:
        raise UsageError(f"{word}: too large or too small compared with the whole shape")


def _is_sharp_union(shape: Shape) -> bool:
    return shape.word == "|" and not any(shape.numbers)


def _union(visit: _Visit) -> list[_Task]:
    """Tasks of all parts of a sharp union, several networks combined, the most registers first."""
    networks: list[_Visit] = []
    others: list[_Visit | _Nearest] = []
    for part in sorted(_united(visit), key=lambda part: -part.shape.registers):
        field = part.shape.field
        (networks if field is not None and isinstance(field.leaf, Network) else others).append(part)
    others += networks if len(networks) < 2 else [_Nearest(tuple(networks), visit.point, visit.out)]
    first, *rest = others
    tasks: list[_Task] = [first]
    for other in rest:
        tasks.append(other._replace(out=visit.out + 1))
        tasks.append(_Instruction(Op.UNION, visit.out, visit.out, visit.out + 1, (0.0,)))
    return tasks


def _united(visit: _Visit) -> Iterator[_Visit]:
    """The parts of a sharp union from left to right, with nested unions flattened through placements."""
    stack = [visit]
    while stack:
        part = stack.pop()
        shape = part.shape
        if _is_sharp_union(shape):
            stack.extend(part._replace(shape=side) for side in reversed(shape.parts))
        elif shape.word in PLACEMENTS:
            stack.append(_placed(part))
        elif shape.word == "file" and shape.parts:
            stack.append(part._replace(shape=shape.parts[0]))
        else:
            yield part


def _placed(visit: _Visit) -> _Visit:
    """The part that a placement moves, with the placement applied."""
    shape = visit.shape
    place = np.linalg.inv(placement(shape.word, shape.numbers)) @ visit.place
    return visit._replace(shape=shape.parts[0], place=place)


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
    """Tasks of a part in its own space, held by the next point register, in the unit of this one."""
    out = visit.out if out is None else out
    parameters = (*_rigid_frame(visit.place), *own)
    inside = np.diag([*[1 / _unit_length(visit.place)] * 3, 1.0])
    return [
        _Instruction(enter, visit.point + 1, visit.point, 0, parameters),
        _Visit(part, inside, visit.point + 1, out),
        _Instruction(leave, out, out, visit.point, parameters),
    ]


def _repeated(visit: _Visit, part: Shape) -> list[_Task]:
    """The union of the copies that can be closest.

    Parameters of a copy: spacings (3,); maximum index of a copy (3,), or -1 if unlimited; centre of the shape
    along each axis (3,); number of candidate copies (3,); index of this one among them (3,).
    """
    spacing, counts = visit.shape.numbers[:3], visit.shape.numbers[3:]
    candidates = copies(part, spacing, counts)
    length = _unit_length(visit.place)
    with np.errstate(invalid="ignore"):
        middle = np.nan_to_num((part.low + part.high) / 2, nan=0.0, posinf=0.0, neginf=0.0)
    max_index = [count - 1 if count and step else -1.0 for step, count in zip(spacing, counts, strict=True)]
    tasks: list[_Task] = []
    for index in np.ndindex(candidates):
        lengths = [step * length for step in spacing], middle * length
        own = (*lengths[0], *max_index, *lengths[1], *map(float, candidates), *map(float, index))
        # The first copy's value stays in `out`; the next one needs another register.
        out = visit.out if not tasks else visit.out + 1
        first = not tasks
        tasks += _through(visit, part, Op.ENTER_REPEAT, Op.LEAVE_REPEAT, own, out)
        if not first:
            tasks.append(_Instruction(Op.UNION, visit.out, visit.out, out, (0.0,)))
    return tasks


def _frame(place: Matrix4) -> tuple[float, ...]:
    """Frame (M, t, s) of a similarity (4, 4)."""
    return (*place[:3, :3].ravel(), *place[:3, 3], _unit_length(place))


def _rigid_frame(place: Matrix4) -> tuple[float, ...]:
    """Frame for an instruction with parameters in the point register's unit of length: s is 1."""
    rigid = place.copy()
    rigid[:3] *= _unit_length(place)
    return _frame(rigid)


def _unit_length(place: Matrix4) -> float:
    """Length in a point register's space of a unit length in the space that `place` maps it to."""
    stretch = math.hypot(*place[:3, 0])  # neither underflows nor overflows
    if not 0 < stretch < math.inf:
        raise UsageError("a part of the shape is scaled out of the range of double precision")
    return 1 / stretch
