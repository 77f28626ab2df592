"""
quality.py
----------
Claim: how well the default settings convert a set of real meshes. The defaults were chosen on the tuning half
(every second file by name, starting with the first), so the checking half shows what to expect for new
meshes.

    python benchmarks/quality.py [--meshes FOLDER] [--models FOLDER] [--only NAME...] [--json FILE]

Takes a minute per mesh on two cores. With --models, each model is saved there when it is made, and existing
models are not made again: a stopped run resumes, and silhouettes alone take seconds per mesh.

For each mesh: its metrics (neuralsdf/evaluation/metrics.py; for an open mesh without the closing sheet), in
units of the bounding radius, and three numbers from silhouettes of 512x512 pixels, the default view and two
more:

    edge    pixels where the traced field differs from a ray cast of the mesh extracted at 512, and that are
            more than one pixel from the other's edge
    wrong   those of them where the field itself contradicts the tracer; 0 if the renderer is right. The
            field is evaluated every 0.0001 along the pixel's ray; the mesh may lack features thinner than
            one of its cells (0.004)
    mask    intersection over union of the traced field and a ray cast of the original mesh

A mesh without an inside is excluded and named.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from common import machine, meshes
from scipy.ndimage import binary_dilation, binary_erosion
from trimesh import Trimesh
from trimesh.ray.ray_pyembree import RayMeshIntersector

from neuralsdf.array_types import Mask, Points, Vectors
from neuralsdf.errors import NeuralSDFError, NoInteriorError
from neuralsdf.fields.extract import model_surface
from neuralsdf.fields.field import NeuralField
from neuralsdf.mesh.load_mesh import load_mesh
from neuralsdf.mesh.mesh import Mesh
from neuralsdf.pipeline.convert import fit_mesh
from neuralsdf.render import Tracer
from neuralsdf.render.camera import Camera
from neuralsdf.storage import open_field, save_field

Row = dict[str, Any]
Reasons = dict[str, str]  # by the mesh's name

SIZE = 512
MARCH_STEP = 1e-4
VIEWS = ((30.0, 20.0), (140.0, -35.0), (260.0, 50.0))  # azimuth and elevation; the first is the default
SUFFIXES = (".obj", ".stl", ".ply", ".off", ".glb", ".gltf", ".3mf")

COLUMNS = (
    ("faces", "7d"),
    ("surface", "8.5f"),
    ("iou", "7.4f"),
    ("two_way", "8.5f"),
    ("hausdorff", "9.4f"),
    ("seconds", "7.1f"),
    ("edge", "5d"),
    ("wrong", "5d"),
    ("mask", "7.4f"),
)


# -- one mesh --------------------------------------------------------------------------------------


def converted(path: Path, models: Path | None) -> tuple[NeuralField, Mesh, dict[str, float]]:
    """The field of a mesh, the mesh, and the seconds of each stage; read from `models` if it exists."""
    if models is None:
        made = fit_mesh(path)
        return made.field, made.mesh, made.seconds
    model, times = models / f"{path.name}.h5", models / f"{path.name}.seconds.json"
    if not model.exists():
        made = fit_mesh(path)
        times.write_text(json.dumps(made.seconds))
        save_field(made.field, model)
    return open_field(model), load_mesh(path), json.loads(times.read_text())


def measured(path: Path, models: Path | None) -> Row:
    """The row of the table for one mesh."""
    field, mesh, seconds = converted(path, models)
    pictures = silhouettes(field, mesh)  # first, because it raises an error if the field has no surface
    metrics = field.metrics

    def without_sheet(name: str) -> float:
        return metrics.get(f"{name}_open", metrics[name])

    return {
        "name": path.name,
        "closed": mesh.findings.closed,
        "faces": len(mesh.faces),
        "surface": metrics["surface_mean"],
        "iou": metrics["iou"],
        "two_way": without_sheet("two_way"),
        "hausdorff": without_sheet("hausdorff"),
        "seconds": sum(seconds.values()),
        "stages": seconds,
        "metrics": metrics,
        **pictures,
    }


def silhouettes(field: NeuralField, mesh: Mesh) -> Row:
    """`edge` and `wrong` (sums over the views) and `mask` (mean), and the results of each view."""
    own = model_surface(field, SIZE)
    original = field.transform.apply_inverse(mesh.vertices)
    casts = [_caster(own.vertices, own.faces), _caster(original, mesh.faces)]
    tracer = Tracer(field)
    views = []
    for azimuth, elevation in VIEWS:
        eye, directions = _rays(field, azimuth, elevation)
        found = tracer.trace(eye, directions)
        near = eye + directions * (np.linalg.norm(eye) - 1.05)  # embree calculates in float32
        traced, of_field, of_mesh = (
            hit.reshape(SIZE, SIZE)
            for hit in (found.hit, *(cast.intersects_any(near, directions) for cast in casts))
        )
        off = np.flatnonzero(off_edge(traced, of_field))
        views.append(
            {
                "edge": len(off),
                "wrong": sum(
                    bool(found.hit[pixel])
                    != marched(field, near[pixel], directions[pixel], bool(found.buried[pixel]))
                    for pixel in off
                ),
                "mask": float((traced & of_mesh).sum() / max(1, (traced | of_mesh).sum())),
                "unresolved": int(found.unresolved.sum()),
                "buried": int(found.buried.sum()),
            }
        )
    sums = {name: sum(view[name] for view in views) for name in ("edge", "wrong")}
    return {**sums, "mask": float(np.mean([view["mask"] for view in views])), "views": views}


def off_edge(a: Mask, b: Mask) -> Mask:
    """Pixels in which two masks differ, more than one pixel (of eight neighbours) from the other's edge."""
    square = np.ones((3, 3))
    off = np.zeros_like(a)
    for mask, other in ((a, b), (b, a)):
        off |= mask & ~binary_dilation(other, square)
        off |= ~mask & binary_erosion(other, square)
    return off


