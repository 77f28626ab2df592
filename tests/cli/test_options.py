"""Options of every command: --threads, --json, -q and -v; and help pages in groups."""

from __future__ import annotations

import json
import re
from pathlib import Path

import click
import numpy as np
import pytest
from click.testing import CliRunner, Result
from PIL import Image

from neuralsdf import thread_count
from neuralsdf.batch.manifest import Manifest, Run
from neuralsdf.batch.output_folder import Folder
from neuralsdf.cli.commands.convert import _left
from neuralsdf.cli.main import SECTIONS, main
from neuralsdf.cli.shared.help_page import GROUPS, group_of
from neuralsdf.fields.field import NeuralField
from neuralsdf.geometry.similarity_transform import Similarity
from neuralsdf.mesh.save_mesh import save_mesh
from neuralsdf.storage import save_field

from ..helpers import shapes
from ..helpers.fields import octahedron

COMMANDS = [name for names in SECTIONS.values() for name in names]

QUICK = ("--layers", 2, "--width", 16, "--samples", 2000, "--epochs", 5, "--batch", 100)

#: Arguments with which each command is quick, and prints a note or warning if it can.
RUNS = {
    "convert": ("convert", "box.ply", "-f", *QUICK),
    "eval": ("eval", "ball.h5", "box.ply", "--resolution", 16),
    "report": ("report", "run"),
    "batch-merge": ("batch-merge", "shards"),
    "info": ("info", "full.h5"),
    "query": ("query", "ball.h5", "points.txt", "--closest"),
    "render": ("render", "ball.h5", "-f", "--size", "8x8", "--eye", "9,9,9", "--target", "9,9,20"),
    "extract": ("extract", "full.h5", "-f", "--resolution", 16),
    "csg": ("csg", "ball.h5 | sphere(0.2)", "-f", "-o", "a.ply", "--resolution", 16, "--check"),
    "doctor": ("doctor",),
    "make-dataset": (
        "make-dataset",
        "parametric",
        "out",
        "-f",
        "--count",
        1,
        "--classes",
        "car",
        "--workers",
        1,
    ),
}


def run(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def parameters(name: str) -> list[click.Option]:
    command = main.get_command(click.Context(main), name)
    assert command is not None
    return [parameter for parameter in command.params if isinstance(parameter, click.Option)]


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, quick_metrics: None) -> None:
    monkeypatch.chdir(tmp_path)
    save_mesh("box.ply", *shapes.box(5, 3, 2))
    for name, radius in (("ball", 0.5), ("full", 3.0)):
        save_field(NeuralField(octahedron(radius), Similarity.identity()), f"{name}.h5")
    Path("points.txt").write_text("0 0 0\nnan 0 0\n")
    for name, shards in (("run", [None]), ("shards", [(1, 1)])):
        Path(name).mkdir()
        for shard in shards:
            with Manifest.create(Folder(Path(name)).manifest(shard)) as manifest:
                manifest.begin(Run("convert", "meshes", {}), [])


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_the_options_that_the_readme_names(name: str) -> None:
    opts = {opt for parameter in parameters(name) for opt in parameter.opts}
    assert {"--threads", "--json", "--quiet", "-q", "--verbose", "-v", "--debug", "--max-input"} <= opts


@pytest.mark.parametrize("name", COMMANDS)
def test_no_two_options_of_a_command_share_a_name(name: str) -> None:
    names = [parameter.name for parameter in parameters(name)]
    assert len(names) == len(set(names))


@pytest.mark.parametrize("name", COMMANDS)
def test_help_is_in_groups_with_plain_metavars(name: str) -> None:
    page = run(name, "--help").stdout
    assert not re.search(r"INTEGER|FLOAT|TEXT|RANGE|x<=|x>=", page)
    headings = re.findall(r"^(\w+):$", page, re.M)
    shown = [group for group in ("Options", *GROUPS) if group in headings]
    assert [heading for heading in headings if heading in shown] == shown
    assert headings[-1] == "Run"
    for parameter in parameters(name):
        heading = re.findall(
            rf"^(\w+):\n(?:(?!\w).*\n)*?  (?:-\w, )?{parameter.opts[-1]}(?![\w-])", page, re.M
        )
        assert heading == [group_of(parameter)], parameter


