"""
fit.py
------
Fits a network to samples of a signed distance, minimising the mean |f(x) - d| (paper, equation 7).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from ..array_types import FloatArray
from ..backends import get_backend
from ..errors import NeuralSDFError, UsageError
from ..program.network import Architecture, initialise
from ..program.optimizer_settings import get_optimizer
from ..program.sample_set import Samples

_STEPS_PER_CHECK = 16  # steps between clock, progress and Ctrl-C checks

#: Fraction of the work over which the learning rate rises to its peak. The median of d near the surface is 0:
#: with a high rate from the start, a network of thin walls soon finds that f = 0 is a minimum.
_RISE = 0.35
#: Fractions of the work after which samples are corrected (see `fit`).
_CORRECTIONS = (0.2, 0.4, 0.6, 0.8)

DIVERGED = "the fit diverged: its loss is not finite; use a lower `learning_rate=`"

#: Returns samples where the network with these weights (P,) errs.
Correction = Callable[[FloatArray], Samples]

#: Called after each step with the fraction of work done (0 to 1) and the running mean loss.
Progress = Callable[[float, float], None]


@dataclass(frozen=True)
class Training:
    """Settings of a fit.

    epochs: passes over the samples; the learning rate rises over the first third of them and falls to zero
    over the rest, both linearly. seconds: a time budget instead (the result then depends on the machine's
    speed). batch: samples per step. patience: stop early if the loss of an epoch has not fallen by 1 % for
    that many epochs; 0 for never. learning_rate: peak rate; None for the optimizer's default, or a fifth of
    it for sine networks. Raises `UsageError` for values out of range.
    """

    optimizer: str = "soap"
    epochs: int = 20
    batch: int = 2048
    learning_rate: float | None = None
    seconds: float | None = None
    patience: int = 0

    def __post_init__(self) -> None:
        if self.epochs < 1:
            raise UsageError(f"`epochs={self.epochs}` must be at least 1")
        if self.batch < 1:
            raise UsageError(f"`batch={self.batch}` must be at least 1")
        if self.seconds is not None and not 0 < self.seconds < 1e9:
            raise UsageError(f"`time={self.seconds}` must be positive and less than 1e9")
        if self.learning_rate is not None and not 0 < self.learning_rate < 10:
            raise UsageError(f"`learning_rate={self.learning_rate}` must be between 0 and 10")
        if self.patience < 0:
            raise UsageError(f"`patience={self.patience}` must be a number of epochs, or 0 for never")


@dataclass(frozen=True, eq=False)
class Fit:
    """Weights (P,), the loss of the last epoch, and the number of epochs."""

    weights: FloatArray
    loss: float
    epochs: int


def fit(
    architecture: Architecture,
    samples: Samples,
    training: Training | None = None,
    *,
    start: FloatArray | None = None,
    correct: Correction | None = None,
    seed: int = 0,
    backend: str | None = None,
    progress: Progress | None = None,
) -> Fit:
    """Fit a network to samples; deterministic for a given seed and any number of threads.

    start: initial weights (P,); None for random ones.
    correct: called four times during the fit for samples where the network errs; they replace the first
    samples.

    Raises `NeuralSDFError` if the loss becomes non-finite (learning rate far too high).
    """
    start = initialise(architecture, seed) if start is None else start
    run = _Run(architecture, start, training or Training(), seed, backend, progress)
    if correct is not None:
        samples = Samples(samples.points.copy(), samples.distances.copy())
    marks = _Marks(_CORRECTIONS)
    loss = np.inf
    while not run.schedule.finished:
        loss = run.epoch(samples)
        if correct is not None and marks.passed(run.schedule.done):
            errors = correct(run.trainer.weights)
            samples.points[: len(errors.points)] = errors.points
            samples.distances[: len(errors.points)] = errors.distances
    return Fit(run.trainer.weights, loss, run.epochs)


def learning_rates(architecture: Architecture, training: Training, count: int) -> FloatArray:
    """The learning rate of every step (s,) float32 of a fit to `count` samples, for `fit_many`.

    Raises `UsageError` if the number of steps is not known in advance: with a time budget or patience.
    """
    if training.seconds is not None or training.patience:
        raise UsageError("`time=` and `patience=`: batched fits take a fixed number of epochs")
    peak = _peak_rate(architecture, training)
    steps_per_epoch = max(1, count // training.batch)
    schedule = _Schedule(training)
    rates = [peak * schedule.advance(1 / steps_per_epoch) for _ in range(training.epochs * steps_per_epoch)]
    return np.array(rates, np.float32)


def correction_steps(training: Training, count: int) -> list[int]:
    """The steps after which a fit to `count` samples is corrected, for `fit_many`."""
    steps_per_epoch = max(1, count // training.batch)
    schedule, marks = _Schedule(training), _Marks(_CORRECTIONS)
    steps = []
    for epoch in range(1, training.epochs):
        for _ in range(steps_per_epoch):
            schedule.advance(1 / steps_per_epoch)
        if marks.passed(schedule.done):
            steps.append(epoch * steps_per_epoch)
    return steps


#: Factor on the optimizer's default rate for sine networks: their gradients are 30 times as large, and at the
#: full rate a fit ends at f = 0 everywhere.
_SINE_FACTOR = 0.2


def _peak_rate(architecture: Architecture, training: Training) -> float:
    """The peak learning rate of a fit."""
    if training.learning_rate is not None:
        return training.learning_rate
    share = _SINE_FACTOR if architecture.activation == "sine" else 1.0
    return share * get_optimizer(training.optimizer).learning_rate


class _Run:
    """The state of a fit: the trainer, the schedule, and the order of the samples."""

    def __init__(
        self,
        architecture: Architecture,
        start: FloatArray,
        training: Training,
        seed: int,
        backend: str | None,
        progress: Progress | None,
    ) -> None:
        optimizer = get_optimizer(training.optimizer)
        self.trainer = get_backend(backend).trainer(architecture, start, optimizer)
        self.schedule = _Schedule(training)
        self.epochs = 0
        self._training, self._progress = training, progress
        self._rate = _peak_rate(architecture, training)
        self._plateau = _Plateau(training.patience)
        self._rng = np.random.default_rng([seed, 1])

    def epoch(self, samples: Samples) -> float:
        """Run one pass over the samples in a new random order; returns its mean loss."""
        batch = self._training.batch
        order = self._rng.permutation(len(samples.points))
        steps = max(1, len(order) // batch)  # the remainder is left to other epochs
        losses: list[float] = []
        for first in range(0, steps, _STEPS_PER_CHECK):
            count = min(_STEPS_PER_CHECK, steps - first)
            rates = np.array(
                [self._rate * self.schedule.advance(1 / steps) for _ in range(count)], np.float32
            )
            chosen = order[first * batch : (first + count) * batch]
            losses += self.trainer.steps(samples.points, samples.distances, chosen, batch, rates).tolist()
            if not np.isfinite(losses[-1]):
                raise NeuralSDFError(DIVERGED)
            if self._progress is not None:
                self._progress(self.schedule.done, float(np.mean(losses)))
            if self.schedule.finished:
                break
        self.epochs += 1
        loss = float(np.mean(losses))
        if self._plateau.reached(loss):
            self.schedule.finish_within(max(1, self._training.epochs // 10))
        return loss


class _Schedule:
    """Fraction of work done, by epochs or by the clock, and the current factor of the learning rate."""

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
        if self._seconds is not None:
            return min(1.0, (time.monotonic() - self._start) / self._seconds)
        return min(1.0, self._passed / self._epochs)

    @property
    def finished(self) -> bool:
        return self.done >= 1 - 1e-9

    @property
    def factor(self) -> float:
        if self._end is not None:
            began, factor = self._end
            return factor * max(0.0, (self._epochs - self._passed) / (self._epochs - began))
        return min(self.done / _RISE, (1 - self.done) / (1 - _RISE))


class _Marks:
    """Fractions of the work still to be passed, ascending."""

    def __init__(self, fractions: Sequence[float]) -> None:
        self._left = list(fractions)

    def passed(self, done: float) -> bool:
        """Whether any has been passed since the last call."""
        before = len(self._left)
        self._left = [mark for mark in self._left if mark > done]
        return len(self._left) < before


class _Plateau:
    """Detects when the loss has not fallen by 1 % for `patience` epochs."""

    def __init__(self, patience: int) -> None:
        self._patience, self._best, self._since = patience, np.inf, 0

    def reached(self, loss: float) -> bool:
        if loss < 0.99 * self._best:
            self._best, self._since = loss, 0
        else:
            self._since += 1
        return 0 < self._patience <= self._since
