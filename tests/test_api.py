"""The public API: `import neuralsdf as ns`."""

from __future__ import annotations

import builtins
import copy
import inspect
import json
import multiprocessing
import pickle
import pydoc
import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from typing import Any

import click
import numpy as np
import pytest
import trimesh
from click.testing import CliRunner
from PIL import Image

import neuralsdf as ns
from neuralsdf import backends
from neuralsdf.backends import get_backend
from neuralsdf.backends.reference.tape_interpreter import TapeProgram
from neuralsdf.cli.commands.render import view
from neuralsdf.cli.main import LazyGroup, main
from neuralsdf.csg.shape import METHODS
from neuralsdf.errors import UsageError
from neuralsdf.evaluation.metrics import evaluate
from neuralsdf.fields.field import NeuralField
from neuralsdf.mesh.mesh import Mesh
from neuralsdf.mesh.save_mesh import save_mesh
from neuralsdf.storage.csg_file import parse_tree, read_tree
from neuralsdf.storage.dataset import write_dataset

from .helpers import shapes
from .helpers.core import needs_core
from .helpers.fields import Analytic, sphere
from .helpers.quick_metrics import quick_metrics

pytestmark = pytest.mark.usefixtures("quick_metrics")

#: A fit of less than a second.
QUICK: dict[str, Any] = {"layers": 3, "width": 16, "samples": 20_000, "epochs": 6, "batch": 256}
POINTS = np.random.default_rng(0).uniform(-1.5, 1.5, (4, 5, 3))


@pytest.fixture(scope="module")
def network() -> NeuralField:
    """A box of 1 x 0.6 x 0.4."""
    with quick_metrics():
        return ns.convert(trimesh.creation.box((1, 0.6, 0.4)), **QUICK)


@pytest.fixture
def coarse_bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    """Larger bounding balls of trees, found in less time; their distances are the same."""
    monkeypatch.setattr("neuralsdf.csg.tree_bounds._HALVINGS", 3)


@pytest.fixture
def ball(tmp_path: Path) -> ns.Field:
    """The exact field of a ball of radius 1."""
    save_mesh(tmp_path / "ball.ply", *shapes.sphere(1.0, 4))
    return ns.load(tmp_path / "ball.ply")


# -- the package ----------------------------------------------------------------------------------


