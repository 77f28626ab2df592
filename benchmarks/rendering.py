"""
rendering.py
------------
Claim: a 512x512 shaded frame of a model takes a fraction of a second on a CPU, with a handful of evaluations
of the field per ray, and sphere tracing keeps the cores near their peak. Baselines, in the same run: the same
frame on the torch backend, and the rate of multiply-adds in registers alone.

    python benchmarks/rendering.py [MODEL] [--size N]

Without a model, stanford-bunny.obj is converted first (a minute); the frames take a few seconds. The first
frame of each backend is not counted, because it loads the backend.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
from common import machine, model_or_bunny

from neuralsdf.array_types import Points
from neuralsdf.backends import get_backend
from neuralsdf.backends.reference.sphere_tracing import Traced
from neuralsdf.fields.field import NeuralField
from neuralsdf.render import Tracer, render
from neuralsdf.render.camera import Camera
from neuralsdf.render.pixel_order import in_tiles

REPEATS = 3


def peak() -> float:
    """Peak rate of one core: multiply-adds per second in registers alone; 0 without the C++ core."""
    if get_backend().name != "native":
        return 0.0
    from neuralsdf.kernels._core import Core, supported_isas

    core = Core(supported_isas()[0])
    began = time.process_time()
    operations = sum(core.peak(20_000) for _ in range(50))
    return operations / (time.process_time() - began)


def trace_rate(field: NeuralField, size: int) -> float:
    """Floating-point operations per second of processor time in sphere tracing alone."""
    rates = []
    tracer = Tracer(field)
    march = field.program.trace

    def timed(*rays: Any) -> Traced:
        began = time.process_time()
        traced = march(*rays)
        operations = 2.0 * len(field.network.weights) * traced.evaluations
        rates.append(operations / (time.process_time() - began))
        return traced

    tracer._march = lambda *rays: timed(*rays, tracer._steps)  # type: ignore[method-assign]
    for _ in range(REPEATS):
        tracer.trace(*_rays(field, size))
    return max(rates)


def _rays(field: NeuralField, size: int) -> tuple[Points, Points]:
    """The eye (3,) and directions (n, 3) of one ray per pixel, in the order in which `render` traces them."""
    pixels = in_tiles(size, size)
    camera = Camera.orbit(field.transform)
    return camera.rays(field.transform, size, size, pixels % size + 0.5, pixels // size + 0.5)


def traced(field: NeuralField, size: int) -> tuple[int, int, float]:
    """Rays into the ball, evaluations and seconds of tracing alone, with one ray per pixel."""
    eye, directions = _rays(field, size)
    foot = eye - (directions @ eye)[:, None] * directions
    tracer = Tracer(field)
    before = tracer.evaluations
    began = time.perf_counter()
    tracer.trace(eye, directions)
    seconds = time.perf_counter() - began
    return int((np.linalg.norm(foot, axis=1) < 1).sum()), tracer.evaluations - before, seconds


def shaded(field: NeuralField, size: int, antialias: int) -> tuple[int, int, float]:
    """Rays, evaluations and seconds of a frame as `neuralsdf render` draws it."""
    report = render(field, width=size, height=size, antialias=antialias).report
    return report.rays, report.evaluations, report.seconds


Frame = Callable[[NeuralField, int], tuple[int, int, float]]

FRAMES: dict[str, Frame] = {
    "traced only": traced,
    "shaded": lambda field, size: shaded(field, size, 1),
    "shaded, antialias 3": lambda field, size: shaded(field, size, 3),
}


def timed(frame: Frame, field: NeuralField, size: int) -> tuple[tuple[int, int, float], float]:
    """The result of a frame, and its processor time in seconds on all threads."""
    began = time.process_time()
    found = frame(field, size)
    return found, time.process_time() - began


def main() -> None:
    """Render the same frames on both backends and compare."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[3])
    parser.add_argument("model", nargs="?", help="default: stanford-bunny.obj, converted first")
    parser.add_argument("--size", type=int, default=512)
    arguments = parser.parse_args()
    field = model_or_bunny(arguments.model)
    print(f"{arguments.size}x{arguments.size}; {machine()}, against {machine('torch')}")
    print(
        f"{'':20}  {'rays':>9}  {'evaluations a ray':>17}  {'seconds':>8}  {'CPU':>8}  {'torch':>8}  "
        f"{'ratio':>6}"
    )
    reference = replace(field, chosen_backend=get_backend("torch"))
    for name, frame in FRAMES.items():
        for either in (field, reference):
            frame(either, 32)
        (rays, evaluations, seconds), busy = min(
            (timed(frame, field, arguments.size) for _ in range(REPEATS)), key=lambda found: found[0][2]
        )
        *_, slow = min((frame(reference, arguments.size) for _ in range(REPEATS)), key=lambda found: found[2])
        print(
            f"{name:20}  {rays:9,}  {evaluations / rays:17.1f}  {seconds:8.2f}  {busy:8.2f}  {slow:8.2f}  "
            f"{slow / seconds:6.1f}",
            flush=True,
        )
    if limit := peak():
        rate = trace_rate(field, arguments.size)
        print(f"the sphere trace: {rate / 1e9:.0f} GFLOP/s a core, {rate / limit:.0%} of its peak")


if __name__ == "__main__":
    main()
