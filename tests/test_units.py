"""Units of length: what a file states is kept, shown, and converted on request."""

from __future__ import annotations

import json
import re
import zlib
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest
from click.testing import CliRunner, Result

from neuralsdf.backends import get_backend
from neuralsdf.batch.conversion_recipe import Recipe
from neuralsdf.batch.convert_job import ConvertJob
from neuralsdf.cli.main import main
from neuralsdf.csg import from_field
from neuralsdf.errors import MeshError, ModelError, UsageError
from neuralsdf.fields.field import Field, NeuralField
from neuralsdf.geometry.similarity_transform import Similarity
from neuralsdf.mesh.load_mesh import load_mesh
from neuralsdf.mesh.mesh import Mesh, Source
from neuralsdf.mesh.save_mesh import save_mesh
from neuralsdf.pipeline.prepare_mesh import prepare
from neuralsdf.pipeline.stage_times import Stages
from neuralsdf.storage import open_field, save_field
from neuralsdf.storage.dataset import Dataset, write_dataset
from neuralsdf.units import LENGTHS, length_ratio, with_unit

from .helpers.fields import octahedron
from .helpers.scenes import mesh_3mf, model_3mf, write_3mf
from .helpers.shapes import box

#: |x - 2| + |y| + |z| = 0.9 in inches.
INCHES = NeuralField(
    octahedron(0.9), Similarity.from_ball((2.0, 0, 0), 1.0), Source("a.3mf", "0" * 64, 8, 999, "in")
)


def unitless(field: NeuralField) -> NeuralField:
    return replace(field, source=Source("a.obj", "0" * 64, 8, 999), unit=None)


def run(*arguments: object, stdin: str | None = None) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments], input=stdin)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    save_field(INCHES, tmp_path / "in.h5")
    return tmp_path / "in.h5"


@pytest.fixture
def plain(tmp_path: Path) -> Path:
    save_field(unitless(INCHES), tmp_path / "plain.h5")
    return tmp_path / "plain.h5"


def cube_3mf(path: Path, attributes: str) -> Path:
    objects = f'<object id="1">{mesh_3mf(box(1, 1, 1))}</object>'
    return write_3mf(path, model_3mf(objects, '<item objectid="1"/>', attributes=attributes))


@pytest.mark.parametrize(
    ("stated", "unit"),
    [
        ('unit="micron"', "um"),
        ('unit="millimeter"', "mm"),
        ('unit="centimeter"', "cm"),
        ('unit="inch"', "in"),
        ('unit="foot"', "ft"),
        ('unit="meter"', "m"),
        ("", "mm"),  # the default of 3MF
    ],
)
def test_a_3mf_has_a_unit(tmp_path: Path, stated: str, unit: str) -> None:
    assert load_mesh(cube_3mf(tmp_path / "a.3mf", stated)).source.unit == unit


def test_other_files_have_no_unit(tmp_path: Path) -> None:
    for suffix in (".ply", ".obj", ".stl", ".off", ".glb"):
        save_mesh(tmp_path / f"a{suffix}", *box(1, 1, 1))
        assert load_mesh(tmp_path / f"a{suffix}").source.unit is None


def test_ratios() -> None:
    for unit, metres in LENGTHS.items():
        assert length_ratio("m", unit) == pytest.approx(1 / metres)
    assert length_ratio("in", "mm") == pytest.approx(25.4)
    assert length_ratio("ft", "in") == pytest.approx(12)
    assert length_ratio("mm", "mm") == 1
    with pytest.raises(UsageError, match="the unit of length is not known"):
        length_ratio(None, "mm")
    with pytest.raises(UsageError, match="unknown unit 'parsec'; one of um, mm"):
        length_ratio("mm", "parsec")
    assert [with_unit("2", unit, 3) for unit in (None, "mm")] == ["2", "2 mm³"]


def test_a_mesh_states_its_unit_once(tmp_path: Path) -> None:
    mesh = Mesh.from_arrays(*box(1, 1, 1), name="a.obj")
    assert mesh.stating(None) is mesh
    stated = mesh.stating("mm")
    assert (stated.source.unit, stated.stating("mm")) == ("mm", stated)
    with pytest.raises(MeshError, match=r"a.obj: its unit is 'mm', not 'in'"):
        stated.stating("in")
    inches = cube_3mf(tmp_path / "a.3mf", 'unit="inch"')
    shape = prepare(inches, "winding", None, None, Stages(None), get_backend())
    assert shape.mesh.source.unit == "in"


