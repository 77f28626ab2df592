"""
query.py
--------
`neuralsdf query`: distances, gradients and closest points.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ...array_types import Points, Values, Vectors
from ..shared import options, terminal

if TYPE_CHECKING:
    from ...backends import Backend
    from ...fields.field import Field
    from ...mesh.inside_or_outside import Sign

#: Maximum distance of a closest point from the surface, in radii of the model's ball.
_MAX_RESIDUAL = 1e-3


@options.command(
    epilog=options.example(
        "neuralsdf query bunny.h5 points.npy -o distances.npy",
        "echo 0.1 0.2 0.3 | neuralsdf query bunny.h5 - --closest",
    )
)
@options.output("Output file (.npy, .csv or .txt).  [default: print comma-separated rows]")
@options.force
@click.option("--gradient", is_flag=True, help="Also the gradient: points outwards, norm about 1.")
@click.option(
    "--closest",
    is_flag=True,
    help="Also the closest surface point, and its residual distance to the surface.",
)
@click.option(
    "--bound",
    is_flag=True,
    help="Outside the bounding ball, a lower bound of the distance: faster, up to a quarter too low.",
)
@options.show_units
@options.model
@click.argument("points", type=click.Path(path_type=Path, allow_dash=True))
@options.as_json
def command(
    model: Path,
    points: Path,
    output: Path | None,
    force: bool,
    gradient: bool,
    closest: bool,
    bound: bool,
    units: str | None,
    key: Path | None,
    sign: Sign,
    thickness: float | None,
    allow_outside: bool,
    backend: Backend | None,
    as_json: bool,
) -> None:
    """Signed distances (negative inside) from POINTS to the shape in MODEL, all in mesh units or
    --units.

    MODEL is a model, a tree of shapes or a mesh; distances are exact for a mesh and lower bounds for a tree.
    POINTS is an .npy array (n, 3), a text file with three numbers per line, or - for standard input. Points
    that are not finite give nan.
    """
    from ...errors import PointsError, UsageError
    from ...files.atomic_write import check_writable
    from ...files.bounded_input import read_stream
    from ...files.point_lists import check_suffix, parse_points, print_columns, read_points, write_columns
    from ...storage import open_field

    if bound and closest:
        raise UsageError("--bound cannot be combined with --closest: a bound has no closest point")
    if output is not None:
        check_suffix(output)
        check_writable(output, force=force, source=points)
    with terminal.stage(f"open {model}"):
        field = open_field(
            model, key=key, backend=backend, allow_outside=allow_outside, sign=sign, thickness=thickness
        )
    options.note_flips(field)
    field = options.shown_in(field, units, model)
    with terminal.stage("read the points"):
        if points == Path("-"):
            given = read_stream(sys.stdin.buffer, "standard input", PointsError, "points")
            places = parse_points(given, "standard input")
        else:
            places = read_points(points)
    with options.naming(model), terminal.stage("query"):
        columns = _columns(field, places, gradient, closest, bound)
    _warn(field, columns)
    if output is not None:
        write_columns(_named(columns, field.unit), output, force=force)
    elif not as_json:
        print_columns(columns, sys.stdout)
    if as_json:
        terminal.print_json(
            {
                "model": str(model),
                "unit": field.unit,
                "points": len(places),
                "bound": bound or field.is_bound,
                "columns": columns,
            }
        )


def _columns(field: Field, places: Points, gradient: bool, closest: bool, bound: bool) -> dict[str, Values]:
    """Results (n,) by name; closest: raises `NoSurfaceError` if the field has no surface."""
    from ...fields.extract import require_surface
    from ...fields.query import closest_points, signed_distance
    from ...fields.query import gradient as field_gradient

    columns = {"distance": signed_distance(field, places, bound=bound)}
    if gradient:
        columns |= _split("gradient", field_gradient(field, places, bound=bound))
    if closest:
        found = closest_points(field, places)
        if not (found.residual <= _MAX_RESIDUAL * field.transform.scale).any():
            require_surface(field)
        columns |= _split("closest", found.points) | {"residual": found.residual}
    return columns


def _named(columns: dict[str, Points], unit: str | None) -> dict[str, Values]:
    """The columns, with the unit in the names of lengths, if it is known."""
    return {
        name if unit is None or name.startswith("gradient") else f"{name} ({unit})": values
        for name, values in columns.items()
    }


def _split(name: str, vectors: Vectors) -> dict[str, Values]:
    return {f"{name}_{axis}": vectors[:, i] for i, axis in enumerate("xyz")}


def _warn(field: Field, columns: dict[str, Points]) -> None:
    import numpy as np

    count = len(columns["distance"])
    not_finite = int(np.isnan(columns["distance"]).sum())
    if not_finite:
        terminal.warn(f"{not_finite} of {count} points not finite or too far; their results are nan")
    missed = int((columns.get("residual", np.empty(0)) > _MAX_RESIDUAL * field.transform.scale).sum())
    if field.is_bound:
        terminal.warn("results are lower bounds of the distance, because the model is a tree of shapes")
    if missed:
        terminal.warn(f"{missed} of {count} closest points are not on the surface (see residual)")
