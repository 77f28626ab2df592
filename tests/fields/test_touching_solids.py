"""The union of solids that share a face has no groove: it equals the same single solid."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.spatial import cKDTree

from neuralsdf.csg import Shape, box, cylinder, sphere
from neuralsdf.fields.extract import Surface, extract
from neuralsdf.fields.field import Field
from neuralsdf.fields.mesh_field import MeshField
from neuralsdf.geometry.similarity_transform import Similarity
from neuralsdf.mesh.signed_distance import SignedDistance

from ..helpers import shapes

RESOLUTION = 64

#: A shape of parts that touch, and the same shape as a single solid.
SAME = {
    "two cubes": (box(1) | box(1).translate(1, 0, 0), box(2, 1, 1).translate(0.5, 0, 0)),
    "four cubes": (
        box(1) | box(1).translate(1, 0, 0) | box(1).translate(0, 1, 0) | box(1).translate(1, 1, 0),
        box(2, 2, 1).translate(0.5, 0.5, 0),
    ),
    "cylinders": (
        cylinder(0.5, 1) | cylinder(0.5, 1).translate(0, 0, 1),
        cylinder(0.5, 2).translate(0, 0, 0.5),
    ),
    "the hole refilled": (box(2) - sphere(0.5) | sphere(0.5), box(2)),
    "cut and joined": (
        (box(2, 1, 1) - box(2).translate(1.3, 0, 0)) | (box(2, 1, 1) & box(2).translate(1.3, 0, 0)),
        box(2, 1, 1),
    ),
}
TURNS = {"aligned": 0.0, "turned": 17.0}


def _turned(shape: Shape, degrees: float) -> Surface:
    return extract(shape.rotate(degrees, 1, 2, 3) if degrees else shape, RESOLUTION)


@pytest.mark.parametrize("degrees", TURNS.values(), ids=TURNS)
@pytest.mark.parametrize("name", SAME)
def test_a_union_is_extracted_like_the_same_single_solid(name: str, degrees: float) -> None:
    joined, whole = (_turned(shape, degrees) for shape in SAME[name])
    assert joined.watertight
    assert joined.shells.count == whole.shells.count
    assert joined.area == pytest.approx(whole.area, rel=2e-3)
    assert joined.volume == pytest.approx(whole.volume, rel=5e-4)
    apart = cKDTree(whole.vertices).query(joined.vertices)[0]
    assert apart.max() < 1.5 * whole.cell  # the nearest vertex of the other; a groove has none


@pytest.mark.parametrize("shift", [0.0, 0.013])
def test_no_vertex_is_off_the_surface_at_a_seam(shift: float) -> None:
    """Measured by the solid's distance, for seams on a plane of the lattice and beside one."""
    tree = box(1) | box(1).translate(1, 0, 0) | box(0.1).translate(2 + shift, 0, 0)
    surface = extract(tree, RESOLUTION)
    near = surface.vertices[np.abs(surface.vertices[:, 0] - 0.5) < 0.3]
    side = np.abs(near[:, 1:]).max(axis=1) - 0.5
    assert len(near) > 500
    # Along the bar's four edges marching cubes cuts corners off, with vertices that lie on the sides.
    assert np.abs(side).max() < 0.03 * surface.cell


def test_touching_bodies_of_a_mesh_have_no_groove() -> None:
    """Distances of a mesh are to all of its triangles, also to those inside the solid."""
    whole, halves = shapes.box(1, 0.5, 0.5), shapes.box(0.5, 0.5, 0.5)
    joined = shapes.joined(shapes.moved(halves, [-0.5, 0, 0]), shapes.moved(halves, [0.5, 0, 0]))

    def extracted(mesh: shapes.Arrays) -> Surface:
        field: Field = MeshField(SignedDistance(*mesh), Similarity.from_ball((0, 0, 0), 1.3))
        return extract(field, RESOLUTION)

    one, two = extracted(whole), extracted(joined)
    assert two.area == pytest.approx(one.area, rel=2e-3)
    assert two.volume == pytest.approx(one.volume, rel=5e-4)
