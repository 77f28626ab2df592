"""
fit.py
------
Fits a network to samples of a signed distance, minimising the mean |f(x) - d| (paper, equation 7).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from ..array_types import FloatArray
from ..backends import Backend
from ..errors import NeuralSDFError
from ..program.network import Architecture, initialise
from ..program.optimizer_settings import get_optimizer
from ..program.sample_set import Samples
from .fit_settings import Training
from .learning_rate_schedule import Schedule, peak_rate

_STEPS_PER_CHECK = 16  # steps between clock, progress and Ctrl-C checks

#: Fractions of the work after which samples are corrected (see `fit`).
_CORRECTIONS = (0.2, 0.4, 0.6, 0.8)

DIVERGED = "the fit diverged: its loss is not finite; use a lower `learning_rate=`"

#: Returns samples where the network with these weights (P,) errs.
Correction = Callable[[FloatArray], Samples]

#: Called after each step with the fraction of work done (0 to 1) and the running mean loss.
Progress = Callable[[float, float], None]


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
    backend: Backend,
    start: FloatArray | None = None,
    correct: Correction | None = None,
    seed: int = 0,
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


def correction_steps(training: Training, count: int) -> list[int]:
    """The steps after which a fit to `count` samples is corrected, for `fit_many`."""
    steps_per_epoch = max(1, count // training.batch)
    schedule, marks = Schedule(training), _Marks(_CORRECTIONS)
    steps = []
    for epoch in range(1, training.epochs):
        for _ in range(steps_per_epoch):
            schedule.advance(1 / steps_per_epoch)
        if marks.passed(schedule.done):
            steps.append(epoch * steps_per_epoch)
    return steps


class _Run:
    """The state of a fit: the trainer, the schedule, and the order of the samples."""

    def __init__(
        self,
        architecture: Architecture,
        start: FloatArray,
        training: Training,
        seed: int,
        backend: Backend,
        progress: Progress | None,
    ) -> None:
        optimizer = get_optimizer(training.optimizer)
        self.trainer = backend.trainer(architecture, start, optimizer)
        self.schedule = Schedule(training)
        self.epochs = 0
        self._training, self._progress = training, progress
        self._rate = peak_rate(architecture, training)
        self._plateau = _Plateau(training.patience)
        self._rng = np.random.default_rng([seed, 1])

    def epoch(self, samples: Samples) -> float:
        """Run one pass over the samples in a new random order; returns its mean loss."""
        batch = self._training.batch
        order = self._rng.permutation(len(samples.points))
        steps = max(1, len(order) // batch)  # the remaining samples are used in other epochs
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
