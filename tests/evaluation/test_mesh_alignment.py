"""A mesh in other units, moved or rotated, is aligned with the model by the known similarity."""

from __future__ import annotations

import numpy as np
import pytest

from neuralsdf.errors import MeshError, NoSurfaceError, UsageError
from neuralsdf.evaluation.metrics import Evaluation, evaluate
from neuralsdf.fields.field import Field, NeuralField
from neuralsdf.fields.mesh_field import MeshField
from neuralsdf.geometry.similarity_transform import Similarity
from neuralsdf.geometry.unit_ball import minimum_enclosing_ball
from neuralsdf.mesh.mesh import Mesh, Source
from neuralsdf.mesh.signed_distance import SignedDistance
from neuralsdf.program.network import Architecture, Network, initialise

from ..helpers import shapes
from ..helpers.fields import Analytic, sphere


def measured(field: Field, mesh: shapes.Arrays, **options) -> Evaluation:
    return evaluate(field, Mesh.from_arrays(*mesh), resolution=64, points=5_000, **options)


def exact(mesh: shapes.Arrays) -> MeshField:
    """The exact field of a mesh, in the mesh's own ball."""
    transform = Similarity.from_ball(*minimum_enclosing_ball(mesh[0]))
    return MeshField(SignedDistance(transform.apply_inverse(mesh[0]), mesh[1]), transform)


def turned(axis, degrees: float, scale: float, shift) -> Similarity:
    """The similarity that rotates about an axis, scales and translates."""
    from scipy.spatial.transform import Rotation

    matrix = np.eye(4)
    axis = np.asarray(axis, float)
    matrix[:3, :3] = (
        scale * Rotation.from_rotvec(np.radians(degrees) * axis / np.linalg.norm(axis)).as_matrix()
    )
    matrix[:3, 3] = shift
    return Similarity(matrix)


#: A shape that no rotation maps to itself, and one whose moments are all equal.
LOPSIDED = shapes.joined(
    shapes.torus(0.7, 0.2),
    shapes.moved(shapes.box(0.1, 0.15, 0.6), [0.5, 0.3, 0.5]),
    shapes.moved(shapes.sphere(0.25, 3), [-0.6, 0.3, 0.4]),
)
CROSS = shapes.joined(
    *(
        shapes.moved(shapes.box(0.1, 0.1, 0.1), 0.6 * direction)
        for direction in np.vstack([np.eye(3), -np.eye(3)])
    ),
    shapes.moved(shapes.box(0.05, 0.02, 0.08), [0.6, 0.5, 0.1]),
)
MOVES = {
    "a little": turned([1, 2, 3], 12, 1.1, [0.2, 0.0, -0.1]),
    "half around": turned([1, 0, 1], 180, 25.4, [300, -20, 1]),
    "at random": turned([3, -1, 2], 131, 1e-3, [5, 5, 5]),
}


OPEN = shapes.hemisphere(0.8, 12)
CASES = [(LOPSIDED, "a little"), (LOPSIDED, "half around"), (LOPSIDED, "at random")]
CASES += [(CROSS, "at random"), (OPEN, "half around")]


@pytest.mark.parametrize(("shape", "move"), CASES)
def test_a_mesh_that_was_moved_rotated_and_scaled_is_aligned(shape: shapes.Arrays, move: str) -> None:
    similarity, field = MOVES[move], exact(shape)
    evaluation = measured(field, (similarity.apply(shape[0]), shape[1]), align="similarity")
    at_home = measured(field, shape)
    assert evaluation.metrics["iou"] > 0.999
    assert evaluation.align == "similarity"
    assert evaluation.scale == pytest.approx(similarity.scale * at_home.scale, rel=1e-6)
    if shape is not OPEN:  # which may be rotated about its axis
        back = evaluation.alignment.apply(similarity.apply(shape[0]))
        assert np.abs(back - shape[0]).max() < 1e-6
        assert evaluation.metrics["two_way"] == pytest.approx(at_home.metrics["two_way"], rel=1e-3)


