"""
units.py
--------
Units of length, and which power of a length each metric is: metrics are measured and stored in model space,
and shown in the mesh's own units.
"""

from __future__ import annotations

from collections.abc import Mapping

from .errors import UsageError

#: The units that a file may state, in metres.
LENGTHS = {"um": 1e-6, "mm": 1e-3, "cm": 1e-2, "m": 1.0, "in": 0.0254, "ft": 0.3048}


def length_ratio(known: str | None, wanted: str) -> float:
    """How many of the wanted unit one of the known unit is; raises `UsageError` where none is known."""
    if wanted not in LENGTHS:
        raise UsageError(f"unknown unit {wanted!r}; one of {', '.join(LENGTHS)}")
    if known is None:
        raise UsageError(
            f"the unit of length is not known, so nothing can be given in {wanted}; "
            "`units=` states that of a mesh when it is converted"
        )
    return 1.0 if known == wanted else LENGTHS[known] / LENGTHS[wanted]


def with_unit(text: str, unit: str | None, dimension: int = 1) -> str:
    """The text of a length, an area or a volume, with its unit where that is known: `2 mm`, `8 mm³`."""
    return text if unit is None or not dimension else f"{text} {unit}{_POWERS[dimension]}"


_POWERS = {1: "", 2: "²", 3: "³"}

#: Every metric (evaluation/metrics.py) and the power of length it has: 0 for a ratio, 1 for a length.
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
    """Metrics of model space in mesh units; `scale` is the radius of the mesh's enclosing ball there."""
    return {name: value * scale ** DIMENSIONS.get(name, 0) for name, value in metrics.items()}
