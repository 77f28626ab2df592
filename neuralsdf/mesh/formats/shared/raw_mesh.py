"""
raw_mesh.py
-----------
Result and error of mesh readers, and errors shared by the text formats.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from ....array_types import Faces, Points

TRUNCATED = "download or export it again"
BROKEN = "export it again from the program that made it"
NO_SURFACE = "give a mesh with faces, or reconstruct a surface first"


class FormatError(Exception):
    """Invalid content of a mesh file, with reason and remedy."""

    def __init__(self, reason: str, remedy: str = BROKEN) -> None:
        self.reason = reason
        self.remedy = remedy
        super().__init__(reason)


@dataclass(frozen=True, eq=False)
class RawMesh:
    """Content of a file: vertices (V, 3) float64, triangles (F, 3) int64 in range, notes on reading.

    unit: unit of the vertices, one of `units.LENGTHS`; None if the file does not state it.
    """

    vertices: Points
    faces: Faces
    notes: list[str] = field(default_factory=list)
    unit: str | None = None


def what_instead(points: int, lines: int, tetrahedra: int) -> str:
    """Error message for a file without faces: what it contains instead."""
    if tetrahedra:
        return f"has no faces, only {tetrahedra} 't' lines (tetrahedra?), which OBJ does not define"
    if lines:
        return f"is a wireframe: {lines} lines, no faces"
    if points:
        return f"is a point cloud: {points} points, no faces"
    return "has no vertices and no faces"


def broken_line(number: int, line: bytes, is_last: bool) -> FormatError:
    """Error for a malformed line; if it is the last line, the file is truncated."""
    if is_last:
        return FormatError(f"is truncated: its last line ends at '{printable(line)}'", TRUNCATED)
    return FormatError(f"line {number} is malformed: '{printable(line)}'")


def printable(line: bytes) -> str:
    """The last 40 characters of a line, printable, for messages."""
    text = line.strip().decode("ascii", "replace")
    return "".join(c if c.isprintable() else "?" for c in text[-40:])
