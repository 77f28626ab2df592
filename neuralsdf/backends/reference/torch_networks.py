"""
torch_networks.py
-----------------
The reference backend: explicit forward passes, derivatives with torch's autograd. It is slower than the
native core, which is tested against it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from importlib.util import find_spec
from threading import Lock
from types import ModuleType
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from ...array_types import Faces, FloatArray, Points
from ...geometry.bvh import IglBVH
from ...grid.sparse_grid import Lattice
from ...grid.surface_search import HostFieldLattice
from ...program.network import SINE_FREQUENCY, SOFTPLUS_SHARPNESS, Architecture, Network
from ...program.optimizer_settings import Optimizer
from ...program.tape_format import Tape
from ...thread_count import threads
from .. import BackendStatus, Losses, Order, get_backend
from .optimizer_steps import make_stepper
from .sphere_tracing import Marched
from .tape_interpreter import TapeProgram

if TYPE_CHECKING:
    from torch import Tensor

Result = TypeVar("Result")

#: Points per block. The fixed partition makes results independent of the number of threads; torch is
#: fastest with 4096 points at width 32.
BLOCK = 4096


def status() -> BackendStatus:
    """Whether torch is installed."""
    if find_spec("torch") is None:
        return BackendStatus("torch", False, "torch is not installed; pip install torch")
    return BackendStatus("torch", True, "the reference, through torch's CPU operators")


def load() -> TorchBackend:
    """The backend; imports torch."""
    return TorchBackend()


class TorchBackend:
    """Implements `Backend` with torch on the CPU."""

    name = "torch"

    def __init__(self) -> None:
        import torch

        self._torch = torch

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickled by name."""
        return get_backend, (self.name,)

    def compile(self, network: Network, tolerance: float | None = None) -> TorchProgram:
        """Convert the network's layers to tensors."""
        return TorchProgram(self._torch, network)

    def assemble(self, tape: Tape) -> TapeProgram:
        """Compile the tape in NumPy, with its networks as tensors."""
        return TapeProgram(tape, self.compile)

    def loss_gradient(
        self, architecture: Architecture, weights: FloatArray, points: FloatArray, targets: FloatArray
    ) -> tuple[float, FloatArray]:
        """Mean |f(x) - d| over points (n, 3) and targets (n,), and its gradient (P,)."""
        layers = _layers(self._torch, architecture, weights)
        parameters = [parameter for layer in layers for parameter in layer]
        return _loss_gradient(self._torch, architecture, layers, parameters, points, targets)

    def bias_loss(self, network: Network) -> TorchBiasLoss:
        """The loss of a network as a function of its hidden biases."""
        return TorchBiasLoss(self._torch, network)

    def trainer(self, architecture: Architecture, weights: FloatArray, optimizer: Optimizer) -> TorchTrainer:
        """A trainer initialised with these weights (P,)."""
        return TorchTrainer(self, architecture, weights, optimizer)

    def triangle_bvh(self, vertices: Points, faces: Faces) -> IglBVH:
        """libigl's BVH of vertices (V, 3) and faces (F, 3)."""
        return IglBVH(vertices, faces)


