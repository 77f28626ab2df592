"""The CUDA backend. Without a GPU the kernels run on the host, from the source that nvcc compiles, through
the backend's own launches (cuda_host.py); with one, the same tests run on it too."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import warnings

import numpy as np
import pytest

from neuralsdf import backends
from neuralsdf.backends import backend_status, cuda, get_backend
from neuralsdf.backends import batched_networks as many
from neuralsdf.backends.cuda import CudaBackend, device
from neuralsdf.backends.reference import sphere_tracing as marching
from neuralsdf.errors import BackendError
from neuralsdf.program.network import ACTIVATIONS, Architecture, Network, initialise

from ...helpers.backend_checks import (
    check_infinite_points,
    check_loss_gradient,
    check_number_of_points,
    check_point_gradients,
    check_values,
    comparable,
)
from ...helpers.cuda_host import (
    DEVICES,
    REPOSITORY,
    HostDriver,
    installed,
    the_gpu,
)
from ...helpers.networks import HIDDEN, exact_values, random_network, surface_network
from ...helpers.rays import FULL_STEPS, LONG_STEPS, chords

COUNTS = [0, 1, 5, 63, 64, 65, 511, 512, 513, 3000]


@pytest.mark.skipif("gpu" not in DEVICES, reason=f"on the host alone: {backend_status('cuda').detail}")
def test_the_gpu_of_these_tests_is_that_of_the_backend():
    assert the_gpu().name == device.name()


@pytest.mark.parametrize("output", ["tanh", "linear"])
@pytest.mark.parametrize("hidden", HIDDEN, ids=str)
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_values_are_those_of_float64(backend, hidden, activation, output):
    check_values(backend, Architecture(comparable(hidden, activation), activation, output), 700)


@pytest.mark.parametrize("count", COUNTS)
def test_every_number_of_points_works(backend, count):
    check_number_of_points(backend, count)


@pytest.mark.parametrize("hidden", HIDDEN, ids=str)
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_gradients_with_respect_to_points_equal_those_of_torch(backend, hidden, activation):
    check_point_gradients(
        backend, Architecture(comparable(hidden, activation), activation), 300, agreeing=0.99
    )


@pytest.mark.parametrize("hidden", [(32,) * 3, (16, 9), (64, 64), (128,) * 5, (7,)], ids=str)
@pytest.mark.parametrize(("shapes", "count"), [(1, 3000), (3, 100), (70, 10), (2, 1), (0, 5), (4, 0)])
def test_values_of_many_networks_equal_those_of_each(backend, hidden, shapes, count, monkeypatch):
    """In one launch or in several; byte for byte if the same compiler made both."""
    architecture = Architecture(hidden, "softplus")
    weights = np.array([initialise(architecture, seed) for seed in range(shapes)], np.float32)
    weights = weights.reshape(shapes, architecture.weight_count)
    points = np.random.default_rng(0).uniform(-1, 1, (count, 3)).astype(np.float32)
    expected = [backend.compile(Network(architecture, own)).evaluate(points) for own in weights]
    expected = np.array(expected, np.float32).reshape(shapes, count)
    for block in (device.BLOCK, 90):
        monkeypatch.setattr(device, "BLOCK", block)
        values = backend.evaluate_many(architecture, weights, points)
        np.testing.assert_allclose(
            values, expected, atol=0 if backend.device.name == HostDriver.name else 1e-6
        )


def test_a_data_set_is_evaluated_in_one_launch(driver):
    architecture = Architecture((32, 32))
    weights = np.array([initialise(architecture, seed) for seed in range(50)])
    points = np.random.default_rng(0).uniform(-1, 1, (10, 3)).astype(np.float32)
    backend = get_backend("cuda")
    driver.launches.clear()
    many.values_of_many(backend, architecture, weights, points)
    assert [(name, blocks) for name, blocks, *_ in driver.launches] == [("evaluate_many_32", 50)]
    for bad in (weights[:, 1:], weights.astype(np.float64), weights[::2]):
        with pytest.raises(ValueError, match="weights"):
            many.values_of_many(backend, architecture, bad, points)


@pytest.mark.parametrize("count", [0, 1, 700])
def test_rays_hit_what_the_reference_hits(backend, count):
    network = surface_network()
    begin, directions, ends, at_ball = chords(count)
    arguments = begin, directions, ends, at_ball, FULL_STEPS
    ours, theirs = (b.compile(network).trace(*arguments) for b in (backend, get_backend("torch")))
    same = (ours.hit == theirs.hit) & (ours.buried == theirs.buried) & (ours.unresolved == theirs.unresolved)
    assert same.sum() >= count - 3  # rounding decides where a ray grazes the surface
    both = ours.hit & theirs.hit
    assert both.sum() >= count // 8
    assert (~ours.hit).sum() >= count // 8
    # If the field is constant along a ray, its root is undefined.
    assert np.count_nonzero(np.abs(ours.t - theirs.t)[both] > 1e-4) <= count // 100
    assert ours.evaluations == pytest.approx(theirs.evaluations, rel=0.03)


def test_shadows_equal_those_of_the_reference(backend):
    begin, directions, ends, _ = chords(500)
    ends[:20] = 0
    arguments = begin, directions, ends, marching.SoftShadow()
    (ours, taken), (theirs, expected) = (
        b.compile(surface_network()).soft_shadow(*arguments) for b in (backend, get_backend("torch"))
    )
    assert 0 < theirs.mean() < 1
    assert (np.abs(ours - theirs) <= 1e-3).mean() >= 0.99
    assert taken == pytest.approx(expected, rel=0.01)


def test_nan_values_leave_rays_unresolved(backend):
    begin, directions, ends, at_ball = chords(100)
    begin[7] = np.nan
    traced = backend.compile(surface_network()).trace(begin, directions, ends, at_ball, FULL_STEPS)
    assert traced.unresolved[7]
    assert not traced.unresolved[:7].any()


@pytest.mark.parametrize(("output", "count"), [("tanh", 300), ("linear", 65)])
@pytest.mark.parametrize("hidden", [*HIDDEN, (1, 1), (32, 1, 5)], ids=str)
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_the_loss_and_its_gradient_equal_those_of_torch(backend, hidden, activation, output, count):
    check_loss_gradient(backend, Architecture(comparable(hidden, activation), activation, output), count)


def test_many_points_are_several_tiles_per_warp(backend, monkeypatch):
    """Few blocks, so that each has many tiles, and several small blocks of points."""
    monkeypatch.setattr(device, "BLOCK", 1500)
    monkeypatch.setattr(cuda, "KEPT", 1 << 19)
    network, points, targets = random_network(Architecture((32, 32)), 4000)
    program = backend.compile(network)
    np.testing.assert_allclose(program.evaluate(points), exact_values(network, points), atol=2e-5)
    reference = get_backend("torch")
    arguments = network.architecture, network.weights, points, targets
    (loss, gradient), (expected_loss, expected) = (b.loss_gradient(*arguments) for b in (backend, reference))
    assert loss == pytest.approx(expected_loss, rel=1e-5)
    assert np.abs(gradient - expected).max() <= 1e-4 * np.abs(expected).max()
    begin, directions, ends, at_ball = chords(4000)
    ours, theirs = (
        b.compile(surface_network()).trace(begin, directions, ends, at_ball, FULL_STEPS)
        for b in (backend, reference)
    )
    assert np.count_nonzero(ours.hit != theirs.hit) <= 10


def test_the_same_call_gives_the_same_bytes(backend):
    network, points, targets = random_network(Architecture(), 3000)
    results = []
    for _ in range(2):
        values, slopes = backend.compile(network).evaluate_with_gradient(points)
        loss, gradient = backend.loss_gradient(network.architecture, network.weights, points, targets)
        results.append((values.tobytes(), slopes.tobytes(), loss, gradient.tobytes()))
    assert results[0] == results[1]


@pytest.mark.parametrize("limit", [232_448, 166_912, 101_376])
@pytest.mark.parametrize("hidden", [(32,) * 40, (64,) * 9, (128,) * 5], ids=str)
def test_networks_larger_than_shared_memory_are_loaded_in_parts(
    library, monkeypatch, tmp_path, limit, hidden
):
    driver = installed(HostDriver(library, shared_limit=limit), monkeypatch, tmp_path)
    backend, reference = CudaBackend(device.Device(), get_backend("torch")), get_backend("torch")
    architecture = Architecture(hidden, "silu", "linear")
    network = Network(
        architecture, 2 * initialise(architecture, 0)
    )  # larger, so that activations do not vanish
    points = np.random.default_rng(0).uniform(-1, 1, (150, 3)).astype(np.float32)
    targets = points[:, 0].copy()
    expected = exact_values(network, points)
    assert np.ptp(expected) > 1e-3
    np.testing.assert_allclose(
        backend.compile(network).evaluate(points), expected, atol=1e-4 * np.ptp(expected)
    )
    loss, gradient = backend.loss_gradient(architecture, network.weights, points, targets)
    expected_loss, expected = reference.loss_gradient(architecture, network.weights, points, targets)
    assert loss == pytest.approx(expected_loss, rel=1e-4)
    assert np.abs(gradient - expected).max() <= 1e-3 * np.abs(expected).max()
    begin, directions, ends, at_ball = chords(100)
    ours, theirs = (
        b.compile(network).trace(begin, directions, ends, at_ball, LONG_STEPS) for b in (backend, reference)
    )
    assert np.count_nonzero(ours.hit != theirs.hit) <= 2
    assert all(shared <= limit for *_, shared in driver.launches)


def test_threads_of_a_phase_may_run_in_any_order(driver):
    """On a GPU they run at the same time: a result that depends on their order is a race."""
    backend = CudaBackend(device.Device(), get_backend("torch"))
    network, points, targets = random_network(Architecture((24, 64, 7), "softplus"), 500)
    begin, directions, ends, at_ball = chords(300)
    results = []
    for driver.falling in (False, True):
        program = backend.compile(network)
        loss, gradient = backend.loss_gradient(network.architecture, network.weights, points, targets)
        traced = program.trace(begin, directions, ends, at_ball, LONG_STEPS)
        shares, _ = program.soft_shadow(begin, directions, ends, marching.SoftShadow())
        arrays = [
            program.evaluate(points),
            *program.evaluate_with_gradient(points),
            gradient,
            *traced[:4],
            shares,
        ]
        results.append((loss, traced.evaluations, *(array.tobytes() for array in arrays)))
    assert results[0] == results[1]


def test_allocated_memory_is_freed(driver):
    backend = CudaBackend(device.Device(), get_backend("torch"))
    network, points, _ = random_network(Architecture((16,)), 10)
    backend.compile(network).evaluate(points)
    before = len(driver.allocated)
    backend.compile(network).evaluate(points)
    assert len(driver.allocated) == before
    assert driver.depth == 0


def test_a_usable_gpu_is_the_default_and_every_kernel_is_checked(driver):
    assert backend_status("cuda").available
    assert driver.name in backend_status("cuda").detail
    backend = get_backend()
    assert backend.name == "cuda"
    # The self-check has run them all.
    sources = (REPOSITORY / "kernels" / "cuda").glob("*.cu")
    text = "".join(path.read_text() for path in sources)
    kernels = re.findall(r"^\w+ENTR(?:Y|IES)\((\w+),", text, re.MULTILINE)
    launched = [name for name, *_ in driver.launches]
    assert {without_width(name) for name in launched} == {without_width(name) for name in kernels} - {"peak"}


def without_width(kernel: str) -> str:
    return re.sub(r"_\d+$", "", kernel)


@pytest.mark.parametrize(
    ("kernel", "operation"),
    [
        *[(name, name) for name in ("evaluate", "evaluate_many", "loss_gradient", "trace", "soft_shadow")],
        *[(f"{name}_tensor", name) for name in ("trace", "soft_shadow")],
        *[(f"{name}_tape", f"{name} of a tape") for name in ("evaluate", "evaluate_with_gradient", "trace")],
        ("soft_shadow_tape", "soft_shadow of a tape"),
        *[(name, name) for name in ("closest_point", "winding_number", "first_hit")],
        ("fit", "fit with"),
        *[(name, "marching_cubes") for name in ("place_vertices", "write_faces")],
    ],
)
def test_a_gpu_that_disagrees_is_not_used(driver, monkeypatch, kernel, operation):
    whole = driver.run

    def broken(name, blocks, threads, shared, arguments):
        if without_width(name) != kernel:
            whole(name, blocks, threads, shared, arguments)

    monkeypatch.setattr(driver, "run", broken)
    with pytest.warns(UserWarning, match=f"failed its check.*{operation}") as caught:
        assert get_backend("cuda").name == "native"
    assert "\n" not in str(caught[0].message)
    monkeypatch.setattr(backends, "_loaded", {})
    monkeypatch.setenv("NEURALSDF_REQUIRE_CUDA", "1")
    with pytest.raises(BackendError, match="failed its check"):
        get_backend("cuda")


def test_a_driver_that_fails_is_not_used(driver, monkeypatch):
    def fail(path):
        raise driver.Error("cuModuleLoad failed: no kernel image is available for execution")

    monkeypatch.setattr(driver, "module_from_file", fail)
    with pytest.warns(UserWarning, match="no kernel image"):
        assert get_backend("cuda").name in ("native", "torch")


def test_too_wide_networks_run_on_the_cpu_with_one_warning(driver, monkeypatch):
    backend = get_backend("cuda")
    network, points, targets = random_network(Architecture((129, 8)), 50)
    with pytest.warns(UserWarning, match="widths up to 128"):
        values = backend.compile(network).evaluate(points)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        backend.loss_gradient(network.architecture, network.weights, points, targets)
    np.testing.assert_allclose(values, exact_values(network, points), atol=2e-5)
    monkeypatch.setenv("NEURALSDF_REQUIRE_CUDA", "1")
    with pytest.raises(BackendError, match="128"):
        backend.compile(network)


def test_invalid_arguments_are_refused(backend):
    network, points, targets = random_network(Architecture((16,)), 10)
    program = backend.compile(network)
    for bad in (points[:, :2], points.astype(np.float64), points[::2], np.asfortranarray(points), points[0]):
        with pytest.raises(ValueError, match="points"):
            program.evaluate(bad)
        with pytest.raises(ValueError, match="points"):
            program.evaluate_with_gradient(bad)
    with pytest.raises(ValueError, match="targets"):
        backend.loss_gradient(network.architecture, network.weights, points, targets[:-1])
    with pytest.raises(ValueError, match="weights"):
        backend.loss_gradient(network.architecture, network.weights[:-1], points, targets)
    begin, directions, ends, at_ball = chords(10)
    for name, bad in (
        ("directions", (begin, directions[1:], ends, at_ball, FULL_STEPS)),
        ("ends", (begin, directions, ends[1:], at_ball, FULL_STEPS)),
        ("at_ball", (begin, directions, ends, at_ball[1:], FULL_STEPS)),
        ("steps", (begin, directions, ends, at_ball, FULL_STEPS[:0])),
    ):
        with pytest.raises(ValueError, match=name):
            program.trace(*bad)


@pytest.mark.parametrize("hidden", [(3,), (32,), (40, 16)], ids=str)
def test_infinite_points_give_the_values_of_float64(backend, hidden):
    check_infinite_points(backend, Architecture(hidden))


def doctor(**environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "neuralsdf", "doctor", "--json"],
        env={**os.environ, **environment}, capture_output=True, text=True,
    )  # fmt: skip


def test_the_status_names_the_part_that_is_missing(monkeypatch, tmp_path):
    monkeypatch.setattr(device, "fatbins", list)
    assert "nvcc" in backend_status("cuda").detail
    assert "NEURALSDF_CUDA=1 pip install '.[cuda]'" in backend_status("cuda").detail
    monkeypatch.setattr(device, "fatbins", lambda: [tmp_path])
    monkeypatch.setattr(device, "find_spec", lambda name: None)
    assert "NEURALSDF_CUDA=1 pip install '.[cuda]'" in backend_status("cuda").detail
    monkeypatch.setattr(device, "find_spec", lambda name: name)
    monkeypatch.setattr(device.ctypes, "CDLL", lambda name: (_ for _ in ()).throw(OSError(name)))
    assert "driver" in backend_status("cuda").detail
    monkeypatch.setattr(device, "_first_device", lambda: ("GeForce RTX 2080", (7, 5)))
    assert "GeForce RTX 2080 has compute capability 7.5" in backend_status("cuda").detail
    assert not backend_status("cuda").available


@pytest.mark.skipif(backend_status("cuda").available, reason="there is a GPU")
def test_an_unusable_gpu_that_is_requested_is_an_error_with_the_reason(monkeypatch):
    why = backend_status("cuda").detail
    for setting, value in (("NEURALSDF_BACKEND", "cuda"), ("NEURALSDF_REQUIRE_CUDA", "1")):
        with monkeypatch.context() as patch:
            patch.setenv(setting, value)
            with pytest.raises(BackendError) as error:
                get_backend()
        assert str(error.value) == f"the cuda backend does not run here: {why}"
    report = json.loads(doctor().stdout)
    (cuda_row,) = (row for row in report["backends"] if row["name"] == "cuda")
    assert cuda_row == {"name": "cuda", "available": False, "default": False, "detail": why}
    assert "does not run here" in json.loads(doctor(NEURALSDF_REQUIRE_CUDA="1").stdout)["problem"]


NVCC = shutil.which(os.environ.get("NVCC", "nvcc")) or shutil.which("/usr/local/cuda/bin/nvcc")


@pytest.mark.slow
@pytest.mark.skipif(NVCC is None, reason="no nvcc")
@pytest.mark.parametrize(
    "source", ["evaluate", "tensor_cores", "trace", "loss", "fit", "sparse_grid", "peak_rate", "tape"]
)
def test_the_kernels_compile_without_warnings_or_spills(source, tmp_path):
    """For Ampere and Hopper, from one PTX; registers that spill within a loop would show in the hundreds."""
    result = subprocess.run(
        [
            NVCC, "-std=c++17", "-O3", "-fatbin", "-Werror", "all-warnings", "-Xptxas", "-v",
            "-gencode=arch=compute_80,code=[sm_80,sm_90,compute_80]",
            "-o", str(tmp_path / "all.fatbin"), str(REPOSITORY / "kernels" / "cuda" / f"{source}.cu"),
        ],
        capture_output=True, text=True,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    assert "warning" not in result.stderr
    spills = [int(n) for n in re.findall(r"(\d+) bytes spill loads", result.stderr)]
    assert len(spills) >= 2  # a kernel for each architecture
    assert max(spills) <= 128
