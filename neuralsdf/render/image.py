"""
image.py
--------
Still pictures of a field: rays through pixels, colours, antialiasing, and picture files.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt

from ..arguments import whole_number
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

#: sRGB values for 65536 levels of linear light from 0 to 1. The steps are smaller than those of bytes.
SRGB = to_srgb(np.linspace(0, 1, 65536))
SRGB_BYTES = (SRGB * 255 + 0.5).astype(np.uint8)

#: Linear RGB of rays that neither hit nor left the ball: a conspicuous magenta.
UNRESOLVED_COLOUR = (1.0, 0.0, 1.0)

MAX_SIDE = 16384
MAX_PIXELS = 1 << 26
MAX_ANTIALIAS = 16

#: Neighbouring pixels that differ by more than this, in sRGB or coverage, are antialiased.
CONTRAST = 0.045

STILL_FORMATS = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG", ".webp": "WEBP"}


@dataclass(frozen=True)
class RenderReport:
    """Statistics of a rendering.

    rays, hits: numbers of rays, and of those that hit the surface. unresolved: rays that neither hit nor left
    the ball. buried: rays that started deep inside the solid on the ball. evaluations: evaluated points.
    seconds: wall time.
    """

    rays: int
    hits: int
    unresolved: int
    buried: int
    evaluations: int
    seconds: float


@dataclass(frozen=True, eq=False)
class Picture:
    """A picture, (height, width, 4) uint8 sRGB with straight (not premultiplied) alpha, and its report."""

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
    """Render a picture of `field`.

    camera: None for `Camera.orbit` with the whole shape in view. background: "studio" (a soft gradient),
    "transparent", a colour that Pillow knows ("white", "#204060"), or two such colours as "TOP:BOTTOM".
    antialias: samples along each side of a pixel, for pixels that differ from their neighbours. tracer: a
    tracer for this field, which can be reused for several pictures.
    progress: called with the completed fraction, 0 to 1, about every 2^15 rays.
    Raises `NoSurfaceError` for a field without a surface, `UsageError` for an invalid size or colour.
    """
    started = time.perf_counter()
    _check_size(width, height, antialias)
    backdrop = _backdrop(background, height)
    shading = shading or Shading()
    tracer = tracer or make_tracer(field)
    evaluations_before = tracer.evaluations
    sampler = _Sampler(tracer, camera or Camera.orbit(field.transform), shading, width, height)
    rgba = sampler.pixels(antialias, progress or (lambda fraction: None))
    if not sampler.counts.hits and not tracer.finds_surface():
        raise NoSurfaceError("the field has no surface: no ray through its ball hits one")
    encoded = _encode(rgba, backdrop)
    report = RenderReport(
        *sampler.counts,
        tracer.evaluations - evaluations_before,
        time.perf_counter() - started,
    )
    return Picture(encoded, report)


class _RayCounts(NamedTuple):
    """Numbers of rays, as in `RenderReport`."""

    rays: int
    hits: int
    unresolved: int
    buried: int


class _Sampler:
    """Samples one picture in linear premultiplied RGBA, and counts the rays."""

    def __init__(self, tracer: Tracer, camera: Camera, shading: Shading, width: int, height: int) -> None:
        self.tracer, self.camera, self.shading = tracer, camera, shading
        self.width, self.height = width, height
        self.frame = camera.frame_in_model(tracer.field.transform)
        self.counts = _RayCounts(0, 0, 0, 0)

    def pixels(self, antialias: int, progress: Callable[[float], None]) -> FloatArray:
        """RGBA (height, width, 4): one sample per pixel, and antialias^2 at the edges of the picture."""
        picture = np.zeros((self.height * self.width, 4), np.float32)
        pixels = in_tiles(self.width, self.height)
        first_pass = 1.0 if antialias == 1 else 0.5
        self._fill(picture, pixels, 1, lambda fraction: progress(first_pass * fraction))
        if antialias > 1:
            edges = _edges(picture.reshape(self.height, self.width, 4)).ravel()
            self._fill(
                picture,
                pixels[edges.take(pixels)],
                antialias,
                lambda fraction: progress(0.5 + 0.5 * fraction),
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

        If `side` is 1, the pixels must be zero and in the order of `in_tiles`: complete 4 x 4 squares first.
        """
        offsets = (np.arange(side) + 0.5) / side
        dx, dy = (axis.ravel() for axis in np.meshgrid(offsets, offsets))
        block = max(1, BLOCK // len(dx))
        in_complete_tiles = self.width // 8 * (self.height // 8) * 64

        def fill(start: int) -> _RayCounts:
            chosen = pixels[start : start + block]
            row = chosen // self.width
            rows, columns = row[:, None] + dy, (chosen - row * self.width)[:, None] + dx
            if side == 1:
                tiles = min(max(0, in_complete_tiles - start), len(chosen)) // 16, 16
            else:
                tiles = columns.size // 4, 4
            visible, colours, counts = self.sample(columns.ravel(), rows.ravel(), tiles)
            if side == 1:
                picture[chosen.take(visible)] = colours
            else:
                samples = np.zeros((columns.size, 4), np.float32)
                samples[visible] = colours
                picture[chosen] = samples.reshape(*columns.shape, 4).mean(axis=1)
            return counts

        starts = range(0, len(pixels), block)
        for done, counts in enumerate(side_by_side(fill, starts), 1):
            self.counts = _RayCounts(*map(sum, zip(self.counts, counts, strict=True)))
            progress(done / len(starts))

    def sample(
        self, columns: npt.NDArray[Any], rows: npt.NDArray[Any], tiles: tuple[int, int]
    ) -> tuple[npt.NDArray[np.int64], FloatArray, _RayCounts]:
        """Sample the picture at `columns` (n,) and `rows` (n,). Returns the indices (k,) of samples that show
        the shape, their RGBA (k, 4), and counts of rays.

        tiles: number of tiles at the start of the samples, and samples per tile (see `Surface.tiles`).
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
        visible = np.concatenate([hit, np.flatnonzero(traced.unresolved)])
        colours = np.ones((len(visible), 4), np.float32)
        colours[: len(hit), :3] = shade(self.tracer, self.shading, surface)
        # Next to NaN values of the field, even a hit can have no colour.
        unresolved = ~np.isfinite(np.einsum("ij->i", colours))
        unresolved[len(hit) :] = True
        colours[unresolved, :3] = UNRESOLVED_COLOUR
        counts = _RayCounts(len(columns), len(hit), int(unresolved.sum()), int(traced.buried.sum()))
        return visible, colours, counts


def _hit_tiles(
    is_hit: npt.NDArray[np.bool_], hits: npt.NDArray[np.int64], tiles: tuple[int, int]
) -> npt.NDArray[np.int64]:
    """The tiles (m, size) in which all samples hit, as indices into `hits`."""
    size = tiles[1]
    complete = np.flatnonzero(is_hit[: tiles[0] * size].reshape(tiles).all(axis=1))
    return np.searchsorted(hits, complete * size)[:, None] + np.arange(size)


def in_tiles(width: int, height: int) -> npt.NDArray[np.int64]:
    """The pixels of a picture along a Morton curve, in tiles of 8 x 8; incomplete tiles come last.

    Neighbouring pixels are mostly close in this order.
    """
    rows, columns = -(-height // 8), -(-width // 8)
    pixels = np.arange(rows * 8)[:, None] * width + np.arange(columns * 8)
    pixels[height:], pixels[:, width:] = -1, -1
    tiles = pixels.reshape(rows, 2, 2, 2, columns, 2, 2, 2).transpose(0, 4, 1, 5, 2, 6, 3, 7).reshape(-1, 64)
    row, column = np.divmod(np.arange(rows * columns), columns)
    tiles = tiles[np.argsort(2 * _spread_bits(row) + _spread_bits(column))]
    if pixels.shape == (height, width):
        return tiles.ravel()
    incomplete = (tiles < 0).any(axis=1)
    return np.concatenate([tiles[~incomplete].ravel(), tiles[incomplete][tiles[incomplete] >= 0]])


def _spread_bits(numbers: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Insert a zero before each bit of numbers below 2^11, as in a Morton code."""
    bits = np.arange(11)
    spread: npt.NDArray[np.int64] = ((numbers[:, None] >> bits & 1) << 2 * bits).sum(axis=1)
    return spread


def _edges(picture: FloatArray) -> npt.NDArray[np.bool_]:
    """Mask (h, w) of pixels that differ from a neighbour."""
    edges = np.zeros(picture.shape[:2], np.bool_)
    for channel in range(4):  # separately, because numpy is slow along short axes
        linear = np.ascontiguousarray(picture[..., channel])
        values = linear if channel == 3 else SRGB.take(_levels(linear))
        horizontal = np.abs(np.diff(values, axis=1)) > CONTRAST
        edges[:, 1:] |= horizontal
        edges[:, :-1] |= horizontal
        vertical = np.abs(np.diff(values, axis=0)) > CONTRAST
        edges[1:] |= vertical
        edges[:-1] |= vertical
    return edges


def _check_size(width: int, height: int, antialias: int) -> None:
    for name, side in (("width", width), ("height", height)):
        whole_number(name, side, 1, MAX_SIDE)
    if width * height > MAX_PIXELS:
        raise UsageError(f"a picture cannot have {width}x{height} pixels: at most 64 Mpixel are allowed")
    whole_number("antialias", antialias, 1, MAX_ANTIALIAS)


def _backdrop(background: str, height: int) -> FloatArray | None:
    """Linear RGB (height, 1, 3) of the background, from top to bottom; None for transparent."""
    if background == "transparent":
        return None
    names = STUDIO if background == "studio" else str(background).split(":")
    if len(names) > 2:
        raise UsageError(f"`background={background}`: must be one colour, or two as TOP:BOTTOM")
    top, bottom = np.array([parse_colour(names[0]), parse_colour(names[-1])]) / 255
    fraction = (np.arange(height) / max(1, height - 1))[:, None]
    return from_srgb(top * (1 - fraction) + bottom * fraction)[:, None]  # sRGB is perceptually more uniform


def _encode(picture: FloatArray, backdrop: FloatArray | None) -> Pixels:
    """Encode linear premultiplied RGBA over the backdrop as sRGB bytes (h, w, 4)."""
    encoded = np.zeros(picture.shape, np.uint8)
    words = encoded.view(np.uint32)[..., 0]  # numpy is slow along short axes
    if backdrop is not None:
        opaque = ((0, 0), (0, 0), (0, 1))
        words[:] = np.pad(_srgb_bytes(backdrop), opaque, constant_values=255).view(np.uint32)[..., 0]
    flat = picture.reshape(-1, 4)
    covered = np.flatnonzero(flat[:, 3])
    colour, alpha = np.split(flat.take(covered, axis=0), [3], axis=1)
    pixels = np.empty((len(covered), 4), np.uint8)
    if backdrop is None:
        pixels[:, :3] = _srgb_bytes(colour / alpha)
        pixels[:, 3] = alpha[:, 0] * 255 + 0.5
    else:
        partly = np.flatnonzero(alpha < 1)
        colour[partly] += (1 - alpha[partly]) * backdrop[covered[partly] // picture.shape[1], 0]
        pixels[:, :3] = _srgb_bytes(colour)
        pixels[:, 3] = 255
    words.reshape(-1)[covered] = pixels.view(np.uint32)[:, 0]
    return encoded


def _srgb_bytes(linear: FloatArray) -> Pixels:
    """sRGB values 0 to 255 of linear light 0 to 1."""
    return SRGB_BYTES.take(_levels(linear))


def _levels(linear: FloatArray) -> npt.NDArray[np.uint16]:
    """Indices into `SRGB` for linear light 0 to 1."""
    return (np.clip(linear, 0, 1) * 65535 + 0.5).astype(np.uint16)


def as_image(rgba: Pixels) -> Image.Image:
    """Convert (h, w, 4) uint8 sRGB to a PIL image: RGB if it is opaque, else RGBA."""
    from PIL import Image

    return Image.fromarray(rgba[..., :3] if (rgba[..., 3] == 255).all() else rgba)


def save_image(path: str | Path, rgba: Pixels, *, force: bool = False) -> None:
    """Write (h, w, 4) uint8 sRGB as PNG, JPEG or WebP, by the suffix.

    Raises `UsageError` for another suffix, or for a transparent picture as JPEG; `OutputError` if the file
    exists (unless `force`) or cannot be written.
    """
    format_, image = still_format(path), as_image(rgba)
    if format_ == "JPEG" and image.mode == "RGBA":
        raise UsageError(f"{path}: JPEG does not support transparency; write a PNG or set a background")
    with whole_file(path, force=force) as temporary:
        image.save(temporary, format_, **({"quality": 92} if format_ != "PNG" else {"optimize": False}))


def still_format(path: str | Path) -> str:
    """Pillow's name of the picture format for the suffix of `path`. Raises `UsageError` if unsupported."""
    suffix = Path(path).suffix.lower()
    if suffix not in STILL_FORMATS:
        raise UsageError(f"{path}: unsupported format; use {', '.join(STILL_FORMATS)}")
    return STILL_FORMATS[suffix]
