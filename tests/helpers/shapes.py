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


def hemisphere(radius: float = 0.8, rings: int = 48) -> Arrays:
    """The upper half of a sphere, cut at z = 0 exactly, without its base: open."""
    polar = np.linspace(0, np.pi / 2, rings + 1)[1:, None]
    around = np.linspace(0, 2 * np.pi, 4 * rings, endpoint=False)[None]
    ring = np.stack(
        np.broadcast_arrays(np.sin(polar) * np.cos(around), np.sin(polar) * np.sin(around), np.cos(polar))
    )
    vertices = radius * np.vstack([[0, 0, 1], ring.reshape(3, -1).T])
    index = 1 + np.arange(rings * 4 * rings).reshape(rings, -1)
    after = np.roll(index, -1, axis=1)
    pole = np.stack([np.zeros_like(index[0]), index[0], after[0]], axis=1)
    lower = np.stack([index[:-1], index[1:], after[1:]], axis=-1).reshape(-1, 3)
    upper = np.stack([index[:-1], after[1:], after[:-1]], axis=-1).reshape(-1, 3)
    return vertices, np.vstack([pole, lower, upper]).astype(np.int64)


def joined(*meshes: Arrays) -> Arrays:
    """All of them in one mesh."""
    offsets = np.cumsum([0, *(len(vertices) for vertices, _ in meshes)])
    faces = [f + offset for (_, f), offset in zip(meshes, offsets[:-1], strict=True)]
    return np.concatenate([v for v, _ in meshes]), np.concatenate(faces)


def box_distance(points: npt.NDArray[np.float64], *half: float) -> npt.NDArray[np.float64]:
    """The exact signed distance of `box`."""
    q = np.abs(points) - np.array(half)
    distance: npt.NDArray[np.float64] = np.linalg.norm(np.maximum(q, 0), axis=1) + np.minimum(
        q.max(axis=1), 0
    )
    return distance


def moved(mesh: Arrays, offset: npt.ArrayLike) -> Arrays:
    """The mesh moved by an offset (3,)."""
    return mesh[0] + np.asarray(offset, np.float64), mesh[1]


def inverted(mesh: Arrays) -> Arrays:
    """The mesh with inverted orientation."""
    return mesh[0], mesh[1][:, ::-1]
