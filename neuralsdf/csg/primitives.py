"""
primitives.py
-------------
Solid primitives, the leaves of trees: balls, boxes and so on, centred on the origin, in mesh units.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from ..arguments import takes_numbers
from ..program.primitive_distances import PRIMITIVES
from .shape import Number, Shape, check, finite


@takes_numbers
def sphere(radius: Number = 1) -> Shape:
    """A ball."""
    return _solid("sphere", radius=radius)


@takes_numbers
def box(x: Number = 1, y: Number | None = None, z: Number | None = None) -> Shape:
    """A box with these side lengths, by default a cube."""
    return _solid("box", x=x, y=x if y is None else y, z=(x if y is None else y) if z is None else z)


@takes_numbers
def rounded_box(x: Number, y: Number, z: Number, radius: Number) -> Shape:
    """A box with these outer side lengths and rounded edges and corners."""
    check("rounded_box", 2 * radius <= min(x, y, z), "the radius exceeds half of a side")
    return _solid("rounded_box", x=x, y=y, z=z, radius=radius)


@takes_numbers
def cylinder(radius: Number = 1, height: Number = 1) -> Shape:
    """A cylinder about z, centred on the origin."""
    return _solid("cylinder", radius=radius, height=height)


@takes_numbers
def capsule(radius: Number = 1, height: Number = 1) -> Shape:
    """A cylinder about z of this height, capped by two hemispheres."""
    return _solid("capsule", radius=radius, height=height)


@takes_numbers
def cone(radius: Number = 1, height: Number = 1, top: Number = 0) -> Shape:
    """A cone about z, centred on the origin; `top` is the radius of its upper end, 0 for a tip."""
    check("cone", top >= 0, f"top must not be negative, got {top:g}")
    return _solid("cone", {"top": top}, radius=radius, height=height)


@takes_numbers
def torus(major: Number = 1, minor: Number = 0.25) -> Shape:
    """A torus about z: ring radius and tube radius."""
    check("torus", minor <= major, "the tube's radius exceeds the ring's")
    return _solid("torus", major=major, minor=minor)


@takes_numbers
def plane(x: Number = 0, y: Number = 0, z: Number = 1) -> Shape:
    """The half-space behind the plane through the origin with this normal; unbounded."""
    length = math.hypot(x, y, z)
    check("plane", 0 < length < math.inf, "the normal must be finite and not zero")
    return _solid("plane", {"x": x, "y": y, "z": z})


@takes_numbers
def ellipsoid(x: Number, y: Number, z: Number) -> Shape:
    """An ellipsoid with these semi-axes."""
    return _solid("ellipsoid", x=x, y=y, z=z)


#: The functions of the language.
SOLIDS: dict[str, Callable[..., Shape]] = {
    "sphere": sphere,
    "box": box,
    "rounded_box": rounded_box,
    "cylinder": cylinder,
    "capsule": capsule,
    "cone": cone,
    "torus": torus,
    "plane": plane,
    "ellipsoid": ellipsoid,
}


def _solid(word: str, others: dict[str, float] | None = None, /, **positive: float) -> Shape:
    """A primitive with positive parameters, followed by others."""
    for name, number in positive.items():
        check(word, 0 < number < math.inf, f"{name} must be positive, not {number:g}")
    numbers = finite(word, (*positive.values(), *(others or {}).values()))
    corner = np.array(PRIMITIVES[word].corner(*numbers))
    low, high = -corner, corner
    if word == "plane" and np.count_nonzero(numbers) == 1:  # bounded on one side of that axis
        (axis,) = np.flatnonzero(numbers)
        (high if numbers[axis] > 0 else low)[axis] = 0
    return Shape(word, numbers, (), "distance", low, high, 1.0, 1.0, 1, 1)
