"""
inference.py
------------
Finds the code of a shape from its signed distances, with the decoder's weights fixed (Park et al. 2019,
equation 10): Adam on the code alone, from several starts.

With its code fixed, a decoder is a plain network (folding.py), and codes differ in the hidden biases alone. A
backend computes the gradient with respect to these, from which the gradient with respect to the code follows.
The loss compares limited distances; the limit of the values is a part of that network.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import isfinite

import numpy as np
import numpy.typing as npt

from ..array_types import FloatArray, Values
from ..backends import get_backend
from ..latent_fields.decoder import Decoder
from .random_keys import Purpose, generator

#: Adam's rates of decay, and what is added to its denominator.
_DECAY, _SQUARE_DECAY, _EPSILON = 0.9, 0.999, 1e-8
#: Maximum number of samples by which the starts are compared.
_COMPARED = 20_000
#: Codes of training shapes that are tried as starts, and points for it.
_TRIED, _TRIED_POINTS = 64, 2048


@dataclass(frozen=True)
class InferenceSettings:
    """How a code is found.

    iterations: steps of Adam. samples: in a step. learning_rate: a tenth of it in the second half. penalty:
    weight of the mean squared code. clamp: limit of distances in the loss, if the decoder has no clamp of its
    own; `inf` for none. deviation: of the first start from zero. starts: their number; all but the first are
    the codes of training shapes that fit best.
    """

    iterations: int = 800
    samples: int = 8000
    learning_rate: float = 5e-3
    penalty: float = 1e-4
    clamp: float = 0.1
    deviation: float = 0.01
    starts: int = 1
    seed: int = 0


@dataclass(frozen=True, eq=False)
class Inferred:
    """A code (c,), and the mean clamped difference of its field from the given distances."""

    code: FloatArray
    loss: float


def infer_code(
    decoder: Decoder,
    points: FloatArray,
    distances: FloatArray,
    settings: InferenceSettings = InferenceSettings(),
    training_codes: FloatArray | None = None,
) -> Inferred:
    """The code with the smallest loss of all starts.

    points: (n, 3) in model space. distances: (n,). training_codes: (m, c), from which starts are taken.
    """
    rng = generator(settings.seed, Purpose.INFERENCE)
    starts = rng.normal(0, settings.deviation, (settings.starts, decoder.shape.code)).astype(np.float32)
    loss = _CodeLoss(decoder, points, distances, settings.clamp)
    if training_codes is not None and settings.starts > 1:
        best = _best(loss, training_codes, settings.starts - 1, rng)
        starts[1 : 1 + len(best)] = best
    found = [_from_start(loss, settings, start, rng) for start in starts]
    return min(found, key=lambda inferred: inferred.loss)


class _CodeLoss:
    """The mean difference of a code's limited field from distances (n,) at points (n, 3)."""

    def __init__(self, decoder: Decoder, points: FloatArray, distances: FloatArray, clamp: float) -> None:
        limit = decoder.shape.clamp or clamp
        if decoder.shape.clamp is None and isfinite(limit):
            decoder = replace(decoder, shape=replace(decoder.shape, clamp=limit))
        self.folding = decoder.folding
        self._loss = get_backend().bias_loss(self.folding.network(np.zeros(decoder.shape.code)))
        self.points, self._distances = points, np.clip(distances, -limit, limit).astype(np.float32)

    def gradient(self, code: Values, chosen: npt.NDArray[np.int64]) -> tuple[float, Values]:
        """The loss at the chosen points for a code (c,), and its gradient (c,)."""
        biases = self.folding.hidden_biases(code)
        loss, by_biases = self._loss.gradient(biases, self.points[chosen], self._distances[chosen])
        return loss, self.folding.code_gradient(by_biases)


def _best(loss: _CodeLoss, codes: FloatArray, count: int, rng: np.random.Generator) -> FloatArray:
    """At most `count` of some of the codes (m, c): those with the smallest losses at some of the points."""
    tried = codes[rng.permutation(len(codes))[: max(_TRIED, count)]]
    chosen = rng.integers(0, len(loss.points), min(_TRIED_POINTS, len(loss.points)))
    losses = [loss.gradient(code.astype(np.float64), chosen)[0] for code in tried]
    best: FloatArray = tried[np.argsort(losses, kind="stable")[:count]]
    return best


def _from_start(
    loss: _CodeLoss, settings: InferenceSettings, start: FloatArray, rng: np.random.Generator
) -> Inferred:
    code = start.astype(np.float64)
    mean, square, count = np.zeros_like(code), np.zeros_like(code), len(loss.points)
    for iteration in range(settings.iterations):
        chosen = rng.integers(0, count, min(settings.samples, count))
        _, gradient = loss.gradient(code, chosen)
        gradient += 2 * settings.penalty / code.size * code
        mean += (1 - _DECAY) * (gradient - mean)
        square += (1 - _SQUARE_DECAY) * (gradient * gradient - square)
        rate = settings.learning_rate * (1.0 if iteration < settings.iterations // 2 else 0.1)
        corrected = np.sqrt(square / (1 - _SQUARE_DECAY ** (iteration + 1))) + _EPSILON
        code -= rate * mean / (1 - _DECAY ** (iteration + 1)) / corrected
    final = code.astype(np.float32)
    found, _ = loss.gradient(final.astype(np.float64), np.arange(0, count, max(1, count // _COMPARED)))
    return Inferred(final, found)
