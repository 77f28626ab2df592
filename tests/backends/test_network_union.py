"""Unions of many networks: one instruction, whose value is that of the plain minimum."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from neuralsdf import thread_count
from neuralsdf.array_types import FloatArray
from neuralsdf.backends import get_backend
from neuralsdf.backends.reference.sphere_tracing import SoftShadow
from neuralsdf.backends.reference.tape_interpreter import TapeProgram
from neuralsdf.csg import Shape, box, from_field, smooth, sphere, union
from neuralsdf.csg.compile import compile_shape
from neuralsdf.errors import UsageError
from neuralsdf.fields.field import NeuralField
from neuralsdf.geometry.similarity_transform import Similarity
from neuralsdf.program.network import Architecture, Network, initialise
from neuralsdf.program.tape_format import FRAME, Op, Tape

from ..helpers.core import ISAS, needs_core
from ..helpers.fields import Analytic, octahedron
from ..helpers.fields import sphere as ball_distance
from ..helpers.rays import STEPS, eye_rays

Frames = npt.NDArray[np.float64]

SMALL = Architecture((16, 24))


def network(seed: int, architecture: Architecture = SMALL) -> Network:
    """A random network with both signs in its ball."""
    return Network(architecture, initialise(architecture, seed) + np.float32(0.02))


def placed(rng: np.random.Generator, centre: npt.ArrayLike, radius: float) -> Frames:
    """The frame (FRAME,) of a ball, rotated at random and possibly mirrored."""
    rotation = np.linalg.qr(rng.normal(size=(3, 3)))[0]
    return np.concatenate([rotation.ravel() / radius, -rotation @ np.asarray(centre) / radius, [radius]])


def nearest(frames: Frames, networks: list[Network], numbers: npt.ArrayLike | None = None) -> Tape:
    """A tape of one instruction, of networks in these frames (n, FRAME)."""
    which = np.arange(len(frames)) % len(networks) if numbers is None else np.asarray(numbers)
    parameters = np.column_stack([frames, which]).ravel()
    code = np.array([[Op.NEAREST, 0, 0, len(frames), 0]], np.int32)
    return Tape(code, parameters, tuple(networks), 1, 1, 1.0)


def alone(tape: Tape) -> list[Tape]:
    """A tape for each network of such a tape."""
    rows = tape.parameters.reshape(-1, FRAME + 1)
    return [nearest(row[None, :FRAME], [tape.leaves[int(row[FRAME])]]) for row in rows]  # type: ignore[list-item]


def fields(tape: Tape) -> list[NeuralField]:
    """Each network of the union as a field of its own."""
    found, torch = [], get_backend("torch")
    for row in tape.parameters.reshape(-1, FRAME + 1):
        matrix = np.eye(4)
        matrix[:3, :3], matrix[:3, 3] = row[:9].reshape(3, 3), row[9:12]
        leaf = tape.leaves[int(row[FRAME])]
        assert isinstance(leaf, Network)
        found.append(NeuralField(leaf, Similarity(np.linalg.inv(matrix)), chosen_backend=torch))
    return found


def somewhere(count: int, extent: float, seed: int = 0) -> FloatArray:
    """Points near the origin and far away."""
    rng = np.random.default_rng(seed)
    reach = extent * 10 ** rng.uniform(-2, 0.5, (count, 1))
    return (rng.normal(size=(count, 3)) * reach).astype(np.float32)


def scattered(count: int, seed: int = 0, scales: tuple[float, float] = (0.1, 0.3), networks: int = 5) -> Tape:
    rng = np.random.default_rng(seed)
    frames = [placed(rng, rng.uniform(-1, 1, 3), np.exp(rng.uniform(*np.log(scales)))) for _ in range(count)]
    return nearest(np.array(frames), [network(number) for number in range(networks)])


def assert_union(tape: Tape, program, points: FloatArray) -> None:
    """Check values and gradients: those of the network with the minimum value, each evaluated by torch."""
    each = [field.block_distance_and_gradient(points, bound=True) for field in fields(tape)]
    values, gradients = (np.stack(of_all) for of_all in zip(*each, strict=True))
    value, gradient = program.evaluate_with_gradient(points)
    assert (value.dtype, gradient.dtype, gradient.shape) == (np.float32, np.float32, points.shape)
    frames = tape.parameters.reshape(-1, FRAME + 1)
    # Rounding error of the coordinates of a point in a network's ball, in single precision.
    rounding = 1e-6 * (
        np.abs(points).max() + np.abs(frames[:, 9:12] * frames[:, 12:13]).max() + frames[:, 12].max()
    )
    np.testing.assert_allclose(value, values.min(axis=0), rtol=1e-5, atol=3 * rounding)
    least, runner_up = np.partition(values, 1, axis=0)[:2] if len(values) > 1 else (values[0], np.inf)
    clear = runner_up - least > 20 * rounding
    expected = gradients[values.argmin(axis=0), np.arange(len(points))]
    close = np.abs(gradient - expected).max(axis=1) < 1e-3
    assert close[clear].mean() > 0.99  # except for points at a crease


# -- values and gradients -----------------------------------------------------------------------------


@pytest.mark.parametrize("count", [1, 2, 17, 40])
def test_the_value_is_the_minimum_of_the_networks(core_backend, count: int) -> None:
    tape = scattered(count)
    assert_union(tape, core_backend.assemble(tape), somewhere(2000, 1.0))


@pytest.mark.parametrize("count", [1, 2, 40])
def test_the_value_of_the_reference_is_the_minimum_of_the_networks(count: int) -> None:
    tape = scattered(count)
    program = TapeProgram(tape, get_backend("torch").compile)
    assert_union(tape, program, somewhere(2000, 1.0))
    points = somewhere(500, 1.0).astype(np.float64)
    plain = np.min(
        [TapeProgram(one, get_backend("torch").compile).evaluate(points) for one in alone(tape)], axis=0
    )
    np.testing.assert_allclose(program.evaluate(points), plain, atol=1e-6)


@needs_core
@given(
    st.integers(1, 40),
    st.integers(0, 2**32 - 1),
    st.tuples(st.floats(0.01, 100), st.floats(0.01, 100)).map(lambda ends: (min(ends), max(ends))),
    st.floats(0, 100),
)
@settings(max_examples=40)
def test_the_value_is_the_plain_minimum_bit_for_bit(
    count: int, seed: int, scales: tuple[float, float], offset: float
) -> None:
    """For networks of any size and place, at points near them and far away."""
    from neuralsdf.backends.cpu import NativeBackend

    rng = np.random.default_rng(seed)
    frames = np.array(
        [
            placed(rng, rng.normal(size=3) * 3 + offset, np.exp(rng.uniform(*np.log(scales))))
            for _ in range(count)
        ]
    )
    tape = nearest(frames, [network(0), network(1)])
    points = somewhere(300, 5.0, seed) + np.float32(offset)
    for isa in ISAS:
        engine = NativeBackend(isa)
        each = [engine.assemble(one).evaluate_with_gradient(points) for one in alone(tape)]
        values, gradients = (np.stack(of_all) for of_all in zip(*each, strict=True))
        value, gradient = engine.assemble(tape).evaluate_with_gradient(points)
        np.testing.assert_array_equal(value, values.min(axis=0))
        np.testing.assert_array_equal(engine.assemble(tape).evaluate(points), value)
        np.testing.assert_array_equal(gradient, gradients[values.argmin(axis=0), np.arange(len(points))])


def test_a_thousand_networks_have_the_plain_minimum(core_backend) -> None:
    tape = scattered(1000, scales=(0.02, 0.05), networks=7)
    points = somewhere(400, 1.0)
    value = core_backend.assemble(tape).evaluate(points)
    plain = np.min([core_backend.assemble(one).evaluate(points) for one in alone(tape)], axis=0)
    np.testing.assert_array_equal(value, plain)


def test_the_first_of_equal_networks_gives_the_gradient(core_backend) -> None:
    """Also where a network and its mirror image have equal values."""
    rng = np.random.default_rng(0)
    frame = placed(rng, [0.2, 0.1, 0], 0.5)
    points = somewhere(500, 1.0)
    once = core_backend.assemble(nearest(frame[None], [network(0)])).evaluate_with_gradient(points)
    often = core_backend.assemble(nearest(np.tile(frame, (50, 1)), [network(0), network(0)]))
    for one, many in zip(once, often.evaluate_with_gradient(points), strict=True):
        np.testing.assert_array_equal(one, many)
    left, right = (np.array([side, 0, 0, 0, 1, 0, 0, 0, 1, 0.5, 0, 0, 1.0]) for side in (1, -1))
    between = somewhere(100, 1.0) * np.float32([0, 1, 1])
    for frames, side in ((np.array([left, right]), left), (np.array([right, left]), right)):
        of_both = core_backend.assemble(nearest(frames, [octahedron(0.4)])).evaluate_with_gradient(between)
        of_one = core_backend.assemble(nearest(side[None], [octahedron(0.4)])).evaluate_with_gradient(between)
        for both, one in zip(of_both, of_one, strict=True):
            np.testing.assert_array_equal(both, one)


def test_nan_points_change_no_others(core_backend) -> None:
    program = core_backend.assemble(scattered(30))
    points = somewhere(4000, 1.0)
    expected = program.evaluate(points)
    lost = np.arange(5, 4000, 97)
    points[lost, lost % 3] = np.nan
    value, gradient = program.evaluate_with_gradient(points)
    np.testing.assert_array_equal(np.isnan(value), np.isin(np.arange(4000), lost))
    np.testing.assert_array_equal(np.delete(value, lost), np.delete(expected, lost))
    assert np.isfinite(np.delete(gradient, lost, axis=0)).all()
    assert program.evaluate(np.empty((0, 3), np.float32)).shape == (0,)


def test_results_do_not_depend_on_the_threads_or_on_the_other_points(core_backend, monkeypatch) -> None:
    program = core_backend.assemble(scattered(50))
    points = somewhere(5000, 1.0)
    value, gradient = program.evaluate_with_gradient(points)
    monkeypatch.setattr(thread_count, "threads", lambda: 3)
    monkeypatch.setattr("neuralsdf.backends.cpu.threads", lambda: 3)
    for order in (np.arange(5000), np.random.default_rng(1).permutation(5000)[:1234]):
        again = program.evaluate_with_gradient(np.ascontiguousarray(points[order]))
        np.testing.assert_array_equal(again[0], value[order])
        np.testing.assert_array_equal(again[1], gradient[order])


# -- rays ---------------------------------------------------------------------------------------------


def test_rays_hit_what_the_reference_hits(core_backend) -> None:
    rng = np.random.default_rng(2)
    frames = np.array([placed(rng, rng.uniform(-0.5, 0.5, 3), 0.2) for _ in range(30)])
    tape = nearest(frames, [octahedron(size) for size in (0.5, 0.6, 0.7)])
    program, reference = core_backend.assemble(tape), TapeProgram(tape, get_backend("torch").compile)
    begin, directions, ends, at_ball = eye_rays(4000)
    found, expected = (each.trace(begin, directions, ends, at_ball, STEPS) for each in (program, reference))
    same = found.hit == expected.hit
    assert same.mean() > 0.99
    assert expected.hit.sum() > 500
    both = found.hit & expected.hit
    # The gradient norm of an octahedron exceeds 1: one tracer may step over a corner that the other hits.
    assert (np.abs(found.t - expected.t)[both] < 1e-4).mean() > 0.99
    assert not found.unresolved.any()
    cone = SoftShadow()
    share, count = program.soft_shadow(begin, directions, ends, cone)
    assert count > 0
    np.testing.assert_allclose(share, reference.soft_shadow(begin, directions, ends, cone)[0], atol=1e-3)


# -- compiling ----------------------------------------------------------------------------------------


def leaf(seed: int, architecture: Architecture = SMALL) -> Shape:
    return from_field(
        NeuralField(network(seed, architecture), Similarity.from_ball([0.1, 0, 0], 0.5)), f"{seed}.h5"
    )


def ops(shape: Shape) -> list[int]:
    return compile_shape(shape, Similarity.from_ball([0, 0, 0], 3)).code[:, 0].tolist()


def test_unions_of_networks_are_one_instruction_however_nested() -> None:
    a, b, c, d = (leaf(seed).translate(seed, 0, 0) for seed in range(4))
    for shape in (
        a | b | c | d,
        (a | b) | (c | d).rotate(30),
        a | (b | (c | d).scale(2)).reflect(1),
        a | smooth(0, b | c) | d,
        union([a, b, c, d]),
    ):
        assert ops(shape) == [Op.NEAREST]
    assert str(union([a, b, c])) == str(a | b | c)
    assert ops(union([a])) == [Op.FIELD]
    with pytest.raises(UsageError, match="no shape"):
        union([])


def test_other_parts_are_joined_to_the_union_of_networks() -> None:
    a, b, c = (leaf(seed).translate(seed, 0, 0) for seed in range(3))
    mesh = from_field(Analytic(ball_distance(0.3), Similarity.from_ball([1, 1, 0], 0.5)), "mesh.obj")
    wide = leaf(3, Architecture((8, 8), "tanh"))
    mixed = box(0.3) | a | mesh | (b - sphere(0.2)) | c | wide
    found = ops(mixed)
    assert found.count(Op.NEAREST) == 1
    assert found.count(Op.FIELD) == 2  # b, and the mesh
    points = np.random.default_rng(0).uniform(-2, 2, (2000, 3))
    plain = np.min([part.distance(points) for part in (box(0.3), a, mesh, b - sphere(0.2), c, wide)], axis=0)
    np.testing.assert_allclose(mixed.distance(points), plain, atol=2e-5)


def test_smooth_unions_are_not_merged() -> None:
    a, b, c = (leaf(seed) for seed in range(3))
    assert ops(a | smooth(0.1, b)) == [Op.FIELD, Op.FIELD, Op.UNION]
    assert ops((a | b) | smooth(0.1, c)) == [Op.NEAREST, Op.FIELD, Op.UNION]
    assert ops(a & b) == [Op.FIELD, Op.FIELD, Op.INTERSECTION]


@given(st.lists(st.tuples(*[st.integers(0, 5)] * 2), min_size=1, max_size=8), st.integers(0, 2**32 - 1))
@settings(max_examples=40)
def test_any_union_is_the_minimum_of_its_parts(joins: list[tuple[int, int]], seed: int) -> None:
    """For any nesting of networks and solids, with the number of registers that the tape states."""
    rng = np.random.default_rng(seed)
    parts = [leaf(0), sphere(0.3), leaf(1) - box(0.2), leaf(2) | box(0.2), leaf(0), box(0.3) & sphere(0.2)]
    shapes = [part.translate(*rng.uniform(-1, 1, 3)) for part in parts]
    points = rng.uniform(-3, 3, (200, 3))
    for a, b in joins:
        both = shapes[a].scale(1.5), shapes[b].rotate(20, 1)
        shapes[a] = both[0] | both[1]
    place = Similarity.from_ball([0, 0, 0], 1)
    whole, *each = (
        TapeProgram(compile_shape(shape, place), get_backend().compile).evaluate(points)
        for shape in (shapes[a], *both)
    )
    np.testing.assert_allclose(whole, np.minimum(*each), atol=2e-5)


def test_a_long_chain_of_networks_is_no_deeper_than_a_short_one() -> None:
    one = leaf(0)
    chain = union(one.translate(3 * number) for number in range(3000))
    tape = compile_shape(chain, Similarity.from_ball([4500, 0, 0], 4502))
    assert (tape.code.shape, tape.values, len(tape.leaves)) == ((1, 5), 1, 1)


# -- invalid tapes ------------------------------------------------------------------------------------


@needs_core
@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (lambda code, numbers: code.__setitem__((0, 3), 0), "at least one network"),
        (lambda code, numbers: code.__setitem__((0, 3), -1), "parameter index out of range"),
        (lambda code, numbers: code.__setitem__((0, 3), 4), "parameter index out of range"),
        (lambda code, numbers: code.__setitem__((0, 2), 1), "register 1 does not exist"),
        (lambda code, numbers: numbers.__setitem__((1, FRAME), 3), "leaf index out of range"),
        (lambda code, numbers: numbers.__setitem__((1, FRAME), 0.5), "leaf index out of range"),
        (lambda code, numbers: numbers.__setitem__((1, FRAME), 2), "networks only"),
        (lambda code, numbers: numbers.__setitem__((1, 0), 7), "must be a similarity"),
        (lambda code, numbers: numbers.__setitem__((1, 9), np.nan), "must be a similarity"),
        (lambda code, numbers: numbers.__setitem__((1, FRAME - 1), 0), "must be a similarity"),
    ],
)
def test_an_invalid_tape_is_refused(change, complaint: str) -> None:
    tape = scattered(3, networks=2)
    code, numbers = tape.code.copy(), tape.parameters.reshape(3, FRAME + 1).copy()
    change(code, numbers)
    mesh = Analytic(ball_distance(0.3))
    bad = Tape(code, numbers.ravel(), (*tape.leaves, mesh), 1, 1, 1.0)
    with pytest.raises(ValueError, match=complaint):
        get_backend("native").assemble(bad)
