"""A batch on a Ray cluster of this machine, with two worker processes.

One test uses the cluster, which is slow to start: with several, each process of pytest might start one.
"""

from __future__ import annotations

import os
import shutil
import signal
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest

from neuralsdf.batch.engine_ray import RayEngine
from neuralsdf.batch.job import Job
from neuralsdf.batch.manifest import read_manifest
from neuralsdf.batch.run_batch import Progress, Summary, run_batch
from neuralsdf.batch.shape_record import Record
from neuralsdf.errors import NeuralSDFError
from neuralsdf.thread_count import available_cores

from ..helpers.batch_runs import JOB, Inline, contents, make_meshes, states, until
from ..helpers.volume_job import VolumeJob

ray = pytest.importorskip("ray", reason="Ray is not installed: pip install 'neuralsdf[ray]'")


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A cluster with two CPUs; no process of it remains at the end."""
    monkeypatch.syspath_prepend(Path(__file__).parents[2])  # a worker imports the module of a test's job
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    monkeypatch.setenv("RAY_memory_monitor_refresh_ms", "0")  # it kills workers when others use the memory
    sessions = tempfile.mkdtemp(prefix="ray-")  # not pytest's: the name of a socket has to be short
    try:
        start_cluster(sessions)
        yield
    finally:
        ray.shutdown()
        until(nothing_of_ray_is_left)
        shutil.rmtree(sessions, ignore_errors=True)


def start_cluster(sessions: str) -> None:
    try:
        ray.init(
            num_cpus=2,
            include_dashboard=False,
            log_to_driver=False,
            logging_level="ERROR",
            object_store_memory=100 << 20,
            _temp_dir=sessions,
        )
    except Exception as error:
        if "timed out during startup" not in str(error):
            raise
        pytest.skip("Ray gives up a cluster that has not started within 30 s: this machine is too busy")


def nothing_of_ray_is_left() -> bool:
    """Whether all processes of Ray have ended; a cluster that did not start leaves some, which are killed."""
    left = [process for process, line in descendants().items() if "/ray/" in line or "ray::" in line]
    for process in left:
        with suppress(ProcessLookupError):
            os.kill(process, signal.SIGKILL)
    return not left


def descendants() -> dict[int, str]:
    """The processes that descend from this one, and their command lines; a zombie has none."""
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

    return {process: line for process, line in lines.items() if process != os.getpid() and is_mine(process)}


def run(meshes: Path, out: Path, seconds: float = 600, kill: tuple[str, ...] = (), job: Job = JOB) -> Summary:
    """A run on the cluster; whenever a shape is done, a process with the next of these names is killed."""
    victims = list(kill)

    def report(record: Record | None, progress: Progress) -> None:
        if victims and record is not None and record.state == "done":
            found = [process for process, line in descendants().items() if victims[-1] in line]
            if found:  # or else when the next shape is done
                victims.pop()
                os.kill(found[0], signal.SIGKILL)

    def engine() -> RayEngine:
        return RayEngine(job, 2, seconds, None)

    summary = run_batch(os.path.relpath(meshes), os.path.relpath(out), job, engine, report=report)
    assert not victims
    return summary


@pytest.mark.slow
def test_a_cluster_and_one_process_make_the_same_files_whatever_is_killed(
    cluster: None, tmp_path: Path
) -> None:
    meshes, alone, out = make_meshes(tmp_path / "meshes", 5), tmp_path / "alone", tmp_path / "out"
    run_batch(str(meshes), alone, JOB, Inline)
    actor, worker = "ray::_Actor", "spawn_main"
    summary = run(meshes, out, kill=(actor, worker, actor))
    assert (summary.done_now, summary.failed_now) == (5, 1)
    assert contents(out) == contents(alone)
    assert states(out) == states(alone)
    assert all(record.source == os.path.relpath(record.source) for record in read_manifest(out))
    assert ray.is_initialized()  # an existing connection is left open

    summary = run(meshes, tmp_path / "volumes", kill=(worker, actor), job=VolumeJob())
    assert (summary.done_now, summary.failed_now) == (5, 1)
    for i, name in enumerate(["sub/box0.ply", "box1.ply", "box2.ply", "sub/box3.ply", "box4.ply"]):
        with np.load(tmp_path / f"volumes/volumes/{name}.npz") as result:
            assert result["volume"] == pytest.approx(120 * (1 + i))

    run(meshes / "sub", tmp_path / "limited", seconds=1e-9)
    assert set(states(tmp_path / "limited").values()) == {("failed", "timeout")}


def test_a_missing_cluster_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def nowhere(**options: object) -> None:
        raise ConnectionError

    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.setattr(ray, "init", nowhere)
    with pytest.raises(NeuralSDFError, match="no Ray cluster is running; start one with"):
        RayEngine(JOB, available_cores(), 1, None)
