"""
background.py
-------------
The background of a picture.
"""

from __future__ import annotations

import numpy as np

from ..array_types import FloatArray
from ..errors import UsageError
from .colours import from_srgb, parse_colour

#: Top and bottom colour of the default background, sRGB.
STUDIO = ("#f4f5f7", "#c3c8d0")


def backdrop_of(background: str, height: int) -> FloatArray | None:
    """Linear RGB (height, 1, 3) of the background, from top to bottom; None for transparent."""
    if background == "transparent":
        return None
    names = STUDIO if background == "studio" else str(background).split(":")
    if len(names) > 2:
        raise UsageError(f"`background={background}`: must be one colour, or two as TOP:BOTTOM")
    top, bottom = np.array([parse_colour(names[0]), parse_colour(names[-1])]) / 255
    fraction = (np.arange(height) / max(1, height - 1))[:, None]
    return from_srgb(top * (1 - fraction) + bottom * fraction)[:, None]  # sRGB is perceptually more uniform
