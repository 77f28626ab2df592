"""Fits on a GPU, one block per shape, compared with sequential fits of the reference. Without a GPU the
kernel runs on the host (cuda_host.py); with one, the same tests run on it too."""

from __future__ import annotations

import ctypes
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from neuralsdf.backends import get_backend
from neuralsdf.backends.batched_networks import (
    Corrections,
    Fits,
    OneByOne,
    fit_many,
    key_of,
    make_trainers,
    sample_order,
)
from neuralsdf.backends.cuda import CudaBackend, device
from neuralsdf.backends.cuda import fit as cuda_fit
from neuralsdf.backends.cuda.fit import CudaTrainers, optimiser_struct, schedule
from neuralsdf.backends.cuda.structs import pack, padded_width, unpack
from neuralsdf.backends.reference.optimizer_steps import make_stepper
from neuralsdf.program.network import Architecture, Network, initialise
from neuralsdf.program.optimizer_settings import OPTIMIZERS, get_optimizer
from neuralsdf.program.sample_set import Samples

from ...helpers.cuda_host import HostDriver, installed

SMALL = Architecture((16, 16))


def shapes(architecture: Architecture, count: int, samples: int, seed: int = 0):
    """Initial weights, and samples of spheres of several radii."""
    rng = np.random.default_rng(seed)
    points = rng.uniform(-0.7, 0.7, (count, samples, 3)).astype(np.float32)
    radii = np.linspace(0.2, 0.6, count)[:, None]
    distances = (np.linalg.norm(points, axis=2) - radii).astype(np.float32)
    start = np.array([initialise(architecture, seed + row) for row in range(count)])
    return start.reshape(count, architecture.weight_count), points, distances


def both(backend, architecture, arrays, method, rates, batch, seed=0):
    """Trainers on the device and the reference's, after the steps, and their losses."""
    results = []
    for make in (make_trainers, OneByOne):
        chosen = backend if make is make_trainers else get_backend("torch")
        trainers = make(chosen, Fits(architecture, *arrays, get_optimizer(method), batch, seed))
        results.append((trainers, trainers.steps(rates)))
    assert isinstance(results[0][0], CudaTrainers)
    return results


def falling(steps: int, rate: float = 3e-3) -> np.ndarray:
    return np.linspace(rate, 0, steps, endpoint=False, dtype=np.float32)


@pytest.mark.parametrize("method", OPTIMIZERS)
@pytest.mark.parametrize("hidden", [(16, 16), (32, 20, 32, 5), (64,), (1,)], ids=str)
def test_optimizers_equal_those_of_the_reference(library, hidden, method):
    """Over three bases, with preconditioners of full rank: in a null space the basis is arbitrary."""
    architecture, optimizer = (
        Architecture(hidden),
        replace(get_optimizer(method), refresh=2 * max(hidden) + 2),
    )
    steps, size = 3 * optimizer.refresh + 2, architecture.weight_count
    rng = np.random.default_rng(0)
    gradients = (rng.standard_normal((steps, size)) * rng.uniform(0.1, 2, size)).astype(np.float32)
    expected = initialise(architecture, 0)
    packed = pack(architecture, expected)
    rows = np.array([pack(architecture, gradient) for gradient in gradients])
    depth, width = len(hidden), padded_width(architecture)
    state = np.full(cuda_fit.state_size(optimizer, width, depth), np.nan, np.float32)
    library.optimise(
        width, depth, optimiser_struct(optimizer).tobytes(),
        schedule(optimizer, falling(steps, 1e-2), 0).tobytes(), steps, packed.size,
        *(ctypes.c_void_p(array.ctypes.data) for array in (rows, packed, state)), 0,
    )  # fmt: skip
    stepper = make_stepper(optimizer, architecture)
    for gradient, rate in zip(gradients, falling(steps, 1e-2), strict=True):
        stepper.step(expected, gradient, float(rate))
    np.testing.assert_allclose(unpack(architecture, packed), expected, atol=3e-5)
    assert np.isfinite(state).all()


