"""
shading.py
----------
Colours of surface points, in linear light. Lights stand with the camera: a shape is lit well from
wherever it is seen, and turns under its lights in a turntable.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from ..errors import FieldKindError, FileError, UsageError
from ..field import Field
from ..network import FloatArray
from ..similarity import Points
from .tracing import Tracer, ball_chord

Style = Literal["lambert", "normals", "depth", "matcap"]
STYLES: tuple[Style, ...] = ("lambert", "normals", "depth", "matcap")

#: Default colour of a surface: unglazed clay, sRGB.
CLAY = (222, 211, 198)

#: Largest side of a matcap picture, pixels.
MAX_MATCAP = 4096


@dataclass(frozen=True)
class Light:
    """A distant light: where it comes from in the camera's frame (right, up, backward), its linear RGB."""

    direction: tuple[float, float, float]
    colour: tuple[float, float, float]


KEY = Light((-0.52, 0.66, 0.54), (1.42, 1.31, 1.14))  # over the left shoulder, warm
FILL = Light((0.85, 0.10, 0.52), (0.15, 0.19, 0.26))  # from the right, weak and cool
RIM = Light((0.35, 0.45, -0.82), (0.42, 0.47, 0.56))  # from behind: an edge that parts shape from ground
SKY, GROUND = (0.21, 0.24, 0.29), (0.13, 0.11, 0.10)  # ambient on faces turned up and down


@dataclass(frozen=True, eq=False)
class Shading:
    """How a surface is coloured.

    style: "lambert" (key, fill and rim light), "normals" (those of mesh space, x y z as red green blue, zero
    at half), "depth" (near is white, the far end of the ball black) or "matcap" (`matcap` looked up
    by the normal in the camera's frame). colour: of the surface for lambert, sRGB 0 to 255.
    matcap: (h, w, 3) linear RGB, as `read_matcap` gives it.
    ambient_occlusion, shadow: darken what is hemmed in, and what lies in the key light's soft
    shadow (lambert only); None means wherever the field's values are distances.
    smooth: radius in model units over which the gradient is averaged for lambert and matcap: a ReLU
    network is flat between its creases, and its bare gradient shows every facet; 0 for that one.
    Raises `UsageError` where these do not go together.
    """

    style: Style = "lambert"
    colour: tuple[int, int, int] = CLAY
    matcap: FloatArray | None = None
    ambient_occlusion: bool | None = None
    shadow: bool | None = None
    smooth: float = 0.02

    def __post_init__(self) -> None:
        if self.style not in STYLES:
            raise UsageError(f"unknown shading {self.style!r}; one of {', '.join(STYLES)}")
        if (self.style == "matcap") != (self.matcap is not None):
            raise UsageError("the matcap shading and a matcap picture need each other")
        if not 0 <= self.smooth <= 0.5:
            raise UsageError(f"smooth {self.smooth:g}; 0 to 0.5 of the bounding radius are possible")

    def for_field(self, field: Field) -> tuple[bool, bool]:
        """Whether ambient occlusion and shadow are drawn; `FieldKindError` if asked of an occupancy."""
        lit = self.style == "lambert"
        if field.kind != "occupancy":
            return lit and self.ambient_occlusion is not False, lit and self.shadow is not False
        if self.ambient_occlusion or self.shadow:
            raise FieldKindError("ambient occlusion and shadow need distances; this is an occupancy field")
        return False, False


@dataclass(frozen=True)
class Surface:
    """Hits to colour, in model space: points, normals and directions (n, 3), depths (n,), camera frame.

    depths: 0 at the near end of the ball, 1 at its far end. frame: rows right, up, backward.
    """

    points: Points
    normals: FloatArray
    directions: Points
    depths: Points
    frame: Points


