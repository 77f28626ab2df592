"""
csg
---
Constructive solid geometry on fields: combine and deform solids, model files and meshes without triangles in
between.

    from neuralsdf.csg import TreeField, box, sphere, smooth
    part = box(2, 1, 1) - sphere(0.4).translate(1) | smooth(0.1, sphere(0.3))
    field = TreeField(part)         # render, extract and query it like any other field

The same as text: `parse("box(2, 1, 1) - sphere(0.4).translate(1) | smooth(0.1, sphere(0.3))", ...)`.
`storage.csg_file` opens files as leaves.
"""

from __future__ import annotations

from .field import TreeField, units_of
from .language import ExpressionError, parse
from .shape import (
    Shape,
    box,
    capsule,
    cone,
    cylinder,
    ellipsoid,
    from_field,
    from_tree,
    plane,
    rounded_box,
    smooth,
    sphere,
    torus,
    union,
)

__all__ = [
    "ExpressionError",
    "Shape",
    "TreeField",
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
