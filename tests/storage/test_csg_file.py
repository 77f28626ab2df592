"""Tree files and bundles: their contents and errors."""

from __future__ import annotations

import os
import zipfile
from pathlib import Path

import numpy as np
import pytest

from neuralsdf.array_types import Points
from neuralsdf.csg import Shape
from neuralsdf.errors import FileError, ModelError, NeuralSDFError, NoSurfaceError, UsageError
from neuralsdf.fields.field import NeuralField
from neuralsdf.files.bounded_input import set_max_input
from neuralsdf.geometry.similarity_transform import Similarity
from neuralsdf.mesh.save_mesh import save_mesh
from neuralsdf.program.network import Architecture, Network, initialise
from neuralsdf.storage import csg_file as storage_trees
from neuralsdf.storage import open_field, open_model, save_field
from neuralsdf.storage.csg_file import MAX_TEXT, parse_tree, read_tree, save_tree

from ..helpers import shapes

POINTS = np.random.default_rng(0).uniform(-3, 3, (200, 3))


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """parts/ with a mesh and a model in it, in the current folder."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "parts").mkdir()
    save_mesh(tmp_path / "parts" / "ball.obj", *shapes.sphere(1.0, 3))
    architecture = Architecture.uniform(2, 8)
    network = Network(architecture, initialise(architecture, 0))
    save_field(NeuralField(network, Similarity.from_ball([1, 0, 0], 2)), tmp_path / "parts" / "a model.h5")
    return tmp_path


def distances(shape: Shape) -> Points:
    return shape.distance(POINTS)


EXPRESSION = 'parts/ball.obj - "parts/a model.h5".scale(0.2) | box(1.5, 1.5, 1)'


def test_meshes_and_models_are_leaves_in_their_own_units(folder: Path) -> None:
    ball = parse_tree("parts/ball.obj")
    assert distances(ball) == pytest.approx(np.linalg.norm(POINTS, axis=1) - 1, abs=0.01)
    assert ball.kind == "distance"
    model = parse_tree('"parts/a model.h5"')
    assert (model.low, model.high) == (pytest.approx([-1, -2, -2]), pytest.approx([3, 2, 2]))
    assert model.field is not None
    same = open_model("parts/a model.h5")
    assert model.field.distance(POINTS, bound=True) == pytest.approx(same.distance(POINTS, bound=True))


def test_file_names_are_relative_to_the_folder_of_the_tree_file(folder: Path) -> None:
    tree = parse_tree(EXPRESSION)
    save_tree(tree, "tree.csg")
    save_tree(tree, "parts/tree.csg")
    assert "parts/ball.obj" in Path("tree.csg").read_text()
    assert Path("parts/tree.csg").read_text().splitlines()[-1] == (
        'ball.obj - "a model.h5".scale(0.2) | box(1.5, 1.5, 1)'
    )
    for name in ("tree.csg", "parts/tree.csg"):
        assert distances(read_tree(name)) == pytest.approx(distances(tree))
    nested = parse_tree("parts/tree.csg.translate(1) - sphere(0.5)")
    assert distances(nested) == pytest.approx(
        distances(parse_tree(f"({EXPRESSION}).translate(1) - sphere(0.5)"))
    )
    assert str(nested) == "parts/tree.csg.translate(1, 0, 0) - sphere(0.5)"


def test_files_outside_of_the_folder_need_permission(folder: Path) -> None:
    Path("parts/up.csg").write_text("../other.csg")
    Path("other.csg").write_text("sphere(1)  # a comment\n")
    with pytest.raises(ModelError, match="outside"):
        open_field("parts/up.csg")
    assert open_field("parts/up.csg", allow_outside=True).kind == "distance"
    Path("parts/absolute.csg").write_text(f'"{folder / "other.csg"}"')
    Path("parts/link.csg").symlink_to(folder / "other.csg")
    Path("parts/linked.csg").write_text("link.csg")
    for name in ("parts/absolute.csg", "parts/linked.csg"):
        with pytest.raises(ModelError, match="outside"):
            open_field(name)
    with pytest.raises(UsageError, match="`bundle=True`"):
        save_tree(parse_tree("other.csg | sphere(2)"), "parts/new.csg")
    save_tree(parse_tree("other.csg | sphere(2)"), "parts/new.csg", allow_outside=True)
    assert "../other.csg | sphere(2)" in Path("parts/new.csg").read_text()


def test_a_bundle_has_its_leaves_in_it(folder: Path) -> None:
    save_tree(parse_tree(EXPRESSION), "parts/tree.csg")
    Path("other").mkdir()
    (folder / "other" / "ball.obj").write_bytes(Path("parts/ball.obj").read_bytes() + b"# another\n")
    tree = parse_tree("parts/tree.csg.scale(2) | parts/ball.obj & other/ball.obj")
    before = distances(tree)
    save_tree(tree, "other/bundle.csg", bundle=True)
    save_tree(tree, "other/again.csg", bundle=True)
    assert Path("other/bundle.csg").read_bytes() == Path("other/again.csg").read_bytes()
    with zipfile.ZipFile("other/bundle.csg") as archive:
        assert sorted(archive.namelist()) == [
            "a_model.h5",
            "ball-2.obj",
            "ball.obj",
            "tree-2.csg",
            "tree.csg",
        ]
    for path in Path("parts").iterdir():
        path.unlink()
    assert distances(read_tree("other/bundle.csg")) == pytest.approx(before)
    save_tree(parse_tree("other/bundle.csg - sphere(0.1)"), "nested.csg", bundle=True)
    Path("other/bundle.csg").unlink()
    assert open_field("nested.csg").distance(POINTS).shape == (200,)


@pytest.mark.parametrize("name", ["a.h5 copy", "a.h5~", "a.(1)", "a.é", "a." + "x" * 240])
def test_a_bundle_holds_a_model_of_any_name(folder: Path, name: str) -> None:
    Path(name).write_bytes(Path("parts/a model.h5").read_bytes())
    tree = open_field(name) | parse_tree("sphere(0.1)")
    save_tree(tree, "bundle.csg", bundle=True)
    Path(name).unlink()
    assert distances(read_tree("bundle.csg")) == pytest.approx(distances(tree))


@pytest.mark.parametrize("bundle", [False, True])
def test_a_tree_that_could_not_be_read_again_is_not_written(folder: Path, bundle: bool) -> None:
    x = 1.2345678901234567
    ball = parse_tree(f"sphere({x}).translate({x}, {x}, {x})")
    while ball.size < 1 << 15:
        ball = ball | ball
    with pytest.raises(UsageError, match=r"has [\d,]+ bytes of text, more than a tree file can have"):
        save_tree(ball, "long.csg", bundle=bundle)
    assert not Path("long.csg").exists()


def test_a_bundle_of_more_parts_than_can_be_read_is_not_written(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tree = parse_tree("parts/ball.obj | 'parts/a model.h5'")
    for limit, most in (("MAX_MEMBERS", 2), ("MAX_BUNDLE", Path("parts/ball.obj").stat().st_size)):
        with monkeypatch.context() as patch:
            patch.setattr(storage_trees, limit, most)
            with pytest.raises(UsageError, match="more than a bundle can have"):
                save_tree(tree, "large.csg", bundle=True)
    assert not Path("large.csg").exists()


def test_names_that_a_tree_file_cannot_hold_are_refused(folder: Path) -> None:
    name = os.fsdecode(b"ball\xff.obj")
    Path(name).write_bytes(Path("parts/ball.obj").read_bytes())
    tree = open_field(name) | parse_tree("sphere(0.1)")
    with pytest.raises(UsageError, match="not UTF-8; rename it"):
        save_tree(tree, "tree.csg")
    save_tree(tree, "tree.csg", bundle=True)
    assert distances(read_tree("tree.csg")) == pytest.approx(distances(tree))
    Path(name).unlink()
    with pytest.raises(FileError, match="no such file"):
        save_tree(tree, "again.csg", bundle=True)


def test_cycles_end(folder: Path) -> None:
    Path("a.csg").write_text("b.csg | sphere(1)")
    Path("b.csg").write_text("sphere(2) - c.csg")
    Path("c.csg").write_text("a.csg")
    with pytest.raises(ModelError, match=r"cyclic: a\.csg uses b\.csg uses c\.csg uses a\.csg"):
        open_field("a.csg")
    Path("self.csg").write_text("self.csg")
    with pytest.raises(ModelError, match="cyclic"):
        open_field("self.csg")
    for index in range(40):
        Path(f"n{index}.csg").write_text(f"n{index + 1}.csg")
    with pytest.raises(ModelError, match="nested in more than"):
        open_field("n0.csg")


def test_files_within_files_cannot_grow_without_end(folder: Path) -> None:
    for index in range(25):
        Path(f"n{index}.csg").write_text(f"n{index + 1}.csg | n{index + 1}.csg.translate(1)")
    Path("n25.csg").write_text("sphere(1)")
    with pytest.raises(NeuralSDFError, match="operations"):
        open_field("n0.csg")


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        ("spher(1)", r"tree\.csg: column 1, at 'spher\(1\)': unknown solid"),
        ("# nothing\n", r"tree\.csg: .*expected a solid"),
        ("nothing.h5", "nothing.h5: no such file"),
        ("nothing.csg", "nothing.csg: no such file"),
        ("parts/ball.obj |\n  sphere()\n\n)", r"line 4, column 1, at '\)'"),
        (b"\xff\xfe\x00", "not UTF-8"),
        ("", "expected a solid"),
        (b"PK\x03\x04 not a zip", "damaged or truncated"),
    ],
)
def test_files_that_are_not_trees_are_refused(folder: Path, content: str | bytes, complaint: str) -> None:
    Path("tree.csg").write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(FileError, match=complaint) as error:
        open_field("tree.csg")
    assert error.value.exit_code == 1


@pytest.mark.parametrize(
    "members",
    [
        {"other.csg": "sphere(1)"},
        {"tree.csg": "../parts/ball.obj"},
        {"tree.csg": "/etc/passwd"},
        {"tree.csg": "a.h5", "../a.h5": "x"},
        {"tree.csg": "sphere(1)", "/absolute": "x"},
        {"tree.csg": "sphere(1)", "folder/file": "x"},
        {"tree.csg": "tree.csg"},
        {"tree.csg": "gone.h5"},
        {"tree.csg": "sphere(1)"} | {f"{index}.obj": "" for index in range(10_000)},
    ],
)
def test_archives_that_are_not_bundles_are_refused(folder: Path, members: dict[str, str]) -> None:
    with zipfile.ZipFile("bad.csg", "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    before = set(folder.rglob("*"))
    with pytest.raises(ModelError, match=r"bad\.csg"):
        open_field("bad.csg", allow_outside=True)
    assert set(folder.rglob("*")) == before


def test_a_compressed_bundle_is_refused(folder: Path) -> None:
    with zipfile.ZipFile("bomb.csg", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("tree.csg", "sphere(1)" + " " * 10_000_000)
    with pytest.raises(ModelError, match="is compressed"):
        open_field("bomb.csg")


def test_a_truncated_bundle_is_refused(folder: Path) -> None:
    save_tree(parse_tree("parts/ball.obj"), "whole.csg", bundle=True)
    content = Path("whole.csg").read_bytes()
    for size in (10, 100, len(content) // 2, len(content) - 30):
        Path("cut.csg").write_bytes(content[:size])
        with pytest.raises(ModelError, match="damaged or truncated"):
            open_field("cut.csg")


def test_trees_that_cannot_be_fields_are_refused(folder: Path) -> None:
    Path("endless.csg").write_text("~sphere(1)")
    Path("empty.csg").write_text("sphere(1) & sphere(1).translate(9)")
    with pytest.raises(UsageError, match=r"endless\.csg: .*unbounded"):
        _ = open_field("endless.csg").transform
    assert open_field("endless.csg").distance([0, 0, 3]) == pytest.approx(-2)
    with pytest.raises(NoSurfaceError, match=r"empty\.csg: .*empty"):
        open_field("empty.csg")
    with pytest.raises(UsageError, match="`key=`"):
        open_field("empty.csg", key="key.json")
    save_mesh("sheet.obj", np.array([[0.0, 0, 0], [1, 0, 0], [0, 1, 0]]), np.array([[0, 1, 2]]))
    with pytest.raises(FileError, match="no inside"):
        parse_tree("sheet.obj")


# --- trees made to take memory or time ----------------------------------------------------------------


def opener(text: str, monkeypatch: pytest.MonkeyPatch) -> tuple[Shape, list[Path]]:
    """The shape of a text, and every model file that was opened for it."""
    opened: list[Path] = []

    def opening(path: str | Path, **options: object) -> NeuralField:
        opened.append(Path(path))
        return open_model(path, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(storage_trees, "open_model", opening)
    return parse_tree(text), opened


def test_a_file_is_opened_once_under_any_names(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = folder / "a.h5"
    model.write_bytes((folder / "parts" / "a model.h5").read_bytes())
    (folder / "link.h5").symlink_to(model)
    (folder / "hard.h5").hardlink_to(model)
    (folder / "inner.csg").write_text("a.h5 | parts/../a.h5.translate(3)")
    names = ["a.h5", "./a.h5", "parts/../a.h5", "link.h5", "hard.h5", "inner.csg", "./inner.csg"]
    shape, opened = opener(" | ".join(f"{name}.translate({i})" for i, name in enumerate(names)), monkeypatch)
    assert opened == [Path("a.h5")]
    assert len({id(field) for field in shape.fields()}) == 1


def test_members_of_deleted_bundles_are_not_mistaken_for_others(folder: Path) -> None:
    """The second bundle is unpacked where the first was, perhaps into the same blocks of the disk."""
    for name, radius in (("one", 1), ("two", 2)):
        (folder / f"{name}_ball.csg").write_text(f"sphere({radius})")
        save_tree(parse_tree(f"{name}_ball.csg"), f"{name}.csg", bundle=True)
    both = parse_tree("one.csg | two.csg.translate(9)")
    assert distances(both) == pytest.approx(distances(parse_tree("sphere(1) | sphere(2).translate(9)")))


def test_the_text_of_a_tree_is_bounded_in_a_bundle_too(folder: Path) -> None:
    with zipfile.ZipFile("blanks.csg", "w") as archive:
        archive.writestr("tree.csg", "sphere(1)" + " " * MAX_TEXT)
    with pytest.raises(
        ModelError, match=r"blanks\.csg: tree\.csg: has .* bytes, more than the text of a tree"
    ):
        read_tree("blanks.csg")
    Path("blanks.csg").write_text("sphere(1)" + " " * MAX_TEXT)
    with pytest.raises(ModelError, match="more than the text of a tree"):
        read_tree("blanks.csg")


def test_texts_are_bounded_together(folder: Path) -> None:
    for index in range(5):
        Path(f"t{index}.csg").write_text("sphere(1)" + " " * (MAX_TEXT // 4))
    Path("all.csg").write_text(" | ".join(f"t{index}.csg" for index in range(5)))
    with pytest.raises(ModelError, match=r"all\.csg: its text is longer than 2 MB"):
        read_tree("all.csg")
    with zipfile.ZipFile("bundle.csg", "w") as archive:
        archive.writestr("tree.csg", Path("all.csg").read_text())
        for index in range(5):
            archive.write(f"t{index}.csg")
    with pytest.raises(ModelError, match=r"bundle\.csg: its text is longer than 2 MB"):
        read_tree("bundle.csg")


def test_all_files_of_a_tree_draw_from_one_budget(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each of ten models alone would be within the budget of any file."""
    monkeypatch.setattr("neuralsdf.files.bounded_input.FREE_BYTES", 100_000)
    monkeypatch.setattr("neuralsdf.files.bounded_input.EXPANSION", 0)
    architecture = Architecture()  # of 30 kB
    field = NeuralField(Network(architecture, initialise(architecture, 0)), Similarity.identity())
    for index in range(10):
        save_field(field, f"m{index}.h5")
    assert parse_tree("m0.h5 | m1.h5 | m2.h5 | m0.h5 | m1.h5 | m2.h5").bounded
    names = " | ".join(f"m{index}.h5" for index in range(10))
    with pytest.raises(ModelError, match="the tree: decodes to more than"):
        parse_tree(names)
    save_tree(parse_tree("m0.h5 | m1.h5"), "small.csg", bundle=True)
    with zipfile.ZipFile("bundle.csg", "w") as archive:
        archive.writestr("tree.csg", names)
        for index in range(10):
            archive.write(f"m{index}.h5")
    with pytest.raises(ModelError, match=r"^bundle\.csg: decodes to more than"):
        read_tree("bundle.csg")


