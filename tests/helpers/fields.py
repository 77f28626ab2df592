"""Fields with known distances, for tests."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from neuralsdf.array_types import FloatArray
from neuralsdf.fields.field import Field, NeuralField
from neuralsdf.geometry.similarity_transform import Similarity
from neuralsdf.program.network import Architecture, Network

Function = Callable[[npt.NDArray[np.float64]], npt.NDArray[Any]]


class Analytic(Field):
    """A function of points (n, 3) as a field; the gradient is computed with central differences."""

    kind = "distance"

    def __init__(self, function: Function, transform: Similarity | None = None) -> None:
        self.function = function
        self.transform = transform or Similarity.identity()

    def value(self, points: FloatArray) -> FloatArray:
        return self.function(points.astype(np.float64)).astype(np.float32)

    def value_and_gradient(self, points: FloatArray) -> tuple[FloatArray, FloatArray]:
        steps = 1e-5 * np.eye(3)
        slopes = [self.function(points + step) - self.function(points - step) for step in steps]
        return self.value(points), (np.stack(slopes, axis=1) / 2e-5).astype(np.float32)


def sphere(radius: float, *centre: float) -> Function:
    middle = np.array(centre or (0, 0, 0))
    return lambda p: np.linalg.norm(p - middle, axis=1) - radius


def torus(major: float, minor: float) -> Function:
    return lambda p: np.hypot(np.hypot(p[:, 0], p[:, 1]) - major, p[:, 2]) - minor


def box(*half: float) -> Function:
    def distance(p: npt.NDArray[np.float64]) -> npt.NDArray[Any]:
        q = np.abs(p) - np.array(half)
        return np.linalg.norm(np.maximum(q, 0), axis=1) + np.minimum(q.max(axis=1), 0)

    return distance


def union(*functions: Function) -> Function:
    return lambda p: np.min([function(p) for function in functions], axis=0)


def bumpy(function: Function, amplitude: float, frequency: float) -> Function:
    """A function with a smooth error added, such as that of a network."""
    return lambda p: function(p) + amplitude * np.sin(frequency * p).prod(axis=1)


def octahedron(size: float) -> Network:
    """|x| + |y| + |z| - size as a network, exact up to the rounding of sums."""
    kernel = np.repeat(np.eye(3), 2, axis=1) * np.tile([1, -1], 3)
    weights = np.concatenate([kernel.ravel(), np.zeros(6), np.ones(6), [-size]])
    return Network(Architecture((6,), output="linear"), weights.astype(np.float32))


def ball_field(**changes: object) -> NeuralField:
    """|x| + |y| + |z| - 0.5, an octahedron, as a network; placed at (10, 20, 30) with a scale of 4."""
    directions = np.concatenate([np.eye(3), -np.eye(3)])
    hidden = np.concatenate([directions.T.ravel(), np.zeros(6)])
    weights = np.concatenate([hidden, np.ones(6), [-0.5]]).astype(np.float32)
    network = Network(Architecture((6,), output="linear"), weights)
    return NeuralField(network, Similarity.from_ball([10.0, 20.0, 30.0], 4.0), **changes)
