"""
cpu.py
------
The C++ core in kernels/: all layers of a block of points fused, vectorised for the processor it runs
on, on all threads. The fastest on a CPU.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from ..arrays import Faces, FloatArray, Mask, Points, Values
from ..errors import BackendError
from ..geometry.bvh import NativeTree
from ..geometry.similarity import Similarity
from ..grid.sparse_grid import NativeLattice
from ..grid.surface_search import HostFieldLattice
from ..parallel import threads
from ..program.network import Architecture, Network
from ..program.optimizers import Optimizer
from ..program.tape import FRAME, HostField, Op, Tape
from . import BackendStatus, Losses, Order, Program
from .added_error import added_error
from .reference import sphere_tracing as marching
from .reference.sphere_tracing import Marched, SoftShadow, Traced

if TYPE_CHECKING:
    from ..kernels import _core

#: Answers of fields that are held at once: of so many points that asking costs little.
ANSWERS = 1 << 18

_NOT_BUILT = (
    "the C++ core was not built: install a C++ compiler (such as g++) and reinstall neuralsdf "
    "(pip install --force-reinstall --no-deps)"
)


def status() -> BackendStatus:
    """Whether the C++ core was built, and which instruction set it uses here."""
    try:
        from ..kernels._core import supported_isas
    except ModuleNotFoundError:
        return BackendStatus("native", False, _NOT_BUILT)
    except ImportError as error:
        return BackendStatus("native", False, f"the C++ core cannot be loaded: {error}")
    try:
        return BackendStatus("native", True, f"the C++ core, {_chosen_isa(supported_isas())}")
    except BackendError as error:  # it is there; `load` refuses until the setting is mended
        return BackendStatus("native", True, str(error))


def load() -> NativeBackend:
    """The backend; raises `BackendError` if NEURALSDF_ISA names what this processor does not run."""
    from ..kernels._core import supported_isas

    return NativeBackend(_chosen_isa(supported_isas()))


def _chosen_isa(supported: list[str]) -> str:
    """NEURALSDF_ISA if it is set, or else the fastest."""
    isa = os.environ.get("NEURALSDF_ISA") or supported[0]
    if isa not in supported:
        raise BackendError(
            f"NEURALSDF_ISA={isa}: this processor runs {', '.join(supported)}; choose one or unset it"
        )
    return isa


class NativeBackend:
    """Implements `Backend` with the C++ core's kernels for the instruction set `isa`."""

    name = "native"

    def __init__(self, isa: str) -> None:
        from ..kernels._core import Core

        self.isa = isa
        self._core = Core(isa)

    def compile(self, network: Network, tolerance: float | None = None) -> NativeProgram:
        """The network's weights, packed for the kernels; values by AMX if it adds less than `tolerance`."""
        return NativeProgram(self._compiled(network, tolerance))

    def assemble(self, tape: Tape) -> Program:
        """The tape, its networks packed; other fields are asked outside of the core."""
        tolerances = tape.tolerances or (None,) * len(tape.leaves)
        leaves = [
            self._compiled(leaf, tolerance) if isinstance(leaf, Network) else None
            for leaf, tolerance in zip(tape.leaves, tolerances, strict=True)
        ]
        assembled = self._core.assemble(
            tape.code, tape.parameters, leaves, tape.points, tape.values, tape.lipschitz
        )
        fields = _asked(tape)
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

    def trainer(self, architecture: Architecture, weights: FloatArray, optimizer: Optimizer) -> NativeTrainer:
        """A trainer that begins with these weights (P,)."""
        a, o = architecture, optimizer
        return NativeTrainer(
            self._core.trainer(
                weights, a.hidden, a.activation, a.output, o.method, o.beta1, o.beta2, o.epsilon, o.refresh
            )
        )

    def triangle_tree(self, vertices: Points, faces: Faces) -> NativeTree:
        """The core's tree of vertices (V, 3) and faces (F, 3)."""
        return NativeTree(vertices, faces, self.isa)

    def _compiled(self, network: Network, tolerance: float | None = None) -> _core.NetworkProgram:
        a = network.architecture
        arguments = network.weights, a.hidden, a.activation, a.output
        program = self._core.compile(*arguments)
        if tolerance is None:
            return program
        by_tiles = self._core.compile(*arguments, by_tiles=True)
        ways = NativeProgram(program).evaluate, NativeProgram(by_tiles).evaluate
        return by_tiles if by_tiles.by_tiles and added_error(*ways) < tolerance else program


