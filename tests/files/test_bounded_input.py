"""Input files: what cannot be read is reported in one line."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from io import BytesIO
from pathlib import Path

import pytest

from neuralsdf.batch.find_meshes import find_sources
from neuralsdf.errors import FileError, MeshError, ModelError, PointsError
from neuralsdf.fields.field import NeuralField
from neuralsdf.files.bounded_input import MAX_INPUT, max_input, opened, read_stream, set_max_input
from neuralsdf.geometry.similarity_transform import Similarity
from neuralsdf.mesh.load_mesh import load_mesh
from neuralsdf.program.network import Architecture, Network, initialise
from neuralsdf.storage import open_field, save_field
from neuralsdf.storage.dataset import Dataset, write_dataset
from neuralsdf.storage.keras_layout import read_key
from neuralsdf.training.sample_weights import read_weights


def test_an_ordinary_file_is_read(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"1234")
    with opened(tmp_path / "a", MeshError, "a mesh", 4) as stream:
        assert stream.read() == b"1234"


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("none", "no such file; check the name"),
        ("none/none", "no such file; check the name"),
        ("file/none", "cannot be read (Not a directory); check the name and the disk"),
        (".", "is a folder, not a mesh; name a file in it"),
        ("fifo", "is not a regular file; save its content to a file first"),
        ("large", "has 5 bytes, more than a mesh can have"),
        ("a\0b", "cannot be read (embedded null byte); check the name and the disk"),
        ("x" * 300, "cannot be read (File name too long); check the name and the disk"),
    ],
)
def test_other_files_are_refused_with_a_reason(tmp_path: Path, name: str, reason: str) -> None:
    (tmp_path / "file").write_bytes(b"1234")
    (tmp_path / "large").write_bytes(b"12345")
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises(MeshError) as caught, opened(tmp_path / name, MeshError, "a mesh", 4):
        pytest.fail("it was opened")
    assert str(caught.value) == f"{tmp_path / name}: {reason}"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_without_read_permission_is_refused(tmp_path: Path) -> None:
    with (
        pytest.raises(ModelError, match="permission denied"),
        opened(tmp_path / "secret", ModelError, "a model"),
    ):
        pytest.fail("it was opened")


def test_errors_of_reading_name_the_file(tmp_path: Path) -> None:
    (tmp_path / "a").touch()
    with pytest.raises(ModelError, match=r"a: cannot be read \(Input/output error\)"):  # noqa: SIM117
        with opened(tmp_path / "a", ModelError, "a model"):
            raise OSError(5, "")


@pytest.mark.parametrize("suffix", ["obj", "csg", "h5"])
def test_no_command_waits_for_a_pipe(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"pipe.{suffix}"
    os.mkfifo(path)
    with pytest.raises(FileError, match="is not a regular file"):
        (load_mesh if suffix == "obj" else open_field)(path)


@pytest.fixture
def small_limit() -> Iterator[None]:
    set_max_input(1000)
    yield
    set_max_input(None)


@pytest.mark.usefixtures("small_limit")
def test_the_limit_applies_to_every_file_that_is_read(tmp_path: Path) -> None:
    readers: dict[str, Callable[[Path], object]] = {
        "a.obj": load_mesh,
        "a.h5": open_field,
        "a.csg": open_field,
        "a.txt": lambda path: read_weights(path, 3),
        "list.txt": lambda path: find_sources(str(path)),
        "key.json": read_key,
    }
    for name, read in readers.items():
        (tmp_path / name).write_bytes(b" " * 1001)
        with pytest.raises(FileError, match=r"1,001 bytes, more than the limit of 1,000; raise `max_input=`"):
            read(tmp_path / name)


@pytest.mark.usefixtures("small_limit")
def test_a_memory_mapped_data_set_is_exempt(tmp_path: Path) -> None:
    weights = initialise(Architecture(), 0)
    save_field(NeuralField(Network(Architecture(), weights), Similarity.identity()), tmp_path / "a.h5")
    with pytest.raises(ModelError, match="`max_input=`"):
        open_field(tmp_path / "a.h5")
    set_max_input(None)
    write_dataset(tmp_path / "data.h5", [("a", tmp_path / "a.h5")])
    set_max_input(1000)
    assert len(Dataset(tmp_path / "data.h5")) == 1


def test_none_is_the_default_limit() -> None:
    assert max_input() == MAX_INPUT == 4_000_000_000


class Endless:
    """Standard input that never ends."""

    given = 0

    def read(self, size: int) -> bytes:
        self.given += size
        return b"0 0 0\n" * (size // 6)


def test_an_endless_stream_is_abandoned() -> None:
    stream = Endless()
    with pytest.raises(
        PointsError, match="standard input: has more than 5,000,000 bytes, too many for points"
    ):
        read_stream(stream, "standard input", PointsError, "points", 5_000_000)  # type: ignore[arg-type]
    assert stream.given < 8_000_000
    assert read_stream(BytesIO(b"0 0 0\n"), "standard input", PointsError, "points") == b"0 0 0\n"


def test_a_stream_is_bounded_as_files_are() -> None:
    set_max_input(2_000_000)
    try:
        with pytest.raises(PointsError, match="more than 2,000,000 bytes"):
            read_stream(Endless(), "standard input", PointsError, "points")  # type: ignore[arg-type]
    finally:
        set_max_input(None)
