"""
demo.py
-------
A built-in mesh for trying things without a file: a trefoil knot of twisted rope; and a picture of two fields
side by side.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from .array_types import Points
from .fields.field import Field
from .fields.mesh_field import MeshField
from .render import MeshTracer, Shading, render

_TURNS_AROUND, _TURNS_THROUGH = 2, 3  # of the knot, around the torus's axis and through its hole
_TORUS, _TUBE, _ROPE = 1.0, 0.46, 0.28  # radii: of the torus, of its tube, of the rope along it
_STRANDS, _TWISTS, _DEPTH = 3, 5, 0.13  # of the rope: lobes, how far they wind, depth of the grooves


def rope_knot(along: int = 480, around: int = 64) -> tuple[Points, npt.NDArray[np.int64]]:
    """Vertices (V, 3) and faces (F, 3) of a rope tied into a (2, 3) torus knot, 2 along around faces.

    Closed, oriented outwards, of genus 1, without self-intersections; about three units across.
    """
    t = np.linspace(0, 2 * np.pi, along, endpoint=False)[:, None]
    phi = np.linspace(0, 2 * np.pi, around, endpoint=False)[None, :]
    p, q = _TURNS_AROUND * t, _TURNS_THROUGH * t
    outward = np.stack([np.cos(q) * np.cos(p), np.cos(q) * np.sin(p), np.sin(q)], axis=-1)  # of the torus
    axis = _TORUS * np.stack([np.cos(p), np.sin(p), np.zeros_like(p)], axis=-1)
    curve = axis + _TUBE * outward
    tangent = np.roll(curve, -1, axis=0) - np.roll(curve, 1, axis=0)
    sideways = np.cross(tangent, outward)
    sideways /= np.linalg.norm(sideways, axis=-1, keepdims=True)
    radius = _ROPE * (1 + _DEPTH * np.cos(_STRANDS * phi + _TWISTS * t))[..., None]
    # The frame (outward, sideways) follows the torus, so it closes after one round of the knot.
    angle = phi[..., None]
    vertices = curve + radius * (np.cos(angle) * outward + np.sin(angle) * sideways)
    index = np.arange(along * around).reshape(along, around)
    right, up = np.roll(index, -1, axis=0), np.roll(index, -1, axis=1)
    corner = np.roll(right, -1, axis=1)
    faces = np.stack([index, corner, right, index, up, corner], axis=-1).reshape(-1, 3)
    return vertices.reshape(-1, 3), faces


def side_by_side(mesh: MeshField, network: Field, size: int = 640) -> npt.NDArray[np.uint8]:
    """Render a mesh (left) and its network (right) from the same camera: (size, 2 size, 4) uint8."""
    # No shadows, because the mesh's exact distance is too slow for them. Normals are smoothed equally in both
    # pictures, which hides facets.
    shading = Shading(shadow=False, smooth=0.03)
    pictures = (
        render(mesh, width=size, height=size, shading=shading, tracer=MeshTracer(mesh), antialias=2),
        render(network, width=size, height=size, shading=shading),
    )
    return np.concatenate([picture.rgba for picture in pictures], axis=1)
