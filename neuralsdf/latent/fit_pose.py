"""
fit_pose.py
-----------
Finds where the ball of a shape is from a cloud that covers only a part of the shape: scale and position of
the ball, together with the code. The rotation is that of the cloud, since training shapes are aligned.

A part lies in the ball of the whole, so the ball of the whole is at least as large as that of the part. The
search begins with balls of several sizes on several sides of the part, and with codes of training shapes. The
best of these starts are improved by Adam on code, size and position, with the loss of the points along the
normals: their positions in model space depend on the ball, their distances there are known.
"""

from __future__ import annotations

import itertools
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from ..array_types import FloatArray, Points, Vectors
from ..geometry.similarity_transform import Similarity
from ..latent_fields.decoder import Decoder
from ..mesh.point_cloud import PointCloud
from .device import torch_threads
from .inference import InferenceSettings
from .models.deepsdf import Layer, split_layers, values
from .observation import along_normals, ball_around, unit_normals_of
from .random_keys import Purpose, generator

#: Radii of the first balls in radii of the part, and training codes and points that they are tried with.
_SIZES, _CODES, _POINTS = (1.2, 1.5, 2.0), 24, 256
#: Starts that are improved, the fraction of the iterations for it, and how many of them are improved further.
_STARTS, _FIRST, _LAST = 12, 0.1, 2
#: Samples of a step, samples that are drawn at once, and steps between draws.
_SAMPLES, _DRAWN, _EVERY = 2048, 16384, 100
#: Learning rate of size and position, and weight of the squared distance of points from the ball.
_RATE, _OUTSIDE = 1e-2, 1.0


class Posed(NamedTuple):
    """transform: model space to the space of the cloud. code: (c,). loss: of the points along the normals."""

    transform: Similarity
    code: FloatArray
    loss: float


class _Pose(NamedTuple):
    """A start. size, centre (3,): of the ball, with the ball of the part as the unit ball. code: (c,)."""

    size: float
    centre: FloatArray
    code: FloatArray
    loss: float

    @property
    def error(self) -> float:
        """The loss in units of the part: in model space, a part has smaller errors in a larger ball."""
        return self.size * self.loss


def find_ball(
    decoder: Decoder,
    cloud: PointCloud,
    name: str,
    settings: InferenceSettings,
    training_codes: FloatArray,
) -> Posed:
    """The ball and the code with the smallest error.

    name: of the cloud, for errors. training_codes: (m, c), from which starts are taken. Raises `PointsError`
    for a cloud without normals.
    """
    normals = unit_normals_of(cloud, name)
    part = ball_around(cloud.points, name)
    search = _Search(decoder, part.apply_inverse(cloud.points), normals, settings)
    with torch_threads(1):  # the batches are too small for several
        starts = search.starts(training_codes)[:_STARTS]
        first = sorted((search.improved(start, _FIRST) for start in starts), key=lambda pose: pose.error)
        found = min((search.improved(pose) for pose in first[:_LAST]), key=lambda pose: pose.error)
    transform = Similarity.from_ball(
        part.apply(found.centre[None].astype(np.float64))[0], found.size * part.scale
    )
    return Posed(transform, found.code, found.loss)


