"""
labels.py
---------
What the metrics are called in tables; in JSON and in files they have the names of `evaluation/metrics.py`.
"""

from __future__ import annotations

#: In the order of a table's rows.
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
    "accuracy_open": "accuracy, closing sheet left out",
    "two_way_open": "two-way distance, closing sheet left out",
    "hausdorff_open": "Hausdorff distance, closing sheet left out",
    "area": "area",
    "volume": "volume",
    "mesh_volume": "volume of the mesh",
    "iou": "IoU",
    "sign_disagreement": "sign disagrees with ray parity",
    "f_score": "F-score at 1 %",
    "normal_consistency": "normal consistency",
    "closing_share": "closing sheet's share",
}
