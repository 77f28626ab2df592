"""Trees of solids and fields: their values, gradients, bounds and laws."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import trimesh
from hypothesis import given, settings
from hypothesis import strategies as st

from neuralsdf.array_types import Points
from neuralsdf.backends import get_backend
from neuralsdf.backends.reference.tape_interpreter import TapeProgram
from neuralsdf.csg import (
    Shape,
    box,
    capsule,
    cone,
    cylinder,
    ellipsoid,
    from_field,
    plane,
    rounded_box,
    smooth,
    sphere,
    torus,
)
from neuralsdf.csg.compile import compile_shape
from neuralsdf.csg.placement_matrices import moved_box, placement
from neuralsdf.errors import NoSurfaceError, UsageError
from neuralsdf.fields.extract import extract
from neuralsdf.fields.field import NeuralField
from neuralsdf.fields.mesh_field import MeshField
from neuralsdf.geometry.bvh import triangle_bvh
from neuralsdf.geometry.similarity_transform import Similarity
from neuralsdf.mesh.load_mesh import load_mesh
from neuralsdf.mesh.mesh import Mesh
from neuralsdf.mesh.signed_distance import SignedDistance
from neuralsdf.pipeline.convert import fit_mesh
from neuralsdf.pipeline.prepare_mesh import prepare, surface_mesh
from neuralsdf.pipeline.stage_times import Stages
from neuralsdf.program.network import Architecture, Network, initialise
from neuralsdf.render import Tracer, render
from neuralsdf.storage import open_field
from neuralsdf.storage.csg_file import parse_tree
from neuralsdf.training.fit_settings import Training

from ..helpers.shapes import box as box_mesh
from ..helpers.shapes import sphere as sphere_mesh
from ..helpers.shapes import torus as torus_mesh
from ..helpers.trees import BENT, SOLIDS, coordinates, sides, solids, trees


def interpreted(shape: Shape, transform: Similarity | None = None) -> TapeProgram:
    """The reference's program, which computes in the dtype of the points."""
    return TapeProgram(compile_shape(shape, transform or Similarity.identity()), get_backend().compile)


def values(shape: Shape, points: Points) -> Points:
    """Values (n,) float64 at points (n, 3) of mesh space."""
    return np.asarray(interpreted(shape).evaluate(points), np.float64)


def somewhere(count: int = 2000, seed: int = 0, extent: float = 1.2) -> Points:
    return np.random.default_rng(seed).uniform(-extent, extent, (count, 3))


# -- solids -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", SOLIDS)
def test_a_solids_distance_is_the_distance_to_its_surface(name: str) -> None:
    shape, volume = SOLIDS[name]
    surface = extract(shape, 160)
    if volume is not None:
        assert surface.volume == pytest.approx(volume, rel=0.01)
    points = somewhere(500)
    distance, _, _ = triangle_bvh(surface.vertices, surface.faces).closest(points)
    assert (
        np.abs(np.abs(values(shape, points)) - distance).max() < 0.006
    )  # half a cell: its edges are cut off there


@pytest.mark.parametrize(
    "axes", [(0.8, 0.5, 0.2), (0.5, 0.5, 0.2), (1, 0.01, 0.01), (0.3, 1, 1), (1, 0.5, 1e-3)]
)
def test_the_closest_point_of_an_ellipsoid_is_the_closest(axes: tuple[float, float, float]) -> None:
    points = somewhere(300)
    points[:30, 2] = 0
    points[:20, 1] = 0
    points[0] = 0
    polar, around = np.meshgrid(np.linspace(0, np.pi, 400), np.linspace(0, 2 * np.pi, 800))
    dense = np.stack([np.sin(polar) * np.cos(around), np.sin(polar) * np.sin(around), np.cos(polar)], axis=-1)
    dense = dense.reshape(-1, 3) * axes
    from scipy.spatial import cKDTree

    nearest, _ = cKDTree(dense).query(points)
    found = values(ellipsoid(*axes), points)
    inside = ((points / axes) ** 2).sum(axis=1) < 1
    assert ((found < 0) == inside).all()
    assert (np.abs(found) <= nearest + 1e-9).all()
    assert (nearest - np.abs(found)).max() < 0.006


