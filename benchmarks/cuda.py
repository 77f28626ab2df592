"""
cuda.py
-------
Claim: on a GPU networks are evaluated, differentiated and traced near the card's own peak, a 512x512 frame a
millisecond, and hundreds are fitted at once, 10 000 in ten minutes; a mesh is extracted sooner than on the
processor. First every operation is compared with the reference; then the kernels are timed by the device's
clock, and held against torch on the same card and against multiplications and additions in registers alone;
evaluation by tensor cores against float32's, and extraction against the native backend's.

    python benchmarks/cuda.py [MODEL] [--size N] [--fits N]

Without a model stanford-bunny.obj is converted first (a minute). Without a GPU it says why it cannot run.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import date
from functools import partial
from typing import Any

import numpy as np
from common import meshes

from neuralsdf.backends import get_backend
from neuralsdf.backends.cuda import CudaBackend, CudaProgram
from neuralsdf.backends.device import Device
from neuralsdf.backends.many import Fits, fit_many
from neuralsdf.backends.self_check import disagreement
from neuralsdf.camera import Camera
from neuralsdf.convert import convert
from neuralsdf.errors import BackendError
from neuralsdf.extract import Surface, model_surface
from neuralsdf.field import ADDED_ERROR, Field, NeuralField
from neuralsdf.fit import Training, learning_rates
from neuralsdf.network import Architecture, FloatArray, Network, initialise
from neuralsdf.optimize import get_optimizer
from neuralsdf.render import Tracer, render
from neuralsdf.render.image import in_tiles
from neuralsdf.storage import open_field

REPEATS = 5
POINTS = 1 << 22
FITS = 1056  # four rounds of an H200's blocks
SAMPLES = 200_000
RESOLUTIONS = (256, 512, 1024)
SHAPES = ((32,) * 8, (16,) * 8, (64,) * 8, (128,) * 8)


@contextmanager
def timed(device: Device) -> Iterator[list[float]]:
    """The seconds of every launch within, by the device's own clock."""
    import pycuda.driver as driver

    launch, seconds = device.launch, list[float]()

    def clocked(*arguments: Any) -> None:
        begin, end = driver.Event(), driver.Event()
        begin.record()
        launch(*arguments)
        end.record()
        end.synchronize()
        seconds.append(end.time_since(begin) * 1e-3)

    device.launch = clocked  # type: ignore[method-assign]
    try:
        yield seconds
    finally:
        del device.launch


def best(device: Device, call: Callable[[], Any]) -> float:
    """Seconds in kernels of the fastest of a few calls."""
    call()
    totals = []
    for _ in range(REPEATS):
        with timed(device) as seconds:
            call()
        totals.append(sum(seconds))
    return min(totals)


def peak(device: Device) -> float:
    """Floating-point operations a second in registers alone."""
    arguments = np.zeros((), np.dtype([("results", np.uintp), ("rounds", np.int32)], align=True))
    blocks, threads, rounds = 32 * device.multiprocessors, 256, 4096

    def call() -> None:
        with device.current():
            arguments["results"] = device.buffer("values", 4 * blocks * threads)
            arguments["rounds"] = rounds
            device.launch("peak", blocks, threads, 0, arguments[()])

    return 2 * 32 * rounds * blocks * threads / best(device, call)


def torch_rate(network: Network, points: FloatArray) -> float | None:
    """Operations a second of torch's evaluation on the same card, in full float32; None if it has no CUDA."""
    import torch

    if not torch.cuda.is_available():
        return None
    torch.backends.cuda.matmul.allow_tf32 = False
    layers = [
        tuple(torch.from_numpy(part.copy()).cuda() for part in layer)
        for layer in network.architecture.layers(network.weights)
    ]
    x = torch.from_numpy(points).cuda()
    seconds = []
    with torch.no_grad():
        for _ in range(REPEATS + 1):
            begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            begin.record()
            y = x
            for kernel, bias in layers[:-1]:
                y = torch.relu(torch.addmm(bias, y, kernel))
            torch.tanh(torch.addmm(layers[-1][1], y, layers[-1][0]))
            end.record()
            end.synchronize()
            seconds.append(begin.elapsed_time(end) * 1e-3)
    return 2 * network.weights.size * len(points) / min(seconds[1:])


