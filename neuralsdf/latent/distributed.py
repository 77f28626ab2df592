"""
distributed.py
--------------
A training by several processes that `torchrun` started: each takes a part of every step's shapes, and the
gradients are summed, so all have the parameters that one process would have.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, distributed


@dataclass(frozen=True)
class Group:
    """The processes of a training. rank: of this one, from 0. size: how many there are."""

    rank: int = 0
    size: int = 1

    @property
    def is_first(self) -> bool:
        """Whether this process writes the files."""
        return self.rank == 0

    def part(self, count: int) -> range:
        """This process's part of `count` slots."""
        return range(self.rank * count // self.size, (self.rank + 1) * count // self.size)

    def sum_gradients(self, parameters: Iterable[Tensor]) -> None:
        """Add up the gradients of all processes."""
        if self.size > 1:
            gradients = [tensor.grad for tensor in parameters if tensor.grad is not None]
            together = torch.cat([gradient.reshape(-1) for gradient in gradients])
            distributed.all_reduce(together)
            parts = torch.split(together, [gradient.numel() for gradient in gradients])
            for gradient, part in zip(gradients, parts, strict=True):
                gradient.copy_(part.view_as(gradient))

    def summed(self, numbers: Mapping[str, float]) -> dict[str, float]:
        """The sums of each number over all processes."""
        if self.size == 1:
            return dict(numbers)
        together = torch.tensor(list(numbers.values()), dtype=torch.float64)
        distributed.all_reduce(together)
        return dict(zip(numbers, together.tolist(), strict=True))

    def from_first(self, number: float) -> float:
        """The first process's number."""
        if self.size == 1:
            return number
        shared = torch.tensor([number], dtype=torch.float64)
        distributed.broadcast(shared, 0)
        return shared.item()


@contextmanager
def process_group(device: torch.device) -> Iterator[Group]:
    """The group that `torchrun` has set up in the environment; or this process alone.

    Connected by gloo, and for tensors on GPUs by NCCL.
    """
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1:
        yield Group()
        return
    distributed.init_process_group("gloo" if device.type == "cpu" else "cpu:gloo,cuda:nccl")
    try:
        yield Group(distributed.get_rank(), size)
    finally:
        distributed.destroy_process_group()
