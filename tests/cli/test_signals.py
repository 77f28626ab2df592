"""Ctrl-C and SIGTERM at any moment of a command: at most one line, and the exit code that shells use."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NoReturn

import pytest

from neuralsdf.cli.shared import signals
from neuralsdf.storage import save_field

from ..helpers.fields import ball_field

#: Runs a command, and raises a signal when the import of a given module starts.
PROGRAM = """
import signal, sys
signal.signal(signal.SIGINT, signal.SIG_IGN if sys.argv[3] == "ignored" else signal.default_int_handler)
module, number = sys.argv[1], int(sys.argv[2])
def hook(event, args):
    global module
    if event == "import" and args[0] == module:
        module = None
        signal.raise_signal(number)
if module == "atexit":
    import atexit
    atexit.register(signal.raise_signal, number)
else:
    sys.addaudithook(hook)
sys.argv = ["neuralsdf", *sys.argv[4:]]
from neuralsdf.cli.entry_point import main
main()
"""


def command(
    module: str, number: int, model: Path, interrupts: str = "default"
) -> subprocess.CompletedProcess[str]:
    arguments = [sys.executable, "-c", PROGRAM, module, str(number), interrupts, "query", str(model), "-"]
    return subprocess.run(
        arguments, input="10 20 30\n", capture_output=True, text=True, timeout=60, check=False
    )


@pytest.fixture(autouse=True)
def default_handlers() -> Iterator[None]:
    """Python's own handlers: a shell that starts the tests in the background ignores signals."""
    own = {
        signal.SIGINT: signal.default_int_handler,
        signal.SIGTERM: signal.SIG_DFL,
        signal.SIGHUP: signal.SIG_DFL,
    }
    before = {number: signal.signal(number, handler) for number, handler in own.items()}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    save_field(ball_field(), tmp_path / "a.h5")
    return tmp_path / "a.h5"


@pytest.mark.parametrize(
    "module",
    [
        "neuralsdf.cli.shared.signals",  # before anything is handled
        "neuralsdf.cli.main",
        "click",
        "neuralsdf.files.point_lists",
        "numpy",
        "numpy._core._multiarray_umath" if "numpy._core" in sys.modules else "numpy.core._multiarray_umath",
        "h5py._errors",  # extension modules: an exception there would be replaced, or abort the process
        "h5py.h5",
        "neuralsdf.storage",
        "neuralsdf.fields.query",
    ],
)
def test_a_signal_while_a_module_is_imported(module: str, model: Path) -> None:
    done = command(module, signal.SIGINT, model)
    assert (done.returncode, done.stdout) == (130, "")
    assert done.stderr.strip() == "neuralsdf: interrupted"
    if module in ("click", "h5py._errors"):
        done = command(module, signal.SIGTERM, model)
        assert (done.returncode, done.stdout, done.stderr) == (143, "", "")


def test_the_modules_of_these_tests_are_imported(model: Path) -> None:
    assert command("none", signal.SIGINT, model).returncode == 0


def test_a_signal_when_the_command_has_ended_is_silent(model: Path) -> None:
    done = command("atexit", signal.SIGINT, model)
    assert done.returncode == -signal.SIGINT  # a shell reports 130
    assert (float(done.stdout), done.stderr) == (-2.0, "")


def test_a_signal_that_is_ignored_stays_ignored(model: Path) -> None:
    done = command("numpy", signal.SIGINT, model, "ignored")
    assert (done.returncode, float(done.stdout), done.stderr) == (0, -2.0, "")


def test_a_signal_in_a_finaliser_is_not_lost() -> None:
    class Last:
        def __del__(self) -> None:
            signal.raise_signal(signal.SIGINT)

    def wait() -> NoReturn:
        del last[:]
        while True:
            signal.sigtimedwait([], 0.01)

    last = [Last()]
    with pytest.raises(KeyboardInterrupt), signals.handled():
        wait()


def test_handlers_are_restored() -> None:
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)]
    with signals.handled(), pytest.raises(SystemExit) as end:
        signal.raise_signal(signal.SIGHUP)
    assert end.value.code == 129
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)] == before


def test_a_handler_of_the_program_is_kept() -> None:
    seen: list[int] = []
    before = signal.signal(signal.SIGTERM, lambda number, frame: seen.append(number))
    try:
        with signals.handled():
            signal.raise_signal(signal.SIGTERM)
    finally:
        signal.signal(signal.SIGTERM, before)
    assert seen == [signal.SIGTERM]
