"""
dataset.py
----------
Write a data set of parametric shapes:

    OUT/CLASS/train/CLASS_00000.ply   a mesh, centred, with a longest side of 1; y is up, z is the front
    OUT/CLASS/test/CLASS_00002.ply
    OUT/dataset.json                  how it was made, and the parameters of every shape

A PLY has the property `label` (uchar) of its vertices and of its faces: the position of the part in the list
of the class's parts in dataset.json (mesh/part_labels.py reads it).

dataset.json has `format` ("neuralsdf-parametric"), `format_version`, `made_by` (versions of the programs),
`seed`, `count`, `test` and two tables. `classes`: for each class its `parts` and the distributions of its
`parameters`. `shapes`: for each shape `name`, `class`, `split`, `file`, `parameters`, `parts` (labels that
occur), `vertices`, `faces`, and `fraction` (volume as a fraction of the padded box).

Shape number i of a class depends only on the seed, the class and i, and so does its split on `test` and i: a
larger data set contains the smaller ones.
"""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from difflib import get_close_matches
from importlib.metadata import version
from multiprocessing import connection
from pathlib import Path
from typing import Any

import numpy as np

from ...batch.resource_limits import Limits
from ...batch.worker_handle import ProcessExit, Worker
from ...batch.worker_main import Channel
from ...errors import NeuralSDFError, OutputError, UsageError
from ...files.atomic_write import whole_file, whole_folder
from ...mesh.save_mesh import save_mesh
from ...thread_count import threads
from ...version import __version__
from .families import FAMILIES, VERSION

FORMAT, FORMAT_VERSION = "neuralsdf-parametric", 1

#: The file that describes a data set, in its folder.
DESCRIPTION = "dataset.json"

#: Bytes of a shape that are allowed for before a data set is made. The largest class has 150 kB on average.
BYTES_PER_SHAPE = 160_000

#: Maximum number of shapes of a class, and maximum size of a description that is read to replace a data set.
MAX_COUNT, _MAX_DESCRIPTION = 100_000, 1 << 30

#: Seconds between two checks of the workers.
_TICK = 1.0


@dataclass(frozen=True)
class ClassSummary:
    """What a data set has of one class; fractions: (n,) volumes as fractions of the padded box."""

    name: str
    train: int
    test: int
    fractions: tuple[float, ...]
    faces: tuple[int, ...]


@dataclass(frozen=True)
class _Task:
    """A shape to make."""

    name: str
    class_: str
    index: int
    split: str

    @property
    def file(self) -> str:
        """Path in the data set."""
        return f"{self.class_}/{self.split}/{self.name}.ply"


def make_dataset(
    path: str | Path,
    *,
    count: int,
    seed: int = 0,
    classes: Sequence[str] | None = None,
    test: float = 0.2,
    workers: int | None = None,
    force: bool = False,
    report: Callable[[int, int], None] = lambda done, total: None,
) -> list[ClassSummary]:
    """Make a data set of `count` shapes of each class in the folder `path`, completely or not at all.

    seed: the same seed gives the same bytes, for any number of workers. classes: by default all families.
    test: fraction of the shapes of each class in the split `test`, rounded. workers: processes, by default
    one per thread. force: replace a data set in the folder. report: called with the number of shapes that are
    done and their total number.

    Raises `UsageError` for invalid arguments; `OutputError` for a folder with files (with `force`: with other
    files than those of its data set), and if there is too little space.
    """
    path = Path(path)
    chosen = known_classes(classes)
    if not 1 <= count <= MAX_COUNT or not 0 <= test < 1:
        raise UsageError(f"`count={count}`, `test={test:g}`: 1 to {MAX_COUNT}, and at least 0 and below 1")
    check_folder(path, force=force)
    tasks = [
        _Task(f"{name}_{index:05}", name, index, "test" if in_test_split(index, test) else "train")
        for name in chosen
        for index in range(count)
    ]
    with whole_folder(path) as draft:
        _check_space(path, draft, len(tasks))
        for folder in {(draft / task.file).parent for task in tasks}:
            folder.mkdir(parents=True)
        shapes: dict[str, dict[str, Any]] = {}
        for task, shape in _made(tasks, _Drawing(seed, str(draft)), workers or threads()):
            shapes[task.name] = shape
            report(len(shapes), len(tasks))
        ordered = [shapes[task.name] for task in tasks]
        description = _description(chosen, ordered, seed=seed, count=count, test=test)
        with whole_file(draft / DESCRIPTION) as temporary:
            temporary.write_text(json.dumps(description, indent=1) + "\n", "utf-8")
    return [_summary(name, [shape for shape in ordered if shape["class"] == name]) for name in chosen]


def known_classes(names: Sequence[str] | None) -> list[str]:
    """The chosen classes, in their order and each once; all for None. Raises `UsageError` for others."""
    for name in names or ():
        if name not in FAMILIES:
            close = get_close_matches(name, FAMILIES, n=1)
            hint = f"did you mean {close[0]!r}?" if close else f"one of {', '.join(FAMILIES)}"
            raise UsageError(f"no class {name!r}; {hint}")
    return list(dict.fromkeys(FAMILIES if names is None else names))


