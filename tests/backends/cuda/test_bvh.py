"""BVHs on a CUDA device, compared with the C++ core's: on the host driver (cuda_host.py), and on a GPU if
there is one."""

from __future__ import annotations

import os
import platform
import re
import shutil
import subprocess
import sys
import threading
from functools import partial

import numpy as np
import pytest

from neuralsdf import kernels
from neuralsdf.backends import get_backend
from neuralsdf.backends.cuda import CudaBackend, device
from neuralsdf.backends.cuda import bvh as cuda_bvh
from neuralsdf.backends.cuda.bvh import CudaBVH
from neuralsdf.evaluation.metrics import true_surface
from neuralsdf.geometry.bvh import IglBVH, NativeBVH
from neuralsdf.mesh.mesh import Mesh
from neuralsdf.mesh.signed_distance import SignedDistance
from neuralsdf.pipeline.prepare_mesh import prepare, sample
from neuralsdf.pipeline.stage_times import Stages
from neuralsdf.training.sampling import Density, Sampler

from ...helpers import shapes
from ...helpers.cuda_host import DEVICES, REPOSITORY, HostDriver, the_gpu
from ...helpers.triangles import EXACT, SHARP, brute_distance, lie_on, queries, soup

core = pytest.importorskip("neuralsdf.kernels._core", reason="the C++ core was not built")

#: The host's kernels and the core's baseline then both round every product, and so agree bit for bit.
SAME_ROUNDING = platform.machine().lower() in ("x86_64", "amd64")
MESHES = ["sphere", "soup", "real"]


@pytest.fixture(params=DEVICES)
def on(request):
    """The device."""
    if request.param == "host":
        request.getfixturevalue("driver")
        return device.Device()
    return the_gpu()


@pytest.fixture(params=MESHES)
def mesh(request):
    if request.param == "sphere":
        return shapes.sphere(0.8, 3)
    if request.param == "soup":
        return soup(0, 400)
    import trimesh

    folder = request.getfixturevalue("test_data")
    loaded = trimesh.load(folder / "meshes" / "suzanne.obj", process=False, force="mesh")
    return np.asarray(loaded.vertices), np.asarray(loaded.faces, np.int64)[::3].copy()


def bit_for_bit(on: device.Device) -> bool:
    return on.name == HostDriver.name and SAME_ROUNDING


def test_closest_points_equal_those_of_the_core(on, mesh):
    points = queries(mesh, 1)
    bvh, native = CudaBVH(on, *mesh), NativeBVH(*mesh, "baseline")
    distance, face, nearest = bvh.closest(points)
    expected = native.closest(points)
    if bit_for_bit(on):
        for got, same in zip((distance, face, nearest), expected, strict=True):
            np.testing.assert_array_equal(got, same)
    np.testing.assert_allclose(distance, expected[0], rtol=1e-12, atol=1e-12)
    # Another face may be equally close, up to rounding.
    chosen = brute_distance(mesh, points)[np.arange(len(points)), face]
    np.testing.assert_allclose(chosen, distance, atol=1e-8)
    np.testing.assert_allclose(np.linalg.norm(points - nearest, axis=1), distance, rtol=1e-12, atol=1e-12)
    np.testing.assert_array_equal(bvh.distance(points), distance)


def test_the_first_of_equally_close_faces_is_found(on):
    """The same triangle many times, in many packets."""
    vertices = np.array([[0.0, 0, 0], [1, 0, 0], [0, 1, 0]])
    distance, face, nearest = CudaBVH(on, vertices, np.tile([[0, 1, 2]], (1000, 1))).closest(
        np.array([[0.25, 0.25, 1.0], [-3, -4, 0], [5, -1, 0]])
    )
    np.testing.assert_allclose(distance, [1, 5, np.hypot(4, 1)], rtol=1e-15)
    np.testing.assert_array_equal(face, 0)
    _, face = CudaBVH(on, vertices, np.tile([[0, 1, 2]], (1000, 1))).first_hit(
        np.array([[0.25, 0.25, 1.0]]), np.array([[0, 0, -1.0]])
    )
    np.testing.assert_array_equal(face, 0)
    np.testing.assert_allclose(nearest, [[0.25, 0.25, 0], [0, 0, 0], [1, 0, 0]], atol=1e-15)