@given(solids, st.integers(0, 2**32 - 1))
@settings(derandomize=True, max_examples=25)
def test_solids_are_1_lipschitz_and_fill_their_bounds(shape: Shape, seed: int) -> None:
    points = somewhere(400, seed, 2.0)
    others = points + np.random.default_rng(seed).normal(scale=0.1, size=points.shape)
    apart = np.linalg.norm(points - others, axis=1)
    assert (np.abs(values(shape, points) - values(shape, others)) <= apart * (1 + 1e-9)).all()
    # From far along an axis the distance is that to the face of the bounds, except for round shapes.
    for axis, direction in enumerate(np.eye(3)):
        far = 1e5
        assert values(shape, direction[None] * far)[0] == pytest.approx(far - shape.high[axis], abs=1e-3)


def test_distances_at_simple_points() -> None:
    cases: list[tuple[Shape, tuple[float, float, float], float]] = [
        (sphere(2), (3, 0, 0), 1),
        (box(2, 4, 6), (0, 0, 0), -1),
        (box(2, 4, 6), (2, 3, 3), math.sqrt(2)),
        (cylinder(1, 2), (0, 0, 3), 2),
        (cylinder(1, 2), (4, 0, 5), 5),
        (capsule(1, 2), (0, 0, 3), 1),
        (cone(1, 2), (0, 0, 3), 2),
        (cone(1, 1), (0, 0, -0.25), -0.25),
        (torus(2, 0.5), (0, 0, 0), 1.5),
        (plane(0, 0, 2), (7, 8, 3), 3),
        (ellipsoid(1, 2, 3), (0, 0, 5), 2),
    ]
    for shape, point, distance in cases:
        assert values(shape, np.array([point], np.float64))[0] == pytest.approx(distance, abs=1e-6), shape


@pytest.mark.parametrize(
    "make",
    [
        lambda: sphere(0),
        lambda: box(1, -1, 1),
        lambda: sphere(math.nan),
        lambda: sphere(math.inf),
        lambda: rounded_box(1, 1, 1, 0.6),
        lambda: torus(0.2, 0.3),
        lambda: plane(0, 0, 0),
        lambda: cone(1, 1, -1),
        lambda: sphere().scale(0),
        lambda: sphere().rotate(90, 0, 0, 0),
        lambda: sphere().translate(math.inf),
        lambda: sphere().repeat(0),
        lambda: sphere().repeat(1, nx=1.5),
        lambda: sphere().repeat(1, nx=math.inf),
        lambda: sphere().repeat(1, nx=math.nan),
        lambda: plane().repeat(math.inf),
        lambda: sphere(33).repeat(1),
        lambda: sphere(3).repeat(1, 1, 1),
        lambda: plane().twist(1),
        lambda: smooth(-1, sphere()),
        lambda: sphere().blend(sphere(), 2),
        lambda: sphere().shell(0),
        lambda: sphere() | 1,  # type: ignore[operator]
    ],
)
def test_invalid_numbers_are_refused(make: Callable[[], Any]) -> None:
    with pytest.raises(UsageError):
        make()


# -- gradients and slopes -----------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [shape for shape, _ in SOLIDS.values()] + list(BENT.values()), ids=str)
def test_gradients_are_those_of_finite_differences(shape: Shape) -> None:
    program = interpreted(shape, Similarity.from_ball([0.1, 0.2, 0.3], 1.3))
    points, step = somewhere(1000), 1e-6
    _, gradient = program.evaluate_with_gradient(points)
    differences = [program.evaluate(points + e) - program.evaluate(points - e) for e in step * np.eye(3)]
    error = np.abs(np.stack(differences, axis=1) / (2 * step) - gradient).max(axis=1)
    assert np.quantile(error, 0.98) < 1e-7  # the others are at a crease
    assert np.linalg.norm(gradient, axis=1).max() <= shape.lipschitz * (1 + 1e-9)


