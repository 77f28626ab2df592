"""
bfloat16_error.py
-----------------
The error that a faster method of evaluating a network adds, measured before the method is used. Units that
multiply bfloat16 (tensor cores, AMX) are several times as fast as float32.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from ..array_types import FloatArray

#: The error is measured at the points nearest to the surface: `NEAR` of `CANDIDATES` random points.
NEAR, CANDIDATES = 1 << 9, 1 << 13

Evaluate = Callable[[FloatArray], FloatArray]


def added_error(exact: Evaluate, faster: Evaluate) -> float:
    """Mean difference between two evaluations of a network near its surface; may be NaN."""
    points = np.random.default_rng(0).uniform(-1, 1, (CANDIDATES, 3)).astype(np.float32)
    points = points[(points * points).sum(1) <= 1]  # a network is only valid in the unit ball
    values = exact(points)
    near = np.argsort(np.abs(values))[:NEAR]
    return float(np.abs(faster(points[near]) - values[near]).mean(dtype=np.float64))
