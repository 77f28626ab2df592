"""
convert_job.py
--------------
The job of `batch-convert`: convert each mesh to a model, and write all models to a data-set file.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from ..backends import backend_on
from ..evaluation.failed_fit import failed_fit
from ..pipeline.convert import Conversion, fit_mesh
from ..pipeline.stage_times import STAGES
from ..program.network import ACTIVATIONS
from ..storage import save_model
from ..storage.dataset import write_dataset
from ..units import DIMENSIONS
from .conversion_recipe import Recipe
from .job import Job, Measure, Reported, Task, digest
from .output_folder import Folder, Place
from .shape_record import Record

if TYPE_CHECKING:
    from PIL import Image

    from .manifest import Manifest

#: The paper reports that 93 % of the surface errors on Thingi10k are below 0.003 and none is above 0.01. The
#: surface error is not sufficient alone: a field that is zero everywhere minimises it.
IOU = Measure("iou", "iou", "IoU", 0.93, 0.8, 1)
TWO_WAY = Measure("two_way", "two_way", "Two-way distance", 0.003, 0.01, -1)
SURFACE = Measure("surface_error", "surface_mean", "Surface error", 0.003, 0.01, -1)


@dataclass(frozen=True)
class ConvertJob(Job):
    """Conversion by a recipe.

    device: fits and evaluates the networks; not a stored option. Each process loads its own backend.
    """

    recipe: Recipe
    device: str = "auto"

    name: ClassVar[str] = "convert"
    place: ClassVar[Place] = Place("models", ".h5")
    reported: ClassVar[Reported] = Reported(
        columns=("faces", "architecture", *DIMENSIONS),
        listed=("faces",),
        stages=STAGES,
        measures=(IOU, TWO_WAY, SURFACE),
        rank=TWO_WAY,
        counted=("architecture", "network"),
        comparison=(
            "For comparison: in the paper (Davies et al. 2020, figure 5) 93 % of Thingi10k have a surface "
            "error below 0.003, and no shape has one above 0.01. A field that is zero everywhere would "
            "minimise the surface error."
        ),
    )

    def options(self) -> dict[str, Any]:
        """The recipe as JSON values."""
        return self.recipe.options()

    def key(self, content: str) -> str:
        """SHA-256 (hex) of content and options; without the job's name, as in manifests of version 1."""
        return digest([content, self.options()])

    def perform(self, task: Task) -> Record:
        """Convert a mesh."""
        made = fit_mesh(task.record.source, **self.recipe.arguments(), backend=backend_on(self.device))
        return self.saved(task, made)

    def saved(self, task: Task, made: Conversion) -> Record:
        """Save a model as the draft of the task; returns the record."""
        record, network = task.record, made.field.network
        self.check_unchanged(record, made.mesh.content)
        save_model(made.field, task.draft, force=True)
        return record.done(
            {
                "faces": made.mesh.source.faces,
                "architecture": str(network.architecture),
                **made.field.metrics,
            },
            made.seconds,
            warnings=[line.removeprefix(f"{record.source}: ") for line in made.warnings],
            target_met=made.field.settings.get("target_met"),
        )

    @classmethod
    def judge(cls, record: Record) -> Record:
        """The record; marked as failed if an earlier version accepted a fit that had failed."""
        metrics = {name: value for name in DIMENSIONS if (value := record.number(name)) is not None}
        reason = failed_fit(metrics)
        if record.state != "done" or reason is None:
            return record
        lost = {"lost": sum(record.seconds.values())}
        failed = record.failed("error", f"{reason}; convert it again", lost)
        return replace(failed, finished=record.finished)

    @classmethod
    def finish(cls, manifest: Manifest, folder: Folder) -> tuple[Path, ...]:
        """Write the data-set file of the models, unless it is up to date.

        A data set has one architecture. A run with a target error may have several; each gets its own file.
        """
        contents = sha256()
        names: dict[str, list[str]] = {}
        for record in manifest.records("done"):
            contents.update(repr((record.name, record.key)).encode())
            names.setdefault(str(record.columns.get("architecture")), []).append(record.name)
        paths = {kind: dataset_file(folder, kind if len(names) > 1 else None) for kind in sorted(names)}
        if manifest.written != contents.hexdigest() or dataset_files(folder) != sorted(paths.values()):
            manifest.set_written(None)
            for path in set(dataset_files(folder)) - set(paths.values()):
                path.unlink()
            for kind, path in paths.items():
                write_dataset(path, [(name, folder.result(name, cls.place)) for name in names[kind]])
            manifest.set_written(contents.hexdigest())
        return tuple(paths.values())

    @classmethod
    def finished(cls, folder: Folder) -> list[Path]:
        """The data-set files."""
        return dataset_files(folder)

    @classmethod
    def picture(cls, result: Path, side: int, seed: int) -> Image.Image:
        """A picture of a model, with a transparent background."""
        from PIL import Image

        from ..render import make_tracer, render
        from ..storage import open_model

        field = open_model(result)
        tracer = make_tracer(field, seed=seed)
        drawn = render(field, width=side, height=side, background="transparent", antialias=2, tracer=tracer)
        return Image.fromarray(drawn.rgba)


def dataset_file(folder: Folder, architecture: str | None = None) -> Path:
    """The data-set file in an output folder; architecture: given if there is one file per architecture."""
    name = "" if architecture is None else "-" + re.sub(r"\W+", "-", architecture)
    return folder.path / f"dataset{name}.h5"


#: Names that `dataset_file` gives. Other files in the folder, such as dataset-mine.h5, belong to the user.
_DATASET_NAME = re.compile(rf"dataset(-\d+[x\d-]*-({'|'.join(ACTIVATIONS)}))?\.h5")


def dataset_files(folder: Folder) -> list[Path]:
    """The existing data-set files that `dataset_file` names."""
    return sorted(path for path in folder.path.glob("dataset*.h5") if _DATASET_NAME.fullmatch(path.name))
