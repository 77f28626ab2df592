"""
self_check.py
-------------
Self-check of the CUDA backend at a GPU's first use, against a reference backend: every operation of every
kernel, on problems that take a fraction of a second.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from ..array_types import FloatArray
from ..grid.sparse_grid import Lattice
from ..grid.surface_search import surface_cells
from ..program.network import Architecture, Network, initialise
from ..program.optimizer_settings import OPTIMIZERS, get_optimizer
from ..program.tape_format import Op, Tape
from . import Backend, Program, backend_status
from .batched_networks import Fits, make_trainers, values_of_many
from .reference.sphere_tracing import SoftShadow


class Result(NamedTuple):
    """Result of an operation, and its tolerance relative to the largest number."""

    operation: str
    numbers: npt.NDArray[Any]
    tolerance: float = 1e-3


class Comparison(NamedTuple):
    """Comparison of an operation on two backends: mean difference relative to the largest number, and the
    problem, if any."""

    operation: str
    difference: float
    problem: str | None


def disagreement(backend: Backend, reference: Backend) -> str | None:
    """The problem of the first operation in which two backends differ; None if they agree."""
    return next((each.problem for each in comparisons(backend, reference) if each.problem), None)


def comparisons(backend: Backend, reference: Backend) -> Iterator[Comparison]:
    """Compare every operation of two backends, one after the other."""
    for ours, theirs in zip(_results(backend), _results(reference), strict=True):
        yield _compared(ours, theirs.numbers)


def _compared(ours: Result, expected: npt.NDArray[Any]) -> Comparison:
    got, operation = ours.numbers, ours.operation
    if got.shape != expected.shape:
        return Comparison(operation, np.inf, f"{operation} returns {len(got)} results, not {len(expected)}")
    difference = np.abs(got - expected) / np.abs(expected).max()
    off = ~(difference <= ours.tolerance)  # counts NaN
    problem = None
    if off.mean() > 0.02:  # rounding decides the gradient at a kink, and whether a ray grazes
        problem = f"{operation} differs in {off.mean():.0%} of {off.size} results"
    return Comparison(operation, float(difference.mean()), problem)


def _results(backend: Backend) -> Iterator[Result]:
    return chain(
        _of_programs(backend),
        _of_tapes(backend),
        _of_lattices(backend),
        _of_trainers(backend),
        _of_trees(backend),
    )


def _of_programs(backend: Backend) -> Iterator[Result]:
    """Values, gradients, rays and shadows of a network, and the gradient with respect to its weights."""
    architecture = Architecture((32, 24, 32))
    weights = initialise(architecture, 0)
    rng = np.random.default_rng(0)
    points = rng.uniform(-0.5, 0.5, (500, 3)).astype(np.float32)
    program = backend.compile(Network(architecture, weights))
    yield from _of_program(program, points)
    # Tensor cores fall back to float32 if their error exceeds the tolerance. The points are reversed, so that
    # stale results in the device's buffers do not pass.
    yield from _of_program(backend.compile(Network(architecture, weights), 1e-3), points[::-1].copy())
    several = np.array([initialise(architecture, seed) for seed in (1, 2, 3)])
    yield Result("evaluate_many", values_of_many(backend, architecture, several, points).ravel())
    values, gradients = program.evaluate_with_gradient(points)
    yield Result("evaluate_with_gradient", values)
    yield Result("evaluate_with_gradient", gradients)
    yield Result(
        "loss_gradient", backend.loss_gradient(architecture, weights, points, points[:, 0].copy())[1]
    )


def _of_tapes(backend: Backend) -> Iterator[Result]:
    """Values, gradients, rays and shadows of a tape: two networks, one used twice, a solid and a twist."""
    networks = [Network(a, initialise(a, 3)) for a in (Architecture((32, 24)), Architecture((16,)))]
    frames = [np.concatenate([np.eye(3).ravel(), [x, 0, 0, 1]]) for x in (0.0, 0.4, -0.3)]
    code: list[tuple[int, int, int, int, int]] = []
    parameters: list[float] = []

    def add(op: Op, out: int, a: int, b: int, *numbers: float) -> None:
        code.append((op, out, a, b, len(parameters)))
        parameters.extend(numbers)

    add(Op.NEAREST, 0, 0, 2, *frames[1], 0, *frames[2], 1)
    add(Op.OFFSET, 0, 0, 0, 0.1)
    add(Op.ENTER_TWIST, 1, 0, 0, *frames[0], 2.0, 1.0)
    add(Op.FIELD, 1, 1, 0, *frames[1], 0)
    add(Op.LEAVE_TWIST, 1, 1, 0, *frames[0], 2.0, 1.0)
    add(Op.UNION, 0, 0, 1, 0.1)
    add(Op.SPHERE, 1, 0, 0, *frames[2], 0.4)
    add(Op.INTERSECTION, 0, 0, 1, 0.0)
    tape = Tape(np.array(code, np.int32), np.array(parameters), tuple(networks), 2, 2, 2.0)
    points = np.random.default_rng(1).uniform(-1, 1, (500, 3)).astype(np.float32)
    program = backend.assemble(tape)
    yield from _of_program(program, points, " of a tape")
    for numbers in program.evaluate_with_gradient(points):
        yield Result("evaluate_with_gradient of a tape", numbers)


def _of_program(program: Program, points: FloatArray, of: str = "") -> Iterator[Result]:
    """Values, rays and shadows."""
    yield Result(f"evaluate{of}", program.evaluate(points))
    directions = -points / np.linalg.norm(points, axis=1, keepdims=True)
    ends, at_ball = np.ones(len(points), np.float32), points[:, 0] < 0
    steps = np.linspace(0.05, 2, 65, dtype=np.float32)
    traced = program.trace(points, directions, ends, at_ball, steps)
    yield Result(f"trace{of}", traced.hit + 2.0 * traced.unresolved + 4.0 * traced.buried + traced.t)
    light, _ = program.soft_shadow(points, directions, ends, SoftShadow())
    yield Result(f"soft_shadow{of}", light)


def _of_lattices(backend: Backend) -> Iterator[Result]:
    """Surface of an octahedron whose corners lie outside the initial cells, so that it must be followed. Its
    values at lattice points are odd multiples of 1/14, so that rounding does not change signs."""
    kernel = np.repeat(np.eye(3), 2, axis=1) * np.tile([1, -1], 3)
    weights = np.concatenate([kernel.ravel(), np.zeros(6), np.ones(6), [-4.5 / 7]])
    network = Network(Architecture((6,), output="linear"), weights.astype(np.float32))
    side, size = 17, 4
    lattice = backend.compile(network).on_lattice(side, 1 / 7, 0.0)
    along = np.arange(0, side - 1, size)
    coarsest = np.stack(np.meshgrid(along, along, along, indexing="ij"), axis=-1).reshape(-1, 3)
    cells = lattice.cells(coarsest @ Lattice(side).strides)
    cells, samples, _ = surface_cells(lattice, cells, size, 0.5, lambda cells, size: None)
    vertices, faces = lattice.marching_cubes(cells, samples)
    yield Result("marching_cubes", vertices[faces].ravel())


def _of_trainers(backend: Backend) -> Iterator[Result]:
    """Losses of a few steps of two fits, past the first update of SOAP's basis."""
    architecture = Architecture((24, 32))
    rng = np.random.default_rng(0)
    points = rng.uniform(-0.5, 0.5, (2, 600, 3)).astype(np.float32)
    distances = (np.linalg.norm(points, axis=2) - 0.4).astype(np.float32)
    start = np.array([initialise(architecture, seed) for seed in (0, 1)])
    for name in OPTIMIZERS:
        fits = Fits(architecture, start, points, distances, get_optimizer(name), batch=200)
        trainers = make_trainers(backend, fits)
        # In a null space, SOAP's basis is arbitrary and depends on rounding.
        yield Result(f"fit with {name}", trainers.steps(np.full(12, 3e-3, np.float32)).ravel(), 0.02)


def _of_trees(backend: Backend) -> Iterator[Result]:
    """Distances, winding numbers and rays of a few hundred triangles; none without the C++ core, which builds
    the GPU's BVHs too."""
    if not backend_status("native").available:
        return
    rng = np.random.default_rng(0)
    corners, points = rng.uniform(-1, 1, (300, 1, 3)), rng.uniform(-1, 1, (2, 300, 3))
    mesh = (corners + rng.normal(0, 0.2, (300, 3, 3))).reshape(-1, 3), np.arange(900).reshape(-1, 3)
    bvh = backend.triangle_bvh(*mesh)
    for numbers in bvh.closest(points[0]):
        yield Result("closest_point", numbers)
    yield Result("winding_number", bvh.winding_number(points[0], [(1.0, 0.25), (6.0, 0.0)]))
    lengths, faces = bvh.first_hit(points[0], points[1] - points[0])
    yield Result("first_hit", np.where(np.isfinite(lengths), lengths, -1))
    yield Result("first_hit", faces)
