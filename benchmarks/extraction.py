"""
extraction.py
-------------
Time and memory of `neuralsdf.fields.extract` compared with marching cubes on the dense grid (scikit-image):
the same field and the same grid, each in its own process.

    python benchmarks/extraction.py [MODEL] [--resolutions 128 256 512]

Without a model, a torus is converted first. Ratios carry over to other machines, times do not.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np


def sparse(field, resolution: int) -> tuple[int, int]:  # type: ignore[no-untyped-def]
    """Number of vertices and faces of our extraction."""
    from neuralsdf.fields.extract import model_surface

    surface = model_surface(field, resolution)
    return len(surface.vertices), len(surface.faces)


def dense(field, resolution: int) -> tuple[int, int]:  # type: ignore[no-untyped-def]
    """Number of vertices and faces of scikit-image's marching cubes on the dense grid."""
    from skimage.measure import marching_cubes

    spacing = 2 / (resolution - 2)
    along = (np.arange(resolution + 1) * spacing - (1 + spacing)).astype(np.float32)
    values = np.empty((resolution + 1,) * 3, np.float32)
    y, z = np.meshgrid(along, along, indexing="ij")
    for plane, x in zip(values, along, strict=True):
        plane[:] = field.value(np.stack([np.full_like(y, x), y, z], axis=-1).reshape(-1, 3)).reshape(y.shape)
    vertices, faces, _, _ = marching_cubes(values, 0.0, method="lorensen")
    return len(vertices), len(faces)


METHODS = {"sparse": sparse, "dense": dense}


def worker(method: str, model: str, resolution: int) -> None:
    """Print time and memory of one method, after a warm-up at a low resolution."""
    from neuralsdf.storage import open_field

    field = open_field(model)
    METHODS[method](field, 16)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    began = time.perf_counter()
    vertices, faces = METHODS[method](field, resolution)
    seconds = time.perf_counter() - began
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(json.dumps({"seconds": seconds, "mb": (after - before) / 1024, "peak_mb": after / 1024,
                      "vertices": vertices, "faces": faces}))  # fmt: skip


def torus_model(folder: str) -> str:
    """Convert a torus, if no model is given."""
    import trimesh

    from neuralsdf.mesh.mesh import Mesh
    from neuralsdf.pipeline.convert import fit_mesh
    from neuralsdf.storage import save_field

    torus = trimesh.creation.torus(0.7, 0.25, major_sections=96, minor_sections=48)
    path = str(Path(folder) / "torus.h5")
    save_field(fit_mesh(Mesh.from_arrays(torus.vertices, torus.faces), samples=100_000).field, path)
    return path


def main() -> None:
    """Compare both methods at every resolution."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[3])
    parser.add_argument("model", nargs="?")
    parser.add_argument("--resolutions", type=int, nargs="+", default=[128, 256, 512])
    parser.add_argument("--worker", choices=METHODS, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.worker:
        worker(arguments.worker, arguments.model, arguments.resolutions[0])
        return
    with tempfile.TemporaryDirectory() as folder:
        model = arguments.model or torus_model(folder)
        print("resolution  method   seconds    memory      peak      faces   time ratio   memory ratio")
        for resolution in arguments.resolutions:
            found = {}
            for method in METHODS:
                command = [
                    sys.executable,
                    __file__,
                    model,
                    "--worker",
                    method,
                    "--resolutions",
                    str(resolution),
                ]
                done = subprocess.run(command, capture_output=True, text=True, check=True)
                found[method] = json.loads(done.stdout)
            for method, result in found.items():
                faster = found["dense"]["seconds"] / result["seconds"]
                smaller = found["dense"]["mb"] / max(result["mb"], 1)
                print(
                    f"{resolution:10}  {method:7}  {result['seconds']:7.2f}  {result['mb']:5.0f} MB  "
                    f"{result['peak_mb']:5.0f} MB  {result['faces']:9,}  {faster:11.1f}  {smaller:13.1f}"
                )


if __name__ == "__main__":
    main()
