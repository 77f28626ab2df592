"""
tape.py
-------
Tapes on a CUDA device, by kernels/cuda/tape.h: one thread per point or ray; all threads of a block evaluate
the networks together.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from ...array_types import FloatArray
from ...program.network import Network
from ...program.tape_format import Tape
from .. import backend_status, get_backend
from .device import Device
from .program import RAY, DeviceProgram, evaluation_of
from .structs import NETWORK, TILE, WIDTHS, Plan, network_struct, pack, padded_width

#: Maximum number of registers per thread.
POINTS, VALUES = 8, 24

#: The struct of kernels/cuda/tape.h.
TAPE = np.dtype(
    [("code", np.uintp), ("parameters", np.uintp), ("networks", np.uintp), ("size", np.int32)], align=True
)


def fits(tape: Tape) -> bool:
    """Whether the device can evaluate a tape, provided that its networks are not too wide. Requires the C++
    core, which validates the tape."""
    supported = all(isinstance(leaf, Network) for leaf in tape.leaves)
    return (
        supported and tape.points <= POINTS and tape.values <= VALUES and backend_status("native").available
    )


class CudaTape(DeviceProgram):
    """`Program` for a tape that `fits`; its networks stay on the device, padded to one width.

    Raises `ValueError` for an invalid tape, as the C++ core does.
    """

    def __init__(self, device: Device, tape: Tape) -> None:
        super().__init__(device, TAPE, tape.lipschitz)
        get_backend("native").assemble(tape)  # validates it: a kernel would read out of bounds
        networks = [leaf for leaf in tape.leaves if isinstance(leaf, Network)]
        self._width = max((padded_width(network.architecture) for network in networks), default=WIDTHS[0])
        self._plan = self._planned()
        fields = (
            int(self._kept(tape.code)),
            int(self._kept(tape.parameters.astype(np.float32))),
            int(self._kept(self._structs(networks))),
            len(tape.code),
        )
        self._struct = np.array(fields, TAPE)[()]

    def evaluate(self, points: FloatArray) -> FloatArray:
        """Values (n,) at points (n, 3)."""
        return self._values(points, "evaluate")

    def evaluate_there(self, points: int, values: int, count: int) -> None:
        """Like `evaluate`, from points (count, 3) to values (count,) at device addresses.

        The device must be current.
        """
        arguments = np.zeros((), evaluation_of(TAPE))
        arguments["points"], arguments["values"], arguments["count"] = points, values, count
        self._launch_evaluation("evaluate", arguments)

    def _launch_evaluation(self, operation: str, arguments: Any) -> None:
        """Run one of the kernels of `evaluation_of`."""
        self._launch(operation, arguments, int(arguments["count"]))

    def _launch_march(self, operation: str, arguments: Any) -> None:
        """Run one of the kernels that trace rays."""
        self._launch(operation, arguments, int(arguments["rays"]["count"]))

    def _launch(self, operation: str, arguments: Any, count: int) -> None:
        """Run a kernel on `count` points or rays, one per thread."""
        arguments["field"] = self._struct
        self._plan.launch(self._device, f"{operation}_tape_{self._width}", count, 32, arguments[()])

    def _structs(self, networks: list[Network]) -> npt.NDArray[Any]:
        """The struct of each network; their weights are concatenated on the device."""
        packed = [pack(network.architecture, network.weights, self._width) for network in networks]
        hidden = [np.asarray(network.architecture.hidden, np.int32) for network in networks]
        structs = np.zeros(len(networks), NETWORK)
        if networks:
            weights, widths = int(self._kept(np.concatenate(packed))), int(self._kept(np.concatenate(hidden)))
            for index, network in enumerate(networks):
                structs[index] = network_struct(network.architecture, weights, widths, self._plan)
                weights, widths = weights + packed[index].nbytes, widths + hidden[index].nbytes
        return structs

    def _planned(self) -> Plan:
        """As many warps as fit beside a layer's weights, up to 8; one fits at any width."""
        layer, warp = 4 * self._width * (self._width + 1), 4 * (TILE + 32 * RAY)
        room = (self._device.shared_limit - layer) // warp
        warps = max(each for each in (1, 2, 4, 8) if each <= room)
        return Plan(warps, layer + warps * warp, resident=False)
