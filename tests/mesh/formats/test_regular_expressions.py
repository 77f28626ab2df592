"""Regular expressions: none may backtrack exponentially on untrusted input."""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import neuralsdf

if sys.version_info >= (3, 11):
    from re import _constants as constants  # type: ignore[attr-defined]
    from re import _parser as parser  # type: ignore[attr-defined]
else:
    import sre_constants as constants
    import sre_parse as parser

#: Nested repeats that can match in one way only, and why.
UNAMBIGUOUS = {
    r"\s*(?:#[^\n]*\s*)*": "each round starts with '#', which no blank is, and takes the whole line",
}

ROOTS = [Path(neuralsdf.__file__).parent, Path(__file__).parents[3] / "cli"]
FUNCTIONS = {"compile", "match", "search", "fullmatch", "sub", "subn", "split", "findall", "finditer"}


def patterns() -> Iterator[tuple[str, str | bytes]]:
    """The place and the text of each pattern of the package."""
    for root in ROOTS:
        for path in sorted(root.rglob("*.py")):
            for node in ast.walk(ast.parse(path.read_text())):
                match node:
                    case ast.Call(
                        func=ast.Attribute(value=ast.Name(id="re"), attr=attribute),
                        args=[ast.Constant(value=(str() | bytes()) as text), *_],
                    ) if attribute in FUNCTIONS:
                        yield f"{path.name}:{node.lineno}", text


def nested(items: Any, inside: bool = False) -> bool:
    """Whether an unbounded repeat contains another."""
    for operation, argument in items:
        repeats = operation in (constants.MAX_REPEAT, constants.MIN_REPEAT)
        endless = repeats and argument[1] == constants.MAXREPEAT
        if endless and inside:
            return True
        parts: list[Any] = []
        if repeats:
            parts = [argument[2]]
        elif operation is constants.SUBPATTERN:
            parts = [argument[-1]]
        elif operation is constants.BRANCH:
            parts = argument[1]
        elif operation in (constants.ASSERT, constants.ASSERT_NOT):
            parts = [argument[1]]
        if any(nested(part, inside or endless) for part in parts):
            return True
    return False


def test_no_pattern_nests_unbounded_repeats() -> None:
    """Such a pattern can take time that doubles with each character, unless it can match in one way only."""
    found = dict(patterns())
    assert len(found) > 15
    assert {text for text in found.values() if nested(parser.parse(text))} == UNAMBIGUOUS.keys()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (r"(?:\s*#.*)*\s*OFF", True),
        (r"(a|b+)*", True),
        (r"(?=(x*)*)", True),
        (r"a*b*", False),
        (r"(a{3})*", False),
    ],
)
def test_nested_repeats_are_found(text: str, expected: bool) -> None:
    assert nested(parser.parse(text)) == expected
    re.compile(text)
