"""
conversion_options.py
---------------------
Options of mesh conversion.
"""

from __future__ import annotations

from typing import Any

import click

from . import options
from .number_types import Number, WholeNumber

_ACTIVATIONS = ("relu", "sine", "softplus", "silu", "elu", "tanh")


_OPTIONS = (
    click.option(
        "--layers",
        type=WholeNumber(1, 256),
        default=8,
        show_default=True,
        metavar="N",
        help="Hidden layers.",
    ),
    click.option(
        "--width",
        type=WholeNumber(1, 8192),
        metavar="N",
        help="Neurons per hidden layer.  [default: 32]",
    ),
    click.option(
        "--activation",
        type=click.Choice(_ACTIVATIONS),
        default="relu",
        show_default=True,
        help="Hidden activation function.",
    ),
    click.option(
        "--samples",
        type=WholeNumber(1000, 10**9),
        metavar="N",
        help="Signed samples to fit.  [default: 500000]",
    ),
    click.option(
        "--sampling",
        type=click.Choice(["importance", "uniform", "surface", "vertex"]),
        default="importance",
        show_default=True,
        help="Distribution of the samples.",
    ),
    click.option(
        "--beta",
        type=Number(),
        metavar="B",
        help="Sample density exp(-beta |d|), d in radii.  [default: 120]",
    ),
    click.option(
        "--uniform",
        type=Number(),
        metavar="FRACTION",
        help="Fraction of uniform samples in the ball.  [default: 0.1]",
    ),
    click.option(
        "--weight",
        metavar="HOW",
        help="Sample weights: `curvature`, `thickness`, or a file with a value per vertex (.npy, .csv, "
        ".txt).",
    ),
    click.option(
        "--sign",
        type=click.Choice(["winding", "pseudonormal", "parity"]),
        default="winding",
        show_default=True,
        help="Inside/outside test.",
    ),
    click.option(
        "--thickness",
        type=Number(),
        metavar="T",
        help="Convert the points within T/2 of the surface as a solid (mesh units).",
    ),
    options.units("Unit of the mesh, if its file does not state one."),
    click.option(
        "--optimizer",
        type=click.Choice(["soap", "adam"]),
        default="soap",
        show_default=True,
        help="Optimizer.",
    ),
    click.option(
        "--learning-rate", type=Number(), metavar="RATE", help="Peak learning rate.  [default: by optimizer]"
    ),
    click.option(
        "--batch", type=WholeNumber(1, 10**7), metavar="N", help="Samples per step.  [default: 2048]"
    ),
    click.option(
        "--epochs",
        type=WholeNumber(1, 10**6),
        metavar="N",
        help="Passes over the samples.  [default: 20]",
    ),
    click.option(
        "--time",
        type=Number(),
        metavar="SECONDS",
        help="Fit for this time instead of --epochs (not reproducible).",
    ),
    click.option(
        "--patience",
        type=WholeNumber(0, 10**6),
        default=0,
        show_default=True,
        metavar="N",
        help="Stop when the loss has not fallen by 1 % in N epochs; 0 disables it.",
    ),
    click.option(
        "--precision",
        type=click.Choice(["f32", "f16", "int8"]),
        help="Number format of the stored weights.  [default: f32]",
    ),
    click.option(
        "--target-error",
        metavar="E",
        help="Search the width (and the precision, unless given) for the smallest file with a mean surface "
        "error of at most E (relative to the radius; 0.1u is 0.1 mesh units). The error is divided by the "
        "gradient norm if that is below 1.",
    ),
    click.option(
        "--measure/--no-measure",
        default=True,
        help="Measure the errors, or only check that the field has a surface.  [default: measure]",
    ),
    options.seed,
)


def conversion(function: options.Function) -> options.Function:
    """Add all options of mesh conversion; `arguments` reads them."""
    for option in reversed(_OPTIONS):
        function = option(function)
    return function


#: Options passed to `fit_mesh` unchanged; `fit_options` takes the others.
_UNCHANGED = ("sign", "thickness", "weight", "precision", "seed", "measure")


def arguments(settings: dict[str, Any]) -> dict[str, Any]:
    """Arguments of `fit_mesh` from the options; raises `UsageError` for values out of range."""
    from ...pipeline.convert import SAMPLES, fit_options

    names = [parameter.name for parameter in click.command()(conversion(lambda: None)).params]
    ours = {"samples", "units", *_UNCHANGED}
    # Options that were not given have their defaults in the library.
    given = {name: settings[name] for name in names if name not in ours and settings[name] is not None}
    return {
        **fit_options(**given),
        **{name: settings[name] for name in _UNCHANGED},
        "samples": settings["samples"] or SAMPLES,
        "unit": settings["units"],
    }
