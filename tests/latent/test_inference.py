"""The search for a code: its gradient is autograd's, and it finds the code of a known shape."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import numpy.typing as npt
import pytest
import torch

from neuralsdf.latent.inference import InferenceSettings, _CodeLoss, infer_code
from neuralsdf.latent.models.deepsdf import split_layers, values
from neuralsdf.latent.random_keys import Purpose, generator
from neuralsdf.latent_fields.decoder import Decoder, DecoderShape
from neuralsdf.thread_count import set_threads

from ..helpers.decoders import octahedra, random_decoder

SHAPES = [
    DecoderShape((128,) * 4, code=32, skip=2),
    DecoderShape((24, 24, 24, 16), code=5, skip=2),
    DecoderShape((24, 16), code=5, output="linear"),
]


def samples(count: int) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """Points, and distances that are beyond the clamp at half of them."""
    rng = np.random.default_rng(3)
    points = rng.uniform(-0.57, 0.57, (count, 3)).astype(np.float32)
    return points, rng.normal(0, 0.15, count).astype(np.float32)


class TorchLoss:
    """The loss that the training has, by autograd."""

    def __init__(self, decoder: Decoder, clamp: float) -> None:
        self._shape, self._clamp = decoder.shape, clamp
        weights = [
            tuple(map(torch.from_numpy, decoder.layer(i))) for i in range(len(decoder.shape.layer_shapes))
        ]
        self._layers = split_layers(decoder.shape, weights)  # type: ignore[arg-type]

    def __call__(self, code: torch.Tensor, points: torch.Tensor, distances: torch.Tensor) -> torch.Tensor:
        found = values(self._shape, self._layers, points, code)
        limits = -self._clamp, self._clamp
        return (found.clamp(*limits) - distances.clamp(*limits)).abs().mean()


@pytest.mark.parametrize("clamp", [0.1, float("inf")])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_the_gradient_of_a_code_is_that_of_the_clamped_loss(shape: DecoderShape, clamp: float) -> None:
    decoder, (points, distances) = random_decoder(shape), samples(2000)
    code = np.random.default_rng(1).normal(0, 1, shape.code).astype(np.float32)
    tensor = torch.from_numpy(code).requires_grad_()
    expected = TorchLoss(decoder, clamp)(tensor, *map(torch.from_numpy, (points, distances)))
    expected.backward()
    loss = _CodeLoss(decoder, points, distances, clamp)
    found, gradient = loss.gradient(code.astype(np.float64), np.arange(2000))
    assert found == pytest.approx(expected.item(), abs=1e-5)
    # Rounding decides on which side of a corner a few points are.
    np.testing.assert_allclose(gradient, tensor.grad, atol=0.01 * tensor.grad.abs().max().item())  # type: ignore[union-attr]


def test_the_decoder_s_own_clamp_is_used() -> None:
    plain, (points, distances) = random_decoder(SHAPES[1]), samples(500)
    clamped = replace(plain, shape=replace(plain.shape, clamp=0.1))
    code, every = np.ones(5), np.arange(500)
    expected = _CodeLoss(plain, points, distances, 0.1).gradient(code, every)
    for clamp in (0.5, float("inf")):
        found = _CodeLoss(clamped, points, distances, clamp).gradient(code, every)
        assert found[0] == expected[0]
        np.testing.assert_array_equal(found[1], expected[1])


@pytest.mark.parametrize("activation", ["relu", "softplus"])
def test_the_code_of_a_known_shape_is_found(activation: str) -> None:
    decoder = octahedra(activation)
    points = np.random.default_rng(0).uniform(-0.57, 0.57, (5000, 3)).astype(np.float32)
    wanted = decoder.value(points, [0.4, 0.1]).astype(np.float32)
    settings = InferenceSettings(iterations=300, samples=500, learning_rate=2e-2, penalty=0.0)
    found = infer_code(decoder, points, wanted, settings)
    assert found.loss < 1e-3
    assert found.code.dtype == np.float32
    np.testing.assert_allclose(decoder.value(points, found.code), wanted, atol=5e-3)


def test_a_search_ends_where_torch_s_adam_does() -> None:
    decoder, (points, _) = random_decoder(SHAPES[0]), samples(3000)
    distances = decoder.value(points, np.full(32, 0.3)).astype(np.float32)
    settings = InferenceSettings(iterations=60, samples=1000, learning_rate=2e-2)
    found = infer_code(decoder, points, distances, settings)
    rng, loss = generator(settings.seed, Purpose.INFERENCE), TorchLoss(decoder, settings.clamp)
    arrays = tuple(map(torch.from_numpy, (points, distances)))
    code = torch.from_numpy(rng.normal(0, settings.deviation, 32).astype(np.float32)).requires_grad_()
    optimizer, first = torch.optim.Adam([code], settings.learning_rate), loss(code, *arrays).item()
    for iteration in range(settings.iterations):
        if iteration == settings.iterations // 2:
            optimizer.param_groups[0]["lr"] /= 10
        chosen = rng.integers(0, len(points), settings.samples)
        optimizer.zero_grad()
        total = loss(code, *(array[chosen] for array in arrays)) + settings.penalty * code.square().mean()
        total.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    last = loss(code, *arrays).item()
    assert last < 0.5 * first
    assert found.loss == pytest.approx(last, rel=0.02)


def test_a_code_does_not_depend_on_the_threads() -> None:
    decoder, (points, distances) = random_decoder(SHAPES[0]), samples(3000)
    settings = InferenceSettings(iterations=10, samples=2000, starts=2)
    training_codes = np.random.default_rng(5).normal(0, 1, (3, 32)).astype(np.float32)
    codes = []
    try:
        for threads in (1, 2):
            set_threads(threads)
            codes.append(infer_code(decoder, points, distances, settings, training_codes).code)
    finally:
        set_threads(1)
    np.testing.assert_array_equal(*codes)


def test_the_search_starts_with_the_training_codes_that_fit_best() -> None:
    decoder, (points, _) = random_decoder(SHAPES[0]), samples(3000)
    codes = np.random.default_rng(5).normal(0, 1, (40, 32)).astype(np.float32)
    distances = decoder.value(points, codes[17]).astype(np.float32)
    settings = InferenceSettings(iterations=1, samples=1000, learning_rate=1e-6, starts=2)
    found = infer_code(decoder, points, distances, settings, codes)
    assert found.code == pytest.approx(codes[17], abs=1e-5)
