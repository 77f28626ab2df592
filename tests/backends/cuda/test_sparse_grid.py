"""Extraction on a CUDA device equals that of the C++ core and of numpy, bit for bit: on the host driver
(cuda_host.py), and on a GPU if there is one."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from neuralsdf.backends import get_backend
from neuralsdf.backends.cuda import CudaBackend, device
from neuralsdf.backends.cuda import sparse_grid as cuda_lattice
from neuralsdf.backends.cuda.sparse_grid import CudaFieldLattice, DeviceSamples
from neuralsdf.csg import box
from neuralsdf.csg.compile import compile_shape
from neuralsdf.errors import BackendError, NeuralSDFError, NoSurfaceError
from neuralsdf.fields.extract import extract, model_surface
from neuralsdf.fields.extraction_grid import PROCESS_BYTES, FieldGrid
from neuralsdf.fields.field import NeuralField
from neuralsdf.geometry.similarity_transform import Similarity
from neuralsdf.grid.sparse_grid import Lattice, NativeLattice
from neuralsdf.grid.surface_search import HostFieldLattice, surface_cells

from ...helpers.cuda_host import HostDriver
from ...helpers.fields import octahedron
from ...helpers.lattices import OnLattice, assert_same_surfaces, interior_cells, padded, surfaces
from ...helpers.networks import surface_network
from ...helpers.surfaces import assert_closed

pytest.importorskip("neuralsdf.kernels._core", reason="the C++ core was not built")


@pytest.mark.parametrize(
    "network",
    [
        pytest.param(octahedron(0.7), id="closed"),
        pytest.param(
            octahedron(0.75), id="through lattice points"
        ),  # at a resolution of 34 multiples of 1/16
        pytest.param(octahedron(1.1), id="cut by the ball"),
        pytest.param(octahedron(3.0), id="the ball"),
        pytest.param(octahedron(0.02), id="too small for most resolutions"),
        pytest.param(surface_network(), id="random"),
    ],
)
def test_surfaces_equal_those_of_the_cpu(backend, network):
    program = backend.compile(network)
    for resolution in (8, 9, 34, 64):
        same = surfaces(program, resolution)
        assert_same_surfaces(same)
        assert_closed(same[0])
        assert same[0].volume > 0
    by_tensor_cores = backend.compile(network, np.inf)
    assert by_tensor_cores.tensor_cores
    assert_same_surfaces(surfaces(by_tensor_cores, 34))


def test_zeros_at_lattice_points_are_outside(backend):
    """The octahedron's corners and edges are lattice points, and count as outside."""
    surface = surfaces(backend.compile(octahedron(0.75)), 34)[0]
    margin = 1e-3 / 16
    assert 0.75 - 2 * margin < np.abs(surface.vertices).sum(axis=1).max() <= 0.75
    assert surface.volume == pytest.approx(4 / 3 * 0.75**3, rel=0.01)


def test_levels_and_transforms_are_kept(backend):
    program = backend.compile(octahedron(0.5))
    assert_same_surfaces(surfaces(program, 40, level=0.2))
    field = OnLattice(program)
    field.transform = Similarity.from_ball((1, 2, 3), 10.0)
    assert extract(field, 40, level=2.0).volume == pytest.approx(4 / 3 * 7**3, rel=0.01)


def test_without_a_surface_the_lowest_value_equals_that_of_the_cpu(backend):
    program, messages = backend.compile(octahedron(-0.1)), []
    for kind in (None, NativeLattice, Lattice):
        with pytest.raises(NoSurfaceError, match=r"smallest value.*\+0\.1") as error:
            model_surface(OnLattice(program, kind), 64)
        messages.append(str(error.value))
    assert messages[0] == messages[1] == messages[2]


