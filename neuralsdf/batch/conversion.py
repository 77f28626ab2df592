"""
conversion.py
-------------
What a worker does with one shape: hash, convert, and put the model in its place.
"""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from ..convert import Conversion, convert
from ..errors import FileError, MeshError, NeuralSDFError, OutputError
from ..meshfile import content_hash
from ..storage import save_field
from .manifest import Cause, Record
from .recipe import Recipe


@dataclass(frozen=True)
class Task:
    """A shape to convert.

    record: what is known of it. settled: whether that stands, if the file still has the record's key.
    model: where the result goes. draft: a path for what is not finished, on the same file system.
    """

    record: Record
    settled: bool
    model: str
    draft: str


def perform(task: Task, recipe: Recipe, backend: str | None, on_key: Callable[[str], None]) -> Record:
    """What becomes of a shape; nothing is done if the mesh has the key whose result stands.

    on_key: told the key before the work, so that it is known of a mesh that ends the process.
    Raises `OutputError` for a folder that cannot be written, which is no fault of the mesh.
    """
    record = task.record
    try:
        content = content_hash(record.source)
        key = recipe.key(content)
        on_key(key)
        if task.settled and key == record.key:
            return record
        record = replace(record, key=key)
        _remove(Path(task.model), record.source)  # of another mesh or other options
        made = convert(record.source, **recipe.arguments(), backend=backend)
        if content_hash(record.source) != content:
            raise MeshError(record.source, "was changed while it was read", "run the same command again")
        save_field(made.field, task.draft, force=True)
        return _done(record, made, _publish(Path(task.draft), Path(task.model), record.source))
    except OutputError as error:
        raise OutputError(task.model, error.reason, "mend that, and the same command continues") from error
    except MemoryError:
        return failure(record, "memory", "there is not enough memory for it")
    except FileError as error:
        return failure(record, "error", f"{error.reason}; {error.remedy}" if error.remedy else error.reason)
    except NeuralSDFError as error:
        return failure(record, "error", str(error))
    except Exception as error:
        return failure(record, "error", f"{type(error).__name__}: {error}; this is a bug")


def failure(record: Record, cause: Cause, reason: str, seconds: dict[str, float] | None = None) -> Record:
    """The record of a shape that failed; reason: becomes one line."""
    return Record(
        record.name,
        record.source,
        state="failed",
        cause=cause,
        reason=" ".join(reason.split()),
        key=record.key,
        stamp=record.stamp,
        source_bytes=record.source_bytes,
        seconds=seconds or {},
        finished=time.time(),
    )


def _done(record: Record, made: Conversion, model_bytes: int) -> Record:
    return replace(
        record,
        state="done",
        cause=None,
        reason=None,
        faces=made.mesh.source.faces,
        architecture=str(made.field.network.architecture),
        target_met=made.field.settings.get("target_met"),
        model_bytes=model_bytes,
        metrics=made.field.metrics,
        seconds=made.seconds,
        warnings=tuple(line.removeprefix(f"{record.source}: ") for line in made.warnings),
        finished=time.time(),
    )


def _remove(model: Path, source: str) -> None:
    try:
        model.unlink(missing_ok=True)
    except OSError as error:
        raise _misplaced(model, source, error) from error


def _publish(draft: Path, model: Path, source: str) -> int:
    """Put a finished draft in its place, whole, and safe from a power cut; returns its size in bytes."""
    with draft.open("rb") as stream:
        os.fsync(stream.fileno())
    try:
        model.parent.mkdir(parents=True, exist_ok=True)
        draft.replace(model)
        return model.stat().st_size
    except OSError as error:
        raise _misplaced(model, source, error) from error


def _misplaced(model: Path, source: str, error: OSError) -> FileError:
    """The mesh's fault, where its name cannot have the model's suffix; or the folder's."""
    if error.errno in (errno.ENAMETOOLONG, errno.EISDIR, errno.ENOTDIR, errno.EEXIST):
        return MeshError(source, f"its model cannot be written as {model} ({error.strerror})", "rename it")
    return OutputError(model, f"could not be written ({error.strerror})", "the same command continues later")
