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
from threading import Lock
from typing import Any

import numpy as np
import numpy.typing as npt

from ..array_types import FloatArray, Mask, Points, Values, Vectors
from ..backends import get_backend
from ..backends.reference import sphere_tracing as marching
from ..backends.reference.sphere_tracing import MAX_LEVEL, SoftShadow, Traced
from ..errors import FieldKindError, NeuralSDFError
from ..fields.extract import DEFAULT_MEMORY, model_surface
from ..fields.extraction_grid import FieldGrid
from ..fields.field import Field, require_shape
from ..fields.mesh_field import MeshField
from ..grid.surface_search import settled
from ..mesh.signed_distance import FACE_BYTES, SignedDistance

#: Rays start and end on a ball a hair smaller than the unit ball: rounding must not put the first
#: point outside, where a field extends itself by the distance to the ball.
BALL_RADIUS = 1 - 1e-6

#: No step is shorter, or rays along the surface would creep; what may be missed is a chord this
#: short, an eighth of a pixel in a picture of 512 x 512.
MIN_STEP = 5e-4

#: Levels from 0 to MAX_LEVEL for which the safe step is tabulated, as close as those whose slopes are known.
TABLE = 1025

#: A ray at a mesh looks this far behind a triangle for the solid, and passes at most so many without one.
_BEHIND, _MOST_SHEETS = 1e-5, 16
#: A ray at an extracted surface begins this far before the ball.
_BEFORE = 1e-3
#: A ray that met rounding on a film goes on this many roundings past it, at most so many times.
_AHEAD, _MOST_FILMS = 64, 8
#: Resolution at which films are looked for.
_FILM_RESOLUTION = 128

BLOCK = 1 << 14  # rays traced together: what there is of them stays in the cache


@dataclass(frozen=True)
class TraceResult:
    """What n rays met, in model space.

    hit: (n,). t: (n,) float64, length from the ray's origin to the surface, inf without a hit.
    points: (n, 3) float32 on the zero level set, zero without a hit. unresolved: (n,) rays that neither
    hit nor left the ball. buried: (n,) rays that entered the ball deep inside the solid, whose wall on the
    ball was passed through.
    """

    hit: Mask
    t: Values
    points: FloatArray
    unresolved: Mask
    buried: Mask


