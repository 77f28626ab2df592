"""
shading.py
----------
Colours of surface points, in linear light. The lights are fixed to the camera, so a shape is lit the same way
from every side.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt

from ..array_types import FloatArray, Mask
from ..backends.reference.sphere_tracing import SoftShadow
from ..errors import FileError, UsageError
from ..files.bounded_input import opened
from .colours import from_srgb
from .sphere_tracing import Tracer

Tiles = npt.NDArray[np.int64]
Style = Literal["lambert", "normals", "depth", "matcap"]
STYLES: tuple[Style, ...] = ("lambert", "normals", "depth", "matcap")

#: Default colour of a surface: unglazed clay, sRGB.
CLAY = (222, 211, 198)

#: Normals and light vary slowly, so they are sampled once per four hits in smooth tiles. A tile of 16 is
#: smooth if it is at most `MAX_WIDTH` wide and its points deviate from a bilinear patch by at most
#: `MAX_DEVIATION`. A tile of four, the samples of about one pixel, is smooth if its points are within
#: `MAX_RADIUS` of their mean. All in model units.
MAX_WIDTH, MAX_DEVIATION, MAX_RADIUS = 0.02, 0.001, 0.002

#: In a smooth tile, normals are interpolated if the squared length of their mean exceeds `MIN_PARALLEL`, and
#: light if its range is below `MAX_LIGHT_RANGE`.
MIN_PARALLEL, MAX_LIGHT_RANGE = 0.995, 0.1

#: Weights (16, 4) of bilinear interpolation, from the centres of four 2 x 2 squares to the pixels of their
#: 4 x 4 square, both in Morton order.
_ALONG = np.array([[1.25, -0.25], [0.75, 0.25], [0.25, 0.75], [-0.25, 1.25]], np.float32).reshape(2, 2, 2)
BILINEAR = np.einsum("abc,def->adbecf", _ALONG, _ALONG).reshape(16, 4)

#: Maximum side of a matcap picture in pixels, and maximum size of its file in bytes.
MAX_MATCAP = 4096
_MAX_MATCAP_BYTES = 1 << 27


@dataclass(frozen=True)
class Light:
    """A distant light: the direction to it in the camera's frame (right, up, backward), and linear RGB."""

    direction: tuple[float, float, float]
    colour: tuple[float, float, float]


KEY = Light((-0.52, 0.66, 0.54), (1.42, 1.31, 1.14))  # from the upper left front, warm
FILL = Light((0.85, 0.10, 0.52), (0.15, 0.19, 0.26))  # from the right, weak and cool
RIM = Light((0.35, 0.45, -0.82), (0.42, 0.47, 0.56))  # from behind; separates the shape from the background
SKY, GROUND = (0.21, 0.24, 0.29), (0.13, 0.11, 0.10)  # ambient light from above and below


@dataclass(frozen=True, eq=False)
class Shading:
    """How a surface is coloured.

    style: "lambert" (key, fill and rim light), "normals" (x, y, z in mesh space as red, green, blue, with
    zero at half), "depth" (near is white, the far end of the ball black) or "matcap" (`matcap` indexed by the
    normal in the camera's frame). colour: of the surface for lambert, sRGB 0 to 255.
    matcap: (h, w, 3) linear RGB, as returned by `read_matcap`.
    ambient_occlusion, shadow: ambient occlusion, and soft shadows of the key light (lambert only).
    smooth: radius in model units over which gradients are averaged for lambert and matcap; 0 for none. The
    gradient of a ReLU network is piecewise constant and would show facets.
    Raises `UsageError` for invalid values, or values that cannot be combined.
    """

    style: Style = "lambert"
    colour: tuple[int, int, int] = CLAY
    matcap: FloatArray | None = None
    ambient_occlusion: bool = True
    shadow: bool = True
    smooth: float = 0.02

    def __post_init__(self) -> None:
        if self.style not in STYLES:
            raise UsageError(f"`shading={self.style!r}`: must be one of {', '.join(STYLES)}")
        if (self.style == "matcap") != (self.matcap is not None):
            raise UsageError("`shading='matcap'` and `matcap=` must be used together")
        if not 0 <= self.smooth <= 0.5:
            raise UsageError(f"`smooth={self.smooth:g}`: must be 0 to 0.5 bounding radii")


@dataclass(frozen=True)
class Surface:
    """Hits to shade, in model space, float32.

    points: (n, 3). directions: of the rays, (n, 3). frame: of the camera, rows right, up, backward.
    tiles: indices of hits that are neighbours in the picture: (m, 16), squares of 4 x 4 pixels in Morton
    order, or (m, 4), samples within about a pixel.
    """

    points: FloatArray
    directions: FloatArray
    frame: FloatArray
    tiles: Tiles


