"""
shape.py
--------
Immutable trees of shapes: solids and files are leaves, operations are inner nodes. Trees may have any depth,
so no function recurses along one.

Lengths are in mesh units, angles in degrees. Each shape knows, without being evaluated:

    kind        "distance" if its values are distances, "bound" if |value| / lipschitz is at most the distance
    low, high   a bounding box, infinite where the shape is unbounded
    spread      its values are below a only within `spread` a of that box, along each axis
    lipschitz   Lipschitz constant of its values, except for errors of networks
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import reduce
from operator import or_
from typing import TypeAlias

import numpy as np

from ..arrays import Points
from ..errors import UsageError
from ..fields.field import Field, Kind
from ..program.primitives import PRIMITIVES
from .placement import moved_box, placement, stretch

Number: TypeAlias = float

#: Maximum size of a tree in tape operations; a repetition counts its shape once per candidate copy.
MAX_SIZE = 1 << 18
#: Maximum Lipschitz constant; a tracer's steps are shorter by this factor.
MAX_LIPSCHITZ = 1e9
#: Maximum number of candidate copies of a repeated shape per point.
_MAX_COPIES = 64

#: Operator precedence as in Python, from the loosest; everything else binds more tightly.
PRECEDENCE = {"|": 1, "&": 2, "-": 3, "~": 4}

_PLAIN = re.compile(r"(?=.*[./])[A-Za-z0-9_./]*[A-Za-z0-9_]")
NUMBER = re.compile(r"(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][+-]?\d+)?")


@dataclass(frozen=True, eq=False, slots=True)
class Shape:
    """A node of a tree, made by the functions of this module and the operators and methods below.

    word: its name in text: a solid, a method, "|", "&", "-", "~" or "file". numbers: its parameters.
    parts: its operands. name, field: of a file; a tree file has the tree as its only part, and no field.
    size: operations of its tape. registers: value registers needed to evaluate it.
    """

    word: str
    numbers: tuple[float, ...]
    parts: tuple[Shape, ...]
    kind: Kind
    low: Points
    high: Points
    spread: float
    lipschitz: float
    size: int
    registers: int
    name: str = ""
    field: Field | None = None

    # -- two shapes -------------------------------------------------------------------------------

    def __or__(self, other: Shape | Smooth) -> Shape:
        """Union."""
        radius, b = _operand(other)
        blend = sum(radius) / 4  # a smooth union is at most this far below the minimum
        low, high = np.minimum(self.low, b.low), np.maximum(self.high, b.high)
        return _joined("|", radius, self, b, low, high, blend)

    def __and__(self, other: Shape | Smooth) -> Shape:
        """Intersection."""
        radius, b = _operand(other)
        return _joined("&", radius, self, b, np.maximum(self.low, b.low), np.minimum(self.high, b.high))

    def __sub__(self, other: Shape | Smooth) -> Shape:
        """Difference: this shape without the other."""
        radius, b = _operand(other)
        return _joined("-", radius, self, b, self.low, self.high)

    def blend(self, other: Shape, share: Number = 0.5) -> Shape:
        """Interpolate between this shape (share 0) and another (share 1)."""
        _check("blend", 0 <= share <= 1, f"share must be between 0 and 1, not {share:g}")
        low, high = np.minimum(self.low, other.low), np.maximum(self.high, other.high)
        return _joined("blend", (share,), self, other, low, high)

    # -- one shape --------------------------------------------------------------------------------

    def __invert__(self) -> Shape:
        """Complement."""
        return _changed("~", (), self, kind=self.kind, low=np.full(3, -np.inf), high=np.full(3, np.inf))

    def offset(self, length: Number) -> Shape:
        """Grow by a length, or shrink by a negative one."""
        return _changed("offset", (length,), self, grown=max(length, 0.0))

    def dilate(self, length: Number) -> Shape:
        """Grow by a length."""
        _check("dilate", length >= 0, f"length must not be negative, got {length:g}; use erode")
        return self.offset(length)

    def erode(self, length: Number) -> Shape:
        """Shrink by a length."""
        _check("erode", length >= 0, f"length must not be negative, got {length:g}; use dilate")
        return self.offset(-length)

    def round(self, radius: Number) -> Shape:
        """Grow by a radius, which becomes the radius of the edges."""
        _check("round", radius >= 0, f"radius must not be negative, got {radius:g}")
        return self.offset(radius)

    def shell(self, thickness: Number) -> Shape:
        """A wall centred on the surface."""
        _check("shell", thickness > 0, f"thickness must be positive, not {thickness:g}")
        return _changed("shell", (thickness,), self, grown=thickness / 2)

    def hollow(self, thickness: Number) -> Shape:
        """A wall on the inside of the surface."""
        _check("hollow", thickness > 0, f"thickness must be positive, not {thickness:g}")
        return _changed("hollow", (thickness,), self)

    def displace(self, amplitude: Number, wavelength: Number) -> Shape:
        """Displace the surface by a wave pattern, `amplitude` sin x sin y sin z with this `wavelength`."""
        _check("displace", wavelength > 0, f"wavelength must be positive, not {wavelength:g}")
        steepness = abs(amplitude) * 2 * math.pi / wavelength
        return _changed(
            "displace", (amplitude, wavelength), self, grown=abs(amplitude), added_lipschitz=steepness
        )

    # -- space ------------------------------------------------------------------------------------

    def translate(self, x: Number, y: Number = 0, z: Number = 0) -> Shape:
        """Translate."""
        return _placed("translate", (x, y, z), self)

    def rotate(self, angle: Number, x: Number = 0, y: Number = 0, z: Number | None = None) -> Shape:
        """Rotate about an axis through the origin, by default z; counter-clockwise seen from its tip."""
        axis = x, y, (0.0 if x or y else 1.0) if z is None else z
        _check("rotate", any(axis), "the axis must not be zero")
        return _placed("rotate", (angle, *axis), self)

    def scale(self, factor: Number) -> Shape:
        """Scale about the origin."""
        _check("scale", factor > 0, f"factor must be positive, not {factor:g}; use reflect for mirror images")
        return _placed("scale", (factor,), self)

    def reflect(self, x: Number, y: Number = 0, z: Number = 0) -> Shape:
        """Mirror in the plane through the origin with this normal."""
        _check("reflect", (x, y, z) != (0, 0, 0), "the normal must not be zero")
        return _placed("reflect", (x, y, z), self)

    def symmetry(self, x: Number, y: Number = 0, z: Number = 0) -> Shape:
        """Replace the side of the plane through the origin behind this normal by the mirrored other side."""
        _check("symmetry", (x, y, z) != (0, 0, 0), "the normal must not be zero")
        mirror = placement("reflect", (x, y, z))
        low, high = moved_box(mirror, self.low, self.high)
        return _changed(
            "symmetry",
            (x, y, z),
            self,
            low=np.minimum(low, self.low),
            high=np.maximum(high, self.high),
            spread=self.spread * stretch(mirror),
        )

    def repeat(
        self,
        x: Number,
        y: Number = 0,
        z: Number = 0,
        nx: Number = 0,
        ny: Number = 0,
        nz: Number = 0,
    ) -> Shape:
        """Copies with this spacing per axis, 0 for none; a count of 0 repeats endlessly both ways."""
        spacing, counts = (x, y, z), (nx, ny, nz)
        _check("repeat", any(spacing) and min(spacing) >= 0, "spacings must be positive, or 0 for some axes")
        _check("repeat", all(n >= 0 and n == int(n) for n in counts), "counts must be integers of at least 0")
        per_axis = copies(self, spacing, counts)
        candidates = math.prod(per_axis)
        _check("repeat", candidates <= _MAX_COPIES,
               f"the shape is so large that {candidates:,} copies overlap (at most {_MAX_COPIES}); "
               "use larger spacings")  # fmt: skip
        last = np.array([_last(s, n) for s, n in zip(spacing, counts, strict=True)])
        first = np.where(np.isinf(last), -np.inf, 0.0)
        return _changed(
            "repeat",
            (*spacing, *counts),
            self,
            low=self.low + first,
            high=self.high + last,
            size=candidates * (self.size + 3),
            registers=self.registers + (candidates > 1),
        )

    def twist(self, angle: Number) -> Shape:
        """Twist about z, by an angle per unit of length along it."""
        if self.word == "twist":  # one twist has a tighter Lipschitz bound
            return self.parts[0].twist(self.numbers[0] + angle)
        radius = radius_about_z(self)
        _check("twist", radius < math.inf, "the shape is unbounded in x or y; cut it with & first")
        turn = math.radians(abs(angle)) * radius
        return _changed(
            "twist",
            (angle,),
            self,
            low=np.array([-radius, -radius, self.low[2]]),
            high=np.array([radius, radius, self.high[2]]),
            spread=self.spread * math.sqrt(2),
            lipschitz_factor=(turn + math.hypot(turn, 2))
            / 2,  # the largest singular value of a shear by `turn`
        )

    # -- the whole tree ---------------------------------------------------------------------------

    @property
    def bounded(self) -> bool:
        """Whether it is bounded in all directions."""
        return bool(np.isfinite(self.low).all() and np.isfinite(self.high).all())

    def nodes(self) -> Iterator[Shape]:
        """All nodes, operands first; does not descend into tree files."""
        stack, order = [self], []
        while stack:
            shape = stack.pop()
            order.append(shape)
            if shape.word != "file":
                stack.extend(shape.parts)
        return reversed(order)

    def fields(self) -> Iterator[Field]:
        """The fields of all leaves, including those in tree files."""
        stack = [self]
        while stack:
            shape = stack.pop()
            if shape.field is not None:
                yield shape.field
            stack.extend(shape.parts)

    def __eq__(self, other: object) -> bool:
        """Whether both have the same text; files are compared by name."""
        return isinstance(other, Shape) and self._words() == other._words()

    def __hash__(self) -> int:
        return hash(tuple(self._words()))

    def _words(self) -> list[tuple[str, tuple[float, ...], str, int]]:
        return [(node.word, node.numbers, node.name, len(node.parts)) for node in self.nodes()]

    def text(self, names: Mapping[str, str] | None = None) -> str:
        """Text that parses to the same tree, with files renamed by `names`."""
        pieces: list[str] = []
        stack: list[Shape | str] = [self]
        while stack:
            item = stack.pop()
            if isinstance(item, str):
                pieces.append(item)
            else:
                stack.extend(_text(item, names or {}))
        return "".join(pieces)

    def __str__(self) -> str:
        return self.text()

    def __repr__(self) -> str:
        text = str(self)
        return f"<Shape {text if len(text) <= 80 else text[:77] + '...'}>"


@dataclass(frozen=True, eq=False)
class Smooth:
    """Right operand of a smooth |, & or -: see `smooth`."""

    radius: float
    shape: Shape


def smooth(radius: Number, shape: Shape) -> Smooth:
    """Makes the operator to its left smooth: `a | smooth(0.05, b)`.

    Surfaces whose values differ by less than `radius` are joined by a quadratic blend; 0 gives the sharp
    operation.
    """
    _check("smooth", 0 <= radius < math.inf, f"radius must be finite and not negative, got {radius:g}")
    return Smooth(float(radius), shape)


def union(shapes: Iterable[Shape]) -> Shape:
    """Union of several shapes, like `a | b | c`; raises `UsageError` if there are none."""
    given = list(shapes)
    _check("union", bool(given), "no shapes given")
    return reduce(or_, given)


# -- leaves -------------------------------------------------------------------------------------------


def sphere(radius: Number = 1) -> Shape:
    """A ball."""
    return _solid("sphere", radius=radius)


def box(x: Number = 1, y: Number | None = None, z: Number | None = None) -> Shape:
    """A box with these side lengths, by default a cube."""
    return _solid("box", x=x, y=x if y is None else y, z=(x if y is None else y) if z is None else z)


def rounded_box(x: Number, y: Number, z: Number, radius: Number) -> Shape:
    """A box with these outer side lengths and rounded edges and corners."""
    _check("rounded_box", 2 * radius <= min(x, y, z), "the radius exceeds half of a side")
    return _solid("rounded_box", x=x, y=y, z=z, radius=radius)


def cylinder(radius: Number = 1, height: Number = 1) -> Shape:
    """A cylinder about z, centred on the origin."""
    return _solid("cylinder", radius=radius, height=height)


def capsule(radius: Number = 1, height: Number = 1) -> Shape:
    """A cylinder about z of this height, capped by two hemispheres."""
    return _solid("capsule", radius=radius, height=height)


def cone(radius: Number = 1, height: Number = 1, top: Number = 0) -> Shape:
    """A cone about z, centred on the origin; `top` is the radius of its upper end, 0 for a tip."""
    _check("cone", top >= 0, f"top must not be negative, got {top:g}")
    return _solid("cone", {"top": top}, radius=radius, height=height)


def torus(major: Number = 1, minor: Number = 0.25) -> Shape:
    """A torus about z: ring radius and tube radius."""
    _check("torus", minor <= major, "the tube's radius exceeds the ring's")
    return _solid("torus", major=major, minor=minor)


def plane(x: Number = 0, y: Number = 0, z: Number = 1) -> Shape:
    """The half-space behind the plane through the origin with this normal; unbounded."""
    length = math.hypot(x, y, z)
    _check("plane", 0 < length < math.inf, "the normal must be finite and not zero")
    return _solid("plane", {"x": x, "y": y, "z": z})


def ellipsoid(x: Number, y: Number, z: Number) -> Shape:
    """An ellipsoid with these semi-axes."""
    return _solid("ellipsoid", x=x, y=y, z=z)


def from_field(field: Field, name: str) -> Shape:
    """A field as a leaf called `name` in text; without a Lipschitz bound its values count as distances."""
    if field.kind == "occupancy":
        raise UsageError(f"{name}: an occupancy field has no distances and cannot be combined")
    scale, centre = field.transform.scale, field.transform.centre
    lipschitz = 1.0 if field.lipschitz is None else field.lipschitz
    return Shape(
        "file", (), (), field.kind, centre - scale, centre + scale, 1.0, lipschitz, 1, 1, name, field
    )  # fmt: skip


def from_tree(shape: Shape, name: str) -> Shape:
    """A tree as a leaf called `name` in text."""
    return Shape(
        "file", (), (shape,), shape.kind, shape.low, shape.high, shape.spread, shape.lipschitz,
        shape.size, shape.registers, name,
    )  # fmt: skip


#: The words of the language: functions and methods.
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
METHODS: dict[str, Callable[..., Shape]] = {
    "translate": Shape.translate,
    "rotate": Shape.rotate,
    "scale": Shape.scale,
    "reflect": Shape.reflect,
    "offset": Shape.offset,
    "dilate": Shape.dilate,
    "erode": Shape.erode,
    "round": Shape.round,
    "shell": Shape.shell,
    "hollow": Shape.hollow,
    "blend": Shape.blend,
    "displace": Shape.displace,
    "repeat": Shape.repeat,
    "symmetry": Shape.symmetry,
    "twist": Shape.twist,
}


# -- extents ------------------------------------------------------------------------------------------


def radius_about_z(shape: Shape) -> float:
    """Radius of the smallest cylinder about z that contains the bounds of a shape."""
    x, y = np.maximum(np.abs(shape.low), np.abs(shape.high))[:2]
    return float(np.hypot(x, y))


def copies(shape: Shape, spacing: tuple[float, ...], counts: tuple[float, ...]) -> tuple[int, int, int]:
    """Number of candidate copies of a repeated shape along each axis; all others are farther away.

    Two suffice for a shape no longer than the spacing, w + 1 for one of w spacings.
    """
    x, y, z = (
        1 if not step or count == 1 else
        int(min([1 + max(1, math.ceil(min(extent / step, 1e6) - 1e-9)), *([count] if count else [])]))
        for step, count, extent in zip(spacing, counts, np.maximum(shape.high - shape.low, 0), strict=True)
    )  # fmt: skip
    return x, y, z


def _last(spacing: float, count: float) -> float:
    """Distance between the first and the last copy."""
    return 0.0 if not spacing else (count - 1) * spacing if count else math.inf


# -- nodes --------------------------------------------------------------------------------------------


def _check(word: str, valid: bool, message: str) -> None:
    if not valid:
        raise UsageError(f"{word}: {message}")


def _finite(word: str, numbers: tuple[float, ...]) -> tuple[float, ...]:
    _check(word, all(math.isfinite(number) for number in numbers), "numbers must be finite")
    return tuple(float(number) + 0.0 for number in numbers)  # no negative zeros


def _solid(word: str, others: dict[str, float] | None = None, /, **positive: float) -> Shape:
    """A primitive with positive parameters, followed by others."""
    for name, number in positive.items():
        _check(word, 0 < number < math.inf, f"{name} must be positive, not {number:g}")
    numbers = _finite(word, (*positive.values(), *(others or {}).values()))
    corner = np.array(PRIMITIVES[word].corner(*numbers))
    low, high = -corner, corner
    if word == "plane" and np.count_nonzero(numbers) == 1:  # bounded on one side of that axis
        (axis,) = np.flatnonzero(numbers)
        (high if numbers[axis] > 0 else low)[axis] = 0
    return Shape(word, numbers, (), "distance", low, high, 1.0, 1.0, 1, 1)


def _operand(other: Shape | Smooth) -> tuple[tuple[float, ...], Shape]:
    """The blend radius, if any, and the shape of a right operand."""
    if isinstance(other, Smooth):
        return (other.radius,), other.shape
    if isinstance(other, Shape):
        return (), other
    raise UsageError(f"cannot combine a shape with {other!r}")


def _joined(
    word: str, numbers: tuple[float, ...], a: Shape, b: Shape, low: Points, high: Points, grown: float = 0.0
) -> Shape:
    spread = max(a.spread, b.spread)
    registers = a.registers + 1 if a.registers == b.registers else max(a.registers, b.registers)
    low, high = low - spread * grown, high + spread * grown
    return _node(
        word, numbers, (a, b), "bound", low, high, spread, max(a.lipschitz, b.lipschitz),
        a.size + b.size + 1, registers,
    )  # fmt: skip


def _changed(
    word: str,
    numbers: tuple[float, ...],
    shape: Shape,
    *,
    kind: Kind = "bound",
    low: Points | None = None,
    high: Points | None = None,
    grown: float = 0.0,
    spread: float | None = None,
    lipschitz_factor: float = 1.0,
    added_lipschitz: float = 0.0,
    size: int | None = None,
    registers: int | None = None,
) -> Shape:
    """A unary operation; omitted attributes are those of `shape`. grown: maximum decrease of its values."""
    reach = shape.spread * grown
    return _node(
        word, numbers, (shape,), kind,
        (shape.low if low is None else low) - reach, (shape.high if high is None else high) + reach,
        spread or shape.spread, shape.lipschitz * lipschitz_factor + added_lipschitz,
        size or shape.size + 2, registers or shape.registers,
    )  # fmt: skip


def _placed(word: str, numbers: tuple[float, ...], shape: Shape) -> Shape:
    numbers = _finite(word, numbers)
    matrix = placement(word, numbers)
    low, high = moved_box(matrix, shape.low, shape.high)
    # Distances to a box are invariant under rotation; a wider box around it is not.
    spread = shape.spread * (1.0 if shape.kind == "distance" else stretch(matrix))
    return _node(
        word, numbers, (shape,), shape.kind, low, high, spread, shape.lipschitz, shape.size, shape.registers
    )


def _node(
    word: str, numbers: tuple[float, ...], parts: tuple[Shape, ...], kind: Kind, low: Points, high: Points,
    spread: float, lipschitz: float, size: int, registers: int,
) -> Shape:  # fmt: skip
    numbers = _finite(word, numbers)
    _check(word, size <= MAX_SIZE, f"the tree has more than {MAX_SIZE:,} operations")
    _check(word, lipschitz <= MAX_LIPSCHITZ, "numbers out of range")
    return Shape(word, numbers, parts, kind, low, high, spread, lipschitz, size, registers)


# -- text ---------------------------------------------------------------------------------------------


def _text(shape: Shape, names: Mapping[str, str]) -> list[Shape | str]:
    """Pieces of a shape's text in reverse order; operands are still shapes."""
    if shape.word == "file":
        return [_file_name(names.get(shape.name, shape.name))]
    arguments = ", ".join(map(_number, shape.numbers))
    if shape.word in SOLIDS:
        return [f"{shape.word}({arguments})"]
    if shape.word == "~":
        return [*_bracketed(shape.parts[0], PRECEDENCE["~"]), "~"]
    if shape.word == "blend":
        return [f", {arguments})", shape.parts[1], ".blend(", *_bracketed(shape.parts[0], 5)]
    if shape.word in METHODS:
        return [f".{shape.word}({arguments})", *_bracketed(shape.parts[0], 5)]
    level = PRECEDENCE[shape.word]
    left = _bracketed(shape.parts[0], level)
    if shape.numbers:
        return [")", shape.parts[1], f" {shape.word} smooth({arguments}, ", *left]
    return [*_bracketed(shape.parts[1], level + 1), f" {shape.word} ", *left]


def _bracketed(shape: Shape, level: int) -> list[Shape | str]:
    """A shape, in brackets if its precedence is below `level`."""
    return [")", shape, "("] if PRECEDENCE.get(shape.word, 5) < level else [shape]


def _file_name(name: str) -> str:
    """A file name as text, quoted if necessary."""
    if _PLAIN.fullmatch(name) and not NUMBER.fullmatch(name):
        return name
    if "\n" in name or "\r" in name:
        raise UsageError(f"{name!r}: an expression cannot contain a file name with a line break")
    return '"' + name.replace("\\", "\\\\").replace('"', '\\"') + '"'


def _number(number: float) -> str:
    """Shortest text that parses to exactly this number."""
    return str(int(number)) if number == int(number) and abs(number) < 1e15 else repr(number)
