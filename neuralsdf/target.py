"""
target.py
---------
The smallest network that meets a surface error: the paper's error-driven conversion.

    fit the narrowest network -> predict a width -> widen, fit on -> predict ... -> round

The narrowest takes little time, and its error predicts the width. A network that misses grows from its
trained weights, which takes half of a fit, so no size is searched from scratch. Of the one that meets the
error the cheapest precision that still does is kept.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from math import isfinite

from .codec import PRECISIONS, round_trip
from .errors import UsageError
from .fit import Fit, Training
from .network import Architecture, FloatArray, Network, widen

#: The widths there are; from one to the next the weights become about twice as many.
WIDTHS = (8, 12, 16, 24, 32, 48, 64, 96, 128)

#: The error falls with a power of the width: on a bunny and a fandisk, fitted at widths of 8 to 32, with 1.1
#: to 2.0, once with 3.6. A prediction that errs to the small side costs another step, not a file too large.
_POWER = 2.5

#: Share of a fit's epochs that a network which grew takes. On the same shapes it then had, at widths of 16
#: and more, the error of a whole fit within 20 %.
_GROWTH = 0.5

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
                f"--target-error {text}: a positive number (of the radius), or 0.1u in mesh units"
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
    width, epochs, tried = WIDTHS[0], 0, dict[int, tuple[float, Network]]()
    network: Network | None = None
    while True:
        architecture = replace(like, hidden=(width,) * len(like.hidden))
        if network is None:
            fitted = fit(architecture, training, None)
        else:
            part = replace(training, epochs=max(1, round(_GROWTH * training.epochs)))
            fitted = fit(architecture, part, widen(network, architecture, seed))
        network, epochs = Network(architecture, fitted.weights), epochs + fitted.epochs
        tried[width] = error(network), network
        if tried[width][0] <= limit or width == WIDTHS[-1]:
            break
        width = _predicted(width, tried[width][0] / limit)
    _, best = min(tried.values(), key=lambda found: found[0])
    stored, precision = _rounded(best, precisions, lambda rounded: error(rounded) <= limit)
    left = error(stored)
    return Reached(stored, precision, left, left <= limit, tuple(tried), epochs)


def _predicted(width: int, excess: float) -> int:
    """The next width, or a wider one, at which an error now `excess` times too large should be met."""
    needed = width * excess ** (1 / _POWER)
    wider = [wide for wide in WIDTHS if wide > width]
    return next((wide for wide in wider if wide >= needed), wider[-1])


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
