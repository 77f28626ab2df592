"""
size_search.py
--------------
The smallest network that meets a surface error: the paper's error-driven conversion.

    fit the narrowest network -> predict a width -> widen, continue the fit -> predict ... -> round

The narrowest network is fast to fit, and its error predicts the width. A network that misses the target is
widened with its trained weights, or fitted further if it misses by little; that takes half of a fit, so no
size is fitted from scratch. The network that meets the error is stored in the cheapest precision that still
does.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from math import isfinite

from ..array_types import FloatArray
from ..compression.quantize import PRECISIONS, round_trip
from ..errors import UsageError
from ..program.network import Architecture, Network, widen
from .fit import Fit
from .fit_settings import Training

#: Widths to try; each step about doubles the number of weights.
WIDTHS = (8, 12, 16, 24, 32, 48, 64, 96, 128)

#: The error falls with a power of the width: 1.1 to 2.8 for a bunny and a fandisk at widths of 8 to 48. A
#: prediction that is too small costs another step, not a larger file.
_POWER = 2.5

#: Fraction of a fit's epochs after widening. On the same shapes, the error was then up to 25 % above that of
#: a full fit, at widths of 16 to 32. Repeating it at the same width reduced the error by 11 and 16 %, a third
#: time by 8 and 11 %. So a network within a factor of `_NEAR` is fitted further, up to `_FITS` times.
_WIDENED_EPOCHS = 0.5
_NEAR, _FITS = 1.15, 3

#: Fits a network of this architecture, starting from these weights (P,) or from random ones.
Fitting = Callable[[Architecture, Training, FloatArray | None], Fit]


@dataclass(frozen=True)
class Target:
    """A target mean surface error, in model space (bounding radius 1) or in mesh units.

    It applies to `metrics.surface_distance`, which is never below the mean of |f|: that alone would be
    minimised by a field close to zero everywhere.
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
                f"`target_error={text}` must be positive (relative to the radius, or 0.1u in mesh units)"
            )
        return cls(error, mesh_units)

    def relative(self, scale: float) -> float:
        """The error in model space; `scale` is the length in mesh units of a unit length there."""
        return self.error / scale if self.mesh_units else self.error


@dataclass(frozen=True, eq=False)
class Reached:
    """Result: the network as stored, and whether it meets the error.

    error: of the network as stored. widths: all fitted widths, in order. epochs: total of all fits.
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
    """The narrowest network, in its cheapest precision, with an `error` of at most `limit`.

    like: depth and activations of the networks; its widths are not used. precisions: those allowed.
    If even the widest misses, returns the network with the smallest error in the finest precision.
    """
    part = replace(training, epochs=max(1, round(_WIDENED_EPOCHS * training.epochs)))
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
    final_error = error(stored)
    return Reached(stored, precision, final_error, final_error <= limit, tuple(widths), epochs)


def _next_width(widths: Sequence[int], excess: float) -> int | None:
    """Next width, given that the last has an error of `excess` times the limit; None if the search ends."""
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
    """The network in the cheapest precision that suffices, else in the finest, and that precision."""
    finest, *cheaper = sorted(precisions, key=PRECISIONS.index)
    for precision in reversed(cheaper):
        try:
            stored = round_trip(network, precision)
        except UsageError:  # a weight too large for float16
            continue
        if suffices(stored):
            return stored, precision
    return round_trip(network, finest), finest
