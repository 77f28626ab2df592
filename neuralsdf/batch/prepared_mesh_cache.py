"""
prepared_mesh_cache.py
----------------------
A cache of prepared meshes for the stages of a grouped conversion, limited in bytes. Each worker has one.
"""

from __future__ import annotations

from typing import NamedTuple

from ..mesh.signed_distance import FACE_BYTES
from ..pipeline.prepare_mesh import Prepared


class _Kept(NamedTuple):
    key: str | None
    shape: Prepared
    size: int


class KeptShapes:
    """Prepared meshes by name and key.

    A shape that does not fit is not cached, and no shape is evicted for it: every stage visits the shapes in
    the same order, so the oldest shape is the one that is needed next.
    """

    def __init__(self, max_bytes: float) -> None:
        self._max_bytes = max_bytes
        self._kept: dict[str, _Kept] = {}

    @property
    def sizes(self) -> dict[str, int]:
        """Bytes of each cached shape, by name."""
        return {name: kept.size for name, kept in self._kept.items()}

    def get(self, name: str, key: str | None) -> Prepared | None:
        """The shape with this name and key; None if it is not cached."""
        kept = self._kept.get(name)
        return kept.shape if kept is not None and kept.key == key else None

    def add(self, name: str, key: str | None, shape: Prepared) -> None:
        """Cache a shape, if it fits."""
        self.drop(name)
        size = memory_of(shape)
        if sum(self.sizes.values()) + size <= self._max_bytes:
            self._kept[name] = _Kept(key, shape, size)

    def drop(self, name: str) -> None:
        """Drop a shape, if it is cached."""
        self._kept.pop(name, None)


def memory_of(shape: Prepared) -> int:
    """Approximate bytes of a prepared mesh with its BVHs."""
    return FACE_BYTES * len(shape.oracle.faces)
