"""
xml_stream.py
-------------
XML of strangers as a stream of elements: no document type, so no entities, and nothing outside is read.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Protocol
from xml.parsers import expat

from ...printable import printable
from .raw_mesh import BROKEN, TRUNCATED, FormatError
from .scene import LONGEST

#: Deeper elements are refused, and tags longer than this: expat before 2.6 reads an unfinished tag again with
#: every chunk.
MAX_DEPTH, MAX_TAG = 100, 4 << 20

#: Different names that one document may have; the parser keeps each of them.
MAX_NAMES = 100_000

#: Encodings that are read. The parser would look up others among all of Python's, which are not all of text.
_ENCODINGS = re.compile(
    r"utf-?8|utf-?16([lb]e)?|(us-)?ascii|latin-?1|iso-8859-\d+|(windows-|cp)125\d|koi8-[ru]", re.I
)


class Elements(Protocol):
    """What `read_xml` calls; names are `namespace local`, or `local` alone without a namespace."""

    def declare(self, prefix: str | None, namespace: str) -> None:
        """A namespace declaration of the element that starts next."""

    def start(self, name: str, attributes: dict[str, str]) -> None:
        """An element starts. May raise `FormatError`; KeyError and ValueError mean a malformed element."""

    def end(self, name: str) -> None:
        """An element ends."""


def read_xml(chunks: Iterable[bytes], elements: Elements) -> None:
    """Parse a document (UTF-8, UTF-16 or a one-byte encoding); raises `FormatError` for what is not XML."""
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
                raise FormatError(f"holds an XML tag of more than {MAX_TAG >> 20} MB, or too many names")
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
        raise FormatError(f"is XML in an encoding that cannot be read here: {shown}", "save it as UTF-8")


def _refuse_doctype(*_: object) -> None:
    raise FormatError("has a DOCTYPE in its XML, which 3MF forbids", BROKEN)
