"""
threemf_package.py
------------------
Parts of an OPC package, the ZIP archive of a 3MF, read in bounded chunks.
"""

from __future__ import annotations

import struct
import zipfile
import zlib
from collections.abc import Iterator
from io import BytesIO
from urllib.parse import unquote

from ...files.bounded_input import InputFile
from ...printable_text import printable
from .shared.raw_mesh import TRUNCATED, FormatError
from .shared.scene_triangles import LONGEST
from .shared.xml_stream import read_xml

_CHUNK = 1 << 20
_DAMAGED = (zipfile.BadZipFile, zlib.error, struct.error, RuntimeError, OSError, EOFError, ValueError)
_MODEL_TYPE = "http://schemas.microsoft.com/3dmanufacturing/2013/01/3dmodel"
_RELATIONSHIP = "http://schemas.openxmlformats.org/package/2006/relationships Relationship"


class Package:
    """A package; names of parts are case-insensitive, as OPC requires."""

    def __init__(self, file: InputFile) -> None:
        self._budget = file.budget
        try:
            self._archive = zipfile.ZipFile(BytesIO(file.data))
            self._members = {_key(member.filename): member for member in self._archive.infolist()}
        except _DAMAGED as error:
            raise FormatError("is a damaged ZIP archive", TRUNCATED) from error

    def __contains__(self, name: str) -> bool:
        return _key(name) in self._members

    def chunks(self, name: str) -> Iterator[bytes]:
        """Content of a part, drawn from the budget; raises `FormatError` if it cannot be read."""
        member = self._members.get(_key(name))
        if member is None:
            raise FormatError(f"refers to '{printable(name, LONGEST)}', which is not in the archive")
        if member.flag_bits & 1:
            raise FormatError("is encrypted", "save it without a password")
        if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise FormatError("uses a compression method that 3MF does not allow", "save it again as 3MF")
        stream = None
        try:
            stream = self._archive.open(member)
            while chunk := stream.read(_CHUNK):
                self._budget.draw(len(chunk))
                yield chunk
        except _DAMAGED as error:
            raise FormatError("is a damaged ZIP archive", TRUNCATED) from error
        finally:
            if stream is not None:
                stream.close()

    def main_part(self) -> str:
        """Name of the main model, from `_rels/.rels`."""
        if "_rels/.rels" in self:
            relationships = _Relationships()
            read_xml(self.chunks("_rels/.rels"), relationships)
            if relationships.model is not None:
                return relationships.model
        if "3D/3dmodel.model" not in self:
            raise FormatError("is a ZIP archive without a 3MF model", "unpack it first")
        return "3D/3dmodel.model"


class _Relationships:
    """Finds the target of the first relationship to a model."""

    model: str | None = None

    def declare(self, prefix: str | None, namespace: str) -> None:
        pass

    def start(self, name: str, attributes: dict[str, str]) -> None:
        if name == _RELATIONSHIP and attributes.get("Type") == _MODEL_TYPE and self.model is None:
            self.model = attributes["Target"]

    def end(self, name: str) -> None:
        pass


def _key(name: str) -> str:
    return unquote(name).replace("\\", "/").lstrip("/").lower()
