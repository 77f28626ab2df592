"""
colours.py
----------
Colours: names, and the conversion between sRGB and linear light.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from ..array_types import FloatArray
from ..errors import UsageError


def parse_colour(name: str) -> tuple[int, int, int]:
    """sRGB values 0 to 255 of a colour that Pillow knows: "white", "#204060", "hsl(30, 40%, 50%)".

    Raises `UsageError` for anything else.
    """
    from PIL import ImageColor

    try:
        red, green, blue = ImageColor.getrgb(name.strip())[:3]
    except (AttributeError, ValueError):  # not a string, or not a colour
        raise UsageError(f"unknown colour {name!r}: try white, #204060 or hsl(30, 40%, 50%)") from None
    return red, green, blue


def from_srgb(encoded: npt.NDArray[Any]) -> FloatArray:
    """Linear light from sRGB values, both 0 to 1 (IEC 61966-2-1)."""
    c = np.clip(encoded, 0, 1)
    return np.asarray(np.where(c <= 0.04045, c / 12.92, ((c + 0.055) / 1.055) ** 2.4), np.float32)


def to_srgb(linear: npt.NDArray[Any]) -> FloatArray:
    """sRGB values from linear light, both 0 to 1: the inverse of `from_srgb`."""
    c = np.clip(linear, 0, 1).astype(np.float32)
    return np.asarray(np.where(c <= 0.0031308, c * 12.92, 1.055 * c ** (1 / 2.4) - 0.055), np.float32)


Pixels = npt.NDArray[np.uint8]

#: sRGB values for 65536 levels of linear light from 0 to 1. The steps are smaller than those of bytes.
SRGB = to_srgb(np.linspace(0, 1, 65536))
SRGB_BYTES = (SRGB * 255 + 0.5).astype(np.uint8)


def srgb_bytes(linear: FloatArray) -> Pixels:
    """sRGB values 0 to 255 of linear light 0 to 1."""
    return SRGB_BYTES.take(srgb_levels(linear))


def srgb_levels(linear: FloatArray) -> npt.NDArray[np.uint16]:
    """Indices into `SRGB` for linear light 0 to 1."""
    return (np.clip(linear, 0, 1) * 65535 + 0.5).astype(np.uint16)
