"""Batch runs for tests: an engine in this process, the command in another, folders of meshes."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from neuralsdf.batch import perform_task
from neuralsdf.batch.conversion_recipe import Recipe
from neuralsdf.batch.convert_job import ConvertJob
from neuralsdf.batch.job import Job, Task
from neuralsdf.batch.manifest import Manifest
from neuralsdf.batch.output_folder import Folder
from neuralsdf.batch.shape_record import Record
from neuralsdf.mesh.save_mesh import save_mesh
from neuralsdf.program.network import Architecture
from neuralsdf.training.fit_settings import Training

from . import shapes

COMMAND = Path(__file__).with_name("batch_command.py")

RECIPE = Recipe(Architecture.uniform(2, 8), samples=1000, training=Training(epochs=1, batch=100))
JOB = ConvertJob(RECIPE)
OPTIONS = ("--layers", "2", "--width", "8", "--samples", "1000", "--epochs", "1", "--batch", "100")


class Inline:
    """An engine without processes, which performs a task when its result is awaited."""

    def __init__(self, job: Job = JOB, seen: list[str] | None = None) -> None:
        self.job, self.tasks = job, list[Task]()
        self.seen = [] if seen is None else seen

    @property
    def free(self) -> int:
        return 2 - len(self.tasks)

    @property
    def busy(self) -> int:
        return len(self.tasks)

    def submit(self, task: Task) -> None:
        self.tasks.append(task)

    def wait(self) -> list[Record]:
        task = self.tasks.pop()  # the last first: the order must not matter
        self.seen.append(task.record.name)
        return [perform_task.perform(task, self.job, on_key=lambda key: None)]

    def close(self) -> None:
        self.tasks.clear()


def make_meshes(folder: Path, count: int, broken: bool = True) -> Path:
    (folder / "sub").mkdir(parents=True)
    for i in range(count):
        save_mesh(folder / ("sub" if i % 3 == 0 else ".") / f"box{i}.ply", *shapes.box(5, 3, 1 + i))
    if broken:
        (folder / "broken.obj").write_text("v 0 0 0\nf 1 2 3\n")
        (folder / "notes.txt").write_text("no mesh")
    return folder


def age(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Make all files old enough for their times to be trusted."""
    now = time.time
    monkeypatch.setattr("neuralsdf.batch.skip_finished.time.time", lambda: now() + 3600)


def contents(out: Path) -> dict[str, bytes]:
    """The output files of a run without the manifests, which contain times."""
    files = (path for path in out.rglob("*") if path.is_file() and not path.name.startswith("manifest"))
    return {path.relative_to(out).as_posix(): path.read_bytes() for path in files}


def states(out: Path, shard: tuple[int, int] | None = None) -> dict[str, tuple[str, str | None]]:
    with Manifest.open(Folder(out).manifest(shard)) as manifest:
        return {record.name: (record.state, record.cause) for record in manifest.records()}


def done(out: Path) -> int:
    """How many shapes of a run, which may be running, are done."""
    manifest = Folder(out).manifest(None)
    return sum(state == "done" for state, _ in states(out).values()) if manifest.exists() else 0


def command(*arguments: object) -> list[str]:
    return [sys.executable, str(COMMAND), "batch-convert", *OPTIONS, *map(str, arguments)]


STARTED: list[subprocess.Popen[str]] = []


def start(
    *arguments: object, before: Callable[[], object] = lambda: None, **options: object
) -> subprocess.Popen[str]:
    """The command in a process of its own, which ends with the test; before: is called in it."""

    def prepared() -> None:
        signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job ignores it
        before()

    pipe = subprocess.PIPE
    line = command(*arguments)
    process = subprocess.Popen(line, stdout=pipe, stderr=pipe, text=True, preexec_fn=prepared, **options)  # type: ignore
    STARTED.append(process)
    return process


def finish(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    out, err = process.communicate(timeout=300)
    return process.returncode, out, err


def children(process: subprocess.Popen[str]) -> list[int]:
    """The child processes of a process: workers, and Python's resource tracker."""
    try:
        return [
            int(pid) for pid in Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        ]
    except OSError:
        return []


def until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + 120
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)
