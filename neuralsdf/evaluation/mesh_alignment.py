"""
mesh_alignment.py
-----------------
Aligns a field with a mesh of the same shape in other units, moved or rotated.

`scaled` makes the minimum enclosing balls coincide. `registered` starts from all matches of the principal
axes and refines the best ones by iterative closest points (Besl and McKay 1992) in both directions, so that
the scale can be fitted too: in one direction alone, a surface would shrink onto the other.
"""

from __future__ import annotations

from itertools import permutations, product
from typing import Literal, NamedTuple, get_args

import numpy as np
import numpy.typing as npt

from ..array_types import Matrix4, Points, Vectors
from ..errors import MeshError, NoSurfaceError, UsageError
from ..fields.extract import Surface, model_surface
from ..fields.field import Field, NeuralField
from ..fields.mesh_field import MeshField
from ..geometry.bvh import MakeBVH, triangle_bvh
from ..geometry.similarity_transform import Similarity
from ..geometry.triangles import sample_surface
from ..geometry.unit_ball import minimum_enclosing_ball
from ..mesh.mesh import Mesh

Align = Literal["none", "scale", "similarity"]
ALIGNMENTS: tuple[Align, ...] = get_args(Align)

_POINTS, _FEW_POINTS = 4000, 400  # per surface, for the last and the first steps
_FIRST_STEPS, _LAST_STEPS = 12, 80
_PURSUED = 3  # number of starts that are refined
_ROUND = 1.3  # ratio of moments below which their axes are unreliable
_RANDOM_STARTS = 24
_TRIM = 3.0  # pairs farther apart than this many median distances are ignored
_STILL = 1e-9
#: Ratios of sizes, and distances over the smaller size, beyond which points of one shape are rounded off in
#: coordinates of the other.
_COMPARABLE, _WITHIN_REACH = 1e12, 1e14


def shape_ball(field: Field, resolution: int | None) -> tuple[Points, float]:
    """Centre (3,) and radius of a field's shape in model space.

    resolution: of the surface if it must be extracted, which cuts corners by up to half a cell; None for as
    needed.
    """
    if (
        isinstance(field, NeuralField) and field.source is not None
    ):  # fitted to a mesh, whose enclosing ball is the unit ball
        thickness = field.settings.get("thickness")
        half = thickness / 2 if isinstance(thickness, int | float) else 0.0
        return np.zeros(3), field.radius - half / field.transform.scale
    try:
        return minimum_enclosing_ball(_surface(field, resolution).vertices)
    except NoSurfaceError:
        return np.zeros(3), 1.0


def _surface(field: Field, resolution: int | None) -> Surface:
    """The surface of a field in model space; that of an exact field is its mesh."""
    if isinstance(field, MeshField) and field.oracle.thickness is None:
        return Surface(field.oracle.vertices, field.oracle.faces)
    return model_surface(field, resolution)


def check_comparable(mesh: Mesh, place: Similarity, ball: tuple[Points, float], align: Align) -> None:
    """Raise `MeshError` for a mesh whose size or, unless it is aligned, position is too different from the
    model's. place, ball: as in `scaled`, for the model.
    """
    centre, radius = minimum_enclosing_ball(mesh.vertices)
    size = ball[1] * place.scale
    if not 1 / _COMPARABLE < radius / size < _COMPARABLE:
        reason = f"is {radius / size:.3g} times as large as the model: too different to compare"
        raise MeshError(mesh.source.name, reason, "scale the mesh")
    away = float(np.abs(centre - place.centre).max()) / min(size, radius)
    if align == "none" and away > _WITHIN_REACH:
        reason = f"is {away:.3g} radii of the smaller one from the model: too far to compare"
        raise MeshError(mesh.source.name, reason, '`align="scale"` brings the two together')


def map_between(transform: Similarity, place: Similarity, mesh: Mesh) -> Similarity:
    """The map from a mesh's coordinates to the model's. transform, place: from model space to the mesh's and
    the model's coordinates. Raises `MeshError` if the mesh's coordinates are rounded too coarsely.
    """
    try:
        return Similarity(place.matrix @ np.linalg.inv(transform.matrix))
    except UsageError as error:
        raise MeshError(
            mesh.source.name, "lies too far from the origin to be aligned", "move the mesh"
        ) from error


