"""
field.py
--------
Fields: functions over all of space that are signed distances, bounds of them, or occupancies. Values are
negative inside.

Fields are evaluated in model space, where the shape is in the unit ball about the origin. A field's transform
maps model space to mesh space.
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

from ..array_types import FloatArray, Mask, Points, Values, Vectors
from ..backends import Backend, Program, get_backend
from ..backends.value_outside_ball import Extended, model_points
from ..errors import NeuralSDFError, NoSurfaceError
from ..geometry.similarity_transform import Similarity
from ..geometry.unit_ball import uniform_ball
from ..mesh.mesh import Source
from ..program.network import Network
from ..program.tape_format import Leaf
from ..units import length_ratio, with_unit

if TYPE_CHECKING:
    import trimesh
    from PIL import Image

    from ..csg.shape import Shape, Smooth
    from ..render.camera import Up
    from ..render.shading import Style
    from .distance_outside_ball import FieldSurface

Kind = Literal["distance", "bound", "occupancy"]

#: Width and height in pixels of the picture in a notebook.
NOTEBOOK_SIZE = (320, 320)

#: The values of a signed distance in the ball have at least this range, for any shape.
MIN_RANGE = 0.05

#: Error that faster evaluation of a network may add, as a fraction of its surface error.
ADDED_ERROR = 0.1

#: Assumed surface error of a network if it is unknown, as for the networks of the paper's authors.
TYPICAL_ERROR = 0.002

#: The setting that holds a network's `limit`, and the fraction of it from which values are only lower bounds:
#: the corners of the limit are round if the activation is softplus.
CLAMP, _REACHED = "clamp", 0.9

#: Rounding error of the values of trees and meshes: float32 rounds coordinates in the ball by 6e-8, and a
#: value is computed from a few dozen of them.
VALUE_ROUNDING = 4e-6


class Field(ABC):
    """Base class of fields: networks, meshes, CSG trees.

    kind: "distance" (approximately the true one), "bound" (divided by `lipschitz`, a lower bound of the true
    one) or "occupancy".
    exact: whether the values are the true distance, up to rounding.
    lipschitz: Lipschitz constant of the values, up to a network's errors; None if unknown.
    rounding: values closer to zero than this can have either sign; 0 if no films (zero sets without
    thickness) are expected.
    limit: values are limited to [-limit, limit] in model space, so they are lower bounds of larger distances;
    None for no limit.
    transform: the map from model space to mesh space.
    """

    kind: Kind
    exact: bool = False
    lipschitz: float | None = None
    rounding: float = 0.0
    transform: Similarity

    #: The unit of mesh space, one of `units.LENGTHS`; None if unknown.
    unit: str | None = None
    #: Measured metrics, with lengths in model space (radius 1): see `evaluation.metrics.measure`.
    metrics: Mapping[str, float] = MappingProxyType({})
    #: Warnings for the user, a sentence each.
    warnings: tuple[str, ...] = ()
    #: The file that contains the field unchanged; None for a field made or changed in memory.
    path: Path | None = None
    #: The backend that was chosen to evaluate it; None for the default.
    chosen_backend: Backend | None = None

    @property
    def backend(self) -> Backend:
        """The backend that evaluates it. The default is loaded when it is first used."""
        return self.chosen_backend or get_backend()

    def __getstate__(self) -> dict[str, Any]:
        """State for copies and pickles, without attributes computed on first use, such as programs."""
        computed = {
            name for name in vars(self) if isinstance(getattr(type(self), name, None), cached_property)
        }
        return {name: value for name, value in vars(self).items() if name not in computed}

    @abstractmethod
    def value(self, points: FloatArray) -> FloatArray:
        """Values (n,) at points (n, 3) of model space, anywhere."""

    @abstractmethod
    def value_and_gradient(self, points: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Values (n,) and gradients (n, 3) at points (n, 3) of model space, anywhere."""

    @property
    def program(self) -> Program | None:
        """The program with which a backend evaluates and traces the field in the unit ball; None if there is
        none."""
        return None

    @property
    def operations(self) -> int:
        """Operations per value, of about a nanosecond each. Limits on work use it."""
        return 1

    @property
    def box(self) -> tuple[Points, Points]:
        """Minimum and maximum corner (3,) of a box in model space that contains the shape.

        That of the unit ball, unless a tighter one is known without searching for the surface.
        """
        return -np.ones(3), np.ones(3)

    @property
    def tolerance(self) -> float | None:
        """Error that faster evaluation may add, in model space; None if the values must not change."""
        return None

    @property
    def error(self) -> float:
        """Mean error of the surface in model space; 0 if the values define the surface."""
        return 0.0

    @property
    def expected_volume(self) -> float | None:
        """The volume that the surface should have, in model space; None if unknown."""
        return None

    @property
    def known_volume(self) -> float | None:
        """The volume of the surface at a sufficient resolution, in model space; None if not measured."""
        return None

    @property
    def leaf(self) -> Leaf:
        """The leaf for a tape: a network, or the field itself, which is evaluated block by block."""
        return self

    def in_unit(self, unit: str) -> Field:
        """Convert the lengths in mesh space to another unit.

        Raises `UsageError` if the field's unit is unknown.
        """
        return self._rescaled(length_ratio(self.unit, unit), unit)

    def _rescaled(self, factor: float, unit: str) -> Field:
        other = copy(self)
        other.transform, other.unit, other.path = self.transform.scaled(factor), unit, None
        return other

    @property
    def surface(self) -> FieldSurface | None:
        """The extracted surface for closest points; None if values and gradients are used instead."""
        return None

    @property
    def limit(self) -> float | None:
        """The limit of the values; None if there is none."""
        return None

    @property
    def is_bound(self) -> bool:
        """Whether `distance` can be a lower bound even without `bound`."""
        return self.kind == "bound"

    @property
    def frame(self) -> Similarity:
        """The map from the space of evaluation to mesh space: `transform`, except for unbounded trees."""
        return self.transform

    def distance(self, points: npt.ArrayLike, *, bound: bool = False) -> Values:
        """Signed distances (...,) in mesh units at points (..., 3) of mesh space; negative inside.

        points: an array, or lists. For a network, the distances are correct up to its error, also outside its
        ball. For a tree they are lower bounds (`is_bound`). bound: return lower bounds outside the ball and
        beyond the `limit`, which is faster. Points that are not finite give NaN. Raises `FieldKindError` for
        an occupancy field, `UsageError` for points of another shape, `NoSurfaceError` for a network without a
        surface.
        """
        from .query import signed_distance

        return signed_distance(self, points, bound=bound)

    def gradient(self, points: npt.ArrayLike, *, bound: bool = False) -> Vectors:
        """Gradients (..., 3) of the signed distance at points (..., 3) of mesh space, outwards.

        For an exact distance their norm is 1. For a tree they are gradients of the lower bound: their norm
        can differ from 1, and they are one-sided at creases. bound, NaN and exceptions are as for `distance`.
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
        """Write the field to a file atomically: a network as .h5, a tree (or any field) as .csg.

        layout: "native"; "keras" for .h5 files in the layout of the paper's authors; "code" for the latent
        code of a shape, which needs its decoder. bundle: include the files that a tree refers to in the .csg;
        fields made in memory are always included. allow_outside: allow references to files outside the folder
        of the file. force: replace an existing file. Raises `UsageError` for another suffix or a field that
        the format does not support, `OutputError` if the file cannot be written.
        """
        from ..storage import save_field

        save_field(self, Path(path), layout=layout, bundle=bundle, allow_outside=allow_outside, force=force)

    @property
    def bounds(self) -> Points:
        """Minimum and maximum corner (2, 3) of the shape in mesh units.

        They are computed on first access: from the faces of a closed mesh, else from the mesh of `to_mesh`.
        Raises `UsageError` for an unbounded tree, `NoSurfaceError` for a field without a surface.
        """
        return self._measures[0].copy()

    @property
    def volume(self) -> float:
        """Volume of the shape in mesh units cubed: from its metrics, else computed as for `bounds`."""
        known = self.known_volume
        return self._measures[1] if known is None else known * self.transform.scale**3

    @cached_property
    def _measures(self) -> tuple[Points, float]:
        """Bounds (2, 3) and volume in mesh units."""
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
        """Extract the surface as a watertight `trimesh.Trimesh` in mesh units.

        resolution: cells along a side of the bounding cube; None for 256, doubled until the volume and the
        number of shells no longer change. max_memory: memory limit in bytes; None for 2 GB. faces: maximum
        number of faces, by decimation. normals: compute smooth vertex normals from the field's gradient.
        Defects of the mesh are reported as `UserWarning`. Raises `UsageError` for an unbounded tree or a
        number out of range, `NoSurfaceError` for a field without a surface.
        """
        import trimesh

        from .decimate import reduced_surface
        from .vertex_normals import surface_normals

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
        """Render a picture as a PIL image: `field.render().save("bunny.png")`.

        width, height: in pixels. azimuth, elevation: of the camera in degrees, from the front of the shape
        and from the horizon; None for 30 and 20. distance: of the camera from the target in bounding radii;
        None frames the shape. eye: position of the camera, instead of these three. target: the point at the
        centre of the picture; None for the centre of the shape. Both are (3,) in mesh units. fov: field of
        view in degrees across the shorter side. up: the axis that points up, "y" or "z".
        shading: "lambert", "normals", "depth" or "matcap". color: surface color, such as "#c08060". matcap:
        file with a picture of a lit sphere. ao: ambient occlusion. shadow: soft shadow of the key light.
        smooth: radius over which normals are averaged, in bounding radii. background: a color, "TOP:BOTTOM",
        "transparent" or "studio". antialias: samples along each side of a pixel, at edges. seed: seed of
        random samples. Defects of the picture are reported as `UserWarning`.
        Raises `UsageError` for an unbounded tree or invalid arguments, `NoSurfaceError` for a field without a
        surface.
        """
        from .. import render

        camera = render.make_camera(self, azimuth, elevation, distance, eye, target, fov, up)
        rendered = render.picture(
            self,
            width,
            height,
            camera=camera,
            shading=render.make_shading(shading, color, matcap, ao, shadow, smooth),
            background=background,
            antialias=antialias,
            seed=seed,
        )
        for remark in render.remarks(rendered.report):
            warn(remark, stacklevel=2)
        return render.as_image(rendered.rgba)

    def _repr_png_(self) -> bytes | None:
        """A small picture for notebooks; None if the field cannot be rendered, such as an unbounded tree."""
        picture = BytesIO()
        try:
            with catch_warnings():
                simplefilter("ignore")
                self.render(*NOTEBOOK_SIZE).save(picture, "PNG")
        except NeuralSDFError:
            return None
        return picture.getvalue()

    # -- CSG operations; csg/shape.py documents them ----------------------------------------------

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
        """Interpolate between this field (`share` 0) and another (`share` 1)."""
        return _shape(self).blend(other, share)

    def translate(self, x: float, y: float = 0, z: float = 0) -> Shape:
        """Translate."""
        return _shape(self).translate(x, y, z)

    def rotate(self, angle: float, x: float = 0, y: float = 0, z: float | None = None) -> Shape:
        """Rotate about an axis through the origin, by default z; counter-clockwise if the axis points to the
        viewer."""
        return _shape(self).rotate(angle, x, y, z)

    def scale(self, factor: float) -> Shape:
        """Scale about the origin."""
        return _shape(self).scale(factor)

    def reflect(self, x: float, y: float = 0, z: float = 0) -> Shape:
        """Mirror at the plane through the origin with this normal."""
        return _shape(self).reflect(x, y, z)

    def symmetry(self, x: float, y: float = 0, z: float = 0) -> Shape:
        """Replace the half-space behind the plane through the origin with this normal by a mirror image of
        the other one."""
        return _shape(self).symmetry(x, y, z)

    def repeat(
        self, x: float, y: float = 0, z: float = 0, nx: float = 0, ny: float = 0, nz: float = 0
    ) -> Shape:
        """Repeat with this spacing along each axis, 0 for none; a count of 0 repeats without bounds."""
        return _shape(self).repeat(x, y, z, nx, ny, nz)

    def twist(self, angle: float) -> Shape:
        """Twist about z, by an angle per unit of length."""
        return _shape(self).twist(angle)

    def offset(self, length: float) -> Shape:
        """Grow by a length, or shrink if it is negative."""
        return _shape(self).offset(length)

    def dilate(self, length: float) -> Shape:
        """Grow by a length."""
        return _shape(self).dilate(length)

    def erode(self, length: float) -> Shape:
        """Shrink by a length."""
        return _shape(self).erode(length)

    def round(self, radius: float) -> Shape:
        """Grow by a radius, which rounds edges to this radius."""
        return _shape(self).round(radius)

    def shell(self, thickness: float) -> Shape:
        """Replace the solid by a wall centred on its surface."""
        return _shape(self).shell(thickness)

    def hollow(self, thickness: float) -> Shape:
        """Replace the solid by a wall on the inside of its surface."""
        return _shape(self).hollow(thickness)

    def displace(self, amplitude: float, wavelength: float) -> Shape:
        """Displace the surface by the pattern `amplitude` sin x sin y sin z with this wavelength."""
        return _shape(self).displace(amplitude, wavelength)

    # -- internal ---------------------------------------------------------------------------------

    def block_distance(self, points: npt.NDArray[Any], *, bound: bool = False) -> Values:
        """Signed distances (n,) float64 in mesh units at a block of points (n, 3) of mesh space."""
        if self.program is not None:
            return self.program.distance(points, self.frame)[0]
        local = self.frame.apply_inverse(points).astype(np.float32)
        return self.value(local).astype(np.float64) * self.frame.scale

    def block_distance_and_gradient(
        self, points: npt.NDArray[Any], *, bound: bool = False
    ) -> tuple[Values, Vectors]:
        """Signed distances (n,) in mesh units and gradients (n, 3) at points (n, 3) of mesh space."""
        local = self.frame.apply_inverse(points).astype(np.float32)
        values, gradients = self.value_and_gradient(local)
        # In d(scale * f(x / scale))/dx the scales cancel; only the rotation remains.
        return values.astype(np.float64) * self.frame.scale, self.frame.rotate(gradients)


def _shape(field: Field) -> Shape:
    from ..csg import as_shape

    return as_shape(field)


def require_shape(field: Field) -> None:
    """Raise `NoSurfaceError` for a signed distance that is almost constant, because its fit failed."""
    if field.kind != "distance":
        return
    points = uniform_ball(4096, np.random.default_rng(0))
    require_range(field, field.value(points.astype(np.float32)))


def require_range(field: Field, values: FloatArray) -> None:
    """As `require_shape`, from the field's values (n,) at points throughout its ball."""
    low, high = float(values.min()), float(values.max())
    if field.kind == "distance" and high - low < min(MIN_RANGE, field.limit or MIN_RANGE):
        raise NoSurfaceError(
            f"the field has no shape: its values differ by only {high - low:.2g} in its ball ({low:.2g} "
            f"to {high:.2g}), those of a shape by {MIN_RANGE} or more"
        )