def test_a_file_without_a_unit_is_unchanged(tmp_path: Path, model: Path, plain: Path) -> None:
    """Its metadata do not mention one, and a batch's key does not either, so that old runs resume."""
    for path, unit in ((model, {"unit": "in"}), (plain, {})):
        with h5py.File(path) as file:
            metadata = json.loads(zlib.decompress(file.attrs["metadata"].tobytes()))
        name = "a.3mf" if unit else "a.obj"
        assert metadata["source"] == {"name": name, "sha256": "0" * 64, "faces": 8, "bytes": 999}
        assert metadata.keys() == {"source", "metrics", "settings", "software", *unit}
        assert metadata.get("unit") == unit.get("unit")
    assert open_field(model).unit == "in"
    assert open_field(plain).unit is None
    assert "unit" not in Recipe().options()
    assert ConvertJob(Recipe(unit="mm")).key("") != ConvertJob(Recipe()).key("")


def test_an_unknown_unit_in_a_model_is_refused(tmp_path: Path) -> None:
    for unit in ("parsec", ["mm"], 7):
        save_field(replace(INCHES, unit=unit), tmp_path / "a.h5", force=True)  # type: ignore[arg-type]
        with pytest.raises(ModelError, match="its unit of length is unknown"):
            open_field(tmp_path / "a.h5")


def test_a_data_set_keeps_units(model: Path, plain: Path, tmp_path: Path) -> None:
    """It has no column of units if there are none."""
    write_dataset(tmp_path / "some.h5", [("b", model), ("a", plain)])
    data = Dataset(tmp_path / "some.h5")
    assert (data.units, data[[1]].units) == ([None, "in"], ["in"])
    assert [data.field(name).unit for name in ("a", "b", 1)] == [None, "in", "in"]  # type: ignore[arg-type]
    data[[1]].save(tmp_path / "one.h5")
    assert Dataset(tmp_path / "one.h5").units == ["in"]
    write_dataset(tmp_path / "none.h5", [("a", plain)])
    assert Dataset(tmp_path / "none.h5").units == [None]
    with h5py.File(tmp_path / "none.h5") as file:
        assert "units" not in file


def fields(unit: str | None) -> list[Field]:
    """A network and a tree of the same shape."""
    network = INCHES if unit else unitless(INCHES)
    return [network, from_field(network, "a.h5") & from_field(network, "b.h5")]


@pytest.mark.parametrize("index", [0, 1])
def test_a_field_in_another_unit_is_the_same_shape(index: int) -> None:
    field = fields("in")[index]
    other = field.in_unit("mm")
    assert (field.unit, other.unit) == ("in", "mm")
    points = np.random.default_rng(0).normal(size=(50, 3)) * 0.4 + [2, 0, 0]
    np.testing.assert_allclose(other.distance(25.4 * points), 25.4 * field.distance(points), rtol=1e-4)
    gradients = [f.block_distance_and_gradient(p)[1] for f, p in ((field, points), (other, 25.4 * points))]
    np.testing.assert_allclose(*gradients, atol=1e-5)
    np.testing.assert_allclose(other.in_unit("in").transform.matrix, field.transform.matrix, atol=1e-12)
    with pytest.raises(UsageError, match="not known"):
        fields(None)[index].in_unit("mm")


# --- commands ----------------------------------------------------------------------------------------


def test_extract_and_info_convert_lengths(model: Path, tmp_path: Path) -> None:
    volume = 4 / 3 * 0.9**3
    for units, factor in (((), 1.0), (("--units", "mm"), 25.4)):
        unit = "mm" if units else "in"
        done = run("extract", model, "-o", tmp_path / "a.ply", "-f", "--resolution", 64, *units)
        assert done.exit_code == 0, done.output
        assert f"{unit}³" in done.stdout
        vertices = load_mesh(tmp_path / "a.ply").vertices
        np.testing.assert_allclose(vertices.min(axis=0)[0], 1.1 * factor, rtol=0.02)
        found = json.loads(run("info", model, "--json", *units).stdout)
        assert found["unit"] == unit
        assert found["volume"] == pytest.approx(volume * factor**3, rel=0.02)
        assert found["centre"][0] == pytest.approx(2 * factor)
        said = run("info", model, *units).stdout
        assert f"radius {factor:.4g} {unit}\n" in said.replace("1.0", "1")
        assert f" {unit}³" in said
        assert f" {unit}²" in said


