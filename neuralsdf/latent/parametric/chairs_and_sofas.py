"""
chairs_and_sofas.py
-------------------
Chairs, stools, benches and sofas.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from .family import Between, Family, OneOf
from .parts import Parts, Solid, block, both_sides, centred, circle, disc, post, rod, rounded_rectangle, slab


def legs(style: str, x: float, z: float, top: float, thickness: float, splay: float = 0.0) -> list[Solid]:
    """Four legs from the ground to the height `top`, at (±x, ±z) there and `splay` further out below."""
    made = []
    for depth in (-z, z):
        foot = (x + splay, 0.0, depth + np.sign(depth) * splay)
        head = (x, top, depth)
        if style == "round":
            made.append(rod(foot, head, thickness / 2))
        elif style == "tapered":
            made.append(post(foot, head, 0.6 * thickness, 1.2 * thickness))
        else:
            made.append(post(foot, head, thickness))
    return both_sides(made)


def pedestal(height: float, column: float, foot: float, thickness: float) -> list[Solid]:
    """A column on a round foot; column, foot: their radii."""
    return [disc(column, (0, height)), disc(foot, (0, thickness))]


def _back(style: str, width: float, height: float, thickness: float, slats: int) -> list[Solid]:
    """A backrest from y = 0 upwards, in front of and behind z = 0."""
    z = centred(thickness)
    if style == "solid":
        return [slab_upright(width, height, thickness)]
    rail = min(0.22 * height, 0.1)
    posts = both_sides([block((width / 2 - 0.05, width / 2), (0, height), z)])
    top = block(centred(width), (height - rail, height), z)
    if style == "ladder":
        levels = np.linspace(0.3 * height, height - rail, slats, endpoint=False)
        rungs = [block(centred(width - 0.04), (y, y + 0.5 * rail), centred(0.7 * thickness)) for y in levels]
        return [*posts, top, *rungs]
    middles = np.linspace(-width / 2 + 0.025, width / 2 - 0.025, slats + 2)[1:-1]
    bars = [block(centred(0.03, x), (0, height - rail / 2), centred(0.6 * thickness)) for x in middles]
    return [*posts, top, *bars]


def slab_upright(width: float, height: float, thickness: float) -> Solid:
    """A board from y = 0 upwards, with rounded upper corners."""
    outline = rounded_rectangle(width, 2 * height, min(width, height) * 0.25)
    board = slab(outline, centred(thickness)).rotate((-90, 0, 0))
    return board.trim_by_plane((0, 1, 0), 0.0)


def _chair(p: Any) -> Parts:
    width, depth = p.seat_width, p.seat_depth
    low, high = p.seat_height - p.seat_thickness, p.seat_height
    seat = slab(rounded_rectangle(width, depth, p.corner_radius), (low, high))
    back = _back(p.back_style, width - 0.03, p.back_height + 0.03, p.back_thickness, p.back_slats)
    rear = -depth / 2 + p.back_thickness
    tilted = [solid.rotate((-p.back_tilt, 0, 0)).translate((0, high - 0.03, rear)) for solid in back]
    x, z = width / 2 - 0.05 - p.leg_thickness / 2, depth / 2 - 0.05 - p.leg_thickness / 2
    parts = {
        "seat": [seat],
        "back": tilted,
        "leg": legs(p.leg_style, x, z, high - 0.02, p.leg_thickness, p.leg_splay),
    }
    if p.arms:
        arm_x, level = width / 2 - 0.03, high + 0.45 * p.back_height
        front = 0.3 * depth
        parts["arm"] = both_sides(
            [
                block((arm_x - 0.03, arm_x + 0.04), (level, level + 0.045), (rear - 0.02, front + 0.03)),
                post((arm_x, high - 0.02, front), (arm_x, level + 0.01, front), 0.045),
            ]
        )
    if p.stretchers:
        level = p.stretcher_height * low
        out = p.leg_splay * (1 - level / (high - 0.02))
        side = rod((x + out, level, -z - out), (x + out, level, z + out), 0.016)
        cross = rod((-x - out, level, 0), (x + out, level, 0), 0.014)
        parts["stretcher"] = [*both_sides([side]), cross]
    return parts


CHAIR = Family(
    "chair",
    ("seat", "back", "leg", "arm", "stretcher"),
    {
        "seat_width": Between(0.42, 0.58),
        "seat_depth": Between(0.4, 0.54),
        "seat_height": Between(0.36, 0.5),
        "seat_thickness": Between(0.08, 0.14),
        "corner_radius": Between(0.0, 0.12),
        "back_style": OneOf(("solid", "solid", "ladder", "bars")),
        "back_height": Between(0.34, 0.58),
        "back_thickness": Between(0.05, 0.09),
        "back_slats": OneOf((2, 3, 4)),
        "back_tilt": Between(0.0, 14.0),
        "leg_style": OneOf(("square", "round", "tapered")),
        "leg_thickness": Between(0.04, 0.075),
        "leg_splay": Between(0.0, 0.06),
        "arms": OneOf((False, False, True)),
        "stretchers": OneOf((False, True)),
        "stretcher_height": Between(0.25, 0.6),
    },
    _chair,
)


def _stool(p: Any) -> Parts:
    width, low, high = p.seat_width, p.height - p.seat_thickness, p.height
    outline = circle(width / 2) if p.seat_shape == "round" else rounded_rectangle(width, width, 0.06)
    parts = {"seat": [slab(outline, (low, high))]}
    if p.leg_style == "pedestal":
        parts["leg"] = pedestal(high - 0.02, 0.6 * p.leg_thickness, 0.42 * width, 0.05)
        return parts
    reach = 0.36 * width if p.seat_shape == "square" else 0.26 * width
    parts["leg"] = legs(p.leg_style, reach, reach, high - 0.02, p.leg_thickness, p.leg_splay)
    if p.ring != "none":
        level = p.ring_height * low
        out = reach + p.leg_splay * (1 - level / (high - 0.02))
        if p.ring == "round":
            outer = out * 2**0.5
            ring = disc(outer, centred(0.03, level)) - disc(outer - 0.03, centred(0.04, level))
            parts["ring"] = [ring]
        else:
            sides = [rod((out, level, -out), (out, level, out), 0.018)]
            across = [rod((-out, level, z), (out, level, z), 0.018) for z in (-out, out)]
            parts["ring"] = [*both_sides(sides), *across]
    return parts


STOOL = Family(
    "stool",
    ("seat", "leg", "ring"),
    {
        "height": Between(0.45, 0.95),
        "seat_shape": OneOf(("round", "round", "square")),
        "seat_width": Between(0.4, 0.62),
        "seat_thickness": Between(0.07, 0.15),
        "leg_style": OneOf(("square", "round", "tapered", "pedestal")),
        "leg_thickness": Between(0.05, 0.1),
        "leg_splay": Between(0.0, 0.1),
        "ring": OneOf(("none", "round", "bars")),
        "ring_height": Between(0.2, 0.5),
    },
    _stool,
)


def _bench(p: Any) -> Parts:
    length, depth = 1.0, p.depth
    low, high = p.height - p.seat_thickness, p.height
    boards = _boards(length, depth, (low, high), p.boards)
    beam = block(centred(0.8), (low - 0.03, low + 0.02), centred(0.6 * depth))
    x = p.leg_position / 2
    if p.leg_style == "panel":
        legs_ = both_sides([block(centred(p.leg_thickness, x), (0, low + 0.02), centred(0.92 * depth))])
    else:
        z = depth / 2 - 0.6 * p.leg_thickness
        legs_ = legs(p.leg_style, x, z, low + 0.02, p.leg_thickness)
    parts: dict[str, list[Solid]] = {"seat": [*boards, beam], "leg": legs_}
    if p.back_boards:
        rear = -depth / 2
        posts = both_sides([block(centred(0.05, x), (low, high + p.back_height), (rear, rear + 0.05))])
        step = p.back_height / p.back_boards
        bottoms = high + step * (np.arange(p.back_boards) + 0.35)
        parts["back"] = [
            *posts,
            *(block(centred(length), (y, y + 0.6 * step), (rear + 0.03, rear + 0.075)) for y in bottoms),
        ]
        if p.arms:
            level = high + 0.5 * p.back_height
            parts["arm"] = both_sides(
                [
                    block(centred(0.06, x), (level, level + 0.04), (rear + 0.02, 0.42 * depth)),
                    post((x, high - 0.02, 0.36 * depth), (x, level + 0.01, 0.36 * depth), 0.05),
                ]
            )
    return parts


def _boards(length: float, depth: float, y: tuple[float, float], count: int) -> list[Solid]:
    """Boards side by side, with gaps; a single one without."""
    pitch = depth / count
    gap = 0.0 if count == 1 else 0.025
    middles = -depth / 2 + pitch * (np.arange(count) + 0.5)
    return [block(centred(length), y, centred(pitch - gap, z)) for z in middles]


BENCH = Family(
    "bench",
    ("seat", "leg", "back", "arm"),
    {
        "depth": Between(0.28, 0.44),
        "height": Between(0.3, 0.46),
        "seat_thickness": Between(0.08, 0.14),
        "boards": OneOf((1, 1, 2, 3)),
        "leg_style": OneOf(("square", "tapered", "round", "panel")),
        "leg_position": Between(0.6, 0.86),
        "leg_thickness": Between(0.06, 0.11),
        "back_boards": OneOf((0, 0, 1, 2, 3)),
        "back_height": Between(0.24, 0.42),
        "arms": OneOf((False, True)),
    },
    _bench,
)


def _sofa(p: Any) -> Parts:
    length, depth, arm = p.length, p.depth, p.arm_width
    base, top = p.foot_height + p.base_height, p.foot_height + p.base_height + p.arm_height
    rear = -depth / 2 + p.back_thickness / 2 - 0.006
    back = slab_upright(length - 0.012, p.back_height + 0.05, p.back_thickness)
    parts: dict[str, list[Solid]] = {
        "base": [block(centred(length), (p.foot_height, base), centred(depth))],
        "back": [back.rotate((-p.back_tilt, 0, 0)).translate((0, base - 0.05, rear))],
        "foot": legs(p.foot_style, length / 2 - 0.06, depth / 2 - 0.05, p.foot_height + 0.02, 0.06),
    }
    middle = (length - arm) / 2 + 0.006
    front = depth / 2 - 0.006
    if p.arm_style == "round":
        level = top - arm / 2
        arms = [
            block(centred(arm, middle), (base - 0.02, level), (-front, front)),
            rod((middle, level, -front), (middle, level, front + 0.012), 0.55 * arm),
        ]
    else:
        arms = [block(centred(arm, middle), (base - 0.02, top), (-front, front))]
    parts["arm"] = both_sides(arms)
    inner = length - 2 * arm
    pitch = inner / p.cushions
    middles = -inner / 2 + pitch * (np.arange(p.cushions) + 0.5)
    back_of_seat = -depth / 2 + p.back_thickness + 0.01
    fronts = np.full(p.cushions, depth / 2 - 0.01)
    if p.chaise and p.cushions > 1:  # the seat on the right reaches further forward
        fronts[-1] += p.chaise_depth
        seat = centred(pitch, middles[-1])
        parts["base"].append(block(seat, (p.foot_height, base), (0, depth / 2 + p.chaise_depth)))
        spot = (float(middles[-1]), 0.0, depth / 2 + p.chaise_depth - 0.05)
        parts["foot"].append(post(spot, (spot[0], p.foot_height + 0.02, spot[2]), 0.06))
    parts["cushion"] = []
    for x, front in zip(middles, fronts, strict=True):
        outline = rounded_rectangle(pitch - 0.02, front - back_of_seat, 0.04)
        cushion = slab(outline, (base - 0.02, base + p.cushion_thickness))
        parts["cushion"].append(cushion.translate((x, 0, (front + back_of_seat) / 2)))
    return parts


SOFA = Family(
    "sofa",
    ("base", "back", "arm", "cushion", "foot"),
    {
        "length": Between(0.7, 1.0),
        "depth": Between(0.34, 0.48),
        "base_height": Between(0.08, 0.17),
        "foot_height": Between(0.03, 0.09),
        "foot_style": OneOf(("square", "round", "tapered")),
        "back_height": Between(0.18, 0.34),
        "back_thickness": Between(0.07, 0.12),
        "back_tilt": Between(0.0, 10.0),
        "arm_width": Between(0.07, 0.14),
        "arm_height": Between(0.06, 0.2),
        "arm_style": OneOf(("square", "round")),
        "chaise": OneOf((False, False, True)),
        "chaise_depth": Between(0.15, 0.3),
        "cushions": OneOf((1, 2, 3)),
        "cushion_thickness": Between(0.03, 0.07),
    },
    _sofa,
)
