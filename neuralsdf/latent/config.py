"""
config.py
---------
The settings of a training: presets, TOML files, single values, and the check of each.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, is_dataclass, replace
from difflib import get_close_matches
from pathlib import Path
from typing import Any, get_type_hints

from ..errors import FileError, UsageError
from ..files.bounded_input import read_file
from ..latent_fields.decoder import DecoderShape

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

PRECISIONS = ("auto", "f32", "bf16")

#: Whole numbers from which a setting counts as infinite, and is refused.
_LARGEST = 10**300

#: Maximum size of a configuration file in bytes.
_MAX_FILE = 1 << 20


def _check(section: str, checks: Mapping[str, bool]) -> None:
    for requirement, met in checks.items():
        if not met:
            raise UsageError(f"[{section}] {requirement}")


@dataclass(frozen=True)
class DecoderSettings:
    """Layers of the decoder, and how they are trained.

    layers, width: hidden layers, and inputs of each. code: length of a shape's code. skip: index of the layer
    that also gets code and point; 0 for none. dropout: fraction of hidden values that are dropped in
    training. weight_norm: whether weights are trained as directions and gains.
    """

    layers: int = 8
    width: int = 512
    code: int = 256
    skip: int = 4
    activation: str = "relu"
    output: str = "tanh"
    dropout: float = 0.2
    weight_norm: bool = True

    def __post_init__(self) -> None:
        _check(
            "decoder",
            {
                "`layers` is 1 to 64": 1 <= self.layers <= 64,
                "`dropout` is at least 0 and below 1": 0 <= self.dropout < 1,
            },
        )
        try:
            _ = self.shape
        except UsageError as error:
            raise UsageError(f"[decoder] {error}") from error

    @property
    def shape(self) -> DecoderShape:
        """The decoder's shape."""
        hidden = (self.width,) * self.layers
        return DecoderShape(hidden, self.code, self.skip or None, self.activation, self.output)


@dataclass(frozen=True)
class CodeSettings:
    """The codes of the training shapes.

    deviation: expected norm of an initial code. bound: maximum norm. penalty: weight of the mean norm in the
    loss, reached after `penalty_epochs`.
    """

    deviation: float = 1.0
    bound: float = 1.0
    penalty: float = 1e-4
    penalty_epochs: int = 100

    def __post_init__(self) -> None:
        _check(
            "codes",
            {
                "`deviation` is positive": 0 < self.deviation < 1e6,
                "`bound` is positive": 0 < self.bound < 1e6,
                "`penalty` is not negative": 0 <= self.penalty < 1e6,
                "`penalty_epochs` is not negative": self.penalty_epochs >= 0,
            },
        )


@dataclass(frozen=True)
class TrainingSettings:
    """The steps of the optimizer, Adam.

    shapes, samples: shapes in a step, and samples of each, half of them inside. steps, epochs: length of the
    training, by one of them; an epoch shows every shape once. halvings: how often the learning rates are
    halved, at equal intervals. clamp: distances in the loss are limited to [-clamp, clamp]. gradient_norm:
    limit of the gradient's norm, 0 for none. precision: "f32", "bf16" for hidden values in bfloat16, or
    "auto" for bfloat16 on a GPU that has it; a run keeps which one it was.
    """

    shapes: int = 64
    samples: int = 16384
    steps: int = 0
    epochs: int = 2001
    learning_rate: float = 5e-4
    code_learning_rate: float = 1e-3
    halvings: int = 4
    clamp: float = 0.1
    gradient_norm: float = 0.0
    precision: str = "auto"
    seed: int = 0

    def __post_init__(self) -> None:
        _check(
            "training",
            {
                "`shapes` is 1 to 65536": 1 <= self.shapes <= 1 << 16,
                "`samples` is 2 to 1048576": 2 <= self.samples <= 1 << 20,
                "needs `steps` or `epochs`, not both": (self.steps > 0) != (self.epochs > 0),
                "`learning_rate` and `code_learning_rate` are positive": (
                    0 < self.learning_rate < 10 and 0 < self.code_learning_rate < 10
                ),
                "`halvings` is 0 to 64": 0 <= self.halvings <= 64,
                "`clamp` is positive": 0 < self.clamp <= 10,
                "`gradient_norm` is not negative": self.gradient_norm >= 0,
                f"`precision` is one of {', '.join(PRECISIONS)}": self.precision in PRECISIONS,
                "`seed` is not negative": 0 <= self.seed < 1 << 63,
            },
        )


@dataclass(frozen=True)
class ValidationSettings:
    """Shapes that are held out of the training, and how they are used.

    shapes: their number; 0 for no validation. every: steps between validations, 0 for twenty in all.
    iterations: steps in which their codes are found. patience: stop after so many validations without a
    better one, 0 for never.
    """

    shapes: int = 8
    every: int = 0
    iterations: int = 200
    patience: int = 0

    def __post_init__(self) -> None:
        _check(
            "validation",
            {
                "`shapes` is not negative": self.shapes >= 0,
                "`every` is not negative": self.every >= 0,
                "`iterations` is 1 to 100000": 1 <= self.iterations <= 100_000,
                "`patience` is not negative": self.patience >= 0,
            },
        )


