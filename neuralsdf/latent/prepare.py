"""
prepare.py
----------
Draws the samples of all shapes of a data set, once, before trainings: the job behind `neuralsdf prepare`.
"""

from __future__ import annotations

import json
import math
import os
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from ..backends import get_backend
from ..batch.engine_processes import LocalEngine
from ..batch.find_meshes import Sources, find_sources
from ..batch.job import Job, Reported, Task
from ..batch.manifest import Manifest
from ..batch.output_folder import Folder, Place
from ..batch.resource_limits import Limits, memory_per_worker
from ..batch.run_batch import Report, Summary, run_batch
from ..batch.shape_record import Column, Record
from ..errors import FileError, OutputError, UsageError
from ..fields.exact_distance import no_interior, signed_distance
from ..files.atomic_write import make_folder, whole_file
from ..geometry.similarity_transform import Similarity
from ..geometry.unit_ball import normalisation
from ..mesh.load_mesh import load_mesh
from ..mesh.mesh import Mesh
from ..mesh.signed_distance import SignedDistance
from ..pipeline.stage_times import Stages
from ..thread_count import threads
from ..training.sampling import Density, Noise, Sampler
from .cache import (
    BOX_HALF,
    CACHE_FORMAT,
    FORMAT_VERSION,
    MODEL_RADIUS,
    Prepared,
    Samples,
    from_fixed,
    index_path,
    to_fixed,
    write_samples,
)  # fmt: skip
from .random_keys import Purpose, generator
from .shape_list import classified, with_labels, with_splits

#: DeepSDF's samples (Park et al., data preparation): pairs about each surface point with variances 0.005 and
#: 0.0005, and 3 of 50 uniform in the cube about the ball.
_NOISE = (Noise(1.0, 0.005**0.5), Noise(1.0, 0.0005**0.5))
_UNIFORM = 3 / 50
_CUBE = ((-1.0, -1.0, -1.0), (1.0, 1.0, 1.0))


@dataclass(frozen=True)
class Counts:
    """Samples of each shape: signed distances, occupancies in the box, and oriented surface points."""

    distances: int = 100_000
    occupancies: int = 100_000
    surface: int = 100_000

    def __post_init__(self) -> None:
        for name, count in asdict(self).items():
            if not 1000 <= count <= 1 << 24:
                raise UsageError(f"`{name}={count}` is out of range (1000 to {1 << 24})")

    @property
    def bytes(self) -> int:
        """Bytes of a prepared shape."""
        return 10 * self.distances + 6 * self.occupancies + self.occupancies // 8 + 12 * self.surface + 4096


@dataclass(frozen=True)
class PrepareJob(Job):
    """Samples of each mesh. test_fraction: of shapes in the test split, for classes without splits."""

    counts: Counts = Counts()
    test_fraction: float = 0.2
    seed: int = 0

    name: ClassVar[str] = "prepare"
    place: ClassVar[Place] = Place("shapes", ".h5")
    reported: ClassVar[Reported] = Reported(
        columns=("faces", "category", "inside", "box_fraction"), listed=("faces",), stages=("load", "sample")
    )

    def options(self) -> dict[str, Any]:
        """Counts, test fraction and seed."""
        return {**asdict(self.counts), "test_fraction": self.test_fraction, "seed": self.seed}

    def perform(self, task: Task) -> Record:
        """Sample a mesh."""
        record, clock = task.record, Stages(None)
        with clock.stage("load"):
            mesh = load_mesh(record.source)
        self.check_unchanged(record, mesh.content)
        with clock.stage("prepare"):
            shape, oracle = normalised(mesh, record.name)
        with clock.stage("sample"):
            key = int.from_bytes(sha256(record.name.encode()).digest()[:8], "little")
            samples, inside = draw_samples(shape, oracle, self.counts, self.seed, key)
        write_samples(Path(task.draft), shape._replace(inside=inside), samples)
        occupied = np.unpackbits(samples.occupied, count=self.counts.occupancies).mean()
        columns: dict[str, Column] = {
            "faces": mesh.source.faces,
            "category": shape.category,
            "inside": inside / self.counts.distances,
            "box_fraction": float(occupied),
        }
        return record.done(columns, clock.seconds, warnings=[])

    @classmethod
    def finished(cls, folder: Folder) -> list[Path]:
        """The index, if it is there."""
        path = index_path(folder.path)
        return [path] if path.exists() else []