def test_winding_numbers_equal_those_of_the_core(on, mesh):
    points = queries(mesh, 2)[:84]  # on a face, an edge or a vertex it is undefined
    bvh, native = CudaBVH(on, *mesh), NativeBVH(*mesh, "baseline")
    for refinements, tolerance in ((EXACT, 1e-12), ([(2.0, 0.0)], 2e-6), ([(6.0, 0.0)], 2e-6)):
        expected = native.winding_number(points, refinements)
        np.testing.assert_allclose(bvh.winding_number(points, refinements), expected, atol=tolerance)


def test_refined_winding_numbers_equal_those_of_the_final_accuracy(on):
    bvh = CudaBVH(on, *shapes.hemisphere())
    points = np.random.default_rng(0).uniform(-1, 1, (3000, 3))
    coarse, fine = (bvh.winding_number(points, [(accuracy, 0.0)]) for accuracy in (1.0, 6.0))
    again = np.abs(np.abs(coarse) - 0.5) < 0.25
    assert 0 < again.sum() < len(points)
    np.testing.assert_array_equal(
        bvh.winding_number(points, [(1.0, 0.25), (6.0, 0.0)]), np.where(again, fine, coarse)
    )


def test_first_hits_equal_those_of_the_core(on, mesh):
    rng = np.random.default_rng(3)
    origins, directions = rng.uniform(-2, 2, (400, 3)), rng.normal(size=(400, 3))
    origins[:20] *= 1e6  # from far away
    directions[:20] = rng.uniform(-1, 1, (20, 3)) - origins[:20]
    directions[20:40, 1] = 0
    directions[40:80, :2] = 0  # along an axis
    directions[80:84] = 0
    hits, faces = CudaBVH(on, *mesh).first_hit(origins, directions)
    expected, expected_faces = NativeBVH(*mesh, "baseline").first_hit(origins, directions)
    assert 0 < np.isfinite(expected).sum() < len(expected)
    np.testing.assert_allclose(hits, expected, rtol=0 if bit_for_bit(on) else 1e-9)
    if bit_for_bit(on):
        np.testing.assert_array_equal(faces, expected_faces)
    np.testing.assert_array_equal(faces < 0, np.isinf(hits))
    assert lie_on(mesh, faces, hits, origins, directions)


def test_no_ray_passes_between_adjacent_triangles(on):
    vertices, faces = shapes.sphere(0.7, 2)
    edges = (vertices[faces] + vertices[np.roll(faces, 1, axis=1)]).reshape(-1, 3) / 2
    start = np.array([0.1, -0.2, 0.3])
    aims = np.vstack([vertices, edges]) - start
    hits, _ = CudaBVH(on, vertices, faces).first_hit(np.broadcast_to(start, aims.shape), aims)
    np.testing.assert_allclose(hits, 1, atol=1e-9)


def test_a_mesh_of_one_triangle_and_a_mesh_that_is_a_point(on):
    corners = np.array([[0.0, 0, 0], [1, 0, 0], [0, 1, 0]])
    bvh = CudaBVH(on, corners, np.array([[0, 1, 2]]))
    np.testing.assert_allclose(bvh.distance(np.array([[0.2, 0.2, 3]])), [3])
    hit, face = bvh.first_hit(np.array([[0.2, 0.2, 3], [2, 2, 3]]), np.array([[0, 0, -2.0]] * 2))
    np.testing.assert_allclose(hit, [1.5, np.inf])
    np.testing.assert_array_equal(face, [0, -1])
    point = CudaBVH(on, np.zeros((1, 3)), np.zeros((5, 3), np.int64))
    np.testing.assert_allclose(point.distance(np.array([[3.0, 4, 0], [0, 0, 0]])), [5, 0])
    np.testing.assert_array_equal(point.winding_number(np.ones((1, 3)), SHARP), [0])


