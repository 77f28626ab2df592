"""
quantize.py
-----------
Stored formats of weights. Encoding rounds; errors are measured and images rendered with the decoded
weights, so pass a network through `round_trip` before measuring its error.

    f32    float32 (P,), exact
    f16    float16 (P,), rounded to nearest
    int8   one record: int8 kernel entries (K,), layer by layer, row-major (in, out), with a float16
           scale and bias (C,) for each of the C output channels of all layers: weight = entry * scale
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from ..array_types import FloatArray
from ..errors import UsageError
from ..program.network import Architecture, Network

PRECISIONS = ("f32", "f16", "int8")

#: int8 entries are symmetric about zero.
_LARGEST = 127
#: float16's smallest normal number. A smaller scale would be rounded coarsely, without any gain.
_SMALLEST_SCALE = 2.0**-14


def stored_form(architecture: Architecture, precision: str) -> tuple[np.dtype[Any], tuple[int, ...]]:
    """dtype and shape of the result of `encode`; raises `UsageError` for an unknown precision."""
    if precision == "f32":
        return np.dtype("<f4"), (architecture.weight_count,)
    if precision == "f16":
        return np.dtype("<f2"), (architecture.weight_count,)
    if precision == "int8":
        channels = sum(columns for _, columns in architecture.layer_shapes)
        entries = architecture.weight_count - channels
        fields = [
            ("kernels", "i1", (entries,)),
            ("scales", "<f2", (channels,)),
            ("biases", "<f2", (channels,)),
        ]
        return np.dtype(fields), ()
    raise UsageError(f"unknown precision {precision!r}; one of {', '.join(PRECISIONS)}")


def encode(architecture: Architecture, weights: FloatArray, precision: str) -> npt.NDArray[Any]:
    """Weights (P,) float32 encoded with the dtype and shape of `stored_form`.

    Encoding decoded weights is exact. Raises `UsageError` for an unknown precision, and if a weight, bias
    or scale overflows float16.
    """
    dtype, shape = stored_form(architecture, precision)
    if precision != "int8":
        return _narrowed(weights, dtype, precision)
    record = np.zeros(shape, dtype)
    entry = channel = 0
    for kernel, bias in architecture.layers(weights):
        entries, channels = slice(entry, entry + kernel.size), slice(channel, channel + len(bias))
        scales = np.maximum(np.abs(kernel).max(axis=0) / np.float32(_LARGEST), np.float32(_SMALLEST_SCALE))
        scales = _narrowed(scales, np.dtype("<f2"), precision)
        record["scales"][channels] = scales
        record["biases"][channels] = _narrowed(bias, np.dtype("<f2"), precision)
        rounded = np.rint(kernel / scales.astype(np.float32))
        record["kernels"][entries] = np.clip(rounded, -_LARGEST, _LARGEST).ravel()
        entry, channel = entries.stop, channels.stop
    return record


def decode(architecture: Architecture, stored: npt.NDArray[Any]) -> FloatArray:
    """Weights (P,) float32 decoded from `stored`, in one of the forms of `stored_form`."""
    if stored.dtype.names is None:
        return stored.astype(np.float32)
    weights = np.empty(architecture.weight_count, np.float32)
    entry = channel = 0
    for kernel, bias in architecture.layers(weights):
        entries, channels = slice(entry, entry + kernel.size), slice(channel, channel + len(bias))
        scales = stored["scales"][channels].astype(np.float32)
        kernel[:] = stored["kernels"][entries].reshape(kernel.shape) * scales
        bias[:] = stored["biases"][channels]
        entry, channel = entries.stop, channels.stop
    return weights


def round_trip(network: Network, precision: str) -> Network:
    """The network after encoding and decoding; raises as `encode` does."""
    stored = encode(network.architecture, network.weights, precision)
    return Network(network.architecture, decode(network.architecture, stored))


def _narrowed(values: FloatArray, dtype: np.dtype[Any], precision: str) -> npt.NDArray[Any]:
    with np.errstate(over="ignore"):
        narrowed = values.astype(dtype)
    if not np.isfinite(narrowed).all():
        largest = float(np.abs(values).max())
        raise UsageError(f"`precision={precision!r}` cannot hold a weight of {largest:.3g}; use f32")
    return narrowed
