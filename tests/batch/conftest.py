"""Fixtures of the tests of batches."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from ..helpers.batch_runs import (
    STARTED,
    contents,
    finish,
    make_meshes,
    start,
)


@pytest.fixture(autouse=True)
def nothing_runs_on() -> Iterator[None]:
    yield
    for process in STARTED:
        process.kill()
        process.wait()
    STARTED.clear()


@pytest.fixture(scope="session")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, bytes]]:
    """A folder of meshes, and the files of an undisturbed run over them."""
    folder = tmp_path_factory.mktemp("undisturbed")
    meshes = make_meshes(folder / "meshes", 10)
    code, out, err = finish(start(meshes, "-o", folder / "out", "--workers", 2))
    assert code == 1, err
    assert "10 of 11 shapes done (10 now), 1 failed" in out
    assert err.count("broken.obj: ") == 1
    return meshes, contents(folder / "out")
