"""
fit.py
------
Batched fits on a GPU: kernels/cuda/fit.h trains one network per thread block, with weights in shared memory
and optimizer state in the L2 cache. A launch runs a slice of the steps, for Ctrl-C and progress reports.
"""

from __future__ import annotations

import weakref
from typing import Any

import numpy as np
import numpy.typing as npt

from ...array_types import FloatArray
from ...program.optimizer_settings import OPTIMIZERS, Optimizer
from ...program.sample_set import Samples
from .. import Losses
from ..batched_networks import Fits, key_of
from .device import Device
from .structs import NETWORK, network_struct, pack, padded_width, plan, unpack

#: The structs of kernels/cuda/fit.h and optimizers.h.
OPTIMISER = np.dtype(
    [
        ("method", np.int32),
        ("refresh", np.int32),
        ("mean_share", np.float32),
        ("square_share", np.float32),
        ("epsilon", np.float32),
    ],
    align=True,
)
STEP = np.dtype(
    [("rate", np.float32), ("mean_correction", np.float32), ("square_correction", np.float32)], align=True
)
FIT = np.dtype(
    [
        ("network", NETWORK),
        ("width", np.int32),
        ("optimiser", OPTIMISER),
        ("points", np.uintp),
        ("distances", np.uintp),
        ("schedule", np.uintp),
        ("weights", np.uintp),
        ("state", np.uintp),
        ("losses", np.uintp),
        ("batches", np.uintp),
        ("kept", np.uintp),
        ("gradients", np.uintp),
        ("sums", np.uintp),
        ("scratch", np.uintp),
        ("shapes", np.int32),
        ("samples", np.int32),
        ("batch", np.int32),
        ("before", np.int32),
        ("steps", np.int32),
        ("state_size", np.int32),
        ("seed", np.uint32),
    ],
    align=True,
)

#: Maximum width of the compiled kernel; wider networks are fitted on the CPU.
WIDEST = 64

#: Floats in a warp's tile.
_TILE = 2048

#: Multiply-adds of a block per launch: about a tenth of a second.
SLICE = 10**10


class CudaTrainers:
    """`Trainers` for n networks, with weights, samples and optimizer state on the device."""

    def __init__(self, device: Device, fits: Fits) -> None:
        architecture, optimizer, batch = fits.architecture, fits.optimizer, fits.together
        self._device, self._architecture, self._optimizer = device, architecture, optimizer
        self._count, self._done = len(fits.weights), 0
        width, depth = padded_width(architecture), len(architecture.hidden)
        self._plan = chosen = plan(
            architecture, device.shared_limit, (2 * width + 1) * (_TILE // width + 4), most_warps=4
        )
        self._blocks = min(self._count, device.blocks_at_once(32 * chosen.warps, chosen.shared))
        packed = pack(architecture, fits.weights)
        self._packed_shape = packed.shape
        if not self._count:
            return
        self._slice = max(1, SLICE // (6 * fits.weights.shape[1] * batch * -(-self._count // self._blocks)))
        rows, size = self._blocks * chosen.warps, packed.shape[1]
        state = state_size(optimizer, width, depth)
        with device.current():
            memory = {
                "widths": device.array(np.asarray(architecture.hidden, np.int32)),
                "weights": device.array(packed),
                "points": device.array(fits.points),
                "distances": device.array(fits.distances),
                "state": device.empty(4 * self._count * state),
                "batches": device.empty(16 * self._blocks * batch),
                "kept": device.empty(4 * rows * depth * _TILE),
                "gradients": device.empty(4 * rows * size),
                "sums": device.empty(4 * rows),
                "scratch": device.empty(4 * rows * 4 * (width + 1) ** 2),
            }
        for allocation in memory.values():
            weakref.finalize(self, device.free, allocation)
        self._weights = int(memory["weights"])
        self._arguments = arguments = np.zeros((), FIT)
        arguments["network"] = network_struct(architecture, 0, int(memory.pop("widths")), chosen)
        for name, allocation in memory.items():
            arguments[name] = int(allocation)
        arguments["width"], arguments["optimiser"] = width, optimiser_struct(optimizer)
        arguments["shapes"], arguments["samples"] = self._count, fits.samples
        arguments["batch"], arguments["state_size"], arguments["seed"] = batch, state, key_of(fits.seed)

    @property
    def weights(self) -> FloatArray:
        """A copy of the current weights (n, P)."""
        packed = np.empty(self._packed_shape, np.float32)
        if self._count:
            with self._device.current():
                self._device.download(self._weights, packed)
        rows = [unpack(self._architecture, row) for row in packed]
        return np.array(rows, np.float32).reshape(self._count, self._architecture.weight_count)

    def steps(self, rates: FloatArray) -> Losses:
        """Take a step with each of the rates (s,); returns the losses (n, s)."""
        losses = np.empty((self._count, len(rates)))
        if not self._count:
            return losses
        for first in range(0, len(rates), self._slice):
            part = slice(first, first + self._slice)
            losses[:, part] = self._launch(rates[part])
        return losses

    def replace(self, shape: int, samples: Samples) -> None:
        """Replace the first samples of a shape by `samples`."""
        first = shape * int(self._arguments["samples"])
        with self._device.current():
            self._device.write(int(self._arguments["points"]) + 12 * first, samples.points)
            self._device.write(int(self._arguments["distances"]) + 4 * first, samples.distances)

    def _launch(self, rates: FloatArray) -> FloatArray:
        """Run a slice of the steps."""
        device, arguments, plan = self._device, self._arguments, self._plan
        losses = np.empty((self._count, len(rates)), np.float32)
        with device.current():
            arguments["schedule"] = device.upload("schedule", schedule(self._optimizer, rates, self._done))
            arguments["losses"] = device.buffer("losses", losses.nbytes)
            arguments["before"], arguments["steps"] = self._done, len(rates)
            device.launch("fit", self._blocks, 32 * plan.warps, plan.shared, arguments[()])
            device.download(int(arguments["losses"]), losses)
        self._done += len(rates)
        return losses


def optimiser_struct(optimizer: Optimizer) -> Any:
    """The struct Optimiser; SOAP has a single beta."""
    beta1 = optimizer.beta2 if optimizer.method == "soap" else optimizer.beta1
    fields = (
        OPTIMIZERS.index(optimizer.method),
        optimizer.refresh,
        1 - beta1,
        1 - optimizer.beta2,
        optimizer.epsilon,
    )
    return np.array(fields, OPTIMISER)[()]


def schedule(optimizer: Optimizer, rates: FloatArray, before: int) -> npt.NDArray[np.void]:
    """Array (s,) of the struct Step, starting after `before` steps."""
    number = before + 1.0 + np.arange(len(rates))
    beta1 = optimizer.beta2 if optimizer.method == "soap" else optimizer.beta1
    steps = np.empty(len(rates), STEP)
    steps["rate"] = rates
    steps["mean_correction"] = 1 / (1 - beta1**number)
    steps["square_correction"] = 1 / (1 - optimizer.beta2**number)
    return steps


def state_size(optimizer: Optimizer, width: int, depth: int) -> int:
    """Floats of the optimizer state of one network."""
    layers = [(4, width), *[(width + 1, width)] * (depth - 1), (width + 1, 1)]
    if optimizer.method == "adam":
        return 2 * (sum(rows * columns for rows, columns in layers) + 3)
    return sum(2 * (rows * rows + columns * columns + rows * columns) for rows, columns in layers)
