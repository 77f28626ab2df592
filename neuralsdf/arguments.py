"""
arguments.py
------------
Checks of arguments that users pass from Python: numbers, and arrays of numbers.
"""

from __future__ import annotations

import inspect
import operator
from collections.abc import Callable
from functools import wraps
from reprlib import repr as shortened
from typing import Any, ParamSpec, TypeVar

import numpy as np
import numpy.typing as npt

from .array_types import Faces, Points
from .errors import UsageError

P = ParamSpec("P")
R = TypeVar("R")


def whole_number(name: str, value: object, least: int, most: int | None = None) -> int:
    """The keyword argument `name` as an int; raises `UsageError` unless it is an int from `least` to `most`
    (None for no upper limit)."""
    try:
        number = operator.index(value)  # type: ignore[arg-type]  # other types raise TypeError
    except TypeError as error:
        raise UsageError(f"`{name}={shortened(value)}`: must be a whole number") from error
    if number < least or (most is not None and number > most):
        limit = f"at least {least}" if most is None else f"{least} to {most}"
        raise UsageError(f"`{name}={value}`: must be {limit}")
    return number


def real_number(name: str, value: object) -> float:
    """The keyword argument `name` as a float, which may be NaN; raises `UsageError` unless it is a number."""
    try:
        if isinstance(value, str | bytes):
            raise TypeError
        return float(value)  # type: ignore[arg-type]  # other types raise TypeError
    except (TypeError, ValueError) as error:
        raise UsageError(f"`{name}={shortened(value)}`: must be a number") from error


def takes_numbers(function: Callable[P, R]) -> Callable[P, R]:
    """A function that raises `UsageError` if an argument that is annotated `Number` is not a number."""
    parameters = inspect.signature(function).parameters.values()
    names = [parameter.name for parameter in parameters]
    kinds = {parameter.name: parameter.annotation for parameter in parameters}

    @wraps(function)
    def checked(*values: P.args, **keywords: P.kwargs) -> R:
        for name, value in (*zip(names, values), *keywords.items()):  # noqa: B905  # Python checks their number
            if kinds.get(name) == "Number" or (kinds.get(name) == "Number | None" and value is not None):
                real_number(name, value)
        return function(*values, **keywords)

    return checked


def numeric_array(values: npt.ArrayLike, what: str, shape: str) -> npt.NDArray[Any]:
    """Integers, floats or bools as an array of any shape; raises `UsageError` for others.

    what, shape: for the error.
    """
    expected = f"{what} must be an array of numbers of shape {shape}"
    try:
        array = np.asarray(values)
        if array.dtype.kind == "O":
            array = array.astype(np.float64)
    except (TypeError, ValueError) as error:
        raise UsageError(expected) from error
    if array.dtype.kind not in "fiub":
        raise UsageError(f"{expected}, not of {array.dtype}")
    return array


def numeric_points(points: npt.ArrayLike) -> npt.NDArray[Any]:
    """Points as a numeric array (..., 3); an empty list gives (0, 3). Raises `UsageError`."""
    array = numeric_array(points, "points", "(..., 3)")
    if array.shape == (0,):
        return np.empty((0, 3))
    if array.ndim == 0 or array.shape[-1] != 3:
        raise UsageError(f"points must have shape (..., 3), not {array.shape}")
    return array


def vertices_and_faces(vertices: npt.ArrayLike, faces: npt.ArrayLike) -> tuple[Points, Faces]:
    """Vertices as float64 and faces as int64, of any shape.

    Raises `UsageError` for anything but arrays of numbers, and for face indices that are not whole numbers.
    """
    points = numeric_array(vertices, "vertices", "(n, 3)").astype(np.float64, copy=False)
    indices = numeric_array(faces, "faces", "(m, 3)")
    with np.errstate(invalid="ignore"):
        triangles = indices.astype(np.int64, copy=False)
    if (triangles != indices).any():
        raise UsageError("faces must be vertex indices, which are whole numbers")
    return points, triangles
