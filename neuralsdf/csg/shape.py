"""
shape.py
--------
Shapes as trees: solids and files at the leaves, operations above them. Immutable; a tree may be any number of
levels deep, so nothing here calls itself along one.

Lengths are in mesh units, angles in degrees. Of each shape is known, without evaluating it:

    kind        "distance" where its values are the distance, "bound" where |value| / lipschitz is no more
    low, high   a box that holds it, infinite where it has no end
    spread      its values are below a only within `spread` a of that box, along each axis
    lipschitz   what the slope of its values does not exceed, but for the errors of networks
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import reduce
from operator import or_
from typing import Literal, TypeAlias

import numpy as np

from ..arrays import Points
from ..errors import UsageError
from ..fields.field import Field
from ..program.primitives import PRIMITIVES
from .placement import moved_box, placement, stretch

Number: TypeAlias = float
Kind = Literal["distance", "bound"]

#: Operations of the tape that a shape becomes; a repetition counts its shape once for each copy looked at.
MAX_SIZE = 1 << 18
#: How many times faster than a distance values may change; a tracer's steps are as many times shorter.
MAX_LIPSCHITZ = 1e9
#: Copies of a repeated shape that are looked at for each point.
_MAX_COPIES = 64

#: From the loosest, as Python has them; what is not here binds more tightly.
PRECEDENCE = {"|": 1, "&": 2, "-": 3, "~": 4}

_PLAIN = re.compile(r"(?=.*[./])[A-Za-z0-9_./]*[A-Za-z0-9_]")
NUMBER = re.compile(r"(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][+-]?\d+)?")


@dataclass(frozen=True, eq=False, slots=True)
class Shape:
    """A node of a tree; made by the functions of this module and by the operators and methods below.

    word: what it is called in text: a solid, a method, "|", "&", "-", "~" or "file". numbers: its arguments.
    parts: the shapes that it is made of. name, field: of a file; a tree in a file is its only part instead.
    size: operations of its tape. registers: values that evaluating it holds at a time.
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
        """Union: what is in either."""
        radius, b = _operand(other)
        blend = sum(radius) / 4  # how far below the lesser of two values a smooth union can be
        low, high = np.minimum(self.low, b.low), np.maximum(self.high, b.high)
        return _joined("|", radius, self, b, low, high, blend)

    def __and__(self, other: Shape | Smooth) -> Shape:
        """Intersection: what is in both."""
        radius, b = _operand(other)
        return _joined("&", radius, self, b, np.maximum(self.low, b.low), np.minimum(self.high, b.high))

    def __sub__(self, other: Shape | Smooth) -> Shape:
        """Difference: what is in this one and not in the other."""
        radius, b = _operand(other)
        return _joined("-", radius, self, b, self.low, self.high)

    def blend(self, other: Shape, share: Number = 0.5) -> Shape:
        """Between this shape (share 0) and another (share 1)."""
        _check("blend", 0 <= share <= 1, f"a share is 0 to 1, not {share:g}")
        low, high = np.minimum(self.low, other.low), np.maximum(self.high, other.high)
        return _joined("blend", (share,), self, other, low, high)

    # -- one shape --------------------------------------------------------------------------------

    def __invert__(self) -> Shape:
        """Complement: all that is not in it."""
        return _changed("~", (), self, kind=self.kind, low=np.full(3, -np.inf), high=np.full(3, np.inf))

    def offset(self, length: Number) -> Shape:
        """Grown by a length, or shrunk by a negative one."""
        return _changed("offset", (length,), self, grown=max(length, 0.0))

    def dilate(self, length: Number) -> Shape:
        """Grown by a length: all within it of the shape."""
        _check("dilate", length >= 0, f"a length is not negative, as {length:g} is; use erode")
        return self.offset(length)

    def erode(self, length: Number) -> Shape:
        """Shrunk by a length: all that lies deeper."""
        _check("erode", length >= 0, f"a length is not negative, as {length:g} is; use dilate")
        return self.offset(-length)

    def round(self, radius: Number) -> Shape:
        """Grown by a radius, which its edges then have."""
        _check("round", radius >= 0, f"a radius is not negative, as {radius:g} is")
        return self.offset(radius)

    def shell(self, thickness: Number) -> Shape:
        """A wall along the surface, half of its thickness on either side."""
        _check("shell", thickness > 0, f"a thickness is positive, not {thickness:g}")
        return _changed("shell", (thickness,), self, grown=thickness / 2)

    def hollow(self, thickness: Number) -> Shape:
        """A wall along the surface, all of its thickness inside."""
        _check("hollow", thickness > 0, f"a thickness is positive, not {thickness:g}")
        return _changed("hollow", (thickness,), self)

    def displace(self, amplitude: Number, wavelength: Number) -> Shape:
        """The surface moved by a lattice of waves, `amplitude` sin x sin y sin z of this `wavelength`."""
        _check("displace", wavelength > 0, f"a wavelength is positive, not {wavelength:g}")
        steepness = abs(amplitude) * 2 * math.pi / wavelength
        return _changed(
            "displace", (amplitude, wavelength), self, grown=abs(amplitude), added_slope=steepness
        )

    # -- space ------------------------------------------------------------------------------------

    def translate(self, x: Number, y: Number = 0, z: Number = 0) -> Shape:
        """Moved."""
        return _placed("translate", (x, y, z), self)

    def rotate(self, angle: Number, x: Number = 0, y: Number = 0, z: Number | None = None) -> Shape:
        """Turned about an axis through the origin, by default z; counter-clockwise if that points at you."""
        axis = x, y, (0.0 if x or y else 1.0) if z is None else z
        _check("rotate", any(axis), "an axis has a direction")
        return _placed("rotate", (angle, *axis), self)

    def scale(self, factor: Number) -> Shape:
        """Made larger about the origin, or smaller."""
        _check("scale", factor > 0, f"a factor is positive, not {factor:g}; use reflect for mirror images")
        return _placed("scale", (factor,), self)

    def reflect(self, x: Number, y: Number = 0, z: Number = 0) -> Shape:
        """Its mirror image in the plane through the origin with this normal."""
        _check("reflect", (x, y, z) != (0, 0, 0), "a normal has a direction")
        return _placed("reflect", (x, y, z), self)

    def symmetry(self, x: Number, y: Number = 0, z: Number = 0) -> Shape:
        """Its part on the side of the plane through the origin to which this normal points, on both sides."""
        _check("symmetry", (x, y, z) != (0, 0, 0), "a normal has a direction")
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
        """Copies these spacings apart, 0 for none along an axis: so many from its place on, 0 for no end."""
        spacing, counts = (x, y, z), (nx, ny, nz)
        _check("repeat", any(spacing) and min(spacing) >= 0, "spacings are positive, or 0 along some axes")
        _check("repeat", all(n >= 0 and n == int(n) for n in counts), "numbers of copies are whole")
        around = copies(self, spacing, counts)
        looked_at = math.prod(around)
        _check("repeat", looked_at <= _MAX_COPIES,
               f"the shape is so long that {looked_at:,} copies overlap, where {_MAX_COPIES} may; "
               "give larger spacings")  # fmt: skip
        last = np.array([_last(s, n) for s, n in zip(spacing, counts, strict=True)])
        first = np.where(np.isinf(last), -np.inf, 0.0)
        return _changed(
            "repeat",
            (*spacing, *counts),
            self,
            low=self.low + first,
            high=self.high + last,
            size=looked_at * (self.size + 3),
            registers=self.registers + (looked_at > 1),
        )

    def twist(self, angle: Number) -> Shape:
        """Turned about z, by an angle for each unit of length along it."""
        if self.word == "twist":  # as one twist its slope is known better
            return self.parts[0].twist(self.numbers[0] + angle)
        radius = radius_about_z(self)
        _check("twist", radius < math.inf, "the shape has no end across z; cut it with & first")
        turn = math.radians(abs(angle)) * radius
        return _changed(
            "twist",
            (angle,),
            self,
            low=np.array([-radius, -radius, self.low[2]]),
            high=np.array([radius, radius, self.high[2]]),
            spread=self.spread * math.sqrt(2),
            slope=(turn + math.hypot(turn, 2)) / 2,  # the greatest singular value of a shear by `turn`
        )

    # -- all of it --------------------------------------------------------------------------------

    @property
    def bounded(self) -> bool:
        """Whether it ends on all sides."""
        return bool(np.isfinite(self.low).all() and np.isfinite(self.high).all())

    def nodes(self) -> Iterator[Shape]:
        """All shapes that it is made of, itself last; a tree in a file is not entered."""
        stack, order = [self], []
        while stack:
            shape = stack.pop()
            order.append(shape)
            if shape.word != "file":
                stack.extend(shape.parts)
        return reversed(order)

    def fields(self) -> Iterator[Field]:
        """The fields at its leaves, those of trees in files too."""
        stack = [self]
        while stack:
            shape = stack.pop()
            if shape.field is not None:
                yield shape.field
            stack.extend(shape.parts)

    def __eq__(self, other: object) -> bool:
        """Whether both have the same text: files are compared by their names."""
        return isinstance(other, Shape) and self._words() == other._words()

    def __hash__(self) -> int:
        return hash(tuple(self._words()))

    def _words(self) -> list[tuple[str, tuple[float, ...], str, int]]:
        return [(node.word, node.numbers, node.name, len(node.parts)) for node in self.nodes()]

    def text(self, names: Mapping[str, str] | None = None) -> str:
        """Text that parses to the same tree; the files of `names` by another name."""
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
    """The right operand of a smooth |, & or -: see `smooth`."""

    radius: float
    shape: Shape


