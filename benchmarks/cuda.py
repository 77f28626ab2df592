"""
cuda.py
-------
Claim: a GPU evaluates, differentiates and traces networks near its peak rate, renders a 512x512 frame in a
millisecond, fits hundreds of networks at once (10 000 in ten minutes), and samples and extracts faster than
the CPU. Kernels are timed by the device's clock, and compared with torch on the same GPU, with
multiply-adds in registers alone, and with the native backend on all cores.

    python benchmarks/cuda.py [PART ...] [--model FILE] [--minutes M] [--size N] [--fits N]

First, every operation is compared with the reference; then the measurements follow. Each part runs in its own
process, so one that fails or hangs does not affect the others. Parts for which there is no time left are
listed. At the end the figures are printed as rows of a table, as in docs/benchmarks.md. Without a model,
stanford-bunny.obj is converted first, or the knot of `neuralsdf demo` if that is missing. Without a GPU, the
script says why it cannot run.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import date
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Timer
from typing import Any

import numpy as np
from common import meshes

from neuralsdf import backends
from neuralsdf.array_types import FloatArray, Points
from neuralsdf.backends import Losses, backend_status, get_backend
from neuralsdf.backends.batched_networks import Fits, fit_many, values_of_many
from neuralsdf.backends.cuda import CudaBackend
from neuralsdf.backends.cuda.device import Device
from neuralsdf.backends.cuda.program import CudaProgram
from neuralsdf.backends.self_check import comparisons
from neuralsdf.demo import rope_knot
from neuralsdf.fields.extract import Surface, model_surface
from neuralsdf.fields.field import ADDED_ERROR, Field, NeuralField
from neuralsdf.geometry.bvh import WINDING_ACCURACY
from neuralsdf.geometry.triangles import sample_surface
from neuralsdf.geometry.unit_ball import uniform_ball
from neuralsdf.mesh.load_mesh import load_mesh
from neuralsdf.mesh.mesh import Mesh
from neuralsdf.pipeline.convert import fit_mesh
from neuralsdf.pipeline.prepare_mesh import prepare, sample
from neuralsdf.pipeline.stage_times import Stages
from neuralsdf.program.network import Architecture, Network, initialise
from neuralsdf.program.optimizer_settings import get_optimizer
from neuralsdf.render import Tracer, render
from neuralsdf.render.camera import Camera
from neuralsdf.render.pixel_order import in_tiles
from neuralsdf.storage import open_model, save_field
from neuralsdf.training.fit_settings import Training
from neuralsdf.training.learning_rate_schedule import learning_rates
from neuralsdf.training.sampling import RADIUS, Density

REPEATS = 5
POINTS = 1 << 22
FITS = 1056  # four rounds of an H200's blocks
SAMPLES = 200_000
RESOLUTIONS = (256, 512, 1024)
SHAPES = ((32,) * 8, (16,) * 8, (64,) * 8, (128,) * 8)
QUERIES = 1 << 20


@dataclass(frozen=True)
class Setting:
    """Arguments of every part."""

    backend: CudaBackend
    model: Path
    size: int
    fits: int

    @property
    def field(self) -> NeuralField:
        """The model, on the device."""
        return open_model(self.model, backend=self.backend)


def row(what: str, measured: str) -> None:
    """Print a figure as a row of the table."""
    print(f"{ROW}{what} | {measured} |", flush=True)


ROW = "| "


@contextmanager
def timed(device: Device) -> Iterator[list[float]]:
    """Record the seconds of every launch in the block, measured by the device."""
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
    """Seconds in kernels, for the fastest of a few calls."""
    call()
    totals = []
    for _ in range(REPEATS):
        with timed(device) as seconds:
            call()
        totals.append(sum(seconds))
    return min(totals)


def peak(device: Device) -> float:
    """Peak rate: floating-point operations per second in registers alone."""
    arguments = np.zeros((), np.dtype([("results", np.uintp), ("rounds", np.int32)], align=True))
    blocks, threads, rounds = 32 * device.multiprocessors, 256, 4096

    def call() -> None:
        with device.current():
            arguments["results"] = device.buffer("values", 4 * blocks * threads)
            arguments["rounds"] = rounds
            device.launch("peak", blocks, threads, 0, arguments[()])

    return 2 * 32 * rounds * blocks * threads / best(device, call)


def torch_rate(network: Network, points: FloatArray) -> float | None:
    """Operations per second of torch on the same GPU, in full float32; None if torch has no CUDA."""
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


def default_mesh() -> Mesh:
    """The bunny, or the demo's knot if it is missing."""
    try:
        return load_mesh(meshes() / "stanford-bunny.obj")
    except SystemExit:
        return Mesh.from_arrays(*rope_knot(), name="knot")


