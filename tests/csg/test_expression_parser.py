"""Text to trees and back."""

from __future__ import annotations

import pickle
import re
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from neuralsdf.csg import ExpressionError, Shape, box, cone, from_tree, parse, plane, smooth, sphere
from neuralsdf.csg.primitives import SOLIDS
from neuralsdf.csg.shape import METHODS

from ..helpers.trees import trees


def opened(name: str) -> Shape:
    """A ball for every file."""
    return from_tree(sphere(), name)


A, B, C = opened("a.h5"), opened("b.h5"), opened("c.h5")
EXPRESSIONS: list[tuple[str, Shape]] = [
    ("a.h5", A),
    ("a.h5 | b.h5", A | B),
    ("a.h5 - b.h5 - c.h5", (A - B) - C),
    ("a.h5 - (b.h5 - c.h5)", A - (B - C)),
    ("a.h5 | b.h5 & c.h5 - a.h5", A | (B & (C - A))),
    ("a.h5 - b.h5 & c.h5 | a.h5", ((A - B) & C) | A),
    ("~a.h5 - b.h5", (~A) - B),
    ("~~a.h5.scale(2)", ~~(A.scale(2))),
    ("(~a.h5).scale(2)", (~A).scale(2)),
    ("a.h5 - ~b.h5", A - ~B),
    ("a.h5 | smooth(0.05, b.h5) | c.h5", (A | smooth(0.05, B)) | C),
    ("a.h5 | smooth(.1, b.h5 - c.h5)", A | smooth(0.1, B - C)),
    ("a.h5.blend(b.h5 | c.h5, 0.25).translate(1)", A.blend(B | C, 0.25).translate(1)),
    ("a.h5 - sphere(0.3).translate(0, 0.2, 0) | box(1, 1, 0.1)",
     A - sphere(0.3).translate(0, 0.2) | box(1, 1, 0.1)),
    ("plane(0, -1)", plane(0, -1)),
    ("cone(1, 2, .5) .rotate(90)", cone(1, 2, 0.5).rotate(90, 0, 0, 1)),
    (" # a comment\n a.h5 # | b.h5\n\t| c.h5", A | C),
    ("'a.h5' | \"b.h5\"", A | B),
    ("box() & box(2) & box(1, 2)", box(1, 1, 1) & box(2, 2, 2) & box(1, 2, 2)),
    ("sphere(1.5e+1)", sphere(15)),
]  # fmt: skip


@pytest.mark.parametrize(("text", "shape"), EXPRESSIONS)
def test_text_parses_to_the_tree_that_python_makes(text: str, shape: Shape) -> None:
    assert parse(text, opened) == shape
    assert parse(str(shape), opened) == shape


@given(trees)
@settings(derandomize=True, max_examples=80)
def test_a_tree_is_printed_as_text_that_parses_to_it(shape: Shape) -> None:
    assert parse(str(shape), opened) == shape


@given(st.text(st.characters(exclude_characters="\n\r", exclude_categories=["Cs"]), min_size=1))
@settings(derandomize=True)
def test_any_file_name_can_be_written(name: str) -> None:
    shape = opened(name).translate(1) | ~opened(name)
    assert parse(str(shape), opened) == shape


def test_plain_names_are_not_quoted() -> None:
    for name in ("a.h5", "parts/a.h5", "../a.h5", "./a", "3holes.off", "a.translate", "1.2.3"):
        assert str(opened(name).scale(2)) == f"{name}.scale(2)"
    for name in ("a", "my a.h5", "a-b.h5", "1.5", "1e5", "é.h5", "a.", 'say "a".h5'):
        assert str(opened(name))[0] == '"'


