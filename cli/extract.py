"""
extract.py
----------
`neuralsdf extract`: a watertight mesh of a model.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from . import options, terminal
from .sizes import read_size

if TYPE_CHECKING:
    from ..distance import Sign
    from ..extract import Surface

#: Memory that an extraction may take, passed as `max_memory: int`.
max_memory = click.option(
    "--max-memory",
    default="2GB",
    callback=read_size,
    show_default=True,
    metavar="SIZE",
    help="Memory limit.",
)


@options.command(
    epilog=options.example(
        "neuralsdf extract bunny.h5",
        "neuralsdf extract bunny.h5 -o bunny.stl --resolution 512",
    )
)
@options.output(
    "Mesh to write; its suffix is the format (.ply, .obj, .stl, .glb, .off).  "
    "[default: the model's name with .ply, in the current folder]"
)
@options.force
@options.resolution(
    "Cells along the side of the shape's bounding cube; auto doubles 256 until the volume and the number of "
    "bodies stay the same."
)
@max_memory
@options.show_units
@options.model
@options.as_json
def command(
    model: Path,
    output: Path | None,
    force: bool,
    resolution: int | None,
    max_memory: int,
    units: str | None,
    key: Path | None,
    sign: Sign,
    thickness: float | None,
    allow_outside: bool,
    backend: str | None,
    as_json: bool,
) -> None:
    """Extract a mesh from MODEL by marching cubes, watertight and in the units of the original.

    MODEL is a model, a tree of shapes (.csg) or a mesh; of a mesh it is the solid that `convert` would take.
    """
    from ..extract import extract
    from ..meshfile import check_mesh_output
    from ..output import check_writable
    from ..storage import open_field

    path = output or options.default_output(model, ".ply")
    check_mesh_output(path, force=force)
    check_writable(path, force=force, source=model)
    began = time.perf_counter()
    with terminal.stage(f"open {model}"):
        field = open_field(
            model, key=key, backend=backend, allow_outside=allow_outside, sign=sign, thickness=thickness
        )
    options.note_flips(field)
    field = options.shown_in(field, units, model)
    with options.naming(model), terminal.stage("extract"):
        surface = extract(field, resolution, max_memory=max_memory)
    with terminal.stage(f"write {path}"):
        result = write_mesh(surface, path, force)
    for note in surface.notes:
        terminal.note(f"{model}: {note}")
    result["seconds"] = time.perf_counter() - began
    if as_json:
        terminal.print_json(
            {
                "model": str(model),
                "output": str(path),
                "unit": field.unit,
                **result,
                "notes": list(surface.notes),
            }
        )
    else:
        terminal.say(f"{model} -> {path}")
        terminal.print_table(with_units(result, field.unit).items())


def with_units(result: dict[str, Any], unit: str | None) -> dict[str, Any]:
    """What is said of a mesh, with the units of its volume and area where the unit of length is known."""
    from ..units import DIMENSIONS, with_unit

    return {
        name: with_unit(terminal.shown(value), unit, DIMENSIONS[name])
        if unit and name in DIMENSIONS and value is not None
        else value
        for name, value in result.items()
    }


def write_mesh(surface: Surface, path: Path, force: bool) -> dict[str, Any]:
    """Save a surface; what is said of it."""
    from ..meshfile import save_mesh

    save_mesh(path, surface.vertices, surface.faces, force=force)
    return {
        "vertices": len(surface.vertices),
        "faces": len(surface.faces),
        "volume": surface.volume,
        "area": surface.area,
        "watertight": surface.watertight,
        "resolution": surface.resolution,
        "bytes": path.stat().st_size,
    }
