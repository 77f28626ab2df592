"""
tracing.py
----------
Sphere tracing (Hart 1996; paper, section 2.3): a ray starts where it enters the unit ball and steps by
the field's value; only the rays still under way are evaluated. A hit is a change of sign, never a small
value, and is then refined to a root: a silhouette is as sharp as the field's own zero level set.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

from ..errors import NoSurfaceError
from ..field import Field, MeshField
from ..network import FloatArray
from ..similarity import Points

#: Rays start and end on a ball a hair smaller than the unit ball: rounding must not put the first
#: point outside, where a field extends itself by the distance to the ball.
BALL_RADIUS = 1 - 1e-6

#: No step is shorter, or rays along the surface would creep; what may be missed is a chord this
#: short, an eighth of a pixel in a picture of 512 x 512.
MIN_STEP = 5e-4

#: More steps than MIN_STEP needs for the ball's diameter.
MAX_STEPS = 4096

#: Step through a field whose values are no lengths.
OCCUPANCY_STEP = 1 / 256

#: A field this little below zero where a ray enters the ball is a shape that touches its ball, plus
#: the network's error: it is drawn, closed by the ball. A deeper one is a wall where no shape can
#: be: the ray passes through it.
TOUCH_DEPTH = 0.03

#: A signed distance varies by more than this over its ball, whatever the shape.
LEAST_RANGE = 0.05

#: Levels for which the safe step is tabulated, no farther apart than the least step; the ball is 2 wide.
MAX_LEVEL, TABLE = 2.0, 4097

BLOCK = 1 << 18  # rays traced together: some 30 MB

Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class TraceResult:
    """What n rays met, in model space.

    hit: (n,). t: (n,) float64, length from the ray's origin to the surface, inf without a hit.
    points: (n, 3) float64 on the zero level set, normals: (n, 3) float32 unit gradients; both zero
    without a hit. unresolved: (n,) rays that neither hit nor left the ball. buried: (n,) rays that
    entered the ball deep inside the solid, whose wall on the ball was passed through.
    """

    hit: Mask
    t: Points
    points: Points
    normals: FloatArray
    unresolved: Mask
    buried: Mask


class Tracer:
    """Traces rays through one field, and keeps what it learned of the field to step safely.

    seed: of the samples that gauge the field's slopes.
    evaluations: points at which the field was evaluated so far, gradients counted once.
    Raises `NoSurfaceError` for a signed distance that is all but constant.
    """

    def __init__(self, field: Field, *, seed: int = 0) -> None:
        self.field = field
        self.evaluations = 0
        self._steps = self._calibrate(seed)

    def trace(self, origins: npt.NDArray[Any], directions: npt.NDArray[Any]) -> TraceResult:
        """The first surface from outside along each ray.

        origins: (n, 3) or (3,), directions: (n, 3) unit vectors, both in model space, float64. A ray
        that starts inside the solid sees it from within as air: its first hit is on the next surface.
        """
        directions = np.asarray(directions, np.float64)
        origins = np.broadcast_to(np.asarray(origins, np.float64), directions.shape)
        blocks = [
            self._trace_block(origins[start : start + BLOCK], directions[start : start + BLOCK])
            for start in range(0, max(1, len(directions)), BLOCK)
        ]
        if len(blocks) == 1:
            return blocks[0]
        names = TraceResult.__dataclass_fields__
        return TraceResult(**{name: np.concatenate([getattr(b, name) for b in blocks]) for name in names})

    def finds_surface(self) -> bool:
        """Whether any of 4096 random chords of the ball meets a surface."""
        rng = np.random.default_rng(0)
        ends = rng.normal(size=(2, 4096, 3))
        ends /= np.linalg.norm(ends, axis=2, keepdims=True)
        directions = ends[1] - ends[0]
        directions /= np.linalg.norm(directions, axis=1, keepdims=True)
        return bool(self.trace(ends[0] - directions, directions).hit.any())

    def _trace_block(self, origins: Points, directions: Points) -> TraceResult:
        count = len(directions)
        entry, exit_ = ball_chord(origins, directions)
        start = np.maximum(entry, 0.0)
        crossing = np.flatnonzero(exit_ > start)
        # From the point of entry on, float32 is enough: the chord is at most 2 long.
        begin = (origins[crossing] + start[crossing, None] * directions[crossing]).astype(np.float32)
        march = self._march(
            begin,
            directions[crossing].astype(np.float32),
            (exit_ - start)[crossing].astype(np.float32),
            entry[crossing] >= 0,
        )
        hit, unresolved, buried = (np.zeros(count, np.bool_) for _ in range(3))
        t = np.full(count, np.inf)
        points, normals = np.zeros((count, 3)), np.zeros((count, 3), np.float32)
        hit[crossing], unresolved[crossing], buried[crossing] = march.hit, march.unresolved, march.buried
        landed = crossing[march.hit]
        t[landed] = start[landed] + march.t[march.hit]
        points[landed] = begin[march.hit] + march.t[march.hit, None] * directions[landed]
        normals[landed] = self.normals(points[landed], directions[landed])
        return TraceResult(hit, t, points, normals, unresolved, buried)

    def _march(self, begin: FloatArray, directions: FloatArray, ends: FloatArray, at_ball: Mask) -> _March:
        """March rays (n,) from `begin` (n, 3), t = 0, to t = `ends`; at_ball: they begin on the ball."""
        count = len(begin)
        t, before, value_before = (np.zeros(count, np.float32) for _ in range(3))
        last = np.zeros(count, np.float32)
        hit, unresolved, buried, outside = (np.zeros(count, np.bool_) for _ in range(4))
        live = np.arange(count)
        for step_index in range(MAX_STEPS):
            if not live.size:
                break
            value = self.value(_along(begin, directions, live, t[live]))
            inside = value < 0
            if step_index == 0:
                touching = at_ball & (value >= -TOUCH_DEPTH)
                buried = inside & at_ball & ~touching
                outside = touching.copy()
            # Once a ray has been outside the solid, a negative value is a hit.
            landed = inside & outside[live]
            hit[live[landed]] = True
            last[live[landed]] = value[landed]
            outside[live] |= ~inside
            lost = ~np.isfinite(value)
            unresolved[live[lost]] = True
            going = ~(landed | lost)
            live, value = live[going], value[going]
            before[live], value_before[live] = t[live], value
            t[live] += self._step(np.abs(value))
            live = live[t[live] < ends[live]]
        unresolved[live] = True
        bracketed = np.flatnonzero(hit & (t > 0))
        t[bracketed] = self._root(
            begin[bracketed],
            directions[bracketed],
            (before[bracketed], value_before[bracketed]),
            (t[bracketed], last[bracketed]),
        )
        return _March(hit, t, unresolved, buried)

    def _root(
        self,
        begin: FloatArray,
        directions: FloatArray,
        low: tuple[FloatArray, FloatArray],
        high: tuple[FloatArray, FloatArray],
    ) -> FloatArray:
        """t (n,) of the root between `low` and `high`, pairs of t and value, value > 0 and < 0.

        Regula falsi with Illinois weights; every third step bisects, for fields that jump.
        """
        a, fa, b, fb = (array.copy() for array in (*low, *high))
        root = b.copy()
        kept_low = np.zeros(len(begin), np.int8)  # -1, 1: the end kept by the last step was high, low
        live = np.arange(len(begin))
        for iteration in range(40):
            if not live.size:
                break
            middle = a[live] + (b[live] - a[live]) * (
                np.float32(0.5) if iteration % 3 == 2 else fa[live] / (fa[live] - fb[live])
            )
            value = self.value(_along(begin, directions, live, middle))
            root[live] = middle
            below = value < 0
            inner, outer = live[below], live[~below]
            b[inner], fb[inner] = middle[below], value[below]
            a[outer], fa[outer] = middle[~below], value[~below]
            # An end kept twice counts half, or the other end would creep.
            fa[inner[kept_low[inner] > 0]] *= np.float32(0.5)
            fb[outer[kept_low[outer] < 0]] *= np.float32(0.5)
            kept_low[inner], kept_low[outer] = 1, -1
            live = live[(np.abs(value) > 5e-7) & (b[live] - a[live] > 5e-7)]
        return root

    def normals(self, points: npt.NDArray[Any], directions: npt.NDArray[Any]) -> FloatArray:
        """Unit gradients (n, 3) at points (n, 3); where the gradient vanishes, towards the viewer."""
        if not len(points):
            return np.zeros((0, 3), np.float32)
        self.evaluations += len(points)
        _, gradients = self.field.value_and_gradient(np.ascontiguousarray(points, np.float32))
        lengths = np.linalg.norm(gradients, axis=1, keepdims=True)
        flat = ~(lengths > 1e-12)
        unit = np.where(flat, -np.asarray(directions), gradients / np.where(flat, 1, lengths))
        return np.asarray(unit, np.float32)

    def value(self, points: npt.NDArray[Any]) -> FloatArray:
        """Values (n,) of the field at points (n, 3), counted."""
        self.evaluations += len(points)
        return self.field.value(np.ascontiguousarray(points, np.float32))

    def _step(self, distance: FloatArray) -> FloatArray:
        """Safe steps (n,) at points with these absolute values (n,): those of the level just below."""
        levels = np.minimum(distance, np.float32(MAX_LEVEL)) * np.float32((TABLE - 1) / MAX_LEVEL)
        return self._steps.take(levels.astype(np.int32))

    def _calibrate(self, seed: int) -> FloatArray:
        """How far a ray may step from each of `TABLE` levels of the field, from 0 to `MAX_LEVEL`.

        A network's slope exceeds 1 in places, and its value then exceeds the distance. To come from level v
        to the surface a ray crosses every level between, at most L(u) steep on level u, so it may step by
        the integral of du / L(u) from 0 to v. L is the 99th percentile of the slopes sampled on a level: the
        greatest few are specks that cost more steps than they save pixels.
        """
        if self.field.kind == "occupancy":
            return np.full(TABLE, OCCUPANCY_STEP, np.float32)
        rng = np.random.default_rng(seed)
        ball = rng.normal(size=(16384, 3))
        ball *= rng.random((len(ball), 1)) ** (1 / 3) / np.linalg.norm(ball, axis=1, keepdims=True)
        values, slopes, gradients = self._slopes(ball)
        if values.max() - values.min() < LEAST_RANGE:
            raise NoSurfaceError(
                f"the field holds no shape: its values lie between {values.min():.2g} and "
                f"{values.max():.2g} all over its ball"
            )
        # Newton's step takes the same points near the surface, where the steps are short and many.
        near = ball - (values / np.maximum(slopes, 0.3) ** 2)[:, None] * gradients
        near += rng.normal(size=near.shape) * rng.choice([0.003, 0.01, 0.03], size=(len(near), 1))
        near_values, near_slopes, _ = self._slopes(near[np.linalg.norm(near, axis=1) < BALL_RADIUS])
        values = np.abs(np.concatenate([values, near_values]))
        slopes = np.concatenate([slopes, near_slopes])
        levels = np.concatenate([[0.0], np.geomspace(0.002, MAX_LEVEL, 16)])
        steepest = np.ones(16)  # never step farther than the value itself
        for index, (low, high) in enumerate(pairwise(levels)):
            here = slopes[(values >= low) & (values < high)]
            if here.size >= 32:
                steepest[index] = max(1.0, float(np.quantile(here, 0.99)))
        steps = np.concatenate([[0.0], np.cumsum(np.diff(levels) / steepest)])
        table = np.interp(np.linspace(0, MAX_LEVEL, TABLE), levels, steps)
        return np.asarray(np.maximum(table, MIN_STEP), np.float32)

    def _slopes(self, points: Points) -> tuple[FloatArray, FloatArray, FloatArray]:
        """Values (n,), gradient lengths (n,) and gradients (n, 3)."""
        self.evaluations += len(points)
        values, gradients = self.field.value_and_gradient(points.astype(np.float32))
        return values, np.linalg.norm(gradients, axis=1), gradients


class MeshTracer(Tracer):
    """Casts rays at the triangles of a mesh: exact, and far faster than tracing its distance."""

    def __init__(self, field: MeshField, *, seed: int = 0) -> None:
        super().__init__(field, seed=seed)
        self._oracle = field.oracle

    def _march(self, begin: FloatArray, directions: FloatArray, ends: FloatArray, at_ball: Mask) -> _March:
        t = self._oracle.first_hit(begin.astype(np.float64), directions.astype(np.float64))
        hit = t < ends
        nothing = np.zeros(len(begin), np.bool_)
        return _March(hit, np.where(hit, t, 0).astype(np.float32), nothing, nothing)


@dataclass(frozen=True)
class _March:
    hit: Mask
    t: FloatArray
    unresolved: Mask
    buried: Mask


def _along(
    begin: FloatArray, directions: FloatArray, chosen: npt.NDArray[np.int64], t: FloatArray
) -> FloatArray:
    """Points (n, 3) at t (n,) along the chosen rays; `take` gathers rows four times as fast as indexing."""
    points = directions.take(chosen, axis=0)
    points *= t[:, None]
    points += begin.take(chosen, axis=0)
    return points


def ball_chord(origins: Points, directions: Points) -> tuple[Points, Points]:
    """t (n,) where rays enter and leave the ball; entry > exit for those that miss it."""
    closest = -(origins * directions).sum(axis=1)
    # The foot of the perpendicular first: from a far eye, |o|^2 - 1 would cancel to nothing.
    foot = origins + closest[:, None] * directions
    half_squared = BALL_RADIUS**2 - (foot * foot).sum(axis=1)
    half = np.sqrt(np.maximum(half_squared, 0.0))
    missed = half_squared <= 0
    return np.where(missed, np.inf, closest - half), np.where(missed, -np.inf, closest + half)
