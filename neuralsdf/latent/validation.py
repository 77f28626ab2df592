"""
validation.py
-------------
How good a decoder is on shapes that it was not trained on: their codes are found in a few steps, and the
fields compared with prepared samples.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ..array_types import FloatArray, Mask
from ..backends import get_backend
from ..latent_fields.decoder import Decoder
from .cache import CachedShape
from .config import Settings
from .inference import InferenceSettings, infer_code

#: Prepared samples of each shape that are used: distances to find the code, occupancies for the IoU.
_DISTANCES, _OCCUPANCIES = 16_384, 16_384


@dataclass(frozen=True)
class Validation:
    """Means over shapes, and the IoU of each by name.

    loss: mean clamped difference of the distances. iou: by occupancies in the padded bounding box. codes:
    (c,) by name; none if it was read from a log.
    """

    loss: float
    iou: float
    ious: Mapping[str, float]
    codes: Mapping[str, FloatArray] = field(default_factory=dict)

    @property
    def median(self) -> float:
        """The median IoU."""
        return float(np.median(list(self.ious.values())))

    @property
    def worst(self) -> list[tuple[str, float]]:
        """Names and IoUs of the shapes, in order of their IoU."""
        return sorted(self.ious.items(), key=lambda shape: (shape[1], shape[0]))


def inference_settings(settings: Settings) -> InferenceSettings:
    """How the codes of held-out shapes are found in a training."""
    return InferenceSettings(
        iterations=settings.validation.iterations,
        samples=2048,
        clamp=settings.training.clamp,
        seed=settings.training.seed,
    )


def logged_validation(log: Iterable[Mapping[str, Any]], step: int) -> Validation | None:
    """The validation at a step, from the lines of a log; None if there is none that is undamaged."""
    for line in log:
        if line["step"] == step and "validation_iou" in line:
            try:
                ious = {str(name): float(iou) for name, iou in line.get("validation_ious", {}).items()}
                return Validation(float(line["validation_loss"]), float(line["validation_iou"]), ious)
            except (KeyError, TypeError, ValueError, AttributeError, OverflowError):
                continue
    return None


def validate(
    decoder: Decoder,
    shapes: Sequence[CachedShape],
    settings: InferenceSettings,
    report: Callable[[int, int], None] = lambda done, total: None,
) -> Validation:
    """The means over held-out shapes, of which there is at least one.

    report: called with the number of shapes that are done, and of all.
    """
    losses, ious, codes = [], {}, {}
    for shape in shapes:
        rng = np.random.default_rng(settings.seed)
        points, distances = shape.draw(_DISTANCES, rng)
        inferred = infer_code(decoder, points, distances, settings)
        losses.append(inferred.loss)
        ious[shape.prepared.name] = occupancy_iou(decoder, inferred.code, shape)
        codes[shape.prepared.name] = inferred.code
        report(len(ious), len(shapes))
    return Validation(float(np.mean(losses)), float(np.mean(list(ious.values()))), ious, codes)


def occupancy_iou(decoder: Decoder, code: FloatArray, shape: CachedShape, count: int = _OCCUPANCIES) -> float:
    """Intersection over union of a code's field and a prepared shape, at its occupancy points."""
    points, inside = shape.occupancies(count)
    prepared = shape.prepared
    in_model = prepared.transform.apply_inverse(prepared.box.apply(points)).astype(np.float32)
    in_ball = np.linalg.norm(in_model, axis=1) < 1
    program = get_backend().compile(decoder.folded(code))
    found = np.zeros(len(points), np.bool_)
    found[in_ball] = program.evaluate(in_model[in_ball]) < 0
    return iou(found, inside)


def iou(found: Mask, wanted: Mask) -> float:
    """Intersection over union of two masks (n,); 1 if both are empty."""
    union = np.count_nonzero(found | wanted)
    return np.count_nonzero(found & wanted) / union if union else 1.0
