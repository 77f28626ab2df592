"""
metric_labels.py
----------------
Labels of the metrics in tables; JSON and files use the names in `evaluation/metrics.py`.
"""

from __future__ import annotations

#: Labels in the order of table rows.
LABELS = {
    "loss": "loss",
    "far_error": "far error",
    "surface_mean": "surface error, mean",
    "surface_p95": "surface error, 95 %",
    "surface_max": "surface error, max",
    "accuracy": "accuracy",
    "completeness": "completeness",
    "two_way": "two-way distance",
    "hausdorff": "Hausdorff distance",
    "accuracy_open": "accuracy without closing sheet",
    "two_way_open": "two-way distance without closing sheet",
    "hausdorff_open": "Hausdorff distance without closing sheet",
    "area": "area",
    "volume": "volume",
    "mesh_volume": "volume of the mesh",
    "iou": "IoU",
    "sign_disagreement": "sign disagrees with ray parity",
    "f_score": "F-score at 1 %",
    "normal_consistency": "normal consistency",
    "closing_share": "fraction on the closing sheet",
}