def smooth(radius: Number, shape: Shape) -> Smooth:
    """Makes the operation it stands to the right of smooth: `a | smooth(0.05, b)`.

    Surfaces within `radius` of each other by value flow into one another (a quadratic blend); 0 is the sharp
    form.
    """
    _check("smooth", 0 <= radius < math.inf, f"a radius is not negative, as {radius:g} is")
    return Smooth(float(radius), shape)


def union(shapes: Iterable[Shape]) -> Shape:
    """What is in any of some shapes, as `a | b | c` has it; `UsageError` for none at all."""
    given = list(shapes)
    _check("union", bool(given), "no shape was given")
    return reduce(or_, given)


# -- leaves -------------------------------------------------------------------------------------------


def sphere(radius: Number = 1) -> Shape:
    """A ball."""
    return _solid("sphere", radius=radius)


def box(x: Number = 1, y: Number | None = None, z: Number | None = None) -> Shape:
    """A box with these sides; a cube with one."""
    return _solid("box", x=x, y=x if y is None else y, z=(x if y is None else y) if z is None else z)


def rounded_box(x: Number, y: Number, z: Number, radius: Number) -> Shape:
    """A box with these sides over all, its edges and corners round."""
    _check("rounded_box", 2 * radius <= min(x, y, z), "the radius is more than half of a side")
    return _solid("rounded_box", x=x, y=y, z=z, radius=radius)


