"""
threemf_beams.py
----------------
Converts beam lattices of a 3MF to triangles: a beam is a cone between two vertices with round or flat ends.
"""

from __future__ import annotations

from array import array
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from ...array_types import Faces, Index, Points, Values, Vectors
from ...files.bounded_input import Budget
from .shared.raw_mesh import FormatError
from .shared.scene_triangles import check_indices

#: Caps of a beam. Sphere and hemisphere differ only at the thicker end of a cone.
CAPS = {"sphere": 0, "hemisphere": 1, "butt": 2}
_SPHERE, _BUTT = CAPS["sphere"], CAPS["butt"]

#: (maximum number of beams and balls, sides of a beam, rings from its pole to the start of its cone). Gives
#: at most 2 million faces for the largest lattice within the budget of a small file.
_DETAIL = ((1_000, 32, 12), (8_000, 12, 4), (1 << 62, 6, 2))


@dataclass(eq=False)
class Lattice:
    """A lattice on the vertices of its mesh; caps are values of `CAPS`.

    beams: v1, v2, r1, r2, cap1, cap2 of each, concatenated. balls: vertex and radius of each. ball_mode:
    "none", "mixed" (the listed balls) or "all" (all vertices of beams).
    """

    radius: float
    cap: int
    min_length: float
    is_clipped: bool
    ball_mode: str
    ball_radius: float
    beams: array[float] = field(default_factory=lambda: array("d"))
    balls: array[float] = field(default_factory=lambda: array("d"))


class Beams(NamedTuple):
    """A lattice as triangles: vertices and faces of its beams and of its balls; total: number of both."""

    meshes: tuple[tuple[Points, Index], ...]
    total: int


def beams_of(lattice: Lattice, vertices: Points, budget: Budget) -> Beams:
    """Convert each beam and ball to a closed mesh.

    Round cross-sections become polygons of the same area. Raises `FormatError` for a clipped lattice and for
    radii that are not positive.
    """
    if lattice.is_clipped:
        raise FormatError(
            "has a clipped beam lattice, which is not supported", "export it as plain triangles"
        )
    beams = np.frombuffer(lattice.beams).reshape(-1, 6)
    check_indices(beams[:, :2].astype(np.int64), len(vertices))
    first, second = (vertices[beams[:, end].astype(np.int64)] for end in (0, 1))
    is_long = np.linalg.norm(second - first, axis=1) >= max(lattice.min_length, np.finfo(float).tiny)
    beams, first, second = beams[is_long], first[is_long], second[is_long]
    centres, radii = _balls(lattice, beams, vertices)
    if not (np.concatenate([beams[:, 2:4].ravel(), radii]) > 0).all():
        raise FormatError("has a beam or a ball whose radius is not positive")
    count = len(beams) + len(centres)
    _, sides, rings = next(detail for detail in _DETAIL if count <= detail[0])
    swallowed, angles = _cone_starts(beams, np.linalg.norm(second - first, axis=1))
    ends = beams[swallowed]
    round_ends = [ends[:, 4] != _BUTT, ends[:, 5] != _BUTT]
    centres = np.vstack([centres, first[swallowed][round_ends[0]], second[swallowed][round_ends[1]]])
    radii = np.concatenate([radii, ends[round_ends[0], 2], ends[round_ends[1], 3]])
    kept = ~swallowed
    # Three times the vertices of the beams and balls, for temporary copies.
    budget.draw(3 * 24 * sides * 2 * rings * int(kept.sum() + len(centres)))
    profiles = _beam_profiles(beams[kept], first[kept], second[kept], angles[kept], rings)
    cones = _revolved(first[kept], second[kept] - first[kept], *profiles, sides)
    turn = np.linspace(0, np.pi, 2 * rings + 1)
    up = np.broadcast_to([0.0, 0.0, 1.0], centres.shape)
    balls = (-np.cos(turn) * radii[:, None], np.sin(turn) * radii[:, None])
    return Beams((cones, _revolved(centres, up, *balls, sides)), count)


