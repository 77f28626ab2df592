"""
tasks.py
--------
What a worker does with one shape: hash, convert, and put the model in its place.

Where many networks are fitted at once, a shape comes to a worker several times, and to one process with the
others in between: sample -> fit_group (-> correct -> fit_group, four times) -> measure.
"""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from ..arrays import FloatArray
from ..backends import get_backend
from ..backends.batched import Corrections, Fits, fit_many
from ..compression.quantize import round_trip
from ..errors import FileError, MeshError, NeuralSDFError, OutputError
from ..evaluation.failed_fit import failed_fit
from ..fields.field import NeuralField
from ..files.atomic_write import whole_file
from ..mesh.files import content_hash
from ..mesh.mesh import Mesh
from ..pipeline.convert import Conversion, correction_size, fit_mesh, measured, settings_of
from ..pipeline.prepare import prepare, sample
from ..pipeline.stages import Stages
from ..program.network import Network, initialise
from ..program.optimizers import get_optimizer
from ..program.samples import Samples
from ..storage import save_model
from ..training.fit import correction_steps, learning_rates
from ..training.sampling import Sampler
from .manifest import Cause, Record
from .recipe import Recipe


@dataclass(frozen=True, slots=True)
class Task:
    """A shape to convert, or a stage of that.

    record: what is known of it. settled: whether that stands, if the file still has the record's key.
    model: where the result goes. draft: a path for what is not finished, on the same file system.
    correction: which one it is, from 1 on.
    """

    record: Record
    settled: bool
    model: str
    draft: str
    stage: Literal["convert", "sample", "correct", "measure"] = "convert"
    correction: int = 0

    @property
    def samples(self) -> Path:
        """Where the first stage puts points and distances (m, 4) float32, for `fit_group`."""
        return _samples(self.draft)

    @property
    def corrections(self) -> Path:
        """Where a correction puts points and distances (k, 4) float32, for `fit_group`."""
        return _corrections(self.draft)

    @property
    def weights(self) -> Path:
        """Where `fit_group` puts weights (P,) float32, for the stages after it."""
        return _weights(self.draft)

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> Task:
        """The task whose fields were written as JSON."""
        return cls(**values | {"record": Record.from_json(values["record"])})


def _samples(draft: str) -> Path:
    return Path(f"{draft}.samples.npy")


def _corrections(draft: str) -> Path:
    return Path(f"{draft}.corrections.npy")


def _weights(draft: str) -> Path:
    return Path(f"{draft}.weights.npy")


def perform(task: Task, recipe: Recipe, backend: str | None, on_key: Callable[[str], None]) -> Record:
    """What becomes of a shape; nothing is done if the mesh has the key whose result stands.

    A shape that was only sampled or corrected is waiting. on_key: told the key before the work, so that it is
    known of a mesh that ends the process. Raises `OutputError` for a folder that cannot be written, which is
    no fault of the mesh.
    """
    record, began = task.record, time.perf_counter()
    before = sum(record.seconds.values()) if task.stage in ("correct", "measure") else 0.0

    def failed(cause: Cause, reason: str) -> Record:
        return failure(record, cause, reason, {"lost": before + time.perf_counter() - began})

    try:
        content = content_hash(record.source)
        key = recipe.key(content)
        on_key(key)
        if task.settled and key == record.key:
            return record
        if task.stage in ("convert", "sample"):
            record = replace(record, key=key)
            _remove(Path(task.model), record.source)  # of another mesh or other options
        if task.stage == "sample":
            return _sample(task, record, recipe, backend)
        if task.stage == "correct":
            return _correct(task, record, recipe, backend)
        made = _measure(task, recipe, backend) if task.stage == "measure" else _convert(task, recipe, backend)
        _check_unchanged(made.mesh, record, recipe)
        save_model(made.field, task.draft, force=True)
        return _done(record, made, _publish(Path(task.draft), Path(task.model), record.source))
    except OutputError as error:
        raise OutputError(task.model, error.reason, "mend that, and the same command continues") from error
    except MemoryError:
        return failed("memory", "there is not enough memory for it")
    except _ChangedError as error:
        record = replace(record, key=None, stamp=None)  # so that the next run looks at it again
        return failed("error", f"{error.reason}; {error.remedy}")
    except FileError as error:
        return failed("error", f"{error.reason}; {error.remedy}" if error.remedy else error.reason)
    except NeuralSDFError as error:
        return failed("error", str(error))
    except Exception as error:
        return failed("error", f"{type(error).__name__}: {error}; this is a bug")


class _ChangedError(MeshError):
    """A mesh that is not the one whose key was taken."""


def _check_unchanged(mesh: Mesh, record: Record, recipe: Recipe) -> None:
    """Raise `_ChangedError` unless the bytes that a mesh was read from are those of the record's key."""
    if mesh.content is None or recipe.key(mesh.content) != record.key:
        raise _ChangedError(record.source, "changed while it was read", "run the same command again")


def _convert(task: Task, recipe: Recipe, backend: str | None) -> Conversion:
    return fit_mesh(task.record.source, **recipe.arguments(), backend=backend)


