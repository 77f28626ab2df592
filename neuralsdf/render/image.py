"""
image.py
--------
A still picture of a field: rays through the pixels, colours, antialiasing, and the file.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt

from ..array_types import FloatArray
from ..errors import NoSurfaceError, UsageError
from ..fields.field import Field
from ..files.atomic_write import whole_file
from ..thread_count import side_by_side
from .camera import Camera
from .shading import Shading, Surface, from_srgb, parse_colour, shade, to_srgb
from .tracing import BLOCK, Tracer, make_tracer

if TYPE_CHECKING:
    from PIL import Image

Pixels = npt.NDArray[np.uint8]

#: Top and bottom colour of the default background, sRGB.
STUDIO = ("#f4f5f7", "#c3c8d0")

#: sRGB values of linear light 0 to 1 at 65536 levels: closer than the bytes' own steps.
SRGB = to_srgb(np.linspace(0, 1, 65536))
SRGB_BYTES = (SRGB * 255 + 0.5).astype(np.uint8)

#: Rays that neither hit nor left are painted in this colour, linear RGB: they must be seen.
UNRESOLVED_COLOUR = (1.0, 0.0, 1.0)

MAX_SIDE = 16384
MAX_PIXELS = 1 << 26
MAX_ANTIALIAS = 16

#: Neighbours that differ by more than this, in sRGB or in coverage, are sampled again.
CONTRAST = 0.045

STILL_FORMATS = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG", ".webp": "WEBP"}


@dataclass(frozen=True)
class RenderReport:
    """What rendering took and met: counts of rays, of those that hit, did not end (`unresolved`) or passed
    a wall on the ball (`buried`), evaluations of the field, seconds of wall time."""

    rays: int
    hits: int
    unresolved: int
    buried: int
    evaluations: int
    seconds: float


@dataclass(frozen=True, eq=False)
class Picture:
    """rgba: (height, width, 4) uint8, sRGB with straight (not premultiplied) alpha; and its report."""

    rgba: Pixels
    report: RenderReport


def render(
    field: Field,
    *,
    width: int = 800,
    height: int = 800,
    camera: Camera | None = None,
    shading: Shading | None = None,
    background: str = "studio",
    antialias: int = 3,
    tracer: Tracer | None = None,
    progress: Callable[[float], None] | None = None,
) -> Picture:
    """A picture of `field`.

    camera: None for `Camera.orbit` about the whole shape. background: "studio" (a soft gradient),
    "transparent", a colour that Pillow knows ("white", "#204060"), or "TOP:BOTTOM", two such colours.
    antialias: samples along each side of a pixel, taken where a first sample of each pixel differs from its
    neighbours. tracer: one made for this field, to use again from picture to picture.
    progress: called with the share that is done, 0 to 1, about every 2^15 rays.
    Raises `NoSurfaceError` for a field without a surface, `UsageError` for sizes or colours that make
    no sense.
    """
    begun = time.perf_counter()
    _check_size(width, height, antialias)
    backdrop = _backdrop(background, height)
    shading = shading or Shading()
    tracer = tracer or make_tracer(field)
    evaluated = tracer.evaluations
    sampler = _Sampler(tracer, camera or Camera.orbit(field.transform), shading, width, height)
    rgba = sampler.pixels(antialias, progress or (lambda share: None))
    if not sampler.met.hits and not tracer.finds_surface():
        raise NoSurfaceError("the field has no surface: no ray through its ball meets one")
    encoded = _encode(rgba, backdrop)
    report = RenderReport(
        *sampler.met,
        tracer.evaluations - evaluated,
        time.perf_counter() - begun,
    )
    return Picture(encoded, report)


class _Met(NamedTuple):
    """Counts of rays, of those that hit, did not end, or passed a wall on the ball."""

    rays: int
    hits: int
    unresolved: int
    buried: int


class _Sampler:
    """Samples of one picture: linear premultiplied RGBA, and counts of what the rays met."""

    def __init__(self, tracer: Tracer, camera: Camera, shading: Shading, width: int, height: int) -> None:
        self.tracer, self.camera, self.shading = tracer, camera, shading
        self.width, self.height = width, height
        self.frame = camera.frame_in_model(tracer.field.transform)
        self.met = _Met(0, 0, 0, 0)

    def pixels(self, antialias: int, progress: Callable[[float], None]) -> FloatArray:
        """RGBA (height, width, 4): one sample a pixel, then antialias^2 where the picture has an edge."""
        picture = np.zeros((self.height * self.width, 4), np.float32)
        everywhere = in_tiles(self.width, self.height)
        first = 1.0 if antialias == 1 else 0.5
        self._fill(picture, everywhere, 1, lambda share: progress(first * share))
        if antialias > 1:
            edges = _edges(picture.reshape(self.height, self.width, 4)).ravel()
            self._fill(
                picture,
                everywhere[edges.take(everywhere)],
                antialias,
                lambda share: progress(0.5 + 0.5 * share),
            )
        return picture.reshape(self.height, self.width, 4)

    def _fill(
        self,
        picture: FloatArray,
        pixels: npt.NDArray[np.int64],
        side: int,
        progress: Callable[[float], None],
    ) -> None:
        """Set these pixels (n,) of the flat picture to the mean of side x side samples each.

        One sample a pixel: the pixels are zero, and of `in_tiles`: squares of 4 x 4 as far as they are whole.
        """
        offsets = (np.arange(side) + 0.5) / side
        dx, dy = (axis.ravel() for axis in np.meshgrid(offsets, offsets))
        block = max(1, BLOCK // len(dx))
        whole = self.width // 8 * (self.height // 8) * 64

        def fill(start: int) -> _Met:
            chosen = pixels[start : start + block]
            row = chosen // self.width
            rows, columns = row[:, None] + dy, (chosen - row * self.width)[:, None] + dx
            if side == 1:
                tiles = min(max(0, whole - start), len(chosen)) // 16, 16
            else:
                tiles = columns.size // 4, 4
            seen, colours, met = self.sample(columns.ravel(), rows.ravel(), tiles)
            if side == 1:
                picture[chosen.take(seen)] = colours
            else:
                samples = np.zeros((columns.size, 4), np.float32)
                samples[seen] = colours
                picture[chosen] = samples.reshape(*columns.shape, 4).mean(axis=1)
            return met

        starts = range(0, len(pixels), block)
        for done, met in enumerate(side_by_side(fill, starts), 1):
            self.met = _Met(*map(sum, zip(self.met, met, strict=True)))
            progress(done / len(starts))

    def sample(
        self, columns: npt.NDArray[Any], rows: npt.NDArray[Any], tiles: tuple[int, int]
    ) -> tuple[npt.NDArray[np.int64], FloatArray, _Met]:
        """Through which of some points of the picture, (n,) each, the shape is seen: indices (k,), their
        RGBA (k, 4), and what the rays met.

        tiles: how many the points begin with, and of how many points each: `Surface.tiles` where all is hit.
        """
        transform = self.tracer.field.transform
        eye, directions = self.camera.rays(transform, self.width, self.height, columns, rows)
        traced = self.tracer.trace(eye, directions)
        hit = np.flatnonzero(traced.hit)
        surface = Surface(
            traced.points.take(hit, axis=0),
            np.ascontiguousarray(directions.T.take(hit, axis=1).T, np.float32),
            self.frame.astype(np.float32),
            _hit_tiles(traced.hit, hit, tiles),
        )
        seen = np.concatenate([hit, np.flatnonzero(traced.unresolved)])
        colours = np.ones((len(seen), 4), np.float32)
        colours[: len(hit), :3] = shade(self.tracer, self.shading, surface)
        # Beside a value that is not a number even a hit may have no colour.
        lost = ~np.isfinite(np.einsum("ij->i", colours))
        lost[len(hit) :] = True
        colours[lost, :3] = UNRESOLVED_COLOUR
        return seen, colours, _Met(len(columns), len(hit), int(lost.sum()), int(traced.buried.sum()))


def _hit_tiles(
    met: npt.NDArray[np.bool_], hits: npt.NDArray[np.int64], tiles: tuple[int, int]
) -> npt.NDArray[np.int64]:
    """The tiles (m, size) of which all is hit, as indices of hits."""
    size = tiles[1]
    whole = np.flatnonzero(met[: tiles[0] * size].reshape(tiles).all(axis=1))
    return np.searchsorted(hits, whole * size)[:, None] + np.arange(size)


def in_tiles(width: int, height: int) -> npt.NDArray[np.int64]:
    """The pixels of a picture along a Morton curve, in tiles of 8 x 8; those in tiles cut by its edges last.

    Neighbours there stay neighbours.
    """
    rows, columns = -(-height // 8), -(-width // 8)
    pixels = np.arange(rows * 8)[:, None] * width + np.arange(columns * 8)
    pixels[height:], pixels[:, width:] = -1, -1
    tiles = pixels.reshape(rows, 2, 2, 2, columns, 2, 2, 2).transpose(0, 4, 1, 5, 2, 6, 3, 7).reshape(-1, 64)
    row, column = np.divmod(np.arange(rows * columns), columns)
    tiles = tiles[np.argsort(2 * _spread_bits(row) + _spread_bits(column))]
    if pixels.shape == (height, width):
        return tiles.ravel()
    cut = (tiles < 0).any(axis=1)
    return np.concatenate([tiles[~cut].ravel(), tiles[cut][tiles[cut] >= 0]])


def _spread_bits(numbers: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Numbers below 2^11 with a zero before each bit: a coordinate's part of a Morton code."""
    bits = np.arange(11)
    spread: npt.NDArray[np.int64] = ((numbers[:, None] >> bits & 1) << 2 * bits).sum(axis=1)
    return spread