def test_importing_it_imports_nothing_else() -> None:
    code = (
        "import json, sys, time; began = time.process_time(); import neuralsdf;"
        "took = time.process_time() - began; assert 'convert' in dir(neuralsdf);"
        "print(json.dumps([took, sorted(name.partition('.')[0] for name in sys.modules)]))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    took, modules = json.loads(done.stdout)
    assert not {"numpy", "scipy", "torch", "igl", "trimesh", "h5py", "PIL", "click"} & set(modules)
    assert took < 1.0


def test_every_name_exists_and_is_documented() -> None:
    assert set(ns.__all__) <= set(dir(ns))
    text = pydoc.plain(pydoc.render_doc(ns))
    for name in ns.__all__:
        value = getattr(ns, name)
        assert value is getattr(ns, name)
        if name != "__version__":
            assert inspect.getdoc(value), name
            assert name in text
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = ns.nothing  # type: ignore[attr-defined]


def test_completion_offers_only_public_names() -> None:
    assert {name for name in dir(ns) if not name.startswith("__")} == set(ns.__all__) - {"__version__"}


def test_errors_that_the_documentation_names_can_be_caught() -> None:
    documented = [getattr(ns, name) for name in ns.__all__ if name != "__version__"]
    members = [m for kind in (ns.Field, ns.Dataset) for m in vars(kind).values() if callable(m)]
    for value in documented + members:
        for name in re.findall(r"`(\w+Error)`", inspect.getdoc(value) or ""):
            assert name in ns.__all__ or hasattr(builtins, name), (value, name)


def test_type_checkers_see_the_public_names() -> None:
    """The imports that only type checkers read are those that `__getattr__` makes."""
    source = inspect.getsource(ns)
    seen = source[source.index("if TYPE_CHECKING:") : source.index("__all__")]
    for name in ns.__all__:
        assert name == "__version__" or name in seen.replace(",", " ").split(), name


# -- keywords -------------------------------------------------------------------------------------


def options_of(command: str) -> set[str]:
    """The options of a command by name, such as `learning_rate` of --learning-rate."""
    assert isinstance(main, LazyGroup)
    found = main.get_command(click.Context(main), command)
    assert found is not None
    names = {name for parameter in found.params for name in parameter.opts}
    return {name.removeprefix("--").replace("-", "_") for name in names if name.startswith("--")}


def keywords_of(function: Any) -> set[str]:
    parameters = inspect.signature(function).parameters.values()
    return {parameter.name for parameter in parameters if parameter.kind is parameter.KEYWORD_ONLY}


def test_keywords_of_convert_are_the_options_of_the_command() -> None:
    shared = {"output", "force", "layout", "json"}  # of `save`, and of the command's own output
    general = {"threads", "max_input", "quiet", "verbose", "debug"}
    assert keywords_of(ns.convert) == options_of("convert") - shared - general


def test_keywords_of_load_are_options_of_the_commands() -> None:
    assert keywords_of(ns.load) <= options_of("query")
    assert keywords_of(ns.Field.distance) | keywords_of(ns.Field.gradient) <= options_of("query")


def test_keywords_of_exact_are_options_of_convert() -> None:
    assert keywords_of(ns.exact) <= options_of("convert")


def test_messages_name_the_keywords_of_the_api() -> None:
    """An error of `convert` names a keyword that it has."""
    box = trimesh.creation.box((1, 1, 1))
    for keyword, value in {
        "epochs": 0,
        "time": -1.0,
        "sampling": "nowhere",
        "target_error": -1,
        "device": "abacus",
        "learning_rate": -1.0,
        "beta": -1.0,
    }.items():
        with pytest.raises(ns.UsageError, match=f"`{keyword}="):
            ns.convert(box, **{keyword: value})
    with pytest.raises(ns.UsageError, match="`units="):
        ns.convert(box, **QUICK, measure=False).in_unit("mm")


# -- convert --------------------------------------------------------------------------------------


def test_a_mesh_may_be_given_in_any_form(tmp_path: Path) -> None:
    vertices, faces = shapes.box(0.5, 0.25, 0.125)  # exact in a file of 32 bits, too
    save_mesh(tmp_path / "box.ply", vertices, faces)
    mesh = trimesh.Trimesh(vertices, faces, process=False)
    mesh.export(tmp_path / "scene.glb")
    options = QUICK | {"measure": False}
    of_arrays = ns.convert(vertices, faces, **options)
    others = {
        "a path": ns.convert(tmp_path / "box.ply", **options),
        "its name": ns.convert(str(tmp_path / "box.ply"), **options),
        "a pair": ns.convert((vertices, faces), **options),
        "lists": ns.convert(vertices.tolist(), faces.tolist(), **options),
        "trimesh": ns.convert(mesh, **options),
        "a scene": ns.convert(trimesh.Scene([mesh]), **options),
        "an exact field": ns.convert(ns.load(tmp_path / "box.ply"), **options),
        "one made in memory": ns.convert(ns.exact(mesh), **options),
    }
    for name, field in others.items():
        np.testing.assert_array_equal(field.network.weights, of_arrays.network.weights, err_msg=name)


@pytest.mark.parametrize(
    "options", [{}, {"sign": "parity"}, {"sign": "pseudonormal"}, {"thickness": 0.1}, {"device": "torch"}]
)
def test_the_exact_field_of_a_mesh_is_that_of_its_file(tmp_path: Path, options: dict[str, Any]) -> None:
    vertices, faces = shapes.box(0.5, 0.25, 0.125)
    save_mesh(tmp_path / "box.ply", vertices, faces)
    mesh = trimesh.Trimesh(vertices, faces, process=False)
    of_file = ns.load(tmp_path / "box.ply", **options)
    for given in ((mesh,), (trimesh.Scene([mesh]),), (vertices, faces), ((vertices, faces),)):
        field = ns.exact(*given, **options)
        np.testing.assert_array_equal(field.distance(POINTS), of_file.distance(POINTS))
        np.testing.assert_array_equal(field.gradient(POINTS), of_file.gradient(POINTS))
        assert field.chosen_backend is of_file.chosen_backend


def test_exact_fields_of_meshes_in_memory_are_fields(tmp_path: Path) -> None:
    ball = ns.exact(trimesh.creation.icosphere(4), units="cm")
    assert ball.in_unit("mm").volume == pytest.approx(1000 * ball.volume)
    (ball - ns.box(0.5)).save(tmp_path / "ball.csg")  # in a bundle, since no file holds it
    assert (ball - ns.box(0.5)).distance([0, 0, 2]) == pytest.approx(1, abs=0.01)
    assert ns.load(tmp_path / "ball.csg").distance([0, 0, 2]) == pytest.approx(1, abs=0.01)
    assert ball.to_mesh(64).volume == pytest.approx(ball.volume, rel=0.01)
    with pytest.raises(ns.MeshError, match=r"mesh: has no inside.*`thickness="):
        ns.exact([[0, 0, 0], [1, 0, 0], [0, 1, 0]], [[0, 1, 2]])
    for wrong, remedy in (("ball.ply", "`neuralsdf.load`"), (ball, "to_mesh"), (None, "give a trimesh")):
        with pytest.raises(ns.UsageError, match=remedy):
            ns.exact(wrong)  # type: ignore[arg-type]


@pytest.mark.parametrize("nothing", [None, 3, np.zeros((3, 3)), {"vertices": []}])
def test_values_that_are_not_meshes_are_refused(nothing: Any) -> None:
    with pytest.raises(ns.UsageError, match="is not a mesh: give a trimesh"):
        ns.convert(nothing)


def test_options_reach_the_network(network: NeuralField) -> None:
    assert network.network.architecture.hidden == (16,) * 3
    settings = network.settings
    assert (settings["samples"], settings["epochs"], settings["seed"]) == (20_000, 6, 0)
    found = ns.convert(
        trimesh.creation.icosphere(2), samples=20_000, batch=256, epochs=4, target_error="0.05u"
    )
    assert found.settings["target_met"]
    assert ns.convert(trimesh.creation.icosphere(2), **QUICK, units="cm", measure=False).unit == "cm"


def test_the_default_backend_is_not_loaded_if_a_device_was_chosen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def default() -> str:
        raise AssertionError("the default backend was asked for")

    monkeypatch.setattr(backends, "_default", default)
    save_mesh(tmp_path / "box.ply", *shapes.box(1, 0.6, 0.4))
    made = ns.convert(tmp_path / "box.ply", **QUICK, measure=False, device="torch")
    made.save(tmp_path / "box.h5")
    write_dataset(tmp_path / "set.h5", [("box", tmp_path / "box.h5")])
    listed = ns.Dataset(tmp_path / "set.h5", device="torch")
    assert listed.evaluate(POINTS.reshape(-1, 3)).shape == (1, 20)
    exact = ns.load(tmp_path / "box.ply", device="torch")
    (ns.sphere(0.5) | ns.box(0.2)).save(tmp_path / "solids.csg")
    loaded = ns.load(tmp_path / "box.h5", device="torch")
    tree = exact.translate(0.1) | ns.smooth(0.1, loaded)
    for field in (
        made,
        loaded,
        listed.field(0),
        exact,
        tree,
        ns.load(tmp_path / "solids.csg", device="torch"),
    ):
        assert field.backend.name == "torch"
        field.distance(POINTS)
        field.to_mesh(32, faces=200)
        field.render(16, 16)
    evaluate(made, Mesh.from_arrays(*shapes.box(1, 0.6, 0.4)), resolution=32, points=1000)
    with pytest.raises(AssertionError, match="default"):
        ns.load(tmp_path / "box.h5").distance(POINTS)


def test_the_device_is_not_in_the_file(tmp_path: Path) -> None:
    for device in ("auto", "cpu"):
        ns.convert(shapes.box(1, 0.6, 0.4), **QUICK, measure=False, device=device).save(
            tmp_path / f"{device}.h5"
        )
    assert (tmp_path / "auto.h5").read_bytes() == (tmp_path / "cpu.h5").read_bytes()


def test_a_field_pickles_with_its_backend(network: NeuralField) -> None:
    plain = replace(network, chosen_backend=get_backend("torch"))
    again = pickle.loads(pickle.dumps(plain))
    assert again.backend is get_backend("torch")
    assert np.array_equal(again.distance(POINTS), plain.distance(POINTS))


def test_metrics_and_warnings_come_with_the_field(network: NeuralField) -> None:
    assert network.metrics["iou"] > 0.8
    assert network.warnings == ()
    inverted = ns.convert(*shapes.inverted(shapes.box(0.5, 0.3, 0.2)), **QUICK, measure=False)
    assert dict(inverted.metrics) == {}
    assert any("flipped" in line for line in inverted.warnings)
    sheet = trimesh.Trimesh([[0, 0, 0], [1, 0, 0], [0, 1, 0]], [[0, 1, 2]])
    with pytest.raises(ns.MeshError, match="`thickness="):
        ns.convert(sheet)


# -- distances ------------------------------------------------------------------------------------


def test_distances_have_the_shape_of_the_points(ball: ns.Field) -> None:
    expected = np.linalg.norm(POINTS, axis=-1) - 1
    assert ball.distance(POINTS) == pytest.approx(expected, abs=0.01)
    assert ball.distance(POINTS.tolist()) == pytest.approx(expected, abs=0.01)
    assert ball.distance(POINTS[0, 0]).shape == ()
    assert float(ball.distance([0, 0, 3])) == pytest.approx(2, abs=0.01)
    np.testing.assert_array_equal(ball.distance(POINTS)[1], ball.distance(POINTS[1]))
    np.testing.assert_allclose(ball.distance(POINTS.astype(np.float32)), ball.distance(POINTS), atol=1e-6)
    directions = ball.gradient(POINTS)
    assert directions.shape == POINTS.shape
    np.testing.assert_allclose(np.linalg.norm(directions, axis=-1), 1, atol=1e-6)
    assert (np.sum(directions * POINTS, axis=-1) / np.linalg.norm(POINTS, axis=-1) > 0.98).all()


@pytest.mark.parametrize("shape", [(0, 3), (2, 0, 3), (0, 7, 3)])
def test_no_points_have_no_distances(ball: ns.Field, network: NeuralField, shape: tuple[int, ...]) -> None:
    for field in (ball, network):
        assert field.distance(np.empty(shape)).shape == shape[:-1]
        assert field.gradient(np.empty(shape)).shape == shape
        assert field.distance([]).shape == (0,)
        assert field.gradient([]).shape == (0, 3)


@pytest.mark.parametrize(
    "points", [1, [1, 2], [[1, 2]], np.zeros((3, 2)), [[1, 2, 3], [1, 2]], "xyz", [["a"] * 3]]
)
def test_values_that_are_not_points_are_refused(ball: ns.Field, points: Any) -> None:
    for ask in (ball.distance, ball.gradient):
        with pytest.raises(ns.UsageError, match=r"\(\.\.\., 3\)"):
            ask(points)


def test_a_point_that_is_not_finite_has_no_distance(ball: ns.Field, network: NeuralField) -> None:
    points = np.array([[[0, 0, 0], [np.nan, 0, 0]], [[0, np.inf, 0], [2, 0, 0]]])
    for field in (ball, network):
        np.testing.assert_array_equal(np.isnan(field.distance(points)), [[False, True], [True, False]])
        assert np.isnan(field.gradient(points)[0, 1]).all()


def test_an_occupancy_field_has_no_distance() -> None:
    field = Analytic(sphere(0.5))
    field.kind = "occupancy"
    for ask in (field.distance, field.gradient):
        with pytest.raises(ns.FieldKindError):
            ask(POINTS)


# -- operators ------------------------------------------------------------------------------------


def length(points: Any) -> Any:
    return np.linalg.norm(points, axis=-1)


@pytest.mark.usefixtures("coarse_bounds")
def test_any_two_fields_combine(network: NeuralField, ball: ns.Field) -> None:
    """Of all pairs of kinds, in both orders, compared with the values of the two."""
    moved = np.array([0.4, 0.2, -0.1])
    fields = [network, ball, ns.sphere(0.8).translate(*moved), ns.box(1) - ns.sphere(0.6)]
    for a in fields:
        for b in fields:
            ours, theirs = (field.distance(POINTS, bound=True) for field in (a, b))
            for made, expected in (
                (a | b, np.minimum(ours, theirs)),
                (a & b, np.maximum(ours, theirs)),
                (a - b, np.maximum(ours, -theirs)),
                (ns.union([a, b]), np.minimum(ours, theirs)),
                (a.blend(b, 0.25), 0.75 * ours + 0.25 * theirs),
            ):
                assert isinstance(made, ns.Field)
                np.testing.assert_allclose(made.distance(POINTS), expected, atol=2e-5)
                assert made.gradient(POINTS).shape == POINTS.shape


def test_operators_against_analytic_distances(ball: ns.Field) -> None:
    one, two = ns.sphere(1), ns.sphere(0.5).translate(1, 0, 0)
    d1, d2 = length(POINTS) - 1, length(POINTS - [1, 0, 0]) - 0.5
    assert (one - two).distance(POINTS) == pytest.approx(np.maximum(d1, -d2), abs=1e-5)
    assert (~one & two).distance(POINTS) == pytest.approx(np.maximum(-d1, d2), abs=1e-5)
    smooth = (one | ns.smooth(0.2, two)).distance(POINTS)
    assert (smooth <= np.minimum(d1, d2) + 1e-6).all()
    assert (smooth >= np.minimum(d1, d2) - 0.05 - 1e-6).all()
    blended = (ball - ns.smooth(0.2, two)).distance(POINTS)
    assert (blended >= (ball - two).distance(POINTS) - 1e-6).all()
    assert np.abs(blended - np.maximum(d1, -d2)).max() < 0.06


def test_methods_move_and_deform_any_field(network: NeuralField, ball: ns.Field) -> None:
    exact = length(POINTS) - 1
    turned = POINTS[..., [1, 0, 2]] * [1, -1, 1]  # the points before a rotation by 90 degrees about z
    for field, distance in (
        (ball.translate(1, 2, 3), length(POINTS - [1, 2, 3]) - 1),
        (ball.scale(2), length(POINTS) - 2),
        (ball.offset(0.3), exact - 0.3),
        (ball.dilate(0.3), exact - 0.3),
        (ball.erode(0.3), exact + 0.3),
        (ball.round(0.1), exact - 0.1),
        (ball.shell(0.2), np.abs(exact) - 0.1),
        (ball.hollow(0.2), np.maximum(exact, -0.2 - exact)),
        (ball.displace(0.1, 1), exact),
        (
            ball.translate(2).symmetry(1),
            np.minimum(length(POINTS - [2, 0, 0]), length(POINTS - [-2, 0, 0])) - 1,
        ),
        (ball.repeat(4, 0, 0, 2), np.minimum(length(POINTS), length(POINTS - [4, 0, 0])) - 1),
        (network.rotate(90), network.distance(turned, bound=True)),
        (network.reflect(1), network.distance(POINTS * [-1, 1, 1], bound=True)),
    ):
        tolerance = 0.11 if "displace" in str(field) else 0.01
        np.testing.assert_allclose(field.distance(POINTS), distance, atol=tolerance, err_msg=str(field))


def test_a_leaf_may_be_deformed_directly(network: NeuralField, ball: ns.Field) -> None:
    """Directly below an operation that evaluates it at other points."""
    near = 0.2 * POINTS
    folded = np.concatenate([np.abs(near[..., :1]), near[..., 1:]], axis=-1)
    for field in (network, ball):
        for bent, points in ((field.twist(0), near), (field.repeat(9), near), (field.symmetry(1), folded)):
            expected = field.distance(points, bound=True)
            np.testing.assert_allclose(bent.distance(near), expected, atol=1e-4, err_msg=str(bent))


def test_every_method_of_a_tree_is_one_of_every_field() -> None:
    """With the same arguments; and each is a word of the language."""
    for name, method in METHODS.items():
        ours, theirs = (inspect.signature(kind) for kind in (getattr(ns.Field, name), method))
        assert [(p.name, p.default) for p in ours.parameters.values()] == [
            (p.name, p.default) for p in theirs.parameters.values()
        ], name


def test_fields_are_pickled_and_copied(network: NeuralField, ball: ns.Field, tmp_path: Path) -> None:
    """Before and after they were evaluated, with what they compute left out."""
    save_mesh(tmp_path / "open.ply", *shapes.hemisphere())
    save_mesh(tmp_path / "inverted.ply", *shapes.inverted(shapes.box(0.5, 0.3, 0.2)))
    meshes = [ns.load(tmp_path / name) for name in ("open.ply", "inverted.ply")]
    shell = ns.load(ball.path or "", thickness=0.1)
    fields = (network, ball, shell, *meshes, ns.plane(), network - ns.smooth(0.1, ball.translate(0.4)))
    for field in fields:
        fresh = pickle.dumps(field)
        expected = field.distance(POINTS), field.gradient(POINTS)
        used = pickle.dumps(field)
        assert len(used) == pytest.approx(len(fresh), rel=0.2), field
        for other in (pickle.loads(fresh), pickle.loads(used), copy.copy(field), copy.deepcopy(field)):
            np.testing.assert_array_equal(other.distance(POINTS), expected[0], err_msg=repr(field))
            np.testing.assert_array_equal(other.gradient(POINTS), expected[1], err_msg=repr(field))
            assert repr(other) == repr(field)
            assert (other.path, other.unit) == (field.path, field.unit)


def test_deep_trees_are_pickled_and_copied() -> None:
    tree: ns.Field = ns.box(1)
    for i in range(600):
        tree = tree - ns.sphere(0.01).translate(i / 1200)
    for other in (pickle.loads(pickle.dumps(tree)), copy.deepcopy(tree)):
        assert other == tree
        assert other.parts[1] == ns.sphere(0.01).translate(599 / 1200)


def test_fields_are_evaluated_in_other_processes(network: NeuralField, ball: ns.Field) -> None:
    """Started afresh, or forked after the fields were used."""
    tree = network | ball.translate(1)
    expected = [field.distance(POINTS) for field in (network, ball, tree)]
    for method in ("fork", "spawn"):
        with multiprocessing.get_context(method).Pool(1) as pool:
            for field, distances in zip((network, ball, tree), expected, strict=True):
                found = pool.apply_async(field.distance, [POINTS]).get(timeout=60)
                np.testing.assert_array_equal(found, distances)


def test_fields_are_evaluated_in_threads_at_once(network: NeuralField, ball: ns.Field) -> None:
    """Also the first time, when they compile."""
    expected = [field.distance(POINTS) for field in (network, ball, network - ball)]
    fresh = copy.copy(network)
    fields = fresh, copy.copy(ball), fresh - ball
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda i: fields[i % 3].distance(POINTS), range(24)))
    for i, distances in enumerate(found):
        np.testing.assert_array_equal(distances, expected[i % 3])


