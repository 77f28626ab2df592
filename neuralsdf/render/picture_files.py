"""
picture_files.py
----------------
Files of still pictures: PNG, JPEG and WebP.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import UsageError
from ..files.atomic_write import whole_file
from .colours import Pixels

if TYPE_CHECKING:
    from PIL import Image

STILL_FORMATS = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG", ".webp": "WEBP"}


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
