"""
size_search.py
--------------
The smallest network that meets a surface error: the paper's error-driven conversion.

    fit the narrowest network -> predict a width -> widen, fit on -> predict ... -> round

The narrowest takes little time, and its error predicts the width. A network that misses grows from its
trained weights, or is fitted on if it misses by little; that takes half of a fit, and no size is searched
from scratch. Of the one that meets the error the cheapest precision that still does is kept.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from math import isfinite

from ..arrays import FloatArray
from ..compression.quantize import PRECISIONS, round_trip
from ..errors import UsageError
from ..program.network import Architecture, Network, widen
from .fit import Fit, Training

#: The widths there are; from one to the next the weights become about twice as many.
WIDTHS = (8, 12, 16, 24, 32, 48, 64, 96, 128)

#: The error falls with a power of the width: on a bunny and a fandisk, fitted at widths of 8 to 48, with 1.1
#: to 2.8. A prediction that errs to the small side costs another step, not a file too large.
_POWER = 2.5

#: Share of a fit's epochs that a network which grew takes. On the same shapes it then had an error up to 25 %
#: above that of a whole fit, at widths of 16 to 32. Another such share at the same width took off 11 and
#: 16 %, a third 8 and 11 %. So one that misses by no more than `_NEAR` is fitted on, up to `_FITS` times.
_GROWTH = 0.5
_NEAR, _FITS = 1.15, 3

#: Fits a network of this architecture, from these weights (P,) or from random ones.
Fitting = Callable[[Architecture, Training, FloatArray | None], Fit]


@dataclass(frozen=True)
class Target:
    """A mean surface error to be met: in model space (bounding radius 1), or in the mesh's units.

    It is `metrics.surface_distance` that has to meet it, which is never below the mean of |f|: that alone
    would be met best by a field which is close to zero everywhere.
    """

    error: float
    mesh_units: bool = False

    @classmethod
    def parse(cls, text: str) -> Target:
        """`0.002` in model space, `0.1u` in mesh units; raises `UsageError` for anything else."""
        number, mesh_units = text.removesuffix("u"), text.endswith("u")
        try:
            error = float(number)
        except ValueError:
            error = 0.0
        if not (isfinite(error) and error > 0):
            raise UsageError(
                f"`target_error={text}`: a positive number (of the radius), or 0.1u in mesh units"
            )
        return cls(error, mesh_units)

    def relative(self, scale: float) -> float:
        """The error in model space, of which a length of 1 is `scale` in mesh units."""
        return self.error / scale if self.mesh_units else self.error


@dataclass(frozen=True, eq=False)
class Reached:
    """What came of it: the network as it is stored, and whether it meets the error.

    error: of the network as it is stored. widths: those that were fitted, in order. epochs: of all fits
    together.
    """

    network: Network
    precision: str
    error: float
    met: bool
    widths: tuple[int, ...]
    epochs: int


def smallest_network(
    fit: Fitting,
    error: Callable[[Network], float],
    limit: float,
    like: Architecture,
    training: Training,
    precisions: Sequence[str] = PRECISIONS,
    seed: int = 0,
) -> Reached:
    """The narrowest network, in its cheapest precision, whose `error` is at most `limit`.

    like: depth and activations of the networks; its widths are not used. precisions: those allowed.
    Where the widest misses too, the network with the least error comes back, in the finest precision.
    """
    part = replace(training, epochs=max(1, round(_GROWTH * training.epochs)))
    tried: list[tuple[float, Network]] = []
    widths: list[int] = []
    epochs = 0
    width: int | None = WIDTHS[0]
    while width is not None:
        architecture = replace(like, hidden=(width,) * len(like.hidden))
        if tried:
            fitted = fit(architecture, part, widen(tried[-1][1], architecture, seed))
        else:
            fitted = fit(architecture, training, None)
        network = Network(architecture, fitted.weights)
        tried.append((error(network), network))
        widths.append(width)
        epochs += fitted.epochs
        width = _next_width(widths, tried[-1][0] / limit)
    _, best = min(tried, key=lambda found: found[0])
    stored, precision = _rounded(best, precisions, lambda rounded: error(rounded) <= limit)
    left = error(stored)
    return Reached(stored, precision, left, left <= limit, tuple(widths), epochs)


def _next_width(widths: Sequence[int], excess: float) -> int | None:
    """The width to fit after these, the last with an error `excess` times the limit; None if none is left."""
    width = widths[-1]
    wider = [wide for wide in WIDTHS if wide > width]
    if excess <= 1:
        return None
    if excess <= _NEAR and widths.count(width) < _FITS:
        return width
    needed = width * excess ** (1 / _POWER)
    return next((wide for wide in wider if wide >= needed), max(wider, default=None))


def _rounded(
    network: Network, precisions: Sequence[str], suffices: Callable[[Network], bool]
) -> tuple[Network, str]:
    """The network in the cheapest precision that suffices, or else in the finest; and that precision."""
    finest, *cheaper = sorted(precisions, key=PRECISIONS.index)
    for precision in reversed(cheaper):
        try:
            stored = round_trip(network, precision)
        except UsageError:  # a weight too large for float16
            continue
        if suffices(stored):
            return stored, precision
    return round_trip(network, finest), finest