def test_reprs_of_trees(network: NeuralField, ball: ns.Field) -> None:
    part = ball - ns.smooth(0.1, network.translate(1))
    assert repr(ball) == "MeshField(of 'ball.ply', 5120 faces, centre (0, 0, 0), radius 1)"
    assert repr(part) == "<Shape ball.ply - smooth(0.1, mesh.h5.translate(1, 0, 0))>"
    assert part.is_bound
    assert not ball.translate(1).is_bound
    with pytest.raises(ns.UsageError, match="cannot combine a field with 3"):
        _ = ball - 3  # type: ignore[operator]


def test_a_field_converts_to_a_network(network: NeuralField, monkeypatch: pytest.MonkeyPatch) -> None:
    """From its extracted surface, here a coarse one."""
    monkeypatch.setattr("neuralsdf.pipeline.prepare_mesh.SURFACE_RESOLUTION", 64)
    made = ns.convert(network, **QUICK, measure=False)
    assert made.network.architecture == network.network.architecture
    np.testing.assert_allclose(made.bounds, network.bounds, atol=0.06)


def test_the_choice_of_a_device_applies_to_the_tree(network: NeuralField, tmp_path: Path) -> None:
    network.save(tmp_path / "a.h5")
    (ns.load(tmp_path / "a.h5") | ns.sphere(0.3)).save(tmp_path / "tree.csg")
    plain, chosen = ns.load(tmp_path / "a.h5"), ns.load(tmp_path / "a.h5", device="torch")
    default = plain | ns.sphere(0.3)
    assert default.chosen_backend is None
    assert default.backend is get_backend()
    cut = parse_tree('"a.h5" | sphere(0.3)', tmp_path, backend=get_backend("torch")) & ns.box(9)
    loaded = ns.load(tmp_path / "tree.csg", device="torch")
    for tree in (
        chosen | ns.sphere(0.3),
        plain | chosen,
        chosen - plain.scale(0.5),
        loaded,
        loaded | plain,
        cut,
    ):
        assert tree.backend is get_backend("torch")
        assert isinstance(tree.program, TapeProgram)
    np.testing.assert_allclose(loaded.distance(POINTS), default.distance(POINTS), atol=1e-5)
    assert loaded == ns.load(tmp_path / "tree.csg")
    (chosen | ns.sphere(0.3)).save(tmp_path / "again.csg")
    assert (tmp_path / "again.csg").read_bytes() == (tmp_path / "tree.csg").read_bytes()


