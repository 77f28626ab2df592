"""Tapes by the CUDA kernels, against the reference in numpy. Without a GPU they run on the host
(cuda_host.py); with one, the same tests run on it too."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from neuralsdf.backends import get_backend
from neuralsdf.backends.cuda import CudaBackend, device
from neuralsdf.backends.cuda.tape import POINTS, VALUES, CudaTape
from neuralsdf.backends.reference.sphere_tracing import SoftShadow
from neuralsdf.csg import Shape, box, from_field, smooth, sphere, torus
from neuralsdf.csg.compile import compile_shape
from neuralsdf.fields.field import NeuralField
from neuralsdf.geometry.similarity_transform import Similarity
from neuralsdf.program.network import Architecture, Network, initialise
from neuralsdf.program.tape_format import Op

from ...helpers.core import ISAS
from ...helpers.cuda_host import HostDriver, installed
from ...helpers.lattices import surfaces
from ...helpers.rays import STEPS, chords
from ...helpers.tapes import SHAPES, assert_same_program, compiled, measured, neural, reference, somewhere
from ...helpers.trees import BENT, trees

pytestmark = pytest.mark.skipif(not ISAS, reason="the C++ core, which checks tapes, was not built")


def assembled(backend: CudaBackend, tape):
    program = backend.assemble(tape)
    assert isinstance(program, CudaTape)
    return program


def wide(seed: int, hidden: tuple[int, ...], x: float = 0.0) -> Shape:
    """A leaf with a random network of these widths, in its own ball."""
    architecture = Architecture(hidden, "softplus")
    network = Network(architecture, initialise(architecture, seed) + np.float32(0.01))
    return from_field(NeuralField(network, Similarity.from_ball([x, 0, 0], 0.5)), f"{seed}.h5")


def scene(count: int, hidden: tuple[int, ...] = (16, 24)) -> Shape:
    """The union of networks of any widths side by side, as one operation."""
    whole = wide(0, hidden)
    for seed in range(1, count):
        whole = whole | wide(seed, hidden[: 1 + seed % 2], 0.4 * seed - 0.2 * count)
    return whole


@pytest.mark.parametrize("name", SHAPES)
def test_every_operation_equals_the_reference(backend, name):
    tape = compiled(SHAPES[name])
    assert_same_program(assembled(backend, tape), reference(tape), somewhere(700))


@given(shape=trees, seed=st.integers(0, 2**32 - 1))
@settings(
    max_examples=30,
    derandomize=True,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
def test_any_tree_equals_the_reference(backend, shape, seed):
    tape = compiled(shape)
    assert_same_program(assembled(backend, tape), reference(tape), somewhere(300, seed, 2.0), 0.98)


@pytest.mark.parametrize("hidden", [(16,), (16, 32), (64, 40), (128, 7, 128)], ids=str)
def test_leaf_networks_are_evaluated_in_their_own_frame(backend, hidden):
    """Inside and outside their balls; networks of several widths in one tape, one of them repeated."""
    a, b = wide(0, hidden, 0.3), wide(1, (5, 16))
    tree = (
        a.rotate(40, 1, 2).repeat(1.4, 0, 0, 3)
        | b.scale(0.3).twist(30).translate(-0.3)
        | (a - b.translate(0.2)).symmetry(1, 1).displace(0.02, 0.4)
    )
    tape = compiled(tree)
    assert (tape.code[:, 0] == Op.FIELD).sum() >= 5
    assert_same_program(assembled(backend, tape), reference(tape), somewhere(900, extent=2.0), 0.98)


@pytest.mark.parametrize("count", [2, 3, 12])
def test_the_nearest_of_many_networks_equals_the_reference(backend, count):
    tape = compiled(scene(count))
    assert tape.code[:, 0].tolist() == [Op.NEAREST]
    assert_same_program(assembled(backend, tape), reference(tape), somewhere(900, extent=3.0), 0.98)


def test_distant_networks_are_not_evaluated(backend):
    """A distant network with NaN values changes no point and no ray."""
    near, far = wide(0, (16,), 2.0), wide(1, (16,), 40.0)
    assert far.field is not None
    far.field.leaf.weights[:] = np.nan
    tape = compile_shape(near | far, Similarity.from_ball([40, 0, 0], 20.0))
    assert tape.code[:, 0].tolist() == [Op.NEAREST]
    points = somewhere(300, extent=0.02) + np.float32([-1.9, 0, 0])
    expected = compile_shape(near, Similarity.from_ball([40, 0, 0], 20.0))
    assert_same_program(assembled(backend, tape), reference(expected), points)
    begin, directions, ends, at_ball = chords(50)
    begin = (0.02 * begin + [-1.9, 0, 0]).astype(np.float32)
    traced = assembled(backend, tape).trace(begin, directions, 0.01 * ends, at_ball, STEPS.astype(np.float32))
    assert not traced.unresolved.any()


@pytest.mark.parametrize("count", [0, 1, 31, 32, 33, 255, 257, 1100])
def test_every_number_of_points_works(backend, count):
    tape = compiled(BENT["all"] | neural(1))
    assert_same_program(assembled(backend, tape), reference(tape), somewhere(count))


@pytest.mark.parametrize(
    "shape",
    [
        BENT["all"],
        BENT["repeated"] & box(1.6),
        box(0.3, 0.2, 1).twist(200),
        neural(0) - sphere(0.2) | torus(0.7, 0.1),
        scene(4) & sphere(0.8),
    ],
    ids=str,
)
def test_rays_hit_what_the_reference_hits(backend, shape):
    tape = compile_shape(shape, Similarity.identity())
    program, expected = assembled(backend, tape), reference(tape)
    begin, directions, ends, at_ball = chords(700)
    steps = (STEPS / np.float32(max(1.0, shape.lipschitz))).astype(np.float32)
    ours = program.trace(begin, directions, ends, at_ball, steps)
    theirs = expected.trace(begin, directions, ends, at_ball, steps)
    assert theirs.hit.sum() >= 20
    same = (ours.hit == theirs.hit) & (ours.buried == theirs.buried) & (ours.unresolved == theirs.unresolved)
    assert same.mean() > 0.99  # grazing rays
    both = ours.hit & theirs.hit
    assert (np.abs(ours.t - theirs.t)[both] < 1e-4).mean() > 0.99
    assert ours.evaluations == pytest.approx(theirs.evaluations, rel=0.03)
    (light, taken), (known, asked) = (
        each.soft_shadow(begin, directions, ends, SoftShadow()) for each in (program, expected)
    )
    assert (np.abs(light - known) < 1e-3).mean() > 0.99
    assert taken == pytest.approx(asked, rel=0.01)


def test_surfaces_equal_those_of_the_cpu(backend):
    """The cells stay on the device."""
    tape = compile_shape(
        torus(0.5, 0.2) - smooth(0.05, box(0.3)) | neural(1) & sphere(0.3), Similarity.identity()
    )
    ours, *others = surfaces(assembled(backend, tape), 34)
    for other in others:
        np.testing.assert_array_equal(ours.faces, other.faces)
        np.testing.assert_array_equal(ours.vertices, other.vertices)


def test_tapes_too_large_for_the_device_run_on_the_cpu(backend):
    """Meshes, more registers than a thread has, and networks that are too wide."""
    many = [sphere(0.05).translate(*centre) for centre in somewhere(1 << 4).tolist()]
    folded = sphere(0.3).translate(0.3, 0.2)
    for _ in range(POINTS):
        folded = folded.symmetry(1).twist(3)
    tape = compiled(many[0])
    assert isinstance(backend.assemble(tape), CudaTape)
    assert compiled(folded).points > POINTS
    for other in (compiled(measured(0) | sphere()), compiled(folded), replace(tape, values=VALUES + 1)):
        program = backend.assemble(other)
        assert not isinstance(program, CudaTape)
        points = somewhere(50)
        np.testing.assert_allclose(program.evaluate(points), reference(other).evaluate(points), atol=1e-5)
    with pytest.warns(UserWarning, match="widths up to 128"):
        program = backend.assemble(compiled(wide(0, (129,))))
    assert not isinstance(program, CudaTape)


def test_invalid_tapes_are_refused_before_the_device(backend):
    tape = compiled(sphere(0.5) | neural(0))
    for column, number in ((0, 99), (1, 24), (2, -1), (4, 1 << 20)):
        code = tape.code.copy()
        code[0, column] = number
        with pytest.raises(ValueError, match=r"instruction|tape|register|parameter|operation"):
            backend.assemble(replace(tape, code=code))


@pytest.mark.parametrize("limit", [232_448, 166_912, 101_376])
def test_the_widest_networks_fit_any_shared_memory(library, monkeypatch, tmp_path, limit):
    driver = installed(HostDriver(library, shared_limit=limit), monkeypatch, tmp_path)
    backend = CudaBackend(device.Device(), get_backend("torch"))
    tape = compiled(scene(3, (128, 128)))
    program = assembled(backend, tape)
    assert_same_program(program, reference(tape), somewhere(300), 0.98)
    begin, directions, ends, at_ball = chords(40)
    program.trace(begin, directions, ends, at_ball, STEPS.astype(np.float32))
    assert all(shared <= limit for *_, shared in driver.launches)


def test_threads_of_a_phase_may_run_in_any_order(driver):
    backend = CudaBackend(device.Device(), get_backend("torch"))
    tape = compiled(scene(3) | BENT["all"])
    begin, directions, ends, at_ball = chords(300)
    results = []
    for driver.falling in (False, True):
        program = assembled(backend, tape)
        traced = program.trace(begin, directions, ends, at_ball, STEPS.astype(np.float32))
        arrays = [
            *program.evaluate_with_gradient(somewhere(400)),
            program.evaluate(somewhere(400)),
            *traced[:4],
        ]
        results.append((traced.evaluations, *(array.tobytes() for array in arrays)))
    assert results[0] == results[1]
