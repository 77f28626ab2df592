"""The extracted surface equals that of a dense grid, is closed and outward, and has known volumes."""

from __future__ import annotations

import math
import subprocess
import sys
from pathlib import Path

import igl
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial import cKDTree
from skimage.measure import marching_cubes

from neuralsdf.backends import backend_on
from neuralsdf.errors import NeuralSDFError, NoSurfaceError, UsageError
from neuralsdf.fields.extract import Surface, extract, model_surface
from neuralsdf.fields.extraction_grid import PROCESS_BYTES, FieldGrid
from neuralsdf.fields.field import Field, NeuralField
from neuralsdf.geometry.similarity_transform import Similarity
from neuralsdf.grid.sparse_grid import Lattice, fastest_lattice
from neuralsdf.storage import open_field

from ..helpers.fields import Analytic, box, bumpy, octahedron, sphere, torus, union
from ..helpers.surfaces import assert_closed

SHAPES = {
    "sphere": sphere(0.7, 0.1, -0.05, 0.02),
    "torus": torus(0.6, 0.25),
    "box": box(0.5, 0.4, 0.3),
    "two": union(sphere(0.3, -0.6, 0, 0), sphere(0.2, 0.5, 0.5, 0.3)),
    "steep": lambda p: 1.5 * torus(0.6, 0.25)(p),
    "flat": lambda p: 0.2 * torus(0.6, 0.25)(p),
    "bumpy": bumpy(box(0.5, 0.4, 0.3), 0.02, 25.0),
    "touching": sphere(1.0),
    "beyond": sphere(0.6, 0.6, 0, 0),
    "tilted": lambda p: p @ np.array([0.3, -0.5, 0.8]) - 0.1,
}


def dense_values(field: Field, resolution: int) -> np.ndarray:
    """max(f(y), |x| - 1) on the whole lattice, where zero is outside."""
    spacing = 2 / (resolution - 2)
    along = np.arange(resolution + 1) * spacing - (1 + spacing)
    points = np.stack(np.meshgrid(along, along, along, indexing="ij"), axis=-1).reshape(-1, 3)
    radii = np.linalg.norm(points, axis=1)
    inside_ball = points / np.maximum(radii, 1)[:, None]
    values = np.maximum(field.value(inside_ball.astype(np.float32)), (radii - 1).astype(np.float32))
    return np.where(values == 0, np.float32(1e-38), values).reshape((resolution + 1,) * 3)


def lattice_edges(vertices: np.ndarray, spacing: float, side: int) -> np.ndarray:
    """A number for the lattice edge that each vertex lies on."""
    subscripts = (vertices + 1 + spacing) / spacing
    axis = np.abs(subscripts - subscripts.round()).argmax(axis=1)
    lower = subscripts.round().astype(np.int64)
    rows = np.arange(len(vertices))
    lower[rows, axis] = np.floor(subscripts[rows, axis])
    return 3 * ((lower[:, 0] * side + lower[:, 1]) * side + lower[:, 2]) + axis


