"""
dataset.py
----------
A data set of many shapes: the time to write it from its models, to open it, to read every shape, and to
evaluate all shapes at the same points, in one call and one by one.

    python benchmarks/dataset.py [--shapes 10000] [--points 1000]

The models are networks with random weights: the results do not depend on their shapes. Ratios carry over to
other machines, times do not.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from common import machine

from neuralsdf.fields.field import NeuralField
from neuralsdf.geometry.similarity_transform import Similarity
from neuralsdf.program.network import Architecture, Network, initialise
from neuralsdf.storage import save_field
from neuralsdf.storage.dataset import Dataset, write_dataset

#: Number of model files; a larger data set contains each several times.
MODELS = 200


@contextmanager
def timed(what: str) -> Iterator[None]:
    """Print the time that the block takes."""
    began = time.perf_counter()
    yield
    print(f"{what:50} {1000 * (time.perf_counter() - began):10.1f} ms", flush=True)


def models(folder: Path) -> list[Path]:
    """Write model files of random networks."""
    architecture, paths = Architecture(), [folder / f"{seed}.h5" for seed in range(MODELS)]
    for seed, path in enumerate(paths):
        save_field(
            NeuralField(Network(architecture, initialise(architecture, seed)), Similarity.identity()), path
        )
    return paths


def main() -> None:
    """Print one line per measurement."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--shapes", type=int, default=10_000)
    parser.add_argument("--points", type=int, default=1000)
    options = parser.parse_args()
    print(machine())
    with tempfile.TemporaryDirectory() as folder:
        files, path = models(Path(folder)), Path(folder) / "dataset.h5"
        pairs = [(f"{i:06}", files[i % MODELS]) for i in range(options.shapes)]
        with timed(f"write {options.shapes} shapes"):
            write_dataset(path, pairs)
        print(f"{path.stat().st_size / 1e6:.1f} MB")
        with timed("open"):
            dataset = Dataset(path)
        for order, some in (("in order", dataset), ("in random order", dataset.shuffled(0))):
            with timed(f"read every shape {order}, checksums verified"):
                for _ in some:
                    pass
        few = dataset[: min(1000, len(dataset))]
        for count in sorted({1, 10, 100, options.points}):
            points = np.random.default_rng(0).uniform(-0.5, 0.5, (count, 3)).astype(np.float32)
            few.evaluate(points)  # warm up threads and memory
            with timed(f"{len(few)} shapes at {count} points, in one call"):
                together = few.evaluate(points)
            with timed(f"{len(few)} shapes at {count} points, one by one"):
                alone = [few.field(i).value(points) for i in range(len(few))]
            assert np.array_equal(together, alone)


if __name__ == "__main__":
    main()
