"""
fit_settings.py
---------------
The settings of a fit.
"""

from __future__ import annotations

from dataclasses import dataclass

from ..arguments import real_number, whole_number
from ..errors import UsageError
from ..program.optimizer_settings import get_optimizer

MAX_EPOCHS, MAX_BATCH = 10**6, 10**7


@dataclass(frozen=True)
class Training:
    """Settings of a fit.

    epochs: passes over the samples; the learning rate rises over the first 35 % of them and falls to zero
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
        get_optimizer(self.optimizer)
        whole_number("epochs", self.epochs, 1, MAX_EPOCHS)
        whole_number("batch", self.batch, 1, MAX_BATCH)
        whole_number("patience", self.patience, 0, MAX_EPOCHS)
        if self.seconds is not None and not 0 < real_number("time", self.seconds) < 1e9:
            raise UsageError(f"`time={self.seconds}` must be positive and less than 1e9")
        if self.learning_rate is not None and not 0 < real_number("learning_rate", self.learning_rate) < 10:
            raise UsageError(f"`learning_rate={self.learning_rate}` must be between 0 and 10")
