"""
printable_text.py
-----------------
Make external text (file names, metadata, messages of other libraries) safe to store and to print.
"""

from __future__ import annotations

#: Fraction of a shortened text kept at its end, because the reason follows the name.
_END = 0.4


def storable(text: str) -> str:
    r"""`text` with the code points that UTF-8 cannot encode escaped.

    A byte of a file name that is not UTF-8 becomes `\xff`, a lone surrogate `\ud800`.
    """
    try:
        return text.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    except UnicodeEncodeError:  # a surrogate that does not encode a byte of a file name
        return text.encode("utf-8", "backslashreplace").decode("utf-8")


def printable(text: str, limit: int | None = None) -> str:
    r"""`text` on one line, safe to print to a terminal.

    Line breaks, control characters, bidirectional controls and other invisible characters are escaped
    (`\n`, `\x1b`, `\u202e`). limit: maximum number of characters; longer text loses its middle.
    """
    if limit is not None and len(text) > limit:
        end = int(_END * limit)
        text = f"{text[: limit - end - 3]}...{text[-end:]}"
    shown = text if text.isprintable() else storable(text)
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in shown)
