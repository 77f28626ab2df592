"""
convert.py
----------
`neuralsdf convert`: meshes to model files.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ...errors import NeuralSDFError, UsageError
from ..shared import conversion_options as conversion
from ..shared import options, terminal
from ..shared.metric_labels import LABELS

if TYPE_CHECKING:
    from ...backends import Backend
    from ...pipeline.convert import Conversion
    from ...pipeline.stage_times import Progress


@options.command(
    epilog=options.example(
        "neuralsdf convert bunny.obj",
        "neuralsdf convert bunny.obj -o bunny.h5 --width 64 --precision f16",
        "neuralsdf convert bunny.obj --target-error 0.002",
        "neuralsdf convert parts/*.stl -o models/",
    )
)
@click.argument("meshes", nargs=-1, required=True, type=options.INPUT, metavar="MESH...")
@options.output(
    "Model file (.h5), or a folder (for several meshes, or if it ends in /).  "
    "[default: the mesh's name with .h5, in the current folder]",
    kind=str,
)
@options.force
@conversion.conversion
@click.option(
    "--layout",
    type=click.Choice(["native", "keras"]),
    default="native",
    show_default=True,
    help="File layout: neuralsdf's own, or Keras weights with a JSON architecture file.",
)
@options.allow_outside
@options.device
@options.as_json
def command(
    meshes: tuple[Path, ...],
    output: str | None,
    force: bool,
    layout: str,
    allow_outside: bool,
    backend: Backend | None,
    as_json: bool,
    **settings: Any,
) -> None:
    """Convert triangle meshes (OBJ, STL, PLY, OFF, GLB/glTF, 3MF) to neural signed distance fields.

    A tree of shapes (.csg) is converted from its extracted surface.

    Prints the metrics of the stored weights. If one of several meshes fails, the others are still converted.
    A model that misses --target-error is written, but counts as failed.
    """
    from ...files.atomic_write import made_folder

    if layout == "keras" and settings["target_error"] is not None:
        settings["precision"] = settings["precision"] or "f32"  # the layout's only precision
    arguments = conversion.arguments(settings) | {"backend": backend, "allow_outside": allow_outside}
    folder, outputs = _outputs(meshes, output)
    results, failures = [], 0
    with nullcontext() if folder is None else made_folder(folder):
        for mesh, target in zip(meshes, outputs, strict=True):
            try:
                results.append(_convert_one(mesh, target, force, layout, arguments, quiet=as_json))
            except UsageError:
                raise
            except NeuralSDFError as error:
                if len(meshes) == 1:
                    raise
                failures += 1
                terminal.error(f"error: {error}")
                results.append({"mesh": str(mesh), "error": str(error)})
    if as_json:
        terminal.print_json(results[0] if len(results) == 1 else results)
    if failures:
        terminal.error(f"{failures} of {len(meshes)} meshes could not be converted")
    if missed := sum(not result.get("target", {}).get("met", True) for result in results):
        terminal.error(f"{missed} of {len(meshes)} models miss the target error")
    if failures or missed:
        raise SystemExit(1)


#: Suffixes of model files.
_SUFFIXES = (".h5", ".hdf5")


def _outputs(meshes: tuple[Path, ...], output: str | None) -> tuple[Path | None, list[Path]]:
    """The output folder, if given, and the output file of each mesh.

    Raises `UsageError` if two meshes would have the same output file.
    """
    folder = None if output is None else Path(output)
    if len(meshes) == 1 and output is not None and not output.endswith("/") and not Path(output).is_dir():
        if Path(output).suffix.lower() not in _SUFFIXES:
            raise UsageError(f"-o {output}: a model must end in {' or '.join(_SUFFIXES)}, a folder in /")
        return None, [Path(output)]
    if folder is not None and not folder.is_dir() and (folder.exists() or folder.suffix.lower() in _SUFFIXES):
        raise UsageError(f"-o {output}: several meshes need a folder, not a file")
    paths = [(folder or Path()) / options.default_output(mesh, ".h5") for mesh in meshes]
    for path, count in Counter(paths).items():
        if count > 1:
            raise UsageError(
                f"{path} would be written by more than one mesh; convert them into separate folders"
            )
    return folder, paths


def _convert_one(
    mesh: Path, target: Path, force: bool, layout: str, arguments: dict[str, Any], *, quiet: bool
) -> dict[str, Any]:
    """Convert one mesh and write the model; prints (unless `quiet`) and returns a summary."""
    from ...files.atomic_write import check_writable
    from ...pipeline.convert import fit_mesh
    from ...storage import check_output, save_field
    from ...storage.csg_file import SUFFIX, read_tree

    options.check_exists(mesh)
    # Checked before the fit, which takes a minute.
    check_writable(target, force=force, source=mesh)
    if mesh.suffix.lower() == SUFFIX and target.exists():  # opened a second time for the fit
        opening = {name: arguments[name] for name in ("backend", "allow_outside")}
        options.check_sources(target, read_tree(mesh, **opening))
    precision = arguments["precision"] or "f32"
    check_output(target, arguments["architecture"], layout=layout, precision=precision, force=force)
    with progress_bar(mesh.name) as progress:
        made = fit_mesh(mesh, **arguments, progress=progress)
    save_field(made.field, target, layout=layout, force=force)
    summary = _summary(made, mesh, target)
    for line in made.warnings:
        terminal.note(line)
    if not quiet:
        _print_summary(summary)
    return summary


def _summary(made: Conversion, mesh: Path, target: Path) -> dict[str, Any]:
    """The content of the table and of JSON."""
    from ...units import to_mesh_units

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
        "unit": field.unit,
        "findings": made.mesh.findings.line(),
        "warnings": made.warnings,
        "metrics": field.metrics,
        "metrics_mesh_units": to_mesh_units(field.metrics, field.transform.scale),
        "seconds": made.seconds,
    } | ({"target": reached} if reached else {})


#: Settings of a field that describe its target error, by their names in the summary.
_TARGET = {"error": "target_error", "reached": "reached_error", "met": "target_met", "widths": "widths"}


#: Lengths in the table.
_LENGTHS = ("loss", "surface_mean", "surface_p95", "surface_max", "two_way", "hausdorff")


def _print_summary(summary: dict[str, Any]) -> None:
    metrics, mesh_units = summary["metrics"], summary["metrics_mesh_units"]
    seconds = summary["seconds"]
    header = ["", summary["unit"] or "mesh units", "of the radius"] if metrics else None
    terminal.say(f"{summary['mesh']} -> {summary['model']}")
    terminal.print_table(
        [
            ["faces", f"{summary['faces']:,}", ""],
            ["bytes before", f"{summary['bytes_before']:,}", ""],
            ["bytes after", f"{summary['bytes_after']:,}", f"1 : {summary['ratio']:.1f}"],
            *(
                [LABELS[name], terminal.shown(mesh_units[name]), terminal.shown(metrics[name])]
                for name in _LENGTHS
                if name in metrics
            ),
            *(
                [LABELS[name], terminal.shown(metrics[name]), ""]
                for name in ("iou", "sign_disagreement")
                if name in metrics
            ),
        ],
        header,
    )
    if "target" in summary:
        widths = ", ".join(map(str, summary["target"]["widths"]))
        terminal.say(f"{summary['network']}, {summary['precision']}; widths fitted: {widths}")
    terminal.say(f"{sum(seconds.values()):.1f} s: {stage_times(seconds)}")


def stage_times(seconds: dict[str, float]) -> str:
    """The seconds of each stage, on one line."""
    return "  ".join(f"{stage} {value:.1f}" for stage, value in seconds.items())


@contextmanager
def progress_bar(name: str) -> Iterator[Progress]:
    """Progress bar on stderr with stage and remaining time; hidden if stderr is not a terminal.

    With `--verbose`, prints a line after each stage.
    """
    layout = "{bar} {n:3.0f} %  {desc}"
    began: dict[str, float] = {}
    with terminal.bar(name, total=100, bar_format=layout) as bar:

        def progress(stage: str, done: float, message: str) -> None:
            now = time.perf_counter()
            if done == 0:
                began[stage] = now
            elif done == 1 and not message:
                terminal.detail(f"{name}: {stage}: {now - began.pop(stage, now):.2f} s")
            left = _left(stage, done, now - began.get(stage, now))
            bar.set_description_str(f"{name}: {stage} {message} {left}".strip(), refresh=False)
            bar.update((100 * done if stage == "fit" else 0) - bar.n if stage in ("load", "fit") else 0)
            bar.refresh()

        yield progress


def _left(stage: str, done: float, seconds: float) -> str:
    """Remaining time of a fit as text; "" if unknown. done: fraction completed in `seconds`."""
    if stage != "fit" or not 0.02 < done < 1:
        return ""
    left = round(seconds * (1 - done) / done)
    return f"{left // 60} min {left % 60} s left" if left >= 60 else f"{left} s left"
