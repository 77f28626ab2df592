"""External text: safe to store and to print."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from neuralsdf.printable_text import printable, storable

#: All characters, lone surrogates too.
ANY_TEXT = st.text(st.characters(exclude_categories=()))


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("büchse 角.obj", "büchse 角.obj"),
        ("a\nb\r\tc", r"a\nb\r\tc"),
        ("\x1b]0;title\x07", r"\x1b]0;title\x07"),
        ("\x9b31m", r"\x9b31m"),  # a control sequence in one character (C1)
        ("gnp.\u202efdp", r"gnp.\u202efdp"),
        ("\ufeffa\u200bb\u2028c\U000e0041", r"\ufeffa\u200bb\u2028c\U000e0041"),
        ("\udcff\udc80.obj", r"\xff\x80.obj"),
        ("\ud800", r"\xed\xa0\x80"),
        ("", ""),
    ],
)
def test_control_characters_are_escaped(text: str, shown: str) -> None:
    assert printable(text) in (shown, shown.replace(r"\xed\xa0\x80", r"\ud800"))


@given(ANY_TEXT)
def test_printable_text_is_one_line_of_visible_characters(text: str) -> None:
    shown = printable(text)
    assert shown.isprintable()
    assert not any(unicodedata.category(c) in ("Cc", "Cf", "Cs", "Zl", "Zp") for c in shown)
    assert printable(shown) == shown
    if text.isprintable():
        assert shown == text


@given(ANY_TEXT)
def test_storable_text_is_utf8_and_utf8_is_unchanged(text: str) -> None:
    stored = storable(text)
    stored.encode("utf-8")
    if not any(unicodedata.category(c) == "Cs" for c in text):
        assert stored == text


def test_a_name_in_bytes_of_any_encoding_is_stored_as_utf8() -> None:
    # Names that a process in an ASCII locale has read: "é" in UTF-8, and in Latin-1.
    assert storable(b"\xc3\xa9.obj".decode("ascii", "surrogateescape")) == "é.obj"
    assert storable(b"\xe9.obj".decode("ascii", "surrogateescape")) == r"\xe9.obj"


def test_a_long_text_keeps_its_beginning_and_its_end() -> None:
    shown = printable("/folder/" + 10_000 * "x" + ".obj: is empty", limit=200)
    assert len(shown) == 200
    assert shown.startswith("/folder/xxx")
    assert shown.endswith("xxx.obj: is empty")
    assert "..." in shown