@pytest.mark.parametrize("method", OPTIMIZERS)
@pytest.mark.parametrize("hidden", [(16, 16), (32,) * 5, (24, 5, 32), (40, 64), (7,)], ids=str)
def test_losses_and_weights_equal_those_of_the_reference(backend, hidden, method):
    """Over two epochs and three bases of SOAP, in whose null spaces only losses agree, due to rounding."""
    architecture = Architecture(hidden)
    arrays = shapes(architecture, 2, 330)
    for steps in (10, 23):
        (ours, losses), (theirs, expected) = both(backend, architecture, arrays, method, falling(steps), 30)
        if method == "adam" or steps == 10:
            np.testing.assert_allclose(losses, expected, rtol=1e-4)
            np.testing.assert_allclose(ours.weights, theirs.weights, atol=1e-4)
        else:
            np.testing.assert_allclose(losses, expected, rtol=0.05)


@pytest.mark.parametrize("method", OPTIMIZERS)
@pytest.mark.parametrize("activation", ["sine", "softplus", "silu"])
def test_other_activations_are_fitted_too(backend, activation, method):
    architecture = Architecture((16, 12), activation, "linear")
    arrays = shapes(architecture, 1, 100)
    (_, losses), (_, expected) = both(backend, architecture, arrays, method, falling(15), 64)
    np.testing.assert_allclose(losses, expected, rtol=5e-3)


@pytest.mark.parametrize("method", OPTIMIZERS)
def test_the_fit_of_a_shape_does_not_depend_on_the_others(backend, method, monkeypatch):
    arrays = shapes(SMALL, 7, 150)  # more than the host's blocks: each has several, one after the other
    together, losses = both(backend, SMALL, arrays, method, falling(12), 64)[0]
    for row in (0, 3, 6):
        alone, loss = both(backend, SMALL, [a[row : row + 1] for a in arrays], method, falling(12), 64)[0]
        assert alone.weights.tobytes() == together.weights[row : row + 1].tobytes()
        assert loss.tobytes() == losses[row : row + 1].tobytes()


@pytest.mark.parametrize("method", OPTIMIZERS)
def test_launches_of_any_length_give_the_same_bytes(backend, method, monkeypatch):
    arrays, rates = shapes(SMALL, 2, 100), falling(27)
    whole, losses = both(backend, SMALL, arrays, method, rates, 32)[0]
    monkeypatch.setattr(cuda_fit, "SLICE", 4 * 6 * SMALL.weight_count * 32)
    launched = []
    launch = CudaTrainers._launch
    monkeypatch.setattr(
        CudaTrainers, "_launch", lambda self, rates: launched.append(len(rates)) or launch(self, rates)
    )
    sliced = make_trainers(backend, Fits(SMALL, *arrays, get_optimizer(method), batch=32))
    parts = [sliced.steps(rates[:9]), sliced.steps(rates[9:10]), sliced.steps(rates[10:])]
    assert launched == [4, 4, 1, 1, 4, 4, 4, 4, 1]
    assert np.concatenate(parts, axis=1).tobytes() == losses.tobytes()
    assert sliced.weights.tobytes() == whole.weights.tobytes()


@pytest.mark.parametrize("method", OPTIMIZERS)
def test_the_same_seed_gives_the_same_bytes(backend, method):
    arrays = shapes(SMALL, 2, 300)
    runs = [both(backend, SMALL, arrays, method, falling(11), 64, seed)[0][0].weights for seed in (0, 0, 5)]
    assert runs[0].tobytes() == runs[1].tobytes()
    assert runs[0].tobytes() != runs[2].tobytes()


@pytest.mark.parametrize("method", OPTIMIZERS)
@pytest.mark.parametrize("hidden", [(32, 32), (64, 20)], ids=str)
def test_threads_of_a_phase_may_run_in_any_order(driver, method, hidden):
    """On a GPU they run at the same time: a result that depends on their order is a race."""
    backend, architecture = CudaBackend(device.Device(), get_backend("torch")), Architecture(hidden)
    results = []
    for driver.falling in (False, True):
        trainers, losses = both(backend, architecture, shapes(architecture, 2, 90), method, falling(21), 32)[
            0
        ]
        results.append((losses.tobytes(), trainers.weights.tobytes()))
    assert results[0] == results[1]


