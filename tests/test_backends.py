"""Every backend computes what the network is: float64 arithmetic written out, and torch's derivatives."""

from __future__ import annotations

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from neuralsdf import parallel
from neuralsdf.backends import BACKENDS, backend_status, get_backend
from neuralsdf.errors import BackendError
from neuralsdf.network import ACTIVATIONS, Architecture, Network, initialise

if backend_status("native").available:
    from neuralsdf.kernels._core import supported_isas

    ISAS = supported_isas()
else:
    ISAS = []

HIDDEN = [(32,) * 8, (16, 16), (64, 64, 64), (128, 128), (1,), (3, 5), (24,) * 4, (32, 7, 64)]
COUNTS = [0, 1, 5, 95, 96, 97, 1000]

NUMPY = {
    "relu": lambda z: np.maximum(z, 0),
    "sine": lambda z: np.sin(30 * z),
    "softplus": lambda z: np.logaddexp(0, 100 * z) / 100,
    "silu": lambda z: z / (1 + np.exp(-z)),
    "elu": lambda z: np.where(z > 0, z, np.expm1(np.minimum(z, 0))),
    "tanh": np.tanh,
}


@pytest.fixture(params=["torch", *ISAS])
def backend(request):
    """The torch backend, and the native one for every instruction set that runs here."""
    if request.param == "torch":
        return get_backend("torch")
    from neuralsdf.backends.native import NativeBackend

    return NativeBackend(request.param)


def exact(network: Network, points: np.ndarray) -> np.ndarray:
    """The network in float64, layer by layer."""
    a = network.architecture
    x = points.astype(np.float64)
    *hidden, last = list(a.layers(network.weights.astype(np.float64)))
    for kernel, bias in hidden:
        x = NUMPY[a.activation](x @ kernel + bias)
    value = (x @ last[0] + last[1])[:, 0]
    return np.tanh(value) if a.output == "tanh" else value


def some(architecture: Architecture, count: int, seed: int = 0) -> tuple[Network, np.ndarray, np.ndarray]:
    """A network with biases that are not zero, points and targets."""
    rng = np.random.default_rng(seed)
    weights = initialise(architecture, seed)
    weights += rng.normal(scale=0.05, size=weights.shape).astype(np.float32)
    points = rng.uniform(-1, 1, (count, 3)).astype(np.float32)
    return Network(architecture, weights), points, rng.uniform(-1, 1, count).astype(np.float32)


@pytest.mark.parametrize("hidden", HIDDEN, ids=str)
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_values_are_those_of_float64(backend, hidden, activation):
    if activation == "sine":
        hidden = hidden[:2]  # each sine multiplies rounding by 30: deeper, float32 and float64 part for good
    for output in ("tanh", "linear"):
        network, points, _ = some(Architecture(hidden, activation, output), 1000)
        expected = exact(network, points)
        tolerance = 2e-5 * max(1.0, np.abs(expected).max()) * (30 if activation == "sine" else 1)
        np.testing.assert_allclose(backend.evaluate(network, points), expected, atol=tolerance)


@pytest.mark.parametrize("count", COUNTS)
def test_every_number_of_points_works(backend, count):
    network, points, targets = some(Architecture(), count)
    values = backend.evaluate(network, points)
    assert values.shape == (count,)
    assert values.dtype == np.float32
    np.testing.assert_allclose(values, exact(network, points), atol=2e-5)
    with_gradient, gradient = backend.evaluate_with_gradient(network, points)
    assert gradient.shape == (count, 3)
    np.testing.assert_allclose(with_gradient, values, atol=2e-6)
    loss, _ = backend.loss_gradient(network.architecture, network.weights, points, targets)
    expected = np.abs(exact(network, points) - targets).mean() if count else 0.0
    assert loss == pytest.approx(expected, abs=2e-5)


@pytest.mark.parametrize("hidden", HIDDEN, ids=str)
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_gradients_are_torchs(backend, hidden, activation):
    """Both gradients against autograd in float64 would move kinks; against float32 they share them."""
    if activation == "sine":
        hidden = hidden[:2]
    network, points, targets = some(Architecture(hidden, activation), 500)
    reference = get_backend("torch")
    slope, expected_slope = (b.evaluate_with_gradient(network, points)[1] for b in (backend, reference))
    scale = np.abs(expected_slope).max()
    # A point within rounding of a ReLU's kink may take either side's slope.
    close = np.abs(slope - expected_slope).max(axis=1) <= 1e-3 * scale
    assert close.mean() >= 0.995
    arguments = network.architecture, network.weights, points, targets
    (loss, by_weights), (expected_loss, expected) = (
        b.loss_gradient(*arguments) for b in (backend, reference)
    )
    assert loss == pytest.approx(expected_loss, rel=1e-4, abs=1e-6)
    assert np.abs(by_weights - expected).max() <= 5e-3 * np.abs(expected).max()