@needs_core
def test_parts_for_different_devices_are_refused(network: NeuralField) -> None:
    native, torch = (replace(network, chosen_backend=get_backend(name)) for name in ("native", "torch"))
    tree = native | torch.translate(1)
    with pytest.raises(UsageError, match=r"different devices \(native, torch\).*`device=`"):
        tree.distance(POINTS)


def test_unbounded_trees_combine_and_have_distances() -> None:
    half = ns.plane(0, 0, 1)
    assert half.distance([[0, 0, 5], [7, 8, -2]]) == pytest.approx([5, -2])
    assert half.gradient([0, 0, 1]) == pytest.approx([0, 0, 1])
    assert (~ns.sphere(2)).distance([0, 0, 0]) == pytest.approx(2)
    dome = ns.sphere(1) & half
    assert dome.distance([[0, 0, 0.5], [0, 0, -2]]) == pytest.approx([0.5, 1])
    for endless in (half, ~ns.sphere(2), ns.sphere(0.1).repeat(1)):
        with pytest.raises(ns.UsageError, match="unbounded"):
            _ = endless.transform


def test_units_of_trees(tmp_path: Path) -> None:
    vertices, faces = shapes.sphere(1.0, 2)
    inches, metres = (ns.convert(vertices, faces, **QUICK, units=u, measure=False) for u in ("in", "m"))
    tree = inches - ns.sphere(0.2)
    assert tree.unit == "in"
    converted = tree.in_unit("mm")
    assert converted.unit == "mm"
    np.testing.assert_allclose(converted.distance(25.4 * POINTS), 25.4 * tree.distance(POINTS), atol=1e-3)
    assert (converted | ns.sphere(3)).unit == "mm"
    with pytest.raises(ns.UsageError, match="in_unit"):
        converted.save(tmp_path / "converted.csg")
    mixed = inches | metres.translate(3)
    assert mixed.unit is None
    assert any("different units" in line for line in mixed.warnings)


