"""Model files made to exhaust memory or time, or to break their readers: an error in one line."""

from __future__ import annotations

import inspect
import re
import subprocess
import sys
import warnings
import zipfile
import zlib
from collections.abc import Callable
from contextlib import suppress
from itertools import pairwise
from pathlib import Path

import h5py
import numpy as np
import pytest

from neuralsdf.backends.reference.torch_networks import TorchBackend
from neuralsdf.compression.quantize import round_trip
from neuralsdf.errors import ModelError, NeuralSDFError
from neuralsdf.fields.field import Field, NeuralField
from neuralsdf.files.bounded_input import Budget
from neuralsdf.geometry.similarity_transform import Similarity
from neuralsdf.program.network import Architecture, Network, initialise, largest_sum
from neuralsdf.storage import hdf5, open_field, open_model, save_field
from neuralsdf.storage.dataset import Dataset, checksum, write_dataset
from neuralsdf.storage.hdf5 import ModelFile, file_image, reading

SMALL = Architecture((5, 4))
POINTS = np.random.default_rng(0).uniform(-1.5, 1.5, (64, 3))


def model(path: Path, architecture: Architecture = SMALL, **options: str) -> Path:
    """A small model of ours; options: `layout`, `precision`."""
    precision = options.get("precision", "f32")
    network = round_trip(Network(architecture, initialise(architecture, 0)), precision)
    transform = Similarity.from_ball([1, 2, 3], 2)
    field = NeuralField(network, transform, metrics={"iou": 0.9}, settings={"seed": 0}, precision=precision)
    save_field(field, path, layout=options.get("layout", "native"))
    return path


def keras(
    path: Path, layers: list[tuple[str, np.ndarray, np.ndarray]], names: list[str] | None = None
) -> Path:
    """A file as Keras writes it, of (name, kernel, bias); `names`: another value of `layer_names`."""
    with h5py.File(path, "w") as file:
        file.attrs["layer_names"] = np.array(names or [name for name, _, _ in layers], "S")
        for name, kernel, bias in layers:
            group = file.create_group(name)
            group.attrs["weight_names"] = np.array(["kernel:0", "bias:0"], "S")
            group["kernel:0"], group["bias:0"] = kernel.astype(np.float32), bias.astype(np.float32)
    return path


def chain(*widths: int) -> list[tuple[str, np.ndarray, np.ndarray]]:
    """Layers with these numbers of inputs and outputs."""
    return [(f"l{i}", np.full((a, b), 0.01), np.zeros(b)) for i, (a, b) in enumerate(pairwise(widths))]


# --- one budget per file ----------------------------------------------------------------------------

#: Every public method of a `ModelFile` that reads, and how it is called on a file with all content.
READERS: dict[str, Callable[[ModelFile], object]] = {
    "text": lambda file: file.text("text"),
    "integer": lambda file: file.integer("integer"),
    "numbers": lambda file: file.numbers("numbers"),
    "octets": lambda file: file.octets("octets"),
    "inflated": lambda file: file.inflated("deflated", 100),
    "names": lambda file: file.names("names"),
    "values": lambda file: file.values("values"),
}
#: Those that read nothing which grows with the file. Mapped data sets are exempt.
OTHERS = {"error", "has_attribute", "holds", "form", "mapped"}


def everything(root: h5py.File) -> None:
    root.attrs["text"], root.attrs["integer"], root.attrs["numbers"] = "text", 3, np.eye(3)
    root.attrs["octets"] = np.arange(9, dtype=np.uint8)
    root.attrs["deflated"] = np.frombuffer(zlib.compress(b"a" * 50), np.uint8)
    root.attrs["names"] = ["a", "bc"]  # of variable length
    root["values"] = np.arange(6.0)


def test_every_method_that_reads_draws_from_the_budget(tmp_path: Path) -> None:
    public = {name for name, _ in inspect.getmembers(ModelFile, inspect.isfunction) if name[0] != "_"}
    assert public == READERS.keys() | OTHERS, "a new method belongs into READERS, and draws what it reads"
    (tmp_path / "a.h5").write_bytes(file_image(everything))
    for name, read in READERS.items():
        with reading(tmp_path / "a.h5") as file:
            assert file.budget.drawn == 0
            read(file)
            assert file.budget.drawn > 0, name
        spent = Budget(Path("whole.csg"), ModelError, 0)
        spent.draw(spent.left)
        with pytest.raises(ModelError), reading(tmp_path / "a.h5", budget=spent) as file:
            read(file)


