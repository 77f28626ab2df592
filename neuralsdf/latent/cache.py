"""
cache.py
--------
The samples of each shape of a data set, as `neuralsdf prepare` writes them and trainings read them. One HDF5
file for each shape:

    distance_points    (n, 3) int16   points in model space, and their signed distances; those inside first
    distances          (n,) float32
    occupancy_points   (m, 3) int16   points in box space, and whether they are inside, as bits
    occupied           (ceil(m / 8),) uint8
    surface_points     (k, 3) int16   points in model space, and the outward normals there
    surface_normals    (k, 3) int16

and the root attribute `prepared` (JSON: name, category, sha256 of the mesh, unit, counts, matrices). Points
are fixed-point numbers: int16 / 32767 times `MODEL_RADIUS` or `BOX_HALF`. Distances and signs are those of
the rounded points. Data sets are contiguous, so that trainings can memory-map them.

Model space has the minimum enclosing ball as its unit ball. Box space has the bounding box about the origin,
with a longest side of 1.
"""

from __future__ import annotations

import json
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from ..array_types import FloatArray, Mask
from ..errors import FileError
from ..files.bounded_input import read_file
from ..geometry.similarity_transform import Similarity
from ..storage.hdf5 import Form, new_file, reading

CACHE_FORMAT, FORMAT_VERSION = "neuralsdf cache", 1

#: Maximum size of an index in bytes: some millions of shapes.
_MAX_INDEX = 1 << 29

#: Largest coordinate of a stored point, in model space and in box space.
MODEL_RADIUS, BOX_HALF = 1.05, 0.55
_STEPS = 32767

Fixed = npt.NDArray[np.int16]

#: Types of the fields of `Samples` in a file.
_DTYPES = ("<i2", "<f4", "<i2", "u1", "<i2", "<i2")


class Samples(NamedTuple):
    """The samples of a shape, as they are stored."""

    distance_points: Fixed
    distances: FloatArray
    occupancy_points: Fixed
    occupied: npt.NDArray[np.uint8]
    surface_points: Fixed
    surface_normals: Fixed


def to_fixed(points: npt.NDArray[Any], largest: float) -> Fixed:
    """Points (n, 3) with coordinates of at most `largest`, rounded to fixed-point numbers."""
    return np.rint(np.clip(points / largest, -1, 1) * _STEPS).astype(np.int16)


def from_fixed(points: Fixed, largest: float) -> FloatArray:
    """The points (n, 3) that fixed-point numbers stand for; float32."""
    return points.astype(np.float32) * np.float32(largest / _STEPS)


class Prepared(NamedTuple):
    """What is known of a shape besides its samples.

    name: within the data set. category: its class by its path. transform: model space to mesh space. box: box
    space to mesh space. inside: number of distance samples inside. sha256: of the mesh file.
    """

    name: str
    category: str
    transform: Similarity
    box: Similarity
    inside: int
    sha256: str
    unit: str | None = None


def write_samples(path: Path, shape: Prepared, samples: Samples) -> None:
    """Write the file of a shape; equal content gives equal bytes."""
    record = {
        "version": FORMAT_VERSION,
        "name": shape.name,
        "category": shape.category,
        "transform": shape.transform.matrix.tolist(),
        "box": shape.box.matrix.tolist(),
        "inside": shape.inside,
        "sha256": shape.sha256,
        "unit": shape.unit,
        "occupancies": len(samples.occupancy_points),
    }
    with new_file(path) as root:
        root.attrs["prepared"] = np.bytes_(json.dumps(record).encode())
        for name, values in samples._asdict().items():
            root.create_dataset(name, data=values, dtype=values.dtype, track_times=False)


