"""
xml_stream.py
-------------
Stream parser for untrusted XML: document types are refused, so there are no entities or external references.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Protocol
from xml.parsers import expat

from ....printable_text import printable
from .raw_mesh import BROKEN, TRUNCATED, FormatError
from .scene_triangles import LONGEST

#: Maximum nesting depth and tag length in bytes; expat before 2.6 reads an unfinished tag again with every
#: chunk.
MAX_DEPTH, MAX_TAG = 100, 4 << 20

#: Maximum number of different names in a document; the parser stores all of them.
MAX_NAMES = 100_000

#: Supported encodings. The parser would look up others among Python's codecs, not all of which are for text.
_ENCODINGS = re.compile(
    r"utf-?8|utf-?16([lb]e)?|(us-)?ascii|latin-?1|iso-8859-\d+|(windows-|cp)125\d|koi8-[ru]", re.I
)


class Elements(Protocol):
    """Handler of `read_xml`; names are `namespace local`, or `local` without a namespace."""

    def declare(self, prefix: str | None, namespace: str) -> None:
        """Namespace declaration of the next element."""

    def start(self, name: str, attributes: dict[str, str]) -> None:
        """Start of an element. May raise `FormatError`; KeyError and ValueError mean a malformed element."""

    def end(self, name: str) -> None:
        """End of an element."""


def read_xml(chunks: Iterable[bytes], elements: Elements) -> None:
    """Parse a document (UTF-8, UTF-16 or a one-byte encoding); raises `FormatError` for invalid XML."""
    parser = expat.ParserCreate(namespace_separator=" ")
    parser.XmlDeclHandler = _check_encoding
    parser.StartDoctypeDeclHandler = _refuse_doctype
    parser.StartNamespaceDeclHandler = elements.declare
    parser.StartElementHandler = elements.start
    parser.EndElementHandler = elements.end
    size = 0
    try:
        for chunk in chunks:
            parser.Parse(chunk, False)
            size += len(chunk)
            if size - parser.CurrentByteIndex > MAX_TAG or len(parser.intern) > MAX_NAMES:
                raise FormatError(f"has an XML tag of more than {MAX_TAG >> 20} MB, or too many names")
        parser.Parse(b"", True)
    except expat.ExpatError as error:
        reason = f"is not valid XML (line {error.lineno}: {expat.ErrorString(error.code)})"
        raise FormatError(reason, TRUNCATED) from error
    except (KeyError, ValueError, OverflowError) as error:
        line = parser.CurrentLineNumber
        raise FormatError(f"has an invalid or missing attribute in line {line} of its XML", BROKEN) from error


def _check_encoding(_: str, encoding: str | None, __: int) -> None:
    if encoding is not None and not _ENCODINGS.fullmatch(encoding):
        shown = printable(encoding, LONGEST)
        raise FormatError(f"is XML in an unsupported encoding: {shown}", "save it as UTF-8")


def _refuse_doctype(*_: object) -> None:
    raise FormatError("has a DOCTYPE in its XML, which 3MF forbids", BROKEN)