def scaled(transform: Similarity, ball: tuple[Points, float], mesh: Mesh) -> Similarity:
    """The map from model space that takes a ball to the mesh's enclosing ball, rotated as `transform`.

    ball: centre (3,) and radius, as returned by `shape_ball`.
    """
    centre, radius = minimum_enclosing_ball(mesh.vertices)
    matrix = np.eye(4)
    matrix[:3, :3] = transform.matrix[:3, :3] / transform.scale * (radius / ball[1])
    matrix[:3, 3] = centre - matrix[:3, :3] @ ball[0]
    return Similarity(matrix)


def registered(
    field: Field, transform: Similarity, mesh: Mesh, resolution: int | None, seed: int = 0
) -> Similarity:
    """The map from model space that aligns a field's surface with a mesh; mirrored only if `transform` is.

    Raises `NoSurfaceError` for a field without a surface. Deterministic for a given seed.
    """
    surface = _surface(field, resolution)
    ball = Similarity.from_ball(*minimum_enclosing_ball(mesh.vertices))
    rotated = np.eye(4)
    rotated[:3, :3] = transform.matrix[:3, :3] / transform.scale
    moving = _Shape(Surface(surface.vertices @ rotated[:3, :3].T, surface.faces), seed)
    fixed = _Shape(Surface(ball.apply_inverse(mesh.vertices), mesh.faces), seed)
    starts = [_iterated(pose, moving, fixed, last=False) for pose in _starts(moving, fixed, seed)]
    starts.sort(key=lambda fit: fit.distance)
    best = min(
        (_iterated(fit.pose, moving, fixed, last=True) for fit in starts[:_PURSUED]),
        key=lambda fit: fit.distance,
    )
    return Similarity(ball.matrix @ best.pose.matrix @ rotated)


class _Shape:
    """A surface with samples and a BVH for closest points."""

    def __init__(self, surface: Surface, seed: int, make_bvh: MakeBVH = triangle_bvh) -> None:
        vertices, faces = surface.vertices, surface.faces
        self.points, _ = sample_surface(vertices, faces, _POINTS, np.random.default_rng([seed, 0]))
        corner = vertices[faces]
        normals = np.cross(corner[:, 1] - corner[:, 0], corner[:, 2] - corner[:, 0])
        self._normals = normals / np.maximum(np.linalg.norm(normals, axis=1, keepdims=True), 1e-300)
        self._bvh = make_bvh(vertices, faces)
        self.middle = self.points.mean(axis=0)
        moments, axes = np.linalg.eigh(np.cov(self.points.T))
        self.moments: Points = moments
        self.axes: Vectors = axes * np.sign(np.linalg.det(axes))  # a rotation

    def closest(self, points: Points) -> tuple[Points, Vectors]:
        """The closest points (n, 3) of the surface and the normals (n, 3) there."""
        _, face, nearest = self._bvh.closest(points)
        return nearest, self._normals[face]


class _Fit(NamedTuple):
    pose: Similarity
    distance: float  # mean over both directions


def _starts(moving: _Shape, fixed: _Shape, seed: int) -> list[Similarity]:
    """Poses with matching centres and sizes: principal axes, no rotation, and random for round shapes."""
    scale = float(np.sqrt(fixed.moments.sum() / moving.moments.sum()))
    rotations = [fixed.axes @ turn @ moving.axes.T for turn in _axis_rotations()] + [np.eye(3)]
    if min(moving.moments[1:] / np.maximum(moving.moments[:-1], 1e-300)) < _ROUND:
        rng = np.random.default_rng([seed, 1])
        rotations += [_random_rotation(rng) for _ in range(_RANDOM_STARTS)]
    poses = []
    for rotation in rotations:
        matrix = np.eye(4)
        matrix[:3, :3] = scale * rotation
        matrix[:3, 3] = fixed.middle - matrix[:3, :3] @ moving.middle
        poses.append(Similarity(matrix))
    return poses


def _axis_rotations() -> list[Points]:
    """The 24 rotations that map axes to axes."""
    matrices = [
        np.diag(signs)[list(order)].astype(np.float64)
        for order in permutations(range(3))
        for signs in product((1, -1), repeat=3)
    ]
    return [matrix for matrix in matrices if np.linalg.det(matrix) > 0]


