"""The C++ core's lattice compared with numpy's and libigl's, marching cubes in every case, invalid arrays."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from neuralsdf.array_types import Faces
from neuralsdf.backends import backend_status
from neuralsdf.grid.sparse_grid import CORNERS, Lattice, NativeLattice, distinct, fastest_lattice
from neuralsdf.thread_count import set_threads

from ..helpers.core import needs_core
from ..helpers.lattices import interior_cells, padded


def test_the_core_is_used_where_it_was_built() -> None:
    assert isinstance(fastest_lattice(5), NativeLattice) == backend_status("native").available


def directed_edges(faces: Faces) -> np.ndarray:
    """Directed edges (n, 2) of faces, in a fixed order."""
    edges = np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]])
    return edges[np.lexsort(edges.T)]


def assert_closed(faces: Faces) -> None:
    edges = directed_edges(faces)
    assert (np.diff(edges, axis=0) != 0).any(axis=1).all()
    assert np.array_equal(edges, directed_edges(faces[:, ::-1]))


def volume(vertices: np.ndarray, faces: Faces) -> float:
    a, b, c = (vertices[faces[:, corner]] for corner in range(3))
    return float((a * np.cross(b, c)).sum() / 6)


@needs_core
def test_each_case_alone_is_closed_and_outward_and_the_same_as_libigl() -> None:
    """One cell in each of its 256 cases, with all its neighbours."""
    for code in range(1, 256):
        values = np.ones((2, 2, 2))
        inside = CORNERS[(code >> np.arange(8) & 1).astype(bool)]
        values[tuple(inside.T)] = -0.5
        lattice, cells, keys, samples = padded(values)
        vertices, faces = NativeLattice(lattice.side).marching_cubes(cells, keys, samples)
        assert_closed(faces)
        assert volume(vertices, faces) > 0
        expected = lattice.marching_cubes(cells, keys, samples)
        assert np.array_equal(vertices, expected[0])
        assert np.array_equal(faces, expected[1])


@needs_core
@settings(max_examples=40)
@given(st.integers(0, 2**32 - 1), st.integers(1, 12), st.floats(0.05, 0.95))
@example(917909714, 12, 0.125)  # a zero beside a value hardly below it
def test_random_signs_are_closed_and_the_same_as_libigl(seed: int, size: int, share: float) -> None:
    """Every pair of cases that can share a face, zeros and tiny values among the lattice points."""
    rng = np.random.default_rng(seed)
    values = rng.choice([-1.0, -1e-30, 0.0, 1e-30, 1.0], (size,) * 3) * rng.random((size,) * 3)
    values[rng.random((size,) * 3) < share] *= -1
    lattice, cells, keys, samples = padded(values)
    core = NativeLattice(lattice.side)
    vertices, faces = core.marching_cubes(cells, keys, samples)
    assert_closed(faces)
    assert np.array_equal(np.unique(faces), np.arange(len(vertices)))
    expected = lattice.marching_cubes(cells, keys, samples)
    assert np.array_equal(vertices, expected[0])
    assert np.array_equal(faces, expected[1])


@needs_core
@settings(max_examples=40)
@given(st.integers(0, 2**32 - 1), st.integers(2, 40), st.floats(0, 0.3))
def test_sparse_cells_are_treated_as_in_numpy(seed: int, side: int, share: float) -> None:
    rng = np.random.default_rng(seed)
    cells = interior_cells(side)
    cells = cells[rng.random(len(cells)) < share]
    lattice, core = Lattice(side), NativeLattice(side)
    keys = core.corner_keys(cells)
    offsets = CORNERS @ lattice.strides
    assert np.array_equal(keys, np.unique(cells[:, None] + offsets))
    assert np.array_equal(keys, lattice.corner_keys(cells))
    values = rng.normal(size=len(keys)).astype(np.float32)
    codes = core.cell_codes(cells, keys, values)
    corners = values[np.searchsorted(keys, cells[:, None] + offsets)]
    assert np.array_equal(codes, ((corners < 0) << np.arange(8)).sum(axis=1))
    assert np.array_equal(codes, lattice.cell_codes(cells, keys, values))
    for ours, theirs in zip(
        core.marching_cubes(cells, keys, values), lattice.marching_cubes(cells, keys, values), strict=True
    ):
        assert np.array_equal(ours, theirs)


@needs_core
@pytest.mark.parametrize("offset", [0, 0.5, 4])
def test_ball_points_are_the_nearest_of_the_ball(offset: float) -> None:
    side, spacing = 21, 2 / 18
    keys = np.random.default_rng(0).permutation(side**3)
    points, beyond = NativeLattice(side).ball_points(keys, spacing, offset)
    along = (np.arange(side) + offset) * spacing - (1 + spacing)
    located = np.stack(np.meshgrid(along, along, along, indexing="ij"), axis=-1).reshape(-1, 3)[keys]
    radii = np.linalg.norm(located, axis=1)
    assert np.allclose(points, located / np.maximum(radii, 1)[:, None], rtol=0, atol=1e-7)
    assert np.allclose(beyond, radii - 1, rtol=0, atol=1e-7)
    reference = Lattice(side).ball_points(keys, spacing, offset)
    assert np.abs(points - reference[0]).max() < 1e-7
    assert np.abs(beyond - reference[1]).max() < 2e-7


@needs_core
def test_results_do_not_depend_on_the_threads() -> None:
    """More cells than one thread processes at a time."""
    rng = np.random.default_rng(0)
    side = 60
    core, cells = NativeLattice(side), interior_cells(side)
    keys, values = np.arange(side**3), rng.normal(size=side**3).astype(np.float32)
    results = []
    try:
        for count in (1, 2, 7):
            set_threads(count)
            points = core.ball_points(keys, 0.1, 0.5)
            results.append(
                [*points, core.cell_codes(cells, keys, values), *core.marching_cubes(cells, keys, values)]
            )
    finally:
        set_threads(1)
    for result in results[1:]:
        assert all(np.array_equal(a, b) for a, b in zip(results[0], result, strict=True))


@pytest.mark.parametrize("kind", [Lattice, pytest.param(NativeLattice, marks=needs_core)])
def test_no_cells_give_no_keys_and_no_surface(kind: type[Lattice]) -> None:
    lattice, none = kind(9), np.empty(0, np.int64)
    values = np.empty(0, np.float32)
    assert lattice.corner_keys(none).shape == (0,)
    assert lattice.cell_codes(none, none, values).shape == (0,)
    assert lattice.ball_points(none, 0.1, 0.0)[0].shape == (0, 3)
    vertices, faces = lattice.marching_cubes(none, none, values)
    assert (vertices.shape, faces.shape) == ((0, 3), (0, 3))


@needs_core
def test_cells_keys_and_values_that_do_not_match_are_refused() -> None:
    core, lattice = NativeLattice(9), Lattice(9)
    cells = np.array([0, 1, 100])
    keys = lattice.corner_keys(cells.copy())
    values = np.ones(len(keys), np.float32)
    for operation in (core.cell_codes, core.marching_cubes):
        with pytest.raises(ValueError, match="contain the corners"):
            operation(cells, keys[:-1], values[:-1])
        with pytest.raises(ValueError, match="keys must be in ascending order"):
            operation(cells, keys[::-1].copy(), values)
        with pytest.raises(ValueError, match="one for each key"):
            operation(cells, keys, values[1:])
        with pytest.raises(ValueError, match="float32"):
            operation(cells, keys, values.astype(np.float64))
        with pytest.raises(ValueError, match="cells must be in ascending order"):
            operation(cells[::-1].copy(), keys, values)
        operation(cells, keys, np.full(len(keys), np.nan, np.float32))
    for bad in ([-1], [9**3], [2**62], [-(2**62)]):
        with pytest.raises(ValueError, match="keys of the grid"):
            core.corner_keys(np.array(bad))
        with pytest.raises(ValueError, match="keys of the grid"):
            core.ball_points(np.array(bad), 0.1, 0.0)
    with pytest.raises(ValueError, match="C-contiguous"):
        core.corner_keys(np.arange(8)[::2])
    with pytest.raises(ValueError, match="int64"):
        core.corner_keys(np.arange(8, dtype=np.int32))
    with pytest.raises(ValueError, match="per side"):
        NativeLattice(2**21).corner_keys(cells)


def test_distinct_equals_numpys_unique() -> None:
    keys = np.random.default_rng(0).integers(0, 50, 200)
    assert np.array_equal(distinct(keys.copy()), np.unique(keys))


_KERNEL = """
#include "shared/marching_cubes.h"
using namespace neuralsdf;
__global__ void corners(const unsigned char* codes, const float* values, int* count, double* where) {
    const char* edges = case_triangles(codes[threadIdx.x]);
    for (; *edges; ++edges) {
        const int edge = edge_of_digit(*edges), corner = edge_corner(edge);
        count[threadIdx.x] += corner_x(corner) + corner_y(corner) + corner_z(corner) + edge_axis(edge);
        where[threadIdx.x] += crossing(values[0], values[1], 1e-3);
    }
}
"""


@pytest.mark.skipif(shutil.which("nvcc") is None, reason="there is no nvcc here")
def test_the_header_compiles_for_cuda(tmp_path: Path) -> None:
    source = tmp_path / "corners.cu"
    source.write_text(_KERNEL)
    kernels = Path(__file__).resolve().parents[2] / "kernels"
    command = ["nvcc", "-std=c++17", "-ptx", "-arch=compute_80", "-Werror", "all-warnings"]
    done = subprocess.run(
        [*command, "-I", str(kernels), str(source), "-o", str(tmp_path / "corners.ptx")],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    # Tables are in constant or global memory of the module, initialised when it is loaded.
    assert "triangles" in (tmp_path / "corners.ptx").read_text()