def _edges(picture: FloatArray) -> npt.NDArray[np.bool_]:
    """Pixels (h, w) that differ from a neighbour, on both sides of the edge."""
    edges = np.zeros(picture.shape[:2], np.bool_)
    for channel in range(4):  # one at a time: numpy is slow along short axes
        linear = np.ascontiguousarray(picture[..., channel])
        seen = linear if channel == 3 else SRGB.take(_levels(linear))
        beside = np.abs(np.diff(seen, axis=1)) > CONTRAST
        edges[:, 1:] |= beside
        edges[:, :-1] |= beside
        below = np.abs(np.diff(seen, axis=0)) > CONTRAST
        edges[1:] |= below
        edges[:-1] |= below
    return edges


def _check_size(width: int, height: int, antialias: int) -> None:
    if not (1 <= width <= MAX_SIDE and 1 <= height <= MAX_SIDE and width * height <= MAX_PIXELS):
        raise UsageError(f"a picture of {width}x{height}; 1 to {MAX_SIDE} a side and 64 Mpixel are possible")
    if not 1 <= antialias <= MAX_ANTIALIAS:
        raise UsageError(f"antialias {antialias}; 1 to {MAX_ANTIALIAS} samples a side are possible")


def _backdrop(background: str, height: int) -> FloatArray | None:
    """Linear RGB (height, 1, 3) behind the shape, from top to bottom; None for transparent."""
    if background == "transparent":
        return None
    names = STUDIO if background == "studio" else background.split(":")
    if len(names) > 2:
        raise UsageError(f"background {background!r}: one colour, or two as TOP:BOTTOM")
    top, bottom = np.array([parse_colour(names[0]), parse_colour(names[-1])]) / 255
    share = (np.arange(height) / max(1, height - 1))[:, None]
    return from_srgb(top * (1 - share) + bottom * share)[:, None]  # blended as the eye sees it


