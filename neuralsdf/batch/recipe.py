"""
recipe.py
---------
How the meshes of a batch are converted: every option that shapes a result, as one value that can be
written down, compared, and sent to a worker.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field, fields
from hashlib import sha256
from typing import Any

from ..errors import UsageError
from ..mesh.signed_distance import Sign
from ..pipeline.convert import SAMPLES
from ..program.network import Architecture
from ..training.fit import Training
from ..training.sampling import Density
from ..training.size_search import Target
from ..version import __version__


@dataclass(frozen=True)
class Recipe:
    """The arguments of `convert` that shape a result; a shape's does not depend on the others'.

    All shapes have the same seed, so a shape's model is the one that `convert` makes of it, byte for byte,
    and all networks begin with the same weights. together: networks are fitted many at a time, with batches
    and corrections of their own order, so the models are others, as good; a GPU does that much faster. Raises
    `UsageError` for what means nothing for many meshes.
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
                f"`weight={self.weight!r}`: for many meshes `curvature` or `thickness`, not a file"
            )
        if self.together and self.target is not None:
            raise UsageError("`together=True` with `target_error=`: networks fitted together are of one size")
        if self.together and (self.training.seconds is not None or self.training.patience):
            raise UsageError(
                "`together=True` with `time=` or `patience=`: networks fitted together take as long"
            )

    def arguments(self) -> dict[str, Any]:
        """The keyword arguments of `convert`."""
        return {item.name: getattr(self, item.name) for item in fields(self) if item.name != "together"}

    def options(self) -> dict[str, Any]:
        """All of it, and the version of this package, as JSON values."""
        plain = self.arguments() | {
            "architecture": self.architecture.to_json(),
            "density": self.density.to_json(),
            "training": asdict(self.training),
            "target": None if self.target is None else asdict(self.target),
        }
        # As before there were these options: a run without them resumes.
        if self.unit is None:
            del plain["unit"]
        if self.measure:
            del plain["measure"]
        return plain | {"together": self.together, "software": f"neuralsdf {__version__}"}

    @classmethod
    def from_options(cls, options: dict[str, Any]) -> Recipe:
        """The recipe that has these options."""
        given = {item.name: options[item.name] for item in fields(cls) if item.name in options}
        return cls(
            **given
            | {
                "architecture": Architecture.from_json(options["architecture"]),
                "density": Density(**options["density"]),
                "training": Training(**options["training"]),
                "target": None if options["target"] is None else Target(**options["target"]),
            }
        )

    def key(self, content: str) -> str:
        """SHA-256 (hex) of all that a result depends on; content: the hash of the mesh file."""
        return sha256(json.dumps([content, self.options()], sort_keys=True).encode()).hexdigest()


def difference(options: dict[str, Any], others: dict[str, Any]) -> str | None:
    """The first option in which two recipes differ, such as `training.epochs: 30, not 12`; or None."""
    here, there = _flat(options), _flat(others)
    for name in here | there:
        if here.get(name) != there.get(name):
            return f"{name}: {there.get(name)}, not {here.get(name)}"
    return None


def _flat(options: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in options.items():
        flat |= _flat(value, f"{prefix}{name}.") if isinstance(value, dict) else {f"{prefix}{name}": value}
    return flat
