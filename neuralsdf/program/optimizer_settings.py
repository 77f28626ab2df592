"""
optimizer_settings.py
---------------------
The optimizers of the flat weight vector and their settings. backends/reference/optimizer_steps.py defines
their steps.

    soap   Adam in the eigenbasis of Shampoo's preconditioner (Vyas et al. 2024, "SOAP"). The layers of
           a small network are small matrices, so full preconditioners are cheap, and it reaches the error
           of Adam with a twentieth of the samples. The default.
    adam   Kingma and Ba 2014; used by the paper.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from ..errors import UsageError

Method = Literal["soap", "adam"]
OPTIMIZERS: tuple[Method, ...] = get_args(Method)


@dataclass(frozen=True)
class Optimizer:
    """An optimizer and its constants.

    beta1, beta2: decay rates of the running means of the gradient and its square; SOAP uses beta2 for both.
    refresh: steps between updates of SOAP's eigenbasis. learning_rate: default learning rate.
    """

    method: Method
    learning_rate: float
    beta1: float
    beta2: float
    epsilon: float = 1e-8
    refresh: int = 10


#: Adam's rate is that of the authors' released code; the paper states 1e-4.
_OPTIMIZERS = {
    "soap": Optimizer("soap", 5e-3, 0.95, 0.95),
    "adam": Optimizer("adam", 1e-3, 0.9, 0.999),
}


def get_optimizer(name: str) -> Optimizer:
    """The optimizer called `name`; raises `UsageError` for an unknown name."""
    if name not in _OPTIMIZERS:
        raise UsageError(f"`optimizer={name!r}` is unknown; one of {', '.join(OPTIMIZERS)}")
    return _OPTIMIZERS[name]