# -- pictures, meshes and measures ----------------------------------------------------------------


def test_keywords_of_pictures_and_meshes_are_options_of_the_commands() -> None:
    sizes = {"width", "height"}  # for --size
    assert set(inspect.signature(ns.Field.render).parameters) - {"self"} - sizes <= options_of("render")
    assert set(inspect.signature(ns.Field.to_mesh).parameters) - {"self"} <= options_of("extract")
    views = {parameter.name for parameter in click.command()(view(lambda: None)).params}
    assert views - {"size"} <= set(inspect.signature(ns.Field.render).parameters)
    assert keywords_of(ns.Field.save) <= options_of("convert") | options_of("csg")


def test_a_mesh_has_the_shapes_volume(ball: ns.Field) -> None:
    for field, volume in (
        (ns.sphere(1), 4 / 3 * np.pi),
        (ns.torus(1, 0.3).translate(5, 0, 0), 2 * np.pi**2 * 0.09),
        (ns.box(1, 2, 3) - ns.box(0.5, 3, 4), 3.0),
        (ball, ball.volume),
    ):
        mesh = field.to_mesh(resolution=128)
        assert isinstance(mesh, trimesh.Trimesh)
        assert mesh.is_watertight
        assert mesh.volume == pytest.approx(volume, rel=0.01)
        assert field.volume == pytest.approx(volume, rel=0.01)
        np.testing.assert_allclose(mesh.bounds, field.bounds, atol=0.02)


