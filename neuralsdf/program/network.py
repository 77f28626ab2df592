"""
network.py
----------
The network: its architecture, flat weight vector, initialisation and widening.

    f(x) = output(W_L ... act(W_1 act(W_0 x + b_0) + b_1) ... + b_L)       (paper, section 2.1.1)

The flat vector is stored layer by layer, kernel (in, out) row-major, then bias, float32; n shapes of one
architecture are an (n, P) array.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import pairwise
from math import sqrt
from typing import Any

import numpy as np
import numpy.typing as npt

from ..array_types import FloatArray
from ..errors import UsageError

#: relu, elu (alpha 1), silu and tanh are the standard functions; sine is sin(30 z), as in SIREN; softplus is
#: log(1 + exp(100 z)) / 100, the sharp variant used for distance fields (IGR).
ACTIVATIONS = ("relu", "sine", "softplus", "silu", "elu", "tanh")
OUTPUTS = ("tanh", "linear")
SINE_FREQUENCY = 30.0
SOFTPLUS_SHARPNESS = 100.0

#: Activations with values in [-1, 1], and the maximum derivatives of those where it exceeds 1.
_BOUNDED = ("sine", "tanh")
_STEEPEST = {"sine": SINE_FREQUENCY, "silu": 1.1}

#: Limits on architectures from files and options, so that an untrusted file cannot exhaust the memory.
MAX_LAYERS = 256
MAX_WIDTH = 8192
MAX_WEIGHTS = 1 << 28


@dataclass(frozen=True)
class Architecture:
    """Shape of a fully connected network from 3 coordinates to one value.

    hidden: width of each hidden layer. activation: hidden activation function, one of `ACTIVATIONS`.
    output: output activation function, one of `OUTPUTS`. Raises `UsageError` for other values.
    """

    hidden: tuple[int, ...] = (32,) * 8
    activation: str = "relu"
    output: str = "tanh"

    def __post_init__(self) -> None:
        if not 1 <= len(self.hidden) <= MAX_LAYERS:
            raise UsageError(f"a network has 1 to {MAX_LAYERS} hidden layers, not {len(self.hidden)}")
        if not all(1 <= width <= MAX_WIDTH for width in self.hidden):
            raise UsageError(f"a hidden layer has a width of 1 to {MAX_WIDTH}, not {self.hidden}")
        if self.activation not in ACTIVATIONS:
            raise UsageError(f"unknown activation {self.activation!r}; one of {', '.join(ACTIVATIONS)}")
        if self.output not in OUTPUTS:
            raise UsageError(f"unknown output {self.output!r}; one of {', '.join(OUTPUTS)}")
        if self.weight_count > MAX_WEIGHTS:
            raise UsageError(f"{self.weight_count} weights exceed the limit of {MAX_WEIGHTS}")

    @classmethod
    def uniform(cls, layers: int, width: int, activation: str = "relu") -> Architecture:
        """An architecture of `layers` hidden layers of `width` neurons each."""
        if not 1 <= layers <= MAX_LAYERS:
            raise UsageError(f"`layers={layers}` is out of range (1 to {MAX_LAYERS})")
        return cls((width,) * layers, activation)

    @cached_property
    def layer_shapes(self) -> tuple[tuple[int, int], ...]:
        """(in, out) of every layer, the output layer included."""
        sizes = (3, *self.hidden, 1)
        return tuple(pairwise(sizes))

    @property
    def weight_count(self) -> int:
        """Length P of the flat weight vector: 7553 for the default network."""
        return sum((rows + 1) * columns for rows, columns in self.layer_shapes)

    def layers(self, weights: npt.NDArray[Any]) -> Iterator[tuple[npt.NDArray[Any], npt.NDArray[Any]]]:
        """(kernel (in, out), bias (out,)) of every layer, as views of the flat vector (P,)."""
        start = 0
        for rows, columns in self.layer_shapes:
            middle = start + rows * columns
            end = middle + columns
            yield weights[start:middle].reshape(rows, columns), weights[middle:end]
            start = end

    def __str__(self) -> str:
        widths = set(self.hidden)
        shape = (
            f"{len(self.hidden)}x{self.hidden[0]}" if len(widths) == 1 else "-".join(map(str, self.hidden))
        )
        return f"{shape} {self.activation}"

    def to_json(self) -> dict[str, Any]:
        """A JSON-serialisable dict that `from_json` reads."""
        return {"hidden": list(self.hidden), "activation": self.activation, "output": self.output}

    @classmethod
    def from_json(cls, value: Any) -> Architecture:
        """The architecture from the output of `to_json`; raises `UsageError` if `value` is invalid."""
        if not isinstance(value, dict) or not isinstance(value.get("hidden"), list):
            raise UsageError("the architecture is not an object with a list `hidden`")
        hidden = value["hidden"]
        if not all(isinstance(width, int) and not isinstance(width, bool) for width in hidden):
            raise UsageError("the widths of the hidden layers are not whole numbers")
        return cls(tuple(hidden), str(value.get("activation")), str(value.get("output")))


@dataclass(frozen=True, eq=False)
class Network:
    """An architecture and its weights (P,) float32, as evaluated by a backend.

    Raises `UsageError` if the number of weights does not match the architecture, or a weight is not finite.
    """

    architecture: Architecture
    weights: FloatArray

    def __post_init__(self) -> None:
        expected = (self.architecture.weight_count,)
        if self.weights.dtype != np.float32 or self.weights.shape != expected:
            raise UsageError(
                f"a {self.architecture} network has {expected[0]} float32 weights, "
                f"not {self.weights.shape} {self.weights.dtype}"
            )
        if not np.isfinite(self.weights).all():
            raise UsageError("the weights are not all finite")


def without_denormals(weights: FloatArray) -> FloatArray:
    """Weights (P,) with denormal numbers replaced by zero: processors are slow with them."""
    tiny = np.abs(weights) < np.finfo(np.float32).tiny
    return np.where(tiny, np.float32(0), weights) if tiny.any() else weights


def largest_sum(network: Network) -> float:
    """Upper bound (inf if there is none) on every sum computed when the network or its gradient, in forward
    or reverse mode, is evaluated in the unit ball.

    Computed from absolute weights; the sums of a deep network are far smaller.
    """
    layers = list(network.architecture.layers(network.weights))
    largest, steepest = 1.0, _STEEPEST.get(network.architecture.activation, 1.0)
    with np.errstate(over="ignore", invalid="ignore"):  # 0 * inf
        values, forward = np.ones(3), np.ones(3)
        for kernel, bias in layers:
            values = values @ np.abs(kernel, dtype=np.float64) + np.abs(bias)
            forward = steepest * (forward @ np.abs(kernel, dtype=np.float64))
            largest = max(largest, SINE_FREQUENCY * values.max(), forward.max())
            if network.architecture.activation in _BOUNDED:
                values = np.minimum(values, 1.0)
        backward = np.ones(1)
        for kernel, _ in reversed(layers):
            backward = steepest * (np.abs(kernel, dtype=np.float64) @ backward)
            largest = max(largest, backward.max())
    return float(largest) if largest == largest else float("inf")


def initialise(architecture: Architecture, seed: int) -> FloatArray:
    """Random weights (P,): Glorot uniform (Keras's default, used by the paper), zero biases.

    Sine networks are initialised as in SIREN (Sitzmann et al. 2020, section 3.2): first layer
    U(-1/in, 1/in), the others U(-sqrt(6/in)/30, sqrt(6/in)/30).
    """
    rng = np.random.default_rng(seed)
    weights = np.zeros(architecture.weight_count, np.float32)
    for index, (kernel, _) in enumerate(architecture.layers(weights)):
        rows, columns = kernel.shape
        if architecture.activation == "sine":
            limit = 1 / rows if index == 0 else sqrt(6 / rows) / SINE_FREQUENCY
        else:
            limit = sqrt(6 / (rows + columns))
        kernel[:] = rng.uniform(-limit, limit, kernel.shape)
    return weights


def widen(network: Network, architecture: Architecture, seed: int) -> FloatArray:
    """Weights (P',) of a wider `architecture` of the same depth that computes the same function as `network`.

    New units are initialised as in `initialise`; their weights to old units and to the output start at zero,
    so that the function is unchanged until training (after Chen et al. 2016, "Net2Net").
    Raises `UsageError` if `architecture` is not a wider version of the network's.
    """
    before = network.architecture
    like = replace(architecture, hidden=before.hidden)
    narrower = any(a > b for a, b in zip(before.hidden, architecture.hidden, strict=False))
    if like != before or len(before.hidden) != len(architecture.hidden) or narrower:
        raise UsageError(f"a {before} network cannot be widened to {architecture}")
    weights = initialise(architecture, seed)
    layers = zip(architecture.layers(weights), before.layers(network.weights), strict=True)
    for (kernel, bias), (old_kernel, old_bias) in layers:
        rows, columns = old_kernel.shape
        kernel[:, :columns] = 0
        kernel[:rows, :columns] = old_kernel
        bias[:columns] = old_bias
    return weights
