"""
csg.py
------
Claim: the C++ core evaluates and renders CSG trees several times as fast as the reference in numpy (which
also evaluates networks in the core). Measured in the same run: values, values with gradients, and a shaded
frame, of the README's bracket and of the bunny's network minus a ball.

    python benchmarks/csg.py [MODEL] [--size N]

Without a model, stanford-bunny.obj is converted first (some seconds). Prints processor time of all threads,
the best of several interleaved runs. Takes a minute.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from dataclasses import replace

import numpy as np
from common import machine, model_or_bunny

from neuralsdf.backends import get_backend
from neuralsdf.backends.reference.tape_interpreter import TapeProgram
from neuralsdf.csg import Shape, from_field, parse, sphere
from neuralsdf.csg.compile import compile_shape
from neuralsdf.render import render

POINTS = 1 << 18
REPEATS = 3

BRACKET = """
    (rounded_box(80, 50, 6, 2) | rounded_box(6, 50, 40, 2).translate(-37, 0, 17)
    | smooth(4, rounded_box(40, 5, 30, 1).translate(-20, 0, 12) & plane(0.6, 0, 0.8).translate(-8, 0, 12)))
    - cylinder(2.6, 20).repeat(30, 30, 0, 2, 2).translate(0, -15, 0)"""


def interpreted(shape: Shape) -> Shape:
    """The same tree evaluated by numpy, with networks evaluated by the backend."""
    other = replace(shape)
    vars(other)["program"] = TapeProgram(compile_shape(shape, shape.transform), get_backend().compile)
    return other


def seconds(work: Callable[[Shape], object], field: Shape) -> float:
    """Processor time of one run, on all threads."""
    began = time.process_time()
    work(field)
    return time.process_time() - began


def compare(name: str, shape: Shape, size: int) -> None:
    """Print one line per kind of work."""
    fields = shape, interpreted(shape)
    points = np.random.default_rng(0).uniform(-1, 1, (POINTS, 3)).astype(np.float32)

    def shaded(field: Shape) -> object:
        return render(field, width=size, height=size)

    works: dict[str, Callable[[Shape], object]] = {
        f"{POINTS} values": lambda field: field.value(points),
        f"{POINTS} with gradients": lambda field: field.value_and_gradient(points),
        f"{size}x{size}, shaded": shaded,
    }
    for label, work in works.items():
        times = [[seconds(work, field) for field in fields] for _ in range(REPEATS)]
        ours, numpy = (min(column) for column in zip(*times, strict=True))
        print(f"{name:22}  {label:24}  {ours:8.3f}  {numpy:8.3f}  {numpy / ours:6.1f}")


def main() -> None:
    """Time the same work on both backends."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[3])
    parser.add_argument("model", nargs="?", help="default: stanford-bunny.obj, converted first")
    parser.add_argument("--size", type=int, default=512)
    arguments = parser.parse_args()
    bunny = model_or_bunny(arguments.model)
    print(f"{machine()}, against numpy")
    print(f"{'':22}  {'':24}  {'CPU s':>8}  {'numpy':>8}  {'times':>6}")
    compare("bracket", parse(BRACKET, lambda name: sphere()), arguments.size)
    centre, radius = bunny.transform.centre, bunny.transform.scale
    bite = sphere(radius / 2).translate(*(centre + radius / 2))
    compare("network less a ball", from_field(bunny, "bunny.h5") - bite, arguments.size)


if __name__ == "__main__":
    main()
