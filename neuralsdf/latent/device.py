"""
device.py
---------
Where a training computes, and how precisely.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import torch

from ..errors import BackendError, UsageError
from .config import Settings

DEVICES = ("auto", "cpu", "cuda")


def chosen_device(name: str) -> torch.device:
    """The device of a name of `DEVICES`; "auto" is a GPU if there is one.

    A process of `torchrun` takes the GPU with its own number. Raises `BackendError` if there is no GPU,
    `UsageError` for another name.
    """
    if name not in DEVICES:
        raise UsageError(f"`device={name!r}`: one of {', '.join(DEVICES)}")
    if name == "cpu" or (name == "auto" and not torch.cuda.is_available()):
        return torch.device("cpu")
    if not torch.cuda.is_available():
        reason = "torch finds no GPU" if torch.version.cuda else "this torch is built without CUDA"
        raise BackendError(f"`device='cuda'`: {reason}; use `device='cpu'`")
    device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
    torch.cuda.set_device(device)
    return device


def with_precision(settings: Settings, device: torch.device) -> Settings:
    """The settings with the precision that "auto" stands for on a device."""
    training = settings.training
    if training.precision != "auto":
        return settings
    low = device.type == "cuda" and torch.cuda.is_bf16_supported()
    return replace(settings, training=replace(training, precision="bf16" if low else "f32"))


@contextmanager
def torch_threads(count: int) -> Iterator[None]:
    """Set the number of threads that torch uses in this thread, and restore it."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
