"""
signed_distance.py
------------------
The signed distance of a triangle mesh: how far the closest point is, and whether a point is inside
(generalised winding number, Jacobson et al. 2013 and Barill et al. 2018; or the older rules, for
comparison). Negative is inside. Works in model space: the shape in the unit ball.

`igl.signed_distance` is not used: with a winding-number sign it returns d (1 - 2w), not a distance.
"""

from __future__ import annotations

from functools import cached_property
from typing import Literal, get_args

import igl
import numpy as np

from ..arrays import Faces, Index, Mask, Points, Values, Vectors
from ..errors import UsageError
from ..geometry.bvh import WINDING_ACCURACY, MakeTree, Refinements, triangle_tree
from ..geometry.similarity import Similarity
from ..geometry.triangles import face_runs, sample_surface
from .closing_sheet import closing_sheet
from .orientation import PROBES, Orientation, orientation, surface_probes, uniform_probes
from .sign import RAY_DIRECTIONS, Pseudonormals, odd_crossings

Sign = Literal["winding", "pseudonormal", "parity"]
SIGNS: tuple[Sign, ...] = get_args(Sign)


#: Bytes for each face of a mesh, that included, that its distances and a conversion take.
FACE_BYTES = 560

#: For the closing sheet, which is interpolated: the last digits would be wasted on it.
_SHEET_ACCURACY = WINDING_ACCURACY[:2]


_PROBED_AREA = 4_000  # points on the surface, for the fraction that encloses nothing
BESIDE = 1e-4  # how far beside it an inside is looked for
_WORTH_SAYING, _HARDLY_ENCLOSED = 0.05, 0.9  # such fractions: a remark; no inside to speak of


def near_faces(vertices: Points, faces: Faces) -> float:
    """How many of faces (F, 3) are nearer to a point of the unit ball than their own size, on average, about.

    Trees take those one by one: few of an ordinary mesh, but most of a heap of large triangles.
    """
    near = 0.0
    for run in face_runs(len(faces)):
        corners = vertices[faces[run]]
        radii = np.linalg.norm(corners - corners.mean(axis=1, keepdims=True), axis=2).max(axis=1)
        near += float(np.minimum(radii**3, 1).sum())
    return near


