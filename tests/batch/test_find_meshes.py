"""The meshes of a data set and their names."""

from __future__ import annotations

import errno
import os
from io import BytesIO, TextIOWrapper
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from neuralsdf.batch.find_meshes import Sources, find_sources, shard_of
from neuralsdf.errors import UsageError


def make(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()


def names(dataset: object) -> list[str]:
    return [name for name, _ in find_sources(str(dataset)).meshes]


def test_a_folder_is_searched_recursively(tmp_path: Path) -> None:
    make(tmp_path, "b.obj", "a/c.STL", "a/b/d.glb", "a.ply", "readme.txt", ".hidden.obj", ".git/e.obj", "f")
    found = find_sources(str(tmp_path))
    assert [name for name, _ in found.meshes] == ["a.ply", "a/b/d.glb", "a/c.STL", "b.obj"]
    assert found.ignored == 2
    assert all(path == tmp_path / name for name, path in found.meshes)


def test_the_order_of_the_file_system_does_not_matter(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make(tmp_path, *(f"{i % 3}/{i}.obj" for i in range(20)))
    expected, listed = find_sources(str(tmp_path)), os.scandir

    class Backwards:
        def __init__(self, path: Path) -> None:
            self.entries = reversed(list(listed(path)))

        def __enter__(self):
            return self.entries

        def __exit__(self, *error: object) -> None: ...

    monkeypatch.setattr(os, "scandir", Backwards)
    assert find_sources(str(tmp_path)) == expected


def test_links_are_followed_but_not_in_cycles(tmp_path: Path) -> None:
    make(tmp_path, "set/a.obj", "elsewhere/b.obj")
    (tmp_path / "set/link").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere/round").symlink_to(tmp_path / "set")
    assert names(tmp_path / "set") == ["a.obj", "link/b.obj"]
    assert names(tmp_path / "set/**") == names(tmp_path / "set")
    assert names(tmp_path / "set/**/*.obj") == names(tmp_path / "set")


def test_names_are_relative_to_the_fixed_part_of_a_pattern(tmp_path: Path) -> None:
    make(tmp_path, "x/a/1.obj", "x/b/2.obj", "x/b/3.stl", "x/b/notes.txt")
    assert names(tmp_path / "x/*/*.obj") == ["a/1.obj", "b/2.obj"]
    assert names(tmp_path / "x/**") == ["a/1.obj", "b/2.obj", "b/3.stl"]
    make(tmp_path, "[odd]/a.obj")
    assert names(tmp_path / "[odd]") == ["a.obj"]  # a folder of that name, not a pattern


def test_a_list_is_relative_to_its_own_folder(tmp_path: Path) -> None:
    make(tmp_path, "sub/a#1.obj", "b.mesh")
    list_file = tmp_path / "sub/list.txt"
    list_file.write_text("# meshes\n\na#1.obj\n../b.mesh\r\n./missing.obj\n")
    found = find_sources(str(list_file)).meshes
    assert [name for name, _ in found] == ["a#1.obj", "b.mesh", "missing.obj"]
    assert [path.resolve() for _, path in found] == [
        tmp_path / "sub/a#1.obj",
        tmp_path / "b.mesh",
        tmp_path / "sub/missing.obj",
    ]


def test_a_list_may_name_a_mesh_twice_and_come_from_standard_input(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdin", TextIOWrapper(BytesIO(b"sub/b.obj\na.obj\n./a.obj\nb\xff.obj\n")))
    assert find_sources("-").meshes == (
        ("a.obj", Path("a.obj")),
        ("b\\xff.obj", Path(os.fsdecode(b"b\xff.obj"))),
        ("sub/b.obj", Path("sub/b.obj")),
    )


def test_results_within_the_data_set_are_not_counted(tmp_path: Path) -> None:
    make(tmp_path, "a.obj", "notes.txt", "out/models/a.obj.h5", "out/dataset.h5", "out/b.obj")
    found = find_sources(str(tmp_path), tmp_path / "sub/../out")
    assert ([name for name, _ in found.meshes], found.ignored) == (["a.obj", "out/b.obj"], 1)


def test_no_name_points_outside_the_output_folder(tmp_path: Path) -> None:
    (tmp_path / "list.txt").write_text("/etc/a.obj\n../../b.obj\nc/../../d.obj\n")
    assert names(tmp_path / "list.txt") == ["b.obj", "d.obj", "etc/a.obj"]


def test_names_that_are_not_unicode_stay_distinct(tmp_path: Path) -> None:
    for name in (b"a\xff.obj", b"a\xfe.obj", "ä.obj".encode()):
        Path(os.fsdecode(bytes(tmp_path) + b"/" + name)).touch()
    assert names(tmp_path) == ["a\\xfe.obj", "a\\xff.obj", "ä.obj"]


@pytest.mark.parametrize(
    ("files", "dataset", "reason"),
    [
        ({}, "nowhere", "no such folder"),
        ({"a.txt": ""}, ".", "no meshes"),
        ({"a.obj": "v 0 0 0"}, "a.obj", "is a mesh"),
        ({"list.txt": "a.obj\n../a.obj"}, "list.txt", "both have the name"),
        ({"list.bin": "a\0b"}, "list.bin", "binary"),
        ({"a.txt": ""}, "*.obj", "no meshes"),
    ],
)
def test_invalid_data_sets_are_refused(
    tmp_path: Path, files: dict[str, str], dataset: str, reason: str
) -> None:
    for name, content in files.items():
        (tmp_path / name).write_text(content)
    with pytest.raises(UsageError, match=reason):
        find_sources(str(tmp_path / dataset))


@settings(max_examples=20)
@given(st.lists(st.text(), unique=True), st.integers(1, 9))
def test_every_shape_is_in_exactly_one_shard_whatever_the_others(shapes: list[str], count: int) -> None:
    shapes = [name.encode("utf-8", "replace").decode() for name in shapes]
    sources = Sources(tuple((name, Path(name)) for name in sorted(set(shapes))))
    shards = [sources.shard((i, count)).meshes for i in range(1, count + 1)]
    assert sorted(mesh for shard in shards for mesh in shard) == list(sources.meshes)
    for i, shard in enumerate(shards, 1):
        assert all(shard_of(name, count) == i for name, _ in shard)


def test_entries_that_are_not_files_do_not_stop_the_search(tmp_path: Path) -> None:
    """A link to itself once stopped a whole batch."""
    (tmp_path / "a.obj").write_text("v 0 0 0\n")
    os.symlink("loop.obj", tmp_path / "loop.obj")
    os.symlink("loop", tmp_path / "loop")
    os.symlink("nothing.obj", tmp_path / "dangling.obj")
    os.symlink(".", tmp_path / "here")
    os.mkfifo(tmp_path / "pipe.obj")
    (tmp_path / "folder.obj").mkdir()
    for dataset in (tmp_path, f"{tmp_path}/*.obj"):
        names = [name for name, _ in find_sources(str(dataset)).meshes]
        # glob skips dangling links; everything else is found, and fails later with its own reason.
        assert {"a.obj", "pipe.obj"} <= set(names) <= {"a.obj", "pipe.obj", "loop.obj", "dangling.obj"}
    assert "loop.obj" in [name for name, _ in find_sources(str(tmp_path)).meshes]
    for name in ("pipe.obj", "loop.obj", "dangling.obj"):
        with pytest.raises(UsageError, match="neither a folder nor a list"):
            find_sources(str(tmp_path / name))


def test_a_folder_that_cannot_be_listed_is_noted_and_the_others_are_searched(tmp_path, monkeypatch) -> None:
    """One without permission, one that is removed during the search, and one with a broken disk."""
    make(tmp_path, "a.obj", "denied/b.obj", "gone/c.obj", "broken/d/e.obj", "z/f.obj")
    listed = os.scandir

    def scandir(folder: Path):
        codes = {"denied": errno.EACCES, "gone": errno.ENOENT, "d": errno.EIO}
        if (code := codes.get(Path(folder).name)) is not None:
            raise OSError(code, os.strerror(code), str(folder))
        return listed(folder)

    monkeypatch.setattr(os, "scandir", scandir)
    found = find_sources(str(tmp_path))
    assert [name for name, _ in found.meshes] == ["a.obj", "z/f.obj"]
    assert [line.split(": ")[0] for line in found.unlisted] == [
        str(tmp_path / name) for name in ("broken/d", "denied", "gone")
    ]
    assert found.shard((1, 2)).unlisted == found.unlisted
    with pytest.raises(UsageError, match=r"cannot be listed .Permission denied"):
        find_sources(str(tmp_path / "denied"))
    with pytest.raises(UsageError, match=r"no meshes in the readable folders; .*broken/d: cannot be listed"):
        find_sources(str(tmp_path / "broken"))
