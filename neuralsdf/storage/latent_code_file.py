"""
latent_code_file.py
-------------------
The latent code of one shape: the attributes of model_attributes.py, in which `decoder` takes the place of the
architecture, and a data set `code` (c,) float32.

    decoder    JSON: the decoder's file, relative to the folder of this file, and the SHA-256 of its shape and
               weights

Such a file is of little use without its decoder, which is therefore read and compared when it is opened.
"""

from __future__ import annotations

import os
from pathlib import Path, PurePosixPath
from typing import Any

import h5py
import numpy as np

from ..array_types import FloatArray
from ..errors import UsageError
from ..fields.field import NeuralField
from ..files.atomic_write import check_writable
from ..latent_fields.decoder import Decoder
from ..latent_fields.decoder_file import read_decoder
from ..latent_fields.latent_field import LatentField
from ..program.network import MAX_WIDTH
from .hdf5 import ModelFile, file_image
from .linked_files import is_outside, referenced, relative_name
from .model_attributes import CODE, read_record, write_record
from .weight_checks import refuse_overflow

#: Longest name of a decoder.
_MAX_NAME = 4096


def to_bytes(field: NeuralField, path: Path, *, allow_outside: bool = False) -> bytes:
    """The complete code file of a field, to be written to `path`.

    Raises `UsageError` for a field without a latent code, weights of another precision than float32, or a
    decoder outside of the folder of `path`, unless allowed; `OutputError` if `path` is the decoder.
    """
    if not isinstance(field, LatentField):
        raise UsageError(f"{path}: a network without a latent code; leave out `layout='code'`")
    check_writable(path, force=True, source=field.decoder_path)
    if field.precision != "f32":
        raise UsageError(f"{path}: a code is stored as float32; leave out `precision={field.precision!r}`")
    name = relative_name(field.decoder_path, path.parent)
    if is_outside(name) and not allow_outside:
        raise UsageError(
            f"{field.decoder_path}: lies outside of the code file's folder; `allow_outside=True` permits the "
            "reference, and a model file needs no decoder"
        )
    if not _is_name(name):
        raise UsageError(f"{field.decoder_path}: its name cannot be printed; rename it")
    code = np.ascontiguousarray(field.code, "<f4")
    description = {"file": Path(name).as_posix(), "sha256": field.decoder.sha256}

    def build(root: h5py.File) -> None:
        write_record(root, CODE, description, field, code.tobytes())
        root.create_dataset("code", data=code, dtype=code.dtype, track_times=False)

    return file_image(build)


def read(file: ModelFile, *, allow_outside: bool = False) -> tuple[LatentField, bytes]:
    """The field in a code file, and its verified checksum.

    allow_outside: whether its decoder may lie outside of its folder. Raises `ModelError` for a damaged file,
    and for a decoder that is missing or not the one that the code belongs to.
    """
    record = read_record(file, CODE)
    code = _code(file)
    if not record.matches(code):
        raise file.error("its checksum does not match: the file is damaged", "copy or make it again")
    name, digest = _reference(file, record.description)
    path = referenced(file.path.parent, name, "code", allow_outside=allow_outside)
    field = LatentField(
        record.transform,
        record.source,
        record.metrics,
        record.settings,
        unit=record.unit,
        decoder=_decoder(file, path, name, digest),
        code=code,
        decoder_path=path.absolute(),
    )
    refuse_overflow(file.path, field.network)
    return field, record.checksum


def _code(file: ModelFile) -> FloatArray:
    dtype, shape = file.form("code")
    if dtype != np.float32 or len(shape) != 1 or not 1 <= shape[0] <= MAX_WIDTH:
        raise file.error(f"its code {shape} {dtype} is not a vector of float32")
    return file.values("code")


def _reference(file: ModelFile, description: Any) -> tuple[str, str]:
    """Name and SHA-256 of the decoder."""
    values = description if isinstance(description, dict) else {}
    name, digest = values.get("file"), values.get("sha256")
    if not isinstance(name, str) or not isinstance(digest, str) or not _is_name(name):
        raise file.error("it does not name its decoder by a relative path and a SHA-256")
    return name, digest


def _is_name(name: str) -> bool:
    """Whether `name` is valid for a decoder: a relative path that can be printed."""
    return 0 < len(name) <= _MAX_NAME and name.isprintable() and not PurePosixPath(name).is_absolute()


def _decoder(file: ModelFile, path: Path, name: str, digest: str) -> Decoder:
    if not os.path.exists(path):  # a Path raises for a name that is too long
        raise file.error(
            f"its decoder {name} is missing",
            "restore it; its path is relative to this file, so move both together",
        )
    file.budget.add_file(path)
    decoder = read_decoder(path, budget=file.budget)
    if decoder.sha256 != digest:
        raise file.error(
            f"its decoder {name} has different weights than the one that the code belongs to (retrained?)",
            "restore it, or reconstruct the shape again",
        )
    return decoder
