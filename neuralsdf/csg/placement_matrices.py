"""
placement_matrices.py
---------------------
Placement of shapes: matrices (4, 4), and their effect on boxes.
"""

from __future__ import annotations

import math

import numpy as np

from ..array_types import Matrix4, Points, Vectors

#: Words of the language that place a shape as a whole.
PLACEMENTS = ("translate", "rotate", "scale", "reflect")


def placement(word: str, numbers: tuple[float, ...]) -> Matrix4:
    """The matrix (4, 4) of a word of `PLACEMENTS`."""
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
    """Normalise a vector (3,)."""
    along = np.array(vector) / max(map(abs, vector))  # squares neither underflow nor overflow
    direction: Vectors = along / np.linalg.norm(along)
    return direction


def moved_box(matrix: Matrix4, low: Points, high: Points) -> tuple[Points, Points]:
    """Bounds of a box, possibly infinite, after an affine map (4, 4)."""
    linear = matrix[:3, :3]
    with np.errstate(invalid="ignore", over="ignore"):
        ends = np.stack([linear * low, linear * high])  # [end, row, column]
    ends = np.where(linear == 0, 0, ends)  # 0 * inf is 0 here
    return ends.min(axis=0).sum(axis=1) + matrix[:3, 3], ends.max(axis=0).sum(axis=1) + matrix[:3, 3]


def stretch(matrix: Matrix4) -> float:
    """Largest coordinate of a unit cube's corner after the rotation part of a similarity."""
    linear = matrix[:3, :3]
    # `hypot` neither underflows nor overflows.
    return float(np.abs(linear).sum(axis=1).max() / math.hypot(*linear[:, 0]))


def _rotation(angle: float, axis: Vectors) -> Points:
    """Rotation (3, 3) by an angle in degrees about a unit vector (Rodrigues); exact for right angles."""
    quarters, rest = divmod(angle, 90)
    cosine, sine = math.cos(math.radians(rest)), math.sin(math.radians(rest))
    for _ in range(int(quarters) % 4):
        cosine, sine = -sine, cosine
    x, y, z = axis
    cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    rotation: Points = cosine * np.eye(3) + sine * cross + (1 - cosine) * np.outer(axis, axis)
    return rotation
