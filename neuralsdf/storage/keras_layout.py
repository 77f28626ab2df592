"""
keras_layout.py
---------------
The layout of the paper's authors, as written by `Model.save_weights` of Keras 2. Root attributes
`layer_names`, `backend`, `keras_version`; a group for each layer with the attribute `weight_names` and
the data sets `<layer>/<layer>/kernel:0` (in, out) and `bias:0`, float32.

Such a file has no activations, transform or errors. Our own files store them in additional root attributes
(model_attributes.py), which Keras ignores. For a foreign file, ReLU and tanh are assumed, unless an
architecture key (a Keras model as JSON) is given; the transform is the identity. The authors' shapes lie in
the ball of radius 0.9.
"""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import h5py
import numpy as np

from ..array_types import FloatArray
from ..errors import ModelError, UsageError
from ..fields.field import NeuralField
from ..files.bounded_input import opened
from ..geometry.similarity_transform import Similarity
from ..program.network import MAX_LAYERS, MAX_WIDTH, Architecture
from .hdf5 import ModelFile, file_image
from .model_attributes import MODEL, is_ours, read_record, write_record
from .weight_checks import network_of

#: Radius about the origin to which the authors scaled their meshes (BOUNDING_SPHERE_RADIUS).
AUTHORS_RADIUS = 0.9

_MAX_KEY = 1 << 20
_VERSION = "2.2.4-tf"
#: Keras's names of equivalent activations. Its softplus is not our sharp one.
_ACTIVATIONS = {"relu": "relu", "elu": "elu", "silu": "silu", "swish": "silu", "tanh": "tanh"}


def is_keras(file: ModelFile) -> bool:
    """Whether the file has this layout."""
    return file.has_attribute("layer_names")


def read(file: ModelFile, key: str | Path | None = None) -> tuple[NeuralField, bytes | None]:
    """The field in a file of this layout, and its verified checksum; None for a foreign file.

    Raises `ModelError` for a damaged file, one that is not a chain of dense layers from 3 coordinates to
    one value, and one that does not match the key.
    """
    layers = [_layer(file, *names) for names in _layer_names(file).items()]
    shapes = [layer.shape for layer in layers]
    widths = [rows for rows, _ in shapes] + [columns for _, columns in shapes[-1:]]
    chained = all(a[1] == b[0] for a, b in pairwise(shapes))
    if len(layers) < 2 or widths[0] != 3 or widths[-1] != 1 or not chained:
        raise file.error(f"its layers {shapes} are not a network from 3 coordinates to one value")
    architecture = Architecture(tuple(widths[1:-1]))  # checks the size before anything is read
    weights = np.empty(architecture.weight_count, np.float32)
    for (kernel, bias), layer in zip(architecture.layers(weights), layers, strict=True):
        kernel[:], bias[:] = file.values(layer.kernel), file.values(layer.bias)
    if not is_ours(file):
        return _foreign_field(file, architecture, weights, key), None
    record = read_record(file)
    if record.architecture.hidden != architecture.hidden or not record.matches(weights):
        raise file.error("its checksum does not match: the file is damaged", "copy or convert it again")
    field = NeuralField(
        network_of(file.path, record.architecture, weights),
        record.transform,
        record.source,
        record.metrics,
        record.settings,
        layout="keras",
        unit=record.unit,
    )
    return field, record.checksum


def _foreign_field(
    file: ModelFile, architecture: Architecture, weights: FloatArray, key: str | Path | None
) -> NeuralField:
    """The field of a foreign file, with weights only; the key provides the activations."""
    hidden = architecture.hidden
    if key is not None:
        architecture = read_key(key)
    if architecture.hidden != hidden:
        raise file.error(f"its hidden layers {hidden} do not match those of the key, {architecture.hidden}")
    network = network_of(file.path, architecture, weights)
    return NeuralField(network, Similarity.identity(), layout="keras", radius=AUTHORS_RADIUS)


def check(architecture: Architecture, precision: str) -> None:
    """Raise `UsageError` for a network that Keras cannot represent."""
    if precision != "f32":
        raise UsageError(f"the Keras layout stores float32 only; leave out `precision={precision!r}`")
    _keras_activation(architecture)


def to_bytes(field: NeuralField) -> bytes:
    """The complete weights file of a field; raises `UsageError` as `check` does."""
    architecture = field.network.architecture
    check(architecture, field.precision)

    def build(root: h5py.File) -> None:
        root.attrs.create("backend", np.bytes_("tensorflow"))
        root.attrs.create("keras_version", np.bytes_(_VERSION))
        names = [_name(index) for index in range(len(architecture.layer_shapes))]
        root.attrs.create("layer_names", np.array(names, "S"))
        layers = architecture.layers(field.network.weights)
        for name, (kernel, bias) in zip(names, layers, strict=True):
            group = root.create_group(name)
            weights = {f"{name}/kernel:0": kernel, f"{name}/bias:0": bias}
            group.attrs.create("weight_names", np.array(list(weights), "S"))
            for path, values in weights.items():
                group.create_dataset(path, data=values, dtype="<f4", track_times=False)
        stored = field.network.weights.astype("<f4").tobytes()
        write_record(root, MODEL, architecture.to_json(), field, stored)

    return file_image(build)


