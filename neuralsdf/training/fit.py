"""
fit.py
------
Fit a network to samples of a signed distance: minimise the mean |f(x) - d| (paper, equation 7).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from ..arrays import FloatArray
from ..backends import get_backend
from ..errors import NeuralSDFError, UsageError
from ..program.network import Architecture, initialise
from ..program.optimizers import get_optimizer
from ..program.samples import Samples

_TOGETHER = 16  # steps from one look at the clock, and for Ctrl-C, to the next

#: Share of the work over which the learning rate rises to its peak. Near the surface the median of d is 0:
#: at a rate that is high from the start a network of thin walls soon finds that f = 0 is a minimum.
_RISE = 0.35
#: Shares of the work after which samples are corrected (see `fit`).
_CORRECTIONS = (0.2, 0.4, 0.6, 0.8)

DIVERGED = "the fit diverged: its loss is not finite; use a lower `learning_rate=`"

#: Samples where the network of these weights (P,) errs.
Correction = Callable[[FloatArray], Samples]

#: Called after each step with the share of the work done (0 to 1) and the running mean loss.
Progress = Callable[[float, float], None]


@dataclass(frozen=True)
class Training:
    """How long and how a network is fitted.

    epochs: passes over the samples; the learning rate rises over the first third of them and falls to zero
    over the rest, both linearly. seconds: a time budget instead (the result then depends on the machine's
    speed). batch: samples a step. patience: stop early when the loss of an epoch has not fallen by 1 % for
    that many epochs; 0 for never. learning_rate: the peak; None for the optimiser's own, or a fifth of it
    with sines. Raises `UsageError` for values out of range.
    """

    optimizer: str = "soap"
    epochs: int = 20
    batch: int = 2048
    learning_rate: float | None = None
    seconds: float | None = None
    patience: int = 0

    def __post_init__(self) -> None:
        if self.epochs < 1:
            raise UsageError(f"`epochs={self.epochs}`: at least one pass is needed")
        if self.batch < 1:
            raise UsageError(f"`batch={self.batch}`: at least one sample a step is needed")
        if self.seconds is not None and not 0 < self.seconds < 1e9:
            raise UsageError(f"`time={self.seconds}`: a positive number of seconds is needed")
        if self.learning_rate is not None and not 0 < self.learning_rate < 10:
            raise UsageError(f"`learning_rate={self.learning_rate}`: between 0 and 10")
        if self.patience < 0:
            raise UsageError(f"`patience={self.patience}`: a number of epochs, or 0 for never")


@dataclass(frozen=True, eq=False)
class Fit:
    """Weights (P,), the loss of the last epoch, and how many passes it took."""

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
    """Fit a network to samples; the same seed gives the same weights, whatever the number of threads.

    start: the weights (P,) to begin with; None for random ones.
    correct: asked four times on the way where the network errs; what it returns takes the place of as many
    of the samples.

    Raises `NeuralSDFError` if the loss stops being finite (a learning rate far too high).
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
    """The learning rate of every step (s,) float32 of a fit to `count` samples, as `fit_many` takes them.

    Raises `UsageError` for a training whose length is not known before: by the clock, or with patience.
    """
    if training.seconds is not None or training.patience:
        raise UsageError("`time=` and `patience=`: fits side by side take a fixed number of epochs")
    peak = _peak_rate(architecture, training)
    an_epoch = max(1, count // training.batch)
    schedule = _Schedule(training)
    rates = [peak * schedule.advance(1 / an_epoch) for _ in range(training.epochs * an_epoch)]
    return np.array(rates, np.float32)


def correction_steps(training: Training, count: int) -> list[int]:
    """After how many steps a fit to `count` samples is corrected, as `fit_many` takes them."""
    an_epoch = max(1, count // training.batch)
    schedule, marks = _Schedule(training), _Marks(_CORRECTIONS)
    steps = []
    for epoch in range(1, training.epochs):
        for _ in range(an_epoch):
            schedule.advance(1 / an_epoch)
        if marks.passed(schedule.done):
            steps.append(epoch * an_epoch)
    return steps


#: Of the optimiser's own rate, where the activation is the sine: its slopes are 30 times as steep, and at the
#: whole rate a fit ends at f = 0 everywhere.
_SINE_SHARE = 0.2


def _peak_rate(architecture: Architecture, training: Training) -> float:
    """The highest learning rate of a fit."""
    if training.learning_rate is not None:
        return training.learning_rate
    share = _SINE_SHARE if architecture.activation == "sine" else 1.0
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
        """One pass over the samples in a fresh random order; returns its mean loss."""
        batch = self._training.batch
        order = self._rng.permutation(len(samples.points))
        steps = max(1, len(order) // batch)  # the remainder is another epoch's
        losses: list[float] = []
        for first in range(0, steps, _TOGETHER):
            count = min(_TOGETHER, steps - first)
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
    """Share of the work that is done, by epochs or by the clock, and the learning rate's factor there."""

    def __init__(self, training: Training) -> None:
        self._epochs, self._seconds = float(training.epochs), training.seconds
        self._start = time.monotonic()
        self._passed = 0.0
        self._end: tuple[float, float] | None = None  # (epochs passed, factor) where an early end began

    def advance(self, epochs: float) -> float:
        """The factor of the next step, which passes that many epochs."""
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
    """Shares of the work that are still to be passed, ascending."""

    def __init__(self, shares: Sequence[float]) -> None:
        self._left = list(shares)

    def passed(self, done: float) -> bool:
        """Whether any has been passed since the last call."""
        before = len(self._left)
        self._left = [share for share in self._left if share > done]
        return len(self._left) < before


class _Plateau:
    """Notices when the loss has not fallen by 1 % for `patience` epochs."""

    def __init__(self, patience: int) -> None:
        self._patience, self._best, self._since = patience, np.inf, 0

    def reached(self, loss: float) -> bool:
        if loss < 0.99 * self._best:
            self._best, self._since = loss, 0
        else:
            self._since += 1
        return 0 < self._patience <= self._since
