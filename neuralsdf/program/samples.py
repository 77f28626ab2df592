"""
samples.py
----------
What a network is fitted to.
"""

from __future__ import annotations

from typing import NamedTuple

from ..arrays import FloatArray


class Samples(NamedTuple):
    """Points (n, 3) and signed distances (n,), float32, in model space, in random order."""

    points: FloatArray
    distances: FloatArray