@given(trees, st.integers(0, 2**32 - 1))
@settings(derandomize=True, max_examples=50)
def test_differences_are_bounded_by_the_lipschitz_factor(shape: Shape, seed: int) -> None:
    points = somewhere(300, seed, 2.0)
    others = points + np.random.default_rng(seed).normal(scale=0.02, size=points.shape)
    apart = np.linalg.norm(points - others, axis=1)
    steps = np.abs(values(shape, points) - values(shape, others))
    assert (steps <= shape.lipschitz * apart * (1 + 1e-7) + 1e-12).all()


@given(trees, st.integers(0, 2**32 - 1))
@settings(derandomize=True, max_examples=50)
def test_the_interior_is_within_the_bounds(shape: Shape, seed: int) -> None:
    points = somewhere(4000, seed, 3.0)
    inside = points[values(shape, points) < 0]
    assert (inside >= shape.low - 1e-9).all()
    assert (inside <= shape.high + 1e-9).all()


@given(trees)
@settings(derandomize=True, max_examples=20)
def test_the_ball_contains_the_shape(shape: Shape) -> None:
    points = somewhere(4000, 1, 3.0)
    inside = points[values(shape, points) < 0]
    try:
        transform = shape.transform
    except NoSurfaceError:
        assert not len(inside)
        return
    assert (np.linalg.norm(transform.apply_inverse(inside), axis=1) <= 1 + 1e-9).all()
    assert shape.distance(points) == pytest.approx(values(shape, points), abs=1e-5 * max(1, shape.lipschitz))


@pytest.mark.parametrize("shape", BENT.values(), ids=str)
def test_single_precision_is_enough(shape: Shape) -> None:
    points = somewhere()
    single, gradient = interpreted(shape).evaluate_with_gradient(points.astype(np.float32))
    assert single.dtype == np.float32
    assert gradient.dtype == np.float32
    assert single == pytest.approx(values(shape, points), abs=1e-5)


# -- laws ---------------------------------------------------------------------------------------------


@given(trees, trees)
@settings(derandomize=True, max_examples=25)
def test_set_operations_obey_their_laws(a: Shape, b: Shape) -> None:
    points = somewhere(300)
    same: list[tuple[Shape, Shape]] = [
        (~(a | b), ~a & ~b),
        (~(a & b), ~a | ~b),
        (a - b, a & ~b),
        (a | b, b | a),
        (a & b, b & a),
        (a | a, a),
        (~~a, a),
        (a | smooth(0, b), a | b),
        (a & smooth(0, b), a & b),
        (a - smooth(0, b), a - b),
        (a.blend(b, 0), a),
        (a.offset(0.1).offset(0.2), a.offset(0.30000000000000004)),
        (~a.offset(0.1), (~a).offset(-0.1)),
        (a.hollow(0.1), a - a.erode(0.1)),
        (a | (b | a), (a | b) | a),
    ]
    for left, right in same:
        assert values(left, points) == pytest.approx(values(right, points), abs=1e-12), (left, right)


@given(trees, trees, st.floats(0.01, 1))
@settings(derandomize=True, max_examples=25)
def test_a_smooth_union_is_between_the_union_and_a_quarter_of_its_radius_below(
    a: Shape, b: Shape, r: float
) -> None:
    points = somewhere(300)
    sharp, blended = values(a | b, points), values(a | smooth(r, b), points)
    assert (blended <= sharp + 1e-12).all()
    assert (blended >= sharp - r / 4 - 1e-12).all()
    apart = np.abs(values(a, points) - values(b, points)) >= r
    assert blended[apart] == pytest.approx(sharp[apart], abs=1e-12)


@given(trees, coordinates, coordinates, st.floats(-180, 180), st.floats(0.3, 3))
@settings(derandomize=True, max_examples=25)
def test_placements_are_similarities(a: Shape, x: float, y: float, angle: float, factor: float) -> None:
    points = somewhere(300)
    placed = a.translate(x, y, 0.5).rotate(angle, 1, 2, 3).scale(factor).reflect(1, -1, 2)
    matrix = np.eye(4)
    for word, numbers in (
        ("translate", (x, y, 0.5)),
        ("rotate", (angle, 1.0, 2.0, 3.0)),
        ("scale", (factor,)),
        ("reflect", (1.0, -1.0, 2.0)),
    ):
        matrix = placement(word, numbers) @ matrix
    moved = points @ matrix[:3, :3].T + matrix[:3, 3]
    assert values(placed, moved) == pytest.approx(factor * values(a, points), abs=1e-9)
    assert Similarity(matrix).scale == pytest.approx(factor)
    assert np.linalg.det(matrix[:3, :3]) < 0


