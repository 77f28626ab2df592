"""
inference.py
------------
Finds the code of a shape from its signed distances, with the decoder's weights fixed (Park et al. 2019,
equation 10): Adam on the code alone, from several starts.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from ..array_types import FloatArray
from ..latent_fields.decoder import Decoder
from .models.deepsdf import split_layers, values
from .random_keys import Purpose, generator


@dataclass(frozen=True)
class InferenceSettings:
    """How a code is found.

    iterations: steps of Adam. samples: in a step. learning_rate: a tenth of it in the second half. penalty:
    weight of the mean squared code. clamp: as in training. deviation: of the first start from zero. starts:
    their number; all but the first are codes of training shapes.
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
    if training_codes is not None and settings.starts > 1:
        starts[1:] = training_codes[rng.integers(0, len(training_codes), settings.starts - 1)]
    found = [_from_start(decoder, points, distances, settings, start, rng) for start in starts]
    return min(found, key=lambda inferred: inferred.loss)


def _from_start(
    decoder: Decoder,
    points: FloatArray,
    distances: FloatArray,
    settings: InferenceSettings,
    start: FloatArray,
    rng: np.random.Generator,
) -> Inferred:
    shape = decoder.shape
    weights = [tuple(map(torch.from_numpy, decoder.layer(i))) for i in range(len(shape.layer_shapes))]
    layers = split_layers(shape, weights)  # type: ignore[arg-type]
    code = torch.from_numpy(start.copy()).requires_grad_()
    optimizer = torch.optim.Adam([code], settings.learning_rate)
    all_points, clamp = torch.from_numpy(points), settings.clamp
    wanted = torch.from_numpy(np.clip(distances, -clamp, clamp))

    def loss(chosen: torch.Tensor) -> torch.Tensor:
        found = values(shape, layers, all_points[chosen], code)
        return (found.clamp(-clamp, clamp) - wanted[chosen]).abs().mean()

    for iteration in range(settings.iterations):
        if iteration == settings.iterations // 2:
            optimizer.param_groups[0]["lr"] = settings.learning_rate / 10
        chosen = torch.from_numpy(rng.integers(0, len(points), min(settings.samples, len(points))))
        optimizer.zero_grad()
        (loss(chosen) + settings.penalty * code.square().mean()).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    with torch.no_grad():
        final = loss(torch.arange(0, len(points), max(1, len(points) // 20_000)))
    return Inferred(code.detach().numpy().copy(), float(final))
