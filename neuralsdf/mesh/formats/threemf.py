"""
threemf.py
----------
Reader of 3MF: the items of the build, with their objects.
"""

from __future__ import annotations

from collections import Counter

import numpy as np

from ...array_types import Matrix4
from ...files.bounded_input import InputFile
from ...printable_text import printable
from ...units import LENGTHS
from .shared.raw_mesh import FormatError, RawMesh
from .shared.scene_triangles import LONGEST, NODE_BYTES, Scene, counted, left_out
from .threemf_beams import Beams, beams_of
from .threemf_model import ModelPart, Object, Reference
from .threemf_package import Package

#: Maximum nesting depth of components; also catches an object that contains itself.
MAX_NESTING = 100


def read_3mf(file: InputFile) -> RawMesh:
    """Read all objects placed by the build of a 3MF, in the unit of its main part.

    Supports and items marked as not printable are left out. Beam lattices are converted to triangles.
    """
    return _Build(file).raw_mesh()


class _Build:
    def __init__(self, file: InputFile) -> None:
        self._budget = file.budget
        self._package = Package(file)
        self._main = self._package.main_part()
        self._parts: dict[str, ModelPart] = {}
        self._scene = Scene(file.budget)
        self._left_out: Counter[tuple[str, str]] = Counter()
        self._lattices: dict[Object, Beams] = {}
        self._beams = 0
        self._foreign: str | None = None

    def raw_mesh(self) -> RawMesh:
        """All objects of the build."""
        main = self._part(self._main)
        if not main.items:
            objects = (
                f"{counted(len(main.objects), 'object', 'objects')}, none of them"
                if main.objects
                else "nothing"
            )
            raise FormatError(
                f"has an empty build: {objects} on the build plate",
                "place the object on the build plate and export it again",
            )
        for item in main.items:
            if item.printable:
                self._place(item)
            else:
                self._left_out["non-printable item", "non-printable items"] += 1
        notes = left_out(self._left_out)
        if self._foreign is not None:
            notes.append(f"element '{printable(self._foreign, LONGEST)}' is not supported")
        if self._beams:
            notes.append(f"{counted(self._beams, 'beam', 'beams')} of a lattice converted to triangles")
        return self._scene.raw_mesh(notes, main.unit or "mm")  # 3MF's default is millimetres

    def _part(self, path: str) -> ModelPart:
        if path not in self._parts:
            self._parts[path] = ModelPart(self._package.chunks(path), self._budget)
        return self._parts[path]

    def _place(self, item: Reference) -> None:
        """Add an item: its object, and the object's components recursively."""
        waiting = [(item, self._main, np.eye(4), 0)]
        while waiting:
            reference, path, outer, depth = waiting.pop()
            self._budget.draw(NODE_BYTES)
            if depth > MAX_NESTING:
                raise FormatError(f"nests components more than {MAX_NESTING} deep, or in a cycle")
            matrix = outer if reference.matrix is None else outer @ reference.matrix
            if reference.path is not None:
                matrix = matrix @ self._rescaled(reference.path, path)
                path = reference.path
            part = self._part(path)
            found = part.objects.get(reference.object_id)
            if found is None:
                raise FormatError(f"refers to a missing object: '{printable(reference.object_id, LONGEST)}'")
            waiting += [(component, path, matrix, depth + 1) for component in reversed(found.components)]
            self._place_mesh(found, part, matrix)

    def _place_mesh(self, found: Object, part: ModelPart, matrix: Matrix4) -> None:
        if not found.corners and found.lattice is None:
            if not found.components:
                self._foreign = self._foreign or found.foreign
                self._left_out["object without a mesh", "objects without a mesh"] += 1
            return
        if found.kind not in ("model", "surface"):
            is_other = found.kind == "other"
            self._left_out[("other object", "other objects") if is_other else ("support", "supports")] += 1
            return
        if not self._scene.is_new(found, matrix):
            return
        if found.stand_in:
            if part.requires_slices:
                raise FormatError("has slices instead of a mesh", "export it as plain triangles")
            self._left_out["stack of slices", "stacks of slices"] += 1
        self._scene.place(found.vertices, found.faces, matrix)
        if found.lattice is not None:
            if found not in self._lattices:
                self._lattices[found] = beams_of(found.lattice, found.vertices, self._budget)
            beams = self._lattices[found]
            self._beams += beams.total
            for vertices, faces in beams.meshes:
                self._scene.place(vertices, faces, matrix)

    def _unit(self, path: str) -> str:
        """Unit of a part; that of the main part if it states none."""
        return self._part(path).unit or self._part(self._main).unit or "mm"

    def _rescaled(self, path: str, referring: str) -> Matrix4:
        """Matrix (4, 4) from a part's unit to that of the part that refers to it."""
        inner, outer = (self._unit(part) for part in (path, referring))
        scale = LENGTHS[inner] / LENGTHS[outer] if inner != outer else 1.0
        return np.diag([scale, scale, scale, 1])
