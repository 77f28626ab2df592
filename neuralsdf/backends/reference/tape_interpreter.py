"""
tape_interpreter.py
-------------------
Evaluates a tape in NumPy, block by block: the reference for backends that evaluate tapes themselves.

Values and gradients have the dtype of the points. Gradients are exact: that of the branch taken by each
operation, as in automatic differentiation.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from ...grid.sparse_grid import fastest_lattice
from ...grid.surface_search import HostFieldLattice
from ...program.network import Network
from ...program.primitive_distances import PRIMITIVES, Array, Distance, Sample
from ...program.tape_format import FRAME, HostField, Op, Tape
from ...thread_count import side_by_side
from .. import Program
from ..value_outside_ball import Extended
from .sphere_tracing import Marched

#: Numbers in the registers of a block: small enough for the cache, and for the memory if a tree is deep.
_NUMBERS = 1 << 20
_MIN_BLOCK, _MAX_BLOCK = 64, 1 << 13

#: A blend with a smaller radius is a sharp union: in single precision nothing can be divided by it.
_SHARP = 1e-30

#: Relative amount subtracted from a distance to a ball; single-precision rounding is smaller.
_ROUNDING = 2e-6

_SOLIDS: dict[int, Distance] = {
    Op[word.upper()]: primitive.distance for word, primitive in PRIMITIVES.items()
}


def _block(tape: Tape, leaves: Sequence[HostField], points: npt.NDArray[Any], with_gradient: bool) -> Sample:
    """Evaluate the tape at points (n, 3), n small; `leaves` are its leaves, extended to all of space."""
    places: list[Array] = [np.ascontiguousarray(points.T)] * tape.points
    values = [Sample(places[0][0], None)] * tape.values
    parameters = tape.parameters.tolist()  # Python floats do not promote float32 arrays
    ends = [*tape.code[1:, 4].tolist(), len(parameters)]
    for (op, out, a, b, begin), end in zip(tape.code.tolist(), ends, strict=True):
        numbers = parameters[begin:end]
        if op in _SOLIDS:
            q = _moved(places[a], numbers)
            values[out] = _returned(_SOLIDS[op](q, numbers[FRAME:], with_gradient), numbers)
        elif op == Op.FIELD:
            q = _moved(places[a], numbers)
            values[out] = _returned(_leaf(leaves[int(numbers[FRAME])], q, with_gradient), numbers)
        elif op == Op.NEAREST:
            values[out] = _nearest(leaves, np.reshape(numbers, (b, FRAME + 1)), places[a], with_gradient)
        elif op in _TWO:
            values[out] = _TWO[op](values[a], values[b], numbers[0])
        elif op in _ONE:
            values[out] = _ONE[op](values[a], numbers)
        elif op == Op.DISPLACE:
            values[out] = _displaced(values[a], _moved(places[b], numbers), numbers)
        elif op in _ENTER:
            places[out] = _ENTER[op](_moved(places[a], numbers), numbers[FRAME:])
        else:
            q = _moved(places[b], numbers)
            values[out] = _returned(_LEAVE[op](values[a], q, numbers[FRAME:]), numbers)
    return values[0]


# -- frames and leaves --------------------------------------------------------------------------------


def _moved(p: Array, frame: Sequence[float] | Array) -> Array:
    """q = M p + t (3, n)."""
    matrix = np.array(frame[:9], p.dtype).reshape(3, 3)
    moved: Array = matrix @ p
    moved += np.array(frame[9:12], p.dtype)[:, None]
    return moved


def _returned(sample: Sample, frame: Sequence[float]) -> Sample:
    """Convert a sample from q's space to p's."""
    value, gradient = sample
    if gradient is None:
        return Sample(value * frame[12], None)
    matrix = np.array(frame[:9], value.dtype).reshape(3, 3) * np.asarray(frame[12], value.dtype)
    return Sample(value * frame[12], matrix.T @ gradient)


def _leaf(field: HostField, q: Array, with_gradient: bool) -> Sample:
    """Evaluate a leaf at points (3, n) of its own space."""
    points = np.ascontiguousarray(q.T, np.float32)
    if not with_gradient:
        return Sample(field.value(points).astype(q.dtype), None)
    value, gradient = field.value_and_gradient(points)
    return Sample(value.astype(q.dtype), gradient.T.astype(q.dtype))


def _nearest(leaves: Sequence[HostField], places: Array, p: Array, with_gradient: bool) -> Sample:
    """Minimum of networks at points (3, n), each with a frame and an index (b, FRAME + 1).

    Outside its ball, a network's value is at least the distance to the ball: points where that exceeds the
    minimum so far are skipped. Networks are evaluated in order of the distance from their ball to the points.
    """
    bounds = np.stack([_beyond_ball(frame, p) for frame in places])
    value, gradient = np.full(p.shape[1], np.inf, p.dtype), np.zeros(p.shape, p.dtype)
    found = np.full(p.shape[1], len(places))
    for number in np.argsort(bounds.min(axis=1), kind="stable"):
        frame = places[number].tolist()  # as in `_block`
        candidates = np.flatnonzero(~(bounds[number] > value) & ~np.isnan(value))  # NaN stays NaN
        sample = _returned(
            _leaf(leaves[int(frame[FRAME])], _moved(p[:, candidates], frame), with_gradient), frame
        )
        nearer = ~(sample.value > value[candidates])
        nearer &= (sample.value != value[candidates]) | (number < found[candidates])
        chosen = candidates[nearer]
        value[chosen], found[chosen] = sample.value[nearer], number
        if sample.gradient is not None:
            gradient[:, chosen] = sample.gradient[:, nearer]
    return Sample(value, gradient if with_gradient else None)


def _beyond_ball(frame: Array, p: Array) -> Array:
    """Lower bound of the distance of points (3, n) to the ball of a network in a frame; -inf inside."""
    reach = np.linalg.norm(_moved(p, frame), axis=0)
    outside: Array = (reach * (1 - _ROUNDING) - 1 - _ROUNDING * np.abs(frame[9:12]).sum()) * frame[12]
    return np.where(outside > 0, outside, -np.inf)


# -- values -------------------------------------------------------------------------------------------


def _union(a: Sample, b: Sample, radius: float) -> Sample:
    """The minimum; with a radius, a quadratic blend that is lower where the values differ by less."""
    if radius < _SHARP:
        value = np.minimum(a.value, b.value)
        if a.gradient is None or b.gradient is None:
            return Sample(value, None)
        return Sample(value, np.where(a.value <= b.value, a.gradient, b.gradient))
    weight = np.clip(0.5 + (b.value - a.value) * (0.5 / radius), 0, 1)
    value = b.value + (a.value - b.value) * weight - radius * weight * (1 - weight)
    return Sample(value, _between(b.gradient, a.gradient, weight))


def _intersection(a: Sample, b: Sample, radius: float) -> Sample:
    return _negated(_union(_negated(a), _negated(b), radius))


def _difference(a: Sample, b: Sample, radius: float) -> Sample:
    return _negated(_union(_negated(a), b, radius))


def _blended(a: Sample, b: Sample, weight: float) -> Sample:
    return Sample(a.value + (b.value - a.value) * weight, _between(a.gradient, b.gradient, weight))


def _negated(a: Sample) -> Sample:
    return Sample(-a.value, None if a.gradient is None else -a.gradient)


def _offset(a: Sample, numbers: Sequence[float]) -> Sample:
    return Sample(a.value - numbers[0], a.gradient)


def _wall(a: Sample, numbers: Sequence[float]) -> Sample:
    """The wall from numbers[0] outside the surface to numbers[1] inside it."""
    outer, inner = numbers
    middle = a.value + (inner - outer) / 2
    gradient = None if a.gradient is None else np.copysign(1, middle) * a.gradient
    return Sample(np.abs(middle) - (inner + outer) / 2, gradient)


def _displaced(a: Sample, q: Array, numbers: Sequence[float]) -> Sample:
    amplitude, frequency = numbers[FRAME:]
    sine = np.sin(q * frequency)
    wave = amplitude * (sine[0] * sine[1] * sine[2])
    gradient = None
    if a.gradient is not None:
        others = np.stack([sine[1] * sine[2], sine[2] * sine[0], sine[0] * sine[1]])
        gradient = (amplitude * frequency) * np.cos(q * frequency) * others
    added = _returned(Sample(wave, gradient), numbers)
    return Sample(a.value + added.value, _sum(a.gradient, added.gradient))


def _between(a: Array | None, b: Array | None, weight: Array | float) -> Array | None:
    return None if a is None or b is None else a + (b - a) * weight


def _sum(a: Array | None, b: Array | None) -> Array | None:
    return None if a is None or b is None else a + b


# -- space --------------------------------------------------------------------------------------------


def _folded(q: Array, normal: Sequence[float]) -> Array:
    """Mirror the points behind the plane with this normal."""
    along = np.array(normal, q.dtype)
    folded: Array = q - 2 * np.minimum(along @ q, 0) * along[:, None]
    return folded


def _unfolded(inner: Sample, q: Array, normal: Sequence[float]) -> Sample:
    if inner.gradient is None:
        return inner
    along = np.array(normal, q.dtype)
    behind = np.where(along @ q < 0, along @ inner.gradient, 0)
    return Sample(inner.value, inner.gradient - 2 * behind * along[:, None])


def _repeated(q: Array, numbers: Sequence[float]) -> Array:
    """Map points to one of the copies around them; see `csg.compile._repeated` for the numbers."""
    copy = q.copy()
    for axis, (spacing, last, middle, around, index) in enumerate(
        zip(*(numbers[first : first + 3] for first in range(0, 15, 3)), strict=True)
    ):
        if spacing:
            first = np.ceil((q[axis] - middle) * (1 / spacing) - around / 2)
            if last >= 0:
                first = np.clip(first, 0, last + 1 - around)
            copy[axis] -= (first + index) * spacing
    return copy


def _unrepeated(inner: Sample, q: Array, numbers: Sequence[float]) -> Sample:
    return inner


def _untwisted(q: Array, numbers: Sequence[float]) -> Array:
    """Map points to the untwisted space; points outside the twist's cylinder are moved onto it first."""
    turn, radius = numbers
    distance = np.hypot(q[0], q[1])
    nearer = radius / np.maximum(distance, radius)
    x, y = q[0] * nearer, q[1] * nearer
    cosine, sine = np.cos(q[2] * turn), np.sin(q[2] * turn)
    return np.stack([x * cosine + y * sine, y * cosine - x * sine, q[2]])


