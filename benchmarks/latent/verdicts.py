"""
verdicts.py
-----------
Whether measurements agree with a claim, and whether a training has reached a plateau.

An effect is a number for each seed that is positive where the claim holds, such as the logarithm of a ratio
of errors.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

AGREES, DISAGREES, UNDECIDED = "agrees", "disagrees", "within the spread"

#: A training is at a plateau if the last validations have improved the best IoU by less than this.
PLATEAU_VALIDATIONS, PLATEAU_GAIN = 5, 0.01


def verdict(effects: Sequence[float]) -> str:
    """The verdict on a claim: undecided if the mean effect is not larger than the range of the seeds."""
    mean = float(np.mean(effects))
    if abs(mean) <= max(effects) - min(effects):
        return UNDECIDED
    return AGREES if mean > 0 else DISAGREES


def log_ratio(above: Sequence[float], below: Sequence[float] | float) -> list[float]:
    """log(above / below) for each seed: positive where `above` is larger."""
    return [float(x) for x in np.log(np.asarray(above) / np.asarray(below))]


def at_plateau(ious: Sequence[float]) -> bool:
    """Whether a training with these validations (n,) no longer improves."""
    if len(ious) <= PLATEAU_VALIDATIONS:
        return False
    before, last = ious[:-PLATEAU_VALIDATIONS], ious[-PLATEAU_VALIDATIONS:]
    return max(last) - max(before) < PLATEAU_GAIN


class Line(NamedTuple):
    """A line of a table.

    equal, plateau: what the latent model has at equal time and at the plateau, for each seed. other: what the
    weight-encoded networks have. effects: of the claim, at equal time and at the plateau.
    """

    label: str
    equal: Sequence[float]
    plateau: Sequence[float]
    other: float
    effects: tuple[Sequence[float], Sequence[float]]
    form: str = ".4f"

    def text(self, mark: str = "") -> str:
        """The line; mark: of the plateau's column."""
        columns = (spread(self.equal, self.form), spread(self.plateau, self.form) + mark)
        other = format(self.other, self.form)
        return f"{self.label:34} {columns[0]:>17} {columns[1]:>17} {other:>10}  {both(*self.effects)}"


def spread(values: Sequence[float], form: str = ".4f") -> str:
    """The mean of the seeds and half of their range."""
    half = (max(values) - min(values)) / 2
    return f"{np.mean(values):{form}} ±{half:{form}}"


def both(equal: Sequence[float], plateau: Sequence[float]) -> str:
    """The verdicts at equal time and at the plateau, as one if they are the same."""
    first, second = verdict(equal), verdict(plateau)
    return first if first == second else f"{first} (at the plateau: {second})"
