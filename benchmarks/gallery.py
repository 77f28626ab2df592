"""Make the pictures of the README from shapes that this script generates. Takes a few minutes.

python benchmarks/gallery.py docs/gallery
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from skimage.measure import marching_cubes

from neuralsdf.backends import Backend, get_backend
from neuralsdf.demo import rope_knot, side_by_side
from neuralsdf.fields.exact_distance import signed_distance
from neuralsdf.fields.field import NeuralField
from neuralsdf.fields.mesh_field import MeshField
from neuralsdf.geometry.unit_ball import normalisation
from neuralsdf.latent.parametric.families import FAMILIES
from neuralsdf.mesh.mesh import Mesh
from neuralsdf.pipeline.convert import fit_mesh
from neuralsdf.program.network import Architecture
from neuralsdf.render import MeshTracer, Shading, render, save_image, turntable
from neuralsdf.render.camera import Camera
from neuralsdf.storage import save_field
from neuralsdf.training.fit_settings import Training

SIZE = 420

#: Options of the networks shown: wider than the default, fitted for longer, stored as float16.
WIDTH, EPOCHS = 48, 40

#: Expressions over the gallery's networks, row by row, as in docs/csg.md, and the number per row.
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

#: Shapes of each family in the picture of the parametric shapes, and the side of each in pixels.
SHAPES, SMALL = 3, 150


def implicit(function: Callable[..., np.ndarray], resolution: int = 224) -> Mesh:
    """The zero set of a smooth function(x, y, z) in [-1.05, 1.05]^3 as a mesh.

    Smooth, because marching cubes cuts creases into jagged rims.
    """
    axis = np.linspace(-1.05, 1.05, resolution)
    values = function(*np.meshgrid(axis, axis, axis, indexing="ij"))
    vertices, faces, _, _ = marching_cubes(values, 0.0, spacing=(axis[1] - axis[0],) * 3)
    return Mesh.from_arrays(vertices - 1.05, faces)


def smooth_max(a: np.ndarray, b: np.ndarray, width: float) -> np.ndarray:
    """The maximum of a and b, rounded where they differ by less than `width`."""
    return np.maximum(a, b) + np.maximum(width - np.abs(a - b), 0) ** 2 / (4 * width)


def gyroid_ball(x: np.ndarray, y: np.ndarray, z: np.ndarray) -> np.ndarray:
    """A ball made of a gyroid's walls."""
    k = 5.0
    gyroid = np.sin(k * x) * np.cos(k * y) + np.sin(k * y) * np.cos(k * z) + np.sin(k * z) * np.cos(k * x)
    walls = (np.sqrt(gyroid**2 + 0.01) - 0.5) / k
    return smooth_max(walls, np.sqrt(x * x + y * y + z * z) - 1, 0.09)


def pierced_cube(x: np.ndarray, y: np.ndarray, z: np.ndarray) -> np.ndarray:
    """A rounded cube, cut by a ball and drilled along each axis."""
    cube = (x**8 + y**8 + z**8) ** (1 / 8) - 0.72
    shape = smooth_max(cube, np.sqrt(x * x + y * y + z * z) - 0.93, 0.08)
    for across in (np.hypot(x, y), np.hypot(y, z), np.hypot(z, x)):
        shape = smooth_max(shape, 0.38 - across, 0.08)
    return shape


def vase(x: np.ndarray, y: np.ndarray, z: np.ndarray) -> np.ndarray:
    """A fluted, twisted vase, open at the top."""
    radius, angle = np.hypot(x, z), np.arctan2(z, x)
    profile = 0.42 + 0.16 * np.sin(2.6 * y + 0.6) + 0.035 * np.cos(9 * angle + 4 * y)
    outside = smooth_max(radius - profile, np.abs(y) - 0.92, 0.05)
    hollow = smooth_max(radius - profile + 0.1, -0.8 - y, 0.05)
    return smooth_max(outside, -hollow, 0.05)