class TorchProgram(Marched):
    """`Program` for one network."""

    in_ball = True

    def __init__(self, torch: ModuleType, network: Network) -> None:
        self._torch = torch
        self._architecture = network.architecture
        self._layers = _layers(torch, network.architecture, network.weights.copy())

    def evaluate(self, points: FloatArray) -> FloatArray:
        """Values (n,) at points (n, 3)."""
        torch = self._torch

        def block(start: int) -> FloatArray:
            with torch.no_grad():
                x = torch.from_numpy(points[start : start + BLOCK])
                return np.asarray(_forward(torch, self._architecture, self._layers, x).numpy())

        return _joined(_map_blocks(block, len(points)))

    def evaluate_with_gradient(self, points: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Values (n,) and gradients (n, 3) at points (n, 3)."""
        torch = self._torch

        def block(start: int) -> tuple[FloatArray, FloatArray]:
            x = torch.from_numpy(points[start : start + BLOCK]).requires_grad_()
            values = _forward(torch, self._architecture, self._layers, x)
            (gradient,) = torch.autograd.grad(values.sum(), x)
            return values.detach().numpy(), gradient.numpy()

        blocks = _map_blocks(block, len(points))
        if not blocks:
            return np.empty(0, np.float32), np.empty((0, 3), np.float32)
        return np.concatenate([b[0] for b in blocks]), np.concatenate([b[1] for b in blocks])

    def on_lattice(self, side: int, spacing: float, level: float, rounding: float = 0.0) -> HostFieldLattice:
        """The network's values minus `level` on a lattice, in NumPy and libigl."""
        return HostFieldLattice(Lattice(side), self.evaluate, spacing, level, rounding)


class TorchBiasLoss:
    """`BiasLoss` by autograd."""

    def __init__(self, torch: ModuleType, network: Network) -> None:
        self._torch, self._architecture = torch, network.architecture
        self._layers = _layers(torch, network.architecture, network.weights.copy())

    def gradient(
        self, biases: FloatArray, points: FloatArray, targets: FloatArray
    ) -> tuple[float, FloatArray]:
        """Mean |f(x) - d| over points (n, 3) and targets (n,), and its gradient (b,)."""
        given = self._torch.from_numpy(biases).split(self._architecture.hidden)
        kernels = (kernel for kernel, _ in self._layers)
        layers = [*zip(kernels, given, strict=False), self._layers[-1]]
        return _loss_gradient(self._torch, self._architecture, layers, list(given), points, targets)


class TorchTrainer:
    """`Trainer` with the backend's gradients and the reference optimizer."""

    def __init__(
        self, backend: TorchBackend, architecture: Architecture, weights: FloatArray, optimizer: Optimizer
    ) -> None:
        self._backend, self._architecture = backend, architecture
        self._weights = weights.copy()
        self._stepper = make_stepper(optimizer, architecture)

    @property
    def weights(self) -> FloatArray:
        """A copy of the current weights (P,)."""
        return self._weights.copy()

    def steps(
        self, points: FloatArray, targets: FloatArray, order: Order, batch: int, rates: FloatArray
    ) -> Losses:
        """Take a step with each of the rates (s,); returns the losses (s,)."""
        losses = np.empty(len(rates))
        for step, rate in enumerate(rates):
            chosen = order[step * batch : (step + 1) * batch]
            losses[step], gradient = self._backend.loss_gradient(
                self._architecture, self._weights, points[chosen], targets[chosen]
            )
            self._stepper.step(self._weights, gradient, float(rate))
        return losses


def _layers(
    torch: ModuleType, architecture: Architecture, weights: FloatArray
) -> list[tuple[Tensor, Tensor]]:
    """Kernel (in, out) and bias (out,) of every layer, as new tensors that share the memory."""
    if not weights.flags.writeable:
        weights = weights.copy()  # torch has no read-only tensors
    return [(torch.from_numpy(k), torch.from_numpy(b)) for k, b in architecture.layers(weights)]


def _loss_gradient(
    torch: ModuleType,
    architecture: Architecture,
    layers: list[tuple[Tensor, Tensor]],
    parameters: list[Tensor],
    points: FloatArray,
    targets: FloatArray,
) -> tuple[float, FloatArray]:
    """Mean |f(x) - d| over points (n, 3) and targets (n,), and its gradient (P,) wrt the parameters.

    parameters: some of the layers' tensors.
    """

    def block(start: int) -> tuple[float, FloatArray]:
        x = torch.from_numpy(points[start : start + BLOCK])
        d = torch.from_numpy(targets[start : start + BLOCK])
        loss = (_forward(torch, architecture, layers, x) - d).abs().sum()
        gradients = torch.autograd.grad(loss, parameters)
        return float(loss.detach()), torch.cat([g.reshape(-1) for g in gradients]).numpy()

    for parameter in parameters:
        parameter.requires_grad_()
    blocks = _map_blocks(block, len(points))
    count = max(1, len(points))
    total = np.zeros(sum(parameter.numel() for parameter in parameters), np.float32)
    for _, gradient in blocks:  # in order: the sum is the same for any number of threads
        total += gradient
    return sum(loss for loss, _ in blocks) / count, total / np.float32(count)


def _forward(
    torch: ModuleType, architecture: Architecture, layers: list[tuple[Tensor, Tensor]], x: Tensor
) -> Tensor:
    """Values (n,) at x (n, 3)."""
    activation = _activation(torch, architecture.activation)
    for kernel, bias in layers[:-1]:
        x = activation(torch.addmm(bias, x, kernel))
    kernel, bias = layers[-1]
    x = torch.addmm(bias, x, kernel)[:, 0]
    return torch.tanh(x) if architecture.output == "tanh" else x


def _activation(library: ModuleType, name: str) -> Callable[[Tensor], Tensor]:
    functions: dict[str, Callable[[Tensor], Tensor]] = {
        "relu": library.relu,
        "sine": lambda z: library.sin(SINE_FREQUENCY * z),
        "softplus": lambda z: library.nn.functional.softplus(z, beta=SOFTPLUS_SHARPNESS),
        "silu": library.nn.functional.silu,
        "elu": library.nn.functional.elu,
        "tanh": library.tanh,
    }
    return functions[name]


def _map_blocks(function: Callable[[int], Result], count: int) -> list[Result]:
    """`function(start)` for the start of every block of `count` points, in order."""
    import torch

    starts = range(0, count, BLOCK)
    with _one_thread(torch):
        if len(starts) <= 1 or threads() == 1:
            return [function(start) for start in starts]
        with ThreadPoolExecutor(
            min(threads(), len(starts)), initializer=torch.set_num_threads, initargs=(1,)
        ) as pool:
            return list(pool.map(function, starts))


#: Number of active calls of `_one_thread`, in all threads, and torch's thread count before the first.
_calls, _threads_before, _lock = 0, 1, Lock()


@contextmanager
def _one_thread(torch: ModuleType) -> Iterator[None]:
    """Make torch use one thread in the calling thread; restores the previous number afterwards.

    Blocks run in parallel on one thread each, because torch's own threads would change the order of sums.
    torch has a number for each thread and an initial one for new threads; setting the first sets both.
    """
    global _calls, _threads_before
    with _lock:
        before = torch.get_num_threads()
        if _calls == 0:
            _threads_before = before
        _calls += 1
        torch.set_num_threads(1)
    try:
        yield
    finally:
        with _lock:
            _calls -= 1
            # A thread that started during another call started with 1: the last call restores the number.
            torch.set_num_threads(before if _calls else _threads_before)


def _joined(blocks: list[FloatArray]) -> FloatArray:
    return np.concatenate(blocks) if blocks else np.empty(0, np.float32)
