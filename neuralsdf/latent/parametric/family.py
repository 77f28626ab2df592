"""
family.py
---------
A family of shapes: a class whose shapes are built from a few random parameters.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any
from zlib import crc32

import numpy as np

from ...errors import NeuralSDFError
from .parts import LabelledMesh, Parts, united

#: Volume of the box that samples are drawn from: the unit cube with a margin of 0.05 on each side.
PADDED_BOX = 1.1**3

#: Limits of a shape's volume as a fraction of the padded box.
MIN_FRACTION, MAX_FRACTION = 0.03, 0.15

#: Faces that are lower than this may be degenerate when their vertices are rounded to float32.
MIN_HEIGHT = 1e-7

#: Attempts to draw parameters whose shape is within these limits. Each family succeeds in most attempts.
_ATTEMPTS = 200


@dataclass(frozen=True)
class Between:
    """A parameter with a uniform distribution."""

    low: float
    high: float

    def draw(self, random: np.random.Generator) -> float:
        """A value, with four decimals."""
        return round(float(random.uniform(self.low, self.high)), 4)

    def described(self) -> dict[str, Any]:
        """The distribution as JSON."""
        return {"low": self.low, "high": self.high}


@dataclass(frozen=True)
class OneOf:
    """A parameter with a few values; repeated values are more likely."""

    values: tuple[Any, ...]

    def draw(self, random: np.random.Generator) -> Any:
        """A value."""
        return self.values[int(random.integers(len(self.values)))]

    def described(self) -> dict[str, Any]:
        """The distribution as JSON."""
        return {"values": list(self.values)}


@dataclass(frozen=True, eq=False)
class Shape:
    """A shape of a family: its parameters and its mesh."""

    parameters: dict[str, Any]
    mesh: LabelledMesh

    @property
    def fraction(self) -> float:
        """Volume as a fraction of the padded box."""
        return self.mesh.volume / PADDED_BOX


@dataclass(frozen=True)
class Family:
    """A class of shapes.

    parts: names of all parts; a label is a position in this tuple. parameters: by name. build: a function
    from parameters (attributes of its argument) to the solids of each part, in any size.
    """

    name: str
    parts: tuple[str, ...]
    parameters: Mapping[str, Between | OneOf]
    build: Callable[[Any], Parts]

    def shape(self, parameters: dict[str, Any]) -> Shape:
        """The shape with these parameters."""
        return Shape(parameters, united(self.build(SimpleNamespace(**parameters)), self.parts))

    def draw(self, seed: int, index: int) -> Shape:
        """Shape number `index`, a function of the arguments and the family alone.

        Parameters are drawn until the shape is one body without degenerate faces, and its volume within the
        limits.
        """
        random = np.random.default_rng([seed, crc32(self.name.encode()), index])
        for _ in range(_ATTEMPTS):
            shape = self.shape({name: one.draw(random) for name, one in self.parameters.items()})
            is_sound = shape.mesh.bodies == 1 and shape.mesh.min_height > MIN_HEIGHT
            if is_sound and MIN_FRACTION <= shape.fraction <= MAX_FRACTION:
                return shape
        raise NeuralSDFError(f"no {self.name} within the limits in {_ATTEMPTS} attempts; this is a bug")
