"""
sampling.py
-----------
Training samples: points and their signed distances, drawn from a density over the ball.

    importance   proportional to exp(-beta |d|) (paper, equation 6). Exact and without duplicates: rejection
                 sampling with an octree of upper bounds, which exist because |d| is 1-Lipschitz.
    uniform      in the ball, or in a box (Mescheder et al.)
    surface      on the surface, with Gaussian noise (Park et al., Chen and Zhang)
    vertex       on the vertices, with Gaussian noise (Littwin and Wolf, Sitzmann et al.)

The noise is a mixture of any number of Gaussians. All methods except `uniform` add a fraction of uniform
points: a field fitted only near the surface is undefined far from it, where sphere tracing starts.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, NamedTuple, get_args

import numpy as np
import numpy.typing as npt

from ..arguments import real_number
from ..array_types import FloatArray, Points, Values, Vectors
from ..errors import UsageError
from ..geometry.triangles import sample_surface, unit_normals
from ..geometry.unit_ball import uniform_ball
from ..mesh.signed_distance import SignedDistance
from ..program.sample_set import Samples

#: Selects points (n, 3) at random; returns a mask (n,).
Thinning = Callable[[Points, np.random.Generator], npt.NDArray[np.bool_]]

Method = Literal["importance", "uniform", "surface", "vertex"]
METHODS: tuple[Method, ...] = get_args(Method)

#: Samples are drawn from a ball slightly larger than the unit ball, so that the field is accurate at its
#: boundary.
RADIUS = 1.03
_ERROR_CELLS = 48  # along a side of the grid from which `draw_errors` draws
_MAX_ERROR_BETA = 60.0  # of `draw_errors`, because regions of large errors are not thin
_CHUNK = 1 << 18  # points drawn at once; bounds the memory
_CORNERS = np.array([[x, y, z] for x in (-1, 1) for y in (-1, 1) for z in (-1, 1)], np.float64)


class Noise(NamedTuple):
    """A Gaussian around points of the surface, or vertices: one component of a mixture.

    weight: of the component. sigma: standard deviation in radii. neighbour: 0, or k to multiply `sigma`
    by the distance from the sample's surface point to the k-th nearest other point drawn, or from its vertex
    to the k-th nearest vertex (Atzmon and Lipman, Gropp et al.: `sigma` 1, k 50).
    """

    weight: float
    sigma: float
    neighbour: int = 0


#: The noise of the paper's authors.
NOISE = Noise(1.0, 0.01)


@dataclass(frozen=True)
class Density:
    """Density of the samples.

    beta: of exp(-beta |d|), in 1/radius, 0 to 10 000. uniform: fraction of uniform points, 0 to 1. noise:
    mixture of Gaussians for the methods surface and vertex. box: minimum and maximum corner of the box of
    uniform points; None for the ball. Raises `UsageError` for other values.
    """

    method: Method = "importance"
    beta: float = 120.0
    uniform: float = 0.1
    noise: tuple[Noise, ...] = (NOISE,)
    box: tuple[tuple[float, ...], tuple[float, ...]] | None = None

    def __post_init__(self) -> None:
        if self.method not in METHODS:
            raise UsageError(f"`sampling={self.method!r}`: must be one of {', '.join(METHODS)}")
        if not 0 <= real_number("beta", self.beta) <= 1e4:
            raise UsageError(f"`beta={self.beta}`: must be 0 to 10000")
        if not 0 <= real_number("uniform", self.uniform) <= 1:
            raise UsageError(f"`uniform={self.uniform}`: must be 0 to 1")
        # From JSON, both are lists of lists.
        object.__setattr__(self, "noise", tuple(Noise(*component) for component in self.noise))
        if not self.noise or not all(map(_is_valid, self.noise)):
            raise UsageError("`noise=`: weights must be positive, and sigmas and neighbours not negative")
        if self.box is not None:
            low, high = (tuple(map(float, corner)) for corner in self.box)
            size = np.subtract(high, low) if len(low) == len(high) == 3 else np.array(np.nan)
            if not (np.isfinite(size) & (size > 0)).all():
                raise UsageError(f"`box={self.box}`: must be the minimum and the maximum corner")
            object.__setattr__(self, "box", (low, high))

    def to_json(self) -> dict[str, Any]:
        """The arguments as JSON values; `noise` and `box` only if they are not the default."""
        values: dict[str, Any] = {"method": self.method, "beta": self.beta, "uniform": self.uniform}
        if self.noise != (NOISE,):
            values["noise"] = [list(component) for component in self.noise]
        if self.box is not None:
            values["box"] = [list(corner) for corner in self.box]
        return values


def _is_valid(noise: Noise) -> bool:
    return 0 < noise.weight < np.inf and 0 <= noise.sigma < np.inf and noise.neighbour >= 0


class SurfaceSamples(NamedTuple):
    """Points (n, 3) on a surface, and outward unit normals (n, 3) there; float32."""

    points: FloatArray
    normals: FloatArray


class Sampler:
    """Draws points with signed distances of a mesh from a density.

    vertex_weights: (V,) >= 0, or None. They multiply the importance density by their interpolated value at
    the closest surface point (the intended bias of the paper, section 2.1.2). expected: approximate total
    number of samples, for which the octree is optimised. Raises `UsageError` for invalid weights.
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
                f"`weight=` cannot be combined with `sampling={density.method!r}`: it scales the importance "
                "density"
            )
        self._expected = expected

    def draw(self, count: int, rng: np.random.Generator) -> Samples:
        """Draw `count` samples."""
        uniform = count if self.density.method == "uniform" else round(count * self.density.uniform)
        near, near_distances = self._near(count - uniform, rng)
        far = self._uniform(uniform, rng)
        points = np.concatenate([near, far])
        unsigned = np.concatenate([near_distances, self.oracle.unsigned(far)])
        distances = self.oracle.signed(points, unsigned)
        order = rng.permutation(count)
        return Samples(points.astype(np.float32)[order], distances.astype(np.float32)[order])

    def draw_surface(self, count: int, rng: np.random.Generator) -> SurfaceSamples:
        """Draw `count` area-uniform points on the mesh, with the normals of their faces."""
        vertices, faces = self.oracle.vertices, self.oracle.faces
        points, face = sample_surface(vertices, faces, count, rng)
        normals = unit_normals(vertices, faces[face])
        return SurfaceSamples(points.astype(np.float32), normals.astype(np.float32))

    def draw_errors(
        self, value: Callable[[FloatArray], FloatArray], count: int, rng: np.random.Generator
    ) -> Samples:
        """Draw `count` samples near the zero set of a field, where the field's errors are large.

        value: maps points (n, 3) to the field's values (n,). Importance samples are near the true surface, so
        they miss a spurious sheet of the field, such as one across a hole. Here points are drawn from the
        density exp(-beta |f|), near the field's own zero set, and resampled in proportion to |f - d|. `beta`
        is limited to 60, because regions of large errors are not thin.
        """
        points, values = _near_zero(value, min(self.density.beta, _MAX_ERROR_BETA), 6 * count // 5, rng)
        distances = self.oracle.signed(points.astype(np.float64)).astype(np.float32)
        errors = np.abs(values - distances).astype(np.float64)
        if not errors.sum() > 0:
            return Samples(points[:count], distances[:count])
        drawn = rng.choice(len(points), count, p=errors / errors.sum())
        return Samples(points[drawn], distances[drawn])

    @cached_property
    def _octree(self) -> _Octree:
        """Upper bounds of the importance density, computed on first use."""
        return _Octree(self.oracle, self.density.beta, self._expected)

    def _near(self, count: int, rng: np.random.Generator) -> tuple[Points, Values]:
        """Draw the points (count, 3) that are not uniform, and their unsigned distances (count,)."""
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
        """Standard deviations (n,) of the noise at points (n, 3), which are among `others` (m, 3).

        Each component of the mixture gets consecutive points, which are in random order.
        """
        weights = np.cumsum([noise.weight for noise in self.density.noise])
        ends = np.rint(len(points) * weights / weights[-1]).astype(np.int64)
        deviations = np.empty(len(points))
        for noise, first, end in zip(self.density.noise, [0, *ends[:-1]], ends, strict=True):
            deviations[first:end] = noise.sigma
            if noise.neighbour and first < end:
                deviations[first:end] *= _neighbour_distance(points[first:end], others, noise.neighbour)
        return deviations

    def _uniform(self, count: int, rng: np.random.Generator) -> Points:
        """Draw points (count, 3) uniformly from the density's box or the ball."""
        if self.density.box is None:
            return uniform_ball(count, rng, RADIUS)
        return rng.uniform(*self.density.box, (count, 3))

    def _keep(self, points: Points, rng: np.random.Generator) -> npt.NDArray[np.bool_]:
        """Accept points (n, 3) with a probability proportional to the vertex weights, interpolated at the
        closest surface points. Returns a mask (n,)."""
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
    """Distances (n,) from points (n, 3), which are among `others` (m, 3), to the k-th nearest other point, or
    to the farthest if there are fewer."""
    from scipy.spatial import cKDTree

    distances, _ = cKDTree(others).query(points, [min(k + 1, len(others))])
    return np.reshape(distances, len(points))


def _near_zero(
    value: Callable[[FloatArray], FloatArray], beta: float, count: int, rng: np.random.Generator
) -> tuple[FloatArray, FloatArray]:
    """Draw up to `count` points (n, 3) from the density exp(-beta |f|). Returns them with f (n,).

    Rejection sampling with a bound of the density in each cell of a grid, which assumes that f is
    approximately 1-Lipschitz.
    """
    side = 2 * RADIUS / _ERROR_CELLS
    along = (np.arange(_ERROR_CELLS) + 0.5) * side - RADIUS
    centres = np.stack(np.meshgrid(along, along, along, indexing="ij"), axis=-1).reshape(-1, 3)
    half_diagonal = side * np.sqrt(3) / 2
    centres = centres[_squared_norms(centres) < (RADIUS + half_diagonal) ** 2]
    bounds = np.exp(-beta * np.maximum(np.abs(value(centres.astype(np.float32))) - half_diagonal, 0.0))
    cells = rng.choice(len(centres), 4 * count, p=bounds / bounds.sum())
    points = centres[cells] + rng.uniform(-side / 2, side / 2, (len(cells), 3))
    in_ball = _squared_norms(points) < RADIUS**2
    points, cells = points[in_ball].astype(np.float32), cells[in_ball]
    values = value(points)
    accepted = rng.random(len(points)) * bounds[cells] < np.exp(-beta * np.abs(values))
    accepted = np.flatnonzero(accepted)[:count]
    return points[accepted], values[accepted]


class _Octree:
    """Cells that cover the ball, with upper bounds of the density exp(-beta |d|).

    In a cell with centre c and half-diagonal r, |d| >= |d(c)| - r. A cell is split if the rejections that
    this avoids cost more than the distances at the centres of its children. A lower bound of all distances in
    the ball is subtracted from them, so that the density does not underflow if all are large.
    """

    #: Distances per split, one for each child.
    SPLIT_COST = 8.0
    MIN_LEVEL, MAX_LEVEL = 4, 12

    def __init__(self, oracle: SignedDistance, beta: float, expected: int) -> None:
        self._oracle, self._beta = oracle, beta
        centre = np.zeros((1, 3))
        distance = oracle.magnitude(oracle.unsigned(centre))
        self._min_distance = max(float(distance[0]) - RADIUS, 0.0)
        self._acceptance = self._build(centre, distance - self._min_distance, expected)
        mass = np.cumsum(self._bounds * (2 * self._halves) ** 3)
        self._cumulative = mass / mass[-1]

    def _build(self, centres: Points, distances: Values, expected: int) -> float:
        """Split the root into the leaves; returns the estimated acceptance rate."""
        half = RADIUS
        leaves: list[tuple[Points, Values, Values]] = []
        leaf_bound = leaf_mass = 0.0  # integrals of the bound and the density over the leaves so far
        for level in range(self.MAX_LEVEL + 1):
            volume = (2 * half) ** 3
            bound = self._bound(distances, half)
            density = np.exp(-self._beta * distances)
            mass = leaf_mass + density.sum() * volume
            avoided = 0.5 * expected / max(mass, 1e-300) * volume * (bound - density)  # rejections
            split = (avoided > self.SPLIT_COST) | (level < self.MIN_LEVEL)
            if level == self.MAX_LEVEL:
                split[:] = False
            leaf = ~split
            leaves.append((centres[leaf], np.full(leaf.sum(), half), distances[leaf]))
            leaf_bound += bound[leaf].sum() * volume
            leaf_mass += density[leaf].sum() * volume
            if not split.any():
                break
            half /= 2
            centres = (centres[split][:, None] + _CORNERS * half).reshape(-1, 3)
            nearest = np.maximum(np.abs(centres) - half, 0)
            centres = centres[_squared_norms(nearest) < RADIUS**2]
            distances = self._oracle.magnitude(self._oracle.unsigned(centres)) - self._min_distance
        self._centres = np.concatenate([leaf[0] for leaf in leaves])
        self._halves = np.concatenate([leaf[1] for leaf in leaves])
        self._distances = np.concatenate([leaf[2] for leaf in leaves])
        self._bounds = self._bound(self._distances, self._halves)
        return float(np.clip(leaf_mass / leaf_bound, 0.05, 0.95))

    def _bound(self, distances: Values, half: Values | float) -> Values:
        """Upper bounds (n,) of the density in cells, from distances (n,) of the centres and half sides."""
        bound: Values = np.exp(-self._beta * np.maximum(distances - half * np.sqrt(3), 0))
        return bound

    def draw(self, count: int, rng: np.random.Generator, keep: Thinning) -> tuple[Points, Values]:
        """Draw `count` independent points, of those that `keep` accepts, and their unsigned distances."""
        batches: list[tuple[Points, Values]] = []
        drawn, acceptance = 0, self._acceptance
        while drawn < count:
            proposals = min(int((count - drawn) / acceptance * 1.02) + 1000, _CHUNK)
            points, distances = self._propose(proposals, rng)
            kept = keep(points, rng)
            batches.append((points[kept], distances[kept]))
            drawn += int(kept.sum())
            acceptance = max(0.5 * acceptance, float(kept.sum()) / proposals, 1e-4)
        points = np.concatenate([batch[0] for batch in batches])
        distances = np.concatenate([batch[1] for batch in batches])
        # Random points are removed, because the points are in the order of the cells.
        surplus = rng.choice(len(points), len(points) - count, replace=False, shuffle=False)
        return np.delete(points, surplus, axis=0), np.delete(distances, surplus)

    def _propose(self, count: int, rng: np.random.Generator) -> tuple[Points, Values]:
        """Draw `count` proposals. Returns the accepted ones with their unsigned distances."""
        # Normalised partial sums of exponential numbers are sorted uniform numbers, so cells are in order.
        sums = np.cumsum(rng.standard_exponential(count + 1))
        cell = np.searchsorted(self._cumulative, sums[:-1] / sums[-1])
        offset = rng.uniform(-1, 1, (count, 3)) * self._halves[cell, None]
        points = self._centres[cell] + offset
        threshold = rng.random(count) * self._bounds[cell]
        # |d(x)| >= |d(c)| - |x - c|, so that many are rejected without a distance query.
        min_distance = np.maximum(self._distances[cell] - np.sqrt(_squared_norms(offset)), 0)
        plausible = threshold < np.exp(-self._beta * min_distance)
        plausible &= _squared_norms(points) < RADIUS**2
        points, threshold = points[plausible], threshold[plausible]
        unsigned = self._oracle.unsigned(points)
        accepted = threshold < np.exp(-self._beta * (self._oracle.magnitude(unsigned) - self._min_distance))
        return points[accepted], unsigned[accepted]


def _squared_norms(vectors: Vectors) -> Values:
    """Squared norms (n,) of vectors (n, 3)."""
    squared: Values = np.einsum("ij,ij->i", vectors, vectors)
    return squared


def _checked_weights(oracle: SignedDistance, weights: Values) -> Values:
    weights = np.asarray(weights, np.float64)
    if weights.shape != (len(oracle.vertices),):
        raise UsageError(
            f"`weight=`: must be one weight for each of {len(oracle.vertices)} vertices, not {weights.shape}"
        )
    if not np.isfinite(weights).all() or (weights < 0).any() or weights.max() <= 0:
        raise UsageError("`weight=`: weights must be finite and not negative, and one must be positive")
    return weights