def _balls(lattice: Lattice, beams: Points, vertices: Points) -> tuple[Points, Values]:
    """Centres (n, 3) and radii (n,) of balls."""
    balls = np.frombuffer(lattice.balls).reshape(-1, 2)
    if lattice.ball_mode not in ("mixed", "all"):
        balls = balls[:0]
    indices, radii = balls[:, 0].astype(np.int64), balls[:, 1]
    check_indices(indices, len(vertices))
    if lattice.ball_mode == "all":
        others = np.setdiff1d(beams[:, :2].astype(np.int64), indices)
        indices = np.concatenate([indices, others])
        radii = np.concatenate([radii, np.full(len(others), lattice.ball_radius)])
    return vertices[indices], radii


def _cone_starts(beams: Points, lengths: Values) -> tuple[npt.NDArray[np.bool_], Points]:
    """Which beams (n,) lie within the spheres at their ends; angles (n, 2) from each pole to the cone.

    A sphere cap at the thicker end of a cone extends beyond its equator: for slope s of the cone, they meet
    at distance 2 r s / (1 + s^2) along the axis.
    """
    slope = (beams[:, 2] - beams[:, 3]) / lengths
    thicker = np.maximum(np.stack([slope, -slope], axis=1), 0) * (beams[:, 4:6] == _SPHERE)
    reach = 2 * thicker / (1 + thicker**2)
    swallowed: npt.NDArray[np.bool_] = (reach * beams[:, 2:4] >= lengths[:, None]).any(axis=1)
    return swallowed, np.arccos(-np.minimum(reach, 1))


def _beam_profiles(
    beams: Points, first: Points, second: Points, angles: Values, rings: int
) -> tuple[Points, Points]:
    """Profiles of beams from pole to pole: positions along the axis (n, m) and radii (n, m)."""
    lengths = np.linalg.norm(second - first, axis=1)[:, None]
    fraction = np.linspace(0, 1, rings + 1)
    along, across = [], []
    for end in (0, 1):
        radius, is_flat = beams[:, 2 + end, None], beams[:, 4 + end, None] == _BUTT
        turn = fraction * angles[:, end, None]
        along.append(np.where(is_flat, 0, -radius * np.cos(turn)))
        across.append(np.where(is_flat, radius * fraction, radius * np.sin(turn)))
    return (
        np.hstack([along[0], lengths - along[1][:, ::-1]]),
        np.hstack([across[0], across[1][:, ::-1]]),
    )


def _revolved(
    origins: Points, axes: Vectors, along: Vectors, across: Vectors, sides: int
) -> tuple[Points, Faces]:
    """Revolve profiles (n, m) around axes (n, 3): vertices and outward faces of closed meshes.

    along, across: positions along the axis and radii; across is 0 at both ends. Cross-sections are polygons
    with the area of the circle.
    """
    count, points = along.shape
    unit = axes / np.linalg.norm(axes, axis=1, keepdims=True)
    helper = np.eye(3)[np.abs(unit).argmin(axis=1)]
    u = np.cross(unit, helper)
    u /= np.linalg.norm(u, axis=1, keepdims=True)
    v = np.cross(unit, u)
    turn = 2 * np.pi * np.arange(sides) / sides
    wide = np.sqrt(2 * np.pi / sides / np.sin(2 * np.pi / sides))
    circle = u[:, None] * np.cos(turn)[:, None] + v[:, None] * np.sin(turn)[:, None]  # (n, sides, 3)
    spine = origins[:, None] + along[:, :, None] * unit[:, None]  # (n, m, 3)
    ring = spine[:, 1:-1, None] + wide * across[:, 1:-1, None, None] * circle[:, None]
    vertices = np.concatenate(
        [spine[:, :1], ring.reshape(count, (points - 2) * sides, 3), spine[:, -1:]], axis=1
    )

    grid = 1 + np.arange((points - 2) * sides).reshape(-1, sides)
    after = np.roll(grid, -1, axis=1)
    last = np.full(sides, 1 + grid.size)
    faces = np.concatenate(
        [
            np.stack([np.zeros_like(grid[0]), after[0], grid[0]], axis=1),
            np.stack([grid[:-1], after[:-1], grid[1:]], axis=-1).reshape(-1, 3),
            np.stack([after[:-1], after[1:], grid[1:]], axis=-1).reshape(-1, 3),
            np.stack([last, grid[-1], after[-1]], axis=1),
        ]
    )
    every = faces + (np.arange(count) * (2 + grid.size))[:, None, None]
    return vertices.reshape(-1, 3), every.reshape(-1, 3)
