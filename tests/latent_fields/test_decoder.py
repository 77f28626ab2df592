"""Decoders: the paper's size, and the plain network that a decoder is for one code."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from neuralsdf.backends import get_backend
from neuralsdf.errors import UsageError
from neuralsdf.geometry.similarity_transform import Similarity
from neuralsdf.latent_fields.decoder import ACTIVATIONS, Decoder, DecoderShape
from neuralsdf.latent_fields.latent_field import LatentField

from ..helpers.decoders import octahedra, octahedron, random_decoder
from ..helpers.networks import exact_values

SMALL = DecoderShape((24, 24, 24, 16), code=5, skip=2)
SHAPES = [
    DecoderShape.paper(),
    DecoderShape((128,) * 8, code=64, skip=4),
    SMALL,
    DecoderShape((16, 9), code=3, skip=1),
    DecoderShape((8, 16, 24, 32, 40), code=2, skip=4),
    DecoderShape((7, 5), code=1),
    replace(SMALL, clamp=0.3),
]


def a_code(shape: DecoderShape, seed: int = 1) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, 1, shape.code).astype(np.float32)


def points(count: int) -> np.ndarray:
    return np.random.default_rng(2).uniform(-0.57, 0.57, (count, 3)).astype(np.float32)


# --- the paper's decoder ----------------------------------------------------------------------------


def test_the_paper_s_decoder_has_the_published_number_of_parameters() -> None:
    shape = DecoderShape.paper()
    assert (shape.code, shape.skip, shape.hidden) == (256, 4, (512,) * 8)
    assert shape.parameter_count == 1_839_358
    assert shape.parameter_count + shape.gain_count == 1_843_195
    assert shape.layer_shapes[0] == (512, 259)
    assert shape.layer_shapes[3] == (253, 512)
    assert shape.layer_shapes[-1] == (1, 512)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_parameters_are_counted_as_they_are_stored(shape: DecoderShape) -> None:
    weights = random_decoder(shape).weights
    assert sum(values.size for values in weights.values()) == shape.parameter_count
    hidden = [name for name in weights if name.endswith("bias")][:-1]
    assert sum(weights[name].size for name in hidden) == shape.gain_count


# --- values -----------------------------------------------------------------------------------------


def in_torch(decoder: Decoder, points: np.ndarray, code: np.ndarray) -> np.ndarray:
    """The decoder as DeepSDF's authors describe it, in float64 torch."""
    softplus = torch.nn.Softplus(beta=100)
    inputs = torch.cat([torch.from_numpy(code).expand(len(points), -1), torch.from_numpy(points)], 1).double()
    values = inputs
    for index in range(len(decoder.shape.layer_shapes)):
        if index == decoder.shape.skip:
            values = torch.cat([values, inputs], 1)
        weight, bias = (torch.from_numpy(array).double() for array in decoder.layer(index))
        values = torch.nn.functional.linear(values, weight, bias)
        if index < len(decoder.shape.hidden):
            values = torch.relu(values) if decoder.shape.activation == "relu" else softplus(values)
    clamp, output = decoder.shape.clamp, decoder.shape.output
    if clamp is not None and decoder.shape.activation == "softplus":
        limit = np.arctanh(clamp) if output == "tanh" else clamp
        values = softplus(values + limit) - softplus(values - limit) - limit
    values = torch.tanh(values) if output == "tanh" else values
    return (values if clamp is None else values.clamp(-clamp, clamp))[:, 0].numpy()


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("output", ["tanh", "linear"])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_a_folded_decoder_is_the_decoder(shape: DecoderShape, activation: str, output: str) -> None:
    shape = replace(shape, activation=activation, output=output)
    decoder, code, where = random_decoder(shape), a_code(shape), points(300)
    expected = decoder.value(where, code)
    assert expected.std() > 0.05
    np.testing.assert_allclose(expected, in_torch(decoder, where, code), atol=1e-8)
    network = decoder.folded(code)
    assert network.architecture == shape.folded
    np.testing.assert_allclose(exact_values(network, where), expected, atol=1e-6)
    for backend in (None, "torch"):
        values = get_backend(backend).compile(network).evaluate(where)
        np.testing.assert_allclose(values, expected, atol=1e-5)


