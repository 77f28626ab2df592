"""
primitive_distances.py
----------------------
Exact signed distances of simple solids centred on the origin, and their gradients.

Points are (3, n), coordinates first; values (n,) and gradients (3, n) have the dtype of the points. The
gradient is None unless requested. Where a distance has no gradient (the centre of a sphere, the axis of a
cylinder), a finite one is returned.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.floating[Any]]
Numbers = Sequence[float] | npt.NDArray[np.float64]

#: Newton steps to the closest point of an ellipsoid; they converge quadratically, from one side.
_ELLIPSOID_STEPS = 12


class Sample(NamedTuple):
    """Values (n,), and gradients (3, n) if requested."""

    value: Array
    gradient: Array | None


Distance = Callable[[Array, Numbers, bool], Sample]


class Primitive(NamedTuple):
    """A solid: its distance, and the maximum corner (3,) of its bounds, whose minimum is the negative."""

    distance: Distance
    corner: Callable[..., tuple[float, float, float]]


def sphere(p: Array, numbers: Numbers, with_gradient: bool) -> Sample:
    """Parameter: radius."""
    length = _length(p)
    return Sample(length - numbers[0], _divided(p, length) if with_gradient else None)


def box(p: Array, numbers: Numbers, with_gradient: bool) -> Sample:
    """Parameters: side lengths x, y, z."""
    return _orthotope(p, np.asarray(numbers) / 2, with_gradient)


def rounded_box(p: Array, numbers: Numbers, with_gradient: bool) -> Sample:
    """Parameters: outer side lengths x, y, z, and edge radius."""
    radius = numbers[3]
    inner = _orthotope(p, np.asarray(numbers[:3]) / 2 - radius, with_gradient)
    return Sample(inner.value - radius, inner.gradient)


def cylinder(p: Array, numbers: Numbers, with_gradient: bool) -> Sample:
    """Parameters: radius, and height along z."""
    half = np.array([numbers[0], numbers[1] / 2])
    return _revolved(p, lambda profile: _orthotope(profile, half, with_gradient))


def capsule(p: Array, numbers: Numbers, with_gradient: bool) -> Sample:
    """Parameters: radius, and height along z between the two hemispheres."""
    radius, half = numbers[0], numbers[1] / 2
    from_segment = np.stack([p[0], p[1], p[2] - np.clip(p[2], -half, half)])
    return sphere(from_segment, (radius,), with_gradient)


def cone(p: Array, numbers: Numbers, with_gradient: bool) -> Sample:
    """Parameters: bottom radius, height along z, top radius."""
    bottom, half, top = numbers[0], numbers[1] / 2, numbers[2]
    outline = np.array([[0.0, -half], [bottom, -half], [top, half], [0.0, half]])
    return _revolved(p, lambda profile: _convex(profile, outline, with_gradient))


def torus(p: Array, numbers: Numbers, with_gradient: bool) -> Sample:
    """Parameters: radius of the ring about z, and of the tube."""
    major, minor = numbers
    ring = np.array([[major], [0.0]], p.dtype)
    return _revolved(p, lambda profile: sphere(profile - ring, (minor,), with_gradient))


def plane(p: Array, numbers: Numbers, with_gradient: bool) -> Sample:
    """Half-space behind the plane through the origin. Parameters: unit normal x, y, z."""
    normal = np.asarray(numbers, p.dtype)
    gradient = np.repeat(normal[:, None], p.shape[1], axis=1) if with_gradient else None
    return Sample(normal @ p, gradient)


def ellipsoid(p: Array, numbers: Numbers, with_gradient: bool) -> Sample:
    """Parameters: semi-axes x, y, z.

    The closest point is q_i = a_i^2 y_i / (t + a_i^2), where t is the largest root of sum (a_i y_i / (t +
    a_i^2))^2 = 1 (Eberly, "Distance from a point to an ellipse, an ellipsoid, or a hyperellipsoid", 2013).
    The left side is convex and decreasing, so Newton steps from below the root never pass it.
    """
    axes = np.asarray(numbers, np.float64)[:, None]
    scale = axes.max()
    axes = axes / scale
    # On a plane of symmetry the term of the shortest axis would vanish together with its divisor.
    place = np.maximum(np.abs(p.astype(np.float64)) / scale, 1e-12)
    smallest = float(axes.min() ** 2)
    above = axes**2 - smallest  # with s = t + smallest the divisors are s + above: no cancellation
    product = axes * place
    s = (product - above).max(axis=0)  # one term is 1, the others are at most 1
    for _ in range(_ELLIPSOID_STEPS):
        terms = product / (s + above)
        squares = terms * terms
        s = s + (squares.sum(axis=0) - 1) / (2 * (squares / (s + above)).sum(axis=0))
    foot = np.copysign(axes**2 * place / (s + above), p)
    normal = foot / axes**2
    normal /= _length(normal)
    offset = p / scale - foot
    value = np.copysign(_length(offset), s - smallest) * scale
    return Sample(value.astype(p.dtype), normal.astype(p.dtype) if with_gradient else None)


PRIMITIVES: dict[str, Primitive] = {
    "sphere": Primitive(sphere, lambda radius: (radius,) * 3),
    "box": Primitive(box, lambda x, y, z: (x / 2, y / 2, z / 2)),
    "rounded_box": Primitive(rounded_box, lambda x, y, z, radius: (x / 2, y / 2, z / 2)),
    "cylinder": Primitive(cylinder, lambda radius, height: (radius, radius, height / 2)),
    "capsule": Primitive(capsule, lambda radius, height: (radius, radius, height / 2 + radius)),
    "cone": Primitive(cone, lambda bottom, height, top: (max(bottom, top), max(bottom, top), height / 2)),
    "torus": Primitive(torus, lambda major, minor: (major + minor, major + minor, minor)),
    "plane": Primitive(plane, lambda x, y, z: (np.inf,) * 3),
    "ellipsoid": Primitive(ellipsoid, lambda x, y, z: (x, y, z)),
}


def _length(p: Array) -> Array:
    """Lengths (n,) of vectors (k, n)."""
    squares = p * p
    total = squares[0]
    for square in squares[1:]:
        total = total + square
    length: Array = np.sqrt(total)
    return length


def _divided(p: Array, length: Array) -> Array:
    """p (k, n) divided by its length (n,); zero where the length is zero."""
    divided: Array = p / np.maximum(length, np.finfo(p.dtype).tiny)
    return divided


def _orthotope(p: Array, half: npt.NDArray[np.float64], with_gradient: bool) -> Sample:
    """Box of any dimension k: points (k, n), half side lengths (k,)."""
    excess = np.abs(p) - half.astype(p.dtype)[:, None]
    outer = np.maximum(excess, 0)
    length, deepest = _length(outer), excess.max(axis=0)
    value = length + np.minimum(deepest, 0)
    if not with_gradient:
        return Sample(value, None)
    nearest_side = (np.arange(len(p))[:, None] == excess.argmax(axis=0)).astype(p.dtype)
    return Sample(value, np.copysign(np.where(deepest > 0, _divided(outer, length), nearest_side), p))


def _revolved(p: Array, profile: Callable[[Array], Sample]) -> Sample:
    """A solid of revolution about z. `profile`: distance at points (2, n), given as (distance to axis, z)."""
    distance = _length(p[:2])
    flat = profile(np.stack([distance, p[2]]))
    if flat.gradient is None:
        return flat
    radial = flat.gradient[0] * _divided(p[:2], distance)
    return Sample(flat.value, np.concatenate([radial, flat.gradient[1:]]))


def _convex(p: Array, outline: npt.NDArray[np.float64], with_gradient: bool) -> Sample:
    """Convex region of the half-plane x >= 0 bounded by an open counter-clockwise outline (m, 2) and x = 0.

    Only the outline's edges count: the closing edge lies on the axis, inside the solid of revolution.
    """
    value = np.full(p.shape[1], np.inf, p.dtype)
    deepest = np.full(p.shape[1], -np.inf, p.dtype)
    gradient = np.zeros_like(p)
    for start, end in pairwise(outline):
        edge = end - start
        squared = float(edge @ edge)
        if squared < np.finfo(p.dtype).tiny:  # a cone's tip has no edge
            continue
        normal = (np.array([edge[1], -edge[0]]) / np.sqrt(squared)).astype(p.dtype)
        offset = p - start.astype(p.dtype)[:, None]
        height = normal @ offset
        along = np.clip(edge.astype(p.dtype) @ offset / squared, 0, 1)
        offset -= edge.astype(p.dtype)[:, None] * along
        distance = _length(offset)
        nearer = ~(distance >= value)  # NaN stays NaN
        value = np.where(nearer, distance, value)
        deepest = np.maximum(deepest, height)
        if with_gradient:
            # On the edge itself the difference of positions has no direction.
            close = distance < 16 * np.finfo(p.dtype).eps * np.sqrt(squared)
            away = np.where(
                close, np.where(height < 0, -normal[:, None], normal[:, None]), _divided(offset, distance)
            )
            gradient = np.where(nearer, away, gradient)
    inside = deepest < 0
    value = np.where(inside, -value, value)
    return Sample(value, np.where(inside, -gradient, gradient) if with_gradient else None)