def test_a_rotation_turns_counter_clockwise_and_right_angles_are_exact() -> None:
    turned = placement("rotate", (90.0, 0.0, 0.0, 1.0))
    assert (turned[:3, :3] == [[0, -1, 0], [1, 0, 0], [0, 0, 1]]).all()
    low, high = moved_box(turned, np.array([0, -np.inf, 1]), np.array([2, 3, np.inf]))
    assert low.tolist() == [-3, 0, 1]
    assert high.tolist() == [np.inf, 2, np.inf]


@given(solids, sides, st.integers(1, 4), st.integers(0, 3))
@settings(derandomize=True, max_examples=25)
def test_a_repetition_is_the_union_of_its_copies(a: Shape, gap: float, nx: int, ny: int) -> None:
    a = a.translate(0.3, 0.1)
    step = (a.high - a.low + gap).tolist()
    repeated = a.repeat(step[0], step[1] if ny else 0, 0, nx, ny)
    union = a
    for i in range(nx):
        for j in range(max(ny, 1)):
            union = union | a.translate(i * step[0], j * step[1])
    points = somewhere(400, extent=6)
    assert values(repeated, points) == pytest.approx(values(union, points), abs=1e-9)
    assert repeated.high == pytest.approx(union.high)


def test_an_unbounded_repetition_is_periodic() -> None:
    shape = (sphere(0.2) - box(0.2)).translate(0.15).repeat(0.5, 0, 0.7)
    points = somewhere()
    moved = points + np.array([3 * 0.5, 0, -2 * 0.7])
    assert values(shape, points) == pytest.approx(values(shape, moved), abs=1e-12)
    assert not shape.bounded
    assert (shape & box(2)).bounded


@given(trees)
@settings(derandomize=True, max_examples=25)
def test_a_symmetric_shape_is_its_mirror_image(a: Shape) -> None:
    normal = (1.0, 2.0, -0.5)
    points = somewhere(300)
    symmetric = values(a.symmetry(*normal), points)
    assert symmetric == pytest.approx(values(a.symmetry(*normal).reflect(*normal), points), abs=1e-9)
    in_front = points @ normal > 0
    assert symmetric[in_front] == pytest.approx(values(a, points)[in_front], abs=1e-12)


def test_a_twist_turns_each_height_by_its_own_angle() -> None:
    shape = box(0.8, 0.3, 2) - sphere(0.2).translate(0.2)
    points = somewhere()
    points = points[np.hypot(points[:, 0], points[:, 1]) < 0.4]
    angle = np.radians(70 * points[:, 2])
    back = np.stack(
        [
            points[:, 0] * np.cos(angle) + points[:, 1] * np.sin(angle),
            points[:, 1] * np.cos(angle) - points[:, 0] * np.sin(angle),
            points[:, 2],
        ],
        axis=1,
    )
    assert values(shape.twist(70), points) == pytest.approx(values(shape, back), abs=1e-12)


# -- depth --------------------------------------------------------------------------------------------


def test_ten_thousand_levels_evaluate_in_two_registers() -> None:
    left = right = sphere(0.01)
    for index in range(10_000):
        ball = sphere(0.01).translate(index * 1e-4)
        left, right = left | ball, ball | right
    points = somewhere(50)
    for shape in (left, right):
        tape = compile_shape(shape, Similarity.identity())
        assert (tape.values, tape.points) == (2, 1)
        distance = np.linalg.norm(points - [1, 0, 0] * np.clip(points[:, :1], 0, 0.9999), axis=1) - 0.01
        assert values(shape, points) == pytest.approx(distance, abs=1e-5)
    assert left == left.translate(0).parts[0]
    assert hash(left) != hash(right)
    assert len(str(right)) > 200_000


