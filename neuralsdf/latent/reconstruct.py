"""
reconstruct.py
--------------
Reconstructs a shape with a trained model: its code is found from what is known of it, and gives a field in
the units of the input.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path, PurePosixPath

import numpy as np

from ..array_types import FloatArray
from ..errors import UnknownShapeError
from ..geometry.similarity_transform import Similarity
from ..latent_fields.decoder import Decoder
from ..latent_fields.decoder_file import read_decoder
from ..latent_fields.latent_field import LatentField
from .inference import InferenceSettings, infer_code
from .observation import Observation
from .run_folder import RunFolder, read_codes


@dataclass(frozen=True, eq=False)
class TrainedModel:
    """A trained model: its folder, decoder, and the codes (c,) of its training shapes by name."""

    folder: RunFolder
    decoder: Decoder
    codes: dict[str, FloatArray]

    @classmethod
    def open(cls, run: str | Path) -> TrainedModel:
        """The model in a run folder; raises `FileError` if there is none, or it is damaged."""
        folder = RunFolder(Path(run))
        folder.check_is_run()
        return cls(folder, read_decoder(folder.decoder), read_codes(folder.codes))

    def field(
        self, code: FloatArray, transform: Similarity | None = None, unit: str | None = None
    ) -> LatentField:
        """The field of a code; transform: model space to mesh space."""
        return LatentField(
            transform=Similarity.identity() if transform is None else transform,
            unit=unit,
            decoder=self.decoder,
            code=code,
            decoder_path=self.folder.decoder,
        )

    def code(self, name: str) -> FloatArray:
        """The code of a training shape; raises `UnknownShapeError`, which lists similar names.

        A name may lack its suffix if it is unique then.
        """
        if name in self.codes:
            return self.codes[name]
        short = [known for known in self.codes if str(PurePosixPath(known).with_suffix("")) == name]
        if len(short) == 1:
            return self.codes[short[0]]
        near = get_close_matches(name, self.codes, 3)
        hint = f"did you mean {', '.join(near)}?" if near else f"it has {len(self.codes)} shapes"
        raise UnknownShapeError(f"{self.folder.path}: no training shape {name!r}; {hint}")


@dataclass(frozen=True, eq=False)
class Reconstruction:
    """A reconstructed shape. loss: mean clamped difference from what is known of it, in model space."""

    field: LatentField
    loss: float
    seconds: float


def reconstruct(
    model: TrainedModel,
    observation: Observation,
    settings: InferenceSettings = InferenceSettings(),  # noqa: B008
) -> Reconstruction:
    """The shape whose code explains an observation best."""
    began = time.perf_counter()
    codes = np.stack(list(model.codes.values()))
    found = infer_code(model.decoder, observation.points, observation.distances, settings, codes)
    field = model.field(found.code, observation.transform, observation.unit)
    return Reconstruction(field, found.loss, time.perf_counter() - began)
