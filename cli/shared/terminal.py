"""
terminal.py
-----------
All terminal output. Commands print only through these functions, which escape every line (see
`printable_text.printable`), so that text from files cannot control a terminal.

Results go to stdout; errors, warnings and progress to stderr (with `--quiet`, only errors).
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

from ...printable_text import printable, storable
from .option_names import as_options

if TYPE_CHECKING:
    from tqdm import tqdm

#: Maximum characters of a line, a table cell and a progress bar description.
_LINE, _CELL, _DESCRIPTION = 2000, 500, 60

#: JSON keys whose values are messages of the library.
_MESSAGES = {"empty", "error", "findings", "found", "notes", "reason", "warnings"}

#: Maximum nesting depth of printed JSON.
_DEPTH = 200


_quiet, _verbose = False, False


def set_volume(*, quiet: bool = False, verbose: bool = False) -> None:
    """Set whether notes, warnings and progress are omitted, and whether times of stages are printed."""
    global _quiet, _verbose
    _quiet, _verbose = quiet, verbose


def is_verbose() -> bool:
    """Whether times of stages are printed."""
    return _verbose


def prepare_streams() -> None:
    """Make the standard streams safe to use with any encoding, and if one of them is closed.

    Characters that the encoding lacks are written as escapes. The descriptor of a closed stream is occupied,
    so that no file opened later gets it: reading from it returns nothing, and writing a result fails.
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
    """Discard buffered output, which would cause an error message at exit."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _occupy(number: int, flags: int) -> None:
    """Open a closed descriptor on the null device."""
    opened = os.open(os.devnull, flags)
    if opened != number:
        os.dup2(opened, number)
        os.close(opened)


def say(text: object = "") -> None:
    """Print a result line to stdout."""
    _to_stdout(printable(str(text), _LINE))


def error(text: object) -> None:
    """Print a line prefixed with `neuralsdf:` to stderr, above a progress bar if there is one.

    Keyword arguments in library messages are printed as options.
    """
    _to_stderr(f"neuralsdf: {printable(as_options(str(text)), _LINE)}")


def note(text: object) -> None:
    """Like `error`, but not with `--quiet`."""
    if not _quiet:
        error(text)


def detail(text: object) -> None:
    """Like `error`, but only with `--verbose`."""
    if _verbose:
        error(text)


@contextmanager
def stage(name: str) -> Iterator[None]:
    """Print the running time of the block, if `--verbose` was given."""
    began = time.perf_counter()
    try:
        yield
    finally:
        detail(f"{name}: {time.perf_counter() - began:.2f} s")


def warn(text: object) -> None:
    """Print a warning to stderr."""
    note(f"warning: {text}")


def excerpt(lines: str) -> None:
    """Print lines that show the location of an error to stderr."""
    for line in lines.splitlines():
        _to_stderr(printable(line, _LINE))


def _to_stdout(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def _to_stderr(line: str) -> None:
    tqdm = sys.modules.get("tqdm")
    with suppress(OSError):  # a closed pipe or a full disk: cannot be reported
        if tqdm is None:
            sys.stderr.write(f"{line}\n")
        else:
            tqdm.tqdm.write(line, file=sys.stderr)


def print_table(rows: Iterable[Sequence[Any]], header: Sequence[str] | None = None) -> None:
    """Print rows in aligned columns, cells formatted by `shown`; columns of numbers are right-aligned."""
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
    """Format a value: four significant digits, thousands separators, "-" for None and NaN."""
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
    """Print `value` as JSON, in ASCII; NaN and infinities become null.

    Keyword arguments in library messages (`_MESSAGES`) become options.
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
    """A tqdm progress bar on stderr, removed when it ends; hidden with `--quiet` or without a terminal.

    Its description is escaped, also when it changes. options: passed to tqdm.
    """
    from tqdm import tqdm

    class Bar(tqdm):  # type: ignore[type-arg]
        def set_description_str(self, desc: str | None = None, refresh: bool | None = True) -> None:
            super().set_description_str(printable(desc or "", _DESCRIPTION), refresh)

    shown, hidden = printable(description, _DESCRIPTION), True if _quiet else None
    return Bar(desc=shown, file=sys.stderr, leave=False, disable=hidden, **options)
