# The C++ core (core.cpp). Arrays are C-contiguous float32; anything else raises ValueError or TypeError.
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float32]

def supported_isas() -> list[str]: ...

class Core:
    def __init__(self, isa: str) -> None: ...
    @property
    def isa(self) -> str: ...
    def peak(self, rounds: int) -> float: ...
    def evaluate(
        self,
        weights: FloatArray,
        hidden: Sequence[int],
        activation: str,
        output: str,
        points: FloatArray,
        threads: int,
    ) -> FloatArray: ...
    def evaluate_with_gradient(
        self,
        weights: FloatArray,
        hidden: Sequence[int],
        activation: str,
        output: str,
        points: FloatArray,
        threads: int,
    ) -> tuple[FloatArray, FloatArray]: ...
    def loss_gradient(
        self,
        weights: FloatArray,
        hidden: Sequence[int],
        activation: str,
        output: str,
        points: FloatArray,
        targets: FloatArray,
        threads: int,
    ) -> tuple[float, FloatArray]: ...
