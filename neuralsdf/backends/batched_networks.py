"""
batched_networks.py
-------------------
Networks of one architecture, fitted or evaluated together: fits run concurrently on a GPU, a thread block per
network, each on its own samples; the C++ core evaluates them at shared points in one call. Other backends
handle one network after the other, which is also the reference.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from ..array_types import FloatArray
from ..program.network import Architecture, Network
from ..program.optimizer_settings import Optimizer
from ..program.sample_set import Samples
from . import Backend, Losses, Order, backend_name

#: Called with the fraction of steps done (0 to 1).
Progress = Callable[[float], None]


@runtime_checkable
class EvaluatesMany(Protocol):
    """A backend that evaluates several networks in one call."""

    def evaluate_many(
        self, architecture: Architecture, weights: FloatArray, points: FloatArray
    ) -> FloatArray:
        """Values (n, m) float32 of n networks with `weights` (n, P) at points (m, 3)."""
        ...


def values_of_many(
    backend: Backend, architecture: Architecture, weights: FloatArray, points: FloatArray
) -> FloatArray:
    """Values (n, m) float32 of n networks with `weights` (n, P) at the same points (m, 3) of the unit ball.

    Equal to those of the individual programs. Arrays are C-contiguous float32.
    """
    if isinstance(backend, EvaluatesMany):
        return backend.evaluate_many(architecture, weights, points)
    values = np.empty((len(weights), len(points)), np.float32)
    for row, own in zip(values, weights, strict=True):
        row[:] = backend.compile(Network(architecture, own)).evaluate(points)
    return values


class Trainers(Protocol):
    """Weights of several networks in training, and the optimizer's state."""

    @property
    def weights(self) -> FloatArray:
        """A copy of the current weights (n, P)."""
        ...

    def steps(self, rates: FloatArray) -> Losses:
        """Take a step with each of the learning rates (s,); returns the losses (n, s) float64."""
        ...

    def replace(self, shape: int, samples: Samples) -> None:
        """Replace the first samples of a shape by `samples`, at most as many as the shape has."""
        ...


class Fits(NamedTuple):
    """n fits starting from `weights` (n, P), on points (n, m, 3) and their distances (n, m).

    A step uses the paper's loss on the next `batch` samples (all m, if there are fewer) in a random order
    that changes every epoch: see `sample_order`. Arrays are C-contiguous float32.
    """

    architecture: Architecture
    weights: FloatArray
    points: FloatArray
    distances: FloatArray
    optimizer: Optimizer
    batch: int = 2048
    seed: int = 0

    @property
    def samples(self) -> int:
        """Samples per shape."""
        return int(self.points.shape[1])

    @property
    def together(self) -> int:
        """Samples per step."""
        return min(self.batch, self.samples)


@runtime_checkable
class TrainsMany(Protocol):
    """A backend that fits several networks at once."""

    def trainers(self, fits: Fits) -> Trainers | None:
        """Trainers of all networks of `fits`, or None if it cannot fit them together."""
        ...


class Corrections(NamedTuple):
    """When and how samples are corrected during a fit, as `fit` does.

    after: step numbers. samples: called with the weights (n, P), returns samples where each network errs, at
    most as many as it has; they replace its first samples.
    """

    after: Sequence[int]
    samples: Callable[[FloatArray], Sequence[Samples]]


def fits_together(device: str) -> bool:
    """Whether the backend for a device fits several networks at once; does not load it."""
    return backend_name(device) == "cuda"


def fit_many(
    fits: Fits,
    rates: FloatArray,
    *,
    backend: Backend,
    corrections: Corrections | None = None,
    progress: Progress | None = None,
) -> tuple[FloatArray, Losses]:
    """Fit n networks: take a step with each learning rate of `rates` (s,), C-contiguous float32.

    The result of a fit does not depend on the others.

    Returns weights (n, P) and losses (n,), the mean over the last epoch. A fit that diverges has a loss that
    is not finite and does not stop the others. Raises `ValueError` for arrays of wrong shape or dtype.
    """
    _check(fits, rates)
    trainers = make_trainers(backend, fits)
    steps_per_epoch = fits.samples // fits.together
    after = set() if corrections is None else set(corrections.after)
    losses, done = np.empty((len(fits.weights), 0)), 0
    while done < len(rates):
        if corrections is not None and done in after:
            for shape, samples in enumerate(corrections.samples(trainers.weights)):
                _check_samples(samples, fits.samples)
                trainers.replace(shape, samples)
        end = min(done + _STEPS_PER_REPORT, len(rates), *(steps for steps in after if steps > done))
        losses = np.concatenate([losses, trainers.steps(rates[done:end])], axis=1)[:, -steps_per_epoch:]
        done = end
        if progress is not None:
            progress(done / len(rates))
    return trainers.weights, losses.mean(axis=1)


#: Steps between progress reports.
_STEPS_PER_REPORT = 64


def make_trainers(backend: Backend, fits: Fits) -> Trainers:
    """The backend's trainers of n networks, or `OneByOne` if it has none for these."""
    together = backend.trainers(fits) if isinstance(backend, TrainsMany) else None
    return OneByOne(backend, fits) if together is None else together


