"""Networks evaluated by bfloat16 tiles (AMX): close to float32, and used only if that suffices."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from neuralsdf.array_types import FloatArray, Values
from neuralsdf.backends import cpu as native
from neuralsdf.backends import get_backend
from neuralsdf.backends.bfloat16_error import added_error
from neuralsdf.csg import from_field, union
from neuralsdf.csg.compile import compile_shape
from neuralsdf.fields.field import NeuralField
from neuralsdf.geometry.similarity_transform import Similarity
from neuralsdf.program.network import Architecture, Network
from neuralsdf.program.optimizer_settings import get_optimizer
from neuralsdf.thread_count import set_threads

from ..helpers.core import ISAS
from ..helpers.networks import exact_values, random_network

pytestmark = pytest.mark.skipif(
    "amx" not in ISAS, reason="this processor has no AMX, or the compiler did not"
)

ANY = float("inf")

architectures = st.lists(st.sampled_from([32, 64, 96, 128]), min_size=1, max_size=9).map(
    lambda hidden: Architecture(tuple(hidden))
)
#: Widths that are padded for tiles: those of decoders with their codes folded in.
PADDED = [(134, 134, 134, 67, 128, 128, 128, 128, 2), (64, 60, 64), (31,), (30, 31, 32)]
any_architectures = architectures | st.sampled_from(PADDED).map(Architecture)


def by_tiles(network: Network) -> native.NativeProgram:
    program = native.NativeBackend("amx").compile(network, ANY)
    assert program._program.by_tiles
    return program


def smallest_activation(network: Network, points: FloatArray) -> Values:
    """Smallest |pre-activation| (n,) of a ReLU network at points (n, 3), relative to its layer's largest."""
    values, smallest = points.astype(np.float64), np.full(len(points), np.inf)
    for kernel, bias in list(network.architecture.layers(network.weights.astype(np.float64)))[:-1]:
        values = values @ kernel + bias
        sizes = np.abs(values)
        smallest = np.minimum(smallest, (sizes / sizes.max(axis=1, keepdims=True)).min(axis=1))
        values = np.maximum(values, 0)
    return smallest


@settings(max_examples=60)
@given(any_architectures, st.integers(1, 400), st.sampled_from(["tanh", "linear"]), st.integers(0, 2**32 - 1))
def test_values_are_close_to_float64(architecture: Architecture, count: int, output: str, seed: int) -> None:
    architecture = Architecture(architecture.hidden, output=output)
    network, points, _ = random_network(architecture, count, seed)
    expected = exact_values(network, points)
    values = by_tiles(network).evaluate(points)
    np.testing.assert_allclose(values, expected, atol=1e-4 * max(1.0, np.abs(expected).max()))


@pytest.mark.parametrize("hidden", [(32,) * 8, (64, 32, 96)], ids=str)
def test_values_do_not_depend_on_the_order_of_points(hidden: tuple[int, ...]) -> None:
    network, points, _ = random_network(Architecture(hidden), 500)
    program = by_tiles(network)
    values = program.evaluate(points)
    for part in (slice(77, None), slice(100, 101), slice(3, 40), slice(None, None, -1)):
        chosen = np.ascontiguousarray(points[part])
        np.testing.assert_array_equal(program.evaluate(chosen), values[part])


def test_a_nan_point_changes_no_others() -> None:
    network, points, targets = random_network(Architecture(), 300)
    expected = by_tiles(network).evaluate(points)
    points[[17, 40], [1, 2]] = np.nan, np.inf
    values = by_tiles(network).evaluate(points)
    assert np.isnan(values[17])
    others = np.delete(np.arange(300), [17, 40])
    np.testing.assert_array_equal(values[others], expected[others])
    loss, gradient = native.NativeBackend("amx").loss_gradient(
        network.architecture, network.weights, points, targets
    )
    assert np.isnan(loss)
    assert np.isnan(gradient).any()


@settings(max_examples=40)
@given(any_architectures, st.integers(1, 400), st.integers(0, 2**32 - 1))
def test_gradients_equal_those_of_the_reference(architecture: Architecture, count: int, seed: int) -> None:
    """At points where rounding does not decide the sign of an activation."""
    network, points, targets = random_network(architecture, count, seed)
    clear = smallest_activation(network, points) > 1e-4
    assume(clear.any())
    points, targets = points[clear], targets[clear]
    targets += 3 * np.sign(targets).astype(np.float32)  # beyond the range of tanh
    loss, gradient = native.NativeBackend("amx").loss_gradient(architecture, network.weights, points, targets)
    expected_loss, expected = get_backend("torch").loss_gradient(
        architecture, network.weights, points, targets
    )
    assert loss == pytest.approx(expected_loss, rel=1e-5)
    # In a network of dead units the signs of the errors can cancel, which leaves only rounding.
    assert np.linalg.norm(gradient - expected) < 2e-4 * np.linalg.norm(expected) + 1e-8


