"""The architecture, the flat layout of its weights, and initial weights."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from neuralsdf.backends import get_backend
from neuralsdf.errors import UsageError
from neuralsdf.program.network import ACTIVATIONS, OUTPUTS, Architecture, Network, initialise, widen
from neuralsdf.program.optimizer_settings import get_optimizer

architectures = st.builds(
    Architecture,
    st.lists(st.integers(1, 40), min_size=1, max_size=6).map(tuple),
    st.sampled_from(ACTIVATIONS),
    st.sampled_from(OUTPUTS),
)


def test_the_default_network_is_that_of_the_paper():
    assert Architecture().weight_count == 7553
    assert Architecture() == Architecture.uniform(8, 32)
    assert str(Architecture()) == "8x32 relu"
    assert str(Architecture((3, 5), "sine")) == "3-5 sine"


@given(architectures)
def test_the_layers_are_views_that_cover_the_flat_vector_in_order(architecture):
    flat = np.arange(architecture.weight_count, dtype=np.float32)
    parts = [part for layer in architecture.layers(flat) for part in layer]
    assert all(np.shares_memory(part, flat) for part in parts)
    np.testing.assert_array_equal(np.concatenate([part.ravel() for part in parts]), flat)
    assert [kernel.shape for kernel, _ in architecture.layers(flat)] == list(architecture.layer_shapes)
    assert architecture.layer_shapes[0][0] == 3
    assert architecture.layer_shapes[-1][1] == 1


@given(architectures)
def test_json_gives_the_architecture_back(architecture):
    assert Architecture.from_json(json.loads(json.dumps(architecture.to_json()))) == architecture


@pytest.mark.parametrize(
    "value",
    [
        None,
        [],
        {},
        {"hidden": 3},
        {"hidden": [True], "activation": "relu", "output": "tanh"},
        {"hidden": ["8"]},
    ],
)
def test_json_of_something_else_is_an_error(value):
    with pytest.raises(UsageError):
        Architecture.from_json(value)


@pytest.mark.parametrize(
    ("hidden", "activation", "output"),
    [
        ((), "relu", "tanh"),
        ((0,), "relu", "tanh"),
        ((8,), "swish", "tanh"),
        ((8,), "relu", "exp"),
        ((8192,) * 9, "relu", "tanh"),
    ],
)
def test_invalid_options_are_usage_errors(hidden, activation, output):
    with pytest.raises(UsageError):
        Architecture(hidden, activation, output)


def test_too_many_layers_are_refused_before_they_take_memory():
    with pytest.raises(UsageError, match="`layers="):
        Architecture.uniform(10**12, 32)


def test_initial_weights_are_glorot_uniform_and_depend_on_the_seed():
    architecture = Architecture.uniform(4, 64)
    weights = initialise(architecture, 0)
    for kernel, bias in architecture.layers(weights):
        limit = np.sqrt(6 / sum(kernel.shape))
        assert np.abs(kernel).max() <= limit
        assert kernel.std() == pytest.approx(limit / np.sqrt(3), rel=0.2)
        assert not bias.any()
    np.testing.assert_array_equal(weights, initialise(architecture, 0))
    assert not np.array_equal(weights, initialise(architecture, 1))


def test_initial_weights_of_a_sine_network_are_those_of_siren():
    architecture = Architecture.uniform(3, 64, "sine")
    kernels = [kernel for kernel, _ in architecture.layers(initialise(architecture, 0))]
    assert 0.3 < np.abs(kernels[0]).max() <= 1 / 3
    assert np.abs(kernels[1]).max() <= np.sqrt(6 / 64) / 30


@pytest.mark.parametrize(
    "weights", [np.zeros(7, np.float32), np.zeros(7553), np.full(7553, np.nan, np.float32)]
)
def test_weights_that_do_not_fit_are_refused(weights):
    with pytest.raises(UsageError):
        Network(Architecture(), weights)


@given(architectures, st.data())
def test_a_widened_network_computes_the_same_function(architecture, data):
    hidden = tuple(width + data.draw(st.integers(0, 20)) for width in architecture.hidden)
    wider = replace(architecture, hidden=hidden)
    rng = np.random.default_rng(data.draw(st.integers(0, 100)))
    weights = initialise(architecture, 0) + rng.normal(0, 0.02, architecture.weight_count).astype(np.float32)
    grown = Network(wider, widen(Network(architecture, weights), wider, seed=1))
    points = rng.uniform(-1, 1, (50, 3)).astype(np.float32)
    before, after = (
        get_backend("torch").compile(network).evaluate(points)
        for network in (Network(architecture, weights), grown)
    )
    # A sine multiplies the rounding of a sum in another order by 30, layer by layer.
    tolerance = 1e-6 * (30 ** len(hidden) if architecture.activation == "sine" else 1)
    np.testing.assert_allclose(after, before, atol=tolerance * max(1, np.abs(before).max()))


def test_new_units_can_learn():
    """No new unit is disconnected, and no two are the same."""
    before, after = Architecture((4, 4)), Architecture((7, 7))
    weights = widen(Network(before, initialise(before, 0)), after, seed=1)
    points = np.random.default_rng(0).uniform(-1, 1, (500, 3)).astype(np.float32)
    trainer = get_backend().trainer(after, weights, get_optimizer("adam"))
    order, rates = np.arange(500).repeat(4), np.full(20, 1e-3, np.float32)
    trainer.steps(points, np.ones(500, np.float32), order[:2000], 100, rates)
    (first, _), (second, _), (last, _) = after.layers(trainer.weights - weights)
    assert (np.abs(first[:, 4:]).max(axis=0) > 0).any()
    assert (np.abs(second[4:]).max(axis=1) > 0).any()
    assert len(np.unique(last[4:])) > 1


def test_a_network_can_only_be_widened():
    network = Network(Architecture((8, 8)), initialise(Architecture((8, 8)), 0))
    np.testing.assert_array_equal(widen(network, network.architecture, 3), network.weights)
    for other in (
        Architecture((8,)),
        Architecture((8, 7)),
        Architecture((8, 8, 8)),
        Architecture((9, 9), "elu"),
        Architecture((9, 9), "relu", "linear"),
    ):
        with pytest.raises(UsageError, match="cannot be widened"):
            widen(network, other, 0)