class CachedShape:
    """A prepared shape. Its samples are memory-mapped when they are first used.

    Raises `ModelError` for a file that is missing, damaged or of another version.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def __repr__(self) -> str:
        return f"CachedShape({self.path.name!r})"

    @cached_property
    def _content(self) -> tuple[Prepared, Samples]:
        return _read(self.path)

    @property
    def prepared(self) -> Prepared:
        """What is known of the shape."""
        return self._content[0]

    @property
    def samples(self) -> Samples:
        """The samples as they are stored, memory-mapped."""
        return self._content[1]

    def draw(self, count: int, rng: np.random.Generator) -> tuple[FloatArray, FloatArray]:
        """Points (n, 3) in model space and their signed distances (n,), float32: half of them inside.

        Drawn with replacement; all from one side if the shape has no samples on the other.
        """
        inside, total = self.prepared.inside, len(self.samples.distances)
        within = count // 2 if 0 < inside < total else count * (inside > 0)
        chosen = np.empty(count, np.int64)
        chosen[:within] = rng.integers(0, max(inside, 1), within)
        chosen[within:] = rng.integers(min(inside, total - 1), total, count - within)
        points = from_fixed(self.samples.distance_points[chosen], MODEL_RADIUS)
        return points, self.samples.distances[chosen]

    def occupancies(self, count: int | None = None) -> tuple[FloatArray, Mask]:
        """The first `count` occupancy points (n, 3) in box space, and which are inside (n,)."""
        points = self.samples.occupancy_points[:count]
        inside = np.unpackbits(self.samples.occupied, count=len(self.samples.occupancy_points))
        return from_fixed(points, BOX_HALF), inside[: len(points)].astype(np.bool_)

    def surface(self, count: int | None = None) -> tuple[FloatArray, FloatArray]:
        """The first `count` surface points (n, 3) in model space, and their unit normals (n, 3)."""
        points = from_fixed(self.samples.surface_points[:count], MODEL_RADIUS)
        normals = from_fixed(self.samples.surface_normals[:count], 1.0)
        return points, normals / np.linalg.norm(normals, axis=1, keepdims=True)


def _read(path: Path) -> tuple[Prepared, Samples]:
    with reading(path, mapped=True, kind="a prepared shape") as file:
        record = json.loads(file.text("prepared"))
        if record["version"] > FORMAT_VERSION:
            raise file.error(
                f"is of version {record['version']}; up to {FORMAT_VERSION} can be read",
                "install a newer neuralsdf",
            )
        rows = {name: (*file.form(name).shape, 0)[0] for name in ("distances", "surface_points")}
        distances, surface, occupancies = (
            rows["distances"],
            rows["surface_points"],
            int(record["occupancies"]),
        )
        shapes = [(distances, 3), (distances,), (occupancies, 3), ((occupancies + 7) // 8,)]
        shapes += [(surface, 3), (surface, 3)]
        forms = {
            name: Form(np.dtype(kind), size)
            for name, kind, size in zip(Samples._fields, _DTYPES, shapes, strict=True)
        }
        for name, form in forms.items():
            if file.form(name) != form:
                raise file.error(f"its {name} are not {form.dtype} {form.shape}", "prepare it again")
        shape = Prepared(
            str(record["name"]),
            str(record["category"]),
            Similarity(np.array(record["transform"], np.float64)),
            Similarity(np.array(record["box"], np.float64)),
            int(record["inside"]),
            str(record["sha256"]),
            record["unit"],
        )
        if not 0 <= shape.inside <= distances or not distances:
            raise file.error("its numbers contradict each other", "prepare it again")
        return shape, Samples(*(file.mapped(name) for name in forms))


class Entry(NamedTuple):
    """A shape in the index of a cache. split: "train", "test" or "validation". source: its mesh file."""

    name: str
    category: str
    split: str
    source: Path


class Cache:
    """A folder of prepared shapes, with an index of their names, classes and splits.

    Raises `FileError` if the folder holds no cache, or its index is damaged.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        self.entries = _read_index(self.folder)

    def __len__(self) -> int:
        return len(self.entries)

    def __repr__(self) -> str:
        return f"Cache({str(self.folder)!r}, {len(self)} shapes)"

    def split(self, split: str, category: str | None = None) -> list[Entry]:
        """The entries of a split, and of a class if one is given, in order of name."""
        return [
            entry for entry in self.entries if entry.split == split and category in (None, entry.category)
        ]

    def shape(self, entry: Entry) -> CachedShape:
        """The shape of an entry."""
        return CachedShape(self.folder / "shapes" / f"{entry.name}.h5")


def index_path(folder: Path) -> Path:
    """The index file of a cache."""
    return folder / "cache.json"


def _read_index(folder: Path) -> tuple[Entry, ...]:
    path = index_path(folder)
    if folder.is_dir() and not path.exists():
        raise FileError(folder, "holds no prepared data set", "make one with neuralsdf prepare")
    content = read_file(path, FileError, "the index of a prepared data set", _MAX_INDEX).data
    try:
        index = json.loads(content)
        if index["format"] != CACHE_FORMAT:
            raise ValueError(index["format"])
        version = int(index["version"])
        shapes = [tuple(map(str, shape)) for shape in index["shapes"]]
        entries = [Entry(name, kind, split, folder / source) for name, kind, split, source in shapes]
    except (ValueError, TypeError, KeyError, OverflowError, RecursionError) as error:
        raise FileError(path, "is damaged, or no index of a prepared data set", "prepare it again") from error
    if version > FORMAT_VERSION:
        raise FileError(
            path, f"is of version {version}; up to {FORMAT_VERSION} can be read", "install a newer neuralsdf"
        )
    for entry in entries:
        if not is_inner_path(entry.name):
            raise FileError(path, f"names a shape outside the folder: {entry.name!r}", "prepare it again")
    return tuple(entries)


def is_inner_path(name: str) -> bool:
    """Whether a path stays in the folder that it is relative to."""
    path = PurePosixPath(name)
    return bool(name) and "\0" not in name and not path.is_absolute() and ".." not in path.parts
