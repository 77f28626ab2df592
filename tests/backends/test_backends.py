"""Every backend agrees with float64 arithmetic and with torch's derivatives."""

from __future__ import annotations

import copy
import os
import pickle
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from neuralsdf import backends, thread_count
from neuralsdf.backends import (
    BACKENDS,
    CPU_BACKENDS,
    backend_name,
    backend_on,
    backend_status,
    chosen_backend,
    fastest,
    get_backend,
)
from neuralsdf.backends.batched_networks import fits_together
from neuralsdf.backends.reference import sphere_tracing as marching
from neuralsdf.backends.reference import torch_networks as reference_torch
from neuralsdf.backends.reference.optimizer_steps import make_stepper
from neuralsdf.backends.reference.sphere_tracing import SoftShadow
from neuralsdf.backends.value_outside_ball import Placed
from neuralsdf.errors import BackendError, UsageError
from neuralsdf.geometry.similarity_transform import Similarity
from neuralsdf.program.network import ACTIVATIONS, Architecture, Network, initialise
from neuralsdf.program.optimizer_settings import get_optimizer

from ..helpers.backend_checks import (
    check_infinite_points,
    check_loss_gradient,
    check_number_of_points,
    check_point_gradients,
    check_values,
    comparable,
)
from ..helpers.core import ISAS, needs_core
from ..helpers.networks import HIDDEN, exact_values, random_network
from ..helpers.rays import STEPS, eye_rays

COUNTS = [0, 1, 5, 95, 96, 97, 1000]


@pytest.fixture(params=["torch", *ISAS])
def backend(request):
    """The torch backend, and the native one for every supported instruction set."""
    if request.param == "torch":
        return get_backend("torch")
    from neuralsdf.backends.cpu import NativeBackend

    return NativeBackend(request.param)


@pytest.mark.parametrize("output", ["tanh", "linear"])
@pytest.mark.parametrize("hidden", HIDDEN, ids=str)
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_values_are_those_of_float64(backend, hidden, activation, output):
    check_values(backend, Architecture(comparable(hidden, activation), activation, output), 1000)


@pytest.mark.parametrize("count", COUNTS)
def test_every_number_of_points_works(backend, count):
    check_number_of_points(backend, count)
    network, points, targets = random_network(Architecture(), count)
    loss, _ = backend.loss_gradient(network.architecture, network.weights, points, targets)
    expected = np.abs(exact_values(network, points) - targets).mean() if count else 0.0
    assert loss == pytest.approx(expected, abs=2e-5)


@pytest.mark.parametrize("hidden", HIDDEN, ids=str)
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_gradients_equal_those_of_torch(backend, hidden, activation):
    architecture = Architecture(comparable(hidden, activation), activation)
    check_point_gradients(backend, architecture, 500, agreeing=0.995)
    check_loss_gradient(backend, architecture, 500)


@pytest.mark.parametrize("count", [0, 1, 97, 1000])
@pytest.mark.parametrize("hidden", [*HIDDEN, (32, 64, 30)], ids=str)
@pytest.mark.parametrize("activation", ["relu", "softplus"])
def test_the_gradient_of_hidden_biases_is_a_part_of_that_of_all_weights(backend, activation, hidden, count):
    architecture = Architecture(hidden, activation)
    network, points, targets = random_network(architecture, count)
    loss, gradient = backend.loss_gradient(architecture, network.weights, points, targets)
    expected = np.concatenate([bias for _, bias in architecture.layers(gradient)][:-1])
    biases = np.concatenate([bias for _, bias in architecture.layers(network.weights)][:-1])
    bias_loss = backend.bias_loss(network)
    bias_loss.gradient(biases + np.float32(1), points, targets)  # leaves no trace
    found = bias_loss.gradient(biases, points, targets)
    assert found[0] == pytest.approx(loss, rel=1e-6)
    np.testing.assert_allclose(found[1], expected, atol=1e-5 * np.abs(expected).max(initial=1e-9))


@needs_core
def test_a_native_bias_loss_refuses_invalid_arguments():
    network, points, targets = random_network(Architecture((16, 16)), 50)
    loss = get_backend("native").bias_loss(network)
    biases = np.zeros(32, np.float32)
    for wrong in (
        (biases[:-1], points, targets),
        (biases, points, targets[:-1]),
        (biases, points[:, :2].copy(), targets),
        (biases.astype(np.float64), points, targets),
    ):
        with pytest.raises((ValueError, TypeError)):
            loss.gradient(*wrong)


