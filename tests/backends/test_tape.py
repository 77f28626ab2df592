"""Tapes in the C++ core, and the arithmetic that GPUs share with it, against the reference in numpy."""

from __future__ import annotations

import ctypes
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

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
from neuralsdf.backends.value_outside_ball import Extended
from neuralsdf.csg import Shape, box, capsule, from_field, sphere, torus
from neuralsdf.csg.compile import compile_shape
from neuralsdf.fields.extract import extract
from neuralsdf.fields.field import Field
from neuralsdf.geometry.similarity_transform import Similarity
from neuralsdf.program.network import Network
from neuralsdf.program.tape_format import FRAME, Op, Tape

from ..helpers.core import ISAS, needs_core
from ..helpers.cuda_host import COMPILER, FLAGS
from ..helpers.fields import Analytic
from ..helpers.fields import sphere as ball_distance
from ..helpers.rays import STEPS, eye_rays
from ..helpers.tapes import (
    BRACKET,
    SHAPES,
    assert_same_program,
    compiled,
    either,
    measured,
    neural,
    reference,
    somewhere,
)
from ..helpers.trees import BENT, trees

KERNELS = Path(__file__).resolve().parents[2] / "kernels"


# -- values and gradients -----------------------------------------------------------------------------


@pytest.mark.parametrize("name", SHAPES)
def test_every_operation_equals_the_reference(core_backend, name: str) -> None:
    tape = compiled(SHAPES[name])
    assert_same_program(core_backend.assemble(tape), reference(tape), somewhere(3000))


@needs_core
@given(trees, st.integers(0, 2**32 - 1))
@settings(max_examples=80, derandomize=True)
def test_any_tree_equals_the_reference_on_every_instruction_set(shape: Shape, seed: int) -> None:
    from neuralsdf.backends.cpu import NativeBackend

    tape = compiled(shape)
    for isa in ISAS:
        assert_same_program(
            NativeBackend(isa).assemble(tape), reference(tape), somewhere(400, seed, 2.0), 0.98
        )


@pytest.mark.parametrize("leaf", [neural, measured, either])
def test_leaf_fields_are_evaluated_in_their_own_frame(core_backend, leaf: Callable[..., Shape]) -> None:
    """Networks inside and outside their balls, fields implemented in Python, and both."""
    a, b = leaf(0, 0.3, 0.1), leaf(1)
    tree = (
        a.rotate(40, 1, 2).repeat(1.4, 0, 0, 3)
        | b.scale(0.3).twist(30).translate(-0.3)
        | (a - b.translate(0.2)).symmetry(1, 1).displace(0.02, 0.4)
    )
    tape = compiled(tree)
    assert len(tape.leaves) == 2
    assert (tape.code[:, 0] == Op.FIELD).sum() >= 5
    assert_same_program(core_backend.assemble(tape), reference(tape), somewhere(2500, extent=2.0), 0.98)


def test_any_number_of_points_keeps_its_order(core_backend, monkeypatch) -> None:
    """The sample of a point depends neither on the other points nor on the block size."""
    monkeypatch.setattr("neuralsdf.backends.cpu.ANSWERS", 700)
    for tree in (BENT["all"] | torus(), neural(0) | BENT["all"], measured(0) - neural(1)):
        program, points = core_backend.assemble(compiled(tree)), somewhere(1500)
        values, gradients = program.evaluate_with_gradient(points)
        for start, end in ((0, 0), (0, 1), (3, 18), (20, 36), (40, 135), (200, 296), (300, 397), (401, 1500)):
            part = program.evaluate_with_gradient(points[start:end])
            np.testing.assert_array_equal(part[0], values[start:end])
            np.testing.assert_array_equal(part[1], gradients[start:end])
            np.testing.assert_array_equal(
                program.evaluate(points[start:end]), program.evaluate(points)[start:end]
            )


def test_results_do_not_depend_on_the_threads(core_backend) -> None:
    results = []
    points, arguments = somewhere(10_001), (*eye_rays(20_000), STEPS)
    for threads in (1, 2, 5):
        thread_count.set_threads(threads)
        program = core_backend.assemble(compiled(BENT["all"] | neural(1)))
        traced = program.trace(*arguments)
        shares, _ = program.soft_shadow(*arguments[:3], SoftShadow())
        outcome = *program.evaluate_with_gradient(points), *traced[:4], shares
        results.append([array.tobytes() for array in outcome])
    assert results[0] == results[1] == results[2]


