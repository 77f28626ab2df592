"""
find_meshes.py
--------------
Finds and names the meshes of a data set. The names do not depend on the order in which the file system lists
the files.
"""

from __future__ import annotations

import glob
import os
import re
import sys
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field, replace
from hashlib import sha256
from pathlib import Path, PurePath

from ..errors import FileError, UsageError
from ..files.bounded_input import read_file, read_stream
from ..mesh.formats.registry import SUFFIXES
from ..printable_text import storable
from .output_folder import Shard

#: Maximum size of a list of meshes in bytes; enough for millions of names.
_MAX_LIST = 256 << 20

#: A mesh file that is followed by words, in a list.
_LABELLED = re.compile(rf"(.+?(?:{'|'.join(map(re.escape, sorted(SUFFIXES)))}))[ \t]+(.+)", re.IGNORECASE)


@dataclass(frozen=True)
class Sources:
    """The meshes of a data set: name and file, in order of name.

    ignored: number of files that are not meshes. unlisted: folders that could not be listed, each with the
    reason. labels: the words that follow a mesh in a list, by its name.
    """

    meshes: tuple[tuple[str, Path], ...]
    ignored: int = 0
    unlisted: tuple[str, ...] = ()
    labels: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    def shard(self, shard: Shard | None) -> Sources:
        """Part (i, n) of the meshes, i from 1. A mesh is assigned to a part by its name alone."""
        if shard is None:
            return self
        mine = tuple(mesh for mesh in self.meshes if shard_of(mesh[0], shard[1]) == shard[0])
        return replace(self, meshes=mine)


def shard_of(name: str, count: int) -> int:
    """The shard of a shape, from 1 to `count`."""
    return 1 + int.from_bytes(sha256(name.encode()).digest()[:8], "big") % count


def find_sources(dataset: str, out: str | Path | None = None, clouds: Collection[str] = ()) -> Sources:
    """The meshes of a data set.

    dataset: a folder, searched recursively; a pattern with `*`, `?`, `[...]` and `**`; a text file that lists
    meshes, one per line, relative to its own folder (lines that begin with `#` are skipped); or `-`, such a
    list from standard input, relative to the current folder. Words after a mesh in a list are its `labels`.
    In a folder and with a pattern, hidden files and files without the suffix of a mesh are skipped. The name
    of a mesh is its path relative to the folder or to the fixed part of the pattern, or its entry in the
    list. out: the output folder, which may be inside the data set; files in it that are not meshes are not
    counted as ignored. clouds: suffixes of point clouds that are also accepted. Folders in the data set that
    cannot be listed are skipped and reported in `unlisted`.

    Raises `UsageError` for a data set that does not exist or has no meshes, and if two meshes would have the
    same name.
    """
    path, unlisted, suffixes = Path(dataset), list[str](), {*SUFFIXES, *clouds}
    if dataset == "-":
        content = read_stream(sys.stdin.buffer, "standard input", FileError, "a list of meshes", _MAX_LIST)
        return _named_by_list("standard input", Path(), content)
    if path.is_dir():
        found = list(_files_below(path, frozenset(), unlisted))
        root = path
    elif glob.has_magic(dataset) and not path.exists():
        root = _fixed_part(dataset)
        matches = (Path(name) for name in glob.glob(dataset, recursive=True) if not os.path.isdir(name))
        found = [file for file in matches if not _has_link_cycle(root, file)]
    elif path.suffix.lower() == ".csg":
        raise UsageError(f"{dataset}: is a CSG tree, not a list of meshes; convert it with neuralsdf convert")
    elif path.is_file():
        if path.suffix.lower() in SUFFIXES:
            raise UsageError(f"{path}: is a mesh, not a data set; convert it with neuralsdf convert {path}")
        content = read_file(path, FileError, "a list of meshes", _MAX_LIST).data
        return _named_by_list(dataset, path.parent, content)
    elif os.path.lexists(path):  # a pipe, a device, a broken link
        raise UsageError(f"{dataset}: is neither a folder nor a list of meshes")
    else:
        raise UsageError(f"{dataset}: no such folder, list or pattern; check the name")
    meshes = [file for file in found if file.suffix.lower() in suffixes]
    named = [(file.relative_to(root).as_posix(), file) for file in meshes]
    if unlisted and not named:
        raise UsageError(f"{dataset}: no meshes in the readable folders; {unlisted[0]}")
    others = [file for file in found if file.suffix.lower() not in suffixes and not _is_inside(file, out)]
    if not named:
        what = "meshes or point clouds" if clouds else "meshes"
        raise UsageError(f"{dataset}: no {what} ({', '.join(sorted(suffixes))}), {len(others)} other files")
    return replace(_named(dataset, named, len(others)), unlisted=tuple(sorted(unlisted)))


