"""
latent_field.py
---------------
The field of one shape of a latent model: its code, evaluated by the decoder as a plain network.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from ..array_types import FloatArray
from ..fields.field import CLAMP, NeuralField
from ..program.network import Network
from .decoder import Decoder


@dataclass(frozen=True, eq=False, kw_only=True)
class LatentField(NeuralField):
    """A shape given by a latent code.

    decoder: the network that all shapes of its model share. code: (c,) float32. decoder_path: the file that
    holds the decoder. network: the decoder with the code folded in. The decoder's clamp is the `limit`.
    Raises `UsageError` for a code that is not one of the decoder's.
    """

    decoder: Decoder
    code: FloatArray
    decoder_path: Path
    network: Network = field(init=False)
    layout: str = "code"

    def __post_init__(self) -> None:
        object.__setattr__(self, "network", self.decoder.folded(self.code))
        if self.decoder.shape.clamp is not None:
            object.__setattr__(self, "settings", self.settings | {CLAMP: self.decoder.shape.clamp})
        super().__post_init__()
