"""
kernel_speed.py
---------------
Claim: at width 32 the C++ core evaluates and trains a network at more than 85 % of one core's peak rate of
multiply-adds, is at least 1.6 times as fast as the best use of torch at every batch size, and spends less
than a third of a training step on its second-order optimizer.
Baselines, measured in the same run: the core's own peak (multiply-adds in registers alone), and the best of
several uses of torch: the torch backend (autograd); forward and backward pass written out in place, in blocks
that fit into the cache; and with `--compile`, torch.compile of the forward pass and of the loss (takes
minutes).

    python benchmarks/kernel_speed.py [--layers N] [--width N] [--activation NAME] [--rounds N] [--compile]

Takes two minutes. Steps are those of a fit: samples are drawn from a pool (torch receives them as one
contiguous array), with ten steps per call, one of which updates SOAP's bases. One thread. With P weights, a
point counts as 2 P operations to evaluate, 4 P with its gradient and 6 P in a training step, not counting the
optimizer. The peak is that of float32, which AMX exceeds; values may be off by what a surface error of 0.001
allows. Each figure is the best of many short interleaved runs, so that other load on the machine affects all
alike. NEURALSDF_ISA selects the instruction set.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import numpy as np
import torch
from common import machine

from neuralsdf.array_types import FloatArray
from neuralsdf.backends import Trainer, get_backend
from neuralsdf.fields.field import ADDED_ERROR
from neuralsdf.kernels._core import Core
from neuralsdf.program.network import ACTIVATIONS, Architecture, Network, initialise
from neuralsdf.program.optimizer_settings import get_optimizer
from neuralsdf.thread_count import set_threads

BATCHES = (1024, 4096, 16384, 65536)
PEAK_ROUNDS = 20_000  # a fraction of a millisecond
SLICE = 0.002  # seconds of one measurement, if one call does not take longer
TORCH_BLOCK = 4096  # points at once: about where torch is fastest
POOL = 500_000  # samples, as many as a fit has by default
STEPS = (
    10  # per call, because SOAP updates its bases every ten; one for large batches, where that is negligible
)
LARGE_BATCH = 16384
TOLERANCE = ADDED_ERROR * 0.001

Call = Callable[[], object]
Samples = tuple[FloatArray, FloatArray]  # points (n, 3) and their distances (n,)
OPERATIONS = {"evaluate": 2, "with gradient": 4, "training, Adam": 6, "training, SOAP": 6}


def rate(work: Call, operations: float) -> float:
    """Operations per second of CPU time, over at least one call and `SLICE` seconds."""
    began, calls = time.process_time(), 0
    while calls == 0 or time.process_time() - began < SLICE:
        work()
        calls += 1
    return calls * operations / (time.process_time() - began)


def steps_in_a_call(batch: int) -> int:
    """Number of training steps that are timed together."""
    return STEPS if batch < LARGE_BATCH else 1


def native_calls(network: Network, points: FloatArray, pool: Samples) -> dict[str, Call]:
    """Calls of the C++ core; a training step uses as many samples of `pool` as there are points."""
    backend = get_backend("native")
    program = backend.compile(network, TOLERANCE)
    count = len(points)
    steps = steps_in_a_call(count)
    order, rates = (
        np.random.default_rng(0).permutation(POOL)[: count * steps],
        np.full(steps, 1e-6, np.float32),
    )

    def trainer(name: str) -> Trainer:
        return backend.trainer(network.architecture, network.weights, get_optimizer(name))

    adam, soap = trainer("adam"), trainer("soap")
    return {
        "evaluate": lambda: program.evaluate(points),
        "with gradient": lambda: program.evaluate_with_gradient(points),
        "training, Adam": lambda: adam.steps(*pool, order, count, rates),
        "training, SOAP": lambda: soap.steps(*pool, order, count, rates),
    }


def autograd_calls(network: Network, points: FloatArray, targets: FloatArray) -> dict[str, Call]:
    """Calls of the torch backend; its training gradient, without an optimizer, is compared with our steps."""
    backend = get_backend("torch")
    program = backend.compile(network)
    arguments = network.architecture, network.weights, points, targets
    return {
        "evaluate": lambda: program.evaluate(points),
        "with gradient": lambda: program.evaluate_with_gradient(points),
        "training, Adam": lambda: backend.loss_gradient(*arguments),
        "training, SOAP": lambda: backend.loss_gradient(*arguments),
    }


def written_out_calls(network: Network, points: FloatArray, targets: FloatArray) -> dict[str, Call]:
    """Passes of a ReLU network in torch, in place, by blocks; for training, the gradient."""
    layers = [
        (torch.from_numpy(kernel.copy()), torch.from_numpy(bias.copy()))
        for kernel, bias in network.architecture.layers(network.weights)
    ]
    blocks = list(
        zip(
            torch.from_numpy(points).split(TORCH_BLOCK),
            torch.from_numpy(targets).split(TORCH_BLOCK),
            strict=True,
        )
    )
    kept = [torch.empty(min(TORCH_BLOCK, len(points)), len(bias)) for _, bias in layers]

    def forward(x: torch.Tensor) -> list[torch.Tensor]:
        outputs = []
        for (kernel, bias), room in zip(layers, kept, strict=True):
            x = torch.addmm(bias, x, kernel, out=room[: len(x)])
            x = x.tanh_() if len(outputs) == len(layers) - 1 else x.relu_()
            outputs.append(x)
        return outputs

    def train() -> None:
        sums = [(torch.zeros_like(kernel), torch.zeros_like(bias)) for kernel, bias in layers]
        for x, target in blocks:
            outputs = forward(x)
            delta = (outputs[-1][:, 0] - target).sign_()[:, None] * (1 - outputs[-1] ** 2)
            for index in reversed(range(len(layers))):
                below = outputs[index - 1] if index else x
                sums[index][0].addmm_(below.T, delta)
                sums[index][1].add_(delta.sum(0))
                if index:
                    delta = (delta @ layers[index][0].T).mul_(below > 0)

    calls: dict[str, Call] = {"evaluate": lambda: [forward(x)[-1] for x, _ in blocks]}
    return calls | {"training, Adam": train, "training, SOAP": train}


def compiled_calls(network: Network, points: FloatArray, targets: FloatArray) -> dict[str, Call]:
    """torch.compile of a forward pass, and of the loss with its autograd gradient."""
    layers = [
        (torch.from_numpy(kernel.copy()).requires_grad_(), torch.from_numpy(bias.copy()).requires_grad_())
        for kernel, bias in network.architecture.layers(network.weights)
    ]

    def forward(x: torch.Tensor) -> torch.Tensor:
        for kernel, bias in layers[:-1]:
            x = torch.relu(torch.addmm(bias, x, kernel))
        return torch.tanh(torch.addmm(layers[-1][1], x, layers[-1][0]))

    def loss(x: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        return (forward(x)[:, 0] - target).abs().mean()

    compiled_forward, compiled_loss = (
        torch.compile(forward, dynamic=False),
        torch.compile(loss, dynamic=False),
    )
    x, target = torch.from_numpy(points), torch.from_numpy(targets)

    def evaluate() -> None:
        with torch.no_grad():
            compiled_forward(x)

    def train() -> None:
        compiled_loss(x, target).backward()

    evaluate()
    train()
    return {"evaluate": evaluate, "training, Adam": train, "training, SOAP": train}


def main() -> None:
    """Measure the core, its peak and torch for every batch size."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[3])
    parser.add_argument("--layers", type=int, default=8)
    parser.add_argument("--width", type=int, default=32)
    parser.add_argument("--activation", choices=ACTIVATIONS, default="relu")
    parser.add_argument("--rounds", type=int, default=30, help="slices of each measurement")
    parser.add_argument("--compile", action="store_true", help="torch.compile too")
    arguments = parser.parse_args()
    set_threads(1)
    torch.set_num_threads(1)
    torch.set_grad_enabled(True)
    architecture = Architecture.uniform(arguments.layers, arguments.width, arguments.activation)
    network = Network(architecture, initialise(architecture, 0))
    core = Core(machine_isa())
    print(f"{architecture}, {architecture.weight_count} weights; {machine('native')}")
    print(f"{'GFLOP/s':14} {'batch':>6} {'peak':>7} {'native':>7} {'of peak':>8} {'torch':>7} {'ratio':>7}")
    ratios: list[float] = []
    rng = np.random.default_rng(0)
    pool = rng.uniform(-1, 1, (POOL, 3)).astype(np.float32), rng.uniform(-0.1, 0.1, POOL).astype(np.float32)
    for count in BATCHES:
        points, targets = pool[0][:count], pool[1][:count]
        ours = native_calls(network, points, pool)
        theirs = [autograd_calls(network, points, targets)]
        if arguments.activation == "relu":
            theirs.append(written_out_calls(network, points, targets))
            if arguments.compile:
                theirs.append(compiled_calls(network, points, targets))
        for name, factor in OPERATIONS.items():
            operations = float(factor * architecture.weight_count * count)
            together = steps_in_a_call(count) if name.startswith("training") else 1
            calls = [(ours[name], together * operations)]
            calls += [(them[name], operations) for them in theirs if name in them]
            peak, best = 0.0, np.zeros(len(calls))
            for _ in range(arguments.rounds):
                peak = max(peak, rate(lambda: core.peak(PEAK_ROUNDS), core.peak(1) * PEAK_ROUNDS))
                best = np.maximum(best, [rate(*call) for call in calls])
            fast, slow = best[0] / 1e9, best[1:].max() / 1e9
            ratios.append(fast / slow)
            print(
                f"{name:14} {count:6} {peak / 1e9:7.1f} {fast:7.1f} {fast * 1e9 / peak:8.1%} {slow:7.1f} "
                f"{fast / slow:6.1f}x",
                flush=True,
            )
    print(f"ratio to torch: {min(ratios):.1f} at least, {np.median(ratios):.1f} in the median")


def machine_isa() -> str:
    """The instruction set of the native backend."""
    from neuralsdf.backends.cpu import NativeBackend

    backend = get_backend("native")
    assert isinstance(backend, NativeBackend)
    return backend.isa


if __name__ == "__main__":
    main()
