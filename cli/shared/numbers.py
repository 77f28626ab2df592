"""
numbers.py
----------
Numbers on the command line; what is none is refused in plain words, with the range that is allowed.
"""

from __future__ import annotations

from typing import Any

import click


class Number(click.ParamType):  # type: ignore[type-arg]  # not generic in older clicks
    """A float, of at least `least` and at most `most` where those are given."""

    name = "number"
    _described = "a number"

    def __init__(self, least: float | None = None, most: float | None = None) -> None:
        self._least, self._most = least, most

    def __str__(self) -> str:
        """What is allowed, such as `a number from 0 to 0.5`."""
        if self._least is None:
            return self._described
        if self._most is None:
            return f"{self._described} of at least {self._least}"
        return f"{self._described} from {self._least} to {self._most}"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """The number; anything else is an error."""
        try:
            number = self._read(value)
        except ValueError:
            number = None
        if number is None or not self._allows(number):
            self.fail(f"{value!r} is not {self}", param, ctx)
        return number

    def _allows(self, number: float) -> bool:
        too_small = self._least is not None and number < self._least
        return not too_small and not (self._most is not None and number > self._most)

    @staticmethod
    def _read(value: Any) -> float:
        return float(value)


class WholeNumber(Number):
    """An int, of at least `least` and at most `most` where those are given."""

    name = "whole number"
    _described = "a whole number"

    @staticmethod
    def _read(value: Any) -> int:
        return int(value)
