"""
orientation.py
--------------
Which faces of a mesh are the wrong way round, decided for each closed body by where it lies.

A body in the open is a solid, so one that encloses a negative volume there is flipped, and all bodies inside
it with it: they keep their meaning relative to it. Inside a solid, an inverted body is a cavity, and one that
is not is a second solid in the same place, which changes nothing (winding numbers 0 and 2). In the empty
space of a cavity a body is in the open again. Bodies that overlap partly lie beside each other.

Open parts have no volume: all of them together are flipped if more of the ball's volume has winding numbers
below -1/2 than above 1/2, not counting what is inside closed bodies. To the bodies within them they are a
body like any other.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from ..arrays import Faces, Index, Mask, Points
from ..geometry.bvh import WINDING_ACCURACY, TriangleTree, triangle_tree
from ..geometry.similarity import Similarity
from .bodies import Bodies, closed_bodies

PROBES = 20_000
_FEW = 50  # of them: too few to decide anything
_TOUCHING = 1e-7  # of the mesh's extent: a point this close to a body's surface lies on it
_WITNESSES = 26  # faces of a body, besides its extreme points, that must lie inside another for it to be
_SPARSE = 0.1  # of a body's bounding box; one that fills less may intersect itself
_BOX_PROBES = 256
_NAMED = 3  # flipped bodies are named, with their bounds; more are counted
_BATCH = 1 << 21  # pairs of boxes at a time


@dataclass(frozen=True, eq=False)
class Orientation:
    """What is to be flipped in a mesh so that all its solids are solid.

    flipped_bodies: of `bodies`, (n,). flipped_open: whether its open parts are flipped.
    """

    bodies: Bodies
    flipped_bodies: Mask
    flipped_open: bool

    @cached_property
    def flipped(self) -> Mask:
        """Faces (F,) that are flipped."""
        return np.append(self.flipped_bodies, self.flipped_open)[self.bodies.label]

    @property
    def oriented_faces(self) -> Index:
        """Faces (F, 3) after the flips."""
        faces = self.bodies.faces
        return np.ascontiguousarray(np.where(self.flipped[:, None], faces[:, ::-1], faces))

    def line(self, transform: Similarity) -> str:
        """What was flipped, as a phrase; "" if nothing was. transform: to the space of the bounds in it."""
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
        if 0 < len(flipped) <= _NAMED and count > 1:
            line += f" ({', '.join(self.bodies.named(int(body), transform) for body in flipped)})"
        return line


def orientation(vertices: Points, faces: Faces, tree: TriangleTree) -> Orientation:
    """Decide what to flip in the mesh in `tree`: vertices (V, 3) in the unit ball, faces (F, 3)."""
    bodies = closed_bodies(vertices, faces)
    if bodies.count == 0:
        return Orientation(bodies, np.zeros(0, bool), bool(_is_inverted(vertices, faces, tree)))
    trees = _BodyTrees(bodies, tree)
    signs, parents = _signs(bodies, trees), _parents(bodies, trees)
    open_faces = np.ascontiguousarray(faces[bodies.open_faces])
    flips = _nested_flips(bodies, signs, parents)
    if not len(open_faces):
        return Orientation(bodies, flips, False)
    open_tree = triangle_tree(vertices, open_faces)
    in_open = parents < 0
    in_open[in_open] = _are_within(trees.witnesses(np.flatnonzero(in_open)), open_tree)
    apart = Orientation(bodies, flips, False).oriented_faces[~np.append(in_open, True)[bodies.label]]
    solid = triangle_tree(vertices, np.ascontiguousarray(apart)) if len(apart) else None
    flipped_open = _is_inverted(vertices, open_faces, open_tree, solid)
    if flipped_open is None:  # within the bodies, or without any inside
        flipped_open = bool(flips.all())
    return Orientation(bodies, _nested_flips(bodies, signs, parents, in_open, flipped_open), flipped_open)


# -- closed bodies --------------------------------------------------------------------------------------


class _BodyTrees:
    """Trees of single bodies, made when they are asked for; the mesh's own where it is one body."""

    def __init__(self, bodies: Bodies, tree: TriangleTree) -> None:
        self._bodies, self._whole = bodies, tree
        self._spread = bodies.evenly_spaced_faces(_WITNESSES)

    def tree(self, body: int) -> TriangleTree:
        """The tree of one body."""
        chosen = self._bodies.faces_of(body)
        if len(chosen) == len(self._bodies.faces):
            return self._whole
        used, faces = np.unique(self._bodies.faces[chosen], return_inverse=True)
        return triangle_tree(self._bodies.vertices[used], faces.reshape(-1, 3))

    def witnesses(self, chosen: Index) -> Points:
        """Points (m, n, 3) on the surfaces of bodies (m,): extreme ones along each axis, and others."""
        bodies = self._bodies
        points = np.empty((len(chosen), _WITNESSES + 6, 3))
        points[:, 6:] = bodies.vertices[bodies.faces[self._spread[chosen]]].mean(axis=2)
        for of_body, body in zip(points, chosen, strict=True):
            corners = bodies.vertices[bodies.faces[bodies.faces_of(body)].ravel()]
            of_body[:3], of_body[3:6] = corners[corners.argmin(axis=0)], corners[corners.argmax(axis=0)]
        return points


def _are_within(witnesses: Points, tree: TriangleTree) -> Mask:
    """Which bodies (m,), by points (m, n, 3) on their surfaces, lie in the mesh of a tree.

    None of a body's points is outside, and not all of them are on the mesh's surface.
    """
    points = witnesses.reshape(-1, 3)
    apart = tree.distance(points) > _TOUCHING
    inside = np.abs(tree.winding_number(points, WINDING_ACCURACY)) > 0.5
    apart, inside = apart.reshape(len(witnesses), -1), inside.reshape(len(witnesses), -1)
    return np.asarray(apart.any(axis=1) & (inside | ~apart).all(axis=1))