def _encode(picture: FloatArray, backdrop: FloatArray | None) -> Pixels:
    """sRGB bytes (h, w, 4) of linear premultiplied RGBA, over the backdrop."""
    encoded = np.zeros(picture.shape, np.uint8)
    whole = encoded.view(np.uint32)[..., 0]  # numpy is slow along short axes
    if backdrop is not None:
        opaque = ((0, 0), (0, 0), (0, 1))
        whole[:] = np.pad(_srgb_bytes(backdrop), opaque, constant_values=255).view(np.uint32)[..., 0]
    flat = picture.reshape(-1, 4)
    seen = np.flatnonzero(flat[:, 3])
    colour, alpha = np.split(flat.take(seen, axis=0), [3], axis=1)
    pixels = np.empty((len(seen), 4), np.uint8)
    if backdrop is None:
        pixels[:, :3] = _srgb_bytes(colour / alpha)
        pixels[:, 3] = alpha[:, 0] * 255 + 0.5
    else:
        partly = np.flatnonzero(alpha < 1)
        colour[partly] += (1 - alpha[partly]) * backdrop[seen[partly] // picture.shape[1], 0]
        pixels[:, :3] = _srgb_bytes(colour)
        pixels[:, 3] = 255
    whole.reshape(-1)[seen] = pixels.view(np.uint32)[:, 0]
    return encoded


def _srgb_bytes(linear: FloatArray) -> Pixels:
    """sRGB 0 to 255 of linear light 0 to 1."""
    return SRGB_BYTES.take(_levels(linear))


def _levels(linear: FloatArray) -> npt.NDArray[np.uint16]:
    """Where to look linear light 0 to 1 up in `SRGB`."""
    return (np.clip(linear, 0, 1) * 65535 + 0.5).astype(np.uint16)


def as_image(rgba: Pixels) -> Image.Image:
    """A PIL image of (h, w, 4) uint8 sRGB: RGB where it is opaque, else RGBA."""
    from PIL import Image

    return Image.fromarray(rgba[..., :3] if (rgba[..., 3] == 255).all() else rgba)


def save_image(path: str | Path, rgba: Pixels, *, force: bool = False) -> None:
    """Write (h, w, 4) uint8 sRGB as PNG, JPEG or WebP, by the suffix.

    Raises `UsageError` for another suffix, or for a transparent picture as JPEG; `OutputError` where
    the file exists already (unless `force`) or cannot be written.
    """
    form, image = still_format(path), as_image(rgba)
    if form == "JPEG" and image.mode == "RGBA":
        raise UsageError(f"{path}: JPEG has no transparency; write a PNG, or choose a background")
    with whole_file(path, force=force) as temporary:
        image.save(temporary, form, **({"quality": 92} if form != "PNG" else {"optimize": False}))


def still_format(path: str | Path) -> str:
    """Pillow's name of the picture format that the suffix of `path` means; `UsageError` if none."""
    suffix = Path(path).suffix.lower()
    if suffix not in STILL_FORMATS:
        raise UsageError(f"{path}: a picture ends in {', '.join(STILL_FORMATS)}")
    return STILL_FORMATS[suffix]
