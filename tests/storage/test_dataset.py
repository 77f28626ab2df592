"""Data sets: round trips, in any order, in any process; a damaged file is an error in one line."""

from __future__ import annotations

import json
import pickle
import shutil
import subprocess
import sys
import warnings
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

import neuralsdf
from neuralsdf import thread_count
from neuralsdf.backends import backend_status
from neuralsdf.cli.main import main
from neuralsdf.compression.quantize import round_trip
from neuralsdf.errors import ModelError, NeuralSDFError, OutputError, UnknownShapeError, UsageError
from neuralsdf.fields.extract import extract
from neuralsdf.fields.field import NeuralField
from neuralsdf.geometry.similarity_transform import Similarity
from neuralsdf.program.network import Architecture, Network, initialise
from neuralsdf.storage import dataset as storage_dataset
from neuralsdf.storage import load, open_field, save_field
from neuralsdf.storage.dataset import Dataset, checksum, write_dataset

COUNT = 40
SMALL = Architecture((8, 5))
NAMES = [f"part {i:02}é.stl" for i in range(COUNT)]
CPU_BACKENDS = [name for name in ("native", "torch") if backend_status(name).available]


def a_field(seed: int, architecture: Architecture = SMALL, precision: str = "f32") -> NeuralField:
    network = round_trip(Network(architecture, initialise(architecture, seed)), precision)
    metrics = {"surface_mean": 0.001 * seed, "iou": 1 - 0.01 * seed}
    if seed % 2:
        metrics["two_way"] = 0.002
    return NeuralField(
        network,
        Similarity.from_ball(np.array([seed, 0, -seed]), 1.0 + seed),
        metrics=metrics,
        precision=precision,
    )


@pytest.fixture(scope="module")
def fields() -> list[NeuralField]:
    return [a_field(seed, precision=("f32", "f16", "int8")[seed % 3]) for seed in range(COUNT)]


@pytest.fixture(scope="module")
def models(fields, tmp_path_factory) -> list[tuple[str, Path]]:
    folder = tmp_path_factory.mktemp("models")
    pairs = [(name, folder / f"{i}.h5") for i, name in enumerate(NAMES)]
    for field, (_, path) in zip(fields, pairs, strict=True):
        save_field(field, path)
    return pairs