def shade(tracer: Tracer, shading: Shading, surface: Surface) -> FloatArray:
    """Linear RGB (n, 3) of the surface."""
    if shading.style == "normals":
        return from_srgb(tracer.field.transform.rotate(surface.normals) * 0.5 + 0.5)
    if shading.style == "depth":
        return from_srgb(np.repeat(1 - surface.depths[:, None], 3, axis=1))
    normals = smooth_normals(tracer, surface, shading.smooth) if shading.smooth else surface.normals
    if shading.matcap is not None:
        return _matcap(shading.matcap, surface, normals)
    return _lambert(tracer, shading, surface, normals)


def smooth_normals(tracer: Tracer, surface: Surface, radius: float) -> FloatArray:
    """Unit normals (n, 3) of the gradient averaged along each axis, `radius` to either side.

    A central difference is the exact mean of a derivative over its segment.
    """
    gradients = np.empty_like(surface.normals)
    for axis, offset in enumerate(radius * np.eye(3)):
        gradients[:, axis] = tracer.value(surface.points + offset) - tracer.value(surface.points - offset)
    lengths = np.linalg.norm(gradients, axis=1, keepdims=True)
    # Across a wall thinner than the radius the differences cancel: there the bare gradient serves.
    vague = ~(lengths > 0.5 * radius) | ((gradients * surface.normals).sum(axis=1, keepdims=True) < 0)
    return np.where(vague, surface.normals, gradients / np.where(vague, 1, lengths))


def _lambert(tracer: Tracer, shading: Shading, surface: Surface, normals: FloatArray) -> FloatArray:
    occluded, shadowed = shading.for_field(tracer.field)
    openness = ambient_occlusion(tracer, surface.points, normals) if occluded else np.ones(len(normals))

    up = surface.frame[1]
    height = 0.5 + 0.5 * (normals @ up)[:, None]
    light = (np.array(SKY) * height + np.array(GROUND) * (1 - height)) * openness[:, None]
    for source in (KEY, FILL, RIM):
        towards = _towards(source, surface.frame)
        incidence = np.maximum(normals @ towards, 0.0)
        if source is KEY and shadowed:
            incidence *= soft_shadow(tracer, surface.points, normals, towards)
        elif source is not KEY:
            incidence *= openness  # lights without a shadow of their own must not shine into holes
        light += incidence[:, None] * np.array(source.colour)
    albedo = from_srgb(np.array(shading.colour) / 255)
    return np.asarray(_compress(light * albedo), np.float32)


def _towards(light: Light, frame: Points) -> Points:
    """Unit direction (3,) towards the light, in model space."""
    direction: Points = np.array(light.direction) @ frame
    unit: Points = direction / np.linalg.norm(direction)
    return unit


