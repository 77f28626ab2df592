"""
model_attributes.py
-------------------
Root attributes of our HDF5 files, in every layout: everything except the weights.

    format          "neuralsdf"; "neuralsdf-code" for a latent code
    format_version  1
    architecture    JSON: hidden widths, activation, output; instead of it, `decoder` for a latent code
    transform       4x4 float64: model space to mesh space
    metadata        zlib-compressed JSON: source, metrics (lengths in model space), settings, software; and
                    the unit of mesh space if known
    checksum        SHA-256 of architecture or decoder, transform, metadata (as stored), and the bytes of
                    the weights or the code
"""

from __future__ import annotations

import json
import math
import re
import zlib
from dataclasses import asdict, dataclass, replace
from hashlib import sha256
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt

from ..errors import UsageError
from ..fields.field import NeuralField
from ..geometry.similarity_transform import Similarity
from ..mesh.mesh import Source
from ..program.network import Architecture
from ..units import DIMENSIONS, LENGTHS
from ..version import __version__
from .hdf5 import MAX_ATTRIBUTE, ModelFile

if TYPE_CHECKING:
    import h5py

FORMAT_VERSION = 1


class RecordForm(NamedTuple):
    """The value of the attribute `format`, and the attribute with the JSON that describes the weights."""

    format: str
    described_by: str


#: Forms of the files of one shape: with its network, and with its latent code.
MODEL = RecordForm("neuralsdf", "architecture")
CODE = RecordForm("neuralsdf-code", "decoder")

#: Value of the attribute `format` in data sets of many shapes (dataset.py).
DATASET_FORMAT = "neuralsdf-dataset"

#: Maximum decompressed size of the metadata.
_MAX_METADATA = 1 << 20

#: Limits on untrusted metadata; our own is far below them.
_MAX_TEXT, _MAX_SETTINGS, _MAX_NUMBER = 1024, 256, 1e100
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_ -]{0,63}")
_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class Record:
    """A field's data except the weights.

    description: of the weights, any JSON value. checksum: as stored in the file, 32 bytes.
    """

    description: Any
    transform: Similarity
    source: Source | None
    metrics: dict[str, float]
    settings: dict[str, Any]
    unit: str | None
    checksum: bytes
    _signed: bytes

    @property
    def architecture(self) -> Architecture:
        """The architecture of a model; raises `UsageError` if it is invalid."""
        return Architecture.from_json(self.description)

    def matches(self, weights: npt.NDArray[Any]) -> bool:
        """Whether the checksum matches the attributes and these weights, as stored."""
        digest = sha256(self._signed)
        digest.update(np.ascontiguousarray(weights).reshape(-1).view(np.uint8).data)
        return digest.digest() == self.checksum


def write_record(
    root: h5py.File, form: RecordForm, description: dict[str, Any], field: NeuralField, weights: bytes
) -> None:
    """Write the attributes of `field` to the root; raises `UsageError` if the settings are too large.

    description: of the weights, as `form.described_by`. weights: as stored.
    """
    described = _compact(description)
    transform = np.ascontiguousarray(field.transform.matrix, "<f8")
    metadata = zlib.compress(_compact(_metadata(field)), 9)
    if len(metadata) > MAX_ATTRIBUTE - 1024 or len(described) > MAX_ATTRIBUTE - 1024:
        raise UsageError(f"{len(metadata)} bytes of settings and metrics are too many for a model file")
    signed = described + transform.tobytes() + metadata
    attributes = {
        "format": np.bytes_(form.format),
        "format_version": np.uint16(FORMAT_VERSION),
        form.described_by: np.bytes_(described),
        "transform": transform,
        "metadata": np.frombuffer(metadata, np.uint8),
        "checksum": np.frombuffer(sha256(signed + weights).digest(), np.uint8),
    }
    for name, value in attributes.items():
        root.attrs.create(name, value)


def is_ours(file: ModelFile) -> bool:
    """Whether the file has the attributes of a model of ours."""
    return file.has_attribute("format") and file.text("format") == MODEL.format


def is_code(file: ModelFile) -> bool:
    """Whether the file has a latent code."""
    return file.has_attribute("format") and file.text("format") == CODE.format


def is_dataset(file: ModelFile) -> bool:
    """Whether the file is a data set of many shapes."""
    return file.has_attribute("format") and file.text("format") == DATASET_FORMAT


