"""
tables_and_shelves.py
---------------------
Tables, desks, bookshelves and cabinets.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np

from .chairs_and_sofas import legs, pedestal
from .family import Between, Family, OneOf
from .parts import Parts, Range, Solid, block, both_sides, centred, circle, rod, rounded_rectangle, slab


def _table(p: Any) -> Parts:
    width, depth, low, high = 1.0, p.depth, p.height - p.top_thickness, p.height
    if p.top_shape == "round":
        outline = circle(width / 2)
        depth = width
    elif p.top_shape == "oval":
        outline = circle(width / 2) * (1, depth)
    else:
        outline = rounded_rectangle(width, depth, p.corner_radius)
    parts: dict[str, list[Solid]] = {"top": [slab(outline, (low, high))]}
    corner = 0.5 if p.top_shape == "rectangle" else 0.34
    x, z = corner * width - 0.03 - p.leg_thickness, corner * depth - 0.03 - p.leg_thickness
    if p.leg_style == "pedestal":
        parts["leg"] = pedestal(low + 0.02, 0.8 * p.leg_thickness, 0.3 * depth, 0.05)
    elif p.leg_style == "trestle":
        feet = [
            block(centred(p.leg_thickness, 0.32), (0, low + 0.02), centred(0.12)),
            block(centred(0.07, 0.32), (0, 0.05), centred(0.8 * depth)),
        ]
        parts["leg"] = [*both_sides(feet), block(centred(0.64), (0.3 * low, 0.3 * low + 0.06), centred(0.04))]
    else:
        parts["leg"] = legs(p.leg_style, x, z, low + 0.02, p.leg_thickness)
        if p.apron:
            y = (low - p.apron_height, low + 0.01)
            sides = [block(centred(0.03, x), y, centred(2 * z))]
            fronts = [block(centred(2 * x), y, centred(0.03, at)) for at in (-z, z)]
            parts["apron"] = [*both_sides(sides), *fronts]
    return parts


TABLE = Family(
    "table",
    ("top", "leg", "apron"),
    {
        "top_shape": OneOf(("rectangle", "rectangle", "round", "oval")),
        "depth": Between(0.55, 0.95),
        "height": Between(0.36, 0.75),
        "top_thickness": Between(0.04, 0.09),
        "corner_radius": Between(0.0, 0.15),
        "leg_style": OneOf(("square", "round", "tapered", "pedestal", "trestle")),
        "leg_thickness": Between(0.05, 0.1),
        "apron": OneOf((False, True)),
        "apron_height": Between(0.05, 0.11),
    },
    _table,
)


def _desk(p: Any) -> Parts:
    depth, low, high = p.depth, p.height - p.top_thickness, p.height
    parts: dict[str, list[Solid]] = {
        "top": [slab(rounded_rectangle(1.0, depth, p.corner_radius), (low, high))]
    }
    side = 0.5 - 0.03
    pedestals = [(-side, -side + p.drawer_width)]
    if p.layout == "two pedestals":
        pedestals.append((side - p.drawer_width, side))
    bottom = p.drawer_bottom * low
    parts["drawer"] = []
    parts["handle"] = []
    for x in pedestals:
        front = 0.5 * depth - 0.05
        parts["drawer"].append(block(x, (bottom, low + 0.01), (-0.5 * depth + 0.04, front)))
        fronts, handles = _fronts(x, (bottom, low), front, p.drawers)
        parts["drawer"] += fronts
        parts["handle"] += handles
    thickness = p.leg_thickness
    z = 0.5 * depth - 0.04 - thickness / 2
    if p.layout == "panel":
        parts["leg"] = [block((side - 0.7 * thickness, side), (0, low + 0.02), centred(depth - 0.06))]
    elif p.layout == "legs":
        four = legs("square", side - thickness / 2, z, low + 0.02, thickness)
        parts["leg"] = four[::2]
    else:
        parts["leg"] = []
    if bottom > 0.03:  # legs below the drawers
        spots = [
            (x, at) for pair in pedestals for x in (pair[0] + 0.03, pair[1] - 0.03) for at in (-z, z - 0.04)
        ]
        parts["leg"] += [block(centred(0.05, x), (0, bottom + 0.02), centred(0.05, at)) for x, at in spots]
    if p.back_panel:
        parts["panel"] = [
            block(
                centred(2 * side - 0.01),
                (low - 0.25, low + 0.01),
                (-0.5 * depth + 0.045, -0.5 * depth + 0.075),
            )
        ]
    return parts


def _fronts(x: Range, y: Range, z: float, count: int) -> tuple[list[Solid], list[Solid]]:
    """Fronts of drawers and their handles, on a box whose front is at z."""
    edges = np.linspace(y[0] + 0.015, y[1] - 0.01, count + 1)
    middle, width = (x[0] + x[1]) / 2, x[1] - x[0]
    fronts, handles = [], []
    for low, high in pairwise(edges):
        fronts.append(block((x[0] + 0.015, x[1] - 0.015), (low, high - 0.018), (z - 0.01, z + 0.02)))
        level = (low + high - 0.018) / 2
        handles.append(block(centred(0.4 * width, middle), centred(0.022, level), (z + 0.01, z + 0.045)))
    return fronts, handles


DESK = Family(
    "desk",
    ("top", "leg", "drawer", "panel", "handle"),
    {
        "depth": Between(0.45, 0.62),
        "height": Between(0.48, 0.66),
        "top_thickness": Between(0.035, 0.06),
        "corner_radius": Between(0.0, 0.08),
        "layout": OneOf(("legs", "panel", "two pedestals")),
        "drawer_width": Between(0.2, 0.3),
        "drawer_bottom": OneOf((0.0, 0.18, 0.45, 0.65)),
        "drawers": OneOf((1, 2, 3)),
        "leg_thickness": Between(0.045, 0.075),
        "back_panel": OneOf((False, True)),
    },
    _desk,
)


def _bookshelf(p: Any) -> Parts:
    width, depth, board = p.width, p.depth, p.board
    height = 1.0
    side = width / 2 - board / 2
    bottom = p.plinth
    levels = np.linspace(bottom + board / 2, height - board / 2, p.shelves + 1)
    levels[1:-1] += p.unevenness * (levels[1] - levels[0]) * np.where(np.arange(p.shelves - 1) % 2, 1, -1)
    parts: dict[str, list[Solid]] = {
        "side": both_sides([block(centred(board, side), (0, height), centred(depth))]),
        "shelf": [
            block(centred(width - board), centred(board, y), (-depth / 2, depth / 2 - p.setback))
            for y in levels
        ],
    }
    if p.back:
        parts["back"] = [block(centred(width - board), (bottom, height), (-depth / 2, -depth / 2 + 0.022))]
    if p.dividers:
        offsets = np.linspace(-side, side, p.dividers + 2)[1:-1]
        front = depth / 2 - p.setback - 0.01
        parts["divider"] = [
            block(centred(0.8 * board, x), (bottom + board / 2, height - board / 2), (-depth / 2, front))
            for x in offsets
        ]
    return parts


BOOKSHELF = Family(
    "bookshelf",
    ("side", "shelf", "back", "divider"),
    {
        "width": Between(0.4, 0.8),
        "depth": Between(0.2, 0.34),
        "board": Between(0.028, 0.05),
        "shelves": OneOf((2, 3, 4, 5)),
        "plinth": Between(0.02, 0.12),
        "setback": Between(0.0, 0.03),
        "unevenness": Between(0.0, 0.2),
        "back": OneOf((True, True, False)),
        "dividers": OneOf((0, 0, 1, 2)),
    },
    _bookshelf,
)


def _cabinet(p: Any) -> Parts:
    width, depth, board = p.width, p.depth, p.board
    ground, split = p.foot_height, p.foot_height + p.closed_fraction * (1.0 - p.foot_height)
    front = depth / 2 - 0.03
    parts: dict[str, list[Solid]] = {
        "body": [block(centred(width), (ground, split), (-depth / 2, front))],
        "foot": legs(p.foot_style, width / 2 - 0.05, depth / 2 - 0.06, ground + 0.02, 0.06),
        "door": [],
        "handle": [],
    }
    edges = np.linspace(-width / 2 + 0.012, width / 2 - 0.012, p.doors + 1)
    for number, (left, right) in enumerate(pairwise(edges)):
        door = (ground + 0.02, split - 0.02)
        parts["door"].append(block((left + 0.009, right - 0.009), door, (front - 0.01, front + 0.022)))
        # Handles of a pair of doors are beside each other.
        x = right - 0.045 if number % 2 == 0 else left + 0.045
        level = sum(door) / 2
        if p.handle == "knob":
            parts["handle"].append(rod((x, level, front), (x, level, front + 0.055), 0.022))
        else:
            bar = block(centred(0.025, x), centred(0.3 * (door[1] - door[0]), level), (front, front + 0.05))
            parts["handle"].append(bar)
    if p.closed_fraction < 0.95:
        side = width / 2 - board / 2
        levels = np.linspace(split, 1.0 - board / 2, p.shelves + 1)[1:]
        parts["shelf"] = [
            *both_sides([block(centred(board, side), (split - 0.02, 1.0), (-depth / 2, front))]),
            *(block(centred(width - board), centred(board, y), (-depth / 2, front)) for y in levels),
            block(centred(width - board), (split - 0.01, 1.0), (-depth / 2, -depth / 2 + 0.025)),
        ]
    if p.top:
        parts["top"] = [block(centred(width + 0.05), (0.985, 1.025), centred(depth + 0.03))]
    return parts


CABINET = Family(
    "cabinet",
    ("body", "door", "handle", "shelf", "top", "foot"),
    {
        "width": Between(0.42, 0.66),
        "depth": Between(0.22, 0.34),
        "board": Between(0.03, 0.05),
        "foot_height": Between(0.03, 0.14),
        "foot_style": OneOf(("square", "tapered", "round")),
        "closed_fraction": OneOf((0.35, 0.45, 0.55, 1.0)),
        "doors": OneOf((1, 2, 2, 3)),
        "shelves": OneOf((1, 2, 3)),
        "handle": OneOf(("knob", "bar")),
        "top": OneOf((False, True)),
    },
    _cabinet,
)
