"""
plain_torch.py
--------------
DeepSDF as one writes it with torch's modules, as a reference for the speed: `Linear` with weight norm,
`Dropout`, an `Embedding` of the codes with a maximum norm, all samples of a step in one batch.
"""

from __future__ import annotations

import time
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils.parametrizations import weight_norm

from neuralsdf.array_types import FloatArray
from neuralsdf.latent.config import Settings
from neuralsdf.latent_fields.decoder import DecoderShape


class Decoder(nn.Module):
    """The decoder (Park et al. 2019, figure 4)."""

    def __init__(self, shape: DecoderShape, dropout: float) -> None:
        super().__init__()
        layers = [nn.Linear(inputs, outputs) for outputs, inputs in shape.layer_shapes]
        self.hidden = nn.ModuleList(weight_norm(layer) for layer in layers[:-1])
        self.last, self.dropout, self.skip = layers[-1], nn.Dropout(dropout), shape.skip

    def forward(self, inputs: Tensor) -> Tensor:
        """Values (n,) for codes and points (n, c + 3)."""
        values = inputs
        for index, layer in enumerate(self.hidden):
            if index == self.skip:
                values = torch.cat([values, inputs], 1)
            values = self.dropout(torch.relu(layer(values)))
        return torch.tanh(self.last(values))[:, 0]


#: Points (n, 3) of a shape and their signed distances (n,).
Field = tuple[Tensor, Tensor]


def step_seconds(settings: Settings, shapes: Sequence[tuple[FloatArray, FloatArray]], steps: int) -> float:
    """Seconds of a step of training, after two steps. shapes: points (n, 3) and distances (n,)."""
    training, clamp = settings.training, settings.training.clamp
    decoder = Decoder(settings.decoder.shape, settings.decoder.dropout)
    codes = nn.Embedding(len(shapes), settings.decoder.code, max_norm=settings.codes.bound)
    nn.init.normal_(codes.weight, 0, settings.codes.deviation / settings.decoder.code**0.5)
    optimizer = torch.optim.Adam(
        [
            {"params": decoder.parameters(), "lr": training.learning_rate},
            {"params": codes.parameters(), "lr": training.code_learning_rate},
        ]
    )
    fields = [_by_side(*map(torch.from_numpy, shape)) for shape in shapes]
    rng = np.random.default_rng(0)
    began = 0.0
    for step in range(-2, steps):
        if step == 0:
            began = time.perf_counter()
        chosen = rng.permutation(len(shapes))[: training.shapes]
        drawn = [_draw(fields[index], training.samples) for index in chosen]
        points = torch.cat([points for points, _ in drawn])
        wanted = torch.cat([distances for _, distances in drawn]).clamp(-clamp, clamp)
        of_points = codes(torch.from_numpy(chosen).repeat_interleave(training.samples))
        found = decoder(torch.cat([of_points, points], 1)).clamp(-clamp, clamp)
        loss = (found - wanted).abs().sum() / len(points)
        loss = loss + settings.codes.penalty * torch.linalg.vector_norm(of_points, dim=1).sum() / len(points)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return (time.perf_counter() - began) / steps


def _by_side(points: Tensor, distances: Tensor) -> tuple[Field, Field]:
    inside = distances < 0
    return (points[inside], distances[inside]), (points[~inside], distances[~inside])


def _draw(sides: tuple[Field, Field], count: int) -> Field:
    """As many samples from each side, with replacement."""
    chosen = [torch.randint(0, len(distances), (count // 2,)) for _, distances in sides]
    return (
        torch.cat([points[index] for (points, _), index in zip(sides, chosen, strict=True)]),
        torch.cat([distances[index] for (_, distances), index in zip(sides, chosen, strict=True)]),
    )


def inference_seconds(
    settings: Settings, points: FloatArray, distances: FloatArray, iterations: int, samples: int
) -> float:
    """Seconds to find a code with fixed weights."""
    clamp = settings.training.clamp
    decoder = Decoder(settings.decoder.shape, settings.decoder.dropout).eval().requires_grad_(False)
    code = torch.normal(0, 0.01, (1, settings.decoder.code)).requires_grad_()
    optimizer = torch.optim.Adam([code], 5e-3)
    all_points, all_distances = torch.from_numpy(points), torch.from_numpy(distances).clamp(-clamp, clamp)
    began = time.perf_counter()
    for iteration in range(iterations):
        if iteration == iterations // 2:
            optimizer.param_groups[0]["lr"] = 5e-4
        index = torch.randint(0, len(points), (samples,))
        found = decoder(torch.cat([code.expand(samples, -1), all_points[index]], 1)).clamp(-clamp, clamp)
        loss = (found - all_distances[index]).abs().mean() + 1e-4 * code.square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return time.perf_counter() - began