@pytest.mark.parametrize("name", RUNS)
def test_quiet_keeps_errors_and_verbose_prints_the_time(name: str) -> None:
    plain, quiet, verbose = (run(*RUNS[name], *more) for more in ((), ("-q",), ("-v",)))
    assert (plain.exit_code, quiet.exit_code, verbose.exit_code) == (0, 0, 0), plain.output
    assert quiet.stderr == ""
    assert re.search(rf"^neuralsdf: .*\b{name}: [\d.]+ s$", verbose.stderr, re.M)
    assert set(plain.stderr.splitlines()) <= set(verbose.stderr.splitlines())
    without_times = [re.sub(r"[\d.]+ s\b.*|seconds .*", "", result.stdout) for result in (plain, quiet)]
    assert without_times[0] == without_times[1]
    broken = run(
        name, *("none",) * (name in ("convert", "info", "render", "extract", "report")), "-q", "--sed"
    )
    assert broken.exit_code == 2
    assert broken.stderr.startswith("neuralsdf: error: ")


def test_notes_and_warnings_are_printed_without_quiet() -> None:
    said = [name for name in RUNS if run(*RUNS[name]).stderr]
    assert {"convert", "eval", "info", "query", "render", "extract"} <= set(said)


def test_convert_prints_its_stages() -> None:
    lines = run(*RUNS["convert"], "-v").stderr
    stages = re.findall(r"^neuralsdf: box.ply: (\w+): [\d.]+ s$", lines, re.M)
    assert stages == ["load", "prepare", "sample", "fit", "measure"]


def test_quiet_still_reports_a_failure_among_several() -> None:
    Path("empty.obj").write_text("")
    result = run("convert", "empty.obj", "box.ply", "-f", "-q", *QUICK)
    assert result.exit_code == 1
    assert "empty.obj: is empty" in result.stderr
    assert result.stderr.count("\n") == 2


@pytest.mark.parametrize(
    "arguments", [("-q", "doctor", "-v"), ("doctor", "-q", "-v"), ("-v", "-q", "doctor")]
)
def test_quiet_and_verbose_exclude_each_other(arguments: tuple[str, ...]) -> None:
    run("-v", "doctor")  # does not affect later runs
    assert run("-q", "doctor").exit_code == 0
    result = run(*arguments)
    assert result.exit_code == 2
    assert "--quiet cannot be combined with --verbose" in result.stderr


@pytest.mark.parametrize("name", RUNS)
def test_json_is_all_of_stdout(name: str) -> None:
    result = run(*RUNS[name], "--json", "-v")
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)


@pytest.mark.parametrize("name", RUNS)
def test_threads_are_set(name: str) -> None:
    assert run(*RUNS[name], "--threads", 3).exit_code == 0
    assert thread_count.threads() == 3
    assert run(*RUNS[name], "--threads", 0).exit_code == 2


def test_workers_are_as_many_as_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []

    class Engine(Exception):
        def __init__(self, job: object, workers: int, *others: object) -> None:
            seen.append(workers)
            super().__init__()

    def run_batch(dataset: str, out: Path, job: object, engine: object, **options: object) -> None:
        engine()  # type: ignore[operator]
        raise KeyboardInterrupt

    monkeypatch.setattr("neuralsdf.batch.engine_processes.LocalEngine", Engine)
    monkeypatch.setattr("neuralsdf.batch.run_batch.run_batch", run_batch)
    for more in (("--threads", 3), ("--threads", 3, "--workers", 5)):
        run("batch-convert", ".", "-o", "out", *more)
    assert seen == [3, 5]


def test_the_target_of_a_camera_is_the_same_in_csg_and_render() -> None:
    view = ("--size", "24x24", "--eye", "3,0.5,1", "--target", "0.2,0.1,0", "--antialias", 1)
    assert run("render", "ball.h5", "-o", "a.png", *view).exit_code == 0
    assert run("csg", "ball.h5", "-o", "b.png", *view).exit_code == 0
    pixels = [np.asarray(Image.open(name), float) for name in ("a.png", "b.png")]
    assert np.abs(pixels[0] - pixels[1]).mean() < 2  # their balls differ, and so their rounding
    assert run("csg", "ball.h5", "-o", "c.png", *view[:4]).exit_code == 0
    assert np.abs(pixels[0] - np.asarray(Image.open("c.png"), float)).mean() > 5
    refused = run("csg", "ball.h5", "-o", "c.h5", "--target", "0,0,0")
    assert refused.exit_code == 2
    assert "--target cannot be combined with -o c.h5" in refused.stderr


@pytest.mark.parametrize(
    ("stage", "done", "seconds", "left"),
    [
        ("fit", 0.5, 4.0, "4 s left"),
        ("fit", 0.25, 60.0, "3 min 0 s left"),
        ("fit", 0.01, 1.0, ""),
        ("fit", 1.0, 9.0, ""),
        ("measure", 0.5, 4.0, ""),
    ],
)
def test_the_time_left_is_the_rest_at_the_rate_so_far(
    stage: str, done: float, seconds: float, left: str
) -> None:
    assert _left(stage, done, seconds) == left