MISTAKES = [
    ("", "column 1, at the end: expected a solid, a file, ~ or (, found the end"),
    ("a.h5 -", "column 7, at the end: expected a solid"),
    ("a.h5 b.h5", "column 6, at 'b.h5': expected an operator"),
    ("a.h5 |\n  | b.h5", "line 2, column 3, at '| b.h5': expected a solid"),
    ("spher(1)", "unknown solid 'spher'; did you mean 'sphere'?"),
    ("sphere", "unknown name 'sphere'; a solid needs brackets: sphere(...)"),
    ("spher | a.h5", "did you mean 'sphere'?"),
    ("bunny", "unknown name 'bunny'; quote it if it is a file"),
    ("a.h5.transalte(1)",
     "column 6, at 'transalte(1)': unknown method 'transalte'; did you mean 'translate'?"),
    ("a.h5.__class__()", "unknown method '__class__'"),
    ("__import__('os')", "unknown solid '__import__'"),
    ("sphere(1", "column 1, at 'sphere(1': unclosed bracket"),
    ("a.h5 | (b.h5", "column 8, at '(b.h5': unclosed bracket"),
    ("sphere(1))", "column 10, at ')': expected an operator"),
    ("sphere(1, 2)", "sphere takes 0 to 1 arguments (radius), not 2"),
    ("rounded_box(1)", "rounded_box takes 4 arguments (x, y, z, radius), not 1"),
    ("sphere(-1)", "column 1, at 'sphere(-1)': sphere: radius must be positive, not -1"),
    ("box(1e999)", "box: x must be positive, not inf"),
    ("sphere(a.h5)", "sphere: radius must be a number, not a shape"),
    ("a.h5.blend(1)", "expected a shape, found a number"),
    ("smooth(1, a.h5)", "smooth(radius, shape) must be the right operand of |, & or -"),
    ("a.h5 | smooth(1, smooth(1, a.h5))", "must be the right operand of"),
    ("(a.h5 | (smooth(1, b.h5)))", "must be the right operand of"),
    ("a.h5 | ~smooth(1, b.h5)", "must be the right operand of"),
    ("1 | 2", "expected a solid"),
    ("box(1 | 2)", "expected a shape, found a number"),
    ("box(a.h5 | 2)", "| combines shapes, not numbers"),
    ("sphere(1) + box()", "column 11, at '+ box()': unexpected '+'"),
    ("'a.h5", "unclosed quote"),
    ("box(1,)", "column 7, at ')': expected a solid, a file, ~ or (, or a number, or ), found ')'"),
    ("box(,1)", "expected a solid"),
    ("()", "expected a solid"),
    ("a.h5, b.h5", "found ','"),
    ("sphere(1).translate", "expected an operator"),
    ("-a.h5", "expected a solid"),
    ("sphere(--1)", "expected a solid"),
    ("box(1 2)", "found '2'"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "complaint"), MISTAKES)
def test_errors_name_their_place(text: str, complaint: str) -> None:
    with pytest.raises(ExpressionError) as error:
        parse(text, opened)
    assert complaint in str(error.value)
    assert "\n" not in str(error.value)


EXCERPTS = [
    ("a.h5 | sphre(1)", "    a.h5 | sphre(1)\n           ^^^^^"),
    ("a.h5 |\n\t b.h5.scal(1)\n| c.h5", "      b.h5.scal(1)\n           ^^^^"),
    ("a.h5 |\n\n# all of it\n", "    a.h5 |\n          ^"),
    ("'日本.h5' 'é.h5'  b", "    '日本.h5' 'é.h5'  b\n              ^^^^^^"),
    ("a.h5 \x1b[1m", "    a.h5  [1m\n         ^"),
    ("", ""),
    ("a.h5|" * 40 + "b" + "|a.h5" * 40,
     "    ..." + "a.h5|" * 8 + "b" + "|a.h5" * 6 + "|...\n" + " " * 47 + "^"),
    ("b" + "|a.h5" * 40, "    b" + "|a.h5" * 14 + "|...\n    ^"),
    ("a.h5|" * 40 + "b", "    ...|" + "a.h5|" * 14 + "b\n" + " " * 78 + "^"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "excerpt"), EXCERPTS)
def test_errors_show_their_line(text: str, excerpt: str) -> None:
    with pytest.raises(ExpressionError) as error:
        parse(text, opened)
    assert error.value.excerpt == excerpt
    assert pickle.loads(pickle.dumps(error.value)).excerpt == excerpt


@given(st.text("ab.h5/()|&-~,01 \n#'\"", max_size=30))
@settings(derandomize=True, max_examples=200)
def test_any_text_is_a_tree_or_an_error(text: str) -> None:
    try:
        shape = parse(text, opened)
    except ExpressionError:
        return
    assert parse(str(shape), opened) == shape


@pytest.mark.parametrize(
    "text",
    [
        "(" * 10_000 + "a.h5" + ")" * 10_000,
        "~" * 10_000 + "a.h5",
        "a.h5 - (" * 10_000 + "b.h5" + ")" * 10_000,
        "a.h5" + ".translate(1)" * 10_000,
        "a.h5 | smooth(0.1, " * 10_000 + "b.h5" + ")" * 10_000,
        "a.h5.blend(" * 10_000 + "b.h5" + ", 0.5)" * 10_000,
    ],
    ids=["brackets", "complements", "right", "methods", "smooth", "blend"],
)
def test_ten_thousand_levels_parse_and_print(text: str) -> None:
    shape = parse(text, opened)
    assert parse(str(shape), opened) == shape


def _written() -> list[str]:
    """The expressions of `neuralsdf csg` in the documentation."""
    root = Path(__file__).resolve().parents[2]
    text = "".join((root / name).read_text() for name in ("docs/csg.md", "README.md"))
    commands: list[str] = re.findall(r'neuralsdf csg "([^"]*)"', text)
    sheets = re.findall(r"\n\n```\n(.*?)\n```", text, re.DOTALL)
    return commands + [line for sheet in sheets for line in sheet.splitlines() if line]


def test_the_expressions_of_the_documentation_are_trees() -> None:
    assert len(_written()) >= 13
    for text in _written():
        shape = parse(text, opened)
        assert parse(str(shape), opened) == shape


def test_every_word_of_the_language_is_in_the_documentation() -> None:
    text = (Path(__file__).resolve().parents[2] / "docs" / "csg.md").read_text()
    assert all(f"{word}(" in text for word in (*SOLIDS, *METHODS, "smooth"))
