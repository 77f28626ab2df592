"""
shape.py
--------
Immutable trees of shapes: solids and other fields are leaves, operations are inner nodes. A shape is a field
itself: its ball and its tape are computed when they are first needed. Trees may have any depth, so no
function recurses along one.

Lengths are in mesh units, angles in degrees. Each shape has these properties, known without evaluating it:

    kind        "distance" if its values are distances, "bound" if |value| / lipschitz is at most the distance
    low, high   a bounding box, infinite where the shape is unbounded
    spread      points with values below a lie within `spread` a of that box, along each axis
    lipschitz   Lipschitz constant of its values, except for errors of networks
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property, reduce
from operator import or_
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from ..arguments import takes_numbers
from ..array_types import FloatArray, Points
from ..backends import Backend, Program
from ..errors import EmptyShapeError, FieldKindError, NeuralSDFError, UsageError
from ..fields.field import VALUE_ROUNDING, Field, Kind, NeuralField
from ..fields.mesh_field import MeshField
from ..geometry.similarity_transform import Similarity
from .placement_matrices import moved_box, placement, stretch

Number: TypeAlias = float

#: Maximum size of a tree in tape operations; a repetition counts its shape once per candidate copy.
MAX_SIZE = 1 << 18
#: Maximum Lipschitz constant; a tracer's steps are shorter by this factor.
MAX_LIPSCHITZ = 1e9
#: Operations whose first number, if any, is a length that values are compared with.
_BY_LENGTH = ("|", "&", "-", "offset", "shell", "hollow", "displace")
#: Maximum number of candidate copies of a repeated shape per point.
_MAX_COPIES = 64


@dataclass(frozen=True, eq=False)
class Shape(Field):
    """A tree of solids and other fields, or a node of one; made by solids, operators and methods of fields.

    Its distances are lower bounds, exact only for a single exact leaf with any placement (`kind`, `exact`):
    |value| / lipschitz is at most the distance. An unbounded shape (a plane, a complement) has distances but
    no `transform`: rendering, extraction and bounds raise `UsageError`; for an empty one `EmptyShapeError`.

    word: its name in text: a solid, a method, "|", "&", "-", "~" or "file". numbers: its parameters.
    parts: its operands. name, field, path: of a file, or of another field as a leaf (path is None if no file
    holds it); a tree file has the tree as its only part, and no field. size: operations of its tape.
    registers: value registers needed to evaluate it. reach: distance from the surface up to which values are
    known; infinite without fields that have a `limit`. stated: the unit that its lengths were converted to.
    stated_backend: the backend that it was opened with.
    """

    rounding = VALUE_ROUNDING

    word: str
    numbers: tuple[float, ...]
    parts: tuple[Shape, ...]
    kind: Kind
    low: Points
    high: Points
    spread: float
    lipschitz: float = dataclasses.field()  # no default: that of `Field` is None
    size: int = dataclasses.field()
    registers: int = dataclasses.field()
    name: str = ""
    field: Field | None = None
    path: Path | None = None
    stated: str | None = None
    stated_backend: Backend | None = None
    reach: float = math.inf

    # -- two shapes -------------------------------------------------------------------------------

    def __or__(self, other: Field | Smooth) -> Shape:
        """Union."""
        radius, b = _operand(other)
        blend = sum(radius) / 4  # a smooth union is at most this far below the minimum
        low, high = np.minimum(self.low, b.low), np.maximum(self.high, b.high)
        return _joined("|", radius, self, b, low, high, blend)

    def __and__(self, other: Field | Smooth) -> Shape:
        """Intersection."""
        radius, b = _operand(other)
        return _joined("&", radius, self, b, np.maximum(self.low, b.low), np.minimum(self.high, b.high))

    def __sub__(self, other: Field | Smooth) -> Shape:
        """Difference: this shape without the other."""
        radius, b = _operand(other)
        return _joined("-", radius, self, b, self.low, self.high)

    @takes_numbers
    def blend(self, other: Field, share: Number = 0.5) -> Shape:
        """Interpolate between this shape (share 0) and another (share 1)."""
        check("blend", 0 <= share <= 1, f"share must be between 0 and 1, not {share:g}")
        b = as_shape(other)
        low, high = np.minimum(self.low, b.low), np.maximum(self.high, b.high)
        return _joined("blend", (share,), self, b, low, high)

    # -- one shape --------------------------------------------------------------------------------

    def __invert__(self) -> Shape:
        """Complement."""
        return _changed("~", (), self, kind=self.kind, low=np.full(3, -np.inf), high=np.full(3, np.inf))

    @takes_numbers
    def offset(self, length: Number) -> Shape:
        """Grow by a length, or shrink by a negative one."""
        return _changed("offset", (length,), self, grown=max(length, 0.0))

    @takes_numbers
    def dilate(self, length: Number) -> Shape:
        """Grow by a length."""
        check("dilate", length >= 0, f"length must not be negative, got {length:g}; use erode")
        return self.offset(length)

    @takes_numbers
    def erode(self, length: Number) -> Shape:
        """Shrink by a length."""
        check("erode", length >= 0, f"length must not be negative, got {length:g}; use dilate")
        return self.offset(-length)

    @takes_numbers
    def round(self, radius: Number) -> Shape:
        """Grow by a radius, which becomes the radius of the edges."""
        check("round", radius >= 0, f"radius must not be negative, got {radius:g}")
        return self.offset(radius)

    @takes_numbers
    def shell(self, thickness: Number) -> Shape:
        """A wall centred on the surface."""
        check("shell", thickness > 0, f"thickness must be positive, not {thickness:g}")
        return _changed("shell", (thickness,), self, grown=thickness / 2)

    @takes_numbers
    def hollow(self, thickness: Number) -> Shape:
        """A wall on the inside of the surface."""
        check("hollow", thickness > 0, f"thickness must be positive, not {thickness:g}")
        return _changed("hollow", (thickness,), self)

    @takes_numbers
    def displace(self, amplitude: Number, wavelength: Number) -> Shape:
        """Displace the surface by a wave pattern, `amplitude` sin x sin y sin z with this `wavelength`."""
        check("displace", wavelength > 0, f"wavelength must be positive, not {wavelength:g}")
        steepness = abs(amplitude) * 2 * math.pi / wavelength
        return _changed(
            "displace", (amplitude, wavelength), self, grown=abs(amplitude), added_lipschitz=steepness
        )

    # -- space ------------------------------------------------------------------------------------

    @takes_numbers
    def translate(self, x: Number, y: Number = 0, z: Number = 0) -> Shape:
        """Translate."""
        return _placed("translate", (x, y, z), self)

    @takes_numbers
    def rotate(self, angle: Number, x: Number = 0, y: Number = 0, z: Number | None = None) -> Shape:
        """Rotate about an axis through the origin, by default z; counter-clockwise seen from its tip."""
        axis = x, y, (0.0 if x or y else 1.0) if z is None else z
        check("rotate", any(axis), "the axis must not be zero")
        return _placed("rotate", (angle, *axis), self)

    @takes_numbers
    def scale(self, factor: Number) -> Shape:
        """Scale about the origin."""
        check("scale", factor > 0, f"factor must be positive, not {factor:g}; use reflect for mirror images")
        return _placed("scale", (factor,), self)

    @takes_numbers
    def reflect(self, x: Number, y: Number = 0, z: Number = 0) -> Shape:
        """Mirror in the plane through the origin with this normal."""
        check("reflect", (x, y, z) != (0, 0, 0), "the normal must not be zero")
        return _placed("reflect", (x, y, z), self)

    @takes_numbers
    def symmetry(self, x: Number, y: Number = 0, z: Number = 0) -> Shape:
        """Replace the side of the plane through the origin behind this normal by the mirrored other side."""
        check("symmetry", (x, y, z) != (0, 0, 0), "the normal must not be zero")
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

    @takes_numbers
    def repeat(
        self,
        x: Number,
        y: Number = 0,
        z: Number = 0,
        nx: Number = 0,
        ny: Number = 0,
        nz: Number = 0,
    ) -> Shape:
        """Copies with this spacing per axis, 0 for none; a count of 0 repeats without bounds both ways."""
        spacing, counts = (x, y, z), (nx, ny, nz)
        finite("repeat", (*spacing, *counts))
        check("repeat", any(spacing) and min(spacing) >= 0, "spacings must be positive, or 0 for some axes")
        check("repeat", all(n >= 0 and n == int(n) for n in counts), "counts must be integers of at least 0")
        per_axis = copies(self, spacing, counts)
        candidates = math.prod(per_axis)
        check("repeat", candidates <= _MAX_COPIES,
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

    @takes_numbers
    def twist(self, angle: Number) -> Shape:
        """Twist about z, by an angle per unit of length along it."""
        if self.word == "twist":  # one twist has a tighter Lipschitz bound
            return self.parts[0].twist(self.numbers[0] + angle)
        radius = radius_about_z(self)
        check("twist", radius < math.inf, "the shape is unbounded in x or y; cut it with & first")
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

    # -- as a field -------------------------------------------------------------------------------

    @cached_property
    def enclosing_box(self) -> tuple[Points, Points]:
        """Minimum and maximum corner (3,) of a bounding box, a few hundredths larger than necessary.

        Raises what `transform` raises.
        """
        return self._enclosed[:2]

    @property
    def box(self) -> tuple[Points, Points]:
        """`enclosing_box` in model space."""
        low, high = self.transform.apply_inverse(np.stack(self.enclosing_box))
        return low, high

    @cached_property
    def transform(self) -> Similarity:  # type: ignore[override]  # computed on first access
        """Maps the unit ball to a bounding ball, a few hundredths larger than necessary.

        Raises `UsageError` for an unbounded shape, `EmptyShapeError` for an empty one.
        """
        return self._enclosed[2]

    @cached_property
    def _enclosed(self) -> tuple[Points, Points, Similarity]:
        from .tree_bounds import enclosed

        prefix = f"{self.name}: " if self.name else ""
        if not self.bounded:
            raise UsageError(
                f"{prefix}the shape is unbounded (a plane, a complement, a repetition): "
                "cut it with & box(...)"
            )
        try:
            return enclosed(self)
        except NeuralSDFError as error:
            raise type(error)(f"{prefix}{error}") from error

    @cached_property
    def frame(self) -> Similarity:
        """Maps the space it is evaluated in to mesh space: `transform`, or the identity if it has none."""
        try:
            return self.transform if self.bounded else Similarity.identity()
        except EmptyShapeError:
            return Similarity.identity()

    @cached_property
    def chosen_backend(self) -> Backend | None:  # type: ignore[override]  # found on access
        """The backend chosen for its leaves and tree files; those without a choice follow the others.

        None if there is no choice. Raises `UsageError` if there are different ones.
        """
        chosen: dict[str, Backend] = {}
        stack = [self]
        while stack:
            node = stack.pop()
            for backend in (node.stated_backend, node.field.chosen_backend if node.field else None):
                if backend is not None:
                    chosen[backend.name] = backend
            stack.extend(node.parts)
        if len(chosen) > 1:
            raise UsageError(
                f"parts of the tree were made for different devices ({', '.join(sorted(chosen))}): "
                "use the same `device=` for all, or leave it out"
            )
        return next(iter(chosen.values()), None)

    @cached_property
    def program(self) -> Program:
        """The compiled tape."""
        from .compile import compile_shape

        return self.backend.assemble(compile_shape(self, self.frame))

    def value(self, points: FloatArray) -> FloatArray:
        """Values (n,) at points (n, 3) of model space."""
        return self.program.evaluate(np.ascontiguousarray(points, np.float32))

    def value_and_gradient(self, points: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Values (n,) and gradients (n, 3) at points (n, 3) of model space."""
        return self.program.evaluate_with_gradient(np.ascontiguousarray(points, np.float32))

    @cached_property
    def exact(self) -> bool:  # type: ignore[override]  # computed on first access
        """Whether its values are distances and all its leaves are exact."""
        return self.kind == "distance" and all(field.exact for field in self.fields())

    @property
    def is_bound(self) -> bool:
        """Whether `distance` may be too low; also true for a single network, outside its ball."""
        return not self.exact

    @property
    def operations(self) -> int:
        """Operations of its tape plus those of its slowest leaf: few leaves are near any one point."""
        return self.size + max((field.operations for field in self.fields()), default=0)

    @cached_property
    def error(self) -> float:
        """The largest error of its leaves, in this field's model space."""
        from .tree_bounds import scaled_fields

        errors = [field.error * field.transform.scale * scale for field, scale in scaled_fields(self)]
        return max(errors, default=0.0) / self.transform.scale

    @cached_property
    def unit(self) -> str | None:  # type: ignore[override]  # computed on first access
        """The unit of its lengths, None if its files state none or disagree."""
        return units_of(self)[0]

    @cached_property
    def warnings(self) -> tuple[str, ...]:  # type: ignore[override]  # computed on first access
        """The warnings of its leaves, and one if they have different units."""
        conflict = units_of(self)[1]
        each = dict.fromkeys(line for field in self.fields() for line in field.warnings)
        return (*each, conflict) if conflict else tuple(each)

    def _rescaled(self, factor: float, unit: str) -> Shape:
        return dataclasses.replace(self.scale(factor), stated=unit)

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

    def files(self) -> Iterator[Path]:
        """The files of all leaves, including those in tree files."""
        stack = [self]
        while stack:
            shape = stack.pop()
            if shape.path is not None:
                yield shape.path
            stack.extend(shape.parts)

    def leaves(self) -> Iterator[Shape]:
        """Its leaves that are files or other fields, from left to right; a tree file is one leaf."""
        return (node for node in self.nodes() if node.word == "file")

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickled as a list of nodes, operands first: a tree may be too deep for recursion."""
        stack, states = [self], []
        while stack:
            shape = stack.pop()
            states.append(shape.__getstate__() | {"parts": len(shape.parts)})
            stack.extend(shape.parts)
        return _from_states, (states[::-1],)

    def __eq__(self, other: object) -> bool:
        """Whether both have the same text; files are compared by name, other fields by identity."""
        return isinstance(other, Shape) and self._words() == other._words()

    def __hash__(self) -> int:
        return hash(tuple(self._words()))

    def _words(self) -> list[tuple[str, tuple[float, ...], str, int, int]]:
        return [
            (node.word, node.numbers, node.name, len(node.parts), 0 if node.path else id(node.field))
            for node in self.nodes()
        ]

    def text(self, name: Callable[[Shape], str] = lambda leaf: leaf.name) -> str:
        """Text that parses to the same tree. name: returns the file name of a leaf."""
        from .expression_writer import expression

        return expression(self, name)

    def __str__(self) -> str:
        return self.text()

    def __repr__(self) -> str:
        text = str(self.parts[0] if self.word == "file" and self.parts else self)
        return f"<Shape {text if len(text) <= 80 else text[:77] + '...'}>"


def _from_states(states: list[dict[str, Any]]) -> Shape:
    """The tree of these nodes, operands first, whose `parts` are numbers of operands."""
    stack: list[Shape] = []
    for state in states:
        first = len(stack) - state["parts"]
        shape = object.__new__(Shape)
        vars(shape).update(state | {"parts": tuple(stack[first:])})
        stack[first:] = [shape]
    return stack[0]


@dataclass(frozen=True, eq=False)
class Smooth:
    """Right operand of a smooth |, & or -: see `smooth`."""

    radius: float
    shape: Shape


@takes_numbers
def smooth(radius: Number, shape: Field) -> Smooth:
    """Makes the operator to its left smooth: `a | smooth(0.05, b)`.

    Surfaces whose values differ by less than `radius` are joined by a quadratic blend; 0 gives the sharp
    operation.
    """
    check("smooth", 0 <= radius < math.inf, f"radius must be finite and not negative, got {radius:g}")
    return Smooth(float(radius), as_shape(shape))


def union(shapes: Iterable[Field]) -> Shape:
    """Union of several fields, like `a | b | c`; raises `UsageError` if there are none."""
    given = [as_shape(shape) for shape in shapes]
    check("union", bool(given), "no shapes given")
    return reduce(or_, given)


# -- leaves -------------------------------------------------------------------------------------------


def units_of(shape: Shape) -> tuple[str | None, str | None]:
    """The unit of a tree's lengths, None if its files state none or disagree; a warning if they disagree.

    A file without a unit is assumed to have the unit of the others; its numbers are combined unchanged.
    """
    names: dict[str, str] = {}
    waiting = [shape]
    while waiting:
        node = waiting.pop()
        stated = node.stated or (None if node.field is None else node.field.unit)
        if stated is not None:
            names.setdefault(stated, node.name or str(node)[:80])
        if node.stated is None:
            waiting.extend(node.parts)
    if len(names) < 2:
        return next(iter(names), None), None
    listed = ", ".join(f"{name} in {unit}" for unit, name in sorted(names.items()))
    return (
        None,
        f"files in different units are combined without conversion ({listed}): scale(...) one of them",
    )


def as_shape(field: Field) -> Shape:
    """A field as a tree: itself if it is one, else a leaf. Raises `UsageError` for anything else."""
    if isinstance(field, Shape):
        return field
    if not isinstance(field, Field):
        raise UsageError(f"cannot combine a field with {field!r}")
    if field.path is not None:
        return from_field(field, field.path.name, field.path)
    source = field.source if isinstance(field, NeuralField) else None
    if isinstance(field, MeshField):
        source = None if field.mesh is None else field.mesh.source
    stem = "field" if source is None else Path(source.name).stem or "field"
    return from_field(field, f"{stem}{'.ply' if isinstance(field, MeshField) else '.h5'}")


def from_field(field: Field, name: str, path: Path | None = None) -> Shape:
    """A field as a leaf called `name` in text; without a Lipschitz bound its values count as distances.

    path: the file that holds it, if any. Raises `FieldKindError` for an occupancy field.
    """
    if field.kind == "occupancy":
        raise FieldKindError(f"{name}: an occupancy field has no distances and cannot be combined")
    scale, centre = field.transform.scale, field.transform.centre
    lipschitz = 1.0 if field.lipschitz is None else field.lipschitz
    kind, reach = (field.kind, math.inf) if field.limit is None else ("bound", field.limit * scale)
    return Shape(
        "file", (), (), kind, centre - scale, centre + scale, 1.0, lipschitz, 1, 1, name, field, path,
        reach=reach,
    )  # fmt: skip


def from_tree(shape: Shape, name: str, path: Path | None = None) -> Shape:
    """A tree as a leaf called `name` in text; path: the file that holds it, if any."""
    return Shape(
        "file", (), (shape,), shape.kind, shape.low, shape.high, shape.spread, shape.lipschitz,
        shape.size, shape.registers, name, None, path, reach=shape.reach,
    )  # fmt: skip


#: The methods of the language.
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


def check(word: str, valid: bool, message: str) -> None:
    """Raise `UsageError` with a message about a word of the language unless `valid`."""
    if not valid:
        raise UsageError(f"{word}: {message}")


def finite(word: str, numbers: tuple[float, ...]) -> tuple[float, ...]:
    """Numbers without negative zeros; raises `UsageError` if one is not finite."""
    check(word, all(math.isfinite(number) for number in numbers), "numbers must be finite")
    return tuple(float(number) + 0.0 for number in numbers)  # no negative zeros


def _operand(other: Field | Smooth) -> tuple[tuple[float, ...], Shape]:
    """The blend radius, if any, and the shape of a right operand."""
    if isinstance(other, Smooth):
        return (other.radius,), other.shape
    return (), as_shape(other)


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
    numbers = finite(word, numbers)
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
    numbers = finite(word, numbers)
    check(word, size <= MAX_SIZE, f"the tree has more than {MAX_SIZE:,} operations")
    check(word, lipschitz <= MAX_LIPSCHITZ, "numbers out of range")
    reach = _reach(word, numbers, parts)
    return Shape(word, numbers, parts, kind, low, high, spread, lipschitz, size, registers, reach=reach)


def _reach(word: str, numbers: tuple[float, ...], parts: tuple[Shape, ...]) -> float:
    """The `reach` of a node; raises `UsageError` for a length that exceeds that of its parts."""
    reach = min(part.reach for part in parts)
    if word == "scale":
        return reach * numbers[0]
    if word in _BY_LENGTH and numbers:
        length = abs(numbers[0])
        check(
            word, length < reach, f"{length:g} is too long: a latent model knows distances below {reach:.4g}"
        )
        return reach - length if word == "offset" else reach
    return reach