def _twisted(inner: Sample, q: Array, numbers: Sequence[float]) -> Sample:
    """Value outside a twist. Beyond its cylinder, at a distance `excess`, it is extended as in `Extended`."""
    turn, radius = numbers
    distance = np.hypot(q[0], q[1])
    excess = np.maximum(distance - radius, 0)
    beyond = excess > 0
    positive = np.maximum(inner.value, 0)
    value = np.where(beyond, np.hypot(excess, positive), inner.value)
    if inner.gradient is None:
        return Sample(value, None)
    cosine, sine = np.cos(q[2] * turn), np.sin(q[2] * turn)
    gx, gy, gz = inner.gradient
    x, y, _ = _untwisted(q, numbers)
    gradient = np.stack([gx * cosine - gy * sine, gx * sine + gy * cosine, gz - turn * (x * gy - y * gx)])
    tiny = np.finfo(q.dtype).tiny
    radial = q[:2] / np.maximum(distance, tiny)
    # Beyond the cylinder only the tangential part remains, and decreases with the distance.
    round_ = gradient.copy()
    round_[:2] -= (radial * gradient[:2]).sum(axis=0) * radial
    round_[:2] *= radius / np.maximum(distance, radius)
    outside = positive * round_
    outside[:2] += excess * radial
    return Sample(value, np.where(beyond, outside / np.maximum(value, tiny), gradient))


