"""
speed.py
--------
Ratios of times. What is compared takes turns, in one process for each comparison.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from latent.models import INFERENCE_SAMPLES, Fit, Training
from latent.plain_torch import inference_seconds, step_seconds
from latent.sets import ShapeSet, psb, turned
from latent.tasks import Result, Task
from neuralsdf.latent.cache import MODEL_RADIUS, Cache, from_fixed
from neuralsdf.latent.config import Settings
from neuralsdf.latent.inference import InferenceSettings, infer_code
from neuralsdf.latent.models import make_model
from neuralsdf.latent.observation import observe
from neuralsdf.latent.prepare import PrepareJob, prepare
from neuralsdf.latent.random_keys import Purpose, generator
from neuralsdf.latent.run_folder import RunFolder
from neuralsdf.latent.training import train
from neuralsdf.render import render
from neuralsdf.storage import open_model

#: Turns that each competitor has, and steps of a training in one.
TURNS, STEPS = 5, 20

#: Side of the pictures in pixels.
FRAME = 128


def unvalidated(shapes: ShapeSet, steps: int) -> Settings:
    """The settings of the benchmark's trainings, without validations before the end."""
    settings = Training(shapes, steps, 0).settings
    return replace(settings, validation=replace(settings.validation, shapes=0, every=steps))


def late_step(run: Path) -> float:
    """Seconds of a step of a training, without the first `STEPS`, from its log."""
    seconds = {line["step"]: line["seconds"] for line in RunFolder(run).read_log() if "seconds" in line}
    return float(seconds[max(seconds)] - seconds[STEPS]) / (max(seconds) - STEPS)


def take_turns(competitors: dict[str, Callable[[], float]], turns: int = TURNS) -> dict[str, float]:
    """The median of what each competitor measures."""
    found: dict[str, list[float]] = {name: [] for name in competitors}
    for _ in range(turns):
        for name, measure in competitors.items():
            found[name].append(measure())
    return {name: float(np.median(values)) for name, values in found.items()}


@dataclass(frozen=True)
class StepSpeed(Task):
    """A step of training, drawing its data, and a step of a plain torch loop; one thread."""

    shapes: ShapeSet

    @property
    def estimate(self) -> float:
        """Seconds."""
        return 90.0

    def perform(self, work: Path) -> Result:
        """Seconds of each."""
        torch.set_num_threads(1)
        cache = self.shapes.cache(work)
        shapes = [cache.shape(entry) for entry in self.shapes.training(work)]
        settings = unvalidated(self.shapes, 2 * STEPS)
        samples = [
            (from_fixed(one.samples.distance_points[:], MODEL_RADIUS), np.array(one.samples.distances))
            for one in shapes
        ]

        def ours() -> float:
            with tempfile.TemporaryDirectory(dir=work) as run:
                train(cache, run, settings)
                return late_step(Path(run))

        def data() -> float:
            began = time.perf_counter()
            for step in range(STEPS):
                for slot in range(settings.training.shapes):
                    rng = generator(0, Purpose.SAMPLES, step, slot)
                    shapes[slot % len(shapes)].draw(settings.training.samples, rng)
            return (time.perf_counter() - began) / STEPS

        return take_turns(
            {"ours": ours, "data": data, "plain": lambda: step_seconds(settings, samples, STEPS)}
        )


@dataclass(frozen=True)
class InferenceSpeed(Task):
    """Finding a code, and a plain torch loop with fixed weights; one thread."""

    shapes: ShapeSet
    iterations: int

    @property
    def estimate(self) -> float:
        """Seconds."""
        return 5 + TURNS * 0.03 * self.iterations

    def perform(self, work: Path) -> Result:
        """Seconds of each."""
        torch.set_num_threads(1)
        settings = Training(self.shapes, 1, 0).settings
        decoder = make_model(
            settings, [self.shapes.cache(work).shape(self.shapes.training(work)[0])]
        ).decoder()
        points, distances, *_ = observe(turned(work, 0, "up", 0))
        wanted = InferenceSettings(iterations=self.iterations, samples=INFERENCE_SAMPLES)

        def ours() -> float:
            began = time.perf_counter()
            infer_code(decoder, points, distances, wanted)
            return time.perf_counter() - began

        def plain() -> float:
            return inference_seconds(settings, points, distances, self.iterations, INFERENCE_SAMPLES)

        return take_turns({"ours": ours, "plain": plain})


