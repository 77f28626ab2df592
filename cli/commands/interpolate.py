"""
interpolate.py
--------------
`neuralsdf interpolate`: shapes between two shapes, with a trained latent model.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..shared import options, terminal
from ..shared.code_search import code_search
from ..shared.number_types import WholeNumber
from .reconstruct import writer

if TYPE_CHECKING:
    from ...array_types import FloatArray
    from ...geometry.similarity_transform import Similarity
    from ...latent.inference import InferenceSettings
    from ...latent.reconstruct import TrainedModel
    from ...latent_fields.latent_field import LatentField

#: Side of an animation in pixels, and its shapes by default: three seconds forwards and back.
_SIDE, _FRAMES = 480, 40

#: Shapes by default if each is written to a file.
_FILES = 12


@options.command(
    epilog=options.example(
        "neuralsdf interpolate run/ chair/train/chair_00000 chair/train/chair_00003 -o between.gif",
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
    metavar="N",
    help="Shapes, A and B included.  [default: 12; 40 for an animation]",
)
@code_search
@options.as_json
def command(
    run: Path,
    first: str,
    last: str,
    output: Path,
    force: bool,
    steps: int | None,
    as_json: bool,
    **search: Any,
) -> None:
    """Shapes between A and B: names of training shapes of RUN, or meshes and point clouds.

    Scale and position of files change along with the shape. A training shape takes those of the other;
    between two training shapes, all are in model space, where the enclosing ball has radius 1.
    """
    from ...latent.inference import InferenceSettings
    from ...latent.interpolate import interpolate
    from ...latent.reconstruct import TrainedModel
    from ...render.animation import ANIMATION_FORMATS

    animated = output.suffix.lower() in ANIMATION_FORMATS
    steps = steps or (_FRAMES if animated else _FILES)
    paths = [output] if animated else [numbered(output, i, steps) for i in range(1, steps + 1)]
    write = _animation_writer(paths, steps, force) if animated else _each_writer(paths, force)
    model = TrainedModel.open(run)
    settings = InferenceSettings(**search)
    with terminal.stage("find the codes"):
        ends = [_end(model, name, settings) for name in (first, last)]
    known = [transform for _, transform in ends if transform is not None]
    transforms = (known[0], known[-1]) if known else None
    write(interpolate(model, ends[0][0], ends[1][0], steps, transforms))
    if as_json:
        terminal.print_json({"run": str(run), "steps": steps, "outputs": [str(path) for path in paths]})
    else:
        terminal.say(" to ".join(dict.fromkeys((str(paths[0]), str(paths[-1])))) + f": {steps} shapes")


def numbered(path: Path, number: int, count: int) -> Path:
    """The file of one of `count` shapes: NAME-01.ply, so that the names sort as the shapes."""
    return path.with_stem(f"{path.stem}-{number:0{len(str(count))}}")


def _end(model: TrainedModel, name: str, settings: InferenceSettings) -> tuple[FloatArray, Similarity | None]:
    """The code of a training shape, or of a file; and the file's transform, or None."""
    from ...errors import UsageError
    from ...latent.reconstruct import reconstruct_file

    if Path(name).is_file():
        field = reconstruct_file(model, name, settings).field
        return field.code, field.transform
    try:
        return model.code(name), None
    except UsageError as error:
        raise UsageError(f"{name}: no such file; {error}") from error


def _animation_writer(paths: list[Path], steps: int, force: bool) -> Callable[[Iterator[LatentField]], None]:
    """What writes pictures of fields from the same side, forwards and back, to an animation."""
    from ...files.atomic_write import check_writable
    from ...render import check_animation, render, save_animation

    check_animation(paths[0], _SIDE, _SIDE, 2 * steps - 2, transparent=False)
    check_writable(paths[0], force=force)

    def write(fields: Iterator[LatentField]) -> None:
        pictures = [render(field, width=_SIDE, height=_SIDE).rgba for field in fields]
        save_animation(paths[0], iter([*pictures, *pictures[-2:0:-1]]), force=force)

    return write


def _each_writer(paths: list[Path], force: bool) -> Callable[[Iterator[LatentField]], None]:
    """What writes a file for each field; model files need no decoder."""
    from ...files.atomic_write import check_writable
    from ...storage import MODEL_SUFFIXES

    suffix = paths[0].suffix.lower()
    bake = suffix in MODEL_SUFFIXES
    write_to = writer(paths[0], suffix, bake=bake, allow_outside=False, force=force)
    for path in paths:
        check_writable(path, force=force)

    def write(fields: Iterator[LatentField]) -> None:
        for path, field in zip(paths, fields, strict=True):
            write_to(path, field)

    return write
