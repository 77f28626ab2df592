"""
convert.py
----------
The main path: a mesh becomes a measured neural field.

    load -> normalise -> signed distance -> importance samples -> fit -> round -> measure

With a target error the fit becomes a few of them, of the same samples (training/size_search.py).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..arrays import FloatArray, Mask, Points, Values
from ..backends import get_backend
from ..compression.quantize import PRECISIONS, round_trip
from ..errors import FitError, NoSurfaceError, UsageError
from ..evaluation.metrics import check_fit, sign_remark, surface_distance, true_surface
from ..evaluation.metrics import measure as measure_field
from ..fields.extract import extract, volume_difference, wrong_volume
from ..fields.field import Field, NeuralField
from ..fields.oracle import no_interior, normalisation, signed_distance
from ..geometry.similarity import Similarity
from ..mesh.bodies import has_even_edges
from ..mesh.files import load_mesh
from ..mesh.mesh import Mesh
from ..mesh.signed_distance import FACE_BYTES, Sign, SignedDistance
from ..program.network import Architecture, Network
from ..program.samples import Samples
from ..storage import open_field
from ..training.fit import Fit, Training, fit
from ..training.sample_weights import curvature_weights, read_weights, thickness_weights
from ..training.sampling import Density, Sampler
from ..training.size_search import Target, smallest_network
from ..units import failed_fit

#: Samples a fit sees over and over; more change nothing for a network of this size.
SAMPLES = 500_000

#: Of the surface of a tree, at least: a cell is half the surface error that a good fit has.
SURFACE_RESOLUTION = 384

#: The stages in order; a caller's progress is told the stage and the share of it that is done.
STAGES = ("load", "prepare", "sample", "fit", "measure")
Progress = Callable[[str, float, str], None]


@dataclass(frozen=True, eq=False)
class Conversion:
    """What `convert` made: the field, the mesh it read, seconds for each stage, and what to tell the user."""

    field: NeuralField
    mesh: Mesh
    seconds: dict[str, float]
    warnings: tuple[str, ...] = ()


def convert(
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
    backend: str | None = None,
    allow_outside: bool = False,
    progress: Progress | None = None,
) -> Conversion:
    """Convert a mesh file (or a `Mesh`, or the file of a tree) to a neural field and measure its error.

    target: the surface error to be met by the smallest network; `architecture` then says its depth and
    activations, and the field's settings what came of it: `target_error` and `reached_error` (model space),
    `target_met`, and the `widths` that were fitted. precision: None for float32, or for the cheapest that
    meets the target.

    thickness: in mesh units; the solid |d| < thickness / 2 around the surface, for a mesh without an
    inside. weight: "curvature", "thickness", or a file with a value for each vertex of the mesh.
    unit: that the lengths of a mesh are in which does not say so itself, one of `units.LENGTHS`.
    measure: whether to measure the errors; otherwise it is only checked that there is a surface.
    allow_outside: whether the file of a tree may name files outside of its own folder.
    The same mesh, options and seed give the same field, byte for byte, unless `training.seconds` is set.
    Raises `MeshError` if the mesh cannot be read or converted, `NoInteriorError` if it has no inside,
    `FitError` if the network has no surface or an IoU below 0.05.
    """
    architecture, density = architecture or Architecture(), density or Density()
    training = training or Training()
    if target is not None and training.seconds is not None:
        raise UsageError("`seconds=` with `target=`: the error decides how long it takes; leave one out")
    clock = Stages(progress)
    shape = prepare(mesh, sign, thickness, weight, clock, backend, unit, allow_outside=allow_outside)
    sampler, drawn, rng = sample(shape, density, samples, seed, clock)
    with clock.stage("fit") as report:
        fits = _Fits(sampler, drawn, rng, density.method == "importance", seed, backend, report)
        settings = settings_of(density, samples, training, sign, thickness, weight, seed)
        if target is None:
            fitted = fits(architecture, training)
            precision, epochs = precision or "f32", fitted.epochs
            network = round_trip(Network(architecture, fitted.weights), precision)
        else:
            surface = true_surface(shape.oracle, seed=seed)

            def error(network: Network) -> float:
                made = NeuralField(network, shape.transform, backend=backend)
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
        network, shape.transform, shape.mesh.source, settings=settings, precision=precision, backend=backend
    )
    return measured(shape, made, samples * epochs, seed, clock, only_check=not measure)


@dataclass(frozen=True, eq=False)
class Prepared:
    """A mesh that is ready to be sampled and measured.

    name: for messages. transform: model space to mesh space. oracle: its distances in model space. weights:
    (V,) where more samples are wanted, or None.
    """

    name: str
    mesh: Mesh
    transform: Similarity
    oracle: SignedDistance
    weights: Values | None


def prepare(
    mesh: str | Path | Mesh,
    sign: Sign,
    thickness: float | None,
    weight: str | None,
    clock: Stages,
    backend: str | None = None,
    unit: str | None = None,
    *,
    allow_outside: bool = False,
) -> Prepared:
    """The first two stages of `convert`, which says what the arguments are and what is raised."""
    with clock.stage("load"):
        name = mesh.source.name if isinstance(mesh, Mesh) else str(mesh)
        mesh = mesh if isinstance(mesh, Mesh) else _loaded(mesh, backend, allow_outside)
        mesh = mesh.stating(unit)
    with clock.stage("prepare"):
        transform = normalisation(mesh, thickness)
        if isinstance(mesh, FieldMesh) and mesh.field.exact and thickness is None:
            oracle: SignedDistance = _ExactDistance(mesh, transform, backend)
        else:
            oracle = signed_distance(mesh, transform, sign, thickness, backend)
        if not oracle.has_interior:
            raise no_interior(name, oracle, transform)
        weights = None if weight is None else _vertex_weights(weight, mesh, oracle)
    return Prepared(name, mesh, transform, oracle, weights)


def sample(
    shape: Prepared, density: Density, count: int, seed: int, clock: Stages
) -> tuple[Sampler, Samples, np.random.Generator]:
    """The third stage: a sampler, `count` samples of it, and the generator that draws more."""
    with clock.stage("sample"):
        sampler = Sampler(shape.oracle, density, shape.weights, expected=count)
        rng = np.random.default_rng([seed, 0])
        return sampler, sampler.draw(count, rng), rng


def measured(
    shape: Prepared, made: NeuralField, seen: int, seed: int, clock: Stages, *, only_check: bool = False
) -> Conversion:
    """The last stage: a field of the shape with its metrics. seen: samples that its fit saw, for a remark.

    only_check: leave the metrics out. Raises `FitError` for a network that has no surface, or an IoU below
    0.05, in any case.
    """
    with clock.stage("measure"):
        if only_check:
            reason = check_fit(made, shape.oracle, seed=seed)
        else:
            made.metrics.update(measure_field(made, shape.oracle, seed=seed))
            reason = failed_fit(made.metrics)
        if reason is not None:
            width = "" if "target_error" in made.settings else " or a larger `width=`"
            remedy = f"try more `epochs=`, more `samples=`{width}"
            raise FitError(shape.name, reason, remedy)
    short = seen < SAMPLES * Training().epochs / 2
    remarks = _warnings(shape, made, seed, short_fit=short)
    warnings = tuple(f"{shape.name}: {line}" for line in remarks)
    return Conversion(made, shape.mesh, clock.seconds, warnings)


def correction_size(samples: int) -> int:
    """How many of a fit's samples a correction replaces."""
    return samples // 10


