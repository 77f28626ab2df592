"""Metrics against closed forms: concentric spheres, shifted spheres, a shape against itself, an open mesh."""

from __future__ import annotations

import math
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from neuralsdf.evaluation import metrics as metrics_module
from neuralsdf.evaluation.metrics import (
    SampledSurface,
    closed_volume,
    insides,
    loss,
    surface_distance,
    surface_error,
    true_surface,
    two_way,
)
from neuralsdf.fields.extract import extract
from neuralsdf.fields.field import NeuralField
from neuralsdf.fields.mesh_field import MeshField
from neuralsdf.geometry.similarity_transform import Similarity
from neuralsdf.mesh.mesh import Mesh
from neuralsdf.mesh.signed_distance import SignedDistance
from neuralsdf.program.network import Architecture, Network, initialise
from neuralsdf.storage import open_field
from neuralsdf.units import DIMENSIONS, to_mesh_units

from ..helpers import shapes
from ..helpers.fields import Analytic, box, sphere

NEVER_OPEN = set(DIMENSIONS) - {"accuracy_open", "two_way_open", "hausdorff_open", "closing_share"}

#: Enough for the tolerances below.
measure = partial(metrics_module.measure, points=10_000)
evaluate = partial(metrics_module.evaluate, points=10_000)


def sampled(mesh: shapes.Arrays, count: int = 20_000, seed: int = 0) -> SampledSurface:
    return SampledSurface(*mesh, count, np.random.default_rng(seed))


def test_concentric_spheres_are_as_far_apart_as_their_radii() -> None:
    metrics = two_way(sampled(shapes.sphere(0.9, 5)), sampled(shapes.sphere(1.0, 5)))
    for name in ("accuracy", "completeness", "two_way", "hausdorff"):
        assert metrics[name] == pytest.approx(0.1, abs=6e-4)
    assert metrics["f_score"] == 0
    assert metrics["normal_consistency"] == pytest.approx(1, abs=1e-3)


def test_a_surface_equals_itself_however_it_is_sampled() -> None:
    mesh = shapes.torus()
    metrics = two_way(sampled(mesh, seed=1), sampled(mesh, seed=2))
    assert metrics["hausdorff"] < 1e-7
    assert metrics["f_score"] == 1
    assert metrics["normal_consistency"] == pytest.approx(1)


def test_extra_surface_shows_in_accuracy_and_missing_surface_in_completeness() -> None:
    one = shapes.box(0.2, 0.2, 0.2)
    far = one[0] + [2.0, 0, 0], one[1]
    both, first = sampled(shapes.joined(one, far)), sampled(one)
    # From the far box's surface to the other's right face: its mean x is 2, so 1.8 on average.
    surplus = two_way(both, first)
    assert surplus["completeness"] < 1e-7
    assert surplus["accuracy"] == pytest.approx(1.8 / 2, rel=0.01)
    assert surplus["hausdorff"] == pytest.approx(2.0, abs=1e-3)
    assert surplus["f_score"] == pytest.approx(2 * 0.5 / 1.5, rel=0.02)
    missing = two_way(first, both)
    assert missing["accuracy"] < 1e-7
    assert missing["completeness"] == pytest.approx(1.8 / 2, rel=0.01)


def test_points_are_uniform_by_area_in_the_order_of_the_faces() -> None:
    surface = sampled(shapes.box(0.5, 0.25, 0.1), 60_000)
    areas = np.array([0.5 * 0.2, 1.0 * 0.2, 1.0 * 0.5])
    shares = np.abs(surface.normals).mean(axis=0)
    assert shares == pytest.approx(areas / areas.sum(), abs=0.01)
    assert np.abs(shapes.box_distance(surface.points, 0.5, 0.25, 0.1)).max() < 1e-12


