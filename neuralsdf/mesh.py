"""
mesh.py
-------
A triangle mesh, where it came from, and what was found in it.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Source:
    """Where a mesh came from: the file's name (no folder), its SHA-256 in hex, its faces and bytes."""

    name: str
    sha256: str
    faces: int
    bytes: int
