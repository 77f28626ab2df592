"""
render
------
Renders fields: sphere tracing (paper, section 2.3), shading, still pictures and turntables.
"""

from __future__ import annotations

from .animation import check_animation, save_animation, total, turntable
from .choose_tracer import make_tracer
from .colours import parse_colour
from .mesh_tracing import MeshTracer, SurfaceTracer
from .picture_files import as_image, save_image, still_format
from .render_arguments import make_camera, make_shading, picture, remarks
from .render_picture import Picture, RenderReport, render
from .shading import CLAY, STYLES, Shading, Style, read_matcap
from .sphere_tracing import Tracer, TraceResult

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
