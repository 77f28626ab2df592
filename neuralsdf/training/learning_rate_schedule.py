"""
learning_rate_schedule.py
-------------------------
The learning rate of every step of a fit: it rises linearly over the first 35 % of the work, and falls to
zero over the rest.
"""

from __future__ import annotations

import time

import numpy as np

from ..array_types import FloatArray
from ..errors import UsageError
from ..program.network import Architecture
from ..program.optimizer_settings import get_optimizer
from .fit_settings import Training

#: Fraction of the work over which the learning rate rises to its peak. The median of d near the surface is 0:
#: with a high rate from the start, a fit to thin walls soon ends in the local minimum f = 0.
_RISE = 0.35


def learning_rates(architecture: Architecture, training: Training, count: int) -> FloatArray:
    """The learning rate of every step (s,) float32 of a fit to `count` samples, for `fit_many`.

    Raises `UsageError` if the number of steps is not known in advance: with a time budget or patience.
    """
    if training.seconds is not None or training.patience:
        raise UsageError("`time=` and `patience=`: batched fits take a fixed number of epochs")
    peak = peak_rate(architecture, training)
    steps_per_epoch = max(1, count // training.batch)
    schedule = Schedule(training)
    rates = [peak * schedule.advance(1 / steps_per_epoch) for _ in range(training.epochs * steps_per_epoch)]
    return np.array(rates, np.float32)


#: Factor on the optimizer's default rate for sine networks: their gradients are 30 times as large, and at the
#: full rate a fit ends at f = 0 everywhere.
_SINE_FACTOR = 0.2


def peak_rate(architecture: Architecture, training: Training) -> float:
    """The peak learning rate of a fit."""
    if training.learning_rate is not None:
        return training.learning_rate
    share = _SINE_FACTOR if architecture.activation == "sine" else 1.0
    return share * get_optimizer(training.optimizer).learning_rate


class Schedule:
    """Fraction of work done, in epochs or in time, and the current factor of the learning rate."""

    def __init__(self, training: Training) -> None:
        self._epochs, self._seconds = float(training.epochs), training.seconds
        self._start = time.monotonic()
        self._passed = 0.0
        self._end: tuple[float, float] | None = None  # (epochs passed, factor) at the start of an early end

    def advance(self, epochs: float) -> float:
        """Advance by that many epochs; returns the factor of the next step."""
        self._passed += epochs
        return self.factor

    def finish_within(self, epochs: int) -> None:
        """Let the learning rate fall to zero over the next `epochs` epochs, if that is earlier."""
        if self._end is None and self._seconds is None and self._passed + epochs < self._epochs:
            self._end = (self._passed, self.factor)
            self._epochs = self._passed + epochs

    @property
    def done(self) -> float:
        """Fraction of the work done."""
        if self._seconds is not None:
            return min(1.0, (time.monotonic() - self._start) / self._seconds)
        return min(1.0, self._passed / self._epochs)

    @property
    def finished(self) -> bool:
        """Whether all work is done."""
        return self.done >= 1 - 1e-9

    @property
    def factor(self) -> float:
        """Current learning rate as a fraction of its peak."""
        if self._end is not None:
            began, factor = self._end
            return factor * max(0.0, (self._epochs - self._passed) / (self._epochs - began))
        return min(self.done / _RISE, (1 - self.done) / (1 - _RISE))