class Tracer:
    """Traces rays through one field, and keeps what it learned of the field to step safely.

    seed: of the samples that gauge the field's slopes.
    evaluations: points at which the field was evaluated so far, gradients counted once.
    Several threads may trace at once, if the field can be evaluated by several.
    Raises `NoSurfaceError` for a signed distance that is all but constant, `FieldKindError` for an occupancy
    field, whose values are no lengths to step by; `make_tracer` makes one for any field.
    """

    _may_meet_films = True

    def __init__(self, field: Field, *, seed: int = 0) -> None:
        self.field = field
        self.evaluations = 0
        self._shading_field = field
        self._counting = Lock()
        if field.kind == "occupancy":
            raise FieldKindError("an occupancy field has no distances to step by; use `make_tracer`")
        require_shape(field)
        self._steps = self._calibrate(seed)
        if field.rounding and self._may_meet_films:
            self._shading_field = _without_films(field)

    def trace(self, origins: npt.NDArray[Any], directions: npt.NDArray[Any]) -> TraceResult:
        """The first surface from outside along each ray.

        origins: (n, 3) or (3,), directions: (n, 3) unit vectors, both in model space, float64. Rays that are
        neighbours in space are traced fastest as neighbours in the arrays. A ray that starts inside the solid
        sees it from within as air: its first hit is on the next surface.
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
        """Whether any of 4096 random chords of the ball meets a surface."""
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
        onward = directions.T.take(crossing, axis=1)  # a coordinate at a time: numpy is slow along short axes
        entered = onward * start
        entered += origins.T if len(origins) == 1 else origins.T.take(crossing, axis=1)
        # From the point of entry on, float32 is enough: the chord is at most 2 long.
        begin, ahead = (np.ascontiguousarray(vectors.T, np.float32) for vectors in (entered, onward))
        ends = (exit_.take(crossing) - start).astype(np.float32)
        march = self._march(begin, ahead, ends, entry.take(crossing) >= 0)
        self._count(march.evaluations)
        hit, unresolved, buried = (np.zeros(count, np.bool_) for _ in range(3))
        hit[crossing], unresolved[crossing], buried[crossing] = march.hit, march.unresolved, march.buried
        landed = np.flatnonzero(march.hit)
        t, points = np.full(count, np.inf), np.zeros((count, 3), np.float32)
        met = march.t.take(landed)
        t[crossing[landed]] = start.take(landed) + met
        points[crossing[landed]] = begin.take(landed, axis=0) + met[:, None] * ahead.take(landed, axis=0)
        return TraceResult(hit, t, points, unresolved, buried)

    def _march(self, begin: FloatArray, directions: FloatArray, ends: FloatArray, at_ball: Mask) -> Traced:
        """`Program.trace` by the field's own program, or through its values."""
        met = self._traced(begin, directions, ends, at_ball)
        return self._past_films(met, begin, directions, ends) if self.field.rounding else met

    def _traced(self, begin: FloatArray, directions: FloatArray, ends: FloatArray, at_ball: Mask) -> Traced:
        rays = begin, directions, ends, at_ball, self._steps
        program = self.field.program
        return program.trace(*rays) if program else marching.trace(self.field.value, *rays)

    def _past_films(self, met: Traced, begin: FloatArray, directions: FloatArray, ends: FloatArray) -> Traced:
        """What rays (n,) met, where those that met rounding on a film go on past it."""
        rounding = np.float32(self.field.rounding)
        hit, t, evaluations = met.hit.copy(), met.t.copy(), met.evaluations
        suspects = np.flatnonzero(hit)
        for _ in range(_MOST_FILMS):
            at = begin[suspects] + t[suspects, None] * directions[suspects]
            unsure = self.field.value(at + _AHEAD * rounding * directions[suspects]) >= -rounding
            at, suspects, evaluations = at[unsure], suspects[unsure], evaluations + len(at)
            around = settled(self.field.value, at, np.zeros(len(at), np.float32), float(rounding))
            suspects = suspects[around > 0]
            if not suspects.size:
                break
            past = t[suspects] + _AHEAD * rounding
            onward = self._traced(
                begin[suspects] + past[:, None] * directions[suspects],
                directions[suspects],
                np.maximum(ends[suspects] - past, 0),
                np.zeros(len(suspects), np.bool_),
            )
            hit[suspects], t[suspects] = onward.hit, np.where(onward.hit, past + onward.t, 0)
            suspects, evaluations = suspects[onward.hit], evaluations + onward.evaluations
        return met._replace(hit=hit, t=t, evaluations=evaluations)

    def soft_shadow(self, points: FloatArray, towards: FloatArray, cone: SoftShadow) -> FloatArray:
        """Share (n,) of a distant light in direction `towards` (3,) that reaches points (n, 3)."""
        directions = np.broadcast_to(towards, points.shape)
        # What lies off the surface may lie outside the ball, where a shape casts no shadow on itself.
        ends = np.maximum(ball_chord(points, directions)[1], 0).astype(np.float32)
        begin = points / np.maximum(np.linalg.norm(points, axis=1, keepdims=True) / BALL_RADIUS, 1)
        rays = begin.astype(np.float32), np.ascontiguousarray(directions, np.float32), ends, cone
        field = self._shading_field
        share, evaluations = (
            field.program.soft_shadow(*rays) if field.program else marching.soft_shadow(field.value, *rays)
        )
        self._count(evaluations)
        return share

    def _count(self, evaluations: int) -> None:
        with self._counting:
            self.evaluations += evaluations

    def normals(self, points: npt.NDArray[Any], directions: npt.NDArray[Any]) -> FloatArray:
        """Unit gradients (n, 3) at points (n, 3); where the gradient vanishes, towards the viewer."""
        if not len(points):
            return np.zeros((0, 3), np.float32)
        self._count(len(points))
        _, gradients = self.field.value_and_gradient(np.ascontiguousarray(points, np.float32))
        lengths = np.linalg.norm(gradients, axis=1, keepdims=True)
        flat = ~(lengths > 1e-12)
        unit = np.where(flat, -np.asarray(directions), gradients / np.where(flat, 1, lengths))
        return np.asarray(unit, np.float32)

    def value(self, points: npt.NDArray[Any]) -> FloatArray:
        """Values (n,) of the field, without its films, at points (n, 3); counted."""
        self._count(len(points))
        return self._shading_field.value(np.ascontiguousarray(points, np.float32))

    def _calibrate(self, seed: int) -> FloatArray:
        """How far a ray may step from each of `TABLE` levels of the field, from 0 to `MAX_LEVEL`.

        A network's slope exceeds 1 in places, and its value then exceeds the distance. To come from level v
        to the surface a ray crosses every level between, at most L(u) steep on level u, so it may step by
        the integral of du / L(u) from 0 to v. L is the 99th percentile of the slopes sampled on a level, and
        at least what the field says: the greatest few are specks that cost more steps than they save pixels.
        """
        rng = np.random.default_rng(seed)
        ball = rng.normal(size=(16384, 3))
        ball *= rng.random((len(ball), 1)) ** (1 / 3) / np.linalg.norm(ball, axis=1, keepdims=True)
        values, slopes, gradients = self._slopes(ball)
        # Newton's step takes the same points near the surface, where the steps are short and many.
        near = ball - (values / np.maximum(slopes, 0.3) ** 2)[:, None] * gradients
        near += rng.normal(size=near.shape) * rng.choice([0.003, 0.01, 0.03], size=(len(near), 1))
        near_values, near_slopes, _ = self._slopes(near[np.linalg.norm(near, axis=1) < BALL_RADIUS])
        values = np.abs(np.concatenate([values, near_values]))
        slopes = np.concatenate([slopes, near_slopes])
        levels = np.concatenate([[0.0], np.geomspace(0.002, MAX_LEVEL, 16)])
        # Never step farther than the value itself, or than the field says.
        steepest = np.full(16, max(1.0, self.field.lipschitz or 1.0))
        for index, (low, high) in enumerate(pairwise(levels)):
            here = slopes[(values >= low) & (values < high)]
            if here.size >= 32:
                steepest[index] = max(steepest[index], float(np.quantile(here, 0.99)))
        steps = np.concatenate([[0.0], np.cumsum(np.diff(levels) / steepest)])
        table = np.interp(np.linspace(0, MAX_LEVEL, TABLE), levels, steps)
        return np.asarray(np.maximum(table, MIN_STEP), np.float32)

    def _slopes(self, points: Points) -> tuple[FloatArray, FloatArray, FloatArray]:
        """Values (n,), gradient lengths (n,) and gradients (n, 3)."""
        self._count(len(points))
        values, gradients = self.field.value_and_gradient(points.astype(np.float32))
        return values, np.linalg.norm(gradients, axis=1), gradients


