"""
csg.py
------
`neuralsdf csg`: combine shapes into a picture, a mesh, a tree file or a network.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from ...errors import UsageError
from ..shared import conversion_options as conversion
from ..shared import mesh_checks as check
from ..shared import options, terminal
from . import convert, extract, info, render

if TYPE_CHECKING:
    from ...backends import Backend
    from ...csg import Shape

_PICTURES = (".png", ".jpg", ".jpeg", ".webp")
#: Entries of the output's report that the table shows, and labels of some.
_SHOWN = {
    "bytes", "size", "rays", "evaluations", "seconds", "vertices", "faces", "volume", "area", "watertight",
    "resolution", "weights", "surface_mean", "iou",
}  # fmt: skip
_LABELS = {"surface_mean": "surface error, relative to the radius", "iou": "IoU"}
_MESHES = (".ply", ".obj", ".stl", ".glb", ".off")


@options.command(
    epilog=options.example(
        'neuralsdf csg "bunny.h5 - sphere(0.3).translate(0, 0.2, 0)" -o bitten.png',
        'neuralsdf csg "bunny.stl.hollow(2)" -o hollow.stl --check',
        'neuralsdf csg "box(4, 2, 1) | smooth(0.2, cylinder(0.5, 3))" -o part.csg',
        "neuralsdf csg part.csg -o part.h5",
    )
)
@click.argument("expression")
@options.output(
    "Output file, by suffix: a picture (.png, .jpg, .webp), a mesh (.ply, .obj, .stl, .glb, .off), "
    "a tree (.csg) for use in place of a model, or a network (.h5).  [default: print its properties]"
)
@options.force
@click.option(
    "--bounds",
    callback=render.numbers(",", 6, float, "X,Y,Z,X,Y,Z"),
    metavar="X,Y,Z,X,Y,Z",
    help="Cut to the box between these corners; required for unbounded shapes.",
)
@extract.print_check
@click.option("--bundle", is_flag=True, help="Store the files used by the tree in the .csg.")
@options.allow_outside
@options.resolution(
    "Cells along the side of the surface's bounding cube; auto starts at 256 (384 for a network) and "
    "doubles until volume and number of bodies are stable."
)
@extract.max_memory
@extract.faces
@extract.normals
@render.view
@conversion.conversion
@options.device
@options.as_json
@click.pass_context
def command(
    ctx: click.Context,
    /,
    expression: str,
    output: Path | None,
    force: bool,
    bounds: tuple[float, ...] | None,
    bundle: bool,
    allow_outside: bool,
    backend: Backend | None,
    as_json: bool,
    **settings: Any,
) -> None:
    """Combine shapes. EXPRESSION consists of solids, model files, meshes and trees.

    a | b, a & b, a - b and ~a are union, intersection, difference and complement; `a | smooth(0.1, b)` is a
    smooth union. Solids: sphere(radius), box(x, y, z), rounded_box(x, y, z, radius), cylinder(radius,
    height), capsule(radius, height), cone(radius, height, top), torus(major, minor), plane(x, y, z),
    ellipsoid(x, y, z). Methods: translate(x, y, z), rotate(degrees, x, y, z), scale(factor), reflect(x, y,
    z), offset(length), dilate, erode, round(radius), shell(thickness), hollow(thickness), blend(b, share),
    displace(amplitude, wavelength), repeat(x, y, z, nx, ny, nz), symmetry(x, y, z), twist(degrees per
    length). Quote file names with spaces or special characters: part.h5, "my part.stl". Lengths are in the
    files' own units.
    """
    from ...csg import units_of
    from ...storage.csg_file import parse_tree

    _check_output(ctx, output, force)
    with terminal.stage("read the expression and its files"):
        tree = parse_tree(expression, backend=backend, allow_outside=allow_outside)
    if output is not None:
        options.check_sources(output, tree)
    options.note_flips(*tree.fields())
    tree = tree if bounds is None else _cut(tree, bounds)
    if output is None:
        with terminal.stage("measure"):
            report, surface = info.describe_tree(tree, None, settings["resolution"], settings["max_memory"])
        if settings["check"] and surface is not None:
            report["check"] = check.checked(surface, settings["seed"])
        info.show_tree(report, as_json=as_json)
    else:
        _warn_of_units(tree)
        with terminal.stage(f"write {output}"):
            report = _write(tree, output, force, bundle, allow_outside, backend, settings, quiet=as_json)
        report = {"tree": str(tree), "output": str(output), **report}
        if as_json:
            terminal.print_json(report)
    if "check" in report and not as_json:
        check.show_check(report["check"], units_of(tree)[0])


def _warn_of_units(shape: Shape) -> None:
    """Warn if a tree combines files in different units."""
    from ...csg import units_of

    _, conflict = units_of(shape)
    if conflict is not None:
        terminal.warn(conflict)


def _names(add: Callable[[Callable[[], None]], Callable[[], None]]) -> set[str]:
    """Names of the parameters that a decorator adds."""
    return {parameter.name or "" for parameter in click.command()(add(lambda: None)).params}


#: Options used by each kind of output; None: no output.
_OF_NETWORK = _names(conversion.conversion) - {"seed"}
_OF_PICTURE = _names(render.view)
_OF_SURFACE = {"resolution", "max_memory"}
_OF_MESH = {"faces", "normals"}
_USES: dict[str | None, set[str]] = {
    None: _OF_SURFACE | {"check"},
    ".csg": {"bundle"},
    ".h5": _OF_NETWORK | {"resolution"},
    **dict.fromkeys(_PICTURES, _OF_PICTURE),
    **dict.fromkeys(_MESHES, _OF_SURFACE | _OF_MESH | {"check"}),
}
_SOME_USE = set[str]().union(*_USES.values())


def _check_output(ctx: click.Context, output: Path | None, force: bool) -> None:
    """Raise, before any work, if the output cannot be written or options do not apply to it."""
    from ...files.atomic_write import check_writable
    from ...mesh.save_mesh import check_mesh_output

    suffix = None if output is None else output.suffix.lower()
    if suffix not in _USES:
        raise UsageError(
            f"{output}: unknown suffix; use {', '.join((*_PICTURES, *_MESHES))} (picture, mesh), "
            ".csg (tree) or .h5 (network)"
        )
    for parameter in ctx.command.params:
        name = parameter.name or ""
        given = ctx.get_parameter_source(name) is ParameterSource.COMMANDLINE
        if given and name in _SOME_USE - _USES[suffix]:
            why = f"cannot be combined with -o {output}" if output else "needs -o"
            raise UsageError(f"{parameter.opts[-1]} {why}")
    if output is not None:
        check_writable(output, force=force)
    if suffix in _MESHES:
        check_mesh_output(output or "", force=force, attributes=bool(ctx.params["normals"]))


def _cut(tree: Shape, bounds: tuple[float, ...]) -> Shape:
    """Cut a tree to the box between two corners."""
    from ...csg import box

    if not all(map(math.isfinite, bounds)):
        raise UsageError("--bounds: coordinates must be finite")
    low, high = bounds[:3], bounds[3:]
    sides = [b - a for a, b in zip(low, high, strict=True)]
    if not min(sides) > 0:
        raise UsageError("--bounds: the second corner must be greater than the first in each coordinate")
    middle = [(a + b) / 2 for a, b in zip(low, high, strict=True)]
    return tree & box(*sides).translate(*middle)


def _write(
    tree: Shape,
    path: Path,
    force: bool,
    bundle: bool,
    allow_outside: bool,
    backend: Backend | None,
    settings: dict[str, Any],
    *,
    quiet: bool,
) -> dict[str, Any]:
    """Write the output in the format of its suffix; prints (unless `quiet`) and returns a report."""
    from ...csg import units_of

    suffix = path.suffix.lower()
    if suffix == ".csg":
        from ...storage.csg_file import save_tree

        save_tree(tree, path, bundle=bundle, allow_outside=allow_outside, force=force)
        report: dict[str, Any] = {
            "bytes": path.stat().st_size,
            "files": sorted({leaf.name for leaf in tree.leaves()}),
        }
    elif suffix in _PICTURES:
        report = _write_picture(tree, path, force, settings)
    elif suffix in _MESHES:
        report = _write_mesh(tree, path, force, settings)
    else:
        report = _write_network(tree, path, force, backend, settings)
    if not quiet:
        terminal.say(path)
        in_units = report.get("metrics_mesh_units", {})
        sizes = {name: in_units[name] for name in ("volume", "area") if name in in_units}
        shown = report.get("metrics", {}) | extract.with_units(report | sizes, units_of(tree)[0])
        terminal.print_table((_LABELS.get(key, key), shown[key]) for key in shown if key in _SHOWN)
    return report


def _enclosed(shape: Shape) -> Shape:
    """A tree with its ball computed; the error for an unbounded tree suggests `--bounds`."""
    try:
        _ = shape.transform
    except UsageError as error:
        raise UsageError(f"{error}, or give --bounds") from error
    return shape


def _write_picture(shape: Shape, path: Path, force: bool, settings: dict[str, Any]) -> dict[str, Any]:
    from ...render import remarks

    settings["size"] = settings["size"] or (800, 800)
    shading = render.read_shading(settings)
    field = _enclosed(shape)
    picture = render.picture_options(field, settings, shading, settings["seed"])
    report = render.write_picture(field, path, picture, force)
    for line in remarks(report):
        terminal.note(line)
    size = "{}x{}".format(*settings["size"])
    return {"size": size, "rays": report.rays, "evaluations": report.evaluations, "seconds": report.seconds}


def _write_mesh(shape: Shape, path: Path, force: bool, settings: dict[str, Any]) -> dict[str, Any]:
    with_normals = extract.wants_normals(settings["normals"], path)
    surface, normals = extract.extracted(
        _enclosed(shape),
        path,
        settings["resolution"],
        settings["max_memory"],
        settings["faces"],
        with_normals,
    )
    for note in surface.notes:
        terminal.note(note)
    report = extract.write_mesh(surface, normals, path, force)
    return report | ({"check": check.checked(surface, settings["seed"])} if settings["check"] else {})


def _write_network(
    shape: Shape, path: Path, force: bool, backend: Backend | None, settings: dict[str, Any]
) -> dict[str, Any]:
    from ...pipeline.convert import fit_mesh
    from ...pipeline.prepare_mesh import surface_mesh
    from ...storage import check_output, save_field
    from ...units import to_mesh_units

    arguments = conversion.arguments(settings)
    precision = arguments["precision"] or "f32"
    check_output(path, arguments["architecture"], precision=precision, force=force)
    mesh = surface_mesh(_enclosed(shape), str(shape)[:200], resolution=settings["resolution"])
    with convert.progress_bar(path.name) as progress:
        made = fit_mesh(mesh, **arguments, backend=backend, progress=progress)
    save_field(made.field, path, force=force)
    for line in made.warnings:
        terminal.note(line)
    return {
        "weights": made.field.network.architecture.weight_count,
        "bytes": path.stat().st_size,
        "metrics": made.field.metrics,
        "metrics_mesh_units": to_mesh_units(made.field.metrics, made.field.transform.scale),
    }
