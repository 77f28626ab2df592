"""
oracle.py
---------
A mesh as an exact field: normalised to the unit ball, with an inside by the rule that was chosen.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ..backends import get_backend
from ..errors import MeshError, NoInteriorError, UsageError
from ..files.input_file import Budget
from ..geometry.similarity import Similarity, minimum_enclosing_ball
from ..mesh.bodies import has_even_edges
from ..mesh.closing_sheet import open_edges
from ..mesh.files import load_mesh
from ..mesh.mesh import Mesh
from ..mesh.signed_distance import BESIDE, Sign, SignedDistance, near_faces
from .mesh_field import MeshField

#: A doubled sheet is this thick or less, by rounding.
_ROUNDING = 1e-12

#: A shell of this thickness (model units) is one that a network of the default size holds well.
_SUITABLE_THICKNESS = 0.06

#: Faces near every point of a mesh beyond which distances to it are too slow: milliseconds each.
_MOST_NEAR = 100_000


def open_mesh(
    path: str | Path,
    *,
    sign: Sign = "winding",
    thickness: float | None = None,
    backend: str | None = None,
    budget: Budget | None = None,
) -> MeshField:
    """The exact signed distance of the mesh in a file, by a backend's trees.

    sign: how inside is decided. thickness: in mesh units; the solid |d| < thickness / 2 around the surface,
    which needs no inside. budget: of what the file is a part of. Raises `MeshError` for a file that cannot be
    read, `NoInteriorError` for a mesh without an inside.
    """
    mesh = load_mesh(path, budget=budget)
    transform = normalisation(mesh, thickness)
    oracle = signed_distance(mesh, transform, sign, thickness, backend)
    if not oracle.has_interior:
        raise no_interior(str(path), oracle, transform)
    return MeshField(oracle, transform, mesh.source.unit, mesh)


def normalisation(mesh: Mesh, thickness: float | None = None) -> Similarity:
    """The map of the unit ball onto the mesh's minimum enclosing ball, half a thickness wider.

    Raises `UsageError` for a thickness that would leave nothing of the mesh to see.
    """
    centre, radius = minimum_enclosing_ball(mesh.vertices)
    if thickness is not None and thickness > 2 * radius:
        raise UsageError(f"`thickness={thickness:g}`: the mesh itself is only {2 * radius:.3g} across")
    return Similarity.from_ball(centre, radius + (thickness or 0.0) / 2)


def signed_distance(
    mesh: Mesh,
    transform: Similarity,
    sign: Sign = "winding",
    thickness: float | None = None,
    backend: str | None = None,
) -> SignedDistance:
    """The oracle of a mesh in model space, by a backend's trees. thickness: in mesh units.

    Raises `MeshError` for a heap of overlapping faces so large that a single distance takes milliseconds.
    """
    relative = None if thickness is None else thickness / transform.scale
    vertices = transform.apply_inverse(mesh.vertices)
    if (near := near_faces(vertices, mesh.faces)) > _MOST_NEAR:
        raise MeshError(
            mesh.source.name,
            f"is a heap of overlapping faces: some {near:,.0f} of them are near every point",
            "unite its parts, or convert them one by one",
        )
    return SignedDistance(vertices, mesh.faces, sign, relative, get_backend(backend).triangle_tree)


def no_interior(name: str, oracle: SignedDistance, transform: Similarity) -> NoInteriorError:
    """The refusal of a mesh without an inside, with the arguments that would convert it."""
    rule = "winding number" if oracle.sign == "winding" else oracle.sign
    suited = float(f"{_SUITABLE_THICKNESS * transform.scale:.1e}")
    remedy = f"make it a solid around its surface with `thickness={suited:g}` (in mesh units)"
    if oracle.sign != "parity" and has_even_edges(oracle.faces):
        by_parity = SignedDistance(oracle.vertices, oracle.faces, "parity", make_tree=oracle.make_tree)
        if by_parity.has_interior:
            remedy = f'use `sign="parity"`, which does not depend on the orientation of faces, or {remedy}'
    thickness = _mean_thickness(oracle)
    if _ROUNDING < thickness < BESIDE:
        reason = f"is too thin to sample: about {thickness * transform.scale:.1g} thick (in mesh units)"
        return NoInteriorError(name, reason, remedy)
    return NoInteriorError(name, f"has no inside by {rule}", remedy)


def _mean_thickness(oracle: SignedDistance) -> float:
    """Twice the volume that a closed mesh encloses over its area, in model units; 0 for an open one."""
    if len(open_edges(oracle.faces)):
        return 0.0
    a, b, c = (oracle.vertices[oracle.faces[:, corner]] for corner in range(3))
    volume = np.einsum("ij,ij->", a, np.cross(b, c)) / 6
    return float(4 * abs(volume) / np.linalg.norm(np.cross(b - a, c - a), axis=1).sum())