def normalised(mesh: Mesh, name: str) -> tuple[Prepared, SignedDistance]:
    """A mesh's spaces and its signed distance; raises `NoInteriorError` for a mesh without an inside."""
    transform = normalisation(mesh.vertices)
    oracle = signed_distance(mesh, transform, backend=get_backend())
    if not oracle.has_interior:
        raise no_interior(mesh.source.name, oracle, transform)
    low, high = mesh.vertices.min(axis=0), mesh.vertices.max(axis=0)
    box = Similarity.from_ball((low + high) / 2, float((high - low).max()))
    (shape,) = classified([name])
    content = mesh.content or ""
    return Prepared(name, shape.category, transform, box, 0, content, mesh.source.unit), oracle


def draw_samples(
    shape: Prepared, oracle: SignedDistance, counts: Counts, seed: int, key: int
) -> tuple[Samples, int]:
    """The samples of a shape, and how many of the distances are inside; key: a number of the shape."""
    sampler = Sampler(oracle, Density("surface", uniform=_UNIFORM, noise=_NOISE, box=_CUBE))
    rng = generator(seed, Purpose.SAMPLES, key)
    points = to_fixed(sampler.draw(counts.distances, rng).points, MODEL_RADIUS)
    distances = oracle.signed(from_fixed(points, MODEL_RADIUS).astype(np.float64)).astype(np.float32)
    order = np.argsort(distances >= 0, kind="stable")
    boxed = to_fixed(rng.uniform(-BOX_HALF, BOX_HALF, (counts.occupancies, 3)), BOX_HALF)
    in_mesh = shape.box.apply(from_fixed(boxed, BOX_HALF))
    occupied = oracle.inside(shape.transform.apply_inverse(in_mesh))
    surface = sampler.draw_surface(counts.surface, rng)
    samples = Samples(
        points[order],
        distances[order],
        boxed,
        np.packbits(occupied),
        to_fixed(surface.points, MODEL_RADIUS),
        to_fixed(surface.normals, 1.0),
    )
    return samples, int(np.count_nonzero(distances < 0))


def prepare(
    dataset: str,
    out: str | Path,
    job: PrepareJob = PrepareJob(),
    *,
    sources: Sources | None = None,
    workers: int | None = None,
    retry_failed: bool = False,
    force: bool = False,
    report: Report = lambda record, progress: None,
) -> Summary:
    """Prepare all meshes of a data set, or those that an earlier call has left; see `run_batch`.

    sources: the meshes, if they are known. workers: number of processes with one thread each; None for one a
    core. Raises `OutputError` before any work if the disk has too little space, and as `run_batch` does.
    """
    count, sources = workers or threads(), sources or find_sources(dataset, out)
    with_labels(classified(name for name, _ in sources.meshes), sources.labels, dataset)
    needed = len(sources.meshes) * job.counts.bytes
    free = shutil.disk_usage(make_folder(out)).free
    if not index_path(Path(out)).exists() and needed > free:
        raise OutputError(
            out,
            f"needs about {needed / 1e9:.2g} GB, and its disk has {free / 1e9:.2g} GB free",
            "free some space, name another folder, or draw fewer samples",
        )
    limits = Limits(math.inf, memory_per_worker(count))
    summary = run_batch(
        dataset, out, job, lambda: LocalEngine(job, count, limits),
        sources=sources, retry_failed=retry_failed, force=force, report=report,
    )  # fmt: skip
    _write_index(Folder(Path(out)), dataset, job, sources.labels)
    return summary


def _write_index(
    folder: Folder, dataset: str, job: PrepareJob, labels: Mapping[str, tuple[str, ...]]
) -> None:
    """Write the index of the shapes that are prepared; labels: of a list, by name."""
    with Manifest.open(folder.manifest()) as manifest:
        records = {record.name: record for record in manifest.records("done")}
    shapes = with_splits(with_labels(classified(records), labels, dataset), job.test_fraction, job.seed)
    index = {
        "format": CACHE_FORMAT,
        "version": FORMAT_VERSION,
        "options": job.options(),
        "shapes": [[*shape, os.path.relpath(records[shape.name].source, folder.path)] for shape in shapes],
    }
    with whole_file(index_path(folder.path)) as temporary:
        temporary.write_text(json.dumps(index, indent=1, ensure_ascii=True))


def is_prepared(dataset: str) -> bool:
    """Whether a data set is a folder that `prepare` has written, not one of meshes.

    Raises `FileError` for a folder in which a preparation was stopped.
    """
    folder = Path(dataset)
    if index_path(folder).exists():
        return True
    if Folder(folder).manifest().exists() and Folder(folder).results(PrepareJob.place).is_dir():
        raise FileError(
            folder, "is a data set that is not prepared to its end", "continue with neuralsdf prepare"
        )
    return False
