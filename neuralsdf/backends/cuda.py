"""
cuda.py
-------
The CUDA kernels in kernels/cuda/: a network's weights in shared memory, all layers of a tile of points
without leaving the multiprocessor. Arrays come and go as numpy's; what is computed between stays on the
device. A single fit runs on the processor, for one network's steps are too small for a GPU; see many.py.
"""

from __future__ import annotations

import warnings
import weakref
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ..errors import BackendError
from ..network import ACTIVATIONS, OUTPUTS, Architecture, FloatArray, Network
from ..optimize import Optimizer
from ..similarity import Points
from ..tape import Tape
from ..trees import Index, TriangleTree
from . import (
    CPU_BACKENDS,
    Backend,
    BackendStatus,
    Program,
    Trainer,
    cuda_required,
    device,
    fastest,
    get_backend,
    marching,
)
from .cuda_lattice import CudaFieldLattice
from .cuda_trees import CudaTree
from .device import Device
from .many import values_of_many
from .marching import Mask, SoftShadow, Traced

#: Widths that kernels are compiled for; others are padded to the next.
WIDTHS = (16, 32, 64, 128)

#: Points on the device at once: some 100 MB a buffer, whatever is asked for.
BLOCK = 1 << 23

#: Bytes on the device, at most, for what a training step keeps.
KEPT = 1 << 28

#: The error of tensor cores is measured where the field is nearest to zero: at so many of so many points.
NEAR, CANDIDATES = 1 << 12, 1 << 16

#: The structs of kernels/cuda/*.h.
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
EVALUATION_OF_MANY = np.dtype(
    [
        ("network", NETWORK),
        ("points", np.uintp),
        ("values", np.uintp),
        ("count", np.int64),
        ("size", np.int32),
        ("blocks", np.int32),
    ],
    align=True,
)
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
LOSS = np.dtype(
    [
        ("network", NETWORK),
        ("points", np.uintp),
        ("targets", np.uintp),
        ("kept", np.uintp),
        ("gradients", np.uintp),
        ("losses", np.uintp),
        ("count", np.int64),
    ],
    align=True,
)
GRADIENT_SUM = np.dtype(
    [("gradients", np.uintp), ("sum", np.uintp), ("rows", np.int32), ("size", np.int32)], align=True
)


def evaluation_of(field: np.dtype[Any]) -> np.dtype[Any]:
    """The struct EvaluationOf a field, whose own struct is given."""
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
    """The struct TracingOf a field."""
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
    """The struct ShadowOf a field."""
    return np.dtype(
        [
            ("field", field),
            ("rays", RAYS),
            ("share", np.uintp),
            ("first", np.float32),
            ("least_step", np.float32),
            ("greatest_step", np.float32),
            ("sharpness", np.float32),
            ("dark", np.float32),
            ("scale", np.float32),
            ("max_steps", np.int32),
        ],
        align=True,
    )


_HIT, _UNRESOLVED, _BURIED = 1, 2, 4

#: Floats of a warp's tile, and of a ray under way.
TILE, RAY = 2048, 7


def status() -> BackendStatus:
    """Whether the kernels were built, pycuda is installed and a GPU is there; imports none of them."""
    why_not = device.missing()
    if why_not is not None:
        return BackendStatus("cuda", False, why_not)
    return BackendStatus("cuda", True, f"CUDA kernels on {device.name()}")


def load() -> Backend:
    """The backend, checked against the reference; the reference itself, with a warning, if they disagree.

    Under NEURALSDF_REQUIRE_CUDA=1 it raises `BackendError` instead.
    """
    from .self_check import disagreement

    reference = get_backend(fastest(CPU_BACKENDS))
    try:
        backend = CudaBackend(Device(), reference)
        problem = disagreement(backend, reference)
    except Exception as error:  # the driver's own, of whatever kind: the reference still computes
        problem = f"{type(error).__name__}: {error}".partition("\n")[0]
    if problem is None:
        return backend
    if cuda_required():
        raise BackendError(f"the cuda backend failed its check: {problem}")
    warnings.warn(
        f"the cuda backend failed its check, the {reference.name} backend computes in its place: {problem}",
        UserWarning,
        stacklevel=2,
    )
    return reference


