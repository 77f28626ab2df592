"""
models
------
The kinds of latent models, by the name that `train-latent --model` takes. A kind is one module.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Protocol

import numpy as np

from ...array_types import FloatArray
from ...errors import UsageError

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from ...latent_fields.decoder import Decoder
    from ..config import Settings

MODELS = ("deepsdf",)


class TrainingShape(Protocol):
    """What a training needs of a shape."""

    def draw(self, count: int, rng: np.random.Generator) -> tuple[FloatArray, FloatArray]:
        """Points (count, 3) in model space and their signed distances (count,), half of them inside."""
        ...


class LatentModel(Protocol):
    """What a training needs of a model.

    slots: number of shapes in a step of all processes. steps: length of the training. codes: those of the
    training shapes (n, c).
    """

    slots: int
    steps: int
    codes: Tensor

    @property
    def parameters(self) -> Mapping[str, Tensor]:
        """All that the optimizer changes, by name."""
        ...

    def learning_rate(self, name: str, step: int) -> float:
        """The learning rate of a parameter in a step."""
        ...

    def add_gradients(self, step: int, slots: range) -> Mapping[str, float]:
        """Add a step's gradients, for some of its slots, to the parameters' `grad`.

        Returns the terms of the loss that these slots add, by name; they sum to the loss.
        """
        ...

    def measures(self) -> Mapping[str, float]:
        """Further numbers for the log, such as the mean norm of the codes."""
        ...

    def decoder(self) -> Decoder:
        """The decoder as it is now."""
        ...


def make_model(settings: Settings, shapes: Sequence[TrainingShape], device: torch.device) -> LatentModel:
    """A new model for training shapes, on a device; raises `UsageError` for an unknown kind."""
    if settings.model == "deepsdf":
        from .deepsdf import DeepSDF

        return DeepSDF(settings, shapes, device)
    raise UsageError(f"unknown `model={settings.model!r}`; one of {', '.join(MODELS)}")
