"""
ear_clipping.py
---------------
Triangulates simple polygons in the plane by ear clipping.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from heapq import heappop, heappush
from itertools import count
from math import inf

import numpy as np
import numpy.typing as npt

#: Points per leaf of the tree that finds the points in a triangle.
LEAF = 16

#: Maximum number of retests, per corner, of corners whose obstacle is gone. Only polygons that touch
#: themselves need them.
RETESTS = 8

#: Polygons of more corners than this are clipped in rounds: always clipping the first ear makes fans of
#: slivers as large as the polygon.
MANY = 200

Corner = tuple[float, float]


#: Step limit for all polygons of a file, about ten seconds; a step is a visit of a tree node.
MAX_STEPS = 8_000_000


@dataclass
class EarClipper:
    """Clips simple polygons within a step limit.

    An ear is a corner that turns left and whose triangle contains no other corner; only corners that do not
    turn left can be in it. Clips the first ear, or in large polygons the one that was found first; if there
    is none (the polygon intersects itself), the first corner. Clipping a corner affects only its neighbours,
    and a tree finds the corners in a triangle: n log n to n sqrt(n) steps for n corners.
    """

    steps: int = MAX_STEPS

    def clip(self, corners: list[Corner]) -> list[Sequence[int]] | None:
        """The n - 2 triangles of a counter-clockwise polygon, as indices; None if out of steps."""
        if self.steps <= 0:
            return None
        clipping = _Clipping(corners, self.steps)
        triangles = clipping.triangles()
        self.steps = clipping.steps
        return triangles


class _Clipping:
    """State of clipping a polygon: the remaining ring and its ears."""

    def __init__(self, corners: list[Corner], steps: int) -> None:
        n = len(corners)
        self.steps = steps - n
        self._corners = corners
        self._before, self._after = [n - 1, *range(n - 1)], [*range(1, n), 0]
        self._is_left = [True] * n
        self._number = [-1] * n  # clipping order of ears; -1 for other corners
        places: dict[Corner, int] = {}
        self._place = [places.setdefault(corner, len(places)) for corner in corners]
        self._obstacles = _Obstacles(list(places))
        self._is_obstacle = [not self._turns(i) for i in range(n)]
        self._waiting: dict[
            int, list[int]
        ] = {}  # corners that are not ears, by the obstacle in their triangle
        self._retests = RETESTS * n
        for i in range(n):
            if self._is_obstacle[i]:
                self._obstacles.add(self._place[i])
        self._queue: list[tuple[int, int]] = []
        self._found = count()
        for i in range(n):
            if self.steps > 0:
                self._test(i)

    def triangles(self) -> list[Sequence[int]] | None:
        """Clip all corners; None if out of steps."""
        triangles: list[Sequence[int]] = []
        first = 0
        for _ in range(len(self._corners) - 3):
            if self.steps <= 0:
                return None
            while self._queue and self._queue[0][0] != self._number[self._queue[0][1]]:
                heappop(self._queue)
            while not self._is_left[first]:
                first += 1
            i = self._queue[0][1] if self._queue else first
            triangles.append((self._before[i], i, self._after[i]))
            self._clip(i)
        triangles.append([i for i, is_left in enumerate(self._is_left) if is_left])
        return triangles

    def _turns(self, i: int) -> bool:
        a, b, c = (self._corners[k] for k in (self._before[i], i, self._after[i]))
        return turn(a, b, c) > 0

    def _test(self, i: int) -> None:
        """Test whether a corner is an ear; if not, note the obstacle in its triangle."""
        self._number[i] = -1
        if self._is_obstacle[i]:
            return
        a, b, c = (self._corners[k] for k in (self._before[i], i, self._after[i]))
        place, steps = self._obstacles.within(a, b, c)
        self.steps -= steps
        if place is None:
            self._number[i] = i if len(self._corners) <= MANY else next(self._found)
            heappush(self._queue, (self._number[i], i))
        else:
            self._waiting.setdefault(place, []).append(i)

    def _clip(self, i: int) -> None:
        before, after = self._before[i], self._after[i]
        self._is_left[i], self._number[i] = False, -1
        self._after[before], self._before[after] = after, before
        freed = self._set_obstacle(i, False)
        for k in (before, after):
            freed += self._set_obstacle(k, not self._turns(k))
        self._retests -= len(freed)
        for k in (before, after, *(freed if self._retests > 0 else ())):
            if self._is_left[k]:
                self._test(k)

    def _set_obstacle(self, i: int, is_obstacle: bool) -> list[int]:
        """Set whether a corner is an obstacle; returns the corners that waited for its place to be free."""
        if is_obstacle == self._is_obstacle[i]:
            return []
        self._is_obstacle[i] = is_obstacle
        if is_obstacle:
            self._obstacles.add(self._place[i])
            return []
        is_free = self._obstacles.remove(self._place[i])
        return self._waiting.pop(self._place[i], []) if is_free else []


class _Obstacles:
    """A tree over points in Z order that tracks which of them are occupied.

    Node k has children 2 k and 2 k + 1; the leaves are the last `leaves` nodes.
    """

    def __init__(self, places: list[Corner]) -> None:
        self._places, self._count = places, [0] * len(places)
        self._leaves = 1
        while self._leaves * LEAF < len(places):
            self._leaves *= 2
        self._occupied = [0] * (2 * self._leaves)
        self._size = -(-len(places) // self._leaves)  # points per leaf
        if self._leaves == 1:
            self._order, self._leaf = list(range(len(places))), [1] * len(places)
            self._boxes = [(-inf, -inf, inf, inf)] * 2
            return
        order = _z_order(np.array(places))
        self._order = order.tolist()
        self._leaf = (self._leaves + np.argsort(order) // self._size).tolist()
        self._boxes = self._all_boxes(order)

    def _all_boxes(self, order: npt.NDArray[np.intp]) -> list[tuple[float, float, float, float]]:
        """The bounds (low x, low y, high x, high y) of each node."""
        shape = (self._leaves, self._size, 2)
        low, high = np.full(shape, np.inf).reshape(-1, 2), np.full(shape, -np.inf).reshape(-1, 2)
        low[: len(order)] = high[: len(order)] = np.array(self._places)[order]
        levels = [np.hstack([low.reshape(shape).min(axis=1), high.reshape(shape).max(axis=1)])]
        while len(levels[-1]) > 1:
            pairs = levels[-1].reshape(-1, 2, 4)
            levels.append(np.hstack([pairs[..., :2].min(axis=1), pairs[..., 2:].max(axis=1)]))
        nodes = np.vstack([np.zeros((1, 4)), *reversed(levels)])
        return [(a, b, c, d) for a, b, c, d in nodes.tolist()]

    def add(self, place: int) -> None:
        """Add a corner at a place."""
        self._count[place] += 1
        if self._count[place] == 1:
            self._change(place, 1)

    def remove(self, place: int) -> bool:
        """Remove a corner from a place; returns whether the place is free now."""
        self._count[place] -= 1
        if self._count[place] == 0:
            self._change(place, -1)
            return True
        return False

    def _change(self, place: int, by: int) -> None:
        node = self._leaf[place]
        while node:
            self._occupied[node] += by
            node >>= 1

    def within(self, a: Corner, b: Corner, c: Corner) -> tuple[int | None, int]:
        """An occupied place in the triangle a, b, c or on its edges, except its corners, and the steps taken.

        Places at the triangle's corners do not count, because a bridge to a hole visits a place twice.
        """
        (ax, ay), (bx, by), (cx, cy) = a, b, c
        low_x, high_x, low_y, high_y = min(ax, bx, cx), max(ax, bx, cx), min(ay, by, cy), max(ay, by, cy)
        abx, aby, bcx, bcy, cax, cay = bx - ax, by - ay, cx - bx, cy - by, ax - cx, ay - cy
        stack, steps = [1], 0
        while stack:
            node = stack.pop()
            steps += 1
            x0, y0, x1, y1 = self._boxes[node]
            if not self._occupied[node] or x0 > high_x or x1 < low_x or y0 > high_y or y1 < low_y:
                continue
            if node < self._leaves:
                # Skip the box if its corner farthest inside of an edge is still outside.
                if (
                    abx * ((y1 if abx > 0 else y0) - ay) - aby * ((x0 if aby > 0 else x1) - ax) >= 0
                    and bcx * ((y1 if bcx > 0 else y0) - by) - bcy * ((x0 if bcy > 0 else x1) - bx) >= 0
                    and cax * ((y1 if cax > 0 else y0) - cy) - cay * ((x0 if cay > 0 else x1) - cx) >= 0
                ):
                    stack += (2 * node, 2 * node + 1)
                continue
            at = (node - self._leaves) * self._size
            for place in self._order[at : at + self._size]:
                x, y = self._places[place]
                if (
                    self._count[place]
                    and abx * (y - ay) - aby * (x - ax) >= 0
                    and bcx * (y - by) - bcy * (x - bx) >= 0
                    and cax * (y - cy) - cay * (x - cx) >= 0
                    and self._places[place] not in (a, b, c)
                ):
                    return place, steps
        return None, steps


def turn(a: Corner, b: Corner, c: Corner) -> float:
    """Twice the signed area of the triangle a, b, c: positive for a turn to the left."""
    return (b[0] - a[0]) * (c[1] - a[1]) - (b[1] - a[1]) * (c[0] - a[0])


def _z_order(places: npt.NDArray[np.float64]) -> npt.NDArray[np.intp]:
    """Z order of places (n, 2) by their ranks, which makes it independent of their spacing."""
    ranks = places.argsort(axis=0).argsort(axis=0).astype(np.uint64)
    code = np.zeros(len(places), np.uint64)
    for bit in range(len(places).bit_length()):
        for axis in range(2):
            code |= (ranks[:, axis] >> np.uint64(bit) & np.uint64(1)) << np.uint64(2 * bit + axis)
    return np.argsort(code)