def test_an_empty_query_has_an_empty_result(on):
    bvh, none = CudaBVH(on, *shapes.box(1, 1, 1)), np.empty((0, 3))
    assert [answer.shape for answer in bvh.closest(none)] == [(0,), (0,), (0, 3)]
    assert bvh.distance(none).shape == bvh.winding_number(none, SHARP).shape == (0,)
    assert [answer.shape for answer in bvh.first_hit(none, none)] == [(0,), (0,)]


def test_blocks_of_points_and_the_order_of_threads_do_not_matter(driver, monkeypatch):
    mesh, points = soup(1, 100), np.random.default_rng(0).uniform(-2, 2, (600, 3))
    bvh = CudaBVH(device.Device(), *mesh)

    def answers() -> list[np.ndarray]:
        return [*bvh.closest(points), bvh.winding_number(points, SHARP), *bvh.first_hit(points, -points)]

    whole = answers()
    driver.falling = True
    monkeypatch.setattr(cuda_bvh, "BLOCK", 250)
    for one, same in zip(whole, answers(), strict=True):
        np.testing.assert_array_equal(one, same)
    assert driver.launches[-1] == ("first_hit", 1, 128, 0)


def test_several_threads_may_query_one_bvh(on):
    mesh, results = soup(2, 100), {}
    bvh = CudaBVH(on, *mesh)
    points = np.random.default_rng(0).uniform(-2, 2, (4, 300, 3))
    threads = [
        threading.Thread(target=lambda i=i: results.update({i: bvh.closest(points[i])})) for i in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for i in range(4):
        for got, expected in zip(results[i], bvh.closest(points[i]), strict=True):
            np.testing.assert_array_equal(got, expected)


def test_a_bvh_frees_its_memory(driver):
    bvh = CudaBVH(device.Device(), *shapes.box(1, 1, 1))
    assert len(driver.allocated) == 3
    del bvh
    assert driver.allocated == {}


@pytest.mark.parametrize("closed", [True, False])
def test_samples_equal_those_of_the_cores_bvhs(on, closed):
    """Also with the closing sheet of an open mesh, which depends on winding numbers."""
    mesh = shapes.torus(0.6, 0.25) if closed else shapes.hemisphere()
    of_device = CudaBackend(on, get_backend("torch")).triangle_bvh
    drawn = []
    for make_bvh in (of_device, of_device, partial(NativeBVH, isa="baseline")):
        oracle = SignedDistance(*mesh, make_bvh=make_bvh)
        assert (len(oracle.sheet[1]) == 0) == closed
        sampler = Sampler(oracle, Density(), expected=3000)
        rng = np.random.default_rng(0)
        errors = sampler.draw_errors(lambda points: np.full(len(points), 0.1, np.float32), 300, rng)
        drawn.append([*sampler.draw(3000, rng), *errors])
    for first, second, native in zip(*drawn, strict=True):
        assert first.tobytes() == second.tobytes()
        if bit_for_bit(on):
            np.testing.assert_allclose(first, native, atol=1e-6)  # winding numbers place the sheet


def test_a_conversion_uses_the_bvhs_of_its_backend(driver):
    mesh, clock = Mesh.from_arrays(*shapes.torus(0.6, 0.25)), Stages(None)
    for name, kind in (("cuda", CudaBVH), ("native", NativeBVH), ("torch", IglBVH)):
        backend = get_backend(name)  # including its self-check
        driver.launches.clear()
        shape = prepare(mesh, "winding", None, None, clock, backend)
        _, samples, _ = sample(shape, Density(), 500, 0, clock)
        assert len(samples.points) == 500
        assert {launch[0] for launch in driver.launches} == (
            {"closest_point", "winding_number"} if name == "cuda" else set()
        )
        assert isinstance(true_surface(shape.oracle)._bvh, kind)


def test_without_the_core_bvhs_are_those_of_the_cpu(driver, monkeypatch):
    monkeypatch.setitem(sys.modules, "neuralsdf.kernels._core", None)
    monkeypatch.delattr(kernels, "_core")
    backend = CudaBackend(device.Device(), get_backend("torch"))
    assert isinstance(backend.triangle_bvh(*shapes.box(1, 1, 1)), IglBVH)


@pytest.mark.parametrize(
    "points",
    [np.zeros(3), np.zeros((3, 2)), np.full((1, 3), np.nan), np.full((1, 3), np.inf), np.full((1, 3), 1e20)],
)
def test_bad_points_are_refused(driver, points):
    bvh = CudaBVH(device.Device(), *shapes.box(1, 1, 1))
    for ask in (
        lambda: bvh.distance(points),
        lambda: bvh.closest(points),
        lambda: bvh.winding_number(points, SHARP),
        lambda: bvh.first_hit(points, np.ones((len(points), 3))),
    ):
        with pytest.raises(ValueError, match=r"points|origins"):
            ask()


def test_bad_refinements_and_directions_are_refused(driver):
    bvh, points = CudaBVH(device.Device(), *shapes.box(1, 1, 1)), np.zeros((2, 3))
    for ask in (
        lambda: bvh.winding_number(points, []),
        lambda: bvh.winding_number(points, [(np.nan, 0.0)]),
        lambda: bvh.first_hit(points, np.ones((1, 3))),
        lambda: bvh.first_hit(points, np.full((2, 3), np.nan)),
    ):
        with pytest.raises(ValueError, match=r"accuracy|direction"):
            ask()
    with pytest.raises(ValueError, match="faces"):
        CudaBVH(device.Device(), points, np.array([[0, 1, 2]]))


def test_the_cores_arrays_are_read_only_and_outlive_its_bvh():
    bvh = core.TriangleBVH(*shapes.sphere(0.8, 2), core.supported_isas()[0])
    arrays = [bvh.nodes, bvh.expansions, bvh.packets]
    assert [array.shape[1] for array in arrays] == [256, 768, 320]
    assert len(arrays[0]) == len(arrays[1])
    before = [array.copy() for array in arrays]
    del bvh
    for array, same in zip(arrays, before, strict=True):
        np.testing.assert_array_equal(array, same)
        with pytest.raises(ValueError, match="read-only"):
            array[0, 0] = 1


def test_points_in_morton_order_are_neighbours():
    points = np.stack(np.meshgrid(*[np.arange(8.0)] * 3, indexing="ij"), axis=-1).reshape(-1, 3)
    order = core.morton_order(points)
    np.testing.assert_array_equal(np.sort(order), np.arange(len(points)))
    cubes = points[order].reshape(-1, 8, 3)  # eight consecutive points form a cube
    np.testing.assert_array_equal(np.ptp(cubes, axis=1), 1)
    assert core.morton_order(np.empty((0, 3))).shape == (0,)


NVCC = shutil.which(os.environ.get("NVCC", "nvcc")) or shutil.which("/usr/local/cuda/bin/nvcc")


@pytest.mark.slow
@pytest.mark.skipif(NVCC is None, reason="no nvcc")
def test_the_kernels_compile_without_warnings_or_spills(tmp_path):
    """For Ampere, Hopper and as PTX, from one run of nvcc's front end."""
    result = subprocess.run(
        [
            NVCC, "-std=c++17", "-O3", "-fatbin", "-Werror", "all-warnings", "-Xptxas", "-v",
            "-gencode=arch=compute_80,code=[sm_80,sm_90,compute_80]",
            "-o", str(tmp_path / "bvh.fatbin"), str(REPOSITORY / "kernels" / "cuda" / "bvh.cu"),
        ],
        capture_output=True, text=True,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    assert "warning" not in result.stderr
    assert [int(n) for n in re.findall(r"(\d+) bytes spill loads", result.stderr)] == [0] * 6
    assert max(int(n) for n in re.findall(r"(\d+) bytes stack frame", result.stderr)) < 1024
