"""
threemf_model.py
----------------
One model part of a 3MF: its objects and build as in the XML, with unresolved references.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

import numpy as np

from ...array_types import Index, Matrix4, Points
from ...files.bounded_input import Budget
from ...printable_text import printable
from .shared.raw_mesh import FormatError
from .shared.scene_triangles import LONGEST, NODE_BYTES
from .shared.xml_stream import MAX_DEPTH, read_xml
from .threemf_beams import CAPS, Lattice

_SCHEMAS = "http://schemas.microsoft.com/3dmanufacturing/"
_PRODUCTION = _SCHEMAS + "production/2015/06"
_SLICE = _SCHEMAS + "slice/2015/07"
_BEAMS = _SCHEMAS + "beamlattice/2017/02"
_BALLS = _SCHEMAS + "beamlattice/balls/2020/07"

#: Supported required extensions: implemented, or without effect on the geometry.
_KNOWN = {
    _PRODUCTION,
    _SLICE,
    _BEAMS,
    _BALLS,
    _SCHEMAS + "production/alternatives/2021/04",
    _SCHEMAS + "material/2015/02",
    _SCHEMAS + "trianglesets/2021/07",
}

#: Unit names of 3MF and the corresponding names in units.py.
_UNITS = {"micron": "um", "millimeter": "mm", "centimeter": "cm", "inch": "in", "foot": "ft", "meter": "m"}

_Attributes = dict[str, str]


@dataclass(frozen=True, eq=False)
class Reference:
    """An item or a component: refers to an object of this part, or of the part `path`.

    matrix: (4, 4) for column vectors, None for the identity.
    """

    object_id: str
    path: str | None
    matrix: Matrix4 | None
    printable: bool


@dataclass(eq=False)
class Object:
    """An object: a mesh, or components. kind: model, solidsupport, support, surface or other.

    stand_in: its mesh is only a coarse substitute for slices. foreign: name of an element of an unknown
    extension in it, possibly instead of a mesh.
    """

    kind: str
    stand_in: bool
    coordinates: array[float] = field(default_factory=lambda: array("d"))
    corners: array[int] = field(default_factory=lambda: array("q"))
    lattice: Lattice | None = None
    components: list[Reference] = field(default_factory=list)
    foreign: str | None = None

    @property
    def vertices(self) -> Points:
        """Vertices (n, 3)."""
        return np.frombuffer(self.coordinates, np.float64).reshape(-1, 3)

    @property
    def faces(self) -> Index:
        """Triangles (m, 3); their indices are not checked."""
        return np.frombuffer(self.corners, np.int64).reshape(-1, 3)


class ModelPart:
    """Objects of a part by id, items of its build, and its unit (None if not stated)."""

    def __init__(self, chunks: Iterable[bytes], budget: Budget) -> None:
        self.objects: dict[str, Object] = {}
        self.items: list[Reference] = []
        self.unit: str | None = None
        self.requires_slices = False
        self._budget = budget
        self._namespaces: dict[str | None, str] = {}
        self._object = Object("model", stand_in=False)  # receives elements outside of all objects
        self._depth = 0
        self._handlers: dict[str, Callable[[_Attributes], None]] = {}
        read_xml(chunks, self)

    def declare(self, prefix: str | None, namespace: str) -> None:
        """Store a namespace of the root element; its required extensions refer to them."""
        if not self._depth:
            self._namespaces[prefix] = namespace

    def start(self, name: str, attributes: _Attributes) -> None:
        """Handle the start of an element."""
        self._depth += 1
        handler = self._handlers.get(name)
        if handler is not None:
            handler(attributes)
        elif self._depth == 1:
            self._root(name, attributes)
        elif self._depth > MAX_DEPTH:
            raise FormatError(f"nests XML elements more than {MAX_DEPTH} deep")
        elif self._depth == 4:
            self._object.foreign = name.rpartition(" ")[2]  # <model><resources><object>

    def end(self, name: str) -> None:
        """Handle the end of an element."""
        self._depth -= 1

    def _root(self, name: str, attributes: _Attributes) -> None:
        core, _, local = name.rpartition(" ")
        if local != "model":
            raise FormatError("is a ZIP archive without a 3MF model", "unpack it first")
        if (unit := attributes.get("unit")) is not None:
            if unit not in _UNITS:
                raise FormatError(f"has an unknown unit: '{printable(unit, LONGEST)}'")
            self.unit = _UNITS[unit]
        for prefix in attributes.get("requiredextensions", "").split():
            namespace = self._namespaces.get(prefix)
            if namespace not in _KNOWN | {core}:
                culprit = printable(namespace or prefix, LONGEST)
                raise FormatError(
                    f"requires an unsupported 3MF extension: {culprit}",
                    "export it as plain triangles",
                )
            self.requires_slices |= namespace == _SLICE
        space = f"{core} " if core else ""
        self._handlers = {
            f"{space}object": self._start_object,
            f"{space}vertex": self._vertex,
            f"{space}triangle": self._triangle,
            f"{space}component": self._component,
            f"{space}item": self._item,
            f"{_BEAMS} beamlattice": self._beam_lattice,
            f"{_BEAMS} beam": self._beam,
            f"{_BALLS} ball": self._ball,
            f"{_BEAMS} ball": self._ball,
            **{f"{space}{known}": _ignore for known in ("mesh", "components", "metadatagroup")},
        }

    def _start_object(self, attributes: _Attributes) -> None:
        self._budget.draw(NODE_BYTES)
        identifier = attributes["id"]
        if identifier in self.objects:
            raise FormatError(f"has two objects with the id '{printable(identifier, LONGEST)}'")
        stand_in = attributes.get(f"{_SLICE} meshresolution") == "lowres"
        self._object = self.objects[identifier] = Object(attributes.get("type", "model"), stand_in)

    def _vertex(self, attributes: _Attributes) -> None:
        self._object.coordinates.extend(
            (float(attributes["x"]), float(attributes["y"]), float(attributes["z"]))
        )

    def _triangle(self, attributes: _Attributes) -> None:
        self._object.corners.extend((int(attributes["v1"]), int(attributes["v2"]), int(attributes["v3"])))

    def _component(self, attributes: _Attributes) -> None:
        self._object.components.append(self._reference(attributes))

    def _item(self, attributes: _Attributes) -> None:
        self.items.append(self._reference(attributes))

    def _reference(self, attributes: _Attributes) -> Reference:
        self._budget.draw(NODE_BYTES)
        return Reference(
            attributes["objectid"],
            attributes.get(f"{_PRODUCTION} path"),
            _matrix(attributes.get("transform")),
            attributes.get("printable", "1") not in ("0", "false"),
        )

    def _beam_lattice(self, attributes: _Attributes) -> None:
        self._object.lattice = Lattice(
            radius=float(attributes["radius"]),
            cap=CAPS[attributes.get("cap", "sphere")],
            min_length=float(attributes.get("minlength", "0")),
            is_clipped=attributes.get("clippingmode", "none") != "none",
            ball_mode=attributes.get(f"{_BALLS} ballmode", attributes.get("ballmode", "none")),
            ball_radius=float(attributes.get(f"{_BALLS} ballradius", attributes.get("ballradius", "nan"))),
        )

    def _beam(self, attributes: _Attributes) -> None:
        lattice = self._lattice
        self._budget.draw(3 * 8 * 6)  # includes the look-up of its vertices
        first = float(attributes.get("r1", lattice.radius))
        caps = [CAPS[attributes[key]] if key in attributes else lattice.cap for key in ("cap1", "cap2")]
        ends = int(attributes["v1"]), int(attributes["v2"])
        lattice.beams.extend((*ends, first, float(attributes.get("r2", first)), *caps))

    def _ball(self, attributes: _Attributes) -> None:
        self._budget.draw(8 * 2)
        radius = float(attributes.get("r", self._lattice.ball_radius))
        self._lattice.balls.extend((int(attributes["vindex"]), radius))

    @property
    def _lattice(self) -> Lattice:
        if self._object.lattice is None:
            raise ValueError("a beam outside of a lattice")
        return self._object.lattice


def _matrix(text: str | None) -> Matrix4 | None:
    """Convert a transform `m00 m01 m02 m10 ...` of row vectors to a matrix (4, 4) for column vectors."""
    if text is None:
        return None
    matrix = np.eye(4)
    matrix[:3] = np.array([float(number) for number in text.split()]).reshape(4, 3).T
    return matrix


def _ignore(_: _Attributes) -> None:
    pass
