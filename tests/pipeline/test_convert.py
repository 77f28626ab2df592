"""Complete conversions: metrics are correct, the same seed gives the same bytes, and every messy file is
converted, or refused with a reason."""

from __future__ import annotations

import re

import numpy as np
import pytest

from neuralsdf.errors import FitError, MeshError, NeuralSDFError, NoInteriorError, UsageError
from neuralsdf.evaluation.failed_fit import failed_fit
from neuralsdf.evaluation.metrics import check_fit, measure
from neuralsdf.mesh.mesh import Mesh
from neuralsdf.mesh.save_mesh import save_mesh
from neuralsdf.mesh.signed_distance import SignedDistance
from neuralsdf.pipeline.convert import Conversion, fit_mesh
from neuralsdf.program.network import Architecture
from neuralsdf.storage import save_field
from neuralsdf.training.fit_settings import Training
from neuralsdf.training.sampling import Density
from neuralsdf.training.size_search import Target

from ..helpers import shapes
from ..helpers.fields import Analytic, sphere
from ..helpers.messy_meshes import MESSY_MESHES, fan, moebius_strip, write_off

#: Enough to run every stage; far too little to show a shape well.
TINY = {
    "architecture": Architecture.uniform(2, 16),
    "samples": 2000,
    "training": Training(epochs=1, batch=100),
}
#: Enough to distinguish simple solids.
SHORT = TINY | {"training": Training(epochs=20, batch=100)}

#: Enough to represent one or two boxes.
SOLID = {
    "architecture": Architecture.uniform(2, 16),
    "samples": 10_000,
    "training": Training(epochs=15, batch=200, learning_rate=0.01),
}


@pytest.fixture(scope="module")
def torus() -> Conversion:
    """A small but good fit of a torus in units of 100, away from the origin."""
    vertices, faces = shapes.torus(0.7, 0.25)
    mesh = Mesh.from_arrays(vertices * 100 + [1e4, 0, 0], faces, name="torus.ply")
    training = Training(epochs=12, batch=2048)
    return fit_mesh(mesh, architecture=Architecture.uniform(5, 24), samples=100_000, training=training)


def test_the_fit_of_a_torus_has_its_volume_and_distances(torus):
    field, measured = torus.field, torus.field.metrics
    assert measured["surface_mean"] < 0.003
    assert measured["iou"] > 0.97
    assert measured["volume"] == pytest.approx(2 * np.pi**2 * 0.7 * 0.25**2 / 0.95**3, rel=0.03)
    assert field.transform.scale == pytest.approx(95, rel=1e-3)
    # In mesh units, against the formula, all over the ball.
    local = np.random.default_rng(0).uniform(-55, 55, (5000, 3))
    exact = np.hypot(np.hypot(local[:, 0], local[:, 1]) - 70, local[:, 2]) - 25
    error = np.abs(field.distance(local + np.array([1e4, 0, 0])) - exact)
    assert error.mean() < 1.5
    assert error[np.abs(exact) < 3].mean() < 0.5


def test_the_measured_surface_error_is_that_of_the_field(torus):
    vertices, faces = shapes.torus(0.7, 0.25)
    rng = np.random.default_rng(7)
    corners = vertices[faces[rng.integers(0, len(faces), 20_000)]] * 100 + [1e4, 0, 0]
    points = (corners * rng.dirichlet(np.ones(3), 20_000)[:, :, None]).sum(axis=1)
    error = np.abs(torus.field.distance(points)).mean() / torus.field.transform.scale
    assert error == pytest.approx(torus.field.metrics["surface_mean"], rel=0.15)


def test_every_stage_is_timed_but_no_time_is_in_the_file(torus):
    assert list(torus.seconds) == ["load", "prepare", "sample", "fit", "measure"]
    assert not any("second" in name or "time" in name for name in torus.field.metrics | torus.field.settings)


@pytest.mark.parametrize("precision", ["f32", "f16", "int8"])
def test_the_same_seed_gives_the_same_file(tmp_path, quick_metrics, precision):
    vertices, faces = shapes.box(0.5, 0.3, 0.2)
    for name, seed in (("a", 3), ("b", 3), ("c", 4)):
        mesh = Mesh.from_arrays(vertices, faces)
        save_field(fit_mesh(mesh, **TINY, precision=precision, seed=seed).field, tmp_path / f"{name}.h5")
    assert (tmp_path / "a.h5").read_bytes() == (tmp_path / "b.h5").read_bytes()
    assert (tmp_path / "a.h5").read_bytes() != (tmp_path / "c.h5").read_bytes()


