from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from neuralsdf.array_types import FloatArray
from neuralsdf.compression.quantize import PRECISIONS, decode, encode, round_trip, stored_form
from neuralsdf.errors import UsageError
from neuralsdf.program.network import Architecture, Network, initialise

SMALL = Architecture((7, 5))


def random_weights(seed: int, exponent: float = 0.0, architecture: Architecture = SMALL) -> FloatArray:
    """Weights whose sizes range over many orders of magnitude, channel by channel too."""
    rng = np.random.default_rng(seed)
    sizes = 10.0 ** (exponent + rng.uniform(-6, 2, architecture.weight_count))
    return (rng.normal(size=architecture.weight_count) * sizes).astype(np.float32)


def test_f32_is_exact() -> None:
    weights = random_weights(0)
    assert encode(SMALL, weights, "f32").tobytes() == weights.tobytes()
    assert decode(SMALL, encode(SMALL, weights, "f32")).tobytes() == weights.tobytes()


def test_f16_rounds_to_nearest() -> None:
    weights = initialise(Architecture(), 3)
    rounded = decode(Architecture(), encode(Architecture(), weights, "f16"))
    assert np.array_equal(rounded, weights.astype(np.float16).astype(np.float32))
    assert not np.array_equal(rounded, weights)


@given(seed=st.integers(0, 10**6), exponent=st.floats(-6, 1), precision=st.sampled_from(PRECISIONS))
@settings(max_examples=100)
def test_encoding_decoded_weights_is_exact(seed: int, exponent: float, precision: str) -> None:
    stored = encode(SMALL, random_weights(seed, exponent), precision)
    again = encode(SMALL, decode(SMALL, stored), precision)
    assert again.tobytes() == stored.tobytes()


@pytest.mark.parametrize("precision", PRECISIONS)
def test_stored_form_is_that_of_encoded_weights(precision: str) -> None:
    stored = encode(SMALL, random_weights(1), precision)
    assert (stored.dtype, stored.shape) == stored_form(SMALL, precision)


@given(seed=st.integers(0, 10**6))
@settings(max_examples=50)
def test_int8_is_within_half_a_step_of_its_channel(seed: int) -> None:
    weights = random_weights(seed)
    rounded = decode(SMALL, encode(SMALL, weights, "int8"))
    for (kernel, bias), (kernel8, bias8) in zip(SMALL.layers(weights), SMALL.layers(rounded), strict=True):
        step = np.maximum(np.abs(kernel).max(axis=0) / 127, 2.0**-14)
        # The step itself is rounded to float16, by at most 2^-11: this shifts an entry of 127 steps.
        assert (np.abs(kernel - kernel8) <= step * (0.5 + 127 * 2.0**-11)).all()
        assert np.array_equal(bias8, bias.astype(np.float16).astype(np.float32))


def test_int8_keeps_a_channel_of_zeros() -> None:
    assert not decode(SMALL, encode(SMALL, np.zeros(SMALL.weight_count, np.float32), "int8")).any()


def test_int8_takes_one_byte_per_weight_and_two_numbers_per_channel() -> None:
    architecture = Architecture()
    stored = encode(architecture, initialise(architecture, 0), "int8")
    assert stored.nbytes == (7553 - 257) + 2 * 2 * 257


@pytest.mark.parametrize(("precision", "size"), [("f16", 65520.0), ("int8", 65520.0 * 128)])
def test_overflow_is_an_error(precision: str, size: float) -> None:
    weights = np.zeros(SMALL.weight_count, np.float32)
    weights[3] = size
    with pytest.raises(UsageError, match=f"`precision={precision!r}` cannot hold"):
        encode(SMALL, weights, precision)


def test_unknown_precision_names_the_known_ones() -> None:
    with pytest.raises(UsageError, match="one of f32, f16, int8"):
        round_trip(Network(SMALL, random_weights(0)), "f64")