@dataclass(frozen=True)
class ProcessSpeed(Task):
    """A step of a training by one process and by two, with one thread each."""

    shapes: ShapeSet

    @property
    def estimate(self) -> float:
        """Seconds."""
        return 120.0

    def perform(self, work: Path) -> Result:
        """Seconds of each."""
        settings = unvalidated(self.shapes, 3 * STEPS)

        def by(*launcher: str) -> float:
            with tempfile.TemporaryDirectory(dir=work) as folder:
                run, config = Path(folder, "run"), Path(folder, "config.toml")
                config.write_text(settings.to_toml())
                cache = str(self.shapes.cache(work).folder)
                options = ["--config", str(config), "-o", str(run), "--threads", "1"]
                command = [sys.executable, *launcher, "-m", "neuralsdf", "train-latent", cache, *options]
                subprocess.run(command, check=True, capture_output=True)
                return late_step(run)

        two = ("-m", "torch.distributed.run", "--nproc-per-node", "2")
        return take_turns({"one": by, "two": lambda: by(*two)}, 3)


@dataclass(frozen=True)
class PrepareSpeed(Task):
    """The Princeton benchmark prepared by two processes, with the default counts."""

    @property
    def estimate(self) -> float:
        """Seconds."""
        return 120.0

    def perform(self, work: Path) -> Result:
        """Seconds."""
        with tempfile.TemporaryDirectory(dir=work) as out:
            began = time.perf_counter()
            prepare(str(psb()), out, PrepareJob(), workers=2)
            return {"seconds": time.perf_counter() - began, "shapes": len(Cache(out))}


@dataclass(frozen=True)
class FirstFrame(Task):
    """A picture of 128 x 128 from the file of each of two networks; one thread."""

    wide_fit: Fit
    narrow_fit: Fit

    @property
    def estimate(self) -> float:
        """Seconds."""
        return 60.0

    def perform(self, work: Path) -> Result:
        """Seconds of each."""

        def frame(fit: Fit) -> float:
            began = time.perf_counter()
            render(open_model(fit.model(work)), width=FRAME, height=FRAME, antialias=1)
            return time.perf_counter() - began

        return {"wide": frame(self.wide_fit), "narrow": frame(self.narrow_fit)}  # hundreds of times


def speed_tasks(shapes: ShapeSet, iterations: int) -> list[Task]:
    """All comparisons, which have the machine to themselves."""
    return [StepSpeed(shapes), InferenceSpeed(shapes, iterations), ProcessSpeed(shapes), PrepareSpeed()]


def speed_table(work: Path, shapes: ShapeSet, iterations: int) -> Iterator[str]:
    """Ratios, with their goals."""
    step, inference, processes, prepared = (one.result(work) for one in speed_tasks(shapes, iterations))
    yield "Speed (ratios; one thread for each process)"
    yield _line("a step, plain torch loop / ours", step["plain"] / step["ours"], 1.5, f"{step['ours']:.3f} s")
    share, seconds = step["data"] / step["ours"], prepared["seconds"]
    yield f"{'drawing data / step':34} {share:8.3f}   goal: at most 0.1   {_met(share <= 0.1)}"
    inferred = f"{inference['ours']:.2f} s for {iterations} x {INFERENCE_SAMPLES}"
    yield _line("a code, plain torch loop / ours", inference["plain"] / inference["ours"], 2.0, inferred)
    ratio = processes["one"] / processes["two"]
    yield _line("a step, one process / two", ratio, 1.6, f"{processes['two']:.3f} s")
    yield f"{'PSB by two processes, seconds':34} {seconds:8.0f}   goal: at most 60    {_met(seconds <= 60)}"


def _line(name: str, ratio: float, goal: float, note: str) -> str:
    return f"{name:34} {ratio:8.2f}   goal: {goal:<13} {_met(ratio >= goal)} ({note})"


def _met(is_met: bool) -> str:
    return "met" if is_met else "missed"