@pytest.mark.parametrize("scale", [1e-9, 1.0, 1e9])
def test_metrics_do_not_depend_on_the_unit(quick_metrics, scale):
    vertices, faces = shapes.box(0.5, 0.3, 0.2)
    mesh = Mesh.from_arrays(vertices * scale + scale * 1000, faces)
    reference = fit_mesh(Mesh.from_arrays(vertices, faces), **TINY).field
    made = fit_mesh(mesh, **TINY).field
    assert made.transform.scale == pytest.approx(reference.transform.scale * scale)
    assert made.metrics["surface_mean"] == pytest.approx(reference.metrics["surface_mean"], rel=0.02)


@pytest.mark.parametrize("weight", ["curvature", "thickness", "file"])
def test_weights_are_followed(tmp_path, quick_metrics, weight):
    vertices, faces = shapes.torus()
    if weight == "file":
        np.save(tmp_path / "painted.npy", np.where(vertices[:, 0] > 0, 5.0, 1.0))
        weight = str(tmp_path / "painted.npy")
    made = fit_mesh(Mesh.from_arrays(vertices, faces), **TINY, weight=weight).field
    assert made.settings["weight"] in ("curvature", "thickness", "painted.npy")


def test_weights_that_do_not_fit_the_mesh_are_refused(tmp_path):
    np.save(tmp_path / "few.npy", np.ones(3))
    with pytest.raises(NeuralSDFError, match="8 vertices"):
        fit_mesh(Mesh.from_arrays(*shapes.box(1, 1, 1)), **TINY, weight=str(tmp_path / "few.npy"))


def test_a_sheet_needs_a_thickness_and_the_suggested_one_works(tmp_path, quick_metrics):
    vertices, faces = shapes.box(5, 5, 5)
    path = tmp_path / "sheet.obj"
    save_mesh(path, vertices, faces[(vertices[faces, 2] > 0).all(axis=1)])
    with pytest.raises(NoInteriorError, match=r"sheet.obj: has no inside .* `thickness=0\.42`") as refusal:
        fit_mesh(path, **TINY)
    assert str(path) in str(refusal.value)
    made = fit_mesh(path, **TINY, thickness=0.42).field
    assert made.settings["thickness"] == 0.42
    assert made.transform.scale == pytest.approx(5 * np.sqrt(2) + 0.21)


def test_invalid_options_are_usage_errors():
    mesh = Mesh.from_arrays(*shapes.box(1, 1, 1))
    for bad in ({"thickness": -1.0}, {"thickness": 1e30}, {"sign": "guess"}, {"precision": "f8"}):
        with pytest.raises(UsageError):
            fit_mesh(mesh, **(TINY | bad))
    with pytest.raises(UsageError, match="`sampling="):
        fit_mesh(mesh, **TINY, weight="curvature", density=Density("uniform"))


#: Enough that every messy mesh has a surface; and more for thin parts.
MORE = {"samples": 5000, "training": Training(epochs=5, batch=100)}
THIN = {"architecture": Architecture.uniform(3, 16), "samples": 10_000}


