"""
storage
-------
Reads and writes fields: `save_field` writes a file, `load` opens any kind of file. The parameters of `load`
are named like the command line's options (`open_field` takes a backend instead of a device).

    native   our own layout: HDF5, the weights and about a kilobyte (native_layout.py)
    keras    the layout of the paper's authors, with additional attributes of ours (keras_layout.py)
    code     the latent code of a shape, and the name of its decoder's file (latent_code_file.py)
    csg      a tree of shapes, as text or bundled with its leaves (csg_file.py)

A mesh file opens as the exact signed distance of the mesh.
"""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import replace
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from ..backends import Backend, chosen_backend
from ..compression.quantize import round_trip
from ..errors import FieldKindError, UsageError
from ..fields.field import Field, NeuralField
from ..files.atomic_write import check_writable, whole_file
from ..files.bounded_input import Budget
from ..program.network import Architecture
from . import keras_layout
from . import native_layout as native
from .hdf5 import MESH_SUFFIXES, reading
from .model_attributes import is_code, is_dataset, is_ours

if TYPE_CHECKING:
    from ..mesh.inside_or_outside import Sign

AnyField = TypeVar("AnyField", bound=Field)

LAYOUTS = ("native", "keras", "code")

#: Suffixes of a file with a network.
MODEL_SUFFIXES = (".h5", ".hdf5")


def check_output(
    path: str | Path,
    architecture: Architecture,
    *,
    layout: str = "native",
    precision: str = "f32",
    force: bool = False,
) -> None:
    """Check in advance for the errors that `save_model` would raise for such a field."""
    path = Path(path)
    check_writable(path, force=force)
    if layout not in LAYOUTS:
        raise UsageError(f"unknown layout {layout!r}; one of {', '.join(LAYOUTS)}")
    if layout == "keras":
        keras_layout.check(architecture, precision)
        if path.suffix == ".json":
            raise UsageError(f"{path}: `layout={layout!r}` writes the key to .json; name the weights .h5")
        check_writable(path.with_suffix(".json"), force=force)


def save_field(
    field: Field,
    path: str | Path,
    *,
    layout: str = "native",
    bundle: bool = False,
    allow_outside: bool = False,
    force: bool = False,
) -> None:
    """Write a field to `path` in the format of its suffix: .h5 or .hdf5 for a network, .csg for any field.

    layout, force: see `save_model`. bundle: see `csg_file.save_tree`. allow_outside: whether a tree or a
    latent code may refer to files outside of the folder of `path`. Raises `UsageError` for another suffix, or
    a field that such a file cannot represent.
    """
    suffix = Path(path).suffix.lower()
    if suffix == ".csg":
        from ..csg import as_shape
        from .csg_file import save_tree

        save_tree(as_shape(field), path, bundle=bundle, allow_outside=allow_outside, force=force)
    elif suffix not in MODEL_SUFFIXES:
        raise UsageError(
            f"{path}: a network is saved as .h5, a tree as .csg; `to_mesh().export(...)` writes a mesh"
        )
    elif not isinstance(field, NeuralField):
        raise UsageError(
            f"{path}: holds a network, not a {type(field).__name__}; save this field as .csg, or make a "
            "network with `neuralsdf.convert(field)`"
        )
    else:
        save_model(field, path, layout=layout, allow_outside=allow_outside, force=force)


def save_model(
    field: NeuralField,
    path: str | Path,
    *,
    layout: str = "native",
    allow_outside: bool = False,
    force: bool = False,
) -> None:
    """Write a network to `path`, completely or not at all; equal fields give equal bytes.

    `field.precision` is the precision of the stored weights. layout "keras" also writes the architecture key
    next to it, as `path` with the suffix .json. Layout "code" writes the latent code of a `LatentField`; its
    decoder must lie in the folder of `path`, or anywhere with `allow_outside`. The other layouts write a
    network: the decoder with the code folded into its weights. Raises `UsageError` for a layout or precision
    that cannot represent the field, and if the metrics were measured on other weights than those stored (see
    `quantize.round_trip`); `FieldKindError` for a field that is not a distance; `OutputError` if a file
    cannot be written.
    """
    path = Path(path)
    if field.kind != "distance":
        raise FieldKindError(
            f"{path}: a model file holds a signed distance, not a field of kind {field.kind!r}"
        )
    _check_measured(field)
    check_output(path, field.network.architecture, layout=layout, precision=field.precision, force=force)
    if layout == "native":
        contents = {path: native.to_bytes(field)}
    elif layout == "code":
        from . import latent_code_file  # imported here so that models are written without latent fields

        contents = {path: latent_code_file.to_bytes(field, path, allow_outside=allow_outside)}
    else:
        key = keras_layout.key_json(field.network.architecture).encode()
        contents = {path: keras_layout.to_bytes(field), path.with_suffix(".json"): key}
    with ExitStack() as outputs:
        for target, content in contents.items():
            outputs.enter_context(whole_file(target, force=force)).write_bytes(content)


