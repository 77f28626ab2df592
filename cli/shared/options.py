"""
options.py
----------
What the commands share: options that mean the same everywhere.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from ...errors import NoSurfaceError, UsageError
from ...files.input_file import set_max_input
from ...parallel import set_threads
from ...units import LENGTHS
from . import terminal
from .command import Command
from .numbers import Number, WholeNumber
from .sizes import read_size

if TYPE_CHECKING:
    from ...fields.field import Field

AnyField = TypeVar("AnyField", bound="Field")

#: `click.command` for the commands of this package.
command = partial(click.command, cls=Command)

Function = TypeVar("Function", bound=Callable[..., Any])

_debug = False


def debugging() -> bool:
    """Whether `--debug` was given: then errors keep their tracebacks."""
    return _debug


def _set_debug(ctx: click.Context, parameter: click.Parameter, value: bool) -> None:
    global _debug
    # Both the group and the command have the option, and the group is parsed first.
    _debug = value or (_debug and ctx.parent is not None)


def _set_volume(ctx: click.Context, parameter: click.Parameter, value: bool) -> None:
    # Both the group and the command have the options, and share `meta`.
    volume = ctx.meta.setdefault(f"{__name__}.volume", {"quiet": False, "verbose": False})
    volume[parameter.name] |= value
    if all(volume.values()):
        raise click.UsageError("--quiet with --verbose: give one of them", ctx)
    terminal.set_volume(**volume)


THREADS = click.Option(
    ["--threads"], type=WholeNumber(1), metavar="N", expose_value=False,
    callback=lambda ctx, parameter, value: set_threads(value),
    help="Threads to use.  [default: all cores]",
)  # fmt: skip

MAX_INPUT = click.Option(
    ["--max-input"], metavar="SIZE", expose_value=False,
    callback=lambda ctx, parameter, value: set_max_input(read_size(ctx, parameter, value)),
    help="Refuse input files that are larger; data sets (mapped) are exempt.  [default: 4GB]",
)  # fmt: skip

QUIET = click.Option(
    ["-q", "--quiet"], is_flag=True, expose_value=False, is_eager=True, callback=_set_volume,
    help="Print no notes, warnings and progress; errors stay.",
)  # fmt: skip

VERBOSE = click.Option(
    ["-v", "--verbose"], is_flag=True, expose_value=False, is_eager=True, callback=_set_volume,
    help="Print the stages and how long they took.",
)  # fmt: skip

DEBUG = click.Option(
    ["--debug"], is_flag=True, expose_value=False, is_eager=True, callback=_set_debug,
    help="Show the traceback of an error.",
)  # fmt: skip

#: Added by the group to itself, and to every command.
OF_GROUP = (QUIET, VERBOSE, DEBUG)
OF_EVERY = (THREADS, MAX_INPUT, *OF_GROUP)


class _Named(click.Path):
    """A path; `-` is refused in words, for the commands know formats by names. `./-` is a file."""

    def __init__(self, refusal: str, kind: type = Path) -> None:
        super().__init__(path_type=kind)
        self._refusal = refusal

    def convert(self, value: Any, parameter: click.Parameter | None, ctx: click.Context | None) -> Any:
        """The path as click has it."""
        if value == "-":
            self.fail(self._refusal, parameter, ctx)
        return super().convert(value, parameter, ctx)


#: A file or folder that is read.
INPUT = _Named("standard input is not read here; name a file")


def seed(function: Function) -> Function:
    """Add `--seed N`, passed as `seed: int`."""
    return click.option(
        "--seed",
        type=WholeNumber(0, 2**63 - 1),
        default=0,
        show_default=True,
        metavar="N",
        help="Seed of every random choice; the same seed gives the same result.",
    )(function)


def as_json(function: Function) -> Function:
    """Add `--json`, passed as `as_json: bool`."""
    return click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")(function)


class _Resolution(WholeNumber):
    """A number of cells, or `auto`, which is None."""

    name = "resolution"

    def __str__(self) -> str:
        return f"{super().__str__()}, or auto"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        return None if value == "auto" else super().convert(value, param, ctx)


def resolution(help: str) -> Callable[[Function], Function]:
    """Add `--resolution N|auto`, passed as `resolution: int | None` (None: as much as the shape needs)."""
    return click.option(
        "--resolution",
        type=_Resolution(8, 8192),
        default="auto",
        show_default=True,
        metavar="N|auto",
        help=help,
    )


def force(function: Function) -> Function:
    """Add `-f, --force`, passed as `force: bool`."""
    return click.option("-f", "--force", is_flag=True, help="Replace a file that exists.")(function)


def output(help: str, *, required: bool = False, kind: type = Path) -> Callable[[Function], Function]:
    """Add `-o, --output PATH`, passed as `output: Path | None`; as a str it keeps a slash at its end."""
    written = _Named("nothing is written to standard output; name a file", kind)
    return click.option("-o", "--output", type=written, required=required, metavar="PATH", help=help)


def default_output(model: Path, suffix: str) -> Path:
    """Where a result goes unless `--output` says so: the current folder, under the model's name."""
    return Path(f"{model.stem}{suffix}")


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


