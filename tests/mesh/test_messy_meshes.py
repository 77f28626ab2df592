"""Messy meshes from files: what is found, and that the interior is that of the solid they describe."""

from __future__ import annotations

import numpy as np
import pytest

from neuralsdf.geometry.similarity_transform import Similarity
from neuralsdf.geometry.unit_ball import minimum_enclosing_ball
from neuralsdf.mesh.load_mesh import load_mesh
from neuralsdf.mesh.signed_distance import SignedDistance

from ..helpers.messy_meshes import MESSY_MESHES, write_off


@pytest.mark.parametrize("name", MESSY_MESHES)
def test_faults_are_found_and_the_interior_is_that_of_the_solid(name, tmp_path) -> None:
    messy = MESSY_MESHES[name]
    mesh = load_mesh(write_off(tmp_path / "messy.off", messy.mesh))
    line = mesh.findings.line()
    assert messy.found in line if messy.found else line == ""
    transform = Similarity.from_ball(*minimum_enclosing_ball(mesh.vertices))
    oracle = SignedDistance(transform.apply_inverse(mesh.vertices), mesh.faces)
    points = messy.points()
    signed = oracle.signed(transform.apply_inverse(points))
    clear = np.abs(signed) > messy.margin
    assert clear.mean() > 0.6
    np.testing.assert_array_equal(signed[clear] < 0, messy.inside(points)[clear])