def test_query_converts_points_and_lengths(model: Path, tmp_path: Path) -> None:
    """In mm, the corner of the octahedron at x = 1.1 in."""
    done = run("query", model, "-", "--units", "mm", "--json", stdin=f"{2 * 25.4} 0 0\n{1.1 * 25.4} 0 0\n")
    found = json.loads(done.stdout)
    assert found["unit"] == "mm"
    np.testing.assert_allclose(found["columns"]["distance"], [-0.9 * 25.4, 0], atol=1e-4)
    out = tmp_path / "a.csv"
    run("query", model, "-", "--units", "mm", "--gradient", "-o", out, stdin="0 0 0")
    assert out.read_text().splitlines()[0] == "distance (mm),gradient_x,gradient_y,gradient_z"
    run("query", model, "-", "-o", out, "-f", stdin="0 0 0")
    assert out.read_text().splitlines()[0] == "distance (in)"


def test_units_are_refused_where_none_is_known(plain: Path, tmp_path: Path) -> None:
    (tmp_path / "a.csg").write_text("plain.h5 & box(9)")
    for path in (plain, tmp_path / "a.csg"):
        for arguments in (("extract", path, "-o", tmp_path / "a.ply"), ("query", path, "-"), ("info", path)):
            done = run(*arguments, "--units", "mm", stdin="0 0 0")
            assert done.exit_code == 2
            assert f"the unit of {path} is not known; set it with `neuralsdf convert --units`" in done.stderr
    assert "mesh units" in run("info", plain).stdout or "³" not in run("info", plain).stdout
    run("query", plain, "-", "-o", tmp_path / "a.csv", stdin="0 0 0")
    assert (tmp_path / "a.csv").read_text().splitlines()[0] == "distance"


def test_convert_states_the_unit_of_a_file_that_has_none(tmp_path: Path) -> None:
    save_mesh(tmp_path / "a.ply", *box(25.4, 25.4, 25.4))
    made = run("convert", tmp_path / "a.ply", "-o", tmp_path / "a.h5", "--units", "mm", "--epochs", 1)
    assert made.exit_code == 0, made.output
    assert " mm  of the radius" in made.stdout
    assert open_field(tmp_path / "a.h5").unit == "mm"
    path = cube_3mf(tmp_path / "a.3mf", 'unit="inch"')
    refused = run("convert", path, "-o", tmp_path / "b.h5", "--units", "mm")
    assert refused.exit_code == 1
    assert "its unit is 'in', not 'mm'" in refused.stderr
    compared = run("eval", tmp_path / "a.h5", path, "--resolution", 32, "--json")
    found = json.loads(compared.stdout)
    assert found["unit"] == "in"  # the mesh's, to which the model is converted
    assert found["radius"] == pytest.approx(np.sqrt(3))
    assert found["metrics"]["iou"] > 0.8
    assert "is not where the model is" not in compared.stderr


def test_a_tree_has_the_unit_of_its_files(model: Path, plain: Path, tmp_path: Path) -> None:
    save_field(INCHES.in_unit("mm"), tmp_path / "mm.h5")  # type: ignore[arg-type]
    (tmp_path / "a.csg").write_text("(in.h5 | plain.h5) & box(9)")
    found = json.loads(run("info", tmp_path / "a.csg", "--json", "--units", "mm").stdout)
    assert found["unit"] == "mm"
    assert found["bounds"][1][0] == pytest.approx(2.9 * 25.4, rel=0.02)
    assert re.search(r"^bounds +\(1\.1", run("info", tmp_path / "a.csg").stdout, re.MULTILINE)
    (tmp_path / "b.csg").write_text("in.h5 | mm.h5")
    mixed = run("info", tmp_path / "b.csg")
    assert (
        "files in different units are combined without conversion (in.h5 in in, mm.h5 in mm)" in mixed.stderr
    )
    done = run("csg", f'"{tmp_path / "b.csg"}"', "-o", tmp_path / "b.ply", "--resolution", 32)
    assert "files in different units" in done.stderr
    assert "³" not in done.stdout
