"""
folding.py
----------
A decoder with a fixed code as a plain network of the point.

    W [h, z, x] + b = W_h h + W_x x + (W_z z + b)        the code is a part of the bias
    x = act(x) - act(-x)                                 six neurons carry the point to the skip layer
    limited(o) = act(o + c) - act(o - c) - c             two neurons limit the output to [-c, c]

The last two hold for ReLU; for softplus, act(x) - act(-x) is x too, and `limited` has rounded corners.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from ..array_types import FloatArray, Values
from ..errors import UsageError
from ..program.network import Network, without_denormals

if TYPE_CHECKING:
    from .decoder import Decoder


class Folding:
    """The networks of a decoder. Those of two codes differ in their hidden biases alone."""

    def __init__(self, decoder: Decoder) -> None:
        self._decoder, self.architecture = decoder, decoder.shape.folded
        self._weights = np.zeros(self.architecture.weight_count, np.float32)
        layers = list(self.architecture.layers(self._weights))
        self._of_code: list[tuple[slice, Values]] = []
        start = 0
        for index, (kernel, bias) in enumerate(layers[: len(decoder.shape.hidden)]):
            of_code = self._fold(index, kernel, bias)
            if of_code is not None:
                self._of_code.append((slice(start, start + len(of_code)), of_code.astype(np.float64)))
            start += len(bias)
        if decoder.shape.limit is None:
            self._fold_output(*layers[-1])
        else:
            self._fold_limited_output(decoder.shape.limit, layers[-2], layers[-1])
        self._own_biases = np.concatenate([bias for _, bias in layers[:-1]], dtype=np.float64)

    def hidden_biases(self, code: npt.NDArray[np.floating]) -> FloatArray:
        """The biases of all hidden layers (b,) float32 for a code (c,)."""
        biases = self._own_biases.copy()
        for part, of_code in self._of_code:
            # einsum, because BLAS sums in an order that depends on the number of threads
            biases[part] += np.einsum("oc,c->o", of_code, code)
        return biases.astype(np.float32)

    def code_gradient(self, by_biases: FloatArray) -> Values:
        """The gradient (c,) with respect to the code, from that with respect to the hidden biases (b,)."""
        gradient = np.zeros(self._decoder.shape.code)
        for part, of_code in self._of_code:
            gradient += np.einsum("oc,o->c", of_code, by_biases[part])
        return gradient

    def network(self, code: npt.ArrayLike) -> Network:
        """The network for a code (c,).

        Raises `UsageError` for a code of another length, or one that is not finite.
        """
        latent = np.asarray(code, np.float64)
        if latent.shape != (self._decoder.shape.code,) or not np.isfinite(latent).all():
            raise UsageError(f"a code of this decoder is {self._decoder.shape.code} finite numbers")
        weights, biases, start = self._weights.copy(), self.hidden_biases(latent), 0
        for _, bias in list(self.architecture.layers(weights))[:-1]:
            bias[:] = biases[start : start + len(bias)]
            start += len(bias)
        return Network(self.architecture, without_denormals(weights))

    def _fold(self, index: int, kernel: FloatArray, bias: FloatArray) -> FloatArray | None:
        """Fill the kernel (in, out) and bias (out,) of a hidden layer; return the code's weights (out, c).

        The neurons of the decoder's own layer are followed by those that carry the point.
        """
        weight, own_bias = self._decoder.layer(index)
        shape, of_code = self._decoder.shape, None
        outputs, inputs = weight.shape
        bias[:outputs] = own_bias
        if shape.takes_input(index):
            inputs -= shape.code + 3
            of_hidden, of_code, of_point = np.split(weight, [inputs, inputs + shape.code], axis=1)
            kernel[:inputs, :outputs] = of_hidden.T
            _take_point(kernel[inputs:, :outputs], of_point.T)
        else:
            kernel[:inputs, :outputs] = weight.T
        if bias.size > outputs:
            identity = np.eye(3, dtype=np.float32)
            _take_point(kernel[inputs:, outputs:], np.hstack([identity, -identity]))
        return of_code

    def _fold_output(self, kernel: FloatArray, bias: FloatArray) -> None:
        weight, own_bias = self._decoder.layer(len(self._decoder.shape.hidden))
        kernel[:], bias[:] = weight.T, own_bias

    def _fold_limited_output(
        self, limit: float, hidden: tuple[FloatArray, FloatArray], output: tuple[FloatArray, FloatArray]
    ) -> None:
        """Fill the layer of two neurons that limits the output layer's sum, and the output layer."""
        weight, own_bias = self._decoder.layer(len(self._decoder.shape.hidden))
        hidden[0][:] = weight.T
        hidden[1][:] = own_bias + np.array([limit, -limit], np.float32)
        output[0][:, 0] = 1, -1
        output[1][:] = -limit


def _take_point(rows: FloatArray, weights: FloatArray) -> None:
    """Fill rows of a kernel so that weights (3, m) act on the point.

    The rows belong to its coordinates (3), or to the neurons that carry it (6), whose difference it is.
    """
    rows[:] = np.vstack([weights, -weights])[: len(rows)]
