"""
help_page.py
------------
The click command class: groups options on the help page, and reports the running time with `--verbose`.
"""

from __future__ import annotations

from typing import Any

import click

from . import terminal

#: Groups of a help page, in order, and their parameters. Options that are not listed come first, under
#: "Options".
GROUPS = {
    "Output": (
        "output", "force", "layout", "bundle", "as_json", "faces", "units", "gradient", "closest",
        "bound", "check", "pictures", "turntable", "format_", "bake", "picture", "by_shape",
    ),
    "Camera": ("size", "azimuth", "elevation", "distance", "eye", "target", "fov", "up"),
    "Picture": ("shading", "color", "matcap", "ao", "shadow", "smooth", "background", "antialias"),
    "Surface": ("resolution", "max_memory", "bounds"),
    "Input": ("key", "allow_outside", "sign", "thickness", "align", "max_input"),
    "Network": ("layers", "width", "code", "activation", "precision", "target_error"),
    "Samples": (
        "samples", "shapes", "sampling", "beta", "uniform", "weight", "distances", "occupancies", "surface",
    ),
    "Fit": ("optimizer", "learning_rate", "batch", "step_count", "epochs", "time", "patience"),
    "Batch": (
        "engine", "workers", "timeout", "worker_memory", "together", "retry_failed", "shard", "dry_run",
        "status",
    ),
    "Run": ("device", "backend", "threads", "seed", "measure", "quiet", "verbose", "debug", "help"),
}  # fmt: skip


_GROUP_OF = {name: group for group, names in GROUPS.items() for name in names}


def group_of(option: click.Option) -> str:
    """The help page group of an option."""
    return "Run" if "--help" in option.opts else _GROUP_OF.get(option.name or "", "Options")


class Command(click.Command):
    """A command with grouped options."""

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the options with their help, by group."""
        rows: dict[str, list[tuple[str, str]]] = {name: [] for name in ("Options", *GROUPS)}
        for parameter in self.get_params(ctx):
            record = parameter.get_help_record(ctx)
            if record is not None and isinstance(parameter, click.Option):
                rows[group_of(parameter)].append(record)
        for group, records in rows.items():
            if records:
                with formatter.section(group):
                    formatter.write_dl(records)

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command and report its running time."""
        with terminal.stage(ctx.command_path):
            return super().invoke(ctx)