def kernels(backend: CudaBackend, hidden: tuple[int, ...], limit: float) -> None:
    """Rates of evaluation, gradient and training step for one network."""
    architecture = Architecture(hidden)
    network = Network(architecture, initialise(architecture, 0))
    rng = np.random.default_rng(0)
    points = rng.uniform(-1, 1, (POINTS * 32 // hidden[0], 3)).astype(np.float32)
    program = backend.compile(network)
    training = architecture, network.weights, points, points[:, 0].copy()
    rows: list[tuple[str, int, Callable[[], Any]]] = [  # with how many evaluations' operations each takes
        ("evaluate", 1, lambda: program.evaluate(points)),
        ("evaluate_with_gradient", 4, lambda: program.evaluate_with_gradient(points)),
        ("loss_gradient", 3, lambda: backend.loss_gradient(*training)),
    ]
    for name, evaluations, call in rows:
        rate = evaluations * 2.0 * network.weights.size * len(points) / best(backend.device, call)
        against = torch_rate(network, points) if name == "evaluate" else None
        other = f"{against / 1e9:8.0f}  {rate / against:5.1f}" if against else f"{'-':>8}  {'-':>5}"
        print(f"{len(hidden)}x{hidden[0]:<6}  {name:22}  {rate / 1e9:8.0f}  {rate / limit:7.0%}  {other}")


def evaluated(
    backend: CudaBackend, network: Network, points: FloatArray, tolerance: float | None
) -> tuple[CudaProgram, float]:
    """The program for a tolerance, and the points a second that it evaluates."""
    program = backend.compile(network, tolerance)
    assert isinstance(program, CudaProgram)
    assert program.tensor_cores == (tolerance is not None)
    return program, len(points) / best(backend.device, lambda: program.evaluate(points))


def tensor_cores(backend: CudaBackend, field: NeuralField) -> None:
    """Points a second by float32 and by tensor cores, and the error that these add near the surface."""
    print(f"\n{'network':8}  {'float32':>9}  {'tensor cores':>12}  {'ratio':>5}  {'added error':>11}")
    networks = {f"{len(h)}x{h[0]}": Network(Architecture(h), initialise(Architecture(h), 0)) for h in SHAPES}
    for name, network in {**networks, "model": field.network}.items():
        count = POINTS * 32 // network.architecture.hidden[0]
        points = np.random.default_rng(0).uniform(-0.5, 0.5, (count, 3)).astype(np.float32)
        _, plain = evaluated(backend, network, points, None)
        program, faster = evaluated(backend, network, points, float("inf"))
        print(f"{name:8}  {plain:9.3g}  {faster:12.3g}  {faster / plain:5.1f}  {program.tensor_error:11.1e}")
    chosen = replace(field).program  # convert compiles one before it knows the error
    assert isinstance(chosen, CudaProgram)
    known = field.metrics.get("surface_mean")
    allowed = f"{ADDED_ERROR * known:.1e} may be added" if known else "its surface error is not known"
    print(
        f"the model: {allowed}; {'tensor cores evaluate' if chosen.tensor_cores else 'float32 evaluates'} it"
    )


def frames(backend: CudaBackend, field: NeuralField, size: int, limit: float) -> None:
    """Frames a second: the sphere trace and normals in kernels alone, and a whole shaded picture."""
    tracer = Tracer(field)
    pixels = in_tiles(size, size)
    camera = Camera.orbit(field.transform)
    rays = camera.rays(field.transform, size, size, pixels % size + 0.5, pixels // size + 0.5)
    before = tracer.evaluations
    hits = tracer.trace(*rays).hit.sum()
    evaluations = tracer.evaluations - before
    seconds = best(backend.device, lambda: tracer.trace(*rays))
    rate = 2 * field.network.weights.size * evaluations / seconds
    print(f"\nsphere trace, {size}x{size}: {1 / seconds:.0f} frames a second in kernels alone")
    print(f"  {hits:,} hits, {evaluations / size**2:.1f} evaluations a pixel, {rate / limit:.0%} of peak")
    render(field, width=size, height=size, antialias=1)
    began = time.perf_counter()
    with timed(backend.device) as in_kernels:
        render(field, width=size, height=size, antialias=1)
    whole = time.perf_counter() - began
    print(f"  a shaded picture: {whole * 1e3:.1f} ms, {sum(in_kernels) * 1e3:.1f} ms of it in kernels")


class OnProcessor(Field):
    """A field whose values are the device's, on the processor's lattice."""

    kind = "distance"

    def __init__(self, field: NeuralField) -> None:
        self.transform, self._program = field.transform, field.program

    def value(self, points: FloatArray) -> FloatArray:
        """Values (n,) at points (n, 3)."""
        return self._program.evaluate(points)

    def value_and_gradient(self, points: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Values (n,) and gradients (n, 3) at points (n, 3)."""
        return self._program.evaluate_with_gradient(points)


def extraction(backend: CudaBackend, field: NeuralField, resolutions: Sequence[int]) -> None:
    """Seconds of extractions, whole and in kernels alone, against the native backend; and equal meshes."""
    native = replace(field, backend="native")

    def seconds(field: Field, resolution: int) -> tuple[float, Surface]:
        surface, taken = model_surface(field, resolution), []
        for _ in range(REPEATS):
            began = time.perf_counter()
            model_surface(field, resolution)
            taken.append(time.perf_counter() - began)
        return min(taken), surface

    names = [get_backend(each.backend).name for each in (field, native)]
    print("\nextraction, seconds")
    print(f"{'cells':>6}  {names[0]:>7}  {'kernels':>7}  {names[1]:>7}  {'ratio':>5}  faces")
    for resolution in resolutions:
        ours, surface = seconds(field, resolution)
        in_kernels = best(backend.device, partial(model_surface, field, resolution))
        theirs, other = seconds(native, resolution)
        expected = model_surface(OnProcessor(field), resolution)
        same = all(
            np.array_equal(getattr(surface, part), getattr(expected, part)) for part in ("vertices", "faces")
        )
        print(
            f"{resolution:6}  {ours:7.4f}  {in_kernels:7.4f}  {theirs:7.4f}  {theirs / ours:5.1f}  "
            f"{len(surface.faces):,}, {names[1]} {len(other.faces):,}; "
            f"{'equal to' if same else 'DIFFERENT from'} the processor's lattice with the same values"
        )


def fits(backend: CudaBackend, count: int, limit: float) -> None:
    """Shapes an hour, sampling apart: spheres, each with samples of its own, by the default training."""
    architecture, training = Architecture(), Training()
    optimizer, rates = get_optimizer(training.optimizer), learning_rates(architecture, training, SAMPLES)
    rng = np.random.default_rng(0)
    points = rng.random((count, SAMPLES, 3), np.float32) * np.float32(1.4) - np.float32(0.7)
    distances = np.linalg.norm(points, axis=2) - rng.uniform(0.2, 0.6, (count, 1)).astype(np.float32)
    weights = np.array([initialise(architecture, row) for row in range(count)])

    def fitted(shapes: int, steps: int, name: str) -> tuple[float, FloatArray]:
        began = time.perf_counter()
        arrays = weights[:shapes], points[:shapes], distances[:shapes]
        _, losses = fit_many(
            Fits(architecture, *arrays, optimizer, training.batch), rates[:steps], backend=name
        )
        return time.perf_counter() - began, losses

    fitted(1, 1, "cuda")  # its own check
    with timed(backend.device) as in_kernels:
        seconds, losses = fitted(count, len(rates), "cuda")
    operations = 6.0 * weights.size * training.batch * len(rates)
    part = len(rates) // 20
    (here, ours), (native, theirs) = (fitted(1, part, name) for name in ("cuda", "native"))
    native *= len(rates) / part
    print(f"\nfits of {count} shapes, {len(rates)} steps of {training.batch} samples, {training.optimizer}:")
    print(
        f"  {count / seconds * 3600:,.0f} shapes an hour, {seconds:.1f} s, {sum(in_kernels):.1f} s in kernels"
    )
    print(f"  10 000 in {1e4 * seconds / count / 60:.1f} minutes")
    print(f"  {operations / sum(in_kernels) / limit:.0%} of peak, counting gradients alone")
    print(f"  one by the native backend: {native:.1f} s, {native * count / seconds:.0f} times as long")
    print(f"  losses: median {np.median(losses):.5f}, worst {losses.max():.5f}")
    print(f"  after {part} steps {ours[0]:.6f} ({here:.2f} s), the native backend's {theirs[0]:.6f}")


def main() -> None:
    """Compare with the reference, then measure."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[3])
    parser.add_argument("model", nargs="?", help="default: stanford-bunny.obj, converted first")
    parser.add_argument("--size", type=int, default=512)
    parser.add_argument("--fits", type=int, default=FITS, help="shapes that are fitted at once")
    arguments = parser.parse_args()
    os.environ["NEURALSDF_REQUIRE_CUDA"] = "1"
    try:
        backend = get_backend("cuda")
    except BackendError as error:
        raise SystemExit(str(error)) from None
    assert isinstance(backend, CudaBackend)
    print(f"{backend.device.name}, {date.today().isoformat()}, backend {backend.name}")
    for name in ("torch", "native"):
        print(f"every operation against {name}: {disagreement(backend, get_backend(name)) or 'agrees'}")
    limit = peak(backend.device)
    print(f"peak: {limit / 1e9:.0f} GFLOP/s, {backend.device.multiprocessors} multiprocessors")
    print(f"\n{'network':8}  {'operation':22}  {'GFLOP/s':>8}  {'of peak':>7}  {'torch':>8}  {'ratio':>5}")
    for hidden in SHAPES:
        kernels(backend, hidden, limit)
    model = arguments.model
    field = (
        open_field(model, backend="cuda")
        if model
        else convert(meshes() / "stanford-bunny.obj", backend="cuda").field
    )
    tensor_cores(backend, field)
    frames(backend, field, arguments.size, limit)
    extraction(backend, field, RESOLUTIONS)
    fits(backend, arguments.fits, limit)


if __name__ == "__main__":
    main()
