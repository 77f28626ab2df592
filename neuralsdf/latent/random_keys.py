"""
random_keys.py
--------------
Random numbers of a training by key instead of from one running generator: what is drawn in a step depends on
the seed, the purpose and the step alone. A training that continues needs no generator's state, and several
processes draw what one would.
"""

from __future__ import annotations

from enum import IntEnum

import numpy as np


class Purpose(IntEnum):
    """What random numbers are for; part of the key, so that no two purposes share numbers."""

    WEIGHTS = 0
    CODES = 1
    ORDER = 2
    SAMPLES = 3
    DROPOUT = 4
    HELD_OUT = 5
    INFERENCE = 6
    SPLIT = 7
    SHAPE = 8


def generator(seed: int, purpose: Purpose, *place: int) -> np.random.Generator:
    """A generator for a purpose and a place, such as the step and the slot in it."""
    return np.random.default_rng([seed, purpose, *place])


def raw_bits(seed: int, purpose: Purpose, *place: int) -> np.random.SFC64:
    """A faster source of 64-bit numbers for a purpose and a place."""
    return np.random.SFC64([seed, purpose, *place])