@pytest.mark.parametrize("name", SHAPES)
def test_a_nan_point_gives_nan_and_affects_no_other_point(core_backend, name: str) -> None:
    tape = compiled(SHAPES[name])
    points = somewhere(200)
    points[17, 1], points[40] = np.nan, np.nan
    others = ~np.isnan(points).any(axis=1)
    for program in (core_backend.assemble(tape), reference(tape)):
        expected = program.evaluate_with_gradient(somewhere(200))
        values, gradients = program.evaluate_with_gradient(points)
        assert np.isnan(values[~others]).all()
        np.testing.assert_array_equal(values[others], expected[0][others])
        np.testing.assert_array_equal(gradients[others], expected[1][others])
        with np.errstate(all="ignore"):
            program.evaluate(points * np.float32(np.inf))
            program.evaluate(points * np.float32(1e38))


def test_a_nan_leaf_makes_the_tree_nan(core_backend) -> None:
    nowhere = from_field(Analytic(lambda p: np.where(p[:, 0] > 0, np.nan, p[:, 1])), "nowhere.obj")
    points = somewhere(300)
    for tree in (nowhere | sphere(), sphere() | nowhere, sphere() & nowhere, sphere() - nowhere):
        tape = compile_shape(tree, Similarity.identity())
        for program in (core_backend.assemble(tape), reference(tape)):
            np.testing.assert_array_equal(np.isnan(program.evaluate(points)), points[:, 0] > 0)


# -- registers ----------------------------------------------------------------------------------------


def test_a_tape_of_many_registers_of_points_evaluates(core_backend) -> None:
    """Three thousand nested folds: the registers hold fewer points than a block."""
    shape = sphere(0.3).translate(0.3, 0.2)
    for _ in range(1500):
        shape = shape.symmetry(1).symmetry(0, 1)
    points = somewhere(70)
    tape = compile_shape(shape, Similarity.identity())
    assert tape.points == 3001
    values, gradients = core_backend.assemble(tape).evaluate_with_gradient(points)
    towards = np.abs(points) * [1, 1, 0] + points * [0, 0, 1] - [0.3, 0.2, 0]
    length = np.linalg.norm(towards, axis=1)
    np.testing.assert_allclose(values, length - 0.3, atol=1e-6)
    np.testing.assert_allclose(
        gradients, towards / length[:, None] * np.where(points < 0, [-1, -1, 1], 1), atol=1e-5
    )


def test_a_tape_of_many_registers_of_values_evaluates(core_backend) -> None:
    balls = [sphere(0.05).translate(*centre) for centre in somewhere(1 << 12).tolist()]
    level = list(balls)
    while len(level) > 1:
        level = [a & b for a, b in zip(level[::2], level[1::2], strict=True)]
    tape = compile_shape(level[0], Similarity.identity())
    assert tape.values == 13
    assert_same_program(core_backend.assemble(tape), reference(tape), somewhere(100, seed=1))


# -- rays ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "shape",
    [
        BRACKET.scale(1 / 50),
        BENT["all"],
        BENT["smooth difference"],
        BENT["displaced"],
        BENT["repeated"] & box(1.6),
        box(0.3, 0.2, 1).twist(200),
        neural(0) - sphere(0.2) | torus(0.7, 0.1),
        measured(0) - sphere(0.3).translate(0.4),
    ],
    ids=str,
)
def test_rays_hit_what_the_reference_hits(core_backend, shape: Shape) -> None:
    tape = compile_shape(shape, Similarity.identity())
    program, expected = core_backend.assemble(tape), reference(tape)
    begin, directions, ends, at_ball = eye_rays(3000)
    steps = STEPS / np.float32(max(1.0, shape.lipschitz))
    traced = program.trace(begin, directions, ends, at_ball, steps)
    known = expected.trace(begin, directions, ends, at_ball, steps)
    assert known.hit.sum() > 100
    assert (traced.hit == known.hit).mean() > 0.995  # grazing rays
    assert (traced.buried == known.buried).mean() > 0.998
    np.testing.assert_array_equal(traced.unresolved, known.unresolved)
    both = traced.hit & known.hit
    assert (np.abs(traced.t - known.t)[both] < 1e-3).mean() > 0.995
    points = begin + traced.t[:, None] * directions
    assert np.abs(program.evaluate(points[traced.hit & (traced.t > 0)])).max() < 1e-5
    share, _ = program.soft_shadow(begin, directions, ends, SoftShadow())
    lit, _ = expected.soft_shadow(begin, directions, ends, SoftShadow())
    assert (np.abs(share - lit) < 1e-3).mean() > 0.998