@pytest.mark.parametrize("name", ["soap", "adam"])
@pytest.mark.parametrize("hidden", [(32,) * 4, (16, 16), (5, 24, 7)], ids=str)
def test_training_steps_equal_those_of_the_reference(backend, name, hidden):
    """With the same gradients and optimizer, losses still agree after 25 steps and two bases of SOAP."""
    network, points, _ = random_network(Architecture(hidden, "softplus"), 700)
    targets = np.linalg.norm(points, axis=1) - np.float32(0.5)
    optimizer = get_optimizer(name)
    order = np.random.default_rng(1).permutation(25 * 100) % 700
    rates = np.linspace(2e-3, 0, 25).astype(np.float32)
    trainer = backend.trainer(network.architecture, network.weights, optimizer)
    losses = np.concatenate(
        [
            trainer.steps(points, targets, order[a * 100 : b * 100], 100, rates[a:b])
            for a, b in ((0, 9), (9, 25))
        ]
    )
    stepper, weights, expected = make_stepper(optimizer, network.architecture), network.weights.copy(), []
    for step, rate in enumerate(rates):
        chosen = order[step * 100 : (step + 1) * 100]
        loss, gradient = get_backend("torch").loss_gradient(
            network.architecture, weights, points[chosen], targets[chosen]
        )
        stepper.step(weights, gradient, float(rate))
        expected.append(loss)
    np.testing.assert_allclose(losses, expected, rtol=2e-3)
    assert losses[-1] < 0.9 * losses[0]
    if name == "adam":
        np.testing.assert_allclose(trainer.weights, weights, atol=1e-4)


def test_the_last_batch_may_be_short(backend):
    network, points, targets = random_network(Architecture((16, 16)), 50)
    trainer = backend.trainer(network.architecture, network.weights, get_optimizer("adam"))
    rates = np.full(2, 1e-3, np.float32)
    losses = trainer.steps(points, targets, np.arange(40, dtype=np.int64), 30, rates)
    first = np.abs(exact_values(network, points[:30]) - targets[:30]).mean()
    assert losses[0] == pytest.approx(first, abs=1e-5)
    assert losses.shape == (2,)


@needs_core
def test_a_native_trainer_refuses_invalid_arguments():
    network, points, targets = random_network(Architecture((16, 16)), 50)
    trainer = get_backend("native").trainer(network.architecture, network.weights, get_optimizer("soap"))
    rates = np.full(1, 1e-3, np.float32)
    order = np.arange(10, dtype=np.int64)
    for wrong, exception in [
        ((points, targets, order + 41, 10, rates), IndexError),
        ((points, targets, order - 1, 10, rates), IndexError),
        ((points, targets[:-1], order, 10, rates), ValueError),
        ((points, targets, order, 5, rates), ValueError),
        ((points, targets, order, 0, rates), ValueError),
        ((points, targets, order[:0], 10, rates), ValueError),
        ((points, targets, order.astype(np.int32), 10, rates), ValueError),
        ((points[:, :2], targets, order, 10, rates), ValueError),
    ]:
        with pytest.raises(exception):
            trainer.steps(*wrong)
    np.testing.assert_array_equal(trainer.weights, network.weights)


@pytest.mark.parametrize("count", [0, 1, 15, 16, 17, 97, 3000])
@pytest.mark.parametrize("size", [1e-90, 1e-3, 1, 1e9, 1e90])
def test_distances_in_mesh_space_equal_those_of_the_reference(backend, size, count):
    """Inside the ball, outside it, and at points that are not finite."""
    rng = np.random.default_rng(count)
    turn, _ = np.linalg.qr(rng.normal(size=(3, 3)))
    matrix = np.eye(4)
    matrix[:3, :3], matrix[:3, 3] = size * turn, size * rng.normal(size=3)
    transform = Similarity(matrix)
    local = rng.normal(size=(count, 3)) * rng.choice([0.3, 1, 1e5, 1e17], (count, 1))
    points = transform.apply(local)
    for index, wrong in zip(range(2, count, 7), [np.nan, np.inf, -np.inf, 1e19 * size] * count, strict=False):
        points[index, index % 3] = wrong
    network, *_ = random_network(Architecture((32, 16)), 10)
    program = backend.compile(network)
    values, outside = program.distance(points, transform)
    assert values.dtype == np.float64
    expected, beyond = Reference(program).distance(points, transform)
    sure = np.abs(np.linalg.norm(local, axis=1) - 1) > 1e-5
    np.testing.assert_array_equal(outside[sure], beyond[sure])
    np.testing.assert_array_equal(np.isnan(values), np.isnan(expected))
    np.testing.assert_allclose(values, expected, rtol=1e-6, atol=3e-6 * size)
    assert np.isnan(values).sum() == len(range(2, count, 7))
    inside = ~outside & np.isfinite(values)
    plain = program.evaluate(transform.apply_inverse(points[inside]).astype(np.float32))
    np.testing.assert_allclose(values[inside], plain.astype(np.float64) * size, atol=3e-6 * size)