@pytest.mark.parametrize("activation", ["softplus", "silu", "tanh"])
def test_the_gradient_by_the_points_is_the_slope_of_the_values(backend, activation):
    network, points, _ = some(Architecture((32,) * 3, activation), 200)
    _, gradient = backend.evaluate_with_gradient(network, points)
    h = 1e-5
    for axis in range(3):
        step = h * np.eye(3)[axis]
        slope = (exact(network, points + step) - exact(network, points - step)) / (2 * h)
        np.testing.assert_allclose(gradient[:, axis], slope, atol=2e-3)


def test_the_loss_gradient_descends(backend):
    network, points, targets = some(Architecture((16,) * 3), 300)
    loss, gradient = backend.loss_gradient(network.architecture, network.weights, points, targets)
    step = 1e-3 / np.linalg.norm(gradient)
    moved = Network(network.architecture, network.weights - np.float32(step) * gradient)
    after = np.abs(exact(moved, points) - targets).mean()
    assert after - loss == pytest.approx(-1e-3 * np.linalg.norm(gradient), rel=0.05)


@pytest.mark.parametrize("name", BACKENDS)
def test_results_do_not_depend_on_the_threads(name):
    if not backend_status(name).available:
        pytest.skip(backend_status(name).detail)
    engine = get_backend(name)
    network, points, targets = some(Architecture(), 20_001)
    before = parallel.threads()
    results = []
    for threads in (1, 2, 5):
        parallel.set_threads(threads)
        values, slopes = engine.evaluate_with_gradient(network, points)
        loss, gradient = engine.loss_gradient(network.architecture, network.weights, points, targets)
        plain = engine.evaluate(network, points)
        results.append((plain.tobytes(), values.tobytes(), slopes.tobytes(), loss, gradient.tobytes()))
    parallel.set_threads(before)
    assert results[0] == results[1] == results[2]


def test_a_point_that_is_no_place_has_no_value_and_harms_no_other(backend):
    network, points, _ = some(Architecture(), 200)
    expected = backend.evaluate(network, points)
    points[17, 1] = np.nan
    values = backend.evaluate(network, points)
    others = np.arange(200) != 17
    assert np.isnan(values[17])
    np.testing.assert_array_equal(values[others], expected[others])


@pytest.mark.parametrize("hidden", [(1,), (3,), (32,)], ids=str)
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_infinite_points_give_what_arithmetic_gives(backend, hidden, activation):
    """Widths are padded inside the core: zero weights of the padding times infinity must not show."""
    for output in ("tanh", "linear"):
        network, points, _ = some(Architecture(hidden, activation, output), 40)
        points[:20, 0] = np.inf
        points[20:, 1] = -np.inf
        with np.errstate(invalid="ignore"):
            expected = exact(network, points)
        np.testing.assert_allclose(backend.evaluate(network, points), expected, atol=2e-5)


def test_subnormal_values_are_not_flushed_to_zero(backend):
    network, points, _ = some(Architecture((32,) * 3, "relu", "linear"), 200)
    network = Network(network.architecture, initialise(network.architecture, 0))  # no biases: f(s x) = s f(x)
    tiny = np.float32(2.0**-130)
    values = backend.evaluate(network, points * tiny)
    expected = exact(network, points * tiny)
    assert (np.abs(expected) < np.finfo(np.float32).tiny).all()
    np.testing.assert_allclose(values, expected, atol=100 * np.finfo(np.float32).smallest_subnormal)
    assert np.count_nonzero(values) > 190