class MeshTracer(Tracer):
    """Casts rays at the triangles of a mesh: exact, and far faster than tracing its distance."""

    _may_meet_films = False

    def __init__(self, field: MeshField, *, seed: int = 0) -> None:
        super().__init__(field, seed=seed)
        self._oracle = field.oracle

    def _march(self, begin: FloatArray, directions: FloatArray, ends: FloatArray, at_ball: Mask) -> Traced:
        begin64, directions64 = begin.astype(np.float64), directions.astype(np.float64)
        t, _ = self._oracle.first_hit(begin64, directions64)
        if self._oracle.unenclosed:
            self._pass_sheets(t, begin64, directions64, ends)
        hit = t < ends
        nothing = np.zeros(len(begin), np.bool_)
        return Traced(hit, np.where(hit, t, 0).astype(np.float32), nothing, nothing, 0)

    def _pass_sheets(self, t: Values, begin: Points, directions: Vectors, ends: FloatArray) -> None:
        """Move hits (n,) on loose sheets, behind which there is no solid, to the next triangle.

        A sheet encloses nothing, so it is no surface of the solid, and `extract` does not have it.
        """
        met = np.flatnonzero(t < ends)
        for _ in range(_MOST_SHEETS):
            behind = begin[met] + (t[met] + _BEHIND)[:, None] * directions[met]
            met = met[~self._oracle.inside(behind)]
            if not len(met):
                return
            past = t[met] + _BEHIND
            ahead = begin[met] + past[:, None] * directions[met]
            t[met] = past + self._oracle.first_hit(ahead, directions[met])[0]
            met = met[t[met] < ends[met]]


