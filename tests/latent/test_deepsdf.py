"""DeepSDF in training: gradients are those of the plain network as the paper describes it."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import numpy as np
import numpy.typing as npt
import pytest
import torch
from torch import nn

from neuralsdf.latent.config import PRESETS, CodeSettings, DecoderSettings, Settings, TrainingSettings
from neuralsdf.latent.models.deepsdf import AutoDecoder, DeepSDF, random_masks, values
from neuralsdf.latent.random_keys import raw_bits
from neuralsdf.thread_count import set_threads

SMALL = DecoderSettings(layers=4, width=32, code=8, skip=2)


class Ball:
    """Stands in for a prepared shape: signed distances of a ball."""

    def __init__(self, radius: float) -> None:
        self.radius = radius

    def draw(self, count: int, rng: np.random.Generator) -> tuple[npt.NDArray[np.float32], ...]:
        points = rng.uniform(-1, 1, (count, 3)).astype(np.float32)
        return points, np.linalg.norm(points, axis=1) - np.float32(self.radius)


def settings(decoder: DecoderSettings, **training: float) -> Settings:
    steps = TrainingSettings(shapes=3, samples=64, steps=10, epochs=0, **training)
    return Settings(decoder=decoder, training=steps, codes=CodeSettings(penalty_epochs=0))


class Published(nn.Module):
    """The decoder as the paper describes it, with torch's own weight norm, and given dropout masks."""

    def __init__(self, trained: AutoDecoder) -> None:
        super().__init__()
        self.skip, self.layers = trained.shape.skip, nn.ModuleList()
        for i, (rows, columns) in enumerate(trained.shape.layer_shapes):
            layer: nn.Module = nn.Linear(columns, rows)
            given = {
                name.split(".")[2]: value.detach()
                for name, value in trained.parameters.items()
                if f".{i}." in name
            }
            with torch.no_grad():
                layer.bias.copy_(given["bias"])
                if "gain" in given:
                    layer = nn.utils.parametrizations.weight_norm(layer)
                    layer.parametrizations.weight.original0.copy_(given["gain"])
                    layer.parametrizations.weight.original1.copy_(given["direction"])
                else:
                    layer.weight.copy_(given["weight"])
            self.layers.append(layer)

    def forward(
        self, points: torch.Tensor, code: torch.Tensor, masks: list[torch.Tensor] | None, dropout: float
    ) -> torch.Tensor:
        inputs = torch.cat([code.expand(len(points), -1), points], 1)
        hidden = inputs
        for i, layer in enumerate(self.layers):
            hidden = layer(torch.cat([hidden, inputs], 1) if i == self.skip else hidden)
            if i < len(self.layers) - 1:
                hidden = torch.relu(hidden)
                if masks is not None:
                    hidden = hidden * masks[i] / (1 - dropout)
        return torch.tanh(hidden)[:, 0]


@pytest.mark.parametrize("dropout", [0.0, 0.2])
@pytest.mark.parametrize("weight_norm", [True, False])
def test_gradients_are_those_of_the_published_network(dropout: float, weight_norm: bool) -> None:
    decoder = DecoderSettings(layers=4, width=32, code=8, skip=2, dropout=dropout, weight_norm=weight_norm)
    trained = AutoDecoder(decoder, np.random.default_rng(0))
    plain = Published(trained)
    points = torch.rand(50, 3) * 2 - 1
    codes = [torch.linspace(-0.5, 0.5, 8).requires_grad_() for _ in range(2)]
    masks = trained.masks(50, raw_bits(0, 4))
    found = values(trained.shape, trained.layers(), points, codes[0], masks)
    wanted = plain(points, codes[1], masks, dropout)
    assert found.detach().numpy() == pytest.approx(wanted.detach().numpy(), abs=1e-6)
    found.square().sum().backward()
    wanted.square().sum().backward()
    assert codes[0].grad.numpy() == pytest.approx(codes[1].grad.numpy(), rel=1e-4, abs=1e-6)
    for name, parameter in trained.parameters.items():
        _, i, kind = name.split(".")
        layer = plain.layers[int(i)]
        other = {
            "bias": layer.bias,
            "weight": layer.weight,
            "gain": weight_norm and int(i) < 4 and layer.parametrizations.weight.original0,
            "direction": weight_norm and int(i) < 4 and layer.parametrizations.weight.original1,
        }[kind]
        assert parameter.grad.numpy() == pytest.approx(other.grad.numpy(), rel=1e-4, abs=1e-6), name


def test_a_step_has_the_gradients_of_the_published_loss() -> None:
    model = DeepSDF(settings(SMALL), [Ball(0.3), Ball(0.5), Ball(0.7)])
    with torch.no_grad():
        model.codes.mul_(0.5)  # within the bound
    terms = model.add_gradients(3, range(3))
    numeric = 0.0
    code = model.codes.detach().clone()
    direction = torch.linspace(-1, 1, code.numel()).view_as(code)
    for sign in (1, -1):
        with torch.no_grad():
            model.codes.copy_(code + sign * 1e-3 * direction)
        numeric += sign * sum(model.add_gradients(3, range(3)).values()) / 2e-3
    for parameter in model.parameters.values():
        parameter.grad = None
    with torch.no_grad():
        model.codes.copy_(code)
    model.add_gradients(3, range(3))
    assert float((model.codes.grad * direction).sum()) == pytest.approx(numeric, rel=0.02)
    assert terms["penalty"] == pytest.approx(1e-4 * float(model.codes.detach().norm(dim=1).mean()), rel=1e-3)


