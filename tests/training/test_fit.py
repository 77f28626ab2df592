"""A fit reaches the distance of an analytic shape, is reproducible to the byte, and can stop early."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest

from neuralsdf import thread_count
from neuralsdf.backends import batched_networks as many
from neuralsdf.backends import get_backend
from neuralsdf.backends.batched_networks import Corrections, Fits, fit_many
from neuralsdf.errors import NeuralSDFError, UsageError
from neuralsdf.geometry.unit_ball import uniform_ball
from neuralsdf.program.network import Architecture, Network, initialise
from neuralsdf.program.optimizer_settings import get_optimizer
from neuralsdf.program.sample_set import Samples
from neuralsdf.training import fit as fitting
from neuralsdf.training.fit import correction_steps
from neuralsdf.training.fit_settings import Training
from neuralsdf.training.learning_rate_schedule import learning_rates
from neuralsdf.training.sampling import RADIUS

fit = partial(fitting.fit, backend=get_backend())
SMALL = Architecture.uniform(4, 16)


@pytest.fixture(scope="module")
def sphere() -> Samples:
    points = uniform_ball(40_000, np.random.default_rng(0), RADIUS).astype(np.float32)
    return Samples(points, (np.linalg.norm(points, axis=1) - 0.6).astype(np.float32))


@pytest.mark.parametrize("activation", ["relu", "sine", "softplus"])
def test_a_sphere_is_fitted_closely(sphere, activation):
    architecture = replace(SMALL, activation=activation)
    fitted = fit(architecture, sphere, Training(epochs=30, batch=500))
    points = uniform_ball(5000, np.random.default_rng(1), RADIUS).astype(np.float32)
    values = get_backend().compile(Network(architecture, fitted.weights)).evaluate(points)
    assert np.abs(values - (np.linalg.norm(points, axis=1) - 0.6)).mean() < 0.004
    assert fitted.loss < 0.005
    assert fitted.epochs == 30


def test_a_fit_can_start_from_given_weights(sphere):
    once = fit(SMALL, sphere, Training(epochs=5))
    again = fit(SMALL, sphere, Training(epochs=1, learning_rate=1e-9), start=once.weights)
    np.testing.assert_allclose(again.weights, once.weights, atol=1e-6)


@pytest.mark.parametrize("optimizer", ["soap", "adam"])
def test_a_seed_gives_the_same_bytes_for_any_number_of_threads(sphere, optimizer):
    training = Training(optimizer, epochs=2, batch=10_000)
    runs = []
    for threads, seed in ((1, 0), (3, 0), (1, 1)):
        thread_count.set_threads(threads)
        runs.append(fit(SMALL, sphere, training, seed=seed).weights.tobytes())
    assert runs[0] == runs[1]
    assert runs[0] != runs[2]


def test_learning_rates_are_those_of_a_fit(sphere):
    class Recorder:
        weights = initialise(SMALL, 0)

        def steps(self, points, targets, order, batch, rates):
            recorded.extend(rates)
            return np.zeros(len(rates))

    recorded: list[float] = []
    backend = SimpleNamespace(trainer=lambda *_: Recorder())
    for batch in (1000, 1100, 50_000):
        recorded.clear()
        training = Training(epochs=7, batch=batch)
        fit(SMALL, sphere, training, backend=backend)
        assert np.array_equal(learning_rates(SMALL, training, len(sphere.points)), recorded)
    for endless in (Training(seconds=1.0), Training(patience=2)):
        with pytest.raises(UsageError, match="epochs"):
            learning_rates(SMALL, endless, 100)


def test_patience_ends_a_fit_that_has_converged(sphere):
    flat = Samples(sphere.points, np.zeros_like(sphere.distances))  # learnt at once
    fitted = fit(SMALL, flat, Training(epochs=200, batch=4000, patience=3))
    assert fitted.epochs < 100
    assert fitted.loss < 0.002


def test_a_time_budget_ends_the_fit(sphere):
    shares = []
    fitted = fit(
        SMALL, sphere, Training(seconds=0.3, epochs=10**6), progress=lambda done, loss: shares.append(done)
    )
    assert shares == sorted(shares)
    assert shares[-1] == 1
    assert np.isfinite(fitted.loss)


def test_samples_fewer_than_a_batch_are_enough(sphere):
    few = Samples(sphere.points[:100], sphere.distances[:100])
    assert np.isfinite(fit(SMALL, few, Training(epochs=3)).loss)


def test_a_diverging_fit_is_an_error(sphere):
    broken = Samples(sphere.points, np.full_like(sphere.distances, np.nan))
    with pytest.raises(NeuralSDFError, match="diverged"):
        fit(SMALL, broken, Training(epochs=1))


@pytest.mark.parametrize(
    "bad", [{"epochs": 0}, {"batch": 0}, {"seconds": -1.0}, {"patience": -1}, {"learning_rate": 0.0}]
)
def test_invalid_options_are_usage_errors(bad):
    with pytest.raises(UsageError, match="`"):
        Training(**bad)


def errors_of(weights: np.ndarray) -> Samples:
    """Corrections that depend on the weights."""
    rng = np.random.default_rng(int(1e6 * np.abs(weights).sum()))
    points = uniform_ball(60, rng, RADIUS).astype(np.float32)
    return Samples(points, np.linalg.norm(points, axis=1) - np.float32(0.6))


@pytest.mark.parametrize(
    ("epochs", "count"), [(1, 900), (2, 900), (3, 1000), (7, 1013), (20, 49 * 100), (4, 70)]
)
def test_batched_fits_are_corrected_as_single_ones(sphere, monkeypatch, epochs, count):
    """With the same order of samples, each network equals that of `fit`, byte for byte."""
    training, seed = Training(epochs=epochs, batch=100), 3
    samples = [
        Samples(sphere.points[first:][:count], sphere.distances[first:][:count]) for first in (0, 5000)
    ]
    rng = np.random.default_rng([seed, 1])
    orders = [rng.permutation(count) for _ in range(epochs)]
    monkeypatch.setattr(many, "sample_order", lambda count, key, epoch: orders[epoch])
    start = initialise(SMALL, seed)
    asked = []

    def corrected(weights: np.ndarray) -> list[Samples]:
        asked.append(weights)
        return [errors_of(own) for own in weights]

    points, distances = (np.stack([own[part] for own in samples]) for part in range(2))
    before = points.copy()
    rates, after = learning_rates(SMALL, training, count), correction_steps(training, count)
    fits = Fits(SMALL, np.stack([start, start]), points, distances, get_optimizer("soap"), 100, seed)
    weights, losses = fit_many(fits, rates, backend=get_backend(), corrections=Corrections(after, corrected))
    assert len(asked) == len(after) == min(epochs - 1, 4)
    np.testing.assert_array_equal(points, before)
    for own, fitted, loss in zip(samples, weights, losses, strict=True):
        alone = fit(SMALL, own, training, correct=errors_of, seed=seed)
        assert fitted.tobytes() == alone.weights.tobytes()
        assert loss == pytest.approx(alone.loss, rel=1e-6)
