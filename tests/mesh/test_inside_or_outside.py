"""Inside tests of a mesh: what they cost."""

from __future__ import annotations

import numpy as np
import pytest

from neuralsdf.mesh import inside_or_outside
from neuralsdf.mesh.inside_or_outside import RAY_DIRECTIONS, cast_rays, odd_crossings

from ..helpers.shapes import box


def test_rays_through_many_layers_are_cast_in_bounded_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """A file of 40 kB with 200 layers took 3 GB for the hits of 40 000 rays, which were cast at once."""
    most = 1 << 15
    monkeypatch.setattr(inside_or_outside, "_HITS_AT_ONCE", most)
    vertices, faces = box(0.6, 0.6, 0.001)
    layers = np.linspace(-0.5, 0.5, 200)
    vertices = np.concatenate([vertices + np.array([0, 0, z]) for z in layers])
    faces = np.concatenate([faces + 8 * layer for layer in range(len(layers))])
    points = np.random.default_rng(0).uniform(-0.5, 0.5, (600, 3))
    blocks = list(cast_rays(vertices, faces, points))
    total = sum(len(ray) for _, _, hits in blocks for ray in hits)
    assert total > 5 * most
    assert max(sum(map(len, hits)) for _, _, hits in blocks) < 2 * most
    for direction in RAY_DIRECTIONS:
        firsts = [(first, len(hits)) for along, first, hits in blocks if tuple(along) == direction]
        assert [first for first, _ in firsts] == np.cumsum([0, *(n for _, n in firsts)])[:-1].tolist()
        assert sum(n for _, n in firsts) == len(points)
    inside = (np.abs(points[:, 2, None] - layers) < 0.001).any(axis=1)
    np.testing.assert_array_equal(odd_crossings(vertices, faces, points), 3 * inside)