class Reference(Placed):
    """`Program.distance` computed from a network's values."""

    in_ball = True

    def __init__(self, program):
        self._program = program

    def evaluate(self, points):
        return self._program.evaluate(points)


@pytest.mark.parametrize("activation", ["softplus", "silu", "tanh"])
def test_the_gradient_with_respect_to_points_agrees_with_finite_differences(backend, activation):
    network, points, _ = random_network(Architecture((32,) * 3, activation), 200)
    _, gradient = backend.compile(network).evaluate_with_gradient(points)
    h = 1e-5
    for axis in range(3):
        step = h * np.eye(3)[axis]
        slope = (exact_values(network, points + step) - exact_values(network, points - step)) / (2 * h)
        np.testing.assert_allclose(gradient[:, axis], slope, atol=2e-3)


def test_a_step_against_the_loss_gradient_lowers_the_loss_as_predicted(backend):
    network, points, targets = random_network(Architecture((16,) * 3), 300)
    loss, gradient = backend.loss_gradient(network.architecture, network.weights, points, targets)
    step = 1e-3 / np.linalg.norm(gradient)
    moved = Network(network.architecture, network.weights - np.float32(step) * gradient)
    after = np.abs(exact_values(moved, points) - targets).mean()
    assert after - loss == pytest.approx(-1e-3 * np.linalg.norm(gradient), rel=0.05)


@pytest.mark.parametrize("name", BACKENDS)
def test_results_do_not_depend_on_the_threads(name):
    if not backend_status(name).available:
        pytest.skip(backend_status(name).detail)
    engine = get_backend(name)
    network, points, targets = random_network(Architecture(), 20_001)
    results = []
    for threads in (1, 2, 5):
        thread_count.set_threads(threads)
        values, slopes = engine.compile(network).evaluate_with_gradient(points)
        loss, gradient = engine.loss_gradient(network.architecture, network.weights, points, targets)
        plain = engine.compile(network).evaluate(points)
        results.append((plain.tobytes(), values.tobytes(), slopes.tobytes(), loss, gradient.tobytes()))
    assert results[0] == results[1] == results[2]


def test_a_nan_point_gives_nan_and_affects_no_other_point(backend):
    network, points, _ = random_network(Architecture(), 200)
    expected = backend.compile(network).evaluate(points)
    points[17, 1] = np.nan
    values = backend.compile(network).evaluate(points)
    others = np.arange(200) != 17
    assert np.isnan(values[17])
    np.testing.assert_array_equal(values[others], expected[others])


@pytest.mark.parametrize("output", ["tanh", "linear"])
@pytest.mark.parametrize("hidden", [(1,), (3,), (32,)], ids=str)
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_infinite_points_give_the_values_of_float64(backend, hidden, activation, output):
    check_infinite_points(backend, Architecture(hidden, activation, output))


def test_subnormal_values_may_only_become_zeros(backend):
    network, points, _ = random_network(Architecture((32,) * 3, "relu", "linear"), 200)
    network = Network(network.architecture, initialise(network.architecture, 0))  # no biases: f(s x) = s f(x)
    small = np.float32(2.0**-130)
    values = backend.compile(network).evaluate(points * small)
    expected = exact_values(network, points * small)
    assert (np.abs(expected) < np.finfo(np.float32).tiny).all()
    np.testing.assert_allclose(values, expected, atol=np.finfo(np.float32).tiny)


