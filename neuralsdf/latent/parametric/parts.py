"""
parts.py
--------
Closed solids from which the families build their parts, and the union of the parts with a label per face.

x points to the right, y up, and z to the front. Solids are manifold3d's: triangle meshes whose Boolean
operations are exact and always give a closed, oriented manifold (E. Lalish, "Manifold",
github.com/elalish/manifold). Curves are polygons that deviate from the circle by at most `SAGITTA`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from ...array_types import Faces, Points
from ...errors import UsageError
from ...geometry.triangles import face_areas

try:
    from manifold3d import CrossSection, Error, FillRule, Manifold, Mesh64, OpType
except ImportError as error:
    raise UsageError("parametric shapes need manifold3d: pip install 'neuralsdf[latent]'") from error

#: A closed solid.
Solid: TypeAlias = Manifold

#: The solids of each part of a shape, by the part's name.
Parts: TypeAlias = Mapping[str, Sequence[Solid]]

#: A point in space, or a range of a coordinate.
Triple = tuple[float, float, float]
Range = tuple[float, float]

#: Maximum distance between a circle and its polygon, for a shape of size 1.
SAGITTA = 0.0008

#: Edges of a shape of size 1 that are shorter than this are collapsed: above the rounding of float32.
SHORTEST_EDGE = 1e-5

#: Edges of a shape of size 1 are divided until they have about this length, so that the vertices, and with
#: them the labels, cover the surface.
LONGEST_EDGE = 0.07


def block(x: Range, y: Range, z: Range) -> Solid:
    """The axis-aligned box of these ranges."""
    low, high = zip(x, y, z, strict=True)
    return Manifold.cube(tuple(np.subtract(high, low)), center=False).translate(low)


def centred(size: float, middle: float = 0.0) -> Range:
    """The range of this size about `middle`."""
    return middle - size / 2, middle + size / 2


def slab(outline: npt.ArrayLike, y: Range) -> Solid:
    """The outline, points (n, 2) of x and z in order, from one height to another."""
    return _extruded(np.asarray(outline, np.float64) * (1, -1), y).rotate((-90, 0, 0))


def prism(outline: npt.ArrayLike, x: Range) -> Solid:
    """The outline, points (n, 2) of z and y in order, from left to right."""
    return _extruded(np.asarray(outline, np.float64) * (-1, 1), x).rotate((0, 90, 0))


def _extruded(outline: Points, along: Range) -> Solid:
    section = CrossSection([outline], FillRule.NonZero)
    return Manifold.extrude(section, along[1] - along[0]).translate((0, 0, along[0]))


def lathe(profile: npt.ArrayLike) -> Solid:
    """A closed profile, points (n, 2) of radius (>= 0) and y in order, revolved about the y axis."""
    points = np.asarray(profile, np.float64)
    count = segments(float(points[:, 0].max()))
    return Manifold.revolve(CrossSection([points], FillRule.NonZero), count).rotate((-90, 0, 0))


def disc(radius: float, y: Range, centre: Range = (0.0, 0.0)) -> Solid:
    """An upright cylinder; centre: its x and z."""
    x, z = centre
    return rod((x, y[0], z), (x, y[1], z), radius)


def rod(start: Triple, end: Triple, radius: float, end_radius: float | None = None) -> Solid:
    """A cylinder or, with another radius at its end, a truncated cone."""
    along = np.subtract(end, start)
    normal = np.cross(along, np.eye(3)[np.abs(along).argmin()])
    ring = circle(1.0, segments(max(radius, end_radius or 0.0)))
    wide, narrow = radius, radius if end_radius is None else end_radius
    return sweep([start, end], normal, np.stack([wide * ring, narrow * ring]))


def post(start: Triple, end: Triple, thickness: float, end_thickness: float | None = None) -> Solid:
    """A bar of square horizontal section from one height to another, upright, tapered or inclined."""
    square = np.array([(-1, -1), (1, -1), (1, 1), (-1, 1)]) / 2
    thick = (thickness, thickness if end_thickness is None else end_thickness)
    rings = np.tile(np.array([start, end], np.float64)[:, None], (1, 4, 1))
    rings[:, :, [0, 2]] += np.array(thick)[:, None, None] * square
    return loft(rings)


def sweep(path: npt.ArrayLike, normal: npt.ArrayLike, sections: npt.ArrayLike) -> Solid:
    """A convex section moved along a path.

    path: (n, 3). normal: (3,), not parallel to the path at any point; the first axis of a section lies along
    it, the second is perpendicular to it and to the path. sections: (m, 2) points in order, or (n, m, 2) for
    one at each point of the path.
    """
    points = np.asarray(path, np.float64)
    tangent = np.gradient(points, axis=0)
    side = np.cross(tangent, np.asarray(normal, np.float64))
    side /= np.linalg.norm(side, axis=1, keepdims=True)
    upright = np.cross(side, tangent)
    upright /= np.linalg.norm(upright, axis=1, keepdims=True)
    outlines = np.broadcast_to(np.asarray(sections, np.float64), (len(points), *np.shape(sections)[-2:]))
    return loft(points[:, None] + outlines[..., :1] * upright[:, None] + outlines[..., 1:] * side[:, None])


def loft(rings: npt.ArrayLike) -> Solid:
    """The solid between consecutive rings (n, m, 3) of corresponding points; the end rings are convex."""
    vertices = np.asarray(rings, np.float64)
    count, around = vertices.shape[:2]
    index = np.arange(count * around).reshape(count, around)
    low, high = index[:-1], index[1:]
    next_low, next_high = np.roll(low, -1, axis=1), np.roll(high, -1, axis=1)
    sides = np.stack([low, next_low, next_high, low, next_high, high], axis=-1).reshape(-1, 3)
    fan = np.stack([np.zeros(around - 2, int), np.arange(1, around - 1), np.arange(2, around)], axis=1)
    faces = np.concatenate([sides, fan[:, ::-1], fan + index[-1, 0]]).astype(np.uint64)
    points = np.ascontiguousarray(vertices.reshape(-1, 3))
    if _volume(points, faces) < 0:
        faces = np.ascontiguousarray(faces[:, ::-1])
    solid = Manifold(Mesh64(points, faces))
    assert solid.status() == Error.NoError
    return solid


def _volume(points: Points, faces: npt.NDArray[np.uint64]) -> float:
    a, b, c = np.moveaxis(points[faces.astype(np.int64)], 1, 0)
    return float(np.einsum("ij,ij->", a, np.cross(b, c)) / 6)


def segments(radius: float) -> int:
    """Number of sides of a polygon that deviates from the circle by `SAGITTA`; a multiple of 4."""
    angle = np.arccos(1 - min(SAGITTA / radius, 1.0))
    return int(np.clip(4 * np.ceil(np.pi / angle / 4), 12, 64))


def circle(radius: float, count: int | None = None) -> Points:
    """Points (n, 2) of a regular polygon around the origin."""
    count = segments(radius) if count is None else count
    angle = 2 * np.pi * (np.arange(count) + 0.5) / count
    return radius * np.stack([np.cos(angle), np.sin(angle)], axis=1)


def rounded_rectangle(width: float, depth: float, radius: float) -> Points:
    """Outline (n, 2) of a rectangle around the origin, with rounded corners unless the radius is small."""
    radius = min(radius, 0.499 * width, 0.499 * depth)
    half = np.array([width, depth]) / 2
    corners = np.array([(1, 1), (-1, 1), (-1, -1), (1, -1)])
    if radius < 0.01:
        sharp: Points = half * corners
        return sharp
    steps = segments(radius) // 4
    angle = np.linspace(0, np.pi / 2, steps + 1)[None] + np.pi / 2 * np.arange(4)[:, None]
    arcs = radius * np.stack([np.cos(angle), np.sin(angle)], axis=-1)
    outline: Points = (((half - radius) * corners)[:, None] + arcs).reshape(-1, 2)
    return outline


def smooth(knots: npt.ArrayLike, values: npt.ArrayLike, at: npt.ArrayLike) -> Points:
    """Values at `at` of a smooth curve through increasing knots, which does not overshoot (PCHIP)."""
    from scipy.interpolate import PchipInterpolator

    x, y, queries = (np.asarray(array, np.float64) for array in (knots, values, at))
    curve: Points = PchipInterpolator(x, y)(queries)
    return curve


def both_sides(solids: Iterable[Solid]) -> list[Solid]:
    """The solids and their mirror images in the plane x = 0."""
    return [copy for solid in solids for copy in (solid, solid.mirror((1, 0, 0)))]


@dataclass(frozen=True, eq=False)
class LabelledMesh:
    """A closed, outward-oriented triangle mesh whose surface is divided into parts.

    vertices: (V, 3) float64. faces: (F, 3) int64. face_labels: (F,) uint8, the part that each face is of.
    vertex_labels: (V,) uint8; a vertex between several parts has the smallest of their labels. volume: of the
    solid. bodies: number of connected components.
    """

    vertices: Points
    faces: Faces
    face_labels: npt.NDArray[np.uint8]
    vertex_labels: npt.NDArray[np.uint8]
    volume: float
    bodies: int

    @property
    def min_height(self) -> float:
        """The smallest height of a face, which is zero if its corners lie on a line."""
        corners = self.vertices[self.faces]
        longest = np.linalg.norm(corners - np.roll(corners, 1, axis=1), axis=2).max(axis=1)
        return float((2 * face_areas(self.vertices, self.faces) / longest).min())


def united(parts: Parts, names: Sequence[str]) -> LabelledMesh:
    """The union of the parts, centred, with a longest side of 1; labels: positions in `names`.

    A point of the surface has the label of the part on whose surface it lies.
    """
    label_of: dict[int, int] = {}
    solids = []
    for name, members in parts.items():
        for member in members:
            solids.append(member.as_original())
            label_of[solids[-1].original_id()] = names.index(name)
    whole = Manifold.batch_boolean(solids, OpType.Add)
    low, high = np.reshape(whole.bounding_box(), (2, 3))
    size = float((high - low).max())
    scaled = whole.translate(-(low + high) / 2).scale(np.full(3, 1 / size))
    fine = scaled.simplify(SHORTEST_EDGE).refine_to_length(LONGEST_EDGE)
    mesh = fine.to_mesh64()
    faces = mesh.tri_verts.astype(np.int64)
    vertices = mesh.vert_properties[:, :3].copy()
    runs = np.array([label_of[number] for number in mesh.run_original_id], np.uint8)
    face_labels = np.repeat(runs, np.diff(mesh.run_index) // 3)
    vertex_labels = np.full(len(vertices), 255, np.uint8)
    np.minimum.at(vertex_labels, faces, face_labels[:, None])
    return LabelledMesh(vertices, faces, face_labels, vertex_labels, fine.volume(), len(scaled.decompose()))
