"""
prepare_mesh.py
---------------
Prepares a mesh file, or the surface of a tree, for sampling: normalises it and builds its signed distance.
"""

from __future__ import annotations

from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ..array_types import Mask, Points, Values
from ..backends import Backend
from ..errors import NoSurfaceError
from ..fields.exact_distance import no_interior, signed_distance
from ..fields.extract import extract
from ..fields.field import Field
from ..fields.mesh_field import MeshField
from ..geometry.similarity_transform import Similarity
from ..geometry.unit_ball import normalisation
from ..mesh.inside_or_outside import Sign
from ..mesh.load_mesh import load_mesh
from ..mesh.mesh import Mesh, as_mesh
from ..mesh.signed_distance import FACE_BYTES, SignedDistance
from ..program.sample_set import Samples
from ..storage import open_field
from ..training.sample_weights import curvature_weights, read_weights, thickness_weights
from ..training.sampling import Density, Sampler
from .stage_times import Stages

#: Minimum resolution of a tree's surface: a cell is half the surface error of a good fit.
SURFACE_RESOLUTION = 384


@dataclass(frozen=True, eq=False)
class Prepared:
    """A mesh that is ready to be sampled and measured.

    name: for messages. transform: model space to mesh space. oracle: its distances in model space. weights:
    sampling weights (V,), or None.
    """

    name: str
    mesh: Mesh
    transform: Similarity
    oracle: SignedDistance
    weights: Values | None


def prepare(
    mesh: str | Path | Mesh,
    sign: Sign,
    thickness: float | None,
    weight: str | None,
    clock: Stages,
    backend: Backend,
    unit: str | None = None,
    *,
    allow_outside: bool = False,
) -> Prepared:
    """The first two stages of `fit_mesh`; see there for the parameters and errors."""
    with clock.stage("load"):
        name = mesh.source.name if isinstance(mesh, Mesh) else str(mesh)
        mesh = mesh if isinstance(mesh, Mesh) else _loaded(mesh, backend, allow_outside)
        mesh = mesh.stating(unit)
    with clock.stage("prepare"):
        transform = normalisation(mesh.vertices, thickness)
        if isinstance(mesh, FieldMesh) and mesh.field.exact and thickness is None:
            oracle: SignedDistance = _ExactDistance(mesh, transform, backend)
        else:
            oracle = signed_distance(mesh, transform, sign, thickness, backend=backend)
        if not oracle.has_interior:
            raise no_interior(name, oracle, transform)
        weights = None if weight is None else _vertex_weights(weight, mesh, oracle)
    return Prepared(name, mesh, transform, oracle, weights)


def sample(
    shape: Prepared, density: Density, count: int, seed: int, clock: Stages
) -> tuple[Sampler, Samples, np.random.Generator]:
    """The third stage: a sampler, `count` samples, and the generator for more."""
    with clock.stage("sample"):
        sampler = Sampler(shape.oracle, density, shape.weights, expected=count)
        rng = np.random.default_rng([seed, 0])
        return sampler, sampler.draw(count, rng), rng


@dataclass(frozen=True, eq=False)
class FieldMesh(Mesh):
    """The extracted surface of a field, as a mesh to convert; uses the field's distances if exact."""

    field: Field


def surface_mesh(field: Field, name: str, *, resolution: int | None = None) -> FieldMesh:
    """The finely extracted surface of a field, from which a tree's true distances are computed.

    name: of the source, stored in the file. resolution: None for as needed, at least 384. Raises
    `NoSurfaceError` as `extract` does.
    """
    surface = extract(field, resolution, min_resolution=SURFACE_RESOLUTION, face_bytes=FACE_BYTES)
    notes = [
        f"{note.removeprefix('warning: ').split(';')[0]}; try `csg` with a higher `resolution=`"
        for note in surface.notes
        if note.startswith("warning: ")
    ]
    mesh = Mesh.from_arrays(surface.vertices, surface.faces, name=name, notes=notes).stating(field.unit)
    return FieldMesh(**vars(mesh), field=field)


class _ExactDistance(SignedDistance):
    """Distance of an exact field, in the model space of `transform`; everything else uses its mesh."""

    def __init__(self, mesh: FieldMesh, transform: Similarity, backend: Backend) -> None:
        self._field, self._transform = mesh.field, transform
        vertices = transform.apply_inverse(mesh.vertices)
        super().__init__(vertices, mesh.faces, make_bvh=backend.triangle_bvh)

    def _orient(self) -> None:
        """Do nothing: an extracted surface is oriented correctly."""

    def signed(self, points: Points, unsigned: Values | None = None) -> Values:
        """Signed distance (n,) at points (n, 3)."""
        return self._field.distance(self._transform.apply(points)) / self._transform.scale

    def unsigned(self, points: Points) -> Values:
        """Distance (n,) at points (n, 3)."""
        return np.abs(self.signed(points))

    def inside(self, points: Points) -> Mask:
        """Whether points (n, 3) are inside."""
        return self.signed(points) < 0


def given_mesh(mesh: Any, faces: npt.ArrayLike | None = None) -> str | Path | Mesh:
    """The argument of `convert` as a path or a `Mesh`; raises `UsageError` for other types.

    mesh: a path, a `Mesh`, a field, a `trimesh.Trimesh` or scene, (vertices, faces), or vertices (n, 3) with
    `faces` (m, 3).
    """
    if faces is not None:
        return as_mesh(mesh, faces)
    if isinstance(mesh, str | PathLike):
        return Path(mesh)
    if isinstance(mesh, MeshField) and mesh.mesh is not None and mesh.is_plain:
        return mesh.mesh
    if isinstance(mesh, Field):
        return surface_mesh(mesh, str(mesh)[:200])
    return as_mesh(mesh)


def _loaded(path: str | Path, backend: Backend, allow_outside: bool) -> Mesh:
    if Path(path).suffix.lower() == ".csg":
        field = open_field(path, backend=backend, allow_outside=allow_outside)
        try:
            return surface_mesh(field, str(path))
        except NoSurfaceError as error:
            raise NoSurfaceError(f"{path}: {error}") from error
    return load_mesh(path)


def _vertex_weights(weight: str, mesh: Mesh, oracle: SignedDistance) -> Values:
    if weight == "curvature":
        return curvature_weights(oracle.vertices, oracle.faces)
    if weight == "thickness":
        return thickness_weights(oracle)
    painted: Values = mesh.per_vertex(read_weights(weight, mesh.vertices_in_file))
    return painted
