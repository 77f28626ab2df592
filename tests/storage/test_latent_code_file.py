"""Code files: a shape of a latent model opens like any other, as long as its decoder is the same."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from click.testing import CliRunner, Result

import neuralsdf as ns
from neuralsdf.cli.main import main
from neuralsdf.errors import ModelError, OutputError, UsageError
from neuralsdf.fields.field import NeuralField
from neuralsdf.files.bounded_input import Budget
from neuralsdf.geometry.similarity_transform import Similarity
from neuralsdf.latent_fields.decoder import Decoder, DecoderShape
from neuralsdf.latent_fields.decoder_file import write_decoder
from neuralsdf.latent_fields.latent_field import LatentField
from neuralsdf.mesh.mesh import Source
from neuralsdf.storage import open_field, open_model, save_field, save_model, verify
from neuralsdf.storage.csg_file import save_tree
from neuralsdf.storage.dataset import Dataset
from neuralsdf.storage.hdf5 import file_image
from neuralsdf.storage.model_attributes import CODE, write_record

from ..helpers.decoders import octahedra, octahedron, random_decoder
from ..helpers.fields import ball_field

SOURCE = Source("chair.off", "ab" * 32, 1200, 34_000, unit="mm")
KNOWN: dict[str, Any] = {
    "source": SOURCE,
    "metrics": {"iou": 0.9, "surface_mean": 0.002},
    "settings": {"model": "deepsdf", "steps": 800},
}
CENTRE = np.array([1, 2, 3])
POINTS = np.random.default_rng(0).uniform(-1.4, 1.4, (200, 3)) + CENTRE


def run(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    """The code file of an octahedron of radius 0.6 in a ball of radius 2, its decoder beside it."""
    save_field(octahedron(tmp_path, **KNOWN), tmp_path / "a.h5", layout="code")
    return tmp_path / "a.h5"


# --- round trip -------------------------------------------------------------------------------------


def test_a_field_is_read_back(tmp_path: Path, saved: Path) -> None:
    field, read = octahedron(tmp_path, **KNOWN), ns.load(saved)
    assert isinstance(read, LatentField)
    assert read.code.tobytes() == field.code.tobytes()
    assert read.network.weights.tobytes() == field.network.weights.tobytes()
    assert read.transform.matrix.tobytes() == field.transform.matrix.tobytes()
    assert (read.source, read.metrics, read.settings) == (field.source, field.metrics, field.settings)
    assert (read.unit, read.layout, read.path) == ("mm", "code", saved)
    assert read.decoder_path == tmp_path / "decoder.safetensors"
    assert saved.stat().st_size <= field.code.nbytes + 1500
    assert verify(saved) is not None


def test_equal_fields_give_equal_bytes(tmp_path: Path, saved: Path) -> None:
    read = open_model(saved)
    save_field(read, tmp_path / "b.h5", layout="code")
    assert (tmp_path / "b.h5").read_bytes() == saved.read_bytes()


def test_a_baked_model_needs_no_decoder_and_agrees(tmp_path: Path, saved: Path) -> None:
    shape = DecoderShape((128,) * 8, code=64, skip=4)
    code = np.random.default_rng(1).normal(0, 1, 64).astype(np.float32)
    write_decoder(tmp_path / "other.safetensors", random_decoder(shape))
    field = LatentField(
        Similarity.identity(),
        decoder=random_decoder(shape),
        code=code,
        decoder_path=tmp_path / "other.safetensors",
    )
    for name, latent in (("a", open_model(saved)), ("other", field)):
        assert isinstance(latent, LatentField)
        save_model(latent, tmp_path / f"{name}.code.h5", layout="code")
        save_model(latent, tmp_path / f"{name}.baked.h5")
        baked, coded = open_model(tmp_path / f"{name}.baked.h5"), open_model(tmp_path / f"{name}.code.h5")
        assert type(baked) is NeuralField
        assert baked.layout == "native"
        with h5py.File(tmp_path / f"{name}.baked.h5") as file:
            assert (file.attrs["format"], file.attrs["format_version"]) == (b"neuralsdf", 1)
        inside = np.random.default_rng(2).uniform(-0.57, 0.57, (500, 3)).astype(np.float32)
        expected = latent.decoder.value(inside, latent.code)
        assert (baked.source, baked.metrics, baked.settings) == (
            latent.source,
            latent.metrics,
            latent.settings,
        )
        for read in (baked, coded):
            np.testing.assert_allclose(read.value(inside), expected, atol=1e-5)
    for path in tmp_path.glob("*.safetensors"):
        path.unlink()
    assert open_model(tmp_path / "a.baked.h5").distance([[1, 2, 3]]) == pytest.approx(-1.2 / np.sqrt(3))


def test_a_baked_model_may_have_any_precision_and_layout(tmp_path: Path, saved: Path) -> None:
    field = replace(open_model(saved), metrics={})
    save_model(replace(field, precision="int8"), tmp_path / "int8.h5")
    save_model(field, tmp_path / "keras.h5", layout="keras")
    for name in ("int8", "keras"):
        np.testing.assert_allclose(
            open_model(tmp_path / f"{name}.h5").distance(POINTS), field.distance(POINTS), atol=0.02
        )


# --- moving, missing and retrained decoders -----------------------------------------------------------


def test_a_code_and_its_decoder_move_together(tmp_path: Path) -> None:
    here = tmp_path / "here"
    (here / "run").mkdir(parents=True)
    save_field(octahedron(here / "run"), here / "a.h5", layout="code")
    expected = open_field(here / "a.h5").distance(POINTS)
    shutil.move(here, tmp_path / "there")
    moved = open_model(tmp_path / "there" / "a.h5")
    assert isinstance(moved, LatentField)
    assert moved.decoder_path == tmp_path / "there" / "run" / "decoder.safetensors"
    assert np.array_equal(moved.distance(POINTS), expected)


def test_a_missing_decoder_is_an_error_in_one_line(tmp_path: Path, saved: Path) -> None:
    (tmp_path / "decoder.safetensors").unlink()
    with pytest.raises(ModelError, match=r"its decoder decoder\.safetensors is missing; restore it") as error:
        open_field(saved)
    assert error.value.path == str(saved)
    result = run("info", saved)
    assert result.exit_code == 1
    assert result.stderr.startswith(f"neuralsdf: error: {saved}: its decoder")
    assert result.stderr.count("\n") == 1


def test_a_retrained_decoder_is_refused(tmp_path: Path, saved: Path) -> None:
    decoder = octahedra()
    weights = dict(decoder.weights)
    weights["layers.3.bias"] = weights["layers.3.bias"] + np.float32(0.01)
    write_decoder(tmp_path / "decoder.safetensors", Decoder(decoder.shape, weights))
    with pytest.raises(ModelError, match=r"retrained\?\); restore it, or reconstruct the shape again"):
        open_field(saved)
    write_decoder(tmp_path / "decoder.safetensors", replace(decoder, metadata={"note": "same weights"}))
    open_field(saved)
    (tmp_path / "decoder.safetensors").write_bytes(b"not a decoder at all")
    with pytest.raises(ModelError, match=r"decoder\.safetensors: is not a decoder"):
        open_field(saved)


def test_a_decoder_outside_of_the_folder_needs_permission(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "shapes").mkdir()
    field, path = octahedron(tmp_path / "run"), tmp_path / "shapes" / "a.h5"
    with pytest.raises(UsageError, match="outside of the code file's folder"):
        save_field(field, path, layout="code")
    assert not path.exists()
    save_field(field, path, layout="code", allow_outside=True)
    for opening in (open_field, open_model, ns.load, verify):
        with pytest.raises(ModelError, match="`allow_outside=True` permits it"):
            opening(path)
        opening(path, allow_outside=True)
    result = run("info", path)
    assert (result.exit_code, "--allow-outside permits it" in result.stderr) == (1, True)
    assert run("info", path, "--allow-outside", "--verify").exit_code == 0
    (tmp_path / "shapes" / "link.safetensors").symlink_to(tmp_path / "run" / "decoder.safetensors")
    forged(path, file="link.safetensors")
    with pytest.raises(ModelError, match="outside"):
        open_field(path)


# --- what is refused --------------------------------------------------------------------------------


def forged(path: Path, code: Any = None, **description: object) -> Path:
    """A code file with this code and description of its decoder, and the right checksum."""
    code = np.array([0.5, 0.1], np.float32) if code is None else code
    described = {"file": "decoder.safetensors", "sha256": octahedra().sha256} | description
    field = NeuralField(ball_field().network, Similarity.identity())

    def build(root: h5py.File) -> None:
        write_record(root, CODE, described, field, code.tobytes())
        root.create_dataset("code", data=code)

    path.write_bytes(file_image(build))
    return path


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"file": "/etc/passwd"}, "relative path"),
        ({"file": ""}, "relative path"),
        ({"file": 3}, "relative path"),
        ({"file": "a\x1b[31m\n"}, "relative path"),
        ({"file": "a\0"}, "relative path"),
        ({"file": "a" * 5000}, "relative path"),
        ({"file": "a" * 3000}, "is missing"),
        ({"file": "../decoder.safetensors"}, "outside"),
        ({"file": "../../../../etc/passwd"}, "outside"),
        ({"file": "."}, "is a folder"),
        ({"file": "a.h5"}, "not a decoder"),
        ({"sha256": None}, "relative path"),
        ({"sha256": "00" * 32}, "retrained"),
        ({"code": np.zeros(3, np.float32)}, "2 finite numbers"),
        ({"code": np.zeros(2)}, "vector of float32"),
        ({"code": np.zeros((2, 1), np.float32)}, "vector of float32"),
        ({"code": np.zeros(100_000, np.float32)}, "vector of float32"),
        ({"code": np.array([0.1, np.nan], np.float32)}, "2 finite numbers"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_crafted_files_are_refused(tmp_path: Path, change: dict[str, Any], reason: str) -> None:
    write_decoder(tmp_path / "decoder.safetensors", octahedra())
    assert isinstance(open_field(forged(tmp_path / "a.h5")), LatentField)
    with pytest.raises(ModelError, match=reason) as error:
        open_field(forged(tmp_path / "a.h5", **change))
    assert len(str(error.value).splitlines()) == 1


def test_values_that_overflow_are_refused(tmp_path: Path) -> None:
    decoder = octahedra()
    weights = {name: values * np.float32(1e15) for name, values in decoder.weights.items()}
    huge = Decoder(decoder.shape, weights)
    write_decoder(tmp_path / "decoder.safetensors", huge)
    with pytest.raises(ModelError, match="overflow"):
        open_field(forged(tmp_path / "a.h5", sha256=huge.sha256))


def test_damage_is_an_error_or_harmless(saved: Path) -> None:
    content = saved.read_bytes()
    original = open_model(saved)
    for length in range(0, len(content), 37):
        saved.write_bytes(content[:length])
        with pytest.raises(ModelError):
            open_model(saved)
    for index in range(0, len(content), 5):
        saved.write_bytes(content[:index] + bytes([content[index] ^ 0x10]) + content[index + 1 :])
        try:
            read = open_model(saved)
        except ModelError:
            continue
        assert read.network.weights.tobytes() == original.network.weights.tobytes()
        assert (read.metrics, read.settings) == (original.metrics, original.settings)


def test_newer_versions_are_refused(saved: Path) -> None:
    with h5py.File(saved, "r+") as file:
        file.attrs["format_version"] = np.uint16(2)
    with pytest.raises(ModelError, match="install a newer neuralsdf"):
        open_model(saved)


def test_the_decoder_counts_in_the_budget_of_the_whole(tmp_path: Path, saved: Path) -> None:
    budget = Budget(tmp_path / "whole.csg", ModelError, 0)
    open_model(saved, budget=budget)
    decoder = (tmp_path / "decoder.safetensors").stat().st_size
    assert budget.file_bytes == decoder
    assert budget.drawn > octahedra().shape.parameter_count * 4
    budget.draw(budget.left)
    with pytest.raises(ModelError, match=r"whole\.csg"):
        open_model(saved, budget=budget)


def test_what_a_code_file_cannot_hold(tmp_path: Path, saved: Path) -> None:
    field = open_model(saved)
    with pytest.raises(UsageError, match="without a latent code"):
        save_model(ball_field(), tmp_path / "b.h5", layout="code")
    with pytest.raises(UsageError, match="float32"):
        save_model(replace(field, metrics={}, precision="f16"), tmp_path / "b.h5", layout="code")
    with pytest.raises(OutputError, match="is the input"):
        save_model(field, tmp_path / "decoder.safetensors", layout="code", force=True)
    with pytest.raises(OutputError, match="exists already"):
        save_model(field, saved, layout="code")
    with pytest.raises(UsageError, match="cannot be printed"):
        save_model(replace(field, decoder_path=tmp_path / "\x1b[31m"), tmp_path / "b.h5", layout="code")
    with pytest.raises(ModelError, match="leave out `key=`"):
        open_model(saved, key=tmp_path / "key.json")
    with pytest.raises(ModelError, match="one shape"):
        Dataset(saved)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.h5", "decoder.safetensors"]


# --- use --------------------------------------------------------------------------------------------


def test_a_code_file_is_a_leaf_of_a_tree(tmp_path: Path, saved: Path) -> None:
    alone = open_field(saved)
    (tmp_path / "tree.csg").write_text("a.h5 - sphere(0.5).translate(1, 2, 3)")
    tree = open_field(tmp_path / "tree.csg")
    radii = np.linalg.norm(POINTS - CENTRE, axis=1)
    inside = POINTS[radii < 2]  # of the ball, where values are those of the network
    expected = np.maximum(alone.distance(inside), 0.5 - radii[radii < 2])
    np.testing.assert_allclose(tree.distance(inside), expected, atol=1e-5)


def test_a_bundle_holds_the_network_of_a_code(tmp_path: Path, saved: Path) -> None:
    shape = open_field(saved) | ns.sphere(0.1)
    save_tree(shape, tmp_path / "linked.csg")
    save_tree(shape, tmp_path / "bundle.csg", bundle=True)
    expected = open_field(tmp_path / "linked.csg").distance(POINTS)
    saved.unlink()
    (tmp_path / "decoder.safetensors").unlink()
    np.testing.assert_allclose(open_field(tmp_path / "bundle.csg").distance(POINTS), expected, atol=1e-6)


def test_a_tree_permits_decoders_outside_as_it_permits_leaves(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "shapes").mkdir()
    save_field(octahedron(tmp_path / "run"), tmp_path / "shapes" / "a.h5", layout="code", allow_outside=True)
    (tmp_path / "shapes" / "tree.csg").write_text("a.h5 | sphere(0.1)")
    with pytest.raises(ModelError, match="outside"):
        open_field(tmp_path / "shapes" / "tree.csg")
    open_field(tmp_path / "shapes" / "tree.csg", allow_outside=True)


def test_commands_use_it_like_a_model(tmp_path: Path, saved: Path) -> None:
    points = tmp_path / "points.txt"
    points.write_text("1 2 3\n")
    assert float(run("query", saved, points).stdout) == pytest.approx(-1.2 / np.sqrt(3), rel=1e-5)
    assert run("extract", saved, "-o", tmp_path / "a.ply", "--resolution", 48).exit_code == 0
    assert run("render", saved, "-o", tmp_path / "a.png", "--size", "32x32").exit_code == 0
    evaluated = run("eval", saved, tmp_path / "a.ply", "--json")
    assert json.loads(evaluated.stdout)["metrics"]["iou"] > 0.98
    shown = run("info", saved)
    assert "2 numbers, of the decoder" in shown.stdout
    assert f"3x8 relu, code 2, {octahedra().shape.parameter_count} parameters" in shown.stdout
    report = json.loads(run("info", saved, "--json", "--verify").stdout)
    assert (report["layout"], report["code_size"]) == ("code", 2)
    assert report["decoder"] == str(tmp_path / "decoder.safetensors")
    assert report["decoder_parameters"] == octahedra().shape.parameter_count
    assert report["decoder_sha256"] == octahedra().sha256
    assert report["volume"] == pytest.approx(4 / 3 * 1.2**3, rel=0.01)


def test_latent_fields_load_when_they_are_needed_and_never_torch(tmp_path: Path, saved: Path) -> None:
    save_field(ball_field(), tmp_path / "ball.h5")
    code = (
        "import sys\nfrom neuralsdf.storage import open_field\nopen_field(sys.argv[1])\n"
        "print([n for n in ('torch', 'safetensors', 'neuralsdf.latent_fields') if n in sys.modules])"
    )
    for path, loaded in ((tmp_path / "ball.h5", "[]\n"), (saved, "['neuralsdf.latent_fields']\n")):
        done = subprocess.run(
            [sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=True
        )
        assert done.stdout == loaded
