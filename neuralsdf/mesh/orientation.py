"""
orientation.py
--------------
Finds inverted faces of a mesh, by closed body and nesting.

A body in empty space is a solid, so if its volume is negative there, it is flipped together with all bodies
inside it, which keeps their relative orientation. Inside a solid, an inverted body is a cavity; one that is
not inverted is a second solid in the same place, which changes nothing (winding number 2). The inside of a
cavity is empty space again. Bodies that overlap partly are not nested.

Open parts have no volume. They are flipped all together if more of the ball's volume has winding numbers
below -1/2 than above 1/2, not counting the inside of closed bodies. For the nesting of bodies inside them,
they count as one body.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from ..array_types import Faces, Index, Mask, Points
from ..geometry.bvh import WINDING_ACCURACY, TriangleBVH, triangle_bvh
from ..geometry.similarity_transform import Similarity
from ..geometry.unit_ball import uniform_ball
from .closed_bodies import Bodies, closed_bodies

PROBES = 20_000
_MIN_DECIDED = 50  # minimum number of decisive probes
_TOUCHING = 1e-7  # a point this close to a body's surface, in units of the ball's radius, lies on it
_WITNESSES = 26  # face centres of a body tested for containment, besides its extreme points
_SPARSE = 0.1  # a body that fills less than this fraction of its bounding box may intersect itself
_BOX_PROBES = 256
_MAX_NAMED = 3  # up to this many flipped bodies are listed with their bounds
_BATCH = 1 << 21  # pairs of boxes per batch


@dataclass(frozen=True, eq=False)
class Orientation:
    """The bodies and open parts of a mesh whose faces are flipped.

    flipped_bodies: mask (n,) of `bodies`. flipped_open: whether the open parts are flipped.
    """

    bodies: Bodies
    flipped_bodies: Mask
    flipped_open: bool

    @cached_property
    def flipped(self) -> Mask:
        """Mask (F,) of flipped faces."""
        return np.append(self.flipped_bodies, self.flipped_open)[self.bodies.label]

    @property
    def oriented_faces(self) -> Index:
        """Faces (F, 3) after the flips."""
        faces = self.bodies.faces
        return np.ascontiguousarray(np.where(self.flipped[:, None], faces[:, ::-1], faces))

    def line(self, transform: Similarity) -> str:
        """Description of the flips, "" if none; transform: to the space of the printed bounds."""
        flipped, count = np.flatnonzero(self.flipped_bodies), self.bodies.count
        if not self.flipped.any():
            return ""
        if self.flipped.all() and count <= 1:
            return "inverted orientation: faces flipped"
        which = []
        if len(flipped):
            which.append(f"{len(flipped)} of {count} closed {'body' if count == 1 else 'bodies'}")
        if self.flipped_open:
            which.append("the open parts")
        line = f"inverted orientation: faces of {' and of '.join(which)} flipped"
        if 0 < len(flipped) <= _MAX_NAMED and count > 1:
            line += f" ({', '.join(self.bodies.named(int(body), transform) for body in flipped)})"
        return line


def orientation(vertices: Points, faces: Faces, bvh: TriangleBVH) -> Orientation:
    """Decide what to flip in the mesh of a BVH: vertices (V, 3) in the unit ball, faces (F, 3)."""
    bodies = closed_bodies(vertices, faces)
    if bodies.count == 0:
        return Orientation(bodies, np.zeros(0, bool), bool(_is_inverted(vertices, faces, bvh)))
    bvhs = _BodyBVHs(bodies, bvh)
    signs, parents = _signs(bodies, bvhs), _parents(bodies, bvhs)
    open_faces = np.ascontiguousarray(faces[bodies.open_faces])
    flips = _nested_flips(bodies, signs, parents)
    if not len(open_faces):
        return Orientation(bodies, flips, False)
    open_bvh = triangle_bvh(vertices, open_faces)
    in_open = parents < 0
    in_open[in_open] = _are_within(bvhs.witnesses(np.flatnonzero(in_open)), open_bvh)
    apart = Orientation(bodies, flips, False).oriented_faces[~np.append(in_open, True)[bodies.label]]
    solid = triangle_bvh(vertices, np.ascontiguousarray(apart)) if len(apart) else None
    flipped_open = _is_inverted(vertices, open_faces, open_bvh, solid)
    if flipped_open is None:  # inside the bodies, or without an inside
        flipped_open = bool(flips.all())
    return Orientation(bodies, _nested_flips(bodies, signs, parents, in_open, flipped_open), flipped_open)


# -- closed bodies --------------------------------------------------------------------------------------


class _BodyBVHs:
    """BVHs of single bodies, built on demand; the mesh's own if it is one body."""

    def __init__(self, bodies: Bodies, bvh: TriangleBVH) -> None:
        self._bodies, self._whole = bodies, bvh
        self._spread = bodies.evenly_spaced_faces(_WITNESSES)

    def bvh(self, body: int) -> TriangleBVH:
        """The BVH of one body."""
        chosen = self._bodies.faces_of(body)
        if len(chosen) == len(self._bodies.faces):
            return self._whole
        used, faces = np.unique(self._bodies.faces[chosen], return_inverse=True)
        return triangle_bvh(self._bodies.vertices[used], faces.reshape(-1, 3))

    def witnesses(self, chosen: Index) -> Points:
        """Points (m, n, 3) on bodies (m,): extreme points along each axis, and face centres."""
        bodies = self._bodies
        points = np.empty((len(chosen), _WITNESSES + 6, 3))
        points[:, 6:] = bodies.vertices[bodies.faces[self._spread[chosen]]].mean(axis=2)
        for of_body, body in zip(points, chosen, strict=True):
            corners = bodies.vertices[bodies.faces[bodies.faces_of(body)].ravel()]
            of_body[:3], of_body[3:6] = corners[corners.argmin(axis=0)], corners[corners.argmax(axis=0)]
        return points


