"""
expression_parser.py
--------------------
Parses text into a tree: `"a.h5 - sphere(0.3).translate(0, 0.2, 0) | box(1, 1, 0.1)"`.

    a | b    a & b    a - b    ~a       union, intersection, difference, complement; precedence as in Python
    a | smooth(0.05, b)                 smooth union; likewise with & and -
    sphere(0.3)    a.rotate(90, 1, 0, 0)   solids and methods: those of primitives.py and shape.py
    part.h5    "my part.h5"             files; quoted unless only letters, digits, _ . / with a . or /
    # ...                               a comment to the end of the line

The parser keeps open brackets on a stack instead of recursing, so text may be nested to any depth.
"""

from __future__ import annotations

import inspect
import re
import unicodedata
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from difflib import get_close_matches
from functools import cache
from typing import NamedTuple, TypeAlias

import numpy as np

from ..errors import UsageError
from .expression_writer import NUMBER, PRECEDENCE
from .primitives import SOLIDS
from .shape import METHODS, Shape, Smooth, smooth

Value: TypeAlias = "Shape | Smooth | float"

_SPACE = re.compile(r"\s*(?:#[^\n]*\s*)*")
_WORD = re.compile(r"[A-Za-z0-9_./]+")
_STRING = re.compile(r"""(["'])((?:\\.|(?!\1)[^\\\n])*)\1""")
_CALLABLE: dict[str, Callable[..., Shape | Smooth]] = {**SOLIDS, "smooth": smooth}
_JOIN: dict[str, Callable[..., Shape]] = {"|": Shape.__or__, "&": Shape.__and__, "-": Shape.__sub__}


#: Maximum number of open brackets.
MAX_DEPTH = 100_000

#: Maximum length of the excerpt shown for an error, and the part of it before the error.
_SHOWN, _BEFORE = 72, 40


class ExpressionError(UsageError):
    """Text that is not a valid expression. `excerpt` is the line of the error, with a mark below it."""

    def __init__(self, message: str, excerpt: str = "") -> None:
        super().__init__(message)
        self.excerpt = excerpt


class _Token(NamedTuple):
    """kind: "number", "word", "file" (quoted), "end", or the symbol itself. start: position in the text."""

    kind: str
    text: str
    start: int


@dataclass(eq=False)
class _Bracket:
    """An open bracket: the whole text (mark ""), a bracket "(", or the arguments of a call (mark: its name).

    begin: its token. receiver: object of a method call. arguments: complete arguments. values, operators:
    of the current argument or expression.
    """

    mark: str
    begin: _Token
    receiver: Shape | None = None
    arguments: list[Value] = field(default_factory=list)
    values: list[Value] = field(default_factory=list)
    operators: list[_Token] = field(default_factory=list)

    @property
    def function(self) -> Callable[..., Shape | Smooth] | None:
        """The function called when the bracket closes; None for the whole text and for "("."""
        if self.receiver is not None:
            return METHODS[self.mark]
        return _CALLABLE.get(self.mark)


def parse(text: str, open_file: Callable[[str], Shape]) -> Shape:
    """The tree that `text` describes; `open_file` maps a file name to a leaf.

    Raises `ExpressionError` for an invalid expression, and whatever `open_file` raises.
    """
    return _Parser(text, open_file).tree()