class SurfaceTracer(MeshTracer):
    """Draws the surface extracted from a field, whatever its values mean, by casting rays at its triangles.

    field: of that surface, with its exact distance; it has the transform of the field that it is of. Raises
    as `model_surface` does.
    """

    def __init__(self, field: Field, *, seed: int = 0) -> None:
        super().__init__(_extracted(field), seed=seed)

    def _march(self, begin: FloatArray, directions: FloatArray, ends: FloatArray, at_ball: Mask) -> Traced:
        # Where the shape reaches its ball the surface is closed on it: rays begin in front of that.
        before: FloatArray = np.where(at_ball, np.float32(_BEFORE), np.float32(0))
        in_front: FloatArray = begin - before[:, None] * directions
        met = super()._march(in_front, directions, ends + before, at_ball)
        return met._replace(t=np.maximum(met.t - before, 0))


def make_tracer(field: Field, *, seed: int = 0) -> Tracer:
    """The tracer for a field: sphere tracing, or rays cast at the triangles of a mesh or, of an occupancy
    field, of its extracted surface. Raises as these do."""
    if field.kind == "occupancy":
        return SurfaceTracer(field, seed=seed)
    if isinstance(field, MeshField) and field.oracle.thickness is None:
        return MeshTracer(field, seed=seed)
    return Tracer(field, seed=seed)  # made thick, a mesh has another surface than its triangles


def _extracted(field: Field) -> MeshField:
    """The exact distance of the surface extracted from a field. Raises as `model_surface` does."""
    surface = model_surface(field, face_bytes=FACE_BYTES)
    oracle = SignedDistance(surface.vertices, surface.faces, make_bvh=get_backend().triangle_bvh)
    return MeshField(oracle, field.transform)


def _without_films(field: Field) -> Field:
    """The field; or, if it holds films far from its surface, the distance of the surface extracted from it.

    A film is no surface and has no shadow, but close to it the field's values are as small as at one.
    """
    grid = FieldGrid(field, 0.0, _FILM_RESOLUTION, DEFAULT_MEMORY)
    try:
        found = grid.search()
        if not len(found.cells) or not grid.has_films(found):
            return field
        return _extracted(field)
    except NeuralSDFError:  # too large to be searched, or nothing inside
        return field


def ball_chord(origins: npt.NDArray[Any], directions: npt.NDArray[Any]) -> tuple[Values, Values]:
    """t (n,) where rays enter and leave the ball; entry > exit for those that miss it.

    origins: (n, 3) or (1, 3), directions: (n, 3) unit vectors.
    """
    o, d = origins.T, directions.T  # a coordinate at a time: numpy is slow along short axes
    closest = -(o[0] * d[0] + o[1] * d[1] + o[2] * d[2])
    # The foot of the perpendicular first: from a far eye, |o|^2 - 1 would cancel to nothing.
    foot = closest * d
    foot += o
    foot *= foot
    half_squared = BALL_RADIUS**2 - (foot[0] + foot[1] + foot[2])
    half = np.where(half_squared > 0, np.sqrt(np.maximum(half_squared, 0.0)), -np.inf)
    return closest - half, closest + half