@pytest.fixture(scope="module")
def path(models, tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("set") / "dataset.h5"
    write_dataset(path, models)
    return path


def test_a_shape_equals_its_model_file(path, fields):
    dataset = neuralsdf.Dataset(path)
    assert len(dataset) == COUNT
    assert dataset.architecture == SMALL
    for i, (shape, field) in enumerate(zip(dataset, fields, strict=True)):
        np.testing.assert_array_equal(shape.weights, field.network.weights)
        assert shape.weights.dtype == np.float32
        np.testing.assert_array_equal(shape.transform, field.transform.matrix)
        assert shape.name == NAMES[i]
        measured = {name: value for name, value in shape.metrics.items() if not np.isnan(value)}
        assert measured == pytest.approx(field.metrics, rel=1e-5)
        assert dataset.field(i).metrics == measured


def test_the_file_is_plain_hdf5(path, fields):
    with h5py.File(path) as file:
        assert file["weights"].shape == (COUNT, SMALL.weight_count)
        assert file["transforms"].shape == (COUNT, 4, 4)
        assert [name.decode() for name in file["names"]] == NAMES
        np.testing.assert_allclose(file["metrics"]["iou"], [f.metrics["iou"] for f in fields], rtol=1e-5)
        assert Architecture.from_json(json.loads(file.attrs["architecture"])) == SMALL
        assert file.attrs["format"] == b"neuralsdf-dataset"


@given(seed=st.integers(0, 1000))
@settings(max_examples=5)
def test_any_order_gives_the_same_bytes(models, path, tmp_path_factory, seed):
    other = tmp_path_factory.mktemp("other") / "dataset.h5"
    order = np.random.default_rng(seed).permutation(COUNT)
    write_dataset(other, [models[i] for i in order])
    assert other.read_bytes() == path.read_bytes()


def test_different_architectures_are_named(models, tmp_path):
    wide = tmp_path / "wide.h5"
    save_field(a_field(0, Architecture((16,))), wide)
    target = tmp_path / "dataset.h5"
    with pytest.raises(UsageError) as error:
        write_dataset(target, [*models, ("odd one", wide)])
    line = str(error.value)
    assert "odd one" in line
    assert str(SMALL) in line
    assert "1x16 relu" in line
    assert f"{COUNT - 3} more" in line
    assert list(tmp_path.iterdir()) == [wide]  # nothing half written


def test_what_cannot_be_written(models, tmp_path):
    with pytest.raises(UsageError, match="at least one"):
        write_dataset(tmp_path / "a.h5", [])
    with pytest.raises(UsageError, match=r"names: part 00é\.stl"):
        write_dataset(tmp_path / "a.h5", [models[0], models[1], models[0]])
    with pytest.raises(ModelError, match="no such file"):
        write_dataset(tmp_path / "a.h5", [("a", tmp_path / "missing.h5")])
    with pytest.raises(OutputError):
        write_dataset(tmp_path / "no folder" / "a.h5", models)
    foreign = tmp_path / "foreign.h5"
    save_field(a_field(0), foreign, layout="keras")
    with h5py.File(foreign, "a") as file:
        del file.attrs["format"]
    with pytest.raises(ModelError, match="no transform"):
        write_dataset(tmp_path / "a.h5", [("a", foreign)])


def test_a_full_disk_is_an_error_in_one_line(models, path, tmp_path):
    script = (
        "import resource, sys\n"
        "from neuralsdf.storage.dataset import write_dataset\n"
        "from neuralsdf.errors import OutputError\n"
        "target, size, *models = sys.argv[1:]\n"
        "for limit in range(0, int(size), 500):\n"
        "    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, -1))\n"
        "    try: write_dataset(target, [(str(i), path) for i, path in enumerate(models)])\n"
        "    except OutputError as error: assert 'larger than allowed' in str(error), error\n"
        "    else: raise AssertionError(limit)\n"
    )
    arguments = [str(tmp_path / "d.h5"), str(path.stat().st_size), *(str(model) for _, model in models)]
    done = subprocess.run([sys.executable, "-c", script, *arguments], capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")  # HDF5 would have ended the process
    assert not list(tmp_path.iterdir())


def test_names_may_be_any_that_a_file_system_allows(models, tmp_path):
    names = ["a/../<script>", "\udcff\udc80.stl", "一" * 80, "b "]  # the second is not UTF-8 on disk
    target = tmp_path / "dataset.h5"
    write_dataset(target, [(name, models[i][1]) for i, name in enumerate(names)])
    assert Dataset(target).names == sorted(names)
    Dataset(target).verify()


def test_indexing_is_that_of_an_array(path):
    dataset, everything = Dataset(path), np.arange(COUNT)
    mask = everything % 3 == 1
    for key in (slice(5, 9), slice(None, None, -2), [3, 3, 1], np.array([], int), mask, everything[::-1]):
        part = dataset[key]
        assert part.names == [NAMES[i] for i in everything[key]]
        np.testing.assert_array_equal(part.weights, dataset.weights[key])
        np.testing.assert_array_equal(part.metrics["iou"], dataset.metrics["iou"][key])
        np.testing.assert_array_equal(part.transforms, dataset.transforms[key])
    assert dataset[2:30][3:][[1, 4]].names == [NAMES[6], NAMES[9]]
    assert dataset[-1].name == NAMES[-1]
    assert dataset[np.int32(3)].name == NAMES[3]
    for key in (COUNT, -COUNT - 1, None, [[0, 1], [2, 3]], np.array([0.5]), True, 1.5, (0, 1), b"part 00"):
        with pytest.raises(IndexError, match=f"^{path}"):
            dataset[key]
    for key in (COUNT, 1.5, None, slice(0, 2)):
        with pytest.raises(IndexError, match=f"^{path}: no shape has the index"):
            dataset.field(key)


def test_a_shape_is_found_by_its_name(path):
    dataset = Dataset(path)
    for i in (0, 7, COUNT - 1):
        assert dataset[NAMES[i]].name == NAMES[i]
        assert dataset[NAMES[i].removesuffix(".stl")].name == NAMES[i]  # the only one without its suffix
        assert dataset.index(NAMES[i]) == i
        assert (dataset.field(NAMES[i]).network.weights == dataset[i].weights).all()
    some = dataset[[9, 3, 20]]
    assert some.index(NAMES[3]) == 1
    assert NAMES[3] in some
    assert NAMES[4] not in some
    assert "part 03é" in some
    assert "part 04é" not in some
    assert 3 not in some
    with pytest.raises(UnknownShapeError):
        some[NAMES[4]]


def test_an_unknown_name_lists_similar_names(models, path, tmp_path):
    dataset = Dataset(path)
    for error in (KeyError, UsageError):
        with pytest.raises(error) as failure:
            dataset["part 07e"]
    assert str(failure.value).startswith(f"{path}: no shape is called 'part 07e'; did you mean ")
    assert NAMES[7] in str(failure.value)
    with pytest.raises(KeyError, match=r"no shape is called 'xyz'; there are part 00é\.stl, .* and 37 more"):
        dataset["xyz"]
    files = [model for _, model in models[:3]]
    write_dataset(tmp_path / "a.h5", list(zip(["a/x.obj", "a/x.ply", "b/x.ply"], files, strict=True)))
    twice = Dataset(tmp_path / "a.h5")
    assert twice["b/x"].name == "b/x.ply"
    with pytest.raises(KeyError, match=r"'a/x' is the name of several shapes: a/x.obj, a/x.ply"):
        twice["a/x"]
    with pytest.raises(KeyError, match=r"did you mean a/x.obj"):
        twice["x"]


def test_a_name_that_is_not_a_file_name_is_unknown(path):
    with pytest.raises(UnknownShapeError, match="no shape is called"):
        Dataset(path)["\ud800"]
    assert "\ud800" not in Dataset(path)


def damaged(path: Path, target: Path, part: bytes) -> Dataset:
    """The data set with one bit of `part` flipped."""
    content = bytearray(path.read_bytes())
    content[content.index(part) + 1] ^= 4
    target.write_bytes(content)
    return Dataset(target)


def test_damaged_weights_are_not_evaluated(path, tmp_path):
    """Nor by any subset that contains them; the others are."""
    whole = Dataset(path)
    other = damaged(path, tmp_path / "damaged.h5", whole[3].weights.tobytes())
    points = np.zeros((2, 3))
    for _ in range(2):
        np.testing.assert_array_equal(other[4:].evaluate(points), whole[4:].evaluate(points))
        for some in (other, other[:4], other[[3]], other.shuffled(0)):
            with pytest.raises(ModelError, match=f"^{other.path}: shape '{NAMES[3]}' is damaged"):
                some.evaluate(points)


def test_points_to_evaluate_are_checked(path):
    dataset = Dataset(path)[:2]
    for points in ([0, 0, 0], np.zeros((2, 2, 3)), np.zeros((2, 2)), "a", None):
        with pytest.raises(UsageError, match=r"^points must"):
            dataset.evaluate(points)
    assert dataset.evaluate([]).shape == (2, 0)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        values = dataset.evaluate([[np.nan, 0, 0], [np.inf, 0, 0], [1e300, 0, 0], [0, 0, 0]])
    assert np.isnan(values[:, :3]).all()
    np.testing.assert_array_equal(values[:, 3], [dataset.field(i).value(np.zeros((1, 3)))[0] for i in (0, 1)])


def test_other_shapes_in_the_file_are_detected_when_it_is_opened_again(models, path, tmp_path):
    """Workers of a DataLoader open it again, and indices would mean other shapes."""
    target = tmp_path / "set.h5"
    write_dataset(target, models[:10])
    held = pickle.dumps(Dataset(target)[2:5])
    assert pickle.loads(held).names == NAMES[2:5]
    write_dataset(target, models[:5] + models[20:])
    assert pickle.loads(held).names == NAMES[2:5]
    for others in (models[1:11], models[:4]):
        write_dataset(target, others)
        with pytest.raises(ModelError, match=r"set\.h5: has changed since it was opened"):
            pickle.loads(held)


def test_a_field_has_its_unit_in_constant_time(models, tmp_path, monkeypatch):
    """Each field decoded the units of all shapes: 8000 fields took 16 times as long as 2000."""
    pairs = [(name, tmp_path / f"{i}.h5") for i, (name, _) in enumerate(models)]
    known = [("mm", "in", None)[i % 3] for i in range(len(pairs))]
    for (_, path), (_, model), unit in zip(pairs, models, known, strict=True):
        save_field(replace(open_field(model), unit=unit), path)
    write_dataset(tmp_path / "set.h5", pairs)
    dataset = Dataset(tmp_path / "set.h5")
    decoded, decode = [], storage_dataset._decoded
    monkeypatch.setattr(storage_dataset, "_decoded", lambda name: decoded.append(name) or decode(name))
    assert [dataset.field(i).unit for i in range(len(dataset))] == known
    assert len(decoded) == 2 * len(dataset)
    assert [dataset.field(i - len(dataset)).unit for i in range(len(dataset))] == known
    assert [dataset[5::-2].field(i).unit for i in range(3)] == known[5::-2]
    assert dataset.field(NAMES[1]).unit == "in"


def test_the_repr_is_short(path):
    dataset = Dataset(path)
    assert repr(dataset[10:20]) == f"Dataset({str(path)!r}, 10 shapes, 8-5 relu)"
    assert repr(dataset[3]) == f"Shape('part 03é.stl', {SMALL.weight_count} weights)"


@pytest.mark.parametrize("chosen", [slice(None), slice(10, 20), [7, 3, 30], [5]])
def test_a_saved_subset_equals_the_data_set_of_its_models(models, path, tmp_path, chosen):
    """Byte for byte, whatever their order."""
    Dataset(path)[chosen].shuffled(1).save(tmp_path / "some.h5")
    rows = range(COUNT)[chosen] if isinstance(chosen, slice) else chosen
    write_dataset(tmp_path / "expected.h5", [models[i] for i in rows])
    assert (tmp_path / "some.h5").read_bytes() == (tmp_path / "expected.h5").read_bytes()
    Dataset(tmp_path / "some.h5").verify()


def test_a_failed_save_leaves_nothing(path, tmp_path):
    dataset, target = Dataset(path), tmp_path / "some.h5"
    before = path.read_bytes()
    with pytest.raises(OutputError, match="is the input"):
        dataset[:3].save(path, force=True)
    with pytest.raises(UsageError, match="at least one shape"):
        dataset[:0].save(target)
    with pytest.raises(UsageError, match=r"some\.npz: a data set is saved as \.h5"):
        dataset.save(tmp_path / "some.npz")
    with pytest.raises(UsageError, match=r"duplicate names: part 03é\.stl"):
        dataset[[3, 1, 3]].save(target)
    damaged = bytearray(before)
    damaged[before.index(dataset[3].weights.tobytes())] ^= 1
    (tmp_path / "damaged.h5").write_bytes(damaged)
    with pytest.raises(ModelError, match=r"shape 'part 03é\.stl' is damaged"):
        Dataset(tmp_path / "damaged.h5")[2:5].save(target)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["damaged.h5"]
    dataset[:3].save(target)
    with pytest.raises(OutputError, match="exists already"):
        dataset[:4].save(target)
    assert len(Dataset(target)) == 3
    dataset[:4].save(target, force=True)
    assert len(Dataset(target)) == 4
    assert path.read_bytes() == before


def test_metrics_of_another_version_are_saved_unchanged(path, tmp_path):
    """A file has the metrics of the version that wrote it."""

    def edit(file: h5py.File) -> None:
        old = file["metrics"][...]
        kept = np.zeros(len(old), [("iou", "<f8"), ("older", "<f8")])
        kept["iou"], kept["older"] = old["iou"], 5
        del file["metrics"], file["checksums"]
        file["metrics"] = kept
        rows = zip(file["weights"], file["transforms"], file["names"], kept, strict=True)
        file["checksums"] = np.array([checksum(*row) for row in rows], "<u4")

    Dataset(edited(path, tmp_path / "old.h5", edit))[4:6].save(tmp_path / "some.h5")
    some = Dataset(tmp_path / "some.h5")
    with h5py.File(some.path) as file:
        assert file["metrics"].dtype.names == ("iou", "older")
        assert file["metrics"]["older"].tolist() == [5, 5]
    assert some.metrics["iou"].tolist() == Dataset(path).metrics["iou"][4:6].tolist()
    some.verify()


def test_neighbours_are_a_view_of_the_file(path):
    dataset = Dataset(path)
    assert np.shares_memory(dataset.weights, dataset[3:9].weights)
    assert not dataset.weights.flags.writeable
    shape = dataset[0]
    shape.weights[:] = 0  # its own memory
    assert dataset[0].weights.any()


def test_shuffling_is_a_permutation_that_depends_on_the_seed(path):
    dataset = Dataset(path)
    once, again, other = dataset.shuffled(1), dataset.shuffled(1), dataset.shuffled(2)
    assert once.names == again.names
    assert once.names != other.names
    assert sorted(once.names) == NAMES
    assert dataset.names == NAMES


@pytest.mark.parametrize("device", CPU_BACKENDS)
@pytest.mark.parametrize("count", [0, 1, 97, 5000])
def test_values_of_many_shapes_equal_those_of_each(path, device, count):
    points = np.random.default_rng(count).uniform(-1.2, 1.2, (count, 3)).astype(np.float32)  # outside too
    dataset = Dataset(path, device=device).shuffled(0)[:7]
    values = dataset.evaluate(points)
    assert values.shape == (7, count)
    assert values.dtype == np.float32
    alone = [dataset.field(i).value(points) for i in range(7)]
    np.testing.assert_array_equal(values, alone)


@pytest.mark.parametrize("device", CPU_BACKENDS)
@pytest.mark.parametrize("activation", ["relu", "sine", "softplus"])
def test_any_architecture_and_any_number_of_threads(tmp_path, device, activation):
    architecture = Architecture((33, 7), activation, "linear")
    for seed in range(3):
        save_field(a_field(seed, architecture), tmp_path / f"{seed}.h5")
    write_dataset(tmp_path / "set.h5", [(str(seed), tmp_path / f"{seed}.h5") for seed in range(3)])
    dataset = Dataset(tmp_path / "set.h5", device=device)
    points = np.random.default_rng(0).uniform(-0.5, 0.5, (9000, 3))
    alone = [load(tmp_path / f"{seed}.h5", device=device).value(points) for seed in range(3)]
    try:
        for threads in (1, 3):
            thread_count.set_threads(threads)
            np.testing.assert_array_equal(dataset.evaluate(points), alone)
    finally:
        thread_count.set_threads(1)


def test_more_shapes_than_are_gathered_at_once(path):
    dataset = Dataset(path)
    chosen = np.random.default_rng(0).integers(0, COUNT, 600)
    points = np.random.default_rng(0).uniform(-0.5, 0.5, (4, 3)).astype(np.float32)
    np.testing.assert_array_equal(dataset[chosen].evaluate(points), dataset.evaluate(points)[chosen])
    assert dataset[:0].evaluate(points).shape == (0, 4)


def test_a_shape_is_a_field_to_extract(tmp_path):
    """A linear network of |x|_1 - 1/2: an octahedron, of volume 4/3 r^3."""
    architecture = Architecture((6,), "relu", "linear")
    weights = np.zeros(architecture.weight_count, np.float32)
    (kernel, _), (last, bias) = architecture.layers(weights)
    kernel[:] = np.concatenate([np.eye(3), -np.eye(3)], axis=1)
    last[:], bias[:] = 1, -0.5
    scale = Similarity.from_ball(np.array([1.0, 2.0, 3.0]), 10.0)
    save_field(NeuralField(Network(architecture, weights), scale), tmp_path / "octahedron.h5")
    write_dataset(tmp_path / "set.h5", [("octahedron", tmp_path / "octahedron.h5")])
    surface = extract(Dataset(tmp_path / "set.h5").field(0), resolution=64)
    assert surface.watertight
    assert surface.volume == pytest.approx(4 / 3 * 5**3, rel=0.01)


def test_a_pickle_has_the_path_only(path):
    part = Dataset(path).shuffled(0)[:5]
    pickled = pickle.dumps(part)
    assert len(pickled) < 1000
    again = pickle.loads(pickled)
    assert again.names == part.names
    np.testing.assert_array_equal(again.weights, part.weights)


def test_a_file_that_shrank_is_detected_when_it_is_opened_again(models, tmp_path):
    target = tmp_path / "set.h5"
    write_dataset(target, models)
    dataset = Dataset(target)
    pickled, last = pickle.dumps(dataset), dataset[-1]
    write_dataset(target, models[:3])
    np.testing.assert_array_equal(dataset[-1].weights, last.weights)  # the file that was opened
    with pytest.raises(ModelError, match="has changed since"):
        pickle.loads(pickled)


WORKERS = """
import sys
import numpy as np
from torch.utils.data import DataLoader
import neuralsdf

if __name__ == "__main__":
    dataset = neuralsdf.Dataset(sys.argv[1])
    dataset[0]
    loader = DataLoader(dataset, 7, num_workers=2, multiprocessing_context=sys.argv[2])
    batches = list(loader)
    assert [name for batch in batches for name in batch.name] == dataset.names
    weights = np.concatenate([batch.weights.numpy() for batch in batches])
    assert np.array_equal(weights, dataset.weights)
    assert np.array_equal(np.concatenate([b.metrics["iou"].numpy() for b in batches]), dataset.metrics["iou"])
"""


@pytest.mark.parametrize("start", ["fork", "spawn"])
def test_torch_reads_it_in_several_processes(path, tmp_path, start):
    pytest.importorskip("torch")
    script = tmp_path / "workers.py"
    script.write_text(WORKERS)
    done = subprocess.run(
        [sys.executable, "-W", "error::UserWarning", script, path, start],
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr


def test_importing_the_package_is_cheap():
    code = "import neuralsdf, sys; assert not {'numpy', 'h5py', 'torch'} & set(sys.modules)"
    code += "; neuralsdf.Dataset; assert not {'torch', 'scipy', 'igl'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=300)
    with pytest.raises(AttributeError, match="Datset"):
        neuralsdf.Datset  # noqa: B018


def test_every_truncation_is_an_error_in_one_line(path, tmp_path):
    whole = path.read_bytes()
    cut = tmp_path / "cut.h5"
    for length in (0, 4, 100, 2000, len(whole) // 2, len(whole) - 1):
        cut.write_bytes(whole[:length])
        with pytest.raises(ModelError) as error:
            Dataset(cut)
        assert "\n" not in str(error.value)


@given(position=st.floats(0, 1, exclude_max=True), value=st.integers(1, 255))
@settings(max_examples=60)
def test_a_byte_that_changed_is_an_error_or_changes_nothing(path, tmp_path_factory, position, value):
    damaged = bytearray(path.read_bytes())
    damaged[int(position * len(damaged))] ^= value
    file = tmp_path_factory.mktemp("damaged") / "set.h5"
    file.write_bytes(damaged)
    shapes = []
    with suppress(ModelError):
        shapes = list(Dataset(file))
    if not shapes:
        return
    for got, expected in zip(shapes, Dataset(path), strict=True):
        np.testing.assert_equal(got, expected)


def test_a_damaged_shape_is_named_and_the_others_are_read(path, tmp_path):
    damaged = tmp_path / "set.h5"
    shutil.copy(path, damaged)
    with h5py.File(damaged, "a") as file:
        file["weights"][3, 5] += 1
    dataset = Dataset(damaged)
    assert dataset[2].name == NAMES[2]
    for read in (lambda: dataset[3], lambda: dataset.field(3), dataset.verify):
        with pytest.raises(ModelError, match=r"shape 'part 03é\.stl' is damaged"):
            read()


def edited(path: Path, target: Path, edit) -> Path:
    shutil.copy(path, target)
    with h5py.File(target, "a") as file:
        edit(file)
    return target


def replaced(name: str, values):
    def edit(file: h5py.File) -> None:
        del file[name]
        if values is not None:
            file[name] = values

    return edit


@pytest.mark.parametrize(
    ("edit", "reason"),
    [
        (lambda f: f.attrs.__setitem__("format_version", np.uint16(9)), "newer neuralsdf"),
        (lambda f: f.attrs.__setitem__("format", np.bytes_("other")), "not a neuralsdf data set"),
        (lambda f: f.attrs.__setitem__("architecture", np.bytes_('{"hidden":[9,5]}')), "activation"),
        (replaced("weights", None), "no 'weights'"),
        (replaced("weights", np.zeros((COUNT, 3), np.float32)), "its weights are"),
        (replaced("weights", np.zeros((COUNT, SMALL.weight_count))), "its weights are"),
        (replaced("transforms", np.zeros((COUNT - 1, 4, 4))), "its transforms are"),
        (replaced("names", np.zeros(COUNT)), "its names are"),
        (replaced("metrics", np.zeros(COUNT)), "its metrics are"),
        (replaced("checksums", np.zeros(COUNT, np.uint64)), "its checksums are"),
        (replaced("names", h5py.SoftLink("/weights")), "no 'names'"),
        (replaced("names", h5py.ExternalLink("/etc/passwd", "/")), "no 'names'"),
    ],
)
def test_an_untrusted_file_is_checked(path, tmp_path, edit, reason):
    with pytest.raises(ModelError, match=reason):
        Dataset(edited(path, tmp_path / "set.h5", edit))


def test_a_compressed_column_is_refused(path, tmp_path):
    """A few bytes could decompress to gigabytes of zeros."""

    def edit(file: h5py.File) -> None:
        values = file["weights"][()]
        del file["weights"]
        file.create_dataset("weights", data=values, compression="gzip")

    with pytest.raises(ModelError, match="one piece"):
        Dataset(edited(path, tmp_path / "set.h5", edit))


def test_models_and_data_sets_are_distinguished(path, models):
    with pytest.raises(ModelError, match=r"model of one shape.*neuralsdf\.load"):
        Dataset(models[0][1])
    with pytest.raises(ModelError, match=r"data set of many shapes.*neuralsdf\.Dataset"):
        open_field(path)
    with pytest.raises(NeuralSDFError, match="no such file"):
        Dataset(path.with_name("other.h5"))


def test_info_shows_a_data_set(path):
    shown = CliRunner().invoke(main, ["info", str(path), "--verify"], catch_exceptions=False)
    assert shown.exit_code == 0
    assert str(SMALL) in shown.output
    report = json.loads(CliRunner().invoke(main, ["info", str(path), "--json"]).output)
    assert report["shapes"] == COUNT
    assert report["bytes"] == path.stat().st_size
    assert report["medians"]["iou"] == pytest.approx(np.median(Dataset(path).metrics["iou"]))
    assert report["medians"]["two_way"] == pytest.approx(0.002)
    assert {"IoU", "two-way distance"} <= {line.split("  ")[0] for line in shown.output.splitlines()}
    wrong = CliRunner().invoke(main, ["info", str(path), "--measure"])
    assert wrong.exit_code == 2
