"""
cpu.py
------
The C++ core in kernels/, the fastest backend on a CPU: all layers are fused over blocks of points, vectorised
for the processor's instruction set, and multithreaded.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from ..array_types import Faces, FloatArray, Mask, Points, Values
from ..errors import BackendError
from ..geometry.bvh import NativeBVH
from ..geometry.similarity_transform import Similarity
from ..grid.sparse_grid import NativeLattice
from ..grid.surface_search import HostFieldLattice
from ..program.network import Architecture, Network
from ..program.optimizer_settings import Optimizer
from ..program.tape_format import FRAME, HostField, Op, Tape
from ..thread_count import threads
from . import BackendStatus, Losses, Order, Program, get_backend
from .bfloat16_error import added_error
from .reference import sphere_tracing as marching
from .reference.sphere_tracing import Marched, SoftShadow, Traced

if TYPE_CHECKING:
    from ..kernels import _core

#: Values of other fields held at once: enough points to make the call overhead negligible.
ANSWERS = 1 << 18

_NOT_BUILT = (
    "the C++ core was not built: install a C++ compiler (such as g++) and reinstall neuralsdf "
    "(pip install --force-reinstall --no-deps)"
)


def status() -> BackendStatus:
    """Whether the C++ core was built, and which instruction set it uses."""
    try:
        from ..kernels._core import supported_isas
    except ModuleNotFoundError:
        return BackendStatus("native", False, _NOT_BUILT)
    except ImportError as error:
        return BackendStatus("native", False, f"the C++ core cannot be loaded: {error}")
    try:
        return BackendStatus("native", True, f"the C++ core, {_chosen_isa(supported_isas())}")
    except BackendError as error:  # it was built; `load` fails until the setting is corrected
        return BackendStatus("native", True, str(error))


def load() -> NativeBackend:
    """The backend; raises `BackendError` if NEURALSDF_ISA is not supported by this processor."""
    from ..kernels._core import supported_isas

    return NativeBackend(_chosen_isa(supported_isas()))


def _chosen_isa(supported: list[str]) -> str:
    """NEURALSDF_ISA if set, else the fastest instruction set."""
    isa = os.environ.get("NEURALSDF_ISA") or supported[0]
    if isa not in supported:
        raise BackendError(
            f"NEURALSDF_ISA={isa}: this processor supports {', '.join(supported)}; choose one or unset it"
        )
    return isa


class NativeBackend:
    """Implements `Backend` with the C++ core's kernels for the instruction set `isa`."""

    name = "native"

    def __init__(self, isa: str) -> None:
        from ..kernels._core import Core

        self.isa = isa
        self._core = Core(isa)

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickled by name."""
        return get_backend, (self.name,)

    def compile(self, network: Network, tolerance: float | None = None) -> NativeProgram:
        """Pack the network's weights for the kernels; uses AMX if it adds an error below `tolerance`."""
        return NativeProgram(self._compiled(network, tolerance))

    def assemble(self, tape: Tape) -> Program:
        """Compile the tape, with its networks packed; other fields are evaluated outside the core."""
        tolerances = tape.tolerances or (None,) * len(tape.leaves)
        leaves = [
            self._compiled(leaf, tolerance) if isinstance(leaf, Network) else None
            for leaf, tolerance in zip(tape.leaves, tolerances, strict=True)
        ]
        assembled = self._core.assemble(
            tape.code, tape.parameters, leaves, tape.points, tape.values, tape.lipschitz
        )
        fields = _host_fields(tape)
        return FieldProgram(assembled, fields, tape.lipschitz) if fields else NativeProgram(assembled)

    def evaluate_many(
        self, architecture: Architecture, weights: FloatArray, points: FloatArray
    ) -> FloatArray:
        """Values (n, m) of n networks with `weights` (n, P) at points (m, 3)."""
        a = architecture
        return self._core.evaluate_many(weights, a.hidden, a.activation, a.output, points, threads())

    def loss_gradient(
        self, architecture: Architecture, weights: FloatArray, points: FloatArray, targets: FloatArray
    ) -> tuple[float, FloatArray]:
        """Mean |f(x) - d| over points (n, 3) and targets (n,), and its gradient (P,)."""
        a = architecture
        return self._core.loss_gradient(weights, a.hidden, a.activation, a.output, points, targets, threads())

    def bias_loss(self, network: Network) -> NativeBiasLoss:
        """The loss of a network as a function of its hidden biases."""
        a = network.architecture
        return NativeBiasLoss(self._core.bias_loss(network.weights, a.hidden, a.activation, a.output))

    def trainer(self, architecture: Architecture, weights: FloatArray, optimizer: Optimizer) -> NativeTrainer:
        """A trainer initialised with these weights (P,)."""
        a, o = architecture, optimizer
        return NativeTrainer(
            self._core.trainer(
                weights, a.hidden, a.activation, a.output, o.method, o.beta1, o.beta2, o.epsilon, o.refresh
            )
        )

    def triangle_bvh(self, vertices: Points, faces: Faces) -> NativeBVH:
        """The core's BVH of vertices (V, 3) and faces (F, 3)."""
        return NativeBVH(vertices, faces, self.isa)

    def _compiled(self, network: Network, tolerance: float | None = None) -> _core.NetworkProgram:
        a = network.architecture
        arguments = network.weights, a.hidden, a.activation, a.output
        program = self._core.compile(*arguments)
        if tolerance is None:
            return program
        by_tiles = self._core.compile(*arguments, by_tiles=True)
        methods = NativeProgram(program).evaluate, NativeProgram(by_tiles).evaluate
        return by_tiles if by_tiles.by_tiles and added_error(*methods) < tolerance else program


