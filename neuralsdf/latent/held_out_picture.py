"""
held_out_picture.py
-------------------
The picture at the end of a training: shapes that were not trained on, beside their reconstructions.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from .cache import Cache, Entry
from .evaluate import Evaluated
from .picture import save_picture
from .reconstruct import Reconstruction, TrainedModel
from .validation import Validation


def save_held_out_picture(
    path: str | Path, run: str | Path, cache: Cache, entries: Sequence[Entry], found: Validation
) -> int:
    """Write the sheet of at most six shapes with the codes that a validation found; see `save_picture`."""
    model, shapes = TrainedModel.open(run), []
    for entry in entries:
        prepared = cache.shape(entry).prepared
        field = model.field(found.codes[entry.name], prepared.transform, prepared.unit)
        reconstruction = Reconstruction(field, loss=found.loss, seconds=0.0)
        shapes.append(Evaluated(entry, {"iou": found.ious[entry.name]}, reconstruction))
    return save_picture(path, shapes, force=True)
