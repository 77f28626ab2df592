"""
batch.py
--------
Claims: `neuralsdf batch-convert` uses all cores, and its overhead does not grow: the peak memory with 10 000
shapes is within 10 % of that with 1000, and continuing a finished run costs almost nothing.

    python benchmarks/batch.py throughput [--meshes FOLDER] [--models FOLDER] [--count 200]
        [--workers 1 2] [CONVERT OPTIONS...]
    python benchmarks/batch.py bookkeeping [--counts 1000 10000]

`throughput` converts real meshes, and surfaces of the models of the paper's authors if there are any, each
several times, rotated, scaled and translated, with one worker and with one per core. `bookkeeping` converts
boxes with a network of 113 weights and measures them at few points, so that only the overhead remains; then
it runs again with nothing to do, and again after every tenth mesh has a new time stamp.
On two cores `bookkeeping` takes four minutes and `throughput` three quarters of an hour.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from common import machine, meshes

from neuralsdf.array_types import Index, Points
from neuralsdf.batch.run_status import batch_status
from neuralsdf.errors import NoSurfaceError
from neuralsdf.evaluation.metrics import Sizes, set_default_sizes
from neuralsdf.fields.extract import extract
from neuralsdf.fields.field import require_shape
from neuralsdf.mesh.formats.registry import SUFFIXES
from neuralsdf.mesh.load_mesh import load_mesh
from neuralsdf.mesh.save_mesh import save_mesh
from neuralsdf.storage import open_field
from neuralsdf.thread_count import available_cores

#: Option for few points in metrics, in the driver and in its workers, which import this file again.
SMALL = "--small"
OPTIONS = ("--layers", "2", "--width", "8", "--samples", "1000", "--epochs", "1", "--batch", "100")

#: Resolution of the meshes that are extracted from models.
MODEL_RESOLUTION = 192

if SMALL in sys.argv:
    set_default_sizes(Sizes(points=500, resolution=16))


def timed(*arguments: object, small: bool = False) -> tuple[float, int, int]:
    """Run batch-convert: seconds, and peak resident bytes of the driver and of all processes."""
    marks = (SMALL,) if small else ()
    command = [sys.executable, __file__, *marks, "batch-convert", *map(str, arguments)]
    began = time.perf_counter()
    driver = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    of_driver, of_all = 0, 0
    while driver.poll() is None:
        processes = [resident(driver.pid), *(resident(child) for child in children(driver.pid))]
        of_driver, of_all = max(of_driver, processes[0]), max(of_all, sum(processes))
        time.sleep(0.05)
    return time.perf_counter() - began, of_driver, of_all


def children(process: int) -> list[int]:
    """Child processes of a process."""
    try:
        text = Path(f"/proc/{process}/task/{process}/children").read_text()
    except OSError:
        return []
    return [int(child) for child in text.split()]


def resident(process: int) -> int:
    """Resident bytes of a process, including memory shared with others."""
    try:
        return 4096 * int(Path(f"/proc/{process}/statm").read_text().split()[1])
    except OSError:
        return 0


def holds_shape(path: Path) -> bool:
    """Whether a model has a surface; one of the authors' models has none."""
    try:
        require_shape(open_field(path))
    except NoSurfaceError:
        return False
    return True


def surface_of(path: Path) -> tuple[Points, Index]:
    """Vertices and faces of a mesh, or of the surface of a model."""
    if path.suffix == ".h5":
        surface = extract(open_field(path), MODEL_RESOLUTION)
        return surface.vertices, surface.faces
    mesh = load_mesh(path)
    return mesh.vertices, mesh.faces


def throughput(files: list[Path], count: int, worker_counts: list[int], options: list[str]) -> None:
    """Convert real meshes with each number of workers."""
    rng = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as place:
        dataset = Path(place) / "meshes"
        dataset.mkdir()
        for i in range(count):
            source = files[i % len(files)]
            vertices, faces = surface_of(source)
            turn = np.linalg.qr(rng.normal(size=(3, 3)))[0]
            turn *= np.sign(np.linalg.det(turn))
            vertices = rng.uniform(0.1, 10) * vertices @ turn + rng.normal(size=3)
            save_mesh(dataset / f"{i:05}-{source.stem}.ply", vertices, faces)
        print(f"{count} shapes of {len(files)} meshes and models; {machine()}", flush=True)
        rates = {}
        for workers in worker_counts:
            out = Path(place) / f"out-{workers}"
            seconds, _, peak = timed(dataset, "-o", out, "--workers", workers, *options)
            (status,) = batch_status(out)
            rates[workers] = count / seconds * 60
            efficiency = f", efficiency {rates[workers] / (workers * rates[1]):.2f}" if 1 in rates else ""
            print(
                f"{workers} workers: {rates[workers]:.1f} shapes a minute{efficiency}; "
                f"{status.counts.done} done, {status.counts.failed} failed; {peak / 1e6:.0f} MB",
                flush=True,
            )


def bookkeeping(counts: list[int]) -> None:
    """Convert many trivial shapes."""
    import trimesh  # not in the workers, which import this file

    print(f"{available_cores()} workers; {machine()}")
    print("shapes  first run                 driver   all   nothing to do   every tenth touched")
    with tempfile.TemporaryDirectory() as place:
        for count in counts:
            dataset, out = Path(place) / f"meshes-{count}", Path(place) / f"out-{count}"
            dataset.mkdir()
            cube = trimesh.creation.box()
            for i in range(count):
                save_mesh(dataset / f"{i:05}.ply", cube.vertices * [1, 1 + i % 7, 1 + i / count], cube.faces)
            time.sleep(3)  # a file that has just changed is hashed again
            seconds, driver, everything = timed(dataset, "-o", out, *OPTIONS, small=True)
            again, _, _ = timed(dataset, "-o", out, *OPTIONS, small=True)
            for path in sorted(dataset.iterdir())[::10]:
                path.touch()
            touched, _, _ = timed(dataset, "-o", out, *OPTIONS, small=True)
            print(
                f"{count:6}  {seconds:6.1f} s ({1000 * seconds / count:5.1f} ms a shape)  "
                f"{driver / 1e6:4.0f} MB  {everything / 1e6:4.0f} MB  {again:6.2f} s        {touched:6.2f} s"
            )


def main() -> None:
    """Run one of the two parts."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[3])
    parser.add_argument("part", choices=["throughput", "bookkeeping"])
    parser.add_argument("--meshes", type=Path, default=None, help="default: those of the test data")
    parser.add_argument("--models", type=Path, default=None, help="default: those of the test data")
    parser.add_argument("--workers", type=int, nargs="+", default=sorted({1, available_cores()}))
    parser.add_argument("--count", type=int, default=200)
    parser.add_argument("--counts", type=int, nargs="+", default=[1000, 10_000])
    arguments, options = parser.parse_known_args()
    if arguments.part == "throughput":
        folder = arguments.meshes or meshes()
        files = sorted(path for path in folder.iterdir() if path.suffix.lower() in SUFFIXES)
        models = arguments.models or (None if arguments.meshes else folder.parent / "author-models")
        files += [path for path in sorted(models.glob("*.h5")) if holds_shape(path)] if models else []
        throughput(files, arguments.count, arguments.workers, options)
    else:
        bookkeeping(arguments.counts)


if __name__ == "__main__":
    if "batch-convert" in sys.argv:
        from neuralsdf.cli.main import main as command

        command([argument for argument in sys.argv[1:] if argument != SMALL])
    else:
        main()
