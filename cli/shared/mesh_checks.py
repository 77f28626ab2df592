"""
mesh_checks.py
--------------
`--check`, for 3D printing: whether a mesh is closed, its thinnest wall, and the cavities that need a drain
hole.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from . import terminal

if TYPE_CHECKING:
    from ...array_types import Points
    from ...fields.extract import Surface

#: Maximum number of cavities in a table; JSON lists all.
_MAX_SHOWN = 5


def checked(surface: Surface, seed: int) -> dict[str, Any]:
    """Check an extracted surface; returns plain values, with lengths in its units.

    A closed cavity traps resin or powder; a drain hole at its lowest point along z empties it.
    """
    from ...mesh.wall_thickness import thinnest_walls

    cell, shells = surface.cell, surface.shells
    wall, spot = thinnest_walls(surface.vertices, surface.faces, cell=cell, seed=seed)
    if wall is not None and wall.thickness < 2 * cell:
        remedy = "more --faces, or a higher --resolution" if surface.reduced else "a higher --resolution"
        terminal.warn(
            f"wall of {wall.thickness:.3g} is too thin for cells of {cell:.3g} and may break; use {remedy}"
        )
    cavities = [
        {"volume": -float(shells.volumes[shell]), "drain_at": shells.lowest[shell]}
        for shell in shells.cavities
    ]
    if cavities:
        terminal.warn(
            f"{len(cavities)} closed {'cavity' if len(cavities) == 1 else 'cavities'}: add a drain hole at "
            "the lowest point of each, or resin or powder stays inside"
        )
    return {
        "closed": surface.watertight,
        "volume": surface.volume,
        "shells": shells.count,
        "bodies": shells.bodies,
        "cavities": cavities,
        "thinnest_wall": None if wall is None else wall.thickness,
        "thinnest_at": None if wall is None else wall.place,
        "thinnest_spot": None if spot is None else spot.thickness,
        "spot_at": None if spot is None else spot.place,
        "cell": cell,
    }


def show_check(check: dict[str, Any], unit: str | None = None) -> None:
    """Print the result of `checked` as a table; lengths have their unit if it is known."""
    from ...units import with_unit

    def amount(value: float | None, power: int = 1) -> str:
        return with_unit(terminal.shown(value), None if value is None else unit, power)

    rows = [
        ["closed", check["closed"], ""],
        ["volume", amount(check["volume"], 3), ""],
        ["shells", check["shells"], "connected surfaces"],
        ["bodies", check["bodies"], ""],
        ["closed cavities", len(check["cavities"]), ""],
    ]
    for cavity in check["cavities"][:_MAX_SHOWN]:
        rows.append(["drain hole", _at(cavity["drain_at"]), f"empties {amount(cavity['volume'], 3)}"])
    if len(check["cavities"]) > _MAX_SHOWN:
        rows.append(["more cavities", len(check["cavities"]) - _MAX_SHOWN, "see --json"])
    rows.append(["thinnest wall", amount(check["thinnest_wall"]), _at(check["thinnest_at"])])
    if (check["thinnest_spot"] or math.inf) < (check["thinnest_wall"] or math.inf):
        place = f"{_at(check['spot_at'])}, too small to count as a wall"
        rows.append(["thinnest spot", amount(check["thinnest_spot"]), place])
    terminal.say()
    terminal.print_table(rows)


def _at(place: Points | None) -> str:
    return "" if place is None else f"at ({', '.join(f'{value:.4g}' for value in place)})"
