"""
sign_check_by_rays.py
---------------------
Inside test for closed bodies by ray parity: an independent check of the sign that uses neither winding
numbers nor the flips of `orientation`.

A point is in a body if rays from it cross the body's surface an odd number of times. A body is nested in
another if all points in the first are also in the second. A point in exactly one body is inside, whatever the
orientation of its faces. Of nested bodies, the outermost is solid; a body in a solid with opposite
orientation is a cavity; the inside of a cavity is empty space again. The last crossing of a ray gives the
orientation of a body: its face points along the ray unless the body is inverted.
"""

from __future__ import annotations

from itertools import chain
from typing import Protocol

import numpy as np

from ..array_types import Index, Points, Values, Vectors
from .closed_bodies import Bodies
from .inside_or_outside import Hits, cast_rays

_SAME_CROSSING = 1e-7  # hits this close together, in the same direction, are one crossing of a shared edge
_MAX_BODIES = 16  # a point in more bodies than this is left undecided
_NESTED = 0.98  # fraction of a body's points that must be in another; tolerates a few wrong rays
_SAMPLES = 2048  # total number of points on the surfaces
_MIN_SAMPLES = 4  # minimum number of points per body
_BESIDE = 1e-6  # offset of ray origins from the surface
_THIN = 1e-5  # minimum width of a gap that is probed


class Rays(Protocol):
    """Surfaces for ray casting."""

    def first_hit(self, origins: Points, directions: Vectors) -> tuple[Values, Index]:
        """Distance (n,) along rays, origins and directions (n, 3), to the first hit, and its face (n,)."""
        ...


