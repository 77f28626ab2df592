"""
sample_set.py
-------------
Training samples of a network.
"""

from __future__ import annotations

from typing import NamedTuple

from ..array_types import FloatArray


class Samples(NamedTuple):
    """Points (n, 3) and signed distances (n,), float32, in model space, in random order."""

    points: FloatArray
    distances: FloatArray