@pytest.mark.parametrize("shift", [0.0, 0.1, 0.4])
def test_iou_of_shifted_spheres(shift: float) -> None:
    radius = 0.6
    oracle = SignedDistance(*shapes.sphere(radius, 5))
    box = np.full(3, -radius), np.full(3, radius + 0.4)
    found = insides(Analytic(sphere(radius, shift, 0, 0)), oracle, box, np.random.default_rng(0))
    lens = np.pi * (4 * radius + shift) * (2 * radius - shift) ** 2 / 12
    ball = 4 / 3 * np.pi * radius**3
    assert found.iou == pytest.approx(lens / (2 * ball - lens), abs=0.03)
    assert abs(found.difference) < 4 * found.deviation < 0.1 * ball


def test_iou_of_nothing_and_nothing_is_zero() -> None:
    oracle = SignedDistance(*shapes.sphere(0.1))
    box = np.full(3, 0.5), np.full(3, 0.6)
    assert insides(Analytic(sphere(0.1)), oracle, box, np.random.default_rng(0)).iou == 0


@pytest.mark.parametrize(
    ("mesh", "thickness", "volume", "exact"),
    [
        pytest.param(shapes.box(0.5, 0.3, 0.2), None, 0.24, True, id="closed"),
        pytest.param(shapes.joined(shapes.box(0.6, 0.6, 0.6), shapes.inverted(shapes.box(0.2, 0.2, 0.2))),
                     None, 1.728 - 0.064, True, id="with a cavity"),
        pytest.param(shapes.joined(shapes.box(0.6, 0.3, 0.3), shapes.box(0.3, 0.6, 0.3)),
                     None, 0.648, False, id="overlapping"),
        pytest.param(shapes.hemisphere(0.8, 24), None, 2 / 3 * np.pi * 0.8**3, False, id="open"),
        pytest.param(shapes.sphere(0.7, 4), 0.2, 4 / 3 * np.pi * (0.8**3 - 0.6**3), False, id="a shell"),
    ],
)  # fmt: skip
def test_the_volume_of_the_solid_that_a_mesh_describes(
    mesh: shapes.Arrays, thickness: float | None, volume: float, exact: bool
) -> None:
    oracle = SignedDistance(*mesh, "winding", thickness)
    field = MeshField(oracle, Similarity.identity())
    metrics = measure(field, oracle, resolution=64)
    assert metrics["mesh_volume"] == pytest.approx(volume, rel=1e-12 if exact else 0.015)
    assert (closed_volume(oracle, true_surface(oracle, resolution=64)) is None) == (not exact)


def test_the_volume_of_a_mesh_does_not_depend_on_the_field() -> None:
    """A field that lost two thirds of an overlapping solid."""
    oracle = SignedDistance(*shapes.joined(shapes.box(0.6, 0.3, 0.3), shapes.box(0.3, 0.6, 0.3)))
    metrics = measure(Analytic(box(0.6, 0.3, 0.15)), oracle, resolution=64, points=100_000)
    assert metrics["volume"] == pytest.approx(0.216, rel=0.01)
    assert metrics["mesh_volume"] == pytest.approx(0.648, rel=0.01)


def test_surface_error_and_loss_are_means_of_the_absolute_error() -> None:
    points = np.random.default_rng(0).normal(size=(1000, 3))
    points /= np.linalg.norm(points, axis=1, keepdims=True)
    error = surface_error(Analytic(lambda p: p[:, 2]), points)
    heights = np.abs(points[:, 2])
    expected = heights.mean(), np.percentile(heights, 95), heights.max()
    assert (error.mean, error.p95, error.max) == pytest.approx(expected, rel=1e-5)
    assert loss(Analytic(sphere(0.5)), points, np.full(1000, 0.3)) == pytest.approx(0.2, rel=1e-5)


