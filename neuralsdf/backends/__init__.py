"""
backends
--------
Interface to the compute backends. A backend compiles a network, or a tape of operations on networks, to a
program that evaluates values and gradients, traces rays, and samples a lattice for extraction. It also takes
training steps and builds triangle BVHs. Code outside this package does not depend on which backend runs.

    torch     the reference: simple, always available; the other backends are tested against it
    native    the C++ core in kernels/: the default on a CPU if it was built
    cuda      the CUDA kernels in kernels/cuda/: the default if a GPU is usable
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from ..array_types import Faces, FloatArray, Mask, Points, Values
from ..errors import BackendError, UsageError
from ..geometry.bvh import TriangleBVH
from ..geometry.similarity_transform import Similarity
from ..grid.surface_search import FieldLattice
from ..program.network import Architecture, Network
from ..program.optimizer_settings import Optimizer
from ..program.tape_format import Tape
from .reference.sphere_tracing import SoftShadow, Traced

Order = npt.NDArray[np.int64]
Losses = npt.NDArray[np.float64]


class Program(Protocol):
    """A compiled network or tape.

    Arrays are C-contiguous float32; points are in model space, inside the unit ball for a network.
    """

    def evaluate(self, points: FloatArray) -> FloatArray:
        """Values (n,) at points (n, 3)."""
        ...

    def evaluate_with_gradient(self, points: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Values (n,) and their gradients with respect to the points (n, 3)."""
        ...

    def distance(self, points: npt.NDArray[Any], transform: Similarity) -> tuple[Values, Mask]:
        """Values (n,) float64 in mesh units at points (n, 3) of mesh space, and a mask (n,) of the points
        where the value is extended from the unit ball.

        transform: model space to mesh space. Outside the ball, the values of a network are extended as in
        value_outside_ball.py; a tape has values everywhere and an empty mask. The value is NaN at points that
        are not finite or farther than 1e18 radii away.
        """
        ...

    def trace(
        self, begin: FloatArray, directions: FloatArray, ends: FloatArray, at_ball: Mask, steps: FloatArray
    ) -> Traced:
        """Trace rays `begin` + t `directions`, 0 <= t < `ends`, to the first surface hit from outside.

        begin, directions: (n, 3), inside the unit ball up to `ends` (n,); faster if neighbouring rays are
        close in memory. at_ball: (n,) whether the ray starts on the ball. steps: (m,) safe step lengths at
        m >= 2 levels of |value|, evenly spaced from 0 to `sphere_tracing.MAX_LEVEL`, interpolated linearly.
        A hit is a sign change, refined to a root. A ray that starts inside can hit only after it has left the
        solid. On the ball, a ray that starts inside is `buried`, unless its value is above
        -`sphere_tracing.TOUCH_DEPTH`, which is a hit.
        """
        ...

    def soft_shadow(
        self, begin: FloatArray, directions: FloatArray, ends: FloatArray, cone: SoftShadow
    ) -> tuple[FloatArray, int]:
        """Fraction (n,) of light that reaches `begin` (n, 3) from `directions` (n, 3), and the number of
        evaluations.

        The minimum of sharpness * value / t along the ray, clipped to [0, 1]; inside the unit ball up to
        `ends` (n,). Values of a tape are divided by its `lipschitz`, so that no step crosses an occluder.
        """
        ...

    def on_lattice(
        self, side: int, spacing: float, level: float, rounding: float = 0.0
    ) -> FieldLattice[Any, Any]:
        """The program's values minus `level` on a lattice with `side` points per axis.

        rounding: values up to this size get the sign of their surroundings (`surface_search.settled`).
        """
        ...


class Trainer(Protocol):
    """Weights in training, and the optimizer's state."""

    @property
    def weights(self) -> FloatArray:
        """A copy of the current weights (P,)."""
        ...

    def steps(
        self, points: FloatArray, targets: FloatArray, order: Order, batch: int, rates: FloatArray
    ) -> Losses:
        """Take a step with each of the learning rates (s,); returns the losses (s,) float64.

        A step reduces the mean |f(x) - d| (paper, equation 7) over the next `batch` samples that `order`
        (up to s batch,) int64 selects from points (n, 3) and targets (n,). Importance sampling is in the
        density of the points; the samples have no weights.
        """
        ...


class BiasLoss(Protocol):
    """The loss of a network whose hidden biases vary, while its other weights are fixed."""

    def gradient(
        self, biases: FloatArray, points: FloatArray, targets: FloatArray
    ) -> tuple[float, FloatArray]:
        """Mean |f(x) - d| over points (n, 3) and targets (n,), and its gradient (b,) wrt the biases (b,).

        biases: those of all hidden layers, the first layer's first.
        """
        ...


