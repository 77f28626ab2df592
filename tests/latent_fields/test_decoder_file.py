"""Decoder files: round trips, and what is not a decoder is an error in one line."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from neuralsdf.errors import ModelError
from neuralsdf.latent_fields.decoder import DecoderShape
from neuralsdf.latent_fields.decoder_file import read_decoder, write_decoder
from neuralsdf.latent_fields.tensor_file import read_tensors, write_tensors

from ..helpers.decoders import random_decoder

SHAPE = DecoderShape((12, 12, 9), code=4, skip=2, activation="softplus")


def test_a_decoder_is_read_back(tmp_path: Path) -> None:
    decoder = replace(random_decoder(SHAPE), metadata={"clamp": "0.1", "epochs": "2000"})
    write_decoder(tmp_path / "a.safetensors", decoder)
    read = read_decoder(tmp_path / "a.safetensors")
    assert read.shape == SHAPE
    assert read.metadata == decoder.metadata
    assert read.sha256 == decoder.sha256
    for name, weights in decoder.weights.items():
        assert read.weights[name].tobytes() == weights.tobytes()
    write_decoder(tmp_path / "b.safetensors", read)
    assert (tmp_path / "a.safetensors").read_bytes() == (tmp_path / "b.safetensors").read_bytes()


def test_a_clamp_is_read_back_and_raises_the_version(tmp_path: Path) -> None:
    plain = random_decoder(SHAPE)
    clamped = replace(plain, shape=replace(SHAPE, clamp=0.1))
    for decoder, version in ((plain, "1"), (clamped, "2")):
        write_decoder(tmp_path / "a.safetensors", decoder)
        assert read_tensors(tmp_path / "a.safetensors").metadata["format_version"] == version
        read = read_decoder(tmp_path / "a.safetensors")
        assert read.shape == decoder.shape
        assert read.sha256 == decoder.sha256


def test_the_safetensors_package_reads_it(tmp_path: Path) -> None:
    package = pytest.importorskip("safetensors.numpy")
    decoder = random_decoder(SHAPE)
    write_decoder(tmp_path / "a.safetensors", decoder)
    read = package.load_file(tmp_path / "a.safetensors")
    assert read.keys() == decoder.weights.keys()
    assert all(np.array_equal(read[name], weights) for name, weights in decoder.weights.items())


def changed(path: Path, weights: dict[str, Any] | None = None, **metadata: str) -> Path:
    """A decoder's file with other weights or metadata."""
    write_decoder(path, random_decoder(SHAPE))
    tensors, own = read_tensors(path)
    write_tensors(path, tensors | (weights or {}), own | metadata)
    return path


BIAS = np.zeros(12, np.float32)


@pytest.mark.parametrize(
    ("weights", "metadata", "reason"),
    [
        ({}, {"format": "checkpoint"}, "not a decoder"),
        ({}, {"format_version": "3"}, "newer neuralsdf"),
        ({}, {"shape": "nonsense"}, "not JSON"),
        ({}, {"shape": "[" * 100_000}, "not JSON"),
        ({}, {"shape": "{}"}, "list `hidden`"),
        ({}, {"shape": json.dumps(SHAPE.to_json() | {"code": 5})}, "float32"),
        ({}, {"shape": json.dumps(SHAPE.to_json() | {"hidden": [1 << 40]})}, "width"),
        ({"layers.0.bias": BIAS + np.float32(np.inf)}, {}, "not finite"),
        ({"layers.0.bias": BIAS.astype(np.float64)}, {}, "float32"),
        ({"layers.0.bias": BIAS[:, None]}, {}, "float32"),
        ({"layers.9.bias": BIAS}, {}, "unknown"),
    ],
    ids=str,
)
def test_what_is_not_a_decoder_is_refused(
    tmp_path: Path, weights: dict[str, Any], metadata: dict[str, str], reason: str
) -> None:
    path = changed(tmp_path / "a.safetensors", weights, **metadata)
    with pytest.raises(ModelError, match=reason) as refused:
        read_decoder(path)
    assert len(str(refused.value).splitlines()) == 1
