# The C++ core (bindings/module.cpp). Arrays are C-contiguous; another dtype raises ValueError or TypeError.
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float32]
DoubleArray = npt.NDArray[np.float64]
Index = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]
Codes = npt.NDArray[np.uint8]

def supported_isas() -> list[str]: ...
def morton_order(points: DoubleArray) -> npt.NDArray[np.uint32]: ...
def ball_points(
    keys: Index, side: int, spacing: float, offset: float, threads: int
) -> tuple[FloatArray, FloatArray]: ...
def corner_keys(cells: Index, side: int) -> Index: ...
def connected_faces(faces: Index, vertex_count: int) -> tuple[Index, int]: ...
def cell_codes(cells: Index, keys: Index, values: FloatArray, side: int, threads: int) -> Codes: ...
def marching_cubes(
    cells: Index, keys: Index, values: FloatArray, side: int, margin: float, threads: int
) -> tuple[npt.NDArray[np.float64], Index]: ...

class TriangleTree:
    def __init__(self, vertices: DoubleArray, faces: Index, isa: str) -> None: ...
    def distance(self, points: DoubleArray, threads: int) -> DoubleArray: ...
    def closest(self, points: DoubleArray, threads: int) -> tuple[DoubleArray, Index, DoubleArray]: ...
    def winding_number(
        self, points: DoubleArray, refinements: Sequence[tuple[float, float]], threads: int
    ) -> DoubleArray: ...
    def first_hit(self, origins: DoubleArray, directions: DoubleArray, threads: int) -> DoubleArray: ...
    @property
    def nodes(self) -> Codes: ...
    @property
    def expansions(self) -> Codes: ...
    @property
    def packets(self) -> Codes: ...
    @property
    def origin(self) -> DoubleArray: ...
    @property
    def scale(self) -> float: ...

class Program:
    def evaluate(self, points: FloatArray, threads: int) -> FloatArray: ...
    def evaluate_with_gradient(self, points: FloatArray, threads: int) -> tuple[FloatArray, FloatArray]: ...
    def distance(
        self, points: DoubleArray, matrix: DoubleArray, scale: float, threads: int
    ) -> tuple[DoubleArray, Mask]: ...
    def trace(
        self,
        begin: FloatArray,
        directions: FloatArray,
        ends: FloatArray,
        at_ball: Mask,
        steps: FloatArray,
        max_level: float,
        touch_depth: float,
        max_steps: int,
        root_tolerance: float,
        root_steps: int,
        threads: int,
    ) -> tuple[Mask, FloatArray, Mask, Mask, int]: ...
    def soft_shadow(
        self,
        begin: FloatArray,
        directions: FloatArray,
        ends: FloatArray,
        first: float,
        least_step: float,
        greatest_step: float,
        steps: int,
        sharpness: float,
        dark: float,
        threads: int,
    ) -> tuple[FloatArray, int]: ...

class NetworkProgram(Program):
    @property
    def by_tiles(self) -> bool: ...

class TapeProgram(Program):
    def field_points(self, points: FloatArray, threads: int) -> FloatArray: ...
    def evaluate_fields(self, points: FloatArray, values: FloatArray, threads: int) -> FloatArray: ...
    def evaluate_fields_with_gradient(
        self, points: FloatArray, values: FloatArray, gradients: FloatArray, threads: int
    ) -> tuple[FloatArray, FloatArray]: ...

class Trainer:
    @property
    def weights(self) -> FloatArray: ...
    def steps(
        self,
        points: FloatArray,
        targets: FloatArray,
        order: npt.NDArray[np.int64],
        batch: int,
        rates: FloatArray,
        threads: int,
    ) -> npt.NDArray[np.float64]: ...

class Core:
    def __init__(self, isa: str) -> None: ...
    @property
    def isa(self) -> str: ...
    def peak(self, rounds: int) -> float: ...
    def compile(
        self,
        weights: FloatArray,
        hidden: Sequence[int],
        activation: str,
        output: str,
        by_tiles: bool = False,
    ) -> NetworkProgram: ...
    def assemble(
        self,
        code: npt.NDArray[np.int32],
        parameters: DoubleArray,
        leaves: Sequence[NetworkProgram | None],
        points: int,
        values: int,
        lipschitz: float,
    ) -> TapeProgram: ...
    def evaluate_many(
        self,
        weights: FloatArray,
        hidden: Sequence[int],
        activation: str,
        output: str,
        points: FloatArray,
        threads: int,
    ) -> FloatArray: ...
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
    def trainer(
        self,
        weights: FloatArray,
        hidden: Sequence[int],
        activation: str,
        output: str,
        optimizer: str,
        beta1: float,
        beta2: float,
        epsilon: float,
        refresh: int,
    ) -> Trainer: ...