@pytest.mark.parametrize("threads", [1, 2])
def test_the_core_computes_without_denormals(core_backend, threads):
    """Operations on denormals (weights of 1e-40, products of 1e-20) take a hundred times as long."""
    architecture, points = (
        Architecture((32,) * 3, "relu", "linear"),
        random_network(Architecture((8,)), 20_000)[1],
    )
    thread_count.set_threads(threads)
    try:
        for scale in (1e-10, 1e-40):  # four layers: products of 1e-40
            weights = (initialise(architecture, 0) * np.float32(scale)).astype(np.float32)
            program = core_backend.compile(Network(architecture, weights))
            values, gradients = program.evaluate_with_gradient(points)
            assert not np.count_nonzero(program.evaluate(points))
            assert not np.count_nonzero(values)
            assert not np.count_nonzero(gradients)
    finally:
        thread_count.set_threads(1)


@needs_core
@given(
    st.lists(st.integers(1, 70), min_size=1, max_size=4).map(tuple),
    st.sampled_from(ACTIVATIONS),
    st.integers(0, 200),
)
@settings(max_examples=60)
def test_backends_agree_for_any_widths(hidden, activation, count):
    if activation == "sine":
        hidden = hidden[:2]
    network, points, targets = random_network(Architecture(hidden, activation), count)
    reference = get_backend("torch")
    for isa in ISAS:
        from neuralsdf.backends.cpu import NativeBackend

        native = NativeBackend(isa)
        tolerance = 1e-3 if activation == "sine" else 2e-5
        expected = reference.compile(network).evaluate(points)
        np.testing.assert_allclose(native.compile(network).evaluate(points), expected, atol=tolerance)
        arguments = network.architecture, network.weights, points, targets
        (loss, gradient), (expected_loss, expected) = (
            b.loss_gradient(*arguments) for b in (native, reference)
        )
        assert loss == pytest.approx(expected_loss, abs=tolerance)
        assert np.abs(gradient - expected).max() <= 1e-2 * np.abs(expected).max() + 1e-6


def ball(radius: float, seed: int = 0) -> Network:
    """The distance to a ball about the origin, to a few hundredths: the mean of |n x| is |x| / 2."""
    rng = np.random.default_rng(seed)
    normals = rng.normal(size=(3, 512))
    normals /= np.linalg.norm(normals, axis=0)
    architecture = Architecture((1024,), "relu", "linear")
    kernel = np.concatenate([normals, -normals], axis=1)
    last = np.full(1024, 2 / 512)
    weights = np.concatenate([kernel.ravel(), np.zeros(1024), last, [-radius]])
    return Network(architecture, weights.astype(np.float32))


@pytest.mark.parametrize("count", [0, 1, 63, 4000, 20_001])
def test_hits_of_a_ball_are_those_of_the_closed_form(backend, count):
    begin, directions, ends, at_ball = eye_rays(count)
    traced = backend.compile(ball(0.5)).trace(begin, directions, ends, at_ball, STEPS)
    b = np.einsum("ij,ij->i", begin, directions)
    root = b * b - (np.einsum("ij,ij->i", begin, begin) - 0.25)
    expected = np.where(root > 0, -b - np.sqrt(np.maximum(root, 0)), np.inf)
    sure = at_ball & (np.abs(root) > 0.05)  # the network's ball is a few hundredths off
    np.testing.assert_array_equal(traced.hit[sure], np.isfinite(expected)[sure])
    both = traced.hit & sure & (root > 0.1)
    np.testing.assert_allclose(traced.t[both], expected[both], atol=0.1)
    assert traced.hit.shape == traced.t.shape == traced.unresolved.shape == traced.buried.shape == (count,)
    assert not traced.unresolved.any()
    assert (traced.t[~traced.hit] == 0).all()


