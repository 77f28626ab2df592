"""
render_arguments.py
-------------------
Cameras, shading and pictures from the arguments of `Field.render` and the options of the command line.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy.typing as npt

from ..errors import UsageError
from ..fields.field import Field
from .camera import Camera, Up, position
from .choose_tracer import make_tracer
from .colours import parse_colour
from .render_picture import Picture, RenderReport, render
from .shading import CLAY, Shading, Style, read_matcap


def make_shading(
    shading: Style | None = None,
    color: str | None = None,
    matcap: str | Path | None = None,
    ao: bool = True,
    shadow: bool = True,
    smooth: float = 0.02,
) -> Shading:
    """The shading for these arguments; see `Field.render`.

    Raises `UsageError` for arguments that cannot be combined, `FileError` for a matcap that cannot be read.
    """
    style: Style = shading or ("matcap" if matcap else "lambert")
    if style == "matcap" and matcap is None:
        raise UsageError("`shading='matcap'` needs `matcap=`, a picture of a lit sphere")
    if style != "matcap" and matcap is not None:
        raise UsageError(f"`matcap=` cannot be combined with `shading={style!r}`")
    return Shading(
        style,
        colour=parse_colour(color) if color else CLAY,
        matcap=read_matcap(Path(matcap)) if matcap else None,
        ambient_occlusion=ao,
        shadow=shadow,
        smooth=smooth,
    )


def make_camera(
    field: Field,
    azimuth: float | None = None,
    elevation: float | None = None,
    distance: float | None = None,
    eye: npt.ArrayLike | None = None,
    target: npt.ArrayLike | None = None,
    fov: float = 30.0,
    up: Up = "y",
) -> Camera:
    """The camera for these arguments; see `Field.render`.

    Raises `UsageError` for arguments that cannot be combined or are out of range.
    """
    orbit = {"azimuth": azimuth, "elevation": elevation, "distance": distance}
    given = {name: value for name, value in orbit.items() if value is not None}
    if eye is None:
        return Camera.orbit(field.transform, **given, fov=fov, target=target, up=up)
    if given:
        raise UsageError(f"`eye=` cannot be combined with `{next(iter(given))}=`")
    centre = field.transform.centre if target is None else position("target", target)
    return Camera(position("eye", eye), centre, up, fov)


def picture(
    field: Field,
    width: int,
    height: int,
    *,
    camera: Camera,
    shading: Shading,
    background: str,
    antialias: int,
    seed: int,
) -> Picture:
    """Render a field with the appropriate tracer."""
    return render(
        field,
        width=width,
        height=height,
        camera=camera,
        shading=shading,
        background=background,
        antialias=antialias,
        tracer=make_tracer(field, seed=seed),
    )


def remarks(report: RenderReport) -> Iterator[str]:
    """Warnings about defects of a picture, a sentence each."""
    if report.unresolved:
        yield f"{report.unresolved:,} of {report.rays:,} rays neither hit nor left the ball; they are magenta"
    if report.buried:
        yield (
            f"the field is negative on its ball's surface where {report.buried:,} of {report.rays:,} rays "
            "enter; the surface of the ball is not drawn there"
        )
    if not report.hits:
        yield "no ray hit the shape: it is not in the camera's view"
