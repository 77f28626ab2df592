"""
animation.py
------------
Turntable animations: pictures from a camera that orbits the shape once, saved as GIF, WebP or MP4.
"""

from __future__ import annotations

import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import astuple
from importlib.util import find_spec
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import UsageError
from ..fields.field import Field
from ..files.atomic_write import whole_file
from .camera import Camera
from .choose_tracer import make_tracer
from .colours import Pixels
from .render_picture import Picture, RenderReport, render
from .sphere_tracing import Tracer

ANIMATION_FORMATS = (".gif", ".webp", ".mp4")
FRAMES_PER_SECOND = 25
MAX_FRAMES = 3600

#: Maximum size in bytes of all frames of a GIF or WebP, which are kept in memory until the last is rendered.
MAX_ANIMATION_BYTES = 1 << 31


def turntable(
    field: Field, frames: int, *, camera: Camera | None = None, tracer: Tracer | None = None, **options: Any
) -> Iterator[Picture]:
    """Render one revolution about the up axis through the camera's target, starting at `camera`.

    tracer, options: passed to `render`. Raises `UsageError` for fewer than 2 or more than 3600 frames.
    """
    if not 2 <= frames <= MAX_FRAMES:
        raise UsageError(f"a turntable cannot have {frames} frames: 2 to {MAX_FRAMES} are allowed")
    camera = camera or Camera.orbit(field.transform)
    tracer = tracer or make_tracer(field)
    for index in range(frames):
        yield render(field, camera=camera.orbited(360 * index / frames), tracer=tracer, **options)


def total(reports: Sequence[RenderReport]) -> RenderReport:
    """The sum of reports."""
    return RenderReport(*(sum(column) for column in zip(*map(astuple, reports), strict=True)))


def check_animation(path: str | Path, width: int, height: int, frames: int, *, transparent: bool) -> None:
    """Raise `UsageError` if `save_animation` cannot write such pictures to `path`."""
    suffix = Path(path).suffix.lower()
    if suffix not in ANIMATION_FORMATS:
        raise UsageError(f"{path}: unsupported format; use {', '.join(ANIMATION_FORMATS)}")
    if suffix != ".mp4":
        if width * height * 4 * frames > MAX_ANIMATION_BYTES:
            raise UsageError(
                f"{path}: {frames} frames of {width}x{height} do not fit in memory; write an .mp4"
            )
    elif transparent:
        raise UsageError(f"{path}: MP4 does not support transparency; write a .webp or set a background")
    elif width % 2 or height % 2:
        raise UsageError(f"{path}: MP4 needs an even width and height, not {width}x{height}")
    elif find_spec("imageio_ffmpeg") is None:
        raise UsageError(
            f"{path}: MP4 needs ffmpeg; run pip install 'neuralsdf[video]', or write a .gif or .webp"
        )


def save_animation(path: str | Path, frames: Iterator[Pixels], *, force: bool = False) -> None:
    """Write frames (h, w, 4) uint8 as a looping GIF or WebP, or as an MP4, with 25 frames per second.

    Call `check_animation` first. Raises `OutputError` if the file exists (unless `force`) or cannot be
    written.
    """
    writers = {".gif": _save_gif, ".webp": _save_webp, ".mp4": _save_mp4}
    with whole_file(path, force=force) as temporary:
        writers[temporary.suffix.lower()](temporary, frames)


def _save_gif(path: Path, frames: Iterator[Pixels]) -> None:
    from PIL import Image

    pictures = list(frames)
    opaque = all((picture[..., 3] == 255).all() for picture in pictures)
    # A common palette, from a few of the frames: separate palettes would flicker.
    some = pictures[:: max(1, len(pictures) // 8)]
    sample = Image.fromarray(np.concatenate([picture[::2, ::2, :3] for picture in some]))
    palette = sample.quantize(255, Image.Quantize.MEDIANCUT)
    indexed = []
    for picture in pictures:
        frame = Image.fromarray(picture[..., :3]).quantize(
            palette=palette, dither=Image.Dither.FLOYDSTEINBERG
        )
        if not opaque:
            frame.paste(255, mask=Image.fromarray(np.where(picture[..., 3] < 128, 255, 0).astype(np.uint8)))
        indexed.append(frame)
    transparency: dict[str, Any] = {} if opaque else {"transparency": 255}
    indexed[0].save(
        path,
        "GIF",
        save_all=True,
        append_images=indexed[1:],
        duration=1000 // FRAMES_PER_SECOND,
        loop=0,
        disposal=1 if opaque else 2,
        **transparency,
    )


def _save_webp(path: Path, frames: Iterator[Pixels]) -> None:
    from PIL import Image

    first, *others = (Image.fromarray(picture) for picture in frames)
    first.save(
        path,
        "WEBP",
        save_all=True,
        append_images=others,
        duration=1000 // FRAMES_PER_SECOND,
        loop=0,
        quality=88,
    )


def _save_mp4(path: Path, frames: Iterator[Pixels]) -> None:
    # imageio_ffmpeg.write_frames is not used, because it hides write errors of ffmpeg.
    from imageio_ffmpeg import get_ffmpeg_exe

    first = next(frames)
    height, width = first.shape[:2]
    command = [
        *(get_ffmpeg_exe(), "-y", "-loglevel", "error"),
        *("-f", "rawvideo", "-pix_fmt", "rgb24", "-s", f"{width}x{height}"),
        *("-r", str(FRAMES_PER_SECOND), "-i", "-"),
        *("-c:v", "libx264", "-crf", "18", "-pix_fmt", "yuv420p", "-movflags", "+faststart", str(path)),
    ]  # fmt: skip
    with subprocess.Popen(command, stdin=subprocess.PIPE, stderr=subprocess.PIPE) as encoder:
        assert encoder.stdin is not None
        try:
            for picture in chain([first], frames):
                encoder.stdin.write(np.ascontiguousarray(picture[..., :3]).tobytes())
        except BrokenPipeError:
            pass  # ffmpeg failed; its error is raised below
        except BaseException:
            encoder.kill()
            raise
        _, message = encoder.communicate()
    if encoder.returncode != 0:
        raise OSError(f"ffmpeg: {message.decode(errors='replace').strip()}")
