"""
sets.py
-------
The data sets: chairs of the built-in family, real meshes, and classes of the Princeton benchmark. Each is a
folder with `CLASS/train` and `CLASS/validation`, and is prepared once.
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import numpy as np
from common import meshes
from manifold3d import Manifold
from scipy.spatial.transform import Rotation

from neuralsdf.files.atomic_write import make_folder, whole_folder
from neuralsdf.latent.cache import Cache, Entry
from neuralsdf.latent.parametric.families import FAMILIES
from neuralsdf.latent.parametric.parts import LabelledMesh, rod, united
from neuralsdf.latent.prepare import Counts, PrepareJob, prepare
from neuralsdf.mesh.formats.registry import SUFFIXES
from neuralsdf.mesh.save_mesh import save_mesh

#: Samples of each shape. Trainings use the distances, validations the occupancies.
COUNTS = Counts(distances=100_000, occupancies=20_000, surface=1000)

#: Chairs are those of `make-dataset parametric --seed 0` with numbers from these on.
_FIRST = {"train": 0, "validation": 1000, "turned": 2000, "unique": 3000}

#: Name of the chair that has a part which no other has.
UNIQUE = "unique"

#: Axes about which shapes are turned, by name.
AXES = {"up": (0.0, 1.0, 0.0), "tilted": (1.0, 1.0, 1.0)}


def psb() -> Path:
    """The Princeton segmentation benchmark, beside the meshes."""
    folder = meshes().parent / "datasets" / "psb"
    if not folder.is_dir():
        raise SystemExit(f"no data set at {folder}")
    return folder


@dataclass(frozen=True)
class ShapeSet:
    """A data set. name: "chairs", "meshes" or "psb". shapes, validation: maximum number for each purpose."""

    name: str
    shapes: int
    validation: int

    def cache(self, work: Path) -> Cache:
        """The prepared shapes."""
        return Cache(self._folder(work, "prepared"))

    def training(self, work: Path) -> list[Entry]:
        """The shapes to train on."""
        return self.cache(work).split("train")

    def make(self, work: Path) -> None:
        """Make and prepare it; nothing to do if that is done."""
        raw, prepared = self._folder(work, "meshes"), self._folder(work, "prepared")
        if not raw.exists():
            make_folder(raw.parent)
            with whole_folder(raw) as draft:
                {"chairs": self._chairs, "meshes": self._meshes, "psb": self._psb}[self.name](draft)
        if not (prepared / "cache.json").exists():
            summary = prepare(str(raw), prepared, PrepareJob(COUNTS), workers=2)
            print(f"{self.name}: prepared, {summary}", file=sys.stderr)

    def _folder(self, work: Path, purpose: str) -> Path:
        return work / purpose / f"{self.name}-{self.shapes}-{self.validation}"

    def _chairs(self, folder: Path) -> None:
        """One class; one of its training shapes has a part that no other has."""
        for split, count in (("train", self.shapes - 1), ("validation", self.validation)):
            for number in range(count):
                save(folder / "chair" / split / f"chair_{number:03}.ply", chair(split, number))
        save(folder / "chair" / "train" / f"{UNIQUE}.ply", unique_chair())

    def _meshes(self, folder: Path) -> None:
        """Unlike shapes; there are no others of their kind, so some are sampled anew for validation."""
        files = [path for path in sorted(meshes().iterdir()) if path.suffix.lower() in SUFFIXES]
        chosen = evenly(files, self.shapes)
        for split, paths in (("train", chosen), ("validation", evenly(chosen, self.validation))):
            _copy(paths, folder / split)

    def _psb(self, folder: Path) -> None:
        """The classes of the benchmark; shapes of its test split for validation."""
        classes = sorted(path.parent for path in psb().glob("*/train"))
        for kind in classes:
            for split, source, count in (
                ("train", "train", self.shapes),
                ("validation", "test", self.validation),
            ):
                _copy(
                    evenly(sorted((kind / source).iterdir()), max(1, count // len(classes))),
                    folder / kind.name / split,
                )


def evenly(paths: Sequence[Path], count: int) -> list[Path]:
    """At most `count` of the paths, at equal intervals."""
    if count >= len(paths):
        return list(paths)
    return [paths[i * len(paths) // count] for i in range(count)]


def _copy(paths: Sequence[Path], folder: Path) -> None:
    folder.mkdir(parents=True)
    for path in paths:
        shutil.copyfile(path, folder / path.name)


def chair(purpose: str, number: int) -> LabelledMesh:
    """A chair of the family; chairs for different purposes are different."""
    return FAMILIES["chair"].draw(0, _FIRST[purpose] + number).mesh


def unique_chair() -> LabelledMesh:
    """A chair with a ball on a post, which rises from the seat. It lies within the chair's enclosing ball.

    The part has the last label.
    """
    family = FAMILIES["chair"]
    parameters = SimpleNamespace(**family.draw(0, _FIRST["unique"]).parameters)
    front, seat = parameters.seat_depth / 2 - 0.07, parameters.seat_height
    post = rod((0, seat - 0.02, front), (0, seat + 0.16, front), 0.025)
    ball = Manifold.sphere(0.09, 48).translate((0, seat + 0.22, front))
    return united({**family.build(parameters), "ball": [post, ball]}, (*family.parts, "ball"))


def save(path: Path, mesh: LabelledMesh) -> None:
    """Write a mesh, and the folder that it is in."""
    path.parent.mkdir(parents=True, exist_ok=True)
    save_mesh(path, mesh.vertices, mesh.faces)


def turned(work: Path, number: int, axis: str, angle: int) -> Path:
    """File of an unseen chair, turned about an axis by an angle in degrees."""
    folder = make_folder(work / "meshes" / "turned")
    path = folder / f"chair_{number:03}_{axis}_{angle:03}.ply"
    if not path.exists():
        mesh = chair("turned", number)
        direction = np.array(AXES[axis]) / np.linalg.norm(AXES[axis])
        rotation = Rotation.from_rotvec(np.deg2rad(angle) * direction)
        save_mesh(path, rotation.apply(mesh.vertices), mesh.faces)
    return path
