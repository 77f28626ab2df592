"""
threemf.py
----------
3MF.
"""

from __future__ import annotations

import codecs
import re
import zipfile
import zlib
from functools import cache
from io import BytesIO

from ..input import InputFile
from .raw_mesh import TRUNCATED, FormatError, RawMesh
from .scene import MAX_INSTANCES, read_scene, said

MAX_UNPACKED = 1 << 30


def read_3mf(file: InputFile) -> RawMesh:
    """Every object of a 3MF at each place where its build has it."""
    data = file.data
    try:
        with zipfile.ZipFile(BytesIO(data)) as archive:
            members = archive.infolist()
            if sum(member.file_size for member in members) > MAX_UNPACKED:
                raise FormatError(f"unpacks to more than {MAX_UNPACKED >> 20} MiB", "export fewer faces")
            models = [member for member in members if member.filename.lower().endswith(".model")]
            if not any("3d/3dmodel.model" in model.filename.lower() for model in models):
                raise FormatError("is a ZIP archive without a 3MF model in it", "unpack it first")
            texts = [archive.read(model) for model in models]
    except (zipfile.BadZipFile, zlib.error, RuntimeError, OSError, EOFError, ValueError) as error:
        raise FormatError(f"is a damaged archive ({said(error)})", TRUNCATED) from error
    for text in texts:
        _check_3mf_model(text)
    return read_scene(data, "3mf", {})


def _check_3mf_model(text: bytes) -> None:
    """Raise for entities, and for objects made of objects that multiply beyond bounds or hold themselves."""
    if text[:2] in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE):
        text = text.decode("utf-16", "replace").encode()
    if b"\0" in text or b"<!DOCTYPE" in text or b"<!ENTITY" in text:
        raise FormatError("holds what 3MF forbids: XML entities, or bytes that are no text")
    tag = re.compile(rb"<(?:\w+:)?(object|component|item)\b[^>]*?\b(?:objectid|id)\s*=\s*[\"']([^\"']*)[\"']")
    parts: dict[bytes, list[bytes]] = {b"build": []}
    current = b"build"
    for kind, identifier in tag.findall(text):
        if kind == b"object":
            current = b"object " + identifier
            parts.setdefault(current, [])
        else:
            parts[current if kind == b"component" else b"build"].append(b"object " + identifier)

    @cache
    def instances(whole: bytes) -> int:
        return 1 + sum(instances(part) for part in parts.get(whole, ()))

    try:
        if instances(b"build") <= MAX_INSTANCES:
            return
    except RecursionError:  # an object that holds itself
        pass
    raise FormatError("repeats its parts beyond all bounds")
