"""
backends
--------
The one seam between what is computed and where. A backend makes a program of a network, or of a tape of
operations over many, that evaluates it and its gradient on arrays, traces rays through it and puts it on a
lattice for extraction; it does a training step; and it makes trees of triangles. Nothing outside this package
asks which one is running.

    torch     the reference: obviously right, always available, against which the others are tested
    native    the C++ core in kernels/: the default on a CPU where it was built
    cuda      the CUDA kernels in kernels/cuda/: the default where a GPU is usable
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from ..arrays import Faces, FloatArray, Mask, Points, Values
from ..errors import BackendError, UsageError
from ..geometry.bvh import TriangleTree
from ..geometry.similarity import Similarity
from ..grid.surface_search import FieldLattice
from ..program.network import Architecture, Network
from ..program.optimizers import Optimizer
from ..program.tape import Tape
from .reference.sphere_tracing import SoftShadow, Traced

Order = npt.NDArray[np.int64]
Losses = npt.NDArray[np.float64]


class Program(Protocol):
    """What a backend evaluates, ready to run: a network, or a tape.

    Arrays are C-contiguous float32; points are in model space, inside the unit ball for a network.
    """

    def evaluate(self, points: FloatArray) -> FloatArray:
        """Values (n,) at points (n, 3)."""
        ...

    def evaluate_with_gradient(self, points: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Values (n,) and their gradients with respect to the points (n, 3)."""
        ...

    def distance(self, points: npt.NDArray[Any], transform: Similarity) -> tuple[Values, Mask]:
        """Values (n,) float64 in mesh units at points (n, 3) of mesh space; and which points (n,) are outside
        the unit ball where that matters.

        transform: model space to mesh space. Outside the ball the values of a network are those of
        `extension`; a tape has values everywhere, and no point is outside. A point that is not finite, or
        1e18 radii away, gives NaN.
        """
        ...

    def trace(
        self, begin: FloatArray, directions: FloatArray, ends: FloatArray, at_ball: Mask, steps: FloatArray
    ) -> Traced:
        """The first surface from outside along rays `begin` + t `directions`, 0 <= t < `ends`.

        begin, directions: (n, 3), inside the unit ball up to `ends` (n,); neighbours in space may be faster
        as neighbours in the arrays. at_ball: (n,) whether the ray begins on the ball. steps: (m,) how far a
        ray may step from each of m >= 2 levels of |value|, evenly from 0 to `marching.MAX_LEVEL`; between
        them it is interpolated.
        A hit is a change of sign, refined to a root. A ray that begins inside is in air until it is outside;
        on the ball that is `buried`, unless the value is above -`marching.TOUCH_DEPTH`, which is a hit.
        """
        ...

    def soft_shadow(
        self, begin: FloatArray, directions: FloatArray, ends: FloatArray, cone: SoftShadow
    ) -> tuple[FloatArray, int]:
        """Share (n,) of light that reaches `begin` (n, 3) from `directions` (n, 3), and the evaluations.

        The least of sharpness * value / t along the ray, 0 to 1; inside the unit ball up to `ends` (n,). By
        the values of a tape over its `lipschitz`: no step passes through what casts the shadow.
        """
        ...

    def on_lattice(
        self, side: int, spacing: float, level: float, rounding: float = 0.0
    ) -> FieldLattice[Any, Any]:
        """What is evaluated, less `level`, on a lattice with `side` points a side, for its surface.

        rounding: values no larger have the sign of those around them (`surface_search.settled`).
        """
        ...


class Trainer(Protocol):
    """Weights under way, and the state of the optimiser that moves them."""

    @property
    def weights(self) -> FloatArray:
        """A copy of the weights (P,) as they are."""
        ...

    def steps(
        self, points: FloatArray, targets: FloatArray, order: Order, batch: int, rates: FloatArray
    ) -> Losses:
        """Some steps, one for each of the learning rates (s,); returns their losses (s,) float64.

        A step is against the mean |f(x) - d| over the next `batch` of the samples that `order` (up to
        s batch,) int64 chooses from points (n, 3) and targets (n,): the paper's loss, equation 7.
        Importance is in where the points are, not in a factor.
        """
        ...


