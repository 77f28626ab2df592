"""
csg_file.py
-----------
Tree files (`.csg`): an expression of `csg.expression_parser` in UTF-8. File names in it are relative to its
own folder and must lie in it, unless outside files are allowed.

A bundle contains its leaves. It is an uncompressed zip archive of one folder: `tree.csg`, the expression, and
the files that it refers to.
"""

from __future__ import annotations

import io
import os
import re
import shutil
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from itertools import count
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import BinaryIO, NamedTuple

from ..backends import Backend
from ..csg import ExpressionError, Shape, from_field, from_tree, parse
from ..errors import FileError, ModelError, NoInteriorError, UsageError
from ..fields.exact_distance import open_mesh
from ..fields.field import Field, NeuralField
from ..fields.mesh_field import MeshField
from ..files.atomic_write import check_writable, whole_file
from ..files.bounded_input import Budget, opened, read_file
from ..mesh.mesh import Mesh
from ..mesh.save_mesh import save_mesh
from . import native_layout, open_model
from .hdf5 import MESH_SUFFIXES
from .linked_files import is_outside, referenced, relative_name

SUFFIX = ".csg"

#: Limits for untrusted files. Text: total of all tree files of a tree. A megabyte of brackets takes seconds
#: and half a gigabyte of memory; ten thousand parts fit into it.
MAX_TEXT = 1 << 21
MAX_BUNDLE = 1 << 30
MAX_MEMBERS = 10_000
#: Maximum nesting depth of tree files.
MAX_NESTING = 32

_MAIN = "tree.csg"
_MEMBER = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,200}")
_ZIP, _END, _ZIP64 = b"PK\x03\x04", b"PK\x05\x06", b"PK\x06\x07"
#: Maximum sizes of a zip archive's end record, whose comment varies, and of a directory entry.
_MAX_END, _MAX_ENTRY = 22 + (1 << 16), 1024
_HEADER = "# A tree of shapes; `neuralsdf csg THIS_FILE` says what it is.\n"


class _Identity(NamedTuple):
    """Identity of a file; paths are not unique because of links.

    The change time distinguishes a bundle member from a deleted file with the same inode.
    """

    device: int
    number: int
    changed: int


@dataclass(eq=False)
class _Opener:
    """Opens each file of a tree once, with one memory budget for all decoded data.

    within: files being read, the innermost last.
    """

    backend: Backend | None
    allow_outside: bool
    budget: Budget
    fields: dict[_Identity, Field] = field(default_factory=dict)
    trees: dict[_Identity, Shape] = field(default_factory=dict)
    within: list[tuple[_Identity, str]] = field(default_factory=list)
    text: int = 0

    def tree(self, text: str, folder: Path, *, confined: bool, bundled: bool = False) -> Shape:
        """Parse a text with file names relative to `folder`; bundled: the files are a bundle's members."""
        self.text += len(text)
        if self.text > MAX_TEXT:
            raise ModelError(self.budget.path, f"its text is longer than {MAX_TEXT >> 20} MB")

        def opened(name: str) -> Shape:
            path = referenced(folder, name, "tree", allow_outside=not confined)
            return self._leaf(path, name, bundled)

        return parse(text, opened)

    def file(self, path: Path, *, bundled: bool = False) -> Shape:
        """The tree in a file; bundled: it is a member of a bundle, whose size has been counted."""
        identity = _identity(path)
        same = [index for index, (used, _) in enumerate(self.within) if used == identity]
        if same:
            names = [name for _, name in self.within[same[0] :]]
            raise ModelError(path, f"is cyclic: {' uses '.join([*names, path.name])}")
        if len(self.within) >= MAX_NESTING:
            raise ModelError(path, f"is nested in more than {MAX_NESTING} tree files")
        if not bundled:
            self.budget.add_file(path)
        self.within.append((identity, path.name))
        try:
            with _unpacked(path, self.budget) as (text, folder, is_bundle):
                confined = is_bundle or bundled or not self.allow_outside
                return self.tree(text, folder, confined=confined, bundled=is_bundle or bundled)
        except ExpressionError as error:
            raise ModelError(path, str(error)) from error
        finally:
            self.within.pop()

    def _leaf(self, path: Path, name: str, bundled: bool) -> Shape:
        identity = _identity(path)
        saved = None if bundled else path.absolute()  # a bundle's members are gone when it has been read
        if path.suffix.lower() == SUFFIX:
            if identity not in self.trees:
                self.trees[identity] = self.file(path, bundled=bundled)
            return from_tree(self.trees[identity], name, saved)
        if identity not in self.fields:
            if not bundled:
                self.budget.add_file(path)
            self.fields[identity] = self._field(path, bundled)
        return from_field(self.fields[identity], name, saved)

    def _field(self, path: Path, bundled: bool) -> Field:
        if path.suffix.lower() in MESH_SUFFIXES:
            try:
                return open_mesh(path, backend=self.backend, budget=self.budget)
            except NoInteriorError as error:
                remedy = "convert it with `thickness=`, and use the model in its place"
                raise NoInteriorError(path, error.reason, remedy) from error
        allow_outside = self.allow_outside and not bundled
        return open_model(path, backend=self.backend, budget=self.budget, allow_outside=allow_outside)


