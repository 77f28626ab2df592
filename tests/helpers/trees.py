"""Trees, for tests: one of each kind, and random ones."""

from __future__ import annotations

import math

from hypothesis import strategies as st

from neuralsdf.csg import (
    Shape,
    box,
    capsule,
    cone,
    cylinder,
    ellipsoid,
    plane,
    rounded_box,
    smooth,
    sphere,
    torus,
)

#: Each solid, and its volume where it is easily known.
SOLIDS = {
    "sphere": (sphere(0.7), 4 / 3 * math.pi * 0.7**3),
    "box": (box(1, 0.6, 0.4), 0.24),
    "rounded_box": (rounded_box(1, 0.8, 0.6, 0.1), None),
    "cylinder": (cylinder(0.4, 1), math.pi * 0.16),
    "capsule": (capsule(0.3, 0.8), math.pi * 0.09 * 0.8 + 4 / 3 * math.pi * 0.027),
    "cone": (cone(0.5, 1), math.pi * 0.25 / 3),
    "frustum": (cone(0.5, 1, 0.2), math.pi * (0.25 + 0.1 + 0.04) / 3),
    "torus": (torus(0.6, 0.2), 2 * math.pi**2 * 0.6 * 0.04),
    "ellipsoid": (ellipsoid(0.8, 0.5, 0.2), 4 / 3 * math.pi * 0.08),
    "spheroid": (ellipsoid(0.5, 0.5, 0.2), 4 / 3 * math.pi * 0.05),
    "ball": (ellipsoid(0.5, 0.5, 0.5), 4 / 3 * math.pi * 0.125),
}

#: Each operation.
BENT = {
    "smooth union": sphere(0.4) | smooth(0.2, box(0.3).translate(0.4)),
    "smooth intersection": sphere(0.4) & smooth(0.2, box(0.5).translate(0.2)),
    "smooth difference": sphere(0.4) - smooth(0.2, box(0.5).translate(0.2)),
    "complement": ~sphere(0.4),
    "plane": plane(1, 2, 3),
    "offset": box(0.5).offset(0.1),
    "shell": box(0.6).shell(0.1),
    "hollow": box(0.6).hollow(0.1),
    "blend": sphere(0.5).blend(box(0.4), 0.3),
    "displaced": sphere(0.5).displace(0.05, 0.3),
    "repeated": sphere(0.2).repeat(0.5, 0.6, 0, 3),
    "symmetric": sphere(0.4).translate(0.2, 0.1).symmetry(1, 1),
    "twisted": box(0.4, 0.3, 1).twist(90),
    "all": (box(1) - smooth(0.1, sphere(0.6))).rotate(30, 1, 2, 3).scale(0.5).translate(0.1, 0.2).twist(40)
    .reflect(1, 1).symmetry(1).translate(0.1),
}  # fmt: skip

sides = st.floats(0.1, 1.0)
coordinates = st.floats(-0.6, 0.6)
angles = st.floats(-180, 180)
solids = st.one_of(
    st.builds(sphere, sides),
    st.builds(box, sides, sides, sides),
    st.builds(
        lambda x, y, z, share: rounded_box(x, y, z, share * min(x, y, z) / 2), sides, sides, sides, sides
    ),
    st.builds(cylinder, sides, sides),
    st.builds(capsule, sides, sides),
    st.builds(cone, sides, sides, st.floats(0, 1)),
    st.builds(lambda major, share: torus(major, share * major), sides, sides),
    st.builds(ellipsoid, sides, sides, sides),
)
directions = st.tuples(*[st.floats(-1, 1)] * 3).filter(lambda vector: max(map(abs, vector)) > 0.1)


def _combined(trees: st.SearchStrategy[Shape]) -> st.SearchStrategy[Shape]:
    radii = st.floats(0, 0.5)
    return st.one_of(
        st.builds(Shape.__or__, trees, trees),
        st.builds(Shape.__and__, trees, trees),
        st.builds(Shape.__sub__, trees, trees),
        st.builds(lambda a, b, radius: a | smooth(radius, b), trees, trees, radii),
        st.builds(lambda a, b, radius: a & smooth(radius, b), trees, trees, radii),
        st.builds(lambda a, b, radius: a - smooth(radius, b), trees, trees, radii),
        st.builds(Shape.blend, trees, trees, st.floats(0, 1)),
        st.builds(lambda a, b: a & ~b, trees, trees),
        st.builds(Shape.translate, trees, coordinates, coordinates, coordinates),
        st.builds(lambda a, angle, axis: a.rotate(angle, *axis), trees, angles, directions),
        st.builds(Shape.scale, trees, st.floats(0.5, 2)),
        st.builds(lambda a, normal: a.reflect(*normal), trees, directions),
        st.builds(lambda a, normal: a.symmetry(*normal), trees, directions),
        st.builds(Shape.offset, trees, st.floats(-0.1, 0.2)),
        st.builds(Shape.shell, trees, st.floats(0.05, 0.2)),
        st.builds(Shape.hollow, trees, st.floats(0.05, 0.2)),
        st.builds(Shape.displace, trees, st.floats(0, 0.05), st.floats(0.2, 1)),
        st.builds(Shape.twist, trees, st.floats(-60, 60)),
    )


trees = st.recursive(solids, _combined, max_leaves=6)
