"""
deepsdf.py
----------
DeepSDF's auto-decoder (Park et al. 2019) in training: weight normalisation, dropout, the clamped loss, and
the bound and the penalty of the codes.

    h_0 = [z, x],  h_{i+1} = dropout(relu(W_i h_i + b_i)),  the skip layer gets [h_i, z, x],
    f(z, x) = tanh(W_L h_L + b_L)
    loss = mean |clamp(f, c) - clamp(d, c)| + penalty * mean |z|                        (equations 9 and 10)

All samples of a shape have one code, so its product with the weights is computed once for each shape and
added to the bias. Shapes are evaluated one by one, so that activations stay in the cache, and by several
threads of one core each, which wait for each other once in a step only. Dropout masks come from a generator
that is faster on a CPU than torch's.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from ...latent_fields.decoder import Decoder, DecoderShape
from ...program.network import SOFTPLUS_SHARPNESS
from ...thread_count import side_by_side, threads
from ..config import DecoderSettings, Settings
from ..random_keys import Purpose, generator, raw_bits
from . import TrainingShape

#: Number of values of the random number that decides whether an activation is dropped.
_MASK_VALUES = 1 << 16

_CPU = torch.device("cpu")
#: The type of hidden values, by the setting `precision`, if it is not float32.
_LOW_PRECISION = {"bf16": torch.bfloat16}


class Layer(NamedTuple):
    """A layer, its weights split by what they multiply.

    weight: (out, in), for hidden values, then the point if the layer gets it. code: (out, c), or None.
    bias: (out,).
    """

    weight: Tensor
    code: Tensor | None
    bias: Tensor


class _Part(NamedTuple):
    """What a part of a step's slots adds: losses, and gradients with respect to the layers and the codes."""

    losses: list[Tensor]
    layers: list[Tensor]
    codes: Tensor


