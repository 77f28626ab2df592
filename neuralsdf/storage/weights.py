"""
weights.py
----------
The network of weights from a file, which may have been made to overflow or to be slow.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ..arrays import FloatArray
from ..backends import CPU_BACKENDS, fastest, get_backend
from ..errors import ModelError
from ..program.network import Architecture, Network, largest_sum, without_denormals

#: Values and slopes that are never met in a distance field; their cubes are within float32.
_OVERFLOW = 1e12

_PROBES = 4096


def network_of(path: Path, architecture: Architecture, weights: FloatArray) -> Network:
    """The network of weights (P,) that were read from the file at `path`.

    Denormal weights become zeros: that changes no value that could be noticed, and a processor takes a
    hundred times as long for an operation on one. Raises `ModelError` for weights with which values or
    gradients overflow, `UsageError` for those that are not finite.
    """
    network = Network(architecture, without_denormals(weights))
    # The bound clears all but deep networks, whose values are far below it.
    if largest_sum(network) >= _OVERFLOW and not _largest_value(network) < _OVERFLOW:
        raise ModelError(path, "its weights are so large that the values overflow", "convert it again")
    return network


def _largest_value(network: Network) -> float:
    """The largest value or slope at points in the ball; NaN where one is."""
    points = np.random.default_rng(0).uniform(-1, 1, (_PROBES, 3)) / np.sqrt(3)
    program = get_backend(fastest(CPU_BACKENDS)).compile(network)
    values, gradients = program.evaluate_with_gradient(points.astype(np.float32))
    return float(np.maximum(np.abs(values).max(), np.abs(gradients).max()))
