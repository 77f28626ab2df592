"""The resolution chosen for a shape, and films: zero sets without a thickness, which are not surfaces."""

from __future__ import annotations

import math

import numpy as np
import pytest

from neuralsdf.array_types import FloatArray
from neuralsdf.csg import Shape, box, cone, cylinder, sphere
from neuralsdf.errors import EmptyShapeError, NoSurfaceError
from neuralsdf.fields.extract import Surface, extract, model_surface
from neuralsdf.fields.extraction_grid import PROCESS_BYTES, FieldGrid
from neuralsdf.fields.mesh_field import MeshField
from neuralsdf.geometry.similarity_transform import Similarity
from neuralsdf.grid.surface_search import settled
from neuralsdf.mesh.signed_distance import SignedDistance

from ..helpers import fields, shapes
from ..helpers.fields import Analytic


@pytest.mark.parametrize("shape", [sphere(1), box(2) - sphere(1.2), cone(1, 2, 0.1)], ids=str)
def test_an_ordinary_shape_is_extracted_at_256(shape: Shape) -> None:
    chosen, given = extract(shape), extract(shape, 256)
    assert chosen.resolution == 256
    assert chosen.notes == ()
    assert np.array_equal(chosen.vertices, given.vertices)
    assert np.array_equal(chosen.faces, given.faces)


