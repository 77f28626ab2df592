"""
interpolate.py
--------------
`neuralsdf interpolate`: shapes between two shapes, with a trained latent model.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..shared import options, terminal
from ..shared.number_types import WholeNumber
from .reconstruct import iterations, starts, writer

if TYPE_CHECKING:
    from ...latent.inference import InferenceSettings
    from ...latent.reconstruct import TrainedModel
    from ...latent_fields.latent_field import LatentField


@options.command(
    epilog=options.example(
        "neuralsdf interpolate run/ chair/train/3 chair/train/7 -o between.gif",
        "neuralsdf interpolate run/ a.obj b.obj --steps 5 -o between.ply",
    )
)
@click.argument("run", type=options.INPUT)
@click.argument("first", metavar="A")
@click.argument("last", metavar="B")
@options.output(
    "Animation (.gif, .webp, .mp4), or mesh or picture: NAME.ply becomes NAME-1.ply, NAME-2.ply, ...",
    required=True,
)
@options.force
@click.option(
    "--steps",
    type=WholeNumber(2, 10_000),
    default=12,
    show_default=True,
    metavar="N",
    help="Shapes, A and B included.",
)
@iterations
@starts
@options.seed
@options.as_json
def command(
    run: Path,
    first: str,
    last: str,
    output: Path,
    force: bool,
    steps: int,
    iterations: int,
    starts: int,
    seed: int,
    as_json: bool,
) -> None:
    """Shapes between A and B: names of training shapes of RUN, or meshes and point clouds.

    Shapes between training shapes are in model space, where the enclosing ball has radius 1.
    """
    from ...latent.inference import InferenceSettings
    from ...latent.interpolate import interpolate
    from ...latent.reconstruct import TrainedModel
    from ...render.animation import ANIMATION_FORMATS

    animated = output.suffix.lower() in ANIMATION_FORMATS
    model = TrainedModel.open(run)
    settings = InferenceSettings(iterations=iterations, starts=starts, seed=seed)
    with terminal.stage("find the codes"):
        ends = [_code(model, name, settings) for name in (first, last)]
    transforms = tuple(transform for _, transform in ends if transform is not None)
    fields = interpolate(model, ends[0][0], ends[1][0], steps, transforms if len(transforms) == 2 else None)
    written = _write_animation(fields, output, force) if animated else _write_each(fields, output, force)
    if as_json:
        terminal.print_json({"run": str(run), "steps": steps, "outputs": [str(path) for path in written]})
    else:
        terminal.say(
            f"{written[0]}" + (f" to {written[-1]}" if len(written) > 1 else "") + f": {steps} shapes"
        )


def _code(model: TrainedModel, name: str, settings: InferenceSettings) -> tuple[Any, Any]:
    """The code of a training shape, or of a file; and the file's transform, or None."""
    from ...latent.observation import observe
    from ...latent.reconstruct import reconstruct

    if Path(name).is_file():
        observation = observe(name, seed=settings.seed)
        return reconstruct(model, observation, settings).field.code, observation.transform
    return model.code(name), None


def _write_animation(fields: Iterator[LatentField], path: Path, force: bool) -> list[Path]:
    """Write pictures of the fields, from the same camera, and back."""
    from ...render import render, save_animation

    pictures = [render(field, width=480, height=480).rgba for field in fields]
    save_animation(path, iter([*pictures, *pictures[-2:0:-1]]), force=force)
    return [path]


def _write_each(fields: Iterator[LatentField], path: Path, force: bool) -> list[Path]:
    """Write a file for each field; model files need no decoder."""
    from ...storage import MODEL_SUFFIXES

    paths, bake = [], path.suffix.lower() in MODEL_SUFFIXES
    for number, field in enumerate(fields, 1):
        paths.append(path.with_stem(f"{path.stem}-{number}"))
        writer(paths[-1], bake=bake, allow_outside=False, force=force)(field)
    return paths
