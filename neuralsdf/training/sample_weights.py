"""
sample_weights.py
-----------------
Sampling bias (paper, section 2.1.2): a weight per vertex that scales the density of samples closest to it, by
curvature, by thickness (the size of the feature), or given by the user.
"""

from __future__ import annotations

from io import BytesIO
from pathlib import Path

import numpy as np

from ..array_types import Faces, Points, Values
from ..errors import FileError
from ..files.bounded_input import opened
from ..mesh.signed_distance import SignedDistance

#: Weights are clipped to this factor above and below the median.
_RANGE = 4.0


def curvature_weights(vertices: Points, faces: Faces) -> Values:
    """Weights (V,) that grow with curvature: how fast the normal changes along the edges at a vertex.

    |n_a - n_b| / (distance between the two faces' centroids) is the normal curvature across an edge; it is
    defined on any mesh, however irregular.
    """
    corners = vertices[faces]
    normals = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    normals /= np.maximum(np.linalg.norm(normals, axis=1, keepdims=True), np.finfo(np.float64).tiny)
    centroids = corners.mean(axis=1)
    edges = np.sort(faces[:, [0, 1, 1, 2, 2, 0]].reshape(-1, 2), axis=1)
    owner = np.repeat(np.arange(len(faces)), 3)
    order = np.lexsort(edges.T)
    edges, owner = edges[order], owner[order]
    shared = np.flatnonzero((edges[1:] == edges[:-1]).all(axis=1))  # one entry for each pair of faces
    first, second = owner[shared], owner[shared + 1]
    turn = np.linalg.norm(normals[first] - normals[second], axis=1)
    distance = np.linalg.norm(centroids[first] - centroids[second], axis=1)
    curvature = turn / np.maximum(distance, 1e-6)
    total, count = np.zeros(len(vertices)), np.zeros(len(vertices))
    for end in range(2):
        np.add.at(total, edges[shared, end], curvature)
        np.add.at(count, edges[shared, end], 1)
    return _relative(total / np.maximum(count, 1))


def thickness_weights(oracle: SignedDistance) -> Values:
    """Weights (V,) that grow where the solid is thin: the reciprocal of the shape diameter.

    The shape diameter is the length inside the mesh of a ray from the vertex against its normal.
    """
    return _relative(1 / oracle.shape_diameter())


def read_weights(path: str | Path, count: int) -> Values:
    """Weights (count,), one per vertex, from a .npy file or a text file with one number per line.

    Raises `FileError` for anything else.
    """
    path = Path(path)
    with opened(path, FileError, "weights") as stream:
        content = BytesIO(stream.read())
    try:
        if path.suffix == ".npy":
            weights: Values = np.asarray(np.load(content, allow_pickle=False), np.float64)
        else:
            weights = np.loadtxt(content, ndmin=1, delimiter="," if path.suffix == ".csv" else None)
    except Exception as error:  # numpy raises almost any exception for a damaged header
        reason = (str(error).splitlines() or ["damaged"])[0]
        raise FileError(
            path, f"cannot be read as weights ({reason})", "give one number per vertex"
        ) from error
    if weights.shape != (count,):
        raise FileError(path, f"has {weights.shape} weights", f"give one for each of {count} vertices")
    if not np.isfinite(weights).all() or (weights < 0).any() or not (weights > 0).any():
        raise FileError(path, "has weights that are negative, not finite, or all zero", "give values >= 0")
    return weights


def _relative(values: Values) -> Values:
    """Values divided by their median, clipped to a factor of `_RANGE`."""
    positive = values[np.isfinite(values) & (values > 0)]
    median = float(np.median(positive)) if len(positive) else 1.0
    clipped: Points = np.clip(np.nan_to_num(values, nan=median) / median, 1 / _RANGE, _RANGE)
    return clipped
