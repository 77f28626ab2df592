"""
failed_fit.py
-------------
Detects failed fits from their metrics.
"""

from __future__ import annotations

from collections.abc import Mapping

#: A field with a lower IoU does not represent its mesh.
LEAST_IOU = 0.05


def failed_fit(metrics: Mapping[str, float]) -> str | None:
    """The problem of a fit with these metrics: no surface, or one that does not represent the mesh.

    None if there is no problem, or if the fit was not measured.
    """
    if "iou" not in metrics or ("two_way" in metrics and metrics["iou"] >= LEAST_IOU):
        return None
    return f"the fit failed: no usable surface (IoU {metrics['iou']:.3g})"