def test_all_files_of_a_tree_are_within_the_largest_input(folder: Path) -> None:
    """A bundle counts as one file, with its own size."""
    size = Path("parts/ball.obj").stat().st_size
    for name in "ab":
        Path(f"{name}.obj").write_bytes(Path("parts/ball.obj").read_bytes())
    save_tree(parse_tree("a.obj - b.obj.scale(0.5)"), "both.csg")
    save_tree(parse_tree("a.obj - b.obj.scale(0.5)"), "bundle.csg", bundle=True)
    save_tree(parse_tree("a.obj - a.obj.scale(0.5)"), "one.csg")
    try:
        set_max_input(int(1.5 * size))
        assert read_tree("one.csg").bounded
        with pytest.raises(ModelError, match=r"both\.csg: its files have .* raise `max_input=`"):
            read_tree("both.csg")
        set_max_input(int(2.5 * size))
        assert read_tree("bundle.csg").bounded
        assert read_tree("both.csg").bounded
    finally:
        set_max_input(None)


def test_bundles_within_bundles_do_not_unpack_without_end(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every level is a copy of the ones within, on the disk."""
    monkeypatch.setattr("neuralsdf.files.bounded_input.FREE_BYTES", 1_000_000)
    monkeypatch.setattr("neuralsdf.files.bounded_input.EXPANSION", 0)
    Path("n0.csg").write_text("sphere(1)#" + "x" * 200_000)
    for index in range(1, 8):
        with zipfile.ZipFile(f"n{index}.csg", "w") as archive:
            archive.writestr("tree.csg", f"n{index - 1}.csg")
            archive.write(f"n{index - 1}.csg")
    assert read_tree("n3.csg").bounded
    with pytest.raises(ModelError, match=r"^n7\.csg: decodes to more than"):
        read_tree("n7.csg")


def test_a_bundle_with_too_many_members_is_refused(folder: Path) -> None:
    """Its names were read before they were counted: a file of 20 MB took gigabytes."""
    entry = b"PK\x01\x02" + b"\0" * 24 + (200).to_bytes(2, "little") + b"\0" * 16 + b"x" * 200
    listed = entry * 50_000
    end = b"PK\x05\x06" + b"\0" * 4 + b"\xff\xff" * 2 + len(listed).to_bytes(4, "little") + b"\0" * 6
    Path("list.csg").write_bytes(b"PK\x03\x04" + listed + end)
    with pytest.raises(ModelError, match="it has more files than a bundle can have"):
        read_tree("list.csg")


@pytest.mark.parametrize("name", ["self.h5", "self.csg", "self.obj", "a\0b.h5", "x" * 300 + ".h5"])
def test_names_of_unusable_files(folder: Path, name: str) -> None:
    if name.startswith("self"):
        Path(name).symlink_to(name)
    Path("tree.csg").write_text(f'"{name}"')
    for read in (lambda: open_field("tree.csg"), lambda: parse_tree(f'"{name}"')):
        with pytest.raises(FileError, match=r"cannot be read|no such file"):
            read()
