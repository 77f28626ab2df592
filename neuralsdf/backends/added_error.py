"""
added_error.py
--------------
What a faster way to evaluate a network adds to its error, measured before it is taken: units that multiply
bfloat16 (tensor cores, AMX) are several times as fast as float32.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from ..arrays import FloatArray

#: The error is measured where the field is nearest to zero: at so many of so many points.
NEAR, CANDIDATES = 1 << 9, 1 << 13

Evaluate = Callable[[FloatArray], FloatArray]


def added_error(exact: Evaluate, faster: Evaluate) -> float:
    """The mean difference between two evaluations of a network near its surface; may be no number."""
    points = np.random.default_rng(0).uniform(-1, 1, (CANDIDATES, 3)).astype(np.float32)
    points = points[(points * points).sum(1) <= 1]  # outside the ball a network means nothing
    values = exact(points)
    near = np.argsort(np.abs(values))[:NEAR]
    return float(np.abs(faster(points[near]) - values[near]).mean(dtype=np.float64))