def _compress(light: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Light as it is up to 0.6, above that eased towards 1: nothing clips."""
    over = np.maximum(light - 0.6, 0.0)
    eased: npt.NDArray[Any] = np.minimum(light, 0.6) + 0.4 * (1 - np.exp(-over / 0.4))
    return eased


def ambient_occlusion(tracer: Tracer, points: Points, normals: FloatArray) -> Points:
    """Openness (n,), 1 in the open and 0 hemmed in: what the field lacks along the normal.

    On an open plane the distance at height h is h. Five samples (Evans 2006, "Fast approximations for global
    illumination on dynamic scenes"), their weights halving from one to the next.
    """
    lack = np.zeros(len(points))
    total = 0.0
    for index in range(1, 6):
        height = 0.012 * 1.75**index
        value = tracer.value(points + height * normals)
        weight = 0.75**index
        lack += weight * np.clip(1 - value / height, 0, 1)
        total += weight
    openness: Points = (1 - lack / total) ** 1.2
    return openness


def soft_shadow(tracer: Tracer, points: Points, normals: FloatArray, towards: Points) -> Points:
    """Share (n,) of a distant light that reaches the points: 0 in shadow, between in the penumbra.

    The narrowest cone along the way to the light, value / distance walked, is the share of the light's disc
    that is seen (Quilez, "Soft shadows in raymarched SDFs"). towards: (3,), to the light.
    """
    sharpness = 9.0
    start = points + 0.012 * normals  # off the surface: the network's error must not shade itself
    directions = np.broadcast_to(towards, start.shape)
    share = np.ones(len(points))
    live = np.flatnonzero(normals @ towards > 0)
    share[normals @ towards <= 0] = 0.0
    t = np.full(len(points), 0.01)
    ends = ball_chord(start, directions)[1]
    for _ in range(96):
        live = live[(t[live] < ends[live]) & (share[live] > 0.004)]
        if not live.size:
            break
        value = tracer.value(start.take(live, axis=0) + t[live, None] * towards)
        share[live] = np.minimum(share[live], np.maximum(sharpness * value / t[live], 0.0))
        t[live] += np.clip(value, 0.012, 0.15)
    smooth: Points = share * share * (3 - 2 * share)
    return smooth


def _matcap(matcap: FloatArray, surface: Surface, normals: FloatArray) -> FloatArray:
    """Matcap colours (n, 3): the lit sphere's picture, looked up by the normal as the viewer sees it."""
    # A frame of its own for every ray, or a perspective camera would see past the sphere's rim.
    backward = -surface.directions
    right = np.cross(surface.frame[1], backward)
    right /= np.maximum(np.linalg.norm(right, axis=1, keepdims=True), 1e-12)
    up = np.cross(backward, right)
    height, width = matcap.shape[:2]
    x = ((normals * right).sum(axis=1) * 0.495 + 0.5) * (width - 1)
    y = (0.5 - (normals * up).sum(axis=1) * 0.495) * (height - 1)
    left, top = np.clip(x.astype(int), 0, width - 2), np.clip(y.astype(int), 0, height - 2)
    fx, fy = (x - left)[:, None], (y - top)[:, None]
    upper = matcap[top, left] * (1 - fx) + matcap[top, left + 1] * fx
    lower = matcap[top + 1, left] * (1 - fx) + matcap[top + 1, left + 1] * fx
    return np.asarray(upper * (1 - fy) + lower * fy, np.float32)


def parse_colour(name: str) -> tuple[int, int, int]:
    """sRGB 0 to 255 of a colour that Pillow knows: "white", "#204060", "hsl(30, 40%, 50%)".

    Raises `UsageError` for anything else.
    """
    from PIL import ImageColor

    try:
        red, green, blue = ImageColor.getrgb(name.strip())[:3]
    except ValueError:
        raise UsageError(f"{name!r} is no colour: try white, #204060 or hsl(30, 40%, 50%)") from None
    return red, green, blue


def read_matcap(path: str | Path) -> FloatArray:
    """A matcap picture (PNG, JPEG, WebP or BMP) as linear RGB (h, w, 3).

    Raises `FileError` for a file that is no such picture, or one larger than 4096 pixels a side.
    """
    from PIL import Image

    try:
        with Image.open(path, formats=("PNG", "JPEG", "WEBP", "BMP")) as image:
            if not 2 <= min(image.size) <= max(image.size) <= MAX_MATCAP:
                raise FileError(
                    path,
                    f"is {image.size[0]}x{image.size[1]} pixels",
                    f"a matcap has 2 to {MAX_MATCAP} pixels a side",
                )
            pixels = np.asarray(image.convert("RGB"), np.float32) / 255
    except FileNotFoundError:
        raise FileError(path, "does not exist") from None
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise FileError(path, "is not a picture that can be read", "give a PNG or JPEG file") from error
    return from_srgb(pixels)


def from_srgb(encoded: npt.NDArray[Any]) -> FloatArray:
    """Linear light of sRGB values, both 0 to 1 (IEC 61966-2-1)."""
    c = np.clip(encoded, 0, 1)
    return np.asarray(np.where(c <= 0.04045, c / 12.92, ((c + 0.055) / 1.055) ** 2.4), np.float32)


def to_srgb(linear: npt.NDArray[Any]) -> FloatArray:
    """sRGB values of linear light, both 0 to 1: the inverse of `from_srgb`."""
    c = np.clip(linear, 0, 1)
    return np.asarray(np.where(c <= 0.0031308, c * 12.92, 1.055 * c ** (1 / 2.4) - 0.055), np.float32)
