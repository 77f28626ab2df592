"""The command group, and info, query and doctor: their output and errors."""

from __future__ import annotations

import errno
import json
import math
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import click
import numpy as np
import pytest
from click.testing import CliRunner, Result

from neuralsdf import backends, thread_count
from neuralsdf.backends import BACKENDS, get_backend
from neuralsdf.cli.commands import doctor
from neuralsdf.cli.main import SECTIONS, main
from neuralsdf.cli.shared import options, terminal
from neuralsdf.errors import BackendError, NeuralSDFError, UsageError
from neuralsdf.fields.field import NeuralField
from neuralsdf.geometry.similarity_transform import Similarity
from neuralsdf.mesh.save_mesh import save_mesh
from neuralsdf.program.network import Architecture, Network, initialise
from neuralsdf.storage import open_field, save_field
from neuralsdf.version import __version__

from ..helpers import shapes
from ..helpers.fields import ball_field

COMMANDS = [name for names in SECTIONS.values() for name in names]
HEAVY = ("torch", "trimesh", "scipy", "igl", "skimage", "neuralsdf.latent_fields")


def run(*arguments: object, stdin: str | bytes | None = None) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments], input=stdin)


def process(*arguments: object, **options_: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "neuralsdf", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False, **options_)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    metrics = {"loss": 0.001, "iou": 0.99, "surface_mean": 0.0025, "two_way": 0.002}
    metrics |= {"volume": 1 / 6, "area": math.sqrt(3)}
    save_field(ball_field(metrics=metrics, settings={"seed": 0, "beta": 60.0}), tmp_path / "ball.h5")
    return tmp_path / "ball.h5"


# --- the group --------------------------------------------------------------------------------------


def test_help_shows_every_command_by_section() -> None:
    result = run("--help")
    assert result.exit_code == 0
    for section, names in SECTIONS.items():
        assert f"{section}:" in result.stdout
        assert all(f"\n  {name} " in result.stdout for name in names)


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help_with_an_example_and_debug(name: str) -> None:
    result = run(name, "--help")
    assert result.exit_code == 0
    assert f"neuralsdf {name}" in result.stdout
    assert "Example" in result.stdout
    assert result.stdout.index("--max-input SIZE") < result.stdout.index("--debug")


def test_max_input_applies_to_every_file_that_a_command_reads(model: Path) -> None:
    size = model.stat().st_size
    assert run("info", model, "--max-input", f"{size}").exit_code == 0
    result = run("info", model, "--max-input", "1kB")
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr == (
        f"neuralsdf: error: {model}: has {size:,} bytes, more than the limit of 1,000; raise --max-input\n"
    )
    assert run("info", model).exit_code == 0  # the limit applies to one command only


@pytest.mark.parametrize("size", ["none", "0", "-1", "1XB", "1e3"])
def test_a_size_is_an_amount_of_memory(model: Path, size: str) -> None:
    result = run("info", model, "--max-input", size)
    assert result.exit_code == 2
    assert "is not a size such as 500MB or 2GB" in result.stderr


def test_version() -> None:
    assert run("--version").stdout == f"neuralsdf, version {__version__}\n"


def test_python_m_is_the_command() -> None:
    done = process("--version")
    assert (done.returncode, done.stdout) == (0, f"neuralsdf, version {__version__}\n")


def test_a_mistyped_command_or_option_names_the_right_one(model: Path) -> None:
    result = run("inof", model)
    assert (result.exit_code, result.stdout) == (2, "")
    assert "did you mean 'info'?" in result.stderr
    result = run("info", "--verfy", model)
    assert result.exit_code == 2
    assert "--verify" in result.stderr
    result = run("xyzzy")
    assert result.exit_code == 2
    assert "convert, eval" in result.stderr


@pytest.mark.parametrize(
    "arguments", [("inof",), ("info",), ("info", "--verfy"), ("info", "--device", "moon")]
)
def test_wrong_usage_is_one_line_that_names_the_help(arguments: tuple[str, ...]) -> None:
    result = run(*arguments)
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr.startswith("neuralsdf: error: ")
    assert result.stderr.endswith("--help)\n")
    assert result.stderr.count("\n") == 1


