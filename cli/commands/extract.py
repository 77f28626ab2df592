"""
extract.py
----------
`neuralsdf extract`: extract a watertight mesh from a model.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ...array_types import Points, Vectors
from ..shared import options, terminal
from ..shared.byte_sizes import read_size
from ..shared.mesh_checks import checked, show_check
from ..shared.number_types import WholeNumber

if TYPE_CHECKING:
    from ...backends import Backend
    from ...fields.extract import Surface
    from ...fields.field import Field
    from ...mesh.inside_or_outside import Sign

#: Memory limit, passed as `max_memory: int | None`.
max_memory = click.option(
    "--max-memory",
    callback=read_size,
    metavar="SIZE",
    help="Memory limit of the command, without its input files; auto chooses a resolution within it.  "
    "[default: 2GB; the mesh of a given --resolution may exceed it]",
)


#: Number of faces after decimation, passed as `faces: int | None`.
faces = click.option(
    "--faces",
    type=WholeNumber(4),
    metavar="N",
    help="Decimate the mesh to N faces; warns if this adds more error than the field has.",
)

#: Whether to write normals, passed as `normals: bool | None`; None: depends on the format.
normals = click.option(
    "--normals/--no-normals",
    default=None,
    help="Write smooth vertex normals from the field's gradient (.ply, .obj, .glb).  "
    "[default: for .glb, which viewers shade flat without normals]",
)

#: Whether to check the mesh, passed as `check: bool`.
print_check = click.option(
    "--check",
    is_flag=True,
    help="Print whether the surface is closed, its volume, thinnest wall and closed cavities.",
)


def wants_normals(normals: bool | None, path: Path) -> bool:
    """Whether to write normals to the mesh at `path`."""
    return path.suffix.lower() == ".glb" if normals is None else normals


@options.command(
    epilog=options.example(
        "neuralsdf extract bunny.h5",
        "neuralsdf extract bunny.h5 -o bunny.stl --resolution 512",
    )
)
@options.output(
    "Mesh file; the suffix selects the format (.ply, .obj, .stl, .glb, .off).  "
    "[default: the model's name with .ply, in the current folder]"
)
@options.force
@options.resolution(
    "Cells along the side of the shape's bounding cube; auto starts at 256 and doubles until volume and "
    "number of bodies are stable."
)
@max_memory
@faces
@normals
@print_check
@options.seed
@options.show_units
@options.model
@options.as_json
def command(
    model: Path,
    output: Path | None,
    force: bool,
    resolution: int | None,
    max_memory: int | None,
    faces: int | None,
    normals: bool | None,
    check: bool,
    seed: int,
    units: str | None,
    key: Path | None,
    sign: Sign,
    thickness: float | None,
    allow_outside: bool,
    backend: Backend | None,
    as_json: bool,
) -> None:
    """Extract a watertight mesh from MODEL by marching cubes, in the units of the original.

    MODEL is a model, a tree of shapes (.csg) or a mesh, of which the solid that `convert` uses is extracted.
    """
    from ...files.atomic_write import check_writable
    from ...mesh.save_mesh import check_mesh_output
    from ...storage import open_field

    options.check_exists(model)
    path = output or options.default_output(model, ".ply")
    normals = wants_normals(normals, path)
    check_mesh_output(path, force=force, attributes=normals)
    check_writable(path, force=force, source=model)
    began = time.perf_counter()
    with terminal.stage(f"open {model}"):
        field = open_field(
            model, key=key, backend=backend, allow_outside=allow_outside, sign=sign, thickness=thickness
        )
    options.check_sources(path, field)
    options.note_flips(field)
    field = options.shown_in(field, units, model)
    with options.naming(model), terminal.stage("extract"):
        surface, of_vertices = extracted(field, path, resolution, max_memory, faces, normals)
    with terminal.stage(f"write {path}"):
        result = write_mesh(surface, of_vertices, path, force)
        if check:
            result["check"] = checked(surface, seed)
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
        found = result.pop("check", None)
        terminal.print_table(with_units(result, field.unit).items())
        if found is not None:
            show_check(found, field.unit)


def with_units(result: dict[str, Any], unit: str | None) -> dict[str, Any]:
    """The report of `write_mesh` with units for volume and area, if the unit of length is known."""
    from ...units import DIMENSIONS, with_unit

    return {
        name: with_unit(terminal.shown(value), unit, DIMENSIONS[name])
        if unit and name in DIMENSIONS and value is not None
        else value
        for name, value in result.items()
    }


def extracted(
    field: Field,
    path: Path,
    resolution: int | None,
    max_memory: int | None,
    faces: int | None,
    normals: bool,
) -> tuple[Surface, Points | None]:
    """The surface of a field, decimated to `faces` if given, and its vertex normals (V, 3) or None.

    path: output file, whose format determines the memory needed to write it.
    """
    from ...fields.decimate import reduced_surface
    from ...fields.extraction_grid import FACE_BYTES
    from ...fields.vertex_normals import surface_normals
    from ...mesh.save_mesh import WRITING_BYTES

    face_bytes = max(FACE_BYTES, WRITING_BYTES.get(path.suffix.lower(), 0))
    surface = reduced_surface(field, resolution, max_memory=max_memory, faces=faces, face_bytes=face_bytes)
    return surface, surface_normals(field, surface) if normals else None


def write_mesh(surface: Surface, normals: Vectors | None, path: Path, force: bool) -> dict[str, Any]:
    """Save a surface; returns a report of it."""
    from ...mesh.save_mesh import save_mesh

    save_mesh(path, surface.vertices, surface.faces, normals=normals, force=force)
    return {
        "vertices": len(surface.vertices),
        "faces": len(surface.faces),
        "volume": surface.volume,
        "area": surface.area,
        "watertight": surface.watertight,
        "resolution": surface.resolution,
        "bytes": path.stat().st_size,
    }
