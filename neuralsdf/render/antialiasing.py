"""
antialiasing.py
---------------
Which pixels are antialiased: those that differ from a neighbour.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from ..array_types import FloatArray
from .colours import SRGB, srgb_levels

MAX_ANTIALIAS = 16

#: Neighbouring pixels that differ by more than this, in sRGB or coverage, are antialiased.
CONTRAST = 0.045


def differing_pixels(picture: FloatArray) -> npt.NDArray[np.bool_]:
    """Mask (h, w) of pixels that differ from a neighbour."""
    edges = np.zeros(picture.shape[:2], np.bool_)
    for channel in range(4):  # separately, because numpy is slow along short axes
        linear = np.ascontiguousarray(picture[..., channel])
        values = linear if channel == 3 else SRGB.take(srgb_levels(linear))
        horizontal = np.abs(np.diff(values, axis=1)) > CONTRAST
        edges[:, 1:] |= horizontal
        edges[:, :-1] |= horizontal
        vertical = np.abs(np.diff(values, axis=0)) > CONTRAST
        edges[1:] |= vertical
        edges[:-1] |= vertical
    return edges
