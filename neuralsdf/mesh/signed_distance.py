"""
signed_distance.py
------------------
Signed distance of a triangle mesh, negative inside: the distance to the closest point, with the sign of an
inside test (inside_or_outside.py). Works in model space: the shape in the unit ball.

`igl.signed_distance` is not used: with winding numbers it returns d (1 - 2w), which is not a distance.
"""

from __future__ import annotations

from functools import cached_property
from typing import Any

import igl
import numpy as np

from ..array_types import Faces, Index, Mask, Points, Values, Vectors
from ..errors import UsageError
from ..geometry.bvh import WINDING_ACCURACY, MakeBVH, Refinements, triangle_bvh
from ..geometry.similarity_transform import Similarity
from ..geometry.triangles import face_runs, sample_surface
from .closing_sheet import closing_sheet
from .inside_or_outside import RAY_DIRECTIONS, SIGNS, Sign, are_inside, odd_crossings
from .orientation import PROBES, Orientation, orientation, surface_probes, uniform_probes
from .pseudonormals import Pseudonormals

#: Memory of the mesh, its distances and a conversion, in bytes per face.
FACE_BYTES = 560

#: Accuracy for the closing sheet, which is interpolated and needs no more.
_SHEET_ACCURACY = WINDING_ACCURACY[:2]


_PROBED_AREA = 4_000  # surface points that measure the unenclosed fraction
BESIDE = 1e-4  # distance of the probes from the surface
_MIN_REPORTED, _NO_INTERIOR = 0.05, 0.9  # unenclosed fractions: above, reported; above, no interior


def near_faces(vertices: Points, faces: Faces) -> float:
    """About how many of faces (F, 3) a BVH tests one by one for a point of the unit ball, on average.

    These are the faces that are closer to the point than their own size. Slivers count less, since their
    boxes overlap less: on rods of 500 to 6000 sides and on random triangles this count is right to a factor
    of ten. For an ordinary mesh it is less than one, for a heap of large triangles nearly all of them.
    """
    near = 0.0
    for run in face_runs(len(faces)):
        corners = vertices[faces[run]]
        radii = np.linalg.norm(corners - corners.mean(axis=1, keepdims=True), axis=2).max(axis=1)
        edges = corners[:, 1:] - corners[:, :1]
        areas = np.linalg.norm(np.cross(edges[:, 0], edges[:, 1]), axis=1) / 2
        # An equilateral triangle's area is 1.3 squared radii.
        fatness = np.sqrt(np.minimum(areas / 1.3, radii**2) / np.maximum(radii**2, 1e-300))
        near += float((np.minimum(radii**3, 1) * fatness).sum())
    return near