def key_json(architecture: Architecture) -> str:
    """The architecture as the JSON of a Keras `Sequential`, for `model_from_json`; raises `UsageError`."""
    hidden = _keras_activation(architecture)
    layers = []
    for index, (rows, columns) in enumerate(architecture.layer_shapes):
        last = index == len(architecture.layer_shapes) - 1
        config: dict[str, Any] = {"name": _name(index), "trainable": True, "dtype": "float32"}
        if index == 0:
            config["batch_input_shape"] = [None, rows]
        config |= {"units": columns, "activation": architecture.output if last else hidden, "use_bias": True}
        layers.append({"class_name": "Dense", "config": config})
    model = {"class_name": "Sequential", "config": {"name": "neuralsdf", "layers": layers}}
    return json.dumps(model | {"keras_version": _VERSION, "backend": "tensorflow"}, indent=1) + "\n"


def read_key(path: str | Path) -> Architecture:
    """The architecture in a Keras model's JSON; raises `ModelError` for one that cannot be read."""
    path = Path(path)
    with opened(path, ModelError, "an architecture key", _MAX_KEY) as stream:
        text = stream.read(_MAX_KEY)
    try:
        config = json.loads(text)["config"]
        layers = config if isinstance(config, list) else config["layers"]
        dense = [layer["config"] for layer in layers if layer["class_name"] != "InputLayer"]
        others = {layer["class_name"] for layer in layers} - {"InputLayer", "Dense"}
        units = [layer["units"] for layer in dense]
        activations = [layer["activation"] for layer in dense]
        biased = all(layer.get("use_bias", True) for layer in dense)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ModelError(path, "is not an architecture key: not the JSON of a Keras model") from error
    if not all(isinstance(activation, str) for activation in activations):
        raise ModelError(path, "has an activation that is not a name")
    if others or not biased or len(dense) < 2 or len(set(activations[:-1])) != 1 or units[-1] != 1:
        raise ModelError(path, "is not a chain of dense layers with a bias and one activation, to one value")
    if activations[0] not in _ACTIVATIONS:
        raise ModelError(path, f"unsupported activation {activations[0]!r}; one of {', '.join(_ACTIVATIONS)}")
    try:
        value = {"hidden": units[:-1], "activation": _ACTIVATIONS[activations[0]], "output": activations[-1]}
        return Architecture.from_json(value)
    except UsageError as error:
        raise ModelError(path, str(error)) from error


class _Layer(NamedTuple):
    """Paths of a layer's kernel, with its `shape` (in, out), and bias (out,)."""

    kernel: str
    bias: str
    shape: tuple[int, int]


def _layer_names(file: ModelFile) -> dict[str, list[str]]:
    """Layers that have weights, in order of evaluation (sorted names would put 10 before 2), with the names
    of their weights."""
    names = file.names("layer_names")
    if len(names) > 2 * MAX_LAYERS:
        raise file.error(f"it has {len(names)} layers, more than a model can have")
    if len(set(names)) < len(names):
        raise file.error("it lists a layer twice")
    return {name: weights for name in names if (weights := file.names("weight_names", name))}


def _layer(file: ModelFile, name: str, weight_names: list[str]) -> _Layer:
    """A layer, its weights not yet read; raises `ModelError` unless it is dense."""
    if len(weight_names) != 2:
        raise file.error(f"its layer {name!r} is not a kernel and a bias")
    paths = [f"{name}/{weight}" for weight in weight_names]
    kernel, bias = (file.form(path) for path in paths)
    if len(kernel.shape) != 2 or bias.shape != kernel.shape[1:] or max(kernel.shape) > MAX_WIDTH:
        raise file.error(f"its layer {name!r} is not a dense layer: {kernel.shape}, {bias.shape}")
    if kernel.dtype != np.float32 or bias.dtype != np.float32:
        raise file.error(f"its layer {name!r} is not float32")
    rows, columns = kernel.shape
    return _Layer(paths[0], paths[1], (rows, columns))


def _keras_activation(architecture: Architecture) -> str:
    """Keras's name of the activation; silu has had this name since TensorFlow 2.2."""
    activation = architecture.activation
    if activation not in _ACTIVATIONS:
        known = ", ".join(sorted(set(_ACTIVATIONS.values())))
        raise UsageError(f"Keras has no equivalent of {activation}; one of {known}, or the native layout")
    return activation


def _name(index: int) -> str:
    return f"dense_{index}" if index else "dense"
