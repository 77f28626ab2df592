"""
quick.py
--------
A latent model in ten minutes of two cores: parametric shapes of one class, prepared and trained on with the
preset "quick", and the IoU of shapes that were not trained on.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path

from ..batch.run_batch import Report, Summary
from ..latent_fields.decoder_file import read_decoder
from .cache import Cache, Entry
from .inference import InferenceSettings
from .parametric.dataset import DESCRIPTION, make_dataset
from .prepare import Counts, PrepareJob, prepare
from .run_folder import RunFolder
from .validation import Validation, validate

#: The class, the number of shapes and the fraction of them that are not trained on.
CLASS, SHAPES, TEST = "chair", 160, 0.125

#: Test shapes of a data set that are reconstructed at most.
MAX_TEST = 20

_JOB = PrepareJob(Counts(50_000, 16_384, 1000))
_INFERENCE = InferenceSettings(iterations=400, samples=4096)


def make_shapes(
    folder: Path, category: str = CLASS, report: Callable[[int, int], None] = lambda done, total: None
) -> None:
    """Make the parametric shapes of a class in a folder, unless they are there already.

    Raises `UsageError` for an unknown class, `OutputError` if the folder holds something else.
    """
    if not _holds_shapes(folder, category):
        make_dataset(folder, count=SHAPES, classes=[category], test=TEST, report=report)


def prepare_shapes(folder: Path, out: Path, report: Report = lambda record, progress: None) -> Summary:
    """Prepare them, with fewer samples than by default; see `prepare`."""
    return prepare(str(folder), out, _JOB, report=report)


def unseen(
    cache: Cache,
    run: str | Path,
    entries: Sequence[Entry],
    report: Callable[[int, int], None] = lambda done, total: None,
) -> Validation:
    """The IoU of test shapes with the decoder of a run."""
    decoder = read_decoder(RunFolder(Path(run)).decoder)
    return validate(decoder, [cache.shape(entry) for entry in entries], _INFERENCE, report)


def _holds_shapes(folder: Path, category: str) -> bool:
    """Whether a folder holds the shapes that `make_shapes` would make."""
    try:
        content = json.loads((folder / DESCRIPTION).read_text("utf-8"))
        return bool((content["count"], [*content["classes"]]) == (SHAPES, [category]))
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return False
