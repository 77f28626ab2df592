"""
closed_bodies.py
----------------
Closed bodies of a mesh: connected parts without boundary, each with its own inside.

Faces that share an edge are connected. If more than two faces meet at an edge, such as those of two cubes
that touch there, they are sorted by angle around it, and the two faces that bound the same wedge of material
are connected. This separates bodies that only touch, and the two sides of a surface that has every face
twice, in opposite orientations.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from ..array_types import Faces, Index, Mask, Points, Values
from ..geometry.similarity_transform import Similarity

#: A part whose boundary has moments below this (in units of its extent) counts as closed: a slit at a
#: T-junction, or a hole with half a percent of its size.
_NEGLIGIBLE_BOUNDARY = 1e-4
#: A body is flat (zero up to rounding) if its volume is below this fraction of its extent cubed.
_NO_VOLUME = 1e-9
_ANGLES = 1 << 30  # steps of a full turn; faces at the same step coincide


@dataclass(frozen=True, eq=False)
class Bodies:
    """The closed bodies of a mesh.

    vertices (V, 3) float64, faces (F, 3) int64. label (F,): body of each face, numbered from 0 in the order
    of their first faces; -1 for faces of open parts.
    """

    vertices: Points
    faces: Faces
    label: Index

    @cached_property
    def count(self) -> int:
        """Number of closed bodies."""
        return int(self.label.max()) + 1

    @property
    def open_faces(self) -> Mask:
        """Faces (F,) of parts that are not closed."""
        return self.label < 0

    @cached_property
    def _order(self) -> tuple[Index, Index]:
        """Faces sorted by body, and the offset of each body among them, (n + 1,)."""
        order = np.argsort(self.label, kind="stable")
        return order, np.searchsorted(self.label[order], np.arange(self.count + 1))

    def faces_of(self, body: int) -> Index:
        """Indices of the faces of a body, ascending."""
        order, starts = self._order
        return order[starts[body] : starts[body + 1]]

    def evenly_spaced_faces(self, count: int) -> Index:
        """Indices (n, count) of faces of each body, evenly spaced in file order."""
        order, starts = self._order
        fraction = (np.arange(count) + 0.5) / count
        return order[starts[:-1, None] + (fraction * np.diff(starts)[:, None]).astype(np.int64)]

    def random_faces(self, count: int, rng: np.random.Generator) -> Index:
        """Indices (n * count,) of random faces, `count` per body, with probability proportional to area."""
        order, starts = self._order
        corner = self.vertices[self.faces[order]]
        areas = np.linalg.norm(np.cross(corner[:, 1] - corner[:, 0], corner[:, 2] - corner[:, 0]), axis=1)
        until = np.concatenate([[0.0], np.cumsum(areas)])
        low, high = until[starts[:-1], None], until[starts[1:], None]
        place = np.searchsorted(until, low + rng.random((self.count, count)) * (high - low), side="right") - 1
        drawn: Index = order[np.clip(place, starts[:-1, None], starts[1:, None] - 1)].ravel()
        return drawn

    @cached_property
    def boxes(self) -> tuple[Points, Points]:
        """Lower and upper corners (n, 3) of the bodies' bounding boxes."""
        order, starts = self._order
        if self.count == 0:
            return np.empty((0, 3)), np.empty((0, 3))
        corners = self.vertices[self.faces[order[starts[0] :]]]
        begins = starts[:-1] - starts[0]
        return (
            np.minimum.reduceat(corners.min(axis=1), begins),
            np.maximum.reduceat(corners.max(axis=1), begins),
        )

    def named(self, body: int, transform: Similarity) -> str:
        """Description of a body for messages: its number (from 1), bounds and number of faces.

        transform: from the space of the vertices to that of the printed bounds.
        """
        faces = self.faces[self.faces_of(body)]
        corners = transform.apply(self.vertices[np.unique(faces)])
        low, high = (
            f"({', '.join(f'{value:.4g}' for value in corner + 0.0)})"
            for corner in (corners.min(axis=0), corners.max(axis=0))
        )
        count = f"{len(faces):,} face{'' if len(faces) == 1 else 's'}"
        return f"body {body + 1} from {low} to {high}, {count}"

    @cached_property
    def volumes(self) -> Values:
        """Signed volumes (n,): negative for inverted orientation, 0 for a flat body."""
        low, high = self.boxes
        closed = np.flatnonzero(~self.open_faces)
        label = self.label[closed]
        # Relative to the centre of each body, to avoid cancellation far from the origin.
        corners = self.vertices[self.faces[closed]] - ((low + high) / 2)[label, None]
        cones = np.einsum("ij,ij->i", corners[:, 0], np.cross(corners[:, 1], corners[:, 2])) / 6
        volumes = np.bincount(label, cones, minlength=self.count)
        flat = np.abs(volumes) <= _NO_VOLUME * (high - low).max(axis=1, initial=0) ** 3
        return np.where(flat, 0.0, volumes)