def test_what_was_read_is_what_was_written(tmp_path: Path) -> None:
    (tmp_path / "a.h5").write_bytes(file_image(everything))
    with reading(tmp_path / "a.h5") as file:
        values = {name: read(file) for name, read in READERS.items()}
    assert (values["text"], values["integer"], values["names"]) == ("text", 3, ["a", "bc"])
    assert (values["octets"], values["inflated"]) == (bytes(range(9)), b"a" * 50)
    assert np.array_equal(values["numbers"], np.eye(3))
    assert np.array_equal(values["values"], np.arange(6.0))


# --- small files that would take gigabytes or minutes -----------------------------------------------


def repeated_layers(path: Path) -> str:
    """A layer of 4 MB, named 300 times."""
    layers = [("in", np.ones((3, 1024)), np.ones(1024)), ("x", np.ones((1024, 1024)), np.ones(1024)),
              ("out", np.ones((1024, 1)), np.ones(1))]  # fmt: skip
    keras(path, layers, ["in", *["x"] * 300, "out"])
    return "lists a layer twice"


def linked_layers(path: Path) -> str:
    """The same layer under 200 names, all of them links to one group: 800 MB."""
    layers = chain(3, 1024, 1024, 1)
    names = ["l0", *(f"x{i}" for i in range(200)), "l2"]
    keras(path, layers, names)
    with h5py.File(path, "r+") as file:
        for name in names[1:-1]:
            file[name] = file["l1"]
    return "decodes to more than 256 MB"


def too_many_weights(path: Path) -> str:
    """More weights than a network may have: they must be counted before any layer is read."""
    names = ["l0", *(f"x{i}" for i in range(250)), "l2"]
    keras(path, chain(3, 1100, 1100, 1), names)
    with h5py.File(path, "r+") as file:
        for name in names[1:-1]:
            file[name] = file["l1"]
    return "weights exceed"


def one_string_often(path: Path) -> str:
    """4000 references to one string of a megabyte."""
    keras(path, chain(3, 4, 1))
    references(path, [b"x" * (1 << 20)] * 4000)
    return "too many strings of variable length"


def references(path: Path, strings: list[bytes]) -> None:
    """Replace `layer_names` by references, all of which refer to the first string."""
    marks = [f"mark{i:04}".encode() for i in range(len(strings))]
    with h5py.File(path, "r+") as file:
        del file.attrs["layer_names"]
        file.attrs.create("layer_names", [strings[0], *marks[1:]], dtype=h5py.string_dtype("ascii"))
    content = bytearray(path.read_bytes())
    # A reference is a length (4), the address of a heap (8) and an index in it (4).
    lengths = [re.escape(len(string).to_bytes(4, "little")) for string in (strings[0], marks[1])]
    found = re.search(lengths[0] + b".{12}" + lengths[1] + b".{12}" + lengths[1], content, re.DOTALL)
    assert found is not None
    first = found.start()
    for index in range(1, len(strings)):
        content[first + 16 * index : first + 16 * (index + 1)] = content[first : first + 16]
    path.write_bytes(content)


def long_names(path: Path) -> str:
    """Names of weights with a very long path through a group that contains itself."""
    keras(path, chain(3, 4, 1))
    with h5py.File(path, "r+") as file:
        file["l0/l0"] = file["l0"]
        file["l0"].attrs["weight_names"] = np.array(["l0/" * 5000 + "kernel:0", "bias:0"], "S")
    return "passes through 5002 groups"


def metadata_bomb(path: Path) -> str:
    model(path)
    with h5py.File(path, "r+") as file:
        file.attrs["metadata"] = np.frombuffer(zlib.compress(b"[" * (1 << 25), 9), np.uint8)
    return "damaged"


HUGE = (repeated_layers, linked_layers, too_many_weights, one_string_often, long_names, metadata_bomb)


