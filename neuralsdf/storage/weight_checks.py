"""
weight_checks.py
----------------
Networks from stored weights, which may be crafted to overflow or to be slow.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ..array_types import FloatArray
from ..backends import CPU_BACKENDS, fastest, get_backend
from ..errors import ModelError
from ..program.network import Architecture, Network, largest_sum, without_denormals

#: Distance fields never reach such values and gradients; their cubes are finite in float32.
_OVERFLOW = 1e12

_PROBES = 4096


def network_of(path: Path, architecture: Architecture, weights: FloatArray) -> Network:
    """The network of weights (P,) read from the file at `path`.

    Denormal weights become zero: the values hardly change, and processors take a hundred times as long for
    operations on denormals. Raises `ModelError` if values or gradients overflow, `UsageError` if weights are
    not finite.
    """
    network = Network(architecture, without_denormals(weights))
    refuse_overflow(path, network)
    return network


def refuse_overflow(path: Path, network: Network) -> None:
    """Raise `ModelError` if values or gradients of the network read from the file at `path` overflow."""
    # The bound accepts all except deep networks, whose values are far below it.
    if largest_sum(network) >= _OVERFLOW and not _largest_value(network) < _OVERFLOW:
        raise ModelError(path, "its weights are so large that the values overflow", "convert it again")


def _largest_value(network: Network) -> float:
    """Maximum absolute value or gradient component in the ball; NaN if one is NaN."""
    points = np.random.default_rng(0).uniform(-1, 1, (_PROBES, 3)) / np.sqrt(3)
    program = get_backend(fastest(CPU_BACKENDS)).compile(network)
    values, gradients = program.evaluate_with_gradient(points.astype(np.float32))
    return float(np.maximum(np.abs(values).max(), np.abs(gradients).max()))
