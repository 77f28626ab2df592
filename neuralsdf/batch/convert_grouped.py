"""
convert_grouped.py
------------------
Converts meshes in stages, so that many networks can be fitted at once. Workers sample the meshes, one process
fits a group of networks (and requests corrections from the workers meanwhile), and workers measure and save
the models.

    sample -> fit (-> correct -> fit, up to four times) -> measure
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from ..array_types import FloatArray
from ..backends import backend_on
from ..backends.batched_networks import Corrections, Fits, fit_many
from ..compression.quantize import round_trip
from ..fields.field import NeuralField
from ..files.atomic_write import whole_file
from ..pipeline.convert import Conversion, correction_size, measured, settings_of
from ..pipeline.prepare_mesh import Prepared, prepare, sample
from ..pipeline.stage_times import Stages
from ..program.network import Network, initialise
from ..program.optimizer_settings import get_optimizer
from ..program.sample_set import Samples
from ..training.fit import correction_steps
from ..training.learning_rate_schedule import learning_rates
from ..training.sampling import Sampler
from .conversion_recipe import Recipe
from .convert_job import ConvertJob
from .job import Task
from .prepared_mesh_cache import KeptShapes
from .shape_record import Record
from .worker_main import Channel


def samples_file(draft: str) -> Path:
    """Path to which the stage `sample` writes points and distances (m, 4) float32."""
    return Path(f"{draft}.samples.npy")


def corrections_file(draft: str) -> Path:
    """Path to which the stage `correct` writes points and distances (k, 4) float32."""
    return Path(f"{draft}.corrections.npy")


def weights_file(draft: str) -> Path:
    """Path to which the fit writes weights (P,) float32."""
    return Path(f"{draft}.weights.npy")


@dataclass(frozen=True)
class StagedConvertJob(ConvertJob):
    """The stages of a conversion that are performed per mesh: all except the fit.

    A mesh is loaded and prepared in its first stage and cached for the later stages, in up to `max_kept`
    bytes. If it was not cached or the process has ended, a later stage prepares it again; the results are the
    same.
    """

    max_kept: float = 0.0
    _shapes: KeptShapes = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_shapes", KeptShapes(self.max_kept))

    @property
    def kept(self) -> dict[str, int]:
        """Bytes of each cached mesh, by name of the shape."""
        return self._shapes.sizes

    def forget(self, names: list[str]) -> None:
        """Drop the cached meshes of these shapes."""
        for name in names:
            self._shapes.drop(name)

    def perform(self, task: Task) -> Record:
        """Perform the stage of a task."""
        name = task.record.name
        try:
            try:
                record = self._stage(task)
            except MemoryError:
                if not self.kept.keys() - {name}:
                    raise
                self.forget(list(self.kept))
                record = self._stage(task)
        except BaseException:
            self._shapes.drop(name)
            raise
        if record.state != "waiting":
            self._shapes.drop(name)
        return record

    def _stage(self, task: Task) -> Record:
        if task.stage == "sample":
            return self._sample(task)
        return self._correct(task) if task.stage == "correct" else self._measure(task)

    def _prepared(self, task: Task, clock: Stages) -> Prepared:
        """The mesh of a task, from the cache or newly prepared."""
        record, recipe = task.record, self.recipe
        shape = self._shapes.get(record.name, record.key)
        if shape is None:
            shape = prepare(
                record.source,
                recipe.sign,
                recipe.thickness,
                recipe.weight,
                clock,
                backend_on(self.device),
                recipe.unit,
            )
            self.check_unchanged(record, shape.mesh.content)
            self._shapes.add(record.name, record.key, shape)
        return shape

    def _sample(self, task: Task) -> Record:
        """Write the samples for the fit."""
        clock = Stages(None)
        shape = self._prepared(task, clock)
        recipe = self.recipe
        _, drawn, _ = sample(shape, recipe.density, recipe.samples, recipe.seed, clock)
        _save_samples(samples_file(task.draft), drawn)
        return replace(task.record, seconds=clock.seconds)

    def _correct(self, task: Task) -> Record:
        """Write samples where the fitted network has large errors."""
        recipe = self.recipe
        shape = self._prepared(task, Stages(None))
        weights = np.load(weights_file(task.draft))
        program = backend_on(self.device).compile(Network(recipe.architecture, weights))
        sampler = Sampler(shape.oracle, recipe.density, shape.weights)
        rng = np.random.default_rng([recipe.seed, 0, task.number])
        count = correction_size(recipe.samples)
        _save_samples(corrections_file(task.draft), sampler.draw_errors(program.evaluate, count, rng))
        return task.record

    def _measure(self, task: Task) -> Record:
        """Measure and save the model with the fitted weights."""
        clock = Stages(None)
        clock.seconds |= task.record.seconds
        record = self.saved(task, self._measured(task, self._prepared(task, clock), clock))
        weights_file(task.draft).unlink()  # last, because the stage may be repeated
        return record

    def _measured(self, task: Task, shape: Prepared, clock: Stages) -> Conversion:
        recipe, weights = self.recipe, np.load(weights_file(task.draft))
        precision = recipe.precision or "f32"
        made = NeuralField(
            round_trip(Network(recipe.architecture, weights), precision),
            shape.transform,
            shape.mesh.source,
            settings=_settings(recipe),
            precision=precision,
            chosen_backend=backend_on(self.device),
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


@dataclass(frozen=True)
class FitWork:
    """Implements `Work`: fits groups of networks. A message has the `drafts` of a group's tasks.

    During the fit it requests corrections (`correct`: one flag per task, false if its weights are not finite)
    and receives a flag for each correction that was drawn (`corrected`). The answer has the mean loss of the
    last epoch for each fit; it is not finite if the fit diverged.
    """

    recipe: Recipe
    device: str

    def perform(self, message: dict[str, Any], channel: Channel) -> dict[str, Any]:
        """Fit a group and write the weights of each task."""
        drafts = message["drafts"]
        none = Samples(np.empty((0, 3), np.float32), np.empty(0, np.float32))

        def corrected(weights: FloatArray) -> list[Samples]:
            _save_weights(drafts, weights)
            channel.send(correct=[bool(np.isfinite(own).all()) for own in weights])
            drawn = channel.receive()["corrected"]
            return [
                _load_samples(corrections_file(draft)) if is_drawn else none
                for draft, is_drawn in zip(drafts, drawn, strict=True)
            ]

        # As in `convert`: corrections are drawn with importance sampling only.
        recipe = self.recipe
        importance = recipe.density.method == "importance"
        after = correction_steps(recipe.training, recipe.samples) if importance else []
        rates = learning_rates(recipe.architecture, recipe.training, recipe.samples)
        corrections = Corrections(after, corrected)
        weights, losses = fit_many(
            self._fits(drafts), rates, backend=backend_on(self.device), corrections=corrections
        )
        _save_weights(drafts, weights)
        return {"losses": [float(loss) for loss in losses]}

    def _fits(self, drafts: list[str]) -> Fits:
        """Fits to the samples of several tasks; all start from the same weights."""
        recipe, samples = self.recipe, [_load_samples(samples_file(draft)) for draft in drafts]
        start = initialise(recipe.architecture, recipe.seed)
        return Fits(
            recipe.architecture,
            np.tile(start, (len(drafts), 1)),
            np.stack([own.points for own in samples]),
            np.stack([own.distances for own in samples]),
            get_optimizer(recipe.training.optimizer),
            recipe.training.batch,
            recipe.seed,
        )


def _save_weights(drafts: list[str], weights: FloatArray) -> None:
    for draft, fitted in zip(drafts, weights, strict=True):
        with whole_file(weights_file(draft), force=True) as temporary:
            np.save(temporary, fitted)


def _save_samples(path: Path, samples: Samples) -> None:
    with whole_file(path) as temporary:
        np.save(temporary, np.column_stack([samples.points, samples.distances]))


def _load_samples(path: Path) -> Samples:
    columns = np.load(path)
    return Samples(np.ascontiguousarray(columns[:, :3]), np.ascontiguousarray(columns[:, 3]))
