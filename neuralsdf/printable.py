"""
printable.py
------------
Text that comes from outside (names of files, metadata, messages of other libraries), made safe to store and
to show.
"""

from __future__ import annotations

#: Characters that are kept at the end of a text that is shortened: a reason stands behind a name.
_END = 0.4


def storable(text: str) -> str:
    r"""Text that UTF-8 can hold: as it is, but for what stands for no character.

    A byte of a file name that is not UTF-8 becomes `\xff`, a lone surrogate `\ud800`.
    """
    try:
        return text.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    except UnicodeEncodeError:  # a surrogate that stands for no byte of a file name
        return text.encode("utf-8", "backslashreplace").decode("utf-8")


def printable(text: str, limit: int | None = None) -> str:
    r"""Text in one line that a terminal shows and does not obey.

    Line breaks, control characters, bidirectional controls and all else that is invisible become escapes
    (`\n`, `\x1b`, `\u202e`). limit: characters; a longer text loses its middle.
    """
    if limit is not None and len(text) > limit:
        end = int(_END * limit)
        text = f"{text[: limit - end - 3]}...{text[-end:]}"
    shown = text if text.isprintable() else storable(text)
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in shown)
