"""
failed_fit.py
-------------
Whether a fit has a usable surface, by its metrics.
"""

from __future__ import annotations

from collections.abc import Mapping

#: A field whose IoU is below this shows nothing of its mesh.
LEAST_IOU = 0.05


def failed_fit(metrics: Mapping[str, float]) -> str | None:
    """What is wrong with a fit that has these metrics: no surface, or none that shows the mesh.

    None for a fit that has one, and for one that was not measured.
    """
    if "iou" not in metrics or ("two_way" in metrics and metrics["iou"] >= LEAST_IOU):
        return None
    return f"the fit failed: no usable surface (IoU {metrics['iou']:.3g})"
