"""
options.py
----------
Options shared by several commands.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from ...errors import NoSurfaceError, UsageError
from ...files.bounded_input import set_max_input
from ...thread_count import set_threads
from ...units import LENGTHS
from . import terminal
from .byte_sizes import read_size
from .help_page import Command
from .number_types import Number, WholeNumber

if TYPE_CHECKING:
    from ...backends import Backend
    from ...fields.field import Field

AnyField = TypeVar("AnyField", bound="Field")

#: `click.command` for the commands of this package.
command = partial(click.command, cls=Command)

Function = TypeVar("Function", bound=Callable[..., Any])

_debug = False


def debugging() -> bool:
    """Whether `--debug` was given: errors then show their tracebacks."""
    return _debug


def _set_debug(ctx: click.Context, parameter: click.Parameter, value: bool) -> None:
    global _debug
    # The group and the command both have the option; the group is parsed first.
    _debug = value or (_debug and ctx.parent is not None)


def _set_volume(ctx: click.Context, parameter: click.Parameter, value: bool) -> None:
    # The group and the command both have the options; they share `meta`.
    volume = ctx.meta.setdefault(f"{__name__}.volume", {"quiet": False, "verbose": False})
    volume[parameter.name] |= value
    if all(volume.values()):
        raise click.UsageError("--quiet cannot be combined with --verbose", ctx)
    terminal.set_volume(**volume)


THREADS = click.Option(
    ["--threads"], type=WholeNumber(1), metavar="N", expose_value=False,
    callback=lambda ctx, parameter, value: set_threads(value),
    help="Number of threads.  [default: all cores]",
)  # fmt: skip

MAX_INPUT = click.Option(
    ["--max-input"], metavar="SIZE", expose_value=False,
    callback=lambda ctx, parameter, value: set_max_input(read_size(ctx, parameter, value)),
    help="Size limit of input files; data sets (memory-mapped) are exempt.  [default: 4GB]",
)  # fmt: skip

QUIET = click.Option(
    ["-q", "--quiet"], is_flag=True, expose_value=False, is_eager=True, callback=_set_volume,
    help="Print only results and errors, no warnings, notes or progress.",
)  # fmt: skip

VERBOSE = click.Option(
    ["-v", "--verbose"], is_flag=True, expose_value=False, is_eager=True, callback=_set_volume,
    help="Print the time of each stage.",
)  # fmt: skip

DEBUG = click.Option(
    ["--debug"], is_flag=True, expose_value=False, is_eager=True, callback=_set_debug,
    help="Show the traceback of an error.",
)  # fmt: skip

#: Options of the group, and of every command.
OF_GROUP = (QUIET, VERBOSE, DEBUG)
OF_EVERY = (THREADS, MAX_INPUT, *OF_GROUP)


class _Named(click.Path):
    """A path other than `-`, since formats are determined by suffix. `./-` is a file."""

    def __init__(self, refusal: str, kind: type = Path) -> None:
        super().__init__(path_type=kind)
        self._refusal = refusal

    def convert(self, value: Any, parameter: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Convert as click does; fails for `-`."""
        if value == "-":
            self.fail(self._refusal, parameter, ctx)
        return super().convert(value, parameter, ctx)


#: Type of an input file or folder.
INPUT = _Named("standard input is not supported; name a file")


def seed(function: Function) -> Function:
    """Add `--seed N`, passed as `seed: int`."""
    return click.option(
        "--seed",
        type=WholeNumber(0, 2**63 - 1),
        default=0,
        show_default=True,
        metavar="N",
        help="Random seed; the same seed gives the same result.",
    )(function)


def as_json(function: Function) -> Function:
    """Add `--json`, passed as `as_json: bool`."""
    return click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")(function)


class _Resolution(WholeNumber):
    """A number of cells; `auto` gives None."""

    name = "resolution"

    def __str__(self) -> str:
        return f"{super().__str__()}, or auto"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        return None if value == "auto" else super().convert(value, param, ctx)


def resolution(help: str) -> Callable[[Function], Function]:
    """Add `--resolution N|auto`, passed as `resolution: int | None` (None: automatic)."""
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
    return click.option("-f", "--force", is_flag=True, help="Overwrite existing files.")(function)


def output(help: str, *, required: bool = False, kind: type = Path) -> Callable[[Function], Function]:
    """Add `-o, --output PATH`, passed as `output: Path | None`; kind: `str` keeps a trailing slash."""
    written = _Named("standard output is not supported; name a file", kind)
    return click.option("-o", "--output", type=written, required=required, metavar="PATH", help=help)


def default_output(model: Path, suffix: str) -> Path:
    """Default output path: the model's name with `suffix`, in the current folder."""
    return Path(f"{model.stem}{suffix}")