@dataclass(frozen=True, eq=False)
class _Fits:
    """Fits networks, one after the other, to the same samples, corrected on the way if `corrected`."""

    sampler: Sampler
    samples: Samples
    rng: np.random.Generator
    corrected: bool
    seed: int
    backend: str | None
    report: Callable[[float, str], None]

    def __call__(
        self, architecture: Architecture, training: Training, start: FloatArray | None = None
    ) -> Fit:
        """A network of this architecture, from weights (P,) or random ones."""
        engine = get_backend(self.backend)

        def correct(weights: FloatArray) -> Samples:
            program = engine.compile(Network(architecture, weights))
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


@dataclass(frozen=True, eq=False)
class FieldMesh(Mesh):
    """The extracted surface of a field, as a mesh to convert; distances are the field's if that is exact."""

    field: Field


def surface_mesh(field: Field, name: str, *, resolution: int | None = None) -> FieldMesh:
    """The finely extracted surface of a field: what a tree's true distances are taken from.

    name: of what it was made from, for the file. resolution: None for as much as the shape needs, 384 or
    more. Raises `NoSurfaceError` as `extract` does.
    """
    surface = extract(field, resolution, least=SURFACE_RESOLUTION, face_bytes=FACE_BYTES)
    notes = [
        f"{note.removeprefix('warning: ').split(';')[0]}; `csg` with a higher `resolution=` may mend that"
        for note in surface.notes
        if note.startswith("warning: ")
    ]
    mesh = Mesh.from_arrays(surface.vertices, surface.faces, name=name, notes=notes).stating(field.unit)
    return FieldMesh(**vars(mesh), field=field)


class _ExactDistance(SignedDistance):
    """The distance of a field that is exact, in the model space of `transform`; all else is of its mesh."""

    def __init__(self, mesh: FieldMesh, transform: Similarity, backend: str | None) -> None:
        self._field, self._transform = mesh.field, transform
        make_tree = get_backend(backend).triangle_tree
        super().__init__(transform.apply_inverse(mesh.vertices), mesh.faces, make_tree=make_tree)

    def _orient(self) -> None:
        """Nothing: the surface was extracted, and so is oriented right."""

    def signed(self, points: Points, unsigned: Values | None = None) -> Values:
        """Signed distance (n,) at points (n, 3)."""
        return self._field.distance(self._transform.apply(points)) / self._transform.scale

    def unsigned(self, points: Points) -> Values:
        """Distance (n,) at points (n, 3)."""
        return np.abs(self.signed(points))

    def inside(self, points: Points) -> Mask:
        """Whether points (n, 3) are inside."""
        return self.signed(points) < 0


