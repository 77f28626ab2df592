"""The C++ core refuses invalid arguments and returns for all others; .ci/sanitize runs these tests too.

Tapes and lattices have more such tests in files of their own.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from neuralsdf import csg
from neuralsdf.backends import get_backend
from neuralsdf.backends.reference import sphere_tracing as marching
from neuralsdf.backends.reference.sphere_tracing import SoftShadow
from neuralsdf.csg.compile import compile_shape
from neuralsdf.fields.field import NeuralField
from neuralsdf.geometry.similarity_transform import Similarity
from neuralsdf.program.network import Architecture, Network
from neuralsdf.program.optimizer_settings import get_optimizer

from ..helpers import shapes
from ..helpers.core import ISAS

_core = pytest.importorskip("neuralsdf.kernels._core", reason="the C++ core was not built")

#: Numbers that a check can miss: NaN, very large and very small ones, also when rounded to float32.
NASTY = [0.0, -0.0, 1e-45, -1e-45, 1e-38, 1e-6, 1.0, -1.0, 2.0, 1e6, 3e38, -3e38, np.inf, -np.inf, np.nan]
COUNTS = [0, -1, -(2**31), 1, 2, 7, 300, 65535, 65536, 2**31 - 1]
numbers = st.sampled_from(NASTY)


def mostly(*good: float) -> st.SearchStrategy[float]:
    """One of these numbers in four of five cases."""
    return st.one_of(*[st.sampled_from(good)] * 4, numbers)


def mostly_counts(*good: int) -> st.SearchStrategy[int]:
    return st.one_of(*[st.sampled_from(good)] * 4, st.sampled_from(COUNTS))


def network(seed: int = 0) -> Network:
    architecture = Architecture((16, 16))
    weights = np.random.default_rng(seed).normal(size=architecture.weight_count)
    return Network(architecture, weights.astype(np.float32))


@cache
def core_program(kind: str, isa: str, size: float = 1.0) -> Any:
    """A network, or a tape with one, a union of several, or none; weights multiplied by `size`."""
    core = _core.Core(isa)

    def compiled(net: Network) -> Any:
        a = net.architecture
        return core.compile(net.weights * np.float32(size), a.hidden, a.activation, a.output)

    if kind == "network":
        return compiled(network())
    leaf, other = (
        csg.from_field(NeuralField(network(seed), Similarity.identity()), f"{seed}.h5") for seed in (0, 1)
    )
    tree = {
        "tree": leaf - csg.box(1).offset(0.1).symmetry(1),
        "union": leaf | other.translate(0.3, 0, 0).scale(0.5),
        "solids": (csg.sphere(0.5).twist(3) | csg.smooth(0.1, csg.box(0.2).repeat(0.9))) & csg.sphere(1),
    }[kind]
    tape = compile_shape(tree, Similarity.identity())
    leaves = [compiled(leaf) for leaf in tape.leaves]
    return core.assemble(tape.code, tape.parameters, leaves, tape.points, tape.values, tape.lipschitz)


KINDS = ["network", "tree", "union", "solids"]


def some_rays(count: int, seed: int = 0) -> list[np.ndarray]:
    """begin, directions, ends: chords of the unit ball, and rays that extend beyond it."""
    rng = np.random.default_rng(seed)
    begin, directions = rng.normal(size=(2, count, 3)).astype(np.float32)
    begin /= np.linalg.norm(begin, axis=1, keepdims=True)
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    return [begin, directions, rng.uniform(-0.5, 2, count).astype(np.float32)]


def rays_fit(rays: list[np.ndarray]) -> bool:
    """A ray that misses the ball ends at -inf."""
    begin, directions, ends = rays
    return bool(np.isfinite(begin).all() and np.isfinite(directions).all() and (ends < np.inf).all())


@st.composite
def any_rays(draw: st.DrawFn) -> list[np.ndarray]:
    """As `some_rays`, with a few NaN, infinite and huge numbers."""
    rays = some_rays(draw(st.sampled_from([0, 1, 5, 70])), draw(st.integers(0, 99)))
    for array in rays:
        for place in draw(st.lists(st.integers(0, max(0, array.size - 1)), max_size=2)):
            if array.size:
                array.flat[place] = draw(numbers)
    return rays


@settings(max_examples=300)
@given(
    st.sampled_from(ISAS), st.sampled_from(KINDS), st.sampled_from([1.0, 1e-30, 1e20, np.nan]), any_rays(),
    st.lists(mostly(0.0, 1e-6, 0.3, 2.0), max_size=5), mostly(2.0, 1e-36, 1e-6, 1e30),
    mostly(0.0, 0.03, 1e30), mostly_counts(1, 7, 300, 4096), mostly(0.0, 2e-6), mostly_counts(1, 40),
    st.sampled_from([-1, 0, 1, 2, 2**31 - 1]),
)  # fmt: skip
@example(ISAS[0], "network", 1.0, some_rays(70), [0.0, 0.0], 2.0, 0.0, 300, 0.0, 300, 1)
@example(ISAS[0], "solids", 1.0, some_rays(70), [1e-6, 1.0], 2.0, 0.1, 65535, 1e-6, 40, 2)
def test_any_numbers_are_refused_or_traced(
    isa: str, kind: str, size: float, rays: list[np.ndarray], steps: list[float], max_level: float,
    touch_depth: float, max_steps: int, root_tolerance: float, root_steps: int, threads: int,
) -> None:  # fmt: skip
    program, count = core_program(kind, isa, size), len(rays[0])
    at_ball = np.arange(count) % 2 == 0
    table = np.array(steps, np.float32)
    arguments = max_level, touch_depth, max_steps, root_tolerance, root_steps
    fits = (
        rays_fit(rays)
        and len(table) >= 2
        and (np.isfinite(table) & (table >= 0)).all()
        and 0 < np.float32(max_level) < np.inf
        and (len(table) - 1) / max_level < 3.4e38
        and 0 <= touch_depth < np.inf
        and 0 <= root_tolerance < np.inf
        and 1 <= min(max_steps, root_steps) <= max(max_steps, root_steps) <= 65535
    )
    try:
        hit, t, unresolved, _, evaluations = program.trace(*rays, at_ball, table, *arguments, threads)
    except ValueError:
        assert not fits
        return
    assert fits
    assert hit.shape == t.shape == (count,)
    assert not (hit & unresolved).any()
    # At most all steps of a ray, of the bundles of 4, 16 and 64, and of the root search.
    assert evaluations <= count * (4 * max_steps + root_steps + 1)
    assert (t[~hit] == 0).all()


@settings(max_examples=200)
@given(
    st.sampled_from(ISAS), st.sampled_from(KINDS), st.sampled_from([1.0, 1e-30, 1e20, np.nan]), any_rays(),
    mostly(0.01, 1e-30, 10), mostly(0.012, 1e-30), mostly(0.4, 1e30), mostly_counts(1, 96, 4096),
    mostly(9.0, 1e30), mostly(0.004, -1.0, 2.0),
)  # fmt: skip
@example(ISAS[0], "tree", 1.0, some_rays(70), 0.01, 1e-38, 1.0, 65535, 9.0, 0.004)
def test_any_numbers_are_refused_or_shadowed(
    isa: str, kind: str, size: float, rays: list[np.ndarray], first: float, least: float, greatest: float,
    steps: int, sharpness: float, dark: float,
) -> None:  # fmt: skip
    program, count = core_program(kind, isa, size), len(rays[0])
    try:
        share, evaluations = program.soft_shadow(*rays, first, least, greatest, steps, sharpness, dark, 1)
    except ValueError:
        return
    assert rays_fit(rays)
    assert 0 < first < np.inf
    assert 0 < least <= greatest < np.inf
    assert 1 <= steps <= 65535
    assert evaluations <= count * steps
    assert ((share >= 0) & (share <= 1) | np.isnan(share)).all()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("max_level", [1e-45, 1e-39, 0.0, -1.0, np.nan, np.inf])
def test_an_invalid_level_is_refused(kind: str, max_level: float) -> None:
    """The quotient overflows, and a level of 0 times infinity is NaN, which gives the index INT_MIN."""
    rays, steps = some_rays(70), np.linspace(0, 1, 9).astype(np.float32)
    with pytest.raises(ValueError, match="max_level"):
        core_program(kind, ISAS[0]).trace(
            *rays, np.ones(70, np.bool_), steps, max_level, 0.03, 4096, 2e-6, 40, 1
        )


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("end", [1e8, 3e38])
def test_rays_with_tiny_steps_end(kind: str, end: float) -> None:
    """All rays are equal, so they are marched as bundles of width zero; far away a step is below rounding."""
    begin, directions = np.zeros((2, 64, 3), np.float32)
    begin[:, 2], directions[:, 2] = 1, 1
    ends = np.full(64, end, np.float32)
    # Steps so short that t stops at 32, where float32 cannot tell t from t + 1e-6.
    steps = np.array([0, 1e-6], np.float32)
    program = core_program(kind, ISAS[0])
    *_, evaluations = program.trace(
        begin, directions, ends, np.ones(64, np.bool_), steps, 2.0, 0.03, 5000, 2e-6, 40, 1
    )
    assert evaluations <= 64 * (4 * 5000 + 41)


def test_the_constants_of_every_backend_are_allowed() -> None:
    rays, steps = some_rays(10), np.full(9, marching.MAX_LEVEL, np.float32)
    program = get_backend("native").compile(network())
    assert program.trace(*rays, np.ones(10, np.bool_), steps).t.shape == (10,)
    assert program.soft_shadow(*rays, SoftShadow())[0].shape == (10,)


@settings(max_examples=150)
@given(
    st.sampled_from(ISAS), st.sampled_from(["adam", "soap", "sgd"]), mostly(0.0, 0.9), mostly(0.9, 0.99),
    mostly(0.0, 1e-8), mostly_counts(1, 10), st.one_of(st.integers(1, 9), st.sampled_from([*COUNTS, 2**62])),
    st.lists(mostly(1e-3, -1.0, 1e30), max_size=3),
    st.lists(st.sampled_from([*range(20), *range(20), 20, -1, 2**62, -(2**63)]), max_size=9),
)  # fmt: skip
@example(ISAS[0], "soap", 0.9, 0.99, 1e-8, 1, 2**62, [1.0], [0, 1, 2])
@example(ISAS[0], "adam", 0.0, 0.9, 1e-8, 1, 2**62, [1.0] * 3, [0, 1, 2])
@example(ISAS[0], "adam", 0.0, 0.9, 1e-8, 1, 1, [1e-3] * 3, [0, 19, 2])
def test_any_numbers_are_refused_or_trained(
    isa: str, method: str, beta1: float, beta2: float, epsilon: float, refresh: int, batch: int,
    rates: list[float], order: list[int],
) -> None:  # fmt: skip
    core, net = _core.Core(isa), network()
    points = np.random.default_rng(0).normal(size=(20, 3)).astype(np.float32)
    chosen = np.array(order, np.int64)
    try:
        trainer = core.trainer(net.weights, (16, 16), "relu", "tanh", method, beta1, beta2, epsilon, refresh)
        losses = trainer.steps(points, points[:, 0].copy(), chosen, batch, np.array(rates, np.float32), 1)
    except (ValueError, IndexError):
        return
    assert 0 <= min(beta1, beta2) <= max(beta1, beta2) < 1
    assert ((chosen >= 0) & (chosen < 20)).all()
    assert losses.shape == (len(rates),) == (-(-len(order) // batch),)
    assert np.isfinite(rates).all()


# -- arguments that another thread changes meanwhile ---------------------------------------------------


@contextmanager
def changed_meanwhile(change: Callable[[], None]) -> Iterator[None]:
    """Runs `change` on another thread as soon as the GIL is released within the block."""
    go, before = threading.Event(), sys.getswitchinterval()

    def wait() -> None:
        go.wait()
        change()

    other = threading.Thread(target=wait)
    other.start()
    sys.setswitchinterval(1000)  # so it does not run until the GIL is released
    try:
        go.set()
        yield
    finally:
        sys.setswitchinterval(before)
        other.join()


@pytest.mark.parametrize("optimizer", ["adam", "soap"])
def test_an_order_changed_during_a_call_is_read_safely(optimizer: str) -> None:
    points = np.random.default_rng(0).normal(size=(500, 3)).astype(np.float32)
    rates, losses = np.full(300, 1e-3, np.float32), []
    for change in (False, True):
        order = np.arange(300 * 64, dtype=np.int64) % 500

        def spoil(order: np.ndarray = order, change: bool = change) -> None:
            order[:] = 2**40 if change else order

        trainer = get_backend("native").trainer(
            network().architecture, network().weights, get_optimizer(optimizer)
        )
        with changed_meanwhile(spoil):
            losses.append(trainer.steps(points, points[:, 0].copy(), order, 64, rates))
    np.testing.assert_array_equal(*losses)


def test_a_mesh_changed_during_a_call_is_read_safely() -> None:
    vertices, faces = shapes.sphere(1, 5)
    points = np.random.default_rng(0).uniform(-2, 2, (100, 3))
    expected = _core.TriangleBVH(vertices, faces, ISAS[0]).distance(points, 1)
    copies = vertices.copy(), faces.copy()

    def spoil() -> None:
        copies[0][:], copies[1][:] = np.inf, 2**40

    with changed_meanwhile(spoil):
        try:
            bvh = _core.TriangleBVH(*copies, ISAS[0])
        except ValueError:  # changed before the call
            return
    np.testing.assert_array_equal(bvh.distance(points, 1), expected)


def test_a_lattice_changed_during_a_call_has_at_most_the_counted_faces() -> None:
    side = 80
    along = np.arange(side)
    x, y, z = np.meshgrid(along, along, along, indexing="ij")
    keys = (x * side * side + y * side + z).ravel()
    inner = (x < side - 1) & (y < side - 1) & (z < side - 1)
    values = np.ones(keys.size, np.float32)
    values[keys.size // 2] = -1

    def spoil() -> None:
        values[::2] = -1

    with changed_meanwhile(spoil):
        vertices, faces = _core.marching_cubes(keys[inner.ravel()], keys, values, side, 1e-3, 2)
    assert faces.shape[1] == vertices.shape[1] == 3


@pytest.mark.parametrize("optimizer", ["adam", "soap"])
def test_a_trainer_serialises_concurrent_steps(optimizer: str) -> None:
    points = np.random.default_rng(0).normal(size=(500, 3)).astype(np.float32)
    arguments = points, points[:, 0].copy(), np.arange(500), 50, np.full(10, 1e-3, np.float32)

    def trainer() -> Any:
        return get_backend("native").trainer(
            network().architecture, network().weights, get_optimizer(optimizer)
        )

    alone, shared = trainer(), trainer()
    for _ in range(8):
        alone.steps(*arguments)
    start = threading.Barrier(4)

    def work() -> None:
        start.wait()
        for _ in range(2):
            shared.steps(*arguments)
            assert shared.weights.shape == network().weights.shape

    others = [threading.Thread(target=work) for _ in range(4)]
    for other in others:
        other.start()
    for other in others:
        other.join()
    np.testing.assert_array_equal(shared.weights, alone.weights)


# -- other arguments --------------------------------------------------------------------------------------


def test_a_lattice_refuses_invalid_arguments() -> None:
    keys = np.arange(8)
    for spacing, offset in [
        (0.0, 0.0),
        (-0.1, 0.0),
        (np.nan, 0.0),
        (1e308, 0.0),
        (0.1, np.inf),
        (0.1, np.nan),
    ]:
        with pytest.raises(ValueError, match=r"spacing|offset"):
            _core.ball_points(keys, 2, spacing, offset, 1)
    for margin in (-1e-9, 0.6, np.nan, np.inf):
        with pytest.raises(ValueError, match="margin"):
            _core.marching_cubes(keys[:1], keys, np.ones(8, np.float32), 2, margin, 1)
    for side in (-1, 0, 1, 2**20 + 1, 2**62):
        with pytest.raises(ValueError, match="per side"):
            _core.corner_keys(keys[:1], side)


@settings(max_examples=100)
@given(
    st.lists(
        st.sampled_from([0.0, 1e-320, 1.0, -1.0, 1e15, 1e299, -1e299, 1e300, 1e308]), min_size=9, max_size=9
    )
)
def test_a_mesh_of_any_size_has_a_bvh_or_is_refused(coordinates: list[float]) -> None:
    vertices = np.array(coordinates).reshape(3, 3)
    fits = bool((np.abs(vertices) < 1e300).all())
    try:
        tree = _core.TriangleBVH(vertices, np.array([[0, 1, 2]] * 9), ISAS[0])
    except ValueError:
        assert not fits
        return
    assert fits
    distance, face, closest = tree.closest(vertices, 1)
    rounding = 1e-6 * np.abs(vertices).max() + 1e-319
    assert (distance <= rounding).all()
    assert (face == 0).all()
    np.testing.assert_allclose(closest, vertices, atol=rounding)
    assert np.isfinite(tree.winding_number(vertices, [(2.0, 0.0)], 1)).all()
    assert (tree.first_hit(vertices, np.ones((3, 3)), 1)[0] >= 0).all()


def test_a_placement_refuses_invalid_arguments() -> None:
    program, points = core_program("network", ISAS[0]), np.zeros((3, 3))
    assert program.distance(points, np.eye(4), 1.0, 1)[0].shape == (3,)
    bad_matrix = np.eye(4)
    bad_matrix[1, 3] = np.nan
    for wrong in (
        (points[:, :2].copy(), np.eye(4), 1.0),
        (points.astype(np.float32), np.eye(4), 1.0),
        (points, np.eye(3), 1.0),
        (points, np.eye(4, dtype=np.float32), 1.0),
        (points, bad_matrix, 1.0),
        *[(points, np.eye(4), scale) for scale in (0.0, -1.0, np.nan, np.inf)],
    ):
        with pytest.raises(ValueError, match=r"points|matrix|scale"):
            program.distance(*wrong, 1)


def test_points_at_the_limits_of_double_precision_are_sorted() -> None:
    points = np.array([[1e308, -1e308, 0], [-1e308, 1e308, 5e-324], [0, 0, 0]])
    assert sorted(_core.morton_order(points)) == [0, 1, 2]


def test_invalid_accuracies_and_rounds_are_refused() -> None:
    tree = _core.TriangleBVH(*shapes.box(1, 1, 1), ISAS[0])
    for refinement in ((-1.0, 0.0), (np.nan, 0.0), (np.inf, 0.0), (1.0, np.nan)):
        with pytest.raises(ValueError, match=r"accuracy|band"):
            tree.winding_number(np.zeros((1, 3)), [refinement], 1)
    for rounds in (-1, 2**62):
        with pytest.raises(ValueError, match="rounds"):
            _core.Core(ISAS[0]).peak(rounds)


@pytest.mark.skipif(len(ISAS) < 2, reason="there is but one instruction set here")
def test_a_tape_refuses_networks_of_another_instruction_set() -> None:
    """Weights are packed for vectors of one width."""
    here, there, net = _core.Core(ISAS[0]), _core.Core("baseline"), network()
    leaf = csg.from_field(NeuralField(net, Similarity.identity()), "a.h5")
    tape = compile_shape(leaf - csg.box(1), Similarity.identity())
    foreign = there.compile(net.weights, net.architecture.hidden, "relu", "tanh")
    with pytest.raises(ValueError, match="instruction set"):
        here.assemble(tape.code, tape.parameters, [foreign], tape.points, tape.values, tape.lipschitz)


@pytest.mark.parametrize("threads", [-(2**31), -1, 0, 2**31 - 1])
def test_any_number_of_threads_gives_the_same_values(threads: int) -> None:
    points = np.zeros((5000, 3), np.float32)
    program = core_program("network", ISAS[0])
    np.testing.assert_array_equal(program.evaluate(points, threads), program.evaluate(points, 1))
