"""What is known of a point cloud: repeated points change nothing, and clouds without a size are refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from neuralsdf.errors import PointsError
from neuralsdf.latent.observation import observe


def ball_cloud(count: int) -> np.ndarray:
    """Points of the unit sphere with normals (n, 6)."""
    points = np.random.default_rng(0).normal(size=(count, 3))
    points /= np.linalg.norm(points, axis=1, keepdims=True)
    return np.hstack([points, points])


def test_repeated_points_change_nothing(tmp_path: Path) -> None:
    """A hundred thousand copies of a point took minutes."""
    cloud = ball_cloud(500)
    np.save(tmp_path / "once.npy", cloud)
    np.save(tmp_path / "often.npy", np.vstack([cloud, np.repeat(cloud[:1], 100_000, axis=0)]))
    once, often = observe(tmp_path / "once.npy"), observe(tmp_path / "often.npy")
    np.testing.assert_array_equal(often.points, once.points)
    np.testing.assert_array_equal(often.distances, once.distances)


@pytest.mark.parametrize(
    ("cloud", "reason"),
    [
        (ball_cloud(1), "has only one point"),
        (np.repeat(ball_cloud(1), 50, axis=0), "has only one point"),
        (ball_cloud(100) * [1e150, 1e150, 1e150, 1, 1, 1], "out of the range of double precision"),
    ],
)
def test_clouds_without_a_usable_size_are_refused(cloud: np.ndarray, reason: str, tmp_path: Path) -> None:
    np.save(tmp_path / "cloud.npy", cloud)
    with pytest.raises(PointsError, match=f"cloud.npy: .*{reason}"):
        observe(tmp_path / "cloud.npy")