def _host_fields(tape: Tape) -> list[HostField]:
    """The leaves that are not networks, one for each instruction that evaluates one, in order."""
    instructions = tape.code[tape.code[:, 0] == Op.FIELD]
    leaves = (tape.leaves[int(number)] for number in tape.parameters[instructions[:, 4] + FRAME])
    return [leaf for leaf in leaves if not isinstance(leaf, Network)]


class NativeProgram:
    """`Program` for a network or a tape in the core, run on the current number of threads."""

    def __init__(self, program: _core.Program) -> None:
        self._program = program

    def evaluate(self, points: FloatArray) -> FloatArray:
        """Values (n,) at points (n, 3)."""
        return self._program.evaluate(points, threads())

    def evaluate_with_gradient(self, points: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Values (n,) and gradients (n, 3) at points (n, 3)."""
        return self._program.evaluate_with_gradient(points, threads())

    def distance(self, points: npt.NDArray[Any], transform: Similarity) -> tuple[Values, Mask]:
        """Distances (n,) in mesh units, and a mask of points outside the ball: see `Program.distance`."""
        points = np.ascontiguousarray(points, np.float64)
        matrix = np.ascontiguousarray(transform.matrix)
        return self._program.distance(points, matrix, transform.scale, threads())

    def trace(
        self, begin: FloatArray, directions: FloatArray, ends: FloatArray, at_ball: Mask, steps: FloatArray
    ) -> Traced:
        """Trace rays (n,): see `Program.trace`. The first steps of neighbouring rays are shared."""
        return Traced(
            *self._program.trace(
                begin,
                directions,
                ends,
                at_ball,
                steps,
                marching.MAX_LEVEL,
                marching.TOUCH_DEPTH,
                marching.MAX_STEPS,
                marching.ROOT_TOLERANCE,
                marching.ROOT_STEPS,
                threads(),
            )
        )

    def soft_shadow(
        self, begin: FloatArray, directions: FloatArray, ends: FloatArray, cone: SoftShadow
    ) -> tuple[FloatArray, int]:
        """Fraction (n,) of light, and the number of evaluations: see `Program.soft_shadow`."""
        return self._program.soft_shadow(begin, directions, ends, *cone, threads())

    def on_lattice(self, side: int, spacing: float, level: float, rounding: float = 0.0) -> HostFieldLattice:
        """The program's values minus `level` on the C++ core's lattice."""
        return HostFieldLattice(NativeLattice(side), self.evaluate, spacing, level, rounding)


class FieldProgram(Marched):
    """`Program` for a tape with leaves that the core cannot evaluate.

    fields: those leaves, in the order of the instructions that evaluate them.
    """

    def __init__(self, tape: _core.TapeProgram, fields: Sequence[HostField], lipschitz: float) -> None:
        self._tape, self._fields, self.lipschitz = tape, fields, lipschitz
        self._block = max(1, ANSWERS // len(fields))

    def evaluate(self, points: FloatArray) -> FloatArray:
        """Values (n,) at points (n, 3)."""
        values = np.empty(len(points), np.float32)
        for block in self._blocks(points):
            answers = [field.value(places) for field, places in self._host_fields(points[block])]
            values[block] = self._tape.evaluate_fields(points[block], np.stack(answers), threads())
        return values

    def evaluate_with_gradient(self, points: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Values (n,) and gradients (n, 3) at points (n, 3)."""
        values, gradients = np.empty(len(points), np.float32), np.empty((len(points), 3), np.float32)
        for block in self._blocks(points):
            answers = [field.value_and_gradient(places) for field, places in self._host_fields(points[block])]
            field_values, field_gradients = map(np.stack, zip(*answers, strict=True))
            values[block], gradients[block] = self._tape.evaluate_fields_with_gradient(
                points[block], field_values, field_gradients, threads()
            )
        return values, gradients

    def on_lattice(self, side: int, spacing: float, level: float, rounding: float = 0.0) -> HostFieldLattice:
        """The tape's values minus `level` on the C++ core's lattice."""
        return HostFieldLattice(NativeLattice(side), self.evaluate, spacing, level, rounding)

    def _host_fields(self, points: FloatArray) -> Iterator[tuple[HostField, FloatArray]]:
        """Each field with its query points (n, 3)."""
        return zip(self._fields, self._tape.field_points(points, threads()), strict=True)

    def _blocks(self, points: FloatArray) -> Iterator[slice]:
        return (slice(start, start + self._block) for start in range(0, len(points), self._block))


class NativeBiasLoss:
    """`BiasLoss` in the core; the weights stay packed."""

    def __init__(self, loss: _core.BiasLoss) -> None:
        self._loss = loss

    def gradient(
        self, biases: FloatArray, points: FloatArray, targets: FloatArray
    ) -> tuple[float, FloatArray]:
        """Mean |f(x) - d| over points (n, 3) and targets (n,), and its gradient (b,)."""
        return self._loss.gradient(biases, points, targets, threads())


class NativeTrainer:
    """`Trainer` with fused gradients and optimizer; the weights stay packed."""

    def __init__(self, trainer: _core.Trainer) -> None:
        self._trainer = trainer

    @property
    def weights(self) -> FloatArray:
        """A copy of the current weights (P,)."""
        return self._trainer.weights

    def steps(
        self, points: FloatArray, targets: FloatArray, order: Order, batch: int, rates: FloatArray
    ) -> Losses:
        """Take a step with each of the rates (s,); returns the losses (s,)."""
        return self._trainer.steps(points, targets, order, batch, rates, threads())
