"""Outputs are written atomically."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

import pytest

from neuralsdf.errors import OutputError
from neuralsdf.files import atomic_write as output
from neuralsdf.files.atomic_write import check_writable, make_folder, whole_file, whole_folder


def test_a_file_is_written_completely(tmp_path: Path) -> None:
    target = tmp_path / "model.h5"
    with whole_file(target) as temporary:
        assert temporary.suffix == ".h5"
        temporary.write_bytes(b"half")
        assert not target.exists()
        temporary.write_bytes(b"whole")
    assert target.read_bytes() == b"whole"
    assert list(tmp_path.iterdir()) == [target]


@pytest.mark.parametrize("aim", ["nothing.h5", "link.h5"])
def test_a_dangling_or_cyclic_link_is_not_replaced_without_force(tmp_path: Path, aim: str) -> None:
    link = tmp_path / "link.h5"
    link.symlink_to(tmp_path / aim)
    with pytest.raises(OutputError, match="exists already"):
        check_writable(link, force=False)
    check_writable(link, force=True)


def test_a_failure_leaves_nothing_and_keeps_the_old_file(tmp_path: Path) -> None:
    target = tmp_path / "model.h5"
    target.write_bytes(b"old")

    def interrupted(error: type[BaseException]) -> None:
        with whole_file(target) as temporary:
            temporary.write_bytes(b"half")
            raise error

    for error in (RuntimeError, KeyboardInterrupt):
        with pytest.raises(error):
            interrupted(error)
        assert target.read_bytes() == b"old"
        assert list(tmp_path.iterdir()) == [target]


def test_the_file_has_the_permissions_of_an_ordinary_one(tmp_path: Path) -> None:
    umask = os.umask(0o027)
    try:
        with whole_file(tmp_path / "a.ply") as temporary:
            temporary.write_bytes(b"")
    finally:
        os.umask(umask)
    assert stat.S_IMODE((tmp_path / "a.ply").stat().st_mode) == 0o640


def test_an_existing_file_needs_force(tmp_path: Path) -> None:
    target = tmp_path / "a.ply"
    target.write_bytes(b"old")
    with (
        pytest.raises(OutputError, match="exists already; replace it with `force=True`"),
        whole_file(target, force=False),
    ):
        pytest.fail("the body must not run")
    check_writable(target, force=True)
    assert target.read_bytes() == b"old"


@pytest.mark.parametrize("force", [True, False])
def test_missing_folders_and_files_in_place_of_folders_are_refused(tmp_path: Path, force: bool) -> None:
    (tmp_path / "file").write_bytes(b"")
    for path, reason in (
        (tmp_path / "missing" / "a.ply", "its folder does not exist"),
        (tmp_path / "file" / "a.ply", "its folder is a file"),
        (tmp_path, "is a folder, not a file"),
    ):
        with pytest.raises(OutputError, match=reason) as caught:
            check_writable(path, force=force)
        assert str(caught.value).startswith(f"{path}: ")
        assert "\n" not in str(caught.value)


def test_the_reason_is_that_of_the_system(tmp_path: Path) -> None:
    """The same before any work, when the file is written, and when a folder is created there."""
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "lost").symlink_to("nowhere")
    for path, reason in (
        (Path("/proc/a.ply"), "nothing can be created in its folder|no permission|does not exist"),
        (tmp_path / "loop" / "a.ply", "a cycle of links"),
        (tmp_path / "loop" / "b" / "a.ply", "a cycle of links"),
        (tmp_path / "lost" / "a.ply", "its folder is a dangling link"),
        (tmp_path / f"{300 * 'a'}.ply", "its name is too long"),
        (tmp_path / (300 * "a") / "a.ply", "its name is too long"),
        (tmp_path / "a\0.ply", "null character"),
    ):
        with pytest.raises(OutputError, match=reason):
            check_writable(path, force=True)
        with pytest.raises(OutputError, match=reason), whole_file(path):
            pytest.fail("the body must not run")
    for folder, reason in (
        ("loop", "dangling link"),
        ("lost", "dangling link"),
        ("loop/b", "cycle of links"),
        ("a\0", "null character"),
        (300 * "a", "too long"),
        ("/proc/folder", "nothing can be created|no permission"),
    ):
        with pytest.raises(OutputError, match=reason):
            make_folder(tmp_path / folder)
    assert sorted(os.listdir(tmp_path)) == ["loop", "lost"]


def test_a_check_leaves_nothing_behind(tmp_path: Path) -> None:
    check_writable(tmp_path / "a.ply", force=False)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_read_only_folder(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    try:
        with pytest.raises(OutputError, match="no permission"):
            check_writable(tmp_path / "a.ply", force=False)
    finally:
        tmp_path.chmod(0o700)


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        (errno.ENOSPC, "no space left"),
        (errno.EDQUOT, "quota"),
        (errno.EROFS, "read-only"),
        (errno.EIO, "could not"),
    ],
)
def test_errors_of_the_disk_are_reported_in_one_line(tmp_path: Path, code: int, reason: str) -> None:
    def fail() -> None:
        with whole_file(tmp_path / "a.ply") as temporary:
            temporary.write_bytes(b"half")
            raise OSError(code, os.strerror(code))

    with pytest.raises(OutputError, match=reason):
        fail()
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_is_named_even_if_the_library_hides_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(output, "_disk_is_full", lambda path: True)

    def fail() -> None:
        with whole_file(tmp_path / "a.h5"):
            raise OSError("Unable to synchronously write data")  # as h5py reports it

    with pytest.raises(OutputError, match="no space left"):
        fail()


def test_two_writers_of_one_name_do_not_mix(tmp_path: Path) -> None:
    target = tmp_path / "a.ply"
    with whole_file(target) as first, whole_file(target) as second:
        assert first != second
        first.write_bytes(b"1")
        second.write_bytes(b"2")
    assert target.read_bytes() == b"1"  # the outer one ends last


def test_a_folder_is_created_with_its_parents_and_may_exist(tmp_path: Path) -> None:
    folder = tmp_path / "a" / "b"
    assert make_folder(folder) == folder
    assert make_folder(folder).is_dir()


def test_a_folder_that_cannot_be_created_is_reported_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for path in (tmp_path / "file", tmp_path / "file" / "folder"):
        with pytest.raises(OutputError, match=r"is a file.*`path=`"):
            make_folder(path)


def test_a_folder_is_replaced_atomically(tmp_path: Path) -> None:
    path = tmp_path / "new" / "out"
    for content in ("first", "second"):
        with whole_folder(path) as draft:
            assert list(draft.iterdir()) == []
            (draft / content).write_text(content)
            assert draft.parent == path.parent
        assert [entry.name for entry in path.parent.iterdir()] == ["out"]
        assert [entry.name for entry in path.iterdir()] == [content]


def test_a_failure_leaves_no_folder_and_keeps_the_old_one(tmp_path: Path) -> None:
    path = tmp_path / "new" / "out"

    def begin() -> None:
        with whole_folder(path) as draft:
            (draft / "part").mkdir()
            raise KeyboardInterrupt

    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            begin()
        assert list(tmp_path.iterdir()) == []
    with whole_folder(path) as draft:
        (draft / "old").touch()
    with pytest.raises(OutputError, match=r"out: no space left"), whole_folder(path):
        raise OSError(errno.ENOSPC, "full")
    with pytest.raises(ValueError, match="a bug"), whole_folder(path):
        raise ValueError("a bug")
    assert [entry.name for entry in path.parent.iterdir()] == ["out"]
    assert [entry.name for entry in path.iterdir()] == ["old"]


def test_the_old_folder_is_restored_if_the_new_one_cannot_be_moved_into_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "out"
    with whole_folder(path) as draft:
        (draft / "old").touch()
    rename = Path.rename

    def fails(source: Path, target: Path) -> Path:
        if source.name.endswith(".unfinished"):
            raise KeyboardInterrupt
        return rename(source, target)

    monkeypatch.setattr(Path, "rename", fails)
    with pytest.raises(KeyboardInterrupt), whole_folder(path):
        pass
    assert [entry.name for entry in tmp_path.iterdir()] == ["out"]
    assert [entry.name for entry in path.iterdir()] == ["old"]


def test_leftovers_of_a_killed_process_are_removed(tmp_path: Path) -> None:
    left = tmp_path / ".out.unfinished" / "part"
    left.mkdir(parents=True)
    (left / "half").touch()
    (left.parent / "file").touch()
    with whole_folder(tmp_path / "out") as draft:
        (draft / "new").touch()
    assert [entry.name for entry in tmp_path.iterdir()] == ["out"]
    assert [entry.name for entry in (tmp_path / "out").iterdir()] == ["new"]


def test_two_processes_cannot_write_one_folder(tmp_path: Path) -> None:
    with whole_folder(tmp_path / "out") as draft:
        (draft / "mine").touch()
        with (
            pytest.raises(OutputError, match="is being written by another process"),
            whole_folder(tmp_path / "out"),
        ):
            pass
    assert [entry.name for entry in (tmp_path / "out").iterdir()] == ["mine"]


def test_a_folder_in_place_of_a_file_or_below_one_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for path, reason in ((tmp_path / "file", "is a file, not a folder"), (tmp_path / "file" / "out", "file")):
        with pytest.raises(OutputError, match=reason), whole_folder(path):
            pass
    assert [entry.name for entry in tmp_path.iterdir()] == ["file"]
