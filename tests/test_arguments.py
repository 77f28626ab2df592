"""A wrong argument of a caller gives a one-line error that names the argument, and no other exception."""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import neuralsdf as ns
from neuralsdf.arguments import numeric_array, numeric_points, real_number, vertices_and_faces, whole_number

from .helpers import shapes


def test_whole_numbers_are_ints_in_range() -> None:
    for value in (3, np.int32(3), np.uint8(3)):
        assert whole_number("width", value, 1, 3) == 3
    for value, message in (
        (0, "`width=0`: must be 1 to 8"),
        (9, "`width=9`: must be 1 to 8"),
        (3.0, "`width=3.0`: must be a whole number"),
        ("3", "`width='3'`: must be a whole number"),
        (None, "`width=None`: must be a whole number"),
        (np.ones(3, int), "must be a whole number"),
    ):
        with pytest.raises(ns.UsageError, match=message):
            whole_number("width", value, 1, 8)
    with pytest.raises(ns.UsageError, match="`seed=-1`: must be at least 0"):
        whole_number("seed", -1, 0)


def test_real_numbers_are_floats() -> None:
    for value in (0.5, np.float32(0.5), Decimal("0.5")):
        assert real_number("beta", value) == 0.5
    for value in ("0.5", None, 1j, [1, 2], np.ones(2)):
        with pytest.raises(ns.UsageError, match=r"`beta=.*`: must be a number"):
            real_number("beta", value)


@pytest.mark.parametrize(
    "wrong",
    [["1", "2", "3"], "abc", [1j, 0, 0], np.zeros(3, "M8[D]"), [[1, 2, 3], [1, 2]], {1, 2, 3}, [0, 0, {}]],
)
def test_arrays_are_of_numbers(wrong: Any) -> None:
    with pytest.raises(ns.UsageError, match=r"^points must be an array of numbers"):
        numeric_points(wrong)
    with pytest.raises(ns.UsageError, match=r"^points must be an array of numbers"):
        ns.sphere(1).distance(wrong)
    with pytest.raises(ns.UsageError, match=r"^faces must be an array of numbers"):
        ns.convert(np.eye(3), wrong)
    with pytest.raises(ns.UsageError, match=r"^vertices must be an array of numbers"):
        ns.convert((wrong, [[0, 1, 2]]))


def test_arrays_keep_their_numbers() -> None:
    for values in ([True, False], np.arange(3, dtype=np.float32), [Decimal("0.5")], [2**62], []):
        np.testing.assert_array_equal(numeric_array(values, "x", "(n,)"), np.array(values, dtype=None))


def test_faces_are_whole_numbers() -> None:
    vertices, faces = shapes.box(1, 1, 1)
    np.testing.assert_array_equal(vertices_and_faces(vertices, faces.astype(float))[1], faces)
    for wrong in (faces + 0.5, np.where(faces == 3, np.nan, faces), faces * 1e30):
        with pytest.raises(ns.UsageError, match="faces must be vertex indices"):
            ns.convert(vertices, wrong)
    for mesh in ("mesh.obj", Path("mesh.obj"), ns.sphere(1)):
        with pytest.raises(ns.UsageError, match="vertices must be an array of numbers"):
            ns.convert(mesh, faces)


@pytest.mark.parametrize(
    ("name", "wrong"),
    [
        ("layers", 2.0), ("layers", "8"), ("width", 0), ("width", 3.5), ("samples", 0), ("samples", 1e5),
        ("samples", 10**12), ("epochs", 1.5), ("epochs", "5"), ("batch", 2.5), ("patience", 1.5),
        ("seed", -1), ("seed", 1.5), ("seed", None), ("learning_rate", "a"), ("beta", "a"), ("uniform", None),
        ("time", "a"), ("thickness", "a"), ("thickness", np.nan), ("thickness", -1), ("optimizer", "sgd"),
    ],
)  # fmt: skip
def test_a_conversion_names_the_argument_before_it_starts(
    name: str, wrong: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("neuralsdf.pipeline.convert.sample", None)
    with pytest.raises(ns.UsageError, match=f"`{name}={wrong!r}`"):
        ns.convert(*shapes.box(1, 1, 1), **{name: wrong})


def test_an_unknown_precision_is_an_error_before_the_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("neuralsdf.pipeline.convert.sample", None)
    with pytest.raises(ns.UsageError, match="unknown precision 'f64'; one of f32, f16, int8"):
        ns.convert(*shapes.box(1, 1, 1), precision="f64")


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda ball: ball.to_mesh(resolution="64"), "`resolution='64'`: must be a whole number"),
        (lambda ball: ball.to_mesh(resolution=np.float64(32)), "`resolution=.*`: must be a whole number"),
        (lambda ball: ball.to_mesh(16, faces=10.5), "`faces=10.5`: must be a whole number"),
        (lambda ball: ball.to_mesh(max_memory="2GB"), "`max_memory='2GB'`: must be a whole number"),
        (lambda ball: ball.translate("a"), "`x='a'`: must be a number"),
        (lambda ball: ball.repeat(1, ny="two"), "`ny='two'`: must be a number"),
        (lambda ball: ball.blend(ball, share=[0.5]), r"`share=\[0.5\]`: must be a number"),
        (lambda ball: ns.smooth(None, ball), "`radius=None`: must be a number"),
        (lambda ball: ns.box([1, 2, 3]), r"`x=\[1, 2, 3\]`: must be a number"),
        (lambda ball: ns.cone(top="0"), "`top='0'`: must be a number"),
        (lambda ball: ball.render(1.5, 16), "`width=1.5`: must be a whole number"),
        (lambda ball: ball.render(16, 0), "`height=0`: must be 1 to"),
        (lambda ball: ball.render(16, 16, antialias=1.5), "`antialias=1.5`: must be a whole number"),
        (lambda ball: ball.render(16, 16, eye=[0, 0]), "`eye=`: must be three finite coord"),
        (lambda ball: ball.render(16, 16, eye="abc"), "`eye=` must be an array of numbers"),
        (lambda ball: ball.render(16, 16, target=[0, 0]), "`target=`: must be three finite"),
        (lambda ball: ball.render(16, 16, color=(1, 0, 0)), "unknown colour"),
        (lambda ball: ball.render(16, 16, background=None), "unknown colour"),
    ],
)
def test_pictures_and_meshes_name_the_argument(call: Callable[[ns.Field], object], message: str) -> None:
    with pytest.raises(ns.UsageError, match=message):
        call(ns.sphere(1))