def closed_bodies(vertices: Points, faces: Faces) -> Bodies:
    """The closed bodies of a mesh: vertices (V, 3) finite, faces (F, 3) of three distinct vertices each."""
    part, boundary = _parts(vertices, faces)
    is_closed = np.ones(int(part.max()) + 1, bool)
    is_closed[part[boundary // 3]] = False
    if len(boundary):
        # At a T-junction, parts meet only in vertices; together they may still be closed.
        group = _joined_at_vertices(part, ~is_closed[part], faces, len(vertices))
        closes = _has_negligible_boundary(vertices, faces, group, boundary)
        part = np.where(is_closed[part], part, len(is_closed) + group)
        is_closed = np.append(is_closed, closes)
    return Bodies(vertices, faces, _numbered(part, is_closed))


def has_even_edges(faces: Faces) -> bool:
    """Whether each edge of faces (F, 3) belongs to an even number of them, not counting copies of a face.

    Ray parity then decides what is inside, independent of orientation.
    """
    distinct = np.unique(np.sort(faces, axis=1), axis=0)
    edges = np.concatenate([distinct[:, [0, 1]], distinct[:, [1, 2]], distinct[:, [0, 2]]])
    _, uses = np.unique(edges, axis=0, return_counts=True)
    return not (uses % 2).any()


def _numbered(part: Index, is_closed: Mask) -> Index:
    """Renumber the closed parts (F,) in the order of their first faces; open parts become -1."""
    parts, first = np.unique(part, return_index=True)
    kept = is_closed[parts]
    number = np.full(int(part.max()) + 1, -1)
    number[parts[kept][np.argsort(first[kept])]] = np.arange(int(kept.sum()))
    return number[part]


def _parts(vertices: Points, faces: Faces) -> tuple[Index, Index]:
    """Connected part (F,) of each face, and the half-edges on boundaries, 3 face + corner."""
    tail, head = faces.ravel(), np.roll(faces, -1, axis=1).ravel()
    key = np.minimum(tail, head) * len(vertices) + np.maximum(tail, head)
    order = np.argsort(key, kind="stable")
    starts = np.flatnonzero(np.diff(key[order], prepend=-1))
    uses = np.diff(starts, append=len(key))
    balance = np.add.reduceat(np.where(tail < head, 1, -1)[order], starts)
    pairs = starts[uses == 2]
    links = [(order[pairs], order[pairs + 1])]
    edge = np.repeat(np.arange(len(starts)), uses)
    many = uses > 2
    if many.any():
        unbalanced = np.flatnonzero((many & (balance != 0))[edge])
        unbalanced = unbalanced[edge[unbalanced] == edge[unbalanced - 1]]
        links.append((order[unbalanced - 1], order[unbalanced]))
        balanced = (many & (balance == 0))[edge]
        links.append(_radial_pairs(vertices, faces, order[balanced], edge[balanced]))
    one, other = (np.concatenate(side) // 3 for side in zip(*links, strict=True))
    return _connected(one, other, len(faces)), order[(balance != 0)[edge]]


def _radial_pairs(vertices: Points, faces: Faces, half_edges: Index, edge: Index) -> tuple[Index, Index]:
    """Pairs of half-edges at non-manifold edges: both sides of the same wedge of material.

    half_edges (n,): sorted by their edge (n,), equally many in both directions at each. Around an edge, a
    face with its material at larger angles opens a wedge, and one with its material at smaller angles closes
    it, like brackets around a circle.
    """
    corner = faces.ravel()
    tail = corner[half_edges]
    head = corner[half_edges - half_edges % 3 + (half_edges + 1) % 3]
    apex = corner[half_edges - half_edges % 3 + (half_edges + 2) % 3]
    begins = np.flatnonzero(np.diff(edge, prepend=-1))
    size = np.diff(begins, append=len(edge))
    group = np.repeat(np.arange(len(begins)), size)
    low, high = np.minimum(tail, head), np.maximum(tail, head)
    axis = vertices[high] - vertices[low]
    axis /= np.linalg.norm(axis, axis=1, keepdims=True)
    arm = vertices[apex] - vertices[low]
    arm -= (arm * axis).sum(axis=1, keepdims=True) * axis
    zero = arm[begins][group]
    turn = np.arctan2((arm * np.cross(axis, zero)).sum(axis=1), (arm * zero).sum(axis=1)) / (2 * np.pi)
    angle = np.rint(turn * _ANGLES).astype(np.int64) % _ANGLES
    opens = np.where(tail < head, -1, 1)
    # Coincident faces that close a wedge come first, which avoids wedges of zero width. Copies of a body that
    # are contiguous in the file stay together, because the last copy is always the innermost bracket.
    order = np.lexsort((opens * half_edges, opens, angle, group))
    opens = opens[order]
    total = np.cumsum(opens)  # each group sums to zero, so one sum serves all
    level = np.where(opens > 0, total - 1, total)
    position = np.arange(len(order)) - begins[group]
    lowest = np.lexsort((position, total, group))[begins]
    rotated = (position - position[lowest][group] - 1) % size[group]
    matched = order[np.lexsort((rotated, level, group))]
    return half_edges[matched[0::2]], half_edges[matched[1::2]]


def _connected(one: Index, other: Index, count: int) -> Index:
    """Connected component (count,) of each of `count` nodes with links between `one` and `other`, (n,)."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    links = coo_array((np.ones(len(one), np.int8), (one, other)), shape=(count, count))
    return connected_components(links, directed=False)[1].astype(np.int64)


def _joined_at_vertices(part: Index, chosen: Mask, faces: Faces, vertex_count: int) -> Index:
    """Group (F,) of each face: parts of the chosen faces (F,) that share a vertex have the same group."""
    corners = faces[chosen].ravel()
    parts = np.repeat(part[chosen], 3)
    return _connected(corners, vertex_count + parts, vertex_count + int(part.max()) + 1)[vertex_count + part]


def _has_negligible_boundary(vertices: Points, faces: Faces, group: Index, boundary: Index) -> Mask:
    """For each group, whether its boundary, half-edges (n,), consists only of slits and pinholes.

    Coincident edges of opposite directions cancel in every line integral along the boundary, however they are
    subdivided. The test uses a few integrals of plane waves: around a hole, each is about its area times the
    wave number.
    """
    count = int(group.max()) + 1
    low, high = np.full((count, 3), np.inf), np.full((count, 3), -np.inf)
    face_corners = vertices[faces]
    np.minimum.at(low, group, face_corners.min(axis=1))
    np.maximum.at(high, group, face_corners.max(axis=1))
    with np.errstate(invalid="ignore"):
        extent, middle = np.linalg.norm(high - low, axis=1), (low + high) / 2
    of = group[boundary // 3]
    corner = faces.ravel()
    ends = corner[boundary], corner[boundary - boundary % 3 + (boundary + 1) % 3]
    tail, head = ((vertices[end] - middle[of]) / extent[of, None] for end in ends)
    step, halfway = head - tail, (tail + head) / 2
    largest = np.zeros(count)
    for wave in np.random.default_rng(0).normal(scale=4.0, size=(4, 3)):
        amplitude = np.exp(1j * (halfway @ wave)) * np.sinc(step @ wave / (2 * np.pi))
        for along in step.T:
            parts = (
                np.bincount(of, along * amplitude.real, count),
                np.bincount(of, along * amplitude.imag, count),
            )
            largest = np.maximum(largest, np.hypot(*parts))
    return largest < _NEGLIGIBLE_BOUNDARY
