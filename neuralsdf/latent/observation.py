"""
observation.py
--------------
What is known of a shape that is to be reconstructed: points of model space and the signed distances there, by
which its code is found. From a mesh, or from a cloud of points with normals.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np

from ..array_types import FloatArray, Points, Vectors
from ..errors import PointsError, UsageError
from ..files.bounded_input import read_file
from ..geometry.similarity_transform import Similarity
from ..geometry.unit_ball import minimum_enclosing_ball
from ..mesh.formats.registry import SUFFIXES
from ..mesh.load_mesh import load_mesh
from ..mesh.point_cloud import PointCloud, load_point_cloud
from ..mesh.signed_distance import SignedDistance
from .cache import MODEL_RADIUS, Prepared, from_fixed
from .prepare import Counts, draw_samples, normalised

#: Maximum size of a file with a matrix in bytes.
_MAX_MATRIX = 1 << 16
#: Signed distances of a shape, and how far along the normals those of a cloud are, in model space.
SAMPLES, OFFSETS = 100_000, (0.005, 0.02, 0.05)
#: Points of free space for each point of a cloud, and the cosine to the nearest normal that decides a side.
_FREE, _CLEAR = 1, 0.8


class Observation(NamedTuple):
    """points: (n, 3) in model space. distances: (n,). transform: model space to the space of the input."""

    points: FloatArray
    distances: FloatArray
    transform: Similarity
    unit: str | None = None


def observe(
    path: str | Path, *, transform: Similarity | None = None, partial: bool = False, seed: int = 0
) -> Observation:
    """What a file tells of a shape: a mesh, or a point cloud with normals (PLY, NPY, text).

    transform: of a cloud, from model space to its own; None for that of its minimum enclosing ball. partial:
    whether a cloud covers only a part of the shape, so that space away from it is not known to be free.
    Raises `MeshError` or `PointsError` for a file that cannot be read, or a cloud without normals.
    """
    if is_mesh(path):
        if transform is not None or partial:
            given = "transform" if transform is not None else "partial"
            raise UsageError(f"{path}: `{given}=` only applies to point clouds, and this is a mesh")
        return observe_mesh(*normalised(load_mesh(path), Path(path).name), seed)
    return from_cloud(load_point_cloud(path), str(path), transform, partial=partial, seed=seed)


def read_transform(path: str | Path) -> Similarity:
    """The similarity in a text file of four rows of four numbers; raises `PointsError` for other files."""
    content = read_file(path, PointsError, "a matrix", _MAX_MATRIX).data
    try:
        matrix = np.array([float(word) for word in content.split()]).reshape(4, 4)
        return Similarity(matrix)
    except (ValueError, UsageError) as error:
        reason = str(error) if isinstance(error, UsageError) else "is not four rows of four numbers"
        raise PointsError(path, reason, "map the unit ball to the ball around the shape") from error


def is_mesh(path: str | Path) -> bool:
    """Whether a file is a mesh, not a point cloud; a PLY file is a mesh if it has faces."""
    suffix = Path(path).suffix.lower()
    if suffix != ".ply":
        return suffix in SUFFIXES
    try:
        load_point_cloud(path)
    except PointsError:
        return True
    return False


def observe_mesh(shape: Prepared, oracle: SignedDistance, seed: int = 0) -> Observation:
    """What is known of a mesh: the signed distances of DeepSDF's density."""
    samples, _ = draw_samples(shape, oracle, Counts(SAMPLES, 1000, 1000), seed, 0)
    points = from_fixed(samples.distance_points, MODEL_RADIUS)
    return Observation(points, samples.distances, shape.transform, shape.unit)


def from_cloud(
    cloud: PointCloud, name: str, transform: Similarity | None = None, *, partial: bool = False, seed: int = 0
) -> Observation:
    """Distances along the normals of a cloud, on both sides, and distances in the space around it."""
    if cloud.normals is None:
        raise PointsError(
            name, "has no normals, and without them the inside is not known", "estimate normals first"
        )
    lengths = np.linalg.norm(cloud.normals, axis=1)
    if not lengths.all():
        raise PointsError(
            name, f"point {int(np.argmin(lengths))} has a normal of length 0", "remove such points"
        )
    if transform is None:
        transform = Similarity.from_ball(*minimum_enclosing_ball(cloud.points))
    on = transform.apply_inverse(cloud.points)
    normals = (cloud.normals / lengths[:, None]) @ (transform.matrix[:3, :3] / transform.scale)
    rng = np.random.default_rng(seed)
    points, distances = _along_normals(on, normals, rng)
    if not partial:
        free, of_free = _free_space(on, normals, _FREE * len(on), rng)
        points, distances = np.concatenate([points, free]), np.concatenate([distances, of_free])
    return Observation(points.astype(np.float32), distances.astype(np.float32), transform)


def _along_normals(on: Points, normals: Vectors, rng: np.random.Generator) -> tuple[Points, FloatArray]:
    """Points on both sides of the cloud (n, 3), and their distances from it: those to their own point.

    A point is left out if another point of the cloud is closer.
    """
    from scipy.spatial import cKDTree

    chosen = rng.integers(0, len(on), max(SAMPLES // len(OFFSETS) // 2, len(on)))
    tree, points, distances = cKDTree(on), [], []
    for offset in OFFSETS:
        for side in (1, -1):
            there = on[chosen] + side * offset * normals[chosen]
            nearest, _ = tree.query(there, workers=1)
            own = nearest > 0.9 * offset
            points.append(there[own])
            distances.append(np.full(np.count_nonzero(own), side * offset))
    return np.concatenate(points), np.concatenate(distances)


def _free_space(
    on: Points, normals: Vectors, count: int, rng: np.random.Generator
) -> tuple[Points, FloatArray]:
    """Points of the ball around a cloud, and their distances, with the sign that the closest normal tells.

    A point is left out where its closest point's normal points aside.
    """
    from scipy.spatial import cKDTree

    points = rng.uniform(-1, 1, (2 * count, 3))
    points = points[np.linalg.norm(points, axis=1) < 1][:count]
    distances, index = cKDTree(on).query(points, workers=1)
    cosines = np.einsum("ij,ij->i", points - on[index], normals[index]) / np.maximum(distances, 1e-12)
    clear = np.abs(cosines) > _CLEAR
    return points[clear], np.copysign(distances, cosines)[clear]