def test_a_field_that_is_not_a_mesh_is_registered_by_its_extracted_surface() -> None:
    balls = {0.3: (0.0, 0.0, 0.0), 0.25: (0.5, 0.1, 0.0), 0.2: (-0.1, 0.45, 0.3), 0.15: (0.0, -0.5, 0.4)}
    field = Analytic(
        lambda p: np.min([sphere(radius, *centre)(p) for radius, centre in balls.items()], axis=0)
    )
    mesh = shapes.joined(
        *(shapes.moved(shapes.sphere(radius, 3), centre) for radius, centre in balls.items())
    )
    move = MOVES["at random"]
    evaluation = measured(field, (move.apply(mesh[0]), mesh[1]), align="similarity")
    assert evaluation.metrics["iou"] > 0.98
    assert np.abs(evaluation.alignment.apply(move.apply(mesh[0])) - mesh[0]).max() < 0.01


def test_registration_does_not_mirror() -> None:
    """The mirror image of a shape is not aligned with the shape, for either orientation of its faces."""
    mirrored = LOPSIDED[0] * [-1, 1, 1], LOPSIDED[1][:, ::-1]
    evaluation = measured(exact(LOPSIDED), mirrored, align="similarity")
    assert np.linalg.det(evaluation.alignment.matrix[:3, :3]) > 0
    assert evaluation.metrics["iou"] < 0.9


def test_the_same_seed_gives_the_same_alignment() -> None:
    moved = MOVES["at random"].apply(LOPSIDED[0]), LOPSIDED[1]
    first, again = (measured(exact(LOPSIDED), moved, align="similarity", seed=3) for _ in range(2))
    assert first.alignment.matrix.tobytes() == again.alignment.matrix.tobytes()
    assert first.metrics == again.metrics


@pytest.mark.parametrize(("factor", "shift"), [(100.0, 0.0), (2.0, 0.3), (0.01, -5.0), (1.0, 50.0)])
def test_a_misplaced_mesh_is_reported_and_scale_aligns_it(factor: float, shift: float) -> None:
    """It is measured at any size: the metrics show that nothing agrees, and a note states the reason."""
    field, mesh = exact(LOPSIDED), (factor * LOPSIDED[0] + shift, LOPSIDED[1])
    at_home = measured(field, LOPSIDED)
    assert at_home.notes == ()
    np.testing.assert_array_equal(at_home.alignment.matrix, np.eye(4))
    elsewhere = measured(field, mesh)
    assert elsewhere.metrics["iou"] < 0.3
    assert all(np.isfinite(value) for value in elsewhere.metrics.values())
    (note,) = elsewhere.notes
    assert (f"{factor:g} times as large as the model" in note) == (factor != 1)
    assert '`align="scale"`' in note
    aligned = measured(field, mesh, align="scale")
    assert aligned.metrics["iou"] == pytest.approx(at_home.metrics["iou"], abs=1e-3)
    assert aligned.scale == pytest.approx(factor * at_home.scale)
    np.testing.assert_allclose(aligned.alignment.apply(mesh[0]), LOPSIDED[0], atol=1e-3)
    assert "aligned with the model" in aligned.notes[0]


@pytest.mark.parametrize(("factor", "shift"), [(1e11, 0.0), (1e-11, 0.0), (1e-11, 100.0), (1.0, 1e13)])
@pytest.mark.filterwarnings("error")
def test_a_mesh_of_a_very_different_size_is_still_measured(factor: float, shift: float) -> None:
    mesh = factor * shapes.box(1, 1, 1)[0] + shift, shapes.box(1, 1, 1)[1]
    elsewhere = measured(exact(LOPSIDED), mesh)
    assert elsewhere.metrics["iou"] < 0.1
    assert all(np.isfinite(value) for value in elsewhere.metrics.values())


@pytest.mark.parametrize("align", ["none", "scale", "similarity"])
@pytest.mark.parametrize("factor", [1e30, 1e-30, 1e80])
def test_sizes_too_different_to_compare_are_named(factor: float, align) -> None:
    """Even where they could be aligned: the map between the two would be rounded off."""
    vertices, faces = shapes.box(1, 1, 1)
    mesh = Mesh.from_arrays(factor * vertices, faces, source=Source("part.stl", "", 12, 684))
    message = rf"part\.stl: is {factor:.3g} times as large as the model".replace("+", r"\+")
    with pytest.raises(MeshError, match=message):
        evaluate(exact((vertices, faces)), mesh, align=align)
    with pytest.raises(MeshError, match="times as large"):  # nor a small model with an ordinary mesh
        evaluate(exact((factor * vertices, faces)), Mesh.from_arrays(vertices, faces), align=align)


