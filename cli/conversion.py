"""
conversion.py
-------------
The options that say how a mesh is converted, for the commands that convert.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from ..errors import UsageError
from . import options

if TYPE_CHECKING:
    from ..target import Target

_ACTIVATIONS = ("relu", "sine", "softplus", "silu", "elu", "tanh")


def _target(ctx: click.Context, parameter: click.Parameter, text: str | None) -> Target | None:
    if text is None:
        return None
    from ..target import Target

    return Target.parse(text)


_OPTIONS = (
    click.option(
        "--layers", type=click.IntRange(1, 256), default=8, show_default=True, help="Hidden layers."
    ),
    click.option("--width", type=click.IntRange(1, 8192), help="Width of each.  [default: 32]"),
    click.option(
        "--activation",
        type=click.Choice(_ACTIVATIONS),
        default="relu",
        show_default=True,
        help="Of the hidden layers.",
    ),
    click.option(
        "--samples",
        type=click.IntRange(1000, 10**9),
        default=None,
        help="Signed samples to fit.  [default: 500000]",
    ),
    click.option(
        "--sampling",
        type=click.Choice(["importance", "uniform", "surface", "vertex"]),
        default="importance",
        show_default=True,
        help="Where samples lie.",
    ),
    click.option(
        "--beta", type=float, default=None, help="Importance is exp(-beta |d|), d in radii.  [default: 120]"
    ),
    click.option(
        "--uniform",
        type=float,
        default=None,
        help="Share of samples spread evenly over the ball.  [default: 0.1]",
    ),
    click.option(
        "--weight",
        metavar="HOW",
        help="More samples where it matters: `curvature`, `thickness`, or a file with a value for each "
        "vertex (.npy, .csv, .txt).",
    ),
    click.option(
        "--sign",
        type=click.Choice(["winding", "pseudonormal", "parity"]),
        default="winding",
        show_default=True,
        help="How inside is told from outside.",
    ),
    click.option(
        "--thickness",
        type=float,
        metavar="T",
        help="Convert the solid within T/2 of the surface (mesh units).",
    ),
    options.units("Unit of the mesh's lengths, where its file does not state one.", "unit"),
    click.option(
        "--optimizer",
        type=click.Choice(["soap", "adam"]),
        default="soap",
        show_default=True,
        help="How the network is fitted.",
    ),
    click.option(
        "--learning-rate", type=float, default=None, help="Peak rate.  [default: the optimiser's own]"
    ),
    click.option(
        "--batch", type=click.IntRange(1, 10**7), default=None, help="Samples a step.  [default: 2048]"
    ),
    click.option(
        "--epochs",
        type=click.IntRange(1, 10**6),
        default=None,
        help="Passes over the samples.  [default: 20]",
    ),
    click.option(
        "--time", "seconds", type=float, help="Fit for this many seconds instead (not reproducible)."
    ),
    click.option(
        "--patience",
        type=click.IntRange(0, 10**6),
        default=0,
        show_default=True,
        metavar="N",
        help="Stop early when the loss has not fallen by 1 % in N epochs; 0 for never.",
    ),
    click.option(
        "--precision",
        type=click.Choice(["f32", "f16", "int8"]),
        help="Of the stored weights.  [default: f32]",
    ),
    click.option(
        "--target-error",
        "target",
        metavar="E",
        callback=_target,
        help="The smallest file with a mean surface error of at most E (of the radius; 0.1u is 0.1 in mesh "
        "units), divided by the field's slope where it is flatter than a distance: the width, and unless "
        "given the precision, are found.",
    ),
    options.seed,
)


def conversion(function: options.Function) -> options.Function:
    """Add all options that shape the result; `arguments` reads them."""
    for option in reversed(_OPTIONS):
        function = option(function)
    return function


def arguments(settings: dict[str, Any]) -> dict[str, Any]:
    """The arguments of `convert` that these options are; raises `UsageError` for values out of range."""
    from ..convert import SAMPLES
    from ..fit import Training
    from ..network import Architecture
    from ..sampling import Density

    def given(**values: str) -> dict[str, Any]:
        """The options that were set; the library knows the defaults of the others."""
        return {name: settings[option] for name, option in values.items() if settings[option] is not None}

    width = settings["width"]
    if settings["target"] is not None and width is not None:
        raise UsageError("--width with --target-error: the error decides the width; leave one out")
    return {
        "architecture": Architecture.uniform(settings["layers"], width or 32, settings["activation"]),
        "density": Density(**given(method="sampling", beta="beta", uniform="uniform")),
        "samples": settings["samples"] or SAMPLES,
        "training": Training(
            **given(
                optimizer="optimizer",
                epochs="epochs",
                batch="batch",
                learning_rate="learning_rate",
                seconds="seconds",
                patience="patience",
            )
        ),
        **{
            name: settings[name]
            for name in ("sign", "thickness", "weight", "precision", "target", "seed", "unit")
        },
    }