@pytest.mark.parametrize("output", ["tanh", "linear"])
def test_a_limited_decoder_is_the_clamped_decoder(output: str) -> None:
    """Up to rounding with ReLU; with softplus, whose corners are round, a lower bound that is exact at 0."""
    plain, code, where = random_decoder(replace(SMALL, output=output)), a_code(SMALL), points(2000)
    limited = replace(plain, shape=replace(plain.shape, clamp=0.1))
    expected = np.clip(plain.value(where, code), -0.1, 0.1)
    assert (np.abs(expected) == 0.1).mean() > 0.3
    for backend in (None, "torch"):
        values = get_backend(backend).compile(limited.folded(code)).evaluate(where)
        np.testing.assert_allclose(values, expected, atol=1e-6)
    soft = replace(plain, shape=replace(plain.shape, activation="softplus"))
    values = soft.value(where, code)
    rounded = replace(soft, shape=replace(soft.shape, clamp=0.1)).value(where, code)
    assert (np.abs(rounded) <= np.minimum(np.abs(values), 0.1) + 1e-9).all()
    np.testing.assert_allclose(rounded, np.clip(values, -0.1, 0.1), atol=0.0072)
    near = np.abs(values) < 0.03
    np.testing.assert_allclose(rounded[near], values[near], atol=1e-4)


def test_a_limit_that_tanh_cannot_reach_changes_nothing() -> None:
    shape = replace(SMALL, clamp=1.5)
    assert shape.folded == SMALL.folded
    assert shape.limit is None
    assert replace(shape, output="linear").limit == 1.5


def test_points_may_have_a_code_each() -> None:
    decoder, where = random_decoder(SMALL), points(5000)  # more than are evaluated at once
    codes = np.random.default_rng(3).normal(0, 1, (len(where), SMALL.code))
    values = decoder.value(where, codes)
    assert values.shape == (5000,)
    for index in (0, 1, 4095, 4096, 4999):
        np.testing.assert_allclose(values[index], decoder.value(where[index : index + 1], codes[index])[0])
    assert decoder.value(np.empty((0, 3)), codes[0]).shape == (0,)


def test_the_octahedra_are_exact() -> None:
    where = points(1000)
    expected = (np.abs(where).sum(axis=1, dtype=np.float64) - 0.5) / np.sqrt(3)
    np.testing.assert_allclose(octahedra().value(where, [0.3, 0.2]), expected, atol=1e-7)


# --- the hash that identifies a decoder ---------------------------------------------------------------


def test_the_hash_depends_on_every_layer_and_on_the_shape_alone() -> None:
    decoder = random_decoder(SMALL)
    assert decoder.sha256 == random_decoder(SMALL).sha256
    assert "clamp" not in SMALL.to_json()  # hashes without a clamp are those of format version 1
    assert decoder.sha256 == replace(decoder, metadata={"clamp": "0.1"}).sha256
    hashes = {decoder.sha256}
    for change in ({"activation": "softplus"}, {"clamp": 0.1}):
        hashes.add(replace(decoder, shape=replace(SMALL, **change)).sha256)
    for name, weights in decoder.weights.items():
        changed = weights.copy()
        changed.flat[-1] = np.nextafter(changed.flat[-1], np.float32(9))
        hashes.add(replace(decoder, weights={**decoder.weights, name: changed}).sha256)
    assert len(hashes) == 3 + len(decoder.weights)


# --- what is refused --------------------------------------------------------------------------------


