"""
fit_settings.py
---------------
The settings of a fit.
"""

from __future__ import annotations

from dataclasses import dataclass

from ..errors import UsageError


@dataclass(frozen=True)
class Training:
    """Settings of a fit.

    epochs: passes over the samples; the learning rate rises over the first third of them and falls to zero
    over the rest, both linearly. seconds: a time budget instead (the result then depends on the machine's
    speed). batch: samples per step. patience: stop early if the loss of an epoch has not fallen by 1 % for
    that many epochs; 0 for never. learning_rate: peak rate; None for the optimizer's default, or a fifth of
    it for sine networks. Raises `UsageError` for values out of range.
    """

    optimizer: str = "soap"
    epochs: int = 20
    batch: int = 2048
    learning_rate: float | None = None
    seconds: float | None = None
    patience: int = 0

    def __post_init__(self) -> None:
        if self.epochs < 1:
            raise UsageError(f"`epochs={self.epochs}` must be at least 1")
        if self.batch < 1:
            raise UsageError(f"`batch={self.batch}` must be at least 1")
        if self.seconds is not None and not 0 < self.seconds < 1e9:
            raise UsageError(f"`time={self.seconds}` must be positive and less than 1e9")
        if self.learning_rate is not None and not 0 < self.learning_rate < 10:
            raise UsageError(f"`learning_rate={self.learning_rate}` must be between 0 and 10")
        if self.patience < 0:
            raise UsageError(f"`patience={self.patience}` must be a number of epochs, or 0 for never")
