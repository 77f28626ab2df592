"""Meshes with known distances, for tests: vertices (V, 3) float64 and faces (F, 3) int64, outward."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import trimesh

Arrays = tuple[npt.NDArray[np.float64], npt.NDArray[np.int64]]


def _arrays(mesh: trimesh.Trimesh) -> Arrays:
    return np.array(mesh.vertices, np.float64), np.array(mesh.faces, np.int64)


def box(*half: float) -> Arrays:
    """The box [-h, h] along each axis."""
    return _arrays(trimesh.creation.box(extents=2 * np.array(half)))


def sphere(radius: float = 1.0, subdivisions: int = 4) -> Arrays:
    return _arrays(trimesh.creation.icosphere(subdivisions=subdivisions, radius=radius))


def torus(major: float = 0.7, minor: float = 0.25) -> Arrays:
    return _arrays(trimesh.creation.torus(major, minor, major_sections=96, minor_sections=48))


def hemisphere(radius: float = 0.8) -> Arrays:
    """The upper half of a sphere, without its base: open."""
    vertices, faces = sphere(radius)
    return vertices, faces[(vertices[faces, 2] > -1e-9).all(axis=1)]


def joined(*meshes: Arrays) -> Arrays:
    """All of them in one mesh."""
    offsets = np.cumsum([0, *(len(vertices) for vertices, _ in meshes)])
    faces = [f + offset for (_, f), offset in zip(meshes, offsets[:-1], strict=True)]
    return np.concatenate([v for v, _ in meshes]), np.concatenate(faces)


def box_distance(points: npt.NDArray[np.float64], *half: float) -> npt.NDArray[np.float64]:
    """The exact signed distance of `box`."""
    q = np.abs(points) - np.array(half)
    distance: npt.NDArray[np.float64] = np.linalg.norm(np.maximum(q, 0), axis=1) + np.minimum(q.max(axis=1), 0)
    return distance