class _Search:
    """The search for one cloud: points (n, 3) in the unit ball, and unit normals (n, 3)."""

    def __init__(
        self, decoder: Decoder, points: Points, normals: Vectors, settings: InferenceSettings
    ) -> None:
        self._shape, self._settings = decoder.shape, settings
        weights = [
            (torch.from_numpy(weight), torch.from_numpy(bias))
            for weight, bias in (decoder.layer(i) for i in range(len(decoder.shape.layer_shapes)))
        ]
        self._layers: list[Layer] = split_layers(decoder.shape, weights)
        self._points, self._normals = points, normals
        self._rng = generator(settings.seed, Purpose.INFERENCE)

    def starts(self, training_codes: FloatArray) -> list[_Pose]:
        """The best code for each first ball, in order of error."""
        chosen = self._rng.permutation(len(training_codes))[:_CODES]
        codes = [np.zeros(self._shape.code, np.float32), *training_codes[chosen]]
        poses = []
        for size, centre in self._balls():
            points, distances = self._samples(size, centre, _POINTS)
            losses = [float(self._loss(points, distances, torch.from_numpy(code))) for code in codes]
            best = int(np.argmin(losses))
            poses.append(_Pose(size, centre, codes[best], losses[best]))
        return sorted(poses, key=lambda pose: pose.error)

    def _balls(self) -> list[tuple[float, FloatArray]]:
        """Sizes and centres (3,) of balls that contain the part's ball, about its centre or touching it.

        They lie on all sides, and on that which few normals point to, where the missing part is.
        """
        missing = -self._normals.mean(axis=0)
        grid = np.array([place for place in itertools.product((-1, 0, 1), repeat=3) if any(place)])
        sides = np.concatenate([missing[None], grid])
        sides = (sides / np.maximum(np.linalg.norm(sides, axis=1), 1e-12)[:, None]).astype(np.float32)
        centred = [(size, np.zeros(3, np.float32)) for size in (1.0, *_SIZES)]
        return centred + [(size, (size - 1) * side) for size in _SIZES for side in sides]

    def improved(self, start: _Pose, fraction: float = 1.0) -> _Pose:
        """The pose and the code that Adam finds from a start, in a fraction of the iterations."""
        settings, iterations = self._settings, max(2, int(fraction * self._settings.iterations))
        code = torch.from_numpy(start.code.copy()).requires_grad_()
        size = torch.tensor(float(np.log(start.size)), requires_grad=True)
        centre = torch.from_numpy(start.centre.copy()).requires_grad_()
        optimizer = torch.optim.Adam(
            [{"params": [code], "lr": settings.learning_rate}, {"params": [size, centre], "lr": _RATE}]
        )
        for step in range(iterations):
            if step == iterations // 2:
                for group in optimizer.param_groups:
                    group["lr"] /= 10
            if step % _EVERY == 0:
                drawn = self._drawn(float(size.detach().exp()), centre.detach().numpy(), _DRAWN)
            chosen = torch.from_numpy(self._rng.integers(0, len(drawn[0]), _SAMPLES))
            on, offsets, distances = (part[chosen] for part in drawn)
            optimizer.zero_grad()
            points = (on - centre) / size.exp() + offsets
            outside = (torch.linalg.vector_norm(points, dim=1) - 1).clamp_min(0).square().mean()
            loss = self._loss(points, distances, code) + _OUTSIDE * outside
            (loss + settings.penalty * code.square().mean()).backward()
            optimizer.step()
        end, place = float(size.detach().exp()), centre.detach().numpy()
        with torch.no_grad():
            points, distances = self._samples(end, place, _DRAWN)
            final = float(self._loss(points, distances, code))
        return _Pose(end, place, code.detach().numpy(), final)

    def _samples(self, size: float, centre: FloatArray, count: int) -> tuple[Tensor, Tensor]:
        """Points (n, 3) in the model space of a ball, and the distances (n,) there."""
        on, offsets, distances = self._drawn(size, centre, count)
        return (on - torch.from_numpy(centre)) / size + offsets, distances

    def _drawn(self, size: float, centre: FloatArray, count: int) -> tuple[Tensor, Tensor, Tensor]:
        """About `count` points of the cloud (n, 3), what is added in model space (n, 3), distances (n,)."""
        found = along_normals((self._points - centre) / size, self._normals, count, self._rng)
        offsets = found.distances[:, None] * self._normals[found.own]
        arrays = self._points[found.own], offsets, found.distances
        on, added, wanted = (torch.from_numpy(np.ascontiguousarray(array, np.float32)) for array in arrays)
        return on, added, wanted

    def _loss(self, points: Tensor, distances: Tensor, code: Tensor) -> Tensor:
        """Mean clamped difference of a code's field from distances (n,) at points (n, 3)."""
        clamp = self._shape.clamp or self._settings.clamp
        found = values(self._shape, self._layers, points, code)
        return (found.clamp(-clamp, clamp) - distances.clamp(-clamp, clamp)).abs().mean()
