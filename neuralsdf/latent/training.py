"""
training.py
-----------
Trains a latent model on a prepared data set: the loop over steps, with schedule, log, validation and
checkpoints.

A step depends only on the settings, the shapes and its number (random_keys.py), so a training that was killed
and continues has the losses of an undisturbed one, to the bit for an equal number of threads and processes.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from ..batch.job import difference
from ..errors import UsageError
from ..files.atomic_write import whole_file
from ..latent_fields.decoder_file import write_decoder
from . import checkpoint
from .cache import Cache, CachedShape, Entry
from .checkpoint import Position
from .config import Settings, parse_settings
from .device import chosen_device, torch_threads, with_precision
from .distributed import Group, process_group
from .event_file import EventFile
from .models import LatentModel, make_model
from .random_keys import Purpose, generator
from .resources import check_resources
from .run_folder import RunFolder, write_codes
from .validation import Validation, inference_settings, logged_validation, validate

#: Seconds between checkpoints, at least and in multiples of the time to write one.
CHECKPOINT_SECONDS, CHECKPOINT_COSTS = 2.0, 50.0
#: Steps between lines of the log, and seconds between reports of the progress.
LOG_STEPS, _REPORT_SECONDS = 20, 0.5
#: Validations of a training whose settings do not say how often.
_VALIDATIONS = 20
#: Fraction of the training shapes that may be held out for validation.
_MOST_HELD_OUT = 0.2


@dataclass(frozen=True)
class Progress:
    """Where a training stands: steps done and in all, the recent mean loss, and the latest validation."""

    step: int
    steps: int
    loss: float
    validation: Validation | None


Report = Callable[[Progress], None]


@dataclass(frozen=True)
class Trained:
    """The end of a training: steps done, the step of the decoder that was kept, and seconds in all.

    validation: of that decoder; None if no shape was held out, and the last decoder was kept.
    """

    steps: int
    best_step: int
    validation: Validation | None
    stopped_early: bool
    seconds: float

    @property
    def best_iou(self) -> float | None:
        """The mean IoU of the validation."""
        return None if self.validation is None else self.validation.iou


def train(
    cache: Cache,
    run: str | Path,
    settings: Settings,
    *,
    category: str | None = None,
    device: str = "auto",
    report: Report = lambda progress: None,
) -> Trained:
    """Train in a run folder, or continue the training that is in it.

    category: the class to train on; None for all. device: one of `DEVICES`. Raises `UsageError` if the cache
    has too few shapes, the folder holds a training with other settings or shapes, or the memory is too small;
    `OutputError` if another one is running in it, or its disk is too small; `BackendError` without the
    device.
    """
    folder, place = RunFolder(Path(run)), chosen_device(device)
    settings = with_precision(settings, place)
    with ExitStack() as stack:
        stack.enter_context(torch_threads(1))  # models divide a step between threads themselves
        group = stack.enter_context(process_group(place))
        if group.is_first:
            stack.enter_context(folder.locked())
        shapes = chosen_shapes(cache, settings, category)
        if group.is_first:
            check_resources(settings, len(shapes[0]), folder, place)
        training = _Training(cache, folder, settings, shapes, group, place, report)
        stack.callback(training.close)
        return training.perform()


def chosen_shapes(
    cache: Cache, settings: Settings, category: str | None = None
) -> tuple[list[Entry], list[Entry]]:
    """Shapes to train on, and shapes for validation, of a class or of all.

    Raises `UsageError` for a class that does not exist, or fewer than two shapes to train on.
    """
    training, validation = held_out(
        [entry for entry in cache.entries if category in (None, entry.category)], settings
    )
    _check_shapes(cache, category, training)
    return training, validation


def held_out(entries: Sequence[Entry], settings: Settings) -> tuple[list[Entry], list[Entry]]:
    """Shapes to train on, and shapes for validation: those of the split "validation", or some by the seed."""
    training = [entry for entry in entries if entry.split == "train"]
    validation = [entry for entry in entries if entry.split == "validation"]
    wanted = settings.validation.shapes
    if validation or not wanted:
        return training, validation[:wanted]
    count = min(wanted, int(_MOST_HELD_OUT * len(training)))
    order = generator(settings.training.seed, Purpose.HELD_OUT).permutation(len(training))
    chosen = {training[i].name for i in order[:count]}
    return (
        [entry for entry in training if entry.name not in chosen],
        [entry for entry in training if entry.name in chosen],
    )


class _Training:
    """A training of one process of a group."""

    def __init__(
        self,
        cache: Cache,
        folder: RunFolder,
        settings: Settings,
        shapes: tuple[list[Entry], list[Entry]],
        group: Group,
        device: torch.device,
        report: Report,
    ) -> None:
        training, validation = shapes
        self._folder, self._settings, self._group, self._report = folder, settings, group, report
        self._names = tuple(entry.name for entry in training)
        self._held_out: list[CachedShape] = [cache.shape(entry) for entry in validation]
        self._model: LatentModel = make_model(settings, [cache.shape(entry) for entry in training], device)
        self._optimizer = torch.optim.Adam(
            [{"params": [tensor], "name": name} for name, tensor in self._model.parameters.items()]
        )
        self._position = Position(0, float("-inf"), 0, 0, 0.0, settings.to_toml(), self._names)
        self._validation: Validation | None = None
        self._events: EventFile | None = None

    def perform(self) -> Trained:
        """Perform the steps that are left."""
        self._continue()
        first, began, before = self._position.step, time.monotonic(), self._position.seconds
        every = self._settings.validation.every or max(1, self._model.steps // _VALIDATIONS)
        saved, reported, cost = began, began, 0.0
        for step in range(first, self._model.steps):
            if self._exhausted:
                break
            losses = (*self._position.losses, self._step(step))
            seconds, done = before + time.monotonic() - began, step + 1
            self._position = replace(self._position, step=done, seconds=seconds, losses=losses)
            is_last = done == self._model.steps
            if done % LOG_STEPS == 0 or is_last:
                self._log()
                reported = time.monotonic()
            elif time.monotonic() - reported > _REPORT_SECONDS:
                self._report_progress()
                reported = time.monotonic()
            if done % every == 0 or is_last:
                self._validate()
            due = max(CHECKPOINT_SECONDS, CHECKPOINT_COSTS * cost)
            if is_last or self._exhausted or time.monotonic() - saved > due:
                before_saving = time.monotonic()
                self._save(self._folder.last)
                saved = time.monotonic()
                cost = saved - before_saving
        position = self._position
        best = logged_validation(self._folder.read_log(), position.best) if self._held_out else None
        return Trained(position.step, position.best, best, self._exhausted, position.seconds)

    def close(self) -> None:
        """Close the event file."""
        if self._events is not None:
            self._events.close()

    @property
    def _exhausted(self) -> bool:
        """Whether the last validations have not been better than an earlier one."""
        patience = self._settings.validation.patience
        return bool(patience) and self._position.stale >= patience

    def _step(self, step: int) -> float:
        """One step of the optimizer; returns the loss of all processes."""
        model, settings = self._model, self._settings.training
        for parameters in self._optimizer.param_groups:
            parameters["lr"] = model.learning_rate(parameters["name"], step)
        self._optimizer.zero_grad(set_to_none=False)
        terms = model.add_gradients(step, self._group.part(model.slots))
        self._group.sum_gradients(model.parameters.values())
        if settings.gradient_norm:
            torch.nn.utils.clip_grad_norm_(model.parameters.values(), settings.gradient_norm)
        self._optimizer.step()
        return sum(self._group.summed(terms).values())

    def _log(self) -> None:
        """Report the mean loss since the last report."""
        position, model, loss = self._position, self._model, self._recent_loss
        if self._group.is_first:
            self._write_log(
                seconds=round(position.seconds, 3),
                loss=loss,
                learning_rate=model.learning_rate("layers.0.bias", position.step - 1),
                code_learning_rate=model.learning_rate("codes", position.step - 1),
                **model.measures(),
            )
        self._report_progress()
        self._position = replace(position, losses=())

    def _report_progress(self) -> None:
        """Report the step and the mean loss since the last line of the log."""
        self._report(Progress(self._position.step, self._model.steps, self._recent_loss, self._validation))

    @property
    def _recent_loss(self) -> float:
        """The mean loss since the last line of the log."""
        return sum(self._position.losses) / len(self._position.losses)

    def _write_log(self, **values: Any) -> None:
        """Add a line to the log, and its numbers to the event file."""
        step = self._position.step
        self._folder.write_log(step=step, **values)
        if self._events is not None:
            numbers = {name: value for name, value in values.items() if isinstance(value, float)}
            self._events.write(step, numbers)

    def _validate(self) -> None:
        """Validate, and keep the model if it is the best so far; without held-out shapes the latest is."""
        position, score = self._position, float(self._position.step)
        if self._held_out:
            if self._group.is_first:
                self._validation = validate(
                    self._model.decoder(), self._held_out, inference_settings(self._settings)
                )
                score = self._validation.iou
                self._write_log(
                    validation_iou=self._validation.iou,
                    validation_loss=self._validation.loss,
                    validation_ious=dict(self._validation.ious),
                )
            score = self._group.from_first(score)
        better = score > position.score
        self._position = replace(
            position,
            score=score if better else position.score,
            best=position.step if better else position.best,
            stale=0 if better else position.stale + 1,
        )
        if better:
            self._save(self._folder.best)
            self._save_decoder()

    def _save(self, path: Path) -> None:
        if self._group.is_first:
            checkpoint.save(path, self._position, self._model.parameters, self._optimizer)

    def _save_decoder(self) -> None:
        if self._group.is_first:
            write_decoder(self._folder.decoder, self._model.decoder())
            write_codes(self._folder.codes, self._model.codes.detach().cpu().numpy(), list(self._names))

    def _continue(self) -> None:
        """Take up the training in the folder, or begin one."""
        folder, position = self._folder, self._position
        if folder.last.exists():
            found = checkpoint.restore(folder.last, self._model.parameters, self._optimizer)
            if found.settings != position.settings or found.names != position.names:
                raise UsageError(
                    f"{folder.path}: holds a training with other {_differing(found, position)}; continue it "
                    "with the same, or name another folder"
                )
            self._position = found
        if self._group.is_first:
            folder.begin_log(self._position.step)
            if self._position.step < self._model.steps:
                self._events = EventFile(folder.events, self._position.step)
            with whole_file(folder.config) as temporary:
                temporary.write_text(position.settings)


def _check_shapes(cache: Cache, category: str | None, training: Sequence[Entry]) -> None:
    """Raise `UsageError` for a class that does not exist, or fewer than two shapes to train on."""
    classes = sorted({entry.category for entry in cache.entries})
    if category is not None and category not in classes:
        raise UsageError(f"{cache.folder}: has no class {category!r}; its classes are {', '.join(classes)}")
    if len(training) < 2:
        where = f" of the class {category!r}" if category else ""
        raise UsageError(
            f"{cache.folder}: has {len(training)} training shapes{where}, and a latent model needs two; "
            "prepare more shapes, or convert this one with neuralsdf convert"
        )


def _differing(found: Position, given: Position) -> str:
    """What differs between two trainings: a setting, or the shapes."""
    if found.settings == given.settings:
        return "shapes"
    other = difference(parse_settings(given.settings), parse_settings(found.settings))
    return f"settings ({other})"
