"""
sources.py
----------
Which meshes a data set has, and what they are called: the same names for the same files, whatever the order
in which the file system lists them.
"""

from __future__ import annotations

import glob
import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path, PurePath

from ..errors import FileError, UsageError
from ..files.input_file import read_file, read_stream
from ..mesh.files import SUFFIXES
from ..printable import storable
from .folder import Shard

#: Bytes that a list of meshes may have: some millions of names.
_MAX_LIST = 256 << 20


@dataclass(frozen=True)
class Sources:
    """The meshes of a data set: name and file, in order of name.

    ignored: how many files are no mesh. unlisted: folders that could not be listed, each with the reason.
    """

    meshes: tuple[tuple[str, Path], ...]
    ignored: int = 0
    unlisted: tuple[str, ...] = ()

    def shard(self, shard: Shard | None) -> Sources:
        """The share (i, n) of the meshes, i from 1: each is in one of the n, which its name alone decides."""
        if shard is None:
            return self
        mine = tuple(mesh for mesh in self.meshes if shard_of(mesh[0], shard[1]) == shard[0])
        return Sources(mine, self.ignored, self.unlisted)


def shard_of(name: str, count: int) -> int:
    """The shard, from 1 to `count`, that a shape of this name belongs to."""
    return 1 + int.from_bytes(sha256(name.encode()).digest()[:8], "big") % count


def find_sources(dataset: str, out: str | Path | None = None) -> Sources:
    """The meshes of a data set.

    dataset: a folder, searched through and through; a pattern with `*`, `?`, `[...]` and `**`; a text file
    that lists meshes, one a line, relative to its own folder (a line that begins with `#` is passed by); or
    `-`, such a list from standard input, relative to the current folder. In a folder and by a pattern, hidden
    files and those without a mesh's extension are left out. A name is the path within the folder, within the
    pattern's fixed part, or as the list has it. out: the folder of the results, which may lie in the data
    set; what is no mesh there is not counted. A folder in the data set that cannot be listed is left out and
    noted.

    Raises `UsageError` for a data set that is not there or has no mesh, and where two would share a name.
    """
    path, unlisted = Path(dataset), list[str]()
    if dataset == "-":
        content = read_stream(sys.stdin.buffer, "standard input", FileError, "a list of meshes", _MAX_LIST)
        return _named_by_list("standard input", Path(), content)
    if path.is_dir():
        found = list(_below(path, frozenset(), unlisted))
        root = path
    elif glob.has_magic(dataset) and not path.exists():
        root = _fixed_part(dataset)
        matches = (Path(name) for name in glob.glob(dataset, recursive=True) if not os.path.isdir(name))
        found = [file for file in matches if not _goes_round(root, file)]
    elif path.suffix.lower() == ".csg":
        raise UsageError(f"{dataset}: is a tree of shapes, not a list of meshes; neuralsdf convert takes it")
    elif path.is_file():
        if path.suffix.lower() in SUFFIXES:
            raise UsageError(f"{path}: is a mesh, not a data set; convert it with neuralsdf convert {path}")
        content = read_file(path, FileError, "a list of meshes", _MAX_LIST).data
        return _named_by_list(dataset, path.parent, content)
    elif os.path.lexists(path):  # a pipe, a device, a link that leads nowhere
        raise UsageError(f"{dataset}: is neither a folder nor a list of meshes")
    else:
        raise UsageError(f"{dataset}: no such folder, list or pattern; check the name")
    meshes = [file for file in found if file.suffix.lower() in SUFFIXES]
    named = [(file.relative_to(root).as_posix(), file) for file in meshes]
    if unlisted and not named:
        raise UsageError(f"{dataset}: no mesh in what can be listed; {unlisted[0]}")
    others = [file for file in found if file.suffix.lower() not in SUFFIXES and not _lies_in(file, out)]
    return replace(_named(dataset, named, len(others)), unlisted=tuple(sorted(unlisted)))


def _named(dataset: str, meshes: list[tuple[str, Path]], ignored: int) -> Sources:
    if not meshes:
        kinds = ", ".join(sorted(SUFFIXES))
        raise UsageError(f"{dataset}: no mesh in it ({kinds}), {ignored} other files")
    named: dict[str, Path] = {}
    for text, file in sorted(set(meshes)):
        name = storable(text)
        if name in named:
            raise UsageError(f"{dataset}: {named[name]} and {file} would both be called {name!r}")
        named[name] = file
    return Sources(tuple(sorted(named.items())), ignored)


def _below(folder: Path, above: frozenset[str], unlisted: list[str]) -> Iterator[Path]:
    """All files below a folder but hidden ones; links are followed, unless they lead round in a circle.

    A folder that cannot be listed is added to `unlisted`, but for the first, which raises `UsageError`.
    """
    real = os.path.realpath(folder)
    if real in above:
        return
    try:
        with os.scandir(folder) as listing:
            entries = [(entry.name, _is_folder(entry)) for entry in listing]
    except OSError as error:
        reason = f"{folder}: cannot be listed ({error.strerror}); make it readable"
        if not above:
            raise UsageError(reason) from error
        unlisted.append(reason)
        return
    for name, is_folder in entries:
        if name.startswith("."):
            continue
        if is_folder:
            yield from _below(folder / name, above | {real}, unlisted)
        else:
            yield folder / name


def _is_folder(entry: os.DirEntry[str]) -> bool:
    """Whether it is a folder or leads to one; a link to itself leads nowhere, and reading it says so."""
    try:
        return entry.is_dir()
    except OSError:
        return False


def _goes_round(root: Path, file: Path) -> bool:
    """Whether links lead a path from its root through a folder twice."""
    folders = [os.path.realpath(root / folder) for folder in file.relative_to(root).parents]
    return len(set(folders)) < len(folders)


def _lies_in(file: Path, folder: str | Path | None) -> bool:
    return folder is not None and Path(os.path.abspath(folder)) in Path(os.path.abspath(file)).parents


def _named_by_list(dataset: str, folder: Path, content: bytes) -> Sources:
    """The meshes of a list, whose entries are relative to a folder."""
    text = content.decode("utf-8", "surrogateescape")
    if "\0" in text:
        raise UsageError(f"{dataset}: is no list of meshes: it holds binary data")
    lines = (line.strip() for line in text.removeprefix("\ufeff").split("\n"))
    entries = [line for line in lines if line and not line.startswith("#")]
    return _named(dataset, [(_without_root(entry), folder / entry) for entry in entries], 0)


def _without_root(entry: str) -> str:
    """A listed path as a name: without `..` and without where it begins."""
    return "/".join(part for part in PurePath(os.path.normpath(entry)).parts if part not in ("/", "//", ".."))


def _fixed_part(pattern: str) -> Path:
    """The folders of a pattern before its first wildcard."""
    parts = PurePath(pattern).parts
    fixed = next(i for i, part in enumerate(parts) if glob.has_magic(part))
    return Path(*parts[:fixed])
