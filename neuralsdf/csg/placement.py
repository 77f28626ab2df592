"""
placement.py
------------
How shapes are placed: matrices (4, 4), and what they make of boxes.
"""

from __future__ import annotations

import math

import numpy as np

from ..arrays import Matrix4, Points, Vectors

#: Words of the language that move a shape as a whole.
PLACEMENTS = ("translate", "rotate", "scale", "reflect")


def placement(word: str, numbers: tuple[float, ...]) -> Matrix4:
    """The matrix (4, 4) by which a word of `PLACEMENTS` moves a shape."""
    matrix = np.eye(4)
    if word == "translate":
        matrix[:3, 3] = numbers
    elif word == "scale":
        matrix[:3, :3] *= numbers[0]
    elif word == "reflect":
        normal = unit(numbers)
        matrix[:3, :3] -= 2 * np.outer(normal, normal)
    else:
        matrix[:3, :3] = _rotation(numbers[0], unit(numbers[1:]))
    return matrix


def unit(vector: tuple[float, ...]) -> Vectors:
    """A vector (3,) made 1 long."""
    along = np.array(vector) / max(map(abs, vector))  # which neither underflows nor overflows when squared
    direction: Vectors = along / np.linalg.norm(along)
    return direction


def moved_box(matrix: Matrix4, low: Points, high: Points) -> tuple[Points, Points]:
    """The bounds of a box, which may be infinite, that an affine map (4, 4) has moved."""
    linear = matrix[:3, :3]
    with np.errstate(invalid="ignore", over="ignore"):
        ends = np.stack([linear * low, linear * high])  # [end, row, column]
    ends = np.where(linear == 0, 0, ends)  # nothing times infinity is nothing here
    return ends.min(axis=0).sum(axis=1) + matrix[:3, 3], ends.max(axis=0).sum(axis=1) + matrix[:3, 3]


def stretch(matrix: Matrix4) -> float:
    """The greatest coordinate of the corner of a unit cube that a similarity turns, its scale left out."""
    linear = matrix[:3, :3]
    # `hypot` neither underflows nor overflows when it squares.
    return float(np.abs(linear).sum(axis=1).max() / math.hypot(*linear[:, 0]))


def _rotation(angle: float, axis: Vectors) -> Points:
    """The rotation (3, 3) by an angle in degrees about a unit vector (Rodrigues); exact for right angles."""
    quarters, rest = divmod(angle, 90)
    cosine, sine = math.cos(math.radians(rest)), math.sin(math.radians(rest))
    for _ in range(int(quarters) % 4):
        cosine, sine = -sine, cosine
    x, y, z = axis
    cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    rotation: Points = cosine * np.eye(3) + sine * cross + (1 - cosine) * np.outer(axis, axis)
    return rotation
