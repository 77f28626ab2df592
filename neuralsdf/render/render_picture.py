"""
render_picture.py
-----------------
Renders still pictures of a field: rays through pixels, and the colours of what they hit.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from ..arguments import whole_number
from ..array_types import FloatArray
from ..errors import NoSurfaceError, UsageError
from ..fields.field import Field
from ..thread_count import side_by_side
from .antialiasing import MAX_ANTIALIAS, differing_pixels
from .background import backdrop_of
from .camera import Camera
from .choose_tracer import make_tracer
from .colours import Pixels, srgb_bytes
from .pixel_order import in_tiles
from .shading import Shading, Surface, shade
from .sphere_tracing import BLOCK, Tracer

#: Linear RGB of rays that neither hit nor left the ball: a conspicuous magenta.
UNRESOLVED_COLOUR = (1.0, 0.0, 1.0)

MAX_SIDE = 16384
MAX_PIXELS = 1 << 26


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
    backdrop = backdrop_of(background, height)
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
            edges = differing_pixels(picture.reshape(self.height, self.width, 4)).ravel()
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
        # A hit next to NaN values of the field can have a NaN colour.
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


def _check_size(width: int, height: int, antialias: int) -> None:
    for name, side in (("width", width), ("height", height)):
        whole_number(name, side, 1, MAX_SIDE)
    if width * height > MAX_PIXELS:
        raise UsageError(f"a picture cannot have {width}x{height} pixels: at most 64 Mpixel are allowed")
    whole_number("antialias", antialias, 1, MAX_ANTIALIAS)


def _encode(picture: FloatArray, backdrop: FloatArray | None) -> Pixels:
    """Encode linear premultiplied RGBA over the backdrop as sRGB bytes (h, w, 4)."""
    encoded = np.zeros(picture.shape, np.uint8)
    words = encoded.view(np.uint32)[..., 0]  # numpy is slow along short axes
    if backdrop is not None:
        opaque = ((0, 0), (0, 0), (0, 1))
        words[:] = np.pad(srgb_bytes(backdrop), opaque, constant_values=255).view(np.uint32)[..., 0]
    flat = picture.reshape(-1, 4)
    covered = np.flatnonzero(flat[:, 3])
    colour, alpha = np.split(flat.take(covered, axis=0), [3], axis=1)
    pixels = np.empty((len(covered), 4), np.uint8)
    if backdrop is None:
        pixels[:, :3] = srgb_bytes(colour / alpha)
        pixels[:, 3] = alpha[:, 0] * 255 + 0.5
    else:
        partly = np.flatnonzero(alpha < 1)
        colour[partly] += (1 - alpha[partly]) * backdrop[covered[partly] // picture.shape[1], 0]
        pixels[:, :3] = srgb_bytes(colour)
        pixels[:, 3] = 255
    words.reshape(-1)[covered] = pixels.view(np.uint32)[:, 0]
    return encoded
