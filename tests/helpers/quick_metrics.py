"""Metrics from few points and coarse surfaces, for tests of other properties of conversions and commands."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from neuralsdf.evaluation.metrics import Sizes, set_default_sizes

#: Used by tests/helpers/batch_command.py too, so that its results are those of this process.
QUICK = Sizes(points=2000, resolution=48)


@contextmanager
def quick_metrics(sizes: Sizes = QUICK) -> Iterator[None]:
    """Compute metrics with these sizes within the block."""
    before = set_default_sizes(sizes)
    try:
        yield
    finally:
        set_default_sizes(before)
