"""
camera.py
---------
A pinhole camera in mesh space, and its rays in model space.

Eye and target are in the mesh's units; the distance of an orbit is in multiples of the shape's
bounding radius, so that one number frames a ring and a cathedral alike.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import cos, radians, sin, tan
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from ..array_types import Points
from ..errors import UsageError
from ..geometry.similarity import Similarity

Up = Literal["y", "z"]

#: Each up axis, and the horizontal axis from which azimuth 0 looks: the usual front view of Y-up
#: formats (glTF) is from +Z, that of Z-up programs (Blender) from -Y.
_AXES: dict[str, tuple[tuple[float, float, float], tuple[float, float, float]]] = {
    "y": ((0.0, 1.0, 0.0), (0.0, 0.0, 1.0)),
    "z": ((0.0, 0.0, 1.0), (0.0, -1.0, 0.0)),
}

#: Free space around the bounding ball, as a share of its radius.
MARGIN = 0.04


@dataclass(frozen=True, eq=False)
class Camera:
    """A pinhole camera: where it is, what it looks at, which way is up, and how wide it sees.

    eye, target: (3,) in mesh space, mesh units. up: "y" or "z" of mesh space. fov: degrees across the
    shorter side of the picture; pixels are square, so the longer side sees more.
    Raises `UsageError` where these make no camera.
    """

    eye: Points
    target: Points
    up: Up = "y"
    fov: float = 30.0

    def __post_init__(self) -> None:
        if self.up not in _AXES:
            raise UsageError(f"up is y or z, not {self.up!r}")
        _check_fov(self.fov)
        for name in ("eye", "target"):
            point = np.asarray(getattr(self, name), np.float64)
            if point.shape != (3,) or not np.isfinite(point).all():
                raise UsageError(f"the camera's {name} is three finite coordinates")
            object.__setattr__(self, name, point)
        if np.array_equal(self.eye, self.target):
            raise UsageError("the camera's eye and target are the same point")

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

        transform: of the field, for its bounding ball in mesh space. azimuth, elevation: degrees;
        azimuth 0 is the front (+Z for Y up, -Y for Z up) and grows towards the viewer's right.
        distance: from the target, in multiples of the bounding radius; None frames the ball with a
        small margin. target: (3,) in mesh units; None for the ball's centre.
        """
        if up not in _AXES:
            raise UsageError(f"up is y or z, not {up!r}")
        if not np.isfinite([azimuth, elevation]).all():
            raise UsageError("azimuth and elevation are finite angles in degrees")
        _check_fov(fov)
        if distance is None:
            distance = (1 + MARGIN) / sin(radians(fov / 2))
        if not 0 < distance < 1e6:
            raise UsageError(f"a distance of {distance:g} bounding radii; more than 0, less than 1e6")
        upward, front = np.array(_AXES[up])
        right = np.cross(upward, front)
        horizontal = cos(radians(azimuth)) * front + sin(radians(azimuth)) * right
        outward = cos(radians(elevation)) * horizontal + sin(radians(elevation)) * upward
        # Past the poles the camera hangs upside down and `up` would turn the picture: stop there.
        if not -90 <= elevation <= 90:
            raise UsageError(f"an elevation of {elevation:g} degrees; -90 to 90 are possible")
        centre = transform.centre if target is None else np.asarray(target, np.float64)
        return cls(centre + distance * transform.scale * outward, centre, up, fov)

    def turned(self, degrees: float) -> Camera:
        """This camera gone round its target by `degrees` about the up axis, towards the viewer's right."""
        upward, front = np.array(_AXES[self.up])
        right = np.cross(upward, front)
        arm = self.eye - self.target
        ahead, aside, height = arm @ front, arm @ right, arm @ upward
        c, s = cos(radians(degrees)), sin(radians(degrees))
        turned = (c * ahead - s * aside) * front + (s * ahead + c * aside) * right + height * upward
        return replace(self, eye=self.target + turned)

    def frame(self) -> Points:
        """Rows right, up, backward: an orthonormal right-handed frame (3, 3) in mesh space."""
        backward = self.eye - self.target
        backward = backward / np.abs(backward).max()  # its square neither overflows nor vanishes
        backward /= np.linalg.norm(backward)
        upward, front = np.array(_AXES[self.up])
        right = np.cross(upward, backward)
        if np.linalg.norm(right) < 1e-9:  # straight from above or below: the front stays at the bottom
            right = np.cross(upward, front)
        right /= np.linalg.norm(right)
        return np.stack([right, np.cross(backward, right), backward])

    def frame_in_model(self, transform: Similarity) -> Points:
        """`frame` rotated into model space, (3, 3); left-handed where the transform mirrors."""
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
        """The eye (3,) and unit directions (n, 3) in model space, float64, through points of the picture.

        columns, rows: (n,) in pixels from the top left corner of a picture of width x height pixels;
        the centre of the first pixel is (0.5, 0.5).
        """
        half = tan(radians(self.fov) / 2) / (min(width, height) / 2)  # of the image plane at distance 1
        x = (np.asarray(columns, np.float64) - width / 2) * half
        y = (height / 2 - np.asarray(rows, np.float64)) * half
        # A row for each coordinate: numpy is slow along short axes.
        in_frame = np.stack([x, y, np.full_like(x, -1)])
        in_frame /= np.sqrt(x * x + y * y + 1)
        directions = np.einsum("ij,in->jn", self.frame_in_model(transform), in_frame)
        return transform.apply_inverse(self.eye[None])[0], directions.T


def _check_fov(fov: float) -> None:
    if not 0.01 <= fov <= 160:
        raise UsageError(f"a field of view of {fov:g} degrees; 0.01 to 160 are possible")
