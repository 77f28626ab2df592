"""
kernel_speed.py
---------------
Claim: at width 32 the C++ core evaluates a network at more than 85 % of what one core can multiply and add,
takes a training gradient at more than 80 %, and is several times faster than torch at every batch size.
Baselines, measured in the same run: the core's own peak (multiply-adds in registers alone), and the torch
backend.

    python benchmarks/kernel_speed.py [--layers N] [--width N] [--activation NAME] [--rounds N]

Takes about a minute. One thread; with P weights a point counts as 2 P operations to evaluate, 4 P with its
gradient, 6 P in a training gradient. Each figure is the best of many short slices, taken in turn, so that
what else the machine does falls on all alike. NEURALSDF_ISA chooses the instruction set.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import numpy as np
from common import machine

from neuralsdf.backends import Backend, get_backend
from neuralsdf.kernels._core import Core
from neuralsdf.network import ACTIVATIONS, Architecture, Network, initialise
from neuralsdf.parallel import set_threads

BATCHES = (1024, 4096, 16384, 65536)
PEAK_ROUNDS = 20_000  # a fraction of a millisecond
SLICE = 0.002  # seconds of one measurement, if one call does not take longer


def rate(work: Callable[[], object], operations: float) -> float:
    """Operations a second of the process's CPU time, over at least one call and `SLICE` seconds."""
    began, calls = time.process_time(), 0
    while calls == 0 or time.process_time() - began < SLICE:
        work()
        calls += 1
    return calls * operations / (time.process_time() - began)


def tasks(backend: Backend, network: Network, count: int) -> dict[str, tuple[Callable[[], object], float]]:
    """What is timed, by name: the call, and how many operations it counts as."""
    rng = np.random.default_rng(0)
    points = rng.uniform(-1, 1, (count, 3)).astype(np.float32)
    targets = rng.uniform(-0.1, 0.1, count).astype(np.float32)
    architecture, weights = network.architecture, network.weights
    work = float(len(weights) * count)
    return {
        "evaluate": (lambda: backend.evaluate(network, points), 2 * work),
        "with gradient": (lambda: backend.evaluate_with_gradient(network, points), 4 * work),
        "training": (lambda: backend.loss_gradient(architecture, weights, points, targets), 6 * work),
    }


def main() -> None:
    """Measure both backends and the peak, batch by batch."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[3])
    parser.add_argument("--layers", type=int, default=8)
    parser.add_argument("--width", type=int, default=32)
    parser.add_argument("--activation", choices=ACTIVATIONS, default="relu")
    parser.add_argument("--rounds", type=int, default=50, help="slices of each measurement")
    arguments = parser.parse_args()
    set_threads(1)
    architecture = Architecture.uniform(arguments.layers, arguments.width, arguments.activation)
    network = Network(architecture, initialise(architecture, 0))
    native, torch = get_backend("native"), get_backend("torch")
    core = Core(native.isa)
    print(f"{architecture}, {architecture.weight_count} weights; {machine('native')}")
    print(f"{'GFLOP/s':14} {'batch':>6} {'peak':>7} {'native':>7} {'of peak':>8} {'torch':>7} {'ratio':>7}")
    ratios = []
    for count in BATCHES:
        ours, theirs = tasks(native, network, count), tasks(torch, network, count)
        for name in ours:
            best = np.zeros(3)
            for _ in range(arguments.rounds):
                operations = core.peak(1)
                peak = rate(lambda: core.peak(PEAK_ROUNDS), operations * PEAK_ROUNDS)
                best = np.maximum(best, [peak, rate(*ours[name]), rate(*theirs[name])])
            peak, fast, slow = best / 1e9
            ratio = fast / slow
            ratios.append(ratio)
            print(f"{name:14} {count:6} {peak:7.1f} {fast:7.1f} {fast / peak:8.1%} {slow:7.1f} {ratio:6.1f}x")
    print(f"ratio to torch: {min(ratios):.1f} at least, {np.median(ratios):.1f} in the median")


if __name__ == "__main__":
    main()
