"""
field.py
--------
A field: a signed distance (or bound, or occupancy) over all of space, and what is known of it.

Model space is where a field is evaluated: its shape lies in the unit ball about the origin. The
field's transform maps model space to the mesh's own space. Negative is inside.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from copy import copy
from dataclasses import dataclass, field, replace
from functools import cached_property
from io import BytesIO
from os import PathLike
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal
from warnings import catch_warnings, simplefilter, warn

import numpy as np
import numpy.typing as npt

from ..array_types import FloatArray, Points, Values, Vectors
from ..backends import Program, get_backend
from ..backends.outside_ball import Extended, model_points
from ..errors import NeuralSDFError, NoSurfaceError
from ..geometry.similarity import Similarity
from ..mesh.mesh import Source
from ..program.network import Network
from ..program.tape import Leaf
from ..units import length_ratio, with_unit

if TYPE_CHECKING:
    import trimesh
    from PIL import Image

    from ..csg.shape import Shape, Smooth
    from ..render.camera import Up
    from ..render.shading import Style
    from .distance_outside_ball import FieldSurface

Kind = Literal["distance", "bound", "occupancy"]

#: Width and height of the picture that a notebook shows.
NOTEBOOK_SIZE = (320, 320)

#: A signed distance varies by more than this over its ball, whatever the shape.
LEAST_RANGE = 0.05

#: What evaluating a network faster may add to its error, as a share of its surface error.
ADDED_ERROR = 0.1

#: Surface error of a network whose own is not known, such as those of the paper's authors.
USUAL_ERROR = 0.002

#: Values of trees and meshes closer to zero than this are not told from it: float32 rounds coordinates of the
#: ball by 6e-8, and a value is made of a few dozen such.
FILM = 4e-6


class Field(ABC):
    """What renders, extracts and answers queries: a network, a tree of shapes, and later a latent shape.

    kind: "distance" (close to the true one), "bound" (over `lipschitz` no more than it) or "occupancy".
    exact: whether its values are the true distance, but for rounding.
    lipschitz: what the slope of the values does not exceed, but for a network's errors; None if not known.
    rounding: values closer to zero than this may have either sign; 0 where films, zero sets without a
    thickness, are not to be expected.
    transform: model space to mesh space.
    """

    kind: Kind
    exact: bool = False
    lipschitz: float | None = None
    rounding: float = 0.0
    transform: Similarity

    #: The unit of mesh space, one of `units.LENGTHS`; None where it is not known.
    unit: str | None = None
    #: What was measured of it, lengths in model space (radius 1): see `evaluation.metrics.measure`.
    metrics: Mapping[str, float] = MappingProxyType({})
    #: What a user should know of it, a sentence each.
    warnings: tuple[str, ...] = ()
    #: The file that holds it as it is; None for a field made or changed in memory.
    path: Path | None = None

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

    @property
    def operations(self) -> int:
        """Operations that one value takes, of about a nanosecond each: what bounds on the work go by."""
        return 1

    @property
    def tolerance(self) -> float | None:
        """What evaluating it faster may add to its error; None where its values are to be as they are."""
        return None

    @property
    def error(self) -> float:
        """How far off its surface is in the mean, in model space; 0 where it is what the values say."""
        return 0.0

    @property
    def expected_volume(self) -> float | None:
        """The volume in model space that its surface should have, if that is known."""
        return None

    @property
    def known_volume(self) -> float | None:
        """The volume in model space that its surface has at a sufficient resolution, if that was measured."""
        return None

    @property
    def leaf(self) -> Leaf:
        """What a tape has of it: the field itself, asked block by block, unless it is a network's."""
        return self

    def in_unit(self, unit: str) -> Field:
        """The same field, with the lengths of its mesh space in another unit.

        Raises `UsageError` where its own unit is not known.
        """
        return self._rescaled(length_ratio(self.unit, unit), unit)

    def _rescaled(self, factor: float, unit: str) -> Field:
        other = copy(self)
        other.transform, other.unit, other.path = self.transform.scaled(factor), unit, None
        vars(other).pop("_measures", None)
        return other

    @property
    def surface(self) -> FieldSurface | None:
        """What closest points are looked for on; None where values and gradients lead to them."""
        return None

    @property
    def is_bound(self) -> bool:
        """Whether `distance` is no more than a lower bound somewhere, even if no bound is asked for."""
        return self.kind == "bound"

    @property
    def frame(self) -> Similarity:
        """The map from where values are computed to mesh space: `transform`, but for a tree without one."""
        return self.transform

    def distance(self, points: npt.ArrayLike, *, bound: bool = False) -> Values:
        """Signed distances (...,) in mesh units at points (..., 3) of mesh space; negative inside.

        points: an array, or lists. Of a tree the results are lower bounds of the distance (`is_bound`). Of a
        network they are exact to its error, outside its ball too; bound: there a lower bound is enough, which
        is faster. A point that is not finite gives NaN. Raises `FieldKindError` for an occupancy field,
        `UsageError` for points of another shape, `NoSurfaceError` for a network without a surface.
        """
        from .query import signed_distance

        return signed_distance(self, points, bound=bound)

    def gradient(self, points: npt.ArrayLike, *, bound: bool = False) -> Vectors:
        """Gradients (..., 3) of the signed distance at points (..., 3) of mesh space, outwards.

        Those of an exact distance have length 1. Of a tree they are those of its lower bound, not always of
        length 1, and one-sided at creases. bound, NaN and what is raised are as for `distance`.
        """
        from .query import gradient

        return gradient(self, points, bound=bound)

    def save(
        self,
        path: str | PathLike[str],
        *,
        layout: str = "native",
        bundle: bool = False,
        allow_outside: bool = False,
        force: bool = False,
    ) -> None:
        """Write the field to a file, whole or not at all: a network as .h5, a tree (or any field) as .csg.

        layout: of .h5, "native", or "keras" for that of the paper's authors. bundle: put the files that a
        tree names into the .csg; what was made in memory is in it anyway. allow_outside: let a tree name
        files outside of its own folder. force: replace a file that exists. Raises `UsageError` for another
        suffix or a field that the file cannot hold, `OutputError` where the file cannot be written.
        """
        from ..storage import save_field

        save_field(self, Path(path), layout=layout, bundle=bundle, allow_outside=allow_outside, force=force)

    @property
    def bounds(self) -> Points:
        """Minimum and maximum corner (2, 3) of the shape in mesh units.

        Those of its faces for a closed mesh, else of the mesh that `to_mesh` makes, computed when first asked
        for. Raises `UsageError` for an unbounded tree, `NoSurfaceError` for a field without a surface.
        """
        return self._measures[0].copy()

    @property
    def volume(self) -> float:
        """The volume of the shape in mesh units cubed: that of its metrics, or found as `bounds`."""
        known = self.known_volume
        return self._measures[1] if known is None else known * self.transform.scale**3

    @cached_property
    def _measures(self) -> tuple[Points, float]:
        """The bounds (2, 3), and the volume, in mesh units."""
        from .extract import extract

        surface = extract(self)
        return np.stack(surface.bounds), surface.volume

    def to_mesh(
        self,
        resolution: int | None = None,
        *,
        max_memory: int | None = None,
        faces: int | None = None,
        normals: bool = False,
    ) -> trimesh.Trimesh:
        """The surface as a watertight `trimesh.Trimesh` in mesh units, which has `export("bunny.stl")`.

        resolution: cells along the side of the bounding cube; None for 256, doubled until the volume and the
        number of bodies stay the same. max_memory: limit in bytes; None for 2 GB. faces: reduce the mesh to
        this number of faces. normals: smooth vertex normals, from the field's gradient. Faults of the mesh
        are given as a `UserWarning`. Raises `UsageError` for an unbounded tree or a number out of range,
        `NoSurfaceError` for a field without a surface.
        """
        import trimesh

        from .decimate import reduced_surface
        from .extract import surface_normals

        surface = reduced_surface(self, resolution, max_memory=max_memory, faces=faces)
        for note in surface.notes:
            warn(note.removeprefix("warning: "), stacklevel=2)
        return trimesh.Trimesh(
            surface.vertices,
            surface.faces,
            vertex_normals=surface_normals(self, surface) if normals else None,
            process=False,
        )

    def render(
        self,
        width: int = 512,
        height: int = 512,
        *,
        azimuth: float | None = None,
        elevation: float | None = None,
        distance: float | None = None,
        eye: npt.ArrayLike | None = None,
        target: npt.ArrayLike | None = None,
        fov: float = 30.0,
        up: Up = "y",
        shading: Style | None = None,
        color: str | None = None,
        matcap: str | Path | None = None,
        ao: bool = True,
        shadow: bool = True,
        smooth: float = 0.02,
        background: str = "studio",
        antialias: int = 3,
        seed: int = 0,
    ) -> Image.Image:
        """A picture as a PIL image: `field.render().save("bunny.png")`.

        width, height: in pixels. azimuth, elevation: degrees around the shape from its front, and above the
        horizon; None for 30 and 20. distance: from the target in bounding radii; None frames the shape. eye:
        where the camera is, instead of these. target: what it looks at; None for the centre. Both are (3,) in
        mesh units. fov: degrees across the shorter side. up: the axis that points up, "y" or "z".
        shading: "lambert", "normals", "depth" or "matcap". color: of the surface, such as "#c08060". matcap:
        a picture of a lit sphere. ao, shadow: ambient occlusion, and the key light's soft shadow. smooth:
        average normals over this many radii. background: a color, "TOP:BOTTOM", "transparent" or "studio".
        antialias: samples along each side of a pixel at edges. seed: of the random samples. Faults of the
        picture are given as a `UserWarning`.
        Raises `UsageError` for an unbounded tree or arguments that make no picture, `NoSurfaceError` for a
        field without a surface.
        """
        from .. import render

        camera = render.make_camera(self, azimuth, elevation, distance, eye, target, fov, up)
        made = render.picture(
            self,
            width,
            height,
            camera=camera,
            shading=render.make_shading(shading, color, matcap, ao, shadow, smooth),
            background=background,
            antialias=antialias,
            seed=seed,
        )
        for remark in render.remarks(made.report):
            warn(remark, stacklevel=2)
        return render.as_image(made.rgba)

    def _repr_png_(self) -> bytes | None:
        """A small picture for a notebook; None for a field that has none, such as an unbounded tree."""
        picture = BytesIO()
        try:
            with catch_warnings():
                simplefilter("ignore")
                self.render(*NOTEBOOK_SIZE).save(picture, "PNG")
        except NeuralSDFError:
            return None
        return picture.getvalue()

    # -- as part of a tree: csg/shape.py says what each does --------------------------------------

    def __or__(self, other: Field | Smooth) -> Shape:
        """Union."""
        return _shape(self) | other

    def __and__(self, other: Field | Smooth) -> Shape:
        """Intersection."""
        return _shape(self) & other

    def __sub__(self, other: Field | Smooth) -> Shape:
        """Difference: this field without the other."""
        return _shape(self) - other

    def __invert__(self) -> Shape:
        """Complement."""
        return ~_shape(self)

    def blend(self, other: Field, share: float = 0.5) -> Shape:
        """Interpolate between this field (share 0) and another (share 1)."""
        return _shape(self).blend(other, share)

    def translate(self, x: float, y: float = 0, z: float = 0) -> Shape:
        """Translate."""
        return _shape(self).translate(x, y, z)

    def rotate(self, angle: float, x: float = 0, y: float = 0, z: float | None = None) -> Shape:
        """Rotate about an axis through the origin, by default z; counter-clockwise seen from its tip."""
        return _shape(self).rotate(angle, x, y, z)

    def scale(self, factor: float) -> Shape:
        """Scale about the origin."""
        return _shape(self).scale(factor)

    def reflect(self, x: float, y: float = 0, z: float = 0) -> Shape:
        """Mirror in the plane through the origin with this normal."""
        return _shape(self).reflect(x, y, z)

    def symmetry(self, x: float, y: float = 0, z: float = 0) -> Shape:
        """Replace the side of the plane through the origin behind this normal by the mirrored other side."""
        return _shape(self).symmetry(x, y, z)

    def repeat(
        self, x: float, y: float = 0, z: float = 0, nx: float = 0, ny: float = 0, nz: float = 0
    ) -> Shape:
        """Copies with this spacing per axis, 0 for none; a count of 0 repeats endlessly both ways."""
        return _shape(self).repeat(x, y, z, nx, ny, nz)

    def twist(self, angle: float) -> Shape:
        """Twist about z, by an angle per unit of length along it."""
        return _shape(self).twist(angle)

    def offset(self, length: float) -> Shape:
        """Grow by a length, or shrink by a negative one."""
        return _shape(self).offset(length)

    def dilate(self, length: float) -> Shape:
        """Grow by a length."""
        return _shape(self).dilate(length)

    def erode(self, length: float) -> Shape:
        """Shrink by a length."""
        return _shape(self).erode(length)

    def round(self, radius: float) -> Shape:
        """Grow by a radius, which becomes the radius of the edges."""
        return _shape(self).round(radius)

    def shell(self, thickness: float) -> Shape:
        """A wall centred on the surface."""
        return _shape(self).shell(thickness)

    def hollow(self, thickness: float) -> Shape:
        """A wall on the inside of the surface."""
        return _shape(self).hollow(thickness)

    def displace(self, amplitude: float, wavelength: float) -> Shape:
        """Displace the surface by a wave pattern, `amplitude` sin x sin y sin z with this `wavelength`."""
        return _shape(self).displace(amplitude, wavelength)

    # -- for the library --------------------------------------------------------------------------

    def block_distance(self, points: npt.NDArray[Any], *, bound: bool = False) -> Values:
        """Signed distances (n,) float64 in mesh units at a block of points (n, 3) of mesh space."""
        if self.program is not None:
            return self.program.distance(points, self.frame)[0]
        local = self.frame.apply_inverse(points).astype(np.float32)
        return self.value(local).astype(np.float64) * self.frame.scale

    def block_distance_and_gradient(
        self, points: npt.NDArray[Any], *, bound: bool = False
    ) -> tuple[Values, Vectors]:
        """Distances (n,) in mesh units and their gradients (n, 3), at a block of points (n, 3)."""
        local = self.frame.apply_inverse(points).astype(np.float32)
        values, gradients = self.value_and_gradient(local)
        # d(scale * f(x / scale))/dx: the scales cancel, only the rotation remains.
        return values.astype(np.float64) * self.frame.scale, self.frame.rotate(gradients)