def device(function: Function) -> Function:
    """Add `--device`, passed as `backend: Backend | None` (None: the default)."""
    return _device("backend", _chosen_backend)(function)


def device_of_workers(function: Function) -> Function:
    """Add `--device`, passed as `device: str` to a command whose worker processes load the backend."""
    return _device("device", _checked_device)(function)


def _device(name: str, convert: Callable[[str], Any]) -> Callable[[Function], Function]:
    return click.option(
        "--device",
        name,
        type=click.Choice(["auto", "cpu", "cuda", "native", "torch"]),
        default="auto",
        show_default=True,
        callback=lambda ctx, parameter, value: convert(value),
        help="Device or backend to compute on (see `neuralsdf doctor`).",
    )


def allow_outside(function: Function) -> Function:
    """Add `--allow-outside`, passed as `allow_outside: bool`."""
    return click.option(
        "--allow-outside",
        is_flag=True,
        help="Allow a tree (.csg) or a latent code to use files outside its folder.",
    )(function)


def units(help: str, name: str = "units") -> Callable[[Function], Function]:
    """Add `--units U`, passed as `units: str | None` (or by another name)."""
    return click.option("--units", name, type=click.Choice(list(LENGTHS)), help=help)


#: `--units` of commands that use a model; applied by `shown_in`.
show_units = units("Unit of lengths in the output; requires a model with a known unit.")


def shown_in(field: AnyField, unit: str | None, path: Path) -> AnyField:
    """The field with lengths in `unit`; raises `UsageError`, naming the file, if its own unit is unknown."""
    if unit is None:
        return field
    check_units(field.unit, unit, path)
    return field.in_unit(unit)  # type: ignore[return-value]  # of its own class


def note_flips(*fields: Field) -> None:
    """Print which faces of the meshes among the fields were flipped, one line per mesh."""
    from ...fields.mesh_field import MeshField

    for field in fields:
        if isinstance(field, MeshField) and field.mesh is not None and field.oracle.orientation is not None:
            line = field.oracle.orientation.line(field.transform)
            if line:
                terminal.note(f"{field.mesh.source.name}: {line}")


def check_exists(path: Path) -> None:
    """Raise `FileError` if there is no such input, before its output is checked."""
    from ...errors import FileError

    if not os.path.lexists(path):
        raise FileError(path, "no such file", "check the name")


def check_sources(output: Path, field: Field) -> None:
    """Raise `OutputError` if the output is a file that a tree is made from, even with `--force`."""
    from ...csg import Shape
    from ...files.atomic_write import check_writable

    for source in field.files() if isinstance(field, Shape) else ():
        check_writable(output, force=True, source=source)


def check_units(known: str | None, wanted: str | None, path: Path) -> None:
    """Raise `UsageError` if a unit is requested for a file whose unit is unknown."""
    if wanted is not None and known is None:
        raise UsageError(
            f"--units {wanted}: the unit of {path} is not known; set it with `neuralsdf convert --units`"
        )


def model(function: Function) -> Function:
    """Add the argument MODEL, which may be a mesh, and the options for opening it.

    Passed as `model: Path, key: Path | None, sign: Sign, thickness: float | None, allow_outside: bool,
    backend: Backend | None`; all but the first are arguments of `storage.open_field`.
    """
    key = click.option(
        "--key",
        type=INPUT,
        metavar="JSON",
        help="Keras architecture for a Keras weights file without one.  [default: ReLU and tanh]",
    )
    sign = click.option(
        "--sign",
        type=click.Choice(["winding", "pseudonormal", "parity"]),
        default="winding",
        show_default=True,
        help="Inside/outside test of a mesh.",
    )
    thickness = click.option(
        "--thickness",
        type=Number(),
        metavar="T",
        help="Use the points within T/2 of a mesh's surface as the solid.",
    )
    of_a_mesh = sign(thickness(allow_outside(device(function))))
    return click.argument("model", type=INPUT)(key(of_a_mesh))


@contextmanager
def naming(model: Path) -> Iterator[None]:
    """Prefix errors about a field without a surface with the model's name."""
    try:
        yield
    except NoSurfaceError as error:
        raise NoSurfaceError(f"{model}: {error}") from error


def _chosen_backend(device: str) -> Backend | None:
    if device == "auto":  # avoids importing the backends
        return None
    from ...backends import chosen_backend

    return chosen_backend(device)


def _checked_device(device: str) -> str:
    if device != "auto":
        from ...backends import backend_name

        backend_name(device)
    return device


def example(*lines: str) -> str:
    """Help page epilog with example command lines."""
    return "\n".join(["\b", "Example:" if len(lines) == 1 else "Examples:", *(f"  {line}" for line in lines)])