def test_a_perfect_field_has_no_error_and_an_offset_field_the_offset() -> None:
    oracle = SignedDistance(*shapes.sphere(1.0, 5))
    perfect = measure(Analytic(sphere(1.0)), oracle, resolution=64)
    assert set(perfect) == NEVER_OPEN
    assert max(perfect[name] for name in ("loss", "far_error", "surface_max", "hausdorff")) < 2e-3
    assert perfect["iou"] > 0.995
    assert perfect["volume"] == pytest.approx(4 / 3 * np.pi, rel=0.01)
    assert perfect["area"] == pytest.approx(4 * np.pi, rel=0.01)
    offset = measure(Analytic(sphere(0.95)), oracle, resolution=64)
    for name in ("loss", "far_error", "surface_mean", "surface_p95", "two_way", "hausdorff"):
        assert offset[name] == pytest.approx(0.05, abs=2e-3)
    assert offset["iou"] == pytest.approx(0.95**3, abs=0.03)


def test_the_same_seed_gives_the_same_numbers() -> None:
    oracle, field = SignedDistance(*shapes.torus()), Analytic(sphere(0.8))
    first, again, other = (measure(field, oracle, seed=seed, resolution=32) for seed in (7, 7, 8))
    assert first == again
    assert first["iou"] != other["iou"]


def test_a_field_without_a_surface_has_the_metrics_that_need_none() -> None:
    metrics = measure(
        Analytic(lambda p: np.full(len(p), 0.2)), SignedDistance(*shapes.torus()), resolution=16
    )
    assert metrics["surface_mean"] == pytest.approx(0.2)
    assert metrics["iou"] == 0
    assert "two_way" not in metrics


def test_the_sheet_that_closes_an_open_mesh_is_left_out() -> None:
    """A hemisphere without its base, and the field of the closed half ball."""
    radius = 0.8
    hemisphere = shapes.hemisphere(radius)
    oracle = SignedDistance(*hemisphere)

    def half_ball(p: np.ndarray) -> np.ndarray:
        # Winding numbers of a hemisphere pass one half on a surface below its rim; any sheet there is valid.
        inside = np.where(oracle.inside(p), -1.0, 1.0)
        return inside * np.minimum(oracle.unsigned(p), np.abs(sphere(radius)(p)))

    metrics = measure(Analytic(half_ball), oracle, resolution=48)
    assert 0.2 < metrics["closing_share"] < 0.5
    assert metrics["two_way"] > 0.03
    assert metrics["two_way_open"] < 0.003
    assert metrics["accuracy_open"] < 0.004


def test_an_error_of_a_field_is_not_mistaken_for_a_closing_sheet() -> None:
    """A bubble beside the shape, far from the sheet, counts against the field."""
    radius = 0.6
    oracle = SignedDistance(*shapes.hemisphere(radius))
    true = sampled(shapes.hemisphere(radius))
    with_bubble = sampled(shapes.joined(shapes.hemisphere(radius), _moved(shapes.sphere(0.1), 0.8)))
    metrics = two_way(with_bubble, true, oracle.inside)
    assert metrics.get("hausdorff_open", metrics["hausdorff"]) == pytest.approx(0.3, abs=0.01)


def _moved(mesh: shapes.Arrays, x: float) -> shapes.Arrays:
    return mesh[0] + [x, 0, 0.1], mesh[1]


def test_a_thick_shell_is_measured_against_its_own_surface() -> None:
    """The solid |d| < T/2 around a sphere: two spheres."""
    thickness, middle = 0.2, 0.9
    oracle = SignedDistance(*shapes.sphere(middle, 5), thickness=thickness)
    shell = Analytic(lambda p: np.abs(sphere(middle)(p)) - thickness / 2)
    metrics = measure(shell, oracle, resolution=64)
    assert metrics["surface_max"] < 3e-3
    assert metrics["hausdorff"] < 3e-3
    assert metrics["area"] == pytest.approx(4 * np.pi * (1.0 + 0.8**2), rel=0.01)
    assert "two_way_open" not in metrics


def test_lengths_are_scaled_and_ratios_are_not() -> None:
    scaled = to_mesh_units(dict.fromkeys(DIMENSIONS, 2.0), 10.0)
    assert scaled["two_way"] == 20
    assert scaled["area"] == 200
    assert scaled["volume"] == 2000
    assert scaled["iou"] == scaled["f_score"] == 2