def test_bounds_and_volume_are_those_of_the_solid(
    network: NeuralField, ball: ns.Field, tmp_path: Path
) -> None:
    np.testing.assert_allclose(ball.bounds, [[-1] * 3, [1] * 3], atol=1e-6)  # of its faces
    np.testing.assert_allclose(network.bounds, [[-0.5, -0.3, -0.2], [0.5, 0.3, 0.2]], atol=0.06)
    assert network.volume == pytest.approx(0.24, rel=0.1)
    moved = network.scale(3).translate(1, 2, 3)
    np.testing.assert_allclose(moved.bounds, 3 * network.bounds + [1, 2, 3], atol=0.02)
    assert moved.volume == pytest.approx(27 * network.volume, rel=0.02)
    save_mesh(tmp_path / "box.ply", *shapes.box(0.5, 0.3, 0.2))
    shell = ns.load(tmp_path / "box.ply", thickness=0.2)
    np.testing.assert_allclose(shell.bounds, [[-0.6, -0.4, -0.3], [0.6, 0.4, 0.3]], atol=1e-3)
    inches = ns.convert(*shapes.box(0.5, 0.3, 0.2), **QUICK, units="in", measure=False)
    np.testing.assert_allclose(inches.in_unit("mm").bounds, 25.4 * inches.bounds, rtol=1e-3, atol=1e-3)


