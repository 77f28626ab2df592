"""
expression_writer.py
--------------------
The text of a tree, which expression_parser.py parses to the same tree.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from ..errors import UsageError
from ..program.primitive_distances import PRIMITIVES
from .shape import METHODS, Shape

#: Operator precedence as in Python, from the loosest; everything else binds more tightly.
PRECEDENCE = {"|": 1, "&": 2, "-": 3, "~": 4}

_PLAIN = re.compile(r"(?=.*[./])[A-Za-z0-9_./]*[A-Za-z0-9_]")
NUMBER = re.compile(r"(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][+-]?\d+)?")


def expression(shape: Shape, name: Callable[[Shape], str]) -> str:
    """The text of a shape. name: returns the file name of a leaf."""
    pieces: list[str] = []
    stack: list[Shape | str] = [shape]
    while stack:
        item = stack.pop()
        if isinstance(item, str):
            pieces.append(item)
        else:
            stack.extend(_text(item, name))
    return "".join(pieces)


def _text(shape: Shape, name: Callable[[Shape], str]) -> list[Shape | str]:
    """Pieces of a shape's text in reverse order; operands are still shapes."""
    if shape.word == "file":
        return [_file_name(name(shape))]
    arguments = ", ".join(map(_number, shape.numbers))
    if shape.word in PRIMITIVES:
        return [f"{shape.word}({arguments})"]
    if shape.word == "~":
        return [*_bracketed(shape.parts[0], PRECEDENCE["~"]), "~"]
    if shape.word == "blend":
        return [f", {arguments})", shape.parts[1], ".blend(", *_bracketed(shape.parts[0], 5)]
    if shape.word in METHODS:
        return [f".{shape.word}({arguments})", *_bracketed(shape.parts[0], 5)]
    level = PRECEDENCE[shape.word]
    left = _bracketed(shape.parts[0], level)
    if shape.numbers:
        return [")", shape.parts[1], f" {shape.word} smooth({arguments}, ", *left]
    return [*_bracketed(shape.parts[1], level + 1), f" {shape.word} ", *left]


def _bracketed(shape: Shape, level: int) -> list[Shape | str]:
    """A shape, in brackets if its precedence is below `level`."""
    return [")", shape, "("] if PRECEDENCE.get(shape.word, 5) < level else [shape]


def _file_name(name: str) -> str:
    """A file name as text, quoted if necessary."""
    if _PLAIN.fullmatch(name) and not NUMBER.fullmatch(name):
        return name
    if "\n" in name or "\r" in name:
        raise UsageError(f"{name!r}: an expression cannot contain a file name with a line break")
    return '"' + name.replace("\\", "\\\\").replace('"', '\\"') + '"'


def _number(number: float) -> str:
    """Shortest text that parses to exactly this number."""
    return str(int(number)) if number == int(number) and abs(number) < 1e15 else repr(number)
