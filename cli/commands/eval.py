"""
eval.py
-------
`neuralsdf eval`: compare a model with a mesh.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from ..shared import options, terminal
from ..shared.metric_labels import LABELS

if TYPE_CHECKING:
    from ...backends import Backend
    from ...evaluation.mesh_alignment import Align
    from ...mesh.inside_or_outside import Sign


@options.command(
    epilog=options.example(
        "neuralsdf eval bunny.h5 bunny.obj", "neuralsdf eval bunny.h5 scan_in_mm.ply --align similarity"
    )
)
@options.resolution("Cells along the side of the surface's bounding cube; auto chooses a sufficient number.")
@click.option(
    "--align",
    type=click.Choice(["none", "scale", "similarity"]),
    help="Align the mesh with the model first: `scale` matches their enclosing balls, `similarity` also "
    "rotates it.  [default: none; scale for a Keras file without a transform]",
)
@options.model
@click.argument("mesh", type=options.INPUT)
@options.seed
@options.as_json
def command(
    model: Path,
    mesh: Path,
    resolution: int | None,
    align: Align | None,
    key: Path | None,
    sign: Sign,
    thickness: float | None,
    allow_outside: bool,
    backend: Backend | None,
    seed: int,
    as_json: bool,
) -> None:
    """Compare MODEL (a model, a tree or another mesh) with MESH: loss, surface error, IoU, two-way
    distance and more."""
    from ...evaluation.metrics import evaluate
    from ...mesh.load_mesh import load_mesh
    from ...storage import open_field
    from ...units import DIMENSIONS, to_mesh_units

    with terminal.stage(f"open {model}"):
        field = open_field(
            model, key=key, backend=backend, allow_outside=allow_outside, sign=sign, thickness=thickness
        )
    options.note_flips(field)
    with terminal.stage(f"load {mesh}"):
        shape = load_mesh(mesh)
    unit = shape.source.unit or field.unit
    if unit is not None and field.unit not in (unit, None):
        terminal.note(f"{model}: lengths converted from {field.unit!r} to {unit!r}, the unit of {mesh}")
        field = field.in_unit(unit)
    with terminal.stage("measure"):
        evaluation = evaluate(field, shape, align=align, seed=seed, resolution=resolution)
    for note in evaluation.notes:
        terminal.note(f"{model}: {note}")
    relative, mesh_units = evaluation.metrics, to_mesh_units(evaluation.metrics, evaluation.scale)
    if as_json:
        terminal.print_json(
            {
                "model": str(model),
                "mesh": str(mesh),
                "radius": evaluation.scale,
                "unit": unit,
                "align": evaluation.align,
                "alignment": evaluation.alignment.matrix,
                "metrics": relative,
                "metrics_mesh_units": mesh_units,
                "notes": list(evaluation.notes),
            }
        )
        return
    terminal.print_table(
        (
            [label, mesh_units[name] if DIMENSIONS[name] else None, relative[name]]
            for name, label in LABELS.items()
            if name in relative
        ),
        header=["", unit or "mesh units", "of the radius"],
    )
