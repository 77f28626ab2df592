"""
byte_sizes.py
-------------
Memory and file sizes on the command line, such as 500MB, 2G or 2GiB.
"""

from __future__ import annotations

import re

import click

#: A number with an optional prefix; the powers of 1000 are those of 1024 with an "i", as in GiB.
_SIZE = re.compile(r"(\d{1,15}(?:\.\d{1,15})?)\s*(?:([kmgt])(i?))?b?")


def read_size(ctx: click.Context, parameter: click.Parameter, value: str | None) -> int | None:
    """Click callback: the number of bytes, at least 1; None if not given."""
    if value is None:
        return None
    match = _SIZE.fullmatch(value.strip().lower())
    count = 0
    if match:
        power = " kmgt".index(match[2] or " ")
        count = int(float(match[1]) * (1024 if match[3] else 1000) ** power)
    if count < 1:
        raise click.BadParameter(f"{value!r} is not a size such as 500MB or 2GB", ctx, parameter)
    return count
