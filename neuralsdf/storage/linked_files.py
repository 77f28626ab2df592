"""
linked_files.py
---------------
Names by which a file refers to others: relative to its own folder, and inside it unless outside files are
allowed. Otherwise a file from elsewhere could name any file of this machine.
"""

from __future__ import annotations

import os
from pathlib import Path

from ..errors import ModelError


def referenced(folder: Path, name: str, owner: str, *, allow_outside: bool) -> Path:
    """The file called `name` in a file of `folder`; raises `ModelError` if it is outside without permission.

    owner: kind of the file with the name, such as "tree", for errors.
    """
    path = folder / name
    if not allow_outside and not _real(path).is_relative_to(_real(folder)):
        raise ModelError(
            path,
            f"lies outside of its {owner} file's folder",
            f"`allow_outside=True` permits it, if you trust the {owner} file",
        )
    return path


def relative_name(path: Path, folder: Path) -> str:
    """The name of `path` in a file of `folder`."""
    return os.path.relpath(path.resolve(), folder.resolve())


def is_outside(name: str) -> bool:
    """Whether a name that `relative_name` returned leads out of the folder."""
    return name.split(os.sep)[0] == os.pardir


def _real(path: Path) -> Path:
    """The path without links; a link to itself is kept."""
    try:
        return Path(os.path.realpath(path))
    except ValueError as error:  # a null byte
        raise ModelError(path, "no such file", "check the name") from error