def _identity(path: Path) -> _Identity:
    try:
        status = path.stat()
    except (OSError, ValueError):
        # The error is reported when the file is opened; it cannot be one of the files being read.
        return _Identity(0, hash(str(path)), 0)
    return _Identity(status.st_dev, status.st_ino, status.st_ctime_ns)


def parse_tree(
    text: str, folder: str | Path = ".", *, backend: Backend | None = None, allow_outside: bool = False
) -> Shape:
    """The tree of an expression with file names relative to `folder`; files may lie anywhere.

    backend: evaluates the tree; None for the default. allow_outside: whether tree files in it may refer to
    files outside their own folders. Raises `ExpressionError` for an invalid expression, `FileError` for a
    file that cannot be used.
    """
    budget = Budget(Path("the tree"), ModelError, 0)
    tree = _Opener(backend, allow_outside, budget).tree(text, Path(folder), confined=False)
    return replace(tree, stated_backend=backend)


def read_tree(path: str | Path, *, backend: Backend | None = None, allow_outside: bool = False) -> Shape:
    """The tree in a file; raises `ModelError`, or the `FileError` of a leaf."""
    path = Path(path)
    tree = _Opener(backend, allow_outside, Budget(path, ModelError, 0)).file(path)
    return replace(tree, stated_backend=backend)


def save_tree(
    shape: Shape, path: str | Path, *, bundle: bool = False, allow_outside: bool = False, force: bool = False
) -> None:
    """Write a tree file, completely or not at all; equal trees give equal bytes.

    bundle: include the files of its leaves; a tree with a leaf that no file holds is always bundled. Raises
    `UsageError` if a file lies outside the tree file's folder, unless allowed, or if a leaf cannot be stored,
    and `OutputError` if the file cannot be written.
    """
    path = Path(path)
    for source in shape.files():
        check_writable(path, force=force, source=source)
    if any(node.stated for node in shape.nodes()):
        raise UsageError(f"{path}: a tree file cannot state a unit; save the tree before `in_unit`")
    bundle = bundle or any(leaf.path is None for leaf in shape.leaves())
    content = _bundle(shape) if bundle else _linked(shape, path.parent, allow_outside)
    with whole_file(path, force=force) as temporary:
        temporary.write_bytes(content)


# -- reading ------------------------------------------------------------------------------------------


