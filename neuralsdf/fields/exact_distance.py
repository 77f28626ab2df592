"""
exact_distance.py
-----------------
The exact signed distance to a mesh: normalisation to the unit ball, the inside/outside test, and its errors.
"""

from __future__ import annotations

from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from ..backends import Backend, chosen_backend, get_backend
from ..errors import MeshError, NoInteriorError, UsageError
from ..files.bounded_input import Budget
from ..geometry.similarity_transform import Similarity
from ..geometry.unit_ball import normalisation
from ..mesh.closed_bodies import has_even_edges
from ..mesh.closing_sheet import open_edges
from ..mesh.inside_or_outside import Sign
from ..mesh.load_mesh import load_mesh
from ..mesh.mesh import Mesh, as_mesh
from ..mesh.signed_distance import BESIDE, SignedDistance, near_faces
from .field import Field
from .mesh_field import MeshField

if TYPE_CHECKING:
    import trimesh

#: Mean thickness (model units) of a doubled sheet, due to rounding.
_ROUNDING = 1e-12

#: Thickness (model units) of a wall that a network of the default size represents well.
_SUITABLE_THICKNESS = 0.06

#: With more faces near every point, a single distance takes milliseconds.
_MAX_NEAR_FACES = 100_000


def exact(
    mesh: Mesh | trimesh.Trimesh | npt.ArrayLike | tuple[Any, Any],
    faces: npt.ArrayLike | None = None,
    *,
    sign: Sign = "winding",
    thickness: float | None = None,
    units: str | None = None,
    device: str = "auto",
) -> MeshField:
    """The exact signed distance to a mesh in memory, as a field: `neuralsdf.exact(trimesh_mesh)`.

    mesh: a `trimesh.Trimesh`, `(vertices, faces)`, or vertices (n, 3) with `faces` (m, 3). sign, thickness,
    device: as for `neuralsdf.load`, which opens a file. units: the unit of the mesh's lengths, such as "mm".
    Raises `MeshError` for a mesh that cannot be used, `NoInteriorError` for one without an inside, and
    `UsageError` for anything else.
    """
    if isinstance(mesh, str | PathLike):
        raise UsageError(f"{mesh} is a path, not a mesh: `neuralsdf.load` opens a file")
    if isinstance(mesh, Field):
        raise UsageError("a field is not a mesh: give `field.to_mesh()`")
    return mesh_field(
        as_mesh(mesh, faces).stating(units),
        sign=sign,
        thickness=thickness,
        backend=chosen_backend(device),
    )


def open_mesh(
    path: str | Path,
    *,
    sign: Sign = "winding",
    thickness: float | None = None,
    backend: Backend | None = None,
    budget: Budget | None = None,
) -> MeshField:
    """Open a mesh file as an exact signed distance.

    sign: the inside/outside test. thickness: in mesh units; use the solid |d| < thickness / 2 around the
    surface, which needs no inside. budget: the memory budget of the file that refers to this one. Raises
    `MeshError` for a file that cannot be read, `NoInteriorError` for a mesh without an inside.
    """
    mesh = load_mesh(path, budget=budget)
    return mesh_field(mesh, sign=sign, thickness=thickness, backend=backend, name=str(path))


def mesh_field(
    mesh: Mesh,
    *,
    sign: Sign = "winding",
    thickness: float | None = None,
    backend: Backend | None = None,
    name: str | None = None,
) -> MeshField:
    """The exact signed distance to a mesh; see `open_mesh`. name: for errors, by default that of its source.

    Raises `NoInteriorError` for a mesh without an inside.
    """
    transform = normalisation(mesh.vertices, thickness)
    oracle = signed_distance(mesh, transform, sign, thickness, backend=backend or get_backend())
    if not oracle.has_interior:
        raise no_interior(name or mesh.source.name, oracle, transform)
    return MeshField(oracle, transform, mesh.source.unit, mesh, backend)


def signed_distance(
    mesh: Mesh,
    transform: Similarity,
    sign: Sign = "winding",
    thickness: float | None = None,
    *,
    backend: Backend,
) -> SignedDistance:
    """The signed distance to a mesh, in model space, computed with a backend's BVHs.

    thickness: in mesh units. Raises `MeshError` if so many faces overlap that a single distance takes
    milliseconds.
    """
    relative = None if thickness is None else thickness / transform.scale
    vertices = transform.apply_inverse(mesh.vertices)
    if (near := near_faces(vertices, mesh.faces)) > _MAX_NEAR_FACES:
        raise MeshError(
            mesh.source.name,
            f"has too many overlapping faces: about {near:,.0f} are near every point",
            "unite its parts, or convert them separately",
        )
    return SignedDistance(vertices, mesh.faces, sign, relative, backend.triangle_bvh)


def no_interior(name: str, oracle: SignedDistance, transform: Similarity) -> NoInteriorError:
    """The error for a mesh without an inside, with the arguments that would convert it."""
    rule = "winding number" if oracle.sign == "winding" else oracle.sign
    suitable = float(f"{_SUITABLE_THICKNESS * transform.scale:.1e}")
    remedy = f"make it a solid around its surface with `thickness={suitable:g}` (in mesh units)"
    if oracle.sign != "parity" and has_even_edges(oracle.faces):
        by_parity = SignedDistance(oracle.vertices, oracle.faces, "parity", make_bvh=oracle.make_bvh)
        if by_parity.has_interior:
            remedy = f'use `sign="parity"`, which does not depend on the orientation of faces, or {remedy}'
    thickness = _mean_thickness(oracle)
    if _ROUNDING < thickness < BESIDE:
        reason = f"is too thin to sample: about {thickness * transform.scale:.1g} thick (in mesh units)"
        return NoInteriorError(name, reason, remedy)
    return NoInteriorError(name, f"has no inside by {rule}", remedy)


def _mean_thickness(oracle: SignedDistance) -> float:
    """Twice the volume divided by the area of a closed mesh, in model units; 0 for an open mesh."""
    if len(open_edges(oracle.faces)):
        return 0.0
    a, b, c = (oracle.vertices[oracle.faces[:, corner]] for corner in range(3))
    volume = np.einsum("ij,ij->", a, np.cross(b, c)) / 6
    return float(4 * abs(volume) / np.linalg.norm(np.cross(b - a, c - a), axis=1).sum())