@pytest.mark.parametrize(
    "network", [ball(0.5), *(random_network(Architecture((32,) * 3), 0, seed)[0] for seed in range(4))]
)
def test_traces_equal_those_of_the_reference(backend, network):
    begin, directions, ends, at_ball = eye_rays(6000)
    ends[::7] = 0
    ends[5::70] = -1
    program = backend.compile(network)
    arguments = begin, directions, ends, at_ball, STEPS
    expected, traced = marching.trace(program.evaluate, *arguments), program.trace(*arguments)
    assert (traced.hit == expected.hit).mean() > 0.998  # grazing rays
    assert (traced.buried == expected.buried).mean() > 0.998
    np.testing.assert_array_equal(traced.unresolved, expected.unresolved)
    both = traced.hit & expected.hit
    # The error of a root is that of the value, 1e-6, divided by the derivative along the ray.
    slopes = program.evaluate_with_gradient(begin + expected.t[:, None] * directions)[1]
    steepness = np.abs(np.einsum("ij,ij->i", slopes, directions))
    assert (np.abs(traced.t - expected.t) < 1e-5 + 2e-6 / steepness)[both].mean() > 0.998
    points = begin + traced.t[:, None] * directions
    on_surface = traced.hit & (traced.t > 0)
    assert np.abs(program.evaluate(points[on_surface])).max(initial=0) < 3e-6
    cone = SoftShadow()
    share, _ = program.soft_shadow(begin, directions, ends, cone)
    reference, _ = marching.soft_shadow(program.evaluate, begin, directions, ends, cone)
    np.testing.assert_allclose(share, reference, atol=1e-4)


def test_a_ray_does_not_depend_on_the_others(backend):
    program, (*several, at_ball) = backend.compile(ball(0.5)), eye_rays(40)
    together = program.trace(*several, at_ball, STEPS)
    for count in (1, 4):
        for index in range(40):
            same = [np.repeat(array[index : index + 1], count, axis=0) for array in (*several, at_ball)]
            traced = program.trace(*same, STEPS)
            np.testing.assert_array_equal(traced.hit, together.hit[index])
            np.testing.assert_allclose(traced.t, together.t[index], atol=1e-5)


def test_nan_weights_leave_rays_unresolved(backend):
    network = ball(0.5)
    network.weights[:] = np.nan
    begin, directions, ends, at_ball = eye_rays(500)
    traced = backend.compile(network).trace(begin, directions, ends, at_ball, STEPS)
    assert traced.unresolved.all()
    assert not (traced.hit | traced.buried).any()
    share, _ = backend.compile(network).soft_shadow(begin, directions, ends, SoftShadow())
    assert np.isnan(share[ends > 0.01]).all()


def test_traced_rays_do_not_depend_on_the_threads(backend):
    program, arguments = backend.compile(ball(0.5)), (*eye_rays(30_000), STEPS)
    results = []
    for threads in (1, 2, 5):
        thread_count.set_threads(threads)
        traced = program.trace(*arguments)
        share, count = program.soft_shadow(*arguments[:3], SoftShadow())
        results.append((*(a.tobytes() for a in traced[:4]), traced.evaluations, share.tobytes(), count))
    assert results[0] == results[1] == results[2]


@needs_core
def test_the_core_refuses_invalid_rays():
    program = get_backend("native").compile(ball(0.5))
    arguments = [*eye_rays(10), STEPS]
    for index, wrong in (
        (0, lambda a: a[:9]),
        (0, lambda a: a.astype(np.float64)),
        (1, lambda a: a[:, :2].copy()),
        (1, np.asfortranarray),
        (2, lambda a: a[:9]),
        (2, lambda a: a[:, None]),
        (3, lambda a: a[:9]),
        (3, lambda a: a.astype(np.uint8)),
        (4, lambda a: a[:1]),
        (4, lambda a: a[::2]),
    ):
        bad = [wrong(a) if i == index else a for i, a in enumerate(arguments)]
        with pytest.raises(ValueError, match=r"must"):
            program.trace(*bad)
        if index < 3:
            with pytest.raises(ValueError, match=r"must"):
                program.soft_shadow(*bad[:3], SoftShadow())


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@needs_core
def test_a_forked_process_has_threads_of_its_own():
    """The core's threads do not survive a fork; a child that waited for them would hang."""
    code = (
        "import os, signal, numpy as np; from neuralsdf.backends import get_backend;"
        "from neuralsdf.program.network import *; from neuralsdf.thread_count import set_threads;"
        "set_threads(3); backend = get_backend('native'); a = Architecture((32,));"
        "network = Network(a, initialise(a, 0)); points = np.ones((20000, 3), np.float32);"
        "values = backend.compile(network).evaluate(points); child = os.fork();"
        "signal.alarm(100);"
        "same = np.array_equal(backend.compile(network).evaluate(points), values);"
        "child or os._exit(0 if same else 1);"
        "assert same and os.waitpid(child, 0)[1] == 0"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)


