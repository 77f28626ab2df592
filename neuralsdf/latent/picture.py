"""
picture.py
----------
A sheet of reconstructions beside their meshes: in each pair the mesh is left and the reconstruction right,
rendered from the same camera, with the name and the IoU below. The shapes are the best, the worst and some
between them, so that the sheet shows how good a model usually is, and where it fails.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from ..errors import NoSurfaceError
from ..fields.extract import model_surface
from ..fields.field import Field
from ..fields.mesh_field import MeshField
from ..mesh.load_mesh import load_mesh
from ..mesh.signed_distance import SignedDistance
from ..printable_text import printable
from ..render import MeshTracer, Shading, render, save_image
from ..render.background import backdrop_of
from ..render.camera import Camera
from ..render.colours import Pixels, srgb_bytes
from .evaluate import Evaluated
from .prepare import normalised

#: Maximum number of pairs on a sheet, and of pairs in a row.
PAIRS, _COLUMNS = 6, 3
#: Sides in pixels: of a rendered square, of the gap between pairs, and of the lines of text.
_SIDE, _GAP, _LINE = 240, 20, 22
#: Colours of the sheet, of names and of other text.
_PAPER, _INK, _GREY = (255, 255, 255, 255), (32, 36, 44, 255), (96, 102, 114, 255)
#: Cells across the unit ball of an extracted surface: one and a half pixels each.
_RESOLUTION = 160
#: As in the pictures of the demo: exact distances are too slow for shadows, and smooth normals hide facets.
_SHADING = Shading(shadow=False, smooth=0.03)


class Pair(NamedTuple):
    """A shape and its reconstruction, with two lines of text below them.

    mesh, reconstruction: with the same transform, so that one camera shows both.
    """

    name: str
    caption: str
    mesh: MeshField
    reconstruction: Field


def save_picture(path: str | Path, shapes: Sequence[Evaluated], *, force: bool = False) -> int:
    """Write the sheet of at most six of the shapes, evenly by rank of their IoU, to a picture file.

    Reads their meshes again. Returns the number of pairs; without a reconstruction there are none, and no
    file is written. Raises as `load_mesh` and `save_image` do.
    """
    count = sum(shape.reconstruction is not None for shape in shapes)
    pairs = [_pair(rank, count, shape) for rank, shape in _by_rank(shapes)]
    if pairs:
        save_image(path, sheet(pairs), force=force)
    return len(pairs)


def sheet(pairs: Iterable[Pair]) -> Pixels:
    """The pairs in rows of three: an opaque picture (h, w, 4) uint8, sRGB."""
    panels = [_panel(pair) for pair in pairs]
    columns = min(_COLUMNS, len(panels))
    rows = -(-len(panels) // columns)
    height, width = panels[0].shape[:2]
    picture = np.full((rows * (height + _GAP) + _GAP, columns * (width + _GAP) + _GAP, 4), _PAPER, np.uint8)
    for i, panel in enumerate(panels):
        row, column = divmod(i, columns)
        top, left = _GAP + row * (height + _GAP), _GAP + column * (width + _GAP)
        picture[top : top + height, left : left + width] = panel
    return picture


def _by_rank(shapes: Sequence[Evaluated]) -> list[tuple[int, Evaluated]]:
    """The shapes to show with their ranks from 1: the best, the worst, and some between them."""
    ranked = sorted(
        (shape for shape in shapes if shape.reconstruction is not None),
        key=lambda shape: (-shape.metrics["iou"], shape.name),
    )
    places = np.linspace(0, len(ranked) - 1, min(PAIRS, len(ranked))).round().astype(int).tolist()
    return [(place + 1, ranked[place]) for place in places]


def _pair(rank: int, count: int, shape: Evaluated) -> Pair:
    assert shape.reconstruction is not None
    place = "best" if rank == 1 else "worst" if rank == count else f"rank {rank}"
    of_all = f", {place} of {count}" if count > 1 else ""
    known, oracle = normalised(load_mesh(shape.entry.source), shape.name)
    return Pair(
        shape.name,
        f"IoU {shape.metrics['iou']:.3f}{of_all}",
        MeshField(oracle, known.transform),
        shape.reconstruction.field,
    )


def _panel(pair: Pair) -> Pixels:
    """The two renderings of a pair side by side with text above and below, (h, w, 4)."""
    camera = Camera.orbit(pair.mesh.transform)
    halves = np.concatenate([_tile(pair.mesh, camera), _reconstructed(pair.reconstruction, camera)], axis=1)
    panel = np.full((_SIDE + 3 * _LINE, 2 * _SIDE, 4), _PAPER, np.uint8)
    panel[_LINE : _LINE + _SIDE] = halves
    image = Image.fromarray(panel)
    draw = ImageDraw.Draw(image)
    for text, middle in (("mesh", _SIDE // 2), ("reconstruction", _SIDE + _SIDE // 2)):
        draw.text((middle, _LINE // 2), text, fill=_GREY, font=_font(13), anchor="mm")
    below = _LINE + _SIDE + _LINE // 2 + 3
    draw.text((_SIDE, below), _fitting(pair.name, draw), fill=_INK, font=_font(15), anchor="mm")
    draw.text((_SIDE, below + _LINE - 3), pair.caption, fill=_GREY, font=_font(13), anchor="mm")
    return np.asarray(image)


def _reconstructed(field: Field, camera: Camera) -> Pixels:
    """A picture of a field's extracted surface, since values far from the surface are not trained.

    For a field without a surface, that of the background with a remark.
    """
    try:
        surface = model_surface(field, _RESOLUTION)
    except NoSurfaceError:
        backdrop = backdrop_of("studio", _SIDE)
        assert backdrop is not None
        opaque = np.full((_SIDE, _SIDE, 4), 255, np.uint8)
        opaque[..., :3] = srgb_bytes(backdrop)
        image, middle = Image.fromarray(opaque), _SIDE // 2
        ImageDraw.Draw(image).text((middle, middle), "no surface", fill=_GREY, font=_font(15), anchor="mm")
        return np.asarray(image)
    oracle = SignedDistance(surface.vertices, surface.faces, make_bvh=field.backend.triangle_bvh)
    return _tile(MeshField(oracle, field.transform), camera)


def _tile(field: MeshField, camera: Camera) -> Pixels:
    tracer = MeshTracer(field)
    return render(field, width=_SIDE, height=_SIDE, camera=camera, shading=_SHADING, tracer=tracer).rgba


def _font(size: int) -> ImageFont.ImageFont | ImageFont.FreeTypeFont:
    return ImageFont.load_default(size)


def _fitting(name: str, draw: ImageDraw.ImageDraw) -> str:
    """The name, without characters from its middle if it is too wide for the panel."""
    limit = min(len(name), _SIDE)  # letters are wider than two pixels
    text = printable(name, limit)
    while draw.textlength(text, font=_font(15)) > 2 * _SIDE and limit > 8:
        limit -= 1
        text = printable(name, limit)
    return text
