"""
csg
---
Constructive solid geometry on fields: combine and deform solids, networks and meshes without triangles in
between.

    from neuralsdf.csg import box, sphere, smooth
    part = box(2, 1, 1) - sphere(0.4).translate(1) | smooth(0.1, sphere(0.3))

A shape is a field: render, extract and query it like any other. The same as text:
`parse("box(2, 1, 1) - sphere(0.4).translate(1) | smooth(0.1, sphere(0.3))", ...)`.
`storage.csg_file` opens files as leaves.
"""

from __future__ import annotations

from .expression_parser import ExpressionError, parse
from .primitives import box, capsule, cone, cylinder, ellipsoid, plane, rounded_box, sphere, torus
from .shape import Shape, as_shape, from_field, from_tree, smooth, union, units_of

__all__ = [
    "ExpressionError",
    "Shape",
    "as_shape",
    "box",
    "capsule",
    "cone",
    "cylinder",
    "ellipsoid",
    "from_field",
    "from_tree",
    "parse",
    "plane",
    "rounded_box",
    "smooth",
    "sphere",
    "torus",
    "union",
    "units_of",
]