class Backend(Protocol):
    """What every backend does. Arrays are C-contiguous float32; points are in model space.

    Results do not depend on the number of threads: sums run over a fixed partition.
    """

    name: str

    def compile(self, network: Network, tolerance: float | None = None) -> Program:
        """The program that evaluates a network; it keeps the weights as they are now.

        tolerance: what `evaluate` may be off near the surface, in the mean, where that makes it faster; None
        for what float32 gives. Only a backend with such a way makes use of it, and measures its error first.
        """
        ...

    def assemble(self, tape: Tape) -> Program:
        """The program that evaluates a tape; it keeps the weights of its networks as they are now."""
        ...

    def loss_gradient(
        self, architecture: Architecture, weights: FloatArray, points: FloatArray, targets: FloatArray
    ) -> tuple[float, FloatArray]:
        """Mean |f(x) - d| over points (n, 3) and targets (n,), and its gradient (P,) by the weights (P,)."""
        ...

    def trainer(self, architecture: Architecture, weights: FloatArray, optimizer: Optimizer) -> Trainer:
        """A trainer that begins with these weights (P,)."""
        ...

    def triangle_tree(self, vertices: Points, faces: Faces) -> TriangleTree:
        """The tree of vertices (V, 3), finite, and faces (F, 3), F > 0, of them."""
        ...


@dataclass(frozen=True)
class BackendStatus:
    """Whether a backend runs on this machine, and in one line what it is or why it does not."""

    name: str
    available: bool
    detail: str


#: Fastest first: the default is the first that runs here.
_MODULES = {"cuda": ".cuda", "native": ".cpu", "torch": ".reference.torch"}
BACKENDS = tuple(_MODULES)

#: Those that compute on the processor.
CPU_BACKENDS = ("native", "torch")

#: Where to compute: a device, or a backend by name.
DEVICES = ("auto", "cpu", *BACKENDS)

_loaded: dict[str, Backend] = {}


def get_backend(name: str | None = None) -> Backend:
    """The backend called `name`, or NEURALSDF_BACKEND's, or else the fastest that runs here.

    Raises `BackendError` if the one asked for does not exist or cannot run here. NEURALSDF_REQUIRE_CUDA=1
    (GPU tests and benchmarks) makes cuda the default, whether it runs here or not.
    """
    name = name or os.environ.get("NEURALSDF_BACKEND") or None
    if name is None:
        name = "cuda" if cuda_required() else fastest()
    if name not in _MODULES:
        raise BackendError(f"unknown backend {name!r}; one of {', '.join(BACKENDS)}")
    if name not in _loaded:
        status = backend_status(name)
        if not status.available:
            raise BackendError(f"the {name} backend does not run here: {status.detail}")
        backend: Backend = import_module(_MODULES[name], __name__).load()
        _loaded[name] = backend
    return _loaded[name]


def backend_on(device: str) -> str | None:
    """The name of the backend for one of `DEVICES`: a device, or a backend by name; None for auto.

    Raises `UsageError` for another name, `BackendError` for one that cannot run here.
    """
    if device not in DEVICES:
        raise UsageError(f"`device={device!r}`: one of {', '.join(DEVICES)}")
    if device == "auto":
        return None
    if device == "cpu":
        return fastest(CPU_BACKENDS)
    if device == "cuda" and not (status := backend_status(device)).available:
        raise BackendError(f"`device='cuda'`: {status.detail}; use `device='cpu'`")
    return device


def fastest(among: Sequence[str] = BACKENDS) -> str:
    """The name of the first backend that runs here."""
    return next(candidate for candidate in among if backend_status(candidate).available)


def cuda_required() -> bool:
    """Whether NEURALSDF_REQUIRE_CUDA=1 forbids to fall back from cuda."""
    return os.environ.get("NEURALSDF_REQUIRE_CUDA", "") not in ("", "0")


def backend_status(name: str) -> BackendStatus:
    """Whether the backend called `name` runs here, without loading what it needs."""
    status: BackendStatus = import_module(_MODULES[name], __name__).status()
    return status