def test_evaluate_maps_the_mesh_by_the_fields_transform() -> None:
    vertices, faces = shapes.sphere(1.0, 5)
    transform = Similarity.from_ball((100.0, -50.0, 3.0), 25.0)
    mesh = Mesh.from_arrays(transform.apply(vertices), faces)
    evaluation = evaluate(Analytic(sphere(1.0), transform), mesh, resolution=64)
    assert evaluation.scale == 25
    assert evaluation.notes == ()
    assert evaluation.metrics["two_way"] < 1e-3
    moved = Mesh.from_arrays(transform.apply(vertices) + 5.0, faces)
    assert (
        "the mesh is misplaced" in evaluate(Analytic(sphere(1.0), transform), moved, resolution=32).notes[0]
    )


def test_evaluate_uses_the_thickness_that_the_field_was_made_with() -> None:
    transform = Similarity.from_ball((1.0, 2.0, 3.0), 4.0)
    network = Network(Architecture((4,)), initialise(Architecture((4,)), 0))
    field = NeuralField(network, transform, settings={"sign": "winding", "thickness": 0.8})
    vertices, faces = shapes.sphere(0.9, 3)
    metrics = evaluate(field, Mesh.from_arrays(transform.apply(vertices), faces), resolution=32).metrics
    shell = SignedDistance(vertices, faces, thickness=0.2)
    assert metrics == pytest.approx(measure(field, shell, resolution=32), rel=0.01)


def test_a_field_without_a_shape_has_the_metrics_that_need_no_surface():
    mesh = Mesh.from_arrays(*shapes.sphere(1.0, 2))
    for function, reason in ((lambda x: 1e-3 * x[:, 0], "no shape"), (lambda x: x[:, 0] + 2, "no surface")):
        evaluation = evaluate(Analytic(function), mesh, resolution=16)
        assert reason in evaluation.notes[-1]
        assert "surface_mean" in evaluation.metrics
        assert "two_way" not in evaluation.metrics


def test_an_authors_model_is_compared_in_its_own_ball(test_data: Path) -> None:
    """Its own mesh, scaled and moved, is aligned: errors vanish, in any units of the mesh."""
    model = open_field(test_data / "author-models" / "101636_sf.h5")
    surface = extract(model, 64)
    mesh = Mesh.from_arrays(30 * surface.vertices + [7, 8, 9], surface.faces)
    evaluation = evaluate(model, mesh, resolution=64)
    assert "radius 0.9" in evaluation.notes[0]
    assert math.isclose(evaluation.scale, 27, rel_tol=0.02)
    assert evaluation.metrics["surface_mean"] < 5e-3
    assert evaluation.metrics["iou"] > 0.95
    # Volume in mesh units, computed without the ball.
    volume = to_mesh_units(evaluation.metrics, evaluation.scale)["volume"]
    assert volume == pytest.approx(30**3 * surface.volume, rel=0.05)


@pytest.mark.parametrize("slope", [1e-3, 0.3, 1.0, 2.0])
def test_the_distance_from_a_surface_detects_a_flat_field(slope: float) -> None:
    """Every point of the sphere of radius 0.8 is 0.1 from that of 0.7, also for large gradient norms."""
    points, _ = shapes.sphere(0.8)
    field = Analytic(lambda p: slope * (np.linalg.norm(p, axis=1) - 0.7))
    assert surface_error(field, points).mean == pytest.approx(0.1 * slope, rel=1e-3)
    assert surface_distance(field, points) == pytest.approx(0.1 * max(slope, 1), rel=1e-3)


def test_a_field_without_a_surface_is_a_radius_away() -> None:
    points, _ = shapes.sphere(0.8)
    assert surface_distance(Analytic(lambda p: np.full(len(p), 1e-9)), points) == 1
