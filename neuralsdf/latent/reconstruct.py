"""
reconstruct.py
--------------
Reconstructs a shape with a trained model: its code is found from what is known of it, and gives a field in
the units of the input.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from difflib import get_close_matches
from pathlib import Path, PurePosixPath

import numpy as np

from ..array_types import FloatArray
from ..errors import ModelError, UnknownShapeError, UsageError
from ..geometry.similarity_transform import Similarity
from ..latent_fields.decoder import Decoder
from ..latent_fields.decoder_file import read_decoder
from ..latent_fields.latent_field import LatentField
from .fit_pose import find_ball
from .inference import InferenceSettings, infer_code
from .observation import Observation, from_cloud, is_mesh, load_distinct_points, observe
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
        decoder, codes = read_decoder(folder.decoder), read_codes(folder.codes)
        length = len(next(iter(codes.values())))
        if length != decoder.shape.code:
            reason = f"has codes of {length} numbers, and the decoder takes {decoder.shape.code}"
            raise ModelError(folder.codes, reason, "train again")
        return cls(folder, decoder, codes)

    @property
    def all_codes(self) -> FloatArray:
        """The codes (m, c) of all training shapes."""
        return np.stack(list(self.codes.values()))

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

        A name may lack its suffix and its folders if it is unique then.
        """
        if name in self.codes:
            return self.codes[name]
        paths = [PurePosixPath(known) for known in self.codes]
        for short in ([str(path.with_suffix("")) for path in paths], [path.stem for path in paths]):
            if short.count(name) == 1:
                return self.codes[str(paths[short.index(name)])]
        near = get_close_matches(name, self.codes, 3)
        near = near or [str(path) for path in paths if get_close_matches(name, [path.stem])][:3]
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
    *,
    near: FloatArray | None = None,
) -> Reconstruction:
    """The shape whose code explains an observation best.

    near: codes (m, c) to start from; None for those of the training shapes.
    """
    began = time.perf_counter()
    codes = model.all_codes if near is None else near
    found = infer_code(model.decoder, observation.points, observation.distances, settings, codes)
    field = model.field(found.code, observation.transform, observation.unit)
    return Reconstruction(field, found.loss, time.perf_counter() - began)


def reconstruct_file(
    model: TrainedModel,
    path: str | Path,
    settings: InferenceSettings = InferenceSettings(),  # noqa: B008
    *,
    transform: Similarity | None = None,
    partial: bool = False,
    fit_pose: bool = False,
) -> Reconstruction:
    """The shape of a mesh or a point cloud, in its units.

    transform, partial: as for `observe`. fit_pose: find size and position of the ball around the whole shape,
    for a cloud that covers only a part of it. Raises as `observe` does, and `UsageError` for arguments that
    cannot be combined.
    """
    if not fit_pose:
        observation = observe(path, transform=transform, partial=partial, seed=settings.seed)
        return reconstruct(model, observation, settings)
    if transform is not None:
        raise UsageError("`fit_pose=True` finds what `transform=` gives; use one of them")
    if is_mesh(path):
        raise UsageError(f"{path}: `fit_pose=` only applies to point clouds, and this is a mesh")
    began, cloud = time.perf_counter(), load_distinct_points(path)
    found = find_ball(model.decoder, cloud, str(path), settings, model.all_codes)
    observation = from_cloud(cloud, str(path), found.transform, partial=True, seed=settings.seed)
    result = reconstruct(model, observation, replace(settings, starts=2), near=found.code[None])
    return replace(result, seconds=time.perf_counter() - began)
