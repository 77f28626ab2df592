"""
main.py
-------
The `neuralsdf` command: a group that loads commands on demand, and that turns errors into one line on stderr
and an exit code (0 success, 1 failure, 2 wrong usage).
"""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from difflib import get_close_matches
from importlib import import_module
from typing import Any

import click

from ..errors import NeuralSDFError
from ..version import __version__
from .shared import options, signals, terminal

#: All commands by section of the help page. `foo-bar` is the object `command` of cli/commands/foo_bar.py.
SECTIONS = {
    "Make and measure": ("convert", "eval", "demo"),
    "Many meshes": ("batch-convert", "batch-merge", "report"),
    "Latent models": (
        "make-dataset",
        "prepare",
        "train-latent",
        "reconstruct",
        "interpolate",
        "evaluate-latent",
    ),
    "Use a model": ("info", "query", "render", "extract", "csg"),
    "This machine": ("doctor",),
}


class LazyGroup(click.Group):
    """A group that imports a command's module when the command is used, and reports errors on one line."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """All commands, in the order of the sections."""
        return [name for names in SECTIONS.values() for name in names]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command `cmd_name` with the options common to all commands; None if unknown."""
        if cmd_name not in self.list_commands(ctx):
            return None
        command: click.Command = import_module(f"..commands.{cmd_name.replace('-', '_')}", __name__).command
        if options.DEBUG not in command.params:
            command.params.extend(options.OF_EVERY)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """As click does; the error for an unknown name suggests the closest command, or lists all."""
        name = args[0]
        if not name.startswith("-") and self.get_command(ctx, name) is None:
            commands = self.list_commands(ctx)
            close = get_close_matches(name, commands, n=1)
            hint = f"did you mean {close[0]!r}?" if close else f"one of {', '.join(commands)}"
            raise click.UsageError(f"no command {name!r}; {hint}", ctx)
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the commands with their one-line help, by section."""
        width = max(map(len, self.list_commands(ctx)))
        for section, names in SECTIONS.items():
            with formatter.section(section):
                commands = [(name, self.get_command(ctx, name)) for name in names]
                rows = [
                    (f"{n:{width}}", c.get_short_help_str(limit=200)) for n, c in commands if c is not None
                ]
                formatter.write_dl(rows)

    def main(
        self,
        args: Sequence[str] | None = None,
        prog_name: str | None = None,
        complete_var: str | None = None,
        standalone_mode: bool = True,
        **extra: Any,
    ) -> Any:
        """Run the command line; standalone mode exits with the command's code, without a traceback."""
        if not standalone_mode:
            return super().main(args, prog_name, complete_var, standalone_mode=False, **extra)
        terminal.prepare_streams()
        with _errors_as_lines(), signals.handled():
            # With standalone_mode=False, click returns the code of ctx.exit() and raises all errors.
            result = super().main(args, prog_name, complete_var, standalone_mode=False, **extra)
            sys.stdout.flush()  # errors of a full disk or a closed pipe are still handled here
        sys.exit(result if isinstance(result, int) else 0)


@contextmanager
def _errors_as_lines() -> Iterator[None]:
    try:
        yield
    except click.Abort:
        _fail("interrupted", signals.INTERRUPTED)
    except click.exceptions.NoArgsIsHelpError as error:
        error.show()
        sys.exit(error.exit_code)
    except click.ClickException as error:
        ctx = getattr(error, "ctx", None)
        hint = f" (see {ctx.command_path} --help)" if ctx else ""
        _fail(f"error: {error.format_message().rstrip('.')}{hint}", error.exit_code)
    except NeuralSDFError as error:
        _fail(f"error: {error}", error.exit_code, _excerpt(error))
    except BrokenPipeError:  # same exit code as click's
        terminal.discard_stdout()
        sys.exit(1)
    except MemoryError:
        _fail("error: not enough memory; use a lower resolution or a smaller mesh")
    except OSError as error:
        if error.filename is None and error.errno in (errno.ENOSPC, errno.EBADF, errno.EIO):
            terminal.discard_stdout()
        _fail(f"error: {_place(error)}: {error.strerror or error}")
    except RecursionError:
        _fail("error: the input is nested too deeply")
    except Exception as error:
        _fail(f"error: {type(error).__name__}: {error}; this is a bug; --debug shows the traceback")


def _place(error: OSError) -> str:
    """The file or stream that a system error is about."""
    if error.filename is not None:
        return os.fsdecode(error.filename) if isinstance(error.filename, str | bytes) else str(error.filename)
    try:
        os.getcwd()
    except OSError:
        return "the current folder"
    return "output"


def _fail(line: str, code: int = 1, excerpt: str = "") -> None:
    """Print `line` and `excerpt` and exit with `code`; with --debug, raise the current exception instead."""
    if options.debugging():
        raise
    terminal.error(" ".join(line.split()))
    terminal.excerpt(excerpt)
    sys.exit(code)


def _excerpt(error: BaseException | None) -> str:
    """The excerpt of an error or of its cause: errors of .csg files wrap those of their expressions."""
    while error is not None:
        if isinstance(error, NeuralSDFError) and error.excerpt:
            return error.excerpt
        error = error.__cause__
    return ""


@click.group(
    cls=LazyGroup,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog=options.example("neuralsdf convert bunny.obj", "neuralsdf render bunny.h5 -o bunny.png"),
)
@click.version_option(__version__, prog_name="neuralsdf")
def main() -> None:
    """Compress triangle meshes into neural signed distance fields of a few kilobytes, then render them,
    extract meshes and query distances."""


main.params.extend(options.OF_GROUP)
