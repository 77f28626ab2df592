"""
options.py
----------
What the commands share: options that mean the same everywhere, and the two ways to print a result.
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import click

from ..errors import BackendError
from ..parallel import set_threads

Function = TypeVar("Function", bound=Callable[..., Any])

_debug = False


def debugging() -> bool:
    """Whether `--debug` was given: then errors keep their tracebacks."""
    return _debug


def _set_debug(ctx: click.Context, parameter: click.Parameter, value: bool) -> None:
    global _debug
    # Both the group and the command have the option, and the group is parsed first.
    _debug = value or (_debug and ctx.parent is not None)


#: Added by the group to itself and to every command.
DEBUG = click.Option(
    ["--debug"], is_flag=True, expose_value=False, is_eager=True, callback=_set_debug,
    help="Show the traceback of an error.",
)  # fmt: skip


def threads(function: Function) -> Function:
    """Add `--threads N`, which sets the process's limit; nothing is passed to the command."""
    return click.option(
        "--threads",
        type=click.IntRange(min=1),
        metavar="N",
        expose_value=False,
        callback=lambda ctx, parameter, value: set_threads(value),
        help="Threads to use.  [default: all cores]",
    )(function)


def seed(function: Function) -> Function:
    """Add `--seed N`, passed as `seed: int`."""
    return click.option(
        "--seed",
        type=click.IntRange(0, 2**63 - 1),
        default=0,
        show_default=True,
        metavar="N",
        help="Seed of every random choice; the same seed gives the same result.",
    )(function)


def as_json(function: Function) -> Function:
    """Add `--json`, passed as `as_json: bool`."""
    return click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")(function)


def force(function: Function) -> Function:
    """Add `-f, --force`, passed as `force: bool`."""
    return click.option("-f", "--force", is_flag=True, help="Replace a file that exists.")(function)


def output(help: str, *, required: bool = False, kind: type = Path) -> Callable[[Function], Function]:
    """Add `-o, --output PATH`, passed as `output: Path | None`; as a str it keeps a slash at its end."""
    return click.option(
        "-o", "--output", type=click.Path(path_type=kind), required=required, metavar="PATH", help=help
    )


def device(function: Function) -> Function:
    """Add `--device WHERE`, passed as `backend: str | None` (None: the fastest that runs here)."""
    return click.option(
        "--device",
        "backend",
        type=click.Choice(["auto", "cpu", "cuda", "native", "torch"]),
        default="auto",
        show_default=True,
        callback=lambda ctx, parameter, value: _backend(value),
        help="Where to compute: a device, or a backend by name (see `neuralsdf doctor`).",
    )(function)


def allow_outside(function: Function) -> Function:
    """Add `--allow-outside`, passed as `allow_outside: bool`."""
    return click.option(
        "--allow-outside", is_flag=True, help="Let a tree (.csg) name files outside of its own folder."
    )(function)


def model(function: Function) -> Function:
    """Add the argument MODEL and what opens it, and `--threads`.

    Passed as `model: Path, key: Path | None, allow_outside: bool, backend: str | None`.
    """
    key = click.option(
        "--key",
        type=click.Path(path_type=Path),
        metavar="JSON",
        help="Keras architecture of a Keras weights file that holds none.  [default: ReLU and tanh]",
    )
    return click.argument("model", type=click.Path(path_type=Path))(
        key(allow_outside(device(threads(function))))
    )


def _backend(device: str) -> str | None:
    if device == "auto":
        return None
    from ..backends import CPU_BACKENDS, backend_status, fastest

    if device == "cpu":
        return fastest(CPU_BACKENDS)
    if device == "cuda" and not (status := backend_status(device)).available:
        raise BackendError(f"--device cuda: {status.detail}; or leave the option out to compute on the CPU")
    return device


def example(*lines: str) -> str:
    """A help page's epilog that shows these command lines."""
    return "\n".join(["\b", "Example:" if len(lines) == 1 else "Examples:", *(f"  {line}" for line in lines)])


def print_table(rows: Iterable[Sequence[Any]], header: Sequence[str] | None = None) -> None:
    """Print rows in aligned columns, each cell as `text` shows it; columns of numbers go to the right."""
    cells = [[text(cell) for cell in row] for row in rows]
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
        click.echo("  ".join(padded).rstrip())


def text(value: Any) -> str:
    """A value for a person: four significant digits, thousands apart, "-" for nothing."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def one_line(name: str) -> str:
    """A file's name as it is, but for line breaks and what a terminal would obey (`\\n`, `\\x1b`)."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in name)


def _is_number(cell: str) -> bool:
    try:
        float(cell.replace(",", "").rstrip("%x"))
    except ValueError:
        return cell == "-"
    return True


def print_json(value: Any) -> None:
    """Print `value` as JSON; what is not finite becomes null, which is what JSON can say."""
    click.echo(json.dumps(_plain(value), indent=2, allow_nan=False))


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(name): _plain(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if hasattr(value, "tolist"):  # numpy's scalars and arrays, without importing numpy
        return _plain(value.tolist())
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value if isinstance(value, int | str | bool | None) else str(value)


def progress_bars() -> bool:
    """Whether to draw progress on stderr: only for a person who sees it."""
    return sys.stderr.isatty()
