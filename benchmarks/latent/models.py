"""
models.py
---------
The models that are compared: a network for each shape (`convert`), and DeepSDF for a data set.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from latent.errors import of_field
from latent.sets import ShapeSet
from latent.tasks import Result, Task
from neuralsdf.errors import FitError
from neuralsdf.files.atomic_write import make_folder, whole_folder
from neuralsdf.latent.config import DecoderSettings, Settings, TrainingSettings, ValidationSettings
from neuralsdf.latent.inference import InferenceSettings
from neuralsdf.latent.observation import observe
from neuralsdf.latent.reconstruct import TrainedModel, reconstruct
from neuralsdf.latent.run_folder import RunFolder
from neuralsdf.latent.training import Progress, train
from neuralsdf.pipeline.convert import SAMPLES, fit_mesh
from neuralsdf.program.network import Architecture
from neuralsdf.storage import save_field
from neuralsdf.training.fit_settings import Training as FitTraining

#: When a decoder is taken: after the time that the networks of all training shapes take, and at the end.
MOMENTS = EQUAL, PLATEAU = ("equal", "plateau")

#: Samples of a step of inference; validations of a training, and their steps of inference.
INFERENCE_SAMPLES, VALIDATIONS, VALIDATION_ITERATIONS = 2000, 20, 100


@dataclass(frozen=True)
class Fit(Task):
    """A network fitted to one shape: `convert`, by default with its default settings.

    mesh: path of the file. The result has the errors, the seconds without measuring, and the bytes.
    """

    mesh: str
    width: int = 32
    samples: int = SAMPLES
    epochs: int = FitTraining.epochs
    optimizer: str = FitTraining.optimizer

    @property
    def label(self) -> str:
        """The mesh and the size."""
        return f"convert {Path(self.mesh).name}, 8 x {self.width}"

    @property
    def estimate(self) -> float:
        """Seconds: those of the default size, and in proportion to multiplications and samples."""
        share = self.samples * self.epochs / (SAMPLES * FitTraining.epochs)
        return 1 + 4.5 * share * (self.width / 32) ** 2

    def model(self, work: Path) -> Path:
        """The file of the network."""
        return work / "networks" / f"{self.key}.h5"

    def perform(self, work: Path) -> Result:
        """Fit, save and measure."""
        began = time.perf_counter()
        try:
            made = fit_mesh(
                self.mesh,
                architecture=Architecture.uniform(8, self.width),
                training=FitTraining(optimizer=self.optimizer, epochs=self.epochs),
                samples=self.samples,
                measure=False,
            )
        except FitError as error:
            seconds = time.perf_counter() - began
            return {**of_field(None, Path(self.mesh)), "seconds": seconds, "bytes": 0, "failure": str(error)}
        make_folder(self.model(work).parent)
        save_field(made.field, self.model(work), force=True)
        return {
            **of_field(made.field, Path(self.mesh)),
            "seconds": sum(made.seconds.values()) - made.seconds["measure"],
            "bytes": self.model(work).stat().st_size,
        }


def fits(work: Path, shapes: ShapeSet) -> list[Fit]:
    """The networks of the training shapes of a data set."""
    return [Fit(str(entry.source)) for entry in shapes.training(work)]


@dataclass(frozen=True)
class Training(Task):
    """DeepSDF trained on a data set, at a reduced size: 8 x 128, codes of 64, 16 shapes x 1024 samples.

    The result has the seconds without validations; `budget`, the seconds of the networks of all training
    shapes; `equal_step`, the step of the decoder that is the best within the budget; and the validations.
    """

    shapes: ShapeSet
    steps: int
    seed: int

    @property
    def label(self) -> str:
        """The data set and the seed."""
        return f"train on {self.shapes.name}, seed {self.seed}"

    @property
    def estimate(self) -> float:
        """Seconds: measured for a step and for a validation of a shape."""
        return 0.18 * self.steps + VALIDATIONS * 0.4 * self.shapes.validation

    @property
    def settings(self) -> Settings:
        """The settings of the training."""
        return Settings(
            decoder=DecoderSettings(width=128, code=64),
            training=TrainingSettings(shapes=16, samples=1024, steps=self.steps, epochs=0, seed=self.seed),
            validation=ValidationSettings(
                shapes=self.shapes.validation,
                every=max(1, self.steps // VALIDATIONS),
                iterations=VALIDATION_ITERATIONS,
            ),
        )

    def folder(self, work: Path, moment: str) -> Path:
        """The folder with the decoder of a moment and its codes."""
        run = work / "runs" / self.key
        return run / EQUAL if moment == EQUAL else run

    def perform(self, work: Path) -> Result:
        """Train, or continue."""
        run, equal = (RunFolder(self.folder(work, moment)) for moment in (PLATEAU, EQUAL))
        budget = sum(fit.result(work)["seconds"] for fit in fits(work, self.shapes))

        def keep(progress: Progress) -> None:
            is_due = progress.step * step_seconds(run.read_log()) > budget
            if is_due and run.decoder.exists() and not equal.decoder.exists():
                _copy_model(run, equal)

        trained = train(self.shapes.cache(work), run.path, self.settings, report=keep)
        in_time = equal.decoder.exists()
        if not in_time:
            _copy_model(run, equal)
        log, kept = run.read_log(), validations(equal.read_log())
        return {
            "steps": trained.steps,
            "seconds": trained.steps * step_seconds(log),
            "budget": budget,
            "ended_in_budget": not in_time,
            "equal_step": max(kept, key=lambda one: one[1])[0],
            "best_step": trained.best_step,
            "validations": validations(log),
            "bytes": run.decoder.stat().st_size + run.codes.stat().st_size,
        }


def step_seconds(log: Sequence[dict[str, Any]]) -> float:
    """Seconds of a step of a training: the median in its log, in which validations do not count."""
    timed = [(0, 0.0), *((line["step"], line["seconds"]) for line in log if "seconds" in line)]
    return float(np.median([(b[1] - a[1]) / (b[0] - a[0]) for a, b in pairwise(timed)]))


def validations(log: Sequence[dict[str, Any]]) -> list[tuple[int, float]]:
    """Step and IoU of each validation in a log."""
    return [(line["step"], line["validation_iou"]) for line in log if "validation_iou" in line]


def _copy_model(run: RunFolder, to: RunFolder) -> None:
    """Copy the decoder that is the best so far, its codes, and the log."""
    with whole_folder(to.path) as draft:
        for path in (run.decoder, run.codes, run.log):
            shutil.copyfile(path, draft / path.name)


@dataclass(frozen=True)
class FromCode(Task):
    """A training shape by the code that the training has found."""

    training: Training
    moment: str
    shape: str

    @property
    def label(self) -> str:
        """The shape."""
        return f"measure {self.shape}, seed {self.training.seed}, {self.moment}"

    @property
    def estimate(self) -> float:
        """Seconds."""
        return 1.5

    def perform(self, work: Path) -> Result:
        """Measure it."""
        model = TrainedModel.open(self.training.folder(work, self.moment))
        cache = self.training.shapes.cache(work)
        (entry,) = [entry for entry in cache.entries if entry.name == self.shape]
        field = model.field(model.codes[self.shape], cache.shape(entry).prepared.transform)
        return of_field(field, entry.source)


@dataclass(frozen=True)
class FromMesh(Task):
    """An unseen shape, whose code is found from its mesh."""

    training: Training
    moment: str
    mesh: str
    iterations: int

    @property
    def label(self) -> str:
        """The mesh."""
        return f"reconstruct {Path(self.mesh).name}, seed {self.training.seed}, {self.moment}"

    @property
    def estimate(self) -> float:
        """Seconds."""
        return 1.5 + 0.009 * self.iterations

    def perform(self, work: Path) -> Result:
        """Find the code, and measure its field."""
        model = TrainedModel.open(self.training.folder(work, self.moment))
        settings = InferenceSettings(
            iterations=self.iterations, samples=INFERENCE_SAMPLES, seed=self.training.seed
        )
        found = reconstruct(model, observe(self.mesh), settings)
        return {**of_field(found.field, Path(self.mesh)), "seconds": found.seconds, "loss": found.loss}
