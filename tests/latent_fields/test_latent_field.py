"""Latent fields whose values are limited to the distances that the training distinguished."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

import neuralsdf as ns
from neuralsdf.csg import as_shape
from neuralsdf.errors import UsageError
from neuralsdf.evaluation.metrics import loss
from neuralsdf.fields.extract import extract
from neuralsdf.latent_fields.latent_field import LatentField
from neuralsdf.storage import load

from ..helpers.decoders import octahedron


def limited(field: LatentField, clamp: float) -> LatentField:
    decoder = replace(field.decoder, shape=replace(field.decoder.shape, clamp=clamp))
    return replace(field, decoder=decoder)


def test_distances_beyond_the_limit_are_those_of_the_surface(tmp_path: Any) -> None:
    """Of an octahedron of radius 0.6 in a ball of radius 2: the nearest corners and faces are known."""
    field = limited(octahedron(tmp_path, 0.6), 0.1)
    assert field.limit == 0.1
    axis = np.array([1.0, 0, 0])
    where = field.transform.apply(np.array([0.9, 0.65, 0, 0.57, -0.95])[:, None] * axis)
    inradius = 0.6 / np.sqrt(3)
    expected = np.array([0.3, (0.65 - 0.6) / np.sqrt(3), -inradius, -0.03 / np.sqrt(3), 0.35])
    np.testing.assert_allclose(field.distance(where), 2 * expected, atol=0.002)
    bounds = field.distance(where, bound=True)
    np.testing.assert_allclose(
        np.abs(bounds), 2 * np.minimum(np.abs(field_values(where, field)), 0.1), atol=1e-6
    )
    assert (np.abs(bounds) <= 0.2 + 1e-6).all()
    gradients = field.gradient(where)
    np.testing.assert_allclose(gradients[0], axis, atol=0.02)
    np.testing.assert_allclose(gradients[4], -axis, atol=0.02)
    np.testing.assert_allclose(np.abs(gradients[2]), 1 / np.sqrt(3), atol=0.02)


def field_values(where: np.ndarray, field: LatentField) -> np.ndarray:
    """The distance to the nearest face's plane, in model space."""
    local = field.transform.apply_inverse(where)
    return (np.abs(local).sum(axis=1) - field.code.sum()) / np.sqrt(3)


def test_a_limited_field_has_the_surface_and_the_picture_of_the_other(tmp_path: Any) -> None:
    plain = octahedron(tmp_path, 0.6)
    field = limited(plain, 0.05)
    expected, mesh = plain.to_mesh(resolution=64), field.to_mesh(resolution=64)
    assert mesh.is_watertight
    assert mesh.volume == pytest.approx(expected.volume, rel=1e-4)
    pictures = [
        np.asarray(each.render(48, 48, ao=False, shadow=False)).astype(int) for each in (plain, field)
    ]
    assert np.abs(pictures[0] - pictures[1]).mean() < 0.1


def test_errors_of_values_are_measured_within_the_limit(tmp_path: Any) -> None:
    field = limited(octahedron(tmp_path, 0.6), 0.1)
    where = np.array([[0.05, 0.05, 0.05], [0.9, 0, 0], [0.6, 0, 0]], np.float32)
    assert loss(field, where, np.array([-0.26, 0.3, 0.01])) == pytest.approx(0.01 / 3, abs=1e-6)
    assert field.tolerance is not None


def test_a_limit_survives_a_model_file(tmp_path: Any) -> None:
    field = limited(octahedron(tmp_path, 0.6), 0.1)
    field.save(tmp_path / "baked.h5")
    baked = load(tmp_path / "baked.h5")
    assert not isinstance(baked, LatentField)
    assert baked.limit == 0.1
    where = field.transform.apply(np.random.default_rng(2).uniform(-0.57, 0.57, (200, 3)))
    np.testing.assert_allclose(baked.distance(where), field.distance(where), atol=1e-6)
    assert (baked - field).kind == "bound"
    assert as_shape(baked).kind == "bound"


def test_a_level_beyond_the_limit_is_refused(tmp_path: Any) -> None:
    field = limited(octahedron(tmp_path, 0.6), 0.1)
    assert extract(field, 64, level=0.1).volume > extract(field, 64).volume
    with pytest.raises(UsageError, match=r"values are limited to 0\.1"):
        extract(field, 64, level=-0.2)  # in mesh units: 0.1 in model space


def test_lengths_beyond_the_limit_are_refused_in_trees(tmp_path: Any) -> None:
    """In mesh units the clamp of 0.1 is 0.2, and half of that for the tree at half size."""
    field = limited(octahedron(tmp_path, 0.6), 0.1)
    assert field.offset(0.1).to_mesh(resolution=48).volume > field.to_mesh(resolution=48).volume
    ball = ns.sphere(1)
    assert (field | ns.smooth(0.1, ball)).reach == pytest.approx(0.2)
    small = field.scale(0.5)
    for refused in (
        lambda: field.offset(0.2),
        lambda: field.erode(0.3),
        lambda: field.offset(0.15).offset(0.06),
        lambda: small.offset(0.1),
        lambda: (small - ball).shell(0.1),
        lambda: ball | ns.smooth(0.2, field),
    ):
        with pytest.raises(UsageError, match="a latent model knows distances below"):
            refused()
    assert ball.offset(5).reach == np.inf
