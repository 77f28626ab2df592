"""Parametric families: sound meshes within the limits, with the labels that their parts give them."""

from __future__ import annotations

import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest

pytest.importorskip("manifold3d")

from neuralsdf.geometry.bvh import triangle_bvh
from neuralsdf.latent.parametric.families import FAMILIES
from neuralsdf.latent.parametric.family import MAX_FRACTION, MIN_FRACTION, PADDED_BOX, Shape
from neuralsdf.latent.parametric.parts import SHORTEST_EDGE, block, centred, united
from neuralsdf.mesh.mesh import Mesh

SEEDS = range(2)
SHAPES = {name: [family.draw(seed, seed) for seed in SEEDS] for name, family in FAMILIES.items()}
DRAWN = [
    pytest.param(name, shape, id=f"{name}-{i}") for name in SHAPES for i, shape in enumerate(SHAPES[name])
]


def test_there_are_many_families_with_many_parameters() -> None:
    assert len(FAMILIES) >= 12
    for name, family in FAMILIES.items():
        assert family.name == name
        assert len(family.parameters) >= 6
        assert len(set(family.parts)) == len(family.parts) > 1


@pytest.mark.parametrize(("name", "shape"), DRAWN)
def test_each_shape_is_one_closed_body_in_the_unit_cube(name: str, shape: Shape) -> None:
    found = shape.mesh
    rounded = found.vertices.astype(np.float32)  # as in a file
    mesh = Mesh.from_arrays(rounded, found.faces)
    assert mesh.findings.line() == ""
    assert mesh.findings.closed
    assert mesh.findings.bodies == 1
    assert mesh.findings.merged_vertices == 0
    low, high = found.vertices.min(axis=0), found.vertices.max(axis=0)
    assert low + high == pytest.approx(np.zeros(3), abs=1e-6)
    assert (high - low).max() == pytest.approx(1, abs=1e-6)
    a, b, c = np.moveaxis(found.vertices[found.faces], 1, 0)
    volume = np.einsum("ij,ij->", a, np.cross(b, c)) / 6
    assert volume == pytest.approx(found.volume)
    assert MIN_FRACTION <= volume / PADDED_BOX <= MAX_FRACTION


@pytest.mark.parametrize(("name", "shape"), DRAWN[:: len(SEEDS)])
def test_no_shape_intersects_itself(name: str, shape: Shape) -> None:
    """Every winding number is 0 or 1: near the surface it is 0 on one side and 1 on the other."""
    mesh = shape.mesh
    a, b, c = np.moveaxis(mesh.vertices[mesh.faces], 1, 0)
    normals = np.cross(b - a, c - a)
    normals /= np.maximum(np.linalg.norm(normals, axis=1, keepdims=True), 1e-12)
    points = np.concatenate([(a + b + c) / 3 + side * 1e-3 * normals for side in (1, -1)])
    winding = triangle_bvh(mesh.vertices, mesh.faces).winding_number(points, [(4.0, 2.0)])
    assert np.abs(winding - np.rint(winding)).max() < 0.05
    assert set(np.rint(winding).astype(int)) == {0, 1}


@pytest.mark.parametrize(("name", "shape"), DRAWN)
def test_a_face_has_the_label_of_the_part_on_whose_surface_it_is(name: str, shape: Shape) -> None:
    family, mesh = FAMILIES[name], shape.mesh
    parts = family.build(SimpleNamespace(**shape.parameters))
    solids = [(family.parts.index(key), solid.to_mesh64()) for key, of in parts.items() for solid in of]
    corners = np.concatenate([solid.vert_properties for _, solid in solids])
    low, high = corners.min(axis=0), corners.max(axis=0)
    size = (high - low).max()
    centres = mesh.vertices[mesh.faces].mean(axis=1)
    nearest = np.full((len(family.parts), len(centres)), np.inf)
    for label, solid in solids:
        points = (solid.vert_properties - (low + high) / 2) / size
        bvh = triangle_bvh(np.ascontiguousarray(points), solid.tri_verts.astype(np.int64))
        nearest[label] = np.minimum(nearest[label], bvh.distance(centres))
    own = nearest[mesh.face_labels, np.arange(len(centres))]
    assert own.max() < 2 * SHORTEST_EDGE
    is_of_vertex = np.zeros((len(mesh.vertices), 256), bool)
    is_of_vertex[mesh.faces, mesh.face_labels[:, None]] = True
    assert np.array_equal(mesh.vertex_labels, is_of_vertex.argmax(axis=1))


