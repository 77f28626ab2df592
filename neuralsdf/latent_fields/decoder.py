"""
decoder.py
----------
The decoder of a DeepSDF model (Park et al. 2019, section 4): one network for many shapes, from a latent code
z and a point x to a signed distance.

    f(z, x) = output(W_L ... act(W_s [act(W_{s-1} ...), z, x] + b_s) ... + b_L),   the first layer on [z, x]

The skip layer s also gets the input. Its value may be limited to the distances that the training knew. For a
fixed code it is a plain network of the point (folding.py).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from hashlib import sha256
from math import atanh
from typing import Any

import numpy as np
import numpy.typing as npt

from ..array_types import FloatArray, Values
from ..errors import UsageError
from ..program.network import (
    MAX_WEIGHTS,
    MAX_WIDTH,
    SOFTPLUS_SHARPNESS,
    Architecture,
    Network,
)
from .folding import Folding

#: Hidden activations that folding.py supports.
ACTIVATIONS = ("relu", "softplus")

#: Largest limit of the values; distances in the unit ball are at most 2.
MAX_CLAMP = 10.0

#: Neurons of folding.py that carry a point, act(x) and act(-x) of each coordinate, and that limit the output.
_CARRYING, _LIMITING = 6, 2

#: Points that the reference evaluates at once.
_BLOCK = 4096


@dataclass(frozen=True)
class DecoderShape:
    """Layers of a decoder.

    hidden: inputs of each layer after the first. The layer before the skip has `code + 3` neurons less,
    because the input of the decoder is appended to them. code: length of a latent code. skip: index of the
    layer that also gets the input of the decoder; None for none. activation: one of `ACTIVATIONS`. output:
    "tanh" or "linear". clamp: values are limited to [-clamp, clamp], because the training did not distinguish
    larger distances; None for no limit. Raises `UsageError` for other values.
    """

    hidden: tuple[int, ...]
    code: int
    skip: int | None = None
    activation: str = "relu"
    output: str = "tanh"
    clamp: float | None = None

    def __post_init__(self) -> None:
        if not 1 <= self.code <= MAX_WIDTH:
            raise UsageError(f"a latent code has 1 to {MAX_WIDTH} numbers, not {self.code}")
        if self.activation not in ACTIVATIONS:
            raise UsageError(
                f"a decoder's activation is one of {', '.join(ACTIVATIONS)}, not {self.activation!r}"
            )
        Architecture(self.hidden, self.activation, self.output)  # checks the widths and the output
        if self.clamp is not None and not 0 < self.clamp <= MAX_CLAMP:
            raise UsageError(f"the clamp of a decoder is positive and at most {MAX_CLAMP}")
        if self.skip is not None:
            if not 1 <= self.skip < len(self.hidden):
                raise UsageError(f"the skip is to one of the layers 1 to {len(self.hidden) - 1}")
            if self.hidden[self.skip - 1] <= self.code + 3:
                raise UsageError(
                    f"the width before the skip, {self.hidden[self.skip - 1]}, must be larger than the "
                    f"code's {self.code} numbers and 3 coordinates"
                )
        _ = self.folded  # a bit wider
        if self.parameter_count > MAX_WEIGHTS:
            raise UsageError(f"{self.parameter_count} weights exceed the limit of {MAX_WEIGHTS}")

    @classmethod
    def paper(cls) -> DecoderShape:
        """The decoder of the paper (section 5.2 and figure 4)."""
        return cls((512,) * 8, code=256, skip=4)

    @cached_property
    def layer_shapes(self) -> tuple[tuple[int, int], ...]:
        """(out, in) of every layer, the output layer included."""
        outputs = [*self.hidden, 1]
        if self.skip is not None:
            outputs[self.skip - 1] -= self.code + 3
        return tuple(zip(outputs, (self.code + 3, *self.hidden), strict=True))

    @property
    def parameter_count(self) -> int:
        """Number of effective weights and biases: 1 839 358 for the paper's decoder."""
        return sum(rows * (columns + 1) for rows, columns in self.layer_shapes)

    @property
    def gain_count(self) -> int:
        """Number of gains that weight norm adds in training, one for each hidden neuron."""
        return sum(rows for rows, _ in self.layer_shapes[:-1])

    @cached_property
    def folded(self) -> Architecture:
        """Architecture of `Decoder.folded`."""
        carrying = 0 if self.skip is None else self.skip
        hidden = [rows + _CARRYING * (index < carrying) for index, (rows, _) in enumerate(self.layer_shapes)]
        hidden[-1:] = [] if self.limit is None else [_LIMITING]
        return Architecture(tuple(hidden), self.activation, self.output)

    @property
    def limit(self) -> float | None:
        """The clamp as a limit of the output layer's sum, before its activation; None for none."""
        if self.clamp is None or self.output == "linear":
            return self.clamp
        return atanh(self.clamp) if self.clamp < 1 else None

    def takes_input(self, layer: int) -> bool:
        """Whether the last columns of a layer's weights belong to the code and the point."""
        return layer in (0, self.skip)

    def __str__(self) -> str:
        widths = set(self.hidden)
        hidden = (
            f"{len(self.hidden)}x{self.hidden[0]}" if len(widths) == 1 else "-".join(map(str, self.hidden))
        )
        return f"{hidden} {self.activation}, code {self.code}"

    def to_json(self) -> dict[str, Any]:
        """A JSON-serialisable dict that `from_json` reads."""
        value = {
            "hidden": list(self.hidden),
            "code": self.code,
            "skip": self.skip,
            "activation": self.activation,
            "output": self.output,
        }
        return value if self.clamp is None else value | {"clamp": self.clamp}

    @classmethod
    def from_json(cls, value: Any) -> DecoderShape:
        """The shape from the output of `to_json`; raises `UsageError` if `value` is invalid."""
        if not isinstance(value, dict) or not isinstance(value.get("hidden"), list):
            raise UsageError("the shape of the decoder is not an object with a list `hidden`")
        hidden, code, skip = value["hidden"], value.get("code"), value.get("skip")
        numbers: list[Any] = [*hidden, code] if skip is None else [*hidden, code, skip]
        if not all(isinstance(number, int) and not isinstance(number, bool) for number in numbers):
            raise UsageError("the widths, code and skip of the decoder are not whole numbers")
        clamp = value.get("clamp")
        if clamp is not None and type(clamp) is not float:
            raise UsageError("the clamp of the decoder is not a decimal number")
        activation, output = str(value.get("activation")), str(value.get("output"))
        return cls(tuple(hidden), value["code"], skip, activation, output, clamp)


