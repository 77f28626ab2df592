"""Rays through the unit ball and step lengths, for tests of sphere tracing."""

from __future__ import annotations

import numpy as np


def eye_rays(count: int, seed: int = 0) -> list[np.ndarray]:
    """begin, directions, ends, at_ball: chords of the unit ball from a common eye, neighbours together."""
    rng = np.random.default_rng(seed)
    turn = np.linspace(0, 20, count)
    targets = np.stack([0.9 * np.cos(turn), 0.9 * np.sin(turn), 0.02 * turn - 0.2], axis=1)
    targets *= np.linspace(0, 1, count)[:, None]
    eye = np.array([0.3, -0.2, 4.0])
    directions = targets - eye
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    closest = -(directions @ eye)
    half = np.sqrt(np.maximum(0.999 - (eye @ eye - closest**2), 0))
    inside = rng.random(count) < 0.1  # an eye within the ball
    start = np.where(inside, closest, closest - half)
    begin = eye + start[:, None] * directions
    ends = np.where(inside, half, 2 * half)
    return [np.ascontiguousarray(a, np.float32) for a in (begin, directions, ends)] + [~inside]


#: Step lengths (4097,) by the value, 0 to 2: for fields whose gradient norm is up to 1.2.
STEPS = np.maximum(np.linspace(0, 2 / 1.2, 4097), 5e-4).astype(np.float32)


def chords(count: int, seed: int = 0):
    """Chords of the unit ball: begin, directions, ends, whether they begin on the ball (half do not)."""
    rng = np.random.default_rng(seed)
    ends = rng.normal(size=(2, count, 3))
    ends /= np.linalg.norm(ends, axis=2, keepdims=True)
    at_ball = rng.random(count) < 0.5
    begin = np.where(at_ball[:, None], ends[0], 0.7 * ends[0] + 0.3 * ends[1])
    way = ends[1] - begin
    length = np.linalg.norm(way, axis=1)
    return (
        begin.astype(np.float32),
        (way / length[:, None]).astype(np.float32),
        length.astype(np.float32),
        at_ball,
    )


#: The same for a gradient norm of up to 1.
FULL_STEPS = np.maximum(np.linspace(0, 2, 4097), 5e-4).astype(np.float32)
LONG_STEPS = np.maximum(FULL_STEPS, np.float32(0.1))  # for fields with a gradient close to zero
