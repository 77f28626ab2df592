"""
keywords.py
-----------
Keyword arguments in the library's messages, as options of the command line.

The library says what a Python caller can do, such as `force=True`, `width=48` or, without a value, `width=`.
What is printed says --force, --width 48 and --width: options have the names of the keywords.
"""

from __future__ import annotations

import re

#: The options that are not called like the keyword.
OTHER_NAMES = {"path": "-o"}

_KEYWORD = re.compile(r"`([a-z_]+)=([^`]*)`")


def as_options(text: str) -> str:
    """The text with options in place of keyword arguments."""
    return _KEYWORD.sub(_option, text)


def _option(keyword: re.Match[str]) -> str:
    name, value = keyword[1], keyword[2].strip("'\"")
    option = OTHER_NAMES.get(name, f"--{name.replace('_', '-')}")
    return option if value in ("", "True") else f"{option} {value}"