def _asked(tape: Tape) -> list[HostField]:
    """The field that each instruction asks which asks one that is no network, in their order."""
    asking = tape.code[tape.code[:, 0] == Op.FIELD]
    leaves = (tape.leaves[int(number)] for number in tape.parameters[asking[:, 4] + FRAME])
    return [leaf for leaf in leaves if not isinstance(leaf, Network)]


class NativeProgram:
    """Implements `Program` for a network or a tape: passes on how many threads to use."""

    def __init__(self, program: _core.Program) -> None:
        self._program = program

    def evaluate(self, points: FloatArray) -> FloatArray:
        """Values (n,) at points (n, 3)."""
        return self._program.evaluate(points, threads())

    def evaluate_with_gradient(self, points: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Values (n,) and gradients (n, 3) at points (n, 3)."""
        return self._program.evaluate_with_gradient(points, threads())

    def distance(self, points: npt.NDArray[Any], transform: Similarity) -> tuple[Values, Mask]:
        """Distances (n,) in mesh space, and which points are outside the ball: as `Program.distance`."""
        points = np.ascontiguousarray(points, np.float64)
        matrix = np.ascontiguousarray(transform.matrix)
        return self._program.distance(points, matrix, transform.scale, threads())

    def trace(
        self, begin: FloatArray, directions: FloatArray, ends: FloatArray, at_ball: Mask, steps: FloatArray
    ) -> Traced:
        """The first surface along rays (n,): as `Program.trace`, the first steps of neighbours as one."""
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
        """Share (n,) of light, and the evaluations: as `Program.soft_shadow`."""
        return self._program.soft_shadow(begin, directions, ends, *cone, threads())

    def on_lattice(self, side: int, spacing: float, level: float, rounding: float = 0.0) -> HostFieldLattice:
        """What is evaluated, less `level`, on the C++ core's lattice."""
        return HostFieldLattice(NativeLattice(side), self.evaluate, spacing, level, rounding)


class FieldProgram(Marched):
    """Implements `Program` for a tape with leaves that the core cannot evaluate.

    fields: those leaves, in the order of the instructions that ask them.
    """

    def __init__(self, tape: _core.TapeProgram, fields: Sequence[HostField], lipschitz: float) -> None:
        self._tape, self._fields, self.lipschitz = tape, fields, lipschitz
        self._block = max(1, ANSWERS // len(fields))

    def evaluate(self, points: FloatArray) -> FloatArray:
        """Values (n,) at points (n, 3)."""
        values = np.empty(len(points), np.float32)
        for block in self._blocks(points):
            answers = [field.value(places) for field, places in self._asked(points[block])]
            values[block] = self._tape.evaluate_fields(points[block], np.stack(answers), threads())
        return values

    def evaluate_with_gradient(self, points: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Values (n,) and gradients (n, 3) at points (n, 3)."""
        values, gradients = np.empty(len(points), np.float32), np.empty((len(points), 3), np.float32)
        for block in self._blocks(points):
            answers = [field.value_and_gradient(places) for field, places in self._asked(points[block])]
            each, slopes = map(np.stack, zip(*answers, strict=True))
            values[block], gradients[block] = self._tape.evaluate_fields_with_gradient(
                points[block], each, slopes, threads()
            )
        return values, gradients

    def on_lattice(self, side: int, spacing: float, level: float, rounding: float = 0.0) -> HostFieldLattice:
        """The tape less `level` on the C++ core's lattice."""
        return HostFieldLattice(NativeLattice(side), self.evaluate, spacing, level, rounding)

    def _asked(self, points: FloatArray) -> Iterator[tuple[HostField, FloatArray]]:
        """Each field, and where it is asked (n, 3)."""
        return zip(self._fields, self._tape.field_points(points, threads()), strict=True)

    def _blocks(self, points: FloatArray) -> Iterator[slice]:
        return (slice(start, start + self._block) for start in range(0, len(points), self._block))


class NativeTrainer:
    """Implements `Trainer`: gradients and optimiser fused, the weights packed all the time."""

    def __init__(self, trainer: _core.Trainer) -> None:
        self._trainer = trainer

    @property
    def weights(self) -> FloatArray:
        """A copy of the weights (P,) as they are."""
        return self._trainer.weights

    def steps(
        self, points: FloatArray, targets: FloatArray, order: Order, batch: int, rates: FloatArray
    ) -> Losses:
        """A step for each of the rates (s,); returns the losses (s,)."""
        return self._trainer.steps(points, targets, order, batch, rates, threads())
