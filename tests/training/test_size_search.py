"""The smallest network that meets a target error is found with one set of samples, growing the network."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result
from hypothesis import given
from hypothesis import strategies as st

from neuralsdf.cli.main import main
from neuralsdf.compression.quantize import PRECISIONS, round_trip
from neuralsdf.errors import UsageError
from neuralsdf.mesh.mesh import Mesh
from neuralsdf.mesh.save_mesh import save_mesh
from neuralsdf.pipeline.convert import Conversion, fit_mesh
from neuralsdf.program.network import Architecture, Network, initialise
from neuralsdf.storage import open_field
from neuralsdf.training import size_search as target
from neuralsdf.training.fit import Fit
from neuralsdf.training.fit_settings import Training
from neuralsdf.training.size_search import WIDTHS, Reached, Target, smallest_network

from ..helpers import shapes
from ..helpers.quick_metrics import quick_metrics

LIKE = Architecture((5, 5), "softplus", "linear")


@pytest.mark.parametrize(
    ("text", "expected"),
    [("0.002", Target(0.002)), ("2e-3", Target(0.002)), ("0.1u", Target(0.1, True)), ("5u", Target(5, True))],
)
def test_a_target_is_a_number_with_or_without_a_unit(text, expected):
    assert Target.parse(text) == expected


@pytest.mark.parametrize("text", ["", "u", "0", "-1", "nan", "inf", "0.1 mm", "0.1uu"])
def test_other_targets_are_usage_errors(text):
    with pytest.raises(UsageError, match="`target_error="):
        Target.parse(text)


def test_mesh_units_are_divided_by_the_radius():
    assert Target(0.1, True).relative(50) == pytest.approx(0.002)
    assert Target(0.1).relative(50) == 0.1


class Law:
    """Networks whose error is a given function of their width; records the fits."""

    def __init__(self, error, scale: float = 0.1) -> None:
        self._error, self._scale = error, scale
        self.fits: list[tuple[int, int]] = []
        self.starts: list = []

    def fit(self, architecture: Architecture, training: Training, start=None) -> Fit:
        assert architecture.activation == LIKE.activation
        assert architecture.output == LIKE.output
        assert len(set(architecture.hidden)) == 1
        self.fits.append((architecture.hidden[0], training.epochs))
        self.starts.append(start)
        weights = self._scale * initialise(architecture, len(self.fits))
        return Fit(weights, 0.1, training.epochs)

    def error(self, network: Network) -> float:
        return self._error(network.architecture.hidden[0])

    def reach(self, limit: float, **options) -> Reached:
        return smallest_network(self.fit, self.error, limit, LIKE, Training(epochs=30), **options)


@given(
    power=st.floats(0.3, 2.5),
    needed=st.sampled_from(WIDTHS),
    slack=st.floats(1.0001, 1.2),
)
def test_the_smallest_sufficient_width_is_found_for_power_laws(power, needed, slack):
    law = Law(lambda width: width**-power)
    limit = slack * needed**-power
    smallest = next(width for width in WIDTHS if width**-power <= limit)
    reached = law.reach(limit)
    assert reached.met
    assert reached.network.architecture.hidden == (smallest, smallest)
    assert reached.widths[-1] == smallest
    assert list(reached.widths) == sorted(reached.widths)


@given(power=st.floats(0.5, 3))
def test_an_unreachable_target_gives_the_best_network(power):
    law = Law(lambda width: width**-power)
    reached = law.reach(0.9 * WIDTHS[-1] ** -power)
    assert not reached.met
    assert reached.network.architecture.hidden[0] == reached.widths[-1] == WIDTHS[-1]
    assert reached.precision == "f32"


def test_the_best_network_need_not_be_the_widest():
    reached = Law(lambda width: abs(width - 24) + 1).reach(0.9)
    assert not reached.met
    assert reached.network.architecture.hidden[0] == min(reached.widths, key=lambda width: abs(width - 24))
    assert reached.widths[-1] == WIDTHS[-1]


def test_a_network_that_narrowly_misses_is_fitted_further_before_it_grows():
    reached = Law(lambda width: 1 / width).reach(1 / 25)  # 24 misses by 4 %, every time
    assert reached.widths[-4:] == (24, 24, 24, 32)


def test_every_fit_continues_the_one_before():
    law = Law(lambda width: 1 / width)
    reached = law.reach(1 / 60)
    widths, epochs = zip(*law.fits, strict=True)
    assert widths == reached.widths
    assert len(widths) > 2
    assert epochs == (30, *[15] * (len(widths) - 1))
    assert reached.epochs == sum(epochs)
    assert law.starts[0] is None
    points = np.random.default_rng(0).uniform(-1, 1, (100, 3)).astype(np.float32)
    for index in range(1, len(law.fits)):
        before = Architecture((widths[index - 1],) * 2, LIKE.activation, LIKE.output)
        after = Architecture((widths[index],) * 2, LIKE.activation, LIKE.output)
        ended = Network(before, np.float32(0.1) * initialise(before, index))
        np.testing.assert_allclose(
            values(Network(after, law.starts[index]), points), values(ended, points), atol=1e-7
        )


def values(network: Network, points: np.ndarray) -> np.ndarray:
    from neuralsdf.backends import get_backend

    return get_backend("torch").compile(network).evaluate(points)


@given(limit=st.floats(1e-9, 1), allowed=st.sets(st.sampled_from(PRECISIONS), min_size=1))
def test_the_cheapest_sufficient_precision_is_used(limit, allowed):
    """The error is that of rounding alone."""
    fitted: list[Network] = []

    def fit(architecture: Architecture, training: Training, start) -> Fit:
        fitted.append(Network(architecture, initialise(architecture, 0)))
        return Fit(fitted[-1].weights, 0.1, training.epochs)

    def error(network: Network) -> float:
        return float(np.abs(network.weights - initialise(network.architecture, 0)).max())

    reached = smallest_network(fit, error, limit, LIKE, Training(), sorted(allowed))
    assert reached.network.architecture.hidden[0] == WIDTHS[0]
    costs = [name for name in ("int8", "f16", "f32") if name in allowed]  # cheapest first
    holding = [name for name in costs if error(round_trip(fitted[-1], name)) <= limit]
    assert reached.met == bool(holding)
    assert reached.precision == (holding[0] if holding else costs[-1])
    np.testing.assert_array_equal(reached.network.weights, round_trip(fitted[-1], reached.precision).weights)


def test_weights_too_large_for_float16_are_kept_in_float32():
    law = Law(lambda width: 0.0, scale=1e9)
    assert law.reach(1.0).precision == "f32"
    with pytest.raises(UsageError, match=r"f16.* cannot hold"):
        law.reach(1.0, precisions=("f16",))


# Complete searches, with fits of a second.

SPHERE = Mesh.from_arrays(*shapes.sphere(50.0, 3), name="sphere.ply")
SMALL = {"architecture": Architecture.uniform(2, 16), "samples": 20_000}
TRAINING = Training(epochs=10, batch=500, learning_rate=0.01)


@pytest.fixture(scope="module", autouse=True)
def with_quick_metrics():
    with quick_metrics():
        yield


def converted(goal: Target, **options) -> Conversion:
    return fit_mesh(SPHERE, target=goal, training=TRAINING, **SMALL, **options)


@pytest.fixture(scope="module")
def loose() -> Conversion:
    return converted(Target(0.03))


def test_a_sphere_meets_a_loose_target_with_a_tiny_file(loose):
    field = loose.field
    assert field.network.architecture == Architecture.uniform(2, 8)
    assert field.precision == "int8"
    assert field.metrics["surface_mean"] <= 0.03
    assert field.settings["target_met"] is True
    assert field.settings["target_error"] == 0.03
    assert field.settings["widths"] == [8]
    assert field.metrics["surface_mean"] <= field.settings["reached_error"] <= 0.03
    assert not any("misses" in line for line in loose.warnings)


def test_a_tighter_target_takes_a_larger_network(loose):
    tight = converted(Target(loose.field.metrics["surface_mean"] / 4))
    assert tight.field.settings["target_met"]
    assert tight.field.metrics["surface_mean"] <= loose.field.metrics["surface_mean"] / 4
    assert tight.field.network.architecture.weight_count > loose.field.network.architecture.weight_count


def test_mesh_units_and_model_space_are_the_same_target(loose):
    same = converted(Target(0.03 * loose.field.transform.scale, mesh_units=True))
    assert same.field.settings == loose.field.settings
    np.testing.assert_array_equal(same.field.network.weights, loose.field.network.weights)
    assert same.field.metrics == loose.field.metrics


def test_a_given_precision_is_used(loose):
    assert converted(Target(0.03), precision="f16").field.precision == "f16"


def test_a_time_budget_and_a_target_exclude_each_other():
    with pytest.raises(UsageError, match="`time=`"):
        fit_mesh(SPHERE, target=Target(0.01), training=Training(seconds=1))


# The command.

OPTIONS = ("--layers", 2, "--samples", 20_000, "--epochs", 4, "--batch", 500, "--learning-rate", 0.01)


def run(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


@pytest.fixture
def mesh(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    save_mesh(tmp_path / "sphere.ply", *shapes.sphere(50.0, 3))
    return tmp_path / "sphere.ply"


def test_the_command_records_the_search_in_the_file(mesh):
    result = run("convert", mesh, *OPTIONS, "--target-error", "2.5u")
    assert result.exit_code == 0, result.output
    assert "widths fitted: 8" in result.stdout
    model = mesh.with_suffix(".h5")
    field = open_field(model)
    assert field.settings["target_error"] == pytest.approx(0.05, rel=1e-3)
    assert field.metrics["surface_mean"] <= field.settings["target_error"]
    assert model.stat().st_size < 1500 + field.network.architecture.weight_count * 4
    first = model.read_bytes()
    assert run("convert", mesh, *OPTIONS, "--target-error", "2.5u", "--force").exit_code == 0
    assert model.read_bytes() == first


def test_a_model_that_misses_its_target_is_written_and_counts_as_failed(mesh, monkeypatch):
    monkeypatch.setattr(target, "WIDTHS", (8, 12))
    result = run("convert", mesh, *OPTIONS, "--target-error", "1e-6", "--json")
    assert result.exit_code == 1
    assert "misses the target error" in result.stderr
    assert result.stderr.endswith("neuralsdf: 1 of 1 models miss the target error\n")
    reached = json.loads(result.stdout)["target"]
    assert reached.pop("reached") > 1e-6
    assert reached == {"error": 1e-6, "met": False, "widths": [8, 12]}
    assert open_field(mesh.with_suffix(".h5")).settings["target_met"] is False


@pytest.mark.parametrize(
    "wrong",
    [("--width", 16), ("--time", 3), ("--target-error", "fast")],
    ids=["width", "time", "no number"],
)
def test_conflicting_options_are_refused_before_any_work(mesh, wrong):
    result = run("convert", mesh, "--target-error", 0.01, *wrong)
    assert result.exit_code == 2
    assert "--target-error" in result.stderr
    assert len(result.stderr.splitlines()) == 1
    assert not mesh.with_suffix(".h5").exists()


def test_the_keras_layout_is_float32(mesh):
    result = run("convert", mesh, *OPTIONS, "--target-error", 0.05, "--layout", "keras")
    assert result.exit_code == 0, result.output
    assert open_field(mesh.with_suffix(".h5")).precision == "f32"
