"""
program.py
----------
Networks on a CUDA device: weights in shared memory; all layers of a tile of points are evaluated without
leaving the multiprocessor. Inputs and outputs are NumPy arrays; intermediate results stay on the device.
"""

from __future__ import annotations

import weakref
from abc import abstractmethod
from typing import Any

import numpy as np
import numpy.typing as npt

from ...array_types import FloatArray, Mask
from ...program.network import Network
from ..bfloat16_error import added_error
from ..reference import sphere_tracing as marching
from ..reference.sphere_tracing import SoftShadow, Traced
from ..value_outside_ball import Placed
from .device import Device, blocks_of, check_array
from .sparse_grid import CudaFieldLattice
from .structs import NETWORK, TILE, network_struct, pack, padded_width, plan, split_kernels

#: The struct Rays of kernels/cuda/trace.h.
RAYS = np.dtype(
    [
        ("begin", np.uintp),
        ("directions", np.uintp),
        ("ends", np.uintp),
        ("counters", np.uintp),
        ("count", np.int64),
    ],
    align=True,
)

#: Floats of an active ray.
RAY = 7

_HIT, _UNRESOLVED, _BURIED = 1, 2, 4

#: Suffix of kernels that use split weights.
_TENSOR = "_tensor"


def evaluation_of(field: np.dtype[Any]) -> np.dtype[Any]:
    """The struct EvaluationOf for a field struct."""
    return np.dtype(
        [
            ("field", field),
            ("points", np.uintp),
            ("values", np.uintp),
            ("gradients", np.uintp),
            ("count", np.int64),
        ],
        align=True,
    )


def tracing_of(field: np.dtype[Any]) -> np.dtype[Any]:
    """The struct TracingOf for a field struct."""
    return np.dtype(
        [
            ("field", field),
            ("rays", RAYS),
            ("at_ball", np.uintp),
            ("steps", np.uintp),
            ("t", np.uintp),
            ("flags", np.uintp),
            ("max_level", np.float32),
            ("levels_a_unit", np.float32),
            ("touch_depth", np.float32),
            ("root_tolerance", np.float32),
            ("levels", np.int32),
            ("max_steps", np.int32),
            ("root_steps", np.int32),
        ],
        align=True,
    )


def shadow_of(field: np.dtype[Any]) -> np.dtype[Any]:
    """The struct ShadowOf for a field struct."""
    return np.dtype(
        [
            ("field", field),
            ("rays", RAYS),
            ("share", np.uintp),
            ("first", np.float32),
            ("min_step", np.float32),
            ("max_step", np.float32),
            ("sharpness", np.float32),
            ("dark", np.float32),
            ("scale", np.float32),
            ("max_steps", np.int32),
        ],
        align=True,
    )


