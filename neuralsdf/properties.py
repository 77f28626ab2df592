"""
properties.py
-------------
What a shape measures, from its field alone: volume, area, bounds, and whether it is a shape at all.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .field import Field
from .network import FloatArray
from .similarity import Points

RESOLUTION = 128

#: Half-width of the band over which the surface is smeared, in cells: whole, so that the weights of a flat
#: surface add up to one wherever it lies between the cells.
_BAND = 2
#: No field's slope is taken for less: where it is, the field is no distance and the band would burst.
_LEAST_SLOPE = 0.1
_SPHERE_POINTS = 1 << 14


@dataclass(frozen=True, eq=False)
class Properties:
    """Of a field's shape, inside the unit ball.

    volume, area: in mesh units. low, high: corners (3,) of its bounds in mesh space; None without a
    surface. filled: share of the ball that is inside. cut: share of the ball's own surface that is
    inside, where the shape is cut off; 0 for a shape within its ball.
    """

    volume: float
    area: float
    low: Points | None
    high: Points | None
    filled: float
    cut: float


def measure_shape(field: Field, resolution: int = RESOLUTION) -> Properties:
    """Measure a field on `resolution`^3 cells, without extracting it.

    Volume is the sum of what lies inside of each cell, with the surface taken as a plane there; area is
    the integral of the gradient of that (the coarea formula). Both are within 1 % for a shape much larger
    than a cell, but for the area that sharp edges lose; what is thinner than a cell is missed in part.
    """
    h = 2 / resolution
    axis = np.linspace(-1 + h / 2, 1 - h / 2, resolution, dtype=np.float32)
    inside, area, lows, highs = 0.0, 0.0, [], []
    for x in axis:
        y, z = np.meshgrid(axis, axis, indexing="ij")
        points = np.stack([np.full(y.size, x), y.ravel(), z.ravel()], axis=1)
        points = points[(points * points).sum(axis=1) <= 1]
        values = field.value(points)
        near = np.abs(values) < 1.5 * _BAND * h  # slopes up to 1.5
        distances, feet = _to_surface(field, points[near])
        # The share of a cell on the inner side of a plane at this distance, averaged over directions.
        inside += float((values[~near] < 0).sum()) + float(np.clip(0.5 - distances / h, 0, 1).sum())
        area += float(np.maximum(0, 1 - np.abs(distances) / (_BAND * h)).sum()) / (_BAND * h)
        surface = field.transform.apply(feet[np.abs(distances) < h])
        if len(surface):
            lows.append(surface.min(axis=0))
            highs.append(surface.max(axis=0))
    scale = field.transform.scale
    return Properties(
        volume=inside * h**3 * scale**3,
        area=area * h**3 * scale**2,
        low=np.min(lows, axis=0) if lows else None,
        high=np.max(highs, axis=0) if highs else None,
        filled=inside * h**3 / (4 / 3 * np.pi),
        cut=float((field.value(_sphere(_SPHERE_POINTS)) < 0).mean()),
    )


def _to_surface(field: Field, points: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Distances (n,) to the surface by slope, and the points (n, 3) of it."""
    if not len(points):
        return np.empty(0, np.float32), points
    values, gradients = field.value_and_gradient(points)
    slopes = np.maximum(np.linalg.norm(gradients, axis=1), _LEAST_SLOPE)
    distances = values / slopes
    return distances, points - (distances / slopes)[:, None] * gradients


def _sphere(count: int) -> FloatArray:
    """Points (count, 3) spread evenly over the unit sphere: a Fibonacci lattice."""
    index = np.arange(count) + 0.5
    z, angle = 1 - 2 * index / count, np.pi * (1 + np.sqrt(5)) * index
    ring = np.sqrt(1 - z * z)
    return np.stack([ring * np.cos(angle), ring * np.sin(angle), z], axis=1).astype(np.float32)
