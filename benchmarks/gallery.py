"""Make the pictures of the README, from shapes that this script makes itself. Takes about a minute.

python benchmarks/gallery.py docs/gallery
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from PIL import Image
from skimage.measure import marching_cubes

from neuralsdf.camera import Camera
from neuralsdf.convert import convert, normalisation, signed_distance
from neuralsdf.demo import rope_knot, side_by_side
from neuralsdf.field import MeshField, NeuralField
from neuralsdf.mesh import Mesh
from neuralsdf.render import Shading, render, save_animation, save_image, turntable
from neuralsdf.storage import save_field

SIZE = 420

#: What combines the gallery's networks, row by row, as in docs/csg.md, and how many there are in a row.
COMBINED = (
    "cube.h5 | smooth(0.3, sphere(0.5).translate(0, 0.85, 0))",
    "gyroid.h5 & box(1.15)",
    "cube.h5.hollow(0.05) - box(1, 2, 1).translate(0.5, 0, 0.5)",
    "cube.h5.scale(0.35).repeat(0.6, 0.6, 0.6, 3, 3, 3)",
    "(rounded_box(0.9, 0.9, 2, 0.1) - cylinder(0.3, 3)).twist(70).rotate(-90, 1)",
    "vase.h5.displace(0.03, 0.2)",
    "cube.h5.blend(sphere(0.9), 0.45)",
    "knot.h5.scale(0.6).translate(0.4, 0, 0).symmetry(1)",
)
COLUMNS, TILE = 4, 240


def implicit(function, resolution: int = 160) -> Mesh:
    """The zero set of function(x, y, z) in [-1.05, 1.05]^3 as a mesh."""
    axis = np.linspace(-1.05, 1.05, resolution)
    values = function(*np.meshgrid(axis, axis, axis, indexing="ij"))
    vertices, faces, _, _ = marching_cubes(values, 0.0, spacing=(axis[1] - axis[0],) * 3)
    return Mesh.from_arrays(vertices - 1.05, faces)


def gyroid_ball(x, y, z):
    """A ball made of a gyroid's walls."""
    k = 6.5
    gyroid = np.sin(k * x) * np.cos(k * y) + np.sin(k * y) * np.cos(k * z) + np.sin(k * z) * np.cos(k * x)
    return np.maximum((np.abs(gyroid) - 0.45) / k, np.sqrt(x * x + y * y + z * z) - 1)


def pierced_cube(x, y, z):
    """A rounded cube, cut by a ball and drilled along each axis."""
    cube = (x**8 + y**8 + z**8) ** (1 / 8) - 0.72
    ball = np.sqrt(x * x + y * y + z * z) - 0.93
    holes = 0.38 - np.minimum.reduce([np.hypot(x, y), np.hypot(y, z), np.hypot(z, x)])
    return np.maximum.reduce([cube, ball, holes])


def vase(x, y, z):
    """A fluted, twisted vase, open at the top."""
    radius, angle = np.hypot(x, z), np.arctan2(z, x)
    profile = 0.42 + 0.16 * np.sin(2.6 * y + 0.6) + 0.035 * np.cos(9 * angle + 4 * y)
    outside = np.maximum(radius - profile, np.abs(y) - 0.92)
    hollow = np.maximum(radius - profile + 0.09, -0.8 - y)
    return np.maximum(outside, -hollow)


def combined(models: Path) -> np.ndarray:
    """A sheet of what `neuralsdf csg` makes of the models in a folder."""
    tiles = []
    for number, expression in enumerate(COMBINED):
        picture = models / f"{number}.png"
        command = ("csg", expression, "-o", picture.name, "--size", f"{TILE}x{TILE}", "--force")
        subprocess.run([sys.executable, "-m", "neuralsdf", *command], cwd=models, check=True)
        tiles.append(np.asarray(Image.open(picture).convert("RGBA")))
    rows = [np.concatenate(tiles[i : i + COLUMNS], axis=1) for i in range(0, len(tiles), COLUMNS)]
    return np.concatenate(rows, axis=0)


def main(folder: Path) -> None:
    """Write every picture into `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    meshes = {
        "knot": Mesh.from_arrays(*rope_knot()),
        "gyroid": implicit(gyroid_ball),
        "cube": implicit(pierced_cube),
        "vase": implicit(vase),
    }
    fields: dict[str, NeuralField] = {}
    for name, mesh in meshes.items():
        fields[name] = convert(mesh).field
        error, iou = fields[name].metrics["surface_mean"], fields[name].metrics["iou"]
        print(f"{name}: {len(mesh.faces):,} faces, surface error {error:.5f}, IoU {iou:.4f}", flush=True)
    with TemporaryDirectory() as models:
        for name, field in fields.items():
            save_field(field, Path(models) / f"{name}.h5")
        save_image(folder / "csg.png", combined(Path(models)), force=True)
    pairs = [
        side_by_side(
            MeshField(signed_distance(mesh, normalisation(mesh)), fields[name].transform),
            fields[name],
            size=SIZE,
        )
        for name, mesh in meshes.items()
    ]
    rows = [np.concatenate(pairs[i : i + 2], axis=1) for i in (0, 2)]
    save_image(folder / "pairs.png", np.concatenate(rows, axis=0), force=True)
    knot = fields["knot"]
    styles = [
        render(knot, width=SIZE, height=SIZE, shading=shading).rgba
        for shading in (Shading(), Shading("normals"), Shading("depth"))
    ]
    save_image(folder / "shadings.png", np.concatenate(styles, axis=1), force=True)
    frames = turntable(
        fields["gyroid"], 24, width=200, height=200, camera=Camera.orbit(fields["gyroid"].transform)
    )
    save_animation(folder / "turntable.gif", (frame.rgba for frame in frames), force=True)


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "docs/gallery"))
