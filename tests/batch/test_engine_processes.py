"""Worker processes that crash, hang, or are killed or interrupted."""

from __future__ import annotations

import json
import math
import multiprocessing.util
import os
import random
import re
import resource
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import NoReturn

import pytest

from neuralsdf.batch import perform_task
from neuralsdf.batch.engine_processes import LocalEngine
from neuralsdf.batch.job import Task
from neuralsdf.batch.manifest import read_manifest
from neuralsdf.batch.resource_limits import Limits
from neuralsdf.batch.run_batch import Progress, run_batch
from neuralsdf.batch.run_status import batch_status
from neuralsdf.batch.shape_record import Record
from neuralsdf.batch.worker_handle import Worker
from neuralsdf.cli.commands import batch_convert as batch_convert_command
from neuralsdf.cli.shared.option_names import as_options
from neuralsdf.files.bounded_input import set_max_input
from neuralsdf.mesh.save_mesh import save_mesh

from ..helpers import shapes
from ..helpers.batch_runs import (
    COMMAND,
    JOB,
    Inline,
    children,
    command,
    contents,
    done,
    finish,
    make_meshes,
    start,
    states,
    until,
)


def test_workers_respect_the_maximum_input(tmp_path: Path) -> None:
    save_mesh(tmp_path / "box.ply", *shapes.box(5, 3, 1))
    record = Record("box.ply", str(tmp_path / "box.ply"))
    engine = LocalEngine(JOB, 1, Limits(math.inf, math.inf))
    set_max_input(100)
    try:
        engine.submit(Task(record, False, str(tmp_path / "box.h5"), str(tmp_path / "draft")))
        while not (ended := engine.wait()):
            pass
    finally:
        set_max_input(None)
        engine.close()
    assert ended[0].reason is not None
    assert "more than the limit of 100; raise `max_input=`" in ended[0].reason


def test_processes_and_one_process_make_the_same_files(
    undisturbed, tmp_path: Path, quick_metrics: None
) -> None:
    meshes, expected = undisturbed
    run_batch(str(meshes), tmp_path, JOB, Inline)
    assert contents(tmp_path) == expected


def test_a_driver_that_is_killed_loses_nothing(undisturbed, tmp_path: Path) -> None:
    meshes, expected = undisturbed
    arguments = (meshes, "-o", tmp_path / "out", "--workers", 2)
    for count in (1, 3, 6):
        driver = start(*arguments)
        until(lambda: done(tmp_path / "out") >= count or driver.poll() is not None)  # noqa: B023
        workers = children(driver)
        driver.kill()
        driver.communicate()
        until(lambda: not any(Path(f"/proc/{worker}").exists() for worker in workers))  # noqa: B023
        for name, content in contents(tmp_path / "out").items():
            assert name.startswith(".work") or content == expected[name]  # complete or missing
    code, _, err = finish(start(*arguments))
    assert code == 1, err
    assert contents(tmp_path / "out") == expected


def test_workers_that_are_killed_lose_nothing(undisturbed, tmp_path: Path) -> None:
    meshes, expected = undisturbed
    chosen = random.Random(0)
    driver = start(meshes, "-o", tmp_path / "out", "--workers", 2)
    until(lambda: len(children(driver)) == 3)  # Python's resource tracker and the workers
    for count in (0, 2, 4, 6):
        until(lambda: done(tmp_path / "out") >= count or driver.poll() is not None)  # noqa: B023
        for worker in chosen.sample(children(driver)[1:], k=min(1, len(children(driver)[1:]))):
            os.kill(worker, signal.SIGKILL)
    code, _, err = finish(driver)
    assert code == 1, err
    code, _, err = finish(start(meshes, "-o", tmp_path / "out"))
    assert contents(tmp_path / "out") == expected, err


def test_a_mesh_that_crashes_or_exhausts_the_memory_fails_alone(tmp_path: Path) -> None:
    meshes = make_meshes(tmp_path / "meshes", 3, broken=False)
    for name in ("crash", "hog"):
        shutil.copy(meshes / "box1.ply", meshes / f"{name}.ply")
    limits = ("--max-memory", "1G", "--workers", 2)
    code, out, err = finish(start(meshes, "-o", tmp_path / "out", *limits))
    assert code == 1, err
    assert states(tmp_path / "out") == {
        "box1.ply": ("done", None),
        "box2.ply": ("done", None),
        "crash.ply": ("failed", "crash"),
        "hog.ply": ("failed", "memory"),
        "sub/box0.ply": ("done", None),
    }
    reasons = {record.name: str(record.reason) for record in read_manifest(tmp_path / "out") if record.reason}
    assert "SIGABRT" in reasons["crash.ply"]
    assert "1000 MB" in reasons["hog.ply"]
    said = (f"neuralsdf: {name}: {as_options(why)}" for name, why in reasons.items())
    assert sorted(err.splitlines()) == sorted(said)
    assert "3 of 5 shapes done (3 now), 2 failed" in out


def test_a_mesh_that_hangs_times_out(tmp_path: Path) -> None:
    (tmp_path / "meshes").mkdir()
    save_mesh(tmp_path / "meshes/hang.ply", *shapes.box(1, 2, 3))
    code, _, err = finish(start(tmp_path / "meshes", "-o", tmp_path / "out", "--timeout", 5))
    assert code == 1
    assert err == "neuralsdf: hang.ply: took longer than 5 s; allow more with --timeout\n"
    (record,) = read_manifest(tmp_path / "out")
    assert (record.state, record.cause) == ("failed", "timeout")
    assert record.key is not None  # so that the same mesh is not tried again
    assert record.seconds["lost"] >= 5