def dense_edges(edges: dict[int, int], side: int) -> np.ndarray:
    """The same number for each vertex of libigl's dense marching cubes, whose x is fastest."""
    ends = np.array([(key & 0xFFFFFFFF, key >> 32) for key in edges])
    subscripts = np.stack([ends % side, ends // side % side, ends // side**2], axis=-1)
    lower, axis = subscripts.min(axis=1), np.ptp(subscripts, axis=1).argmax(axis=1)
    numbers = np.empty(len(edges), np.int64)
    numbers[list(edges.values())] = 3 * ((lower[:, 0] * side + lower[:, 1]) * side + lower[:, 2]) + axis
    return numbers


def sorted_triangles(labels: np.ndarray) -> np.ndarray:
    """Triangles (m, 3), each turned so that its smallest label is first, in a fixed order."""
    turn = (labels.argmin(axis=1)[:, None] + np.arange(3)) % 3
    turned = np.take_along_axis(labels, turn, axis=1)
    return turned[np.lexsort(turned.T[::-1])]


def euler_number(surface: Surface) -> int:
    edges = np.unique(np.sort(surface.faces[:, [0, 1, 1, 2, 2, 0]].reshape(-1, 2), axis=1), axis=0)
    return len(surface.vertices) - len(edges) + len(surface.faces)


def face_areas(surface: Surface) -> np.ndarray:
    a, b, c = (surface.vertices[surface.faces[:, corner]] for corner in range(3))
    return np.linalg.norm(np.cross(b - a, c - a), axis=1) / 2


@pytest.mark.parametrize("resolution", [64, 75])
@pytest.mark.parametrize("shape", SHAPES)
def test_the_sparse_surface_equals_the_dense_one(shape: str, resolution: int) -> None:
    assert_equals_dense(Analytic(SHAPES[shape]), resolution)


def assert_equals_dense(field: Field, resolution: int) -> None:
    """Triangle for triangle libigl's dense grid; vertex for vertex scikit-image's."""
    side, spacing = resolution + 1, 2 / (resolution - 2)
    surface, values = model_surface(field, resolution), dense_values(field, resolution)
    assert_closed(surface)
    ours = lattice_edges(surface.vertices, spacing, side)
    assert len(np.unique(ours)) == len(ours)
    flat = values.transpose(2, 1, 0).astype(np.float64).ravel()
    _, faces, edges = igl.marching_cubes(flat, np.zeros((len(flat), 3)), side, side, side, 0.0)
    assert np.array_equal(
        sorted_triangles(ours[surface.faces]), sorted_triangles(dense_edges(edges, side)[faces])
    )
    vertices, faces, _, _ = marching_cubes(values, 0.0, method="lorensen")
    assert vertices.shape == surface.vertices.shape
    assert faces.shape == surface.faces.shape
    distance, _ = cKDTree(vertices.astype(np.float64)).query((surface.vertices + 1 + spacing) / spacing)
    assert distance.max() < 1.1e-3  # of a cell: the margin that our vertices keep from an edge's ends


@pytest.mark.parametrize("name", ["41937_sf", "384575_sf", "239186_sf"])
def test_the_surface_of_a_network_equals_the_dense_one(test_data: Path, name: str) -> None:
    assert_equals_dense(open_field(test_data / "author-models" / f"{name}.h5"), 128)


@pytest.mark.parametrize("shape", ["torus", "two", "beyond"])
def test_the_surface_is_the_same_without_the_core(shape: str, monkeypatch: pytest.MonkeyPatch) -> None:
    surface = model_surface(Analytic(SHAPES[shape]), 75)
    monkeypatch.setattr("neuralsdf.fields.extraction_grid.fastest_lattice", Lattice)
    reference = model_surface(Analytic(SHAPES[shape]), 75)
    assert np.array_equal(surface.faces, reference.faces)
    assert np.allclose(surface.vertices, reference.vertices, rtol=0, atol=1e-6)


@pytest.mark.parametrize("size", [0.7, 1.1])
def test_backends_extract_the_same_surface(size: float) -> None:
    """At a resolution of 75 no value at a lattice point is within rounding of zero."""
    native, torch = (
        model_surface(NeuralField(octahedron(size), Similarity.identity(), chosen_backend=backend), 75)
        for backend in (backend_on("cpu"), backend_on("torch"))
    )
    assert_closed(native)
    assert np.array_equal(native.faces, torch.faces)
    assert np.allclose(native.vertices, torch.vertices, rtol=0, atol=1e-5)


@settings(max_examples=25)
@given(st.integers(0, 2**32 - 1), st.integers(8, 40))
def test_a_field_of_noise_is_closed(seed: int, resolution: int) -> None:
    """All 256 cases of a cell and their neighbours, zeros at lattice points among them."""
    rng = np.random.default_rng(seed)
    directions, phases = rng.normal(size=(6, 3)) * 12, rng.uniform(0, 7, 6)

    def noise(p: np.ndarray) -> np.ndarray:
        return np.round(np.sin(p @ directions.T + phases).sum(axis=1), 1)

    surface = model_surface(Analytic(noise), resolution)
    assert_closed(surface)
    assert face_areas(surface).min() > 0


def test_zeros_at_lattice_points_leave_no_flat_face() -> None:
    """A diamond whose faces run through lattice points: the hardest case for an interpolation."""
    surface = model_surface(Analytic(lambda p: np.abs(p).sum(axis=1) - 0.5), 66)
    assert_closed(surface)
    assert face_areas(surface).min() > 0
    assert len(np.unique(surface.vertices.astype(np.float32), axis=0)) == len(surface.vertices)
    assert surface.volume == pytest.approx(4 / 3 * 0.5**3, rel=0.01)


def test_volume_and_area_of_a_sphere_converge_at_second_order() -> None:
    volume_errors, area_errors = [], []
    for resolution in (26, 50, 98):
        surface = model_surface(Analytic(sphere(0.8)), resolution)
        volume_errors.append(abs(surface.volume - 4 / 3 * np.pi * 0.8**3))
        area_errors.append(abs(surface.area - 4 * np.pi * 0.8**2))
        assert euler_number(surface) == 2
    for errors in (volume_errors, area_errors):
        ratios = np.array(errors[:-1]) / errors[1:]
        assert (ratios > 3.4).all()
        assert (ratios < 4.6).all()


def test_a_torus_has_euler_number_zero_and_pappus_volume() -> None:
    surface = model_surface(Analytic(torus(0.6, 0.25)), 128)
    assert euler_number(surface) == 0
    assert surface.volume == pytest.approx(2 * np.pi**2 * 0.6 * 0.25**2, rel=2e-3)
    assert surface.area == pytest.approx(4 * np.pi**2 * 0.6 * 0.25, rel=2e-3)


def test_a_box_keeps_its_volume() -> None:
    surface = model_surface(Analytic(box(0.5, 0.4, 0.3)), 128)
    assert surface.volume == pytest.approx(8 * 0.5 * 0.4 * 0.3, rel=2e-3)


def test_small_parts_far_apart_are_all_found() -> None:
    centres = [(0.8, 0.5, 0.1), (-0.9, 0.1, 0.3), (0.05, -0.6, -0.7)]
    surface = model_surface(Analytic(union(*(sphere(0.02, *centre) for centre in centres))), 256)
    assert_closed(surface)
    assert euler_number(surface) == 2 * len(centres)
    assert surface.volume == pytest.approx(3 * 4 / 3 * np.pi * 0.02**3, rel=0.1)


def test_a_plate_two_cells_thick_has_no_holes() -> None:
    spacing = 2 / 126
    surface = model_surface(Analytic(box(0.6, 0.6, spacing)), 128)
    assert_closed(surface)
    assert euler_number(surface) == 2
    assert surface.volume == pytest.approx(8 * 0.6 * 0.6 * spacing, rel=0.03)


def test_a_surface_that_leaves_the_cells_kept_is_followed() -> None:
    """A field that is so steep in one place that the Lipschitz constant measured elsewhere drops cells."""

    def steep_at_the_pole(p: np.ndarray) -> np.ndarray:
        at_pole = (np.hypot(p[:, 0], p[:, 1]) < 0.15) & (np.abs(p[:, 2] - 0.5) < 0.15)  # 0.5 % of the ball
        return sphere(0.5)(p) * np.where(at_pole, 40.0, 1.0)

    surface = model_surface(Analytic(steep_at_the_pole), 128)
    assert_closed(surface)
    assert surface.volume == pytest.approx(4 / 3 * np.pi * 0.5**3, rel=1e-3)


def test_transform_moves_the_mesh_and_a_mirror_keeps_it_outward() -> None:
    function = union(sphere(0.3, -0.6, 0, 0), sphere(0.2, 0.5, 0.5, 0.3))
    plain = extract(Analytic(function), 64)
    rotation = np.linalg.qr(np.random.default_rng(0).normal(size=(3, 3)))[0]
    for linear in (rotation, -rotation):
        matrix = np.eye(4)
        matrix[:3, :3], matrix[:3, 3] = 250 * linear, (1e6, -2e6, 5.0)
        moved = extract(Analytic(function, Similarity(matrix)), 64)
        assert np.allclose(
            moved.vertices, plain.vertices @ matrix[:3, :3].T + matrix[:3, 3], rtol=0, atol=1e-6
        )
        assert moved.volume == pytest.approx(250**3 * plain.volume)
        assert moved.area == pytest.approx(250**2 * plain.area)


def test_level_is_an_offset_in_mesh_units() -> None:
    field = Analytic(sphere(0.5), Similarity.from_ball((1, 2, 3), 10.0))
    radii = np.linalg.norm(extract(field, 64, level=2.0).vertices - (1, 2, 3), axis=1)
    assert np.abs(radii - 7).max() < 0.03


def test_the_surface_is_cut_at_the_ball_with_a_warning() -> None:
    surface = model_surface(Analytic(sphere(0.6, 0.6, 0, 0)), 128)
    assert_closed(surface)
    assert np.linalg.norm(surface.vertices, axis=1).max() < 1 + 1e-3
    d, r = 0.6, 0.6  # between the centres; the ball that leaves the unit ball
    lens = np.pi * (1 + r - d) ** 2 * (d**2 + 2 * d * (r + 1) - 3 * (r - 1) ** 2) / (12 * d)
    assert surface.volume == pytest.approx(lens, rel=2e-3)
    assert "negative" in surface.notes[0]
    assert model_surface(Analytic(sphere(1.0)), 64).notes == ()


def test_the_error_of_a_field_without_a_surface_has_its_lowest_value() -> None:
    with pytest.raises(NoSurfaceError, match=r"no surface.*smallest value.*\+0\.1") as error:
        model_surface(Analytic(lambda p: np.linalg.norm(p, axis=1) + 0.1), 64)
    assert "\n" not in str(error.value)


def test_a_finer_search_respects_the_memory_limit() -> None:
    """A field close to zero almost everywhere, such as that of a network that was fitted too briefly."""
    flat = Analytic(lambda p: 1e-4 + 0.06 * np.linalg.norm(p, axis=1) ** 8)
    with pytest.raises(NoSurfaceError, match=r"no surface.*at resolution (64|128);"):
        model_surface(flat, 64, max_memory=PROCESS_BYTES + 50_000_000)


def test_a_shape_below_the_resolution_is_found_by_a_finer_one() -> None:
    speck = sphere(0.004, 0.3003, 0.2, 0.1)
    surface = model_surface(Analytic(speck), 64)
    assert_closed(surface)
    assert "extracted at" in surface.notes[0]
    assert np.abs(speck(surface.vertices)).max() < 1e-3


def test_a_nearly_constant_field_has_no_shape(test_data: Path) -> None:
    with pytest.raises(NoSurfaceError, match="has no shape"):
        model_surface(open_field(test_data / "author-models" / "503411_sf.h5"), 64)


@pytest.mark.parametrize("resolution", [7, 8193, -1])
def test_resolution_out_of_range(resolution: int) -> None:
    with pytest.raises(UsageError, match="`resolution="):
        model_surface(Analytic(sphere(0.5)), resolution)


def test_a_field_that_is_not_finite_is_refused() -> None:
    with pytest.raises(NeuralSDFError, match="not finite"):
        model_surface(Analytic(lambda p: np.where(p[:, 0] > 0.3, np.nan, 1.0)), 32)


def test_too_little_memory_names_a_resolution_that_fits() -> None:
    field, limit = Analytic(sphere(0.8)), PROCESS_BYTES + 20_000_000
    with pytest.raises(NeuralSDFError, match=r"`resolution=(\d+)` fits") as error:
        model_surface(field, 512, max_memory=limit)
    fits = int(str(error.value).split("`resolution=")[1].split("`")[0])
    assert fits > 60
    assert model_surface(field, fits, max_memory=limit).watertight


_PEAK = """
import sys
sys.path.append(sys.argv[1])
import neuralsdf.fields.extract, neuralsdf.fields.extraction_grid, neuralsdf.mesh.wall_thickness
from neuralsdf.cli.shared.mesh_checks import checked
from neuralsdf.grid.sparse_grid import Lattice
from tests.helpers.fields import Analytic, torus
if sys.argv[2] == "numpy":
    neuralsdf.fields.extraction_grid.fastest_lattice = Lattice
shape = Analytic(torus(0.6, 0.25))
surface = neuralsdf.fields.extract.extract(shape, int(sys.argv[3]), max_memory=int(sys.argv[4]))
assert surface.area > 0 and checked(surface, 0)["closed"]
with open("/proc/self/status") as status:  # of this program alone: ru_maxrss begins with its parent's
    print(next(int(line.split()[1]) * 1024 for line in status if line.startswith("VmHWM")))
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="peak memory is read from Linux's /proc")
@pytest.mark.parametrize(
    ("kind", "resolution"),
    [
        pytest.param(Lattice, 320, id="numpy"),
        pytest.param(type(fastest_lattice(2)), 320, id="fastest"),
        pytest.param(type(fastest_lattice(2)), 448, id="many faces"),
    ],
)
def test_max_memory_is_kept(
    kind: type[Lattice],
    resolution: int,
    tmp_path: Path,
    request: pytest.FixtureRequest,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The lowest accepted limit is not exceeded, even by later operations on the mesh."""
    monkeypatch.setattr("neuralsdf.fields.extraction_grid.fastest_lattice", kind)
    grid = FieldGrid(Analytic(torus(0.6, 0.25)), 0.0, resolution, 1 << 40)
    limit = math.ceil(grid.memory(grid.search()))
    with pytest.raises(NeuralSDFError, match="fits"):
        model_surface(grid.field, resolution, max_memory=limit - 10)
    root, name = Path(__file__).resolve().parents[2], request.node.callspec.id
    command = [sys.executable, "-c", _PEAK, str(root), name, str(resolution), str(limit)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) < limit
