"""
camera.py
---------
A pinhole camera in mesh space, and its rays in model space.

Eye and target are in mesh units. The distance of an orbit is in multiples of the bounding radius, so that the
same number frames shapes of any size.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import cos, radians, sin, tan
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from ..arguments import numeric_array
from ..array_types import Points
from ..errors import UsageError
from ..geometry.similarity_transform import Similarity

Up = Literal["y", "z"]

#: Up and front direction for each up axis. The camera at azimuth 0 is in front: at +Z for Y-up formats
#: (glTF), at -Y for Z-up programs (Blender).
_AXES: dict[str, tuple[tuple[float, float, float], tuple[float, float, float]]] = {
    "y": ((0.0, 1.0, 0.0), (0.0, 0.0, 1.0)),
    "z": ((0.0, 0.0, 1.0), (0.0, -1.0, 0.0)),
}

#: Margin around the bounding ball, as a fraction of its radius.
MARGIN = 0.04


def position(name: str, value: npt.ArrayLike) -> Points:
    """The keyword argument `name` as a point (3,); raises `UsageError` unless it is one."""
    point = numeric_array(value, f"`{name}=`", "(3,)").astype(np.float64)
    if point.shape != (3,) or not np.isfinite(point).all():
        raise UsageError(f"`{name}=`: must be three finite coordinates")
    return point


@dataclass(frozen=True, eq=False)
class Camera:
    """A pinhole camera.

    eye, target: position of the camera and the point it looks at, (3,) in mesh units. up: "y" or "z" of mesh
    space. fov: field of view in degrees across the shorter side of the picture; pixels are square.
    Raises `UsageError` for invalid values.
    """

    eye: Points
    target: Points
    up: Up = "y"
    fov: float = 30.0

    def __post_init__(self) -> None:
        _check_up(self.up)
        _check_fov(self.fov)
        for name in ("eye", "target"):
            object.__setattr__(self, name, position(name, getattr(self, name)))
        if np.array_equal(self.eye, self.target):
            raise UsageError("`eye=` and `target=` must not be the same point")

    @classmethod
    def orbit(
        cls,
        transform: Similarity,
        azimuth: float = 30.0,
        elevation: float = 20.0,
        distance: float | None = None,
        *,
        fov: float = 30.0,
        target: npt.ArrayLike | None = None,
        up: Up = "y",
    ) -> Camera:
        """A camera on a sphere about the target.

        transform: of the field; defines the bounding ball in mesh space. azimuth, elevation: in degrees;
        azimuth 0 is the front (+Z for Y up, -Y for Z up) and increases towards the viewer's right.
        distance: from the target, in multiples of the bounding radius; None frames the ball with a small
        margin. target: (3,) in mesh units; None for the ball's centre. Raises `UsageError` for invalid
        values.
        """
        _check_up(up)
        if not np.isfinite([azimuth, elevation]).all():
            raise UsageError("`azimuth=` and `elevation=` must be finite")
        _check_fov(fov)
        if distance is None:
            distance = (1 + MARGIN) / sin(radians(fov / 2))
        if not 0 < distance < 1e6:
            raise UsageError(f"`distance={distance:g}`: must be more than 0 and less than 1e6 bounding radii")
        upward, front = np.array(_AXES[up])
        right = np.cross(upward, front)
        horizontal = cos(radians(azimuth)) * front + sin(radians(azimuth)) * right
        outward = cos(radians(elevation)) * horizontal + sin(radians(elevation)) * upward
        # Beyond the poles the picture would be upside down.
        if not -90 <= elevation <= 90:
            raise UsageError(f"`elevation={elevation:g}`: must be -90 to 90 degrees")
        centre = transform.centre if target is None else position("target", target)
        return cls(centre + distance * transform.scale * outward, centre, up, fov)

    def orbited(self, degrees: float) -> Camera:
        """The camera rotated about the up axis through its target, towards the viewer's right."""
        upward, front = np.array(_AXES[self.up])
        right = np.cross(upward, front)
        offset = self.eye - self.target
        x, y, height = offset @ front, offset @ right, offset @ upward
        c, s = cos(radians(degrees)), sin(radians(degrees))
        rotated = (c * x - s * y) * front + (s * x + c * y) * right + height * upward
        return replace(self, eye=self.target + rotated)

    def frame(self) -> Points:
        """Rows right, up, backward: an orthonormal right-handed frame (3, 3) in mesh space."""
        backward = self.eye - self.target
        backward = backward / np.abs(backward).max()  # avoids overflow and underflow of the norm
        backward /= np.linalg.norm(backward)
        upward, front = np.array(_AXES[self.up])
        right = np.cross(upward, backward)
        if np.linalg.norm(right) < 1e-9:  # seen from above or below: keep the front at the bottom
            right = np.cross(upward, front)
        right /= np.linalg.norm(right)
        return np.stack([right, np.cross(backward, right), backward])

    def frame_in_model(self, transform: Similarity) -> Points:
        """`frame` in model space, (3, 3); left-handed if the transform mirrors."""
        rotated: Points = self.frame() @ (transform.matrix[:3, :3] / transform.scale)
        return rotated

    def rays(
        self,
        transform: Similarity,
        width: int,
        height: int,
        columns: npt.NDArray[Any],
        rows: npt.NDArray[Any],
    ) -> tuple[Points, Points]:
        """Rays through points of the picture: eye (3,) and unit directions (n, 3) in model space, float64.

        columns, rows: (n,) in pixels from the top left corner of a picture of width x height pixels;
        the centre of the first pixel is (0.5, 0.5).
        """
        pixel = tan(radians(self.fov) / 2) / (min(width, height) / 2)  # size on the image plane at distance 1
        x = (np.asarray(columns, np.float64) - width / 2) * pixel
        y = (height / 2 - np.asarray(rows, np.float64)) * pixel
        # Coordinates come first, because numpy is slow along short axes.
        in_frame = np.stack([x, y, np.full_like(x, -1)])
        in_frame /= np.sqrt(x * x + y * y + 1)
        directions = np.einsum("ij,in->jn", self.frame_in_model(transform), in_frame)
        return transform.apply_inverse(self.eye[None])[0], directions.T


def _check_up(up: str) -> None:
    if up not in _AXES:
        raise UsageError(f"`up={up!r}`: must be 'y' or 'z'")


def _check_fov(fov: float) -> None:
    if not 0.01 <= fov <= 160:
        raise UsageError(f"`fov={fov:g}`: must be 0.01 to 160 degrees")