def test_no_ray_passes_through_a_surface(core_backend) -> None:
    """The core has the same hits as a march in small steps, on a tree whose values are only bounds."""
    shape = (capsule(0.05, 1) | box(0.4, 0.02, 1) - sphere(0.2)).twist(90) & sphere(0.7)
    program = core_backend.assemble(compile_shape(shape, Similarity.identity()))
    at_ball = eye_rays(1500)[3]
    begin, directions, ends, at_ball = (array[at_ball] for array in eye_rays(1500))
    traced = program.trace(begin, directions, ends, at_ball, STEPS / np.float32(shape.lipschitz))
    t = np.linspace(0, 2, 1001, dtype=np.float32)
    along = begin[:, None] + t[:, None] * directions[:, None]
    inside = program.evaluate(along.reshape(-1, 3)).reshape(along.shape[:2]) < 0
    inside &= t < ends[:, None]
    first = np.where(inside.any(axis=1), t[inside.argmax(axis=1)], np.inf)
    assert np.isfinite(first).sum() > 100
    assert (np.where(traced.hit, traced.t, np.inf) <= first + 1e-4).mean() > 0.998


@pytest.mark.parametrize("name", ["native", "torch"])
def test_a_tree_is_evaluated_by_the_chosen_backend(name: str, monkeypatch) -> None:
    if name == "native" and not ISAS:
        pytest.skip("the C++ core was not built")
    monkeypatch.setenv("NEURALSDF_BACKEND", name)
    field = replace(BENT["smooth difference"])  # a copy: a shape keeps its program
    assert isinstance(field.program, TapeProgram) == (name == "torch")
    surface = extract(field, 48)
    assert surface.watertight
    assert np.abs(field.distance(surface.vertices)).max() < 0.01


# -- invalid tapes ------------------------------------------------------------------------------------


def changed(tape: Tape, row: int, column: int, number: int) -> Tape:
    code = tape.code.copy()
    code[row, column] = number
    return replace(tape, code=code)


def with_leaf(tape: Tape, number: float) -> Tape:
    parameters = tape.parameters.copy()
    parameters[tape.code[0, 4] + FRAME] = number
    return replace(tape, parameters=parameters)


TREE = compiled((neural(0) & sphere().symmetry(1)) - box().offset(0.1))