def test_the_native_backend_extracts_the_same_surface_up_to_rounding(backend):
    """Lattice points are odd multiples of 1/73, and so are sums of three: rounding changes no sign."""
    for size in (0.7, 1.1):
        ours, theirs = (
            model_surface(OnLattice(b.compile(octahedron(size))), 75)
            for b in (backend, get_backend("native"))
        )
        np.testing.assert_array_equal(ours.faces, theirs.faces)
        np.testing.assert_allclose(ours.vertices, theirs.vertices, atol=1e-5)


def on_device(lattice, keys, values):
    """Samples of a lattice of the device."""
    keys = lattice.cells(keys)
    with lattice._device.current():
        there = cuda_lattice.DeviceArray(lattice._device, len(values), 4)
        lattice._device.write(there.address, values)
    return DeviceSamples(keys, there)


def test_every_case_of_marching_cubes_and_any_cells(backend):
    """All 256 cases and their neighbours; zeros and tiny values; gaps between cells; no cells."""
    program = backend.compile(octahedron(0.5))
    for seed in range(25):
        rng = np.random.default_rng(seed)
        values = rng.choice([-1.0, -1e-30, 0.0, 1e-30, 1.0], (12,) * 3) * rng.random((12,) * 3)
        lattice, cells, _, dense = padded(values)
        cells = cells[rng.random(len(cells)) < (1, 0.3, 0.01, 0)[seed % 4]]
        keys = lattice.corner_keys(cells)
        samples = dense[keys]
        ours = CudaFieldLattice(backend.device, program, lattice.side, 1.0, 0.0)
        vertices, faces = ours.marching_cubes(ours.cells(cells), on_device(ours, keys, samples))
        expected = NativeLattice(lattice.side).marching_cubes(cells, keys, samples)
        np.testing.assert_array_equal(vertices, expected[0])
        np.testing.assert_array_equal(faces, expected[1])


def narrowed(lattice, resolution, size, lipschitz, keep=slice(None)):
    """The cells that a lattice finds, starting from some cells of side `size`, with a Lipschitz constant."""
    cells = interior_cells(resolution + 1)
    places = Lattice(resolution + 1).subscripts(cells)
    cells = cells[(places % size == 0).all(axis=1)][keep]
    asked = []
    cells, samples, _ = surface_cells(
        lattice, lattice.cells(cells), size, lipschitz, lambda *cells: asked.append(cells)
    )
    return [*lattice.marching_cubes(cells, samples), lattice.lowest, asked]


@pytest.mark.parametrize(
    ("network", "lipschitz", "keep"),
    [
        (octahedron(0.7), 0.05, slice(None)),  # far too small
        (octahedron(0.7), 1.8, slice(0, 180)),  # half of the octahedron is never searched
        (octahedron(1.1), 0.05, slice(None)),
        (octahedron(-0.1), 0.05, slice(None)),  # no interior
        (surface_network(), 0.1, slice(None)),
    ],
)
def test_a_surface_that_leaves_the_cells_kept_is_followed(backend, network, lipschitz, keep):
    program = backend.compile(network)
    arguments = 33, 2 / 30, 0.0
    lattices = [
        CudaFieldLattice(backend.device, program, *arguments),
        *(HostFieldLattice(kind(33), program.evaluate, *arguments[1:]) for kind in (NativeLattice, Lattice)),
    ]
    ours, *others = (narrowed(lattice, 32, 4, lipschitz, keep) for lattice in lattices)
    for other in others:
        np.testing.assert_array_equal(ours[0], other[0])
        np.testing.assert_array_equal(ours[1], other[1])
        assert ours[2:] == other[2:]
    if len(ours[1]):
        sets = len(ours[3])
        assert sets > len(narrowed(lattices[0], 32, 4, 2.0)[3])  # more evaluations, because it was followed


def test_blocks_and_the_order_of_threads_do_not_matter(driver, monkeypatch):
    program = CudaBackend(device.Device(), get_backend("torch")).compile(octahedron(1.1))
    whole = surfaces(program, 40)[0]
    driver.falling = True
    monkeypatch.setattr(cuda_lattice, "BLOCK", 700)
    assert_same_surfaces([whole, *surfaces(program, 40)])


