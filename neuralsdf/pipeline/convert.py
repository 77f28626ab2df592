"""
convert.py
----------
Converts a mesh to a neural field and measures its error.

    load -> normalise -> signed distance -> importance samples -> fit -> round -> measure

With a target error, several networks are fitted to the same samples (training/size_search.py).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from ..arguments import whole_number
from ..array_types import FloatArray
from ..backends import Backend, chosen_backend, get_backend
from ..compression.quantize import PRECISIONS, round_trip, stored_form
from ..errors import FitError, UsageError
from ..evaluation.failed_fit import failed_fit
from ..evaluation.metrics import check_fit, surface_distance, true_surface
from ..evaluation.metrics import measure as measure_field
from ..fields.field import Field, NeuralField
from ..mesh.inside_or_outside import Sign
from ..mesh.mesh import Mesh
from ..program.network import MAX_LAYERS, MAX_WIDTH, Architecture, Network
from ..program.sample_set import Samples
from ..training.fit import Fit, fit
from ..training.fit_settings import Training
from ..training.sampling import Density, Method, Sampler
from ..training.size_search import Target, smallest_network
from .advice import advice
from .prepare_mesh import Prepared, given_mesh, prepare, sample
from .stage_times import Progress, Stages

if TYPE_CHECKING:
    import trimesh

#: Default number of samples; more make no difference for a network of this size.
SAMPLES = 500_000
MAX_SAMPLES = 10**9


@dataclass(frozen=True, eq=False)
class Conversion:
    """Result of `fit_mesh`: the field, the mesh, seconds per stage, and warnings."""

    field: NeuralField
    mesh: Mesh
    seconds: dict[str, float]
    warnings: tuple[str, ...] = ()


def convert(
    mesh: str | PathLike[str] | Mesh | Field | trimesh.Trimesh | npt.ArrayLike | tuple[Any, Any],
    faces: npt.ArrayLike | None = None,
    *,
    layers: int = 8,
    width: int | None = None,
    activation: str = "relu",
    samples: int = SAMPLES,
    sampling: Method = Density.method,
    beta: float = Density.beta,
    uniform: float = Density.uniform,
    weight: str | None = None,
    sign: Sign = "winding",
    thickness: float | None = None,
    units: str | None = None,
    optimizer: str = Training.optimizer,
    learning_rate: float | None = None,
    batch: int = Training.batch,
    epochs: int = Training.epochs,
    time: float | None = None,
    patience: int = 0,
    precision: str | None = None,
    target_error: float | str | None = None,
    measure: bool = True,
    seed: int = 0,
    device: str = "auto",
    allow_outside: bool = False,
) -> NeuralField:
    """Convert a mesh to a neural field: `neuralsdf.convert("bunny.obj").save("bunny.h5")`.

    mesh: a file (OBJ, STL, PLY, OFF, GLB, glTF, 3MF, or a tree, .csg), a `trimesh.Trimesh`, `(vertices,
    faces)`, or vertices (n, 3) with `faces` (m, 3); or any other field, such as a tree of shapes, whose
    surface is converted. The other parameters are the options of `neuralsdf convert`:

    layers, width, activation: of the network; width None for 32. samples: number of signed samples. sampling:
    their distribution, "importance", "uniform", "surface" or "vertex". beta: importance is exp(-beta |d|), d
    in radii. uniform: fraction of samples spread evenly over the ball. weight: where to draw more samples,
    "curvature", "thickness", or a file with a value for each vertex. sign: the inside/outside test,
    "winding", "pseudonormal" or "parity". thickness: convert a wall of this thickness about the surface (mesh
    units). units: the unit of the mesh's lengths, such as "mm", if its file does not state one. optimizer:
    "soap" or "adam". learning_rate: peak rate; None for the optimizer's default. batch: samples per step.
    epochs: passes over the samples. time: seconds to fit instead (not reproducible). patience: stop early if
    the loss has not fallen by 1 % in that many epochs; 0 for never. precision: of the stored weights, "f32",
    "f16" or "int8"; None for "f32", or for the cheapest that meets the target error. target_error: find the
    smallest network with a mean surface error of at most this (of the radius; "0.1u" is in mesh units).
    measure: measure the errors (`field.metrics`), or only check that there is a surface. seed: of all random
    choices; the same seed gives the same field. device: "auto", "cpu", "cuda", or a backend. allow_outside:
    whether a tree file may refer to files outside its own folder.

    Warnings are in `field.warnings`. Raises `MeshError` for a mesh that cannot be read or converted,
    `NoInteriorError` for one without an inside, `FitError` for a failed fit, `UsageError` for arguments out
    of range.
    """
    backend = chosen_backend(device)
    options = fit_options(
        layers=layers, width=width, activation=activation, sampling=sampling, beta=beta, uniform=uniform,
        optimizer=optimizer, learning_rate=learning_rate, batch=batch, epochs=epochs, time=time,
        patience=patience, target_error=target_error,
    )  # fmt: skip
    made = fit_mesh(
        given_mesh(mesh, faces), **options, samples=samples, sign=sign, thickness=thickness, weight=weight,
        precision=precision, seed=seed, unit=units, measure=measure, backend=backend,
        allow_outside=allow_outside,
    )  # fmt: skip
    return replace(made.field, warnings=made.warnings)


def fit_options(
    *,
    layers: int = 8,
    width: int | None = None,
    activation: str = "relu",
    sampling: Method = Density.method,
    beta: float = Density.beta,
    uniform: float = Density.uniform,
    optimizer: str = Training.optimizer,
    learning_rate: float | None = None,
    batch: int = Training.batch,
    epochs: int = Training.epochs,
    time: float | None = None,
    patience: int = 0,
    target_error: float | str | None = None,
) -> dict[str, Any]:
    """The architecture, density, training and target of `fit_mesh`, from the options of `convert`.

    Raises `UsageError` for values out of range.
    """
    if target_error is not None and width is not None:
        raise UsageError("`width=` with `target_error=`: the error decides the width; leave one out")
    return {
        "architecture": Architecture.uniform(
            whole_number("layers", layers, 1, MAX_LAYERS),
            32 if width is None else whole_number("width", width, 1, MAX_WIDTH),
            activation,
        ),
        "density": Density(sampling, beta, uniform),
        "training": Training(optimizer, epochs, batch, learning_rate, time, patience),
        "target": None if target_error is None else Target.parse(str(target_error)),
    }


def fit_mesh(
    mesh: str | Path | Mesh,
    *,
    architecture: Architecture | None = None,
    density: Density | None = None,
    samples: int = SAMPLES,
    training: Training | None = None,
    sign: Sign = "winding",
    thickness: float | None = None,
    weight: str | None = None,
    precision: str | None = None,
    target: Target | None = None,
    seed: int = 0,
    unit: str | None = None,
    measure: bool = True,
    backend: Backend | None = None,
    allow_outside: bool = False,
    progress: Progress | None = None,
) -> Conversion:
    """Convert a mesh file (or a `Mesh`, or the file of a tree) to a neural field and measure its error.

    target: the surface error that the smallest network should meet; `architecture` then sets its depth and
    activations, and the field's settings contain the result: `target_error` and `reached_error` (model
    space), `target_met`, and the fitted `widths`. precision: None for float32, or for the cheapest that meets
    the target.

    thickness: in mesh units; the solid |d| < thickness / 2 around the surface, for a mesh without an
    inside. weight: "curvature", "thickness", or a file with a value for each vertex of the mesh.
    unit: of the mesh's lengths if the mesh does not state it, one of `units.LENGTHS`.
    measure: whether to measure the errors, or only check that there is a surface.
    backend: runs everything, and evaluates the field afterwards; None for the default.
    allow_outside: whether a tree file may refer to files outside its own folder.
    The same mesh, options and seed give the same field, byte for byte, unless `training.seconds` is set.
    Raises `MeshError` if the mesh cannot be read or converted, `NoInteriorError` if it has no inside,
    `FitError` if the network has no surface or an IoU below 0.05.
    """
    architecture, density = architecture or Architecture(), density or Density()
    training = training or Training()
    samples = whole_number("samples", samples, 1, MAX_SAMPLES)
    seed = whole_number("seed", seed, 0)
    if precision is not None:
        stored_form(architecture, precision)  # raises for an unknown one
    if target is not None and training.seconds is not None:
        raise UsageError("`time=` with `target_error=`: the error decides how long it takes; leave one out")
    engine, clock = backend or get_backend(), Stages(progress)
    shape = prepare(mesh, sign, thickness, weight, clock, engine, unit, allow_outside=allow_outside)
    sampler, drawn, rng = sample(shape, density, samples, seed, clock)
    with clock.stage("fit") as report:
        fits = _Fits(sampler, drawn, rng, density.method == "importance", seed, engine, report)
        settings = settings_of(density, samples, training, sign, thickness, weight, seed)
        if target is None:
            fitted = fits(architecture, training)
            precision, epochs = precision or "f32", fitted.epochs
            network = round_trip(Network(architecture, fitted.weights), precision)
        else:
            surface = true_surface(shape.oracle, seed=seed)

            def error(network: Network) -> float:
                made = NeuralField(network, shape.transform, chosen_backend=engine)
                return surface_distance(made, surface.points)

            limit = float(f"{target.relative(shape.transform.scale):.6g}")
            allowed = PRECISIONS if precision is None else (precision,)
            reached = smallest_network(fits, error, limit, architecture, training, allowed, seed)
            network, precision, epochs = reached.network, reached.precision, reached.epochs
            settings |= {
                "target_error": limit,
                "target_met": reached.met,
                "reached_error": float(f"{reached.error:.6g}"),
                "widths": list(reached.widths),
            }
    made = NeuralField(
        network, shape.transform, shape.mesh.source, settings=settings, precision=precision,
        chosen_backend=backend,
    )  # fmt: skip
    return measured(shape, made, samples * epochs, seed, clock, only_check=not measure)


def measured(
    shape: Prepared, made: NeuralField, seen: int, seed: int, clock: Stages, *, only_check: bool = False
) -> Conversion:
    """The last stage: adds the metrics to a field of the shape. seen: samples seen by the fit, for a warning.

    only_check: omit the metrics. Raises `FitError` for a network without a surface or an IoU below 0.05, in
    either case.
    """
    with clock.stage("measure"):
        if only_check:
            reason = check_fit(made, shape.oracle, seed=seed)
        else:
            made.metrics.update(measure_field(made, shape.oracle, seed=seed))
            reason = failed_fit(made.metrics)
            if reason is not None:  # the check returned the reason why there is no surface
                reason = check_fit(made, shape.oracle, seed=seed) or reason
        if reason is not None:
            width = "" if "target_error" in made.settings else " or a larger `width=`"
            remedy = f"try more `epochs=`, more `samples=`{width}"
            raise FitError(shape.name, reason, remedy)
    short = seen < SAMPLES * Training().epochs / 2
    remarks = advice(shape, made, seed, short_fit=short)
    warnings = tuple(f"{shape.name}: {line}" for line in remarks)
    return Conversion(made, shape.mesh, clock.seconds, warnings)


def correction_size(samples: int) -> int:
    """Number of samples that a correction replaces."""
    return samples // 10


@dataclass(frozen=True, eq=False)
class _Fits:
    """Fits networks, one after the other, to the same samples, with corrections if `corrected`."""

    sampler: Sampler
    samples: Samples
    rng: np.random.Generator
    corrected: bool
    seed: int
    backend: Backend
    report: Callable[[float, str], None]

    def __call__(
        self, architecture: Architecture, training: Training, start: FloatArray | None = None
    ) -> Fit:
        """Fit a network of this architecture, starting from weights (P,) or random ones."""

        def correct(weights: FloatArray) -> Samples:
            program = self.backend.compile(Network(architecture, weights))
            return self.sampler.draw_errors(
                program.evaluate, correction_size(len(self.samples.points)), self.rng
            )

        return fit(
            architecture,
            self.samples,
            training,
            start=start,
            correct=correct if self.corrected else None,
            seed=self.seed,
            backend=self.backend,
            progress=lambda done, loss: self.report(done, f"{architecture}, loss {loss:.5f}"),
        )


def settings_of(
    density: Density,
    samples: int,
    training: Training,
    sign: str,
    thickness: float | None,
    weight: str | None,
    seed: int,
) -> dict[str, Any]:
    """The settings stored in the file; defaults of None are omitted."""
    settings: dict[str, Any] = {
        "sampling": density.method,
        "beta": density.beta,
        "uniform": density.uniform,
        "samples": samples,
        "optimizer": training.optimizer,
        "epochs": training.epochs,
        "batch": training.batch,
        "sign": sign,
        "seed": seed,
    }
    optional = {
        "learning_rate": training.learning_rate,
        "time": training.seconds,
        "patience": training.patience or None,
        "thickness": thickness,
        "weight": weight if weight in (None, "curvature", "thickness") else Path(weight).name,
    }
    made = density.to_json()
    optional |= {name: made[name] for name in ("noise", "box") if name in made}
    return settings | {name: value for name, value in optional.items() if value is not None}
