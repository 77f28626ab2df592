"""
errors.py
---------
User-facing errors. Each message is one line: the subject (usually a file), the reason and the remedy. The
command line prints it and exits with `exit_code`; a program catches `NeuralSDFError`.

Errors and warnings are worded for a Python caller: a keyword argument is written `force=True` or `width=48`,
or `width=` without a value, in backticks. The command line shows it as its option
(cli/shared/option_names.py).
"""

from __future__ import annotations

from os import PathLike, fspath


class NeuralSDFError(Exception):
    """Base class of all errors raised by this package; the message is one line that a user can act on.

    `exit_code`: exit status of the command, 1 for a failure, 2 for wrong usage. `excerpt`: for errors in
    text, lines that show the position of the error, printed below the message.
    """

    exit_code = 1
    excerpt = ""


class UsageError(NeuralSDFError):
    """An argument that is invalid for any file (exit code 2)."""

    exit_code = 2


class FileError(NeuralSDFError):
    """A file that cannot be used. The message is `path: reason; remedy`."""

    def __init__(self, path: str | PathLike[str], reason: str, remedy: str | None = None) -> None:
        self.path = fspath(path)
        self.reason = reason
        self.remedy = remedy
        super().__init__(f"{self.path}: {reason}" + (f"; {remedy}" if remedy else ""))

    def __reduce__(self) -> tuple[type[FileError], tuple[str, str, str | None]]:
        # Exceptions pickle by their message alone; worker processes need the parts.
        return type(self), (self.path, self.reason, self.remedy)


class MeshError(FileError):
    """A mesh file that cannot be read, or a mesh that cannot be converted."""


class NoInteriorError(MeshError):
    """A mesh without an interior by winding number; the remedy names a `thickness`."""


class FitError(FileError):
    """A fit that failed: the network has no surface, or one unrelated to the mesh."""


class ModelError(FileError):
    """A model file that cannot be read, or whose content contradicts its header."""


class PointsError(FileError):
    """A point file that cannot be read."""


class ManifestError(FileError):
    """A batch manifest that cannot be read."""


class OutputError(FileError):
    """An output that cannot be written: it exists, the folder is missing, or the disk is full."""


class NoSurfaceError(NeuralSDFError):
    """A field without a zero level set inside its ball, where the operation needs a surface."""


class EmptyShapeError(NoSurfaceError):
    """A CSG tree or a mesh that encloses nothing."""


class FieldKindError(NeuralSDFError):
    """A field of the wrong kind for the operation, such as an occupancy field where distances are needed."""


class UnknownShapeError(UsageError, KeyError):
    """A shape name that is not in the data set."""

    __str__ = Exception.__str__  # KeyError's would quote the message


class BackendError(NeuralSDFError):
    """A requested backend that cannot run on this machine."""
