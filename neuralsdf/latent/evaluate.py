"""
evaluate.py
-----------
How well a model reconstructs shapes that it was not trained on: each mesh is reconstructed, and the result
compared with it by the metrics of evaluation/metrics.py, and by those of the latent models' papers:

    chamfer_squared      mean squared distance from 30 000 points of a surface to the closest of as many of
                         the other, summed over both directions (Park et al. 2019, section 6.1)
    to_mesh_mean, to_mesh_deviation, to_mesh_median, to_mesh_p90
                         of the distances of these points of the reconstruction from the mesh
    beyond_0.01, ...     fractions of these distances above thresholds

Lengths are in model space.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..errors import NeuralSDFError, NoSurfaceError
from ..evaluation.metrics import measure
from ..fields.extract import model_surface
from ..fields.field import Field
from ..geometry.triangles import sample_surface
from ..mesh.load_mesh import load_mesh
from ..mesh.signed_distance import SignedDistance
from .cache import Entry
from .inference import InferenceSettings
from .observation import observe_mesh
from .prepare import normalised
from .reconstruct import Reconstruction, TrainedModel, reconstruct

#: Points of each surface, and thresholds of distances to the mesh.
POINTS, THRESHOLDS = 30_000, (0.005, 0.01, 0.02, 0.05)


@dataclass(frozen=True, eq=False)
class Evaluated:
    """A shape that was reconstructed, with its metrics by name; or the reason why it was not."""

    entry: Entry
    metrics: dict[str, float]
    reconstruction: Reconstruction | None = None
    failure: str | None = None

    @property
    def name(self) -> str:
        """Its name in the data set."""
        return self.entry.name

    @property
    def category(self) -> str:
        """Its class."""
        return self.entry.category


def evaluate(
    model: TrainedModel,
    entries: Sequence[Entry],
    settings: InferenceSettings = InferenceSettings(),  # noqa: B008
    *,
    points: int | None = None,
) -> Iterator[Evaluated]:
    """Each shape's metrics, as they are found; points: of each kind, for the metrics of `measure`.

    A mesh that cannot be read, or whose reconstruction has no surface, has a `failure`.
    """
    for entry in entries:
        try:
            yield _evaluated(model, entry, settings, points)
        except NeuralSDFError as error:
            yield Evaluated(entry, {}, None, str(error))


def _evaluated(
    model: TrainedModel, entry: Entry, settings: InferenceSettings, points: int | None
) -> Evaluated:
    shape, oracle = normalised(load_mesh(entry.source), entry.name)
    found = reconstruct(model, observe_mesh(shape, oracle, settings.seed), settings)
    metrics = {
        **measure(found.field, oracle, seed=settings.seed, points=points),
        **paper_metrics(found.field, oracle, settings.seed),
        "code_loss": found.loss,
        "seconds": found.seconds,
    }
    return Evaluated(entry, metrics, found)


def paper_metrics(field: Field, oracle: SignedDistance, seed: int = 0) -> dict[str, float]:
    """The metrics of the papers, of a field with respect to an oracle's mesh; none without a surface."""
    from scipy.spatial import cKDTree

    try:
        surface = model_surface(field, None)
    except NoSurfaceError:
        return {}
    rng = np.random.default_rng([seed, 7])
    of_mesh, _ = sample_surface(oracle.vertices, oracle.faces, POINTS, rng)
    of_field, _ = sample_surface(surface.vertices, surface.faces, POINTS, rng)
    there, _ = cKDTree(of_mesh).query(of_field)
    back, _ = cKDTree(of_field).query(of_mesh)
    distances = oracle.unsigned(of_field)
    return {
        "chamfer_squared": float(np.mean(there**2) + np.mean(back**2)),
        "to_mesh_mean": float(distances.mean()),
        "to_mesh_deviation": float(distances.std()),
        "to_mesh_median": float(np.median(distances)),
        "to_mesh_p90": float(np.quantile(distances, 0.9)),
        **{f"beyond_{limit:g}": float(np.mean(distances > limit)) for limit in THRESHOLDS},
    }


def means(shapes: Sequence[Evaluated]) -> dict[str, dict[str, float]]:
    """Mean of each metric by class, and over all shapes under the name "all".

    "shapes" counts them, and "failed" those without metrics. Shapes without a metric are left out of its
    mean.
    """
    return _by_class(shapes, np.mean)


def medians(shapes: Sequence[Evaluated]) -> dict[str, dict[str, float]]:
    """As `means`, but medians, which a few bad reconstructions hardly change."""
    return _by_class(shapes, np.median)


def _by_class(
    shapes: Sequence[Evaluated], average: Callable[[list[float]], np.floating[Any]]
) -> dict[str, dict[str, float]]:
    groups: dict[str, list[Evaluated]] = defaultdict(list)
    for shape in shapes:
        groups[shape.category].append(shape)
    return {
        name: {
            "shapes": len(group),
            "failed": sum(shape.failure is not None for shape in group),
            **{metric: float(average(values)) for metric, values in _columns(group).items()},
        }
        for name, group in [*sorted(groups.items()), ("all", list(shapes))]
    }


def _columns(shapes: Sequence[Evaluated]) -> dict[str, list[float]]:
    """The values of each metric, of the shapes that have it."""
    names = dict.fromkeys(name for shape in shapes for name in shape.metrics)
    return {name: [shape.metrics[name] for shape in shapes if name in shape.metrics] for name in names}


def worst(shapes: Sequence[Evaluated], count: int = 5) -> list[Evaluated]:
    """The shapes with the smallest IoU, failures first."""
    return sorted(shapes, key=lambda shape: shape.metrics.get("iou", -1.0))[:count]