def in_test_split(index: int, test: float) -> bool:
    """Whether shape number `index` of a class is in the test split.

    Among the first n shapes, n `test` are, rounded to a whole number (down if both are as close).
    """

    def among(count: int) -> int:
        return math.ceil(count * test - 0.5 - 1e-9)

    return among(index + 1) > among(index)


def check_folder(path: Path, *, force: bool) -> None:
    """Raise `OutputError` unless the folder is missing or empty, or holds only a data set of parametric
    shapes and `force` is set."""
    if path.exists() and not path.is_dir():
        raise OutputError(path, "is a file, not a folder", "name another folder")
    entries = {entry.name for entry in path.iterdir()} if path.exists() else set()
    if not entries:
        return
    classes = _classes_of(path)
    if classes is None:
        raise OutputError(path, "is not empty, and no data set of parametric shapes", "name another folder")
    if others := entries - classes - {DESCRIPTION}:
        raise OutputError(path, f"also holds files of others ({min(others)})", "move them elsewhere")
    if not force:
        raise OutputError(path, "holds a data set already", "replace it with `force=True`")


def _classes_of(path: Path) -> set[str] | None:
    """The classes of the data set in a folder; None if it is not one."""
    file = path / DESCRIPTION
    try:
        if file.stat().st_size > _MAX_DESCRIPTION:
            return None
        match json.loads(file.read_text("utf-8")):
            case {"format": "neuralsdf-parametric", "classes": {**classes}}:
                return set(map(str, classes))
    except (OSError, ValueError, RecursionError):
        pass
    return None


def _check_space(path: Path, draft: Path, shapes: int) -> None:
    needed, free = shapes * BYTES_PER_SHAPE, shutil.disk_usage(draft).free
    if needed > free:
        raise OutputError(
            path,
            f"{shapes:,} shapes need about {needed / 1e9:.3g} GB, and {free / 1e9:.3g} GB are free there",
            "free some space, or make fewer with `count=`",
        )


@dataclass(frozen=True)
class _Drawing:
    """Implements `Work`: draws one shape and writes its file."""

    seed: int
    folder: str

    def perform(self, message: dict[str, Any], channel: Channel) -> dict[str, Any]:
        """The entry of a shape in dataset.json, from the fields of its task."""
        task = _Task(**message)
        shape = FAMILIES[task.class_].draw(self.seed, task.index)
        mesh = shape.mesh
        save_mesh(
            Path(self.folder, task.file),
            mesh.vertices,
            mesh.faces,
            labels=mesh.vertex_labels,
            face_labels=mesh.face_labels,
        )
        return {
            "name": task.name,
            "class": task.class_,
            "split": task.split,
            "file": task.file,
            "parameters": shape.parameters,
            "parts": np.unique(mesh.face_labels).tolist(),
            "vertices": len(mesh.vertices),
            "faces": len(mesh.faces),
            "fraction": round(shape.fraction, 6),
        }


def _made(tasks: list[_Task], work: _Drawing, count: int) -> Iterator[tuple[_Task, dict[str, Any]]]:
    """Tasks and what their work returned, as they end."""
    waiting = iter(tasks)
    busy: dict[Worker, _Task] = {}

    def give(worker: Worker) -> None:
        if (task := next(waiting, None)) is not None:
            busy[worker] = task
            worker.send(**vars(task))

    with _workers(work, min(count, len(tasks))) as workers:
        for worker in workers:
            give(worker)
        while busy:
            connection.wait([handle for worker in busy for handle in worker.handles], _TICK)
            for worker, task in tuple(busy.items()):
                end = worker.poll()
                if isinstance(end, ProcessExit):
                    raise NeuralSDFError(f"{task.name}: {end.reason}; this is a bug")
                if end is not None:
                    del busy[worker]
                    yield task, end
                    give(worker)


@contextmanager
def _workers(work: _Drawing, count: int) -> Iterator[list[Worker]]:
    """Worker processes without limits, which end with the block."""
    workers: list[Worker] = []
    try:
        for _ in range(count):
            workers.append(Worker(work, Limits(math.inf, math.inf)))
        yield workers
    finally:
        for worker in workers:
            worker.kill()


def _description(classes: list[str], shapes: list[dict[str, Any]], **options: Any) -> dict[str, Any]:
    """The content of dataset.json."""
    return {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "made_by": {"neuralsdf": __version__, "families": VERSION, "manifold3d": version("manifold3d")},
        **options,
        "classes": {
            name: {
                "parts": FAMILIES[name].parts,
                "parameters": {key: one.described() for key, one in FAMILIES[name].parameters.items()},
            }
            for name in classes
        },
        "shapes": shapes,
    }


def _summary(name: str, shapes: list[dict[str, Any]]) -> ClassSummary:
    test = sum(shape["split"] == "test" for shape in shapes)
    return ClassSummary(
        name,
        len(shapes) - test,
        test,
        tuple(shape["fraction"] for shape in shapes),
        tuple(shape["faces"] for shape in shapes),
    )
