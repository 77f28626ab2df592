"""
optimizer_steps.py
------------------
The reference implementation of the optimizers, with which every backend's own is compared.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np

from ...array_types import FloatArray
from ...program.network import Architecture
from ...program.optimizer_settings import Optimizer


class Stepper(Protocol):
    """Updates a flat weight vector (P,) float32 in place."""

    def step(self, weights: FloatArray, gradient: FloatArray, rate: float) -> None:
        """Take one step against `gradient` (P,) with learning rate `rate`."""
        ...


def make_stepper(optimizer: Optimizer, architecture: Architecture) -> Stepper:
    """The reference implementation of an optimizer."""
    return (Soap if optimizer.method == "soap" else Adam)(optimizer, architecture)


class Adam:
    """Adam with bias correction."""

    def __init__(self, optimizer: Optimizer, architecture: Architecture) -> None:
        self._beta1, self._beta2, self._epsilon = optimizer.beta1, optimizer.beta2, optimizer.epsilon
        self._mean = np.zeros(architecture.weight_count, np.float32)
        self._square = np.zeros(architecture.weight_count, np.float32)
        self._steps = 0

    def step(self, weights: FloatArray, gradient: FloatArray, rate: float) -> None:
        """Take one step against `gradient` (P,)."""
        self._steps += 1
        self._mean += (1 - self._beta1) * (gradient - self._mean)
        self._square += (1 - self._beta2) * (gradient * gradient - self._square)
        mean = self._mean / (1 - self._beta1**self._steps)
        square = self._square / (1 - self._beta2**self._steps)
        weights -= np.float32(rate) * mean / (np.sqrt(square) + np.float32(self._epsilon))


class Soap:
    """SOAP: for each layer, kernel and bias form one (in + 1, out) matrix G; L = E[G G^T], R = E[G^T G].

    Adam runs in the basis Q_L, Q_R of their eigenvectors, which are updated by one step of orthogonal
    iteration (a QR decomposition) every `refresh` steps, starting from the identity.
    """

    def __init__(self, optimizer: Optimizer, architecture: Architecture) -> None:
        self._layers: list[tuple[slice, _SoapLayer]] = []
        start = 0
        for rows, columns in architecture.layer_shapes:
            extent = slice(start, start + (rows + 1) * columns)
            self._layers.append((extent, _SoapLayer(optimizer, rows + 1, columns)))
            start = extent.stop

    def step(self, weights: FloatArray, gradient: FloatArray, rate: float) -> None:
        """Take one step against `gradient` (P,)."""
        for extent, layer in self._layers:
            weights[extent] -= np.float32(rate) * layer.direction(gradient[extent])


class _SoapLayer:
    """Optimizer state of one layer, a (rows, columns) matrix."""

    def __init__(self, optimizer: Optimizer, rows: int, columns: int) -> None:
        self._shape = (rows, columns)
        self._beta, self._refresh = optimizer.beta2, optimizer.refresh
        self._epsilon = np.float32(optimizer.epsilon)
        self._left, self._right = (np.zeros((n, n), np.float32) for n in self._shape)
        self._left_basis, self._right_basis = (np.eye(n, dtype=np.float32) for n in self._shape)
        self._mean = np.zeros(self._shape, np.float32)
        self._square = np.zeros(self._shape, np.float32)
        self._steps = 0

    def direction(self, gradient: FloatArray) -> FloatArray:
        """The update of the layer's weights, to be subtracted, for a learning rate of 1."""
        self._steps += 1
        rate = np.float32(1 - self._beta)
        g = gradient.reshape(self._shape)
        self._left += rate * (g @ g.T - self._left)
        self._right += rate * (g.T @ g - self._right)
        left, right = self._left_basis, self._right_basis
        rotated = left.T @ g @ right
        self._mean += rate * (rotated - self._mean)
        self._square += rate * (rotated * rotated - self._square)
        correction = np.float32(1 - self._beta**self._steps)
        scaled = (self._mean / correction) / (np.sqrt(self._square / correction) + self._epsilon)
        result: FloatArray = (left @ scaled @ right.T).reshape(-1)
        if self._steps % self._refresh == 0:
            self._left_basis = np.linalg.qr(self._left @ left).Q
            self._right_basis = np.linalg.qr(self._right @ right).Q
            # The mean is a gradient: transform it to the new basis.
            self._mean = (self._left_basis.T @ left) @ self._mean @ (right.T @ self._right_basis)
        return result
