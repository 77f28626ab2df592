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
import numpy.typing as npt

from ..array_types import FloatArray, Points, Values, Vectors
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
#: A cloud surely does not belong to its ball if the distances of most points from their middle, in radii, are
#: out of this range, or those from the ball's centre. A part may be small.
_MOST, _SMALLEST, _SMALLEST_PART, _LARGEST, _FARTHEST = 0.99, 0.3, 0.02, 1.5, 1.2
#: Mean height along the normals, as a fraction of the mean absolute height, of normals that point inwards.
_INWARD = 0.2


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
    return from_cloud(load_distinct_points(path), str(path), transform, partial=partial, seed=seed)


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


def load_distinct_points(path: str | Path) -> PointCloud:
    """The cloud in a file without its repeated points: a k-d tree of equal points takes quadratic time."""
    cloud = load_point_cloud(path)
    _, first = np.unique(cloud.points, axis=0, return_index=True)
    first.sort()
    return PointCloud(cloud.points[first], None if cloud.normals is None else cloud.normals[first])


def ball_around(points: Points, name: str) -> Similarity:
    """The similarity from the unit ball to the minimum enclosing ball of points (n, 3).

    Raises `PointsError` for a single point, and for sizes out of the range of double precision.
    """
    if len(points) < 2:
        raise PointsError(name, "has only one point, apart from repeated ones", "give more points")
    try:
        return Similarity.from_ball(*minimum_enclosing_ball(points))
    except UsageError as error:
        raise PointsError(name, f"{error}", "scale the cloud") from error


def from_cloud(
    cloud: PointCloud, name: str, transform: Similarity | None = None, *, partial: bool = False, seed: int = 0
) -> Observation:
    """Distances along the normals of a cloud, on both sides, and distances in the space around it.

    Raises `PointsError` for a cloud without normals or with normals that point inwards, and for one that
    does not fit into the ball of the transform.
    """
    normals = unit_normals_of(cloud, name)
    if not partial:
        _check_outward(cloud.points, normals, name)
    if transform is None:
        transform = ball_around(cloud.points, name)
    on = transform.apply_inverse(cloud.points)
    _check_fits(on, name, partial)
    normals = normals @ (transform.matrix[:3, :3] / transform.scale)
    rng = np.random.default_rng(seed)
    found = along_normals(on, normals, max(SAMPLES, 2 * len(OFFSETS) * len(on)), rng)
    points = on[found.own] + found.distances[:, None] * normals[found.own]
    distances = found.distances
    if not partial:
        free, of_free = _free_space(on, normals, _FREE * len(on), rng)
        points, distances = np.concatenate([points, free]), np.concatenate([distances, of_free])
    return Observation(points.astype(np.float32), distances.astype(np.float32), transform)


def unit_normals_of(cloud: PointCloud, name: str) -> Vectors:
    """The normals (n, 3) of a cloud with length 1; raises `PointsError` if there are none."""
    if cloud.normals is None:
        raise PointsError(
            name, "has no normals, and without them the inside is not known", "estimate normals first"
        )
    lengths = np.linalg.norm(cloud.normals, axis=1)
    if not lengths.all():
        raise PointsError(
            name, f"point {int(np.argmin(lengths))} has a normal of length 0", "remove such points"
        )
    unit: Vectors = cloud.normals / lengths[:, None]
    return unit


def _check_outward(points: Points, normals: Vectors, name: str) -> None:
    """Raise `PointsError` for normals that point inwards: by the divergence theorem, the mean of the points'
    heights along their normals is 3 volumes per area."""
    heights = np.einsum("ij,ij->i", points - points.mean(axis=0), normals)
    if heights.mean() < -_INWARD * np.abs(heights).mean():
        raise PointsError(name, "its normals point inwards", "reverse them")


def _check_fits(on: Points, name: str, partial: bool) -> None:
    """Raise `PointsError` for points (n, 3) of model space that are much larger than the unit ball, fill
    little of it, or lie outside."""
    centre = np.median(on, axis=0)
    size, reach = (float(np.quantile(np.linalg.norm(points, axis=1), _MOST)) for points in (on - centre, on))
    if not (_SMALLEST_PART if partial else _SMALLEST) < size < _LARGEST:
        reason = f"its points have {size:.3g} times the radius of the ball of `transform=`"
    elif reach > _FARTHEST:
        reason = f"its points are up to {reach:.3g} radii from the centre of the ball of `transform=`"
    else:
        return
    raise PointsError(name, reason, "give the ball in the units of the cloud, or find it: `fit_pose=True`")


class Offsets(NamedTuple):
    """Points along the normals of a cloud. own: (k,) indices of their own points. distances: (k,), signed."""

    own: npt.NDArray[np.int64]
    distances: Values


def along_normals(on: Points, normals: Vectors, count: int, rng: np.random.Generator) -> Offsets:
    """About `count` points on both sides of a cloud in model space, points (n, 3) and unit normals (n, 3).

    A point is left out if another point of the cloud is closer than its own.
    """
    from scipy.spatial import cKDTree

    chosen = rng.integers(0, len(on), max(1, count // len(OFFSETS) // 2))
    tree, index, distances = cKDTree(on), [], []
    for offset in OFFSETS:
        for side in (1, -1):
            nearest, _ = tree.query(on[chosen] + side * offset * normals[chosen], workers=1)
            own = chosen[nearest > 0.9 * offset]
            index.append(own)
            distances.append(np.full(len(own), side * offset))
    return Offsets(np.concatenate(index), np.concatenate(distances))


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
