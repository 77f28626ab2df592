"""
errors.py
---------
User-facing errors. Each is one line: what it is about (usually a file), the reason, and the remedy. The
command line prints it and exits with `exit_code`; a program catches `NeuralSDFError`.

Errors and warnings say what a Python caller can do: a keyword argument is written `force=True` or `width=48`,
or `width=` without a value, in backticks. The command line prints it as its option (cli/shared/keywords.py).
"""

from __future__ import annotations

from os import PathLike, fspath


class NeuralSDFError(Exception):
    """Something a user can mend, said in one line; the base of every error this package raises.

    `exit_code` is what the command exits with: 1 for a failure, 2 for wrong usage. `excerpt`: where the error
    is one of a text, lines that show the place, which the command prints below.
    """

    exit_code = 1
    excerpt = ""


class UsageError(NeuralSDFError):
    """An argument that makes no sense, whatever the files hold (exit code 2)."""

    exit_code = 2


class FileError(NeuralSDFError):
    """A file that cannot be used: `path: reason; remedy`."""

    def __init__(self, path: str | PathLike[str], reason: str, remedy: str | None = None) -> None:
        self.path = fspath(path)
        self.reason = reason
        self.remedy = remedy
        super().__init__(f"{self.path}: {reason}" + (f"; {remedy}" if remedy else ""))

    def __reduce__(self) -> tuple[type[FileError], tuple[str, str, str | None]]:
        # Exceptions pickle by their message alone; workers in other processes need the parts.
        return type(self), (self.path, self.reason, self.remedy)


class MeshError(FileError):
    """A mesh file that cannot be read, or a mesh that cannot be converted."""


class NoInteriorError(MeshError):
    """A mesh with no inside by winding number; the remedy names a `thickness`."""


class FitError(FileError):
    """A fit that failed: the network has no surface, or one that has nothing to do with the mesh."""


class ModelError(FileError):
    """A model file that cannot be read or does not hold what it says."""


class PointsError(FileError):
    """A file of points that cannot be read."""


class ManifestError(FileError):
    """A manifest of a batch run that cannot be read."""


class OutputError(FileError):
    """An output that cannot be written: it exists, the folder is missing, the disk is full."""


class NoSurfaceError(NeuralSDFError):
    """A field without a zero level set inside its ball, where a surface is needed."""


class EmptyShapeError(NoSurfaceError):
    """A tree of shapes, or a mesh, that encloses nothing."""


class FieldKindError(NeuralSDFError):
    """A field of the wrong kind for the operation, such as a distance asked of an occupancy."""


class UnknownShapeError(UsageError, KeyError):
    """A name that no shape of a data set has."""

    __str__ = Exception.__str__  # a KeyError's puts the line in quotes


class BackendError(NeuralSDFError):
    """A backend that was asked for and cannot run here."""
