"""
unit_ball.py
------------
The ball of a shape: the minimum enclosing ball of points, the similarity that maps the unit ball onto it
(paper, appendix A.1), and uniform random points in a ball.
"""

from __future__ import annotations

import math
from itertools import combinations

import numpy as np

from ..arguments import real_number
from ..array_types import Points
from ..errors import UsageError
from .similarity_transform import Similarity


def minimum_enclosing_ball(points: Points) -> tuple[Points, float]:
    """Centre (3,) and radius of the smallest ball that contains all points (n, 3), n >= 1.

    Gärtner's pivoting ("Fast and robust smallest enclosing balls", 1999): keep at most four support
    points, add the farthest point outside, and compute the smallest ball of at most five points exactly.
    The radius grows with each step, so the loop ends. The radius is accurate to a relative 1e-9, and the
    ball contains every point up to rounding.
    """
    low, high = points.min(axis=0), points.max(axis=0)
    origin = low + (high - low) / 2
    extent = float((high - low).max())
    if extent == 0:
        return origin, 0.0
    local = (points - origin) / extent  # order of 1: no overflow, no cancellation
    support = local[:1]
    centre, radius = support[0], 0.0
    for _ in range(1000):
        distances = np.linalg.norm(local - centre, axis=1)
        farthest = int(distances.argmax())
        if distances[farthest] <= radius * (1 + 1e-12):
            break
        support, centre, grown = _ball_of_few(np.vstack([support, local[farthest]]))
        if grown <= radius:  # rounding error, no progress
            break
        radius = grown
    radius = float(np.linalg.norm(local - centre, axis=1).max())
    return origin + centre * extent, radius * extent


def _ball_of_few(points: Points) -> tuple[Points, Points, float]:
    """Support points, centre and radius of the smallest ball of two to five points (n, 3).

    Its centre is the circumcentre of some subset; a ball about any other centre that contains all points
    is larger. So the smallest candidate is the answer, without a tolerance, even for degenerate points.
    """
    candidates = [
        (subset, centre, float(np.linalg.norm(points - centre, axis=1).max()))
        for size in range(2, min(4, len(points)) + 1)
        for subset in map(np.array, combinations(points, size))
        for centre in [_circumcentre(subset)]
    ]
    return min(candidates, key=lambda candidate: candidate[2])


def _circumcentre(points: Points) -> Points:
    """Centre of the smallest sphere through 2 to 4 points (n, 3): equidistant, in their affine hull."""
    edges = points[1:] - points[0]
    # The minimum-norm solution lies in the span of the edges, even of dependent ones.
    centre: Points = points[0] + np.linalg.lstsq(2 * edges, (edges**2).sum(axis=1), rcond=None)[0]
    return centre


def normalisation(vertices: Points, thickness: float | None = None) -> Similarity:
    """The map from the unit ball to the mesh's minimum enclosing ball, enlarged by half the thickness.

    Raises `UsageError` if the thickness is not positive, or exceeds the diameter of that ball.
    """
    centre, radius = minimum_enclosing_ball(vertices)
    if thickness is not None and not 0 < real_number("thickness", thickness) < math.inf:
        raise UsageError(f"`thickness={thickness:g}`: must be positive and finite")
    if thickness is not None and thickness > 2 * radius:
        raise UsageError(
            f"`thickness={thickness:g}`: must not exceed the diameter of the mesh, {2 * radius:.3g}"
        )
    return Similarity.from_ball(centre, radius + (thickness or 0.0) / 2)


def uniform_ball(count: int, rng: np.random.Generator, radius: float = 1.0) -> Points:
    """Draw points (count, 3) uniformly from the ball of `radius` about the origin."""
    direction = rng.standard_normal((count, 3))
    direction *= radius * rng.random((count, 1)) ** (1 / 3) / np.linalg.norm(direction, axis=1, keepdims=True)
    return direction