class _Parser:
    """Operator-precedence parser with a stack of brackets."""

    def __init__(self, text: str, open_file: Callable[[str], Shape]) -> None:
        self._text, self._open_file = text, open_file
        self._tokens = _tokens(text, self._fail)
        self._next = 0
        self._open = [_Bracket("", _Token("", "", 0))]

    def tree(self) -> Shape:
        """Parse the whole text."""
        while True:
            self._operand()
            while self._operand_follows():
                if self._peek().kind == "end" and len(self._open) == 1:
                    return self._shape(self._finished(self._peek()), self._open[0].begin)

    # -- the two states ---------------------------------------------------------------------------

    def _operand(self) -> None:
        """Read an operand, entering brackets as needed."""
        while True:
            token, bracket = self._take(), self._open[-1]
            if token.kind == "~":
                bracket.operators.append(token)
            elif token.kind == "(":
                self._enter(_Bracket("(", token))
            elif token.kind == ")" and bracket.function and not (bracket.arguments or bracket.operators):
                self._next -= 1
                return
            elif self._call_opened(token):
                pass
            else:
                bracket.values.append(self._single(token))
                return

    def _operand_follows(self) -> bool:
        """Read what follows an operand; False if another operand must follow."""
        token, bracket = self._peek(), self._open[-1]
        if token.kind == "end":
            if len(self._open) > 1:
                raise self._fail("unclosed bracket", bracket.begin)
            return True
        self._take()
        if token.kind in "|&-":
            self._reduce(PRECEDENCE[token.kind])
            bracket.operators.append(token)
            return False
        if token.kind == "word" and token.text.startswith(".") and self._peek().kind == "(":
            receiver = self._shape(bracket.values.pop(), token)
            self._call(token._replace(text=token.text[1:], start=token.start + 1), receiver)
            self._operand()
            return True
        if token.kind == "," and bracket.function:
            bracket.arguments.append(self._finished(token))
            return False
        if token.kind == ")" and len(self._open) > 1:
            self._close(token)
            return True
        raise self._expected("an operator (|, & or -), a method such as .translate(1, 0, 0)", token)

    # -- operands ---------------------------------------------------------------------------------

    def _call_opened(self, token: _Token) -> bool:
        """Whether a call starts here: a solid, or a method of an unquoted file."""
        if token.kind != "word" or self._peek().kind != "(":
            return False
        file, dot, method = token.text.rpartition(".")
        if dot:
            start = token.start + len(file) + 1
            self._call(_Token("word", method, start), self._file(token._replace(text=file)))
        else:
            self._call(token, None)
        return True

    def _call(self, name: _Token, receiver: Shape | None) -> None:
        known: Iterable[str] = _CALLABLE if receiver is None else METHODS
        if name.text not in known:
            what = "solid" if receiver is None else "method"
            raise self._fail(f"unknown {what} {name.text!r}{_resembling(name.text, known)}", name)
        self._take()
        self._enter(_Bracket(name.text, name, receiver))

    def _enter(self, bracket: _Bracket) -> None:
        if len(self._open) > MAX_DEPTH:
            raise self._fail(f"more than {MAX_DEPTH:,} brackets are open", bracket.begin)
        self._open.append(bracket)

    def _single(self, token: _Token) -> Value:
        """A number or a file."""
        in_call = self._open[-1].function is not None
        if token.kind == "number" and in_call:
            return float(token.text)
        if token.kind == "-" and in_call and self._peek().kind == "number":
            return -float(self._take().text)
        if token.kind == "file":
            return self._open_file(re.sub(r"\\(.)", r"\1", token.text[1:-1]))
        if token.kind == "word":
            return self._file(token)
        raise self._expected("a solid, a file, ~ or (" + (", or a number" if in_call else ""), token)

    def _file(self, token: _Token) -> Shape:
        if "." not in token.text and "/" not in token.text:
            known = f"; a solid needs brackets: {token.text}(...)" if token.text in SOLIDS else (
                _resembling(token.text, SOLIDS) or "; quote it if it is a file")  # fmt: skip
            raise self._fail(f"unknown name {token.text!r}{known}", token)
        return self._open_file(token.text)

    # -- operators and brackets -------------------------------------------------------------------

    def _reduce(self, level: int) -> None:
        """Apply the pending operators with a precedence of at least `level`, from right to left."""
        bracket = self._open[-1]
        while bracket.operators and PRECEDENCE[bracket.operators[-1].kind] >= level:
            operator = bracket.operators.pop()
            right = bracket.values.pop()
            if operator.kind == "~":
                bracket.values.append(~self._shape(right, operator))
                continue
            left = self._shape(bracket.values.pop(), operator)
            if isinstance(right, float):
                raise self._fail(f"{operator.kind} combines shapes, not numbers", operator)
            bracket.values.append(self._made(_JOIN[operator.kind], [left, right], operator))

    def _finished(self, token: _Token) -> Value:
        """The value of the expression or argument that ends at `token`."""
        self._reduce(0)
        values = self._open[-1].values
        if not values:
            raise self._expected("an argument", token)
        return values.pop()

    def _close(self, token: _Token) -> None:
        """Close the innermost bracket; its value becomes an operand of the enclosing one."""
        bracket = self._open[-1]
        if bracket.mark == "(":
            value: Value = self._shape(self._finished(token), bracket.begin)
        else:
            if bracket.values or bracket.arguments:
                bracket.arguments.append(self._finished(token))
            value = self._called(bracket)
        self._open.pop()
        self._open[-1].values.append(value)

    def _called(self, bracket: _Bracket) -> Value:
        function, given = bracket.function, bracket.arguments
        assert function is not None
        names, required = _parameters(function, bracket.receiver is not None)
        if not required <= len(given) <= len(names):
            count = f"{required}" if required == len(names) else f"{required} to {len(names)}"
            arguments = "argument" if count == "1" else "arguments"
            raise self._fail(
                f"{bracket.mark} takes {count} {arguments} ({', '.join(names)}), not {len(given)}",
                bracket.begin,
            )
        for (name, is_shape), value in zip(names.items(), given, strict=False):
            if is_shape:
                self._shape(value, bracket.begin)
            elif not isinstance(value, float):
                raise self._fail(f"{bracket.mark}: {name} must be a number, not a shape", bracket.begin)
        receiver = [] if bracket.receiver is None else [bracket.receiver]
        return self._made(function, [*receiver, *given], bracket.begin)

    def _made(
        self, function: Callable[..., Shape | Smooth], arguments: list[Value], token: _Token
    ) -> Shape | Smooth:
        try:
            with np.errstate(over="ignore", invalid="ignore"):  # overflow makes the shape unbounded
                return function(*arguments)
        except UsageError as error:
            raise self._fail(str(error), token) from error

    def _shape(self, value: Value, token: _Token) -> Shape:
        if isinstance(value, Smooth):
            raise self._fail("smooth(radius, shape) must be the right operand of |, & or -", token)
        if isinstance(value, float):
            raise self._fail("expected a shape, found a number", token)
        return value

    # -- tokens and errors ------------------------------------------------------------------------

    def _peek(self) -> _Token:
        return self._tokens[self._next]

    def _take(self) -> _Token:
        self._next += 1
        return self._tokens[self._next - 1]

    def _expected(self, what: str, token: _Token) -> ExpressionError:
        closes = ", or )" if len(self._open) > 1 else ""
        found = "the end" if token.kind == "end" else repr(token.text)
        return self._fail(f"expected {what}{closes}, found {found}", token)

    def _fail(self, message: str, token: _Token) -> ExpressionError:
        excerpt = _excerpt(self._text, token.start, len(token.text))
        return ExpressionError(f"{self._place(token)}: {message}", excerpt)

    def _place(self, token: _Token) -> str:
        """The position of a token, and the text from there on."""
        before = self._text[: token.start]
        line, column = before.count("\n") + 1, token.start - before.rfind("\n")
        at = f"column {column}" if "\n" not in self._text.strip() else f"line {line}, column {column}"
        if token.kind == "end":
            return f"{at}, at the end"
        rest = self._text[token.start :].split("\n", 1)[0].strip()
        return f"{at}, at {rest if len(rest) <= 32 else rest[:29] + '...'!r}"


