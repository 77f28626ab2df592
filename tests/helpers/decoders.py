"""Decoders of latent codes, for tests."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from neuralsdf.geometry.similarity_transform import Similarity
from neuralsdf.latent_fields.decoder import Decoder, DecoderShape
from neuralsdf.latent_fields.decoder_file import write_decoder
from neuralsdf.latent_fields.latent_field import LatentField


def random_decoder(shape: DecoderShape, seed: int = 0) -> Decoder:
    """A decoder with random weights (He et al. 2015), whose values vary over the ball, and biases."""
    rng = np.random.default_rng(seed)
    weights = {}
    for index, (rows, columns) in enumerate(shape.layer_shapes):
        spread = np.sqrt((2 if index < len(shape.hidden) else 1) / columns)
        weights[f"layers.{index}.weight"] = rng.normal(0, spread, (rows, columns)).astype(np.float32)
        weights[f"layers.{index}.bias"] = rng.normal(0, 0.05, rows).astype(np.float32)
        if shape.takes_input(index):
            weights[f"layers.{index}.weight"][:, -3:] = rng.normal(0, 1, (rows, 3))
    return Decoder(shape, weights)


def octahedra(activation: str = "relu") -> Decoder:
    """The octahedra abs(x) + abs(y) + abs(z) < a + b of the codes (a, b) of positive numbers.

    The value is the distance to the nearest face's plane, exact up to rounding with ReLU.
    """
    shape = DecoderShape((8, 8, 8), code=2, skip=2, activation=activation, output="linear")
    weights = {}
    for index, (rows, columns) in enumerate(shape.layer_shapes):
        weights[f"layers.{index}.weight"] = np.zeros((rows, columns), np.float32)
        weights[f"layers.{index}.bias"] = np.zeros(rows, np.float32)
    skip, last = weights["layers.2.weight"], weights["layers.3.weight"]
    hidden = shape.layer_shapes[1][0]
    skip[6:8, hidden : hidden + 2] = np.eye(2)
    skip[0:3, hidden + 2 :], skip[3:6, hidden + 2 :] = np.eye(3), -np.eye(3)
    last[0, :6], last[0, 6:8] = 1 / np.sqrt(3), -1 / np.sqrt(3)
    return Decoder(shape, weights)


def octahedron(folder: Path, radius: float = 0.6, **known: object) -> LatentField:
    """The octahedron of this radius in model space, whose decoder is `decoder.safetensors` in the folder."""
    path = folder / "decoder.safetensors"
    write_decoder(path, octahedra())
    code = np.array([radius - 0.1, 0.1], np.float32)
    known = {"transform": Similarity.from_ball([1, 2, 3], 2)} | known
    return LatentField(decoder=octahedra(), code=code, decoder_path=path, **known)  # type: ignore[arg-type]