@pytest.mark.parametrize(
    "arguments", [("--help",), ("info", "--help"), ("info", "MODEL"), ("query", "--help")]
)
def test_commands_load_heavy_libraries_only_if_needed(arguments: tuple[str, ...], model: Path) -> None:
    code = (
        "import sys\nfrom neuralsdf.cli.main import main\n"
        "try: main(sys.argv[1:])\n"
        "except SystemExit as end: assert not end.code\n"
        f"print([name for name in {HEAVY} if name in sys.modules], file=sys.stderr)"
    )
    arguments = tuple(str(model) if argument == "MODEL" else argument for argument in arguments)
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "[]\n")


@pytest.fixture
def failing(monkeypatch: pytest.MonkeyPatch) -> list[BaseException]:
    """`doctor` raises the exception that the test puts into this list."""
    errors: list[BaseException] = []

    def fail() -> None:
        raise errors[0]

    monkeypatch.setattr("neuralsdf.cli.commands.doctor.examine", fail)
    return errors


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (NeuralSDFError("a.h5: is broken; mend it"), 1, "neuralsdf: error: a.h5: is broken; mend it\n"),
        (UsageError("--x is wrong"), 2, "neuralsdf: error: --x is wrong\n"),
        (NeuralSDFError("two\nlines"), 1, "neuralsdf: error: two lines\n"),
        (MemoryError(), 1, "neuralsdf: error: not enough memory"),
        (OSError(errno.EIO, "Input/output error", "a.h5"), 1, "neuralsdf: error: a.h5: Input/output error\n"),
        (
            RuntimeError("oops"),
            1,
            "neuralsdf: error: RuntimeError: oops; this is a bug; --debug shows the traceback\n",
        ),
    ],
)
def test_an_error_is_one_line(failing: list[BaseException], error: Exception, code: int, line: str) -> None:
    failing.append(error)
    result = run("doctor")
    assert (result.exit_code, result.stdout) == (code, "")
    assert result.stderr.startswith(line)
    assert result.stderr.count("\n") == 1


@pytest.mark.parametrize("arguments", [("--debug", "doctor"), ("doctor", "--debug")])
def test_debug_keeps_the_traceback(failing: list[BaseException], arguments: tuple[str, ...]) -> None:
    failing.append(NeuralSDFError("broken"))
    assert run(*arguments).exception is failing[0]
    assert isinstance(run("doctor").exception, SystemExit), "the option is forgotten by the next command"


def test_interrupted(failing: list[BaseException]) -> None:
    failing.append(KeyboardInterrupt())
    result = run("doctor")
    assert result.exit_code == 130
    assert result.stderr.strip() == "neuralsdf: interrupted"