def test_ten_thousand_folds_evaluate() -> None:
    shape = sphere(0.3).translate(0.3, 0.2)
    for _ in range(2500):
        shape = shape.symmetry(1).symmetry(0, 1)
    points = somewhere(40)
    assert values(shape, points) == pytest.approx(values(sphere(0.3).translate(0.3, 0.2), np.abs(points[:, :2]
        ) @ np.eye(2, 3) + points * [0, 0, 1]), abs=1e-12)  # fmt: skip


def test_trees_with_too_many_operations_are_refused() -> None:
    doubled, repeated = [sphere()], [box(0.1)]
    with pytest.raises(UsageError, match="operations"):
        doubled.extend(doubled[-1] | doubled[-1] for _ in range(100))
    with pytest.raises(UsageError, match="operations"):
        repeated.extend(repeated[-1].repeat(50, 50, 50, 2, 2, 2) for _ in range(100))


# -- as a field ---------------------------------------------------------------------------------------


def test_unbounded_and_empty_shapes_have_no_ball() -> None:
    for shape in (plane(), ~sphere(), sphere(0.1).repeat(1), sphere().scale(1e200).scale(1e200)):
        with pytest.raises(UsageError, match="unbounded"):
            _ = shape.transform
    for shape in (sphere() & sphere().translate(3), sphere() - box(3), sphere(0.1).erode(0.2)):
        with pytest.raises(NoSurfaceError, match="empty"):
            _ = shape.transform
    assert (sphere() & plane()).enclosing_box[1][2] == pytest.approx(0, abs=1e-9)


def test_a_tree_reports_its_kind_and_place() -> None:
    far = (box(2) - sphere(1.2)).scale(1e-3).translate(1000, 0, 0)
    assert far.kind == "bound"
    assert box(1).rotate(30).kind == "distance"
    assert far.lipschitz == 1
    assert far.transform.centre == pytest.approx([1000, 0, 0], abs=1e-5)
    assert far.transform.scale == pytest.approx(1e-3 * math.sqrt(3), rel=0.05)
    assert far.enclosing_box == (
        pytest.approx([1000 - 1e-3, -1e-3, -1e-3]),
        pytest.approx([1000 + 1e-3, 1e-3, 1e-3]),
    )
    assert extract(far, 96).volume == pytest.approx(1e-9 * extract(box(2) - sphere(1.2), 96).volume, rel=0.01)


@pytest.mark.parametrize("size", [1e-25, 1e-9, 1e9, 1e25])
def test_the_size_of_a_shape_does_not_matter(size: float) -> None:
    shape = BENT["all"] | sphere(0.2).repeat(0.5, 0, 0, 2) - torus(0.3, 0.1).displace(0.02, 0.2)
    field, scaled = shape, shape.scale(size)
    points = somewhere()
    assert scaled.distance(points * size) / size == pytest.approx(field.distance(points), abs=2e-5)
    assert extract(scaled, 48).volume / size**3 == pytest.approx(extract(field, 48).volume, rel=0.02)


def test_fields_are_leaves_through_their_transforms() -> None:
    vertices, faces = sphere_mesh(1.0, 3)
    mesh = MeshField(SignedDistance(vertices, faces), Similarity.from_ball([3, 0, 0], 0.5))
    architecture = Architecture.uniform(2, 16)
    network = NeuralField(
        Network(architecture, initialise(architecture, 0)), Similarity.from_ball([1, 2, 3], 2.0)
    )
    points = somewhere(500, extent=4)
    for field, scale in ((mesh, 0.5), (network, 2.0)):
        leaf = from_field(field, "a.h5")
        assert values(leaf, points) == pytest.approx(field.distance(points, bound=True), abs=1e-5)
        placed = leaf.rotate(40, 1, 1).scale(3).translate(1)
        moved = points @ (3 * placement("rotate", (40.0, 1.0, 1.0, 0.0))[:3, :3]).T + [1, 0, 0]
        assert values(placed, moved) == pytest.approx(3 * field.distance(points, bound=True), abs=1e-4)
        assert leaf.high - leaf.low == pytest.approx(2 * scale)
    assert from_field(mesh, "a").lipschitz == 1


