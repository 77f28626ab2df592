"""Model files: round trips in both layouts; an invalid file is an error in one line."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from neuralsdf.compression.quantize import PRECISIONS, encode, round_trip
from neuralsdf.errors import ModelError, NeuralSDFError, OutputError, UsageError
from neuralsdf.fields.field import NeuralField
from neuralsdf.geometry.similarity_transform import Similarity
from neuralsdf.mesh.mesh import Source
from neuralsdf.program.network import Architecture, Network, initialise
from neuralsdf.storage import open_field, open_model, save_field, save_model, verify
from neuralsdf.units import DIMENSIONS

SMALL = Architecture((5, 4))

#: What `convert` stores: all metrics, and how the field was made.
METRICS = {name: 0.123456 / (index + 1) for index, name in enumerate(DIMENSIONS)}
SETTINGS = {
    "sampling": "importance",
    "beta": 60.0,
    "uniform": 0.2,
    "samples": 500_000,
    "optimizer": "soap",
    "epochs": 20,
    "batch": 2048,
    "sign": "winding",
    "seed": 0,
    "learning_rate": 0.003,
}


def make_field(architecture: Architecture = SMALL, precision: str = "f32", seed: int = 0) -> NeuralField:
    network = round_trip(Network(architecture, initialise(architecture, seed)), precision)
    digest = "".join(f"{value:02x}" for value in np.random.default_rng(seed).integers(0, 256, 32))
    return NeuralField(
        network,
        Similarity.from_ball([0.1, 1 / 3, -1e6], np.pi),
        Source("stanford-bunny.obj", digest, 69_451, 3_140_000),
        {name: float(f"{value:.6g}") for name, value in METRICS.items()},
        dict(SETTINGS),
        precision,
    )


def assert_same(a: NeuralField, b: NeuralField) -> None:
    assert a.network.architecture == b.network.architecture
    assert a.network.weights.tobytes() == b.network.weights.tobytes()
    assert a.transform.matrix.tobytes() == b.transform.matrix.tobytes()
    assert (a.source, a.metrics, a.settings) == (b.source, b.metrics, b.settings)
    assert (a.precision, a.layout, a.radius) == (b.precision, b.layout, b.radius)


# --- our own layout ---------------------------------------------------------------------------------


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize(
    "architecture",
    [
        SMALL,
        Architecture(),
        Architecture((64, 16, 48), "sine", "linear"),
        Architecture((9,) * 12, "softplus"),
    ],
    ids=str,
)
def test_a_field_is_read_back_exactly(tmp_path: Path, architecture: Architecture, precision: str) -> None:
    field = make_field(architecture, precision)
    save_field(field, tmp_path / "a.h5")
    assert_same(open_field(tmp_path / "a.h5"), field)


@pytest.mark.parametrize("precision", PRECISIONS)
def test_the_file_is_its_weights_and_at_most_1500_bytes(tmp_path: Path, precision: str) -> None:
    field = make_field(Architecture(), precision)
    save_field(field, tmp_path / "a.h5")
    weights = encode(field.network.architecture, field.network.weights, precision)
    assert (tmp_path / "a.h5").stat().st_size - weights.nbytes <= 1500


def test_the_same_field_gives_the_same_bytes(tmp_path: Path) -> None:
    for layout in ("native", "keras"):
        names = [tmp_path / f"{layout}-{name}.h5" for name in "ab"]
        for name in names:
            save_field(make_field(), name, layout=layout)
        assert names[0].read_bytes() == names[1].read_bytes()
    save_field(open_field(names[0]), tmp_path / "again.h5", layout="native")
    assert (tmp_path / "again.h5").read_bytes() == (tmp_path / "native-a.h5").read_bytes()


def test_metrics_that_were_not_measured_are_read_back_as_nan(tmp_path: Path) -> None:
    field = replace(make_field(), metrics={"iou": math.nan, "hausdorff": math.inf, "loss": 0.5}, source=None)
    save_field(field, tmp_path / "a.h5")
    opened = open_field(tmp_path / "a.h5")
    assert math.isnan(opened.metrics["iou"])
    assert math.isnan(opened.metrics["hausdorff"])
    assert opened.metrics["loss"] == 0.5
    assert opened.source is None


def test_metrics_keep_six_digits(tmp_path: Path) -> None:
    save_field(replace(make_field(), metrics={"loss": 1 / 3}), tmp_path / "a.h5")
    assert open_field(tmp_path / "a.h5").metrics == {"loss": 0.333333}


def test_metrics_of_other_weights_are_refused(tmp_path: Path) -> None:
    field = replace(make_field(), precision="f16")
    with pytest.raises(UsageError, match=r"round_trip"):
        save_field(field, tmp_path / "a.h5")
    save_field(replace(field, metrics={}), tmp_path / "a.h5")
    assert_same(
        open_field(tmp_path / "a.h5"), replace(field, metrics={}, network=round_trip(field.network, "f16"))
    )


def test_settings_that_are_too_large_or_not_plain_are_refused(tmp_path: Path) -> None:
    noise = "".join(map(chr, np.random.default_rng(0).integers(0x4E00, 0x9000, 50_000)))
    for settings_, reason in (({"note": noise}, "too many"), ({"f": open_field}, "plain")):
        with pytest.raises(UsageError, match=reason):
            save_field(replace(make_field(), settings=settings_), tmp_path / "a.h5")
    assert not list(tmp_path.iterdir())


def test_an_existing_file_is_replaced_only_with_force(tmp_path: Path) -> None:
    (tmp_path / "a.h5").write_text("kept")
    with pytest.raises(OutputError, match="`force=True`"):
        save_field(make_field(), tmp_path / "a.h5")
    assert (tmp_path / "a.h5").read_text() == "kept"
    save_field(make_field(), tmp_path / "a.h5", force=True)
    assert_same(open_field(tmp_path / "a.h5"), make_field())


def test_the_file_matches_its_documentation(tmp_path: Path) -> None:
    """As another program would read it, by the documentation of model_attributes.py alone."""
    import zlib
    from hashlib import sha256

    field = make_field(precision="f16")
    save_field(field, tmp_path / "a.h5")
    with h5py.File(tmp_path / "a.h5") as file:
        attributes = dict(file.attrs)
        weights = file["weights"][()]
    assert attributes["format"] == b"neuralsdf"
    assert attributes["format_version"] == 1
    architecture = {"hidden": [5, 4], "activation": "relu", "output": "tanh"}
    assert json.loads(attributes["architecture"]) == architecture
    assert np.array_equal(attributes["transform"], field.transform.matrix)
    metadata = json.loads(zlib.decompress(attributes["metadata"].tobytes()))
    assert metadata["source"]["name"] == "stanford-bunny.obj"
    assert metadata["metrics"] == field.metrics
    parts = (attributes[name].tobytes() for name in ("transform", "metadata"))
    signed = attributes["architecture"] + b"".join(parts) + weights.tobytes()
    assert sha256(signed).digest() == attributes["checksum"].tobytes()
    assert verify(tmp_path / "a.h5") == attributes["checksum"].tobytes().hex()


def test_the_first_version_stays_readable() -> None:
    field = open_field(Path(__file__).parent / "data" / "format_1.h5")
    expected = make_field(Architecture((2,), "elu", "linear"))
    first = (
        "loss far_error surface_mean surface_p95 surface_max iou accuracy completeness two_way hausdorff "
        "f_score normal_consistency accuracy_open two_way_open hausdorff_open closing_share volume area"
    )
    metrics = dict(zip(first.split(), expected.metrics.values(), strict=False))
    assert_same(field, replace(expected, source=field.source, metrics=metrics))
    assert field.source == Source("a mesh.obj", "00" * 32, 12, 345)


# --- invalid files ----------------------------------------------------------------------------------


def test_every_damage_is_an_error_or_changes_nothing(tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("damage")
    originals = {}
    for layout in ("native", "keras"):
        save_field(make_field(), folder / f"{layout}.h5", layout=layout)
        originals[layout] = (folder / f"{layout}.h5").read_bytes(), open_field(folder / f"{layout}.h5")

    @given(layout=st.sampled_from(["native", "keras"]), data=st.data())
    @settings(max_examples=300)
    def check(layout: str, data: st.DataObject) -> None:
        content, original = originals[layout]
        damaged = bytearray(content)
        place = st.integers(0, len(content) - 1)
        if data.draw(st.booleans(), "cut"):
            del damaged[data.draw(place, "length") :]
        else:
            for where, value in data.draw(
                st.lists(st.tuples(place, st.integers(0, 255)), min_size=1, max_size=4)
            ):
                damaged[where] = value
        (folder / "damaged.h5").write_bytes(damaged)
        try:
            opened = open_field(folder / "damaged.h5")
        except NeuralSDFError:
            return
        assert_same(opened, original)

    check()


def test_a_single_flipped_bit_of_a_weight_is_found(tmp_path: Path) -> None:
    save_field(make_field(), tmp_path / "a.h5")
    content = bytearray((tmp_path / "a.h5").read_bytes())
    where = bytes(content).index(make_field().network.weights.tobytes())
    content[where + 8] ^= 1
    (tmp_path / "a.h5").write_bytes(content)
    for function in (open_field, verify):
        with pytest.raises(ModelError, match=r"a\.h5: its checksum does not match: the file is damaged; "):
            function(tmp_path / "a.h5")


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("a.h5", b"", "is empty"),
        ("a.h5", b"hello", "not an HDF5 file"),
        ("a.obj", b"v 0 0 0\n", "is a mesh, not a model; convert it first: neuralsdf convert"),
        ("a.STL", b"solid\n", "is a mesh"),
        ("a.h5", b"\x89HDF\r\n\x1a\n", "damaged or truncated"),
    ],
)
def test_other_files_are_refused(tmp_path: Path, name: str, content: bytes, reason: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ModelError, match=reason):
        open_model(tmp_path / name)


def test_a_missing_file_and_a_folder_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="no such file"):
        open_field(tmp_path / "a.h5")
    with pytest.raises(ModelError, match="is a folder"):
        open_field(tmp_path)


def _attribute(name: str, value: object) -> Callable[[h5py.File], None]:
    def change(file: h5py.File) -> None:
        file.attrs[name] = value

    return change


def _weights(**options: object) -> Callable[[h5py.File], None]:
    def change(file: h5py.File) -> None:
        values = file["weights"][()]
        del file["weights"]
        file.create_dataset("weights", **{"data": values, **options})

    return change


def _external_link(file: h5py.File) -> None:
    file.move("weights", "elsewhere")
    file["weights"] = h5py.ExternalLink("/etc/hostname", "/weights")


def _soft_link(file: h5py.File) -> None:
    file.move("weights", "elsewhere")
    file["weights"] = h5py.SoftLink("/elsewhere")


def _external_storage(file: h5py.File) -> None:
    shape = file["weights"].shape
    del file["weights"]
    file.create_dataset("weights", shape, "<f4", external=[("/dev/zero", 0, h5py.h5f.UNLIMITED)])


def _virtual(file: h5py.File) -> None:
    layout = h5py.VirtualLayout(file["weights"].shape, "<f4")
    layout[:] = h5py.VirtualSource("/etc/hostname", "weights", file["weights"].shape)
    del file["weights"]
    file.create_virtual_dataset("weights", layout)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (_attribute("format_version", 2), "format version 2; .* install a newer neuralsdf"),
        (_attribute("format_version", "one"), "'format_version' is not a number"),
        (_attribute("format", "other"), "neither a neuralsdf model nor Keras weights"),
        (_attribute("architecture", np.bytes_("[]")), "architecture is not an object"),
        (_attribute("architecture", np.bytes_('{"hidden":[1e9]}')), "not whole numbers"),
        (_attribute("architecture", np.bytes_('{"hidden":[99999999]}')), "width"),
        (_attribute("architecture", np.bytes_("[" * 60_000)), "damaged"),
        (_attribute("architecture", 3.0), "'architecture' is not a string"),
        (_attribute("transform", np.eye(3)), "4x4"),
        (_attribute("transform", np.full((4, 4), np.nan)), "finite 4x4"),
        (_attribute("transform", np.diag([1.0, 2.0, 1.0, 1.0])), "not a similarity"),
        (_attribute("transform", 2 * np.eye(4) - np.diag([0, 0, 0, 1.0])), "checksum does not match"),
        (_attribute("metadata", np.zeros(10, np.uint8)), "damaged"),
        (_attribute("checksum", np.zeros(32, np.uint8)), "checksum does not match"),
        (lambda file: file.attrs.pop("checksum"), "no attribute 'checksum'"),
        (lambda file: file.pop("weights"), "it has no 'weights'"),
        (_weights(data=np.zeros(10, "<f4")), r"\(10,\) are not those of a 5-4 relu network"),
        (_weights(dtype="<f8"), "not those of a"),
        (_weights(data=[b"text"]), "incomplete"),
        (_weights(chunks=(7,), compression="gzip"), "not stored in one piece"),
        (_external_link, "it has no 'weights'"),
        (_soft_link, "it has no 'weights'"),
        (_external_storage, "not stored in one piece"),
        (_virtual, "not stored in one piece"),
        (lambda file: (file.pop("weights"), file.create_group("weights")), "'weights' is not a dataset"),
    ],
)
def test_an_untrusted_file(tmp_path: Path, change: Callable[[h5py.File], None], reason: str) -> None:
    save_field(make_field(), tmp_path / "a.h5")
    with h5py.File(tmp_path / "a.h5", "r+") as file:
        change(file)
    with pytest.raises(ModelError, match=reason) as caught:
        open_field(tmp_path / "a.h5")
    assert str(caught.value).startswith(str(tmp_path / "a.h5"))


def test_missing_weights_take_no_memory(tmp_path: Path) -> None:
    """A large network whose weights were declared and never written: small file, huge array."""
    save_field(make_field(), tmp_path / "a.h5")
    with h5py.File(tmp_path / "a.h5", "r+") as file:
        large = Architecture((8192, 8192, 8192))
        file.attrs["architecture"] = np.bytes_(json.dumps(large.to_json()))
        del file["weights"]
        file.create_dataset("weights", (large.weight_count,), "<f4")
    assert (tmp_path / "a.h5").stat().st_size < 100_000
    with pytest.raises(ModelError, match="incomplete"):
        open_field(tmp_path / "a.h5")


def test_metadata_that_decompresses_to_too_much(tmp_path: Path) -> None:
    import zlib

    save_field(make_field(), tmp_path / "a.h5")
    with h5py.File(tmp_path / "a.h5", "r+") as file:
        file.attrs["metadata"] = np.frombuffer(zlib.compress(b" " * (1 << 24), 9), np.uint8)
    with pytest.raises(ModelError, match="damaged"):
        open_field(tmp_path / "a.h5")


# --- the Keras layout -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "architecture",
    [SMALL, Architecture(), Architecture((6,) * 12, "elu", "linear"), Architecture((8, 3), "silu")],
    ids=str,
)
def test_keras_layout_is_read_back_exactly(tmp_path: Path, architecture: Architecture) -> None:
    field = make_field(architecture)
    save_field(field, tmp_path / "a.h5", layout="keras")
    assert_same(open_field(tmp_path / "a.h5"), replace(field, layout="keras"))


def test_keras_layout_is_that_of_the_authors(tmp_path: Path) -> None:
    field = make_field(Architecture())
    save_field(field, tmp_path / "a.h5", layout="keras")
    names = ["dense", *(f"dense_{index}" for index in range(1, 9))]
    with h5py.File(tmp_path / "a.h5") as file:
        assert [name.decode() for name in file.attrs["layer_names"]] == names
        assert file.attrs["layer_names"].dtype == "S7"
        assert (file.attrs["backend"], file.attrs["keras_version"]) == (b"tensorflow", b"2.2.4-tf")
        layers = field.network.architecture.layers(field.network.weights)
        for name, (kernel, bias) in zip(names, layers, strict=True):
            expected = [f"{name}/kernel:0".encode(), f"{name}/bias:0".encode()]
            assert list(file[name].attrs["weight_names"]) == expected
            assert np.array_equal(file[name][expected[0]], kernel)
            assert np.array_equal(file[name][expected[1]], bias)
            assert file[name][expected[0]].dtype == np.float32


def test_every_file_of_the_authors_opens_and_survives_our_writer(tmp_path: Path, test_data: Path) -> None:
    files = sorted((test_data / "author-models").rglob("*.h5"))
    assert len(files) == 46
    for path in files:
        field = open_field(path)
        assert field.network.architecture == Architecture()
        assert (field.layout, field.radius, field.metrics, verify(path)) == ("keras", 0.9, {}, None)
        assert np.array_equal(field.transform.matrix, np.eye(4))
        save_field(field, tmp_path / "a.h5", layout="keras", force=True)
        assert open_field(tmp_path / "a.h5").network.weights.tobytes() == field.network.weights.tobytes()


def test_the_authors_key(test_data: Path) -> None:
    folder = test_data / "author-models"
    field = open_field(folder / "101636_sf.h5", key=folder / "neuralGeomKey.json")
    assert field.network.architecture == Architecture()


def foreign(path: Path, architecture: Architecture = SMALL, names: list[str] | None = None) -> None:
    """A file as Keras writes it, with variable-length strings and nothing of ours."""
    layers = list(architecture.layers(initialise(architecture, 1)))
    names = names or [f"dense_{index}" for index in range(len(layers))]
    with h5py.File(path, "w") as file:
        file.attrs["backend"], file.attrs["keras_version"] = "tensorflow", "2.2.4-tf"
        file.attrs["layer_names"] = np.array(["input_1", *names], "S")
        file.create_group("input_1").attrs["weight_names"] = []
        for name, (kernel, bias) in zip(names, layers, strict=True):
            group = file.create_group(name)
            group.attrs["weight_names"] = np.array([f"{name}/kernel:0", f"{name}/bias:0"], "S")
            group[f"{name}/kernel:0"], group[f"{name}/bias:0"] = kernel, bias


def test_layers_come_in_the_order_of_layer_names_and_empty_ones_are_skipped(tmp_path: Path) -> None:
    architecture = Architecture((6,) * 11)  # dense_10 sorts before dense_2
    foreign(tmp_path / "a.h5", architecture)
    field = open_field(tmp_path / "a.h5")
    assert field.network.architecture == architecture
    assert np.array_equal(field.network.weights, initialise(architecture, 1))


def test_a_key_gives_the_activation(tmp_path: Path) -> None:
    architecture = Architecture((5, 4), "elu", "linear")
    foreign(tmp_path / "a.h5", architecture)
    save_field(NeuralField(Network(architecture, initialise(architecture, 1)), Similarity.identity()),
               tmp_path / "b.h5", layout="keras")  # fmt: skip
    assert open_field(tmp_path / "a.h5").network.architecture == SMALL
    assert open_field(tmp_path / "a.h5", key=tmp_path / "b.json").network.architecture == architecture
    with pytest.raises(ModelError, match="has its own architecture; leave out `key=`"):
        open_field(tmp_path / "b.h5", key=tmp_path / "b.json")


@pytest.mark.parametrize(
    ("key", "reason"),
    [
        ("", "not an architecture key"),
        ("[]", "not an architecture key"),
        ("[" * 100_000, "not an architecture key"),
        ('{"config": {"layers": [{"class_name": "Conv2D", "config": {}}]}}', "not an architecture key"),
        ("NET conv", "not a chain of dense layers"),
        ("NET softplus", "unsupported activation 'softplus'"),
        ("NET wide", "do not match those of the key"),
        ("NET list", r"key\.json: has an activation that is not a name"),
        ("NET vector", r"key\.json: is not a chain of dense layers .* to one value"),
    ],
)
def test_invalid_keys(tmp_path: Path, key: str, reason: str) -> None:
    foreign(tmp_path / "a.h5")
    if key.startswith("NET"):
        dense = [
            {"class_name": "Dense", "config": {"units": units, "activation": "relu", "use_bias": True}}
            for units in (5, 4, 1)
        ]
        dense[-1]["config"]["activation"] = "tanh"  # type: ignore[index]
        if key == "NET conv":
            dense.append({"class_name": "Dropout", "config": dense[-1]["config"]})
        if key == "NET vector":
            dense[-1]["config"]["units"] = 3  # type: ignore[index]
        for layer in dense[:-1]:
            if key == "NET list":
                layer["config"]["activation"] = ["relu"]  # type: ignore[index]
            if key == "NET softplus":
                layer["config"]["activation"] = "softplus"  # type: ignore[index]
            if key == "NET wide":
                layer["config"]["units"] = 7  # type: ignore[index]
        key = json.dumps({"class_name": "Sequential", "config": {"layers": dense}})
    (tmp_path / "key.json").write_text(key)
    with pytest.raises(ModelError, match=reason):
        open_field(tmp_path / "a.h5", key=tmp_path / "key.json")


def _rename(file: h5py.File) -> None:
    file.move("dense_1", "other")


def _replace_kernel(values: np.ndarray) -> Callable[[h5py.File], None]:
    def change(file: h5py.File) -> None:
        del file["dense_1/dense_1/kernel:0"]
        file["dense_1/dense_1/kernel:0"] = values

    return change


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (_rename, "it has no 'dense_1'"),
        (_attribute("layer_names", np.array([b"dense_0"])), "not a network from 3 coordinates"),
        (_attribute("layer_names", np.array([b"dense_1", b"dense_0", b"dense_2"])), "not a network from 3"),
        (_attribute("layer_names", np.zeros(3)), "not a list of names"),
        (_attribute("layer_names", np.array([b"input_1"] * 5000)), "5000 layers|too large"),
        (_replace_kernel(np.zeros((5, 4), np.float64)), "not float32"),
        (_replace_kernel(np.zeros((6, 4), np.float32)), "not a network from 3"),
        (_replace_kernel(np.zeros((5, 3), np.float32)), "not a dense layer"),
        (_replace_kernel(np.full((5, 4), np.nan, np.float32)), "not all finite"),
    ],
)
def test_an_untrusted_keras_file(tmp_path: Path, change: Callable[[h5py.File], None], reason: str) -> None:
    foreign(tmp_path / "a.h5")
    with h5py.File(tmp_path / "a.h5", "r+") as file:
        change(file)
    with pytest.raises(ModelError, match=reason):
        open_field(tmp_path / "a.h5")


@pytest.mark.parametrize("activation", ["sine", "softplus"])
def test_activations_that_keras_lacks_are_refused(tmp_path: Path, activation: str) -> None:
    field = make_field(Architecture((5, 4), activation))
    with pytest.raises(UsageError, match=f"Keras has no equivalent of {activation}"):
        save_field(field, tmp_path / "a.h5", layout="keras")
    assert not list(tmp_path.iterdir())


def test_keras_holds_float32_only(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="leave out `precision='f16'`"):
        save_field(make_field(precision="f16"), tmp_path / "a.h5", layout="keras")


def test_the_key_is_not_written_over_a_file(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text("kept")
    with pytest.raises(OutputError, match=r"a\.json: exists already"):
        save_field(make_field(), tmp_path / "a.h5", layout="keras")
    assert [path.name for path in tmp_path.iterdir()] == ["a.json"]


def test_unknown_layout(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="one of native, keras"):
        save_field(make_field(), tmp_path / "a.h5", layout="onnx")


def test_the_paper_s_snippet_runs_in_keras(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    keras = pytest.importorskip("tf_keras", reason="Keras 2 (tf_keras) is not installed")
    for architecture in (Architecture(), Architecture((8, 3), "elu", "linear")):
        field = make_field(architecture)
        save_field(field, tmp_path / "a.h5", layout="keras", force=True)
        model = keras.models.model_from_json((tmp_path / "a.json").read_text())
        model.load_weights(str(tmp_path / "a.h5"))
        points = np.random.default_rng(0).uniform(-0.5, 0.5, (100, 3)).astype(np.float32)
        assert np.allclose(model.predict(points, verbose=0)[:, 0], field.value(points), atol=1e-6)


def test_a_name_without_a_suffix_and_with_spaces(tmp_path: Path) -> None:
    save_model(make_field(), tmp_path / "39298_sf copy", layout="keras")
    shutil.move(tmp_path / "39298_sf copy.json", tmp_path / "key.json")
    assert_same(open_field(tmp_path / "39298_sf copy"), replace(make_field(), layout="keras"))