_TWO: dict[int, Callable[[Sample, Sample, float], Sample]] = {
    Op.UNION: _union,
    Op.INTERSECTION: _intersection,
    Op.DIFFERENCE: _difference,
    Op.BLEND: _blended,
}
_ONE: dict[int, Callable[[Sample, Sequence[float]], Sample]] = {
    Op.NEGATE: lambda a, numbers: _negated(a),
    Op.OFFSET: _offset,
    Op.WALL: _wall,
}
_ENTER: dict[int, Callable[[Array, Sequence[float]], Array]] = {
    Op.ENTER_FOLD: _folded,
    Op.ENTER_REPEAT: _repeated,
    Op.ENTER_TWIST: _untwisted,
}
_LEAVE: dict[int, Callable[[Sample, Array, Sequence[float]], Sample]] = {
    Op.LEAVE_FOLD: _unfolded,
    Op.LEAVE_REPEAT: _unrepeated,
    Op.LEAVE_TWIST: _twisted,
}


# -- a program ----------------------------------------------------------------------------------------


class TapeProgram(Marched):
    """`Program` for a tape; `compile` makes the programs of its networks."""

    def __init__(self, tape: Tape, compile: Callable[[Network], Program]) -> None:
        self._tape = tape
        self._leaves = [
            Extended(compile(leaf)) if isinstance(leaf, Network) else leaf for leaf in tape.leaves
        ]
        self.lipschitz = tape.lipschitz

    def evaluate(self, points: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Values (n,) at points (n, 3), in the dtype of the points."""
        samples = self._samples(points, with_gradient=False)
        return np.concatenate([sample.value for sample in samples])

    def evaluate_with_gradient(self, points: npt.NDArray[Any]) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
        """Values (n,) and gradients (n, 3) at points (n, 3), in the dtype of the points."""
        samples = self._samples(points, with_gradient=True)
        gradients = [sample.gradient.T for sample in samples if sample.gradient is not None]
        return (
            np.concatenate([sample.value for sample in samples]),
            np.ascontiguousarray(np.concatenate(gradients)),
        )

    def _samples(self, points: npt.NDArray[Any], with_gradient: bool) -> list[Sample]:
        """Values, and gradients if requested, of each block of points."""
        registers = 4 * self._tape.values + 6 * self._tape.points
        block = int(np.clip(_NUMBERS // registers, _MIN_BLOCK, _MAX_BLOCK))
        starts = range(0, max(len(points), 1), block)
        return list(
            side_by_side(
                lambda start: _block(self._tape, self._leaves, points[start : start + block], with_gradient),
                starts,
            )
        )

    def on_lattice(self, side: int, spacing: float, level: float, rounding: float = 0.0) -> HostFieldLattice:
        """The tape's values minus `level` on a lattice: see `Program.on_lattice`."""
        return HostFieldLattice(fastest_lattice(side), self.evaluate, spacing, level, rounding)
