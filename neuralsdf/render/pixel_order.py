"""
pixel_order.py
--------------
The order in which the pixels of a picture are rendered.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt


def in_tiles(width: int, height: int) -> npt.NDArray[np.int64]:
    """The pixels of a picture along a Morton curve, in tiles of 8 x 8; incomplete tiles come last.

    Neighbouring pixels are mostly close in this order.
    """
    rows, columns = -(-height // 8), -(-width // 8)
    pixels = np.arange(rows * 8)[:, None] * width + np.arange(columns * 8)
    pixels[height:], pixels[:, width:] = -1, -1
    tiles = pixels.reshape(rows, 2, 2, 2, columns, 2, 2, 2).transpose(0, 4, 1, 5, 2, 6, 3, 7).reshape(-1, 64)
    row, column = np.divmod(np.arange(rows * columns), columns)
    tiles = tiles[np.argsort(2 * _spread_bits(row) + _spread_bits(column))]
    if pixels.shape == (height, width):
        return tiles.ravel()
    incomplete = (tiles < 0).any(axis=1)
    return np.concatenate([tiles[~incomplete].ravel(), tiles[incomplete][tiles[incomplete] >= 0]])


def _spread_bits(numbers: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Insert a zero before each bit of numbers below 2^11, as in a Morton code."""
    bits = np.arange(11)
    spread: npt.NDArray[np.int64] = ((numbers[:, None] >> bits & 1) << 2 * bits).sum(axis=1)
    return spread
