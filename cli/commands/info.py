"""
info.py
-------
`neuralsdf info`: properties of a model, a mesh, a tree of shapes or a data set.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ...errors import EmptyShapeError, NoSurfaceError, UsageError
from ..shared import options, terminal
from ..shared.metric_labels import LABELS
from ..shared.option_names import as_options

if TYPE_CHECKING:
    from ...backends import Backend
    from ...csg import Shape
    from ...fields.extract import Surface
    from ...fields.field import Field, NeuralField
    from ...fields.mesh_field import MeshField
    from ...mesh.inside_or_outside import Sign
    from ...storage.dataset import Dataset

#: A shape that fills less than this fraction of its ball is thin, open or missing.
_MIN_FILLED = 1e-3

#: Coordinates below this fraction of the shape's size are rounding errors, shown as 0.
_ROUNDING = 1e-12

#: Maximum characters of a tree's expression in a table.
_LONGEST_TREE = 300


@options.command(epilog=options.example("neuralsdf info bunny.h5 --verify"))
@click.option("--verify", is_flag=True, help="Show the checksum; a wrong one is always an error.")
@click.option("--measure", is_flag=True, help="Measure volume, area and bounds of the shape again.")
@options.show_units
@options.model
@options.as_json
def command(
    model: Path,
    verify: bool,
    measure: bool,
    units: str | None,
    key: Path | None,
    sign: Sign,
    thickness: float | None,
    allow_outside: bool,
    backend: Backend | None,
    as_json: bool,
) -> None:
    """Show properties of MODEL (a model, mesh, tree or data set): network, volume, area, source and
    measured errors.

    Lengths are in mesh units (or --units), and also relative to the radius of the enclosing ball. Volume and
    area were measured on the surface extracted at conversion; if missing in the file, they are measured now.

    For a mesh, shows the findings and the measures of its solid; for a data set, the number of shapes, their
    network, and the medians of their metrics.
    """
    from ... import storage
    from ...storage.dataset import Dataset, holds_dataset
    from ...storage.hdf5 import MESH_SUFFIXES

    if model.suffix.lower() in MESH_SUFFIXES:
        from ...fields.exact_distance import open_mesh

        if verify:
            raise UsageError(f"--verify: {model} is a mesh, which has no checksum")
        if key is not None:
            raise UsageError(f"{model}: --key is only for Keras files, and this is a mesh")
        mesh = open_mesh(model, sign=sign, thickness=thickness, backend=backend)
        with options.naming(model):
            shown = describe_mesh(model, options.shown_in(mesh, units, model))
        show_mesh(shown, as_json=as_json)
        return
    if thickness is not None or sign != "winding":
        raise UsageError(f"{model}: --sign and --thickness are only for meshes")

    if model.suffix.lower() == ".csg":
        from ...csg import units_of
        from ...storage.csg_file import read_tree

        if verify or key is not None:
            raise UsageError(f"{model}: --verify and --key are not for trees; use them on its model files")
        shape = read_tree(model, backend=backend, allow_outside=allow_outside)
        options.check_units(units_of(shape)[0], units, model)
        report, _ = describe_tree(shape, units)
        show_tree({"model": str(model)} | report, as_json=as_json)
        return
    if key is None and holds_dataset(model):
        if measure:
            raise UsageError(f"--measure: {model} is a data set; --measure needs a model of one shape")
        if units is not None:
            raise UsageError(f"--units: {model} is a data set; its lengths are relative")
        _print_dataset(Dataset(model), verify=verify, as_json=as_json)
        return
    opened = storage.open_model(model, key=key, backend=backend, allow_outside=allow_outside)
    field = options.shown_in(opened, units, model)
    report = describe(model, field, measure=measure)
    if verify:
        report["checksum"] = storage.verify(model, allow_outside=allow_outside)
    if as_json:
        terminal.print_json(report)
    else:
        _print(report)


def _print_dataset(dataset: Dataset, *, verify: bool, as_json: bool) -> None:
    """Print properties of a data set; verify: read every shape, and raise for a damaged one."""
    import numpy as np

    metrics, architecture = dataset.metrics, dataset.architecture
    measured = {name: metrics[name][np.isfinite(metrics[name])] for name in metrics.dtype.names or ()}
    report: dict[str, Any] = {
        "dataset": str(dataset.path),
        "bytes": dataset.path.stat().st_size,
        "shapes": len(dataset),
        "architecture": architecture.to_json(),
        "weights": architecture.weight_count,
        "medians": {name: float(np.median(values)) for name, values in measured.items() if values.size},
    }
    if verify:
        dataset.verify()
        report["checksums"] = "correct"
    if as_json:
        terminal.print_json(report)
        return
    network = f"{architecture}, {architecture.output} output, {architecture.weight_count:,} weights"
    rows = [(name, report[name]) for name in ("dataset", "bytes", "shapes", "checksums") if name in report]
    terminal.print_table([*rows, ("network", network)])
    if report["medians"]:
        terminal.say()
        rows = [(LABELS.get(name, name), value) for name, value in report["medians"].items()]
        terminal.print_table(rows, header=("median", "relative"))


def describe(model: Path, field: NeuralField, *, measure: bool) -> dict[str, Any]:
    """Properties of a model, as plain values."""
    from dataclasses import asdict

    from ...evaluation.failed_fit import failed_fit
    from ...fields.extract import wrong_volume
    from ...units import to_mesh_units

    network, transform = field.network, field.transform
    metrics = to_mesh_units(field.metrics, transform.scale)
    report: dict[str, Any] = {
        "model": str(model),
        "layout": field.layout,
        "bytes": model.stat().st_size,
        "architecture": network.architecture.to_json(),
        "network": str(network.architecture),
        "weights": network.architecture.weight_count,
        "precision": field.precision,
        "transform": transform.matrix,
        "centre": transform.centre,
        "radius": transform.scale * field.radius,
        "scale": transform.scale,
        "unit": field.unit,
        "bounds": None,
        "volume": metrics.get("volume"),
        "area": metrics.get("area"),
        "source": None if field.source is None else asdict(field.source),
        "settings": field.settings,
        "metrics": field.metrics,
        "metrics_mesh_units": metrics,
        "warnings": [],
    }
    if field.layout == "code":
        report |= _describe_code(field)
    if measure or not {"volume", "area"} <= metrics.keys():
        try:
            report |= _measured(field)[0]
        except NoSurfaceError as error:
            report["warnings"].append(str(error))
    elif wrong := wrong_volume(field.metrics["volume"], field.expected_volume):
        report["warnings"].append(wrong)
    if reason := failed_fit(field.metrics):
        report["warnings"].append(f"{reason}; convert the mesh again")
    return report


def _describe_code(field: NeuralField) -> dict[str, Any]:
    """Properties of a latent code and its decoder, as plain values."""
    from ...latent_fields.latent_field import LatentField

    assert isinstance(field, LatentField)
    shape = field.decoder.shape
    return {
        "code_size": shape.code,
        "decoder": str(field.decoder_path),
        "decoder_shape": shape.to_json(),
        "decoder_network": str(shape),
        "decoder_parameters": shape.parameter_count,
        "decoder_sha256": field.decoder.sha256,
    }


def describe_mesh(model: Path, field: MeshField) -> dict[str, Any]:
    """Properties of a mesh file and its solid, as plain values."""
    from dataclasses import asdict

    from ...evaluation.metrics import exact_measures

    assert field.mesh is not None
    mesh, oracle, transform = field.mesh, field.oracle, field.transform
    return {
        "mesh": str(model),
        "bytes": mesh.source.bytes,
        "sha256": mesh.source.sha256,
        "faces": mesh.source.faces,
        "vertices": mesh.vertices_in_file,
        "closed": mesh.findings.closed,
        "bodies": mesh.findings.bodies,
        "findings": asdict(mesh.findings),
        "found": "; ".join(filter(None, [mesh.findings.line(), *oracle.remarks(transform)])),
        "sign": oracle.sign,
        "thickness": None if oracle.thickness is None else oracle.thickness * transform.scale,
        "transform": transform.matrix,
        "centre": transform.centre,
        "radius": transform.scale,
        "unit": field.unit,
        "warnings": [],
    } | (exact_measures(field) or _measured(field)[0])


def show_mesh(report: dict[str, Any], *, as_json: bool) -> None:
    """Print the result of `describe_mesh`."""
    if as_json:
        terminal.print_json(report)
        return
    rows: dict[str, Any] = {name: report[name] for name in ("mesh", "bytes", "faces", "vertices", "bodies")}
    rows |= {
        "closed": report["closed"],
        "found": as_options(report["found"]) or None,
        "inside test": "thickness" if report["thickness"] else report["sign"],
        "ball": _ball(report),
        "bounds": _bounds(report),
        "volume": _amount(report, "volume"),
        "area": _amount(report, "area"),
        "sha256": report["sha256"],
    }
    terminal.print_table(rows.items())
    for warning in report["warnings"]:
        terminal.warn(warning)


def describe_tree(
    shape: Shape,
    units: str | None = None,
    resolution: int | None = None,
    max_memory: int | None = None,
) -> tuple[dict[str, Any], Surface | None]:
    """Properties of a tree, as plain values, and its surface.

    Without a surface (None): an unbounded tree has None for all measures; an empty one has zero volume and
    area, and an error message as `empty`. units: unit of lengths, None for the tree's own.
    """
    from ...csg import units_of

    nodes = list(shape.nodes())
    unit, conflict = units_of(shape)
    report: dict[str, Any] = {
        "tree": str(shape),
        "kind": shape.kind,
        "lipschitz": shape.lipschitz,
        "files": sorted({node.name for node in nodes if node.word == "file"}),
        "solids": sum(not node.parts and node.word != "file" for node in nodes),
        "operations": shape.size,
        "unit": units or unit,
        "bounds": None,
        "volume": None,
        "area": None,
        "warnings": [],
    }
    if conflict is not None:
        report["warnings"].append(conflict)
    if not shape.bounded:
        return report, None
    try:
        measured, surface = _measured(
            shape if units is None else shape.in_unit(units), resolution, max_memory
        )
    except EmptyShapeError as error:
        return report | {"volume": 0.0, "area": 0.0, "empty": str(error)}, None
    report["warnings"] += measured.pop("warnings")
    return report | measured, surface


def show_tree(report: dict[str, Any], *, as_json: bool) -> None:
    """Print the result of `describe_tree`; raises `EmptyShapeError` for an empty tree."""
    _print_tree(report, as_json=as_json)
    if "empty" in report:
        raise EmptyShapeError(report["empty"])


def _print_tree(report: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        terminal.print_json(report)
        return
    tree = report["tree"]
    rows: dict[str, Any] = {key: report[key] for key in ("model",) if key in report}
    rows |= {
        "tree": tree if len(tree) <= _LONGEST_TREE else f"{tree[: _LONGEST_TREE - 3]}...",
        "values": "distances" if report["kind"] == "distance" else "bounds of the distance",
        "Lipschitz bound": report["lipschitz"],
        "files": ", ".join(report["files"]) or None,
        "solids": report["solids"],
        "operations": report["operations"],
        "bounds": ("none (empty)" if "empty" in report else "unbounded") if report["bounds"] is None else
                  _bounds(report),
        "volume": _amount(report, "volume"),
        "area": _amount(report, "area"),
    }  # fmt: skip
    terminal.print_table(rows.items())
    for warning in report["warnings"]:
        terminal.warn(warning)


def _measured(
    field: Field, resolution: int | None = None, max_memory: int | None = None
) -> tuple[dict[str, Any], Surface]:
    """Volume, area, bounds and warnings of a field's extracted surface, and that surface."""
    from ...fields.extract import extract

    surface = extract(field, resolution, max_memory=max_memory)
    warnings = [note.removeprefix("warning: ") for note in surface.notes]
    filled = surface.volume / (4 / 3 * math.pi * field.transform.scale**3)
    if filled < _MIN_FILLED and field.error and field.expected_volume is None:
        warnings.append(
            f"hardly any interior ({filled:.2%} of the ball): a thin or open shape, or a failed fit"
        )
    measured = {"volume": surface.volume, "area": surface.area, "bounds": list(surface.bounds)}
    return {**measured, "resolution": surface.resolution, "warnings": warnings}, surface


