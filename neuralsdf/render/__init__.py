"""
render
------
Renders fields: sphere tracing (paper, section 2.3), shading, still pictures and turntables.
"""

from __future__ import annotations

from .animation import check_animation, save_animation, total, turntable
from .image import Picture, RenderReport, as_image, render, save_image, still_format
from .shading import CLAY, STYLES, Shading, Style, parse_colour, read_matcap
from .tracing import MeshTracer, SurfaceTracer, Tracer, TraceResult, make_tracer
from .view import make_camera, make_shading, picture, remarks

__all__ = [
    "CLAY",
    "STYLES",
    "MeshTracer",
    "Picture",
    "RenderReport",
    "Shading",
    "Style",
    "SurfaceTracer",
    "TraceResult",
    "Tracer",
    "as_image",
    "check_animation",
    "make_camera",
    "make_shading",
    "make_tracer",
    "parse_colour",
    "picture",
    "read_matcap",
    "remarks",
    "render",
    "save_animation",
    "save_image",
    "still_format",
    "total",
    "turntable",
]