def test_meshes_have_the_requested_faces_and_normals() -> None:
    mesh = ns.sphere(1).to_mesh(resolution=64, faces=500, normals=True)
    assert len(mesh.faces) <= 500
    np.testing.assert_allclose(mesh.vertex_normals, mesh.vertices / length(mesh.vertices)[:, None], atol=0.02)
    with pytest.raises(ns.UsageError, match="`resolution=1`"):
        ns.sphere(1).to_mesh(resolution=1)
    with pytest.warns(UserWarning, match="faces"):
        (ns.torus(1, 0.1) - ns.sphere(0.1)).to_mesh(resolution=64, faces=12)


def test_a_picture_is_that_of_the_command(network: NeuralField, ball: ns.Field, tmp_path: Path) -> None:
    options = {"azimuth": -40, "elevation": 10, "shading": "normals", "background": "#204060", "antialias": 2}
    typed = [text for name, value in options.items() for text in (f"--{name}", str(value))]
    network.save(tmp_path / "box.h5")
    (ball - ns.sphere(0.7).translate(0.5, 0.5, 0.5)).save(tmp_path / "cut.csg")
    for name in ("box.h5", "cut.csg", "ball.ply"):
        image = ns.load(tmp_path / name).render(width=80, height=60, **options)
        assert isinstance(image, Image.Image)
        assert image.size == (80, 60)
        path = tmp_path / "command.png"
        command = ["render", str(tmp_path / name), "-o", str(path), "--size", "80x60", "-f", *typed]
        done = CliRunner().invoke(main, command)
        assert done.exit_code == 0, done.output
        np.testing.assert_array_equal(np.asarray(image), np.asarray(Image.open(path)), err_msg=name)


def test_pictures_accept_the_options_of_the_command(tmp_path: Path) -> None:
    ball = ns.sphere(1)
    clear = ball.render(32, 32, background="transparent")
    assert clear.mode == "RGBA"
    assert np.asarray(clear)[[0, 16], [0, 16], 3].tolist() == [0, 255]
    Image.new("RGB", (8, 8), "#00ff00").save(tmp_path / "green.png")
    green = np.asarray(ball.render(32, 32, matcap=tmp_path / "green.png"))
    assert green[16, 16].tolist() == [0, 255, 0]
    seen = ball.render(32, 32, eye=[0, 0, 5], target=(0, 0, 0), color="#ff0000", ao=False, shadow=False)
    red, other, _ = np.asarray(seen)[16, 16].astype(int)
    assert red > 4 * other
    with pytest.warns(UserWarning, match="not in the camera"):
        ball.render(16, 16, eye=[0, 0, 5], target=[0, 0, 9])
    for wrong, names in (
        ({"shading": "matcap"}, "`matcap="),
        ({"shading": "depth", "matcap": "a.png"}, "`matcap=`"),
        ({"eye": [0, 0, 5], "azimuth": 3}, "`eye=` cannot be combined with `azimuth=`"),
    ):
        with pytest.raises(ns.UsageError, match=names):
            ball.render(**wrong)


def test_a_notebook_shows_a_picture(network: NeuralField) -> None:
    for field in (network, ns.box(1) - ns.sphere(0.6)):
        shown = field._repr_png_()
        assert shown is not None
        picture = np.asarray(Image.open(BytesIO(shown)))
        assert np.ptp(picture, axis=(0, 1)).max() > 50
    for nothing in (ns.plane(), ns.sphere(1) - ns.sphere(2)):
        assert nothing._repr_png_() is None


def test_unbounded_and_empty_trees_have_no_picture_mesh_or_bounds() -> None:
    for field, kind, message in (
        (ns.plane(), ns.UsageError, "unbounded"),
        (~ns.sphere(1), ns.UsageError, "unbounded"),
        (ns.sphere(1) - ns.sphere(2), ns.NoSurfaceError, "empty"),
    ):
        for ask in (
            lambda f: f.render(16, 16),
            lambda f: f.to_mesh(),
            lambda f: f.bounds,
            lambda f: f.volume,
        ):
            with pytest.raises(kind, match=message):
                ask(field)
        assert np.isfinite(field.distance(POINTS)).all()


# -- files ----------------------------------------------------------------------------------------


def test_a_network_is_read_back_unchanged(network: NeuralField, tmp_path: Path) -> None:
    network.save(tmp_path / "box.h5")
    again = ns.load(str(tmp_path / "box.h5"))
    np.testing.assert_array_equal(again.distance(POINTS), network.distance(POINTS))
    assert dict(again.metrics) == pytest.approx(network.metrics, rel=1e-4)
    assert again.path == tmp_path / "box.h5"
    again.save(tmp_path / "again.h5")
    assert (tmp_path / "again.h5").read_bytes() == (tmp_path / "box.h5").read_bytes()
    with pytest.raises(ns.FileError, match="`force=True`"):
        network.save(tmp_path / "box.h5")
    network.save(tmp_path / "box.h5", layout="keras", force=True)
    keras = ns.load(tmp_path / "box.h5")
    np.testing.assert_array_equal(keras.distance(POINTS), network.distance(POINTS))