class SignedDistance:
    """Signed distance oracle of a mesh in model space; builds its trees once.

    With the winding number an open mesh is closed by the sheet where w = 1/2 (see `closing`), so that the
    distance is that of a solid, and continuous.

    vertices (V, 3) float64, faces (F, 3) int64: clean, as `mesh.Mesh` guarantees. sign: how inside is
    decided. thickness: T > 0 makes the solid |d| < T/2 around the surface instead, which needs no inside;
    in model units. make_tree: the trees that answer, of other meshes too that are compared with this one.
    """

    def __init__(
        self,
        vertices: Points,
        faces: Faces,
        sign: Sign = "winding",
        thickness: float | None = None,
        make_tree: MakeTree = triangle_tree,
    ) -> None:
        if sign not in SIGNS:
            raise UsageError(f"`sign={sign!r}`: one of {', '.join(SIGNS)}")
        if thickness is not None and not 0 < thickness < np.inf:
            raise UsageError(f"`thickness={thickness}`: a positive length is needed")
        self.vertices = np.ascontiguousarray(vertices, np.float64)
        self.faces = np.ascontiguousarray(faces, np.int64)
        self.sign: Sign = sign
        self.thickness = thickness
        self.make_tree = make_tree
        self._tree = make_tree(self.vertices, self.faces)
        self._negated = False
        self.orientation: Orientation | None = None
        if thickness is None and sign != "parity":
            self._orient()
        self._solid = self.vertices, self.faces, self._tree
        self.sheet = self._closing_sheet()

    def _orient(self) -> None:
        """Flip the faces that are the wrong way round."""
        self.orientation = orientation(self.vertices, self.faces, self._tree)
        flipped = self.orientation.flipped
        if not flipped.any():
            return
        self.faces = self.orientation.oriented_faces
        if flipped.all():
            self._negated = True  # winding numbers change their sign, that is all
        else:
            self._tree = self.make_tree(self.vertices, self.faces)

    @property
    def flipped(self) -> bool:
        """Whether faces were flipped: all of them, or those of some bodies; `orientation` says which."""
        return self.orientation is not None and bool(self.orientation.flipped.any())

    def _closing_sheet(self) -> tuple[Points, Faces]:
        """The sheet that closes an open mesh, part of the solid's surface from here on; empty if none."""
        if self.thickness is not None or self.sign != "winding":
            return np.empty((0, 3)), np.empty((0, 3), np.int64)
        sheet_vertices, sheet_faces = closing_sheet(
            self.vertices,
            self.faces,
            lambda points: self._winding_number(points, _SHEET_ACCURACY),
            self._tree.distance,
            self.make_tree,
        )
        if len(sheet_faces):
            vertices = np.concatenate([self.vertices, sheet_vertices])
            faces = np.concatenate([self.faces, sheet_faces + len(self.vertices)])
            self._solid = vertices, faces, self.make_tree(vertices, faces)
        return sheet_vertices, sheet_faces

    # -- distance -------------------------------------------------------------------------------

    def closest(self, points: Points) -> tuple[Values, Index, Points]:
        """Distance (n,) to the mesh, closest face (n,) and closest point (n, 3), of points (n, 3)."""
        return self._tree.closest(points)

    def unsigned(self, points: Points) -> Values:
        """Distance (n,) to the surface whatever the sign: the mesh, and the sheet that closes it."""
        return self._solid[2].distance(points)

    def magnitude(self, unsigned: Values) -> Values:
        """|signed distance| (n,) of points whose distance to the mesh is `unsigned` (n,); needs no sign."""
        return unsigned if self.thickness is None else np.abs(unsigned - self.thickness / 2)

    def signed(self, points: Points, unsigned: Values | None = None) -> Values:
        """Signed distance (n,) at points (n, 3): negative inside. `unsigned` (n,) saves asking again."""
        distance = self.unsigned(points) if unsigned is None else unsigned
        if self.thickness is not None:
            return distance - self.thickness / 2
        return np.where(self.inside(points), -distance, distance)

    def gradient(self, points: Points) -> Vectors:
        """Gradient (n, 3) of the signed distance at points (n, 3), a unit vector.

        Within 1e-5 of the surface it is the closest face's normal: a difference of positions has no
        direction left there.
        """
        vertices, faces, tree = self._solid
        distance, face, nearest = tree.closest(points)
        away: Vectors = (points - nearest) / np.maximum(distance, 1e-300)[:, None]
        if self.thickness is None:  # else |d| - T/2 grows away from the mesh on both of its sides
            away[self.inside(points)] *= -1
        close = distance < 1e-5
        corner = vertices[faces[face[close]]]
        normal = np.cross(corner[:, 1] - corner[:, 0], corner[:, 2] - corner[:, 0])
        away[close] = normal / np.maximum(np.linalg.norm(normal, axis=1, keepdims=True), 1e-300)
        return away

    # -- sign -----------------------------------------------------------------------------------

    def inside(self, points: Points) -> Mask:
        """Whether points (n, 3) are inside the solid, by the rule chosen."""
        if self.thickness is not None:
            return self.unsigned(points) < self.thickness / 2
        if self.sign == "winding":
            return self.winding_number(points) > 0.5
        if self.sign == "pseudonormal":
            _, face, nearest = self.closest(points)
            return self._pseudonormals.behind(points, face, nearest)
        return odd_crossings(self.vertices, self.faces, points) >= 2

    @cached_property
    def _pseudonormals(self) -> Pseudonormals:
        return Pseudonormals(self.vertices, self.faces)

    def winding_number(self, points: Points) -> Values:
        """Generalised winding number (n,) at points (n, 3), sharp where it is close to one half."""
        return self._winding_number(points, WINDING_ACCURACY)

    def _winding_number(self, points: Points, refinements: Refinements) -> Values:
        winding = self._tree.winding_number(points, refinements)
        return -winding if self._negated else winding

    @cached_property
    def near_faces(self) -> float:
        """How many faces of the mesh are near a point of the ball (see `near_faces`)."""
        return near_faces(self.vertices, self.faces)

    @cached_property
    def overlaps(self) -> bool:
        """Whether parts of the solid overlap: somewhere the winding number is above 1.5."""
        return bool((self.winding_number(uniform_probes()) > 1.5).any())

    @cached_property
    def has_interior(self) -> bool:
        """Whether any of 40 000 probes, in the ball and beside the surface, is inside."""
        if self.thickness is not None:
            return True
        if self.unenclosed > _HARDLY_ENCLOSED:
            return False
        rng = np.random.default_rng(1)
        uniform = rng.uniform(-1, 1, (PROBES, 3))
        beside = surface_probes(self.vertices, self.faces)
        points = np.vstack([uniform, beside])
        if self.sign == "parity":
            # Faces that lie on one another count as one, so a flat closed mesh is a sheet, which has a shadow
            # along some of the rays.
            inside = odd_crossings(self.vertices, self.faces, points) == len(RAY_DIRECTIONS)
        else:
            inside = self.inside(points)
        # A handful of hits come from rounding beside the sheets of a doubled or flat surface.
        return int(inside.sum()) >= 20

    @cached_property
    def unenclosed(self) -> float:
        """Fraction of the mesh's area that has no inside on either of its sides, such as a loose sheet."""
        if self.thickness is not None:
            return 0.0
        points, face = sample_surface(self.vertices, self.faces, _PROBED_AREA, np.random.default_rng(2))
        corner = self.vertices[self.faces[face]]
        normal = np.cross(corner[:, 1] - corner[:, 0], corner[:, 2] - corner[:, 0])
        step = BESIDE * normal / np.linalg.norm(normal, axis=1, keepdims=True)
        return float(1 - (self.inside(points + step) | self.inside(points - step)).mean())

    def remarks(self, transform: Similarity) -> list[str]:
        """What was done to the mesh to give it an inside, and what has none, a phrase each.

        transform: from model space to the space that lengths are given in.
        """
        found = []
        if self.orientation is not None and (line := self.orientation.line(transform)):
            found.append(line)
        if len(self.sheet[1]):
            found.append("closed where its winding number is 1/2")
        if self.sign == "winding" and self.thickness is None and self.overlaps:
            found.append("parts of it overlap: their union is taken")
        if self.unenclosed > _WORTH_SAYING:
            found.append(
                f"{self.unenclosed:.0%} of its surface encloses no volume and is not in the solid; "
                "`thickness=` makes a solid of all of it"
            )
        return found

    def first_hit(self, origins: Points, directions: Vectors) -> tuple[Values, Index]:
        """Length t (n,) of rays, origins and directions (n, 3), up to the first triangle, inf for none; and
        its face (n,), -1 for none. From `len(faces)` on it is a face of the sheet that closes an open mesh.
        """
        return self._solid[2].first_hit(origins, directions)

    def shape_diameter(self, rays: int = 5) -> Values:
        """How thick the solid is below each vertex, (V,): the median run of a few rays through it.

        The rays start at the vertex, within some ten degrees of its inward normal (Shapira et al. 2008).
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
            run[:], _ = self._tree.first_hit(self.vertices + 1e-6 * inward, direction)
        runs[~((runs > 0) & (runs < 2))] = 2.0  # a miss: the diameter of the ball
        median: Values = np.median(runs, axis=0)
        return median
