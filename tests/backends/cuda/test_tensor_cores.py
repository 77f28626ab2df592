"""Values with tensor cores equal the same arithmetic in numpy, their error is within a derived bound, and
float32 is used if it is too large. Without a GPU the kernel runs on the host (cuda_host.py), with tile
products in PTX's layout; with one, the same tests run on it too."""

from __future__ import annotations

import ctypes

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from neuralsdf.backends import get_backend
from neuralsdf.backends.cuda import CudaBackend, device
from neuralsdf.backends.cuda import structs as layout
from neuralsdf.backends.reference.sphere_tracing import SoftShadow
from neuralsdf.fields.field import NeuralField
from neuralsdf.geometry.similarity_transform import Similarity
from neuralsdf.program.network import ACTIVATIONS, Architecture, Network, initialise
from neuralsdf.storage import open_field

from ...helpers.cuda_host import HostDriver, installed
from ...helpers.networks import HIDDEN, exact_values, random_network, surface_network
from ...helpers.rays import FULL_STEPS, LONG_STEPS, chords

ANY = float("inf")  # a tolerance


@pytest.fixture(autouse=True)
def few_candidates(monkeypatch):
    """Measure the added error at few points, since that would take most of the time."""
    monkeypatch.setattr("neuralsdf.backends.bfloat16_error.CANDIDATES", 1200)
    monkeypatch.setattr("neuralsdf.backends.bfloat16_error.NEAR", 100)