def test_trees_are_read_back_with_their_leaves(network: NeuralField, ball: ns.Field, tmp_path: Path) -> None:
    """Leaves of files by their names, those in memory in the file itself."""
    assert ball.path is not None
    linked = ball - ns.smooth(0.1, ns.box(1.2).rotate(30)) | ns.sphere(0.2).translate(2)
    linked.save(tmp_path / "linked.csg")
    assert "ball.ply - smooth(0.1, box(1.2, 1.2, 1.2)" in (tmp_path / "linked.csg").read_text()
    both = linked & network.scale(3)
    both.save(tmp_path / "both.csg")
    (ball | network).save(tmp_path / "linked and bundled.csg", bundle=True)
    twice = network.translate(2) | ns.convert(trimesh.creation.icosphere(2), **QUICK, measure=False)
    twice.save(tmp_path / "twice.csg")  # two fields of one name
    for name, tree in (
        ("linked", linked),
        ("both", both),
        ("linked and bundled", ball | network),
        ("twice", twice),
    ):
        again = ns.load(tmp_path / f"{name}.csg")
        np.testing.assert_allclose(again.distance(POINTS), tree.distance(POINTS), atol=1e-5, err_msg=name)
    ball.path.unlink()
    for name in ("both", "linked and bundled", "twice"):
        held = ns.load(tmp_path / f"{name}.csg")
        (held - ns.sphere(0.1)).save(tmp_path / f"{name} less a ball.csg")
        held.save(tmp_path / f"{name}, a link.csg")
    with pytest.raises(ns.FileError, match=r"ball\.ply"):
        ns.load(tmp_path / "linked.csg")
    (tmp_path / "linked.csg").unlink()
    for name in ("both", "linked and bundled", "twice"):
        again = ns.load(tmp_path / f"{name} less a ball.csg")
        assert again.distance([5, 0, 0]) > 0


def test_a_bundle_that_was_opened_is_bundled_from_memory(network: NeuralField, tmp_path: Path) -> None:
    """Members of a bundle have no file of their own after it has been read."""
    tree = network - ns.sphere(0.2)
    tree.save(tmp_path / "bundle.csg")
    parts = read_tree(tmp_path / "bundle.csg")
    (tmp_path / "bundle.csg").unlink()
    (parts | ns.sphere(0.1)).save(tmp_path / "again.csg")
    again = ns.load(tmp_path / "again.csg")
    np.testing.assert_allclose(again.distance(POINTS), (tree | ns.sphere(0.1)).distance(POINTS), atol=1e-5)


def test_any_field_is_saved_as_a_tree(network: NeuralField, ball: ns.Field, tmp_path: Path) -> None:
    for name, field in (("network", network), ("mesh", ball), ("solid", ns.torus(1, 0.2))):
        field.save(tmp_path / f"{name}.csg")
        again = ns.load(tmp_path / f"{name}.csg")
        expected = field.distance(POINTS, bound=True)
        np.testing.assert_allclose(again.distance(POINTS), expected, atol=1e-5)


def test_what_a_tree_file_cannot_hold_is_reported(ball: ns.Field, tmp_path: Path) -> None:
    assert ball.path is not None
    solid = ns.load(ball.path, thickness=0.1)
    with pytest.raises(ns.UsageError, match="`thickness=`"):
        (solid | ns.sphere(2)).save(tmp_path / "solid.csg")
    with pytest.raises(ns.UsageError, match="no file can hold"):
        Analytic(sphere(0.5)).save(tmp_path / "analytic.csg")
    assert [path.name for path in tmp_path.iterdir()] == ["ball.ply"]
    (ball | ns.sphere(2)).save(tmp_path / "a.csg")
    for field in (ns.load(tmp_path / "a.csg"), ns.load(tmp_path / "a.csg") - ns.sphere(1)):
        with pytest.raises(ns.FileError, match="is the input"):
            field.save(tmp_path / "a.csg", force=True)


def test_other_suffixes_are_refused_with_a_remedy(
    network: NeuralField, ball: ns.Field, tmp_path: Path
) -> None:
    for name in ("box.stl", "box.npz", "box"):
        with pytest.raises(ns.UsageError, match=r"to_mesh\(\)"):
            network.save(tmp_path / name)
    with pytest.raises(ns.UsageError, match=r"convert"):
        ball.save(tmp_path / "ball.h5")


def test_a_mesh_opens_with_the_requested_inside_test(tmp_path: Path) -> None:
    save_mesh(tmp_path / "box.ply", *shapes.inverted(shapes.box(0.5, 0.3, 0.2)))
    expected = shapes.box_distance(POINTS.reshape(-1, 3), 0.5, 0.3, 0.2).reshape(4, 5)
    assert ns.load(tmp_path / "box.ply", sign="parity").distance(POINTS) == pytest.approx(expected)
    solid = ns.load(tmp_path / "box.ply", thickness=0.1)
    assert solid.distance(POINTS) == pytest.approx(np.abs(expected) - 0.05)
    with pytest.raises(ns.FileError, match="no such file"):
        ns.load(tmp_path / "none.h5")
