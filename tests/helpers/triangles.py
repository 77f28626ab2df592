"""Random triangles, and distances to them by brute force."""

from __future__ import annotations

import numpy as np

from . import shapes

#: Refinements of a winding number (pairs of accuracy and band): without expansions, and with them.
EXACT = [(1e6, 0.0)]  # no node is far enough to use its expansion
SHARP = [(1.0, 0.25), (2.0, 0.01), (6.0, 0.0)]


def soup(seed: int, count: int = 60) -> shapes.Arrays:
    """Random triangles of all sizes, some of them degenerate, some duplicated."""
    rng = np.random.default_rng(seed)
    corners = rng.uniform(-1, 1, (count, 1, 3)) + rng.normal(size=(count, 3, 3)) * rng.exponential(
        0.2, (count, 1, 1)
    )
    corners[:3, 2] = corners[:3, 1]  # edges
    corners[3:5] = corners[3:5, :1]  # points
    corners[5, 2] = 0.3 * corners[5, 0] + 0.7 * corners[5, 1]  # three corners on a line
    corners[6, 2] = corners[6, 0] + 1e-9 * (corners[6, 1] - corners[6, 0])
    corners[7] = corners[8]
    return corners.reshape(-1, 3), np.arange(3 * count).reshape(-1, 3)


def queries(mesh: shapes.Arrays, seed: int) -> np.ndarray:
    """Points everywhere, and on vertices, edges and faces."""
    rng = np.random.default_rng(seed)
    vertices, faces = mesh
    corners = vertices[faces[rng.integers(len(faces), size=40)]]
    on_faces = (corners * rng.dirichlet(np.ones(3), 40)[:, :, None]).sum(axis=1)
    on_edges = corners[:, 0] + rng.random((40, 1)) * (corners[:, 1] - corners[:, 0])
    return np.vstack(
        [rng.uniform(-2, 2, (80, 3)), 50 * rng.normal(size=(4, 3)), on_faces, on_edges, corners[:, 0]]
    )


def brute_distance(mesh: shapes.Arrays, points: np.ndarray) -> np.ndarray:
    """Distances (n, F) of points to every triangle."""
    return triangle_distance(mesh[0][mesh[1]], points[:, None])


def triangle_distance(corners: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Distances (...) of points (..., 3) to triangles (..., 3, 3): to the plane where they project inside,
    else to the edges."""
    a, b, c = np.moveaxis(corners, -2, 0)

    def to_segment(start: np.ndarray, end: np.ndarray) -> np.ndarray:
        edge, offset = end - start, points - start
        length = np.maximum((edge**2).sum(axis=-1), 1e-300)
        along = np.clip((offset * edge).sum(axis=-1) / length, 0, 1)
        return np.linalg.norm(offset - along[..., None] * edge, axis=-1)

    distance = np.minimum(np.minimum(to_segment(a, b), to_segment(b, c)), to_segment(c, a))
    normal = np.cross(b - a, c - a)
    sides = [
        (np.cross(end - start, points - start) * normal).sum(axis=-1)
        for start, end in ((a, b), (b, c), (c, a))
    ]
    length = np.linalg.norm(normal, axis=-1)
    height = np.abs(((points - a) * normal).sum(axis=-1)) / np.maximum(length, 1e-300)
    thin = length <= 1e-9 * np.linalg.norm(b - a, axis=-1) * np.linalg.norm(c - a, axis=-1)
    above = (np.min(sides, axis=0) > 0) & ~thin
    return np.where(above, height, distance)


def lie_on(mesh: shapes.Arrays, face: np.ndarray, length: np.ndarray, *rays: np.ndarray) -> bool:
    """Whether rays (origins and directions (n, 3)) that hit something end on the faces (n,) said, to 1e-8 of
    their lengths."""
    hit = np.isfinite(length)
    origin, direction = (ray[hit] for ray in rays)
    ends = origin + length[hit, None] * direction
    size = 1 + np.abs(origin).max(axis=1)
    off = triangle_distance(mesh[0][mesh[1][face[hit]]], ends)
    return bool((off < 1e-8 * size).all())
