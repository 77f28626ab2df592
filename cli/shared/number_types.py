"""
number_types.py
---------------
Numbers on the command line; error messages state the allowed range.
"""

from __future__ import annotations

import math
from typing import Any

import click


class Number(click.ParamType):  # type: ignore[type-arg]  # not generic in older clicks
    """A float from `minimum` to `maximum`, not NaN; None for no limit."""

    name = "number"
    _described = "a number"

    def __init__(self, minimum: float | None = None, maximum: float | None = None) -> None:
        self._minimum, self._maximum = minimum, maximum

    def __str__(self) -> str:
        """Description of the allowed values, such as `a number from 0 to 0.5`."""
        if self._minimum is None:
            return self._described
        if self._maximum is None:
            return f"{self._described} of at least {self._minimum}"
        return f"{self._described} from {self._minimum} to {self._maximum}"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Read the number; fails for invalid values."""
        try:
            number = self._read(value)
        except ValueError:
            number = None
        if number is None or math.isnan(number) or not self._allows(number):
            self.fail(f"{value!r} is not {self}", param, ctx)
        return number

    def _allows(self, number: float) -> bool:
        too_small = self._minimum is not None and number < self._minimum
        return not too_small and not (self._maximum is not None and number > self._maximum)

    @staticmethod
    def _read(value: Any) -> float:
        return float(value)


class WholeNumber(Number):
    """An int from `minimum` to `maximum`; None for no limit."""

    name = "whole number"
    _described = "a whole number"

    @staticmethod
    def _read(value: Any) -> int:
        return int(value)