def test_a_small_file_takes_little_memory(tmp_path: Path) -> None:
    """Opened in another process, whose memory is limited and measured."""
    reasons = {path: make(path) for make in HUGE for path in [tmp_path / f"{make.__name__}.h5"]}
    code = """
import resource, sys
resource.setrlimit(resource.RLIMIT_AS, (4 << 30, 4 << 30))
resource.setrlimit(resource.RLIMIT_CPU, (60, 60))
from neuralsdf.errors import ModelError
from neuralsdf.storage import open_field
for path in sys.argv[1:]:
    try:
        open_field(path)
    except ModelError as error:
        print(error)
print(open("/proc/self/status").read().split("VmHWM:")[1].split()[0])
"""
    done = subprocess.run(
        [sys.executable, "-c", code, *map(str, reasons)], capture_output=True, text=True, check=True
    )
    *errors, peak = done.stdout.splitlines()
    assert not done.stderr
    for error, (path, reason) in zip(errors, reasons.items(), strict=True):
        assert error.startswith(f"{path}: ")
        assert reason in error
        assert len(error) < 1000
    assert int(peak) < 1_000_000  # kB


# --- unexpected types and shapes --------------------------------------------------------------------

STRANGE: dict[str, object] = {
    "empty": h5py.Empty("f4"),
    "empty string": h5py.Empty("S3"),
    "compound": np.zeros(2, [("a", "f4"), ("b", "S3")]),
    "enumeration": np.array(1, h5py.enum_dtype({"a": 1})),
    "boolean": True,
    "complex": 1j,
    "array": np.zeros((2, 3), np.dtype(("f4", (2,)))),
    "opaque": np.void(b"abc"),
    "rank 32": np.zeros((1,) * 32),
    "long double": np.longdouble("1e4000"),
    "huge": np.full((4, 4), 1e308),
    "negative": np.full((4, 4), -1),
    "nothing": np.zeros(0),
    "strings": np.array([b"a", b"b"]),
    "not UTF-8": np.bytes_(b"\xff\xfe"),
}


@pytest.mark.parametrize(
    "name", ["format", "format_version", "architecture", "transform", "metadata", "checksum"]
)
@pytest.mark.parametrize("strange", STRANGE)
def test_an_attribute_of_any_type(tmp_path: Path, name: str, strange: str) -> None:
    path = model(tmp_path / "a.h5")
    with h5py.File(path, "r+") as file:
        file.attrs[name] = STRANGE[strange]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(ModelError) as caught:
            open_field(path)
    assert str(caught.value).startswith(f"{path}: ")


@pytest.mark.parametrize("name", ["weight_names", "layer_names"])
@pytest.mark.parametrize("strange", STRANGE)
def test_a_list_of_names_of_any_type(tmp_path: Path, name: str, strange: str) -> None:
    path = keras(tmp_path / "a.h5", chain(3, 4, 1))
    with h5py.File(path, "r+") as file:
        (file if name == "layer_names" else file["l0"]).attrs[name] = STRANGE[strange]
    with pytest.raises(ModelError):
        open_field(path)


def references_to_objects(file: h5py.File) -> None:
    file.attrs["transform"] = np.array([file.ref] * 16, h5py.ref_dtype).reshape(4, 4)


def variable_numbers(file: h5py.File) -> None:
    file.attrs.create("transform", np.array([np.ones(3), np.ones(5)], object), dtype=h5py.vlen_dtype("f8"))


def strings_of_4_gb(file: h5py.File) -> None:
    kind = h5py.h5t.C_S1.copy()
    kind.set_size(2**32 - 1)
    del file["weights"]
    h5py.h5d.create(file.id, b"weights", kind, h5py.h5s.create_simple((1000,)))


def a_huge_space(file: h5py.File) -> None:
    del file["weights"]
    file.create_dataset("weights", (1,) * 29 + (2**20,) * 3, "<f4")


def variable_weights(file: h5py.File) -> None:
    del file["weights"]
    weights = np.empty(44, object)
    weights[:] = [np.ones(3, "<f4")] * 44
    file.create_dataset("weights", data=weights, dtype=h5py.vlen_dtype("<f4"))


