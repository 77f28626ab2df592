"""
tracing.py
----------
Sphere tracing (Hart 1996; paper, section 2.3): rays start where they enter the unit ball and step by the
field's value. Only active rays are evaluated. A hit is a change of sign, not a small value, and is refined to
a root, so silhouettes are as sharp as the zero level set.

The surfaces of meshes and occupancy fields are traced by casting rays at triangles instead.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from threading import Lock
from typing import Any

import numpy as np
import numpy.typing as npt

from ..array_types import FloatArray, Mask, Points, Values, Vectors
from ..backends.reference import sphere_tracing as marching
from ..backends.reference.sphere_tracing import MAX_LEVEL, SoftShadow, Traced
from ..errors import FieldKindError, NeuralSDFError
from ..fields.extract import DEFAULT_MEMORY, model_surface
from ..fields.extraction_grid import FieldGrid
from ..fields.field import Field, require_shape
from ..fields.mesh_field import MeshField
from ..grid.surface_search import settled
from ..mesh.signed_distance import FACE_BYTES, SignedDistance

#: Rays start and end on a ball slightly smaller than the unit ball, so that rounding does not move the first
#: point outside, where the field is extended.
BALL_RADIUS = 1 - 1e-6

#: Minimum step. Without it, rays along the surface would take too many steps. Chords shorter than this can be
#: missed: an eighth of a pixel in a picture of 512 x 512.
MIN_STEP = 5e-4

#: Number of levels, from 0 to `MAX_LEVEL`, for which the safe step is tabulated.
TABLE_SIZE = 1025

#: Levels that bound the intervals in which gradient norms are measured.
_LEVELS = np.concatenate([[0.0], np.geomspace(0.002, MAX_LEVEL, 16)])
#: Minimum number of samples in an interval, and the quantile of the norms that is used.
_MIN_SAMPLES, _QUANTILE = 32, 0.99

#: Distance behind a triangle at which the solid is tested, and maximum number of sheets that a ray passes.
_SHEET_PROBE, _MAX_SHEETS = 1e-5, 16
#: Distance in front of the ball at which rays at an extracted surface start.
_START_OFFSET = 1e-3
#: Distance at which a ray continues behind a film, in units of the field's rounding, and maximum number of
#: films that a ray passes.
_FILM_OFFSET, _MAX_FILMS = 64, 8
#: Resolution of the search for films.
_FILM_RESOLUTION = 128

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
        self._steps = self._calibrate(seed)
        if field.rounding and self._skips_films:
            self._shading_field = _without_films(field)

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

    def _calibrate(self, seed: int) -> FloatArray:
        """Safe steps of a ray for `TABLE_SIZE` levels of the field, from 0 to `MAX_LEVEL`.

        The gradient norm of a network exceeds 1 in places, and values there can exceed the distance. Between
        level v and the surface a ray crosses every level u in between, where the gradient norm is at most
        L(u). So it can safely step by the integral of du / L(u) from 0 to v. L is the 99th percentile of the
        norms sampled at a level, and at least the field's Lipschitz constant. The maximum is not used: it
        occurs in tiny regions, and would cost many steps for few pixels.
        """
        values, norms = self._sample_norms(np.random.default_rng(seed))
        # At least 1, so that no step exceeds the value itself.
        lipschitz = np.full(len(_LEVELS) - 1, max(1.0, self.field.lipschitz or 1.0))
        for index, (low, high) in enumerate(pairwise(_LEVELS)):
            samples = norms[(values >= low) & (values < high)]
            if samples.size >= _MIN_SAMPLES:
                lipschitz[index] = max(lipschitz[index], float(np.quantile(samples, _QUANTILE)))
        steps = np.concatenate([[0.0], np.cumsum(np.diff(_LEVELS) / lipschitz)])
        table = np.interp(np.linspace(0, MAX_LEVEL, TABLE_SIZE), _LEVELS, steps)
        return np.asarray(np.maximum(table, MIN_STEP), np.float32)

    def _sample_norms(self, rng: np.random.Generator) -> tuple[FloatArray, FloatArray]:
        """Absolute values (n,) and gradient norms (n,) at random points of the ball and near the surface."""
        points = rng.normal(size=(16384, 3))
        points *= rng.random((len(points), 1)) ** (1 / 3) / np.linalg.norm(points, axis=1, keepdims=True)
        values, norms, gradients = self._evaluate(points)
        # A Newton step moves the points near the surface, where most steps are taken.
        near = points - (values / np.maximum(norms, 0.3) ** 2)[:, None] * gradients
        near += rng.normal(size=near.shape) * rng.choice([0.003, 0.01, 0.03], size=(len(near), 1))
        near_values, near_norms, _ = self._evaluate(near[np.linalg.norm(near, axis=1) < BALL_RADIUS])
        return np.abs(np.concatenate([values, near_values])), np.concatenate([norms, near_norms])

    def _evaluate(self, points: Points) -> tuple[FloatArray, FloatArray, FloatArray]:
        """Values (n,), gradient norms (n,) and gradients (n, 3) at points (n, 3)."""
        self._count(len(points))
        values, gradients = self.field.value_and_gradient(points.astype(np.float32))
        return values, np.linalg.norm(gradients, axis=1), gradients


class MeshTracer(Tracer):
    """Casts rays at the triangles of a mesh. Exact, and much faster than sphere tracing of its distance."""

    _skips_films = False

    def __init__(self, field: MeshField, *, seed: int = 0) -> None:
        super().__init__(field, seed=seed)
        self._oracle = field.oracle

    def _march(self, begin: FloatArray, directions: FloatArray, ends: FloatArray, at_ball: Mask) -> Traced:
        begin64, directions64 = begin.astype(np.float64), directions.astype(np.float64)
        t, _ = self._oracle.first_hit(begin64, directions64)
        if self._oracle.unenclosed:
            self._skip_sheets(t, begin64, directions64, ends)
        hit = t < ends
        none = np.zeros(len(begin), np.bool_)
        return Traced(hit, np.where(hit, t, 0).astype(np.float32), none, none, 0)

    def _skip_sheets(self, t: Values, begin: Points, directions: Vectors, ends: FloatArray) -> None:
        """Move hits (n,) on open sheets, which have no solid behind them, to the next triangle, in place.

        A sheet is not a surface of the solid, and `extract` omits it too.
        """
        hits = np.flatnonzero(t < ends)
        for _ in range(_MAX_SHEETS):
            behind = begin[hits] + (t[hits] + _SHEET_PROBE)[:, None] * directions[hits]
            hits = hits[~self._oracle.inside(behind)]
            if not len(hits):
                return
            past = t[hits] + _SHEET_PROBE
            origins = begin[hits] + past[:, None] * directions[hits]
            t[hits] = past + self._oracle.first_hit(origins, directions[hits])[0]
            hits = hits[t[hits] < ends[hits]]


class SurfaceTracer(MeshTracer):
    """Casts rays at the triangles of a field's extracted surface; supports fields of any kind.

    field: the exact distance to that surface, with the transform of the original field. Raises as
    `model_surface` does.
    """

    def __init__(self, field: Field, *, seed: int = 0) -> None:
        super().__init__(_extracted(field), seed=seed)

    def _march(self, begin: FloatArray, directions: FloatArray, ends: FloatArray, at_ball: Mask) -> Traced:
        # If the shape reaches its ball, the surface is closed by the ball: start rays in front of it.
        offset: FloatArray = np.where(at_ball, np.float32(_START_OFFSET), np.float32(0))
        in_front: FloatArray = begin - offset[:, None] * directions
        traced = super()._march(in_front, directions, ends + offset, at_ball)
        return traced._replace(t=np.maximum(traced.t - offset, 0))


def make_tracer(field: Field, *, seed: int = 0) -> Tracer:
    """The tracer for a field: `MeshTracer` for a mesh, `SurfaceTracer` for an occupancy field, else sphere
    tracing. Raises as these do."""
    if field.kind == "occupancy":
        return SurfaceTracer(field, seed=seed)
    if (
        isinstance(field, MeshField) and field.oracle.thickness is None
    ):  # else its triangles are not its surface
        return MeshTracer(field, seed=seed)
    return Tracer(field, seed=seed)


def _extracted(field: Field) -> MeshField:
    """The exact distance to the extracted surface of a field. Raises as `model_surface` does."""
    surface = model_surface(field, face_bytes=FACE_BYTES)
    oracle = SignedDistance(surface.vertices, surface.faces, make_bvh=field.backend.triangle_bvh)
    return MeshField(oracle, field.transform, backend=field.chosen_backend)


def _without_films(field: Field) -> Field:
    """The field itself or, if it has films far from its surface, the distance to its extracted surface.

    A film casts no shadow, but the field's values near it are as small as near a surface.
    """
    grid = FieldGrid(field, 0.0, _FILM_RESOLUTION, DEFAULT_MEMORY)
    try:
        found = grid.search()
        if not len(found.cells) or not grid.has_films(found):
            return field
        return _extracted(field)
    except NeuralSDFError:  # too large for the search, or empty
        return field


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