@given(
    hidden=st.lists(st.integers(4, 40), min_size=1, max_size=6),
    code=st.integers(1, 30),
    skip=st.none() | st.integers(-1, 7),
)
def test_a_shape_is_refused_or_folds(hidden: list[int], code: int, skip: int | None) -> None:
    try:
        shape = DecoderShape(tuple(hidden), code, skip, "relu", "linear")
    except UsageError:
        assert skip is not None
        assert not 1 <= skip < len(hidden) or hidden[skip - 1] <= code + 3
        return
    assert DecoderShape.from_json(shape.to_json()) == shape
    decoder, latent, where = random_decoder(shape), a_code(shape), points(20)
    expected = decoder.value(where, latent)
    np.testing.assert_allclose(
        exact_values(decoder.folded(latent), where), expected, atol=1e-5 * (1 + np.abs(expected).max())
    )


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"hidden": []}, "hidden layers"),
        ({"hidden": [0, 24]}, "width of 1 to"),
        ({"hidden": "24"}, "list `hidden`"),
        ({"hidden": [24.0] * 4}, "whole numbers"),
        ({"hidden": [8190, 20, 4]}, "width of 1 to 8192"),
        ({"hidden": [8000] * 200, "skip": None}, "limit"),
        ({"hidden": [24] * 1000, "skip": None}, "hidden layers"),
        ({"code": 0}, "latent code has 1 to"),
        ({"code": 1 << 40}, "latent code has 1 to"),
        ({"code": True}, "whole numbers"),
        ({"code": None}, "whole numbers"),
        ({"skip": 0}, "layers 1 to 3"),
        ({"skip": 4}, "layers 1 to 3"),
        ({"code": 21}, "must be larger"),
        ({"activation": "sine"}, "relu, softplus"),
        ({"output": "sigmoid"}, "tanh, linear"),
        ({"clamp": 0.0}, "positive"),
        ({"clamp": float("nan")}, "positive"),
        ({"clamp": 1 << 4000}, "decimal number"),
        ({"clamp": "0.1"}, "decimal number"),
    ],
    ids=str,
)
def test_shapes_that_are_refused(change: dict[str, Any], reason: str) -> None:
    with pytest.raises(UsageError, match=reason):
        DecoderShape.from_json(SMALL.to_json() | change)


def test_weights_that_are_refused() -> None:
    weights = dict(random_decoder(SMALL).weights)
    bias = weights["layers.1.bias"]
    for changed, reason in (
        ({name: weights[name] for name in weights if name != "layers.2.bias"}, "'layers.2.bias'.*missing"),
        (weights | {"\x1b[31m": bias}, r"'\\x1b\[31m'.*unknown"),
        (weights | {"layers.1.bias": bias[:-1]}, "float32"),
        (weights | {"layers.1.bias": bias.astype(np.float64)}, "float32"),
        (weights | {"layers.1.bias": bias * np.float32(np.nan)}, "not finite"),
    ):
        with pytest.raises(UsageError, match=reason):
            Decoder(SMALL, changed)


@pytest.mark.parametrize("code", [[1, 2], [0.1] * 4 + [np.inf], [[0.1] * 5], 0.1], ids=str)
def test_codes_that_are_refused(code: object) -> None:
    with pytest.raises(UsageError, match="5 finite numbers"):
        random_decoder(SMALL).folded(code)  # type: ignore[arg-type]


# --- the field --------------------------------------------------------------------------------------


def test_a_latent_field_is_its_decoder(tmp_path: Any) -> None:
    decoder = random_decoder(SMALL)
    code = a_code(SMALL)
    field = LatentField(Similarity.identity(), decoder=decoder, code=code, decoder_path=tmp_path / "d")
    np.testing.assert_allclose(field.value(points(100)), decoder.value(points(100), code), atol=1e-5)
    other = replace(field, code=-code)
    np.testing.assert_allclose(other.value(points(100)), decoder.value(points(100), -code), atol=1e-5)
    assert repr(field).startswith("LatentField(")


def test_a_latent_field_has_the_volume_of_its_code(tmp_path: Any) -> None:
    for radius in (0.4, 0.8):
        field = octahedron(tmp_path, radius)
        mesh = field.to_mesh(resolution=64)
        assert mesh.is_watertight
        assert mesh.volume == pytest.approx(4 / 3 * (2 * radius) ** 3, rel=0.01)
        np.testing.assert_allclose(mesh.bounds.mean(axis=0), [1, 2, 3], atol=0.01)
        np.testing.assert_allclose(np.ptp(mesh.bounds, axis=0), 4 * radius, rtol=0.03)


def test_a_picture_of_a_latent_field_shows_its_silhouette(tmp_path: Any) -> None:
    field = octahedron(tmp_path, 0.8)
    options = {"azimuth": 0, "elevation": 0, "background": "transparent", "ao": False, "shadow": False}
    picture = np.asarray(field.render(96, 96, distance=20, fov=6, **options))
    covered = (picture[..., 3] > 127).mean()
    width = 2 * 20 * np.tan(np.radians(3))  # of the frame, in bounding radii
    assert covered == pytest.approx(2 * 0.8**2 / width**2, rel=0.03)