@pytest.mark.parametrize("limit", [101_376, 60_000])
def test_networks_larger_than_shared_memory_are_fitted_too(library, monkeypatch, tmp_path, limit):
    installed(HostDriver(library, shared_limit=limit), monkeypatch, tmp_path)
    backend = CudaBackend(device.Device(), get_backend("torch"))
    architecture = Architecture((64,) * 5)
    arrays = shapes(architecture, 1, 64)
    (ours, losses), (_, expected) = both(backend, architecture, arrays, "soap", falling(11), 64)
    assert not ours._plan.resident
    np.testing.assert_allclose(losses, expected, rtol=2e-3)


@pytest.mark.parametrize("method", OPTIMIZERS)
def test_a_diverging_fit_does_not_stop_the_others(backend, method):
    weights, points, distances = shapes(SMALL, 2, 100)
    alone, _ = both(backend, SMALL, (weights[1:], points[1:], distances[1:]), method, falling(12), 50)[0]
    distances[0, :] = np.nan
    trainers, losses = both(backend, SMALL, (weights, points, distances), method, falling(12), 50)[0]
    assert np.isnan(losses[0]).all()
    assert trainers.weights[1:].tobytes() == alone.weights.tobytes()


@pytest.mark.parametrize("name", ["torch", "native", "cuda"])
def test_spheres_are_fitted(request, name):
    """Every backend fits each sphere to its radius, and returns the losses of the last epoch."""
    if name == "cuda":
        request.getfixturevalue("driver")
    weights, points, distances = shapes(SMALL, 2, 1000)
    done: list[float] = []
    fits = Fits(SMALL, weights, points, distances, get_optimizer("soap"), batch=125)
    fitted, losses = fit_many(fits, falling(160, 2e-2), backend=get_backend(name), progress=done.append)
    assert (losses < 0.02).all()
    assert done == sorted(done)
    assert done[-1] == 1
    for row in range(2):
        values = get_backend("torch").compile(Network(SMALL, fitted[row])).evaluate(points[row])
        assert np.abs(values - distances[row]).mean() == pytest.approx(losses[row], rel=0.1)


def test_corrections_replace_only_the_first_samples_of_their_shape(backend):
    weights, points, distances = shapes(SMALL, 3, 150)
    fresh = [
        Samples(own[:k].copy(), np.full(k, 0.1, np.float32))
        for own, k in zip(points, (0, 40, 150), strict=True)
    ]
    asked = []

    def corrected(weights: np.ndarray) -> list[Samples]:
        asked.append(weights)
        return fresh

    fits = Fits(SMALL, weights, points, distances, get_optimizer("adam"), batch=30)
    corrections = Corrections([7, 30], corrected)
    (trained, losses), (expected, others) = (
        fit_many_on(engine, fits, falling(20), corrections) for engine in (backend, get_backend("torch"))
    )
    assert len(asked) == 2  # once per backend
    np.testing.assert_allclose(asked[0], asked[1], atol=1e-4)
    np.testing.assert_allclose(losses, others, rtol=1e-4)
    np.testing.assert_allclose(trained, expected, atol=1e-4)
    alone, _ = fit_many_on(backend, fits, falling(20), None)
    assert [np.array_equal(*rows) for rows in zip(alone, trained, strict=True)] == [True, False, False]


def fit_many_on(engine, fits, rates, corrections):
    return fit_many(fits, rates, backend=engine, corrections=corrections)


@pytest.mark.parametrize(
    "bad",
    [
        Samples(np.zeros((11, 3), np.float32), np.zeros(11, np.float32)),
        Samples(np.zeros((2, 3)), np.zeros(2, np.float32)),
        Samples(np.zeros((2, 3), np.float32), np.zeros(3, np.float32)),
    ],
)
def test_invalid_corrections_are_refused(bad):
    weights, points, distances = shapes(SMALL, 1, 10)
    fits = Fits(SMALL, weights, points, distances, get_optimizer("adam"), batch=5)
    with pytest.raises(ValueError, match="corrections"):
        fit_many_on(get_backend("torch"), fits, falling(4), Corrections([2], lambda weights: [bad]))


