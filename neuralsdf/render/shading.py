"""
shading.py
----------
Colours of surface points, in linear light. Lights stand with the camera: a shape is lit well from
wherever it is seen, and turns under its lights in a turntable.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from ..array_types import FloatArray, Mask
from ..backends.reference.sphere_tracing import SoftShadow
from ..errors import FileError, UsageError
from ..files.input_file import opened
from .tracing import Tracer

Tiles = npt.NDArray[np.int64]
Style = Literal["lambert", "normals", "depth", "matcap"]
STYLES: tuple[Style, ...] = ("lambert", "normals", "depth", "matcap")

#: Default colour of a surface: unglazed clay, sRGB.
CLAY = (222, 211, 198)

#: What varies slowly is taken sparsely on tiles no wider than this, in model units, whose points lie this
#: close to a smooth surface; and in tiles of four, which are one point's, that lie this close to their mean.
WIDEST, BEND, SPREAD = 0.02, 0.001, 0.002

#: Normals are interpolated where the square of their mean's length is more than `PARALLEL`; light, where its
#: share differs by less than `EVEN_LIGHT`.
PARALLEL, EVEN_LIGHT = 0.995, 0.1

#: Weights (16, 4) of values at the middles of four 2 x 2 squares, at the pixels of their 4 x 4 square, both
#: along a Morton curve: bilinear.
_ALONG = np.array([[1.25, -0.25], [0.75, 0.25], [0.25, 0.75], [-0.25, 1.25]], np.float32).reshape(2, 2, 2)
BILINEAR = np.einsum("abc,def->adbecf", _ALONG, _ALONG).reshape(16, 4)

#: Largest side of a matcap picture, in pixels, and largest file.
MAX_MATCAP = 4096
_MAX_BYTES = 1 << 27


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
    shadow (lambert only).
    smooth: radius in model units over which the gradient is averaged for lambert and matcap: a ReLU
    network is flat between its creases, and its bare gradient shows every facet; 0 for that one.
    Raises `UsageError` where these do not go together.
    """

    style: Style = "lambert"
    colour: tuple[int, int, int] = CLAY
    matcap: FloatArray | None = None
    ambient_occlusion: bool = True
    shadow: bool = True
    smooth: float = 0.02

    def __post_init__(self) -> None:
        if self.style not in STYLES:
            raise UsageError(f"unknown shading {self.style!r}; one of {', '.join(STYLES)}")
        if (self.style == "matcap") != (self.matcap is not None):
            raise UsageError("the matcap shading and a matcap picture need each other")
        if not 0 <= self.smooth <= 0.5:
            raise UsageError(f"smooth {self.smooth:g}; 0 to 0.5 of the bounding radius are possible")

    @property
    def occluded(self) -> bool:
        """Whether ambient occlusion is drawn."""
        return self.style == "lambert" and self.ambient_occlusion

    @property
    def shadowed(self) -> bool:
        """Whether shadows are drawn."""
        return self.style == "lambert" and self.shadow


@dataclass(frozen=True)
class Surface:
    """Hits to colour, in model space, float32: points and directions (n, 3), camera frame.

    frame: rows right, up, backward.
    tiles: hits that are neighbours in the picture, (m, 16) in squares of 4 x 4 pixels along a Morton curve,
    or (m, 4) within about a pixel; where the surface is smooth, what varies slowly is taken once for four.
    """

    points: FloatArray
    directions: FloatArray
    frame: FloatArray
    tiles: Tiles


def shade(tracer: Tracer, shading: Shading, surface: Surface) -> FloatArray:
    """Linear RGB (n, 3) of the surface."""
    if shading.style == "depth":
        # Along the axis, not the ray: a plane facing the camera is all of one depth.
        nearness = 0.5 + 0.5 * (surface.points @ surface.frame[2])
        return from_srgb(np.repeat(nearness[:, None], 3, axis=1))
    if shading.style == "normals":
        normals = tracer.normals(surface.points, surface.directions)
        return from_srgb(tracer.field.transform.rotate(normals) * 0.5 + 0.5)
    tiles = _smooth_tiles(surface)
    if shading.smooth >= WIDEST:
        normals = _sparsely(
            lambda points, onward: smooth_normals(tracer, points, onward, shading.smooth),
            lambda few: np.einsum("tfk,tgk->t", few, few) > PARALLEL * few.shape[1] ** 2,
            tiles,
            surface.points,
            surface.directions,
        )
        normals /= np.sqrt(np.einsum("ij,ij->i", normals, normals))[:, None]
    else:
        normals = smooth_normals(tracer, surface.points, surface.directions, shading.smooth)
    if shading.matcap is not None:
        return _matcap(shading.matcap, surface, normals)
    return _lambert(tracer, shading, surface, normals, tiles)