#: Every file of meshes/messy: "" if it converts, else words of the error.
MESSY = {
    "2triangles.off": "",
    "AlphaBlendModeTest.glb": "",
    "beetle.obj": "",
    "busted.STL": "",
    "chair_0891.off": "",
    "collapse_initial_state_104985.obj": "no faces",
    "comments.off": "",
    "cube_and_sphere_same_name.3mf": "",
    "derived_bunny_points_only.ply": "point cloud",
    "derived_cheburashka_drop10.obj": "",
    "derived_cheburashka_flip30.off": "",
    "derived_cow_inverted.ply": "",
    "derived_cow_offset_1e6.off": "",
    "derived_cow_scale_1e-9.ply": "",
    "derived_duck_truncated.glb": "truncated",
    "derived_fertility_is_off.stl": "",
    "derived_homer_dup500_degen300.ply": "",
    "derived_homer_truncated.stl": "truncated",
    "derived_horse_bad_index.off": "vertex index out of range",
    "derived_html_page.stl": "web page",
    "derived_plate_is_stl.ply": "",
    "derived_random_bytes.stl": "not an STL",
    "derived_spot_nan5.obj": "nan",
    "derived_spot_spike_1e30.ply": "vertex 77",
    "derived_suzanne_truncated.obj": "truncated",
    "derived_two_elephants_overlap.ply": "",
    "derived_zero_bytes.obj": "empty",
    "derived_zero_bytes.stl": "empty",
    "edge_with_four_triangles.off": "`thickness=",
    "empty.obj": "no faces",
    "hourglass_ico.obj": "",
    "inspired_mesh_quads_Smooth.off": "",
    "moebius.obj": "",
    "nancolor.obj": "",
    "negative_indices.obj": "",
    "nested.glb": "",
    "no_indices_3storybuilding.glb": "",
    "not_convex.obj": "",
    "notenoughindices.obj": "`thickness=",
    "obj_wireframe.obj": "wireframe",
    "ogre.obj": "",
    "planexy.off": "`thickness=",
    "ply_empty_header.ply": "no faces",
    "points_bin.ply": "point cloud",
    "points_emptyface.ply": "point cloud",
    "polygonfaces.obj": "",
    "shared.STL": "",
    "soup.stl": "",
    "stl_empty_bin.stl": "no faces",
    "triple_vierbein.obj": "",
    "truck.obj": "",
    "wallhole.obj": "",
    "woody.obj": "`thickness=",
}


@pytest.mark.parametrize("name", MESSY)
def test_a_messy_file_converts_or_is_refused_with_its_reason(test_data, quick_metrics, name):
    path = test_data / "meshes" / "messy" / name
    if MESSY[name]:
        with pytest.raises(MeshError) as refusal:
            fit_mesh(path, **TINY)
        line = str(refusal.value)
        assert MESSY[name] in line
        assert line.startswith(str(path))
        assert "\n" not in line
        assert ";" in line  # and the remedy
    else:
        made = fit_mesh(path, **TINY | MORE | (THIN if name == "chair_0891.off" else {}))
        assert all(np.isfinite(value) for value in made.field.metrics.values())
        assert len(made.warnings) <= 2


@pytest.mark.parametrize("name", MESSY_MESHES)
def test_a_messy_mesh_becomes_the_solid_that_it_describes(tmp_path, quick_metrics, name):
    messy = MESSY_MESHES[name]
    made = fit_mesh(write_off(tmp_path / "messy.off", messy.mesh), **SOLID)
    points, transform = messy.points()[:2000], made.field.transform  # such a small network misses small parts
    inside = made.field.value(transform.apply_inverse(points).astype(np.float32)) < 0
    assert (inside == messy.inside(points)).mean() > 0.8
    assert all(np.isfinite(value) for value in made.field.metrics.values())
    assert made.field.metrics["iou"] > 0.75
    assert messy.said in "\n".join(made.warnings)


def test_a_moebius_strip_is_a_shell_of_a_thickness_and_a_fan_is_refused(tmp_path, quick_metrics):
    strip = write_off(tmp_path / "strip.off", moebius_strip())
    made = fit_mesh(strip, **SOLID, thickness=0.3)
    assert made.field.metrics["iou"] > 0.6
    with pytest.raises(NoInteriorError, match=r"fan\.off: has no inside .*`thickness="):
        fit_mesh(write_off(tmp_path / "fan.off", fan()), **SOLID)


@pytest.mark.parametrize("suffix", [".obj", ".off", ".ply", ".stl", ".glb"])
def test_a_truncated_file_is_refused_in_one_line_with_a_remedy(tmp_path, suffix):
    save_mesh(tmp_path / f"whole{suffix}", *shapes.sphere(1.0, 2))
    whole = (tmp_path / f"whole{suffix}").read_bytes()
    path = tmp_path / f"half{suffix}"
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(MeshError, match="truncated") as refusal:
        fit_mesh(path, **TINY)
    assert str(refusal.value).startswith(f"{path}: ")
    assert "\n" not in str(refusal.value)
    assert refusal.value.remedy


