"""
demo.py
-------
`neuralsdf demo`: all steps on a generated mesh; needs no input file and no internet connection.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..shared import options, terminal
from .convert import progress_bar

if TYPE_CHECKING:
    from ...backends import Backend


@options.command(epilog=options.example("neuralsdf demo", "neuralsdf demo -o somewhere/ --quick"))
@options.output("Output folder.  [default: neuralsdf-demo]")
@options.force
@click.option("--quick", is_flag=True, help="Fewer samples, a shorter fit, a smaller picture.")
@options.device
@options.seed
@options.as_json
def command(
    output: Path | None, force: bool, quick: bool, backend: Backend | None, seed: int, as_json: bool
) -> None:
    """Generate a mesh, convert it, render it beside the original and extract a mesh from the model."""
    from ...files.atomic_write import check_writable, make_folder

    folder = make_folder(output or "neuralsdf-demo")
    files = {
        "mesh": folder / "knot.ply",
        "model": folder / "knot.h5",
        "picture": folder / "knot.png",
        "extracted": folder / "knot_extracted.ply",
    }
    for path in files.values():
        check_writable(path, force=force)

    def say(line: str) -> None:
        if not as_json:
            terminal.say(line)

    say("generating a mesh of a knot ...")
    from ...demo import rope_knot, side_by_side
    from ...fields.exact_distance import signed_distance
    from ...fields.extract import extract
    from ...fields.mesh_field import MeshField
    from ...geometry.unit_ball import normalisation
    from ...mesh.load_mesh import load_mesh
    from ...mesh.save_mesh import save_mesh
    from ...pipeline.convert import SAMPLES, fit_mesh
    from ...program.network import Architecture
    from ...render import save_image
    from ...storage import save_field
    from ...training.fit_settings import Training

    save_mesh(files["mesh"], *rope_knot(), force=force)
    mesh = load_mesh(files["mesh"])
    say(f"generated  {files['mesh']}: {len(mesh.faces):,} faces")
    say("converting it: sampling distances, fitting a network, measuring errors ...")
    with progress_bar(files["mesh"].name) as progress:
        made = fit_mesh(
            mesh,
            architecture=Architecture.uniform(8, 48),
            precision="f16",
            samples=100_000 if quick else SAMPLES,
            training=Training(epochs=20) if quick else None,
            seed=seed,
            backend=backend,
            progress=progress,
        )
    save_field(made.field, files["model"], force=force)
    before, after = (files[name].stat().st_size for name in ("mesh", "model"))
    error = made.field.metrics["surface_mean"]
    say(
        f"converted  {files['model']}: {before:,} bytes to {after:,} (1 : {before / after:.0f}), "
        f"mean surface error {100 * error:.2f} % of the radius, IoU {made.field.metrics['iou']:.3f}"
    )
    say("rendering both ...")
    oracle = signed_distance(mesh, normalisation(mesh.vertices), backend=made.field.backend)
    picture = side_by_side(MeshField(oracle, made.field.transform), made.field, size=200 if quick else 640)
    save_image(files["picture"], picture, force=force)
    say(f"rendered   {files['picture']}: mesh on the left, network on the right")
    say("extracting a mesh from the network ...")
    surface = extract(made.field, 128 if quick else 256)
    save_mesh(files["extracted"], surface.vertices, surface.faces, force=force)
    tight = "watertight" if surface.watertight else "not watertight"
    say(f"extracted  {files['extracted']}: {len(surface.faces):,} faces, {tight}")
    say("")
    say(f"Next: neuralsdf info {files['model']}, or neuralsdf convert with your own mesh.")
    if as_json:
        result: dict[str, Any] = {name: str(path) for name, path in files.items()}
        terminal.print_json(
            result
            | {
                "bytes_before": before,
                "bytes_after": after,
                "metrics": made.field.metrics,
                "watertight": surface.watertight,
                "seconds": made.seconds,
            }
        )
