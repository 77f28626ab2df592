"""
figures.py
----------
The claims of Davies et al. (2020) about latent models, as tables: the tasks that each needs, in stages, and
its lines. The errors of several shapes are summarised by their median.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
from common import meshes

from latent.errors import LOST
from latent.models import MOMENTS, Fit, FromCode, FromMesh, Training, fits
from latent.sets import AXES, UNIQUE, ShapeSet, turned
from latent.speed import FirstFrame
from latent.tasks import Task
from latent.verdicts import Line, at_plateau, log_ratio, spread, verdict
from neuralsdf.latent_fields.decoder import DecoderShape
from neuralsdf.program.network import Architecture

#: Growth that counts as none, and ratio of errors that is "far worse".
STABLE, FAR_WORSE = 1.25, 2.0

HEADER = f"{'':34} {'equal time':>17} {'at the plateau':>17} {'weight':>10}"


@dataclass(frozen=True)
class Scale:
    """How much is computed.

    shapes: training shapes of each set, at most. turned: unseen shapes that are turned. wide: shapes for 8 x
    512, whose fits see `wide_samples` samples `wide_epochs` times.
    """

    seeds: int = 3
    steps: int = 2000
    shapes: int = 48
    validation: int = 6
    turned: int = 5
    angles: tuple[int, ...] = (0, 15, 30, 60, 90, 180)
    iterations: int = 300
    wide: tuple[str, ...] = ("stanford-bunny.obj", "armadillo.obj", "fandisk.obj")
    wide_samples: int = 100_000
    wide_epochs: int = 20

    def set(self, name: str) -> ShapeSet:
        """A data set of this size."""
        return ShapeSet(name, self.shapes, self.validation)

    def trainings(self, name: str) -> list[Training]:
        """The trainings on a data set, one for each seed."""
        return [Training(self.set(name), self.steps, seed) for seed in range(self.seeds)]


class Part(Protocol):
    """A part of the benchmark. sets: the data sets that it needs."""

    sets: tuple[str, ...]

    def stages(self, work: Path, scale: Scale) -> list[list[Task]]:
        """Tasks by stage: fits, trainings, measurements, and what needs the machine to itself."""
        ...

    def table(self, work: Path, scale: Scale) -> Iterator[str]:
        """Lines of text, from the results of the tasks."""
        ...


def median(results: Sequence[dict[str, float]], name: str = "error") -> float:
    """Median of a number of some results."""
    return float(np.median([result[name] for result in results]))


class Turned:
    """Figure 2: unseen shapes of one class, turned out of the orientation that the class has."""

    sets = ("chairs",)

    def stages(self, work: Path, scale: Scale) -> list[list[Task]]:
        """Networks of the class and of the turned shapes, trainings, and reconstructions."""
        files = [
            file for axis in AXES for angle in scale.angles for file in self._files(work, scale, axis, angle)
        ]
        trainings = scale.trainings("chairs")
        return [
            [*fits(work, scale.set("chairs")), *(Fit(file) for file in files)],
            [*trainings],
            [
                FromMesh(training, moment, file, scale.iterations)
                for training in trainings
                for moment in MOMENTS
                for file in files
            ],
            [],
        ]

    def _files(self, work: Path, scale: Scale, axis: str, angle: int) -> list[str]:
        axis = axis if angle else "up"
        return [str(turned(work, number, axis, angle)) for number in range(scale.turned)]

    def _errors(
        self, work: Path, scale: Scale, axis: str, angle: int
    ) -> tuple[list[float], list[float], float]:
        """Median errors: at equal time and at the plateau for each seed, and of the networks."""
        files = self._files(work, scale, axis, angle)
        equal, plateau = (
            [
                median([FromMesh(one, moment, file, scale.iterations).result(work) for file in files])
                for one in scale.trainings("chairs")
            ]
            for moment in MOMENTS
        )
        return equal, plateau, median([Fit(file).result(work) for file in files])

    def table(self, work: Path, scale: Scale) -> Iterator[str]:
        """A line for each axis and angle, and one for the networks."""
        yield f"Figure 2: error of {scale.turned} unseen chairs, turned"
        yield HEADER
        mark = plateau_mark(work, scale, "chairs")
        growth = []
        for axis in AXES:
            base = self._errors(work, scale, axis, 0)
            for angle in scale.angles:
                found = self._errors(work, scale, axis, angle)
                if angle:  # the error grows, and more than that of the networks
                    of_networks = np.log(found[2] / base[2])
                    growth.append(float(of_networks))
                    effects = tuple(
                        [float(x) for x in log_ratio(found[i], base[i]) - of_networks] for i in range(2)
                    )
                else:  # larger than that of the networks
                    effects = (log_ratio(base[0], base[2]), log_ratio(base[1], base[2]))
                yield Line(f"about {axis}, {angle} degrees", *found, effects).text(mark)
        results = [
            FromMesh(one, moment, file, scale.iterations).result(work)
            for one in scale.trainings("chairs")
            for moment in MOMENTS
            for axis in AXES
            for angle in scale.angles
            for file in self._files(work, scale, axis, angle)
        ]
        lost = sum(one["error"] == LOST for one in results)
        worst = max(growth)
        yield (
            f"{'networks: largest error / at 0':34} {'':17} {'':17} {np.exp(worst):10.2f}  "
            f"{verdict([np.log(STABLE) - worst])}"
        )
        yield f"latent reconstructions without a surface (error {LOST:g}): {lost} of {len(results)}"


class UniquePart:
    """Figure 3: a training shape with a part that no other shape has."""

    sets = ("chairs",)

    def stages(self, work: Path, scale: Scale) -> list[list[Task]]:
        """The networks and trainings of the class, and the shape by its code."""
        name = self._name(work, scale)
        trainings = scale.trainings("chairs")
        codes = [FromCode(training, moment, name) for training in trainings for moment in MOMENTS]
        return [[*fits(work, scale.set("chairs"))], [*trainings], [*codes], []]

    def _name(self, work: Path, scale: Scale) -> str:
        (name,) = [one.name for one in scale.set("chairs").training(work) if Path(one.name).stem == UNIQUE]
        return name

    def table(self, work: Path, scale: Scale) -> Iterator[str]:
        """The errors on the part and elsewhere; and their ratio, compared with that of the network."""
        yield f"Figure 3: one of {scale.shapes} training chairs has a ball on a post"
        yield HEADER
        name, mark = self._name(work, scale), plateau_mark(work, scale, "chairs")
        (fit,) = [one for one in fits(work, scale.set("chairs")) if Path(one.mesh).stem == UNIQUE]
        network = fit.result(work)
        found = {
            what: [
                [FromCode(one, moment, name).result(work)[what] for one in scale.trainings("chairs")]
                for moment in MOMENTS
            ]
            for what in ("part", "elsewhere")
        }
        for what, values in found.items():
            effects = (log_ratio(values[0], network[what]), log_ratio(values[1], network[what]))
            yield Line(f"error, {what}", values[0], values[1], network[what], effects).text(mark)
        ratios = [list(np.divide(found["part"][i], found["elsewhere"][i])) for i in range(2)]
        effects = tuple(log_ratio(ratio, FAR_WORSE) for ratio in ratios)
        of_network = network["part"] / network["elsewhere"]
        yield Line("part / elsewhere, above 2: lost", *ratios, of_network, effects, ".2f").text(mark)


class Mixed:
    """Section 3.2: unlike shapes in one model, against one class; and the bytes."""

    sets = ("chairs", "meshes", "psb")

    def stages(self, work: Path, scale: Scale) -> list[list[Task]]:
        """The networks of all sets, the trainings, and all training shapes by their codes."""
        trainings = [one for name in self.sets for one in scale.trainings(name)]
        return [
            [fit for name in self.sets for fit in fits(work, scale.set(name))],
            [*trainings],
            [
                FromCode(training, moment, entry.name)
                for training in trainings
                for moment in MOMENTS
                for entry in training.shapes.training(work)
            ],
            [],
        ]

    def _codes(self, work: Path, training: Training, moment: str, what: str) -> float:
        entries = training.shapes.training(work)
        return median([FromCode(training, moment, entry.name).result(work) for entry in entries], what)

    def table(self, work: Path, scale: Scale) -> Iterator[str]:
        """For each set: error, IoU, error relative to one class, and bytes."""
        yield "Section 3.2: the training shapes of a set, by their codes"
        yield HEADER
        one_class: list[list[float]] = []
        one_class_networks = np.nan
        for name in self.sets:
            trainings, networks = (
                scale.trainings(name),
                [one.result(work) for one in fits(work, scale.set(name))],
            )
            mark, label = plateau_mark(work, scale, name), f"{name} ({len(networks)})"
            errors, ious = (
                [[self._codes(work, one, moment, what) for one in trainings] for moment in MOMENTS]
                for what in ("error", "iou")
            )
            error, iou = median(networks), median(networks, "iou")
            effects = (log_ratio(errors[0], error), log_ratio(errors[1], error))
            yield Line(f"{label}: error", *errors, error, effects).text(mark)
            effects = tuple([iou - x for x in values] for values in ious)
            yield Line(f"{label}: IoU", *ious, iou, effects).text(mark)
            if one_class:
                ratios = [list(np.divide(errors[i], one_class[i])) for i in range(2)]
                effects = tuple(log_ratio(ratio, FAR_WORSE) for ratio in ratios)
                of_networks = error / one_class_networks
                yield Line(f"{label}: error / chairs'", *ratios, of_networks, effects, ".2f").text(mark)
            else:
                one_class, one_class_networks = errors, error
            yield self._bytes(work, label, trainings, [float(one["bytes"]) for one in networks])

    def _bytes(self, work: Path, label: str, trainings: list[Training], networks: list[float]) -> str:
        """Bytes of a decoder and its codes, of all networks, and of the meshes."""
        shapes = trainings[0].shapes.training(work)
        files = sum(entry.source.stat().st_size for entry in shapes) / 1000
        latent = [one.result(work)["bytes"] / 1000 for one in trainings]
        effects = log_ratio([sum(networks) / 1000] * len(latent), latent)
        label = f"{label}: kB (meshes {files:.0f})"
        return Line(label, latent, latent, sum(networks) / 1000, (effects, effects), ".0f").text()


class Sizes:
    """Figure 1: a network of DeepSDF's size for each shape, against one of 8 x 32."""

    sets = ()

    def stages(self, work: Path, scale: Scale) -> list[list[Task]]:
        """Both networks of each shape, and a picture of each."""
        pairs = self._fits(scale)
        return [[fit for pair in pairs for fit in pair], [], [], [FirstFrame(*pair) for pair in pairs]]

    def _fits(self, scale: Scale) -> list[tuple[Fit, Fit]]:
        return [
            tuple(  # type: ignore[misc]
                Fit(str(meshes() / name), width, scale.wide_samples, scale.wide_epochs, "adam")
                for width in (512, 32)
            )
            for name in scale.wide
        ]

    def table(self, work: Path, scale: Scale) -> Iterator[str]:
        """Error, weights, bytes and first frame; the ratios of the shapes take the place of the seeds."""
        yield (
            f"Figure 1: a network for each of {len(scale.wide)} shapes; both sizes: Adam, "
            f"{scale.wide_samples * scale.wide_epochs:,} samples seen; ± half of the range of the shapes"
        )
        yield f"{'':34} {'8 x 512':>17} {'8 x 32':>17} {'ratio':>10}"
        pairs = self._fits(scale)
        errors = [[fit.result(work)["error"] for fit in column] for column in zip(*pairs, strict=True)]
        sizes = [[fit.result(work)["bytes"] / 1000 for fit in column] for column in zip(*pairs, strict=True)]
        frames = [[FirstFrame(*pair).result(work)[size] for pair in pairs] for size in ("wide", "narrow")]
        yield self._line("error: the larger is better", errors, ".4f", log_ratio(errors[1], errors[0]))
        yield self._line("kB: the larger takes more", sizes, ".0f", log_ratio(sizes[0], sizes[1]))
        yield self._line("128 x 128 frame, s: slower", frames, ".2f", log_ratio(frames[0], frames[1]))
        counts = [Architecture.uniform(8, width).weight_count for width in (512, 32)]
        of_deepsdf = DecoderShape.paper().parameter_count
        yield f"weights: {counts[0]:,} and {counts[1]:,}; DeepSDF's decoder {of_deepsdf:,}"

    def _line(self, label: str, columns: list[list[float]], form: str, effects: list[float]) -> str:
        ratio = float(np.median(np.divide(columns[0], columns[1])))
        values = " ".join(f"{spread(column, form):>17}" for column in columns)
        return f"{label:34} {values} {ratio:10.2f}  {verdict(effects)}"


