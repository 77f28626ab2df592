"""
record.py
---------
The root attributes that make an HDF5 file ours, in either layout: everything but the weights.

    format          "neuralsdf"
    format_version  1
    architecture    JSON: hidden widths, activation, output
    transform       4x4 float64: model space to mesh space
    metadata        zlib-deflated JSON: source, metrics (lengths in model space), settings, software
    checksum        SHA-256 of architecture, transform, metadata (as stored) and the weights' bytes
"""

from __future__ import annotations

import json
import math
import zlib
from dataclasses import asdict, dataclass
from hashlib import sha256
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import UsageError
from ..field import NeuralField
from ..mesh import Source
from ..network import Architecture
from ..similarity import Similarity
from ..version import __version__
from .hdf5 import MAX_ATTRIBUTE, ModelFile

if TYPE_CHECKING:
    import h5py

FORMAT = "neuralsdf"
FORMAT_VERSION = 1

#: The attribute `format` of a data set of many shapes (dataset.py).
DATASET_FORMAT = "neuralsdf-dataset"

#: A bound on what the deflated metadata may unpack to.
_MAX_METADATA = 1 << 20


@dataclass(frozen=True)
class Record:
    """What is known of a field besides its weights; checksum is what the file says, 32 bytes."""

    architecture: Architecture
    transform: Similarity
    source: Source | None
    metrics: dict[str, float]
    settings: dict[str, Any]
    checksum: bytes
    _signed: bytes

    def matches(self, weights: bytes) -> bool:
        """Whether the checksum is that of the attributes and these weights, as they are stored."""
        return sha256(self._signed + weights).digest() == self.checksum


def write_record(root: h5py.File, field: NeuralField, weights: bytes) -> None:
    """Put the attributes of `field` on the root; raises `UsageError` if the settings are too large."""
    architecture = _compact(field.network.architecture.to_json())
    transform = np.ascontiguousarray(field.transform.matrix, "<f8")
    metadata = zlib.compress(_compact(_metadata(field)), 9)
    if len(metadata) > MAX_ATTRIBUTE - 1024 or len(architecture) > MAX_ATTRIBUTE - 1024:
        raise UsageError(f"{len(metadata)} bytes of settings and metrics are too many for a model file")
    signed = architecture + transform.tobytes() + metadata
    attributes = {
        "format": np.bytes_(FORMAT),
        "format_version": np.uint16(FORMAT_VERSION),
        "architecture": np.bytes_(architecture),
        "transform": transform,
        "metadata": np.frombuffer(metadata, np.uint8),
        "checksum": np.frombuffer(sha256(signed + weights).digest(), np.uint8),
    }
    for name, value in attributes.items():
        root.attrs.create(name, value)


def is_ours(file: ModelFile) -> bool:
    """Whether the file has our attributes."""
    return file.has_attribute("format") and file.text("format") == FORMAT


def is_dataset(file: ModelFile) -> bool:
    """Whether the file is a data set of many shapes."""
    return file.has_attribute("format") and file.text("format") == DATASET_FORMAT


def read_record(file: ModelFile) -> Record:
    """The attributes of a file that is ours; raises `ModelError` for what they cannot be."""
    version = int(file.array("format_version"))
    if version > FORMAT_VERSION:
        raise file.error(
            f"is of format version {version}; neuralsdf {__version__} reads up to {FORMAT_VERSION}",
            "install a newer neuralsdf",
        )
    architecture = file.text("architecture").encode()
    transform = file.array("transform").astype("<f8")
    deflated = file.array("metadata").astype(np.uint8).tobytes()
    metadata = _inflated(deflated)
    source = metadata["source"]
    return Record(
        Architecture.from_json(json.loads(architecture)),
        Similarity(transform),
        None if source is None else _source(source),
        {
            str(name): math.nan if value is None else float(value)
            for name, value in metadata["metrics"].items()
        },
        dict(metadata["settings"]),
        file.array("checksum").astype(np.uint8).tobytes(),
        architecture + transform.tobytes() + deflated,
    )


def _metadata(field: NeuralField) -> dict[str, Any]:
    return {
        "source": None if field.source is None else asdict(field.source),
        "metrics": {name: _six_digits(value) for name, value in field.metrics.items()},
        "settings": field.settings,
        "software": f"neuralsdf {__version__}",
    }


def _six_digits(value: float) -> float | None:
    """A measured number to the digits that mean something; None (JSON's null) for what is not finite."""
    return float(f"{value:.6g}") if math.isfinite(value) else None


def _compact(value: Any) -> bytes:
    try:
        return json.dumps(value, separators=(",", ":"), allow_nan=False).encode()
    except (TypeError, ValueError) as error:
        raise UsageError(f"the settings of a model are plain finite values: {error}") from error


def _inflated(deflated: bytes) -> dict[str, Any]:
    unpacked = zlib.decompressobj().decompress(deflated, _MAX_METADATA)
    metadata: dict[str, Any] = json.loads(unpacked, parse_constant=_refuse_constant)
    return metadata


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


def _source(value: dict[str, Any]) -> Source:
    return Source(str(value["name"]), str(value["sha256"]), int(value["faces"]), int(value["bytes"]))