def _loaded(path: str | Path, backend: str | None, allow_outside: bool) -> Mesh:
    if Path(path).suffix.lower() == ".csg":
        field = open_field(path, backend=backend, allow_outside=allow_outside)
        try:
            return surface_mesh(field, str(path))
        except NoSurfaceError as error:
            raise NoSurfaceError(f"{path}: {error}") from error
    return load_mesh(path)


def _vertex_weights(weight: str, mesh: Mesh, oracle: SignedDistance) -> Values:
    if weight == "curvature":
        return curvature_weights(oracle.vertices, oracle.faces)
    if weight == "thickness":
        return thickness_weights(oracle)
    painted: Values = mesh.per_vertex(read_weights(weight, mesh.vertices_in_file))
    return painted


def settings_of(
    density: Density,
    samples: int,
    training: Training,
    sign: str,
    thickness: float | None,
    weight: str | None,
    seed: int,
) -> dict[str, Any]:
    """How the field was made, for the file; what was left at nothing is left out."""
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
    return settings | {name: value for name, value in optional.items() if value is not None}


def _warnings(shape: Prepared, made: NeuralField, seed: int, *, short_fit: bool) -> list[str]:
    """What the user should know of the mesh and of the result, a line each."""
    mesh, oracle = shape.mesh, shape.oracle
    found = [mesh.findings.line()] if mesh.findings.line() else []
    if mesh.findings.misoriented_edges and oracle.sign == "winding" and has_even_edges(mesh.faces):
        found.append('`sign="parity"` does not depend on orientation')
    found += oracle.remarks(made.transform)
    lines = ["; ".join(found)] if found else []
    iou, error = made.metrics.get("iou", 1.0), made.metrics.get("surface_mean", 0.0)
    if not made.settings.get("target_met", True):
        reached, wanted = made.settings["reached_error"], made.settings["target_error"]
        widest = made.settings["widths"][-1]
        lines.append(
            f"misses the target error: {reached:.3g} of the radius instead of {wanted:.3g}, with networks "
            f"up to width {widest}; more `samples=` or `epochs=` may bring it closer"
        )
    elif iou < _GOOD_IOU or error > _GOOD_ERROR:
        lines.append(_poor(made, short_fit=short_fit))
    elif (wrong := wrong_volume(made.known_volume, made.expected_volume)) is not None:
        lines.append(wrong)
    elif remark := sign_remark(made.metrics, made, oracle, made.transform, seed=seed):
        lines.append(remark)
    return lines


def _poor(made: NeuralField, *, short_fit: bool) -> str:
    """What to do about a field that shows its shape badly."""
    wrong = volume_difference(made.known_volume, made.expected_volume)
    measured = (
        f"(IoU {made.metrics['iou']:.3f}, surface error {made.metrics['surface_mean']:.4f} of the radius"
        f"{f', volume {wrong}' if wrong else ''})"
    )
    if short_fit:
        more = "`samples=`, `epochs=` or `seconds=`"
        return f"the fit was cut short {measured}; more {more} would bring it closer"
    remedy = f"`width={_sufficient_width(made)}`"
    if "target_error" in made.settings:
        remedy = "a smaller `target=`"
    weights = made.network.architecture.weight_count
    return f"too detailed for {weights} weights {measured}; try {remedy}"


#: Below, a user is told that the network is too small for the shape.
_GOOD_IOU, _GOOD_ERROR = 0.93, 0.01


def _sufficient_width(made: NeuralField) -> int:
    """The width at which the shape should come out well, extrapolated.

    On a shape of a hundred thin parts 1 - IoU fell from 0.078 at width 32 to 0.056 at 48: its power 1.2
    is one over the width.
    """
    width = max(made.network.architecture.hidden)
    missing = max((1 - made.metrics["iou"]) / (1 - _GOOD_IOU), made.metrics["surface_mean"] / _GOOD_ERROR)
    return next((wider for wider in (48, 64, 96, 128) if wider >= width * missing**1.2), 256)


class Stages:
    """Seconds for each stage, and progress passed on with the stage's name."""

    def __init__(self, progress: Progress | None) -> None:
        self.seconds: dict[str, float] = {}
        self._progress = progress

    @contextmanager
    def stage(self, name: str) -> Iterator[Callable[[float, str], None]]:
        """A stage begins, and ends with the block; what it gives is told the share that is done."""

        def report(done: float, message: str) -> None:
            if self._progress is not None:
                self._progress(name, done, message)

        began = time.perf_counter()
        report(0.0, "")
        yield report
        report(1.0, "")
        self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - began
