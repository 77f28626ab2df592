"""3MF: the objects that are built, what is left out, and bounds on hostile archives."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import trimesh

from neuralsdf.errors import MeshError
from neuralsdf.files import bounded_input as budgets
from neuralsdf.files.bounded_input import read_file
from neuralsdf.mesh.formats import threemf
from neuralsdf.mesh.formats.threemf import read_3mf
from neuralsdf.mesh.load_mesh import load_mesh

from ...helpers.scenes import mesh_3mf, model_3mf, object_3mf, relationships, write_3mf
from ...helpers.shapes import Arrays, box, sphere

CUBE = box(1, 1, 1)


def loaded(path: Path) -> trimesh.Trimesh:
    mesh = load_mesh(path)
    return trimesh.Trimesh(mesh.vertices, mesh.faces, process=False)


def notes(path: Path) -> str:
    return load_mesh(path).findings.line()


def moved(x: float) -> str:
    return f'transform="1 0 0 0 1 0 0 0 1 {x} 0 0"'


def test_scenes_are_laid_out(tmp_path: Path) -> None:
    items = '<item objectid="2" transform="2 0 0 0 2 0 0 0 2 0 0 100"/><item objectid="1"/>'
    path = write_3mf(tmp_path / "a.3mf", model_3mf(object_3mf(box(1, 2, 3)), items))
    shape = loaded(path)
    assert load_mesh(path).findings.bodies == 3
    assert shape.volume == pytest.approx(48 * (1 + 8 + 8))
    np.testing.assert_allclose(shape.bounds, [[-2, -4, -3], [2 * 10, 4, 106]])


def test_inner_transforms_are_applied_first(tmp_path: Path) -> None:
    """A component is rotated by 90 degrees about z, then its item is moved and mirrored."""
    inner = '<object id="3"><components><component objectid="1" transform="0 1 0 -1 0 0 0 0 1 5 0 0"/>'
    items = '<item objectid="3" transform="-1 0 0 0 1 0 0 0 2 0 7 0"/>'
    objects = object_3mf(box(1, 2, 3)) + inner + "</components></object>"
    shape = loaded(write_3mf(tmp_path / "a.3mf", model_3mf(objects, items)))
    np.testing.assert_allclose(shape.bounds, [[-7, 6, -6], [-3, 8, 6]])
    assert shape.volume == pytest.approx(96)  # mirroring does not invert it


def test_coincident_copies_are_merged(tmp_path: Path) -> None:
    """Thousands of them, in a small file, would slow down every search among the triangles."""
    items = '<item objectid="1"/>' * 2000 + f'<item objectid="1" {moved(-0.0)}/><item objectid="2"/>'
    path = write_3mf(tmp_path / "a.3mf", model_3mf(object_3mf(CUBE), items))
    assert loaded(path).volume == pytest.approx(16)
    assert notes(path) == "2,001 coincident copies left out"


def test_ids_refer_to_objects_of_their_part(tmp_path: Path) -> None:
    """Three parts have an object with the same id, used by items and by components; names ignore case."""
    a, b = (model_3mf(f'<object id="1">{mesh_3mf(box(h, h, h))}</object>', "") for h in (2, 3))
    objects = (
        f'<object id="1">{mesh_3mf(CUBE)}</object><object id="2"><components>'
        f'<component objectid="1"/><component objectid="1" p:path="/3D/A.model" {moved(10)}/>'
        "</components></object>"
    )
    items = f'<item objectid="2"/><item objectid="1" p:path="/3D/b.model" {moved(30)}/>'
    parts = {"3D/a.model": a, "3D/b.model": b}
    model = model_3mf(objects, items, attributes='unit="millimeter" requiredextensions="p"')
    shape = loaded(write_3mf(tmp_path / "a.3mf", model, parts))
    assert shape.volume == pytest.approx(8 + 64 + 216)
    assert shape.bounds[1, 0] == 33


def test_a_part_in_another_unit_is_rescaled(tmp_path: Path) -> None:
    inches = model_3mf(f'<object id="1">{mesh_3mf(CUBE)}</object>', "", attributes='unit="inch"')
    model = model_3mf("", '<item objectid="1" p:path="/3D/a.model"/>')
    shape = loaded(write_3mf(tmp_path / "a.3mf", model, {"3D/a.model": inches}))
    assert shape.volume == pytest.approx(8 * 25.4**3)
    inner = '<object id="1"><components><component objectid="1" p:path="/3D/a.model"/></components></object>'
    for unit in ('unit="inch"', 'unit="foot"', ""):
        model = model_3mf("", '<item objectid="1" p:path="/3D/b.model"/>')
        parts = {"3D/a.model": inches, "3D/b.model": model_3mf(inner, "", attributes=unit)}
        shape = loaded(write_3mf(tmp_path / "a.3mf", model, parts))
        assert shape.volume == pytest.approx(8 * 25.4**3), unit


def test_the_main_part_is_named_by_the_package(tmp_path: Path) -> None:
    decoy = model_3mf(object_3mf(sphere()), '<item objectid="1"/>')
    parts = {
        "_rels/.rels": relationships("/3D/other%20part.model"),
        "3D/other part.model": model_3mf(object_3mf(CUBE), '<item objectid="1"/>'),
    }
    assert loaded(write_3mf(tmp_path / "a.3mf", decoy, parts)).volume == pytest.approx(8)


def test_other_content_is_left_out_with_a_warning(tmp_path: Path) -> None:
    kinds = ("model", "support", "solidsupport", "other", "surface")
    objects = "".join(
        f'<object id="{i}" type="{kind}">{mesh_3mf(CUBE)}</object>' for i, kind in enumerate(kinds)
    )
    objects += (
        "<object id='9'><components><component objectid='0'/><component objectid='1'/></components></object>"
    )
    items = "".join(f'<item objectid="{i}" {moved(10 * i)}/>' for i in (*range(len(kinds)), 9))
    items += f'<item objectid="0" printable="0" {moved(200)}/>'
    path = write_3mf(tmp_path / "a.3mf", model_3mf(objects, items))
    assert loaded(path).volume == pytest.approx(24)  # 0, 4 and the model in 9
    said = notes(path)
    for reason in ("3 supports left out", "1 other object left out", "1 non-printable item left"):
        assert reason in said


@pytest.mark.parametrize(
    ("build", "reason"),
    [
        ("", "empty build: 2 objects, none of them on the build plate"),
        ('<item objectid="1" printable="0"/>', "contains no mesh .1 non-printable item left out"),
        ('<item objectid="7"/>', "refers to a missing object: '7'"),
        ('<item objectid="1" p:path="/3D/b.model"/>', "refers to '/3D/b.model', which is not in the archive"),
        ('<item objectid="1" transform="1 0 0"/>', "invalid or missing attribute in line 1"),
        ("<item/>", "invalid or missing attribute in line 1"),
        ("<item", "is not valid XML"),
    ],
)
def test_invalid_builds_are_refused(tmp_path: Path, build: str, reason: str) -> None:
    with pytest.raises(MeshError, match=reason):
        load_mesh(write_3mf(tmp_path / "a.3mf", model_3mf(object_3mf(CUBE), build)))


@pytest.mark.parametrize(
    ("mesh", "reason"),
    [
        ('<vertex x="a" y="0" z="0"/>', "invalid or missing attribute in line 1 of its XML"),
        ('<triangle v1="0" v2="1" v3="8"/>', r"vertex index 8 out of range \(8 vertices\)"),
        ('<triangle v1="0" v2="1" v3="-1"/>', r"vertex index -1 out of range \(8 vertices\)"),
        ('<triangle v1="0" v2="1" v3="99999999999999999999"/>', "invalid or missing attribute"),
        ('<object id="1"/>', "two objects with the id '1'"),
        ("<x:a>" * 200 + "</x:a>" * 200, "nests XML elements more than 100 deep"),
    ],
)
def test_invalid_meshes_are_refused(tmp_path: Path, mesh: str, reason: str) -> None:
    objects = f'<object id="1">{mesh_3mf(CUBE, mesh)}</object>'
    with pytest.raises(MeshError, match=reason):
        load_mesh(write_3mf(tmp_path / "a.3mf", model_3mf(objects, '<item objectid="1"/>')))


def test_unknown_extensions_are_refused_only_where_they_are_required(tmp_path: Path) -> None:
    objects = f'<object id="1">{mesh_3mf(CUBE)}</object><object id="2"><x:blob/></object>'
    items = '<item objectid="1"/><item objectid="2"/>'
    optional = write_3mf(tmp_path / "a.3mf", model_3mf(objects, items))
    assert "1 object without a mesh left out; element 'blob' is not supported" in notes(optional)
    for required, reason in (("p x", "unsupported 3MF extension: http://example.com/unknown"),
                             ("y", "unsupported 3MF extension: y")):  # fmt: skip
        model = model_3mf(objects, items, attributes=f'requiredextensions="{required}"')
        with pytest.raises(MeshError, match=reason):
            load_mesh(write_3mf(tmp_path / "b.3mf", model))


def test_slices_are_left_out_unless_they_replace_the_mesh(tmp_path: Path) -> None:
    objects = f'<object id="1" s:slicestackid="5" s:meshresolution="lowres">{mesh_3mf(CUBE)}</object>'
    path = write_3mf(tmp_path / "a.3mf", model_3mf(objects, '<item objectid="1"/>'))
    assert "1 stack of slices left out" in notes(path)
    model = model_3mf(objects, '<item objectid="1"/>', attributes='requiredextensions="s"')
    with pytest.raises(MeshError, match="has slices instead of a mesh"):
        load_mesh(write_3mf(tmp_path / "a.3mf", model))
    full = model_3mf(objects.replace("lowres", "fullres"), '<item objectid="1"/>')
    assert notes(write_3mf(tmp_path / "a.3mf", full)) == ""


# --- beam lattices -----------------------------------------------------------------------------------


def lattice(
    tmp_path: Path, beams: str, attributes: str = "", vertices: Any = ((0, 0, 0), (3, 4, 12))
) -> Path:
    empty: Arrays = (np.array(vertices, float), np.empty((0, 3), np.int64))
    inside = f'<b:beamlattice radius="1" minlength="0.01" {attributes}>{beams}</b:beamlattice>'
    model = model_3mf(
        f'<object id="1">{mesh_3mf(empty, inside)}</object>',
        '<item objectid="1"/>',
        attributes='requiredextensions="b bb"',
    )
    return write_3mf(tmp_path / "a.3mf", model)


def revolved(radius: Any, low: float, high: float) -> float:
    """The volume of a solid of revolution, by its radius (n,) at positions (n,) along the axis."""
    x = np.linspace(low, high, 400_001)
    return float(np.pi * np.sum(radius(x) ** 2) * (x[1] - x[0]))


@pytest.mark.parametrize(("r1", "r2"), [(1.0, 1.0), (2.0, 1.0), (1.0, 3.0)])
@pytest.mark.parametrize("cap1", ["sphere", "hemisphere", "butt"])
@pytest.mark.parametrize("cap2", ["sphere", "hemisphere", "butt"])
def test_a_beam_is_a_cone_with_ends(tmp_path: Path, r1: float, r2: float, cap1: str, cap2: str) -> None:
    length = 13.0

    def ball(x: Any, radius: float, cap: str) -> Any:
        """About 0, the beam beyond it at x > 0."""
        inside = {"sphere": np.abs(x) <= radius, "hemisphere": (x <= 0) & (x >= -radius), "butt": x > np.inf}
        return np.where(inside[cap], np.sqrt(np.maximum(radius**2 - x**2, 0)), 0)

    def profile(x: Any) -> Any:
        cone = np.where((x >= 0) & (x <= length), r1 + (r2 - r1) * x / length, 0)
        return np.maximum(cone, np.maximum(ball(x, r1, cap1), ball(length - x, r2, cap2)))

    beam = f'<b:beams><b:beam v1="0" v2="1" r1="{r1}" r2="{r2}" cap1="{cap1}" cap2="{cap2}"/></b:beams>'
    shape = loaded(lattice(tmp_path, beam))
    assert shape.is_watertight
    assert shape.volume == pytest.approx(revolved(profile, -5, length + 5), rel=0.006)


@pytest.mark.parametrize(("count", "sides", "error"), [(20, 32, 0.01), (1001, 12, 0.06), (8001, 6, 0.2)])
def test_beams_of_large_lattices_have_fewer_faces(
    tmp_path: Path, count: int, sides: int, error: float
) -> None:
    beams = "".join(f'<b:beam v1="{i}" v2="{i + 1}"/>' for i in range(count))
    vertices = [(9.0 * i, 0, 0) for i in range(count + 1)]
    path = lattice(tmp_path, f"<b:beams>{beams}</b:beams>", 'cap="sphere"', vertices)
    raw = read_3mf(read_file(path, MeshError, "a mesh"))
    shape = trimesh.Trimesh(raw.vertices, raw.faces, process=False)
    assert len(shape.vertices) % count == 0
    assert (len(shape.vertices) // count - 2) % sides == 0
    np.testing.assert_allclose(np.hypot(*shape.vertices[:, 1:].T).max(), 1, atol=error)
    # Each is closed, with the area of its circle along the cone and a little less at its ends.
    assert shape.volume == pytest.approx(count * (9 + 4 / 3) * np.pi, rel=error / 4)


def test_beams_have_default_radii_and_short_ones_are_left_out(tmp_path: Path) -> None:
    vertices = ((0, 0, 0), (0, 0, 10), (0, 0, 10.001))
    beams = '<b:beams><b:beam v1="0" v2="1"/><b:beam v1="0" v2="1" r1="2"/><b:beam v1="1" v2="2"/></b:beams>'
    path = lattice(tmp_path, beams, 'cap="butt"', vertices)
    assert loaded(path).volume == pytest.approx(np.pi * 10 * (1 + 4))
    assert "2 beams of a lattice converted to triangles" in notes(path)


@pytest.mark.parametrize(("mode", "radii"), [("none", []), ("mixed", [3]), ("all", [3, 2])])
def test_balls_of_lattices_are_added(tmp_path: Path, mode: str, radii: list[float]) -> None:
    beams = '<b:beams><b:beam v1="0" v2="1"/></b:beams><bb:balls><bb:ball vindex="0" r="3"/></bb:balls>'
    path = lattice(tmp_path, beams, f'cap="butt" bb:ballmode="{mode}" bb:ballradius="2"')
    balls = sum(4 / 3 * np.pi * r**3 for r in radii)
    assert loaded(path).volume == pytest.approx(13 * np.pi + balls, rel=0.006)


def test_a_beam_within_its_ball_is_left_out(tmp_path: Path) -> None:
    """The small end lies within the ball at the large end: the solid is two balls, or one."""
    for cap, balls in (("sphere", [5, 1]), ("butt", [5])):
        beams = f'<b:beams><b:beam v1="0" v2="1" r1="5" r2="1" cap2="{cap}"/></b:beams>'
        path = lattice(tmp_path, beams, vertices=((0, 0, 0), (4.5, 0, 0)))
        volume = sum(4 / 3 * np.pi * r**3 for r in balls)
        assert loaded(path).volume == pytest.approx(volume, rel=0.006)


@pytest.mark.parametrize(
    ("beams", "attributes", "reason"),
    [
        ('<b:beams><b:beam v1="0" v2="1"/></b:beams>', 'clippingmode="inside"', "clipped beam lattice"),
        ('<b:beams><b:beam v1="0" v2="2"/></b:beams>', "", "vertex index 2 out of range"),
        ('<b:beams><b:beam v1="0" v2="1" r1="-1"/></b:beams>', "", "radius is not positive"),
        ('<b:beams><b:beam v1="0" v2="1"/></b:beams>', 'ballmode="all"', "radius is not positive"),
        ('<b:beams><b:beam v1="0" v2="1" cap1="cone"/></b:beams>', "", "invalid or missing attribute"),
    ],
)
def test_invalid_lattices_are_refused(tmp_path: Path, beams: str, attributes: str, reason: str) -> None:
    with pytest.raises(MeshError, match=reason):
        load_mesh(lattice(tmp_path, beams, attributes))


# --- hostile files -----------------------------------------------------------------------------------


def test_hostile_models_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(budgets, "FREE_BYTES", 8 << 20)
    ball = object_3mf(CUBE)
    tower = "".join(
        f'<object id="{i}"><components><component objectid="{i - 1}"/><component objectid="{i - 1}"/>'
        "</components></object>"
        for i in range(3, 60)
    )
    circle = '<object id="3"><components><component objectid="3"/></components></object>'
    entity = '<!DOCTYPE a [<!ENTITY x SYSTEM "file:///etc/hostname">]>'
    top, itself, plain = '<item objectid="59"/>', '<item objectid="3"/>', '<item objectid="1"/>'
    utf16 = model_3mf(ball, plain, entity).replace("UTF-8", "UTF-16").encode("utf-16")
    for model, reason in (
        (model_3mf(ball + tower, top), "decodes to more than 8 MB"),
        (model_3mf(ball + circle, itself), "more than 100 deep, or in a cycle"),
        (model_3mf(ball, plain, entity), "DOCTYPE"),
        (utf16, "DOCTYPE"),
        (model_3mf(ball, plain)[:-200], "is not valid XML"),
        (model_3mf(ball, plain).replace("UTF-8", "no-such-code"), "an unsupported encoding"),
        ("<html/>", "a ZIP archive without a 3MF model"),
    ):
        with pytest.raises(MeshError, match=reason) as caught:
            load_mesh(write_3mf(tmp_path / "a.3mf", model))
        assert "\n" not in str(caught.value)
    with zipfile.ZipFile(tmp_path / "other.zip", "w") as archive:
        archive.writestr("readme.txt", "no mesh")
    with pytest.raises(MeshError, match="a ZIP archive without a 3MF model"):
        load_mesh(tmp_path / "other.zip")


def test_a_model_in_utf_16_is_read(tmp_path: Path) -> None:
    model = model_3mf(object_3mf(CUBE), '<item objectid="1"/>').replace("UTF-8", "UTF-16").encode("utf-16")
    assert loaded(write_3mf(tmp_path / "a.3mf", model)).volume == pytest.approx(8)


@pytest.mark.parametrize("encoding", ["idna", "hex", "utf-7", "none-such", "unicode_escape"])
def test_an_unsupported_encoding_is_named(tmp_path: Path, encoding: str) -> None:
    model = model_3mf(object_3mf(CUBE), '<item objectid="1"/>').replace("UTF-8", encoding)
    with pytest.raises(MeshError, match=f"an unsupported encoding: {encoding}; save it as UTF-8"):
        load_mesh(write_3mf(tmp_path / "a.3mf", model))


@pytest.mark.parametrize("encoding", ["latin-1", "Windows-1252", "US-ASCII", "utf8"])
def test_single_byte_encodings_are_read(tmp_path: Path, encoding: str) -> None:
    model = model_3mf(object_3mf(CUBE), '<item objectid="1"/>').replace("UTF-8", encoding).encode(encoding)
    assert loaded(write_3mf(tmp_path / "a.3mf", model)).volume == pytest.approx(8)


def bomb(path: Path, content: bytes, repeats: int, declared: int | None) -> Path:
    """An archive whose model repeats `content`; it declares `declared` bytes where that is not None."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        with archive.open("3D/3dmodel.model", "w", force_zip64=True) as member:
            for _ in range(repeats):
                member.write(content)
        if declared is not None:
            archive.infolist()[0].file_size = declared
    return path


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="measures memory as Linux says it")
@pytest.mark.parametrize("declared", [None, 10])
def test_a_decompression_bomb_is_refused_in_little_memory(tmp_path: Path, declared: int | None) -> None:
    """270 MB in 0.3 MB, also if the archive declares 10 bytes: a fresh process peaks below 200 MB."""
    path = bomb(tmp_path / "a.3mf", b" " * (1 << 20), 270, declared)
    assert path.stat().st_size < 1 << 20
    code = (
        "import re, sys\nfrom pathlib import Path\n"
        "from neuralsdf.errors import MeshError\nfrom neuralsdf.mesh.load_mesh import load_mesh\n"
        "try: load_mesh(sys.argv[1])\nexcept MeshError: pass\n"
        "print(re.search(r'VmHWM:\\s*(\\d+) kB', Path('/proc/self/status').read_text())[1])"
    )
    ended = subprocess.run([sys.executable, "-c", code, path], capture_output=True, text=True, check=True)
    assert int(ended.stdout) < 200 << 10


