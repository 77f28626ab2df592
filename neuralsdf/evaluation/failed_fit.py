"""
failed_fit.py
-------------
Detects failed fits from their metrics.
"""

from __future__ import annotations

from collections.abc import Mapping

#: A field with a lower IoU does not represent its mesh.
LEAST_IOU = 0.05


def failed_fit(
    metrics: Mapping[str, float], no_surface: str = "no surface was found, so it has no two-way distance"
) -> str | None:
    """The problem of a fit with these metrics: no surface, or one that does not represent the mesh.

    no_surface: why there is no surface, if that is known. None if there is no problem, or if the fit was not
    measured.
    """
    if "iou" not in metrics:
        return None
    if "two_way" not in metrics:
        return f"the fit failed: {no_surface}"
    if not metrics["iou"] >= LEAST_IOU:
        return f"the fit failed: its IoU is {metrics['iou']:.3g}, below {LEAST_IOU}"
    return None
