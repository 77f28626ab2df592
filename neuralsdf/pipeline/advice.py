"""
advice.py
---------
Warnings about a mesh and its conversion, with options that would give a better result.
"""

from __future__ import annotations

from ..evaluation.metrics import sign_remark
from ..fields.extract import volume_difference, wrong_volume
from ..fields.field import NeuralField
from ..mesh.closed_bodies import has_even_edges
from .prepare_mesh import Prepared


def advice(shape: Prepared, made: NeuralField, seed: int, *, short_fit: bool) -> list[str]:
    """Warnings for the user about the mesh and the result, one line each."""
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
    """The warning for a field that represents its shape poorly."""
    wrong = volume_difference(made.known_volume, made.expected_volume)
    measured = (
        f"(IoU {made.metrics['iou']:.3f}, surface error {made.metrics['surface_mean']:.4f} of the radius"
        f"{f', volume {wrong}' if wrong else ''})"
    )
    if short_fit:
        more = "`samples=`, `epochs=` or `time=`"
        return f"the fit was cut short {measured}; more {more} would bring it closer"
    remedy = f"`width={_sufficient_width(made)}`"
    if "target_error" in made.settings:
        remedy = "a smaller `target_error=`"
    weights = made.network.architecture.weight_count
    return f"too detailed for {weights} weights {measured}; try {remedy}"


#: Beyond these values the user is warned that the network is too small for the shape.
_GOOD_IOU, _GOOD_ERROR = 0.93, 0.01


def _sufficient_width(made: NeuralField) -> int:
    """The width that should suffice for the shape, extrapolated.

    For a shape of a hundred thin parts, 1 - IoU fell from 0.078 at width 32 to 0.056 at 48; the inverse of
    that power is 1.2.
    """
    width = max(made.network.architecture.hidden)
    missing = max((1 - made.metrics["iou"]) / (1 - _GOOD_IOU), made.metrics["surface_mean"] / _GOOD_ERROR)
    return next((wider for wider in (48, 64, 96, 128) if wider >= width * missing**1.2), 256)
