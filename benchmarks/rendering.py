"""
rendering.py
------------
Claim: a 512x512 shaded frame of a model takes a fraction of a second on a CPU, at a handful of evaluations
of the field for each ray. Baseline: the same frame on the torch backend.

    python benchmarks/rendering.py [MODEL] [--size N]

Without a model stanford-bunny.obj is converted first (a minute); the frames take a few seconds. The first
frame of each backend is not counted: it loads what the backend needs.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import replace

import numpy as np
from common import machine, meshes

from neuralsdf.camera import Camera
from neuralsdf.convert import convert
from neuralsdf.field import NeuralField
from neuralsdf.render import Tracer, render
from neuralsdf.storage import open_field

REPEATS = 3


def traced(field: NeuralField, size: int) -> tuple[int, int, float]:
    """Rays into the ball, evaluations and seconds of tracing alone, one ray a pixel."""
    pixels = np.arange(size * size)
    camera = Camera.orbit(field.transform)
    eye, directions = camera.rays(field.transform, size, size, pixels % size + 0.5, pixels // size + 0.5)
    foot = eye - (directions @ eye)[:, None] * directions
    tracer = Tracer(field)
    before = tracer.evaluations
    began = time.perf_counter()
    tracer.trace(eye, directions)
    seconds = time.perf_counter() - began
    return int((np.linalg.norm(foot, axis=1) < 1).sum()), tracer.evaluations - before, seconds


def shaded(field: NeuralField, size: int, antialias: int) -> tuple[int, int, float]:
    """Rays into the picture, evaluations and seconds of a frame as `neuralsdf render` draws it."""
    report = render(field, width=size, height=size, antialias=antialias).report
    return report.rays, report.evaluations, report.seconds


FRAMES = {
    "traced only": traced,
    "shaded": lambda field, size: shaded(field, size, 1),
    "shaded, antialias 3": lambda field, size: shaded(field, size, 3),
}


def main() -> None:
    """Draw the same frames on both backends and compare."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[3])
    parser.add_argument("model", nargs="?", help="default: stanford-bunny.obj, converted first")
    parser.add_argument("--size", type=int, default=512)
    arguments = parser.parse_args()
    model = arguments.model
    field = open_field(model) if model else convert(meshes() / "stanford-bunny.obj").field
    print(f"{arguments.size}x{arguments.size}; {machine()}, against {machine('torch')}")
    print(f"{'':20}  {'rays':>9}  {'evaluations a ray':>17}  {'seconds':>8}  {'torch':>8}  {'ratio':>6}")
    reference = replace(field, backend="torch")
    for name, frame in FRAMES.items():
        for either in (field, reference):
            frame(either, 32)
        rays, evaluations, seconds = min(
            (frame(field, arguments.size) for _ in range(REPEATS)), key=lambda found: found[2]
        )
        *_, slow = min((frame(reference, arguments.size) for _ in range(REPEATS)), key=lambda found: found[2])
        print(
            f"{name:20}  {rays:9,}  {evaluations / rays:17.1f}  {seconds:8.2f}  {slow:8.2f}  "
            f"{slow / seconds:6.1f}",
            flush=True,
        )


if __name__ == "__main__":
    main()
