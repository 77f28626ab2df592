"""
native.py
---------
The C++ core in kernels/: all layers of a block of points fused, vectorised for the processor it runs
on, on all threads. The fastest on a CPU.
"""

from __future__ import annotations

import os

from ..errors import BackendError
from ..network import Architecture, FloatArray, Network
from ..parallel import threads
from . import BackendStatus

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

    def evaluate(self, network: Network, points: FloatArray) -> FloatArray:
        """Values (n,) at points (n, 3)."""
        a = network.architecture
        return self._core.evaluate(network.weights, a.hidden, a.activation, a.output, points, threads())

    def evaluate_with_gradient(self, network: Network, points: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Values (n,) and gradients (n, 3) at points (n, 3)."""
        a = network.architecture
        return self._core.evaluate_with_gradient(
            network.weights, a.hidden, a.activation, a.output, points, threads()
        )

    def loss_gradient(
        self, architecture: Architecture, weights: FloatArray, points: FloatArray, targets: FloatArray
    ) -> tuple[float, FloatArray]:
        """Mean |f(x) - d| over points (n, 3) and targets (n,), and its gradient (P,)."""
        a = architecture
        return self._core.loss_gradient(weights, a.hidden, a.activation, a.output, points, targets, threads())