@needs_core
def test_concurrent_calls_agree():
    backend = get_backend("native")
    network, points, _ = random_network(Architecture(), 30_000)
    expected = backend.compile(network).evaluate(points)
    thread_count.set_threads(3)
    with ThreadPoolExecutor(4) as pool:
        results = list(pool.map(lambda _: backend.compile(network).evaluate(points), range(12)))
    assert all(np.array_equal(values, expected) for values in results)


@pytest.mark.parametrize("name", ["adam", "soap"])
@needs_core
def test_many_short_steps_do_not_depend_on_the_threads(name):
    """Thousands of jobs so short that threads start and end them in every order."""
    network, points, targets = random_network(Architecture((8, 8)), 600)
    order = np.random.default_rng(0).integers(0, 600, 400 * 1500)
    rates = np.full(1500, 1e-3, np.float32)
    weights = []
    for threads in (1, 4):
        thread_count.set_threads(threads)
        trainer = get_backend("native").trainer(network.architecture, network.weights, get_optimizer(name))
        trainer.steps(points, targets, order, 400, rates)
        weights.append(trainer.weights)
    np.testing.assert_array_equal(*weights)


@needs_core
def test_a_trainer_restores_the_floating_point_mode():
    """It disables denormals, also on the caller's thread."""
    network, points, targets = random_network(Architecture((16,)), 300)
    trainer = get_backend("native").trainer(network.architecture, network.weights, get_optimizer("adam"))
    denormals = np.full(100, 1e-40, np.float32)
    halves = denormals * np.float32(0.5)
    trainer.steps(points, targets, np.arange(300), 300, np.full(1, 1e-3, np.float32))
    assert (halves > 0).all()
    np.testing.assert_array_equal(denormals * np.float32(0.5), halves)