def test_no_shapes_no_steps_and_few_samples_are_accepted(backend):
    adam = get_optimizer("adam")
    for count, samples, steps in ((0, 10, 5), (2, 10, 0), (2, 1, 3), (1, 3, 4)):
        weights, points, distances = shapes(SMALL, count, samples)
        trainers = make_trainers(backend, Fits(SMALL, weights, points, distances, adam))
        assert trainers.steps(falling(steps)).shape == (count, steps)
        assert trainers.weights.shape == weights.shape
        assert steps or np.array_equal(trainers.weights, weights)


def test_invalid_fits_are_refused():
    weights, points, distances = shapes(SMALL, 2, 10)
    rates, torch, adam = falling(3), get_backend("torch"), get_optimizer("adam")
    for name, bad in (
        ("weights", (weights[:, 1:], points, distances, rates)),
        ("weights", (weights[:1], points, distances, rates)),
        ("points", (weights, points[:, :5], distances, rates)),
        ("points", (weights, points.astype(np.float64), distances, rates)),
        ("rates", (weights, points, distances, rates[::2])),
        ("samples", (weights, points[:, :0].copy(), distances[:, :0].copy(), rates)),
        ("learning rate", (weights, points, distances, rates[:0])),
    ):
        with pytest.raises(ValueError, match=name):
            fit_many(Fits(SMALL, *bad[:3], adam), bad[3], backend=torch)
    with pytest.raises(ValueError, match="batch"):
        fit_many(Fits(SMALL, weights, points, distances, adam, 0), rates, backend=torch)


@given(count=st.integers(1, 3000), seed=st.integers(0, 2**70), epoch=st.integers(0, 2**31 - 1))
@settings(max_examples=60)
def test_an_order_is_a_permutation(count, seed, epoch):
    assert np.array_equal(np.sort(sample_order(count, key_of(seed), epoch)), np.arange(count))


@pytest.mark.parametrize("count", [1, 2, 3, 64, 65, 1000, 250_000])
def test_the_order_of_the_kernel_equals_the_reference(library, count):
    for seed, epoch in ((0, 0), (2**32 - 1, 7), (12345, 2**31 - 1)):
        places = np.empty(count, np.uint32)
        library.sample_order(count, ctypes.c_uint(seed), epoch, ctypes.c_void_p(places.ctypes.data))
        assert np.array_equal(places, sample_order(count, seed, epoch))


def test_orders_look_random():
    """The position of a sample and its neighbour are uniform, and epochs are independent."""
    count, bins = 5000, 20
    cells = np.zeros((3, bins, bins))
    before = sample_order(count, key_of(0), 0)
    for epoch in range(1, 41):
        order = sample_order(count, key_of(0), epoch)
        place = np.argsort(order)
        pairs = (np.arange(count), place), (place, np.roll(place, -1)), (place, np.argsort(before))
        for row, (x, y) in enumerate(pairs):
            np.add.at(cells[row], (x * bins // count, y * bins // count), 1)
        before = order
    expected = 40 * count / bins**2
    chi_squared = ((cells - expected) ** 2 / expected).sum(axis=(1, 2)) / bins**2
    assert (chi_squared < 1.3).all()  # 1 +- 0.07, and a little less for draws without replacement
    assert (chi_squared > 0.5).all()


@pytest.mark.parametrize("width", [16, 32, 64])
@pytest.mark.parametrize("depth", [1, 2, 8])
def test_the_state_has_the_size_that_the_kernel_expects(library, width, depth):
    for index, method in enumerate(OPTIMIZERS):
        assert library.state_size(width, depth, index) == cuda_fit.state_size(
            get_optimizer(method), width, depth
        )


def test_too_wide_networks_are_fitted_on_the_cpu(driver):
    backend, architecture = CudaBackend(device.Device(), get_backend("torch")), Architecture((65,))
    arrays = shapes(architecture, 1, 20)
    trainers = make_trainers(backend, Fits(architecture, *arrays, get_optimizer("adam"), batch=10))
    assert isinstance(trainers, OneByOne)
    assert np.isfinite(trainers.steps(falling(3))).all()


def test_allocated_memory_is_freed(driver):
    backend = CudaBackend(device.Device(), get_backend("torch"))
    both(backend, SMALL, shapes(SMALL, 1, 20), "soap", falling(2), 10)
    before = len(driver.allocated)
    both(backend, SMALL, shapes(SMALL, 3, 20), "soap", falling(2), 10)
    assert len(driver.allocated) == before
