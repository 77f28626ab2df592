"""
sphere_tracing.py
-----------------
Sphere tracing (Hart 1996; paper, section 2.3): rays start where they enter the unit ball and step by the
field's value. Only active rays are evaluated. A hit is a change of sign, not a small value, and is refined to
a root, so silhouettes are as sharp as the zero level set.

The surfaces of meshes and occupancy fields are traced by casting rays at triangles instead (mesh_tracing.py).
step_length.py has the rule for the length of a step.
"""

from __future__ import annotations

from dataclasses import dataclass
from threading import Lock
from typing import Any

import numpy as np
import numpy.typing as npt

from ..array_types import FloatArray, Mask, Points, Values, Vectors
from ..backends.reference import sphere_tracing as marching
from ..backends.reference.sphere_tracing import SoftShadow, Traced
from ..errors import FieldKindError
from ..fields.field import Field, require_shape
from ..grid.surface_search import settled
from .ball_chord import BALL_RADIUS, ball_chord
from .extracted_surface import without_films
from .step_length import step_lengths

#: Distance at which a ray continues behind a film, in units of the field's rounding, and maximum number of
#: films that a ray passes.
_FILM_OFFSET, _MAX_FILMS = 64, 8

BLOCK = 1 << 14  # rays traced at once, so that they fit in the cache


@dataclass(frozen=True)
class TraceResult:
    """Results of n rays, in model space.

    hit: (n,). t: (n,) float64, distance from the ray's origin to the surface, inf without a hit.
    points: (n, 3) float32 on the zero level set, zero without a hit. unresolved: (n,) rays that neither
    hit nor left the ball. buried: (n,) rays that entered the ball deep inside the solid; the surface of the
    ball does not count as a hit.
    """

    hit: Mask
    t: Values
    points: FloatArray
    unresolved: Mask
    buried: Mask


