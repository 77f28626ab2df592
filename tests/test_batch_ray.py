"""A batch on a Ray cluster of this machine, with two worker processes."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from neuralsdf.batch.manifest import read_manifest
from neuralsdf.batch.ray import RayEngine
from neuralsdf.batch.run import Summary, batch_convert
from neuralsdf.errors import NeuralSDFError
from neuralsdf.parallel import available_cores

from .test_batch import RECIPE, Inline, contents, make_meshes, states

ray = pytest.importorskip("ray", reason="Ray is not installed: pip install 'neuralsdf[ray]'")


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    yield
    ray.shutdown()


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A folder of meshes and the output of a run in this process."""
    folder = tmp_path_factory.mktemp("ray")
    meshes = make_meshes(folder / "meshes", 8)
    batch_convert(str(meshes), folder / "out", RECIPE, Inline)
    return meshes, folder / "out"


def run(meshes: Path, out: Path, seconds: float = 600) -> Summary:
    engine = RayEngine(RECIPE, 2, seconds, None)
    return batch_convert(os.path.relpath(meshes), os.path.relpath(out), RECIPE, lambda: engine)


def test_a_cluster_makes_what_one_process_makes(cluster: None, expected, tmp_path: Path) -> None:
    meshes, out = expected
    summary = run(meshes, tmp_path / "out")
    assert (summary.converted, summary.failed_now) == (8, 1)
    assert contents(tmp_path / "out") == contents(out)
    assert states(tmp_path / "out") == states(out)
    assert all(record.source == os.path.relpath(record.source) for record in read_manifest(tmp_path / "out"))
    assert ray.is_initialized()  # somebody else's connection is left open


def descendants() -> dict[int, str]:
    """The processes that descend from this one, and their command lines."""
    parents, lines = {}, {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            stat, line = (folder / "stat").read_text(), (folder / "cmdline").read_text()
        except OSError:
            continue
        parents[int(folder.name)] = int(stat.rsplit(")", 1)[1].split()[1])
        lines[int(folder.name)] = line.replace("\0", " ")

    def is_mine(process: int) -> bool:
        return process == os.getpid() or (process in parents and is_mine(parents[process]))

    return {process: line for process, line in lines.items() if is_mine(process)}


@pytest.mark.parametrize("victim", ["ray::_Seat", "spawn_main"])
def test_actors_and_workers_that_are_killed_lose_nothing(
    cluster: None, expected, tmp_path: Path, victim: str
) -> None:
    meshes, out = expected
    killed = []

    def kill() -> None:
        deadline = time.monotonic() + 60
        while len(killed) < 2 and time.monotonic() < deadline:
            time.sleep(0.5)
            found = [process for process, line in descendants().items() if victim in line]
            if found:
                os.kill(found[0], signal.SIGKILL)
                killed.append(found[0])

    killer = threading.Thread(target=kill)
    killer.start()
    run(meshes, tmp_path / "out")
    killer.join()
    run(meshes, tmp_path / "out")
    assert killed
    assert contents(tmp_path / "out") == contents(out)


def test_limits_hold_on_a_cluster(cluster: None, expected, tmp_path: Path) -> None:
    meshes, _ = expected
    run(meshes, tmp_path / "out", seconds=1e-9)
    assert set(states(tmp_path / "out").values()) == {("failed", "timeout")}


def test_no_cluster_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    def nowhere(**options: object) -> None:
        raise ConnectionError

    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.setattr(ray, "init", nowhere)
    with pytest.raises(NeuralSDFError, match="no Ray cluster is running here; start one with"):
        RayEngine(RECIPE, available_cores(), 1, None)
