"""
vessels.py
----------
Mugs, vases, bottles and goblets; and lamps, which are built in the same way.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ...array_types import Points
from .family import Between, Family, OneOf
from .parts import (
    Parts,
    Range,
    Solid,
    block,
    both_sides,
    centred,
    circle,
    disc,
    lathe,
    rod,
    rounded_rectangle,
    slab,
    smooth,
    sweep,
)

#: Number of points of a smooth profile.
_POINTS = 17


def _profile(heights: list[float], radii: list[float], count: int = _POINTS) -> Points:
    """Points (n, 2) of radius and y on a smooth curve."""
    y = np.linspace(heights[0], heights[-1], count)
    return np.stack([smooth(heights, radii, y), y], axis=1)


def _cup(outer: Points, wall: float, bottom: float) -> Solid:
    """A vessel open at the top. outer: its profile. wall: thickness. bottom: height of its floor."""
    height = outer[-1, 1]
    y = np.linspace(height, bottom, len(outer))
    inner = np.stack([np.interp(y, outer[:, 1], outer[:, 0]) - wall, y], axis=1)
    return lathe([(0, outer[0, 1]), *outer, *inner, (0, bottom)])


def _handle(style: str, ends: Range, y: Range, reach: float, thickness: float, width: float = 1.0) -> Solid:
    """A handle to the right of a vessel, from one height to another.

    ends: their x. reach: how far it stands out. width: along z, as a multiple of the thickness.
    """
    angle = np.linspace(-np.pi / 2, np.pi / 2, 25)
    bulge = np.maximum(np.cos(angle), 0.0)
    if style == "square":
        bulge = np.sqrt(bulge)
    elif style == "ear":
        bulge *= 1 + 0.25 * np.sin(angle)
    x = np.linspace(*ends, len(angle)) + reach * bulge
    path = np.stack([x, np.mean(y) + (y[1] - y[0]) / 2 * np.sin(angle), np.zeros(len(angle))], axis=1)
    return sweep(path, (0, 0, 1), circle(thickness / 2, 12) * (width, 1.0))


def _handle_of_cup(outer: Points, wall: float, bottom: float, style: str, y: Range, *sizes: float) -> Solid:
    """A handle that ends inside the wall of a `_cup`; sizes: reach, thickness and width."""
    low, high = np.interp(y, outer[:, 1], outer[:, 0]) - 0.6 * wall
    inside = outer[outer[:, 1] > bottom] - (0.8 * wall, 0)
    cavity = lathe([(0, bottom), *inside, (0, outer[-1, 1] + 0.1)])
    return _handle(style, (float(low), float(high)), y, *sizes) - cavity


def _mug(p: Any) -> Parts:
    low, high = p.bottom_radius, p.top_radius
    outer = _profile([0, 0.5 * p.height, p.height], [low, (low + high) / 2 + p.belly, high])
    y = centred(p.handle_size * p.height, 0.5 * p.height)
    sizes = p.handle_reach, p.handle_thickness, p.handle_width
    parts = {
        "body": [_cup(outer, p.wall, p.bottom)],
        "handle": [_handle_of_cup(outer, p.wall, p.bottom, p.handle_style, y, *sizes)],
    }
    if p.foot:
        parts["foot"] = [disc(0.85 * low, (-0.04, 0.01))]
    return parts


MUG = Family(
    "mug",
    ("body", "handle", "foot"),
    {
        "height": Between(0.65, 1.0),
        "bottom_radius": Between(0.26, 0.38),
        "top_radius": Between(0.3, 0.42),
        "belly": Between(-0.03, 0.07),
        "wall": Between(0.035, 0.06),
        "bottom": Between(0.05, 0.1),
        "handle_style": OneOf(("round", "square", "ear")),
        "handle_size": Between(0.5, 0.75),
        "handle_reach": Between(0.2, 0.32),
        "handle_thickness": Between(0.05, 0.08),
        "handle_width": Between(1.0, 1.8),
        "foot": OneOf((False, True)),
    },
    _mug,
)


def _vase(p: Any) -> Parts:
    neck_level = p.neck_level
    outer = _profile(
        [0, 0.55 * neck_level * p.belly_level, neck_level, 1.0],
        [p.foot_radius, p.belly_radius, p.neck_radius, p.lip_radius],
        33,
    )
    neck, body = _cup(outer, p.wall, 0.06).split_by_plane((0, 1, 0), neck_level)
    parts: dict[str, list[Solid]] = {"body": [body], "neck": [neck]}
    if p.foot:
        parts["foot"] = [disc(p.foot_radius * 1.08, (-0.05, 0.015))]
    if p.handles:
        y = (0.5 * neck_level, neck_level + 0.1)
        handle = _handle_of_cup(outer, p.wall, 0.06, "round", y, 0.13, 0.055)
        parts["handle"] = [handle] if p.handles == 1 else both_sides([handle])
    return parts


VASE = Family(
    "vase",
    ("body", "neck", "handle", "foot"),
    {
        "foot_radius": Between(0.12, 0.24),
        "belly_radius": Between(0.2, 0.36),
        "belly_level": Between(0.7, 1.4),
        "neck_level": Between(0.6, 0.82),
        "neck_radius": Between(0.11, 0.2),
        "lip_radius": Between(0.13, 0.3),
        "wall": Between(0.035, 0.06),
        "handles": OneOf((0, 0, 1, 2)),
        "foot": OneOf((False, True)),
    },
    _vase,
)


def _trunk(section: str, radius: float, y: Range) -> Solid:
    """The straight part of a bottle."""
    if section == "round":
        return disc(radius, y)
    return slab(rounded_rectangle(2 * radius, 2 * radius, 0.35 * radius), y)


def _bottle(p: Any) -> Parts:
    shoulder, neck = p.body_height + p.shoulder, p.body_height + p.shoulder + p.neck_height
    dome = _profile(
        [p.body_height - 0.02, p.body_height, shoulder - 0.3 * p.shoulder, shoulder],
        [0.97 * p.radius, 0.97 * p.radius, p.neck_radius + 0.25 * (p.radius - p.neck_radius), p.neck_radius],
    )
    body = [
        _trunk(p.section, p.radius, (0, p.body_height)),
        lathe([(0, dome[0, 1]), *dome, (0, shoulder)]),
    ]
    if p.waist:
        y = (0.4 * p.body_height, 0.6 * p.body_height)
        body[0] -= _trunk("square", 2 * p.radius, y) - _trunk(p.section, p.radius - p.waist, y)
    parts: dict[str, list[Solid]] = {
        "body": body,
        "neck": [disc(0.97 * p.neck_radius, (shoulder - 0.02, neck))],
        "cap": [disc(p.neck_radius + p.cap_overhang, (neck - 0.02, neck + p.cap_height))],
    }
    if p.handle:
        y = (0.55 * p.body_height, shoulder + 0.3 * p.neck_height)
        parts["handle"] = [_handle("round", (0.85 * p.radius, 0.5 * p.neck_radius), y, 0.14, 0.05)]
    return parts


BOTTLE = Family(
    "bottle",
    ("body", "neck", "cap", "handle"),
    {
        "section": OneOf(("round", "round", "square")),
        "radius": Between(0.15, 0.26),
        "body_height": Between(0.42, 0.7),
        "shoulder": Between(0.08, 0.22),
        "neck_radius": Between(0.05, 0.085),
        "neck_height": Between(0.06, 0.24),
        "cap_overhang": Between(0.012, 0.03),
        "cap_height": Between(0.05, 0.12),
        "waist": OneOf((0.0, 0.0, 0.02, 0.035)),
        "handle": OneOf((False, False, False, True)),
    },
    _bottle,
)


def _goblet(p: Any) -> Parts:
    stem_top = p.base_height + p.stem_height
    height = stem_top + p.bowl_height
    outer = _profile(
        [stem_top, stem_top + 0.25 * p.bowl_height, stem_top + 0.6 * p.bowl_height, height],
        [1.3 * p.stem_radius, 0.8 * p.bowl_radius, p.bowl_radius, p.rim * p.bowl_radius],
    )
    base = _profile(
        [0, 0.35 * p.base_height, p.base_height],
        [p.base_radius, 0.92 * p.base_radius, 1.1 * p.stem_radius],
        9,
    )
    stem: list[Solid] = [disc(p.stem_radius, (0.5 * p.base_height, stem_top + 0.03))]
    if p.knot:
        level = p.base_height + p.knot_level * p.stem_height
        angle = np.linspace(-np.pi / 2, np.pi / 2, 9)
        stem.append(lathe(np.stack([p.knot * np.cos(angle), level + p.knot * np.sin(angle)], axis=1)))
    return {
        "bowl": [_cup(outer, p.wall, stem_top + 0.08)],
        "stem": stem,
        "base": [lathe([(0, 0), *base, (0, p.base_height)])],
    }


GOBLET = Family(
    "goblet",
    ("bowl", "stem", "base"),
    {
        "base_radius": Between(0.2, 0.32),
        "base_height": Between(0.08, 0.14),
        "stem_height": Between(0.1, 0.36),
        "stem_radius": Between(0.035, 0.06),
        "knot": OneOf((0.0, 0.075, 0.1)),
        "knot_level": Between(0.25, 0.75),
        "bowl_height": Between(0.3, 0.55),
        "bowl_radius": Between(0.24, 0.36),
        "rim": Between(0.8, 1.1),
        "wall": Between(0.04, 0.065),
    },
    _goblet,
)


def _lamp(p: Any) -> Parts:
    bottom, top = 1.0 - p.shade_height, 1.0
    wide, narrow = p.shade_radius, p.shade_radius * p.shade_taper
    outer = _profile([bottom, top - 0.4 * p.shade_height, top], _shade_radii(p.shade, wide, narrow), 13)
    inner = outer[::-1] - (p.wall, 0)
    shade = [lathe([*outer, *inner])]
    level = top - 0.04
    inside = float(np.interp(level, outer[:, 1], outer[:, 0])) - 0.5 * p.wall
    if p.spokes:
        angles = 2 * np.pi * np.arange(p.spokes) / p.spokes
        ends = [(inside * float(np.cos(a)), level, inside * float(np.sin(a))) for a in angles]
        holder = [rod((0.0, level, 0.0), end, 0.017) for end in ends]
    else:
        holder = [disc(inside, centred(0.03, level))]
    if p.base == "square":
        half = p.base_radius
        base = block((-half, half), (0, p.base_height), (-half, half))
    elif p.base == "dome":
        dome = _profile(
            [0, 0.6 * p.base_height, p.base_height], [p.base_radius, 0.8 * p.base_radius, 0.06], 9
        )
        base = lathe([(0, 0), *dome, (0, p.base_height)])
    else:
        base = disc(p.base_radius, (0, p.base_height))
    pole: list[Solid] = [disc(p.pole_radius, (0.5 * p.base_height, top - 0.03))]
    if p.belly:
        low, high = 0.8 * p.base_height, bottom - 0.02
        bulge = _profile(
            [low, low + 0.35 * (high - low), high], [1.2 * p.pole_radius, p.belly, 1.05 * p.pole_radius], 15
        )
        pole.append(lathe([(0, low), *bulge, (0, high)]))
    return {"shade": shade, "pole": pole, "base": [base], "holder": holder}


def _shade_radii(style: str, wide: float, narrow: float) -> list[float]:
    """Radii at the bottom, at 60 % of the height, and at the top."""
    middle = 0.4 * wide + 0.6 * narrow if style == "cone" else 0.9 * wide + 0.1 * narrow
    return [wide, middle, narrow]


LAMP = Family(
    "lamp",
    ("shade", "pole", "base", "holder"),
    {
        "shade": OneOf(("cone", "dome")),
        "shade_height": Between(0.26, 0.44),
        "shade_radius": Between(0.24, 0.38),
        "shade_taper": Between(0.45, 0.95),
        "wall": Between(0.035, 0.055),
        "spokes": OneOf((0, 3, 4)),
        "pole_radius": Between(0.025, 0.045),
        "belly": OneOf((0.0, 0.0, 0.1, 0.14)),
        "base": OneOf(("round", "square", "dome")),
        "base_radius": Between(0.16, 0.26),
        "base_height": Between(0.06, 0.14),
    },
    _lamp,
)