def test_gradients_add_up_over_the_parts_of_a_batch() -> None:
    network, points, targets = random_network(Architecture((64, 32)), 1000)
    backend = native.NativeBackend("amx")

    def gradient(part: slice) -> FloatArray:
        chosen = points[part], targets[part]
        found = backend.loss_gradient(network.architecture, network.weights, *chosen)[1]
        return found * np.float32(len(chosen[0]))

    whole = gradient(slice(None))
    parts = gradient(slice(0, 417)) + gradient(slice(417, None))
    np.testing.assert_allclose(parts, whole, atol=2e-5 * np.abs(whole).max())


@pytest.mark.parametrize("name", ["adam", "soap"])
def test_steps_do_not_depend_on_the_threads(name: str) -> None:
    network, points, targets = random_network(Architecture((32, 64, 32)), 3000)
    order = np.random.default_rng(1).permutation(3000)
    rates = np.full(3, 1e-3, np.float32)
    results = []
    try:
        for threads in (1, 3):
            set_threads(threads)
            trainer = native.NativeBackend("amx").trainer(
                network.architecture, network.weights, get_optimizer(name)
            )
            losses = trainer.steps(points, targets, order, 1000, rates)
            results.append((losses, trainer.weights))
    finally:
        set_threads(1)
    for one, other in zip(*results, strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize(
    "architecture",
    [
        Architecture((24, 24)),
        Architecture((32, 16)),
        Architecture((40,)),
        Architecture((32, 32), "sine"),
        Architecture((32, 32), "softplus"),
    ],
    ids=str,
)
def test_networks_without_tiles_are_computed_by_vectors(architecture: Architecture) -> None:
    network, points, targets = random_network(architecture, 200)
    amx, vectors = native.NativeBackend("amx"), native.NativeBackend("avx512")
    program = amx.compile(network, ANY)
    assert not program._program.by_tiles
    np.testing.assert_array_equal(program.evaluate(points), vectors.compile(network).evaluate(points))
    ours, expected = (
        backend.loss_gradient(architecture, network.weights, points, targets) for backend in (amx, vectors)
    )
    assert ours[0] == expected[0]
    np.testing.assert_array_equal(ours[1], expected[1])


def test_tiles_are_used_only_if_their_error_is_allowed() -> None:
    network, points, _ = random_network(Architecture((32,) * 4), 1000)
    backend = native.NativeBackend("amx")
    plain = backend.compile(network)
    assert not plain._program.by_tiles
    added = added_error(plain.evaluate, by_tiles(network).evaluate)
    assert 0 < added < 1e-5
    assert backend.compile(network, 1.01 * added)._program.by_tiles
    assert not backend.compile(network, added)._program.by_tiles
    broken = Network(network.architecture, np.full_like(network.weights, 1e30))
    assert not backend.compile(broken, 1.0)._program.by_tiles
    np.testing.assert_array_equal(
        plain.evaluate(points), native.NativeBackend("avx512").compile(network).evaluate(points)
    )


@pytest.mark.parametrize("many", [False, True], ids=["one", "nearest"])
def test_networks_of_a_tree_are_evaluated_as_single_ones(many: bool) -> None:
    """By tiles if their surface errors are known, also for several networks in one operation."""
    network, points, _ = random_network(Architecture((32, 64)), 500)
    points = np.ascontiguousarray(points[(points * points).sum(1) < 0.9])
    other, _, _ = random_network(Architecture((32, 64)), 1, seed=1)
    backend = native.NativeBackend("amx")
    for metrics, tolerance in (({"surface_mean": 1.0}, 0.1), ({}, None)):
        leaves = [
            NeuralField(each, Similarity.identity(), metrics=metrics)
            for each in ((network, other) if many else (network,))
        ]
        tape = compile_shape(union(from_field(leaf, "a.h5") for leaf in leaves), Similarity.identity())
        assert tape.tolerances == (tolerance,) * len(leaves)
        alone = [backend.compile(leaf.network, tolerance) for leaf in leaves]
        assert all(program._program.by_tiles == (tolerance is not None) for program in alone)
        expected = np.min([program.evaluate(points) for program in alone], axis=0)
        np.testing.assert_array_equal(backend.assemble(tape).evaluate(points), expected)


def test_an_exact_network_stays_exact_beside_a_tiled_one() -> None:
    """The same network twice, once with a known error."""
    network, _, _ = random_network(Architecture((32, 32)), 1)
    known, unknown = (
        NeuralField(network, Similarity.identity(), metrics=metrics)
        for metrics in ({"surface_mean": 1.0}, {})
    )
    shape = union([from_field(known, "a.h5"), from_field(unknown, "b.h5"), from_field(known, "a.h5")])
    tape = compile_shape(shape, Similarity.identity())
    assert tape.tolerances == (0.1, None)
