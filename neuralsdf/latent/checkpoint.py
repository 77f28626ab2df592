"""
checkpoint.py
-------------
The state of a training between two steps, as a safetensors file: parameters, Adam's moments, the settings,
and the step. Random numbers need no state (random_keys.py).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ..errors import ModelError
from ..latent_fields.tensor_file import TensorFile, read_tensors, write_tensors

_MOMENTS = ("exp_avg", "exp_avg_sq")

#: Largest number of steps in a checkpoint.
_MAX_STEP = 10**12


@dataclass(frozen=True)
class Position:
    """Where a training stands.

    step: steps done. score: best validation so far; -inf without one. best: its step. stale: validations
    since then. seconds: time taken so far. settings: as TOML. names: of the training shapes, in order.
    losses: of the steps since the last line of the log.
    """

    step: int
    score: float
    best: int
    stale: int
    seconds: float
    settings: str
    names: tuple[str, ...]
    losses: tuple[float, ...] = ()


def save(
    path: Path, position: Position, parameters: Mapping[str, Tensor], optimizer: torch.optim.Adam
) -> None:
    """Write a checkpoint, completely or not at all."""
    tensors = {name: tensor.detach().cpu().numpy() for name, tensor in parameters.items()}
    for name, tensor in parameters.items():
        for moment in _MOMENTS:
            state = optimizer.state[tensor].get(moment)
            values = torch.zeros_like(tensor) if state is None else state
            tensors[f"{moment}.{name}"] = values.detach().cpu().numpy()
    place = {
        "step": position.step,
        "score": position.score if np.isfinite(position.score) else None,
        "best": position.best,
        "stale": position.stale,
        "seconds": position.seconds,
        "names": position.names,
        "losses": position.losses,
    }
    write_tensors(path, tensors, {"settings": position.settings, "position": json.dumps(place)})


def restore(path: Path, parameters: Mapping[str, Tensor], optimizer: torch.optim.Adam) -> Position:
    """Set parameters and optimizer to those of a checkpoint; raises `ModelError` if they do not fit."""
    content = read_tensors(path, kind="a checkpoint")
    position = _position(path, content)
    for name, tensor in parameters.items():
        for prefix in ("", *(f"{moment}." for moment in _MOMENTS)):
            stored = content.tensors.get(prefix + name)
            if stored is None or stored.dtype != np.float32 or stored.shape != tuple(tensor.shape):
                raise ModelError(
                    path,
                    f"is the checkpoint of another model: {prefix}{name} does not fit",
                    "train in another folder",
                )
        with torch.no_grad():
            tensor.copy_(torch.from_numpy(content.tensors[name]))
        moments = {
            moment: torch.from_numpy(content.tensors[f"{moment}.{name}"]).to(tensor.device)
            for moment in _MOMENTS
        }
        optimizer.state[tensor] = {"step": torch.tensor(float(position.step)), **moments}
    return position


def read_position(path: Path) -> Position:
    """Where the training of a checkpoint stands."""
    return _position(path, read_tensors(path, kind="a checkpoint"))


def _position(path: Path, content: TensorFile) -> Position:
    try:
        values = json.loads(content.metadata["position"])
        score, step = values["score"], int(values["step"])
        if not 0 <= step <= _MAX_STEP:
            raise ValueError(step)
        return Position(
            step,
            -np.inf if score is None else float(score),
            int(values["best"]),
            int(values["stale"]),
            float(values["seconds"]),
            content.metadata["settings"],
            tuple(map(str, values["names"])),
            tuple(map(float, values["losses"])),
        )
    except (KeyError, TypeError, ValueError, OverflowError, RecursionError) as error:
        raise ModelError(path, "is no checkpoint of a training", "name another folder") from error
