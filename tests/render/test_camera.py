from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from neuralsdf.errors import UsageError
from neuralsdf.geometry.similarity_transform import Similarity
from neuralsdf.render.camera import Camera

IDENTITY = Similarity.identity()
angles = st.floats(-180, 180)


def rotation(seed: int) -> np.ndarray:
    q, _ = np.linalg.qr(np.random.default_rng(seed).normal(size=(3, 3)))
    return q * np.sign(np.linalg.det(q))


def similarity(seed: int, scale: float, centre: tuple[float, float, float]) -> Similarity:
    matrix = np.eye(4)
    matrix[:3, :3] = rotation(seed) * scale
    matrix[:3, 3] = centre
    return Similarity(matrix)


def corner_rays(
    camera: Camera, transform: Similarity, width: int, height: int
) -> tuple[np.ndarray, np.ndarray]:
    columns, rows = np.meshgrid([0.0, width / 2, width], [0.0, height / 2, height])
    return camera.rays(transform, width, height, columns.ravel(), rows.ravel())


@pytest.mark.parametrize(
    ("up", "azimuth", "elevation", "direction"),
    [
        ("y", 0, 0, (0, 0, 1)),
        ("y", 90, 0, (1, 0, 0)),
        ("y", 0, 90, (0, 1, 0)),
        ("z", 0, 0, (0, -1, 0)),
        ("z", 90, 0, (1, 0, 0)),
        ("z", 0, 90, (0, 0, 1)),
    ],
)
def test_an_orbit_surrounds_the_centre(up, azimuth, elevation, direction):
    transform = Similarity.from_ball([10, 20, 30], 4)
    camera = Camera.orbit(transform, azimuth, elevation, 3, up=up)
    np.testing.assert_allclose(camera.eye, np.array([10, 20, 30]) + 12 * np.array(direction), atol=1e-12)
    np.testing.assert_allclose(camera.target, [10, 20, 30])


@given(angles, st.floats(-90, 90), st.sampled_from("yz"))
def test_frame_is_orthonormal_and_upright(azimuth, elevation, up):
    frame = Camera.orbit(IDENTITY, azimuth, elevation, up=up).frame()
    np.testing.assert_allclose(frame @ frame.T, np.eye(3), atol=1e-9)
    assert np.linalg.det(frame) == pytest.approx(1)
    assert frame[1]["xyz".index(up)] >= -1e-9  # never upside down
    assert abs(frame[0]["xyz".index(up)]) < 1e-9  # the horizon is level


@given(angles, st.floats(-90, 90), st.floats(2, 120), st.integers(1, 300), st.integers(1, 300))
def test_default_distance_frames_the_ball(azimuth, elevation, fov, width, height):
    transform = similarity(3, 7.0, (1, 2, 3))
    camera = Camera.orbit(transform, azimuth, elevation, fov=fov)
    # Tangents from the eye to the unit ball stay inside the shorter side's angle, and nearly fill it.
    eye, _ = camera.rays(transform, width, height, np.zeros(1), np.zeros(1))
    half_angle = np.degrees(np.arcsin(1 / np.linalg.norm(eye)))
    assert 0.85 * fov / 2 < half_angle < fov / 2


@pytest.mark.parametrize(("width", "height"), [(64, 64), (200, 50), (50, 200)])
def test_pixels_are_square_and_fov_spans_the_shorter_side(width, height):
    camera = Camera(np.array([0, 0, 5.0]), np.zeros(3), fov=40)
    eye, directions = corner_rays(camera, IDENTITY, width, height)
    np.testing.assert_allclose(eye, [0, 0, 5])
    plane = directions[:, :2] / -directions[:, 2:]
    half = np.tan(np.radians(20))
    shorter = min(width, height)
    np.testing.assert_allclose(plane[8], [half * width / shorter, -half * height / shorter])  # bottom right
    np.testing.assert_allclose(plane[0], -plane[8])
    np.testing.assert_allclose(plane[4], 0, atol=1e-15)
    np.testing.assert_allclose(np.linalg.norm(directions, axis=1), 1)


@given(st.integers(0, 50), st.sampled_from([1e-9, 1.0, 1e9]), angles, st.floats(-80, 80))
def test_rays_in_model_space_are_the_mesh_space_rays_mapped(seed, scale, azimuth, elevation):
    transform = similarity(seed, scale, (3 * scale, -2 * scale, scale))
    camera = Camera.orbit(transform, azimuth, elevation)
    eye, directions = corner_rays(camera, transform, 30, 20)
    back = transform.apply(eye[None])[0]
    np.testing.assert_allclose(back, camera.eye, rtol=1e-9, atol=1e-9 * scale)
    np.testing.assert_allclose(eye @ eye, ((1 + 0.04) / np.sin(np.radians(15))) ** 2, rtol=1e-9)
    # The centre ray goes from the eye to the target.
    np.testing.assert_allclose(
        transform.rotate(directions)[4],
        (camera.target - camera.eye) / np.linalg.norm(camera.target - camera.eye),
        atol=1e-9,
    )


def test_orbiting_changes_the_azimuth():
    for up in ("y", "z"):
        start = Camera.orbit(IDENTITY, 20, 35, 4, up=up, target=(0.1, 0.2, 0.3))
        expected = Camera.orbit(IDENTITY, 20 + 110, 35, 4, up=up, target=(0.1, 0.2, 0.3))
        np.testing.assert_allclose(start.orbited(110).eye, expected.eye, atol=1e-12)


@pytest.mark.parametrize(
    "make",
    [
        lambda: Camera(np.zeros(3), np.zeros(3)),
        lambda: Camera(np.ones(3), np.full(3, np.nan)),
        lambda: Camera(np.ones(2), np.zeros(3)),
        lambda: Camera(np.ones(3), np.zeros(3), fov=0),
        lambda: Camera(np.ones(3), np.zeros(3), fov=180),
        lambda: Camera(np.ones(3), np.zeros(3), up="x"),
        lambda: Camera.orbit(IDENTITY, elevation=91),
        lambda: Camera.orbit(IDENTITY, distance=0),
        lambda: Camera.orbit(IDENTITY, azimuth=np.inf),
        lambda: Camera.orbit(IDENTITY, up="x"),
        lambda: Camera.orbit(IDENTITY, fov=np.nan),
    ],
)
def test_invalid_cameras_are_refused(make):
    with pytest.raises(UsageError):
        make()
