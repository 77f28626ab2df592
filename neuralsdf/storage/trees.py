"""
trees.py
--------
Files of trees (`.csg`): an expression of `csg.language` in UTF-8, whose files are named from its own folder
on and lie in it, unless they are allowed outside.

A bundle has its leaves in it. It is a zip archive, without compression, of one folder: `tree.csg`, which is
such a text, and the files that it names.
"""

from __future__ import annotations

import io
import os
import re
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory

from ..backends import get_backend
from ..csg import ExpressionError, Shape, from_field, from_tree, parse
from ..distance import SignedDistance
from ..errors import FileError, ModelError, UsageError
from ..field import MeshField
from ..input import opened
from ..meshfile import load_mesh
from ..output import whole_file
from ..similarity import Similarity, minimum_enclosing_ball
from . import open_model
from .hdf5 import MESH_SUFFIXES

SUFFIX = ".csg"

#: Bounds on what a file from a stranger may ask for.
MAX_TEXT = 1 << 24
MAX_BUNDLE = 1 << 30
MAX_MEMBERS = 10_000
#: Files of trees within files of trees.
MAX_NESTING = 32

_MAIN = "tree.csg"
_MEMBER = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,200}")
_ZIP = b"PK\x03\x04"
_HEADER = "# A tree of shapes; `neuralsdf csg THIS_FILE` says what it is.\n"


@dataclass(frozen=True, eq=False)
class Tree:
    """An expression that was read: its shape, and where the files lie that it names."""

    shape: Shape
    files: dict[str, Path]


@dataclass(eq=False)
class _Opener:
    """Opens each file of a tree once. within: the files that are being read, the innermost last."""

    backend: str | None
    allow_outside: bool
    shapes: dict[tuple[Path, str], Shape] = field(default_factory=dict)
    within: list[Path] = field(default_factory=list)

    def tree(self, text: str, folder: Path, *, confined: bool) -> Tree:
        """The tree of a text whose files are named from `folder` on."""
        files: dict[str, Path] = {}

        def opened(name: str) -> Shape:
            files[name] = path = folder / name
            if confined and not path.resolve().is_relative_to(folder.resolve()):
                raise ModelError(
                    path,
                    "lies outside of its tree file's folder",
                    "--allow-outside lets it, if you trust the tree",
                )
            key = path.resolve(), name
            if key not in self.shapes:
                self.shapes[key] = self._leaf(path, name)
            return self.shapes[key]

        return Tree(parse(text, opened), files)

    def file(self, path: Path) -> Tree:
        """The tree in a file."""
        real = path.resolve()
        if real in self.within:
            names = [used.name for used in self.within[self.within.index(real) :]]
            raise ModelError(path, f"is cyclic: {' uses '.join([*names, path.name])}")
        if len(self.within) >= MAX_NESTING:
            raise ModelError(path, f"lies within more than {MAX_NESTING} tree files, one in the other")
        self.within.append(real)
        try:
            with _unpacked(path) as (text, folder, bundled):
                return self.tree(text, folder, confined=bundled or not self.allow_outside)
        except ExpressionError as error:
            raise ModelError(path, str(error)) from error
        finally:
            self.within.pop()

    def _leaf(self, path: Path, name: str) -> Shape:
        if path.suffix.lower() == SUFFIX:
            return from_tree(self.file(path).shape, name)
        if path.suffix.lower() in MESH_SUFFIXES:
            return from_field(_mesh_field(path, self.backend), name)
        return from_field(open_model(path, backend=self.backend), name)


def parse_tree(
    text: str, folder: str | Path = ".", *, backend: str | None = None, allow_outside: bool = False
) -> Tree:
    """The tree of an expression whose files are named from `folder` on, wherever they lie.

    backend: that evaluates networks and meshes. allow_outside: whether tree files in it may name files
    outside of their own folders. Raises `ExpressionError` for text that is no expression, `FileError` for a
    file that cannot be used.
    """
    return _Opener(backend, allow_outside).tree(text, Path(folder), confined=False)


def read_tree(path: str | Path, *, backend: str | None = None, allow_outside: bool = False) -> Tree:
    """The tree in a file; raises `ModelError`, or the `FileError` of a leaf."""
    return _Opener(backend, allow_outside).file(Path(path))


def save_tree(
    tree: Tree, path: str | Path, *, bundle: bool = False, allow_outside: bool = False, force: bool = False
) -> None:
    """Write a tree file, whole or not at all; the same tree gives the same bytes.

    bundle: with the files of its leaves in it. Raises `UsageError` where a file lies outside of the tree
    file's folder, unless that is allowed, `OutputError` where it cannot be written.
    """
    path = Path(path)
    content = _bundle(tree) if bundle else _linked(tree, path.parent, allow_outside)
    with whole_file(path, force=force) as temporary:
        temporary.write_bytes(content)


# -- reading ------------------------------------------------------------------------------------------