def _smooth_tiles(surface: Surface) -> Tiles:
    """The tiles no wider than `WIDEST` whose points lie in one smooth piece of surface.

    There, points are what is interpolated between the middles of their fours.
    """
    points = surface.points.take(surface.tiles, axis=0)
    middles = _means_of_four(points)
    wide = middles - middles[:, :1]
    bent = points - _between(middles)
    width, bend = (np.einsum("tij,tij->ti", offset, offset).max(axis=1) for offset in (wide, bent))
    limit = BEND if middles.shape[1] > 1 else SPREAD
    smooth: Tiles = surface.tiles[(width < WIDEST**2) & (bend < limit**2)]
    return smooth


def _sparsely(
    quantity: Callable[..., FloatArray],
    is_even: Callable[[FloatArray], Mask],
    tiles: Tiles,
    *vectors: FloatArray,
) -> FloatArray:
    """`quantity(*vectors)` (n, k) of vectors (n, 3), in tiles where that is enough taken once for four.

    In a tile it is taken of the means of each four, (m, 1 or 4, k), and interpolated between them if these
    are even. In all other tiles, and outside of them, it is taken one by one.
    """
    means = [_means_of_four(v.take(tiles, axis=0)) for v in vectors]
    few = quantity(*(mean.reshape(-1, 3) for mean in means))
    few = few.reshape(*means[0].shape[:2], few.shape[1])
    even = is_even(few)
    tiles = tiles[even]
    result = np.empty((len(vectors[0]), few.shape[2]), np.float32)
    result[tiles] = _between(few[even])
    alone = np.ones(len(result), np.bool_)
    alone[tiles] = False
    rest = np.flatnonzero(alone)
    result[rest] = quantity(*(v.take(rest, axis=0) for v in vectors))
    return result


def _means_of_four(vectors: FloatArray) -> FloatArray:
    """Means (m, f, k) of (m, 4 f, k), written out: `mean` is slow over so short an axis."""
    total: FloatArray = vectors[:, 0::4] + vectors[:, 1::4] + vectors[:, 2::4] + vectors[:, 3::4]
    return total * np.float32(0.25)


def _between(few: FloatArray) -> FloatArray:
    """Values (m, 4 f, k) at the pixels of tiles, from those at the middles of their fours (m, f, k)."""
    return BILINEAR @ few if few.shape[1] == 4 else few.repeat(4, axis=1)


def smooth_normals(tracer: Tracer, points: FloatArray, onward: FloatArray, radius: float) -> FloatArray:
    """Unit normals (n, 3) at points (n, 3) of the gradient averaged along each axis, `radius` to either side.

    onward: (n, 3), directions of the rays that met the points.

    A central difference is the exact mean of a derivative over its segment. Radius 0 is the bare gradient.
    """
    if radius == 0:
        return tracer.normals(points, onward)
    offsets = np.float32(radius) * np.concatenate([np.eye(3), -np.eye(3)]).astype(np.float32)
    values = tracer.value((points + offsets[:, None]).reshape(-1, 3)).reshape(6, -1)
    gradients = np.ascontiguousarray((values[:3] - values[3:]).T)
    lengths = np.sqrt(np.einsum("ij,ij->i", gradients, gradients))
    # Across a wall thinner than the radius the differences cancel, and what is seen faces the viewer: there
    # the bare gradient serves.
    facing = np.einsum("ij,ij->i", gradients, onward)
    vague = np.flatnonzero(~(lengths > 0.5 * radius) | (facing > 0))
    lengths[vague] = 1
    gradients /= lengths[:, None]
    gradients[vague] = tracer.normals(points[vague], onward[vague])
    return gradients