class CudaBackend:
    """Implements `Backend` on a CUDA device.

    What the kernels cannot do, networks wider than 128, `fallback` computes, with one warning.
    """

    name = "cuda"

    def __init__(self, device: Device, fallback: Backend) -> None:
        self.device = device
        self._fallback = fallback
        self._warned = False

    def compile(self, network: Network, tolerance: float | None = None) -> Program:
        """The network's weights, on the device; values by tensor cores if they add less than `tolerance`."""
        if self._too_wide(network.architecture):
            return self._fallback.compile(network, tolerance)
        return CudaProgram(self.device, network, tolerance)

    def assemble(self, tape: Tape) -> Program:
        """The tape on the device; the fallback's program where that cannot be.

        It cannot where the tape has other leaves than networks (a mesh runs on the processor), networks that
        are too wide, or more registers than a thread has room for, and without the C++ core, which checks it.
        """
        from .cuda_tape import CudaTape, fits

        if not fits(tape):
            return self._fallback.assemble(tape)
        for leaf in tape.leaves:
            if isinstance(leaf, Network) and self._too_wide(leaf.architecture):
                return self._fallback.assemble(tape)
        return CudaTape(self.device, tape)

    def evaluate_many(
        self, architecture: Architecture, weights: FloatArray, points: FloatArray
    ) -> FloatArray:
        """Values (n, m) float32 of n networks with `weights` (n, P) at points (m, 3), by float32."""
        if self._too_wide(architecture):
            return values_of_many(self._fallback, architecture, weights, points)
        _check(weights, "weights", np.float32, (len(weights), architecture.weight_count))
        _check(points, "points", np.float32, (len(points), 3))
        values = np.empty((len(weights), len(points)), np.float32)
        for part in _blocks(len(points)):
            count = len(points[part])
            together = max(1, min(BLOCK // count, KEPT // (4 * packed_size(architecture))))
            for first in range(0, len(weights), together):
                rows = slice(first, first + together)
                values[rows, part] = self._values_of_many(architecture, weights[rows], points[part])
        return values

    def _values_of_many(
        self, architecture: Architecture, weights: FloatArray, points: FloatArray
    ) -> FloatArray:
        """Values (n, m) of one launch."""
        device, width = self.device, padded_width(architecture)
        chosen = plan(architecture, device.shared_limit, TILE)
        values = np.empty((len(weights), len(points)), np.float32)
        with device.current():
            shared_blocks = device.blocks_at_once(32 * chosen.warps, chosen.shared) // len(weights)
            tiles = -(-len(points) // (TILE // width * chosen.warps))
            arguments = np.zeros((), EVALUATION_OF_MANY)
            arguments["network"] = network_struct(
                architecture,
                device.upload("weights", pack(architecture, weights)),
                device.upload("widths", np.asarray(architecture.hidden, np.int32)),
                chosen,
            )
            arguments["points"] = device.upload("points", points)
            arguments["values"] = device.buffer("values", values.nbytes)
            arguments["count"], arguments["size"] = len(points), packed_size(architecture)
            arguments["blocks"] = blocks = max(1, min(tiles, shared_blocks))
            device.launch(
                f"evaluate_many_{width}",
                len(weights) * blocks,
                32 * chosen.warps,
                chosen.shared,
                arguments[()],
            )
            device.download(int(arguments["values"]), values)
        return values

    def loss_gradient(
        self, architecture: Architecture, weights: FloatArray, points: FloatArray, targets: FloatArray
    ) -> tuple[float, FloatArray]:
        """Mean |f(x) - d| over points (n, 3) and targets (n,), and its gradient (P,)."""
        if self._too_wide(architecture):
            return self._fallback.loss_gradient(architecture, weights, points, targets)
        _check(weights, "weights", np.float32, (architecture.weight_count,))
        _check(points, "points", np.float32, (len(points), 3))
        _check(targets, "targets", np.float32, (len(points),))
        loss, gradient = 0.0, np.zeros(architecture.weight_count, np.float32)
        with self.device.current():
            for block in _blocks(len(points)):
                block_loss, block_gradient = self._loss_sums(
                    architecture, weights, points[block], targets[block]
                )
                loss += block_loss
                gradient += block_gradient
        count = max(1, len(points))
        return loss / count, gradient / np.float32(count)

    def trainer(self, architecture: Architecture, weights: FloatArray, optimizer: Optimizer) -> Trainer:
        """A trainer that begins with these weights (P,): the fallback's, which fits on the processor."""
        return self._fallback.trainer(architecture, weights, optimizer)

    def triangle_tree(self, vertices: Points, faces: Index) -> TriangleTree:
        """The tree of vertices (V, 3) and faces (F, 3), on the device; the fallback's without the core."""
        try:
            return CudaTree(self.device, vertices, faces)
        except ImportError:
            return self._fallback.triangle_tree(vertices, faces)

    def _loss_sums(
        self, architecture: Architecture, weights: FloatArray, points: FloatArray, targets: FloatArray
    ) -> tuple[float, FloatArray]:
        """The sum of |f(x) - d|, and of its gradients (P,)."""
        device, width = self.device, padded_width(architecture)
        columns = TILE // width
        chosen = plan(architecture, device.shared_limit, (2 * width + 1) * (columns + 4), most_warps=4)
        packed = pack(architecture, weights)
        # What every warp keeps bounds how many there are; that nothing else does keeps sums the same.
        each = 4 * (packed.size + len(architecture.hidden) * TILE)
        blocks = max(1, min(256, KEPT // (each * chosen.warps), -(-len(points) // (columns * chosen.warps))))
        rows = blocks * chosen.warps
        losses, gradient = np.empty(rows, np.float32), np.empty(packed.size, np.float32)
        arguments = np.zeros((), LOSS)
        arguments["network"] = network_struct(
            architecture,
            device.upload("weights", packed),
            device.upload("widths", np.asarray(architecture.hidden, np.int32)),
            chosen,
        )
        arguments["points"] = device.upload("points", points)
        arguments["targets"] = device.upload("targets", targets)
        arguments["kept"] = device.buffer("kept", 4 * rows * len(architecture.hidden) * TILE)
        arguments["gradients"] = device.buffer("gradient rows", rows * gradient.nbytes)
        arguments["losses"] = device.buffer("losses", losses.nbytes)
        arguments["count"] = len(points)
        device.launch(f"loss_gradient_{width}", blocks, 32 * chosen.warps, chosen.shared, arguments[()])
        total = np.zeros((), GRADIENT_SUM)
        total["gradients"] = arguments["gradients"]
        total["sum"] = device.buffer("gradients", gradient.nbytes)
        total["rows"], total["size"] = rows, gradient.size
        device.launch("sum_gradients", -(-gradient.size // 256), 256, 0, total[()])
        device.download(int(arguments["losses"]), losses)
        device.download(int(total["sum"]), gradient)
        return float(losses.sum(dtype=np.float64)), unpack(architecture, gradient)

    def _too_wide(self, architecture: Architecture) -> bool:
        if max(architecture.hidden) <= WIDTHS[-1]:
            return False
        if cuda_required():
            raise BackendError(f"the cuda backend runs networks up to {WIDTHS[-1]} wide, not {architecture}")
        if not self._warned:
            self._warned = True
            warnings.warn(
                f"networks wider than {WIDTHS[-1]} do not fit the CUDA kernels; "
                f"the {self._fallback.name} backend computes them, slower",
                UserWarning,
                stacklevel=3,
            )
        return True


class DeviceProgram(ABC):
    """Implements `Program` for a field on the device: what its kernels have in common.

    field: the struct of the field. lipschitz: what its slope does not exceed; shadows go by values over it.
    """

    def __init__(self, device: Device, field: np.dtype[Any], lipschitz: float) -> None:
        self._device, self._field, self._lipschitz = device, field, lipschitz

    @abstractmethod
    def evaluate(self, points: FloatArray) -> FloatArray:
        """Values (n,) at points (n, 3)."""

    @abstractmethod
    def evaluate_there(self, points: int, values: int, count: int) -> None:
        """As `evaluate`, from points (count, 3) to values (count,) on the device, by their addresses.

        The device must be current.
        """

    @abstractmethod
    def _launch_evaluation(self, operation: str, arguments: Any) -> None:
        """Runs one of the kernels of `evaluation_of`."""

    @abstractmethod
    def _launch_march(self, operation: str, arguments: Any) -> None:
        """Runs one of the kernels that march rays."""

    def evaluate_with_gradient(self, points: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Values (n,) and gradients (n, 3) at points (n, 3)."""
        _check(points, "points", np.float32, (len(points), 3))
        values, gradients = np.empty(len(points), np.float32), np.empty((len(points), 3), np.float32)
        for block in _blocks(len(points)):
            self._evaluate("evaluate_with_gradient", points[block], values[block], gradients[block])
        return values, gradients

    def trace(
        self, begin: FloatArray, directions: FloatArray, ends: FloatArray, at_ball: Mask, steps: FloatArray
    ) -> Traced:
        """The first surface along rays (n,): as `Program.trace`."""
        _check_rays(begin, directions, ends)
        _check(at_ball, "at_ball", np.bool_, (len(begin),))
        _check(steps, "steps", np.float32, (max(2, len(steps)),))
        t, flags = np.empty(len(begin), np.float32), np.empty(len(begin), np.uint8)
        evaluations = 0
        for block in _blocks(len(begin)):
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
        """Share (n,) of light, and the evaluations: as `Program.soft_shadow`."""
        _check_rays(begin, directions, ends)
        share = np.empty(len(begin), np.float32)
        evaluations = 0
        for block in _blocks(len(begin)):
            with self._device.current():
                arguments = np.zeros((), shadow_of(self._field))
                arguments["share"] = self._device.buffer("values", share[block].nbytes)
                for name in ("first", "least_step", "greatest_step", "sharpness", "dark"):
                    arguments[name] = getattr(cone, name)
                arguments["scale"], arguments["max_steps"] = 1 / self._lipschitz, cone.steps
                evaluations += self._march(
                    "soft_shadow", arguments, begin[block], directions[block], ends[block]
                )
                self._device.download(int(arguments["share"]), share[block])
        return share, evaluations

    def on_lattice(self, side: int, spacing: float, level: float) -> CudaFieldLattice:
        """What is evaluated, less `level` on a lattice that stays on the device."""
        return CudaFieldLattice(self._device, self, side, spacing, level)

    def _kept(self, values: npt.NDArray[Any]) -> Any:
        """A copy on the device for as long as the program lives."""
        with self._device.current():
            memory = self._device.array(values)
        weakref.finalize(self, self._device.free, memory)
        return memory

    def _values(self, points: FloatArray, kernel: str) -> FloatArray:
        _check(points, "points", np.float32, (len(points), 3))
        values = np.empty(len(points), np.float32)
        for block in _blocks(len(points)):
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
        """Marches rays; returns the evaluations."""
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
    """Implements `Program` for one network, whose weights stay on the device.

    tensor_cores: whether they compute its values, traces and shadows; gradients are always float32's.
    tensor_error: what they would add to the error near the surface, in the mean; None if nobody asked.
    """

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
            self.tensor_error = self._measured_tensor_error()
            self.tensor_cores = self.tensor_error < tolerance  # not where it is no number

    def evaluate(self, points: FloatArray) -> FloatArray:
        """Values (n,) at points (n, 3)."""
        return self._values(points, _named("evaluate", self.tensor_cores))

    def evaluate_there(self, points: int, values: int, count: int) -> None:
        """As `evaluate`, from points (count, 3) to values (count,) on the device, by their addresses.

        The device must be current.
        """
        arguments = np.zeros((), evaluation_of(NETWORK))
        arguments["points"], arguments["values"], arguments["count"] = points, values, count
        self._launch_evaluation(_named("evaluate", self.tensor_cores), arguments)

    def _measured_tensor_error(self) -> float:
        """The mean difference between values by tensor cores and by float32, near the surface."""
        points = np.random.default_rng(0).uniform(-1, 1, (CANDIDATES, 3)).astype(np.float32)
        points = points[(points * points).sum(1) <= 1]  # outside the ball a network means nothing
        values = self._values(points, "evaluate")
        near = np.argsort(np.abs(values))[:NEAR]
        difference = np.abs(self._values(points[near], "evaluate_tensor") - values[near])
        return float(difference.mean(dtype=np.float64))

    def _launch_evaluation(self, operation: str, arguments: Any) -> None:
        """Runs one of the kernels of `evaluation_of`."""
        columns, warp_floats = TILE // self._width, TILE
        if operation == "evaluate_with_gradient":
            columns //= 4
        if operation == "evaluate_tensor":
            columns, warp_floats = self._tensor_tile()
        self._launch(operation, arguments, int(arguments["count"]), columns, warp_floats)

    def _launch_march(self, operation: str, arguments: Any) -> None:
        """Runs one of the kernels that march rays."""
        columns, warp_floats = TILE // self._width, TILE
        if self.tensor_cores:
            columns, scratch = self._tensor_tile()
            warp_floats = 4 * columns + scratch  # coordinates and values
        kernel, count = _named(operation, self.tensor_cores), int(arguments["rays"]["count"])
        self._launch(kernel, arguments, count, columns, warp_floats + columns * RAY)

    def _tensor_tile(self) -> tuple[int, int]:
        """Points that a warp evaluates by tensor cores, and floats of its scratch.

        Activations other than ReLU go through shared memory.
        """
        columns = 16 if self._width > 64 else 32
        return columns, 0 if self._architecture.activation == "relu" else columns * self._width

    def _launch(self, operation: str, arguments: Any, count: int, columns: int, warp_floats: int) -> None:
        """Runs a kernel whose warps take `columns` of `count` things at a time."""
        chosen = plan(self._architecture, self._device.shared_limit, warp_floats)
        weights = self._split_weights if operation.endswith(_TENSOR) else self._weights
        arguments["field"] = network_struct(self._architecture, int(weights), int(self._widths), chosen)
        chosen.launch(self._device, f"{operation}_{self._width}", count, columns, arguments[()])


@dataclass(frozen=True)
class Plan:
    """How a network's kernels are launched: warps in a block, its shared memory in bytes, and whether all
    weights are there at once."""

    warps: int
    shared: int
    resident: bool

    def launch(self, device: Device, kernel: str, count: int, columns: int, arguments: Any) -> None:
        """Runs a kernel whose warps take `columns` of `count` things at a time."""
        needed = -(-count // (columns * self.warps))
        blocks = min(needed, device.blocks_at_once(32 * self.warps, self.shared))
        device.launch(kernel, blocks, 32 * self.warps, self.shared, arguments)


def plan(architecture: Architecture, limit: int, warp_floats: int, most_warps: int = 8) -> Plan:
    """The most warps that fit `limit` bytes, each with `warp_floats` of its own, with all weights beside them
    if four fit so, or else with a layer at a time."""
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
    """The width that the kernels give all hidden layers."""
    return next(width for width in WIDTHS if width >= max(architecture.hidden))


def network_struct(architecture: Architecture, weights: int, widths: int, plan: Plan) -> Any:
    """The struct Network, with the addresses of the packed weights and of the hidden layers' widths."""
    activation, output = ACTIVATIONS.index(architecture.activation), OUTPUTS.index(architecture.output)
    fields = (weights, widths, len(architecture.hidden), activation, output, plan.resident)
    return np.array(fields, NETWORK)[()]


def packed_size(architecture: Architecture, width: int | None = None) -> int:
    """Floats of the packed weights, the layers padded to `width`, by default `padded_width`."""
    width, depth = width or padded_width(architecture), len(architecture.hidden)
    return 4 * width + (depth - 1) * width * (width + 1) + width + 4


def pack(architecture: Architecture, weights: FloatArray, width: int | None = None) -> FloatArray:
    """Flat weights (..., P) as the kernels read them: every layer padded with zeros to one width, that of
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
    """Packed weights, the hidden layers' kernels as tensor.h reads them: as sums of two bfloat16."""
    width = padded_width(architecture)
    result = packed.copy()
    for layer in range(len(architecture.hidden) - 1):
        begin = 4 * width + layer * width * (width + 1)
        kernel = packed[begin : begin + width * width]
        leading = round_to_bfloat16(kernel)
        rest = round_to_bfloat16(kernel - leading)
        words = np.stack([leading, rest]).view(np.uint16)[:, 1::2]  # the upper halves: the others are zero
        # Of 16 inputs lane l of a group of four has 4 l to 4 l + 3, two a word; of 16 outputs group g has
        # column g of the first 8 and of the second: 4 (g // 2) + g % 2, and two on.
        parts = words.reshape(2, width // 16, 4, 2, 2, width // 16, 4, 2, 2)
        axes = ("part", "from", "lane", "word", "half", "to", "group", "column", "odd")
        order = ("to", "from", "part", "group", "odd", "lane", "column", "word", "half")
        whole = parts.transpose([axes.index(axis) for axis in order])
        result[begin : begin + width * width] = np.ascontiguousarray(whole).reshape(-1).view(np.float32)
    return result


def round_to_bfloat16(values: FloatArray) -> FloatArray:
    """Finite values (n,) to the nearest bfloat16, ties to even, as float32."""
    bits = values.view(np.uint32)
    return ((bits + 0x7FFF + (bits >> 16 & 1)) & 0xFFFF0000).view(np.float32)


def unpack(architecture: Architecture, packed: FloatArray) -> FloatArray:
    """The flat vector (P,) that `pack` made this of, or the gradient by it."""
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


#: What the names of the kernels end in that take split weights.
_TENSOR = "_tensor"


def _named(operation: str, tensor_cores: bool) -> str:
    """The kernel of an operation."""
    return operation + _TENSOR if tensor_cores else operation


def _blocks(count: int) -> list[slice]:
    return [slice(start, start + BLOCK) for start in range(0, count, BLOCK)]


def _check_rays(begin: FloatArray, directions: FloatArray, ends: FloatArray) -> None:
    _check(begin, "begin", np.float32, (len(begin), 3))
    _check(directions, "directions", np.float32, (len(begin), 3))
    _check(ends, "ends", np.float32, (len(begin),))


def _check(array: npt.NDArray[Any], name: str, dtype: type[np.generic], shape: tuple[int, ...]) -> None:
    """Raise `ValueError` for what a kernel cannot read."""
    if array.dtype != dtype or array.shape != shape or not array.flags.c_contiguous:
        raise ValueError(f"{name} must be a C-contiguous {np.dtype(dtype).name} array of the shape {shape}")
