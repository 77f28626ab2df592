"""
scene.py
--------
Claim: a scene of 100 different networks renders in at most 5 times the time of one of them, at equal covered
pixels. Compares a 512x512 shaded frame of a square of shapes with the mean of frames of single shapes, each
from the distance at which it covers as many pixels.

    python benchmarks/scene.py [MODEL ...] [--shapes 100] [--picture scene.png]

Without models, small ones are first fitted to shapes that this script generates (half a minute). If there are
fewer models than shapes, they are used again with slightly changed weights: no two are the same.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import count, cycle

import numpy as np
from common import machine
from gallery import gyroid_ball, implicit, pierced_cube, vase

from neuralsdf.array_types import FloatArray
from neuralsdf.csg import Shape, from_field, union
from neuralsdf.demo import rope_knot
from neuralsdf.fields.field import Field, NeuralField
from neuralsdf.mesh.mesh import Mesh
from neuralsdf.pipeline.convert import fit_mesh
from neuralsdf.program.network import Network
from neuralsdf.render import RenderReport, Tracer, render, save_image
from neuralsdf.render.camera import Camera
from neuralsdf.storage import open_model
from neuralsdf.training.fit_settings import Training

SIZE = 512
REPEATS = 4
#: Maximum number of models that are rendered alone.
ALONE = 8


def fitted() -> list[NeuralField]:
    """The gallery's shapes, with a short fit."""
    meshes = [Mesh.from_arrays(*rope_knot()), *map(implicit, (gyroid_ball, pierced_cube, vase))]
    training = Training(epochs=12)
    return [fit_mesh(mesh, samples=200_000, training=training).field for mesh in meshes]


def different(fields: Sequence[NeuralField]) -> Iterator[NeuralField]:
    """Infinitely many fields, no two with the same weights, each as accurate as its model."""
    rng = np.random.default_rng(0)
    for number, field in zip(count(), cycle(fields)):
        weights: FloatArray = field.network.weights
        if number >= len(fields):
            weights = weights * (1 + 1e-4 * rng.normal(size=weights.shape)).astype(np.float32)
        yield replace(field, network=Network(field.network.architecture, weights))


def square(fields: Sequence[NeuralField]) -> Shape:
    """Shapes in a square, with touching balls and random rotations."""
    rng, side = np.random.default_rng(0), int(np.ceil(np.sqrt(len(fields))))
    shapes = []
    for number, field in enumerate(fields):
        row, column = divmod(number, side)
        shape = from_field(field, f"{number}.h5").translate(*-field.transform.centre)
        turned = shape.scale(1 / field.transform.scale).rotate(rng.uniform(0, 360), *rng.normal(size=3))
        shapes.append(turned.translate(2 * column, 0, 2 * row))
    return union(shapes)


def covered(field: Field, camera: Camera, tracer: Tracer) -> int:
    """Number of pixels that a field covers."""
    picture = render(field, width=SIZE, height=SIZE, camera=camera, tracer=tracer, antialias=1)
    return picture.report.hits


def as_large(field: Field, pixels: int, tracer: Tracer) -> Camera:
    """A camera for which a field covers this many pixels."""
    near, far = 1.0, 100.0
    for _ in range(12):
        distance = np.sqrt(near * far)
        if covered(field, Camera.orbit(field.transform, distance=distance), tracer) > pixels:
            near = distance
        else:
            far = distance
    return Camera.orbit(field.transform, distance=far)


def seconds(field: Field, camera: Camera, tracer: Tracer, antialias: int) -> tuple[float, RenderReport]:
    """Processor time of a shaded frame, and its report."""
    began = time.process_time()
    picture = render(field, width=SIZE, height=SIZE, camera=camera, tracer=tracer, antialias=antialias)
    return time.process_time() - began, picture.report


def main() -> None:
    """Time all frames in turn; print the best of each, and the ratio of the scene to the mean shape."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[3])
    parser.add_argument("models", nargs="*", help="default: small models of generated shapes")
    parser.add_argument("--shapes", type=int, default=100)
    parser.add_argument("--picture", help="where to save the scene's picture")
    arguments = parser.parse_args()
    fields = [open_model(model) for model in arguments.models] or fitted()
    print(f"{arguments.shapes} shapes of {len(fields)} models, {SIZE}x{SIZE}; {machine()}")
    began = time.perf_counter()
    endless = different(fields)
    scene = square([next(endless) for _ in range(arguments.shapes)])
    print(f"the scene made ready in {time.perf_counter() - began:.2f} s")
    tracer = Tracer(scene)
    views: list[tuple[Field, Camera, Tracer]] = [(scene, Camera.orbit(scene.transform, elevation=45), tracer)]
    pixels = covered(*views[0])
    for field in fields[:ALONE]:
        tracer = Tracer(field)
        views.append((field, as_large(field, pixels, tracer), tracer))
    if arguments.picture:
        save_image(arguments.picture, render(scene, width=SIZE, height=SIZE).rgba, force=True)
    for antialias in (1, 3):
        runs = [[seconds(*view, antialias) for view in views] for _ in range(REPEATS)]
        of_scene, *alone = np.min([[time for time, _ in run] for run in runs], axis=0)
        one = np.mean(alone)
        print(
            f"antialias {antialias}: scene {of_scene:.2f} s of processor time, one shape {one:.2f} s "
            f"({np.min(alone):.2f} to {np.max(alone):.2f}), ratio {of_scene / one:.2f}"
        )
        for name, (_, report) in zip(("scene", "the first shape"), runs[0], strict=False):
            print(
                f"    {name:15} {report.hits:8,} hits, {report.evaluations:10,} evaluations, "
                f"{report.unresolved} unresolved"
            )


if __name__ == "__main__":
    main()
