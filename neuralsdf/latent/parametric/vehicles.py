"""
vehicles.py
-----------
Airplanes, cars and trucks. They are driven and flown towards the front (z).
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ...array_types import Points
from .family import Between, Family, OneOf
from .parts import Parts, Range, Solid, block, both_sides, centred, circle, loft, prism, rod, smooth


def _wing(
    root: Range, tip: Range, start: tuple[float, float], end: tuple[float, float], thickness: float
) -> Solid:
    """Half a wing to the right.

    root, tip: z of the trailing and the leading edge. start, end: x and y of root and tip. thickness: at the
    root; the tip has 70 % of it.
    """
    section = np.array(
        [(0, 0.17), (0.3, 0.42), (0.75, 0.5), (1, 0.17), (1, -0.17), (0.75, -0.5), (0.3, -0.42), (0, -0.17)]
    )
    rings = []
    for (x, y), (back, front), thick in ((start, root, thickness), (end, tip, 0.7 * thickness)):
        z = back + section[:, 0] * (front - back)
        rings.append(np.stack([np.full(len(z), x), y + section[:, 1] * thick, z], axis=1))
    return loft(rings)


def _fuselage(radius: float, flatness: float, nose: float) -> Solid:
    """A body of revolution along z, stretched vertically; its tail is raised."""
    z = np.linspace(0, 1, 19)
    shape = smooth([0, 0.12, 0.4, 0.72, 0.9, 1], [0.22, 0.5, 1, 1, nose, 0.18], z)[:, None]
    lift = np.where(z < 0.5, 0.3 * (1 - shape[:, 0]) * radius, 0.0)[:, None]
    x, y = shape * circle(radius, 32)[:, 0], lift + shape * circle(radius, 32)[:, 1] * flatness
    return loft(np.stack([x, y, np.broadcast_to(z[:, None] - 0.5, x.shape)], axis=-1))


def _airplane(p: Any) -> Parts:
    radius = p.fuselage_radius
    middle, chord = p.wing_position, p.wing_chord
    level = p.wing_level * radius
    half = p.wing_span / 2
    root = (middle - chord / 2, middle + chord / 2)
    tip_middle = middle - p.wing_sweep * half
    tip = (tip_middle - p.wing_taper * chord / 2, tip_middle + p.wing_taper * chord / 2)
    rise = p.dihedral * half
    parts: dict[str, list[Solid]] = {
        "fuselage": [_fuselage(radius, p.fuselage_height, p.nose)],
        "wing": both_sides([_wing(root, tip, (0.0, level), (half, level + rise), p.wing_thickness)]),
    }
    parts["tail"] = _tail(p, radius)
    engines = []
    for number in range(p.engines):
        at = half * (0.38 + 0.3 * number)
        share = at / half
        y = level + rise * share - 0.05
        z = middle - p.wing_sweep * at + 0.45 * chord * (1 + share * (p.wing_taper - 1))
        engines.append(rod((at, y, z - 0.16), (at, y, z + 0.05), 0.042, 0.058))
    if engines:
        parts["engine"] = both_sides(engines)
    else:
        spinner = rod((0, 0, 0.47), (0, 0, 0.55), 0.045, 0.02)
        blades = [
            block(centred(0.03), (-0.16, 0.16), (0.505, 0.53)).rotate((0, 0, turn)) for turn in (20, 110)
        ]
        parts["engine"] = [spinner, *blades]
    return parts


def _tail(p: Any, radius: float) -> list[Solid]:
    """The fin and the horizontal stabilisers."""
    height = p.fin_height
    fin = _wing((-0.5, -0.5 + p.fin_chord), (-0.53, -0.53 + 0.6 * p.fin_chord), (0, 0), (height, 0), 0.05)
    fin = fin.rotate((0, 0, 90))
    level = height - 0.015 if p.tail == "high" else 0.3 * radius
    chord = 0.8 * p.fin_chord
    root, tip = (-0.51, -0.51 + chord), (-0.54, -0.54 + 0.65 * chord)
    return [fin, *both_sides([_wing(root, tip, (0, level), (p.tail_span / 2, level), 0.05)])]


AIRPLANE = Family(
    "airplane",
    ("fuselage", "wing", "tail", "engine"),
    {
        "fuselage_radius": Between(0.115, 0.155),
        "fuselage_height": Between(0.95, 1.25),
        "nose": Between(0.6, 0.9),
        "wing_span": Between(0.75, 1.05),
        "wing_chord": Between(0.24, 0.36),
        "wing_taper": Between(0.4, 0.95),
        "wing_sweep": Between(0.0, 0.5),
        "wing_position": Between(-0.02, 0.12),
        "wing_level": OneOf((-0.6, 0.0, 0.85)),
        "wing_thickness": Between(0.05, 0.075),
        "dihedral": Between(0.0, 0.15),
        "engines": OneOf((0, 1, 1, 2)),
        "tail": OneOf(("low", "low", "high")),
        "tail_span": Between(0.3, 0.46),
        "fin_height": Between(0.2, 0.32),
        "fin_chord": Between(0.14, 0.22),
    },
    _airplane,
)


def _wheels(x: float, positions: list[float], radius: float, width: float) -> list[Solid]:
    """Wheels on both sides; x: of their outer face."""
    return both_sides([rod((x - width, radius, z), (x, radius, z), radius) for z in positions])


def _car(p: Any) -> Parts:
    ground, waist, roof = p.clearance, p.waist, p.waist + p.cabin_height
    half = p.width / 2
    nose = waist - p.nose_drop
    radius = p.wheel_size * nose
    body = [
        (-0.5, ground + 0.02), (-0.49, waist - 0.02), (-0.46, waist), (0.2, waist),
        (0.46, nose), (0.5, nose - 0.05), (0.5, ground + 0.02), (0.48, ground), (-0.48, ground),
    ]  # fmt: skip
    front, rear = p.cabin_front, p.cabin_rear
    cabin = [
        (rear, waist - 0.03), (rear + p.rear_slope, roof), (front - p.front_slope, roof),
        (front, waist - 0.03),
    ]  # fmt: skip
    parts: dict[str, list[Solid]] = {
        "body": [prism(body, centred(p.width))],
        "cabin": [_tapered(cabin, p.width - 0.03, 0.8 * p.width)],
        "wheel": _wheels(half + 0.012, [-p.wheelbase / 2, p.wheelbase / 2], radius, 0.09),
    }
    if p.spoiler:
        z, y = -0.45, waist
        parts["spoiler"] = [
            block(centred(0.9 * p.width), (y + 0.05, y + 0.075), centred(0.09, z)),
            *both_sides([block(centred(0.03, 0.3 * p.width), (y - 0.03, y + 0.06), centred(0.04, z))]),
        ]
    if p.mirrors:
        z = front - 0.06
        arm = (half - 0.06, half + 0.05)
        parts["mirror"] = both_sides([block(arm, (waist - 0.01, waist + 0.035), centred(0.035, z))])
    return parts


def _tapered(outline: list[tuple[float, float]], bottom: float, top: float) -> Solid:
    """An outline of z and y, four points from the lower rear clockwise; its width changes with height."""
    points: Points = np.array(outline)
    widths = np.interp(points[:, 1], [points[:, 1].min(), points[:, 1].max()], [bottom, top])
    right = np.stack([widths / 2, points[:, 1], points[:, 0]], axis=1)
    return loft([right, right * (-1, 1, 1)])


CAR = Family(
    "car",
    ("body", "cabin", "wheel", "spoiler", "mirror"),
    {
        "width": Between(0.34, 0.5),
        "clearance": Between(0.035, 0.08),
        "waist": Between(0.16, 0.26),
        "cabin_height": Between(0.07, 0.18),
        "nose_drop": Between(0.0, 0.045),
        "cabin_front": Between(0.16, 0.3),
        "cabin_rear": OneOf((-0.48, -0.44, -0.34, -0.28)),
        "front_slope": Between(0.06, 0.2),
        "rear_slope": Between(0.02, 0.2),
        "wheelbase": Between(0.54, 0.66),
        "wheel_size": Between(0.42, 0.49),
        "spoiler": OneOf((False, False, True)),
        "mirrors": OneOf((False, True)),
    },
    _car,
)


def _truck(p: Any) -> Parts:
    floor, half = p.clearance + p.wheel_radius, p.width / 2
    split = 0.5 - p.cab_length
    nose = p.hood * 0.14
    roof = floor + p.cab_height
    cab = [
        (split, roof), (0.43 - nose, roof), (0.49 - nose, floor + 0.5 * p.cab_height),
        (0.5, floor + 0.45 * p.cab_height), (0.5, floor - 0.04), (split, floor - 0.04),
    ]  # fmt: skip
    parts: dict[str, list[Solid]] = {
        "cab": [prism(cab, centred(p.width))],
        "chassis": [block(centred(0.6 * p.width), (floor - 0.06, floor + 0.01), (-0.48, 0.46))],
        "cargo": _cargo(p, floor, split - p.gap),
    }
    positions = [0.5 - 0.6 * p.cab_length, -0.34]
    if p.axles == 3:
        positions.append(-0.34 + 2.1 * p.wheel_radius)
    parts["wheel"] = _wheels(half + 0.01, positions, p.wheel_radius, 0.1)
    parts["chassis"] += [
        rod((-half + 0.02, p.wheel_radius, z), (half - 0.02, p.wheel_radius, z), 0.03) for z in positions
    ]
    parts["chassis"] += [block(centred(0.12), (p.wheel_radius, floor), centred(0.06, z)) for z in positions]
    return parts


def _cargo(p: Any, floor: float, front: float) -> list[Solid]:
    """What is behind the cab: a box, an open bed or a tank."""
    z, x = (-0.5, front), centred(p.width)
    if p.cargo == "tank":
        radius = 0.5 * p.width * 0.92
        level = floor + radius + 0.02
        saddle = [
            block(centred(0.7 * p.width), (floor - 0.01, floor + 0.09), centred(0.06, at))
            for at in (-0.38, front - 0.12)
        ]
        return [rod((0, level, -0.5), (0, level, front), radius), *saddle]
    if p.cargo == "bed":
        rim, top = 0.03, floor + 0.35 * p.cargo_height
        sides = both_sides([block((p.width / 2 - rim, p.width / 2), (floor - 0.01, top), z)])
        ends = [
            block(x, (floor - 0.01, top), (-0.5, -0.5 + rim)),
            block(x, (floor - 0.01, top), (front - rim, front)),
        ]
        return [block(x, (floor - 0.01, floor + 0.04), z), *sides, *ends]
    return [block(x, (floor - 0.01, floor + p.cargo_height), z)]


TRUCK = Family(
    "truck",
    ("cab", "cargo", "chassis", "wheel"),
    {
        "width": Between(0.26, 0.36),
        "clearance": Between(0.06, 0.1),
        "wheel_radius": Between(0.07, 0.095),
        "cab_length": Between(0.24, 0.34),
        "cab_height": Between(0.22, 0.32),
        "hood": OneOf((0, 0, 1)),
        "gap": Between(0.0, 0.04),
        "cargo": OneOf(("box", "box", "bed", "tank")),
        "cargo_height": Between(0.24, 0.36),
        "axles": OneOf((2, 3)),
    },
    _truck,
)
