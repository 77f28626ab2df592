"""
interpolate.py
--------------
Shapes between two shapes: codes on the line between their codes.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from ..array_types import FloatArray
from ..errors import UsageError
from ..geometry.similarity_transform import Similarity
from ..latent_fields.latent_field import LatentField
from .reconstruct import TrainedModel

MAX_STEPS = 10_000


def interpolate(
    model: TrainedModel,
    first: FloatArray,
    last: FloatArray,
    steps: int,
    transforms: tuple[Similarity, Similarity] | None = None,
) -> Iterator[LatentField]:
    """Fields of `steps` codes from `first` (c,) to `last` (c,), both included.

    transforms: model space to mesh space of both; scale and centre change along. Raises `UsageError` for
    fewer than two steps.
    """
    if not 2 <= steps <= MAX_STEPS:
        raise UsageError(f"`steps={steps}` is out of range (2 to {MAX_STEPS})")
    for fraction in np.linspace(0, 1, steps):
        code = ((1 - fraction) * first + fraction * last).astype(np.float32)
        yield model.field(code, None if transforms is None else _between(*transforms, float(fraction)))


def _between(first: Similarity, last: Similarity, fraction: float) -> Similarity:
    centre = (1 - fraction) * first.centre + fraction * last.centre
    return Similarity.from_ball(centre, first.scale ** (1 - fraction) * last.scale**fraction)
