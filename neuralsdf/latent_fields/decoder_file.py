"""
decoder_file.py
---------------
Decoder files: a tensor file with the weights by name. Its metadata hold the format, the shape of the decoder
as JSON, and notes of the training.
"""

from __future__ import annotations

import json
from pathlib import Path

from ..errors import ModelError, UsageError
from ..files.bounded_input import Budget
from ..program.network import MAX_WEIGHTS
from ..version import __version__
from .decoder import Decoder, DecoderShape
from .tensor_file import MAX_HEADER, read_tensors, write_tensors

FORMAT = "neuralsdf-decoder"
#: Version 1 has no clamp.
FORMAT_VERSIONS = ("1", "2")

#: Keys of the metadata that are not notes of the training.
_OWN = ("format", "format_version", "shape")

_LARGEST = 4 * MAX_WEIGHTS + MAX_HEADER + 8


def write_decoder(path: str | Path, decoder: Decoder, *, force: bool = True) -> None:
    """Write a decoder and its metadata to a .safetensors file, completely or not at all.

    Equal decoders give equal bytes. Raises as `write_tensors` does.
    """
    version = FORMAT_VERSIONS[decoder.shape.clamp is not None]
    own = (FORMAT, version, json.dumps(decoder.shape.to_json(), separators=(",", ":")))
    notes = {key: text for key, text in sorted(decoder.metadata.items()) if key not in _OWN}
    write_tensors(path, decoder.weights, dict(zip(_OWN, own, strict=True)) | notes, force=force)


def read_decoder(path: str | Path, *, budget: Budget | None = None) -> Decoder:
    """The decoder in a file.

    budget: shared with the whole that the file is part of; None for a separate one. Raises `ModelError` for a
    file that is missing, damaged, too new, or not a decoder.
    """
    tensors, metadata = read_tensors(path, kind="a decoder", largest=_LARGEST, budget=budget)
    if metadata.get("format") != FORMAT:
        raise ModelError(path, "is a tensor file, but not a decoder", "name the decoder of a training run")
    if metadata.get("format_version") not in FORMAT_VERSIONS:
        raise ModelError(
            path,
            f"is of another format version than neuralsdf {__version__} reads",
            "install a newer neuralsdf",
        )
    try:
        shape = DecoderShape.from_json(json.loads(metadata.get("shape", "")))
        return Decoder(shape, tensors, {key: text for key, text in metadata.items() if key not in _OWN})
    except UsageError as error:
        raise ModelError(path, str(error), "copy it again") from error
    except (ValueError, RecursionError) as error:
        raise ModelError(path, "the shape of the decoder is not JSON", "copy it again") from error