def _are_within(witnesses: Points, bvh: TriangleBVH) -> Mask:
    """Which bodies (m,), given by points (m, n, 3) on their surfaces, lie inside the mesh of a BVH.

    That is, no point of a body is outside, and not all are on the mesh's surface.
    """
    points = witnesses.reshape(-1, 3)
    apart = bvh.distance(points) > _TOUCHING
    inside = np.abs(bvh.winding_number(points, WINDING_ACCURACY)) > 0.5
    apart, inside = apart.reshape(len(witnesses), -1), inside.reshape(len(witnesses), -1)
    return np.asarray(apart.any(axis=1) & (inside | ~apart).all(axis=1))


def _signs(bodies: Bodies, bvhs: _BodyBVHs) -> Index:
    """Sign of the winding number inside each body (n,), 0 for flat bodies.

    For a body that intersects itself, the larger of the volumes with positive and negative winding numbers
    decides.
    """
    signs = np.sign(bodies.volumes).astype(np.int64)
    low, high = bodies.boxes
    sparse = np.abs(bodies.volumes) < _SPARSE * np.prod(high - low, axis=1)
    units = np.random.default_rng(0).random((_BOX_PROBES, 3))
    for body in np.flatnonzero(sparse & ((high - low).min(axis=1) > 0)):
        points = low[body] + units * (high[body] - low[body])
        winding = bvhs.bvh(int(body)).winding_number(points, WINDING_ACCURACY)
        positive, negative = (winding > 0.5).sum(), (winding < -0.5).sum()
        if positive + negative >= _BOX_PROBES // 10:
            signs[body] = 1 if positive >= negative else -1
    return signs


def _nested_flips(
    bodies: Bodies, signs: Index, parents: Index, in_open: Mask | None = None, flipped_open: bool = False
) -> Mask:
    """Which bodies (n,) are flipped; signs (n,); parents (n,): the containing body, or -1.

    in_open: bodies (n,) inside the open parts but in no other body.
    """
    flipped, within = np.zeros(bodies.count, bool), np.zeros(bodies.count, np.int64)
    for body in np.argsort(-np.abs(bodies.volumes), kind="stable"):  # containing bodies come first
        parent = parents[body]
        if parent >= 0:
            surroundings, flip = within[parent], flipped[parent]
        elif in_open is not None and in_open[body]:
            surroundings, flip = 1, flipped_open
        else:
            surroundings, flip = 0, False
        sign = -signs[body] if flip else signs[body]
        if sign < 0 and surroundings == 0:  # a body in empty space has a positive volume
            sign, flip = 1, not flip
        flipped[body], within[body] = flip, surroundings + sign
    return flipped


def _parents(bodies: Bodies, bvhs: _BodyBVHs) -> Index:
    """For each body (n,) the smallest one that contains it, or -1."""
    parents = np.full(bodies.count, -1)
    size = np.abs(bodies.volumes)
    for inner, outer in _boxes_in_boxes(*bodies.boxes, size):
        order = np.lexsort((size[outer], inner))
        inner, outer = inner[order], outer[order]
        bodies_here, begins = np.unique(inner, return_index=True)
        ends = np.append(begins[1:], len(inner))
        # Each body is tested against its candidates by increasing size; bodies with the same one together.
        while len(bodies_here):
            candidate = outer[begins]
            for container in np.unique(candidate):
                tried = bodies_here[candidate == container]
                found = _are_within(bvhs.witnesses(tried), bvhs.bvh(int(container)))
                parents[tried[found]] = container
            begins = begins + 1
            left = (parents[bodies_here] < 0) & (begins < ends)
            bodies_here, begins, ends = bodies_here[left], begins[left], ends[left]
    return parents


