"""
cuda
----
The CUDA kernels in kernels/cuda/, launched through pycuda. A single fit runs on the CPU, because the steps of
one network are too small for a GPU; batched_networks.py fits several at once.

    device       the GPU: memory, launches, availability
    structs      argument structs of the kernels; packed weights
    program      networks: values, gradients, rays
    tape         tapes
    sparse_grid  extraction
    fit          batched fits
    bvh          triangle BVHs
"""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np

from ...array_types import Faces, FloatArray, Points
from ...errors import BackendError
from ...geometry.bvh import TriangleBVH
from ...program.network import Architecture, Network
from ...program.optimizer_settings import Optimizer
from ...program.tape_format import Tape
from .. import (
    CPU_BACKENDS,
    Backend,
    BackendStatus,
    BiasLoss,
    Program,
    Trainer,
    cuda_required,
    fastest,
    get_backend,
)
from ..batched_networks import Fits, Trainers, values_of_many
from . import device
from .bvh import CudaBVH
from .device import Device, blocks_of, check_array
from .program import CudaProgram
from .structs import NETWORK, TILE, WIDTHS, network_struct, pack, packed_size, padded_width, plan, unpack

#: Maximum bytes on the device for the intermediate results of a training step.
KEPT = 1 << 28

#: Structs of kernels/cuda/*.h.
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


def status() -> BackendStatus:
    """Whether the kernels were built, pycuda is installed and a GPU is present; imports none of them."""
    why_not = device.missing()
    if why_not is not None:
        return BackendStatus("cuda", False, why_not)
    return BackendStatus("cuda", True, f"CUDA kernels on {device.name()}")


def load() -> Backend:
    """The backend, checked against the reference. If they disagree, the reference, with a warning.

    With NEURALSDF_REQUIRE_CUDA=1, raises `BackendError` instead.
    """
    from ..self_check import disagreement

    reference = get_backend(fastest(CPU_BACKENDS))
    try:
        backend = CudaBackend(Device(), reference)
        problem = disagreement(backend, reference)
    except Exception as error:  # any error of the driver: the reference still works
        problem = f"{type(error).__name__}: {error}".partition("\n")[0]
    if problem is None:
        return backend
    if cuda_required():
        raise BackendError(f"the cuda backend failed its check: {problem}")
    warnings.warn(
        f"the cuda backend failed its check; using the {reference.name} backend instead: {problem}",
        UserWarning,
        stacklevel=2,
    )
    return reference


class CudaBackend:
    """`Backend` on a CUDA device.

    Networks wider than 128, which the kernels do not support, run on `fallback`, with one warning.
    """

    name = "cuda"

    def __init__(self, device: Device, fallback: Backend) -> None:
        self.device = device
        self._fallback = fallback
        self._warned = False

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickled by name."""
        return get_backend, (self.name,)

    def compile(self, network: Network, tolerance: float | None = None) -> Program:
        """Upload the network's weights; uses tensor cores if they add an error below `tolerance`."""
        if self._too_wide(network.architecture):
            return self._fallback.compile(network, tolerance)
        return CudaProgram(self.device, network, tolerance)

    def assemble(self, tape: Tape) -> Program:
        """Compile the tape for the device, or for the fallback if the device cannot run it.

        It cannot if the tape has leaves other than networks (a mesh runs on the CPU), networks that are too
        wide, or more registers than a thread can hold, or if the C++ core, which validates it, was not built.
        """
        from .tape import CudaTape, fits

        if not fits(tape):
            return self._fallback.assemble(tape)
        for leaf in tape.leaves:
            if isinstance(leaf, Network) and self._too_wide(leaf.architecture):
                return self._fallback.assemble(tape)
        return CudaTape(self.device, tape)

    def evaluate_many(
        self, architecture: Architecture, weights: FloatArray, points: FloatArray
    ) -> FloatArray:
        """Values (n, m) float32 of n networks with `weights` (n, P) at points (m, 3), in float32."""
        if self._too_wide(architecture):
            return values_of_many(self._fallback, architecture, weights, points)
        check_array(weights, "weights", np.float32, (len(weights), architecture.weight_count))
        check_array(points, "points", np.float32, (len(points), 3))
        values = np.empty((len(weights), len(points)), np.float32)
        for part in blocks_of(len(points)):
            count = len(points[part])
            together = max(1, min(device.BLOCK // count, KEPT // (4 * packed_size(architecture))))
            for first in range(0, len(weights), together):
                rows = slice(first, first + together)
                values[rows, part] = self._values_of_many(architecture, weights[rows], points[part])
        return values

    def _values_of_many(
        self, architecture: Architecture, weights: FloatArray, points: FloatArray
    ) -> FloatArray:
        """Values (n, m) computed by one launch."""
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
        check_array(weights, "weights", np.float32, (architecture.weight_count,))
        check_array(points, "points", np.float32, (len(points), 3))
        check_array(targets, "targets", np.float32, (len(points),))
        loss, gradient = 0.0, np.zeros(architecture.weight_count, np.float32)
        with self.device.current():
            for block in blocks_of(len(points)):
                block_loss, block_gradient = self._loss_sums(
                    architecture, weights, points[block], targets[block]
                )
                loss += block_loss
                gradient += block_gradient
        count = max(1, len(points))
        return loss / count, gradient / np.float32(count)

    def bias_loss(self, network: Network) -> BiasLoss:
        """The loss of a network as a function of its hidden biases: the fallback's, on the CPU."""
        return self._fallback.bias_loss(network)

    def trainer(self, architecture: Architecture, weights: FloatArray, optimizer: Optimizer) -> Trainer:
        """A trainer initialised with these weights (P,): the fallback's, on the CPU."""
        return self._fallback.trainer(architecture, weights, optimizer)

    def trainers(self, fits: Fits) -> Trainers | None:
        """Trainers of several networks, a thread block each; None for networks wider than 64."""
        from .fit import WIDEST, CudaTrainers

        return CudaTrainers(self.device, fits) if max(fits.architecture.hidden) <= WIDEST else None

    def triangle_bvh(self, vertices: Points, faces: Faces) -> TriangleBVH:
        """The BVH of vertices (V, 3) and faces (F, 3) on the device; the fallback's without the core."""
        try:
            return CudaBVH(self.device, vertices, faces)
        except ImportError:
            return self._fallback.triangle_bvh(vertices, faces)

    def _loss_sums(
        self, architecture: Architecture, weights: FloatArray, points: FloatArray, targets: FloatArray
    ) -> tuple[float, FloatArray]:
        """Sums of |f(x) - d| and of its gradients (P,)."""
        device, width = self.device, padded_width(architecture)
        columns = TILE // width
        chosen = plan(architecture, device.shared_limit, (2 * width + 1) * (columns + 4), most_warps=4)
        packed = pack(architecture, weights)
        # The number of warps depends only on the memory each needs, so that sums are reproducible.
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
            raise BackendError(f"the cuda backend supports widths up to {WIDTHS[-1]}, not {architecture}")
        if not self._warned:
            self._warned = True
            warnings.warn(
                f"the CUDA kernels support widths up to {WIDTHS[-1]}; "
                f"using the slower {self._fallback.name} backend for wider networks",
                UserWarning,
                stacklevel=3,
            )
        return True
