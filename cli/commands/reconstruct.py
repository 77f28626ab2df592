"""
reconstruct.py
--------------
`neuralsdf reconstruct`: reconstruct meshes and point clouds with a trained latent model.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ...errors import NeuralSDFError, OutputError, UsageError
from ..shared import options, terminal
from ..shared.code_search import code_search
from .batch_convert import duration, note_unlisted
from .extract import extracted, wants_normals, write_mesh

if TYPE_CHECKING:
    from ...latent.reconstruct import Reconstruction
    from ...latent_fields.latent_field import LatentField

_INTERRUPTED = 130

#: Formats of the reconstructions of a folder.
_FORMATS = ("ply", "obj", "stl", "glb", "off", "png", "jpg", "webp", "h5")


@options.command(
    epilog=options.example(
        "neuralsdf reconstruct run/ chair.obj -o chair.ply",
        "neuralsdf reconstruct run/ scan.ply -o chair.h5 --bake",
        "neuralsdf reconstruct run/ half-a-scan.xyz -o chair.png --fit-pose",
        "neuralsdf reconstruct run/ scans/ -o chairs/ --format obj",
    )
)
@click.argument("run", type=options.INPUT)
@click.argument("source", metavar="INPUT", type=options.INPUT)
@options.output(
    "Mesh (.ply, .obj, .stl, .glb, .off), picture (.png, .jpg, .webp) or model (.h5); a folder if INPUT is "
    "one.",
    required=True,
)
@options.force
@click.option(
    "--format",
    "format_",
    type=click.Choice(_FORMATS),
    help="Format of the files in a folder.  [default: ply]",
)
@click.option("--bake", is_flag=True, help="Write a model that needs no decoder, instead of the code.")
@click.option(
    "--allow-outside", is_flag=True, help="Let the model file refer to a run outside of its own folder."
)
@click.option(
    "--partial",
    is_flag=True,
    help="The point cloud covers only a part of the shape; the space around it may not be free.",
)
@click.option(
    "--transform",
    type=options.INPUT,
    metavar="FILE",
    help="Four rows of four numbers that map the unit ball to the ball around the whole shape.  "
    "[default: the ball around the point cloud]",
)
@click.option(
    "--fit-pose",
    is_flag=True,
    help="Find the ball around the whole shape from a part of it: its size and position, not a rotation.",
)
@code_search
@options.as_json
def command(
    run: Path,
    source: Path,
    output: Path,
    force: bool,
    format_: str | None,
    bake: bool,
    allow_outside: bool,
    partial: bool,
    transform: Path | None,
    fit_pose: bool,
    as_json: bool,
    **search: Any,
) -> None:
    """Reconstruct INPUT, a mesh or a point cloud with normals, with the model trained in RUN.

    Point clouds are PLY, NPY (n, 6) or text with six numbers per line. The result is in the units of INPUT. A
    model file holds the code and refers to the decoder in RUN.

    INPUT may be a folder, or a pattern in quotes. One that fails is reported, and does not stop the others.
    The same command continues after an interruption: it keeps the files that exist. The exit code is 1 if one
    failed.
    """
    from ...latent.inference import InferenceSettings
    from ...latent.input_folder import is_many
    from ...latent.observation import read_transform
    from ...latent.reconstruct import TrainedModel, reconstruct_file
    from ...storage import MODEL_SUFFIXES

    many = is_many(source)
    suffix = _suffix(source, output, format_, many)
    write_to = writer(output, suffix, bake=bake, allow_outside=allow_outside, force=force)
    with terminal.stage(f"open {run}"):
        model = TrainedModel.open(run)
    if suffix in MODEL_SUFFIXES and not bake and not allow_outside:
        _check_inside(model.folder.decoder, output if many else output.parent)
    pose = None if transform is None else read_transform(transform)
    if partial and pose is None and not fit_pose:
        terminal.note("the ball around a part is not that of the whole shape: --fit-pose finds that")
    settings = InferenceSettings(**search)

    def perform(path: Path, out: Path) -> Reconstruction:
        found = reconstruct_file(model, path, settings, transform=pose, partial=partial, fit_pose=fit_pose)
        with options.naming(path), terminal.stage(f"write {out}"):
            write_to(out, found.field)
        return found

    if many:
        _reconstruct_all(source, output, suffix, force, perform, as_json)
    else:
        _reconstruct_one(source, output, force, perform, as_json, fit_pose)


def _suffix(source: Path, output: Path, format_: str | None, many: bool) -> str:
    """The suffix of the files to write; raises `UsageError` if `-o` or `--format` do not fit the input."""
    if not many:
        if format_ is not None:
            raise UsageError(f"--format belongs to a folder of inputs; the suffix of -o {output} decides")
        if output.is_dir():
            raise UsageError(f"-o {output}: is a folder, and {source} is one input; name a file in it")
        return output.suffix.lower()
    if output.suffix.lower().removeprefix(".") in _FORMATS and not output.is_dir():
        raise UsageError(
            f"-o {output}: {source} stands for several inputs, so name a folder, and the format with --format"
        )
    return f".{format_ or 'ply'}"


def _check_inside(decoder: Path, folder: Path) -> None:
    """Raise `UsageError`, before any work, for a decoder that code files in a folder must not refer to."""
    from ...storage.linked_files import is_outside, relative_name

    if is_outside(relative_name(decoder, folder)):
        raise UsageError(
            f"{folder}: codes may not refer to {decoder}, which is outside of this folder; --bake writes "
            "models that need no decoder, --allow-outside permits the reference"
        )


def _reconstruct_one(
    source: Path,
    output: Path,
    force: bool,
    perform: Callable[[Path, Path], Reconstruction],
    as_json: bool,
    fitted: bool,
) -> None:
    from ...files.atomic_write import check_writable

    check_writable(output, force=force, source=source)
    found = perform(source, output)
    if as_json:
        terminal.print_json(_plain(source, output, found))
        return
    terminal.say(
        f"{output}: mean error {found.loss:.2%} of the radius where the shape is known, "
        f"code found in {found.seconds:.1f} s"
    )
    if fitted:
        place = found.field.transform
        centre = ", ".join(f"{value:.6g}" for value in place.centre)
        terminal.say(f"ball around the whole shape: radius {place.scale:.6g}, centre ({centre})")


def _reconstruct_all(
    source: Path,
    folder: Path,
    suffix: str,
    force: bool,
    perform: Callable[[Path, Path], Reconstruction],
    as_json: bool,
) -> None:
    """Reconstruct all inputs of a folder, and print a line for each that fails."""
    from ...files.atomic_write import make_folder
    from ...latent.input_folder import find_inputs

    inputs, began = find_inputs(str(source), folder, suffix), time.monotonic()
    note_unlisted(inputs.unlisted)
    left = [(path, out) for path, out in inputs.files if force or not out.exists()]
    done, failed = [], []
    try:
        with terminal.bar("reconstruct", total=len(left)) as bar:
            for path, out in left:
                make_folder(out.parent)
                try:
                    done.append(_plain(path, out, perform(path, out)))
                except OutputError:  # as a full disk, which the next would meet, too
                    raise
                except NeuralSDFError as error:
                    failed.append({"input": str(path), "error": str(error)})
                    terminal.error(error if str(error).startswith(str(path)) else f"{path}: {error}")
                bar.update()
    except (KeyboardInterrupt, SystemExit) as end:
        terminal.error("interrupted; run the same command again to continue")
        raise SystemExit(end.code if isinstance(end, SystemExit) else _INTERRUPTED) from None
    kept, seconds = len(inputs.files) - len(left), time.monotonic() - began
    if as_json:
        result = {"output": str(folder), "done": done, "failed": failed, "kept": kept, "seconds": seconds}
        terminal.print_json(result)
    else:
        terminal.say(
            f"{folder}: {len(done):,} of {len(inputs.files):,} inputs reconstructed, {len(failed):,} failed, "
            f"in {duration(seconds)}"
        )
        if kept:
            terminal.note(f"files that exist already (--force replaces them): {kept:,}")
    raise SystemExit(1 if failed or inputs.unlisted else 0)


def _plain(source: Path, output: Path, found: Reconstruction) -> dict[str, Any]:
    return {
        "input": str(source),
        "output": str(output),
        "loss": found.loss,
        "transform": found.field.transform.matrix.tolist(),
        "seconds": found.seconds,
    }


def writer(
    output: Path, suffix: str, *, bake: bool, allow_outside: bool, force: bool
) -> Callable[[Path, LatentField], None]:
    """What writes fields to files of a suffix; raises `UsageError`, naming `output`, for an unknown one."""
    from ...mesh.save_mesh import WRITABLE
    from ...render import render, save_image
    from ...render.picture_files import STILL_FORMATS
    from ...storage import MODEL_SUFFIXES, save_model

    known = (*WRITABLE, *STILL_FORMATS, *MODEL_SUFFIXES)
    if suffix not in known:
        raise UsageError(f"{output}: unknown suffix {suffix or '(none)'}; one of {', '.join(known)}")
    if bake and suffix not in MODEL_SUFFIXES:
        raise UsageError(f"{output}: --bake belongs to a model file (.h5)")

    def write(path: Path, field: LatentField) -> None:
        if suffix in STILL_FORMATS:
            save_image(path, render(field, width=800, height=800).rgba, force=force)
        elif suffix in WRITABLE:
            surface, normals = extracted(field, path, None, None, None, wants_normals(None, path))
            write_mesh(surface, normals, path, force)
        elif bake:
            save_model(field, path, force=force)
        else:
            save_model(field, path, layout="code", allow_outside=allow_outside, force=force)

    return write