def _tokens(text: str, fail: Callable[[str, _Token], ExpressionError]) -> list[_Token]:
    """The tokens of a text, followed by an "end" token."""
    tokens: list[_Token] = []
    place = _SPACE.match(text).end()  # type: ignore[union-attr]  # also matches the empty string
    while place < len(text):
        if text[place] in "()|&-~,":
            token = _Token(text[place], text[place], place)
        elif match := _STRING.match(text, place):
            token = _Token("file", match[0], place)
        elif text[place] in "\"'":
            raise fail("unclosed quote", _Token("file", text[place], place))
        elif (match := NUMBER.match(text, place)) and not _WORD.match(text, match.end()):
            token = _Token("number", match[0], place)
        elif match := _WORD.match(text, place):
            token = _Token("word", match[0], place)
        else:
            raise fail(f"unexpected {text[place]!r}; quote file names", _Token("", "", place))
        tokens.append(token)
        place = _SPACE.match(text, place + len(token.text)).end()  # type: ignore[union-attr]
    last = tokens[-1] if tokens else _Token("", "", 0)
    return [*tokens, _Token("end", "", last.start + len(last.text))]


def _excerpt(text: str, start: int, length: int) -> str:
    """The line of `text` at `start`, shortened if long, and a mark of `length` below it.

    The mark is aligned in a fixed-width font for any characters before it.
    """
    begin = text.rfind("\n", 0, start) + 1
    line = "".join(c if c.isprintable() else " " for c in text[begin:].split("\n", 1)[0]).rstrip()
    if not line:
        return ""
    column = start - begin
    first = max(0, min(column - _BEFORE, len(line) - _SHOWN))
    shown = line[first : first + _SHOWN]
    before = "..." if first else ""
    after = "..." if first + _SHOWN < len(line) else ""
    indent = _width(before + shown[: column - first])
    mark = "^" * max(1, _width(shown[column - first :][:length]))
    return f"    {before}{shown}{after}\n    {' ' * indent}{mark}"


def _width(text: str) -> int:
    """Number of terminal columns of a text."""
    wide = sum(unicodedata.east_asian_width(character) in "WF" for character in text)
    return len(text) + wide - sum(map(bool, map(unicodedata.combining, text)))


@cache
def _parameters(function: Callable[..., object], method: bool) -> tuple[dict[str, bool], int]:
    """Parameters of a function by name, whether each is a shape, and how many have no default."""
    parameters = list(inspect.signature(function).parameters.values())[method:]
    names = {parameter.name: parameter.annotation == "Field" for parameter in parameters}
    return names, sum(parameter.default is parameter.empty for parameter in parameters)


def _resembling(name: str, known: Iterable[str]) -> str:
    close = get_close_matches(name, known, n=1)
    return f"; did you mean {close[0]!r}?" if close else ""