@pytest.mark.parametrize(
    "call",
    [
        "backend.loss_gradient(a, weights, points, points[:, 0].copy())",
        "backend.compile(Network(a, weights)).trace(points, points, points[:, 0] + 1, points[:, 0] < 0,"
        "np.full(9, 1e-6, np.float32))",
    ],
    ids=["gradient", "trace"],
)
@pytest.mark.parametrize("threads", [1, 2])
@needs_core
def test_a_long_call_can_be_interrupted(threads, call):
    """Ctrl-C half a second into a call that would take minutes."""
    code = (
        "import numpy as np, signal; from neuralsdf.backends import get_backend;"
        "from neuralsdf.program.network import *; from neuralsdf.thread_count import set_threads;"
        f"set_threads({threads}); backend = get_backend('native'); a = Architecture((1024,) * 4);"
        "weights = np.zeros(a.weight_count, np.float32); points = np.zeros((1 << 20, 3), np.float32);"
        "signal.signal(signal.SIGALRM, signal.default_int_handler);"
        "signal.setitimer(signal.ITIMER_REAL, 0.5);"
        f"{call}"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert result.stderr.rstrip().endswith("KeyboardInterrupt")


@needs_core
def test_the_core_refuses_invalid_arguments():
    from neuralsdf.kernels._core import Core

    core = Core(ISAS[0])
    network, points, targets = random_network(Architecture((16,)), 10)
    a = network.architecture

    def evaluate(weights=network.weights, hidden=a.hidden, activation="relu", points=points):
        return core.compile(weights, hidden, activation, "tanh").evaluate(points, 1)

    assert evaluate().shape == (10,)
    for bad in (
        {"weights": network.weights[:-1]},
        {"weights": network.weights.astype(np.float64)},
        {"hidden": (17,)},
        {"hidden": ()},
        {"hidden": (-16,)},
        {"activation": "swish"},
        {"points": points[:, :2]},
        {"points": points.astype(np.float64)},
        {"points": points[::2]},
        {"points": np.asfortranarray(points)},
        {"points": points.ravel()},
    ):
        with pytest.raises((ValueError, TypeError)):
            evaluate(**bad)
    with pytest.raises((ValueError, TypeError)):
        core.loss_gradient(network.weights, a.hidden, "relu", "tanh", points, targets[:-1], 1)


@needs_core
def test_the_instruction_set_can_be_chosen_and_a_wrong_one_is_an_error(monkeypatch):
    from neuralsdf.backends import cpu as native

    monkeypatch.setenv("NEURALSDF_ISA", "baseline")
    assert "baseline" in native.status().detail
    monkeypatch.setenv("NEURALSDF_ISA", "mmx")
    with pytest.raises(BackendError, match=r"NEURALSDF_ISA=mmx.*baseline"):
        native.load()


def test_an_unknown_backend_names_the_known_ones(monkeypatch):
    with pytest.raises(BackendError, match="torch"):
        get_backend("abacus")
    monkeypatch.setenv("NEURALSDF_BACKEND", "abacus")
    with pytest.raises(BackendError, match="abacus"):
        get_backend()


def test_a_device_is_a_backend_that_only_an_explicit_choice_loads_at_once(monkeypatch):
    assert backend_on("cpu") is get_backend(fastest(CPU_BACKENDS))
    assert backend_on("auto") is get_backend()
    assert backend_on("torch") is chosen_backend("torch") is get_backend("torch")
    with pytest.raises(UsageError, match=r"`device='moon'`.*auto"):
        backend_on("moon")
    monkeypatch.setattr(backends, "_loaded", {})
    assert chosen_backend("auto") is None
    assert backend_name("cpu") == fastest(CPU_BACKENDS)
    assert backend_name("torch") == "torch"
    assert not fits_together("cpu")
    assert not backends._loaded


@pytest.mark.parametrize("name", [fastest(CPU_BACKENDS), "torch"])
def test_a_backend_pickles_as_its_name(name):
    backend = get_backend(name)
    assert len(pickle.dumps(backend)) < 100
    assert pickle.loads(pickle.dumps(backend)) is copy.deepcopy(backend) is backend


@needs_core
def test_the_native_backend_needs_no_torch():
    code = (
        "import sys, numpy as np; from neuralsdf.backends import get_backend;"
        "from neuralsdf.program.network import *;"
        "a = Architecture(); network = Network(a, initialise(a, 0));"
        "get_backend().compile(network).evaluate(np.zeros((9, 3), np.float32));"
        "assert 'torch' not in sys.modules"
    )
    environment = {k: v for k, v in os.environ.items() if not k.startswith("NEURALSDF_")}
    subprocess.run([sys.executable, "-c", code], check=True, env=environment)


def test_the_torch_backend_keeps_the_number_of_torch_threads():
    """The setting of a training in the same process is kept, whichever thread calls the backend."""
    torch = pytest.importorskip("torch")
    reference, architecture = get_backend("torch"), Architecture((16,))
    weights = initialise(architecture, 0)
    program = reference.compile(Network(architecture, weights))
    points = np.random.default_rng(0).uniform(-0.5, 0.5, (3 * reference_torch.BLOCK, 3)).astype(np.float32)
    before, ours = torch.get_num_threads(), thread_count.threads()
    seen = []
    try:
        thread_count.set_threads(2)
        torch.set_num_threads(3)

        def call() -> None:
            program.evaluate(points)
            program.evaluate_with_gradient(points[:10])
            reference.loss_gradient(architecture, weights, points, points[:, 0].copy())

        call()
        seen.append(torch.get_num_threads())
        callers = [threading.Thread(target=lambda: [call() for _ in range(5)]) for _ in range(4)]
        for caller in callers:
            caller.start()
        call()
        for caller in callers:
            caller.join()
        seen.append(torch.get_num_threads())
        fresh = threading.Thread(target=lambda: seen.append(torch.get_num_threads()))
        fresh.start()
        fresh.join()
        with pytest.raises(RuntimeError):  # also if a call fails
            program.evaluate(points[:, :2].copy())
        seen.append(torch.get_num_threads())
    finally:
        torch.set_num_threads(before)
        thread_count.set_threads(ours)
    assert seen == [3] * 4


def test_the_torch_backend_uses_one_thread_per_block(monkeypatch):
    torch = pytest.importorskip("torch")
    seen = []
    forward = reference_torch._forward
    monkeypatch.setattr(
        reference_torch, "_forward", lambda *a: seen.append(torch.get_num_threads()) or forward(*a)
    )
    architecture = Architecture((16,))
    program = get_backend("torch").compile(Network(architecture, initialise(architecture, 0)))
    before, ours = torch.get_num_threads(), thread_count.threads()
    try:
        torch.set_num_threads(4)
        for threads in (1, 2):
            thread_count.set_threads(threads)
            program.evaluate(np.zeros((3 * reference_torch.BLOCK, 3), np.float32))
    finally:
        torch.set_num_threads(before)
        thread_count.set_threads(ours)
    assert seen == [1] * 6