#: Coordinates below this fraction of the radius are rounding errors and shown as 0.
_COORDINATE_ROUNDING = 1e-12


def described_ball(field: Field, radius: float = 1.0) -> str:
    """Centre and radius of the ball around a field's shape, in mesh units. radius: in model space."""
    size = field.transform.scale * radius
    centre = (0.0 if abs(x) < _COORDINATE_ROUNDING * size else x for x in field.transform.centre)
    return f"centre ({', '.join(f'{x:.4g}' for x in centre)}), radius {with_unit(f'{size:.4g}', field.unit)}"


@dataclass(frozen=True, eq=False)
class NeuralField(Field):
    """A network with its transform, source and metrics.

    Outside the unit ball, and where they reach the `limit`, its values are lower bounds. `distance` is
    correct there too: it uses the extracted surface, unless `bound` is given, and raises `NoSurfaceError` if
    there is none.

    radius: of the ball about the origin that encloses the shape: 1, or 0.9 for files of the paper's authors.
    The network is valid in the whole unit ball.
    metrics: of the weights as stored (`metrics.measure`), with lengths in model space; may be empty.
    settings: how the network was fitted (optimizer, samples, seed, inside test...), as plain values. The
    clamp of a latent model is the `limit`.
    chosen_backend: evaluates it; None for the default.
    unit: of mesh space; None for that of `source`. warnings: of the conversion; they are not stored in files.
    """

    network: Network
    transform: Similarity
    source: Source | None = None
    metrics: dict[str, float] = field(default_factory=dict)
    settings: dict[str, Any] = field(default_factory=dict)
    precision: str = "f32"
    layout: str = "native"
    radius: float = 1.0
    chosen_backend: Backend | None = None
    kind: Kind = "distance"
    unit: str | None = None
    warnings: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.unit is None and self.source is not None:
            object.__setattr__(self, "unit", self.source.unit)

    def __repr__(self) -> str:
        parts = [
            None if self.source is None else f"of {self.source.name!r}",
            str(self.network.architecture),
            described_ball(self, self.radius),
            f"IoU {self.metrics['iou']:.4f}" if "iou" in self.metrics else None,
        ]
        return f"{type(self).__name__}({', '.join(filter(None, parts))})"

    def _rescaled(self, factor: float, unit: str) -> NeuralField:
        thickness = self.settings.get("thickness")
        scaled = {"thickness": thickness * factor} if isinstance(thickness, int | float) else {}
        source = None if self.source is None else replace(self.source, unit=unit)
        transform = self.transform.scaled(factor)
        settings = self.settings | scaled
        return replace(self, transform=transform, source=source, settings=settings, unit=unit)

    @property
    def operations(self) -> int:
        """Operations per value: a kernel performs about 64 multiplications per nanosecond."""
        return 1 + self.network.weights.size // 64

    @cached_property
    def program(self) -> Program:
        """The network, compiled for its backend."""
        return self.backend.compile(self.network, self.tolerance)

    @property
    def limit(self) -> float | None:
        """The clamp of the training, if the network has one."""
        clamp = self.settings.get(CLAMP)
        return clamp if isinstance(clamp, float) and clamp > 0 else None

    @property
    def tolerance(self) -> float | None:
        """A tenth of the surface error. If that is unknown, of a typical one with a `limit`, else None."""
        error = self.metrics.get("surface_mean", None if self.limit is None else TYPICAL_ERROR)
        return None if error is None else ADDED_ERROR * error

    @property
    def error(self) -> float:
        """The measured surface error; a typical one if it is unknown."""
        return self.metrics.get("surface_mean", TYPICAL_ERROR)

    @property
    def expected_volume(self) -> float | None:
        """Volume of the original mesh in model space; None if not measured."""
        return self.metrics.get("mesh_volume")

    @property
    def known_volume(self) -> float | None:
        """Volume of the extracted surface in model space; None if not measured."""
        return self.metrics.get("volume")

    @property
    def leaf(self) -> Network:
        """The network, which a tape evaluates directly."""
        return self.network

    def value(self, points: FloatArray) -> FloatArray:
        """Values (n,) at points (n, 3) of model space; extended outside the unit ball (`Extended`)."""
        return Extended(self.program).value(points)

    def value_and_gradient(self, points: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Values (n,) and gradients (n, 3) at points (n, 3) of model space."""
        return Extended(self.program).value_and_gradient(points)

    @cached_property
    def surface(self) -> FieldSurface:
        """The extracted surface. Raises `NoSurfaceError` if there is none."""
        from .distance_outside_ball import FieldSurface

        return FieldSurface(self, self.backend.triangle_bvh)

    def block_distance(self, points: npt.NDArray[Any], *, bound: bool = False) -> Values:
        """Signed distances (n,) in mesh units at points (n, 3) of mesh space; NaN if not finite.

        bound: return lower bounds outside the ball and beyond the limit, without extracting the surface.
        """
        distances, outside = self.program.distance(points, self.transform)
        beyond = self._are_bounds(distances, outside)
        if not bound and beyond.any():
            local = self.transform.apply_inverse(np.asarray(points)[beyond])
            lengths = self.surface.closest(local).distance * self.transform.scale
            distances[beyond] = np.copysign(lengths, distances[beyond])
        return distances

    def block_distance_and_gradient(
        self, points: npt.NDArray[Any], *, bound: bool = False
    ) -> tuple[Values, Vectors]:
        """Signed distances (n,) in mesh units and gradients (n, 3) at points (n, 3) of mesh space."""
        distances, gradients = super().block_distance_and_gradient(points, bound=True)
        local = model_points(points, self.transform)
        beyond = np.flatnonzero(self._are_bounds(distances, (local * local).sum(axis=1) > 1))
        if not bound and len(beyond):
            # In double precision, unlike `local`.
            points_beyond = self.transform.apply_inverse(np.asarray(points)[beyond])
            lengths, closest, _ = self.surface.closest(points_beyond)
            signed = np.copysign(lengths, distances[beyond])
            distances[beyond] = signed * self.transform.scale
            # A length of 0 is a surface point outside the ball, by rounding: keep the gradient of the bound.
            positive = lengths > 0
            directions = (points_beyond - closest)[positive] / signed[positive, None]
            gradients[beyond[positive]] = self.transform.rotate(directions)
        return distances, gradients

    def _are_bounds(self, distances: Values, outside: Mask) -> Mask:
        """Where values in mesh units (n,) are only lower bounds: outside the ball (n,), and at the limit."""
        if self.limit is None:
            return outside
        beyond: Mask = outside | (np.abs(distances) >= _REACHED * self.limit * self.transform.scale)
        return beyond
