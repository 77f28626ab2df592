"""
optimize.py
-----------
Optimisers on the flat weight vector.

    soap   Adam in the eigenbasis of Shampoo's preconditioner (Vyas et al. 2024, "SOAP"). The layers of
           a small network are tiny matrices, so their full preconditioners cost next to nothing, and it
           reaches the error of Adam with a twentieth of the samples. The default.
    adam   Kingma and Ba 2014: what the paper used.
"""

from __future__ import annotations

from itertools import groupby
from typing import Protocol

import numpy as np
import numpy.typing as npt

from .errors import UsageError
from .network import Architecture, FloatArray

_EPSILON = 1e-8


class Optimizer(Protocol):
    """Updates a flat weight vector (P,) float32 in place."""

    def step(self, weights: FloatArray, gradient: FloatArray, rate: float) -> None:
        """One step against `gradient` (P,) with learning rate `rate`."""
        ...


class Adam:
    """Adam with bias correction."""

    learning_rate = 1e-3  # the one of the authors' released code; the paper prints 1e-4

    def __init__(self, architecture: Architecture, beta1: float = 0.9, beta2: float = 0.999) -> None:
        self._beta1, self._beta2 = beta1, beta2
        self._mean = np.zeros(architecture.weight_count, np.float32)
        self._square = np.zeros(architecture.weight_count, np.float32)
        self._steps = 0

    def step(self, weights: FloatArray, gradient: FloatArray, rate: float) -> None:
        """One step against `gradient` (P,)."""
        self._steps += 1
        self._mean += (1 - self._beta1) * (gradient - self._mean)
        self._square += (1 - self._beta2) * (gradient * gradient - self._square)
        mean = self._mean / (1 - self._beta1**self._steps)
        square = self._square / (1 - self._beta2**self._steps)
        weights -= np.float32(rate) * mean / (np.sqrt(square) + _EPSILON)


class Soap:
    """SOAP: each layer, kernel and bias as one (in + 1, out) matrix G, has L = E[G G^T], R = E[G^T G].

    Adam runs in the basis Q_L, Q_R of their eigenvectors, which follow by one step of orthogonal
    iteration (a QR decomposition) every `refresh` steps.
    """

    learning_rate = 3e-3

    def __init__(self, architecture: Architecture, beta: float = 0.95, refresh: int = 10) -> None:
        self._groups: list[_SoapGroup] = []
        start = 0
        # Layers of one shape lie side by side in the flat vector: one stack of matrices, one call each.
        for (rows, columns), same in groupby(architecture.layer_shapes):
            count = len(list(same))
            self._groups.append(_SoapGroup(start, count, rows + 1, columns, beta, refresh))
            start += count * (rows + 1) * columns

    def step(self, weights: FloatArray, gradient: FloatArray, rate: float) -> None:
        """One step against `gradient` (P,)."""
        for group in self._groups:
            group.step(weights, gradient, rate)


class _SoapGroup:
    """The layers [start, start + count rows columns) of the flat vector as (count, rows, columns)."""

    def __init__(self, start: int, count: int, rows: int, columns: int, beta: float, refresh: int) -> None:
        self._slice = slice(start, start + count * rows * columns)
        self._shape = (count, rows, columns)
        self._beta, self._refresh = np.float32(beta), refresh
        self._left = np.zeros((count, rows, rows), np.float32)
        self._right = np.zeros((count, columns, columns), np.float32)
        self._left_basis = np.zeros_like(self._left)
        self._right_basis = np.zeros_like(self._right)
        self._mean = np.zeros(self._shape, np.float32)
        self._square = np.zeros(self._shape, np.float32)
        self._steps = 0

    def step(self, weights: FloatArray, gradient: FloatArray, rate: float) -> None:
        g = gradient[self._slice].reshape(self._shape)
        g_transposed = g.transpose(0, 2, 1)
        self._left += (1 - self._beta) * (g @ g_transposed - self._left)
        self._right += (1 - self._beta) * (g_transposed @ g - self._right)
        if self._steps == 0:  # the first gradient only sets the basis
            self._left_basis = _eigenvectors(self._left)
            self._right_basis = _eigenvectors(self._right)
            self._steps = 1
            return
        left, right = self._left_basis, self._right_basis
        left_transposed, right_transposed = left.transpose(0, 2, 1), right.transpose(0, 2, 1)
        rotated = left_transposed @ g @ right
        self._mean += (1 - self._beta) * (g - self._mean)
        self._square += (1 - self._beta) * (rotated * rotated - self._square)
        correction = 1 - float(self._beta) ** self._steps
        direction = (left_transposed @ self._mean @ right) / np.float32(correction)
        direction /= np.sqrt(self._square / np.float32(correction)) + np.float32(_EPSILON)
        weights[self._slice] -= np.float32(rate) * (left @ direction @ right_transposed).reshape(-1)
        self._steps += 1
        if self._steps % self._refresh == 0:
            self._left_basis = np.linalg.qr(self._left @ left).Q
            self._right_basis = np.linalg.qr(self._right @ right).Q


def _eigenvectors(matrices: FloatArray) -> FloatArray:
    """Eigenvectors, as columns, of symmetric matrices (k, n, n)."""
    vectors: npt.NDArray[np.float64] = np.linalg.eigh(matrices.astype(np.float64)).eigenvectors
    return vectors.astype(np.float32)


_OPTIMIZERS: dict[str, type[Adam] | type[Soap]] = {"soap": Soap, "adam": Adam}
OPTIMIZERS = tuple(_OPTIMIZERS)


def make_optimizer(name: str, architecture: Architecture) -> tuple[Optimizer, float]:
    """The optimiser called `name`, and its own learning rate; raises `UsageError` for an unknown name."""
    if name not in _OPTIMIZERS:
        raise UsageError(f"--optimizer {name}: one of {', '.join(OPTIMIZERS)}")
    kind = _OPTIMIZERS[name]
    return kind(architecture), kind.learning_rate
