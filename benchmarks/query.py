"""
query.py
--------
Claim: distances to a model cost little more than evaluating its network. For points in the unit ball,
`Field.distance` (float64 points in mesh space, float64 distances in mesh units) takes at most 1.3 times as
long as the kernel alone on float32 points in model space, and `neuralsdf query` from npy to npy at most 2.5
times. Both are faster than the alternatives: torch on the same network, or the distance to the mesh by libigl
or Open3D.

    NEURALSDF_ISA=avx512 python benchmarks/query.py [MODEL] [--mesh MESH] [--count N] [--rounds N]
        [--threads N]

By default, MODEL is made from the bunny, and MESH is the bunny. Every round times each method once, in turn.
The best round of each is reported, and ratios use those. Takes about two minutes on two cores. Open3D is left
out if it is not installed. `query` runs in this process; the startup time of a process is shown beside it.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from common import machine, meshes, model_or_bunny

from neuralsdf.cli.commands.query import command
from neuralsdf.fields.field import NeuralField
from neuralsdf.geometry.unit_ball import uniform_ball
from neuralsdf.mesh.load_mesh import load_mesh
from neuralsdf.storage import save_field
from neuralsdf.thread_count import set_threads, threads

DISTANCE, QUERY = 1.3, 2.5  # maximum times, relative to the kernel

#: Points for mesh distances, whose time is extrapolated.
MESH_POINTS = 20_000
TORCH_BATCHES = (4096, 16384, 65536)

Ways = dict[str, Callable[[], Any]]


def seconds(ways: Ways, rounds: int) -> dict[str, float]:
    """The best time of each method; every round runs all of them in turn."""
    best = dict.fromkeys(ways, np.inf)
    for _ in range(rounds):
        for name, way in ways.items():
            began = time.perf_counter()
            way()
            best[name] = min(best[name], time.perf_counter() - began)
    return best


def torch_network(field: NeuralField) -> torch.nn.Sequential:
    """The same network in torch."""
    layers: list[torch.nn.Module] = []
    activations = {"relu": torch.nn.ReLU, "tanh": torch.nn.Tanh, "silu": torch.nn.SiLU, "elu": torch.nn.ELU}
    architecture = field.network.architecture
    for kernel, bias in architecture.layers(field.network.weights):
        linear = torch.nn.Linear(*kernel.shape)
        linear.weight.data, linear.bias.data = torch.tensor(kernel.T.copy()), torch.tensor(bias.copy())
        layers += [linear, activations[architecture.activation]()]
    return torch.nn.Sequential(*layers[:-1], *([torch.nn.Tanh()] if architecture.output == "tanh" else []))


def in_batches(network: torch.nn.Sequential, points: torch.Tensor, batch: int) -> None:
    """Evaluate all points in batches."""
    with torch.inference_mode():
        torch.cat([network(part) for part in points.split(batch)])


def mesh_ways(path: Path, points: np.ndarray) -> Ways:
    """Signed distances of a mesh by libigl, and by Open3D if it is installed."""
    import igl

    mesh = load_mesh(path)
    sign = igl.SIGNED_DISTANCE_TYPE_FAST_WINDING_NUMBER
    ways: Ways = {
        "libigl signed_distance": lambda: igl.signed_distance(points, mesh.vertices, mesh.faces, sign)
    }
    try:
        import open3d
    except ImportError:
        return ways
    scene = open3d.t.geometry.RaycastingScene()
    scene.add_triangles(mesh.vertices.astype(np.float32), mesh.faces.astype(np.uint32))
    ways["Open3D RaycastingScene"] = lambda: scene.compute_signed_distance(points.astype(np.float32))
    return ways


def main() -> None:
    """Time all methods, and print whether the claim holds."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model", nargs="?")
    parser.add_argument("--mesh", type=Path)
    parser.add_argument("--count", type=int, default=4_000_000)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--threads", type=int)
    arguments = parser.parse_args()
    set_threads(arguments.threads)
    torch.set_num_threads(threads())
    field, count = model_or_bunny(arguments.model), arguments.count
    local = uniform_ball(count, np.random.default_rng(0), 0.999)
    points, local32 = field.transform.apply(local), local.astype(np.float32)
    print(f"{count:,} points inside the ball; {machine()}", flush=True)
    with TemporaryDirectory() as folder:
        model, source, one, out = (str(Path(folder, name)) for name in ("m.h5", "p.npy", "1.npy", "d.npy"))
        save_field(field, model)
        np.save(source, points)
        np.save(one, points[:1])

        def query(file: str) -> None:
            command.main(["--force", "-o", out, model, file], standalone_mode=False)

        whole = [sys.executable, "-m", "neuralsdf", "query", "--force", "-o", out, model]
        network, tensor = torch_network(field), torch.from_numpy(local32)
        ways: Ways = {
            "kernel": lambda: field.program.evaluate(local32),
            "Field.distance": lambda: field.distance(points),
            "query, npy to npy": lambda: query(source),
            "query, the process": lambda: subprocess.run([*whole, source], check=True),
            "query, a process for one point": lambda: subprocess.run([*whole, one], check=True),
        }
        best = seconds(ways, arguments.rounds)
    best |= seconds(
        {f"torch, batches of {b}": lambda b=b: in_batches(network, tensor, b) for b in TORCH_BATCHES}, 3
    )
    share = points[:MESH_POINTS]
    on_mesh = seconds(mesh_ways(arguments.mesh or meshes() / "stanford-bunny.obj", share), 2)
    best |= {name: time * count / len(share) for name, time in on_mesh.items()}
    for name, time_taken in best.items():
        print(f"{name:32s} {time_taken:8.3f} s  {time_taken / best['kernel']:8.2f} times the kernel")
    ratios = best["Field.distance"] / best["kernel"], best["query, npy to npy"] / best["kernel"]
    holds = "yes" if ratios[0] <= DISTANCE and ratios[1] <= QUERY else "NO"
    print(f"at most {DISTANCE} and {QUERY} times: {ratios[0]:.2f} and {ratios[1]:.2f}, {holds}")


if __name__ == "__main__":
    main()
