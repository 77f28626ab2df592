"""
metrics.py
----------
Quality metrics of a field with respect to a mesh, shared by all commands. All are in model space, where the
mesh's minimum enclosing ball has radius 1; `units.to_mesh_units` converts them to mesh units.

    loss                 mean |f - d| over importance samples of the default density
    far_error            mean |f - d| over uniform points of the ball
    surface_mean, _p95,  |f| at points uniform by area on the mesh (surface_mean is the paper's error);
      _max               zero for a field that is zero everywhere, so never reported alone
    iou                  of the interiors, at uniform points of the mesh's padded bounding box
    sign_disagreement    maximum, over closed bodies and the space around them, of the fraction of points
                         where the field's sign differs from ray parity (mesh/sign_check_by_rays.py). IoU
                         takes its true sign from the rule that the field was made with, so it cannot reveal
                         errors of that rule
    accuracy             mean distance from points of the extracted surface to the mesh
    completeness         mean distance from points of the mesh to the extracted surface
    two_way              mean of the two (Chamfer-L1)
    hausdorff            maximum of all those distances
    f_score              harmonic mean of the fractions of them below 1 % of the box's longest side
    normal_consistency   mean |cosine| between a point's normal and its closest point's, both ways
    volume, area         of the extracted surface
    mesh_volume          of the solid that the mesh describes; given if known to 1 %

If the values of a field are limited (`Field.limit`), `loss` and `far_error` limit d too.

There are 100 000 points of each kind by default, a fifth of that for far_error. Distances to a surface are
exact distances to its triangles: distances between two point sets cannot fall below the point spacing, but
a good fit's error does.

The solid of an open mesh is closed by a sheet where the mesh has no triangles, and so is the extracted
surface. `accuracy_open`, `two_way_open` and `hausdorff_open` omit points of the extracted surface on that
sheet (`closing_share` of them): a point p at distance d from the mesh is on the sheet if p + 0.9 d n and
p - 0.9 d n, with n the normal, are on different sides of the true solid. The ball of radius d around p
contains no triangle, so only the sheet can separate them. Closed meshes have no such points.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from dataclasses import field as dataclass_field
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from ..array_types import FloatArray, Points, Values, Vectors
from ..errors import NoSurfaceError, UsageError
from ..fields.extract import Surface, model_surface, require_surface, wrong_volume
from ..fields.field import Field, NeuralField, require_shape
from ..fields.mesh_field import MeshField
from ..geometry.bvh import MakeBVH, triangle_bvh
from ..geometry.similarity_transform import Similarity
from ..geometry.triangles import sample_surface, unit_normals
from ..geometry.unit_ball import minimum_enclosing_ball, uniform_ball
from ..mesh.closing_sheet import open_edges
from ..mesh.inside_or_outside import Sign
from ..mesh.mesh import Mesh
from ..mesh.sign_check_by_rays import BodyParity, body_probes
from ..mesh.signed_distance import SignedDistance
from ..training.sampling import Density, Sampler
from .failed_fit import failed_fit
from .mesh_alignment import ALIGNMENTS, Align, check_comparable, map_between, registered, scaled, shape_ball

FAR_FRACTION = 5  # a fifth of them for far_error: distances far from a mesh are slow, the error is smooth
SIGN_POINTS = 2048  # uniform points, in addition to those in each body
_WRONG_SIGN = 0.25  # fraction of a body that is reported
_FEW_POINTS = 4  # fewer points in a body do not give a fraction
PADDING = 0.05
#: `mesh_volume` is given if known to this relative error. The faces give it if, for these many points of the
#: surface, winding numbers at this distance on both sides show that the faces bound the solid.
KNOWN_VOLUME, BESIDE, VOLUME_PROBES = 0.01, 1e-4, 4096
F_SCORE_THRESHOLD = 0.01


class Sizes(NamedTuple):
    """What metrics are computed from: the number of points of each kind, and the resolution of extracted
    surfaces, None for as needed."""

    points: int = 100_000
    resolution: int | None = None


_default_sizes = Sizes()


def set_default_sizes(sizes: Sizes) -> Sizes:
    """Set the sizes used by default in this process; returns the previous ones.

    Fewer points and coarser surfaces make tests and benchmarks of whole commands faster.
    """
    global _default_sizes
    before, _default_sizes = _default_sizes, sizes
    return before


def _sizes(points: int | None, resolution: int | None) -> Sizes:
    return Sizes(points or _default_sizes.points, resolution or _default_sizes.resolution)


def measure(
    field: Field,
    oracle: SignedDistance,
    *,
    seed: int = 0,
    resolution: int | None = None,
    points: int | None = None,
) -> dict[str, float]:
    """All metrics of a field with respect to an oracle's mesh in the field's model space.

    resolution: of the extracted surface, None for as needed. points: number of points of each kind, 100 000
    if None; fewer are faster and less exact. For a field without a surface, the metrics of the extracted
    surface are omitted; the metrics named `_open` only exist for open meshes.
    The values of an occupancy field are not distances: it has no `loss`, `far_error` and `surface_` metrics,
    only those of its interior and of its extracted surface.
    """
    points, resolution = _sizes(points, resolution)
    true = true_surface(oracle, seed=seed, resolution=resolution, points=points)
    rngs = iter(np.random.default_rng([seed, stream]) for stream in range(1, 5))
    of_samples, of_ball = next(rngs), next(rngs)
    metrics: dict[str, float] = {}
    if field.kind != "occupancy":
        metrics |= _value_errors(field, oracle, true, points, of_samples, of_ball)
    overlap = insides(field, oracle, true.box, next(rngs), points)
    metrics["iou"] = overlap.iou
    disagreement = sign_disagreement(field, oracle, seed=seed)
    if disagreement is not None:
        metrics["sign_disagreement"] = disagreement.fraction
    try:
        extracted = model_surface(field, resolution)
    except NoSurfaceError:
        return metrics | _known_volume(oracle, true, overlap, 0.0)
    sampled = SampledSurface(extracted.vertices, extracted.faces, points, next(rngs), oracle.make_bvh)
    is_open = oracle.thickness is None and len(open_edges(oracle.faces)) > 0
    metrics |= two_way(sampled, true, oracle.inside if is_open else None)
    volumes = {"volume": extracted.volume, "area": extracted.area}
    return metrics | volumes | _known_volume(oracle, true, overlap, extracted.volume)


def _value_errors(
    field: Field,
    oracle: SignedDistance,
    true: SampledSurface,
    points: int,
    of_samples: np.random.Generator,
    of_ball: np.random.Generator,
) -> dict[str, float]:
    """The metrics that compare a field's values with distances."""
    samples = Sampler(oracle, Density(), expected=points).draw(points, of_samples)
    uniform = uniform_ball(points // FAR_FRACTION, of_ball)
    error = surface_error(field, true.points)
    return {
        "loss": loss(field, samples.points, samples.distances),
        "far_error": loss(field, uniform, oracle.signed(uniform)),
        "surface_mean": error.mean,
        "surface_p95": error.p95,
        "surface_max": error.max,
    }


def _known_volume(
    oracle: SignedDistance, true: SampledSurface, overlap: Insides, volume: float
) -> dict[str, float]:
    """The metric `mesh_volume`, if known. volume: enclosed by the field's surface."""
    exact = closed_volume(oracle, true)
    if exact is not None:
        return {"mesh_volume": exact}
    found = volume + overlap.difference
    known = found > 0 and 2 * overlap.deviation < KNOWN_VOLUME * found
    return {"mesh_volume": found} if known else {}


def exact_measures(field: MeshField) -> dict[str, Any] | None:
    """Volume, area and bounds (two corners) of a mesh's solid from its faces, in mesh units; None as for
    `closed_volume`."""
    oracle, scale = field.oracle, field.transform.scale
    volume = None if oracle.thickness is not None else closed_volume(oracle, true_surface(oracle))
    if volume is None:
        return None
    corner = oracle.vertices[oracle.faces]
    normals = np.cross(corner[:, 1] - corner[:, 0], corner[:, 2] - corner[:, 0])
    vertices = field.transform.apply(oracle.vertices)
    return {
        "volume": volume * scale**3,
        "area": float(np.linalg.norm(normals, axis=1).sum()) / 2 * scale**2,
        "bounds": [vertices.min(axis=0), vertices.max(axis=0)],
    }


def closed_volume(oracle: SignedDistance, true: SampledSurface) -> float | None:
    """Volume of an oracle's solid from its faces; None if they do not bound it: an open mesh, overlapping
    bodies, a shell about the surface.

    true: samples of its surface. Faces bound the solid if the winding number is 0 on one side and 1 on the
    other.
    """
    if oracle.thickness is not None or len(open_edges(oracle.faces)):
        return None
    points, normals = true.points[:VOLUME_PROBES], true.normals[:VOLUME_PROBES]
    beside = np.concatenate([points + side * normals for side in (-BESIDE, BESIDE)])
    windings = oracle.winding_number(beside)
    whole = np.minimum(np.abs(windings), np.abs(windings - 1)) < 0.25
    volume = Surface(oracle.vertices, oracle.faces).volume
    return volume if whole.mean() > 0.999 and volume > 0 else None


def check_fit(field: Field, oracle: SignedDistance, *, seed: int = 0) -> str | None:
    """The message of `failed_fit` for a fit, or None, from few measurements.

    None if the field has a surface and an IoU, from a tenth of the points, that is not close to zero.
    """
    used = oracle.vertices[oracle.faces].reshape(-1, 3)
    half = (oracle.thickness or 0.0) / 2
    box = used.min(axis=0) - half, used.max(axis=0) + half
    rng = np.random.default_rng([seed, 4])
    found = {"iou": insides(field, oracle, box, rng, _default_sizes.points // 10).iou}
    try:
        require_surface(field)
    except NoSurfaceError as error:
        return failed_fit(found, str(error))
    return failed_fit(found | {"two_way": 0.0})


def true_surface(
    oracle: SignedDistance, *, seed: int = 0, resolution: int | None = None, points: int | None = None
) -> SampledSurface:
    """Samples of the surface that a field should have, at the points where `measure` takes the error.

    resolution: for extracting the shell about a surface, None for as needed. points: their number, 100 000 if
    None.
    """
    points, resolution = _sizes(points, resolution)
    if oracle.thickness is None:
        vertices, faces = oracle.vertices, oracle.faces
    else:
        shell = model_surface(MeshField(oracle, Similarity.identity()), resolution)
        vertices, faces = shell.vertices, shell.faces
    rng = np.random.default_rng([seed, 0])
    return SampledSurface(vertices, faces, points, rng, oracle.make_bvh)


def _values(field: Field, points: npt.NDArray[np.floating]) -> Points:
    return field.value(points.astype(np.float32)).astype(np.float64)


def loss(field: Field, points: npt.NDArray[np.floating], distances: npt.NDArray[np.floating]) -> float:
    """Mean |f - d| at points (n, 3) of signed distances (n,), limited as the field's values are."""
    if field.limit is not None:
        distances = np.clip(distances, -field.limit, field.limit)
    return float(np.abs(_values(field, points) - distances).mean())


class SurfaceError(NamedTuple):
    """|f| on the true surface: mean, 95th percentile, maximum."""

    mean: float
    p95: float
    max: float


def surface_error(field: Field, surface_points: Points) -> SurfaceError:
    """|f| at points (n, 3) of the true surface (the paper's surface error, section 4.1)."""
    error = np.abs(_values(field, surface_points))
    return SurfaceError(float(error.mean()), float(np.percentile(error, 95)), float(error.max()))


def surface_distance(field: Field, surface_points: Points) -> float:
    """Mean distance of points (n, 3) of the true surface from the field's surface, to first order.

    |f| over the gradient norm where that is below 1 (Taubin 1994), at most 1 per point. For a true distance
    it equals the mean surface error, but unlike that it detects a field close to zero everywhere. For fits
    with default settings it was within 5 % of `completeness` where that was between 0.0004 and 0.006.
    """
    values, gradients = field.value_and_gradient(surface_points.astype(np.float32))
    norms = np.linalg.norm(gradients.astype(np.float64), axis=1)
    first_order = np.abs(values.astype(np.float64)) / np.clip(norms, np.finfo(np.float32).tiny, 1)
    return float(np.minimum(first_order, 1).mean())


class Insides(NamedTuple):
    """Comparison of the interiors of a field and an oracle: IoU, and the volume of the oracle minus that
    of the field, with its standard deviation."""

    iou: float
    difference: float
    deviation: float


def insides(
    field: Field,
    oracle: SignedDistance,
    box: tuple[Points, Points],
    rng: np.random.Generator,
    count: int | None = None,
) -> Insides:
    """Compare the interiors of a field and an oracle at uniform points of a box, given by two corners (3,).

    The box is padded on each side by 5 % of its longest side. count: number of points, 100 000 if None. The
    IoU is 0 if no point is inside either.
    """
    low, high = box
    padding = PADDING * (high - low).max()
    points = rng.uniform(low - padding, high + padding, (count or _default_sizes.points, 3))
    inside, truly_inside = _values(field, points) < 0, oracle.inside(points)
    union = int((inside | truly_inside).sum())
    difference = truly_inside.astype(np.float64) - inside
    volume = float(np.prod(high - low + 2 * padding))
    return Insides(
        int((inside & truly_inside).sum()) / union if union else 0.0,
        volume * float(difference.mean()),
        volume * float(difference.std()) / math.sqrt(len(points)),
    )


class SignDisagreement(NamedTuple):
    """Fraction of points with different signs in a body; body -1 is the space around all bodies."""

    fraction: float
    body: int


def sign_disagreement(field: Field, oracle: SignedDistance, *, seed: int = 0) -> SignDisagreement | None:
    """Maximum fraction of points, over closed bodies and the space around them, where signs differ.

    Compares the field with ray parity in the mesh of the file. The points are well inside, equally many for
    each body, and uniform in the mesh's padded box. None for a mesh without closed bodies, or if another
    rule decides its interior (ray parity of all bodies, or a thickness).
    """
    if oracle.orientation is None or not oracle.orientation.bodies.volumes.any():
        return None
    bodies = oracle.orientation.bodies
    rng = np.random.default_rng([seed, 5])
    low, high = oracle.vertices.min(axis=0), oracle.vertices.max(axis=0)
    padding = PADDING * (high - low).max()
    around = rng.uniform(low - padding, high + padding, (SIGN_POINTS, 3))
    points = np.concatenate([body_probes(bodies, oracle, rng), around])
    truth = BodyParity(bodies, points)
    differs = ((_values(field, points) < 0) != truth.inside)[truth.known]
    part = truth.innermost[truth.known] + 1
    total, wrong = np.bincount(part), np.bincount(part, differs)
    fractions = np.where(total >= _FEW_POINTS, wrong / np.maximum(total, 1), 0.0)
    worst = int(fractions.argmax()) if len(fractions) else 0
    return SignDisagreement(float(fractions.max(initial=0.0)), worst - 1)


def sign_remark(
    metrics: Mapping[str, float],
    field: Field,
    oracle: SignedDistance,
    transform: Similarity,
    *,
    seed: int = 0,
) -> str | None:
    """A note on a closed body with many wrong signs, or None.

    metrics: result of `measure` with the same seed. transform: from model space to that of the reported
    bounds.
    """
    if metrics.get("sign_disagreement", 0.0) <= _WRONG_SIGN or oracle.orientation is None:
        return None
    found = sign_disagreement(field, oracle, seed=seed)
    if found is None:
        return None
    text = f"inside and outside disagree with ray parity at {found.fraction:.0%} of the points"
    if found.body < 0:
        return f"{text} outside of all closed bodies: parts of the empty space are filled"
    body = oracle.orientation.bodies.named(found.body, transform)
    return f"{text} in {body}: it is missing, inverted, or intersects itself"


class SampledSurface:
    """A triangle mesh with points drawn uniformly by area, and a BVH for closest points.

    normals (n, 3): of the faces of points (n, 3). box: two corners (3,) of the bounding box.
    """

    def __init__(
        self,
        vertices: Points,
        faces: npt.NDArray[np.int64],
        count: int,
        rng: np.random.Generator,
        make_bvh: MakeBVH = triangle_bvh,
    ) -> None:
        self._vertices = np.ascontiguousarray(vertices, np.float64)
        self._faces = np.ascontiguousarray(faces, np.int64)
        self._bvh = make_bvh(self._vertices, self._faces)
        points, face = sample_surface(self._vertices, self._faces, count, rng)
        self.points, self.normals = points, unit_normals(self._vertices, self._faces[face])
        used = self._vertices[self._faces].reshape(-1, 3)
        self.box = used.min(axis=0), used.max(axis=0)

    def closest(self, points: Points) -> tuple[Values, Vectors]:
        """Distance (n,) from points (n, 3) to the surface, and the normal (n, 3) of the closest face."""
        distance, face, _ = self._bvh.closest(points)
        return distance, unit_normals(self._vertices, self._faces[face])


def two_way(
    extracted: SampledSurface,
    true: SampledSurface,
    inside: Callable[[Points], npt.NDArray[np.bool_]] | None = None,
) -> dict[str, float]:
    """Accuracy, completeness and derived metrics; lengths in the surfaces' own unit.

    inside: interior test of the true solid at points (n, 3). If given and an open mesh's closing sheet is
    found, the metrics without it are included.
    """
    to_true, normals_there = true.closest(extracted.points)
    to_extracted, normals_here = extracted.closest(true.points)
    threshold = F_SCORE_THRESHOLD * float((true.box[1] - true.box[0]).max())
    precision, recall = float((to_true < threshold).mean()), float((to_extracted < threshold).mean())
    agreement = _mean_cosine(extracted.normals, normals_there), _mean_cosine(true.normals, normals_here)
    metrics = _distances(to_true, to_extracted) | {
        "f_score": 2 * precision * recall / (precision + recall) if precision + recall else 0.0,
        "normal_consistency": sum(agreement) / 2,
    }
    if inside is not None:
        step = 0.9 * to_true[:, None] * extracted.normals
        sheet = inside(extracted.points + step) != inside(extracted.points - step)
        if sheet.any() and not sheet.all():
            open_only = _distances(to_true[~sheet], to_extracted)
            metrics |= {f"{name}_open": open_only[name] for name in ("accuracy", "two_way", "hausdorff")}
            metrics["closing_share"] = float(sheet.mean())
    return metrics


def _distances(to_true: Points, to_extracted: Points) -> dict[str, float]:
    accuracy, completeness = float(to_true.mean()), float(to_extracted.mean())
    return {
        "accuracy": accuracy,
        "completeness": completeness,
        "two_way": (accuracy + completeness) / 2,
        "hausdorff": float(max(to_true.max(), to_extracted.max())),
    }


def _mean_cosine(a: Points, b: Points) -> float:
    return float(np.abs((a * b).sum(axis=1)).mean())


@dataclass(frozen=True, eq=False)
class Evaluation:
    """Result of measuring a field against a mesh.

    metrics: as returned by `measure`, in model space. scale: length in mesh units of a unit length
    there. notes: remarks for the user, one sentence each. alignment: the map from the mesh's to the model's
    coordinates used for the measurement; the identity for `align` "none".
    """

    metrics: dict[str, float]
    scale: float
    notes: tuple[str, ...] = ()
    align: Align = "none"
    alignment: Similarity = dataclass_field(default_factory=Similarity.identity)


def evaluate(
    field: Field,
    mesh: Mesh,
    *,
    align: Align | None = None,
    seed: int = 0,
    resolution: int | None = None,
    points: int | None = None,
) -> Evaluation:
    """Measure a field against a mesh.

    align: "none" takes the mesh as placed by the field's transform; "scale" makes the minimum enclosing balls
    coincide; "similarity" also rotates the mesh (see `alignment`). None means "none", or "scale" for a field
    of the paper's authors, which has no transform: its shape lies in a ball of radius 0.9, by which the
    errors are divided. seed, resolution, points: as for `measure`.
    The interior of the mesh is decided by the rule the field was made with, if recorded. Raises `UsageError`
    for an unknown `align`, `MeshError` for a mesh whose size or place is too different from the model's,
    `NoSurfaceError` for "similarity" and a field without a surface.
    """
    if align is not None and align not in ALIGNMENTS:
        raise UsageError(f"`align={align!r}` is unknown; one of {', '.join(ALIGNMENTS)}")
    place, ball = field.transform, None  # model space to the model's own units; the shape's ball there
    normalised = field
    if isinstance(field, NeuralField) and field.radius != 1:
        place, ball = Similarity.from_ball(np.zeros(3), field.radius), (np.zeros(3), 1.0)
        normalised = _Normalised(field, place, field.radius)
        align = align or "scale"
    align = align or "none"
    points, resolution = _sizes(points, resolution)
    ball = ball or shape_ball(field, resolution)
    check_comparable(mesh, place, ball, align)
    transform = place
    if align == "scale":
        transform = scaled(place, ball, mesh)
    elif align == "similarity":
        transform = registered(normalised, place, mesh, resolution, seed)
    sign, thickness = _rule_of_inside(field)
    oracle = SignedDistance(
        transform.apply_inverse(mesh.vertices),
        mesh.faces,
        sign,
        thickness,
        field.backend.triangle_bvh,
    )
    alignment = Similarity.identity() if align == "none" else map_between(transform, place, mesh)
    notes = _placement_notes(field, ball, place, mesh, align, alignment)
    misplaced = align == "none" and bool(notes)
    if not oracle.has_interior and not misplaced:
        rule = "winding number" if sign == "winding" else sign
        notes.append(f"the mesh has no inside by {rule}, so IoU and loss are meaningless")
    metrics = measure(normalised, oracle, seed=seed, resolution=resolution, points=points)
    if not misplaced and (remark := sign_remark(metrics, normalised, oracle, transform, seed=seed)):
        notes.append(remark)
    wrong = wrong_volume(metrics.get("volume"), metrics.get("mesh_volume"))
    if wrong is not None and not misplaced and isinstance(field, NeuralField):  # can be fitted again
        notes.append(f"warning: {wrong}")
    if "two_way" not in metrics:
        try:
            require_shape(normalised)
            reason = "the field has no surface"
        except NoSurfaceError as error:
            reason = str(error)
        notes.append(f"{reason}; metrics of the extracted surface are omitted")
    return Evaluation(metrics, transform.scale, tuple(notes), align, alignment)


def _rule_of_inside(field: Field) -> tuple[Sign, float | None]:
    """The inside/outside test that a field was made with, and the thickness in model space if any."""
    if isinstance(field, MeshField):
        return field.oracle.sign, field.oracle.thickness
    settings = field.settings if isinstance(field, NeuralField) else {}
    thickness = settings.get("thickness")
    relative = thickness / field.transform.scale if isinstance(thickness, int | float) else None
    return settings.get("sign", "winding"), relative


#: A mesh is misplaced if its enclosing ball differs from the model's by this fraction of its radius or more.
_MISPLACED = 0.03
_ROTATED = 1.0  # degrees; smaller angles are within the error of the registration


def _placement_notes(
    field: Field,
    ball: tuple[Points, float],
    place: Similarity,
    mesh: Mesh,
    align: Align,
    alignment: Similarity,
) -> list[str]:
    """Notes on the placement of the mesh relative to the model, and on how they were aligned.

    ball: of the model's shape, centre (3,) and radius in the model space that `place` maps to model units.
    """
    notes = []
    if isinstance(field, NeuralField) and field.radius != 1:
        notes.append(
            f"the model has no transform: its shape is assumed to fill the ball of radius {field.radius:g} "
            "about the origin, and errors are relative to radius 1"
        )
        if align == "scale":
            notes[0] += "; the mesh's enclosing ball was mapped to that ball"
            return notes
    centre, radius = minimum_enclosing_ball(mesh.vertices)
    ratio = radius / (ball[1] * place.scale)
    offset = float(np.linalg.norm(place.apply_inverse(centre[None]) - ball[0])) / ball[1]
    differs = []
    if abs(ratio - 1) > _MISPLACED:
        differs.append(f"it is {ratio:.4g} times as large as the model")
    if offset > _MISPLACED:
        differs.append(f"its centre is {offset:.3g} radii of the model from the model's centre")
    if align == "none":
        remedy = '`align="scale"` matches size and position, `align="similarity"` rotation too'
        return [*notes, f"the mesh is misplaced: {', and '.join(differs)}; {remedy}"] if differs else notes
    if align == "similarity":
        trace = np.trace(alignment.matrix[:3, :3]) / alignment.scale
        angle = np.degrees(np.arccos(np.clip((trace - 1) / 2, -1, 1)))
        if angle > _ROTATED:
            differs.append(f"it is rotated by {angle:.3g} degrees")
    if differs:
        notes.append(f"the mesh was aligned with the model: {', and '.join(differs)}")
    return notes


class _Normalised(Field):
    """A field whose shape lies in a ball of another radius about the origin, scaled to the unit ball."""

    def __init__(self, field: Field, transform: Similarity, radius: float) -> None:
        self._field, self._radius = field, np.float32(radius)
        self.transform, self.kind = transform, field.kind

    def value(self, points: FloatArray) -> FloatArray:
        """Values (n,) at points (n, 3)."""
        return self._field.value(points * self._radius) / self._radius

    def value_and_gradient(self, points: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Values (n,) and gradients (n, 3) at points (n, 3)."""
        values, gradients = self._field.value_and_gradient(points * self._radius)
        return values / self._radius, gradients