def test_a_signal_interrupts_a_process(model: Path) -> None:
    # A process started in the background may have inherited that it ignores the signal.
    code = (
        "import signal\nsignal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "from neuralsdf.cli.main import main\nmain()"
    )
    command = [sys.executable, "-c", code, "query", str(model), "-"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as waiting:
        assert waiting.stdin is not None
        # More than a pipe holds: when all of it is written, the command is reading.
        waiting.stdin.write("0 0 0\n" * 20_000)
        waiting.stdin.flush()
        waiting.send_signal(signal.SIGINT)
        _, stderr = waiting.communicate(timeout=60)
    assert waiting.returncode == 130
    assert stderr.strip() == "neuralsdf: interrupted"


def test_termination_removes_partial_files(tmp_path: Path) -> None:
    code = (
        "import time, click\nfrom neuralsdf.files.atomic_write import whole_file\n"
        "from neuralsdf.cli import main\nfrom neuralsdf.cli.commands import doctor\n"
        "@click.command()\n"
        "def slow():\n"
        "    with whole_file('out.bin') as path:\n"
        "        path.write_bytes(b'half'); print('ready', flush=True)\n"
        # In short sleeps: a signal that comes just before one is handled after it.
        "        for _ in range(600): time.sleep(0.1)\n"
        "doctor.command = slow\nmain.main()"
    )
    command = [sys.executable, "-c", code, "doctor"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, cwd=tmp_path, text=True) as writing:
        assert writing.stdout is not None
        assert writing.stdout.readline() == "ready\n"
        assert len(list(tmp_path.iterdir())) == 1
        writing.terminate()
        assert writing.wait(timeout=60) == 128 + signal.SIGTERM
    assert list(tmp_path.iterdir()) == []


def test_a_closed_pipe_is_quiet(model: Path, tmp_path: Path) -> None:
    np.save(tmp_path / "points.npy", np.zeros((100_000, 3)))
    command = [sys.executable, "-m", "neuralsdf", "query", str(model), str(tmp_path / "points.npy")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as writing:
        assert writing.stdout is not None
        assert writing.stderr is not None
        assert float(writing.stdout.readline()) > 0
        writing.stdout.close()
        assert writing.stderr.read() == ""


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full here")
def test_a_full_disk_behind_stdout_is_one_line(model: Path) -> None:
    with open("/dev/full", "w") as full:
        command = [sys.executable, "-m", "neuralsdf", "info", str(model)]
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr == "neuralsdf: error: output: No space left on device\n"


# --- shared options ---------------------------------------------------------------------------------


def test_shared_options_reach_the_command() -> None:
    seen: dict[str, object] = {}

    @click.command()
    @options.seed
    @options.as_json
    @options.force
    @options.device
    @options.output("Where to.")
    def command(**values: object) -> None:
        seen.update(values, threads=thread_count.threads())

    command.params.append(options.THREADS)
    arguments = ["--threads", "2", "--seed", "7", "--json", "-f", "--device", "torch", "-o", "x.png"]
    assert CliRunner().invoke(command, arguments).exit_code == 0
    expected = {"seed": 7, "as_json": True, "force": True, "output": Path("x.png")}
    assert seen == expected | {"threads": 2, "backend": get_backend("torch")}
    assert CliRunner().invoke(command, []).exit_code == 0
    assert (seen["backend"], seen["seed"], seen["threads"]) == (None, 0, thread_count.available_cores())


def test_threads_below_one_are_wrong_usage(model: Path) -> None:
    result = run("query", model, "-", "--threads", "0", stdin="0 0 0")
    assert result.exit_code == 2
    assert "--threads" in result.stderr


def test_device_cuda_says_what_is_missing(model: Path) -> None:
    result = run("info", model, "--device", "cuda")
    assert result.exit_code == 1
    assert "CUDA" in result.stderr
    assert "--device" in result.stderr


def test_a_command_whose_workers_compute_loads_no_backend(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(backends, "_loaded", {})
    (tmp_path / "meshes").mkdir()
    save_mesh(tmp_path / "meshes/box.ply", *shapes.box(1, 1, 1))
    arguments = ["batch-convert", tmp_path / "meshes", "-o", tmp_path / "out", "--dry-run"]
    small = ["--epochs", 1, "--samples", 2000, "--no-measure"]
    assert run(*arguments, *small, "--device", "torch").exit_code == 0
    assert not backends._loaded


def test_json_has_no_nan(capsys: pytest.CaptureFixture[str]) -> None:
    terminal.print_json(
        {"a": math.nan, "b": [np.float32(1.5), np.inf], "c": np.arange(2), "d": None, "e": True}
    )
    assert json.loads(capsys.readouterr().out) == {
        "a": None,
        "b": [1.5, None],
        "c": [0, 1],
        "d": None,
        "e": True,
    }


def test_tables_are_aligned(capsys: pytest.CaptureFixture[str]) -> None:
    terminal.print_table([("faces", 69451, 1.0), ("a longer name", None, 0.00012345)], header=("", "n", "x"))
    assert capsys.readouterr().out.splitlines() == [
        "                    n          x",
        "faces          69,451          1",
        "a longer name       -  0.0001234",
    ]


# --- info -------------------------------------------------------------------------------------------


def test_info_shows_the_contents_of_the_file(model: Path) -> None:
    result = run("info", model, "--verify")
    assert result.exit_code == 0
    for text in ("1x6 relu", "31 weights", "centre (10, 20, 30), radius 4", "correct", "beta 60"):
        assert text in result.stdout
    lines = {line.split()[0]: line.split()[1:] for line in result.stdout.splitlines() if line}
    assert lines["loss"] == ["0.004", "0.001"]  # mesh units, relative
    assert lines["IoU"] == ["-", "0.99"]
    assert float(lines["volume"][0]) == pytest.approx(4**3 / 6, rel=1e-3)
    assert float(lines["area"][0]) == pytest.approx(4**2 * math.sqrt(3), rel=1e-3)


def test_info_as_json(model: Path) -> None:
    report = json.loads(run("info", model, "--json", "--verify").stdout)
    assert report["architecture"] == {"hidden": [6], "activation": "relu", "output": "linear"}
    assert report["transform"][0] == [4.0, 0.0, 0.0, 10.0]
    assert report["metrics"]["surface_mean"] == 0.0025
    assert report["metrics_mesh_units"]["surface_mean"] == 0.01
    assert report["bytes"] == model.stat().st_size
    assert len(report["checksum"]) == 64
    assert report["bounds"] is None


def test_info_measures_on_request_and_where_nothing_is_stored(model: Path, tmp_path: Path) -> None:
    save_field(ball_field(), tmp_path / "bare.h5")
    for arguments in ((tmp_path / "bare.h5",), (model, "--measure")):
        report = json.loads(run("info", *arguments, "--json").stdout)
        # The L1 ball of radius 0.5 is an octahedron of volume 4/3 r^3 and area 4 sqrt(3) r^2.
        assert report["volume"] == pytest.approx(4**3 / 6, rel=0.01)
        assert report["area"] == pytest.approx(4**2 * math.sqrt(3), rel=0.03)
        assert np.allclose(report["bounds"], [[8, 18, 28], [12, 22, 32]], atol=0.1)
        assert report["warnings"] == []


def octahedron_field(radius: float, **changes: object) -> NeuralField:
    """|x| + |y| + |z| - radius; without a surface if that is negative."""
    field = ball_field()
    weights = field.network.weights.copy()
    weights[-1] = -radius
    return NeuralField(Network(field.network.architecture, weights), field.transform, **changes)


def test_info_warns_of_a_shape_that_fills_its_ball(tmp_path: Path) -> None:
    save_field(octahedron_field(5), tmp_path / "full.h5")
    result = run("info", tmp_path / "full.h5")
    assert result.exit_code == 0
    assert "the field is negative on 100.00% of its ball's surface" in result.stderr


def test_info_reports_no_area_for_a_model_without_a_surface(tmp_path: Path) -> None:
    """The field is almost zero at the centre of its ball, and nowhere negative."""
    metrics = {"surface_mean": 0.3, "iou": 0.0}  # as an earlier version wrote them
    save_field(octahedron_field(-0.001, metrics=metrics), tmp_path / "none.h5")
    result = run("info", tmp_path / "none.h5")
    assert result.exit_code == 0
    assert "the field has no surface" in result.stderr
    assert "the fit failed: no surface was found, so it has no two-way distance" in result.stderr
    report = json.loads(run("info", tmp_path / "none.h5", "--json").stdout)
    assert (report["volume"], report["area"], report["bounds"]) == (None, None, None)
    assert len(report["warnings"]) == 2


@pytest.mark.parametrize(
    "command", [("extract",), ("render", "--size", "32x32"), ("query", "points.txt", "--closest")]
)
def test_errors_name_the_model_without_a_surface(
    command: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    save_field(octahedron_field(-0.001), tmp_path / "none.h5")
    (tmp_path / "points.txt").write_text("10 20 31\n12 20 30\n")
    name, *others = command
    result = run(name, "none.h5", *others)
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr.startswith("neuralsdf: error: none.h5: the field has no surface")
    assert result.stderr.count("\n") == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["none.h5", "points.txt"]


def test_info_of_the_authors_models(test_data: Path) -> None:
    folder = test_data / "author-models"
    report = json.loads(run("info", folder / "101636_sf.h5", "--json").stdout)
    assert (report["layout"], report["radius"], report["weights"]) == ("keras", 0.9, 7553)
    assert np.abs(report["bounds"]).max() == pytest.approx(0.9, abs=0.02)
    key = run("info", folder / "101636_sf.h5", "--json", "--key", folder / "neuralGeomKey.json")
    assert json.loads(key.stdout) == report
    result = run("info", folder / "503411_sf.h5", "--verify")
    assert result.exit_code == 0
    assert "the field has no shape" in result.stderr
    assert "none in this file" in result.stdout


def test_info_of_a_damaged_file(model: Path) -> None:
    content = bytearray(model.read_bytes())
    content[-1] ^= 1
    model.write_bytes(content)
    result = run("info", model, "--verify")
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr.startswith(f"neuralsdf: error: {model}: ")


# --- query ------------------------------------------------------------------------------------------

POINTS = np.array([[10.0, 20.0, 30.0], [13.0, 20.0, 30.0], [10.0, 26.0, 30.0]])
DISTANCES = [-2.0, 1.0, 4.0]  # the last lies outside of the ball, by half its radius
BOUNDS = [-2.0, 1.0, 4.0 * math.hypot(0.5, 0.5)]


def test_query_prints_one_distance_per_line(model: Path) -> None:
    text = "x y z\n" + "\n".join(" ".join(map(str, point)) for point in POINTS)
    result = run("query", model, "-", stdin=text)
    assert result.exit_code == 0
    assert [float(line) for line in result.stdout.splitlines()] == pytest.approx(DISTANCES, abs=1e-5)


def test_query_for_bounds(model: Path) -> None:
    text = "\n".join(" ".join(map(str, point)) for point in POINTS)
    result = run("query", model, "-", "--bound", "--json", "--gradient", stdin=text)
    report = json.loads(result.stdout)
    assert report["columns"]["distance"] == pytest.approx(BOUNDS, abs=1e-5)
    assert report["bound"] is True
    assert json.loads(run("query", model, "-", "--json", stdin=text).stdout)["bound"] is False
    result = run("query", model, "-", "--bound", "--closest", stdin=text)
    assert (result.exit_code, result.stdout) == (2, "")
    assert "--bound cannot be combined with --closest" in result.stderr


def test_query_from_and_to_npy(model: Path, tmp_path: Path) -> None:
    np.save(tmp_path / "points.npy", POINTS)
    result = run("query", model, tmp_path / "points.npy", "-o", tmp_path / "d.npy")
    assert (result.exit_code, result.stdout) == (0, "")
    assert np.allclose(np.load(tmp_path / "d.npy"), DISTANCES)
    again = run("query", model, tmp_path / "points.npy", "-o", tmp_path / "d.npy")
    assert again.exit_code == 1
    assert "--force" in again.stderr
    assert run("query", model, tmp_path / "points.npy", "-o", tmp_path / "d.npy", "-f").exit_code == 0


def test_query_npy_from_standard_input(model: Path, tmp_path: Path) -> None:
    np.save(tmp_path / "points.npy", POINTS)
    result = run("query", model, "-", stdin=(tmp_path / "points.npy").read_bytes())
    assert [float(line) for line in result.stdout.splitlines()] == pytest.approx(DISTANCES, abs=1e-5)


def test_query_with_gradient_and_closest_point_to_csv(model: Path, tmp_path: Path) -> None:
    (tmp_path / "points.csv").write_text("\n".join(",".join(map(str, point)) for point in POINTS[1:2]))
    run("query", model, tmp_path / "points.csv", "--gradient", "--closest", "-o", tmp_path / "out.csv")
    header, line = (tmp_path / "out.csv").read_text().splitlines()
    names = "distance,gradient_x,gradient_y,gradient_z,closest_x,closest_y,closest_z,residual"
    assert header == names
    assert [float(value) for value in line.split(",")] == pytest.approx([1, 1, 0, 0, 12, 20, 30, 0], abs=1e-4)


def test_query_as_json(model: Path) -> None:
    result = run("query", model, "-", "--json", stdin="13 20 30\nnan 0 0\n")
    report = json.loads(result.stdout)
    assert report["points"] == 2
    assert report["columns"]["distance"] == [pytest.approx(1.0), None]
    assert "1 of 2 points not finite" in result.stderr


def test_points_too_far_for_float32_are_reported_in_one_line(model: Path) -> None:
    result = process(
        "query", model, "-", "--gradient", "--closest", input="1e12 20 30\n1e30 0 0\n1e308 0 0\n"
    )
    near, *far = (line.split(",")[0] for line in result.stdout.splitlines())
    assert float(near) == pytest.approx(1e12, rel=1e-6)
    assert far == ["nan", "nan"]
    assert result.stderr.splitlines()[0] == (
        "neuralsdf: warning: 2 of 3 points not finite or too far; their results are nan"
    )
    assert all(line.startswith("neuralsdf: ") for line in result.stderr.splitlines())


def test_query_never_replaces_its_points(model: Path, tmp_path: Path) -> None:
    (tmp_path / "p.csv").write_text("1,2,3\n")
    result = run("query", model, tmp_path / "p.csv", "-o", tmp_path / "p.csv", "--force")
    assert result.exit_code == 1
    assert "is the input" in result.stderr
    assert (tmp_path / "p.csv").read_text() == "1,2,3\n"


@pytest.mark.parametrize(
    ("stdin", "arguments", "code", "reason"),
    [
        ("1 2\n", (), 1, "standard input: line 1 has 2 numbers"),
        ("", (), 1, "standard input: holds no points"),
        ("1 2 3\n", ("-o", "out.xlsx"), 2, "out.xlsx: results are written as .npy, .csv, .txt"),
        ("1 2 3\n", ("-o", "none/out.csv"), 1, "its folder does not exist"),
    ],
)
def test_query_mistakes(model: Path, stdin: str, arguments: tuple[str, ...], code: int, reason: str) -> None:
    result = run("query", model, "-", *arguments, stdin=stdin)
    assert (result.exit_code, result.stdout) == (code, "")
    assert reason in result.stderr
    assert result.stderr.count("\n") == 1


def test_query_of_an_authors_model(test_data: Path) -> None:
    path = test_data / "author-models" / "101636_sf.h5"
    result = run("query", path, "-", "--closest", stdin="0.1 0.2 0.3\n0 0 2\n")
    assert result.exit_code == 0
    rows = np.array([[float(value) for value in line.split(",")] for line in result.stdout.splitlines()])
    assert np.allclose(
        rows[:, 0], open_field(path).distance(np.array([[0.1, 0.2, 0.3], [0, 0, 2]])), atol=1e-6
    )
    assert (rows[:, 4] < 1e-3).all()


# --- doctor -----------------------------------------------------------------------------------------


def test_doctor_names_the_backend_that_runs() -> None:
    report = json.loads(run("doctor", "--json").stdout)
    assert report["backend"] == get_backend().name
    assert [backend["name"] for backend in report["backends"]] == list(BACKENDS)
    assert [b["name"] for b in report["backends"] if b["default"]] == [report["backend"]]
    assert report["packages"]["numpy"] == np.__version__
    assert report["cores"] == thread_count.available_cores()
    text = run("doctor").stdout
    assert all(backend["detail"] in text for backend in report["backends"])


def test_doctor_lists_the_packages_that_the_project_declares() -> None:
    """The required ones, and those of every extra but the ones for tests and development."""
    tomllib = pytest.importorskip("tomllib", reason="Python 3.10 cannot read TOML")
    project = tomllib.loads((Path(__file__).resolve().parents[2] / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]

    def names(requirements: list[str]) -> set[str]:
        return {re.split(r"[^\w-]", line)[0] for line in requirements if "python_version<" not in line}

    assert set(doctor.REQUIRED) == names(project["dependencies"])
    assert set(doctor.OPTIONAL) == names(
        [line for extra in extras if extra not in ("test", "dev") for line in extras[extra]]
    )


def test_doctor_says_why_a_backend_does_not_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NEURALSDF_BACKEND", "abacus")
    with pytest.raises(BackendError):
        get_backend()
    result = run("doctor")
    assert result.exit_code == 0
    assert "unknown backend 'abacus'" in result.stdout


def test_random_weights_of_the_default_network_can_be_queried(tmp_path: Path) -> None:
    architecture = Architecture()
    save_field(NeuralField(Network(architecture, initialise(architecture, 0)), Similarity.identity()),
               tmp_path / "a.h5")  # fmt: skip
    done = process("query", tmp_path / "a.h5", "-", "--threads", "1", input="0 0 0\n")
    assert (done.returncode, done.stderr) == (0, "")
    assert math.isfinite(float(done.stdout))
