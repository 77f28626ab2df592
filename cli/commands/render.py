"""
render.py
---------
`neuralsdf render`: render pictures and turntables of a model.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..shared import options, terminal
from ..shared.number_types import Number, WholeNumber

if TYPE_CHECKING:
    from ...backends import Backend
    from ...fields.field import Field
    from ...mesh.inside_or_outside import Sign
    from ...render import RenderReport, Shading


def numbers(separator: str, count: int, kind: Callable[[str], Any], form: str) -> Callable[..., Any]:
    """Click callback that reads `count` numbers with a separator, such as 1,2,3 or 800x600."""

    def read(ctx: click.Context, parameter: click.Parameter, value: str | None) -> tuple[Any, ...] | None:
        if value is None:
            return None
        try:
            numbers = tuple(kind(part) for part in value.lower().split(separator))
        except ValueError:
            numbers = ()
        if len(numbers) != count:
            raise click.BadParameter(f"{value!r} is not {form}", ctx, parameter)
        return numbers

    return read


_point = numbers(",", 3, float, "X,Y,Z")


def _size(ctx: click.Context, parameter: click.Parameter, value: str | None) -> tuple[int, int] | None:
    """Click callback that reads a size in pixels, such as 800x600."""
    size: tuple[int, int] | None = numbers("x", 2, int, "WIDTHxHEIGHT")(ctx, parameter, value)
    if size is None:
        return None
    from ...render.render_picture import MAX_SIDE

    if not all(1 <= side <= MAX_SIDE for side in size):
        raise click.BadParameter(f"{value!r}: each side is 1 to {MAX_SIDE} pixels", ctx, parameter)
    return size


#: Camera and picture options, in the order of the help page.
_VIEW = (
    click.option(
        "--size", callback=_size, metavar="WxH", help="Size in pixels.  [default: 800x800; turntable 480x480]"
    ),
    click.option(
        "--azimuth",
        type=Number(),
        metavar="DEGREES",
        help="Angle around the shape, from its front.  [default: 30]",
    ),
    click.option(
        "--elevation", type=Number(), metavar="DEGREES", help="Angle above the horizon.  [default: 20]"
    ),
    click.option(
        "--distance",
        type=Number(),
        metavar="R",
        help="Distance from the target, in bounding radii.  [default: frames the shape]",
    ),
    click.option(
        "--eye",
        callback=_point,
        metavar="X,Y,Z",
        help="Camera position (mesh units); replaces azimuth, elevation and distance.",
    ),
    click.option(
        "--target",
        callback=_point,
        metavar="X,Y,Z",
        help="Point that the camera looks at (mesh units).  [default: the centre]",
    ),
    click.option(
        "--fov",
        type=Number(),
        default=30.0,
        show_default=True,
        metavar="DEGREES",
        help="Field of view across the shorter side.",
    ),
    click.option(
        "--up", type=click.Choice(["y", "z"]), default="y", show_default=True, help="Axis that points up."
    ),
    click.option(
        "--shading",
        type=click.Choice(["lambert", "normals", "depth", "matcap"]),
        help="Shading of the surface.  [default: lambert; matcap if --matcap is given]",
    ),
    click.option("--color", metavar="COLOR", help="Surface colour, such as #c08060.  [default: clay]"),
    click.option("--matcap", type=options.INPUT, metavar="FILE", help="Picture of a lit sphere."),
    click.option("--ao/--no-ao", default=True, help="Ambient occlusion.  [default: on]"),
    click.option("--shadow/--no-shadow", default=True, help="Soft shadow of the key light.  [default: on]"),
    click.option(
        "--smooth",
        type=Number(0, 0.5),
        default=0.02,
        show_default=True,
        metavar="R",
        help="Average normals over R bounding radii; 0 shows the network's facets.",
    ),
    click.option(
        "--background",
        default="studio",
        show_default=True,
        metavar="COLOR",
        help="A colour, TOP:BOTTOM for a gradient, `transparent`, or `studio`.",
    ),
    click.option(
        "--antialias",
        type=WholeNumber(1, 16),
        default=3,
        show_default=True,
        metavar="N",
        help="NxN samples per pixel along edges; 1 disables it.",
    ),
)


def view(function: options.Function) -> options.Function:
    """Add the camera and picture options; `picture_options` reads them."""
    for option in reversed(_VIEW):
        function = option(function)
    return function


@options.command(
    epilog=options.example(
        "neuralsdf render bunny.h5",
        "neuralsdf render bunny.h5 -o bunny.png --size 1920x1080 --azimuth -40 --background transparent",
        "neuralsdf render bunny.h5 -o bunny.mp4 --turntable 100",
    )
)
@options.output(
    "Picture (.png, .jpg, .webp) or turntable (.gif, .webp, .mp4).  "
    "[default: the model's name with .png or .gif, in the current folder]"
)
@options.force
@view
@click.option(
    "--turntable",
    type=WholeNumber(2, 3600),
    metavar="N",
    help="Animate one turn with N frames, at 25 per second.",
)
@options.model
@options.seed
@options.as_json
def command(
    model: Path,
    output: Path | None,
    force: bool,
    turntable: int | None,
    key: Path | None,
    sign: Sign,
    thickness: float | None,
    allow_outside: bool,
    backend: Backend | None,
    seed: int,
    as_json: bool,
    **view: Any,
) -> None:
    """Render a picture of MODEL (a model, a tree of shapes or a mesh), or a turntable of it."""
    from ...files.atomic_write import check_writable
    from ...render import check_animation, remarks, still_format
    from ...storage import open_field

    options.check_exists(model)
    path = output or options.default_output(model, ".gif" if turntable else ".png")
    view["size"] = view["size"] or ((480, 480) if turntable else (800, 800))
    if turntable:
        width, height = view["size"]
        transparent = view["background"] == "transparent"
        check_animation(path, width, height, turntable, transparent=transparent)
    else:
        still_format(path)
    shading = read_shading(view)
    check_writable(path, force=force, source=model)
    with terminal.stage(f"open {model}"):
        field = open_field(
            model, key=key, backend=backend, allow_outside=allow_outside, sign=sign, thickness=thickness
        )
    options.note_flips(field)
    with options.naming(model), terminal.stage("render and write"):
        picture = picture_options(field, view, shading, seed)
        if turntable:
            report = _write_turntable(field, path, turntable, picture, force)
        else:
            report = write_picture(field, path, picture, force)
    for line in remarks(report):
        terminal.note(f"{model}: {line}")
    if as_json:
        per_ray = {"evaluations_per_ray": report.evaluations / report.rays}
        terminal.print_json({"model": str(model), "output": str(path), **asdict(report), **per_ray})
    else:
        frames = f"{turntable} frames, " if turntable else ""
        size = f"{picture['width']}x{picture['height']}"
        terminal.say(f"{path}: {frames}{size}, {report.rays:,} rays, {report.seconds:.1f} s")


#: Options of `make_shading` and `make_camera`.
_SHADING = ("shading", "color", "matcap", "ao", "shadow", "smooth")
_CAMERA = ("azimuth", "elevation", "distance", "eye", "target", "fov", "up")


def picture_options(field: Field, view: dict[str, Any], shading: Shading, seed: int) -> dict[str, Any]:
    """Arguments of `render` from the options of `view`; raises as `make_camera` and `make_tracer` do."""
    from ...render import make_camera, make_tracer

    width, height = view["size"]
    return {
        "width": width,
        "height": height,
        "camera": make_camera(field, **{name: view[name] for name in _CAMERA}),
        "shading": shading,
        "background": view["background"],
        "antialias": view["antialias"],
        "tracer": make_tracer(field, seed=seed),
    }


def read_shading(view: dict[str, Any]) -> Shading:
    """Shading from the options of `view`; raises as `make_shading` does."""
    from ...render import make_shading

    return make_shading(**{name: view[name] for name in _SHADING})


def write_picture(field: Field, path: Path, picture: dict[str, Any], force: bool) -> RenderReport:
    """Render and save a picture; picture: the result of `picture_options`."""
    from ...render import render, save_image

    with _progress_bar(path.name, 1.0) as advance:
        rendered = render(field, progress=advance, **picture)
    save_image(path, rendered.rgba, force=force)
    return rendered.report


def _write_turntable(
    field: Field, path: Path, frames: int, picture: dict[str, Any], force: bool
) -> RenderReport:
    from ...render import save_animation, total, turntable

    reports: list[RenderReport] = []

    def pictures() -> Iterator[Any]:
        with _progress_bar(path.name, frames) as advance:
            for rendered in turntable(field, frames, **picture):
                reports.append(rendered.report)
                advance(len(reports))
                yield rendered.rgba

    save_animation(path, pictures(), force=force)
    return total(reports)


@contextmanager
def _progress_bar(name: str, total: float) -> Iterator[Callable[[float], None]]:
    """Progress bar on stderr, shown after one second; `advance(done)` moves it to `done` of `total`."""
    form = "{desc} {bar} {percentage:3.0f} % {remaining}"
    with terminal.bar(name, total=total, delay=1, bar_format=form) as bar:

        def advance(done: float) -> None:
            bar.update(done - bar.n)

        yield advance
