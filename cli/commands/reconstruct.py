"""
reconstruct.py
--------------
`neuralsdf reconstruct`: reconstruct a mesh or a point cloud with a trained latent model.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ..shared import options, terminal
from ..shared.number_types import WholeNumber
from .extract import extracted, wants_normals, write_mesh

if TYPE_CHECKING:
    from ...latent_fields.latent_field import LatentField

#: Options of the search for a code.
iterations = click.option(
    "--iterations",
    type=WholeNumber(1, 10**6),
    default=800,
    show_default=True,
    metavar="N",
    help="Steps in which the code is found, from each start.",
)
starts = click.option(
    "--starts",
    type=WholeNumber(1, 1000),
    default=4,
    show_default=True,
    metavar="N",
    help="Starts of the search; the best code is used.",
)


@options.command(
    epilog=options.example(
        "neuralsdf reconstruct run/ chair.obj -o chair.ply",
        "neuralsdf reconstruct run/ scan.ply -o chair.h5 --bake",
        "neuralsdf reconstruct run/ half-a-scan.xyz -o chair.png --partial --transform pose.txt",
    )
)
@click.argument("run", type=options.INPUT)
@click.argument("source", metavar="INPUT", type=options.INPUT)
@options.output(
    "Mesh (.ply, .obj, .stl, .glb, .off), picture (.png, .jpg, .webp) or model (.h5).", required=True
)
@options.force
@click.option(
    "--bake",
    is_flag=True,
    help="Write a model that needs no decoder, instead of the code.",
)
@click.option(
    "--allow-outside", is_flag=True, help="Let the model file refer to a run outside of its own folder."
)
@click.option(
    "--partial",
    is_flag=True,
    help="The point cloud covers only a part of the shape; use only its own points.",
)
@click.option(
    "--transform",
    type=options.INPUT,
    metavar="FILE",
    help="Four rows of four numbers that map the unit ball to the ball around the whole shape.  "
    "[default: the ball around the point cloud]",
)
@iterations
@starts
@options.seed
@options.as_json
def command(
    run: Path,
    source: Path,
    output: Path,
    force: bool,
    bake: bool,
    allow_outside: bool,
    partial: bool,
    transform: Path | None,
    iterations: int,
    starts: int,
    seed: int,
    as_json: bool,
) -> None:
    """Reconstruct INPUT, a mesh or a point cloud with normals, with the model trained in RUN.

    Point clouds are PLY, NPY (n, 6) or text with six numbers per line. The result is in the units of INPUT. A
    model file holds the code and refers to the decoder in RUN.
    """
    from ...files.atomic_write import check_writable
    from ...latent.inference import InferenceSettings
    from ...latent.observation import observe, read_transform
    from ...latent.reconstruct import TrainedModel, reconstruct

    write = writer(output, bake=bake, allow_outside=allow_outside, force=force)
    check_writable(output, force=force, source=source)
    with terminal.stage(f"open {run}"):
        model = TrainedModel.open(run)
    with terminal.stage(f"read {source}"):
        pose = None if transform is None else read_transform(transform)
        observation = observe(source, transform=pose, partial=partial, seed=seed)
    with terminal.stage("find the code"):
        settings = InferenceSettings(iterations=iterations, starts=starts, seed=seed)
        found = reconstruct(model, observation, settings)
    with options.naming(source), terminal.stage(f"write {output}"):
        write(found.field)
    if as_json:
        result = {"run": str(run), "input": str(source), "output": str(output)}
        terminal.print_json({**result, "loss": found.loss, "seconds": found.seconds})
    else:
        terminal.say(f"{output}: loss {found.loss:.5f}, code found in {found.seconds:.1f} s")


def writer(path: Path, *, bake: bool, allow_outside: bool, force: bool) -> Callable[[LatentField], None]:
    """What writes a field to a file of this suffix; raises `UsageError` for suffixes of no output."""
    from ...errors import UsageError
    from ...mesh.save_mesh import check_mesh_output
    from ...render import render, save_image
    from ...render.picture_files import STILL_FORMATS
    from ...storage import MODEL_SUFFIXES, save_model

    suffix = path.suffix.lower()
    if bake and suffix not in MODEL_SUFFIXES:
        raise UsageError(f"{path}: --bake belongs to a model file (.h5)")

    def write_model(field: LatentField) -> None:
        if bake:
            save_model(field, path, force=force)
        else:
            save_model(field, path, layout="code", allow_outside=allow_outside, force=force)

    def write_picture(field: LatentField) -> None:
        save_image(path, render(field, width=800, height=800).rgba, force=force)

    def write_surface(field: LatentField) -> None:
        surface, normals = extracted(field, path, None, None, None, wants_normals(None, path))
        write_mesh(surface, normals, path, force)

    if suffix in MODEL_SUFFIXES:
        return write_model
    if suffix in STILL_FORMATS:
        return write_picture
    check_mesh_output(path, force=force)
    return write_surface