class BodyParity:
    """Which of the points (n, 3) are in the closed bodies of a mesh.

    known (n,): false if undecided, because a ray crosses an open part (which has no inside of its own) or a
    body's surface twice in the same direction. inside (n,): whether inside the solid. innermost (n,): the
    smallest body that contains a point, or -1.
    """

    def __init__(self, bodies: Bodies, points: Points) -> None:
        self._bodies = bodies
        count = len(points)
        self.known = np.ones(count, bool)
        point, body = self._contained(points)
        held = np.bincount(point, minlength=count)
        self.known &= held <= _MAX_BODIES
        kept = self.known[point]
        point, body = point[kept], body[kept]
        self._containers = self._nesting(point, body)
        self.inside, self.innermost = np.zeros(count, bool), np.full(count, -1)
        alone = held[point] == 1
        self.inside[point[alone]], self.innermost[point[alone]] = True, body[alone]
        verdicts: dict[tuple[int, ...], tuple[bool, int]] = {}
        point, body = point[~alone], body[~alone]
        for place, begin, size in zip(*np.unique(point, return_index=True, return_counts=True), strict=True):
            key = tuple(body[begin : begin + size].tolist())
            if key not in verdicts:
                verdicts[key] = self._verdict(key)
            self.inside[place], self.innermost[place] = verdicts[key]

    def _contained(self, points: Points) -> tuple[Index, Index]:
        """Pairs (k,) of a point and a body that contains it, by majority of three rays; sorted by point."""
        number = self._bodies.count
        votes = []
        outward = np.zeros(number, np.int64)
        for direction, first, hits in cast_rays(self._bodies.vertices, self._bodies.faces, points):
            ray, body, away = self._crossings(hits, direction)
            ray += first
            self.known[ray[body < 0]] = False
            closed = body >= 0
            key, away = ray[closed] * number + body[closed], away[closed]
            keys, begins, crossings = np.unique(key, return_index=True, return_counts=True)
            if not len(keys):
                continue
            odd = crossings % 2 == 1
            balance = np.add.reduceat(away, begins)
            self.known[keys[~odd & (balance != 0)] // number] = False
            np.add.at(outward, keys[odd] % number, away[(begins + crossings - 1)[odd]])
            votes.append(keys[odd])
        self._outward = np.where(outward >= 0, 1, -1)
        keys, agreed = np.unique(np.concatenate([np.empty(0, np.int64), *votes]), return_counts=True)
        return np.divmod(keys[agreed >= 2], number)

    def _crossings(self, hits: list[Hits], direction: Vectors) -> tuple[Index, Index, Index]:
        """Ray, body and direction (1 along the face normal, else -1) of all crossings, without flat bodies.

        hits: of each ray. Sorted by ray, then body, then distance.
        """
        vertices, faces = self._bodies.vertices, self._bodies.faces
        ray: Index = np.repeat(np.arange(len(hits)), np.fromiter(map(len, hits), np.int64, len(hits)))
        values = np.array(list(chain.from_iterable(hits)), np.float64).reshape(-1, 4)
        face, length = values[:, 0].astype(np.int64), values[:, 1]
        body = self._bodies.label[face]
        corner = vertices[faces[face]]
        normal = np.cross(corner[:, 1] - corner[:, 0], corner[:, 2] - corner[:, 0])
        away = np.where(normal @ direction > 0, 1, -1)
        solid = np.flatnonzero(np.append(self._bodies.volumes != 0, True)[body] & (length > 0))
        order = solid[np.lexsort((length[solid], away[solid], body[solid], ray[solid]))]
        new = np.ones(len(order), bool)
        new[1:] = (np.diff(ray[order]) != 0) | (np.diff(body[order]) != 0) | (np.diff(away[order]) != 0)
        new[1:] |= np.diff(length[order]) > _SAME_CROSSING
        order = order[new]
        order = order[np.lexsort((length[order], body[order], ray[order]))]
        return ray[order], body[order], away[order]

    def _nesting(self, point: Index, body: Index) -> dict[int, set[int]]:
        """The bodies that contain each body: those that contain all its points."""
        number = self._bodies.count
        total = np.bincount(body, minlength=number)
        _, begins, sizes = np.unique(point, return_index=True, return_counts=True)
        inner, outer = [], []
        for size in np.unique(sizes[sizes > 1]):
            members = body[begins[sizes == size][:, None] + np.arange(size)]
            inner.append(np.repeat(members, size, axis=1).ravel())
            outer.append(np.tile(members, (1, size)).ravel())
        if not inner:
            return {}
        keys, common = np.unique(np.concatenate(inner) * number + np.concatenate(outer), return_counts=True)
        one, other = np.divmod(keys, number)
        within = (common >= _NESTED * total[one]) & (common < _NESTED * total[other])
        containers: dict[int, set[int]] = {}
        for a, b in zip(one[within].tolist(), other[within].tolist(), strict=True):
            containers.setdefault(a, set()).add(b)
        return containers

    def _verdict(self, members: tuple[int, ...]) -> tuple[bool, int]:
        """Whether points in exactly these bodies are inside, and the innermost of these bodies."""
        around = {body: self._containers.get(body, set()) & set(members) for body in members}
        ordered = sorted(members, key=lambda body: (len(around[body]), body))
        winding: dict[int, int] = {}
        flip: dict[int, int] = {}
        for body in ordered:
            parent = max(around[body], key=lambda other: len(around[other]), default=None)
            surroundings, turn = (0, 1) if parent is None else (winding[parent], flip[parent])
            sign = turn * int(self._outward[body])
            if sign < 0 and surroundings == 0:
                sign, turn = 1, -turn
            winding[body], flip[body] = surroundings + sign, turn
        leaves = set(members).difference(*around.values())
        return any(winding[leaf] > 0 for leaf in leaves), ordered[-1]


def body_probes(bodies: Bodies, surfaces: Rays, rng: np.random.Generator) -> Points:
    """Probe points (n, 3) in the middle of each closed body's material and of the gaps beside it.

    They lie halfway between surface points, equally many per body, and the next surface on either side.
    surfaces: all surfaces of the mesh.
    """
    face = bodies.random_faces(max(_SAMPLES // max(bodies.count, 1), _MIN_SAMPLES), rng)
    corner = bodies.vertices[bodies.faces[face]]
    weights = rng.dirichlet(np.ones(3), len(face))
    points = (corner * weights[:, :, None]).sum(axis=1)
    normal = np.cross(corner[:, 1] - corner[:, 0], corner[:, 2] - corner[:, 0])
    normal /= np.linalg.norm(normal, axis=1, keepdims=True)
    probes = []
    for direction in (normal, -normal):
        begin = points + _BESIDE * direction
        run, _ = surfaces.first_hit(begin, np.ascontiguousarray(direction))
        hit = (run > _THIN) & np.isfinite(run)
        probes.append(begin[hit] + 0.5 * run[hit, None] * direction[hit])
    return np.concatenate(probes)
