"""
backends
--------
The one seam between what is computed and where. A backend evaluates a network, its gradient and a
training step on arrays; nothing outside this package asks which one is running.

    torch     the reference: obviously right, always available, against which the others are tested
    native    the C++ core in kernels/: the default on a CPU where it was built
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from importlib import import_module
from typing import Protocol

from ..errors import BackendError
from ..network import Architecture, FloatArray, Network


class Backend(Protocol):
    """What every backend does. Arrays are C-contiguous float32; points are in model space.

    Results do not depend on the number of threads: sums run over a fixed partition.
    """

    name: str

    def evaluate(self, network: Network, points: FloatArray) -> FloatArray:
        """Values (n,) at points (n, 3)."""
        ...

    def evaluate_with_gradient(self, network: Network, points: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Values (n,) and their gradients with respect to the points (n, 3)."""
        ...

    def loss_gradient(
        self, architecture: Architecture, weights: FloatArray, points: FloatArray, targets: FloatArray
    ) -> tuple[float, FloatArray]:
        """Mean |f(x) - d| over points (n, 3) and targets (n,), and its gradient (P,) by the weights (P,).

        This is the paper's loss, equation 7: importance is in where the points are, not in a factor.
        """
        ...


@dataclass(frozen=True)
class BackendStatus:
    """Whether a backend runs on this machine, and in one line what it is or why it does not."""

    name: str
    available: bool
    detail: str


#: Fastest first: the default is the first that runs here.
_MODULES = {"native": ".native", "torch": ".torch"}
BACKENDS = tuple(_MODULES)

_loaded: dict[str, Backend] = {}


def get_backend(name: str | None = None) -> Backend:
    """The backend called `name`, or NEURALSDF_BACKEND's, or else the fastest that runs here.

    Raises `BackendError` if the one asked for does not exist or cannot run here.
    """
    name = name or os.environ.get("NEURALSDF_BACKEND") or None
    if name is None:
        name = next(candidate for candidate in BACKENDS if backend_status(candidate).available)
    if name not in _MODULES:
        raise BackendError(f"unknown backend {name!r}; one of {', '.join(BACKENDS)}")
    if name not in _loaded:
        status = backend_status(name)
        if not status.available:
            raise BackendError(f"the {name} backend does not run here: {status.detail}")
        backend: Backend = import_module(_MODULES[name], __name__).load()
        _loaded[name] = backend
    return _loaded[name]


def backend_status(name: str) -> BackendStatus:
    """Whether the backend called `name` runs here, without loading what it needs."""
    status: BackendStatus = import_module(_MODULES[name], __name__).status()
    return status
