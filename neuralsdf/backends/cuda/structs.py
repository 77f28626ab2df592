"""
structs.py
----------
The kernels' view of a network: layers padded to one width and concatenated, described by a struct; and the
number of warps per block.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from ...array_types import FloatArray
from ...errors import BackendError
from ...program.network import ACTIVATIONS, OUTPUTS, Architecture
from .device import Device

#: Widths that kernels are compiled for; other widths are padded to the next.
WIDTHS = (16, 32, 64, 128)

#: Floats in a warp's tile.
TILE = 2048

#: The struct Network of kernels/cuda/network.h.
NETWORK = np.dtype(
    [
        ("weights", np.uintp),
        ("widths", np.uintp),
        ("depth", np.int32),
        ("activation", np.int32),
        ("output", np.int32),
        ("resident", np.int32),
    ],
    align=True,
)


@dataclass(frozen=True)
class Plan:
    """Launch configuration of a network's kernels: warps per block, shared memory in bytes, and whether all
    weights fit in shared memory at once."""

    warps: int
    shared: int
    resident: bool

    def launch(self, device: Device, kernel: str, count: int, columns: int, arguments: Any) -> None:
        """Run a kernel whose warps process `columns` of `count` items at a time."""
        needed = -(-count // (columns * self.warps))
        blocks = min(needed, device.blocks_at_once(32 * self.warps, self.shared))
        device.launch(kernel, blocks, 32 * self.warps, self.shared, arguments)


def plan(architecture: Architecture, limit: int, warp_floats: int, most_warps: int = 8) -> Plan:
    """The most warps, with `warp_floats` each, that fit in `limit` bytes: with all weights resident if four
    or more warps fit beside them, else with one layer at a time."""
    width = padded_width(architecture)
    layer, everything = width * (width + 1), packed_size(architecture)
    for resident, warps in ((True, 8), (True, 4), (False, 8), (False, 4), (False, 2), (False, 1)):
        if warps > most_warps:
            continue
        shared = 4 * ((everything if resident else layer) + warps * warp_floats)
        if shared <= limit:
            return Plan(warps, shared, resident)
    raise BackendError(f"a {architecture} network needs more than this GPU's {limit} bytes of shared memory")


def padded_width(architecture: Architecture) -> int:
    """The width to which the kernels pad all hidden layers."""
    return next(width for width in WIDTHS if width >= max(architecture.hidden))


def network_struct(architecture: Architecture, weights: int, widths: int, plan: Plan) -> Any:
    """The struct Network, from the addresses of the packed weights and of the hidden layers' widths."""
    activation, output = ACTIVATIONS.index(architecture.activation), OUTPUTS.index(architecture.output)
    fields = (weights, widths, len(architecture.hidden), activation, output, plan.resident)
    return np.array(fields, NETWORK)[()]


def packed_size(architecture: Architecture, width: int | None = None) -> int:
    """Floats of the packed weights, padded to `width`, by default `padded_width`."""
    width, depth = width or padded_width(architecture), len(architecture.hidden)
    return 4 * width + (depth - 1) * width * (width + 1) + width + 4


def pack(architecture: Architecture, weights: FloatArray, width: int | None = None) -> FloatArray:
    """Pack flat weights (..., P) for the kernels: every layer padded with zeros to one width, as in
    `packed_size`."""
    flat = weights.reshape(-1, architecture.weight_count)
    width, start, end = width or padded_width(architecture), 0, 0
    packed = np.zeros((len(flat), packed_size(architecture, width)), np.float32)
    for index, (rows, columns) in enumerate(architecture.layer_shapes):
        wide = 1 if index == len(architecture.hidden) else width
        for size, shape, whole in (
            (rows * columns, (rows, columns), (width if index else 3, wide)),
            (columns, (1, columns), (1, wide)),
        ):
            padded = packed[:, end : end + whole[0] * whole[1]].reshape(-1, *whole)
            padded[:, : shape[0], : shape[1]] = flat[:, start : start + size].reshape(-1, *shape)
            start, end = start + size, end + whole[0] * whole[1]
    return packed.reshape(*weights.shape[:-1], packed.shape[1])


def split_kernels(architecture: Architecture, packed: FloatArray) -> FloatArray:
    """Packed weights with the hidden kernels split for tensor_cores.h into sums of two bfloat16 numbers."""
    width = padded_width(architecture)
    result = packed.copy()
    for layer in range(len(architecture.hidden) - 1):
        begin = 4 * width + layer * width * (width + 1)
        kernel = packed[begin : begin + width * width]
        leading = round_to_bfloat16(kernel)
        rest = round_to_bfloat16(kernel - leading)
        words = np.stack([leading, rest]).view(np.uint16)[:, 1::2]  # upper halves: the lower ones are zero
        # Of 16 inputs, lane l of a group of four has inputs 4 l to 4 l + 3, two per word. Of 16 outputs,
        # group g has column g of the first 8 and of the second 8: 4 (g // 2) + g % 2, and that plus 2.
        parts = words.reshape(2, width // 16, 4, 2, 2, width // 16, 4, 2, 2)
        axes = ("part", "from", "lane", "word", "half", "to", "group", "column", "odd")
        order = ("to", "from", "part", "group", "odd", "lane", "column", "word", "half")
        whole = parts.transpose([axes.index(axis) for axis in order])
        result[begin : begin + width * width] = np.ascontiguousarray(whole).reshape(-1).view(np.float32)
    return result


def round_to_bfloat16(values: FloatArray) -> FloatArray:
    """Round finite values (n,) to the nearest bfloat16, ties to even, returned as float32."""
    bits = values.view(np.uint32)
    return ((bits + 0x7FFF + (bits >> 16 & 1)) & 0xFFFF0000).view(np.float32)


def unpack(architecture: Architecture, packed: FloatArray) -> FloatArray:
    """Inverse of `pack`: the flat vector (P,) of packed weights, or of their gradient."""
    width, last = padded_width(architecture), len(architecture.hidden)
    flat, start = np.empty(architecture.weight_count, np.float32), 0
    for index, (kernel, bias) in enumerate(architecture.layers(flat)):
        shape = (width if index else 3, 1 if index == last else width)
        whole = packed[start : start + shape[0] * shape[1]].reshape(shape)
        start += whole.size
        kernel[:] = whole[: kernel.shape[0], : kernel.shape[1]]
        bias[:] = packed[start : start + len(bias)]
        start += shape[1]
    return flat
