"""
point_cloud.py
--------------
Reads point clouds with or without normals: PLY without faces, NPY, or text (XYZ).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..array_types import Points, Vectors
from ..errors import PointsError
from ..files.bounded_input import opened, read_file
from ..files.point_lists import read_oriented_points
from .formats.ply import PLY_START, read_ply_points
from .formats.shared.raw_mesh import FormatError

#: Bytes needed to recognise a PLY.
_HEAD = 64


@dataclass(frozen=True, eq=False)
class PointCloud:
    """Points in space, optionally with normals.

    points: (n, 3) float64, finite, n >= 1. normals: (n, 3) float64, finite, not normalised, or None.
    """

    points: Points
    normals: Vectors | None = None


def load_point_cloud(path: str | Path) -> PointCloud:
    """Load a point cloud in the units and order of its file; the content determines the format.

    PLY without faces: vertices, with normals if it has nx, ny and nz. NPY: an array (n, 3), or (n, 6) with
    normals. Text: three or six numbers per line. Raises `PointsError` for other files, such as meshes, for a
    file without points, and for numbers that are not finite.
    """
    with opened(path, PointsError, "points") as stream:
        head = stream.read(_HEAD)
    columns = _read_ply(path) if PLY_START.match(head) else read_oriented_points(path)
    if not len(columns):
        raise PointsError(path, "holds no points", "check how it was created")
    broken = np.flatnonzero(~np.isfinite(columns).all(axis=1))
    if broken.size:
        bad_coordinates = not np.isfinite(columns[broken[0], :3]).all()
        what = "non-finite coordinates" if bad_coordinates else "a non-finite normal"
        more = f" (and {broken.size - 1} more)" if broken.size > 1 else ""
        raise PointsError(path, f"point {broken[0]} has {what}{more}", "remove such points")
    return PointCloud(columns[:, :3].copy(), columns[:, 3:].copy() if columns.shape[1] == 6 else None)


def _read_ply(path: str | Path) -> Points:
    try:
        return read_ply_points(read_file(path, PointsError, "points"))
    except FormatError as error:
        raise PointsError(path, error.reason, error.remedy) from error