@pytest.mark.parametrize("name", FAMILIES)
def test_every_part_occurs(name: str) -> None:
    family = FAMILIES[name]
    labels = set(np.concatenate([shape.mesh.vertex_labels for shape in SHAPES[name]]).tolist())
    for index in range(2, 40):
        if len(labels) == len(family.parts):
            break
        labels |= set(family.draw(0, index).mesh.vertex_labels.tolist())
    assert labels == set(range(len(family.parts)))


@pytest.mark.parametrize("name", FAMILIES)
def test_a_shape_depends_on_seed_and_index_alone(name: str) -> None:
    family = FAMILIES[name]
    again, first = family.draw(1, 1), SHAPES[name][1]
    assert again.parameters == first.parameters
    assert again.mesh.vertices.tobytes() == first.mesh.vertices.tobytes()
    assert again.mesh.faces.tobytes() == first.mesh.faces.tobytes()
    assert again.mesh.face_labels.tobytes() == first.mesh.face_labels.tobytes()
    assert family.shape(first.parameters).mesh.vertices.tobytes() == first.mesh.vertices.tobytes()
    others = [SHAPES[name][0], family.draw(0, 1)]
    assert all(other.parameters != first.parameters for other in others)


def test_a_table_has_the_volume_of_its_boxes() -> None:
    depth, height, top, leg = 0.7, 0.6, 0.08, 0.09
    shape = FAMILIES["table"].shape(
        {
            "top_shape": "rectangle",
            "depth": depth,
            "height": height,
            "top_thickness": top,
            "corner_radius": 0.0,
            "leg_style": "square",
            "leg_thickness": leg,
            "apron": False,
            "apron_height": 0.1,
        }
    )
    assert shape.mesh.volume == pytest.approx(depth * top + 4 * leg**2 * (height - top), rel=1e-6)
    below = shape.mesh.vertices[shape.mesh.faces].max(axis=1)[:, 1] < height / 2 - top - 1e-6
    assert np.array_equal(shape.mesh.face_labels[below], np.ones(below.sum()))
    assert np.ptp(shape.mesh.vertices, axis=0) == pytest.approx([1, height, depth], abs=1e-6)


def test_a_bottle_has_the_volume_of_its_prisms() -> None:
    """A round one with almost no shoulder curvature: only the trunk is compared with its prism."""
    family = FAMILIES["bottle"]
    parameters = {key: one.draw(np.random.default_rng(0)) for key, one in family.parameters.items()}
    parameters |= {"section": "round", "waist": 0.0, "handle": False}
    trunk = family.build(SimpleNamespace(**parameters))["body"][0]
    count = len(trunk.to_mesh64().vert_properties) // 2
    area = count / 2 * np.sin(2 * np.pi / count) * parameters["radius"] ** 2
    assert trunk.volume() == pytest.approx(area * parameters["body_height"])
    assert area == pytest.approx(np.pi * parameters["radius"] ** 2, rel=0.01)


def test_a_hidden_part_has_no_label_and_two_bodies_are_counted() -> None:
    inner, outer = (block(*3 * [centred(size)]) for size in (0.5, 1.0))
    mesh = united({"inner": [inner], "outer": [outer]}, ["inner", "outer"])
    assert set(mesh.face_labels) == {1}
    assert mesh.volume == pytest.approx(1)
    apart = united({"inner": [inner.translate((3, 0, 0))], "outer": [outer]}, ["inner", "outer"])
    assert apart.bodies == 2


def test_without_manifold3d_the_error_says_what_to_install() -> None:
    program = (
        "import sys; sys.modules['manifold3d'] = None\n"
        "from neuralsdf.cli.entry_point import main\n"
        "sys.argv = ['neuralsdf', 'make-dataset', 'parametric', 'out', '--count', '1']\nmain()"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr == (
        "neuralsdf: error: parametric shapes need manifold3d: pip install 'neuralsdf[latent]'\n"
    )
