"""
latent_deepsdf.py
-----------------
Claims of Davies et al. (2020) on latent models, tested on DeepSDF beside one weight-encoded network for each
shape (`convert` with its defaults): the latent error grows as unseen shapes are turned out of the orientation
of their class, and that of the networks does not; a part that only one training shape has is lost; unlike
shapes in one model are represented far worse than shapes of one class; the latent model takes less space. And
a network of 8 x 512 for each shape is more precise than one of 8 x 32, larger and slower.

    python benchmarks/latent_deepsdf.py --work FOLDER [--only PART...] [--quick]

Parts: sizes (figure 1), turned (figure 2), unique (figure 3), mixed (section 3.2), speed. Everything is kept
in FOLDER by configuration and seed: a run that was stopped continues, and a second one only prints. The
estimate of what is left is printed first.

Reduced: decoders of 8 x 128 with codes of 64, 16 shapes x 1024 samples in a step, 2000 steps, three seeds;
inference of 300 steps of 2000 samples. The networks have one seed. Trainings and fits are processes with one
thread, two at a time. The sets have about as many shapes, so that they differ in what the shapes are:

    chairs    47 parametric chairs, and one with a ball on a post; 6 others for validation
    meshes    real scans, CAD parts and game assets; 6 of them, sampled anew, for validation
    psb       8 shapes of each of 6 classes of the Princeton benchmark; one of each class for validation

Columns: `equal time` has the best decoder within the time that the networks of all training shapes take, and
`at the plateau` the best one of the whole training. A star marks a training without a plateau: its best IoU
in the last 5 of 20 validations is at least 0.01 better than before. Errors are mean distances between the
surfaces in both directions, in units of the bounding radius; medians over the shapes, then the mean of the
seeds ± half of their range. A line ends in `agrees` or `disagrees` if the mean effect is larger than the
range of the seeds, else in `within the spread`. "Far worse" and "lost" are ratios of errors above 2.

The last table compares times with those of a plain torch loop, in turns.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from common import machine
from latent.figures import PARTS, Scale, trainings_table
from latent.speed import speed_table, speed_tasks
from latent.tasks import WORKERS, Task, perform_all, unfinished

QUICK = Scale(
    seeds=2, steps=150, shapes=8, validation=3, turned=2, angles=(0, 90), iterations=100,
    wide=("fandisk.obj",), wide_samples=20_000, wide_epochs=5,
)  # fmt: skip
SPEED = "speed"


def perform(work: Path, scale: Scale, chosen: list[str]) -> None:
    """Make the data sets and perform all tasks of the chosen parts."""
    for name in sets(chosen):
        scale.set(name).make(work)
    stages = [part_stages(work, scale, name) for name in chosen]
    in_order = [[task for stage in same for task in stage] for same in zip(*stages, strict=True)]
    left = [unfinished(work, stage) for stage in in_order]
    seconds = sum(task.estimate for stage in left[:-1] for task in stage) / WORKERS
    seconds += sum(task.estimate for task in left[-1])
    print(f"{sum(map(len, left))} tasks are left: about {seconds / 60:.0f} minutes on {WORKERS} cores",
          file=sys.stderr)  # fmt: skip
    for stage in left[:-1]:
        perform_all(work, stage)
    perform_all(work, left[-1], workers=1)


def sets(chosen: list[str]) -> list[str]:
    """The data sets that parts need."""
    needed = [name for part in chosen for name in (PARTS[part].sets if part != SPEED else ("chairs",))]
    return list(dict.fromkeys(needed))


def part_stages(work: Path, scale: Scale, name: str) -> list[list[Task]]:
    """The stages of a part: fits, trainings, measurements, and what needs the machine to itself."""
    if name == SPEED:
        return [[], [], [], speed_tasks(scale.set("chairs"), scale.iterations)]
    return PARTS[name].stages(work, scale)


def tables(work: Path, scale: Scale, chosen: list[str]) -> Iterator[str]:
    """All lines of the chosen parts."""
    if trained := sets([name for name in chosen if name != SPEED]):
        yield from trainings_table(work, scale, trained)
    for name in chosen:
        yield ""
        if name == SPEED:
            yield from speed_table(work, scale.set("chairs"), scale.iterations)
        else:
            yield from PARTS[name].table(work, scale)


def main() -> None:
    """Compute what is missing, and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[3])
    parser.add_argument("--work", type=Path, required=True, help="folder for everything that is computed")
    parser.add_argument("--only", nargs="+", choices=[*PARTS, SPEED], default=[*PARTS, SPEED])
    parser.add_argument("--quick", action="store_true", help="ten minutes, at a size that proves nothing")
    parser.add_argument("--steps", type=int, help="steps of each training")
    arguments = parser.parse_args()
    scale, work = QUICK if arguments.quick else Scale(), arguments.work.resolve()
    if arguments.steps:
        scale = replace(scale, steps=arguments.steps)
    perform(work, scale, arguments.only)
    print(f"DeepSDF beside one network for each shape; {scale.seeds} seeds; {machine()}")
    if arguments.quick:
        print("Quick: this shows that the benchmark works, and proves nothing.")
    print()
    for line in tables(work, scale, arguments.only):
        print(line.rstrip())


if __name__ == "__main__":
    main()
