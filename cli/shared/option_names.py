"""
option_names.py
---------------
Replaces keyword arguments in the library's messages by command-line options.

Library messages address Python callers: `force=True`, `width=48` or, without a value, `width=`. The command
line prints --force, --width 48 and --width.
"""

from __future__ import annotations

import re

#: Options whose names differ from the keyword.
OTHER_NAMES = {"path": "-o"}

_KEYWORD = re.compile(r"`([a-z_]+)=([^`]*)`")


def as_options(text: str) -> str:
    """Replace keyword arguments in a text by options."""
    return _KEYWORD.sub(_option, text)


def _option(keyword: re.Match[str]) -> str:
    name, value = keyword[1], keyword[2].strip("'\"")
    option = OTHER_NAMES.get(name, f"--{name.replace('_', '-')}")
    return option if value in ("", "True") else f"{option} {value}"