def test_an_unterminated_tag_is_refused_early(tmp_path: Path) -> None:
    """The parser would read an unfinished tag again with each chunk."""
    path = bomb(tmp_path / "a.3mf", b'<model a="' + b"x" * (1 << 20), 1, None)
    with pytest.raises(MeshError, match="is not valid XML"):
        load_mesh(path)
    with pytest.raises(MeshError, match="an XML tag of more than 4 MB"):
        load_mesh(bomb(tmp_path / "b.3mf", b'<model a="' + b"x" * (1 << 23), 1, None))


@pytest.mark.parametrize("count", [1000, 2000])
def test_work_is_linear_in_the_items(tmp_path: Path, count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    place = threemf._Build._place_mesh
    monkeypatch.setattr(threemf._Build, "_place_mesh", lambda *a: (calls.append(1), place(*a))[1])
    items = "".join(f'<item objectid="1" {moved(3 * i)}/>' for i in range(count))
    path = write_3mf(tmp_path / "a.3mf", model_3mf(object_3mf(CUBE), items))
    file = read_file(path, MeshError, "a mesh")
    raw = read_3mf(file)
    assert len(calls) == count
    assert len(raw.faces) == 12 * count
    assert file.budget.drawn < 200 * 1024 + count * (4 * 512 + 48 * 20)


@pytest.mark.parametrize(
    ("name", "volume", "bounds"),
    [
        ("3mf_production_two_files_same_id.3mf", 1216, [[-5, -5, -5], [33, 5, 5]]),
        ("3mf_item_path.3mf", 8000, None),
        ("3mf_main_named_otherwise.3mf", 1000, None),
        ("3mf_support_object_and_unprintable.3mf", 1000, None),
        ("3mf_plate_with_beam_lattice_posts.3mf", 800 + 4 * (20 * np.pi + 4 / 3 * np.pi), None),
        ("3mf_unit_inch.3mf", 1, None),
    ],
)
def test_reported_files_have_their_known_volumes(
    test_data: Path, name: str, volume: float, bounds: Any
) -> None:
    shape = loaded(test_data / "meshes/reported" / name)
    assert shape.volume == pytest.approx(volume, rel=2e-3)
    if bounds is not None:
        np.testing.assert_allclose(shape.bounds, bounds)


@pytest.mark.parametrize("name", ["counterXP.3MF", "featuretype.3MF", "messy/cube_and_sphere_same_name.3mf"])
def test_plain_files_are_read_as_by_trimesh(test_data: Path, name: str) -> None:
    """Triangle by triangle; trimesh has the instances of one object in another order."""
    path = test_data / "meshes" / name
    raw = read_3mf(read_file(path, MeshError, "a mesh"))
    other = trimesh.load_scene(path, process=False, skip_materials=True).to_mesh()
    ours, theirs = raw.vertices[raw.faces].mean(axis=1), other.vertices[other.faces].mean(axis=1)
    assert raw.faces.shape == other.faces.shape
    order = [np.lexsort(np.round(middles, 4).T) for middles in (ours, theirs)]
    np.testing.assert_allclose(ours[order[0]], theirs[order[1]], atol=1e-4)