def marched(field: NeuralField, near: Points, direction: Vectors, buried: bool) -> bool:
    """Whether the field turns negative along a ray from a point `near` (3,) less than 0.1 before the ball.

    buried: the ray enters the ball deep inside the solid, and counts only after it has left it.
    """
    points = near + np.arange(0, 2.1, MARCH_STEP)[:, None] * direction
    inside = field.value(points[np.linalg.norm(points, axis=1) < 1].astype(np.float32)) < 0
    return bool((inside & ~np.append(buried, inside[:-1])).any())


def _rays(field: NeuralField, azimuth: float, elevation: float) -> tuple[Points, Points]:
    pixels = np.arange(SIZE * SIZE)
    camera = Camera.orbit(field.transform, azimuth, elevation)
    return camera.rays(field.transform, SIZE, SIZE, pixels % SIZE + 0.5, pixels // SIZE + 0.5)


def _caster(vertices: Points, faces: npt.NDArray[np.int64]) -> RayMeshIntersector:
    return RayMeshIntersector(Trimesh(vertices, faces, process=False))


# -- all of them -----------------------------------------------------------------------------------


def halves(folder: Path) -> dict[str, list[Path]]:
    """The files of a folder sorted by name, assigned to the two halves alternately."""
    files = sorted(
        (path for path in folder.iterdir() if path.suffix.lower() in SUFFIXES),
        key=lambda path: path.name.encode(),
    )
    return {"tuning": files[::2], "checking": files[1::2]}


def run(chosen: list[tuple[str, Path]], models: Path | None) -> tuple[list[Row], Reasons, Reasons]:
    """Rows, and the reasons of excluded and of failed meshes; prints each row when it is complete."""
    rows: list[Row] = []
    left_out: Reasons = {}
    failed: Reasons = {}
    print(f"{'':36}  half      ", *(f"{name:>{int(how.split('.')[0].strip('df'))}}" for name, how in COLUMNS))
    for half, path in chosen:
        try:
            row = measured(path, models) | {"half": half}
        except NoInteriorError as error:
            left_out[path.name] = str(error)
            continue
        except NeuralSDFError as error:
            failed[path.name] = str(error)
            continue
        rows.append(row)
        label = f"{path.name}{'' if row['closed'] else ' (open)'}"
        print(f"{label:36}  {half:8}  ", *(f"{row[name]:{how}}" for name, how in COLUMNS), flush=True)
    return rows, left_out, failed


def summary(rows: list[Row]) -> dict[str, float]:
    """The figures of the claims for some rows."""

    def share(of: list[Row], name: str, low: float, high: float) -> float:
        return float(np.mean([low <= row[name] <= high for row in of])) if of else float("nan")

    def median(of: list[Row], name: str) -> float:
        return float(np.median([row[name] for row in of])) if of else float("nan")

    closed = [row for row in rows if row["closed"]]
    open_ones = [row for row in rows if not row["closed"]]
    return {
        "meshes": len(rows),
        "surface error: share <= 0.003": share(rows, "surface", 0, 0.003),
        "surface error: greatest": max((row["surface"] for row in rows), default=float("nan")),
        "closed meshes": len(closed),
        "closed, IoU: median": median(closed, "iou"),
        "closed, IoU: share >= 0.93": share(closed, "iou", 0.93, 1),
        "open meshes": len(open_ones),
        "open, two-way: share <= 0.006": share(open_ones, "two_way", 0, 0.006),
        "silhouette, edge: share of 0": share(rows, "edge", 0, 0),
        "silhouette, edge: pixels off": sum(row["edge"] for row in rows),
        "silhouette, edge: pixels wrong": sum(row["wrong"] for row in rows),
        "silhouette, mask: median": median(rows, "mask"),
        "seconds a mesh: median": median(rows, "seconds"),
    }


#: The claims: minimum or maximum of each figure of the summary.
GOALS = {
    "surface error: share <= 0.003": ">= 0.9",
    "surface error: greatest": "<= 0.01",
    "closed, IoU: median": ">= 0.975",
    "closed, IoU: share >= 0.93": ">= 0.9",
    "open, two-way: share <= 0.006": ">= 0.9",
    "silhouette, edge: share of 0": "1",
    "silhouette, edge: pixels off": "0",
    "silhouette, edge: pixels wrong": "0",
    "silhouette, mask: median": ">= 0.98",
}


def print_summaries(summaries: dict[str, dict[str, float]]) -> None:
    """Print one column per set of rows, beside the goals."""
    print(f"\n{'':32}", *(f"{name:>9}" for name in summaries), "  goal")
    for name in summaries["both"]:
        values = (f"{found[name]:9.4g}" for found in summaries.values())
        print(f"{name:32}", *values, f"  {GOALS.get(name, '')}")


def main() -> None:
    """Convert, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[3])
    parser.add_argument("--meshes", type=Path, help="folder of meshes; default: the private ones")
    parser.add_argument("--models", type=Path, help="folder for models, which later runs use again")
    parser.add_argument("--only", nargs="+", metavar="NAME", help="file names; the halves do not change")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all results to this file")
    arguments = parser.parse_args()
    if arguments.models:
        arguments.models.mkdir(parents=True, exist_ok=True)
    chosen = sorted(
        (
            (half, path)
            for half, paths in halves(arguments.meshes or meshes()).items()
            for path in paths
            if not arguments.only or path.name in arguments.only
        ),
        key=lambda pair: pair[1].name.encode(),
    )
    print(f"{len(chosen)} meshes; {machine()}")
    began = time.perf_counter()
    rows, left_out, failed = run(chosen, arguments.models)
    groups = {half: [row for row in rows if row["half"] == half] for half in ("tuning", "checking")}
    summaries = {name: summary(group) for name, group in (groups | {"both": rows}).items()}
    print_summaries(summaries)
    print(f"\nleft out, without an inside: {', '.join(left_out) or 'none'}")
    for reason in failed.values():
        print(f"failed: {reason}")
    if arguments.json:
        everything = {"machine": machine(), "seconds": time.perf_counter() - began, "rows": rows,
                      "summary": summaries, "left_out": left_out, "failed": failed}  # fmt: skip
        arguments.json.write_text(json.dumps(everything, indent=1))
    if failed:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