def _named(dataset: str, meshes: list[tuple[str, Path]], ignored: int) -> Sources:
    if not meshes:
        raise UsageError(f"{dataset}: no meshes in the list")
    named: dict[str, Path] = {}
    for text, file in sorted(set(meshes)):
        name = storable(text)
        if name in named:
            raise UsageError(f"{dataset}: {named[name]} and {file} would both have the name {name!r}")
        named[name] = file
    return Sources(tuple(sorted(named.items())), ignored)


def _files_below(folder: Path, above: frozenset[str], unlisted: list[str]) -> Iterator[Path]:
    """All files below a folder except hidden ones. Links are followed unless they form a cycle.

    A folder that cannot be listed is added to `unlisted`. Raises `UsageError` if the top folder cannot be
    listed.
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
            yield from _files_below(folder / name, above | {real}, unlisted)
        else:
            yield folder / name


def _is_folder(entry: os.DirEntry[str]) -> bool:
    """Whether it is a folder or a link to one; false for a link to itself, which cannot be resolved."""
    try:
        return entry.is_dir()
    except OSError:
        return False


def _has_link_cycle(root: Path, file: Path) -> bool:
    """Whether the path from the root to the file passes through the same folder twice, by links."""
    folders = [os.path.realpath(root / folder) for folder in file.relative_to(root).parents]
    return len(set(folders)) < len(folders)


def _is_inside(file: Path, folder: str | Path | None) -> bool:
    return folder is not None and Path(os.path.abspath(folder)) in Path(os.path.abspath(file)).parents


def _named_by_list(dataset: str, folder: Path, content: bytes) -> Sources:
    """The meshes of a list; its entries are relative to `folder`."""
    text = content.decode("utf-8", "surrogateescape")
    if "\0" in text:
        raise UsageError(f"{dataset}: is not a list of meshes: it has binary data")
    lines = (line.strip() for line in text.removeprefix("\ufeff").split("\n"))
    meshes: list[tuple[str, Path]] = []
    labels: dict[str, tuple[str, ...]] = {}
    for line in lines:
        if line and not line.startswith("#"):
            entry, words = _entry(line)
            name = _name_of_entry(entry)
            if labels.setdefault(storable(name), words) != words:
                raise UsageError(f"{dataset}: {entry} is listed twice, with different words after it")
            meshes.append((name, folder / entry))
    return replace(
        _named(dataset, meshes, 0), labels={name: words for name, words in labels.items() if words}
    )


def _entry(line: str) -> tuple[str, tuple[str, ...]]:
    """The path in a line of a list, and the words after it. Paths may have spaces."""
    labelled = None if PurePath(line).suffix.lower() in SUFFIXES else _LABELLED.fullmatch(line)
    return (line, ()) if labelled is None else (labelled[1], tuple(labelled[2].split()))


def _name_of_entry(entry: str) -> str:
    """The name of a listed path: the path without `..` and without a root."""
    return "/".join(part for part in PurePath(os.path.normpath(entry)).parts if part not in ("/", "//", ".."))


def _fixed_part(pattern: str) -> Path:
    """The leading folders of a pattern, before its first wildcard."""
    parts = PurePath(pattern).parts
    fixed = next(i for i, part in enumerate(parts) if glob.has_magic(part))
    return Path(*parts[:fixed])