def test_a_field_that_is_not_finite_is_refused(backend):
    network = surface_network()
    network.weights[:] *= np.float32(1e20)
    lattice = backend.compile(network).on_lattice(33, 2 / 30, 0.0)
    with pytest.raises(NeuralSDFError, match="not finite"):
        narrowed(lattice, 32, 4, 1.0)


def test_too_many_cells_for_the_kernels_are_refused(backend, monkeypatch):
    monkeypatch.setattr(cuda_lattice, "MAX_ITEMS", 5000)
    with pytest.raises(NeuralSDFError, match="too many for the CUDA kernels; use `device='native'`"):
        model_surface(OnLattice(backend.compile(octahedron(0.7))), 75)


def test_a_full_device_is_an_error_in_one_line(driver):
    field = OnLattice(CudaBackend(device.Device(), get_backend("torch")).compile(octahedron(0.7)))
    model_surface(field, 16)
    driver.memory = sum(memory.nbytes for memory in driver.allocated.values()) + 200_000
    with pytest.raises(BackendError, match="GB of memory left; NEURALSDF_BACKEND=native") as error:
        model_surface(field, 64)
    assert "\n" not in str(error.value)
    driver.memory *= 10
    assert model_surface(field, 64).watertight


def test_max_memory_is_kept_on_the_device(driver):
    """The lowest accepted limit is not exceeded, except by the current blocks, which are bounded."""
    field = OnLattice(CudaBackend(device.Device(), get_backend("torch")).compile(octahedron(1.1)))
    needed = cells_of(field, 128) * CudaFieldLattice.bytes_per_cell
    driver.pool.free_held()
    blocks, driver.peak = sum(memory.nbytes for memory in driver.allocated.values()), 0
    grid = FieldGrid(field, 0.0, 128, PROCESS_BYTES + needed)
    vertices, faces = grid.surface(grid.search())
    assert driver.peak - blocks <= 0.9 * needed
    # The returned mesh, while it is transformed to mesh space.
    assert 2 * faces.nbytes + vertices.nbytes <= needed
    with pytest.raises(NeuralSDFError, match="fits"):
        replace(grid, max_memory=PROCESS_BYTES + needed - 1).search()


def cells_of(field, resolution):
    """The maximum number of cells for which an extraction allocates memory."""
    with pytest.MonkeyPatch.context() as patch:
        asked = []
        patch.setattr(
            "neuralsdf.fields.extraction_grid.FieldGrid._check_memory",
            lambda self, cells, size: asked.append(cells),
        )
        model_surface(field, resolution)
    return max(asked)


def test_allocated_memory_is_freed(driver):
    program = CudaBackend(device.Device(), get_backend("torch")).compile(octahedron(0.7))
    model_surface(OnLattice(program), 40)
    before = len(driver.allocated)
    model_surface(OnLattice(program), 40)
    assert len(driver.allocated) == before
    assert driver.depth == 0


def test_extraction_runs_on_the_default_gpu(driver):
    surface = model_surface(NeuralField(octahedron(0.7), Similarity.identity()), 40)
    assert {"mark_vertices", "write_faces"} <= {name for name, *_ in driver.launches}
    assert isinstance(driver, HostDriver)
    assert surface.watertight


def test_a_face_shared_by_two_solids_is_not_a_surface(backend):
    """Lattice points lie on it; the CPU decides signs that are within rounding."""
    solids = box(1).translate(0.5) | box(1).translate(-0.5)
    program = backend.assemble(compile_shape(solids, Similarity.from_ball((0, 0, 0), 1.6)))
    kinds = [OnLattice(program, kind) for kind in (None, NativeLattice)]
    for field in kinds:
        field.rounding = 4e-6
    same = [model_surface(field, 64) for field in kinds]
    assert_same_surfaces(same)
    assert_closed(same[0])
    assert same[0].shells.count == 1
    assert same[0].volume == pytest.approx(2 / 1.6**3, rel=0.02)
