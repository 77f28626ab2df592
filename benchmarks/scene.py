"""
scene.py
--------
Claim: a scene of 100 different networks renders in at most 5 times the time of one of them, at equal covered
pixels: a 512x512 shaded frame of a square of shapes, and one of a single shape, from as far away as makes it
cover as many pixels.

    python benchmarks/scene.py [MODEL ...] [--shapes 100] [--picture scene.png]

Without models, small ones are fitted first to shapes that this script makes itself (a minute). Where there
are fewer models than shapes, they are used again with weights a little changed: no two are the same.
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

from neuralsdf.camera import Camera
from neuralsdf.convert import convert
from neuralsdf.csg import Shape, TreeField, from_field, union
from neuralsdf.demo import rope_knot
from neuralsdf.field import Field, NeuralField
from neuralsdf.fit import Training
from neuralsdf.mesh import Mesh
from neuralsdf.network import FloatArray, Network
from neuralsdf.render import Tracer, render, save_image
from neuralsdf.storage import open_model

SIZE = 512
REPEATS = 4


def fitted() -> list[NeuralField]:
    """The gallery's shapes, fitted in a hurry."""
    meshes = [Mesh.from_arrays(*rope_knot()), *map(implicit, (gyroid_ball, pierced_cube, vase))]
    training = Training(epochs=6, learning_rate=0.01)
    return [convert(mesh, samples=100_000, training=training).field for mesh in meshes]


def different(fields: Sequence[NeuralField]) -> Iterator[NeuralField]:
    """Fields without end, no two of which have the same weights."""
    rng = np.random.default_rng(0)
    for number, field in zip(count(), cycle(fields)):
        weights: FloatArray = field.network.weights
        if number >= len(fields):
            weights = weights * (1 + 1e-4 * rng.normal(size=weights.shape)).astype(np.float32)
        yield replace(field, network=Network(field.network.architecture, weights), metrics={})


def square(fields: Sequence[NeuralField]) -> Shape:
    """Shapes side by side, balls touching, each turned at random."""
    rng, side = np.random.default_rng(0), int(np.ceil(np.sqrt(len(fields))))
    shapes = []
    for number, field in enumerate(fields):
        row, column = divmod(number, side)
        shape = from_field(field, f"{number}.h5").translate(*-field.transform.centre)
        turned = shape.scale(1 / field.transform.scale).rotate(rng.uniform(0, 360), *rng.normal(size=3))
        shapes.append(turned.translate(2 * column, 0, 2 * row))
    return union(shapes)


def covered(field: Field, camera: Camera, tracer: Tracer) -> int:
    """Pixels that a field covers."""
    picture = render(field, width=SIZE, height=SIZE, camera=camera, tracer=tracer, antialias=1)
    return picture.report.hits


def as_large(field: Field, pixels: int, tracer: Tracer) -> Camera:
    """A camera that sees a field cover so many pixels."""
    near, far = 1.0, 100.0
    for _ in range(12):
        distance = np.sqrt(near * far)
        if covered(field, Camera.orbit(field.transform, distance=distance), tracer) > pixels:
            near = distance
        else:
            far = distance
    return Camera.orbit(field.transform, distance=far)


def main() -> None:
    """Time both, turn by turn, and print the best of each and their ratio."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[3])
    parser.add_argument("models", nargs="*", help="default: small ones of shapes made here")
    parser.add_argument("--shapes", type=int, default=100)
    parser.add_argument("--picture", help="where to save the scene's picture")
    arguments = parser.parse_args()
    fields = [open_model(model) for model in arguments.models] or fitted()
    print(f"{arguments.shapes} shapes, {SIZE}x{SIZE}; {machine()}")
    began = time.perf_counter()
    endless = different(fields)
    scene = TreeField(square([next(endless) for _ in range(arguments.shapes)]))
    print(f"the scene made ready in {time.perf_counter() - began:.2f} s")
    views: list[tuple[Field, Camera, Tracer]] = []
    tracer = Tracer(scene)
    views.append((scene, Camera.orbit(scene.transform, elevation=45), tracer))
    pixels = covered(*views[0])
    tracer = Tracer(fields[0])
    views.append((fields[0], as_large(fields[0], pixels, tracer), tracer))
    for antialias in (1, 3):
        best = [np.inf, np.inf]
        reports = [None, None]
        for _ in range(REPEATS):
            for which, (field, camera, tracer) in enumerate(views):
                began = time.process_time()
                options = {"width": SIZE, "height": SIZE, "camera": camera, "tracer": tracer}
                picture = render(field, antialias=antialias, **options)
                best[which] = min(best[which], time.process_time() - began)
                reports[which] = picture.report
                if which == 0 and arguments.picture:
                    save_image(arguments.picture, picture.rgba, force=True)
        print(
            f"antialias {antialias}: scene {best[0]:.2f} s of processor time, one shape {best[1]:.2f} s, "
            f"ratio {best[0] / best[1]:.2f}"
        )
        for name, report in zip(("scene", "one shape"), reports, strict=True):
            print(
                f"    {name:10} {report.hits:8,} hits, {report.evaluations:10,} evaluations, "
                f"{report.unresolved} unresolved"
            )


if __name__ == "__main__":
    main()