def units(help: str, name: str = "units") -> Callable[[Function], Function]:
    """Add `--units U`, passed as `units: str | None` (or by another name)."""
    return click.option("--units", name, type=click.Choice(list(LENGTHS)), help=help)


#: `--units` of the commands that show a model, which take it as `shown_in(field, units)`.
show_units = units("Give lengths in this unit; the model's own has to be known.")


def shown_in(field: AnyField, unit: str | None, path: Path) -> AnyField:
    """The field with lengths in the unit that was asked for; a `UsageError` then names the file."""
    if unit is None:
        return field
    check_units(field.unit, unit, path)
    return field.in_unit(unit)  # type: ignore[return-value]  # of its own class


def note_flips(*fields: Field) -> None:
    """Say which faces of the meshes among the fields were flipped, a line for each mesh."""
    from ...fields.mesh_field import MeshField

    for field in fields:
        if isinstance(field, MeshField) and field.mesh is not None and field.oracle.orientation is not None:
            line = field.oracle.orientation.line(field.transform)
            if line:
                terminal.note(f"{field.mesh.source.name}: {line}")


def check_units(known: str | None, wanted: str | None, path: Path) -> None:
    """Raise `UsageError` if another unit is wanted of a file whose own unit is not known."""
    if wanted is not None and known is None:
        raise UsageError(
            f"--units {wanted}: the unit of {path} is not known; `neuralsdf convert --units` states it"
        )


def model(function: Function) -> Function:
    """Add the argument MODEL, which may be a mesh, and what opens it.

    Passed as `model: Path, key: Path | None, sign: Sign, thickness: float | None, allow_outside: bool,
    backend: str | None`, which but for the first are arguments of `storage.open_field`.
    """
    key = click.option(
        "--key",
        type=INPUT,
        metavar="JSON",
        help="Keras architecture of a Keras weights file that holds none.  [default: ReLU and tanh]",
    )
    sign = click.option(
        "--sign",
        type=click.Choice(["winding", "pseudonormal", "parity"]),
        default="winding",
        show_default=True,
        help="Inside/outside test of a mesh.",
    )
    thickness = click.option(
        "--thickness", type=Number(), metavar="T", help="Of a mesh, take the solid within T/2 of its surface."
    )
    of_a_mesh = sign(thickness(allow_outside(device(function))))
    return click.argument("model", type=INPUT)(key(of_a_mesh))


@contextmanager
def naming(model: Path) -> Iterator[None]:
    """Let an error about a field without a surface name the model."""
    try:
        yield
    except NoSurfaceError as error:
        raise NoSurfaceError(f"{model}: {error}") from error


def _backend(device: str) -> str | None:
    if device == "auto":  # without importing the backends
        return None
    from ...backends import backend_on

    return backend_on(device)


def example(*lines: str) -> str:
    """A help page's epilog that shows these command lines."""
    return "\n".join(["\b", "Example:" if len(lines) == 1 else "Examples:", *(f"  {line}" for line in lines)])