@pytest.mark.skipif(not ISAS, reason="the C++ core was not built")
@given(
    st.lists(st.integers(1, 70), min_size=1, max_size=4).map(tuple),
    st.sampled_from(ACTIVATIONS),
    st.integers(0, 200),
)
@settings(max_examples=60, deadline=None)
def test_any_widths_give_the_same_on_every_backend(hidden, activation, count):
    if activation == "sine":
        hidden = hidden[:2]
    network, points, targets = some(Architecture(hidden, activation), count)
    reference = get_backend("torch")
    for isa in ISAS:
        from neuralsdf.backends.native import NativeBackend

        native = NativeBackend(isa)
        tolerance = 1e-3 if activation == "sine" else 2e-5
        expected = reference.evaluate(network, points)
        np.testing.assert_allclose(native.evaluate(network, points), expected, atol=tolerance)
        arguments = network.architecture, network.weights, points, targets
        (loss, gradient), (expected_loss, expected) = (
            b.loss_gradient(*arguments) for b in (native, reference)
        )
        assert loss == pytest.approx(expected_loss, abs=tolerance)
        assert np.abs(gradient - expected).max() <= 1e-2 * np.abs(expected).max() + 1e-6


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.skipif(not ISAS, reason="the C++ core was not built")
def test_a_forked_process_computes_with_threads_of_its_own():
    """The core's threads do not survive a fork; a child that waited for them would hang."""
    code = (
        "import os, signal, numpy as np; from neuralsdf.backends import get_backend;"
        "from neuralsdf.network import *; from neuralsdf.parallel import set_threads;"
        "set_threads(3); backend = get_backend('native'); a = Architecture((32,));"
        "network = Network(a, initialise(a, 0)); points = np.ones((20000, 3), np.float32);"
        "values = backend.evaluate(network, points); child = os.fork();"
        "signal.alarm(20);"
        "same = np.array_equal(backend.evaluate(network, points), values);"
        "child or os._exit(0 if same else 1);"
        "assert same and os.waitpid(child, 0)[1] == 0"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


@pytest.mark.skipif(not ISAS, reason="the C++ core was not built")
def test_calls_from_several_threads_at_once_agree():
    backend = get_backend("native")
    network, points, _ = some(Architecture(), 30_000)
    expected = backend.evaluate(network, points)
    before = parallel.threads()
    parallel.set_threads(3)
    with ThreadPoolExecutor(4) as pool:
        results = list(pool.map(lambda _: backend.evaluate(network, points), range(12)))
    parallel.set_threads(before)
    assert all(np.array_equal(values, expected) for values in results)


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.skipif(not ISAS, reason="the C++ core was not built")
def test_a_long_call_can_be_interrupted(threads):
    """Ctrl-C half a second into what would take minutes."""
    code = (
        "import numpy as np, signal; from neuralsdf.backends import get_backend;"
        "from neuralsdf.network import *; from neuralsdf.parallel import set_threads;"
        f"set_threads({threads}); backend = get_backend('native'); a = Architecture((1024,) * 4);"
        "weights = np.zeros(a.weight_count, np.float32); points = np.zeros((1 << 20, 3), np.float32);"
        "signal.signal(signal.SIGALRM, signal.default_int_handler);"
        "signal.setitimer(signal.ITIMER_REAL, 0.5);"
        "backend.loss_gradient(a, weights, points, points[:, 0].copy())"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=30)
    assert result.stderr.rstrip().endswith("KeyboardInterrupt")


@pytest.mark.skipif(not ISAS, reason="the C++ core was not built")
def test_the_core_refuses_what_it_cannot_read():
    from neuralsdf.kernels._core import Core

    core = Core(ISAS[0])
    network, points, targets = some(Architecture((16,)), 10)
    a = network.architecture

    def evaluate(weights=network.weights, hidden=a.hidden, activation="relu", points=points):
        return core.evaluate(weights, hidden, activation, "tanh", points, 1)

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


@pytest.mark.skipif(not ISAS, reason="the C++ core was not built")
def test_the_instruction_set_can_be_chosen_and_a_wrong_one_is_an_error(monkeypatch):
    from neuralsdf.backends import native

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


@pytest.mark.skipif(not ISAS, reason="the C++ core was not built")
def test_the_native_backend_needs_no_torch():
    code = (
        "import sys, numpy as np; from neuralsdf.backends import get_backend;"
        "from neuralsdf.network import *;"
        "a = Architecture(); network = Network(a, initialise(a, 0));"
        "get_backend().evaluate(network, np.zeros((9, 3), np.float32));"
        "assert 'torch' not in sys.modules"
    )
    environment = {k: v for k, v in os.environ.items() if not k.startswith("NEURALSDF_")}
    subprocess.run([sys.executable, "-c", code], check=True, env=environment)