def cylinder(radius: Number = 1, height: Number = 1) -> Shape:
    """A cylinder about z, its middle at the origin."""
    return _solid("cylinder", radius=radius, height=height)


def capsule(radius: Number = 1, height: Number = 1) -> Shape:
    """A cylinder about z of this height between two half balls."""
    return _solid("capsule", radius=radius, height=height)


def cone(radius: Number = 1, height: Number = 1, top: Number = 0) -> Shape:
    """A cone about z, its middle at the origin; `top` is the radius of its upper end, 0 for a tip."""
    _check("cone", top >= 0, f"the top's radius is not negative, as {top:g} is")
    return _solid("cone", {"top": top}, radius=radius, height=height)


def torus(major: Number = 1, minor: Number = 0.25) -> Shape:
    """A ring about z: the radius of the circle that its middle runs along, and that of its tube."""
    _check("torus", minor <= major, "the tube's radius is more than the ring's")
    return _solid("torus", major=major, minor=minor)


def plane(x: Number = 0, y: Number = 0, z: Number = 1) -> Shape:
    """All behind the plane through the origin from which this normal points away; it has no end."""
    length = math.hypot(x, y, z)
    _check("plane", 0 < length < math.inf, "a normal has a direction")
    return _solid("plane", {"x": x, "y": y, "z": z})


def ellipsoid(x: Number, y: Number, z: Number) -> Shape:
    """An ellipsoid with these half axes."""
    return _solid("ellipsoid", x=x, y=y, z=z)


def from_field(field: Field, name: str) -> Shape:
    """A field as a leaf, which text calls `name`; if its slope is not known its values count as distances."""
    if field.kind == "occupancy":
        raise UsageError(f"{name}: an occupancy field holds no distances, which a tree combines")
    scale, centre = field.transform.scale, field.transform.centre
    slope = 1.0 if field.lipschitz is None else field.lipschitz
    return Shape(
        "file", (), (), field.kind, centre - scale, centre + scale, 1.0, slope, 1, 1, name, field
    )  # fmt: skip


def from_tree(shape: Shape, name: str) -> Shape:
    """A tree as a leaf, which text calls `name`."""
    return Shape(
        "file", (), (shape,), shape.kind, shape.low, shape.high, shape.spread, shape.lipschitz,
        shape.size, shape.registers, name,
    )  # fmt: skip