class DeviceProgram(Placed):
    """Common part of `Program` for fields on the device.

    field: the field's struct. lipschitz: Lipschitz constant of its values; shadows use values / lipschitz.
    """

    def __init__(self, device: Device, field: np.dtype[Any], lipschitz: float) -> None:
        self._device, self._field, self._lipschitz = device, field, lipschitz

    @abstractmethod
    def evaluate_there(self, points: int, values: int, count: int) -> None:
        """Like `evaluate`, from points (count, 3) to values (count,) at device addresses.

        The device must be current.
        """

    @abstractmethod
    def _launch_evaluation(self, operation: str, arguments: Any) -> None:
        """Run one of the kernels of `evaluation_of`."""

    @abstractmethod
    def _launch_march(self, operation: str, arguments: Any) -> None:
        """Run one of the kernels that trace rays."""

    def evaluate_with_gradient(self, points: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Values (n,) and gradients (n, 3) at points (n, 3)."""
        check_array(points, "points", np.float32, (len(points), 3))
        values, gradients = np.empty(len(points), np.float32), np.empty((len(points), 3), np.float32)
        for block in blocks_of(len(points)):
            self._evaluate("evaluate_with_gradient", points[block], values[block], gradients[block])
        return values, gradients

    def trace(
        self, begin: FloatArray, directions: FloatArray, ends: FloatArray, at_ball: Mask, steps: FloatArray
    ) -> Traced:
        """Trace rays (n,): see `Program.trace`."""
        _check_rays(begin, directions, ends)
        check_array(at_ball, "at_ball", np.bool_, (len(begin),))
        check_array(steps, "steps", np.float32, (max(2, len(steps)),))
        t, flags = np.empty(len(begin), np.float32), np.empty(len(begin), np.uint8)
        evaluations = 0
        for block in blocks_of(len(begin)):
            with self._device.current():
                arguments = np.zeros((), tracing_of(self._field))
                arguments["at_ball"] = self._device.upload("at_ball", at_ball[block])
                arguments["steps"] = self._device.upload("steps", steps)
                arguments["t"] = self._device.buffer("values", t[block].nbytes)
                arguments["flags"] = self._device.buffer("flags", flags[block].nbytes)
                arguments["max_level"] = marching.MAX_LEVEL
                arguments["levels_a_unit"] = (len(steps) - 1) / marching.MAX_LEVEL
                arguments["touch_depth"] = marching.TOUCH_DEPTH
                arguments["root_tolerance"] = marching.ROOT_TOLERANCE
                arguments["levels"] = len(steps)
                arguments["max_steps"] = marching.MAX_STEPS
                arguments["root_steps"] = marching.ROOT_STEPS
                evaluations += self._march("trace", arguments, begin[block], directions[block], ends[block])
                self._device.download(int(arguments["t"]), t[block])
                self._device.download(int(arguments["flags"]), flags[block])
        hit, unresolved, buried = (flags & flag != 0 for flag in (_HIT, _UNRESOLVED, _BURIED))
        return Traced(hit, t, unresolved, buried, evaluations)

    def soft_shadow(
        self, begin: FloatArray, directions: FloatArray, ends: FloatArray, cone: SoftShadow
    ) -> tuple[FloatArray, int]:
        """Fraction (n,) of light, and the number of evaluations: see `Program.soft_shadow`."""
        _check_rays(begin, directions, ends)
        share = np.empty(len(begin), np.float32)
        evaluations = 0
        for block in blocks_of(len(begin)):
            with self._device.current():
                arguments = np.zeros((), shadow_of(self._field))
                arguments["share"] = self._device.buffer("values", share[block].nbytes)
                for name in ("first", "min_step", "max_step", "sharpness", "dark"):
                    arguments[name] = getattr(cone, name)
                arguments["scale"], arguments["max_steps"] = 1 / self._lipschitz, cone.steps
                evaluations += self._march(
                    "soft_shadow", arguments, begin[block], directions[block], ends[block]
                )
                self._device.download(int(arguments["share"]), share[block])
        return share, evaluations

    def on_lattice(self, side: int, spacing: float, level: float, rounding: float = 0.0) -> CudaFieldLattice:
        """The program's values minus `level` on a lattice on the device."""
        return CudaFieldLattice(self._device, self, side, spacing, level, rounding)

    def _kept(self, values: npt.NDArray[Any]) -> Any:
        """A copy on the device that lives as long as the program."""
        with self._device.current():
            memory = self._device.array(values)
        weakref.finalize(self, self._device.free, memory)
        return memory

    def _values(self, points: FloatArray, kernel: str) -> FloatArray:
        check_array(points, "points", np.float32, (len(points), 3))
        values = np.empty(len(points), np.float32)
        for block in blocks_of(len(points)):
            self._evaluate(kernel, points[block], values[block], None)
        return values

    def _evaluate(
        self, operation: str, points: FloatArray, values: FloatArray, gradients: FloatArray | None
    ) -> None:
        device = self._device
        with device.current():
            arguments = np.zeros((), evaluation_of(self._field))
            arguments["points"] = device.upload("points", points)
            arguments["values"] = device.buffer("values", values.nbytes)
            if gradients is not None:
                arguments["gradients"] = device.buffer("gradients", gradients.nbytes)
            arguments["count"] = len(points)
            self._launch_evaluation(operation, arguments)
            device.download(int(arguments["values"]), values)
            if gradients is not None:
                device.download(int(arguments["gradients"]), gradients)

    def _march(
        self, operation: str, arguments: Any, begin: FloatArray, directions: FloatArray, ends: FloatArray
    ) -> int:
        """Trace rays; returns the number of evaluations."""
        device = self._device
        counters = np.zeros(2, np.uint64)
        rays = arguments["rays"]
        rays["begin"] = device.upload("begin", begin)
        rays["directions"] = device.upload("directions", directions)
        rays["ends"] = device.upload("ends", ends)
        rays["counters"] = device.upload("counters", counters)
        rays["count"] = len(begin)
        self._launch_march(operation, arguments)
        device.download(int(rays["counters"]), counters)
        return int(counters[1])


class CudaProgram(DeviceProgram):
    """`Program` for one network, with its weights on the device.

    tensor_cores: whether values, traces and shadows use tensor cores; gradients always use float32.
    tensor_error: mean error near the surface that tensor cores would add; None if not measured.
    """

    in_ball = True

    def __init__(self, device: Device, network: Network, tolerance: float | None = None) -> None:
        super().__init__(device, NETWORK, lipschitz=1.0)
        self._architecture = architecture = network.architecture
        self._width = padded_width(architecture)
        self._widths = self._kept(np.asarray(architecture.hidden, np.int32))
        packed = pack(architecture, network.weights)
        self._weights = self._kept(packed)
        self.tensor_cores = False
        self.tensor_error: float | None = None
        if tolerance is not None:
            self._split_weights = self._kept(split_kernels(architecture, packed))
            self.tensor_error = added_error(
                lambda points: self._values(points, "evaluate"),
                lambda points: self._values(points, "evaluate_tensor"),
            )
            self.tensor_cores = self.tensor_error < tolerance  # False if the error is NaN

    def evaluate(self, points: FloatArray) -> FloatArray:
        """Values (n,) at points (n, 3)."""
        return self._values(points, _named("evaluate", self.tensor_cores))

    def evaluate_there(self, points: int, values: int, count: int) -> None:
        """Like `evaluate`, from points (count, 3) to values (count,) at device addresses.

        The device must be current.
        """
        arguments = np.zeros((), evaluation_of(NETWORK))
        arguments["points"], arguments["values"], arguments["count"] = points, values, count
        self._launch_evaluation(_named("evaluate", self.tensor_cores), arguments)

    def _launch_evaluation(self, operation: str, arguments: Any) -> None:
        """Run one of the kernels of `evaluation_of`."""
        columns, warp_floats = TILE // self._width, TILE
        if operation == "evaluate_with_gradient":
            columns //= 4
        if operation == "evaluate_tensor":
            columns, warp_floats = self._tensor_tile()
        self._launch(operation, arguments, int(arguments["count"]), columns, warp_floats)

    def _launch_march(self, operation: str, arguments: Any) -> None:
        """Run one of the kernels that trace rays."""
        columns, warp_floats = TILE // self._width, TILE
        if self.tensor_cores:
            columns, scratch = self._tensor_tile()
            warp_floats = 4 * columns + scratch  # coordinates and values
        kernel, count = _named(operation, self.tensor_cores), int(arguments["rays"]["count"])
        self._launch(kernel, arguments, count, columns, warp_floats + columns * RAY)

    def _tensor_tile(self) -> tuple[int, int]:
        """Points that a warp evaluates with tensor cores, and floats of its scratch memory.

        Activations other than ReLU need shared memory.
        """
        columns = 16 if self._width > 64 else 32
        return columns, 0 if self._architecture.activation == "relu" else columns * self._width

    def _launch(self, operation: str, arguments: Any, count: int, columns: int, warp_floats: int) -> None:
        """Run a kernel whose warps process `columns` of `count` items at a time."""
        chosen = plan(self._architecture, self._device.shared_limit, warp_floats)
        weights = self._split_weights if operation.endswith(_TENSOR) else self._weights
        arguments["field"] = network_struct(self._architecture, int(weights), int(self._widths), chosen)
        chosen.launch(self._device, f"{operation}_{self._width}", count, columns, arguments[()])


def _named(operation: str, tensor_cores: bool) -> str:
    """Name of the kernel of an operation."""
    return operation + _TENSOR if tensor_cores else operation


def _check_rays(begin: FloatArray, directions: FloatArray, ends: FloatArray) -> None:
    check_array(begin, "begin", np.float32, (len(begin), 3))
    check_array(directions, "directions", np.float32, (len(begin), 3))
    check_array(ends, "ends", np.float32, (len(begin),))
