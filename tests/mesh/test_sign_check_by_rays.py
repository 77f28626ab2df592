"""Ray parity per body compared with analytic interiors, and as the metric that reveals sign errors."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest

from neuralsdf.evaluation.metrics import insides, sign_disagreement, sign_remark
from neuralsdf.fields.mesh_field import MeshField
from neuralsdf.geometry.similarity_transform import Similarity
from neuralsdf.mesh.closed_bodies import closed_bodies
from neuralsdf.mesh.mesh import Mesh
from neuralsdf.mesh.orientation import Orientation
from neuralsdf.mesh.sign_check_by_rays import BodyParity, body_probes
from neuralsdf.mesh.signed_distance import SignedDistance

from ..helpers.fields import Analytic
from ..helpers.fields import sphere as ball
from ..helpers.shapes import Arrays, box, hemisphere, inverted, joined, moved, sphere

POINTS = np.random.default_rng(0).uniform(-1, 1, (3000, 3))


def cube(half: float, centre: tuple[float, float, float] = (0, 0, 0), sign: int = 1) -> Arrays:
    mesh = moved(box(half, half, half), centre)
    return mesh if sign > 0 else inverted(mesh)


def in_cube(half: float, centre: tuple[float, float, float] = (0, 0, 0)) -> np.ndarray:
    return np.abs(POINTS - np.array(centre)).max(axis=1) < half


def parity(*parts: Arrays) -> BodyParity:
    mesh = Mesh.from_arrays(*joined(*parts))
    return BodyParity(closed_bodies(mesh.vertices, mesh.faces), POINTS)


@pytest.mark.parametrize("signs", list(product([1, -1], repeat=3)))
def test_three_nested_shells(signs: tuple[int, int, int]) -> None:
    found = parity(*(cube(half, sign=sign) for half, sign in zip((0.9, 0.6, 0.3), signs, strict=True)))
    shells = [in_cube(half) for half in (0.9, 0.6, 0.3)]
    hollow = signs[1] != signs[0]
    assert found.known.all()
    np.testing.assert_array_equal(found.inside, shells[0] & ~(hollow & shells[1]) | (hollow & shells[2]))
    np.testing.assert_array_equal(found.innermost, np.sum(shells, axis=0) - 1)


@pytest.mark.parametrize("offset", [(0.7, 0, 0), (0.7, 0.7, 0), (0.7, 0.7, 0.7), (0.3, 0.2, 0.1)])
@pytest.mark.parametrize("signs", list(product([1, -1], repeat=2)))
def test_bodies_that_touch_or_overlap_are_both_solid(offset, signs) -> None:
    first, second = (-0.4, -0.4, -0.4), tuple(np.array(offset) - 0.4)
    found = parity(cube(0.35, first, signs[0]), cube(0.35, second, signs[1]))
    assert found.known.all()
    np.testing.assert_array_equal(found.inside, in_cube(0.35, first) | in_cube(0.35, second))


def test_parity_behind_open_parts_is_unknown() -> None:
    found = parity(
        cube(0.3), moved(sphere(0.2, 2), [0.7, 0.7, 0.7]), (sphere(0.9, 2)[0], sphere(0.9, 2)[1][1:])
    )
    assert not found.known[in_cube(0.3)].any()
    outside = np.linalg.norm(POINTS, axis=1) > 0.9
    assert 0.3 < found.known[outside].mean() < 1


def test_probes_are_well_inside_of_thin_bodies_and_of_small_ones() -> None:
    """Half of the runs of a plate of thickness 0.002 end half way through it."""
    plate, crumb = box(0.7, 0.7, 0.001), moved(sphere(0.001, 2), [0.9, 0.9, 0.9])
    oracle = SignedDistance(*joined(plate, crumb))
    assert oracle.orientation is not None
    probes = body_probes(oracle.orientation.bodies, oracle, np.random.default_rng(0))
    in_plate, in_crumb = np.abs(probes[:, 2]) < 0.001, np.linalg.norm(probes - 0.9, axis=1) < 0.001
    assert in_plate.sum() > 900
    assert in_crumb.sum() > 900
    assert np.median(oracle.unsigned(probes[in_plate])) == pytest.approx(0.001, rel=0.01)


SCENES = {
    "one of two": (cube(0.4, (-0.5, 0, 0)), cube(0.2, (0.5, 0, 0), -1)),
    "a small one of many": (
        *(cube(0.05, tuple(0.2 * np.array(where) - 0.5)) for where in product(range(4), repeat=3)),
        cube(0.02, (0.5, 0.5, 0.5), -1),
    ),
    "one in a cavity": (cube(0.7), cube(0.6, sign=-1), cube(0.2, sign=-1)),
    "a large one": (cube(0.5, (-0.4, 0, 0), -1), cube(0.1, (0.5, 0, 0))),
    "one that touches": (cube(0.2), cube(0.2, (0.4, 0.4, 0), -1)),
    "one beside an open part": (hemisphere(0.5, 16), cube(0.2, (-0.7, 0, 0), -1)),
    "both sides of all faces": (cube(0.5), cube(0.5, sign=-1)),
}


def _whole_file(vertices, faces, bvh) -> Orientation:
    """The orientation of the whole file, decided once."""
    from neuralsdf.mesh.orientation import _is_inverted

    bodies, inverted = closed_bodies(vertices, faces), bool(_is_inverted(vertices, faces, bvh))
    return Orientation(bodies, np.full(bodies.count, inverted), inverted)


@pytest.mark.parametrize("scene", SCENES)
def test_a_wrong_sign_is_found_although_the_iou_is_one(scene: str, monkeypatch) -> None:
    vertices, faces = (lambda mesh: (mesh.vertices, mesh.faces))(Mesh.from_arrays(*joined(*SCENES[scene])))
    extent = vertices.min(axis=0), vertices.max(axis=0)

    def measured() -> tuple[float, float | None]:
        oracle = SignedDistance(vertices, faces)
        field = MeshField(oracle, Similarity.identity())
        disagreement = sign_disagreement(field, oracle)
        assert disagreement is not None
        metrics = {"sign_disagreement": disagreement.fraction}
        remark = sign_remark(metrics, field, oracle, Similarity.identity())
        assert (remark is None) == (disagreement.fraction == 0)
        return insides(field, oracle, extent, np.random.default_rng(0)).iou, disagreement.fraction

    assert measured() == (1, 0)
    monkeypatch.setattr("neuralsdf.mesh.signed_distance.orientation", _whole_file)
    iou, disagreement = measured()
    assert iou == 1 or scene == "both sides of all faces"  # which has no inside at all then
    assert disagreement == 1


def test_the_disagreement_is_the_maximum_over_closed_bodies() -> None:
    """A field with half of the second ball, and one with a false body in empty space."""
    pair = joined(moved(sphere(0.4, 3), [-0.5, 0, 0]), moved(sphere(0.2, 3), [0.5, 0, 0]))
    oracle = SignedDistance(*pair)

    def half(p: np.ndarray) -> np.ndarray:
        return np.minimum(ball(0.4, -0.5, 0, 0)(p), np.maximum(ball(0.2, 0.5, 0, 0)(p), p[:, 2]))

    def fraction(function, of: SignedDistance) -> float | None:
        found = sign_disagreement(Analytic(function), of)
        return None if found is None else found.fraction

    assert fraction(half, oracle) == pytest.approx(0.5, abs=0.05)
    assert fraction(lambda p: np.minimum(half(p), p[:, 2]), oracle) == pytest.approx(0.5, abs=0.08)
    assert fraction(half, SignedDistance(*hemisphere(0.5, 16))) is None
    assert fraction(half, SignedDistance(*pair, "parity")) is None
    assert fraction(half, SignedDistance(*pair, thickness=0.1)) is None
    for metrics in ({"sign_disagreement": 0.02}, {}):
        assert sign_remark(metrics, Analytic(half), oracle, Similarity.identity()) is None


def test_the_body_with_the_wrong_sign_is_named_in_mesh_units() -> None:
    """Three balls, and a field without the second; and a field with material outside of all bodies."""
    radii, places = (0.3, 0.2, 0.25), ((-0.6, 0, 0), (0, 0.4, 0), (0.6, 0, 0))
    balls = [moved(sphere(radius, 3), list(place)) for radius, place in zip(radii, places, strict=True)]
    oracle, transform = SignedDistance(*joined(*balls)), Similarity.from_ball((100.0, 20.0, 0.0), 50.0)
    fields = [ball(radius, *place) for radius, place in zip(radii, places, strict=True)]

    def remark(function) -> str:
        field = Analytic(function)
        found = sign_disagreement(field, oracle, seed=3)
        assert found is not None
        metrics = {"sign_disagreement": found.fraction}
        said = sign_remark(metrics, field, oracle, transform, seed=3)
        assert said is not None
        return said

    missing = remark(lambda p: np.minimum(fields[0](p), fields[2](p)))
    assert f"body 2 from (90, 30, -10) to (110, 50, 10), {len(balls[1][1]):,} faces" in missing
    assert "body 3" in remark(lambda p: np.minimum(fields[0](p), fields[1](p)))
    assert "outside of all closed bodies" in remark(lambda p: np.full(len(p), -1.0))


def test_each_of_many_bodies_is_judged() -> None:
    x = np.linspace(-0.95, 0.95, 13)
    centres = np.stack(np.meshgrid(x, x, x, indexing="ij"), axis=-1).reshape(-1, 3)
    vertices, faces = box(0.03, 0.03, 0.03)
    mesh = (
        (centres[:, None] + vertices).reshape(-1, 3),
        (faces + 8 * np.arange(len(centres))[:, None, None]).reshape(-1, 3),
    )
    oracle = SignedDistance(*mesh)

    def without_one(p: np.ndarray) -> np.ndarray:
        signed = oracle.signed(p)
        return np.where(np.abs(p - centres[700]).max(axis=1) < 0.05, np.abs(signed), signed)

    for function, expected in ((oracle.signed, 0), (without_one, 1)):
        found = sign_disagreement(Analytic(function), oracle)
        assert found is not None
        assert found.fraction == expected