@contextmanager
def _unpacked(path: Path) -> Iterator[tuple[str, Path, bool]]:
    """The text of a tree file, the folder that its files are named from, and whether it is a bundle."""
    with opened(path, ModelError, "a tree", MAX_BUNDLE) as stream:
        content = stream.read(MAX_BUNDLE)
    is_bundle = content.startswith(_ZIP)
    if not is_bundle and len(content) > MAX_TEXT:
        raise ModelError(path, f"has {len(content):,} bytes, more than the text of a tree can have")
    if not is_bundle:
        yield _decoded(content, path), path.parent, False
        return
    with TemporaryDirectory(prefix="neuralsdf-") as folder:
        _unpack(content, path, Path(folder))
        try:
            yield _decoded((Path(folder) / _MAIN).read_bytes(), path), Path(folder), True
        except FileError as error:  # the folder is nothing that a person has seen
            raise ModelError(path, f"{Path(error.path).name}: {error.reason}", error.remedy) from error


def _decoded(content: bytes, path: Path) -> str:
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ModelError(path, "is no tree: not UTF-8 text", "write one with neuralsdf csg -o") from error


def _unpack(content: bytes, path: Path, folder: Path) -> None:
    """Write the members of a bundle to an empty folder."""
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            members = archive.infolist()
            names = {member.filename for member in members}
            if _MAIN not in names:
                raise ModelError(path, f"is a zip archive, but no bundle: it has no {_MAIN}")
            if len(members) > MAX_MEMBERS:
                raise ModelError(path, f"is no bundle: {len(members):,} files are more than it can have")
            if len(names) != len(members):
                raise ModelError(path, "is no bundle: two of its files have the same name")
            if sum(member.file_size for member in members) > MAX_BUNDLE:
                raise ModelError(path, f"unpacks to more than {MAX_BUNDLE:,} bytes")
            for member in members:
                if not _MEMBER.fullmatch(member.filename):
                    raise ModelError(path, f"is no bundle: {member.filename!r} cannot be in one")
                if member.compress_type != zipfile.ZIP_STORED:
                    raise ModelError(path, f"is no bundle: {member.filename} is compressed")
                (folder / member.filename).write_bytes(archive.read(member))
    except (zipfile.BadZipFile, EOFError, RuntimeError, NotImplementedError) as error:
        raise ModelError(path, "the bundle is damaged or cut short", "copy or make it again") from error


def _mesh_field(path: Path, backend: str | None) -> MeshField:
    """The exact signed distance of the mesh in a file, by a backend's trees."""
    mesh = load_mesh(path)
    transform = Similarity.from_ball(*minimum_enclosing_ball(mesh.vertices))
    make_tree = get_backend(backend).triangle_tree
    oracle = SignedDistance(transform.apply_inverse(mesh.vertices), mesh.faces, make_tree=make_tree)
    if not oracle.has_interior:
        raise FileError(
            path,
            "has no inside by winding number",
            "convert it with --thickness, and use the model in its place",
        )
    return MeshField(oracle, transform, mesh.source.unit)


# -- writing ------------------------------------------------------------------------------------------


def _linked(tree: Tree, folder: Path, allow_outside: bool) -> bytes:
    """The text of a tree that names its files from `folder` on."""
    names = {name: os.path.relpath(path.resolve(), folder.resolve()) for name, path in tree.files.items()}
    for name, relative in names.items():
        if relative.split(os.sep)[0] == os.pardir and not allow_outside:
            raise UsageError(
                f"{name}: lies outside of the tree file's folder; --bundle puts it into the file, "
                "--allow-outside leaves it where it is"
            )
    return f"{_HEADER}{tree.shape.text(names)}\n".encode()


def _bundle(tree: Tree) -> bytes:
    """A bundle of a tree: tree files that it names are rewritten too, for all of them lie in one folder."""
    members: dict[str, bytes] = {_MAIN: b""}
    placed: dict[Path, str] = {}
    waiting: list[tuple[str, Tree]] = [(_MAIN, tree)]
    while waiting:
        member, current = waiting.pop()
        for path in current.files.values():
            real = path.resolve()
            if real in placed:
                continue
            placed[real] = name = _free_name(path, members)
            members[name] = content = _leaf_bytes(path)
            if path.suffix.lower() == SUFFIX and not content.startswith(_ZIP):
                waiting.append((name, read_tree(path, allow_outside=True)))
        names = {name: placed[path.resolve()] for name, path in current.files.items()}
        members[member] = f"{_HEADER}{current.shape.text(names)}\n".encode()
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_STORED) as archive:
        for name, content in members.items():
            archive.writestr(zipfile.ZipInfo(name), content)  # of 1980: no times in files
    return stream.getvalue()


def _leaf_bytes(path: Path) -> bytes:
    if path.suffix.lower() == ".gltf":
        raise FileError(path, "may name further files, which a bundle lacks", "save it as .glb")
    return path.read_bytes()


def _free_name(path: Path, taken: dict[str, bytes]) -> str:
    """A name for a member, like the file's own."""
    stem = re.sub(r"[^A-Za-z0-9_-]", "_", path.stem)[:100] or "_"
    stem = stem if _MEMBER.fullmatch(stem) else f"_{stem}"
    names = (f"{stem}{'' if count == 1 else f'-{count}'}{path.suffix}" for count in range(1, MAX_MEMBERS))
    return next(name for name in names if name not in taken)
