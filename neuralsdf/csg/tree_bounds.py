"""
tree_bounds.py
--------------
The box and the ball that contain a tree, tighter than the bounds known without evaluating it.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from ..array_types import Points
from ..backends.reference.tape_interpreter import TapeProgram
from ..errors import EmptyShapeError, NoSurfaceError, UsageError
from ..fields.field import Field, require_range
from ..geometry.similarity_transform import Similarity
from ..geometry.unit_ball import minimum_enclosing_ball, uniform_ball
from ..program.tape_format import Op, Tape
from .compile import compile_shape
from .shape import Shape

#: Number of subdivisions in the search for the enclosing ball; cells end at 2^-_HALVINGS of the extent.
_HALVINGS = 6
#: Maximum number of cells; a tree with a large Lipschitz bound exceeds it and gets a larger ball.
_MAX_CELLS = 1 << 18
#: Budget of the search in operations times cells; a tree that exceeds it gets a larger ball. A block of cells
#: costs at least `_BLOCK`.
_MAX_WORK, _BLOCK = 1 << 28, 1 << 8
#: Cost in operations of the value of a mesh or other field, and of a network. A leaf with more operations
#: of its own (`Field.operations`) than `_LEAF_OPERATIONS` costs 1 more for each 2 of them.
_OF_FIELD, _OF_NETWORK, _LEAF_OPERATIONS = 100, 20, 1000

#: Range of sizes of a shape, and minimum size relative to the distance from the origin, in double precision.
_MIN_SIZE, _MAX_SIZE, _FARTHEST = 1e-100, 1e100, 1e-10

#: Gradient norms measured for all leaves together, and their minimum and maximum number per leaf.
_GRADIENTS, _GRADIENTS_PER_FIELD = 1 << 17, (1 << 11, 1 << 14)
#: Maximum number of operations for the norms of one large network, and their minimum number.
_GRADIENT_WORK, _MIN_GRADIENTS = 1 << 27, 1 << 10

_CORNERS = np.array([[x, y, z] for x in (-1, 1) for y in (-1, 1) for z in (-1, 1)], np.float64)


def scaled_fields(shape: Shape) -> Iterator[tuple[Field, float]]:
    """The fields of a shape, and the scale of each in the tree."""
    stack = [(shape, 1.0)]
    while stack:
        node, scale = stack.pop()
        if node.field is not None:
            yield node.field, scale
        scale *= node.numbers[0] if node.word == "scale" else 1.0
        stack.extend((part, scale) for part in node.parts)


def _gradient_norm(field: Field, samples: int) -> float:
    """99.9th percentile of the gradient norm of a field in its ball, at least 1.

    Raises `NoSurfaceError` for a distance that is nearly constant.
    """
    samples = min(samples, max(_MIN_GRADIENTS, _GRADIENT_WORK // field.operations))
    points = uniform_ball(samples, np.random.default_rng(0))
    values, gradients = field.value_and_gradient(points.astype(np.float32))
    require_range(field, values)
    return max(1.0, float(np.quantile(np.linalg.norm(gradients, axis=1), 0.999)))


def enclosed(shape: Shape) -> tuple[Points, Points, Similarity]:
    """A box and a ball that contain a shape, tighter than its known bounds."""
    low, high = shape.low, shape.high
    work = _MAX_WORK
    while True:
        with np.errstate(over="ignore"):
            extent = float((high - low).max())
        low, high, corners, work = _tightened(shape, low, high, work)
        if float((high - low).max()) > extent / 4 or not work:  # else the cells were too coarse: repeat
            break
    middle, radius = minimum_enclosing_ball(corners)
    return low, high, Similarity.from_ball(middle, radius)


def _tightened(shape: Shape, low: Points, high: Points, work: int) -> tuple[Points, Points, Points, int]:
    """A box within that from `low` to `high`, and points (n, 3) whose convex hull also contains the shape.

    work: budget in operations times cells; the last result is the remainder, 0 if the budget did not suffice.

    A cell with centre c and half-diagonal r is outside the shape if f(c) > L r, and contains no surface if
    f(c) < -L r. L includes the gradient norm of the networks, measured.
    """
    with np.errstate(over="ignore"):
        centre, extent = low / 2 + high / 2, float((high - low).max())
    if not extent > 0:
        raise EmptyShapeError("the shape is empty: it has no interior")
    if not _MIN_SIZE < extent < _MAX_SIZE:
        size = f"{extent:.3g}" if extent < _MAX_SIZE else f"more than {_MAX_SIZE:g}"
        raise UsageError(f"the shape is {size} across, which is out of the range of double precision")
    if extent < _FARTHEST * np.abs(centre).max():
        raise UsageError("the shape lies too far from the origin for its size: its position is rounded off")
    # Evaluate in a space where the box has size 1, to be independent of the size.
    tape = compile_shape(shape, Similarity.from_ball(centre, extent))
    program = TapeProgram(tape, shape.backend.compile)  # evaluates in the dtype of the points
    unknown = {id(field): field for field in shape.fields() if field.lipschitz is None}
    samples = int(np.clip(_GRADIENTS // max(1, len(unknown)), *_GRADIENTS_PER_FIELD))
    names = {id(node.field): node.name for node in shape.leaves()}
    measured = []
    for number, field in unknown.items():
        try:
            measured.append(_gradient_norm(field, samples))
        except NoSurfaceError as error:
            raise NoSurfaceError(f"{names.get(number, 'a model')}: {error}") from error
    steepest = shape.lipschitz * max([1.0, *measured])
    leaves = {id(field): field.operations for field in shape.fields()}
    each = _operations(tape) + sum(max(0, own - _LEAF_OPERATIONS) // 2 for own in leaves.values())
    half, cells, kept = 0.5, np.zeros((1, 3)), []
    for halving in range(_HALVINGS + 1):
        value = program.evaluate(cells)
        work -= each * max(len(cells), _BLOCK)
        reach = steepest * half * np.sqrt(3) * (1 + 1e-9)
        whole, some = value < -reach, np.abs(value) <= reach
        kept.append(_corners(cells[whole], half))
        cells = cells[some]
        if halving == _HALVINGS or 8 * len(cells) > _MAX_CELLS:
            break
        if work < each * max(8 * len(cells), _BLOCK):
            work = 0
            break
        half /= 2
        cells = _corners(cells, half)
    corners = np.concatenate([*kept, _corners(cells, half)])
    if not len(corners):
        raise EmptyShapeError("the shape is empty: it has no interior")
    corners = corners * extent + centre
    low = np.maximum(corners.min(axis=0), low)
    high = np.minimum(corners.max(axis=0), high)
    return low, high, np.clip(corners, low, high), work


def _operations(tape: Tape) -> int:
    """Cost of a tape per cell, in operations."""
    op, count = tape.code[:, 0], tape.code[:, 3]
    networks = int(count[op == Op.NEAREST].sum())
    return len(op) + _OF_FIELD * int((op == Op.FIELD).sum()) + _OF_NETWORK * networks


def _corners(centres: Points, half: float) -> Points:
    """The corners (8 n, 3) of cells with centres (n, 3), or centres of their octants, at offset `half`."""
    return (centres[:, None] + half * _CORNERS).reshape(-1, 3)
