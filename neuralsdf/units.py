"""
units.py
--------
Units of length, and the dimension (power of length) of each metric. Metrics are measured and stored in model
space and shown in mesh units.
"""

from __future__ import annotations

from collections.abc import Mapping

from .errors import UsageError

#: Units that a file may state, in metres.
LENGTHS = {"um": 1e-6, "mm": 1e-3, "cm": 1e-2, "m": 1.0, "in": 0.0254, "ft": 0.3048}


def length_ratio(known: str | None, wanted: str) -> float:
    """Factor that converts a length from `known` to `wanted`.

    Raises `UsageError` if `known` is None or `wanted` is not in `LENGTHS`.
    """
    if wanted not in LENGTHS:
        raise UsageError(f"unknown unit {wanted!r}; one of {', '.join(LENGTHS)}")
    if known is None:
        raise UsageError(
            f"the unit of length is not known, so lengths cannot be converted to {wanted}; "
            "set `units=` when the mesh is converted"
        )
    return 1.0 if known == wanted else LENGTHS[known] / LENGTHS[wanted]


def with_unit(text: str, unit: str | None, dimension: int = 1) -> str:
    """`text`, a length, area or volume, followed by its unit if that is known: `2 mm`, `8 mm³`."""
    return text if unit is None or not dimension else f"{text} {unit}{_POWERS[dimension]}"


_POWERS = {1: "", 2: "²", 3: "³"}

#: Dimension of every metric (evaluation/metrics.py): 0 for a ratio, 1 for a length, and so on.
DIMENSIONS = {
    "loss": 1,
    "far_error": 1,
    "surface_mean": 1,
    "surface_p95": 1,
    "surface_max": 1,
    "iou": 0,
    "accuracy": 1,
    "completeness": 1,
    "two_way": 1,
    "hausdorff": 1,
    "f_score": 0,
    "normal_consistency": 0,
    "accuracy_open": 1,
    "two_way_open": 1,
    "hausdorff_open": 1,
    "closing_share": 0,
    "volume": 3,
    "mesh_volume": 3,
    "area": 2,
    "sign_disagreement": 0,
}


def to_mesh_units(metrics: Mapping[str, float], scale: float) -> dict[str, float]:
    """Convert metrics from model space to mesh units; `scale` is the radius of the mesh's enclosing ball."""
    return {name: value * scale ** DIMENSIONS.get(name, 0) for name, value in metrics.items()}
