"""
distance.py
-----------
Claim: 1 M signed distances of a mesh with 70 000 faces are several times as fast as with libigl (AABB, and
FastWindingNumberBVH with the same accuracy) on as many threads: near the surface, as in importance sampling,
and uniform in the ball.

    python benchmarks/distance.py [MESH] [--count N]

Takes about half a minute. Both sides get the same points in the same Morton order, which libigl needs to be
fast; our code sorts them again itself.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import numpy as np
from common import machine, meshes

from neuralsdf.array_types import Points
from neuralsdf.geometry.bvh import WINDING_ACCURACY, IglBVH, NativeBVH, TriangleBVH
from neuralsdf.geometry.triangles import sample_surface
from neuralsdf.geometry.unit_ball import normalisation, uniform_ball
from neuralsdf.mesh.load_mesh import load_mesh
from neuralsdf.thread_count import set_threads
from neuralsdf.training.sampling import RADIUS

RUNS = 3  # of each, interleaved; the best counts


def morton_sorted(points: Points) -> Points:
    """Points (n, 3) in Morton order, ten bits per axis."""
    grid = ((points - points.min(axis=0)) * (1023.99 / np.ptp(points, axis=0).max())).astype(np.int64)
    code = np.zeros(len(points), np.int64)
    for bit in range(10):
        for axis in range(3):
            code |= (grid[:, axis] >> bit & 1) << (3 * bit + axis)
    return points[np.argsort(code)]


def seconds(ask: Callable[[Points], Points], points: Points) -> float:
    """Seconds of a query."""
    began = time.perf_counter()
    ask(points)
    return time.perf_counter() - began


def signed_queries(bvh: TriangleBVH) -> dict[str, Callable[[Points], Points]]:
    """The BVH queries of a signed distance."""
    return {
        "distance": bvh.distance,
        "winding number": lambda points: bvh.winding_number(points, WINDING_ACCURACY),
    }


def main() -> None:
    """Time both BVHs on both kinds of points."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[3])
    parser.add_argument("mesh", nargs="?", help="default: stanford-bunny.obj of the private meshes")
    parser.add_argument("--count", type=int, default=1_000_000, help="points of each kind")
    arguments = parser.parse_args()
    set_threads(None)  # libigl reads its own number of threads from what this sets
    mesh = load_mesh(arguments.mesh or meshes() / "stanford-bunny.obj")
    vertices = np.ascontiguousarray(normalisation(mesh.vertices).apply_inverse(mesh.vertices))
    rng = np.random.default_rng(0)
    on_surface, _ = sample_surface(vertices, mesh.faces, arguments.count, rng)
    off = rng.standard_normal((arguments.count, 3)) * rng.exponential(1 / 120, (arguments.count, 1))
    kinds = {
        "near": morton_sorted(on_surface + off),
        "uniform": morton_sorted(uniform_ball(arguments.count, rng, RADIUS)),
    }
    print(f"{mesh.source.name}: {len(mesh.faces):,} faces, {arguments.count:,} points; {machine()}")

    began = time.perf_counter()
    ours = NativeBVH(vertices, mesh.faces)
    built = time.perf_counter()
    theirs = IglBVH(vertices, mesh.faces)
    theirs.winding_number(np.zeros((1, 3)), WINDING_ACCURACY)
    print(f"built in {built - began:.2f} s; libigl's two BVHs in {time.perf_counter() - built:.2f} s")
    print(f"{'':24}  {'ours':>8}  {'libigl':>8}  {'ratio':>6}")
    for kind, points in kinds.items():
        total = np.zeros(2)
        both = zip(signed_queries(ours).items(), signed_queries(theirs).values(), strict=True)
        for (what, ask_ours), ask_theirs in both:
            runs = [(seconds(ask_ours, points), seconds(ask_theirs, points)) for _ in range(RUNS)]
            best = np.min(runs, axis=0)
            total += best
            print(f"{kind + ' ' + what:24}  {best[0]:6.2f} s  {best[1]:6.2f} s  {best[1] / best[0]:6.1f}")
        print(f"{kind + ', signed':24}  {total[0]:6.2f} s  {total[1]:6.2f} s  {total[1] / total[0]:6.1f}")
        sample = np.ascontiguousarray(points[:: max(1, arguments.count // 100_000)])
        difference = np.abs(ours.distance(sample) - theirs.distance(sample)).max()
        insides = [bvh.winding_number(sample, WINDING_ACCURACY) > 0.5 for bvh in (ours, theirs)]
        print(
            f"{'':24}  distances differ by {difference:.1e} at most, {(insides[0] != insides[1]).sum()} signs"
        )


if __name__ == "__main__":
    main()