PARTS: dict[str, Part] = {"sizes": Sizes(), "turned": Turned(), "unique": UniquePart(), "mixed": Mixed()}


def plateau_mark(work: Path, scale: Scale, name: str) -> str:
    """A star if a training on a set has not reached a plateau."""
    ended = [at_plateau([iou for _, iou in one.result(work)["validations"]]) for one in scale.trainings(name)]
    return "" if all(ended) else "*"


def trainings_table(work: Path, scale: Scale, names: Sequence[str]) -> Iterator[str]:
    """How the trainings went."""
    yield "Trainings (seconds without validations; budget: the networks of all shapes; *: no plateau)"
    yield (
        f"{'':20} {'shapes':>6} {'steps':>6} {'seconds':>8} {'budget':>7} {'equal time: step':>17} "
        f"{'best step':>10} {'validation IoU':>15}"
    )
    for name in names:
        count = len(scale.set(name).training(work))
        for one in scale.trainings(name):
            found = one.result(work)
            ious = [iou for _, iou in found["validations"]]
            mark = "" if at_plateau(ious) else "*"
            early = " (end)" if found["ended_in_budget"] else ""
            yield (
                f"{name + f', seed {one.seed}':20} {count:6} {found['steps']:6} {found['seconds']:8.0f} "
                f"{found['budget']:7.0f} {str(found['equal_step']) + early:>17} {found['best_step']:10} "
                f"{f'{max(ious):.3f}{mark}':>15}"
            )