@pytest.mark.parametrize(
    "shape", [box(1, 1, 150), box(1, 2, 3).rotate(40, 1, 2, 3) | sphere(1).translate(9, 0, 0)]
)
@pytest.mark.parametrize("level", [0.0, 0.05, -0.002])
def test_only_the_box_of_a_shape_is_searched(
    shape: Shape, level: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    grid = FieldGrid(shape, level, 256, 1 << 33)
    cells, found = grid._coarsest_cells(), grid.surface(grid.search())
    monkeypatch.setattr(Shape, "box", (-np.ones(3), np.ones(3)))
    whole = FieldGrid(shape, level, 256, 1 << 33)
    assert len(cells) < len(whole._coarsest_cells()) / 5
    for ours, theirs in zip(found, whole.surface(whole.search()), strict=True):
        assert np.array_equal(ours, theirs)


@pytest.mark.parametrize(("length", "turn"), [(150, 0), (150, 30), (1000, 0)])
def test_a_rod_keeps_its_volume(length: float, turn: float) -> None:
    surface = extract(box(1, 1, length).rotate(turn, 1, 2, 0))
    assert surface.volume == pytest.approx(length, rel=0.03)
    assert surface.resolution > 256
    assert surface.shells.count == 1


@pytest.mark.parametrize(
    ("shape", "volume"),
    [
        (box(12, 12, 0.1).rotate(20, 1, 1, 0), 14.4),
        (cylinder(0.05, 20) | cylinder(0.05, 20).rotate(90, 1, 0), 2 * math.pi * 0.0025 * 20 - 0.00067),
        (sphere(1).hollow(0.03), 4 / 3 * math.pi * (1 - 0.97**3)),
        (sphere(0.03).repeat(0.5, 0.5, 0.5, 4, 4, 4), 64 * 4 / 3 * math.pi * 0.03**3),
    ],
    ids=["plate", "crossed rods", "thin wall", "small balls"],
)
def test_thin_shapes_keep_their_volume(shape: Shape, volume: float) -> None:
    assert extract(shape).volume == pytest.approx(volume, rel=0.02)


def test_a_small_part_beside_a_large_one_is_found() -> None:
    """Where no lattice point of 256 is inside of it."""
    field = box(1) | sphere(0.004).translate(1.2, 0.0035, 0.0035)
    assert extract(field, 256).shells.count == 1
    shells = extract(field).shells
    assert shells.count == 2
    assert shells.volumes.min() == pytest.approx(4 / 3 * math.pi * 0.004**3, rel=0.3)


def test_a_gap_without_a_lattice_point_is_found() -> None:
    gap = 0.004
    halves = box(1, 1, 1).translate(0, 0, 0.5 + gap / 2) | box(1, 1, 1).translate(0, 0, -0.5 - gap / 2)
    field = halves.translate(0, 0, 0.3).rotate(0.2, 1, 0) | sphere(0.01).translate(0.9, 0.9, 1.2)
    surface = extract(field)
    assert surface.shells.bodies == 3
    assert surface.volume == pytest.approx(2, rel=0.01)


def test_the_memory_limit_ends_the_search_with_a_sufficient_resolution() -> None:
    field = box(1, 1, 150)
    surface = extract(field, max_memory=PROCESS_BYTES + 3_000_000)
    assert surface.volume < 145
    (note,) = surface.notes
    assert note.startswith(f"warning: at resolution {surface.resolution} the volume is off by")
    wanted = int(note.split("`resolution=")[1].split("`")[0])
    assert extract(field, wanted).volume == pytest.approx(150, rel=0.03)


def test_parts_too_thin_for_the_memory_are_named_without_a_search() -> None:
    field = box(1) | sphere(0.001).translate(1.2, 0.003, 0.003)
    surface = extract(field, max_memory=PROCESS_BYTES + 100_000_000)
    assert surface.resolution == 256
    assert len(surface.notes) == 1
    assert "thick are missing; try `resolution=" in surface.notes[0]
    assert "of `max_memory=`" in surface.notes[0]


def test_a_sharp_edge_is_not_a_missed_part() -> None:
    """The tip of a wedge is thinner than a cell at any resolution."""
    lens = sphere(10).translate(0, 0, 9.5) & sphere(10).translate(0, 0, -9.5)
    surface = extract(lens)
    assert surface.resolution == 256
    assert surface.volume == pytest.approx(2 * math.pi * 0.5**2 * (10 - 0.5 / 3), rel=0.01)


def test_the_error_of_the_volume_is_measured() -> None:
    """Compared with the loss by interpolation between corners: the edges of a rod that is two cells wide."""
    field = box(1, 1, 60)
    grid = FieldGrid(field, 0.0, 128, 1 << 30)
    found = grid.search()
    vertices, faces = grid.lattice.marching_cubes(found.cells, found.samples)
    true = 60 / field.transform.scale**3
    lost = true - Surface(vertices * grid.spacing, faces).volume
    assert lost > 0
    assert grid.volume_error(found) == pytest.approx(lost, rel=0.25)
    assert 0 < true - model_surface(field, 128).volume < lost  # its vertices are moved


def test_the_resolution_is_chosen_for_the_level() -> None:
    surface = extract(Analytic(fields.box(0.9, 0.02, 0.02)), level=-0.015)
    assert surface.volume == pytest.approx(8 * 0.885 * 0.005**2, rel=0.03)


# -- films --------------------------------------------------------------------------------------------

THIRD = 0.1 + 0.2  # not 0.3

FILMS = {
    "difference": (box(1) - box(1, 1, 0.5).translate(0, 0, 0.25), 0.5, 4, 0.0),
    "with rounding": (box(1).translate(THIRD) - box(1, 1, 0.5).translate(0.3, 0, 0.25), 0.5, 4, 0.0),
    "turned": ((box(1) - box(1, 1, 0.5).translate(0, 0, 0.25)).rotate(90, 0, 0, 1), 0.5, 4, 0.0),
    "union": (box(1).translate(0.5) | box(1).translate(-0.5), 2, 10, 0.5),
    "union with rounding": (box(1).translate(THIRD) | box(1).translate(1.3), 2, 10, 0.5),
    "repeat": (box(1).repeat(1, 0, 0, 3), 3, 14, 0.5),
    "symmetry": (box(1).translate(0.5).symmetry(1), 2, 10, 0.5),
    "other primitives": (cylinder(0.5, 1) | box(1).translate(0, 0, 1), 1 + math.pi / 4, 6 + math.pi, 1.5),
    "a cavity at the wall": (box(2) - box(1).translate(0.5), 7, 28, 1.0),
    "offset by nothing": (box(1).offset(0) - box(1, 1, 0.5).translate(0, 0, 0.25).offset(0), 0.5, 4, 0.0),
    "three in one": (box(1) - (box(1, 1, 0.5).translate(0, 0, 0.25) | box(1, 0.5, 1).translate(0, 0.25)),
                     0.25, 2.5, 0.0),
}  # fmt: skip


@pytest.mark.parametrize("name", FILMS)
def test_a_film_is_not_a_surface(name: str) -> None:
    shape, volume, area, top = FILMS[name]
    for resolution in (128, None):
        surface = extract(shape, resolution)
        assert surface.volume == pytest.approx(volume, rel=0.005)
        assert surface.area == pytest.approx(area, rel=0.02)
        assert surface.bounds[1][2] == pytest.approx(top, abs=1e-3)
        assert surface.shells.count == 1


@pytest.mark.parametrize(
    "shape",
    [
        box(2) - box(2),
        box(1) & box(1).translate(1),
        box(1).translate(THIRD) - box(1).translate(0.3),
        cylinder(1, 2) - cylinder(1, 2).rotate(45),
        sphere(1).offset(0) - sphere(1),
    ],
    ids=str,
)
def test_a_shape_of_films_is_empty(shape: Shape) -> None:
    with pytest.raises(NoSurfaceError, match="empty"):
        extract(shape)


@pytest.mark.parametrize(
    "shape", [box(1, 1, 1e-6), box(1e6, 1, 1), sphere(1) | sphere(1).translate(1e6)], ids=str
)
def test_a_shape_that_may_be_thinner_than_a_cell_is_not_called_empty(shape: Shape) -> None:
    with pytest.raises(EmptyShapeError, match="or nowhere thicker than 1e-05 of its radius"):
        extract(shape)


@pytest.mark.slow
def test_dust_is_too_small_and_not_empty() -> None:
    """No corner of a lattice is in one of its million spheres."""
    dust = sphere(1e-3).repeat(1, 1, 1, 100, 100, 100)
    with pytest.raises(NoSurfaceError, match="too thin or small to extract: about 1e-05") as caught:
        extract(dust)
    assert not isinstance(caught.value, EmptyShapeError)


def test_dust_that_is_mostly_missed_is_a_warning() -> None:
    """A few of its spheres hold a corner of the first lattice that finds any, none one of the next."""
    surface = extract(sphere(1e-3).repeat(1, 1, 1, 20, 20, 20))
    assert surface.volume < 8000 * 4 / 3 * math.pi * 1e-9
    assert "parts or gaps about 7.8e-05 of the radius thick are missing" in surface.notes[-1]


def test_faces_shared_by_two_bodies_are_not_a_surface() -> None:
    (vertices, faces), side = shapes.box(0.25, 0.25, 0.25), np.array([0.25, 0, 0])
    mesh = shapes.joined((vertices - side, faces), (vertices + side, faces))
    surface = extract(MeshField(SignedDistance(*mesh), Similarity.identity()), 130)
    assert surface.shells.count == 1
    assert surface.volume == pytest.approx(0.25, rel=0.03)
    assert surface.area == pytest.approx(2.5, rel=0.04)


def test_values_within_rounding_of_a_film_take_the_sign_around_it() -> None:
    """Of a film outside, a film inside, and a surface."""
    rng = np.random.default_rng(0)
    points = np.zeros((300, 3), np.float32)
    points[:, 1:] = rng.uniform(-0.5, 0.5, (300, 2))
    noise = rng.uniform(-1e-6, 1e-6, 300).astype(np.float32)
    for function, side in ((lambda x: np.abs(x), 1), (lambda x: -np.abs(x), -1), (lambda x: x, 0)):

        def evaluate(p: FloatArray, function=function) -> FloatArray:  # type: ignore[no-untyped-def]
            return function(p[:, 0])  # type: ignore[no-any-return]

        values = settled(evaluate, points, noise.copy(), 4e-6)
        if side:
            assert (np.sign(values) == side).all()
        else:
            assert np.array_equal(values, noise)


@pytest.mark.slow
def test_memory_of_later_steps_counts() -> None:
    """A resolution whose mesh could not be reduced, written or converted within the limit is not used."""
    field = sphere(1).hollow(0.01)
    fine, coarse = extract(field), extract(field, face_bytes=1000)
    assert (fine.resolution, fine.notes) == (512, ())
    assert coarse.resolution == 256
    assert "of `max_memory=`" in coarse.notes[0]
    assert extract(field, face_bytes=1000, max_memory=6_000_000_000).resolution == 512
    assert extract(field, 512, face_bytes=1000).resolution == 512  # a given resolution is kept


def test_a_shell_too_thin_for_the_memory_names_a_sufficient_resolution() -> None:
    field = sphere(1).hollow(0.008)
    surface = extract(field, max_memory=PROCESS_BYTES + 60_000_000)
    assert surface.resolution < 256
    assert "try `resolution=512`, which needs" in surface.notes[0]
    assert extract(field, 512).volume == pytest.approx(4 / 3 * math.pi * (1 - 0.992**3), rel=0.001)


def test_a_shell_that_no_resolution_in_memory_resolves_is_not_searched_finer() -> None:
    """At 1024, the maximum for 2 GB, its walls are half a cell thick: most of it would still be missing."""
    surface = extract(sphere(1).hollow(0.001))
    assert surface.resolution == 256
    (note,) = surface.notes
    assert note.startswith("warning: at resolution 256 the volume is off by")
    assert "try `resolution=4096`, which needs" in note


class Slow(Analytic):
    """A field whose values cost a given number of operations; it counts its evaluations."""

    def __init__(self, function: fields.Function, operations: int) -> None:
        super().__init__(function)
        self._operations, self.points = operations, 0

    @property
    def operations(self) -> int:
        return self._operations

    def value(self, points: FloatArray) -> FloatArray:
        self.points += len(points)
        return super().value(points)


@pytest.mark.parametrize("operations", [20_000, 60_000])
def test_the_search_of_a_slow_field_starts_coarser(operations: int) -> None:
    """Its work is bounded for any field; noise has a surface in every cell."""
    for function, volume in ((fields.sphere(0.9), 4 / 3 * math.pi * 0.9**3), (noise, None)):
        field = Slow(function, operations)
        surface = extract(field)
        assert field.points * operations < 1 << 34
        assert 32 <= surface.resolution < 256
        assert "the field is slow to evaluate; `resolution=256` makes it finer" in surface.notes[-1]
        assert volume is None or surface.volume == pytest.approx(volume, rel=0.03)


def noise(points: np.ndarray) -> np.ndarray:
    return 0.2 * np.sin(40 * points).sum(axis=1)


def test_a_slow_field_without_a_surface_is_not_searched_to_the_end() -> None:
    field = Slow(lambda points: 0.3 + 0.2 * noise(points), 60_000)
    with pytest.raises(NoSurfaceError):
        extract(field)
    assert field.points * field.operations < 1 << 34