def _shape(field: Field) -> Shape:
    from ..csg import as_shape

    return as_shape(field)


def require_shape(field: Field) -> None:
    """Raise `NoSurfaceError` for a signed distance that is all but constant: its fit failed."""
    if field.kind != "distance":
        return
    rng = np.random.default_rng(0)
    points = rng.normal(size=(4096, 3))
    points *= rng.random((len(points), 1)) ** (1 / 3) / np.linalg.norm(points, axis=1, keepdims=True)
    require_range(field, field.value(points.astype(np.float32)))


def require_range(field: Field, values: FloatArray) -> None:
    """As `require_shape`, by the field's values (n,) at points all over its ball."""
    if field.kind == "distance" and values.max() - values.min() < LEAST_RANGE:
        raise NoSurfaceError(
            f"the field holds no shape: its values lie between {values.min():.2g} and {values.max():.2g} "
            "all over its ball"
        )


#: Coordinates below this fraction of the radius are rounding errors, and shown as 0.
_ROUNDING = 1e-12


@dataclass(frozen=True, eq=False)
class NeuralField(Field):
    """A network with its transform, where it came from, and the error that was measured.

    Outside its unit ball its values are lower bounds; `distance` is true there too, to the surface extracted
    when it is first needed, unless a bound is asked for. Raises `NoSurfaceError` where there is none.

    radius: of the ball about the origin that encloses the shape: 1 for our own files, 0.9 for those of the
    paper's authors. The network means something in the whole unit ball (theirs was trained in the cube).
    metrics: measured on these very weights (`metrics.measure`), lengths in model space; may be empty.
    settings: how it was made (optimiser, samples, seed, sign rule...), plain values.
    backend: the name of the backend that evaluates it; None for the fastest here.
    unit: of mesh space; None for that of its source. warnings: of its conversion; a file does not keep them.
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
    unit: str | None = None
    warnings: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.unit is None and self.source is not None:
            object.__setattr__(self, "unit", self.source.unit)

    def __repr__(self) -> str:
        radius = self.transform.scale * self.radius
        centre = (0.0 if abs(x) < _ROUNDING * radius else x for x in self.transform.centre)
        known = [
            None if self.source is None else f"of {self.source.name!r}",
            str(self.network.architecture),
            f"centre ({', '.join(f'{x:.4g}' for x in centre)})",
            f"radius {with_unit(f'{radius:.4g}', self.unit)}",
            f"IoU {self.metrics['iou']:.4f}" if "iou" in self.metrics else None,
        ]
        return f"NeuralField({', '.join(filter(None, known))})"

    def _rescaled(self, factor: float, unit: str) -> NeuralField:
        thickness = self.settings.get("thickness")
        scaled = {} if not isinstance(thickness, int | float) else {"thickness": thickness * factor}
        source = None if self.source is None else replace(self.source, unit=unit)
        transform = self.transform.scaled(factor)
        settings = self.settings | scaled
        return replace(self, transform=transform, source=source, settings=settings, unit=unit)

    @property
    def operations(self) -> int:
        """Operations that one value takes: kernels do some 64 multiplications in the time of one."""
        return 1 + self.network.weights.size // 64

    @cached_property
    def program(self) -> Program:
        """The network, compiled for its backend."""
        return get_backend(self.backend).compile(self.network, self.tolerance)

    @property
    def tolerance(self) -> float | None:
        """A tenth of its surface error, where that is known."""
        known = self.metrics.get("surface_mean")
        return None if known is None else ADDED_ERROR * known

    @property
    def error(self) -> float:
        """Its measured surface error; where that is not known, what networks of this kind have."""
        return self.metrics.get("surface_mean", USUAL_ERROR)

    @property
    def expected_volume(self) -> float | None:
        """That of the mesh that it was made from, if it was measured."""
        return self.metrics.get("mesh_volume")

    @property
    def known_volume(self) -> float | None:
        """That of its extracted surface, if it was measured."""
        return self.metrics.get("volume")

    @property
    def leaf(self) -> Network:
        """Its network: a tape evaluates that itself."""
        return self.network

    def value(self, points: FloatArray) -> FloatArray:
        """Values (n,) at points (n, 3) of model space; outside the unit ball those of `Extended`."""
        return Extended(self.program).value(points)

    def value_and_gradient(self, points: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Values (n,) and gradients (n, 3) at points (n, 3) of model space."""
        return Extended(self.program).value_and_gradient(points)

    @cached_property
    def surface(self) -> FieldSurface:
        """Its extracted surface; raises `NoSurfaceError` if there is none."""
        from .distance_outside_ball import FieldSurface

        return FieldSurface(self, get_backend(self.backend).triangle_bvh)

    def block_distance(self, points: npt.NDArray[Any], *, bound: bool = False) -> Values:
        """Signed distances (n,) in mesh units at points (n, 3) of mesh space; NaN for points not finite.

        bound: the lower bound outside the ball, without extracting the surface.
        """
        distances, outside = self.program.distance(points, self.transform)
        if not bound and outside.any():
            local = self.transform.apply_inverse(np.asarray(points)[outside])
            distances[outside] = self.surface.closest(local).distance * self.transform.scale
        return distances

    def block_distance_and_gradient(
        self, points: npt.NDArray[Any], *, bound: bool = False
    ) -> tuple[Values, Vectors]:
        """Distances (n,) in mesh units and their gradients (n, 3), at points (n, 3) of mesh space."""
        distances, gradients = super().block_distance_and_gradient(points, bound=True)
        local = model_points(points, self.transform)
        outside = np.flatnonzero((local * local).sum(axis=1) > 1)
        if not bound and len(outside):
            exact = self.transform.apply_inverse(np.asarray(points)[outside])
            lengths, closest, _ = self.surface.closest(exact)
            distances[outside] = lengths * self.transform.scale
            apart = (
                lengths > 0
            )  # where the surface itself is outside, by rounding, the bound's gradient is left
            directions = (exact - closest)[apart] / lengths[apart, None]
            gradients[outside[apart]] = self.transform.rotate(directions)
        return distances, gradients