def _print(report: dict[str, Any]) -> None:
    terminal.print_table(_rows(report))
    if report["metrics"]:
        terminal.say()
        header = ("measured", report["unit"] or "mesh units", "relative")
        terminal.print_table(_metric_rows(report), header)
    for warning in report["warnings"]:
        terminal.warn(warning)


def _rows(report: dict[str, Any]) -> list[tuple[str, str]]:
    source, settings = report["source"], report["settings"]
    rows = [
        ("model", report["model"]),
        ("size", f"{report['bytes']:,} bytes, {report['precision']}, {report['layout']} layout"),
        ("network", f"{report['network']}, {report['architecture']['output']} output, "
                    f"{report['weights']:,} weights"),
        ("ball", _ball(report)),
    ]  # fmt: skip
    if "decoder" in report:
        rows[2:2] = [
            ("latent code", f"{report['code_size']} numbers, of the decoder {report['decoder']}"),
            ("decoder", f"{report['decoder_network']}, {report['decoder_parameters']:,} parameters"),
        ]
    if report["bounds"] is not None:
        rows.append(("bounds", _bounds(report)))
    rows += [(name, _amount(report, name)) for name in ("volume", "area")]
    if source is not None:
        rows.append(("source", f"{source['name']}, {source['faces']:,} faces, {source['bytes']:,} bytes"))
        rows.append(("sha256", source["sha256"]))
    if settings:
        rows.append(("made with", ", ".join(f"{k} {terminal.shown(v)}" for k, v in settings.items())))
    if "checksum" in report:
        rows.append(
            ("checksum", f"{report['checksum']}, correct" if report["checksum"] else "none in this file")
        )
    return rows