@contextmanager
def _unpacked(path: Path, budget: Budget) -> Iterator[tuple[str, Path, bool]]:
    """The text of a tree file, the folder of its files, and whether it is a bundle."""
    with opened(path, ModelError, "a tree", MAX_BUNDLE) as stream:
        is_bundle = stream.read(len(_ZIP)) == _ZIP
    if not is_bundle:
        yield _text(path), path.parent, False
        return
    with TemporaryDirectory(prefix="neuralsdf-") as folder:
        _unpack(path, Path(folder), budget)
        try:
            yield _text(Path(folder) / _MAIN), Path(folder), True
        except FileError as error:  # do not mention the temporary folder
            if error.path == str(budget.path):
                raise
            raise ModelError(path, f"{Path(error.path).name}: {error.reason}", error.remedy) from error


def _text(path: Path) -> str:
    with opened(path, ModelError, "the text of a tree", MAX_TEXT) as stream:
        content = stream.read(MAX_TEXT)
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ModelError(
            path, "is not a tree: not UTF-8 text", "write one as text, such as sphere(1) - box(1)"
        ) from error


def _unpack(path: Path, folder: Path, budget: Budget) -> None:
    """Extract the members of a bundle to an empty folder."""
    try:
        with opened(path, ModelError, "a tree", MAX_BUNDLE) as stream, _archive(path, stream) as archive:
            members = archive.infolist()
            names = {member.filename for member in members}
            if _MAIN not in names:
                raise ModelError(path, f"is a zip archive, but not a bundle: it has no {_MAIN}")
            if len(members) > MAX_MEMBERS:
                raise ModelError(path, f"is not a bundle: {len(members):,} files (at most {MAX_MEMBERS:,})")
            if len(names) != len(members):
                raise ModelError(path, "is not a bundle: two of its files have the same name")
            budget.draw(sum(member.file_size for member in members))
            for member in members:
                if not _MEMBER.fullmatch(member.filename):
                    raise ModelError(path, f"is not a bundle: invalid file name {member.filename!r}")
                if member.compress_type != zipfile.ZIP_STORED:
                    raise ModelError(path, f"is not a bundle: {member.filename} is compressed")
                with archive.open(member) as content, (folder / member.filename).open("wb") as target:
                    shutil.copyfileobj(content, target)
    except (zipfile.BadZipFile, EOFError, RuntimeError, NotImplementedError) as error:
        raise ModelError(path, "the bundle is damaged or truncated", "copy or make it again") from error


def _archive(path: Path, stream: BinaryIO) -> zipfile.ZipFile:
    """The archive in a file; raises `ModelError` for a directory that is too long."""
    stream.seek(max(0, stream.seek(0, os.SEEK_END) - _MAX_END))
    end = stream.read()
    # zipfile looks for the end record here: at the very end, or else at the last signature.
    for found in {len(end) - 22, end.rfind(_END)}:
        if end[max(0, found) :].startswith(_END):
            # After the signature: four 2-byte numbers, then the directory's size in 4 bytes.
            size = int.from_bytes(end[found + 12 : found + 16], "little")
            if size > MAX_MEMBERS * _MAX_ENTRY or _ZIP64 in end[max(0, found - 20) : found]:
                raise ModelError(path, "is not a bundle: it has more files than a bundle can have")
    return zipfile.ZipFile(stream)


# -- writing ------------------------------------------------------------------------------------------


def _linked(shape: Shape, folder: Path, allow_outside: bool) -> bytes:
    """The text of a tree with file names relative to `folder`."""

    def name(leaf: Shape) -> str:
        assert leaf.path is not None
        relative = relative_name(leaf.path, folder)
        if is_outside(relative) and not allow_outside:
            raise UsageError(
                f"{leaf.name}: lies outside of the tree file's folder; `bundle=True` includes it in the "
                "file, `allow_outside=True` permits the reference"
            )
        return relative

    return _encoded(shape, name)


def _encoded(shape: Shape, name: Callable[[Shape], str]) -> bytes:
    """The text of a tree file; raises `UsageError` if it could not be read. name: as for `Shape.text`."""
    try:
        text = f"{_HEADER}{shape.text(name)}\n".encode()
    except UnicodeEncodeError as error:
        raise UsageError("a tree file cannot contain a file name that is not UTF-8; rename it") from error
    _check_text(len(text))
    return text