def test_parts_of_a_step_add_up_to_the_step() -> None:
    parts = []
    for ranges in ([range(3)], [range(1), range(1, 3)]):
        model = DeepSDF(settings(SMALL), [Ball(0.3), Ball(0.5), Ball(0.7)])
        terms = [model.add_gradients(0, slots) for slots in ranges]
        gradients = np.concatenate([p.grad.reshape(-1).numpy() for p in model.parameters.values()])
        parts.append((sum(sum(term.values()) for term in terms), gradients))
    assert parts[0][0] == pytest.approx(parts[1][0], rel=1e-6)
    assert parts[0][1] == pytest.approx(parts[1][1], rel=1e-4, abs=1e-8)


def test_threads_change_no_more_than_rounding() -> None:
    gradients = []
    for count in (1, 3):
        set_threads(count)
        model = DeepSDF(settings(SMALL), [Ball(0.3), Ball(0.5), Ball(0.7)])
        model.add_gradients(0, range(3))
        gradients.append(np.concatenate([p.grad.reshape(-1).numpy() for p in model.parameters.values()]))
    set_threads(None)
    assert gradients[0] == pytest.approx(gradients[1], rel=1e-4, abs=1e-8)


def test_codes_are_bounded_when_they_are_used() -> None:
    model = DeepSDF(settings(SMALL), [Ball(0.3), Ball(0.5), Ball(0.7)])
    with torch.no_grad():
        model.codes.mul_(10)
    model.add_gradients(0, range(3))
    assert torch.linalg.vector_norm(model.codes, dim=1).tolist() == pytest.approx([1, 1, 1])


def test_masks_drop_the_fraction_that_they_should() -> None:
    decoder = AutoDecoder(DecoderSettings(layers=2, width=128, code=8, skip=0), np.random.default_rng(0))
    first, second = decoder.masks(1000, raw_bits(0, 4))
    assert float(first.mean()) == pytest.approx(0.8, abs=0.005)
    assert not torch.equal(first, second)
    assert set(first.unique().tolist()) == {0.0, 1.0}


def test_masks_of_a_device_drop_the_same_fraction() -> None:
    drawn = [random_masks(1000, [128, 64], 0.2, torch.Generator().manual_seed(seed)) for seed in (1, 1, 2)]
    assert [mask.shape for mask in drawn[0]] == [(1000, 128), (1000, 64)]
    assert float(drawn[0][0].float().mean()) == pytest.approx(0.8, abs=0.005)
    assert torch.equal(drawn[0][1], drawn[1][1])
    assert not torch.equal(drawn[0][1], drawn[2][1])


def test_learning_rates_are_halved_at_equal_intervals() -> None:
    model = DeepSDF(settings(SMALL, halvings=4), [Ball(0.3), Ball(0.5)])
    rates = [model.learning_rate("layers.0.bias", step) for step in range(10)]
    assert rates == [5e-4 * 0.5**k for k in range(5) for _ in range(2)]
    assert model.learning_rate("codes", 0) == 1e-3


def test_an_epoch_shows_every_shape_once() -> None:
    model = DeepSDF(settings(SMALL), [Ball(0.1 * i) for i in range(7)])
    for epoch in (0, 1):
        steps = [model._shapes_of(2 * epoch + i) for i in range(2)]
        assert len(np.unique(np.concatenate(steps))) == 6


def test_the_published_sizes() -> None:
    paper = PRESETS["paper"].decoder
    assert paper.shape.parameter_count == 1_839_358
    trained = AutoDecoder(paper, np.random.default_rng(0))
    assert sum(parameter.numel() for parameter in trained.parameters.values()) == 1_843_195


@pytest.mark.parametrize("activation", ["relu", "softplus"])
def test_the_decoder_of_a_training_has_its_values(activation: str) -> None:
    decoder = DecoderSettings(layers=4, width=32, code=8, skip=2, activation=activation, dropout=0.0)
    model = DeepSDF(settings(decoder), [Ball(0.3), Ball(0.5)])
    points = np.random.default_rng(1).uniform(-1, 1, (100, 3)).astype(np.float32)
    code = model.codes.detach()[1]
    with torch.no_grad():
        found = values(decoder.shape, model._decoder.layers(), torch.from_numpy(points), code)
    trained = model.decoder()
    assert trained.shape == replace(decoder.shape, clamp=0.1)
    unlimited = replace(trained, shape=decoder.shape)
    assert unlimited.value(points, code.numpy()) == pytest.approx(found.numpy(), abs=1e-5)


def test_widths_of_consecutive_layers_fit() -> None:
    for (rows, _), (_, columns) in pairwise(PRESETS["small"].decoder.shape.layer_shapes):
        assert columns in (rows, rows + 64 + 3)
