from __future__ import annotations

import json
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result
from PIL import Image

from neuralsdf.cli.main import main
from neuralsdf.fields.field import NeuralField
from neuralsdf.geometry.similarity_transform import Similarity
from neuralsdf.program.network import Architecture, Network
from neuralsdf.storage import save_field


def octahedron(offset: float) -> NeuralField:
    """(|x| + |y| + |z|) / sqrt(3) + offset, exactly, in 31 weights; in mesh space 10 wide about (5, 6, 7)."""
    weights = np.concatenate(
        [np.hstack([np.eye(3), -np.eye(3)]).ravel(), np.zeros(6), np.full(6, 3**-0.5), [offset]]
    )
    network = Network(Architecture((6,), output="linear"), weights.astype(np.float32))
    return NeuralField(network, Similarity.from_ball([5, 6, 7], 10))


@pytest.fixture
def model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    save_field(octahedron(-0.4), tmp_path / "octahedron.h5")
    return tmp_path / "octahedron.h5"


def run(*arguments: object) -> Result:
    return CliRunner().invoke(main, ["render", *map(str, arguments)])


def opened(path: Path) -> np.ndarray:
    return np.asarray(Image.open(path).convert("RGBA"))


def test_a_picture_has_the_name_of_the_model_by_default(model):
    result = run(model, "--size", "60x40")
    assert result.exit_code == 0, result.output
    assert opened(model.with_suffix(".png")).shape == (40, 60, 4)
    assert "60x40" in result.stdout
    assert result.stderr == ""


def test_an_existing_picture_is_replaced_only_with_force(model):
    picture = model.with_suffix(".png")
    picture.write_bytes(b"mine")
    refused = run(model, "--size", "8x8")
    assert refused.exit_code == 1
    assert "--force" in refused.stderr
    assert picture.read_bytes() == b"mine"
    assert run(model, "--size", "8x8", "--force").exit_code == 0
    assert opened(picture).shape == (8, 8, 4)


def test_json_counts_rays_and_hits(model, tmp_path):
    arguments = (model, "-o", tmp_path / "a.png", "--size", "32x32", "--antialias", 1, "--json")
    report = json.loads(run(*arguments).stdout)
    assert report["rays"] == 32 * 32
    assert 100 < report["hits"] < 1024
    assert report["unresolved"] == report["buried"] == 0
    assert report["evaluations_per_ray"] == pytest.approx(report["evaluations"] / 1024)
    assert report["output"] == str(tmp_path / "a.png")


def silhouette(model: Path, *view: object) -> np.ndarray:
    out = model.parent / "view.png"
    result = run(
        model,
        "-o",
        out,
        "--force",
        "--size",
        "64x64",
        "--background",
        "transparent",
        "--no-shadow",
        "--no-ao",
        *view,
    )
    assert result.exit_code == 0, result.output
    return opened(out)[..., 3]


def test_views_match_their_options(model):
    # From the front an octahedron is a square on its corner: |x| + |y| < 0.4 sqrt(3), 10 times as large.
    front = silhouette(model, "--azimuth", 0, "--elevation", 0, "--distance", 1000, "--fov", 0.1)
    half = 1000 * np.tan(np.radians(0.05)) / 32  # model units per pixel
    x, y = np.meshgrid((np.arange(64) - 31.5) * half, (np.arange(64) - 31.5) * half)
    exact = np.abs(x) + np.abs(y) - 0.4 * 3**0.5
    assert (front[exact < -1.5 * half] == 255).all()
    assert (front[exact > 1.5 * half] == 0).all()
    # The same view by a look-at in mesh units, and with another axis up.
    for view in (
        ("--eye", "5,6,10007", "--target", "5,6,7"),
        ("--eye", "5,6,10007"),
        ("--azimuth", 0, "--elevation", 0, "--distance", 1000, "--up", "z"),
    ):
        np.testing.assert_allclose(silhouette(model, "--fov", 0.1, *view).astype(int), front, atol=30)


def test_a_target_moves_the_shape_out_of_the_middle(model):
    right = silhouette(model, "--azimuth", 0, "--elevation", 0, "--target", "2,6,7")
    assert right[:, 32:].sum() > 2 * right[:, :32].sum()