def test_every_messy_file_is_in_the_table(test_data):
    assert {path.name for path in (test_data / "meshes" / "messy").iterdir()} == set(MESSY)


def test_faults_found_in_a_file_cause_warnings(test_data, quick_metrics):
    said = {
        "derived_two_elephants_overlap.ply": "overlap",
        "derived_cow_inverted.ply": "inverted orientation: faces flipped",
        "derived_cheburashka_drop10.obj": "closed where its winding number is 1/2",
        "derived_homer_dup500_degen300.ply": "500 duplicate faces",
    }
    for name, words in said.items():
        made = fit_mesh(test_data / "meshes" / "messy" / name, **TINY)
        assert words in made.warnings[0]


def test_a_mesh_without_any_inside_among_the_clean_ones_is_refused_by_name(test_data):
    with pytest.raises(
        NoInteriorError, match=r"chair_model.obj: has no inside by winding number; .*`thickness="
    ):
        fit_mesh(test_data / "meshes" / "chair_model.obj", **TINY)


@pytest.mark.parametrize("target", [None, Target(1e-6)])
def test_a_fit_without_a_surface_is_an_error(quick_metrics, monkeypatch, target):
    """After one step, a network of eight neurons does not show a torus."""
    monkeypatch.setattr("neuralsdf.training.size_search.WIDTHS", (8,))
    mesh = Mesh.from_arrays(*shapes.torus(), name="torus.ply")
    hopeless = {"architecture": Architecture.uniform(2, 8), "samples": 1000, "training": Training(epochs=1)}
    with pytest.raises(
        FitError, match=r"^torus.ply: the fit failed: the field has no surface: .*`epochs=`"
    ) as failure:
        fit_mesh(mesh, **hopeless, target=target)
    assert ("`width=`" in str(failure.value)) == (target is None)


@pytest.mark.parametrize(
    ("metrics", "lacks"),
    [
        ({}, False),  # not measured
        ({"iou": 0.9}, True),  # nothing could be extracted
        ({"iou": 0.9, "two_way": 0.01}, False),
        ({"iou": 0.0499, "two_way": 0.01}, True),
        ({"iou": np.nan, "two_way": 0.01}, True),
    ],
)
def test_a_fit_has_failed_if_no_surface_was_found_or_its_iou_is_low(metrics, lacks):
    assert (failed_fit(metrics) is not None) == lacks


@pytest.mark.parametrize("measure", [True, False])
def test_the_error_of_a_failed_fit_names_the_reason(quick_metrics, measure):
    """A constant field fills the ball as the sphere does: its IoU is close to 1, but it has no surface."""
    mesh = Mesh.from_arrays(*shapes.sphere(1.0, 2), name="ball.ply")
    with pytest.raises(FitError) as failure:
        fit_mesh(mesh, samples=1000, training=Training(epochs=1), measure=measure)
    found = re.search(
        r"values differ by only (\S+) in its ball \((\S+) to (\S+)\), those of a shape by 0\.05 or more; ",
        str(failure.value),
    )
    assert found is not None, failure.value
    spread, low, high = map(float, found.groups())
    assert spread == pytest.approx(high - low, rel=0.2)
    assert spread < 0.05
    assert "IoU" not in str(failure.value)
    assert failed_fit({"iou": 0.04, "two_way": 0.3}) == "the fit failed: its IoU is 0.04, below 0.05"


@pytest.mark.parametrize("thickness", [None, 0.3])
def test_without_measuring_the_weights_are_the_same_and_a_surface_is_required(quick_metrics, thickness):
    mesh = Mesh.from_arrays(*shapes.torus(), name="torus.ply")
    measured = fit_mesh(mesh, **TINY, thickness=thickness)
    made = fit_mesh(mesh, **TINY, thickness=thickness, measure=False)
    assert (made.field.network.weights == measured.field.network.weights).all()
    assert made.field.metrics == {}
    assert not any("cut short" in line for line in made.warnings)
    hopeless = {"architecture": Architecture.uniform(2, 8), "samples": 1000, "training": Training(epochs=1)}
    with pytest.raises(FitError, match=r"^torus\.ply: the fit failed: the field has no surface"):
        fit_mesh(mesh, **hopeless, measure=False)