def _metric_rows(report: dict[str, Any]) -> list[tuple[str, float | None, float | None]]:
    """Label, value in mesh units (None for a ratio) and value in model space of every metric."""
    from ...units import DIMENSIONS

    return [
        (LABELS.get(name, name), report["metrics_mesh_units"][name] if DIMENSIONS.get(name) else None, value)
        for name, value in report["metrics"].items()
        if name not in ("volume", "area")
    ]


def _ball(report: dict[str, Any]) -> str:
    from ...units import with_unit

    radius = with_unit(terminal.shown(report["radius"]), report["unit"])
    return f"centre {_vector(report['centre'], report['radius'])}, radius {radius}"


def _bounds(report: dict[str, Any]) -> str:
    from ...units import with_unit

    low, high = report["bounds"]
    size = max(abs(b - a) for a, b in zip(low, high, strict=True))
    return with_unit(f"{_vector(low, size)} to {_vector(high, size)}", report["unit"])


def _amount(report: dict[str, Any], name: str) -> str:
    """A volume or an area, with its unit unless it is None."""
    from ...units import DIMENSIONS, with_unit

    value = report[name]
    return with_unit(terminal.shown(value), None if value is None else report["unit"], DIMENSIONS[name])


def _vector(values: Any, size: float) -> str:
    """A point of a shape of the given size; rounding errors are shown as 0."""
    return f"({', '.join(f'{0.0 if abs(value) < _ROUNDING * size else value:.4g}' for value in values)})"
