"""
point_cloud.py
--------------
Point clouds, with or without normals, from files: PLY without faces, npy, or text (XYZ).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..arrays import Points, Vectors
from ..errors import PointsError
from ..files.input_file import opened, read_file
from ..files.point_files import read_oriented_points
from .formats.ply import PLY_START, read_ply_points
from .formats.raw_mesh import FormatError

#: Bytes in which a PLY shows what it is.
_HEAD = 64


@dataclass(frozen=True, eq=False)
class PointCloud:
    """Points in space, each with a normal or none of them.

    points: (n, 3) float64, finite, n >= 1. normals: (n, 3) float64, finite, not normalised; None if there are
    none.
    """

    points: Points
    normals: Vectors | None = None


def load_point_cloud(path: str | Path) -> PointCloud:
    """The point cloud in a file, in the file's own units and order; its content says what it is.

    PLY without faces: its vertices, with their normals where it has nx, ny and nz. npy: an array (n, 3), or
    (n, 6) with normals. Text: three numbers a line, or six. Raises `PointsError` for anything else, such as a
    mesh, for a file without points, and for numbers that are not finite.
    """
    with opened(path, PointsError, "points") as stream:
        head = stream.read(_HEAD)
    columns = _read_ply(path) if PLY_START.match(head) else read_oriented_points(path)
    if not len(columns):
        raise PointsError(path, "holds no points", "check what made it")
    broken = np.flatnonzero(~np.isfinite(columns).all(axis=1))
    if broken.size:
        what = "coordinates" if not np.isfinite(columns[broken[0], :3]).all() else "a normal"
        more = f", and {broken.size - 1} more points have" if broken.size > 1 else ""
        raise PointsError(path, f"point {broken[0]} has {what} not finite{more}", "remove such points")
    return PointCloud(columns[:, :3].copy(), columns[:, 3:].copy() if columns.shape[1] == 6 else None)


def _read_ply(path: str | Path) -> Points:
    try:
        return read_ply_points(read_file(path, PointsError, "points"))
    except FormatError as error:
        raise PointsError(path, error.reason, error.remedy) from error
