"""
convert.py
----------
`neuralsdf convert`: meshes to model files.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..errors import NeuralSDFError, UsageError
from . import options

if TYPE_CHECKING:
    from ..convert import Conversion, Progress
    from ..network import Architecture
    from ..target import Target

_ACTIVATIONS = ("relu", "sine", "softplus", "silu", "elu", "tanh")


@click.command(
    epilog=options.example(
        "neuralsdf convert bunny.obj",
        "neuralsdf convert bunny.obj -o bunny.h5 --width 64 --precision f16",
        "neuralsdf convert bunny.obj --target-error 0.002",
        "neuralsdf convert parts/*.stl -o models/",
    )
)
@click.argument("meshes", nargs=-1, required=True, type=click.Path(path_type=Path), metavar="MESH...")
@options.output(
    "Model file to write, or a folder (for several meshes, or with a / at its end).  "
    "[default: the mesh's name with .h5]",
    kind=str,
)
@options.force
@click.option("--layers", type=click.IntRange(1, 256), default=8, show_default=True, help="Hidden layers.")
@click.option("--width", type=click.IntRange(1, 8192), help="Width of each.  [default: 32]")
@click.option(
    "--activation",
    type=click.Choice(_ACTIVATIONS),
    default="relu",
    show_default=True,
    help="Of the hidden layers.",
)
@click.option(
    "--samples",
    type=click.IntRange(1000, 10**9),
    default=None,
    help="Signed samples to fit.  [default: 500000]",
)
@click.option(
    "--sampling",
    type=click.Choice(["importance", "uniform", "surface", "vertex"]),
    default="importance",
    show_default=True,
    help="Where samples lie.",
)
@click.option(
    "--beta", type=float, default=None, help="Importance is exp(-beta |d|), d in radii.  [default: 120]"
)
@click.option(
    "--uniform",
    type=float,
    default=None,
    help="Share of samples spread evenly over the ball.  [default: 0.1]",
)
@click.option(
    "--weight",
    metavar="HOW",
    help="More samples where it matters: `curvature`, `thickness`, or a file with a value for each vertex "
    "(.npy, .csv, .txt).",
)
@click.option(
    "--sign",
    type=click.Choice(["winding", "pseudonormal", "parity"]),
    default="winding",
    show_default=True,
    help="How inside is told from outside.",
)
@click.option(
    "--thickness", type=float, metavar="T", help="Convert the solid within T/2 of the surface (mesh units)."
)
@click.option(
    "--optimizer",
    type=click.Choice(["soap", "adam"]),
    default="soap",
    show_default=True,
    help="How the network is fitted.",
)
@click.option("--learning-rate", type=float, default=None, help="Peak rate.  [default: the optimiser's own]")
@click.option("--batch", type=click.IntRange(1, 10**7), default=None, help="Samples a step.  [default: 2048]")
@click.option(
    "--epochs", type=click.IntRange(1, 10**6), default=None, help="Passes over the samples.  [default: 20]"
)
@click.option("--time", "seconds", type=float, help="Fit for this many seconds instead (not reproducible).")
@click.option(
    "--patience",
    type=click.IntRange(0, 10**6),
    default=0,
    show_default=True,
    metavar="N",
    help="Stop early when the loss has not fallen by 1 % in N epochs; 0 for never.",
)
@click.option(
    "--precision",
    type=click.Choice(["f32", "f16", "int8"]),
    help="Of the stored weights.  [default: f32]",
)
@click.option(
    "--target-error",
    "target",
    metavar="E",
    callback=lambda ctx, parameter, value: _target(value),
    help="The smallest file with a mean surface error of at most E (of the radius; 0.1u is 0.1 in mesh "
    "units): the width, and unless given the precision, are found.",
)
@click.option(
    "--layout",
    type=click.Choice(["native", "keras"]),
    default="native",
    show_default=True,
    help="Of the file: our own, or Keras weights with their key beside them.",
)
@options.device
@options.threads
@options.seed
@options.as_json
def command(
    meshes: tuple[Path, ...],
    output: str | None,
    force: bool,
    layout: str,
    as_json: bool,
    **settings: Any,
) -> None:
    """Convert triangle meshes (OBJ, STL, PLY, OFF, GLB/glTF, 3MF) to neural signed distance fields.

    Ends with a table of what was measured on the stored weights. Several meshes need a folder as -o; one
    that fails does not stop the others. A model that misses --target-error is written, and counts as failed.
    """
    if settings["target"] is not None and settings["width"] is not None:
        raise UsageError("--width with --target-error: the error decides the width; leave one out")
    if layout == "keras" and settings["target"] is not None:
        settings["precision"] = settings["precision"] or "f32"  # the only one of that layout
    outputs = _outputs(meshes, output)
    results, failures = [], 0
    for mesh, target in zip(meshes, outputs, strict=True):
        try:
            results.append(_convert_one(mesh, target, force, layout, settings, quiet=as_json))
        except UsageError:
            raise
        except NeuralSDFError as error:
            if len(meshes) == 1:
                raise
            failures += 1
            click.echo(f"neuralsdf: error: {error}", err=True)
            results.append({"mesh": str(mesh), "error": str(error)})
    if as_json:
        options.print_json(results[0] if len(results) == 1 else results)
    if failures:
        click.echo(f"neuralsdf: {failures} of {len(meshes)} meshes could not be converted", err=True)
    if missed := sum(not result.get("target", {}).get("met", True) for result in results):
        click.echo(f"neuralsdf: {missed} of {len(meshes)} models miss the target error", err=True)
    if failures or missed:
        raise SystemExit(1)


def _target(text: str | None) -> Target | None:
    if text is None:
        return None
    from ..target import Target

    return Target.parse(text)


def _outputs(meshes: tuple[Path, ...], output: str | None) -> list[Path]:
    """The file that each mesh is written to; raises `UsageError` where two would share one."""
    from ..output import make_folder

    folder = None if output is None else Path(output)
    if len(meshes) == 1 and output is not None and not output.endswith("/") and not Path(output).is_dir():
        return [Path(output)]
    if folder is not None and folder.exists() and not folder.is_dir():
        raise UsageError(f"-o {output}: several meshes need a folder, and this is a file")
    paths = [(folder or mesh.parent) / f"{mesh.stem}.h5" for mesh in meshes]
    for path in paths:
        if paths.count(path) > 1:
            raise UsageError(
                f"{path} would be written by more than one mesh; convert them into folders of their own"
            )
    if folder is not None:
        make_folder(folder)
    return paths


def _convert_one(
    mesh: Path, target: Path, force: bool, layout: str, settings: dict[str, Any], *, quiet: bool
) -> dict[str, Any]:
    """Convert one mesh, write the model, and print (unless `quiet`) and return what was measured."""
    from ..output import check_writable
    from ..storage import check_output, save_field

    # All of it now, not after a minute's work.
    check_writable(target, force=force, source=mesh)
    architecture = _architecture(settings)
    check_output(target, architecture, layout=layout, precision=settings["precision"] or "f32", force=force)
    with _progress_bar(mesh.name) as progress:
        made = _run(mesh, architecture, settings, progress)
    save_field(made.field, target, layout=layout, force=force)
    summary = _summary(made, mesh, target)
    for line in made.warnings:
        click.echo(f"neuralsdf: {line}", err=True)
    if not quiet:
        _print_summary(summary)
    return summary


def _architecture(settings: dict[str, Any]) -> Architecture:
    from ..network import Architecture

    return Architecture.uniform(settings["layers"], settings["width"] or 32, settings["activation"])


def _run(mesh: Path, architecture: Architecture, settings: dict[str, Any], progress: Progress) -> Conversion:
    from ..convert import SAMPLES, convert
    from ..fit import Training
    from ..sampling import Density

    def given(**values: Any) -> dict[str, Any]:
        """The options that were set; the library knows the defaults of the others."""
        return {name: settings[option] for name, option in values.items() if settings[option] is not None}

    return convert(
        mesh,
        architecture=architecture,
        density=Density(**given(method="sampling", beta="beta", uniform="uniform")),
        samples=settings["samples"] or SAMPLES,
        training=Training(
            **given(
                optimizer="optimizer",
                epochs="epochs",
                batch="batch",
                learning_rate="learning_rate",
                seconds="seconds",
                patience="patience",
            )
        ),
        sign=settings["sign"],
        thickness=settings["thickness"],
        weight=settings["weight"],
        precision=settings["precision"],
        target=settings["target"],
        seed=settings["seed"],
        backend=settings["backend"],
        progress=progress,
    )


def _summary(made: Conversion, mesh: Path, target: Path) -> dict[str, Any]:
    """Everything the table shows; lengths of metrics in mesh units."""
    from ..units import to_mesh_units

    before, after = mesh.stat().st_size, target.stat().st_size
    field, settings = made.field, made.field.settings
    reached = {name: settings[key] for name, key in _TARGET.items() if key in settings}
    return {
        "mesh": str(mesh),
        "model": str(target),
        "faces": len(made.mesh.faces),
        "network": str(field.network.architecture),
        "precision": field.precision,
        "weights": field.network.architecture.weight_count,
        "bytes_before": before,
        "bytes_after": after,
        "ratio": before / after,
        "radius": field.transform.scale,
        "findings": made.mesh.findings.line(),
        "warnings": made.warnings,
        "metrics": field.metrics,
        "metrics_mesh_units": to_mesh_units(field.metrics, field.transform.scale),
        "seconds": made.seconds,
    } | ({"target": reached} if reached else {})


#: What a field's settings say of its target error.
_TARGET = {"error": "target_error", "met": "target_met", "widths": "widths"}


def _print_summary(summary: dict[str, Any]) -> None:
    metrics, mesh_units = summary["metrics"], summary["metrics_mesh_units"]
    seconds = summary["seconds"]
    click.echo(f"{summary['mesh']} -> {summary['model']}")
    options.print_table(
        [
            ["faces", f"{summary['faces']:,}", ""],
            ["bytes before", f"{summary['bytes_before']:,}", ""],
            ["bytes after", f"{summary['bytes_after']:,}", f"1 : {summary['ratio']:.1f}"],
            *(
                [label, options.text(mesh_units[name]), options.text(metrics[name])]
                for label, name in (
                    ("loss", "loss"),
                    ("surface error, mean", "surface_mean"),
                    ("surface error, 95 %", "surface_p95"),
                    ("surface error, max", "surface_max"),
                    ("two-way distance", "two_way"),
                    ("Hausdorff distance", "hausdorff"),
                )
                if name in metrics
            ),
            ["IoU", options.text(metrics["iou"]), ""],
        ],
        header=["", "mesh units", "of the radius"],
    )
    if "target" in summary:
        widths = ", ".join(map(str, summary["target"]["widths"]))
        click.echo(f"{summary['network']}, {summary['precision']}; widths fitted: {widths}")
    parts = "  ".join(f"{stage} {value:.1f}" for stage, value in seconds.items())
    click.echo(f"{sum(seconds.values()):.1f} s: {parts}")


@contextmanager
def _progress_bar(name: str) -> Iterator[Progress]:
    """A bar on stderr over the fit, with the stage beside it; nothing where stderr is no terminal."""
    from tqdm import tqdm

    layout = "{bar} {n:3.0f} %  {desc}"
    with tqdm(total=100, desc=name, bar_format=layout, leave=False, disable=None) as bar:

        def progress(stage: str, done: float, message: str) -> None:
            bar.set_description_str(f"{name}: {stage} {message}".strip(), refresh=False)
            bar.update((100 * done if stage == "fit" else 0) - bar.n if stage in ("load", "fit") else 0)
            bar.refresh()

        yield progress