def _signs(bodies: Bodies, trees: _BodyTrees) -> Index:
    """1 for bodies (n,) whose inside has positive winding numbers, -1 for negative ones, 0 for flat ones.

    For a body that intersects itself, by the volume of either kind, not by their difference.
    """
    signs = np.sign(bodies.volumes).astype(np.int64)
    low, high = bodies.boxes
    sparse = np.abs(bodies.volumes) < _SPARSE * np.prod(high - low, axis=1)
    units = np.random.default_rng(0).random((_BOX_PROBES, 3))
    for body in np.flatnonzero(sparse & ((high - low).min(axis=1) > 0)):
        points = low[body] + units * (high[body] - low[body])
        winding = trees.tree(int(body)).winding_number(points, WINDING_ACCURACY)
        positive, negative = (winding > 0.5).sum(), (winding < -0.5).sum()
        if positive + negative >= _BOX_PROBES // 10:
            signs[body] = 1 if positive >= negative else -1
    return signs


def _nested_flips(
    bodies: Bodies, signs: Index, parents: Index, in_open: Mask | None = None, flipped_open: bool = False
) -> Mask:
    """Which bodies (n,) are flipped, by their signs (n,) and the body (n,) that each lies in, or -1.

    in_open: bodies (n,) that lie in the open parts and in no body.
    """
    flipped, within = np.zeros(bodies.count, bool), np.zeros(bodies.count, np.int64)
    for body in np.argsort(-np.abs(bodies.volumes), kind="stable"):  # whatever contains a body comes first
        parent = parents[body]
        if parent >= 0:
            surroundings, flip = within[parent], flipped[parent]
        elif in_open is not None and in_open[body]:
            surroundings, flip = 1, flipped_open
        else:
            surroundings, flip = 0, False
        sign = -signs[body] if flip else signs[body]
        if sign < 0 and surroundings == 0:  # in the open, nothing is negative
            sign, flip = 1, not flip
        flipped[body], within[body] = flip, surroundings + sign
    return flipped


def _parents(bodies: Bodies, trees: _BodyTrees) -> Index:
    """For each body (n,) the smallest one that contains it, or -1."""
    parents = np.full(bodies.count, -1)
    size = np.abs(bodies.volumes)
    for inner, outer in _boxes_in_boxes(*bodies.boxes, size):
        order = np.lexsort((size[outer], inner))
        inner, outer = inner[order], outer[order]
        bodies_here, begins = np.unique(inner, return_index=True)
        ends = np.append(begins[1:], len(inner))
        # Each body is tried in its smallest candidate, then in the next; those with the same one together.
        while len(bodies_here):
            candidate = outer[begins]
            for container in np.unique(candidate):
                tried = bodies_here[candidate == container]
                found = _are_within(trees.witnesses(tried), trees.tree(int(container)))
                parents[tried[found]] = container
            begins = begins + 1
            left = (parents[bodies_here] < 0) & (begins < ends)
            bodies_here, begins, ends = bodies_here[left], begins[left], ends[left]
    return parents


def _boxes_in_boxes(low: Points, high: Points, size: Points) -> Iterable[tuple[Index, Index]]:
    """Pairs (inner, outer) of boxes, given by their corners (n, 3), of which the outer contains the inner.

    Only those whose inner one has the smaller size (n,). In batches; all pairs of an inner box are in one.
    A box is put into the cells of a lattice as coarse as itself, eight at most; what contains another holds
    its centre, so it is in the centre's cell on its own lattice.
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
    asked = _cell_key(
        (centre[:, None] * (1 << levels)[:, None]).astype(np.int64),
        np.broadcast_to(levels, (len(low), len(levels))),
    )
    begin, end = np.searchsorted(keys, asked, "left"), np.searchsorted(keys, asked, "right")
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
    """One number for each cell (..., 3) of the lattices with 2^level cells a side, level (...) below 20."""
    key: Index = (1 << 3 * level) + ((cell[..., 0] << level) + cell[..., 1] << level) + cell[..., 2]
    return key


# -- open parts -----------------------------------------------------------------------------------------


def _is_inverted(
    vertices: Points, faces: Faces, tree: TriangleTree, solid: TriangleTree | None = None
) -> bool | None:
    """Whether open parts are inside out as a whole: more volume at w < -1/2 than at w > 1/2.

    The signed volume would do for closed meshes alone: on open ones it depends on the origin. A thin shape
    that uniform points miss is judged by points beside its surface. solid: closed bodies; points in them do
    not count, and if there are hardly any others, the result is None.
    """
    for probes in (uniform_probes(), surface_probes(vertices, faces)):
        winding = tree.winding_number(probes, WINDING_ACCURACY)
        decided = np.abs(winding) > 0.5
        if solid is not None:
            decided[decided] = solid.winding_number(probes[decided], WINDING_ACCURACY) < 0.5
        if decided.sum() >= _FEW:
            break
    if solid is not None and decided.sum() < _FEW:
        return None
    return bool((winding[decided] < 0).sum() > (winding[decided] > 0).sum())


def uniform_probes() -> Points:
    """Fixed points (n, 3), uniform in the unit ball."""
    rng = np.random.default_rng(0)
    uniform = rng.standard_normal((PROBES, 3))
    uniform *= (rng.random((PROBES, 1)) ** (1 / 3)) / np.linalg.norm(uniform, axis=1, keepdims=True)
    return uniform


def surface_probes(vertices: Points, faces: Faces) -> Points:
    """Points (n, 3) on both sides of faces chosen by area, from 1e-4 to 0.1 off the surface."""
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
