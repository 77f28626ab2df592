"""
sampling.py
-----------
Where a fit looks: points and their signed distances, drawn from a density over the ball.

    importance   proportional to exp(-beta |d|) (paper, equation 6), exactly: an octree bounds the
                 density, since |d| is 1-Lipschitz, and rejection does the rest. No pool, no duplicates.
    uniform      over the ball, or a box (Mescheder et al.)
    surface      on the surface, with normal noise (Park et al., Chen and Zhang)
    vertex       on the vertices, with normal noise (Littwin and Wolf, Sitzmann et al.)

The noise is a mixture of any number of Gaussians. All methods but `uniform` add a share of uniform points: a
field that is fitted near the surface alone is undefined far away, where a sphere tracer starts.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, NamedTuple, get_args

import numpy as np
import numpy.typing as npt

from ..array_types import FloatArray, Points, Values, Vectors
from ..errors import UsageError
from ..geometry.triangles import sample_surface, unit_normals
from ..mesh.signed_distance import SignedDistance
from ..program.samples import Samples

#: Which of some points (n, 3) to keep, as a mask (n,).
Thinning = Callable[[Points, np.random.Generator], npt.NDArray[np.bool_]]

Method = Literal["importance", "uniform", "surface", "vertex"]
METHODS: tuple[Method, ...] = get_args(Method)

#: Samples fill a ball slightly larger than the shape's, so that the field is right up to its rim.
RADIUS = 1.03
_ERROR_CELLS = 48  # along the side of the grid where a field's errors are looked for
_CHUNK = 1 << 18  # points in flight: bounds the memory of a draw
_CORNERS = np.array([[x, y, z] for x in (-1, 1) for y in (-1, 1) for z in (-1, 1)], np.float64)


class Noise(NamedTuple):
    """A Gaussian about the surface or the vertices: its share of the samples there, beside the other shares,
    and its standard deviation in radii.

    neighbour: 0 or k; with k the deviation of each sample is `sigma` times the distance from its point of the
    surface to the k-th nearest other point drawn, or from its vertex to the k-th nearest vertex (Atzmon and
    Lipman, Gropp et al.: 1 times the 50th).
    """

    share: float
    sigma: float
    neighbour: int = 0


#: The noise of the paper's authors.
NOISE = Noise(1.0, 0.01)


@dataclass(frozen=True)
class Density:
    """What the samples' density is.

    beta: of exp(-beta |d|), in 1/radius, 0 to 10 000. uniform: share of uniform points, 0 to 1. noise:
    for the methods surface and vertex, a mixture. box: two corners of the box of uniform points; None for the
    ball. Raises `UsageError` for anything else.
    """

    method: Method = "importance"
    beta: float = 120.0
    uniform: float = 0.1
    noise: tuple[Noise, ...] = (NOISE,)
    box: tuple[tuple[float, ...], tuple[float, ...]] | None = None

    def __post_init__(self) -> None:
        if self.method not in METHODS:
            raise UsageError(f"`sampling={self.method!r}`: one of {', '.join(METHODS)}")
        if not 0 <= self.beta <= 1e4:
            raise UsageError(f"`beta={self.beta}`: 0 to 10000 is allowed")
        if not 0 <= self.uniform <= 1:
            raise UsageError(f"`uniform={self.uniform}`: a fraction is 0 to 1")
        # As JSON has them, both are lists of lists.
        object.__setattr__(self, "noise", tuple(Noise(*each) for each in self.noise))
        if not self.noise or not all(map(_is_noise, self.noise)):
            raise UsageError("`noise=`: each has a positive share, and a sigma and a neighbour not below 0")
        if self.box is not None:
            low, high = (tuple(map(float, corner)) for corner in self.box)
            size = np.subtract(high, low) if len(low) == len(high) == 3 else np.array(np.nan)
            if not (np.isfinite(size) & (size > 0)).all():
                raise UsageError(f"`box={self.box}`: two corners, the lower one first, are needed")
            object.__setattr__(self, "box", (low, high))

    def to_json(self) -> dict[str, Any]:
        """Its arguments as JSON values; `noise` and `box` only if they are not the default."""
        plain: dict[str, Any] = {"method": self.method, "beta": self.beta, "uniform": self.uniform}
        if self.noise != (NOISE,):
            plain["noise"] = [list(each) for each in self.noise]
        if self.box is not None:
            plain["box"] = [list(corner) for corner in self.box]
        return plain


def _is_noise(noise: Noise) -> bool:
    return 0 < noise.share < np.inf and 0 <= noise.sigma < np.inf and noise.neighbour >= 0


class SurfaceSamples(NamedTuple):
    """points (n, 3) on a surface and its unit normals (n, 3) there, outwards; float32."""

    points: FloatArray
    normals: FloatArray


class Sampler:
    """Draws signed samples of a mesh from a density; builds what that needs once.

    vertex_weights: (V,) >= 0, or None: the importance density is scaled by their value at the closest
    surface point (the paper's intended bias, section 2.1.2). Raises `UsageError` if they do not fit.
    """

    def __init__(
        self,
        oracle: SignedDistance,
        density: Density,
        vertex_weights: Values | None = None,
        expected: int = 1 << 20,
    ) -> None:
        self.oracle = oracle
        self.density = density
        self._weights = None if vertex_weights is None else _checked_weights(oracle, vertex_weights)
        if vertex_weights is not None and density.method != "importance":
            raise UsageError(
                f"`weight=` scales importance samples; it cannot be used with `sampling={density.method!r}`"
            )
        self._expected = expected

    def draw(self, count: int, rng: np.random.Generator) -> Samples:
        """`count` fresh samples."""
        uniform = count if self.density.method == "uniform" else round(count * self.density.uniform)
        near, near_distances = self._near(count - uniform, rng)
        far = self._uniform(uniform, rng)
        points = np.concatenate([near, far])
        unsigned = np.concatenate([near_distances, self.oracle.unsigned(far)])
        distances = self.oracle.signed(points, unsigned)
        order = rng.permutation(count)
        return Samples(points.astype(np.float32)[order], distances.astype(np.float32)[order])

    def draw_surface(self, count: int, rng: np.random.Generator) -> SurfaceSamples:
        """`count` points uniform by area on the mesh, with the normals of the faces that they lie on."""
        vertices, faces = self.oracle.vertices, self.oracle.faces
        points, face = sample_surface(vertices, faces, count, rng)
        normals = unit_normals(vertices, faces[face])
        return SurfaceSamples(points.astype(np.float32), normals.astype(np.float32))

    def draw_errors(
        self, value: Callable[[FloatArray], FloatArray], count: int, rng: np.random.Generator
    ) -> Samples:
        """`count` samples where a field errs about its own surface; `value` maps points (n, 3) to (n,).

        The importance of a point is its distance from the true surface, so a sheet that the field has put
        where there is none, across a hole, say, lies in no sample's way and costs no loss. Here points
        of the density exp(-beta |f|), which is where the field believes its surface to be, are drawn again in
        proportion to |f - d|. `beta` is at most 60 here: errors are not thin.
        """
        points, values = _near_zero(value, min(self.density.beta, 60.0), 6 * count // 5, rng)
        distances = self.oracle.signed(points.astype(np.float64)).astype(np.float32)
        error = np.abs(values - distances).astype(np.float64)
        if not error.sum() > 0:
            return Samples(points[:count], distances[:count])
        drawn = rng.choice(len(points), count, p=error / error.sum())
        return Samples(points[drawn], distances[drawn])

    @cached_property
    def _octree(self) -> _Octree:
        """Bounds the importance density; `draw_errors` needs none."""
        return _Octree(self.oracle, self.density.beta, self._expected)

    def _near(self, count: int, rng: np.random.Generator) -> tuple[Points, Values]:
        """`count` points (count, 3) of the density's own part and their unsigned distances (count,)."""
        if self.density.method == "importance" and count > 0:
            return self._octree.draw(count, rng, self._keep)
        if self.density.method == "surface":
            points, _ = sample_surface(self.oracle.vertices, self.oracle.faces, count, rng)
            others = points
        else:
            used = np.unique(self.oracle.faces)
            points, others = self.oracle.vertices[rng.choice(used, count)], self.oracle.vertices[used]
        points = points + rng.standard_normal(points.shape) * self._deviations(points, others)[:, None]
        return points, self.oracle.unsigned(points)

    def _deviations(self, points: Points, others: Points) -> Values:
        """The standard deviation (n,) of the noise of each of points (n, 3), which are among others (m, 3).

        Each Gaussian has its share of the points, whose order is random.
        """
        shares = np.cumsum([noise.share for noise in self.density.noise])
        ends = np.rint(len(points) * shares / shares[-1]).astype(np.int64)
        deviations = np.empty(len(points))
        for noise, first, end in zip(self.density.noise, [0, *ends[:-1]], ends, strict=True):
            deviations[first:end] = noise.sigma
            if noise.neighbour and first < end:
                deviations[first:end] *= _neighbour_distance(points[first:end], others, noise.neighbour)
        return deviations

    def _uniform(self, count: int, rng: np.random.Generator) -> Points:
        """`count` points (count, 3) uniform in the density's box or ball."""
        if self.density.box is None:
            return uniform_ball(count, rng)
        return rng.uniform(*self.density.box, (count, 3))

    def _keep(self, points: Points, rng: np.random.Generator) -> npt.NDArray[np.bool_]:
        """Rejection by the user's weights, interpolated at the closest surface point."""
        if self._weights is None:
            return np.ones(len(points), np.bool_)
        _, face, nearest = self.oracle.closest(points)
        corners = self.oracle.faces[face]
        inverse = 1 / np.maximum(
            np.linalg.norm(self.oracle.vertices[corners] - nearest[:, None], axis=2), 1e-12
        )
        weight: Values = (self._weights[corners] * inverse).sum(axis=1) / inverse.sum(axis=1)
        kept: npt.NDArray[np.bool_] = rng.random(len(points)) < weight / self._weights.max()
        return kept


def _neighbour_distance(points: Points, others: Points, k: int) -> Values:
    """Distance (n,) of points (n, 3), which are among others (m, 3), to the k-th closest other one, or to the
    farthest of fewer."""
    from scipy.spatial import cKDTree

    distances, _ = cKDTree(others).query(points, [min(k + 1, len(others))])
    return np.reshape(distances, len(points))


def _near_zero(
    value: Callable[[FloatArray], FloatArray], beta: float, count: int, rng: np.random.Generator
) -> tuple[FloatArray, FloatArray]:
    """Up to `count` points (n, 3) of the density exp(-beta |f|), and f there (n,).

    Proposals come from cells of a grid, by a bound of the density in each: f changes over a distance by
    about as much.
    """
    side = 2 * RADIUS / _ERROR_CELLS
    along = (np.arange(_ERROR_CELLS) + 0.5) * side - RADIUS
    centres = np.stack(np.meshgrid(along, along, along, indexing="ij"), axis=-1).reshape(-1, 3)
    reach = side * np.sqrt(3) / 2
    centres = centres[_squared(centres) < (RADIUS + reach) ** 2]
    bounds = np.exp(-beta * np.maximum(np.abs(value(centres.astype(np.float32))) - reach, 0.0))
    cells = rng.choice(len(centres), 4 * count, p=bounds / bounds.sum())
    points = centres[cells] + rng.uniform(-side / 2, side / 2, (len(cells), 3))
    inside = _squared(points) < RADIUS**2
    points, cells = points[inside].astype(np.float32), cells[inside]
    values = value(points)
    chosen = np.flatnonzero(rng.random(len(points)) * bounds[cells] < np.exp(-beta * np.abs(values)))[:count]
    return points[chosen], values[chosen]


def uniform_ball(count: int, rng: np.random.Generator, radius: float = RADIUS) -> Points:
    """Points (count, 3) uniform in the ball of `radius` about the origin."""
    direction = rng.standard_normal((count, 3))
    direction *= radius * rng.random((count, 1)) ** (1 / 3) / np.linalg.norm(direction, axis=1, keepdims=True)
    return direction


class _Octree:
    """Cells that cover the ball, each with an upper bound of exp(-beta |d|) in it.

    With c the centre and r the half-diagonal of a cell, |d| >= |d(c)| - r in it. A cell is split while
    the rejections that this is expected to save cost more than its eight children's distances. Distances are
    counted from the shortest one in the ball, so that the density does not vanish where all of them are long.
    """

    SPLIT_COST = 8.0
    MIN_LEVEL, MAX_LEVEL = 4, 12

    def __init__(self, oracle: SignedDistance, beta: float, expected: int) -> None:
        self._oracle, self._beta = oracle, beta
        centres, half = np.zeros((1, 3)), RADIUS
        distances = oracle.magnitude(oracle.unsigned(centres))
        self._shortest = max(float(distances[0]) - RADIUS, 0.0)
        distances = distances - self._shortest
        leaves: list[tuple[Points, Points, Points]] = []
        settled_bound = settled_mass = 0.0  # of the leaves so far: integrals of the bound and the density
        for level in range(self.MAX_LEVEL + 1):
            volume = (2 * half) ** 3
            bound = self._bound(distances, half)
            density = np.exp(-beta * distances)
            total_mass = settled_mass + density.sum() * volume
            saved = 0.5 * expected / max(total_mass, 1e-300) * volume * (bound - density)
            split = (saved > self.SPLIT_COST) | (level < self.MIN_LEVEL)
            if level == self.MAX_LEVEL:
                split[:] = False
            leaf = ~split
            leaves.append((centres[leaf], np.full(leaf.sum(), half), distances[leaf]))
            settled_bound += bound[leaf].sum() * volume
            settled_mass += density[leaf].sum() * volume
            if not split.any():
                break
            half /= 2
            centres = (centres[split][:, None] + _CORNERS * half).reshape(-1, 3)
            nearest = np.maximum(np.abs(centres) - half, 0)
            centres = centres[_squared(nearest) < RADIUS**2]
            distances = oracle.magnitude(oracle.unsigned(centres)) - self._shortest
        self._centres = np.concatenate([leaf[0] for leaf in leaves])
        self._halves = np.concatenate([leaf[1] for leaf in leaves])
        self._distances = np.concatenate([leaf[2] for leaf in leaves])
        self._bounds = self._bound(self._distances, self._halves)
        mass = np.cumsum(self._bounds * (2 * self._halves) ** 3)
        self._cumulative = mass / mass[-1]
        self._acceptance = float(np.clip(settled_mass / settled_bound, 0.05, 0.95))

    def _bound(self, distances: Values, half: Values | float) -> Values:
        bound: Values = np.exp(-self._beta * np.maximum(distances - half * np.sqrt(3), 0))
        return bound

    def draw(self, count: int, rng: np.random.Generator, keep: Thinning) -> tuple[Points, Values]:
        """`count` independent points of the density and their unsigned distances; `keep` thins them."""
        accepted: list[tuple[Points, Points]] = []
        have, acceptance = 0, self._acceptance
        while have < count:
            proposals = min(int((count - have) / acceptance * 1.02) + 1000, _CHUNK)
            points, distances = self._propose(proposals, rng)
            kept = keep(points, rng)
            accepted.append((points[kept], distances[kept]))
            have += int(kept.sum())
            acceptance = max(0.5 * acceptance, float(kept.sum()) / proposals, 1e-4)
        points = np.concatenate([batch[0] for batch in accepted])
        distances = np.concatenate([batch[1] for batch in accepted])
        # They lie in the order of the cells, so that the surplus is not at the end of it.
        surplus = rng.choice(len(points), len(points) - count, replace=False, shuffle=False)
        return np.delete(points, surplus, axis=0), np.delete(distances, surplus)

    def _propose(self, count: int, rng: np.random.Generator) -> tuple[Points, Values]:
        """The accepted ones of `count` proposals, with their unsigned distances."""
        # Partial sums of exponential numbers are sorted uniform ones but for their scale: cells in order.
        sums = np.cumsum(rng.standard_exponential(count + 1))
        cell = np.searchsorted(self._cumulative, sums[:-1] / sums[-1])
        offset = rng.uniform(-1, 1, (count, 3)) * self._halves[cell, None]
        points = self._centres[cell] + offset
        threshold = rng.random(count) * self._bounds[cell]
        # |d(x)| >= |d(c)| - |x - c|: many are rejected without asking for their distance.
        lowest = np.maximum(self._distances[cell] - np.sqrt(_squared(offset)), 0)
        plausible = threshold < np.exp(-self._beta * lowest)
        plausible &= _squared(points) < RADIUS**2
        points, threshold = points[plausible], threshold[plausible]
        unsigned = self._oracle.unsigned(points)
        accepted = threshold < np.exp(-self._beta * (self._oracle.magnitude(unsigned) - self._shortest))
        return points[accepted], unsigned[accepted]


def _squared(vectors: Vectors) -> Values:
    """Squared lengths (n,) of vectors (n, 3)."""
    squared: Values = np.einsum("ij,ij->i", vectors, vectors)
    return squared


def _checked_weights(oracle: SignedDistance, weights: Values) -> Values:
    weights = np.asarray(weights, np.float64)
    if weights.shape != (len(oracle.vertices),):
        raise UsageError(
            f"`weight=`: {len(oracle.vertices)} vertices need as many weights, not {weights.shape}"
        )
    if not np.isfinite(weights).all() or (weights < 0).any() or weights.max() <= 0:
        raise UsageError("`weight=`: weights must be finite and not negative, and at least one positive")
    return weights
