"""Tapes and the shapes that they are compiled from, for comparing backends with the reference."""

from __future__ import annotations

import numpy as np

from neuralsdf.array_types import FloatArray
from neuralsdf.backends import Program, get_backend
from neuralsdf.backends.reference.tape_interpreter import TapeProgram
from neuralsdf.csg import Shape, from_field, parse, sphere
from neuralsdf.csg.compile import compile_shape
from neuralsdf.fields.field import NeuralField
from neuralsdf.geometry.similarity_transform import Similarity
from neuralsdf.program.network import Architecture, Network, initialise
from neuralsdf.program.tape_format import Tape

from .fields import Analytic
from .fields import sphere as ball_distance
from .trees import BENT, SOLIDS

SHAPES = {name: shape for name, (shape, _) in SOLIDS.items()} | BENT
BRACKET = parse(
    "(rounded_box(80, 50, 6, 2) | rounded_box(6, 50, 40, 2).translate(-37, 0, 17)"
    "| smooth(4, rounded_box(40, 5, 30, 1).translate(-20, 0, 12) & plane(0.6, 0, 0.8).translate(-8, 0, 12)))"
    "- cylinder(2.6, 20).repeat(30, 30, 0, 2, 2).translate(0, -15, 0)",
    lambda name: sphere(),
)


def compiled(shape: Shape) -> Tape:
    return compile_shape(shape, Similarity.from_ball([0.1, 0.2, 0.3], 1.3))


def reference(tape: Tape) -> TapeProgram:
    return TapeProgram(tape, get_backend("torch").compile)


def somewhere(count: int, seed: int = 0, extent: float = 1.2) -> FloatArray:
    return np.random.default_rng(seed).uniform(-extent, extent, (count, 3)).astype(np.float32)


def neural(seed: int, x: float = 0, y: float = 0) -> Shape:
    """A leaf with a random network, in its own ball."""
    architecture = Architecture((16, 24))
    weights = initialise(architecture, seed) + np.float32(0.03)
    transform = Similarity.from_ball([x, y, 0], 0.6)
    return from_field(NeuralField(Network(architecture, weights), transform), f"{seed}.h5")


def measured(seed: int, x: float = 0, y: float = 0) -> Shape:
    """A leaf without a network: a ball of radius 0.5, in units that are not the tree's."""
    transform = Similarity.from_ball([x, y, 0], 0.8)
    return from_field(Analytic(ball_distance(0.5 + 0.1 * seed), transform), f"{seed}.obj")


def either(seed: int, *place: float) -> Shape:
    return (neural if seed else measured)(seed, *place)


def assert_same_program(
    program: Program, expected: Program, points: FloatArray, slopes: float = 0.995
) -> None:
    """Values and gradients agree; gradients at a fraction of the points, as some lie on creases."""
    values, gradients = program.evaluate_with_gradient(points)
    expected_values, expected_gradients = expected.evaluate_with_gradient(points)
    scale = max(1.0, float(np.abs(expected_values).max(initial=0)))
    np.testing.assert_allclose(values, expected_values, atol=3e-6 * scale)
    np.testing.assert_allclose(program.evaluate(points), values, atol=2e-6 * scale)
    steep = max(1.0, float(np.abs(expected_gradients).max(initial=0)))
    close = np.abs(gradients - expected_gradients).max(axis=1) <= 1e-3 * steep
    assert close.mean() >= slopes if len(points) else True
    assert (values.dtype, gradients.dtype) == (np.float32, np.float32)
    assert (values.shape, gradients.shape) == ((len(points),), (len(points), 3))