def _check_text(size: int) -> None:
    if size > MAX_TEXT:
        raise UsageError(
            f"the tree has {size:,} bytes of text, more than a tree file can have ({MAX_TEXT:,}); "
            "`neuralsdf.convert(field)` makes a network of a part of it"
        )


def _bundle(shape: Shape) -> bytes:
    """A bundle of a tree; nested tree files are rewritten, because all members lie in one folder."""
    members: dict[str, bytes] = {_MAIN: b""}
    placed: dict[Path | int, str] = {}
    waiting: list[tuple[str, Shape]] = [(_MAIN, shape)]
    length = 0

    def name(leaf: Shape) -> str:
        return placed[_origin(leaf)]

    while waiting:
        member, current = waiting.pop()
        for leaf in current.leaves():
            if _origin(leaf) in placed:
                continue
            placed[_origin(leaf)] = name_of = _free_name(leaf.path or Path(leaf.name), members)
            members[name_of] = content = _leaf_bytes(leaf)
            if leaf.parts and not content.startswith(_ZIP):
                waiting.append((name_of, leaf.parts[0]))
        members[member] = text = _encoded(current, name)
        length += len(text)
        _check_text(length)
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_STORED) as archive:
        for name_of, content in members.items():
            archive.writestr(zipfile.ZipInfo(name_of), content)  # fixed date (1980), for reproducible bytes
    bundle = stream.getvalue()
    if len(members) > MAX_MEMBERS or len(bundle) > MAX_BUNDLE:
        raise UsageError(
            f"{len(members):,} files of {len(bundle):,} bytes are more than a bundle can have; save the "
            "parts as files, and the tree with `bundle=False`"
        )
    return bundle


def _origin(leaf: Shape) -> Path | int:
    """Identifies a leaf: its file, or its field in memory."""
    return leaf.path.resolve() if leaf.path is not None else id(leaf.field or leaf.parts[0])


def _leaf_bytes(leaf: Shape) -> bytes:
    """The contents of a leaf's file; a field in memory is written to one, and so is a latent code, whose
    decoder would be missing."""
    field = leaf.field
    if leaf.path is not None and not (isinstance(field, NeuralField) and field.layout == "code"):
        if leaf.path.suffix.lower() == ".gltf":
            raise FileError(leaf.path, "may refer to further files, which a bundle lacks", "save it as .glb")
        return read_file(leaf.path, FileError, "a part of a tree", MAX_BUNDLE).data
    if field is None:
        return b""  # a tree, whose text is written later
    if isinstance(field, NeuralField):
        return native_layout.to_bytes(field)
    if isinstance(field, MeshField) and field.mesh is not None and field.unit == field.mesh.source.unit:
        if field.is_plain:
            return _mesh_bytes(field.mesh)
        rule = "sign" if field.oracle.thickness is None else "thickness"
        raise UsageError(
            f"{leaf.name}: a tree file cannot hold `{rule}=` of a mesh; `neuralsdf.convert(field)` makes a "
            "network to use in its place"
        )
    raise UsageError(f"{leaf.name}: no file can hold this leaf; use `neuralsdf.convert(field)` in its place")


def _mesh_bytes(mesh: Mesh) -> bytes:
    """The .ply file of a mesh."""
    with TemporaryDirectory() as folder:
        path = Path(folder) / "mesh.ply"
        save_mesh(path, mesh.vertices, mesh.faces)
        return path.read_bytes()


def _free_name(path: Path, taken: dict[str, bytes]) -> str:
    """An unused member name similar to the file's own."""
    stem = re.sub(r"[^A-Za-z0-9_-]", "_", path.stem)[:100] or "_"
    stem = stem if _MEMBER.fullmatch(stem) else f"_{stem}"
    suffix = re.sub(r"[^A-Za-z0-9_.-]", "_", path.suffix)[:50]
    names = (f"{stem}{'' if number == 1 else f'-{number}'}{suffix}" for number in count(1))
    return next(name for name in names if name not in taken)