@pytest.mark.parametrize(
    "change", [references_to_objects, variable_numbers, strings_of_4_gb, a_huge_space, variable_weights]
)
def test_types_that_refer_to_other_objects_or_are_huge(
    tmp_path: Path, change: Callable[[h5py.File], None]
) -> None:
    path = model(tmp_path / "a.h5")
    with h5py.File(path, "r+", libver="latest") as file:
        if change is variable_numbers:
            del file.attrs["transform"]
        change(file)
    with pytest.raises(ModelError, match=r"is not a number|incomplete|damaged"):
        open_field(path)


# --- weights ----------------------------------------------------------------------------------------


def filtered_heap(path: Path, filters: int) -> bytes:
    """Set the length of the filter description in a file with a heap of attributes; returns the old one."""
    content = path.read_bytes()
    at = content.index(b"FRHP")
    path.write_bytes(content[: at + 7] + filters.to_bytes(2, "little") + content[at + 9 :])
    return content


@pytest.mark.parametrize("filters", [1, 20, 0x100])
def test_a_compressed_heap_of_attributes_is_refused(
    tmp_path: Path, filters: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """HDF5 would decompress it completely. Others are read: our Keras layout has nine attributes."""
    path = model(tmp_path / "a.h5", layout="keras")
    assert open_model(path).network.architecture == SMALL
    whole = filtered_heap(path, filters)
    at = path.read_bytes().index(b"FRHP")
    for block in (1 << 22, at + 4, 7):  # the header may lie across blocks
        monkeypatch.setattr(hdf5, "_BLOCK", block)
        with pytest.raises(ModelError, match="its attributes are compressed"):
            open_model(path)
    path.write_bytes(whole)
    open_model(path)


@pytest.mark.parametrize("kind", ["attributes", "links"])
def test_a_data_set_with_a_heap_is_searched(
    tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It must open equally fast at any size, so a large one is refused and not searched."""
    path = a_dataset(tmp_path / "a.h5")
    Dataset(path)
    with h5py.File(path, "r+", libver=("v108", "v108")) as file:
        for i in range(20):
            if kind == "links":
                file[f"x{i}"] = h5py.SoftLink("/")
            else:
                file.attrs[f"x{i}"] = i
    Dataset(path)
    with monkeypatch.context() as patched:
        patched.setattr(hdf5, "_FILTERED_HEAP", re.compile(b"FRHP"))  # any heap
        with pytest.raises(ModelError, match="its attributes are compressed"):
            Dataset(path)
    monkeypatch.setattr(hdf5, "_MAX_FILE", path.stat().st_size - 1)
    with pytest.raises(ModelError, match="more attributes or members than a data set"):
        Dataset(path)


def test_denormal_weights_are_zeros(tmp_path: Path) -> None:
    weights = initialise(SMALL, 0)
    weights[::3] = 1e-40
    save_field(NeuralField(Network(SMALL, weights), Similarity.identity()), tmp_path / "a.h5")
    opened = open_model(tmp_path / "a.h5")
    expected = weights.copy()
    expected[::3] = 0
    assert np.array_equal(opened.network.weights, expected)


@pytest.mark.parametrize("scale", [1e15, 1e25, 3e38])
@pytest.mark.parametrize("activation", ["relu", "tanh", "sine", "softplus", "silu", "elu"])
def test_weights_that_overflow_are_refused(tmp_path: Path, activation: str, scale: float) -> None:
    architecture = Architecture((17, 31), activation, "linear")
    weights = np.full(architecture.weight_count, scale, np.float32)
    save_field(NeuralField(Network(architecture, weights), Similarity.identity()), tmp_path / "a.h5")
    with pytest.raises(ModelError, match="so large that the values overflow"):
        open_field(tmp_path / "a.h5")


def test_large_weights_that_cancel_do_not_overflow(tmp_path: Path) -> None:
    """f = max(x, 0), although the partial products of its weights reach 1e35."""
    architecture = Architecture((1, 1, 1), "relu", "linear")
    kernels = [[1e-20, 0, 0, 0], [1e-15, 0], [1e25, 0], [1e10, 0]]
    network = Network(architecture, np.concatenate(kernels).astype(np.float32))
    assert largest_sum(network) == pytest.approx(1e35, rel=1e-6)
    save_field(NeuralField(network, Similarity.identity()), tmp_path / "a.h5")
    inside = POINTS[np.linalg.norm(POINTS, axis=1) < 1]
    expected = np.maximum(inside[:, 0], 0)
    np.testing.assert_allclose(open_field(tmp_path / "a.h5").distance(inside), expected, rtol=1e-5)


def test_a_deep_network_does_not_overflow(tmp_path: Path) -> None:
    """100 layers: sums of absolute weights would be 1e80 and more, values are not."""
    architecture = Architecture((32,) * 100)
    network = Network(architecture, initialise(architecture, 0))
    assert largest_sum(network) > 1e40
    save_field(NeuralField(network, Similarity.identity()), tmp_path / "a.h5")
    assert np.isfinite(open_field(tmp_path / "a.h5").distance(POINTS, bound=True)).all()


@pytest.mark.parametrize("activation", ["relu", "tanh", "sine", "softplus", "silu", "elu"])
def test_the_bound_on_sums_is_an_upper_bound(activation: str) -> None:
    """No value or derivative of a random network exceeds it."""
    points = (np.random.default_rng(1).uniform(-1, 1, (2000, 3)) / np.sqrt(3)).astype(np.float32)
    for seed in range(5):
        architecture = Architecture((7, 5, 6), activation, "linear")
        network = Network(architecture, initialise(architecture, seed) * np.float32(3 + seed))
        values, gradients = TorchBackend().compile(network).evaluate_with_gradient(points)
        assert max(np.abs(values).max(), np.abs(gradients).max()) <= largest_sum(network)


# --- transforms -------------------------------------------------------------------------------------


def with_transform(path: Path, matrix: np.ndarray) -> Path:
    """A model whose transform is this matrix, whatever it is; the checksum matches."""
    network = Network(SMALL, initialise(SMALL, 0))
    transform = Similarity.identity()
    object.__setattr__(transform, "matrix", matrix)
    save_field(NeuralField(network, transform), path)
    return path


def moved(scale: float = 1.0, x: float = 0.0) -> np.ndarray:
    matrix = np.diag([scale, scale, scale, 1.0])
    matrix[0, 3] = x
    return matrix


@pytest.mark.parametrize(
    ("matrix", "reason"),
    [
        (moved(1e150), "out of the range"),
        (moved(1e308), "out of the range"),
        (moved(1e-150), "out of the range"),
        (moved(5e-324), "out of the range|not a similarity"),
        (moved(1.0, 1e308), "out of the range"),
        (moved(1.0, 1e20), "too far from the origin"),
        (moved(0.0), "not a similarity"),
        (np.zeros((4, 4)), "not a similarity"),
        (np.full((4, 4), np.nan), "finite"),
        (moved(1.0, np.inf), "finite"),
        (np.diag([1.0, 2.0, 3.0, 1.0]), "not a similarity"),
        (np.diag([1.0, 1.0, 1.0, 2.0]), "not a similarity"),
        (np.ones((4, 4)), "not a similarity"),
    ],
    ids=str,
)
def test_transforms_that_cannot_be_used(tmp_path: Path, matrix: np.ndarray, reason: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(ModelError, match=reason):
            open_field(with_transform(tmp_path / "a.h5", matrix))


@pytest.mark.parametrize("scale", [1e-99, 1e-30, 1.0, 1e30, 1e99])
@pytest.mark.parametrize("mirror", [1, -1])
def test_sizes_at_the_ends_of_the_range_work(tmp_path: Path, scale: float, mirror: int) -> None:
    """A mirrored model, or one of any size, is the same field in another space."""
    matrix = moved(scale, scale)
    matrix[0, 0] *= mirror
    field = open_field(with_transform(tmp_path / "a.h5", matrix))
    unit = open_field(with_transform(tmp_path / "b.h5", np.eye(4)))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        distances, gradients = field.block_distance_and_gradient(
            (POINTS * [mirror, 1, 1] + [1, 0, 0]) * scale
        )
    expected, directions = unit.block_distance_and_gradient(POINTS)
    np.testing.assert_allclose(distances / scale, expected, atol=1e-5)
    np.testing.assert_allclose(gradients, directions * [mirror, 1, 1], atol=1e-4)
    assert np.isfinite([field.transform.scale**2, field.transform.scale**3]).all()
    assert field.transform.scale**3 > 0


# --- metadata ---------------------------------------------------------------------------------------


def with_metadata(path: Path, **changes: object) -> Path:
    """A model with this metadata; the checksum matches."""
    import json
    import zlib
    from hashlib import sha256

    model(path)
    with h5py.File(path, "r+") as file:
        metadata = json.loads(zlib.decompress(file.attrs["metadata"].tobytes())) | changes
        deflated = zlib.compress(json.dumps(metadata).encode())
        parts = (file.attrs["architecture"], file.attrs["transform"].tobytes(), deflated, file["weights"][()])
        file.attrs["metadata"] = np.frombuffer(deflated, np.uint8)
        file.attrs["checksum"] = np.frombuffer(sha256(b"".join(map(bytes, parts))).digest(), np.uint8)
    return path


def test_metrics_that_are_unknown_or_not_numbers(tmp_path: Path) -> None:
    metrics = {"iou": 0.5, "\x1b[31m\n": 1.0, "unknown": 2.0, "volume": 1e308, "area": "many", "loss": None}
    opened = open_model(with_metadata(tmp_path / "a.h5", metrics=metrics))
    assert opened.metrics.keys() == {"iou", "volume", "area", "loss"}
    assert opened.metrics["iou"] == 0.5
    assert np.isnan([opened.metrics[name] for name in ("volume", "area", "loss")]).all()


def test_settings_that_are_plain_values_are_kept(tmp_path: Path) -> None:
    deep: object = 1
    for _ in range(900):
        deep = {"a": deep}
    plain = {
        "seed": 0,
        "beta": 1.5,
        "sign": "winding",
        "target_met": True,
        "widths": [16, 24],
        "weight": None,
    }
    others = {"deep": deep, "\x1b[31m": 1, "note": "\x1b]0;x\x07", "long": "x" * 10_000, "nested": [[1]],
              "huge": 10**400}  # fmt: skip
    opened = open_model(with_metadata(tmp_path / "a.h5", settings=plain | others))
    assert opened.settings == plain


@pytest.mark.parametrize(
    "source",
    [
        {"name": "a.obj", "sha256": "00" * 32, "faces": -1, "bytes": 1},
        {"name": "a.obj", "sha256": "00" * 32, "faces": 1 << 70, "bytes": 1},
        {"name": "a.obj", "sha256": "00" * 32, "faces": 1.5, "bytes": 1},
        {"name": "a.obj", "sha256": "\x1b[31m", "faces": 1, "bytes": 1},
        {"name": "a" * 10_000, "sha256": "00" * 32, "faces": 1, "bytes": 1},
        {"name": 3, "sha256": "00" * 32, "faces": 1, "bytes": 1},
        {"name": "a.obj"},
        "a.obj",
        [],
    ],
    ids=repr,
)
def test_an_invalid_source(tmp_path: Path, source: object) -> None:
    with pytest.raises(ModelError, match="its source is not"):
        open_model(with_metadata(tmp_path / "a.h5", source=source))


def test_the_name_of_the_source_is_printable(tmp_path: Path) -> None:
    source = {"name": "a\ud800b\udcff.obj", "sha256": "00" * 32, "faces": 1, "bytes": 1}
    opened = open_model(with_metadata(tmp_path / "a.h5", source=source))
    assert opened.source is not None
    assert opened.source.name == "a\ufffdb\udcff.obj"
    assert opened.source.name.encode("utf-8", "surrogateescape") == b"a\xef\xbf\xbdb\xff.obj"


# --- damage -----------------------------------------------------------------------------------------


def a_dataset(path: Path) -> Path:
    write_dataset(path, [(name, model(path.with_name(f"{name}.h5"))) for name in "ab"])
    return path


def a_bundle(path: Path) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(zipfile.ZipInfo("tree.csg"), "a.h5.translate(1) | sphere(0.5)")
        archive.writestr(zipfile.ZipInfo("a.h5"), model(path.with_name("member.h5")).read_bytes())
    return path


KINDS: dict[str, Callable[[Path], Path]] = {
    "native.h5": model,
    "int8.h5": lambda path: model(path, precision="int8"),
    "keras.h5": lambda path: model(path, layout="keras"),
    "foreign.h5": lambda path: keras(path, chain(3, 4, 1)),
    "dataset.h5": a_dataset,
    "bundle.csg": a_bundle,
}


@pytest.mark.parametrize("kind", KINDS)
def test_damaged_bytes_anywhere(tmp_path: Path, kind: str, capfd: pytest.CaptureFixture[str]) -> None:
    content = KINDS[kind](tmp_path / kind).read_bytes()
    rng, opened = np.random.default_rng(0), 0
    path = tmp_path / f"damaged-{kind}"
    for _ in range(150):
        damaged = bytearray(content)
        for _ in range(rng.integers(1, 5)):
            start, size = rng.integers(len(content)), rng.integers(1, 9)
            fill = rng.choice([b"\x00" * 8, b"\xff" * 8, rng.bytes(8)])
            damaged[start : start + size] = bytes(fill)[:size].ljust(size, b"\0")
        path.write_bytes(
            damaged[: len(content)] if rng.random() < 0.8 else damaged[: rng.integers(len(content))]
        )
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            with suppress(NeuralSDFError):
                if kind == "dataset.h5":
                    dataset = Dataset(path)
                    fields: list[Field] = [dataset.field(i) for i in range(len(dataset))]
                else:
                    fields = [open_field(path)]
                for field in fields:
                    assert field.distance(POINTS, bound=True).shape == (64,)
                opened += 1
    assert 0 < opened < 150
    assert capfd.readouterr() == ("", "")


def changed_dataset(path: Path, **columns: object) -> Path:
    """A data set of two shapes, the first with other values in these columns; its checksum matches."""
    a_dataset(path)
    with h5py.File(path, "r+") as file:
        for name, value in columns.items():
            file[name][0] = value
        parts = [file[name][0] for name in ("weights", "transforms", "names", "metrics")]
        file["checksums"][0] = checksum(*parts)
    return path


@pytest.mark.parametrize(
    ("columns", "reason"),
    [
        ({"weights": np.full(SMALL.weight_count, np.nan)}, "not all finite"),
        ({"weights": 1e38 * np.random.default_rng(0).uniform(-1, 1, SMALL.weight_count)}, "overflow"),
        ({"transforms": np.full((4, 4), np.nan)}, "shape 'a': .*finite"),
        ({"transforms": moved(1e150)}, "shape 'a': .*out of the range"),
        ({"transforms": np.zeros((4, 4))}, "shape 'a': .*not a similarity"),
    ],
)
def test_a_shape_of_a_data_set_that_cannot_be_used(
    tmp_path: Path, columns: dict[str, object], reason: str
) -> None:
    dataset = Dataset(changed_dataset(tmp_path / "dataset.h5", **columns))
    with pytest.raises(ModelError, match=reason):
        dataset.field(0)
    assert dataset.field(1).distance(POINTS).shape == (64,)


def test_metrics_of_a_data_set_that_are_unknown_are_left_out(tmp_path: Path) -> None:
    path = a_dataset(tmp_path / "dataset.h5")
    with h5py.File(path, "r+") as file:
        records = file["metrics"][()]
        stranger = np.zeros(2, [("\x1b]0;x\x07", "<f8"), ("unknown", "<f8"), ("iou", "<f8"), ("loss", "<f8")])
        stranger["iou"], stranger["loss"] = records["iou"], 1e300
        del file["metrics"]
        file.create_dataset("metrics", data=stranger)
        for row in range(2):
            parts = [file[name][row] for name in ("weights", "transforms", "names", "metrics")]
            file["checksums"][row] = checksum(*parts)
    dataset = Dataset(path)
    assert dataset.metrics.dtype.names == ("iou", "loss")
    assert dataset.metrics["iou"].tolist() == [0.9, 0.9]
    assert dataset[0].metrics["iou"] == 0.9
    assert np.isnan(dataset[0].metrics["loss"])
    assert dataset.field(0).metrics == {"iou": 0.9}
