"""
field.py
--------
A field: a signed distance (or bound, or occupancy) over all of space, and what is known of it.

Model space is where a field is evaluated: its shape lies in the unit ball about the origin. The
field's transform maps model space to the mesh's own space. Negative is inside.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt

from .backends import Program, get_backend
from .errors import NoSurfaceError
from .mesh import Source
from .network import FloatArray, Network
from .similarity import Points, Similarity

if TYPE_CHECKING:
    from .distance import SignedDistance

Kind = Literal["distance", "bound", "occupancy"]

#: A signed distance varies by more than this over its ball, whatever the shape.
LEAST_RANGE = 0.05

#: What evaluating a network faster may add to its error, as a share of its surface error.
ADDED_ERROR = 0.1


class Field(ABC):
    """What renders, extracts and answers queries: a network, a tree of shapes, and later a latent shape.

    kind: "distance" (close to the true one), "bound" (over `lipschitz` no more than it) or "occupancy".
    exact: whether its values are the true distance, but for rounding.
    lipschitz: what the slope of the values does not exceed, but for a network's errors; None if not known.
    transform: model space to mesh space.
    """

    kind: Kind
    exact: bool = False
    lipschitz: float | None = None
    transform: Similarity

    @abstractmethod
    def value(self, points: FloatArray) -> FloatArray:
        """Values (n,) at points (n, 3) of model space, anywhere."""

    @abstractmethod
    def value_and_gradient(self, points: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Values (n,) and gradients (n, 3) at points (n, 3) of model space, anywhere."""

    @property
    def program(self) -> Program | None:
        """What a backend evaluates and traces in its place inside the unit ball; None if no backend does."""
        return None

    def distance(self, points: npt.NDArray[Any]) -> Points:
        """Signed distances (n,) in mesh units at points (n, 3) of mesh space, float64."""
        local = self.transform.apply_inverse(points).astype(np.float32)
        return self.value(local).astype(np.float64) * self.transform.scale

    def distance_and_gradient(self, points: npt.NDArray[Any]) -> tuple[Points, Points]:
        """Distances (n,) in mesh units and gradients (n, 3), at points (n, 3) of mesh space."""
        local = self.transform.apply_inverse(points).astype(np.float32)
        values, gradients = self.value_and_gradient(local)
        # d(scale * f(x / scale))/dx: the scales cancel, only the rotation remains.
        return values.astype(np.float64) * self.transform.scale, self.transform.rotate(gradients)


def require_shape(field: Field) -> None:
    """Raise `NoSurfaceError` for a signed distance that is all but constant: its fit failed."""
    if field.kind != "distance":
        return
    rng = np.random.default_rng(0)
    points = rng.normal(size=(4096, 3))
    points *= rng.random((len(points), 1)) ** (1 / 3) / np.linalg.norm(points, axis=1, keepdims=True)
    values = field.value(points.astype(np.float32))
    if values.max() - values.min() < LEAST_RANGE:
        raise NoSurfaceError(
            f"the field holds no shape: its values lie between {values.min():.2g} and {values.max():.2g} "
            "all over its ball"
        )


@dataclass(frozen=True, eq=False)
class NeuralField(Field):
    """A network with its transform, where it came from, and the error that was measured.

    radius: of the ball about the origin that encloses the shape: 1 for our own files, 0.9 for those of the
    paper's authors. The network means something in the whole unit ball (theirs was trained in the cube).
    metrics: measured on these very weights (`metrics.measure`), lengths in model space; may be empty.
    settings: how it was made (optimiser, samples, seed, sign rule...), plain values.
    backend: the name of the backend that evaluates it; None for the fastest here.
    """

    network: Network
    transform: Similarity
    source: Source | None = None
    metrics: dict[str, float] = field(default_factory=dict)
    settings: dict[str, Any] = field(default_factory=dict)
    precision: str = "f32"
    layout: str = "native"
    radius: float = 1.0
    backend: str | None = None
    kind: Kind = "distance"

    @cached_property
    def program(self) -> Program:
        """The network, compiled for its backend, in values as exact as its known surface error asks for."""
        known = self.metrics.get("surface_mean")
        tolerance = None if known is None else ADDED_ERROR * known
        return get_backend(self.backend).compile(self.network, tolerance)

    def value(self, points: FloatArray) -> FloatArray:
        """Values (n,) at points (n, 3) of model space.

        Outside the unit ball a network means nothing: with y the nearest point of the ball and
        a = |x - y| the value is sqrt(a^2 + max(f(y), 0)^2), continuous and a lower bound of the
        distance when f(y) is right.
        """
        inner, excess = into_ball(points)
        values = self.program.evaluate(inner)
        return values if excess is None else extended(values, excess)

    def value_and_gradient(self, points: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Values (n,) and gradients (n, 3) at points (n, 3) of model space."""
        inner, excess = into_ball(points)
        values, gradients = self.program.evaluate_with_gradient(inner)
        if excess is None:
            return values, gradients
        beyond = extended(values, excess)
        outside = excess > 0
        radial = inner[outside]  # on the unit sphere: its own outward normal
        inside_value = np.maximum(values[outside], 0)[:, None]
        slope = gradients[outside]
        # y = x/|x|, so dy/dx = (I - r r^T)/|x|; chain rule on sqrt(a^2 + f(y)^2).
        tangential = (slope - (slope * radial).sum(1, keepdims=True) * radial) / (1 + excess[outside, None])
        total = excess[outside, None] * radial + inside_value * tangential
        gradients[outside] = total / np.maximum(beyond[outside, None], np.finfo(np.float32).tiny)
        return beyond, gradients


def into_ball(points: FloatArray) -> tuple[FloatArray, FloatArray | None]:
    """Points (n, 3) moved to the nearest point of the unit ball, and how far (n,); None if none moved."""
    points = np.ascontiguousarray(points, np.float32)
    x, y, z = points.T
    squared = x * x + y * y + z * z  # ten times as fast as a norm
    if not (squared > 1).any():
        return points, None
    radii = np.sqrt(squared)
    factor = 1 / np.maximum(radii, 1)
    return points * factor[:, None], np.maximum(radii - 1, 0)


def extended(values: FloatArray, excess: FloatArray) -> FloatArray:
    """What a network's values (..., n) at points moved into the ball become, given how far (n,) they were."""
    return np.where(excess > 0, np.hypot(excess, np.maximum(values, 0)), values)


class MeshField(Field):
    """The exact signed distance of a mesh, as a field: what a neural field is compared with.

    Its gradient is the direction away from the closest point; within rounding of the surface, where
    that has none, the normal of the closest face. `oracle` is in model space.
    """

    kind: Kind = "distance"
    exact = True
    lipschitz: float | None = 1.0

    def __init__(self, oracle: SignedDistance, transform: Similarity) -> None:
        self.oracle, self.transform = oracle, transform

    def value(self, points: FloatArray) -> FloatArray:
        """Signed distances (n,) at points (n, 3) of model space."""
        return self.oracle.signed(points.astype(np.float64)).astype(np.float32)

    def value_and_gradient(self, points: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Signed distances (n,) and gradients (n, 3) at points (n, 3) of model space."""
        values = self.value(points)
        gradients = self.oracle.gradient(points.astype(np.float64))
        return values, gradients.astype(np.float32)
