"""
terminal.py
-----------
The one place that prints. Commands call these functions and nothing else, so that no text from a file reaches
a terminal as it is: every line is cleaned here (see `text.printable`).

Results go to stdout; errors, and unless `--quiet` warnings and progress, to stderr.
"""

from __future__ import annotations

import json
import math
import os
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

from ...printable import printable, storable
from .keywords import as_options

if TYPE_CHECKING:
    from tqdm import tqdm

#: Characters of a line, of a table's cell and of a progress bar's description that are shown.
_LINE, _CELL, _DESCRIPTION = 2000, 500, 60

#: Entries of JSON that hold messages of the library.
_MESSAGES = {"empty", "error", "findings", "found", "notes", "reason", "warnings"}

#: Nested lists and objects in what is printed as JSON.
_DEPTH = 200


_quiet, _verbose = False, False


def set_volume(*, quiet: bool = False, verbose: bool = False) -> None:
    """Whether notes, warnings and progress are left out, and whether stages and their times are printed."""
    global _quiet, _verbose
    _quiet, _verbose = quiet, verbose


def is_verbose() -> bool:
    """Whether stages and their times are printed."""
    return _verbose


def prepare_streams() -> None:
    """Make the standard streams safe to use: with any encoding, and where one of them is closed.

    A character that the encoding lacks is written as an escape. The descriptor of a closed stream is taken,
    so that no file that is opened later gets it: reading then gives nothing, and writing a result fails.
    """
    for number, (name, mode, flags) in enumerate(
        (("stdin", "r", os.O_RDONLY), ("stdout", "w", os.O_RDONLY), ("stderr", "w", os.O_WRONLY))
    ):
        stream = getattr(sys, name)
        if stream is None:
            _occupy(number, flags)
            setattr(sys, name, open(number, mode, errors="backslashreplace", closefd=False))  # noqa: SIM115
        elif mode == "w" and hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")


def discard_stdout() -> None:
    """Let what is still buffered go nowhere, or the interpreter complains as it ends."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _occupy(number: int, flags: int) -> None:
    """Open a descriptor that is closed on an empty file."""
    opened = os.open(os.devnull, flags)
    if opened != number:
        os.dup2(opened, number)
        os.close(opened)


def say(text: object = "") -> None:
    """Print a line of a result to stdout."""
    _to_stdout(printable(str(text), _LINE))


def error(text: object) -> None:
    """Print a line that begins with `neuralsdf:` to stderr, above a progress bar if there is one.

    Keyword arguments that the library names are printed as options.
    """
    _to_stderr(f"neuralsdf: {printable(as_options(str(text)), _LINE)}")


def note(text: object) -> None:
    """Print a line as `error` does, unless `--quiet` was given."""
    if not _quiet:
        error(text)


def detail(text: object) -> None:
    """Print a line as `error` does, if `--verbose` was given."""
    if _verbose:
        error(text)


@contextmanager
def stage(name: str) -> Iterator[None]:
    """Print how long the block took, if `--verbose` was given."""
    began = time.perf_counter()
    try:
        yield
    finally:
        detail(f"{name}: {time.perf_counter() - began:.2f} s")


def warn(text: object) -> None:
    """Print a warning to stderr."""
    note(f"warning: {text}")


def excerpt(lines: str) -> None:
    """Print lines that show the place of a mistake to stderr."""
    for line in lines.splitlines():
        _to_stderr(printable(line, _LINE))


def _to_stdout(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def _to_stderr(line: str) -> None:
    tqdm = sys.modules.get("tqdm")
    with suppress(OSError):  # a closed pipe or a full disk behind stderr: there is nobody to tell
        if tqdm is None:
            sys.stderr.write(f"{line}\n")
        else:
            tqdm.tqdm.write(line, file=sys.stderr)


def print_table(rows: Iterable[Sequence[Any]], header: Sequence[str] | None = None) -> None:
    """Print rows in aligned columns, each cell as `shown` has it; columns of numbers go to the right."""
    cells = [[printable(shown(cell), _CELL) for cell in row] for row in rows]
    lines = [list(header), *cells] if header else cells
    if not lines:
        return
    widths = [max(len(line[i]) for line in lines if i < len(line)) for i in range(max(map(len, lines)))]
    right = [
        i > 0 and all(_is_number(line[i]) for line in cells if i < len(line) and line[i])
        for i in range(len(widths))
    ]
    for line in lines:
        padded = [
            cell.rjust(width) if to_right else cell.ljust(width)
            for cell, width, to_right in zip(line, widths, right, strict=False)
        ]
        _to_stdout("  ".join(padded).rstrip())


def shown(value: Any) -> str:
    """A value for a person: four significant digits, thousands apart, "-" for nothing."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _is_number(cell: str) -> bool:
    try:
        float(cell.replace(",", "").rstrip("%x"))
    except ValueError:
        return cell == "-"
    return True


def print_json(value: Any) -> None:
    """Print `value` as JSON, in ASCII; what is not finite becomes null, which is what JSON can say.

    Keyword arguments in the library's messages (`_MESSAGES`) become options.
    """
    _to_stdout(json.dumps(_plain(value), indent=2, allow_nan=False))


def _plain(value: Any, depth: int = 0) -> Any:
    if depth > _DEPTH:
        return "..."
    if isinstance(value, dict):
        return {
            storable(str(name)): _plain(_worded(item) if name in _MESSAGES else item, depth + 1)
            for name, item in value.items()
        }
    if isinstance(value, list | tuple):
        return [_plain(item, depth + 1) for item in value]
    if hasattr(value, "tolist"):  # numpy's scalars and arrays, without importing numpy
        return _plain(value.tolist(), depth)
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value if isinstance(value, int | bool | None) else storable(str(value))


def _worded(messages: Any) -> Any:
    if isinstance(messages, list | tuple):
        return list(map(_worded, messages))
    if isinstance(messages, dict):
        return {name: _worded(message) for name, message in messages.items()}
    return as_options(messages) if isinstance(messages, str) else messages


def bar(description: str = "", **options: Any) -> tqdm[Any]:
    """A progress bar of tqdm on stderr, gone when it ends; none with `--quiet`, or where that is no terminal.

    Its description is cleaned, now and when it changes. options: those of tqdm.
    """
    from tqdm import tqdm

    class Bar(tqdm):  # type: ignore[type-arg]
        def set_description_str(self, desc: str | None = None, refresh: bool | None = True) -> None:
            super().set_description_str(printable(desc or "", _DESCRIPTION), refresh)

    shown, hidden = printable(description, _DESCRIPTION), True if _quiet else None
    return Bar(desc=shown, file=sys.stderr, leave=False, disable=hidden, **options)
