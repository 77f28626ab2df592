"""
byte_sizes.py
-------------
Memory and file sizes on the command line, such as 500MB or 2GB.
"""

from __future__ import annotations

import re

import click

_UNITS = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12}


def read_size(ctx: click.Context, parameter: click.Parameter, value: str | None) -> int | None:
    """Click callback: the number of bytes, at least 1; None if not given."""
    if value is None:
        return None
    match = re.fullmatch(r"(\d{1,15}(?:\.\d{1,15})?)\s*([kmgt]?)i?b?", value.strip().lower())
    count = int(float(match[1]) * _UNITS[match[2]]) if match else 0
    if count < 1:
        raise click.BadParameter(f"{value!r} is not a size such as 500MB or 2GB", ctx, parameter)
    return count