def _sample(task: Task, record: Record, recipe: Recipe, backend: str | None) -> Record:
    """Leave the samples that `fit_group` needs."""
    clock = Stages(None)
    shape = prepare(record.source, recipe.sign, recipe.thickness, recipe.weight, clock, backend, recipe.unit)
    _check_unchanged(shape.mesh, record, recipe)
    _, drawn, _ = sample(shape, recipe.density, recipe.samples, recipe.seed, clock)
    _save_samples(task.samples, drawn)
    return Record(
        record.name,
        record.source,
        key=record.key,
        stamp=record.stamp,
        source_bytes=record.source_bytes,
        seconds=clock.seconds,
    )


def _correct(task: Task, record: Record, recipe: Recipe, backend: str | None) -> Record:
    """Leave samples where the network errs whose weights `fit_group` left."""
    shape = prepare(
        record.source, recipe.sign, recipe.thickness, recipe.weight, Stages(None), backend, recipe.unit
    )
    _check_unchanged(shape.mesh, record, recipe)
    program = get_backend(backend).compile(Network(recipe.architecture, np.load(task.weights)))
    sampler = Sampler(shape.oracle, recipe.density, shape.weights)
    rng = np.random.default_rng([recipe.seed, 0, task.correction])
    count = correction_size(recipe.samples)
    _save_samples(task.corrections, sampler.draw_errors(program.evaluate, count, rng))
    return record


def _save_samples(path: Path, samples: Samples) -> None:
    with whole_file(path) as temporary:
        np.save(temporary, np.column_stack([samples.points, samples.distances]))


def _load_samples(path: Path) -> Samples:
    columns = np.load(path)
    return Samples(np.ascontiguousarray(columns[:, :3]), np.ascontiguousarray(columns[:, 3]))


def fit_group(
    drafts: list[str], recipe: Recipe, backend: str | None, correct: Callable[[list[bool]], list[bool]]
) -> list[float]:
    """Fit networks to the samples of several tasks at once, and leave the weights beside them.

    correct: called on the way when weights have been left, with which of them are finite; it returns for
    which tasks there are corrections.
    Returns the last epoch's mean loss of each, which is not finite where a fit diverged.
    """
    samples = [_load_samples(_samples(draft)) for draft in drafts]
    points = np.stack([own.points for own in samples])
    distances = np.stack([own.distances for own in samples])
    start = initialise(recipe.architecture, recipe.seed)
    fits = Fits(
        recipe.architecture,
        np.tile(start, (len(drafts), 1)),
        points,
        distances,
        get_optimizer(recipe.training.optimizer),
        recipe.training.batch,
        recipe.seed,
    )

    def leave(weights: FloatArray) -> None:
        for draft, fitted in zip(drafts, weights, strict=True):
            with whole_file(_weights(draft), force=True) as temporary:
                np.save(temporary, fitted)

    def corrected(weights: FloatArray) -> list[Samples]:
        leave(weights)
        drawn = correct([bool(np.isfinite(own).all()) for own in weights])
        none = Samples(np.empty((0, 3), np.float32), np.empty(0, np.float32))
        return [
            _load_samples(_corrections(d)) if is_there else none
            for d, is_there in zip(drafts, drawn, strict=True)
        ]

    # As `convert` does: only importance never looks where the network is wrong.
    importance = recipe.density.method == "importance"
    after = correction_steps(recipe.training, recipe.samples) if importance else []
    rates = learning_rates(recipe.architecture, recipe.training, recipe.samples)
    weights, losses = fit_many(fits, rates, corrections=Corrections(after, corrected), backend=backend)
    leave(weights)
    return [float(loss) for loss in losses]


def _measure(task: Task, recipe: Recipe, backend: str | None) -> Conversion:
    """The field with the weights that `fit_group` left."""
    clock = Stages(None)
    clock.seconds |= task.record.seconds
    shape = prepare(
        task.record.source, recipe.sign, recipe.thickness, recipe.weight, clock, backend, recipe.unit
    )
    precision = recipe.precision or "f32"
    weights = np.load(task.weights)
    task.weights.unlink()
    made = NeuralField(
        round_trip(Network(recipe.architecture, weights), precision),
        shape.transform,
        shape.mesh.source,
        settings=_settings(recipe),
        precision=precision,
        backend=backend,
    )
    seen = recipe.samples * recipe.training.epochs
    return measured(shape, made, seen, recipe.seed, clock, only_check=not recipe.measure)


def _settings(recipe: Recipe) -> dict[str, Any]:
    settings = settings_of(
        recipe.density,
        recipe.samples,
        recipe.training,
        recipe.sign,
        recipe.thickness,
        recipe.weight,
        recipe.seed,
    )
    return settings | {"together": True}


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


def judged(record: Record) -> Record:
    """The record; as failed where an earlier version called a shape done whose fit had failed."""
    reason = failed_fit(record.metrics)
    if record.state != "done" or reason is None:
        return record
    lost = {"lost": sum(record.seconds.values())}
    return replace(failure(record, "error", f"{reason}; convert it again", lost), finished=record.finished)


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
