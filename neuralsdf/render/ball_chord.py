"""
ball_chord.py
-------------
Where rays enter and leave the unit ball.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from ..array_types import Values

#: Rays start and end on a ball slightly smaller than the unit ball, so that rounding does not move the first
#: point outside, where the field is extended.
BALL_RADIUS = 1 - 1e-6


def ball_chord(origins: npt.NDArray[Any], directions: npt.NDArray[Any]) -> tuple[Values, Values]:
    """t (n,) at which rays enter and leave the ball; entry > exit for rays that miss it.

    origins: (n, 3) or (1, 3), directions: (n, 3) unit vectors.
    """
    o, d = origins.T, directions.T  # numpy is slow along short axes
    t_closest = -(o[0] * d[0] + o[1] * d[1] + o[2] * d[2])
    # From the point closest to the centre: for a distant eye, |o|^2 - 1 would suffer from cancellation.
    squared = t_closest * d
    squared += o
    squared *= squared
    half_squared = BALL_RADIUS**2 - (squared[0] + squared[1] + squared[2])
    half = np.where(half_squared > 0, np.sqrt(np.maximum(half_squared, 0.0)), -np.inf)
    return t_closest - half, t_closest + half
