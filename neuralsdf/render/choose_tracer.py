"""
choose_tracer.py
----------------
Which tracer renders a field.
"""

from __future__ import annotations

from ..fields.field import Field
from ..fields.mesh_field import MeshField
from .mesh_tracing import MeshTracer, SurfaceTracer
from .sphere_tracing import Tracer


def make_tracer(field: Field, *, seed: int = 0) -> Tracer:
    """The tracer for a field: `MeshTracer` for a mesh, `SurfaceTracer` for an occupancy field, else sphere
    tracing. Raises as these do."""
    if field.kind == "occupancy":
        return SurfaceTracer(field, seed=seed)
    # The triangles of a mesh with a thickness are not its surface.
    if isinstance(field, MeshField) and field.oracle.thickness is None:
        return MeshTracer(field, seed=seed)
    return Tracer(field, seed=seed)