#: The words of the language: what stands before a bracket, and behind a dot.
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
    """The radius of a cylinder about z that holds a shape."""
    x, y = np.maximum(np.abs(shape.low), np.abs(shape.high))[:2]
    return float(np.hypot(x, y))


def copies(shape: Shape, spacing: tuple[float, ...], counts: tuple[float, ...]) -> tuple[int, int, int]:
    """How many copies of a repeated shape are looked at along each axis: any other one is farther away.

    Two are enough for a shape no longer than the spacing, w + 1 for one of w spacings.
    """
    x, y, z = (
        1 if not step or count == 1 else
        int(min([1 + max(1, math.ceil(min(extent / step, 1e6) - 1e-9)), *([count] if count else [])]))
        for step, count, extent in zip(spacing, counts, np.maximum(shape.high - shape.low, 0), strict=True)
    )  # fmt: skip
    return x, y, z


def _last(spacing: float, count: float) -> float:
    """How far the last copy is from the first."""
    return 0.0 if not spacing else (count - 1) * spacing if count else math.inf


# -- nodes --------------------------------------------------------------------------------------------


def _check(word: str, right: bool, complaint: str) -> None:
    if not right:
        raise UsageError(f"{word}: {complaint}")


def _finite(word: str, numbers: tuple[float, ...]) -> tuple[float, ...]:
    _check(word, all(math.isfinite(number) for number in numbers), "its numbers are finite")
    return tuple(float(number) + 0.0 for number in numbers)  # no negative zeros


def _solid(word: str, others: dict[str, float] | None = None, /, **positive: float) -> Shape:
    """A primitive of positive numbers, and behind them of others."""
    for name, number in positive.items():
        _check(word, 0 < number < math.inf, f"{name} is positive, not {number:g}")
    numbers = _finite(word, (*positive.values(), *(others or {}).values()))
    corner = np.array(PRIMITIVES[word].corner(*numbers))
    low, high = -corner, corner
    if word == "plane" and np.count_nonzero(numbers) == 1:  # it ends along that axis
        (axis,) = np.flatnonzero(numbers)
        (high if numbers[axis] > 0 else low)[axis] = 0
    return Shape(word, numbers, (), "distance", low, high, 1.0, 1.0, 1, 1)


def _operand(other: Shape | Smooth) -> tuple[tuple[float, ...], Shape]:
    """The radius, if there is one, and the shape at the right of an operator."""
    if isinstance(other, Smooth):
        return (other.radius,), other.shape
    if isinstance(other, Shape):
        return (), other
    raise UsageError(f"a shape is combined with a shape, not with {other!r}")


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
    slope: float = 1.0,
    added_slope: float = 0.0,
    size: int | None = None,
    registers: int | None = None,
) -> Shape:
    """A shape made of one: what is not given is as it was. grown: by how much its values fall at most."""
    reach = shape.spread * grown
    return _node(
        word, numbers, (shape,), kind,
        (shape.low if low is None else low) - reach, (shape.high if high is None else high) + reach,
        spread or shape.spread, shape.lipschitz * slope + added_slope,
        size or shape.size + 2, registers or shape.registers,
    )  # fmt: skip


def _placed(word: str, numbers: tuple[float, ...], shape: Shape) -> Shape:
    numbers = _finite(word, numbers)
    matrix = placement(word, numbers)
    low, high = moved_box(matrix, shape.low, shape.high)
    # Within a distance of a box stays that however it is turned; within a wider box does not.
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
    _check(word, lipschitz <= MAX_LIPSCHITZ, "its numbers are out of range")
    return Shape(word, numbers, parts, kind, low, high, spread, lipschitz, size, registers)


# -- text ---------------------------------------------------------------------------------------------


def _text(shape: Shape, names: Mapping[str, str]) -> list[Shape | str]:
    """The text of a shape, its parts still shapes, last piece first."""
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
    """A shape, in brackets if it binds less tightly than `level`."""
    return [")", shape, "("] if PRECEDENCE.get(shape.word, 5) < level else [shape]


def _file_name(name: str) -> str:
    """A file's name as text, quoted unless it is plain."""
    if _PLAIN.fullmatch(name) and not NUMBER.fullmatch(name):
        return name
    if "\n" in name or "\r" in name:
        raise UsageError(f"{name!r}: a file's name with a line break cannot stand in an expression")
    return '"' + name.replace("\\", "\\\\").replace('"', '\\"') + '"'


def _number(number: float) -> str:
    """The shortest text of a number that reads back as it."""
    return str(int(number)) if number == int(number) and abs(number) < 1e15 else repr(number)