def split(library, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Values (2 n,) rounded by the kernels, and their sums with the rounded remainders."""
    values = np.ascontiguousarray(values, np.float32)
    leading, sums = np.empty_like(values), np.empty_like(values)
    pointers = [ctypes.c_void_p(array.ctypes.data) for array in (values, leading, sums)]
    library.split_and_add(pointers[0], len(values), *pointers[1:])
    return leading, sums


def to_bfloat16(values: np.ndarray) -> np.ndarray:
    """torch's rounding of float32."""
    return torch.from_numpy(values.astype(np.float32)).to(torch.bfloat16).to(torch.float32).numpy()


def test_bfloat16_is_rounded_as_torch_rounds(library):
    """All bfloat16, all midpoints between two of them, and the floats next to these."""
    bits = np.arange(1 << 16, dtype=np.uint32) << 16
    values = np.concatenate([bits, bits + 0x7FFF, bits + 0x8000, bits + 0x8001]).view(np.float32)
    np.testing.assert_array_equal(split(library, values)[0], to_bfloat16(values))
    finite = values[np.isfinite(values)]
    np.testing.assert_array_equal(layout.round_to_bfloat16(finite), to_bfloat16(finite))


@given(st.lists(st.floats(-(2.0**126), 2.0**126, width=32), min_size=2, max_size=2))
def test_two_bfloat16_keep_16_bits(library, pair):
    values = np.array(pair, np.float32)
    _, sums = split(library, values)
    assert (np.abs(sums.astype(np.float64) - values) <= 2.0**-16 * np.abs(values) + 2.0**-133).all()


@pytest.mark.parametrize("hidden", HIDDEN, ids=str)
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_values_are_almost_as_exact_as_float32(backend, hidden, activation):
    if activation == "sine":
        hidden = hidden[:2]
    network, points, _ = random_network(Architecture(hidden, activation, "linear"), 100)
    program = backend.compile(network, ANY)
    assert program.tensor_cores
    expected = exact_values(network, points)
    tolerance = 1e-4 * max(1.0, np.abs(expected).max()) * (30 if activation == "sine" else 1)
    np.testing.assert_allclose(program.evaluate(points), expected, atol=tolerance)


def bound(network: Network, points: np.ndarray) -> np.ndarray:
    """Error bounds (n,) for values of a ReLU network, by a running error analysis (Higham 2002, section 3.3).

    Inputs and weights keep 16 bits each; the product of their remainders, another 2^-16, is left out. Each
    sum has up to 3 n + 1 terms, rounded or truncated at 24 bits by the GPU.
    """
    *hidden, (last, bias) = network.architecture.layers(network.weights.astype(np.float64))
    x, off = points.astype(np.float64), np.zeros(points.shape)
    for index, (kernel, shift) in enumerate(hidden):
        terms = (np.abs(x) + off) @ np.abs(kernel) + np.abs(shift)
        split = 3 * 2.0**-16 if index else 0
        off = off @ np.abs(kernel) + (split + (3 * len(kernel) + 1) * 2.0**-23) * terms
        x = np.maximum(x @ kernel + shift, 0)
    terms = (np.abs(x) + off) @ np.abs(last) + np.abs(bias)
    return (off @ np.abs(last) + (len(last) + 3) * 2.0**-23 * terms)[:, 0]


def written_out(network: Network, points: np.ndarray) -> np.ndarray:
    """Values (n,) of a ReLU network with the kernels' splits, but sums in float64."""
    *hidden, (last, bias) = network.architecture.layers(network.weights)
    x = points.astype(np.float64)
    for index, (kernel, shift) in enumerate(hidden):
        if index:
            (a, a_rest), (w, w_rest) = (
                (r := to_bfloat16(v), to_bfloat16(v.astype(np.float32) - r)) for v in (x, kernel)
            )
            z = a.astype(np.float64) @ w + a.astype(np.float64) @ w_rest + a_rest.astype(np.float64) @ w
        else:
            z = x @ kernel
        x = np.maximum(z + shift, 0)
    return (x @ last + bias)[:, 0]


SHALLOW = [(16, 16), (32, 32, 32), (64, 64), (128, 128), (24, 40)]


@pytest.mark.parametrize("hidden", SHALLOW, ids=str)
def test_the_error_is_within_the_rounding_bound(backend, hidden):
    network, points, _ = random_network(Architecture(hidden, output="linear"), 500)
    error = np.abs(backend.compile(network, ANY).evaluate(points) - exact_values(network, points))
    assert (error <= bound(network, points)).all()


@pytest.mark.parametrize("hidden", SHALLOW, ids=str)
def test_values_equal_the_same_arithmetic_in_numpy(backend, hidden):
    """Far below the error of splitting, because the same numbers are split."""
    network, points, _ = random_network(Architecture(hidden, output="linear"), 500)
    expected, true = written_out(network, points), exact_values(network, points)
    error = np.abs(backend.compile(network, ANY).evaluate(points) - expected)
    assert error.mean() <= 0.2 * np.abs(expected - true).mean()


@pytest.mark.parametrize(
    "hidden", [(16, 16, 16), (32, 32, 32), (64, 64, 64), (128, 128, 128), (3, 20)], ids=str
)
def test_sums_without_rounding_are_exact(backend, hidden):
    """All numbers have few bits, so every order of summation is exact and a wrong index is detected."""
    rng = np.random.default_rng(0)
    architecture = Architecture(hidden, output="linear")
    weights = (rng.integers(-1, 2, architecture.weight_count) / 2).astype(np.float32)
    points = (rng.integers(-8, 9, (333, 3)) / 8).astype(np.float32)
    network = Network(architecture, weights)
    np.testing.assert_array_equal(
        backend.compile(network, ANY).evaluate(points), exact_values(network, points)
    )


@pytest.mark.parametrize("count", [0, 1, 15, 16, 17, 31, 32, 33, 255, 256, 257, 3000])
def test_every_number_of_points_works(backend, count):
    for hidden in ((32, 32), (128, 9)):
        network, points, _ = random_network(Architecture(hidden), count)
        values = backend.compile(network, ANY).evaluate(points)
        assert values.shape == (count,)
        np.testing.assert_allclose(values, exact_values(network, points), atol=1e-4)


def test_a_nan_point_gives_nan_and_affects_no_other_point(backend):
    network, points, _ = random_network(Architecture((32, 32)), 100)
    points[[3, 50], [0, 2]] = np.nan
    values = backend.compile(network, ANY).evaluate(points)
    assert np.flatnonzero(np.isnan(values)).tolist() == [3, 50]


@pytest.mark.parametrize("limit", [232_448, 101_376])
@pytest.mark.parametrize("hidden", [(32,) * 40, (64,) * 9, (128,) * 5], ids=str)
@pytest.mark.parametrize("activation", ["relu", "silu"])
def test_networks_larger_than_shared_memory_are_loaded_in_parts(
    library, monkeypatch, tmp_path, limit, hidden, activation
):
    driver = installed(HostDriver(library, shared_limit=limit), monkeypatch, tmp_path)
    architecture = Architecture(hidden, activation, "linear")
    network = Network(
        architecture, 2 * initialise(architecture, 0)
    )  # larger, so that activations do not vanish
    points = np.random.default_rng(0).uniform(-1, 1, (150, 3)).astype(np.float32)
    program = CudaBackend(device.Device(), get_backend("torch")).compile(network, ANY)
    assert program.tensor_cores
    expected = exact_values(network, points)
    tolerance = len(hidden) * 3 * 2.0**-16 * np.ptp(expected)
    np.testing.assert_allclose(program.evaluate(points), expected, atol=tolerance)
    begin, directions, ends, at_ball = chords(100)
    ours, theirs = (
        each.trace(begin, directions, ends, at_ball, LONG_STEPS)
        for each in (program, get_backend("torch").compile(network))
    )
    assert np.count_nonzero(ours.hit != theirs.hit) <= 2
    assert all(shared <= limit for *_, shared in driver.launches)


def test_threads_of_a_phase_may_run_in_any_order(driver):
    backend = CudaBackend(device.Device(), get_backend("torch"))
    for activation in ("relu", "softplus"):
        network, points, _ = random_network(Architecture((24, 64, 7), activation), 500)
        begin, directions, ends, at_ball = chords(200)
        results = []
        for driver.falling in (False, True):
            program = backend.compile(network, ANY)
            traced = program.trace(begin, directions, ends, at_ball, LONG_STEPS)
            shares, _ = program.soft_shadow(begin, directions, ends, SoftShadow())
            results.append([array.tobytes() for array in (program.evaluate(points), *traced[:4], shares)])
        assert results[0] == results[1]


def test_float32_is_used_unless_the_error_is_allowed(backend):
    network, points, _ = random_network(Architecture(), 200)
    plain = backend.compile(network)
    assert not plain.tensor_cores
    assert plain.tensor_error is None
    error = backend.compile(network, ANY).tensor_error
    assert 0 < error < 1e-4
    for tolerance in (0.0, error / 2, float("nan")):
        program = backend.compile(network, tolerance)
        assert not program.tensor_cores
        assert program.tensor_error == error  # the same points, the same sums
        assert program.evaluate(points).tobytes() == plain.evaluate(points).tobytes()
    assert backend.compile(network, 2 * error).tensor_cores


@pytest.mark.parametrize("scale", [1e-6, 1e6])
def test_numbers_may_be_as_large_and_small_as_in_float32(backend, scale):
    architecture = Architecture((16, 16, 16), output="linear")
    network = Network(architecture, initialise(architecture, 0) * np.float32(scale))
    points = np.random.default_rng(0).uniform(-1, 1, (200, 3)).astype(np.float32)
    expected = exact_values(network, points)
    values = backend.compile(network, ANY).evaluate(points)
    np.testing.assert_allclose(values, expected, rtol=0, atol=1e-4 * np.abs(expected).max())


def test_tensor_cores_that_disagree_are_not_used(driver, monkeypatch):
    backend = CudaBackend(device.Device(), get_backend("torch"))
    whole = driver.run

    def broken(name, blocks, threads, shared, arguments):
        if not name.startswith("evaluate_tensor"):
            whole(name, blocks, threads, shared, arguments)

    monkeypatch.setattr(driver, "run", broken)
    network, points, _ = random_network(Architecture(), 100)
    program = backend.compile(network, 1e-4)
    assert not program.tensor_cores
    np.testing.assert_allclose(program.evaluate(points), exact_values(network, points), atol=2e-5)


def surface(hidden: tuple[int, ...], activation: str) -> Network:
    """A random network with a surface inside the ball and a gradient norm of about one."""
    architecture = Architecture(hidden, activation, "linear")
    network, points, _ = random_network(architecture, 3000)
    weights, last = network.weights.copy(), hidden[-1] + 1
    _, gradients = get_backend("torch").compile(network).evaluate_with_gradient(points)
    weights[-last:] /= np.quantile(np.linalg.norm(gradients, axis=1), 0.9)
    weights[-1] -= np.median(get_backend("torch").compile(Network(architecture, weights)).evaluate(points))
    return Network(architecture, weights)


@pytest.mark.parametrize("activation", ["relu", "softplus"])
@pytest.mark.parametrize("hidden", [(16, 16), (24, 32, 32), (64, 40), (128, 128)], ids=str)
def test_rays_hit_the_same_surfaces_as_in_float32(backend, hidden, activation):
    """Except for grazing rays; a root is one of the field as tensor cores evaluate it."""
    network, count = surface(hidden, activation), 400
    begin, directions, ends, at_ball = chords(count)
    program, plain = backend.compile(network, ANY), backend.compile(network)
    assert program.tensor_cores
    arguments = begin, directions, ends, at_ball, FULL_STEPS
    ours, theirs = program.trace(*arguments), plain.trace(*arguments)
    same = (ours.hit == theirs.hit) & (ours.buried == theirs.buried) & (ours.unresolved == theirs.unresolved)
    assert same.sum() >= count - 4
    both = ours.hit & theirs.hit & (ours.t > 0)
    assert both.sum() >= count // 10
    assert (~ours.hit).sum() >= count // 10
    assert np.count_nonzero(np.abs(ours.t - theirs.t)[both] > 1e-3) <= count // 100
    found = program.evaluate(begin + ours.t[:, None] * directions)[both]
    assert np.count_nonzero(np.abs(found) > 2e-5) <= count // 100  # or the bracket was smaller
    assert ours.evaluations == pytest.approx(theirs.evaluations, rel=0.03)
    cone = SoftShadow()
    (light, _), (expected, _) = (each.soft_shadow(begin, directions, ends, cone) for each in (program, plain))
    assert 0 < expected.mean() < 1
    assert (np.abs(light - expected) <= 1e-3).mean() >= 0.99


@pytest.mark.parametrize("count", [0, 1, 31, 33, 3000])
def test_every_number_of_rays_works(backend, count):
    """The last case has more rays than the host's blocks have threads."""
    program = backend.compile(surface_network(), ANY)
    begin, directions, ends, at_ball = chords(count)
    traced = program.trace(begin, directions, ends, at_ball, FULL_STEPS)
    few = program.trace(begin[:7], directions[:7], ends[:7], at_ball[:7], FULL_STEPS)
    for all_of, some_of in zip(traced[:4], few[:4], strict=True):
        assert len(all_of) == count
        np.testing.assert_array_equal(all_of[:7], some_of)  # whatever the other rays are


def test_gradients_are_always_float32(driver):
    program = CudaBackend(device.Device(), get_backend("torch")).compile(surface_network(), ANY)
    assert program.tensor_cores
    driver.launches.clear()
    begin, directions, ends, at_ball = chords(50)
    program.evaluate_with_gradient(begin)
    program.trace(begin, directions, ends, at_ball, FULL_STEPS)
    program.soft_shadow(begin, directions, ends, SoftShadow())
    launched = [name for name, *_ in driver.launches]
    assert launched == ["evaluate_with_gradient_32", "trace_tensor_32", "soft_shadow_tensor_32"]


def test_models_of_the_papers_authors_change_by_less_than_1e_5(backend, test_data):
    for model in sorted((test_data / "author-models").glob("*.h5"))[:6]:
        assert backend.compile(open_field(model).network, ANY).tensor_error < 1e-5


def test_a_field_allows_a_tenth_of_its_surface_error(backend):
    network = surface_network()
    error = backend.compile(network, ANY).tensor_error
    for metrics, expected in (
        ({}, False),
        ({"surface_mean": 9 * error}, False),
        ({"surface_mean": 11 * error}, True),
    ):
        field = NeuralField(network, Similarity.identity(), metrics=metrics, chosen_backend=backend)
        assert field.program.tensor_cores is expected