class Backend(Protocol):
    """Interface of all backends. Arrays are C-contiguous float32; points are in model space.

    Results do not depend on the number of threads: sums use a fixed partition. A backend pickles as its name:
    another process loads its own.
    """

    name: str

    def compile(self, network: Network, tolerance: float | None = None) -> Program:
        """Compile a network; the program keeps a copy of its current weights.

        tolerance: mean error near the surface that `evaluate` may add in exchange for speed; None for full
        float32 accuracy. Only backends with a faster method use it, and they measure its error first.
        """
        ...

    def assemble(self, tape: Tape) -> Program:
        """Compile a tape; the program keeps a copy of its networks' current weights."""
        ...

    def loss_gradient(
        self, architecture: Architecture, weights: FloatArray, points: FloatArray, targets: FloatArray
    ) -> tuple[float, FloatArray]:
        """Mean |f(x) - d| over points (n, 3) and targets (n,), and its gradient (P,) wrt the weights (P,)."""
        ...

    def bias_loss(self, network: Network) -> BiasLoss:
        """The loss of a network as a function of its hidden biases; keeps a copy of its current weights."""
        ...

    def trainer(self, architecture: Architecture, weights: FloatArray, optimizer: Optimizer) -> Trainer:
        """A trainer initialised with these weights (P,)."""
        ...

    def triangle_bvh(self, vertices: Points, faces: Faces) -> TriangleBVH:
        """The BVH of finite vertices (V, 3) and faces (F, 3), F > 0."""
        ...


@dataclass(frozen=True)
class BackendStatus:
    """Whether a backend runs on this machine, with a one-line description or reason."""

    name: str
    available: bool
    detail: str


#: Fastest first: the default is the first one available.
_MODULES = {"cuda": ".cuda", "native": ".cpu", "torch": ".reference.torch_networks"}
BACKENDS = tuple(_MODULES)

#: Backends that run on the CPU.
CPU_BACKENDS = ("native", "torch")

#: Where to compute: a device, or a backend by name.
DEVICES = ("auto", "cpu", *BACKENDS)

_loaded: dict[str, Backend] = {}


def get_backend(name: str | None = None) -> Backend:
    """The backend called `name`, else that of NEURALSDF_BACKEND, else the fastest available.

    Raises `BackendError` if it does not exist or cannot run here. NEURALSDF_REQUIRE_CUDA=1 (GPU tests and
    benchmarks) makes cuda the default even if it cannot run here.
    """
    name = name or _default()
    if name not in _MODULES:
        raise BackendError(f"unknown backend {name!r}; one of {', '.join(BACKENDS)}")
    if name not in _loaded:
        status = backend_status(name)
        if not status.available:
            raise BackendError(f"the {name} backend does not run here: {status.detail}")
        backend: Backend = import_module(_MODULES[name], __name__).load()
        _loaded[name] = backend
    return _loaded[name]


def backend_on(device: str) -> Backend:
    """The backend for one of `DEVICES`: a device, or a backend by name; raises as `backend_name` does."""
    return get_backend(backend_name(device))


def chosen_backend(device: str) -> Backend | None:
    """As `backend_on`, but None for "auto": the default is then loaded when it is first used."""
    return None if device == "auto" else backend_on(device)


def backend_name(device: str) -> str:
    """The name of the backend for one of `DEVICES`, without loading it.

    Raises `UsageError` for another name, `BackendError` for a device that is not available.
    """
    if device not in DEVICES:
        raise UsageError(f"`device={device!r}`: one of {', '.join(DEVICES)}")
    if device == "auto":
        return _default()
    if device == "cpu":
        return fastest(CPU_BACKENDS)
    if device == "cuda" and not (status := backend_status(device)).available:
        raise BackendError(f"`device='cuda'`: {status.detail}; use `device='cpu'`")
    return device


def _default() -> str:
    """The name of the backend if none is chosen."""
    return os.environ.get("NEURALSDF_BACKEND") or ("cuda" if cuda_required() else fastest())


def fastest(among: Sequence[str] = BACKENDS) -> str:
    """The name of the first available backend."""
    return next(candidate for candidate in among if backend_status(candidate).available)


def cuda_required() -> bool:
    """Whether NEURALSDF_REQUIRE_CUDA=1 forbids a fallback from cuda."""
    return os.environ.get("NEURALSDF_REQUIRE_CUDA", "") not in ("", "0")


def backend_status(name: str) -> BackendStatus:
    """Whether the backend called `name` runs here; does not load its dependencies."""
    status: BackendStatus = import_module(_MODULES[name], __name__).status()
    return status