def test_the_quick_check_agrees_with_the_metrics(quick_metrics):
    """Of fields with and without a surface, and of one whose sign is wrong."""
    vertices, faces = shapes.sphere(0.6, 3)
    oracle = SignedDistance(vertices, faces)
    for function, fits in (
        (sphere(0.6), True), (sphere(0.3), True), (sphere(0.1), False), (sphere(-0.1), False),
        (lambda p: -sphere(0.6)(p), False), (lambda p: np.full(len(p), 0.001), False),
    ):  # fmt: skip
        field = Analytic(function)
        assert (check_fit(field, oracle) is None) == fits
        assert (failed_fit(measure(field, oracle)) is None) == fits


def test_a_tree_without_a_surface_is_named(tmp_path):
    (tmp_path / "none.csg").write_text("box(2) - box(3)")
    with pytest.raises(NeuralSDFError, match=r"none\.csg: .*(empty|no surface)"):
        fit_mesh(tmp_path / "none.csg")


@pytest.mark.parametrize("closed", [True, False])
def test_a_mesh_without_an_inside_is_refused_with_a_remedy_that_works(quick_metrics, closed):
    """All faces come in both orientations, and one of them a third time: as oriented, nothing is closed."""
    vertices, faces = shapes.box(1, 1, 1)
    faces = faces if closed else faces[1:]
    mesh = Mesh.from_arrays(vertices, np.vstack([faces, faces[:, ::-1], faces[:1]]), name="doubled.ply")
    with pytest.raises(
        NoInteriorError, match=r"doubled.ply: has no inside by winding .*`thickness="
    ) as refusal:
        fit_mesh(mesh, **TINY)
    assert ('`sign="parity"`' in str(refusal.value)) == closed
    if closed:
        made = fit_mesh(mesh, sign="parity", **SHORT)
        assert made.field.metrics["iou"] > 0.8


def test_parity_is_suggested_where_the_faces_of_a_closed_mesh_disagree(quick_metrics):
    vertices, faces = shapes.sphere(1.0, 3)
    faces = np.where(np.random.default_rng(0).random((len(faces), 1)) < 0.3, faces[:, ::-1], faces)
    assert '`sign="parity"`' in fit_mesh(Mesh.from_arrays(vertices, faces), **SHORT).warnings[0]
    assert '`sign="parity"`' not in fit_mesh(Mesh.from_arrays(vertices, faces[1:]), **SHORT).warnings[0]


def test_a_closed_mesh_whose_faces_come_in_both_orientations_converts(quick_metrics):
    vertices, faces = shapes.box(1, 1, 1)
    mesh = Mesh.from_arrays(vertices, np.vstack([faces, faces[:, ::-1]]))
    made = fit_mesh(mesh, **SHORT)
    assert made.field.metrics["volume"] * made.field.transform.scale**3 == pytest.approx(8, rel=0.15)
    assert made.field.metrics["iou"] > 0.8
    assert "faces of 1 of 2 closed bodies flipped" in made.warnings[0]


def test_a_surface_that_encloses_nothing_is_reported(quick_metrics):
    """A doubled sheet beside a ball: it is not part of the solid, so its absence must be reported."""
    sheet = shapes.box(0.7, 0.7, 0.7)
    top = sheet[1][(sheet[0][sheet[1], 2] > 0).all(axis=1)]
    ball = shapes.moved(shapes.sphere(1.0, 3), [3, 0, 0])
    mesh = shapes.joined((sheet[0], np.vstack([top, top[:, ::-1]])), ball)
    share = 2 * 1.4**2 / (2 * 1.4**2 + 4 * np.pi)
    made = fit_mesh(Mesh.from_arrays(*mesh), **SHORT)
    found = re.search(r"(\d+)% of its surface encloses no volume.*`thickness=`", made.warnings[0])
    assert float(found[1]) == pytest.approx(100 * share, abs=3)


def test_the_warning_of_a_short_fit_does_not_suggest_a_larger_width(quick_metrics):
    vertices, faces = shapes.torus(0.7, 0.25)
    made = fit_mesh(Mesh.from_arrays(vertices, faces, name="torus.ply"), **TINY)
    assert made.field.metrics["surface_mean"] > 0.01
    (line,) = made.warnings
    assert "cut short" in line
    assert "`epochs=`" in line
    assert "`width=" not in line