@dataclass(frozen=True, eq=False)
class Decoder:
    """A decoder: its shape and its weights.

    weights: float32, `layers.{i}.weight` (out, in) and `layers.{i}.bias` (out,) for each layer i, with the
    gains of weight norm multiplied in. The columns of the first layer are the code's, then the point's; those
    of the skip layer are the hidden neurons', the code's, the point's. metadata: notes of its training.
    Raises `UsageError` for other weights.
    """

    shape: DecoderShape
    weights: Mapping[str, FloatArray]
    metadata: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        expected: dict[str, tuple[int, ...]] = {}
        for index, (rows, columns) in enumerate(self.shape.layer_shapes):
            expected[f"layers.{index}.weight"], expected[f"layers.{index}.bias"] = (rows, columns), (rows,)
        if different := sorted(expected.keys() ^ self.weights.keys()):
            has = "unknown" if different[0] in self.weights else "missing"
            raise UsageError(f"the tensor {different[0]!r} of the decoder is {has}")
        for name, form in expected.items():
            weights = self.weights[name]
            if weights.dtype != np.float32 or weights.shape != form:
                raise UsageError(
                    f"{name!r} of a {self.shape} decoder is float32 {form}, "
                    f"not {weights.dtype} {weights.shape}"
                )
            if not np.isfinite(weights).all():
                raise UsageError(f"{name!r} of the decoder is not finite")

    @cached_property
    def sha256(self) -> str:
        """SHA-256 (hex) of shape and weights, by which a code recognises its decoder."""
        digest = sha256(json.dumps(self.shape.to_json(), separators=(",", ":")).encode())
        for index in range(len(self.shape.layer_shapes)):
            for weights in self.layer(index):
                digest.update(np.ascontiguousarray(weights, "<f4").data)
        return digest.hexdigest()

    def layer(self, index: int) -> tuple[FloatArray, FloatArray]:
        """Weight (out, in) and bias (out,) of a layer."""
        return self.weights[f"layers.{index}.weight"], self.weights[f"layers.{index}.bias"]

    def value(self, points: npt.ArrayLike, codes: npt.ArrayLike) -> Values:
        """Values (n,) at points (n, 3) of model space, in float64: the reference of `folded`.

        codes: one for all points (c,), or one for each (n, c).
        """
        places = np.asarray(points, np.float64)
        of_points = np.broadcast_to(np.asarray(codes, np.float64), (len(places), self.shape.code))
        inputs = np.hstack([of_points, places])
        layers = [
            tuple(weights.astype(np.float64) for weights in self.layer(index))
            for index in range(len(self.shape.layer_shapes))
        ]
        blocks = [self._block(inputs[i : i + _BLOCK], layers) for i in range(0, len(inputs), _BLOCK)]
        return np.concatenate([np.empty(0), *blocks])

    def _block(self, inputs: npt.NDArray[np.float64], layers: list[tuple[Values, ...]]) -> Values:
        """Values (n,) for inputs (n, c + 3): codes and points."""
        values = inputs
        for index, (weight, bias) in enumerate(layers):
            if index == self.shape.skip:
                values = np.hstack([values, inputs])
            values = values @ weight.T + bias
            if index < len(layers) - 1:
                values = _activated(self.shape.activation, values)
        values = values[:, 0]
        if (limit := self.shape.limit) is not None:
            above, below = (_activated(self.shape.activation, values + sign * limit) for sign in (1, -1))
            values = above - below - limit
        return np.tanh(values) if self.shape.output == "tanh" else values

    @cached_property
    def folding(self) -> Folding:
        """The plain networks of the point that the decoder is for its codes."""
        return Folding(self)

    def folded(self, code: npt.ArrayLike) -> Network:
        """The plain network of the point that the decoder is for a code (c,); equal up to rounding.

        Raises `UsageError` for a code of another length, or one that is not finite.
        """
        return self.folding.network(code)


def _activated(activation: str, values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    if activation == "relu":
        return np.maximum(values, 0)
    return np.logaddexp(0, SOFTPLUS_SHARPNESS * values) / SOFTPLUS_SHARPNESS