def labelled(pair: np.ndarray, left: str, right: str) -> np.ndarray:
    """A picture (h, 2 h, 4) of two halves, with a line of text below each: (h + 30, 2 h, 4)."""
    picture = Image.fromarray(np.concatenate([pair, np.repeat(pair[-1:], 30, axis=0)]))
    draw, font = ImageDraw.Draw(picture), ImageFont.load_default(15)
    height, half = pair.shape[0], pair.shape[1] // 2
    for text, middle in ((left, half // 2), (right, half + half // 2)):
        draw.text((middle, height + 15), text, fill=(52, 56, 66, 255), font=font, anchor="mm")
    return np.asarray(picture)


def combined(models: Path) -> np.ndarray:
    """A sheet of pictures that `neuralsdf csg` makes from the models in a folder."""
    tiles = []
    for number, expression in enumerate(COMBINED):
        picture = models / f"{number}.png"
        command = ("csg", expression, "-o", picture.name, "--size", f"{TILE}x{TILE}", "--force")
        subprocess.run([sys.executable, "-m", "neuralsdf", *command], cwd=models, check=True)
        tiles.append(np.asarray(Image.open(picture).convert("RGBA")))
    rows = [np.concatenate(tiles[i : i + COLUMNS], axis=1) for i in range(0, len(tiles), COLUMNS)]
    return np.concatenate(rows, axis=0)


def families(backend: Backend) -> np.ndarray:
    """A sheet of parametric shapes, two families per row."""
    tiles = []
    for family in FAMILIES.values():
        for index in range(SHAPES):
            drawn = family.draw(0, index).mesh
            mesh = Mesh.from_arrays(drawn.vertices, drawn.faces)
            transform = normalisation(mesh.vertices)
            field = MeshField(signed_distance(mesh, transform, backend=backend), transform)
            tracer = MeshTracer(field)
            tiles.append(render(field, width=SMALL, height=SMALL, tracer=tracer, antialias=2).rgba)
    rows = [np.concatenate(tiles[i : i + 2 * SHAPES], axis=1) for i in range(0, len(tiles), 2 * SHAPES)]
    return np.concatenate(rows, axis=0)


def bracket(picture: Path) -> None:
    """The README's bracket, as a picture."""
    readme = Path(__file__).parents[1].joinpath("README.md").read_text()
    expression = readme.partition('csg "(rounded_box')[2].partition('"')[0]
    command = ("csg", f"(rounded_box{expression}", "-o", str(picture), "--size", "640x420", "--up", "z")
    subprocess.run([sys.executable, "-m", "neuralsdf", *command, "--force"], check=True)


def save_turntable(path: Path, frames: list[np.ndarray]) -> None:
    """An animated WebP of opaque frames (h, w, 4), 20 per second: a tenth of the size of a GIF."""
    first, *rest = (Image.fromarray(frame).convert("RGB") for frame in frames)
    first.save(path, save_all=True, append_images=rest, duration=50, loop=0, quality=85, method=6)


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
        fields[name] = fit_mesh(
            mesh,
            architecture=Architecture.uniform(8, WIDTH),
            training=Training(epochs=EPOCHS),
            precision="f16",
        ).field
        error, iou = fields[name].metrics["surface_mean"], fields[name].metrics["iou"]
        print(f"{name}: {len(mesh.faces):,} faces, surface error {error:.5f}, IoU {iou:.4f}", flush=True)
    sizes: dict[str, int] = {}
    with TemporaryDirectory() as models:
        for name, field in fields.items():
            path = Path(models) / f"{name}.h5"
            save_field(field, path)
            sizes[name] = path.stat().st_size
        save_image(folder / "csg.png", combined(Path(models)), force=True)
        bracket(folder / "bracket.png")
    backend = get_backend()
    pairs = [
        labelled(
            side_by_side(
                MeshField(
                    signed_distance(mesh, normalisation(mesh.vertices), backend=backend),
                    fields[name].transform,
                ),
                fields[name],
                size=SIZE,
            ),
            f"mesh: {len(mesh.faces):,} triangles",
            f"network: {sizes[name] / 1000:.0f} kB",
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
    shape = fields["gyroid"]
    frames = turntable(shape, 60, width=400, height=400, camera=Camera.orbit(shape.transform))
    save_image(folder / "families.png", families(backend), force=True)
    save_turntable(folder / "turntable.webp", [frame.rgba for frame in frames])


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "docs/gallery"))
