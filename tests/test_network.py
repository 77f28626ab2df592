"""The architecture, the flat layout of its weights, and where a network starts."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from neuralsdf.errors import UsageError
from neuralsdf.network import ACTIVATIONS, OUTPUTS, Architecture, Network, initialise

architectures = st.builds(
    Architecture,
    st.lists(st.integers(1, 40), min_size=1, max_size=6).map(tuple),
    st.sampled_from(ACTIVATIONS),
    st.sampled_from(OUTPUTS),
)


def test_the_default_network_is_the_papers():
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
def test_nonsense_is_a_usage_error(hidden, activation, output):
    with pytest.raises(UsageError):
        Architecture(hidden, activation, output)


def test_too_many_layers_are_refused_before_they_take_memory():
    with pytest.raises(UsageError, match="--layers"):
        Architecture.uniform(10**12, 32)


def test_a_network_starts_as_glorot_says_and_the_seed_decides():
    architecture = Architecture.uniform(4, 64)
    weights = initialise(architecture, 0)
    for kernel, bias in architecture.layers(weights):
        limit = np.sqrt(6 / sum(kernel.shape))
        assert np.abs(kernel).max() <= limit
        assert kernel.std() == pytest.approx(limit / np.sqrt(3), rel=0.2)
        assert not bias.any()
    np.testing.assert_array_equal(weights, initialise(architecture, 0))
    assert not np.array_equal(weights, initialise(architecture, 1))


def test_a_sine_network_starts_as_siren_does():
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