def load(
    path: str | PathLike[str],
    *,
    key: str | PathLike[str] | None = None,
    sign: Sign = "winding",
    thickness: float | None = None,
    allow_outside: bool = False,
    device: str = "auto",
) -> Field:
    """The field in a file: `neuralsdf.load("bunny.h5")`.

    path: a model (.h5), a tree of shapes (.csg) or a mesh (OBJ, STL, PLY, OFF, GLB, glTF, 3MF), which opens
    as the exact signed distance to it. key: the JSON file with the architecture of a Keras weights file that
    lacks it. sign: the inside/outside test of a mesh, "winding", "pseudonormal" or "parity".
    thickness: treat a mesh as a wall of this thickness about its surface (mesh units). allow_outside: whether
    a tree or a latent code may refer to files outside its own folder. device: "auto", "cpu", "cuda", or the
    name of a backend. Raises `FileError` for a file that cannot be used, `NoInteriorError` for a mesh without
    an inside.
    """
    return open_field(
        Path(path),
        key=None if key is None else Path(key),
        backend=chosen_backend(device),
        allow_outside=allow_outside,
        sign=sign,
        thickness=thickness,
    )


def open_field(
    path: str | Path,
    *,
    key: str | Path | None = None,
    backend: Backend | None = None,
    allow_outside: bool = False,
    sign: Sign = "winding",
    thickness: float | None = None,
) -> Field:
    """The field in a file: a model's network, the tree of a `.csg` file, or the exact distance of a mesh.

    key, backend: see `open_model`; it also evaluates trees and builds a mesh's BVHs.
    allow_outside: whether tree files and latent codes may refer to files outside their own folders. sign,
    thickness: see `exact_distance.open_mesh`. Raises `FileError` for an unusable file, `EmptyShapeError`
    for a tree that is empty, and `UsageError` for an argument that does not apply to the file.
    """
    suffix = Path(path).suffix.lower()
    kind = "mesh" if suffix in MESH_SUFFIXES else "tree" if suffix == ".csg" else "model"
    if kind != "model" and key is not None:
        raise UsageError(f"{path}: `key=` belongs to a Keras file, and this is a {kind}")
    if kind != "mesh" and (thickness is not None or sign != "winding"):
        argument = "sign" if thickness is None else "thickness"
        raise UsageError(f"{path}: `{argument}=` only applies to meshes, and this is a {kind}")
    if kind == "mesh":
        from ..fields.exact_distance import (
            open_mesh,  # imported here so that models open without mesh libraries
        )

        mesh = open_mesh(path, sign=sign, thickness=thickness, backend=backend)
        return mesh if thickness is not None or sign != "winding" else _from_file(mesh, path)
    if kind == "model":
        model = open_model(path, key=key, backend=backend, allow_outside=allow_outside)
        return model if key is not None else _from_file(model, path)
    from ..csg import from_tree  # for the same reason
    from .csg_file import read_tree

    tree = read_tree(path, backend=backend, allow_outside=allow_outside)
    shape = from_tree(tree, str(path), Path(path).absolute())
    if shape.bounded:
        _ = shape.transform  # raises now if the shape is empty, so that the error names the file
    return shape


def _from_file(field: AnyField, path: str | Path) -> AnyField:
    """Record the absolute path of the file that a field was read from; returns the field."""
    object.__setattr__(field, "path", Path(path).absolute())  # a network is frozen
    return field


def open_model(
    path: str | Path,
    *,
    key: str | Path | None = None,
    backend: Backend | None = None,
    budget: Budget | None = None,
    allow_outside: bool = False,
) -> NeuralField:
    """The network in a model file of any layout; its checksum is verified.

    key: a Keras model's JSON, the architecture of a Keras file without one. backend: evaluates it; None for
    the default. budget: that of a tree or other whole that the file is part of; None for a separate one.
    allow_outside: whether the decoder of a latent code may lie outside of the folder of `path`. Raises
    `ModelError` for a file that is missing, damaged, too new, or not a model.
    """
    return replace(_read(path, key, allow_outside, budget)[0], chosen_backend=backend)


def verify(path: str | Path, *, allow_outside: bool = False) -> str | None:
    """The verified checksum of a file (hex); None for a foreign file without one.

    Raises `ModelError` as `open_model` does.
    """
    checksum = _read(path, None, allow_outside)[1]
    return None if checksum is None else checksum.hex()


def _read(
    path: str | Path, key: str | Path | None, allow_outside: bool, budget: Budget | None = None
) -> tuple[NeuralField, bytes | None]:
    with reading(path, budget=budget) as file:
        ours, has_code = is_ours(file), is_code(file)
        if (ours or has_code) and key is not None:
            raise file.error("has its own architecture", "leave out `key=`")
        if has_code:
            from . import latent_code_file  # imported here so that other models open without latent fields

            return latent_code_file.read(file, allow_outside=allow_outside)
        if keras_layout.is_keras(file):
            return keras_layout.read(file, key)
        if ours:
            return native.read(file)
        if is_dataset(file):
            raise file.error("is a data set of many shapes", "open one with neuralsdf.Dataset(path).field(i)")
        raise file.error("is an HDF5 file, but neither a neuralsdf model nor Keras weights")


def _check_measured(field: NeuralField) -> None:
    if not field.metrics:
        return
    stored = round_trip(field.network, field.precision)
    if not np.array_equal(stored.weights, field.network.weights):
        raise UsageError("the metrics were not measured on the rounded weights: use round_trip first")