def test_an_exact_tree_is_fitted_by_its_own_distances() -> None:
    """Not by those of its extracted surface, which lacks sharp edges."""
    ball = MeshField(SignedDistance(*sphere_mesh(1.0, 3)), Similarity.identity())
    network = NeuralField(
        Network(Architecture.uniform(1, 8), initialise(Architecture.uniform(1, 8), 0)), Similarity.identity()
    )
    for shape, exact in (
        (box(1).rotate(30, 1, 1).scale(2), True),
        (from_field(ball, "a.obj").translate(1), True),
        (from_field(network, "a.h5"), False),
        (box(1) | sphere(0.3), False),
    ):
        assert shape.exact == exact
    cube, rounded = box(1).rotate(30, 1, 1), box(1).rotate(30, 1, 1) | sphere(0.1)
    points = somewhere(500, extent=0.8)
    errors = []
    for shape in (cube, rounded):
        mesh = surface_mesh(shape, "cube", resolution=24)
        shape_ = prepare(mesh, "winding", None, None, Stages(None), get_backend())
        signed = shape_.oracle.signed(shape_.transform.apply_inverse(points)) * shape_.transform.scale
        errors.append(np.abs(signed - values(cube, points)).max())
    assert errors[0] < 1e-6
    assert errors[1] > 1e-2


def test_a_twisted_tree_is_traced_at_its_surface() -> None:
    shape = (box(0.5, 0.12, 1.6) | sphere(0.3)).twist(300)
    field = shape
    assert field.lipschitz > 1.5
    tracer = Tracer(field)
    rng = np.random.default_rng(0)
    ends = rng.normal(size=(2, 1500, 3))
    ends /= np.linalg.norm(ends, axis=2, keepdims=True)
    directions = ends[1] - ends[0]
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    traced = tracer.trace(ends[0], directions)
    assert not traced.unresolved.any()
    # A fine march along every ray meets a surface where the tracer does, and nowhere before.
    t = np.linspace(0, 2, 2001)
    along = ends[0][:, None] + t[:, None] * directions[:, None]
    inside = field.value(along.reshape(-1, 3).astype(np.float32)).reshape(along.shape[:2]) < 0
    inside &= (along**2).sum(axis=2) < 1
    first = np.where(inside.any(axis=1), t[inside.argmax(axis=1)], np.inf)
    agree = np.isclose(traced.t, first, rtol=0, atol=2e-3)
    assert agree.mean() > 0.998  # the others graze it


def test_a_tree_is_rendered() -> None:
    picture = render(box(1) - sphere(0.62), width=48, height=48)
    assert picture.report.hits > 300
    assert picture.report.unresolved == 0


# -- against exact booleans of meshes -----------------------------------------------------------------


def _manifold(vertices: npt.NDArray[Any], faces: npt.NDArray[Any]) -> Any:
    manifold3d = pytest.importorskip("manifold3d")
    return manifold3d.Manifold(
        manifold3d.Mesh(np.asarray(vertices, np.float32), np.asarray(faces, np.uint32))
    )


def _compared(shape: Shape, exact: Any, resolution: int) -> tuple[float, float]:
    """IoU of the extracted surface, which is closed, with an exact solid; and the ratio of their volumes."""
    surface = extract(shape, resolution)
    assert surface.watertight
    ours = _manifold(surface.vertices, surface.faces)
    common = (ours ^ exact).volume()
    return common / (ours.volume() + exact.volume() - common), ours.volume() / exact.volume()


def _assert_booleans(a: Shape, exact_a: Any, b: Shape, exact_b: Any, resolution: int = 72) -> None:
    """Volume within 1 %, IoU at least 0.98."""
    for shape, exact in (
        (a | b, exact_a + exact_b),
        (a & b, exact_a ^ exact_b),
        (a - b, exact_a - exact_b),
        (b - a, exact_b - exact_a),
    ):
        iou, volume = _compared(shape, exact, resolution)
        assert iou > 0.98
        assert volume == pytest.approx(1, abs=0.01)


