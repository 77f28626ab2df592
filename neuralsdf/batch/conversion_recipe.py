"""
conversion_recipe.py
--------------------
The options of a batch conversion: everything that affects a result, as one value that can be stored,
compared, and sent to a worker.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, fields
from typing import Any

from ..errors import UsageError
from ..mesh.inside_or_outside import Sign
from ..pipeline.convert import SAMPLES
from ..program.network import Architecture
from ..training.fit_settings import Training
from ..training.sampling import Density
from ..training.size_search import Target
from ..version import __version__


@dataclass(frozen=True)
class Recipe:
    """The arguments of `convert` that affect a result. The result of a shape does not depend on other shapes.

    All shapes have the same seed. So the model of a shape has the same bytes as that of `convert`, and all
    networks have the same initial weights. together: fit many networks at once, which is much faster on a
    GPU. Batches and corrections then have another order, so the models differ from those of `convert`, with
    the same quality. Raises `UsageError` for options that cannot be used for many meshes.
    """

    architecture: Architecture = field(default_factory=Architecture)
    density: Density = field(default_factory=Density)
    samples: int = SAMPLES
    training: Training = field(default_factory=Training)
    sign: Sign = "winding"
    thickness: float | None = None
    weight: str | None = None
    precision: str | None = None
    target: Target | None = None
    seed: int = 0
    together: bool = False
    unit: str | None = None
    measure: bool = True

    def __post_init__(self) -> None:
        if self.weight not in (None, "curvature", "thickness"):
            raise UsageError(
                f"`weight={self.weight!r}`: must be `curvature` or `thickness` for many meshes, not a file"
            )
        if self.together and self.target is not None:
            raise UsageError(
                "`together=True` with `target_error=`: networks that are fitted together must have one size"
            )
        if self.together and (self.training.seconds is not None or self.training.patience):
            raise UsageError(
                "`together=True` with `time=` or `patience=`: networks that are fitted together must take "
                "the same number of steps"
            )

    def arguments(self) -> dict[str, Any]:
        """The keyword arguments of `convert`."""
        return {item.name: getattr(self, item.name) for item in fields(self) if item.name != "together"}

    def options(self) -> dict[str, Any]:
        """All options and the version of this package, as JSON values."""
        plain = self.arguments() | {
            "architecture": self.architecture.to_json(),
            "density": self.density.to_json(),
            "training": asdict(self.training),
            "target": None if self.target is None else asdict(self.target),
        }
        # Omitted at their defaults, so that runs of versions without these options can be continued.
        if self.unit is None:
            del plain["unit"]
        if self.measure:
            del plain["measure"]
        return plain | {"together": self.together, "software": f"neuralsdf {__version__}"}