def test_a_mesh_too_far_away_to_compare_is_refused_unless_it_is_aligned() -> None:
    vertices, faces = shapes.box(1, 1, 1)
    far = 1e5 * vertices + 1e17, faces
    with pytest.raises(MeshError, match="radii of the smaller one from the model"):
        measured(exact((vertices, faces)), far)
    with pytest.raises(MeshError, match="too far from the origin to be aligned"):
        measured(exact((vertices, faces)), far, align="scale")


def test_scale_keeps_the_rotation_of_the_fields_own_transform() -> None:
    """A field whose transform has a rotation: the mesh is only moved and scaled."""
    turn = turned([1, 1, 0], 70, 3.0, [1, 2, 3])
    mesh = shapes.box(0.6, 0.4, 0.3)
    radius = float(np.linalg.norm([0.6, 0.4, 0.3]))
    transform = Similarity(turn.matrix @ np.diag([radius] * 3 + [1.0]))
    field = MeshField(SignedDistance(mesh[0] / radius, mesh[1]), transform)
    evaluation = measured(field, (10 * turn.apply(mesh[0]) - 7, mesh[1]), align="scale")
    assert evaluation.metrics["iou"] > 0.99
    assert evaluation.alignment.scale == pytest.approx(0.1, rel=1e-2)


def test_a_thick_shell_is_scaled_by_its_mesh() -> None:
    """The ball of such a model is half a thickness larger than the mesh's."""
    transform = Similarity.from_ball((0, 0, 0), 1.1)
    network = Network(Architecture((4,)), initialise(Architecture((4,)), 0))
    source = Source("ball.ply", "00" * 32, 320, 1000)
    field = NeuralField(network, transform, source, settings={"thickness": 0.2})
    vertices, faces = shapes.sphere(1.0, 2)
    assert "times as large" not in "".join(measured(field, (vertices, faces)).notes)
    evaluation = measured(field, (8 * vertices, faces), align="scale")
    assert evaluation.scale == pytest.approx(8 * 1.1)
    assert evaluation.alignment.scale == pytest.approx(1 / 8)


def test_an_authors_field_is_scaled_unless_align_is_none() -> None:
    """Their shapes fill a ball of radius 0.9; `none` assumes that the mesh is in that space."""

    class Theirs(NeuralField):
        def value(self, points):
            return sphere(0.9)(np.asarray(points, np.float64)).astype(np.float32)

        def value_and_gradient(self, points):
            return self.value(points), points / np.linalg.norm(points, axis=1, keepdims=True)

    network = Network(Architecture((4,)), initialise(Architecture((4,)), 0))
    field = Theirs(network, Similarity.identity(), layout="keras", radius=0.9)
    vertices, faces = shapes.sphere(1.0, 4)
    by_default = measured(field, (30 * vertices + 7, faces))
    assert by_default.align == "scale"
    assert by_default.metrics["iou"] > 0.98
    assert by_default.scale == pytest.approx(30)
    np.testing.assert_allclose(by_default.alignment.apply(30 * vertices + 7), 0.9 * vertices, atol=1e-9)
    at_home = measured(field, (0.9 * vertices, faces), align="none")
    assert at_home.metrics["iou"] > 0.98
    assert at_home.scale == pytest.approx(0.9)
    assert "times as large" not in "".join(at_home.notes)
    elsewhere = measured(field, (9 * vertices, faces), align="none")
    assert "10 times as large as the model" in "".join(elsewhere.notes)


def test_what_cannot_be_aligned_is_an_error() -> None:
    with pytest.raises(UsageError, match="`align='sideways'` is unknown; one of none, scale, similarity"):
        measured(exact(shapes.box(1, 1, 1)), shapes.box(1, 1, 1), align="sideways")
    with pytest.raises(NoSurfaceError):
        measured(Analytic(lambda p: p[:, 0] + 3), shapes.box(1, 1, 1), align="similarity")


@pytest.mark.parametrize("name", ["spot.obj", "stanford-bunny.obj"])
def test_real_meshes_are_aligned(test_data, name: str) -> None:
    from neuralsdf.mesh.load_mesh import load_mesh

    mesh = load_mesh(test_data / "meshes" / name)
    moved = MOVES["at random"].apply(mesh.vertices), mesh.faces
    assert measured(exact((mesh.vertices, mesh.faces)), moved, align="similarity").metrics["iou"] > 0.98