def _mesh_leaf(vertices: npt.NDArray[Any], faces: npt.NDArray[Any]) -> Shape:
    return from_field(MeshField(SignedDistance(vertices, faces), Similarity.identity()), "mesh.obj")


def test_booleans_of_a_mesh_and_a_solid_are_those_of_meshes() -> None:
    knot = torus_mesh(0.7, 0.25)
    cube = trimesh.creation.box((0.9, 0.7, 0.6), transform=placement("rotate", (25.0, 1.0, 1.0, 0.0)))
    solid = box(0.9, 0.7, 0.6).rotate(25, 1, 1).translate(0.5, 0.2, 0.1)
    exact = _manifold(np.array(cube.vertices) + np.array([0.5, 0.2, 0.1]), cube.faces)
    _assert_booleans(_mesh_leaf(*knot), _manifold(*knot), solid, exact)


def test_booleans_of_two_meshes_are_those_of_the_meshes() -> None:
    knot, ball = torus_mesh(0.7, 0.25), sphere_mesh(0.6, 3)
    apart = np.array([0.45, 0.2, 0.1])
    moved = _mesh_leaf(*ball).translate(*apart)
    _assert_booleans(_mesh_leaf(*knot), _manifold(*knot), moved, _manifold(ball[0] + apart, ball[1]))


def test_booleans_of_the_authors_models_are_those_of_their_surfaces(test_data: Path) -> None:
    fields = [open_field(test_data / "author-models" / name) for name in ("101636_sf.h5", "71159_sf.h5")]
    surfaces = [extract(field, 128) for field in fields]
    a, b = (_manifold(surface.vertices, surface.faces) for surface in surfaces)
    one, two = (from_field(field, "model.h5") for field in fields)
    _assert_booleans(one, a, two.translate(0.4, 0.1, 0), b.translate([0.4, 0.1, 0]))


def test_booleans_of_real_meshes_are_those_of_the_meshes(test_data: Path) -> None:
    """They have units of their own: one is scaled by 4/3 and moved."""
    spot, rocker_arm = (load_mesh(test_data / "meshes" / name) for name in ("spot.obj", "rocker-arm.obj"))
    moved = parse_tree('"rocker-arm.obj".scale(1.3).translate(0.1, 0.2, 0.3)', test_data / "meshes")
    exact = _manifold(1.3 * rocker_arm.vertices + [0.1, 0.2, 0.3], rocker_arm.faces)
    other = parse_tree("spot.obj", test_data / "meshes")
    _assert_booleans(other, _manifold(spot.vertices, spot.faces), moved, exact, resolution=96)


@pytest.fixture(scope="module")
def fitted() -> list[tuple[NeuralField, Any]]:
    """Two networks that overlap, each with the exact solid to which it was fitted."""
    vertices, faces = box_mesh(0.45, 0.35, 0.3)
    turned = vertices @ placement("rotate", (25.0, 1.0, 1.0, 0.0))[:3, :3].T + [0.6, 0.2, 0.1]
    meshes = [torus_mesh(0.7, 0.25), (turned, faces)]
    training = Training(epochs=10)
    return [
        (fit_mesh(Mesh.from_arrays(*mesh), samples=60_000, training=training).field, _manifold(*mesh))
        for mesh in meshes
    ]


def test_booleans_of_networks_are_as_good_as_the_networks(fitted: list[tuple[NeuralField, Any]]) -> None:
    """IoU at least the product of the leaves' own, less 0.01."""
    (first, a), (second, b) = fitted
    one, two = from_field(first, "a.h5"), from_field(second, "b.h5")
    least = first.metrics["iou"] * second.metrics["iou"] - 0.01
    assert least > 0.9
    for shape, exact in ((one | two, a + b), (one & two, a ^ b), (one - two, a - b), (two - one, b - a)):
        assert _compared(shape, exact, 96)[0] >= least
    solid = sphere(0.5).translate(-0.6)
    ball = sphere_mesh(0.5, 4)
    exact_ball = _manifold(ball[0] - [0.6, 0, 0], ball[1])
    for shape, exact in ((one | solid, a + exact_ball), (one - solid, a - exact_ball)):
        assert _compared(shape, exact, 96)[0] >= first.metrics["iou"] - 0.01
