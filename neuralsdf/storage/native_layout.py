"""
native_layout.py
----------------
Our own layout: the attributes of model_attributes.py and one data set `weights` in a format of
compression/quantize.py, whose dtype determines the precision. Besides the weights it takes about a kilobyte.
"""

from __future__ import annotations

from typing import Any

import h5py
import numpy.typing as npt

from ..compression.quantize import PRECISIONS, decode, encode, stored_form
from ..fields.field import NeuralField
from ..program.network import Architecture
from .hdf5 import ModelFile, file_image
from .model_attributes import MODEL, read_record, write_record
from .weight_checks import network_of


def to_bytes(field: NeuralField) -> bytes:
    """The complete file of a field; raises `UsageError` as `quantize.encode` does."""
    architecture = field.network.architecture
    stored = encode(architecture, field.network.weights, field.precision)

    def build(root: h5py.File) -> None:
        write_record(root, MODEL, architecture.to_json(), field, stored.tobytes())
        root.create_dataset("weights", data=stored, dtype=stored.dtype, track_times=False)

    return file_image(build)


def read(file: ModelFile) -> tuple[NeuralField, bytes]:
    """The field in a file of this layout, and its verified checksum; raises `ModelError`."""
    record = read_record(file)
    architecture = record.architecture
    precision, stored = _stored(file, architecture)
    if not record.matches(stored):
        raise file.error("its checksum does not match: the file is damaged", "copy or convert it again")
    field = NeuralField(
        network_of(file.path, architecture, decode(architecture, stored)),
        record.transform,
        record.source,
        record.metrics,
        record.settings,
        precision,
        unit=record.unit,
    )
    return field, record.checksum


def _stored(file: ModelFile, architecture: Architecture) -> tuple[str, npt.NDArray[Any]]:
    """Precision and stored weights for this architecture."""
    form = file.form("weights")
    for precision in PRECISIONS:
        if form == stored_form(architecture, precision):
            return precision, file.values("weights")
    raise file.error(f"its weights {form.shape} are not those of a {architecture} network")
