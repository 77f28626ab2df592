"""Sparse grids and the surfaces extracted on them, for comparing implementations."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np

from neuralsdf.array_types import FloatArray, Index
from neuralsdf.fields.extract import model_surface
from neuralsdf.fields.field import Field
from neuralsdf.geometry.similarity_transform import Similarity
from neuralsdf.grid.sparse_grid import Lattice, NativeLattice
from neuralsdf.grid.surface_search import HostFieldLattice


class OnLattice(Field):
    """A program as a field, extracted on its own lattice, or on one of the kind given."""

    kind = "distance"
    transform = Similarity.identity()

    def __init__(self, program, kind=None):
        self._program, self._kind = program, kind

    @property
    def program(self):
        if self._kind is None:
            return self._program
        return SimpleNamespace(on_lattice=self._on_processor)

    def _on_processor(self, side, *arguments):
        return HostFieldLattice(self._kind(side), self._program.evaluate, *arguments)

    def value(self, points):
        return self._program.evaluate(points)

    def value_and_gradient(self, points):
        return self._program.evaluate_with_gradient(points)


def surfaces(program, resolution, **options):
    """The surfaces by the program's own lattice, by the C++ core's and by numpy's."""
    return [
        model_surface(OnLattice(program, kind), resolution, **options)
        for kind in (None, NativeLattice, Lattice)
    ]


def assert_same_surfaces(surfaces):
    ours, *others = surfaces
    for other in others:
        np.testing.assert_array_equal(ours.faces, other.faces)
        np.testing.assert_array_equal(ours.vertices, other.vertices)
        assert ours.notes == other.notes


def interior_cells(side: int) -> Index:
    """Keys of all cells of a lattice."""
    along = np.arange(side - 1)
    return ((along[:, None, None] * side + along[:, None]) * side + along).ravel()


def padded(values: np.ndarray) -> tuple[Lattice, Index, Index, FloatArray]:
    """A dense lattice with a layer of positive values around `values` (n, n, n): its cells, keys, values."""
    surrounded = np.pad(values, 1, constant_values=1).astype(np.float32)
    side = len(surrounded)
    return Lattice(side), interior_cells(side), np.arange(side**3), surrounded.ravel()
