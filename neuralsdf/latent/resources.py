"""
resources.py
------------
The memory and the disk space that a training needs, compared with what there is before it begins.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import torch

from ..batch.resource_limits import machine_memory
from ..errors import OutputError, UsageError
from ..latent_fields.decoder import DecoderShape
from ..thread_count import threads
from .config import Settings
from .run_folder import RunFolder

#: Copies of the parameters in memory: they, their gradients, Adam's two moments, the weights without their
#: norm and the gradients of these, the gradients in a group of processes, and a checkpoint being written.
_COPIES = 10
#: Parameters of a checkpoint with Adam's moments, and checkpoints in a run while one is written.
_PARTS, _CHECKPOINTS = 3, 3
_FLOAT = 4


def check_resources(settings: Settings, shapes: int, folder: RunFolder, device: torch.device) -> None:
    """Raise an error if a training on so many shapes has too little memory or disk space.

    `UsageError` for memory, `OutputError` for the disk.
    """
    needed, free = memory_needed(settings, shapes), _available_memory(device)
    if needed > free:
        raise UsageError(
            f"a training of this size needs about {_size(needed)} of memory, and has {_size(free)}; "
            "set a smaller `width=` or `code=`, or fewer `samples=`"
        )
    disk = disk_needed(settings, shapes) - _size_of_run(folder)
    space = shutil.disk_usage(folder.path).free
    if disk > space:
        raise OutputError(
            folder.path,
            f"needs about {_size(disk)} for checkpoints, and its disk has {_size(space)} free",
            "free some space, or name another folder",
        )


def memory_needed(settings: Settings, shapes: int) -> int:
    """Bytes of memory of a training: copies of the parameters, and activations of a shape in each thread."""
    return _FLOAT * (_COPIES * _parameters(settings, shapes) + threads() * _activations(settings))


def disk_needed(settings: Settings, shapes: int) -> int:
    """Bytes of a run folder: checkpoints, the decoder, and the codes."""
    return _FLOAT * (_PARTS * _CHECKPOINTS + 2) * _parameters(settings, shapes)


def _parameters(settings: Settings, shapes: int) -> int:
    """Numbers in the decoder, with the gains of its weight norm, and in the codes."""
    decoder = settings.decoder
    return decoder.shape.parameter_count + decoder.layers * decoder.width + shapes * decoder.code


def _activations(settings: Settings) -> int:
    """Numbers in a forward and a backward pass at the samples of one shape."""
    shape: DecoderShape = settings.decoder.shape
    outputs = sum(rows for rows, _ in shape.layer_shapes)
    masks = outputs if settings.decoder.dropout else 0
    widest = max(max(rows, columns) for rows, columns in shape.layer_shapes)
    return settings.training.samples * (outputs + masks + 4 * widest)


def _available_memory(device: torch.device) -> int:
    """Bytes of memory of a GPU, or of this machine, that are not in use."""
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        return free
    limit = machine_memory()
    for line in Path("/proc/meminfo").read_text().splitlines() if Path("/proc/meminfo").exists() else ():
        if line.startswith("MemAvailable:"):
            return min(limit, 1024 * int(line.split()[1]))
    return limit


def _size_of_run(folder: RunFolder) -> int:
    """Bytes that the files of an earlier training take, which this one replaces."""
    files = (folder.last, folder.best, folder.decoder, folder.codes)
    return sum(path.stat().st_size for path in files if path.exists())


def _size(count: int) -> str:
    """Bytes as text, such as "2.3 GB"."""
    return f"{count / 1e9:.3g} GB" if count >= 1e8 else f"{count / 1e6:.3g} MB"