def test_a_run_in_progress_is_reported_locked_and_interruptible(undisturbed, tmp_path: Path) -> None:
    meshes = make_meshes(tmp_path / "meshes", 2, broken=False)
    shutil.copy(meshes / "box1.ply", meshes / "hang.ply")
    out = tmp_path / "out"
    driver = start(meshes, "-o", out, "--workers", 2, start_new_session=True)
    until(lambda: (out / "manifest.sqlite").exists() and [r for r in read_manifest(out) if r.state == "done"])
    until(lambda: [r.state for r in read_manifest(out)].count("done") == 2)

    (status,) = batch_status(out)
    assert status.running
    assert (status.counts.shapes, status.counts.done, status.counts.waiting) == (3, 2, 1)
    assert status.per_minute is not None
    code, text, err = finish(start("-o", out, "--status"))
    assert (code, err) == (0, "")
    assert "running" in text
    code, _, err = finish(start(meshes, "-o", out))
    assert code == 1
    assert err.count("\n") == 1
    assert f"another run is in progress there (process {driver.pid}" in err

    os.killpg(driver.pid, signal.SIGINT)  # as a terminal does: to the workers, too
    assert_interrupted(driver, out, 130)
    driver = start(meshes, "-o", out, "--workers", 2)
    until(lambda: batch_status(out)[0].running)
    driver.terminate()  # as a cluster's scheduler does, when the time is up
    assert_interrupted(driver, out, 143)
    (meshes / "hang.ply").unlink()
    code, text, err = finish(start(meshes, "-o", out, "--json"))
    assert code == 0, err
    summary = json.loads(text)
    assert (summary["converted"], summary["removed"], summary["failures"]) == (0, 1, [])


def assert_interrupted(driver: subprocess.Popen[str], out: Path, expected: int) -> None:
    code, text, err = finish(driver)
    assert (code, text) == (expected, "")
    assert err.splitlines()[-1] == "neuralsdf: interrupted; run the same command again to continue"
    assert "Traceback" not in err
    assert not batch_status(out)[0].running
    assert not (out / ".work").exists()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP], ids=lambda n: n.name)
def test_a_signal_during_the_start_of_a_worker_is_handled_after_it(
    number: signal.Signals, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    class Heeded(Exception):
        pass

    def heed(number: int, frame: object) -> NoReturn:
        raise Heeded

    spawn = multiprocessing.util.spawnv_passfds  # type: ignore[attr-defined]

    def spawn_and_signal(*arguments: object) -> int:
        pid: int = spawn(*arguments)
        signal.raise_signal(number)
        return pid

    monkeypatch.setattr("multiprocessing.util.spawnv_passfds", spawn_and_signal)
    before = signal.signal(number, heed)
    known = set(multiprocessing.active_children())
    try:
        with pytest.raises(Heeded):
            Worker(perform_task.TaskWork(JOB), Limits(math.inf, math.inf))
        assert signal.getsignal(number) is heed
    finally:
        signal.signal(number, before)
    (begun,) = set(multiprocessing.active_children()) - known
    begun.join(120)  # no process holds the other end of its pipe
    assert begun.exitcode == 1
    assert capfd.readouterr().err == ""


def test_a_log_reports_progress(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(batch_convert_command, "_LOG_EVERY", 0)
    with batch_convert_command.batch_progress() as report:
        report(Record("a", "a", "done", finished=1), Progress(1, 0, 2))
        report(Record("b\n\x1b[2J", "b", "failed", reason="is empty", finished=1), Progress(1, 1, 1))
        report(None, Progress(2, 1, 0))
    lines = [
        re.sub(r"; .* a minute, .* to go", "; ...", line) for line in capsys.readouterr().err.splitlines()
    ]
    assert lines == [
        "neuralsdf: 1 done, 0 failed, 2 left; ...",
        r"neuralsdf: b\n\x1b[2J: is empty",
        "neuralsdf: 1 done, 1 failed, 1 left; ...",
        "neuralsdf: 2 done, 1 failed, 0 left; ...",
    ]


def test_a_pattern_expanded_by_the_shell_is_an_error(tmp_path: Path) -> None:
    code, _, err = finish(start("a.obj", "b.obj", "-o", tmp_path / "out"))
    assert (code, err.count("\n")) == (2, 1)
    assert "give one, a pattern in quotes" in err


def test_a_worker_that_cannot_write_ends_the_run(undisturbed, tmp_path: Path) -> None:
    meshes, _ = undisturbed

    def small_files() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (24 << 10, 24 << 10))

    out = tmp_path / "out"
    wide = ("--width", 128, "--workers", 1)  # 80 kB per model
    code, _, err = finish(start(meshes, "-o", out, *wide, before=small_files))
    assert code == 1
    assert "larger than allowed here; fix this, then run the same command again" in err.splitlines()[-1]
    assert not any((out / "models").rglob("*.h5"))
    assert {state for state, cause in states(out).values() if cause is None} == {"waiting"}


def test_a_worker_that_cannot_start_ends_the_run(tmp_path: Path) -> None:
    script = tmp_path / "broken.py"
    script.write_text(
        "import sys\n"
        "if __name__ != '__main__': sys.exit(3)\n"
        f"sys.argv[0] = {str(COMMAND)!r}\n"
        "from neuralsdf.cli.main import main\n"
        "main()\n"
    )
    meshes = make_meshes(tmp_path / "meshes", 1)
    line = [sys.executable, str(script), *command(meshes, "-o", tmp_path / "out")[2:]]
    done = subprocess.run(line, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 1
    assert done.stderr == "neuralsdf: error: a worker process did not start (exit code 3)\n"