@dataclass(frozen=True)
class Settings:
    """All settings of a training. model: the kind of model, "deepsdf"."""

    model: str = "deepsdf"
    decoder: DecoderSettings = field(default_factory=DecoderSettings)
    codes: CodeSettings = field(default_factory=CodeSettings)
    training: TrainingSettings = field(default_factory=TrainingSettings)
    validation: ValidationSettings = field(default_factory=ValidationSettings)

    def to_toml(self) -> str:
        """The settings as TOML, which `read_settings` reads."""
        lines = [f'model = "{self.model}"']
        for section, values in asdict(self).items():
            if isinstance(values, dict):
                lines += ["", f"[{section}]", *(f"{name} = {_toml(value)}" for name, value in values.items())]
        return "\n".join(lines) + "\n"

    def updated(self, values: Mapping[str, Any], source: str) -> Settings:
        """These settings with nested `values` instead of some; source: for messages.

        Raises `UsageError` for an unknown key, which names the most similar one, or a value of another type.
        """
        updated: Settings = _updated(self, values, source, "")
        return updated


#: DeepSDF as published, one for two cores of a CPU, and one that needs minutes there.
PRESETS = {
    "paper": Settings(),
    "small": Settings(
        decoder=DecoderSettings(width=128, code=64),
        training=TrainingSettings(shapes=16, samples=1024, steps=2000, epochs=0),
    ),
    "quick": Settings(
        decoder=DecoderSettings(width=128, code=64, dropout=0.0),
        codes=CodeSettings(deviation=0.25),
        training=TrainingSettings(
            shapes=32,
            samples=512,
            steps=1000,
            epochs=0,
            learning_rate=2e-3,
            code_learning_rate=5e-3,
        ),
        validation=ValidationSettings(every=250),
    ),
}


def read_settings(path: str | Path, base: Settings) -> Settings:
    """`base` with the values of a TOML file.

    Raises `FileError` for a file that cannot be read or is not TOML, `UsageError` for its values.
    """
    content = read_file(path, FileError, "a configuration", _MAX_FILE).data
    try:
        values = tomllib.loads(content.decode())
    except (ValueError, RecursionError) as error:
        raise FileError(
            path, f"is not a TOML file ({error})", "see docs/latent-models.md for an example"
        ) from error
    return base.updated(values, str(path))


def parse_settings(text: str) -> dict[str, Any]:
    """Nested values from TOML that is valid or a program's own; none from other text."""
    try:
        return tomllib.loads(text)
    except (tomllib.TOMLDecodeError, RecursionError):
        return {}


def parse_assignments(assignments: list[str]) -> dict[str, Any]:
    """Nested values from texts such as "training.steps=500"; raises `UsageError` for others."""
    values: dict[str, Any] = {}
    for text in assignments:
        name, equals, value = text.partition("=")
        *sections, key = name.strip().split(".")
        if not equals or not key or len(sections) > 1:
            raise UsageError(f"{text!r} is not SECTION.KEY=VALUE, such as training.steps=500")
        try:
            parsed = tomllib.loads(f"value = {value}")["value"]
        except (ValueError, RecursionError):  # not TOML; a number of too many digits; nested too deeply
            parsed = value.strip()
        inner = values.setdefault(sections[0], {}) if sections else values
        if not isinstance(inner, dict) or (not sections and key in values):
            raise UsageError(
                f"{text!r}: {sections[0] if sections else key} is a section, given otherwise too"
            )
        inner[key] = parsed
    return values


def _updated(base: Any, values: Mapping[str, Any], source: str, prefix: str) -> Any:
    types = get_type_hints(type(base))
    changed: dict[str, Any] = {}
    for name, value in values.items():
        if name not in types:
            near = get_close_matches(str(name), types, 1)
            hint = f"; did you mean `{prefix}{near[0]}`?" if near else f"; known: {', '.join(types)}"
            raise UsageError(f"{source}: unknown setting `{prefix}{name}`{hint}")
        changed[name] = _value(getattr(base, name), types[name], value, source, f"{prefix}{name}")
    if changed.get("steps") and "epochs" not in changed and hasattr(base, "epochs"):
        changed["epochs"] = 0
    if changed.get("epochs") and "steps" not in changed and hasattr(base, "steps"):
        changed["steps"] = 0
    try:
        return replace(base, **changed)
    except UsageError as error:
        raise UsageError(f"{source}: {error}") from error


def _value(present: Any, wanted: type, value: Any, source: str, name: str) -> Any:
    if is_dataclass(present):
        if not isinstance(value, Mapping):
            raise UsageError(f"{source}: `{name}` is a section, [{name}]")
        return _updated(present, value, source, f"{name}.")
    if wanted is float and isinstance(value, int) and not isinstance(value, bool):
        value = float(value) if abs(value) < _LARGEST else math.inf
    if type(value) is not wanted:
        kinds = {int: "a whole number", float: "a number", bool: "true or false", str: "a text"}
        raise UsageError(f"{source}: `{name}` is {kinds[wanted]}, not {value!r}")
    return value


def _toml(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return f'"{value}"' if isinstance(value, str) else repr(value)


def setting_names() -> list[str]:
    """All names that `parse_assignments` may have, such as "training.steps"."""
    base = Settings()
    return [
        f"{section.name}.{key.name}"
        for section in fields(base)
        if is_dataclass(getattr(base, section.name))
        for key in fields(getattr(base, section.name))
    ]