class OneByOne:
    """`Trainers` that runs a separate trainer for every network."""

    def __init__(self, backend: Backend, fits: Fits) -> None:
        self._fits, self._key = fits, key_of(fits.seed)
        self._samples = list(zip(fits.points, fits.distances, strict=True))
        self._trainers = [
            backend.trainer(fits.architecture, start.copy(), fits.optimizer) for start in fits.weights
        ]
        self._steps = 0

    @property
    def weights(self) -> FloatArray:
        """A copy of the current weights (n, P)."""
        now = [trainer.weights for trainer in self._trainers]
        return np.array(now, np.float32).reshape(self._fits.weights.shape)

    def steps(self, rates: FloatArray) -> Losses:
        """Take a step with each of the rates (s,); returns the losses (n, s)."""
        fits, batch = self._fits, self._fits.together
        losses = np.empty((len(self._trainers), len(rates)))
        steps_per_epoch = fits.samples // batch
        done = 0
        while done < len(rates):
            epoch, first = divmod(self._steps, steps_per_epoch)
            taken = slice(done, done + min(steps_per_epoch - first, len(rates) - done))
            end = first + taken.stop - done
            order = sample_order(fits.samples, self._key, epoch)[first * batch : end * batch]
            for row, (trainer, samples) in enumerate(zip(self._trainers, self._samples, strict=True)):
                losses[row, taken] = trainer.steps(*samples, order, batch, rates[taken])
            self._steps += taken.stop - done
            done = taken.stop
        return losses

    def replace(self, shape: int, samples: Samples) -> None:
        """Replace the first samples of a shape by `samples`."""
        count = len(samples.points)
        points, distances = self._samples[shape]
        self._samples[shape] = (
            np.concatenate([samples.points, points[count:]]),
            np.concatenate([samples.distances, distances[count:]]),
        )


def key_of(seed: int) -> int:
    """The 32-bit key of the sample orders of a seed."""
    return int(np.random.SeedSequence([seed, 1]).generate_state(1)[0])


def sample_order(count: int, key: int, epoch: int) -> Order:
    """A random permutation (count,) of 0 .. count - 1 that needs no memory on a GPU: see
    cuda/random_order.h."""
    bits = max(1, (count - 1).bit_length())
    mask, half = np.uint32((1 << bits) - 1), np.uint32((bits + 1) // 2)
    numbers: npt.NDArray[np.uint32] = np.arange(2 * _ROUNDS, dtype=np.uint32)
    constants = _mixed(_mixed(_mixed(np.array([epoch], np.uint32)) + np.uint32(key)) + numbers)

    def permute(places: npt.NDArray[np.uint32]) -> npt.NDArray[np.uint32]:
        for added, factor in constants.reshape(_ROUNDS, 2):
            places = (places + added) * (factor | np.uint32(1)) & mask
            places = places ^ (places >> half)
        return places

    places = permute(np.arange(count, dtype=np.uint32))
    while (outside := np.flatnonzero(places >= count)).size:
        places[outside] = permute(places[outside])
    return places.astype(np.int64)


_ROUNDS = 5


def _mixed(x: npt.NDArray[np.uint32]) -> npt.NDArray[np.uint32]:
    """Mix the bits of x: every output bit depends on all input bits."""
    x = (x ^ (x >> np.uint32(16))) * np.uint32(0x21F0AAAD)
    x = (x ^ (x >> np.uint32(15))) * np.uint32(0xD35A2D97)
    return x ^ (x >> np.uint32(15))


def _check(fits: Fits, rates: FloatArray) -> None:
    """Raise `ValueError` for invalid arguments of `fit_many`."""
    n, m = fits.distances.shape if fits.distances.ndim == 2 else (0, 0)
    expected: tuple[tuple[str, npt.NDArray[Any], tuple[int, ...]], ...] = (
        ("weights", fits.weights, (n, fits.architecture.weight_count)),
        ("points", fits.points, (n, m, 3)),
        ("distances", fits.distances, (n, m)),
        ("rates", rates, (rates.size,)),
    )
    for name, array, shape in expected:
        if array.dtype != np.float32 or array.shape != shape or not array.flags.c_contiguous:
            raise ValueError(f"{name} must be a C-contiguous float32 array of the shape {shape}")
    if not 1 <= m < 1 << 31:
        raise ValueError(f"{m} samples per shape; must be at least 1 and less than 2^31")
    if not rates.size:
        raise ValueError("no learning rates; at least one step is needed")
    if fits.batch < 1:
        raise ValueError(f"batch size {fits.batch}; must be at least 1")


def _check_samples(samples: Samples, limit: int) -> None:
    """Raise `ValueError` for invalid corrections of a fit to `limit` samples."""
    count = len(samples.points)
    for array, shape in zip(samples, ((count, 3), (count,)), strict=True):
        if array.dtype != np.float32 or array.shape != shape or not array.flags.c_contiguous or count > limit:
            raise ValueError(
                f"corrections must be at most {limit} points (k, 3) and distances (k,), C-contiguous float32"
            )