def shade(tracer: Tracer, shading: Shading, surface: Surface) -> FloatArray:
    """Linear RGB (n, 3) of hits."""
    if shading.style == "depth":
        # Depth along the camera's axis, so that it is constant on a plane that faces the camera.
        nearness = 0.5 + 0.5 * (surface.points @ surface.frame[2])
        return from_srgb(np.repeat(nearness[:, None], 3, axis=1))
    if shading.style == "normals":
        normals = tracer.normals(surface.points, surface.directions)
        return from_srgb(tracer.field.transform.rotate(normals) * 0.5 + 0.5)
    tiles = _smooth_tiles(surface)
    if shading.smooth >= MAX_WIDTH:
        normals = _sample_sparsely(
            lambda points, directions: smooth_normals(tracer, points, directions, shading.smooth),
            lambda sparse: np.einsum("tfk,tgk->t", sparse, sparse) > MIN_PARALLEL * sparse.shape[1] ** 2,
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
    """The tiles at most `MAX_WIDTH` wide whose points are close to a smooth piece of surface, that is, to the
    interpolation of their means of four."""
    points = surface.points.take(surface.tiles, axis=0)
    means = _means_of_four(points)
    across = means - means[:, :1]
    residual = points - _interpolate(means)
    width, deviation = (np.einsum("tij,tij->ti", v, v).max(axis=1) for v in (across, residual))
    limit = MAX_DEVIATION if means.shape[1] > 1 else MAX_RADIUS
    smooth: Tiles = surface.tiles[(width < MAX_WIDTH**2) & (deviation < limit**2)]
    return smooth


def _sample_sparsely(
    quantity: Callable[..., FloatArray],
    is_uniform: Callable[[FloatArray], Mask],
    tiles: Tiles,
    *vectors: FloatArray,
) -> FloatArray:
    """`quantity(*vectors)` (n, k) of vectors (n, 3), computed once per four vectors in suitable tiles.

    In each tile it is computed at the means of four vectors, (m, 1 or 4, k), and interpolated if the tile is
    uniform. Elsewhere it is computed for each vector.
    """
    means = [_means_of_four(v.take(tiles, axis=0)) for v in vectors]
    sparse = quantity(*(mean.reshape(-1, 3) for mean in means))
    sparse = sparse.reshape(*means[0].shape[:2], sparse.shape[1])
    uniform = is_uniform(sparse)
    tiles = tiles[uniform]
    result = np.empty((len(vectors[0]), sparse.shape[2]), np.float32)
    result[tiles] = _interpolate(sparse[uniform])
    is_left = np.ones(len(result), np.bool_)
    is_left[tiles] = False
    left = np.flatnonzero(is_left)
    result[left] = quantity(*(v.take(left, axis=0) for v in vectors))
    return result


def _means_of_four(vectors: FloatArray) -> FloatArray:
    """Means (m, f, k) of each four of (m, 4 f, k). `np.mean` is slow along short axes."""
    total: FloatArray = vectors[:, 0::4] + vectors[:, 1::4] + vectors[:, 2::4] + vectors[:, 3::4]
    return total * np.float32(0.25)


def _interpolate(means: FloatArray) -> FloatArray:
    """Values (m, 4 f, k) at the pixels of tiles, interpolated from means of four (m, f, k)."""
    return BILINEAR @ means if means.shape[1] == 4 else means.repeat(4, axis=1)


def smooth_normals(tracer: Tracer, points: FloatArray, directions: FloatArray, radius: float) -> FloatArray:
    """Unit normals (n, 3) at points (n, 3), from gradients averaged over `radius` to either side per axis.

    directions: (n, 3), of the rays that hit the points. A central difference is the exact mean of a
    derivative over its interval. Radius 0 does not average.
    """
    if radius == 0:
        return tracer.normals(points, directions)
    offsets = np.float32(radius) * np.concatenate([np.eye(3), -np.eye(3)]).astype(np.float32)
    values = tracer.value((points + offsets[:, None]).reshape(-1, 3)).reshape(6, -1)
    gradients = np.ascontiguousarray((values[:3] - values[3:]).T)
    norms = np.sqrt(np.einsum("ij,ij->i", gradients, gradients))
    # Differences across a wall thinner than the radius cancel. Visible points face the viewer. Where the mean
    # is invalid, use the gradient itself.
    facing_away = np.einsum("ij,ij->i", gradients, directions) > 0
    invalid = np.flatnonzero(~(norms > 0.5 * radius) | facing_away)
    norms[invalid] = 1
    gradients /= norms[:, None]
    gradients[invalid] = tracer.normals(points[invalid], directions[invalid])
    return gradients


def _lambert(
    tracer: Tracer, shading: Shading, surface: Surface, normals: FloatArray, tiles: Tiles
) -> FloatArray:
    """Linear RGB (n, 3) under ambient, key, fill and rim light."""
    key = _direction_to(KEY, surface.frame)

    def visibility(points: FloatArray, normals: FloatArray) -> FloatArray:
        openness = lit = np.ones(len(points), np.float32)
        if shading.ambient_occlusion:
            openness = ambient_occlusion(tracer, points, normals)
        if shading.shadow:
            lit = soft_shadow(tracer, points, normals, key)
        return np.stack([openness, lit], axis=1)

    def is_uniform(sparse: FloatArray) -> Mask:
        uniform: Mask = (sparse.max(axis=1) - sparse.min(axis=1)).max(axis=1) < MAX_LIGHT_RANGE
        return uniform

    openness, lit = np.clip(_sample_sparsely(visibility, is_uniform, tiles, surface.points, normals), 0, 1).T
    directions = [key, _direction_to(FILL, surface.frame), _direction_to(RIM, surface.frame)]
    upward, *cosines = np.stack([surface.frame[1], *directions]) @ normals.T
    sky = 0.5 + 0.5 * upward
    # Ambient occlusion also attenuates the lights that cast no shadow, so that they do not shine into holes.
    visible = openness, openness, lit, openness, openness
    weights = np.stack([sky, 1 - sky, *np.maximum(cosines, 0)]) * np.stack(visible)
    albedo = from_srgb(np.array(shading.colour) / 255)
    colours = albedo * np.array([SKY, GROUND, KEY.colour, FILL.colour, RIM.colour], np.float32)
    return _tone_map(weights.T @ colours)


def _direction_to(light: Light, frame: FloatArray) -> FloatArray:
    """Unit direction (3,) to a light, in model space."""
    direction = np.array(light.direction, np.float32) @ frame
    return np.asarray(direction / np.linalg.norm(direction), np.float32)


def _tone_map(light: FloatArray) -> FloatArray:
    """Compress light above 0.6 smoothly to less than 1."""
    excess: FloatArray = np.maximum(light - np.float32(0.6), 0)
    compressed: FloatArray = np.float32(0.4) * (1 - np.exp(excess * np.float32(-1 / 0.4)))
    return light - excess + compressed


def ambient_occlusion(tracer: Tracer, points: FloatArray, normals: FloatArray) -> FloatArray:
    """Openness (n,) of points: 1 if nothing is near, 0 if fully occluded.

    On an open plane the distance at height h is h. Smaller values along the normal mean occlusion (Evans
    2006, "Fast approximations for global illumination on dynamic scenes"). Five samples with decreasing
    weights.
    """
    occlusion = np.zeros(len(points), np.float32)
    total = 0.0
    for index in range(1, 6):
        height = np.float32(0.012 * 1.75**index)
        value = tracer.value(points + height * normals)
        weight = 0.75**index
        occlusion += np.float32(weight) * np.clip(1 - value / height, 0, 1)
        total += weight
    return np.asarray((1 - occlusion / np.float32(total)) ** np.float32(1.2), np.float32)


def soft_shadow(tracer: Tracer, points: FloatArray, normals: FloatArray, towards: FloatArray) -> FloatArray:
    """Fraction (n,) of a distant light that reaches the points: 0 in shadow, less than 1 in the penumbra.

    The minimum of value / distance along the ray to the light approximates the visible fraction of the
    light's disc (Quilez, "Soft shadows in raymarched SDFs"). towards: (3,), the direction to the light.
    """
    fraction = np.zeros(len(points), np.float32)
    facing = np.flatnonzero(normals @ towards > 0)
    # Start above the surface, so that the network's error causes no shadows.
    start = points.take(facing, axis=0) + np.float32(0.012) * normals.take(facing, axis=0)
    fraction[facing] = tracer.soft_shadow(start, towards, SoftShadow())
    return fraction * fraction * (3 - 2 * fraction)


def _matcap(matcap: FloatArray, surface: Surface, normals: FloatArray) -> FloatArray:
    """Matcap colours (n, 3): the picture of a lit sphere, indexed by the normal in the viewer's frame."""
    # A separate frame for each ray: with the camera's frame, perspective would leave the sphere.
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


def read_matcap(path: str | Path) -> FloatArray:
    """Read a matcap picture (PNG, JPEG, WebP or BMP) as linear RGB (h, w, 3).

    Raises `FileError` for an invalid picture, or one with more than 4096 pixels per side.
    """
    from PIL import Image

    with opened(path, FileError, "a matcap", _MAX_MATCAP_BYTES) as stream:
        content = BytesIO(stream.read())
    try:
        with Image.open(content, formats=("PNG", "JPEG", "WEBP", "BMP")) as image:
            if not 2 <= min(image.size) <= max(image.size) <= MAX_MATCAP:
                raise FileError(
                    path,
                    f"is {image.size[0]}x{image.size[1]} pixels",
                    f"a matcap has 2 to {MAX_MATCAP} pixels per side",
                )
            pixels = np.asarray(image.convert("RGB"), np.float32) / 255
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise FileError(path, "is not a valid picture", "use a PNG or JPEG file") from error
    return from_srgb(pixels)