# -- parts ------------------------------------------------------------------------------------------


def check(setting: Setting) -> None:
    """Compare every operation with the reference."""
    wrong = 0
    for each in comparisons(setting.backend, get_backend("torch")):
        wrong += each.problem is not None
        print(f"{each.operation:24}  {each.difference:8.1e}  {each.problem or 'agrees'}", flush=True)
    row("operations that disagree with the reference", str(wrong))


def kernels(setting: Setting) -> None:
    """Rates of evaluation, gradient and training step for networks of several widths."""
    backend, limit = setting.backend, peak(setting.backend.device)
    print(f"peak: {limit / 1e9:.0f} GFLOP/s, {backend.device.multiprocessors} multiprocessors")
    print(f"\n{'network':8}  {'operation':22}  {'GFLOP/s':>8}  {'of peak':>7}  {'torch':>8}  {'ratio':>5}")
    for hidden in SHAPES:
        architecture = Architecture(hidden)
        network = Network(architecture, initialise(architecture, 0))
        rng = np.random.default_rng(0)
        points = rng.uniform(-1, 1, (POINTS * 32 // hidden[0], 3)).astype(np.float32)
        program = backend.compile(network)
        training = architecture, network.weights, points, points[:, 0].copy()
        rows: list[tuple[str, int, Callable[[], Any]]] = [  # with the operations of each, in evaluations
            ("evaluate", 1, partial(program.evaluate, points)),
            ("evaluate_with_gradient", 4, partial(program.evaluate_with_gradient, points)),
            ("loss_gradient", 3, partial(backend.loss_gradient, *training)),
        ]
        for name, evaluations, call in rows:
            rate = evaluations * 2.0 * network.weights.size * len(points) / best(backend.device, call)
            against = torch_rate(network, points) if name == "evaluate" else None
            other = f"{against / 1e9:8.0f}  {rate / against:5.1f}" if against else f"{'-':>8}  {'-':>5}"
            print(
                f"{architecture!s:8}  {name:22}  {rate / 1e9:8.0f}  {rate / limit:7.0%}  {other}", flush=True
            )
            if hidden == SHAPES[0]:
                times = f", {rate / against:.1f} times torch" if against else ""
                row(f"{name} at width 32", f"{rate / 1e12:.1f} TFLOP/s, {rate / limit:.0%} of peak{times}")


def evaluated(
    backend: CudaBackend, network: Network, points: FloatArray, tolerance: float | None
) -> tuple[CudaProgram, float]:
    """The program for a tolerance, and the points per second that it evaluates."""
    program = backend.compile(network, tolerance)
    assert isinstance(program, CudaProgram)
    assert program.tensor_cores == (tolerance is not None)
    return program, len(points) / best(backend.device, lambda: program.evaluate(points))


def tensor(setting: Setting) -> None:
    """Points per second in float32 and on tensor cores, and the added error near the surface."""
    backend, field = setting.backend, setting.field
    print(f"{'network':8}  {'float32':>9}  {'tensor cores':>12}  {'ratio':>5}  {'added error':>11}")
    networks = {f"{len(h)}x{h[0]}": Network(Architecture(h), initialise(Architecture(h), 0)) for h in SHAPES}
    for name, network in {"model": field.network, **networks}.items():
        count = POINTS * 32 // max(network.architecture.hidden)
        points = np.random.default_rng(0).uniform(-0.5, 0.5, (count, 3)).astype(np.float32)
        _, plain = evaluated(backend, network, points, None)
        program, faster = evaluated(backend, network, points, float("inf"))
        print(f"{name:8}  {plain:9.3g}  {faster:12.3g}  {faster / plain:5.1f}  {program.tensor_error:11.1e}")
        if name == "model":
            added = f"{faster / plain:.1f} times float32, {program.tensor_error:.1e} added near the surface"
            row("evaluation by tensor cores", f"{faster / 1e9:.2f} G points a second, {added}")
    chosen = field.program
    assert isinstance(chosen, CudaProgram)
    known = field.metrics.get("surface_mean")
    allowed = f"{ADDED_ERROR * known:.1e} may be added" if known else "its surface error is not known"
    print(
        f"the model: {allowed}; {'tensor cores evaluate' if chosen.tensor_cores else 'float32 evaluates'} it"
    )


def frames(setting: Setting) -> None:
    """Frames per second: sphere tracing in kernels alone, and a whole shaded picture."""
    device, size, field = setting.backend.device, setting.size, setting.field
    pixels = in_tiles(size, size)
    camera = Camera.orbit(field.transform)
    rays = camera.rays(field.transform, size, size, pixels % size + 0.5, pixels // size + 0.5)
    limit, met = peak(device), []
    for way, allowed in (("float32", 0.0), ("tensor cores", 1e9)):
        own = replace(field, metrics={"surface_mean": allowed})
        assert isinstance(own.program, CudaProgram)
        assert own.program.tensor_cores == (allowed > 0)
        tracer = Tracer(own)
        before = tracer.evaluations
        found = tracer.trace(*rays)
        met.append(found)
        evaluations = tracer.evaluations - before
        seconds = best(device, partial(tracer.trace, *rays))
        rate = 2 * field.network.weights.size * evaluations / seconds
        print(f"{way}: {found.hit.sum():,} hits, {evaluations / size**2:.1f} evaluations a pixel", flush=True)
        row(
            f"sphere trace of the model, {size} x {size}, by {way}",
            f"{1 / seconds:.0f} frames a second in kernels alone, {rate / limit:.0%} of float32's peak",
        )
    both = met[0].hit & met[1].hit
    apart = np.abs(met[0].t[both] - met[1].t[both])
    print(
        f"the two differ in {(met[0].hit != met[1].hit).sum()} hits; where both hit, by {apart.mean():.1e} "
        f"in the mean and {apart.max():.1e} at most"
    )
    render(field, width=size, height=size, antialias=1)
    began = time.perf_counter()
    with timed(device) as in_kernels:
        render(field, width=size, height=size, antialias=1)
    whole = time.perf_counter() - began
    row(f"a shaded picture, {size} x {size}", f"{whole * 1e3:.1f} ms, {sum(in_kernels) * 1e3:.1f} in kernels")


def fits(setting: Setting) -> None:
    """Shapes per hour without sampling: spheres, each with its own samples and the default training."""
    backend, count = setting.backend, setting.fits
    architecture, training = Architecture(), Training()
    optimizer, rates = get_optimizer(training.optimizer), learning_rates(architecture, training, SAMPLES)
    rng = np.random.default_rng(0)
    points = rng.random((count, SAMPLES, 3), np.float32) * np.float32(1.4) - np.float32(0.7)
    distances = np.linalg.norm(points, axis=2) - rng.uniform(0.2, 0.6, (count, 1)).astype(np.float32)
    weights = np.array([initialise(architecture, shape) for shape in range(count)])

    def fitted(shapes: int, steps: int, name: str) -> tuple[float, Losses]:
        began = time.perf_counter()
        arrays = weights[:shapes], points[:shapes], distances[:shapes]
        _, losses = fit_many(
            Fits(architecture, *arrays, optimizer, training.batch), rates[:steps], backend=get_backend(name)
        )
        return time.perf_counter() - began, losses

    part = max(1, len(rates) // 20)
    (here, ours), (native, theirs) = (fitted(1, part, name) for name in ("cuda", "native"))
    native *= len(rates) / part
    print(f"one by the native backend: {native:.1f} s")
    print(f"after {part} steps {ours[0]:.6f} ({here:.2f} s), the native backend's {theirs[0]:.6f}")
    few, _ = fitted(count, part, "cuda")
    print(
        f"{count} shapes, {len(rates)} steps of {training.batch} samples: about {few * 20:.0f} s", flush=True
    )
    with timed(backend.device) as in_kernels:
        seconds, losses = fitted(count, len(rates), "cuda")
    limit, operations = peak(backend.device), 6.0 * weights.size * training.batch * len(rates)
    print(f"{seconds:.1f} s, {sum(in_kernels):.1f} s in kernels; losses: median {np.median(losses):.5f}, "
          f"worst {losses.max():.5f}")  # fmt: skip
    row(
        f"fits of {count} shapes at once ({SAMPLES:,} samples, {training.epochs} epochs, without sampling)",
        f"10 000 in {1e4 * seconds / count / 60:.1f} minutes, {native * count / seconds:.0f} times the "
        f"native backend; gradients alone are {operations / sum(in_kernels) / limit:.0%} of peak",
    )


class OnProcessor(Field):
    """A field with values from the device, on a grid in host memory."""

    kind = "distance"

    def __init__(self, field: NeuralField) -> None:
        self.transform, self._program = field.transform, field.program

    def value(self, points: FloatArray) -> FloatArray:
        """Values (n,) at points (n, 3)."""
        return self._program.evaluate(points)

    def value_and_gradient(self, points: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Values (n,) and gradients (n, 3) at points (n, 3)."""
        return self._program.evaluate_with_gradient(points)


def extraction(setting: Setting) -> None:
    """Seconds of extractions and of their kernels, compared with the native backend; meshes are equal."""
    field, device = setting.field, setting.backend.device
    native = replace(field, chosen_backend=get_backend("native"))

    def seconds(field: Field, resolution: int) -> tuple[float, Surface]:
        surface, taken = model_surface(field, resolution), []
        for _ in range(REPEATS):
            began = time.perf_counter()
            model_surface(field, resolution)
            taken.append(time.perf_counter() - began)
        return min(taken), surface

    print(f"{'cells':>6}  {'cuda':>7}  {'kernels':>7}  {'native':>7}  {'ratio':>5}  faces")
    for resolution in RESOLUTIONS:
        ours, surface = seconds(field, resolution)
        in_kernels = best(device, partial(model_surface, field, resolution))
        theirs, other = seconds(native, resolution)
        expected = model_surface(OnProcessor(field), resolution)
        same = all(
            np.array_equal(getattr(surface, part), getattr(expected, part)) for part in ("vertices", "faces")
        )
        print(
            f"{resolution:6}  {ours:7.4f}  {in_kernels:7.4f}  {theirs:7.4f}  {theirs / ours:5.1f}  "
            f"{len(surface.faces):,}, native {len(other.faces):,}; "
            f"{'equal to' if same else 'DIFFERENT from'} the processor's lattice with the same values"
        )
        row(
            f"extraction at {resolution}³",
            f"{ours * 1e3:.1f} ms, {in_kernels * 1e3:.1f} in kernels; "
            f"{theirs / ours:.1f} times the native backend",
        )


def bvhs(setting: Setting) -> None:
    """Queries of the triangle BVH, and sampling, compared with the C++ core on all cores."""
    mesh, device = default_mesh(), setting.backend.device
    shapes = {
        name: prepare(mesh, "winding", None, None, Stages(None), get_backend(name))
        for name in ("cuda", "native")
    }
    oracle = shapes["cuda"].oracle
    ours, theirs = (get_backend(name).triangle_bvh(oracle.vertices, oracle.faces) for name in shapes)
    rng = np.random.default_rng(0)
    on_surface, _ = sample_surface(oracle.vertices, oracle.faces, QUERIES, rng)
    kinds = {
        "near the surface": on_surface + rng.normal(scale=0.01, size=on_surface.shape),
        "in the ball": uniform_ball(QUERIES, rng, RADIUS),
    }
    asked: dict[str, Callable[[Any, Points], Points]] = {
        "distances": lambda bvh, points: bvh.distance(points),
        "winding numbers": lambda bvh, points: bvh.winding_number(points, WINDING_ACCURACY),
    }
    print(f"{len(mesh.faces):,} faces, {QUERIES:,} points")
    for kind, points in kinds.items():
        for what, ask in asked.items():
            here, in_kernels = wall(partial(ask, ours, points)), best(device, partial(ask, ours, points))
            there = wall(partial(ask, theirs, points))
            off = np.abs(ask(ours, points) - ask(theirs, points)).max()
            print(f"{what} {kind}: differ by {off:.1e} at most")
            row(
                f"1 M {what} {kind}",
                f"{here * 1e3:.0f} ms, {in_kernels * 1e3:.1f} in kernels; "
                f"{there / here:.1f} times the native BVH",
            )
    taken = {
        name: wall(partial(sample, shape, Density(), 500_000, 0, Stages(None)), 2)
        for name, shape in shapes.items()
    }
    row(
        "500 000 signed samples",
        f"{taken['cuda']:.2f} s, {taken['native'] / taken['cuda']:.1f} times the native BVH",
    )


def many(setting: Setting) -> None:
    """Many networks at the same points, in one launch."""
    architecture, rng = Architecture(), np.random.default_rng(0)
    weights = np.array([initialise(architecture, seed) for seed in range(256)])
    engines = setting.backend, get_backend("native")
    for count in (10, 1000, 20_000):
        points = rng.uniform(-0.5, 0.5, (count, 3)).astype(np.float32)
        calls = [partial(values_of_many, engine, architecture, weights, points) for engine in engines]
        here, there = (wall(call) for call in calls)
        row(
            f"{len(weights)} shapes at the same {count} points",
            f"{here * 1e3:.2f} ms, {best(setting.backend.device, calls[0]) * 1e3:.2f} in kernels; "
            f"{there / here:.1f} times the native backend",
        )


def conversion(setting: Setting) -> None:
    """Conversion of a mesh, with the device for everything but the fit."""
    mesh = default_mesh()
    for name in ("cuda", "native"):
        made = fit_mesh(mesh, backend=get_backend(name))
        stages = ", ".join(f"{stage} {seconds:.2f}" for stage, seconds in made.seconds.items())
        print(f"{name}: {stages} s; surface error {made.field.metrics['surface_mean']:.5f}", flush=True)
        row(f"convert with defaults, {name}", f"{sum(made.seconds.values()):.1f} s")


def wall(call: Callable[[], Any], repeats: int = REPEATS) -> float:
    """Seconds of the fastest of a few calls."""
    call()
    taken = []
    for _ in range(repeats):
        began = time.perf_counter()
        call()
        taken.append(time.perf_counter() - began)
    return min(taken)


#: The most important parts first, each with its time limit in seconds.
PARTS: dict[str, tuple[Callable[[Setting], None], float]] = {
    "check": (check, 60),
    "kernels": (kernels, 90),
    "frames": (frames, 60),
    "fits": (fits, 150),
    "tensor": (tensor, 60),
    "bvhs": (bvhs, 60),
    "extraction": (extraction, 90),
    "many": (many, 30),
    "conversion": (conversion, 60),
}


def run_part(name: str, setting: Setting) -> None:
    """Run one part in this process. The self-check is a part; the others run regardless of its result."""
    backends._loaded["cuda"] = setting.backend
    PARTS[name][0](setting)


def run_parts(names: Sequence[str], options: Sequence[str], deadline: float) -> list[str]:
    """Run each part in its own process; return the parts that failed, and print the rows at the end."""
    rows: list[str] = []
    failed = []
    for name in names:
        print(f"\n== {name}", flush=True)
        seconds = min(PARTS[name][1], deadline - time.monotonic())
        if seconds < 5:
            failed.append(f"{name}: no time was left")
            continue
        command = [sys.executable, __file__, "--in-process", name, *options]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        killer = Timer(seconds, process.kill)
        killer.start()
        for line in process.stdout:
            print(line, end="", flush=True)
            rows += [line] if line.startswith(ROW) else []
        code = process.wait()
        killer.cancel()
        if code:
            failed.append(f"{name}: {'stopped' if code < 0 else 'failed'} (exit code {code})")
    print("\n| | measured |\n|---|---|\n" + "".join(rows), end="")
    return failed


def main() -> None:
    """Run the requested parts, or all."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"{', '.join(PARTS)}; all by default")
    parser.add_argument("--model", type=Path, help="default: a mesh is converted first")
    parser.add_argument("--minutes", type=float, default=9.0, help="no part starts after this time")
    parser.add_argument("--size", type=int, default=512, help="width and height of frames")
    parser.add_argument("--fits", type=int, default=FITS, help="shapes fitted at once")
    parser.add_argument("--in-process", action="store_true", help="run one part here")
    arguments = parser.parse_args()
    deadline = time.monotonic() + 60 * arguments.minutes
    parts = arguments.parts or list(PARTS)
    if unknown := set(parts) - set(PARTS):
        raise SystemExit(f"no such part: {', '.join(sorted(unknown))}; there are {', '.join(PARTS)}")
    status = backend_status("cuda")
    if not status.available:
        raise SystemExit(f"the cuda backend does not run here: {status.detail}")
    os.environ["NEURALSDF_REQUIRE_CUDA"] = "1"
    if arguments.in_process:
        backend = CudaBackend(Device(), get_backend("native"))
        setting = Setting(backend, arguments.model, arguments.size, arguments.fits)
        run_part(parts[0], setting)
        return
    print(f"{date.today().isoformat()}, {status.detail}, {os.cpu_count()} cores", flush=True)
    with TemporaryDirectory() as folder:
        model = arguments.model or Path(folder) / "model.h5"
        if arguments.model is None:
            save_field(fit_mesh(default_mesh(), backend=get_backend("native")).field, model)
        options = ["--model", str(model), "--size", str(arguments.size), "--fits", str(arguments.fits)]
        failed = run_parts(parts, options, deadline)
    if failed:
        raise SystemExit("\n".join(["", *failed]))


if __name__ == "__main__":
    main()