def read_record(file: ModelFile, form: RecordForm = MODEL) -> Record:
    """The attributes of one of our files of this form; raises `ModelError` if they are invalid."""
    version = file.integer("format_version")
    if version < 1:
        raise file.error(f"its format version is {version}")
    if version > FORMAT_VERSION:
        raise file.error(
            f"is of format version {version}; neuralsdf {__version__} reads up to {FORMAT_VERSION}",
            "install a newer neuralsdf",
        )
    described, transform = file.text(form.described_by).encode(), file.numbers("transform")
    metadata = json.loads(file.inflated("metadata", _MAX_METADATA), parse_constant=_refuse_constant)
    if not isinstance(metadata, dict):
        raise file.error("its metadata is not a JSON object")
    source, unit = _source(file, metadata.get("source")), metadata.get("unit")
    if unit is not None and (not isinstance(unit, str) or unit not in LENGTHS):
        raise file.error("its unit of length is unknown", "install a newer neuralsdf")
    return Record(
        json.loads(described),
        Similarity(transform),
        source if source is None else replace(source, unit=unit),
        known_metrics(metadata.get("metrics")),
        _settings(metadata.get("settings")),
        unit,
        file.octets("checksum"),
        described + transform.tobytes() + file.octets("metadata"),
    )


def _metadata(field: NeuralField) -> dict[str, Any]:
    source = None if field.source is None else asdict(field.source)
    if source is not None:
        del source["unit"]
    # Models without a unit have the same metadata as before units existed.
    return ({} if field.unit is None else {"unit": field.unit}) | {
        "source": source,
        "metrics": {name: _six_digits(value) for name, value in field.metrics.items()},
        "settings": field.settings,
        "software": f"neuralsdf {__version__}",
    }


def _six_digits(value: float) -> float | None:
    """Round to six significant digits; None (JSON null) if not finite."""
    return float(f"{value:.6g}") if math.isfinite(value) else None


def _compact(value: Any) -> bytes:
    try:
        return json.dumps(value, separators=(",", ":"), allow_nan=False).encode()
    except (TypeError, ValueError) as error:
        raise UsageError(f"a model's settings must be plain finite values: {error}") from error


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


def known_metrics(value: Any) -> dict[str, float]:
    """The metrics in `value` that are known to this version; NaN for invalid numbers."""
    stored = value if isinstance(value, dict) else {}
    numbers = {name: stored[name] for name in stored if name in DIMENSIONS}
    return {
        name: float(number) if _is_number(number) and abs(number) < _MAX_NUMBER else math.nan
        for name, number in numbers.items()
    }


def _settings(value: Any) -> dict[str, Any]:
    """The settings that are plain values with plain names; others are dropped."""
    stored = value if isinstance(value, dict) else {}
    plain = {
        name: setting for name, setting in stored.items() if _NAME.fullmatch(name) and _is_plain(setting)
    }
    return dict(list(plain.items())[:_MAX_SETTINGS])


def _is_plain(setting: Any) -> bool:
    """Whether a setting is a value that this package writes: a short text, a number, or a list of them."""
    if isinstance(setting, list):
        return (
            len(setting) <= _MAX_SETTINGS
            and all(_is_plain(item) for item in setting if not isinstance(item, list))
            and not any(isinstance(item, list) for item in setting)
        )
    if isinstance(setting, str):
        return len(setting) <= _MAX_TEXT and setting.isprintable()
    return setting is None or (_is_number(setting) and abs(setting) < _MAX_NUMBER)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float)


def _source(file: ModelFile, value: Any) -> Source | None:
    if value is None:
        return None
    try:
        source = Source(value["name"], value["sha256"], value["faces"], value["bytes"])
        known = (
            isinstance(source.name, str)
            and 0 < len(source.name) <= _MAX_TEXT
            and _SHA256.fullmatch(source.sha256) is not None
            and all(isinstance(count, int) and 0 <= count < 1 << 63 for count in (source.faces, source.bytes))
        )
    except (KeyError, TypeError):
        known = False
    if not known:
        raise file.error("its source is not a file name, a SHA-256 and two sizes")
    return replace(source, name=_encodable(source.name))


def _encodable(name: str) -> str:
    """A file name without surrogates, which cannot be printed; bytes that are not UTF-8 are kept."""
    return "".join(
        c if not "\ud800" <= c <= "\udfff" or "\udc80" <= c <= "\udcff" else "\ufffd" for c in name
    )