class DeepSDF:
    """Decoder and codes of the training shapes, as `LatentModel`."""

    def __init__(
        self, settings: Settings, shapes: Sequence[TrainingShape], device: torch.device = _CPU
    ) -> None:
        self._settings, self._shapes, self._device = settings, shapes, device
        training, codes, seed = settings.training, settings.codes, settings.training.seed
        self._decoder = AutoDecoder(settings.decoder, generator(seed, Purpose.WEIGHTS), device)
        deviation = codes.deviation / settings.decoder.code**0.5
        initial = generator(seed, Purpose.CODES).normal(0, deviation, (len(shapes), settings.decoder.code))
        self.codes = torch.from_numpy(initial.astype(np.float32)).to(device).requires_grad_()
        self.slots = min(training.shapes, len(shapes))
        self._steps_per_epoch = len(shapes) // self.slots
        self.steps = training.steps or training.epochs * self._steps_per_epoch

    @property
    def parameters(self) -> dict[str, Tensor]:
        """Those of the decoder, and the codes."""
        return {**self._decoder.parameters, "codes": self.codes}

    def learning_rate(self, name: str, step: int) -> float:
        """That of the codes or the decoder, halved at equal intervals."""
        training = self._settings.training
        rate = training.code_learning_rate if name == "codes" else training.learning_rate
        return rate * 0.5 ** (step * (training.halvings + 1) // self.steps)

    def add_gradients(self, step: int, slots: range) -> dict[str, float]:
        """Gradients of the loss for some slots of a step."""
        chosen = self._shapes_of(step)[slots]
        shapes = torch.from_numpy(chosen).to(self._device)
        with torch.no_grad():  # as torch.nn.Embedding's max_norm: codes are bounded when they are used
            self.codes[shapes] = torch.renorm(self.codes[shapes], 2, 0, self._settings.codes.bound)
        layers, codes = self._decoder.layers(), self.codes[shapes]
        parts = _divided(len(slots), threads() if self._device.type == "cpu" else 1)
        done = list(
            side_by_side(lambda part: self._add_part(step, slots, chosen, layers, codes, part), parts)
        )
        tensors = [tensor for layer in layers for tensor in layer if tensor is not None]
        sums = [
            sum(gradients[1:], gradients[0])
            for gradients in zip(*(part.layers for part in done), strict=True)
        ]
        of_codes = torch.cat([part.codes for part in done])
        penalty = self._penalty(step) * torch.linalg.vector_norm(codes, dim=1).sum()
        torch.autograd.backward([*tensors, codes, penalty], [*sums, of_codes, None])
        return {"loss": sum(loss.item() for part in done for loss in part.losses), "penalty": penalty.item()}

    def _add_part(
        self,
        step: int,
        slots: range,
        chosen: np.ndarray[Any, np.dtype[np.int64]],
        layers: Sequence[Layer],
        codes: Tensor,
        part: range,
    ) -> _Part:
        """Gradients for a part of the slots, with tensors of its own, since parts run at the same time."""
        leaves = [_leaf(layer) for layer in layers]
        leaf_codes = codes.detach()[part.start : part.stop].requires_grad_()
        losses = [
            self._add_shape(leaves, self._shapes[chosen[i]], code, (step, slots[i]))
            for i, code in zip(part, leaf_codes, strict=True)
        ]
        gradients = [_gradient(tensor) for layer in leaves for tensor in layer if tensor is not None]
        return _Part(losses, gradients, _gradient(leaf_codes))

    def _add_shape(
        self, layers: list[Layer], shape: TrainingShape, code: Tensor, place: tuple[int, int]
    ) -> Tensor:
        """Gradients for one shape's part of the loss, which is returned."""
        training = self._settings.training
        seed, clamp, count = training.seed, training.clamp, training.samples
        points, distances = shape.draw(count, generator(seed, Purpose.SAMPLES, *place))
        masks = self._decoder.masks(count, raw_bits(seed, Purpose.DROPOUT, *place))
        low = _LOW_PRECISION.get(training.precision)
        at = torch.from_numpy(points).to(self._device)
        found = values(self._decoder.shape, layers, at, code, masks, low)
        wanted = torch.from_numpy(np.clip(distances, -clamp, clamp)).to(self._device)
        loss = (found.clamp(-clamp, clamp) - wanted).abs().sum() / (count * self.slots)
        loss.backward()  # type: ignore[no-untyped-call]
        return loss.detach()

    def _shapes_of(self, step: int) -> np.ndarray[Any, np.dtype[np.int64]]:
        """The shapes (slots,) of a step: every epoch goes through them in another order."""
        epoch, place = divmod(step, self._steps_per_epoch)
        order = generator(self._settings.training.seed, Purpose.ORDER, epoch).permutation(len(self._shapes))
        return order[place * self.slots : (place + 1) * self.slots]

    def _penalty(self, step: int) -> float:
        """Weight of a code's norm in the loss; it grows over the first epochs."""
        codes = self._settings.codes
        epoch = step // self._steps_per_epoch
        return codes.penalty * min(1.0, epoch / max(codes.penalty_epochs, 1)) / self.slots

    def measures(self) -> dict[str, float]:
        """Mean norm of the codes."""
        with torch.no_grad():
            return {"code_norm": torch.linalg.vector_norm(self.codes, dim=1).mean().item()}

    def decoder(self) -> Decoder:
        """The decoder without dropout, with the loss's clamp."""
        with torch.no_grad():
            weights = {
                f"layers.{i}.{name}": tensor.detach().cpu().numpy().copy()
                for i, layer in enumerate(self._decoder.weights())
                for name, tensor in zip(("weight", "bias"), layer, strict=True)
            }
        shape = replace(self._decoder.shape, clamp=self._settings.training.clamp)
        return Decoder(shape, weights)


class AutoDecoder:
    """Trainable parameters of a decoder, by name.

    With weight norm, all layers but the last have a direction and a gain for each neuron (Salimans and Kingma
    2016). Initial weights are uniform as those of `torch.nn.Linear`.
    """

    def __init__(
        self, settings: DecoderSettings, rng: np.random.Generator, device: torch.device = _CPU
    ) -> None:
        self.shape, self.dropout, self._device = settings.shape, settings.dropout, device
        self.parameters: dict[str, Tensor] = {}
        for i, (rows, columns) in enumerate(self.shape.layer_shapes):
            bound = columns**-0.5
            weight = rng.uniform(-bound, bound, (rows, columns))
            arrays = {"weight": weight, "bias": rng.uniform(-bound, bound, rows)}
            if settings.weight_norm and i < settings.layers:
                arrays["direction"] = arrays.pop("weight")
                arrays["gain"] = np.linalg.norm(weight, axis=1, keepdims=True)
            for name, array in arrays.items():
                tensor = torch.from_numpy(array.astype(np.float32)).to(device)
                self.parameters[f"layers.{i}.{name}"] = tensor.requires_grad_()

    def weights(self) -> list[tuple[Tensor, Tensor]]:
        """(weight (out, in), bias (out,)) of every layer: gain * direction / |direction|."""
        layers = []
        for i in range(len(self.shape.layer_shapes)):
            weight = self.parameters.get(f"layers.{i}.weight")
            if weight is None:
                direction, gain = (self.parameters[f"layers.{i}.{name}"] for name in ("direction", "gain"))
                weight = direction * (gain / torch.linalg.vector_norm(direction, dim=1, keepdim=True))
            layers.append((weight, self.parameters[f"layers.{i}.bias"]))
        return layers

    def layers(self) -> list[Layer]:
        """The layers for `values` with `masks`: each compensates for what the layer before it drops."""
        return split_layers(self.shape, self.weights(), 1 / (1 - self.dropout))

    def masks(self, count: int, bits: np.random.SFC64) -> list[Tensor] | None:
        """For each hidden layer, which values at `count` points are kept: (count, out), 0 or 1.

        None without dropout.
        """
        if not self.dropout:
            return None
        widths = [width for width, _ in self.shape.layer_shapes[:-1]]
        if self._device.type != "cpu":
            seeded = torch.Generator(self._device).manual_seed(int(bits.random_raw()) >> 1)
            return random_masks(count, widths, self.dropout, seeded)
        dropped, masks = round(self.dropout * _MASK_VALUES), []
        for width in widths:
            numbers = bits.random_raw(-(-count * width // 4)).view(np.uint16)[: count * width]
            mask = np.empty(count * width, np.float32)
            np.copyto(mask, numbers >= dropped)
            masks.append(torch.from_numpy(mask).view(count, width))
        return masks


def random_masks(count: int, widths: Sequence[int], dropout: float, seeded: torch.Generator) -> list[Tensor]:
    """Masks as those of `AutoDecoder.masks`, drawn on the device of a generator."""
    return [torch.rand((count, width), generator=seeded, device=seeded.device) >= dropout for width in widths]


def split_layers(
    shape: DecoderShape, weights: Sequence[tuple[Tensor, Tensor]], scale: float = 1.0
) -> list[Layer]:
    """Layers from (weight (out, in), bias (out,)) of each; `scale` multiplies hidden values."""
    layers = []
    for i, (weight, bias) in enumerate(weights):
        code = None
        if shape.takes_input(i):
            count = weight.shape[1] - shape.code - 3
            hidden, code, point = torch.split(weight, [count, shape.code, 3], 1)
            weight = torch.cat([scale * hidden, point], 1)
        elif scale != 1:
            weight = scale * weight
        layers.append(Layer(weight, code, bias))
    return layers


def values(
    shape: DecoderShape,
    layers: Sequence[Layer],
    points: Tensor,
    code: Tensor,
    masks: Sequence[Tensor] | None = None,
    low: torch.dtype | None = None,
) -> Tensor:
    """Values (n,) at points (n, 3) of the shape with a code (c,).

    Differentiable by layers, code and points. masks: those of `AutoDecoder.masks`. low: type of hidden values
    and of their products, if not that of the layers. The first layer's products with the points and the
    output keep the type of the layers.
    """
    hidden = points
    for i, (weight, of_code, bias) in enumerate(layers):
        if i and shape.takes_input(i):
            hidden = torch.cat([hidden, points], 1)
        if of_code is not None:
            bias = torch.addmv(bias, of_code, code)
        if i == len(layers) - 1:
            break
        mask = None if masks is None else masks[i]
        if i and low is not None:
            hidden, weight, bias = hidden.to(low), weight.to(low), bias.to(low)
        if shape.activation == "relu":
            hidden = _MaskedRelu.apply(hidden, weight, bias, mask)  # type: ignore[no-untyped-call]
        else:
            sums = torch.addmm(bias, hidden, weight.t())
            hidden = torch.nn.functional.softplus(sums, beta=SOFTPLUS_SHARPNESS)
            hidden = hidden if mask is None else hidden * mask
    output = torch.addmm(bias, hidden.to(bias.dtype), weight.t())[:, 0]
    return torch.tanh(output) if shape.output == "tanh" else output


def _divided(count: int, parts: int) -> list[range]:
    """At most `parts` consecutive ranges of `count` slots, at least one."""
    parts = max(1, min(parts, count))
    return [range(i * count // parts, (i + 1) * count // parts) for i in range(parts)]


def _gradient(tensor: Tensor) -> Tensor:
    """The gradient of a leaf, zero if there is none."""
    return torch.zeros_like(tensor) if tensor.grad is None else tensor.grad


def _leaf(layer: Layer) -> Layer:
    """The layer, apart from the parameters that it was computed from."""
    code = None if layer.code is None else layer.code.detach().requires_grad_()
    return Layer(layer.weight.detach().requires_grad_(), code, layer.bias.detach().requires_grad_())


class _MaskedRelu(torch.autograd.Function):
    """mask * relu(x W^T + b), in place; keeps only the result for the backward pass."""

    @staticmethod
    def forward(ctx: Any, inputs: Tensor, weight: Tensor, bias: Tensor, mask: Tensor | None) -> Tensor:
        outputs = torch.addmm(bias, inputs, weight.t()).clamp_min_(0)
        if mask is not None:
            outputs.mul_(mask)
        ctx.save_for_backward(inputs, weight, outputs)
        return outputs

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        inputs, weight, outputs = ctx.saved_tensors
        of_inputs, of_weight, of_bias, _ = ctx.needs_input_grad
        gradient = torch.ops.aten.threshold_backward(gradient, outputs, 0)
        return (
            gradient.mm(weight) if of_inputs else None,
            gradient.t().mm(inputs) if of_weight else None,
            gradient.sum(0) if of_bias else None,
            None,
        )