class SignedDistance:
    """Signed distance oracle of a mesh in model space; builds its BVHs once.

    With sign="winding", an open mesh is closed by the sheet where w = 1/2 (see `closing_sheet`), so that the
    distance is continuous and belongs to a solid.

    vertices (V, 3) float64, faces (F, 3) int64: clean, as in `mesh.Mesh`. sign: inside test. thickness: T > 0
    (model units) selects the solid |d| < T/2 around the surface instead, which needs no inside. make_bvh:
    builds the BVHs for queries, also for other meshes compared with this one.
    Raises `UsageError` for an unknown sign or a thickness that is not positive and finite.
    """

    def __init__(
        self,
        vertices: Points,
        faces: Faces,
        sign: Sign = "winding",
        thickness: float | None = None,
        make_bvh: MakeBVH = triangle_bvh,
    ) -> None:
        if sign not in SIGNS:
            raise UsageError(f"`sign={sign!r}` is unknown; one of {', '.join(SIGNS)}")
        if thickness is not None and not 0 < thickness < np.inf:
            raise UsageError(f"`thickness={thickness}` must be positive")
        self.vertices = np.ascontiguousarray(vertices, np.float64)
        self.faces = np.ascontiguousarray(faces, np.int64)
        self.sign: Sign = sign
        self.thickness = thickness
        self.make_bvh = make_bvh
        self._bvh = make_bvh(self.vertices, self.faces)
        self._faces_of_bvh = self.faces
        self._negated = False
        self.orientation: Orientation | None = None
        if thickness is None and sign != "parity":
            self._orient()
        self._solid = self.vertices, self.faces, self._bvh
        self.sheet = self._closing_sheet()

    def _orient(self) -> None:
        """Flip inverted faces."""
        self.orientation = orientation(self.vertices, self.faces, self._bvh)
        flipped = self.orientation.flipped
        if not flipped.any():
            return
        self.faces = self.orientation.oriented_faces
        if flipped.all():
            self._negated = True  # flipping all faces only negates the winding numbers
        else:
            self._bvh = self.make_bvh(self.vertices, self.faces)
            self._faces_of_bvh = self.faces

    def __getstate__(self) -> dict[str, Any]:
        """State for pickling, without the BVHs, which are rebuilt."""
        kept = {name: value for name, value in vars(self).items() if name != "_bvh"}
        return kept | {"_solid": self._solid[:2]}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self._bvh = self.make_bvh(self.vertices, self._faces_of_bvh)
        vertices, faces = state["_solid"]
        closed = len(self.sheet[1]) > 0
        self._solid = vertices, faces, self.make_bvh(vertices, faces) if closed else self._bvh

    @property
    def flipped(self) -> bool:
        """Whether any faces were flipped; `orientation` has the details."""
        return self.orientation is not None and bool(self.orientation.flipped.any())

    def _closing_sheet(self) -> tuple[Points, Faces]:
        """Compute the closing sheet and add it to the solid's surface; empty if there is none."""
        if self.thickness is not None or self.sign != "winding":
            return np.empty((0, 3)), np.empty((0, 3), np.int64)
        sheet_vertices, sheet_faces = closing_sheet(
            self.vertices,
            self.faces,
            lambda points: self._winding_number(points, _SHEET_ACCURACY),
            self._bvh.distance,
            self.make_bvh,
        )
        if len(sheet_faces):
            vertices = np.concatenate([self.vertices, sheet_vertices])
            faces = np.concatenate([self.faces, sheet_faces + len(self.vertices)])
            self._solid = vertices, faces, self.make_bvh(vertices, faces)
        return sheet_vertices, sheet_faces

    # -- distance -------------------------------------------------------------------------------

    def closest(self, points: Points) -> tuple[Values, Index, Points]:
        """Distance (n,), closest face (n,) and closest point (n, 3) on the mesh for points (n, 3)."""
        return self._bvh.closest(points)

    def unsigned(self, points: Points) -> Values:
        """Unsigned distance (n,) of points (n, 3) to the surface: the mesh and its closing sheet."""
        return self._solid[2].distance(points)

    def magnitude(self, unsigned: Values) -> Values:
        """|signed distance| (n,) from the unsigned distance (n,), without computing the sign."""
        return unsigned if self.thickness is None else np.abs(unsigned - self.thickness / 2)

    def signed(self, points: Points, unsigned: Values | None = None) -> Values:
        """Signed distance (n,) at points (n, 3), negative inside; unsigned (n,): if already known."""
        distance = self.unsigned(points) if unsigned is None else unsigned
        if self.thickness is not None:
            return distance - self.thickness / 2
        return np.where(self.inside(points), -distance, distance)

    def gradient(self, points: Points) -> Vectors:
        """Gradient (n, 3) of the signed distance at points (n, 3), unit vectors.

        Within 1e-5 of the surface it is the normal of the closest face, because rounding dominates the
        difference of positions there.
        """
        vertices, faces, bvh = self._solid
        distance, face, nearest = bvh.closest(points)
        away: Vectors = (points - nearest) / np.maximum(distance, 1e-300)[:, None]
        if self.thickness is None:  # else |d| - T/2 increases away from the mesh on both sides
            away[self.inside(points)] *= -1
        close = distance < 1e-5
        corner = vertices[faces[face[close]]]
        normal = np.cross(corner[:, 1] - corner[:, 0], corner[:, 2] - corner[:, 0])
        away[close] = normal / np.maximum(np.linalg.norm(normal, axis=1, keepdims=True), 1e-300)
        return away

    # -- sign -----------------------------------------------------------------------------------

    def inside(self, points: Points) -> Mask:
        """Whether points (n, 3) are inside the solid, by the chosen test."""
        if self.thickness is not None:
            return self.unsigned(points) < self.thickness / 2
        return are_inside(self, self.sign, points)

    @cached_property
    def pseudonormals(self) -> Pseudonormals:
        """The pseudonormals of the mesh."""
        return Pseudonormals(self.vertices, self.faces)

    def winding_number(self, points: Points) -> Values:
        """Generalised winding number (n,) at points (n, 3), most accurate near 1/2."""
        return self._winding_number(points, WINDING_ACCURACY)

    def _winding_number(self, points: Points, refinements: Refinements) -> Values:
        winding = self._bvh.winding_number(points, refinements)
        return -winding if self._negated else winding

    @cached_property
    def near_faces(self) -> float:
        """How many faces of the mesh are near a point of the ball (see `near_faces`)."""
        return near_faces(self.vertices, self.faces)

    @cached_property
    def overlaps(self) -> bool:
        """Whether parts of the solid overlap: the winding number exceeds 1.5 somewhere."""
        return bool((self.winding_number(uniform_probes()) > 1.5).any())

    @cached_property
    def has_interior(self) -> bool:
        """Whether probes in the ball and near the surface (40 000) find an inside."""
        if self.thickness is not None:
            return True
        if self.unenclosed > _NO_INTERIOR:
            return False
        rng = np.random.default_rng(1)
        uniform = rng.uniform(-1, 1, (PROBES, 3))
        beside = surface_probes(self.vertices, self.faces)
        points = np.vstack([uniform, beside])
        if self.sign == "parity":
            # Coincident faces count as one, so a flat closed mesh is a sheet, which some rays cross once.
            inside = odd_crossings(self.vertices, self.faces, points) == len(RAY_DIRECTIONS)
        else:
            inside = self.inside(points)
        # A few hits are caused by rounding near doubled or flat surfaces.
        return int(inside.sum()) >= 20

    @cached_property
    def unenclosed(self) -> float:
        """Fraction of the mesh's area without an inside on either side, such as a loose sheet."""
        if self.thickness is not None:
            return 0.0
        points, face = sample_surface(self.vertices, self.faces, _PROBED_AREA, np.random.default_rng(2))
        corner = self.vertices[self.faces[face]]
        normal = np.cross(corner[:, 1] - corner[:, 0], corner[:, 2] - corner[:, 0])
        step = BESIDE * normal / np.linalg.norm(normal, axis=1, keepdims=True)
        return float(1 - (self.inside(points + step) | self.inside(points - step)).mean())

    def remarks(self, transform: Similarity) -> list[str]:
        """Remarks on how the inside was determined, and on parts without an inside.

        transform: from model space to the space of printed lengths.
        """
        found = []
        if self.orientation is not None and (line := self.orientation.line(transform)):
            found.append(line)
        if len(self.sheet[1]):
            found.append("closed where its winding number is 1/2")
        if self.sign == "winding" and self.thickness is None and self.overlaps:
            found.append("parts overlap: their union is used")
        if self.unenclosed > _MIN_REPORTED:
            found.append(
                f"{self.unenclosed:.0%} of its surface encloses no volume and is not in the solid; "
                "`thickness=` makes all of it solid"
            )
        return found

    def first_hit(self, origins: Points, directions: Vectors) -> tuple[Values, Index]:
        """Distance (n,) along rays, origins and directions (n, 3), to the first triangle, and its face (n,).

        inf and -1 if there is no hit. Face indices from `len(faces)` belong to the closing sheet.
        """
        return self._solid[2].first_hit(origins, directions)

    def shape_diameter(self, rays: int = 5) -> Values:
        """Thickness (V,) of the solid at each vertex: the median length of a few rays through it.

        The rays start at the vertex, within about ten degrees of its inward normal (Shapira et al. 2008).
        """
        rng = np.random.default_rng(0)
        normals = igl.per_vertex_normals(
            self.vertices, self.faces, igl.PER_VERTEX_NORMALS_WEIGHTING_TYPE_ANGLE
        )
        inward = -np.nan_to_num(normals)
        runs = np.empty((rays, len(inward)))
        for run in runs:
            direction = inward + rng.normal(scale=0.1, size=inward.shape)
            direction /= np.maximum(np.linalg.norm(direction, axis=1, keepdims=True), 1e-12)
            run[:], _ = self._bvh.first_hit(self.vertices + 1e-6 * inward, direction)
        runs[~((runs > 0) & (runs < 2))] = 2.0  # a miss: the diameter of the ball
        median: Values = np.median(runs, axis=0)
        return median