def test_every_shading(model, tmp_path):
    Image.new("RGB", (16, 16), "#336699").save(tmp_path / "flat.png")
    pictures = {}
    for name, options in {
        "lambert": (),
        "bare": ("--no-ao", "--no-shadow", "--smooth", 0),
        "red": ("--color", "red"),
        "normals": ("--shading", "normals"),
        "depth": ("--shading", "depth"),
        "matcap": ("--matcap", tmp_path / "flat.png"),
    }.items():
        out = tmp_path / f"{name}.png"
        result = run(model, "-o", out, "--size", "24x24", *options)
        assert result.exit_code == 0, result.output
        pictures[name] = opened(out)[12, 12, :3].tolist()
    assert pictures["matcap"] == [0x33, 0x66, 0x99]
    assert pictures["depth"][0] == pictures["depth"][1] == pictures["depth"][2]
    assert pictures["red"][0] > 3 * pictures["red"][1]
    assert len({tuple(colour) for colour in pictures.values()}) >= 5


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (("--size", "8"), "WIDTHxHEIGHT"),
        (("--size", "0x8"), "0x8"),
        (("--size", "8x99999"), "--size"),
        (("--eye", "1,2"), "X,Y,Z"),
        (("--eye", "1,2,3", "--azimuth", "3"), "--azimuth"),
        (("--eye", "5,6,7"), "same point"),
        (("--elevation", "100"), "elevation"),
        (("--shading", "matcap"), "--matcap"),
        (("--shading", "depth", "--matcap", "x.png"), "--matcap"),
        (("--background", "no-colour"), "no-colour"),
        (("--color", "no-colour"), "no-colour"),
        (("-o", "a.tiff"), "a.tiff"),
        (("--turntable", "8", "-o", "a.png"), "a.png"),
        (("--turntable", "1"), "1"),
    ],
)
def test_wrong_usage_exits_2_before_anything_is_written(model, options, says):
    result = run(model, *options)
    assert result.exit_code == 2
    assert says in result.stderr
    assert "Traceback" not in result.output
    assert [path.name for path in model.parent.iterdir()] == [model.name]


def test_unusable_files_exit_1_with_a_line(model, tmp_path):
    (tmp_path / "text.h5").write_text("no model")
    for options in (
        (tmp_path / "text.h5",),
        (tmp_path / "absent.h5",),
        (model, "--matcap", tmp_path / "text.h5"),
    ):
        result = run(*options)
        assert result.exit_code == 1
        assert len(result.stderr.splitlines()) == 1
        assert not list(tmp_path.glob("*.png"))


def test_a_field_without_a_surface_exits_1_and_writes_nothing(tmp_path):
    save_field(octahedron(0.4), tmp_path / "empty.h5")
    result = run(tmp_path / "empty.h5", "--size", "16x16")
    assert result.exit_code == 1
    assert "no surface" in result.stderr
    assert not (tmp_path / "empty.png").exists()


def test_a_camera_that_misses_the_shape_is_reported(model):
    result = run(model, "--size", "8x8", "--eye", "5,6,60", "--target", "5,6,100")
    assert result.exit_code == 0
    assert "no ray hit" in result.stderr


def test_the_same_bytes_for_any_number_of_threads(model, tmp_path):
    for name, threads in (("a", 1), ("b", 2)):
        run(model, "-o", tmp_path / f"{name}.png", "--size", "50x50", "--threads", threads)
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()


@pytest.mark.parametrize("suffix", ["gif", "webp", "mp4"])
def test_turntable(model, suffix):
    if suffix == "mp4" and find_spec("imageio_ffmpeg") is None:
        pytest.skip("no imageio-ffmpeg")
    out = model.with_suffix(f".{suffix}")
    result = run(model, "--turntable", 3, "-o", out, "--size", "16x16")
    assert result.exit_code == 0, result.output
    assert "3 frames" in result.stdout
    if suffix != "mp4":
        assert Image.open(out).n_frames == 3


def test_mp4_without_its_extra_names_it(model, monkeypatch):
    monkeypatch.setattr("neuralsdf.render.animation.find_spec", lambda name: None)
    result = run(model, "--turntable", 3, "-o", model.with_suffix(".mp4"))
    assert result.exit_code == 2
    assert "neuralsdf[video]" in result.stderr


@pytest.mark.slow
def test_the_authors_fields_render(test_data, tmp_path):
    for name in ("101636_sf", "77922_sf"):
        result = run(
            test_data / "author-models" / f"{name}.h5", "-o", tmp_path / f"{name}.png", "--size", "64x64"
        )
        assert result.exit_code == 0, result.output
    flat = run(test_data / "author-models" / "503411_sf.h5", "-o", tmp_path / "flat.png")
    assert flat.exit_code == 1
    assert "503411_sf.h5: the field has no shape" in flat.stderr