def _lambert(
    tracer: Tracer, shading: Shading, surface: Surface, normals: FloatArray, tiles: Tiles
) -> FloatArray:
    key = _towards(KEY, surface.frame)

    def light(points: FloatArray, normals: FloatArray) -> FloatArray:
        openness = share = np.ones(len(points), np.float32)
        if shading.occluded:
            openness = ambient_occlusion(tracer, points, normals)
        if shading.shadowed:
            share = soft_shadow(tracer, points, normals, key)
        return np.stack([openness, share], axis=1)

    def is_even(few: FloatArray) -> Mask:
        even: Mask = (few.max(axis=1) - few.min(axis=1)).max(axis=1) < EVEN_LIGHT
        return even

    openness, share = np.clip(_sparsely(light, is_even, tiles, surface.points, normals), 0, 1).T
    towards = np.stack([surface.frame[1], key, *(_towards(other, surface.frame) for other in (FILL, RIM))])
    height, *facing = towards @ normals.T
    height = 0.5 + 0.5 * height
    # Lights without a shadow of their own must not shine into holes.
    shares = openness, openness, share, openness, openness
    weights = np.stack([height, 1 - height, *np.maximum(facing, 0)]) * np.stack(shares)
    albedo = from_srgb(np.array(shading.colour) / 255)
    colours = albedo * np.array([SKY, GROUND, KEY.colour, FILL.colour, RIM.colour], np.float32)
    return _compress(weights.T @ colours)


def _towards(light: Light, frame: FloatArray) -> FloatArray:
    """Unit direction (3,) towards the light, in model space."""
    direction = np.array(light.direction, np.float32) @ frame
    return np.asarray(direction / np.linalg.norm(direction), np.float32)


def _compress(light: FloatArray) -> FloatArray:
    """Light as it is up to 0.6, above that eased towards 1: nothing clips."""
    excess: FloatArray = np.maximum(light - np.float32(0.6), 0)
    eased: FloatArray = np.float32(0.4) * (1 - np.exp(excess * np.float32(-1 / 0.4)))
    return light - excess + eased


def ambient_occlusion(tracer: Tracer, points: FloatArray, normals: FloatArray) -> FloatArray:
    """Openness (n,), 1 in the open and 0 hemmed in: what the field lacks along the normal.

    On an open plane the distance at height h is h. Five samples (Evans 2006, "Fast approximations for global
    illumination on dynamic scenes"), their weights halving from one to the next.
    """
    lack = np.zeros(len(points), np.float32)
    total = 0.0
    for index in range(1, 6):
        height = np.float32(0.012 * 1.75**index)
        value = tracer.value(points + height * normals)
        weight = 0.75**index
        lack += np.float32(weight) * np.clip(1 - value / height, 0, 1)
        total += weight
    return np.asarray((1 - lack / np.float32(total)) ** np.float32(1.2), np.float32)


def soft_shadow(tracer: Tracer, points: FloatArray, normals: FloatArray, towards: FloatArray) -> FloatArray:
    """Share (n,) of a distant light that reaches the points: 0 in shadow, between in the penumbra.

    The narrowest cone along the way to the light, value / distance walked, is the share of the light's disc
    that is seen (Quilez, "Soft shadows in raymarched SDFs"). towards: (3,), to the light.
    """
    share = np.zeros(len(points), np.float32)
    lit = np.flatnonzero(normals @ towards > 0)
    # Off the surface: the network's error must not shade itself.
    start = points.take(lit, axis=0) + np.float32(0.012) * normals.take(lit, axis=0)
    share[lit] = tracer.soft_shadow(start, towards, SoftShadow())
    return share * share * (3 - 2 * share)


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

    with opened(path, FileError, "a matcap", _MAX_BYTES) as stream:
        content = BytesIO(stream.read())
    try:
        with Image.open(content, formats=("PNG", "JPEG", "WEBP", "BMP")) as image:
            if not 2 <= min(image.size) <= max(image.size) <= MAX_MATCAP:
                raise FileError(
                    path,
                    f"is {image.size[0]}x{image.size[1]} pixels",
                    f"a matcap has 2 to {MAX_MATCAP} pixels a side",
                )
            pixels = np.asarray(image.convert("RGB"), np.float32) / 255
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise FileError(path, "is not a picture that can be read", "give a PNG or JPEG file") from error
    return from_srgb(pixels)


def from_srgb(encoded: npt.NDArray[Any]) -> FloatArray:
    """Linear light of sRGB values, both 0 to 1 (IEC 61966-2-1)."""
    c = np.clip(encoded, 0, 1)
    return np.asarray(np.where(c <= 0.04045, c / 12.92, ((c + 0.055) / 1.055) ** 2.4), np.float32)


def to_srgb(linear: npt.NDArray[Any]) -> FloatArray:
    """sRGB values of linear light, both 0 to 1: the inverse of `from_srgb`."""
    c = np.clip(linear, 0, 1).astype(np.float32)
    return np.asarray(np.where(c <= 0.0031308, c * 12.92, 1.055 * c ** (1 / 2.4) - 0.055), np.float32)