def _boxes_in_boxes(low: Points, high: Points, size: Points) -> Iterable[tuple[Index, Index]]:
    """Pairs (inner, outer) of nested boxes with corners (n, 3), where the inner has the smaller size (n,).

    Yields batches; all pairs of an inner box are in the same batch. Each box is stored in at most eight cells
    of a grid about as coarse as itself. A box that contains another also contains its centre, so it is found
    in the centre's cell of its grid level.
    """
    slack = 1e-9
    unit = max(float((high.max(axis=0) - low.min(axis=0)).max()), np.finfo(np.float64).tiny) * 1.001
    bottom = (low - low.min(axis=0)) / unit
    top, centre = (high - low.min(axis=0)) / unit, ((low + high) / 2 - low.min(axis=0)) / unit
    level = np.clip(np.ceil(-np.log2(np.maximum((top - bottom).max(axis=1), 1e-9))) - 1, 0, 19).astype(
        np.int64
    )
    cells = 1 << level[:, None]
    first, last = (bottom * cells).astype(np.int64), (top * cells).astype(np.int64)
    corners = np.stack(np.meshgrid([0, 1], [0, 1], [0, 1], indexing="ij"), axis=-1).reshape(-1, 3)
    cell = first[:, None] + corners
    box, corner = np.nonzero((cell <= last[:, None]).all(axis=2) & (size > 0)[:, None])
    keys = _cell_key(cell[box, corner], level[box])
    order = np.argsort(keys, kind="stable")
    keys, box = keys[order], box[order]
    levels = np.unique(level)
    centre_keys = _cell_key(
        (centre[:, None] * (1 << levels)[:, None]).astype(np.int64),
        np.broadcast_to(levels, (len(low), len(levels))),
    )
    begin, end = np.searchsorted(keys, centre_keys, "left"), np.searchsorted(keys, centre_keys, "right")
    total = np.cumsum((end - begin).sum(axis=1))
    splits = np.unique(np.searchsorted(total, np.arange(_BATCH, total[-1], _BATCH)) + 1)
    for chunk in np.split(np.arange(len(low)), splits):
        counts = (end - begin)[chunk].ravel()
        inner = np.repeat(np.repeat(chunk, len(levels)), counts)
        offset = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
        outer = box[np.repeat(begin[chunk].ravel(), counts) + offset]
        holds = (
            (size[outer] > size[inner])
            & (bottom[outer] <= bottom[inner] + slack).all(axis=1)
            & (top[outer] >= top[inner] - slack).all(axis=1)
        )
        yield inner[holds], outer[holds]


def _cell_key(cell: Index, level: Index) -> Index:
    """Integer key of cells (..., 3) of the grids with 2^level cells per side, level (...) below 20."""
    key: Index = (1 << 3 * level) + ((cell[..., 0] << level) + cell[..., 1] << level) + cell[..., 2]
    return key


# -- open parts -----------------------------------------------------------------------------------------


def _is_inverted(
    vertices: Points, faces: Faces, bvh: TriangleBVH, solid: TriangleBVH | None = None
) -> bool | None:
    """Whether open parts are inverted as a whole: more volume with w < -1/2 than with w > 1/2.

    The signed volume cannot be used, since for open meshes it depends on the origin. Thin shapes that uniform
    points miss are probed near their surface. solid: BVH of the closed bodies; points in them are ignored,
    and if hardly any others are decisive, the result is None.
    """
    for probes in (uniform_probes(), surface_probes(vertices, faces)):
        winding = bvh.winding_number(probes, WINDING_ACCURACY)
        decided = np.abs(winding) > 0.5
        if solid is not None:
            decided[decided] = solid.winding_number(probes[decided], WINDING_ACCURACY) < 0.5
        if decided.sum() >= _MIN_DECIDED:
            break
    if solid is not None and decided.sum() < _MIN_DECIDED:
        return None
    return bool((winding[decided] < 0).sum() > (winding[decided] > 0).sum())


def uniform_probes() -> Points:
    """Fixed uniform points (n, 3) in the unit ball."""
    return uniform_ball(PROBES, np.random.default_rng(0))


def surface_probes(vertices: Points, faces: Faces) -> Points:
    """Points (n, 3) at distances of 1e-4 to 0.1 on both sides of faces, drawn by area."""
    rng = np.random.default_rng(0)
    corners = vertices[faces]
    normals = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    areas = np.linalg.norm(normals, axis=1)
    chosen = rng.choice(len(faces), PROBES, p=areas / areas.sum())
    weights = rng.dirichlet(np.ones(3), PROBES)
    on_surface = (corners[chosen] * weights[:, :, None]).sum(axis=1)
    depth = 10 ** rng.uniform(-4, -1, PROBES) * rng.choice([-1, 1], PROBES)
    probes: Points = on_surface + normals[chosen] / areas[chosen, None] * depth[:, None]
    return probes