@needs_core
@pytest.mark.parametrize(
    ("bad", "why"),
    [
        *[(changed(TREE, 0, 0, op), "operation") for op in (-1, 9, 31, 54, 66, 1 << 30)],
        *[(changed(TREE, row, 1, out), "does not exist") for row in range(len(TREE.code)) for out in (-1, 2)],
        *[(changed(TREE, 0, 2, a), "does not exist") for a in (-1, 2, 2**31 - 1, -(2**31))],
        (changed(TREE, 0, 2, 1), "before it is written"),
        (changed(TREE, 3, 3, 5), "does not exist"),
        *[
            (changed(TREE, 0, 4, at), "parameter index")
            for at in (-1, len(TREE.parameters) - FRAME, 2**31 - 1)
        ],
        (replace(TREE, parameters=TREE.parameters[:-1]), "parameter index"),
        *[(with_leaf(TREE, leaf), "leaf") for leaf in (-1, 1, 0.5, np.nan, np.inf)],
        (replace(TREE, points=0), "registers"),
        (replace(TREE, values=0), "registers"),
        (replace(TREE, points=1 << 30), "registers"),
        (replace(TREE, values=1), "does not exist"),
        (replace(TREE, code=TREE.code[:0]), "registers"),
        (replace(TREE, code=TREE.code[1:]), "before it is written"),
        (replace(TREE, code=TREE.code[:, :4].copy()), "shape"),
        (replace(TREE, code=TREE.code.astype(np.int64)), "int32"),
        (replace(TREE, code=TREE.code[::2]), "C-contiguous"),
        (replace(TREE, parameters=TREE.parameters.astype(np.float32)), "float64"),
        (replace(TREE, lipschitz=0.0), "lipschitz"),
        (replace(TREE, lipschitz=np.nan), "lipschitz"),
    ],
)  # fmt: skip
def test_an_invalid_tape_is_refused(bad: Tape, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        get_backend("native").assemble(bad)


@needs_core
@given(st.data())
@settings(max_examples=200, derandomize=True)
def test_any_code_is_refused_or_runs(data: st.DataObject) -> None:
    """No tape causes reads out of bounds, which the sanitizers check."""
    number = st.one_of(st.integers(-1, 2), st.sampled_from([0, 0, 0, 1, 1]))
    row = st.tuples(st.sampled_from([*Op, *Op, 9]), number, number, number, st.integers(-1, 40))
    code = np.array(data.draw(st.lists(row, min_size=1, max_size=6)), np.int32)
    numbers = np.random.default_rng(data.draw(st.integers(0, 99))).normal(size=60)
    numbers[::7] = 0
    tape = Tape(code, numbers, TREE.leaves, data.draw(st.integers(0, 3)), data.draw(st.integers(0, 3)), 1.0)
    try:
        program = get_backend("native").assemble(tape)
    except ValueError:
        return
    assert program.evaluate_with_gradient(somewhere(20))[1].shape == (20, 3)
    assert program.trace(*eye_rays(20), STEPS).t.shape == (20,)


@needs_core
def test_the_core_refuses_invalid_values_of_fields() -> None:
    from neuralsdf.kernels._core import Core

    tape = compiled(measured(0) | measured(1))
    program = Core(ISAS[0]).assemble(tape.code, tape.parameters, [None, None], tape.points, tape.values, 1.0)
    points = somewhere(10)
    places = program.field_points(points, 1)
    assert places.shape == (2, 10, 3)
    answers, slopes = np.zeros((2, 10), np.float32), np.zeros((2, 10, 3), np.float32)
    assert program.evaluate_fields(points, answers, 1).shape == (10,)
    for bad in (answers[:1], answers[:, :9].copy(), answers.astype(np.float64), answers[:, ::2], answers[0]):
        with pytest.raises(ValueError, match=r"values must"):
            program.evaluate_fields(points, bad, 1)
        with pytest.raises(ValueError, match=r"values must"):
            program.evaluate_fields_with_gradient(points, bad, slopes, 1)
    for bad in (slopes[:1], slopes[:, :9].copy(), slopes[..., :2].copy(), slopes.astype(np.float64)):
        with pytest.raises(ValueError, match=r"gradients must"):
            program.evaluate_fields_with_gradient(points, answers, bad, 1)
    for asked in (program.evaluate, program.evaluate_with_gradient):
        with pytest.raises(ValueError, match="evaluated with their values"):
            asked(points, 1)
    with pytest.raises(ValueError, match="points must"):
        program.field_points(points[:, :2].copy(), 1)


@needs_core
@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize(
    ("leaf", "parts"), [("ellipsoid(1, 2, 3)", 2000), ("from_field(network, 'a.h5')", 20)]
)
def test_a_long_call_can_be_interrupted(threads: int, leaf: str, parts: int) -> None:
    """Ctrl-C half a second into a call that would take minutes."""
    code = (
        "import numpy as np, signal; from neuralsdf.csg import *;"
        "from neuralsdf.fields.field import NeuralField; from neuralsdf.program.network import *;"
        "from neuralsdf.geometry.similarity_transform import Similarity;"
        "from neuralsdf.csg.compile import compile_shape; from neuralsdf.backends import get_backend;"
        "from neuralsdf.thread_count import set_threads;"
        f"set_threads({threads}); a = Architecture((256,) * 4);"
        "weights = np.zeros(a.weight_count, np.float32); identity = Similarity.identity();"
        f"network = NeuralField(Network(a, weights), identity); leaf = tree = {leaf}\n"
        f"for index in range({parts}): tree = tree | leaf.translate(index / 20)\n"
        "tape = compile_shape(tree, identity); points = np.zeros((1 << 22, 3), np.float32);"
        "program = get_backend('native').assemble(tape);"
        "signal.signal(signal.SIGALRM, signal.default_int_handler);"
        "signal.setitimer(signal.ITIMER_REAL, 0.5);"
        "program.evaluate_with_gradient(points)"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert result.stderr.rstrip().endswith("KeyboardInterrupt")


# -- one point at a time, as on a GPU -----------------------------------------------------------------


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> ctypes.CDLL:
    """tape_operations.h for numbers instead of vectors, compiled for this processor."""
    if COMPILER is None:
        pytest.skip("there is no C++ compiler here")
    library = tmp_path_factory.mktemp("tape") / "tape_host.so"
    source = Path(__file__).with_name("tape_host.cpp")
    subprocess.run([COMPILER, *FLAGS, f"-I{KERNELS}", "-o", library, source], check=True)
    return ctypes.CDLL(str(library))


def pointer(array: npt.NDArray[Any]) -> ctypes.c_void_p:
    return ctypes.c_void_p(array.ctypes.data)


class OnePoint:
    """A tape without fields, by tape_operations.h, one point at a time."""

    def __init__(self, host: ctypes.CDLL, tape: Tape) -> None:
        self.host, self.code, self.parameters = host, tape.code, tape.parameters.astype(np.float32)

    def evaluate_with_gradient(self, points: FloatArray) -> tuple[FloatArray, FloatArray]:
        samples = np.empty((len(points), 4), np.float32)
        for point, sample in zip(points, samples, strict=True):
            code = pointer(self.code), len(self.code)
            self.host.evaluate(*code, pointer(self.parameters), pointer(point), pointer(sample))
        return samples[:, 0], np.ascontiguousarray(samples[:, 1:])

    def evaluate(self, points: FloatArray) -> FloatArray:
        return self.evaluate_with_gradient(points)[0]


@pytest.mark.parametrize("name", SHAPES)
def test_the_arithmetic_of_gpus_equals_the_reference(host: ctypes.CDLL, name: str) -> None:
    tape = compiled(SHAPES[name])
    assert_same_program(OnePoint(host, tape), reference(tape), somewhere(500))  # type: ignore[arg-type]


def test_the_extension_of_networks_on_gpus_equals_the_reference(host: ctypes.CDLL) -> None:
    leaf = neural(3)
    assert leaf.field is not None
    network = leaf.field.leaf
    assert isinstance(network, Network)
    program = get_backend("torch").compile(network)
    points = somewhere(300, extent=1.5)
    expected = Extended(program).value_and_gradient(points)
    inner = points / np.maximum(np.linalg.norm(points, axis=1, keepdims=True), 1)
    samples = np.column_stack(program.evaluate_with_gradient(inner.astype(np.float32)))
    for point, sample in zip(points, samples, strict=True):
        host.extend(pointer(point), pointer(sample))
    np.testing.assert_allclose(samples[:, 0], expected[0], atol=1e-5)
    assert (np.abs(samples[:, 1:] - expected[1]).max(axis=1) < 1e-3).mean() > 0.98


@pytest.mark.skipif(shutil.which("nvcc") is None, reason="there is no nvcc here")
def test_the_header_compiles_for_cuda(tmp_path: Path) -> None:
    source = Path(__file__).with_name("tape_host.cpp")
    command = ["nvcc", "-std=c++17", "-x", "cu", "-ptx", "-arch=compute_80", "-Werror", "all-warnings"]
    done = subprocess.run(
        [*command, "-I", str(KERNELS), str(source), "-o", str(tmp_path / "tape.ptx")],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


def test_a_field_without_a_network_is_a_leaf() -> None:
    field = Analytic(ball_distance(0.5))
    assert isinstance(field, Field)
    assert field.leaf is field
    tape = compiled(neural(0) | from_field(field, "a.obj") | neural(0))
    assert sorted(isinstance(leaf, Network) for leaf in tape.leaves) == [False, True, True]