class Tracer:
    """Sphere tracing of one field, with safe steps measured in advance.

    seed: of the random points at which gradient norms are measured.
    evaluations: number of points evaluated so far; a gradient counts as one.
    Several threads can trace concurrently if the field supports concurrent evaluation.
    Raises `NoSurfaceError` for a signed distance that is almost constant, `FieldKindError` for an occupancy
    field, whose values are not distances; `make_tracer` supports any field.
    """

    _skips_films = True

    def __init__(self, field: Field, *, seed: int = 0) -> None:
        self.field = field
        self.evaluations = 0
        self._shading_field = field
        self._counting = Lock()
        if field.kind == "occupancy":
            raise FieldKindError("an occupancy field has no distances for sphere tracing; use `make_tracer`")
        require_shape(field)
        self._steps = step_lengths(self._value_and_gradient, field.lipschitz or 1.0, seed)
        if field.rounding and self._skips_films:
            self._shading_field = without_films(field)

    def trace(self, origins: npt.NDArray[Any], directions: npt.NDArray[Any]) -> TraceResult:
        """The first surface that each ray enters from outside.

        origins: (n, 3) or (3,), directions: (n, 3) unit vectors, both in model space, float64. Tracing is
        fastest if rays that are close in space are close in the arrays. A ray that starts inside the solid
        leaves it without a hit, and can hit the next surface.
        """
        directions = np.asarray(directions, np.float64)
        origins = np.asarray(origins, np.float64).reshape(-1, 3)
        blocks = [
            self._trace_block(
                origins if len(origins) == 1 else origins[start : start + BLOCK],
                directions[start : start + BLOCK],
            )
            for start in range(0, max(1, len(directions)), BLOCK)
        ]
        if len(blocks) == 1:
            return blocks[0]
        names = TraceResult.__dataclass_fields__
        return TraceResult(**{name: np.concatenate([getattr(b, name) for b in blocks]) for name in names})

    def finds_surface(self) -> bool:
        """Whether any of 4096 random chords of the ball hits a surface."""
        rng = np.random.default_rng(0)
        ends = rng.normal(size=(2, 4096, 3))
        ends /= np.linalg.norm(ends, axis=2, keepdims=True)
        directions = ends[1] - ends[0]
        directions /= np.linalg.norm(directions, axis=1, keepdims=True)
        return bool(self.trace(ends[0] - directions, directions).hit.any())

    def _trace_block(self, origins: Points, directions: Vectors) -> TraceResult:
        count = len(directions)
        entry, exit_ = ball_chord(origins, directions)
        start = np.maximum(entry, 0.0)
        crossing = np.flatnonzero(exit_ > start)
        start = start.take(crossing)
        # Coordinates come first, because numpy is slow along short axes.
        direction = directions.T.take(crossing, axis=1)
        entry_point = direction * start
        entry_point += origins.T if len(origins) == 1 else origins.T.take(crossing, axis=1)
        # From the point of entry, float32 suffices: the chord is at most 2 long.
        begin, ahead = (np.ascontiguousarray(vectors.T, np.float32) for vectors in (entry_point, direction))
        ends = (exit_.take(crossing) - start).astype(np.float32)
        traced = self._march(begin, ahead, ends, entry.take(crossing) >= 0)
        self._count(traced.evaluations)
        hit, unresolved, buried = (np.zeros(count, np.bool_) for _ in range(3))
        hit[crossing], unresolved[crossing], buried[crossing] = traced.hit, traced.unresolved, traced.buried
        hits = np.flatnonzero(traced.hit)
        t, points = np.full(count, np.inf), np.zeros((count, 3), np.float32)
        hit_t = traced.t.take(hits)
        t[crossing[hits]] = start.take(hits) + hit_t
        points[crossing[hits]] = begin.take(hits, axis=0) + hit_t[:, None] * ahead.take(hits, axis=0)
        return TraceResult(hit, t, points, unresolved, buried)

    def _march(self, begin: FloatArray, directions: FloatArray, ends: FloatArray, at_ball: Mask) -> Traced:
        """Trace rays from points in the ball; arguments and result as for `Program.trace`."""
        traced = self._sphere_trace(begin, directions, ends, at_ball)
        return self._skip_films(traced, begin, directions, ends) if self.field.rounding else traced

    def _sphere_trace(
        self, begin: FloatArray, directions: FloatArray, ends: FloatArray, at_ball: Mask
    ) -> Traced:
        """`Program.trace` of the field's program or, if it has none, of its values."""
        rays = begin, directions, ends, at_ball, self._steps
        program = self.field.program
        return program.trace(*rays) if program else marching.trace(self.field.value, *rays)

    def _skip_films(
        self, traced: Traced, begin: FloatArray, directions: FloatArray, ends: FloatArray
    ) -> Traced:
        """Continue rays that hit a film, where a change of sign is rounding error, behind the film."""
        rounding = np.float32(self.field.rounding)
        hit, t, evaluations = traced.hit.copy(), traced.t.copy(), traced.evaluations
        suspects = np.flatnonzero(hit)
        for _ in range(_MAX_FILMS):
            points = begin[suspects] + t[suspects, None] * directions[suspects]
            behind = points + _FILM_OFFSET * rounding * directions[suspects]
            not_inside = self.field.value(behind) >= -rounding
            evaluations += len(points)
            points, suspects = points[not_inside], suspects[not_inside]
            around = settled(self.field.value, points, np.zeros(len(points), np.float32), float(rounding))
            suspects = suspects[around > 0]
            if not suspects.size:
                break
            past = t[suspects] + _FILM_OFFSET * rounding
            continued = self._sphere_trace(
                begin[suspects] + past[:, None] * directions[suspects],
                directions[suspects],
                np.maximum(ends[suspects] - past, 0),
                np.zeros(len(suspects), np.bool_),
            )
            hit[suspects], t[suspects] = continued.hit, np.where(continued.hit, past + continued.t, 0)
            suspects, evaluations = suspects[continued.hit], evaluations + continued.evaluations
        return traced._replace(hit=hit, t=t, evaluations=evaluations)

    def soft_shadow(self, points: FloatArray, towards: FloatArray, cone: SoftShadow) -> FloatArray:
        """Fraction (n,) of a distant light in direction `towards` (3,) that reaches points (n, 3)."""
        directions = np.broadcast_to(towards, points.shape)
        # Points off the surface can be outside the ball, where there are no shadows.
        ends = np.maximum(ball_chord(points, directions)[1], 0).astype(np.float32)
        begin = points / np.maximum(np.linalg.norm(points, axis=1, keepdims=True) / BALL_RADIUS, 1)
        rays = begin.astype(np.float32), np.ascontiguousarray(directions, np.float32), ends, cone
        field = self._shading_field
        fraction, evaluations = (
            field.program.soft_shadow(*rays) if field.program else marching.soft_shadow(field.value, *rays)
        )
        self._count(evaluations)
        return fraction

    def _count(self, evaluations: int) -> None:
        with self._counting:
            self.evaluations += evaluations

    def normals(self, points: npt.NDArray[Any], directions: npt.NDArray[Any]) -> FloatArray:
        """Unit gradients (n, 3) at points (n, 3); towards the viewer if the gradient vanishes."""
        if not len(points):
            return np.zeros((0, 3), np.float32)
        self._count(len(points))
        _, gradients = self.field.value_and_gradient(np.ascontiguousarray(points, np.float32))
        norms = np.linalg.norm(gradients, axis=1, keepdims=True)
        vanishes = ~(norms > 1e-12)
        unit = np.where(vanishes, -np.asarray(directions), gradients / np.where(vanishes, 1, norms))
        return np.asarray(unit, np.float32)

    def value(self, points: npt.NDArray[Any]) -> FloatArray:
        """Values (n,) of the field without its films at points (n, 3). Counts the evaluations."""
        self._count(len(points))
        return self._shading_field.value(np.ascontiguousarray(points, np.float32))

    def _value_and_gradient(self, points: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Values (n,) and gradients (n, 3) at points (n, 3). Counts the evaluations."""
        self._count(len(points))
        return self.field.value_and_gradient(points)