def _random_rotation(rng: np.random.Generator) -> Points:
    """A uniformly distributed rotation."""
    orthogonal, triangular = np.linalg.qr(rng.normal(size=(3, 3)))
    orthogonal *= np.sign(np.diag(triangular))
    rotation: Points = orthogonal * np.sign(np.linalg.det(orthogonal))
    return rotation


def _iterated(pose: Similarity, moving: _Shape, fixed: _Shape, *, last: bool) -> _Fit:
    """The pose after closest-point steps: a few to points, or many to tangent planes if `last`."""
    count = _POINTS if last else _FEW_POINTS
    for _ in range(_LAST_STEPS if last else _FIRST_STEPS):
        here, there, normal = _pairs(pose, moving, fixed, count)
        kept = _not_far(here, there)
        step = (_step_to_planes if last else _step_to_points)(here[kept], there[kept], normal[kept])
        pose = Similarity(step @ pose.matrix)
        if np.abs(step - np.eye(4)).max() < _STILL:
            break
    here, there, _ = _pairs(pose, moving, fixed, count)
    return _Fit(pose, float(np.linalg.norm(here - there, axis=1).mean()))


def _pairs(pose: Similarity, moving: _Shape, fixed: _Shape, count: int) -> tuple[Points, Points, Points]:
    """Points (2 count, 3) of the moving surface in its pose, their closest points on the other, and normals.

    Half of them start from samples of one surface, half from samples of the other.
    """
    here = pose.apply(moving.points[:count])
    there, normal = fixed.closest(here)
    start = fixed.points[:count]
    found, normal_found = moving.closest(pose.apply_inverse(start))
    return (
        np.concatenate([here, pose.apply(found)]),
        np.concatenate([there, start]),
        np.concatenate([normal, pose.rotate(normal_found)]),
    )


def _not_far(here: Points, there: Points) -> npt.NDArray[np.bool_]:
    """Pairs that are close enough to correspond."""
    distance = np.linalg.norm(here - there, axis=1)
    return np.asarray(distance <= _TRIM * np.median(distance) + 1e-12)


def _step_to_points(here: Points, there: Points, normal: Vectors) -> Matrix4:
    """The similarity (4, 4) that brings points closest to their partners (Umeyama 1991)."""
    middle, target = here.mean(axis=0), there.mean(axis=0)
    u, stretch, vt = np.linalg.svd((there - target).T @ (here - middle))
    signs = np.array([1.0, 1.0, np.sign(np.linalg.det(u @ vt))])
    scale = (stretch * signs).sum() / ((here - middle) ** 2).sum()
    step = np.eye(4)
    step[:3, :3] = scale * (u * signs) @ vt
    step[:3, 3] = target - step[:3, :3] @ middle
    return step


def _step_to_planes(here: Points, there: Points, normal: Vectors) -> Matrix4:
    """The similarity (4, 4) that brings points closest to their partners' tangent planes, to first order."""
    middle = here.mean(axis=0)
    arm = here - middle
    rows = np.column_stack([np.cross(arm, normal), (arm * normal).sum(axis=1), normal])
    offsets = ((there - here) * normal).sum(axis=1)
    # The minimum-norm solution, so that a sphere does not rotate arbitrarily.
    solution = np.linalg.lstsq(rows, offsets, rcond=1e-6)[0]
    turn, growth, shift = np.clip(solution[:3], -0.3, 0.3), np.clip(solution[3], -0.2, 0.2), solution[4:]
    step = np.eye(4)
    step[:3, :3] = np.exp(growth) * _rotation(turn)
    step[:3, 3] = middle + shift - step[:3, :3] @ middle
    return step


def _rotation(turn: Vectors) -> Points:
    """The rotation (3, 3) of a rotation vector (3,) in radians (Rodrigues)."""
    angle = float(np.linalg.norm(turn))
    if angle < 1e-300:
        return np.eye(3)
    x, y, z = turn / angle
    cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    rotation: Points = np.eye(3) + np.sin(angle) * cross + (1 - np.cos(angle)) * cross @ cross
    return rotation
