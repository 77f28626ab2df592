"""
memory.py
---------
Claim: `neuralsdf convert` of a mesh with 400 000 faces needs less than 1 GB of memory. Prints the peak of the
whole process (with interpreter and libraries), that of a process that only loads the mesh, and the size of
the mesh's arrays.

    python benchmarks/memory.py [MESH] [CONVERT OPTIONS...]

Takes a minute or two on two cores.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from common import machine, meshes

from neuralsdf.mesh.load_mesh import load_mesh

LOAD = "import sys; from neuralsdf.mesh.load_mesh import load_mesh; load_mesh(sys.argv[1])"


def peak(folder: str, *command: str) -> int:
    """Peak resident bytes of a Python process with these arguments, started in `folder`.

    A child starts with its parent's peak, so measure while this process is still small.
    """
    child = subprocess.Popen([sys.executable, *command], cwd=folder, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(child.pid, 0)
    if status:
        raise SystemExit(1)  # the child has printed the reason
    return usage.ru_maxrss * 1024


def main() -> None:
    """Load, convert, and compare."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[3])
    parser.add_argument("mesh", nargs="?", help="default: derived_nefertiti_loop_400k.ply")
    arguments, options = parser.parse_known_args()
    path = str(Path(arguments.mesh or meshes() / "derived_nefertiti_loop_400k.ply").resolve())
    with tempfile.TemporaryDirectory() as folder:
        loading = peak(folder, "-c", LOAD, path)
        converting = peak(folder, "-m", "neuralsdf", "convert", path, "-o", "model.h5", *options)
    mesh = load_mesh(path)
    arrays = mesh.vertices.nbytes + mesh.faces.nbytes
    print(f"{mesh.source.name}: {len(mesh.faces):,} faces; {machine()}")
    for name, size in (("the mesh's arrays", arrays), ("loading it", loading), ("converting it", converting)):
        print(f"{name:18}  {size / 1e6:7.0f} MB")
    print(f"ratio: {converting / arrays:.1f} times the arrays, {converting / 1e9:.2f} of the 1 GB claimed")


if __name__ == "__main__":
    main()
