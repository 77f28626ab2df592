"""
raw_mesh.py
-----------
What a reader of a mesh format returns and raises, and errors that the text formats share.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from ...arrays import Faces, Points

TRUNCATED = "download or export it again"
BROKEN = "export it again from the program that made it"
NO_SURFACE = "give a mesh with faces, or reconstruct a surface first"


class FormatError(Exception):
    """Bytes that are no mesh of their format: the reason, and the way out."""

    def __init__(self, reason: str, remedy: str = BROKEN) -> None:
        self.reason = reason
        self.remedy = remedy
        super().__init__(reason)


@dataclass(frozen=True, eq=False)
class RawMesh:
    """What a file says: vertices (V, 3) float64, triangles (F, 3) int64 within range, notes on reading.

    unit: of the vertices, one of `units.LENGTHS`; None where the file does not say.
    """

    vertices: Points
    faces: Faces
    notes: list[str] = field(default_factory=list)
    unit: str | None = None


def what_instead(points: int, lines: int, tetrahedra: int) -> str:
    """What a file without faces holds, for the error message."""
    if tetrahedra:
        return f"has no faces, only {tetrahedra} 't' lines (tetrahedra?), which OBJ does not define"
    if lines:
        return f"is a wireframe: {lines} lines, no faces"
    if points:
        return f"is a point cloud: {points} points, no faces"
    return "has no vertices and no faces"


def broken_line(number: int, line: bytes, is_last: bool) -> FormatError:
    """The error for a malformed line; the last line of a file means that it is truncated."""
    if is_last:
        return FormatError(f"is truncated: its last line breaks off at '{printable(line)}'", TRUNCATED)
    return FormatError(f"line {number} is malformed: '{printable(line)}'")


def printable(line: bytes) -> str:
    """The end of a line for a message: at most 40 printable characters."""
    text = line.strip().decode("ascii", "replace")
    return "".join(c if c.isprintable() else "?" for c in text[-40:])
