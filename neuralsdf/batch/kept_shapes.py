"""
kept_shapes.py
--------------
Prepared meshes that a worker keeps between the stages of a grouped conversion, in a bounded number of bytes.
"""

from __future__ import annotations

from typing import NamedTuple

from ..mesh.signed_distance import FACE_BYTES
from ..pipeline.prepare import Prepared


class _Kept(NamedTuple):
    key: str | None
    shape: Prepared
    size: int


class KeptShapes:
    """Prepared meshes by name and key.

    Every stage visits the shapes in the same order, where evicting the oldest shape would evict the one that
    is needed next. So a new shape that does not fit is not kept.
    """

    def __init__(self, max_bytes: float) -> None:
        self._max_bytes = max_bytes
        self._kept: dict[str, _Kept] = {}

    @property
    def sizes(self) -> dict[str, int]:
        """Bytes of each shape, by name."""
        return {name: kept.size for name, kept in self._kept.items()}

    def get(self, name: str, key: str | None) -> Prepared | None:
        """The shape of this name, if it has this key."""
        kept = self._kept.get(name)
        return kept.shape if kept is not None and kept.key == key else None

    def add(self, name: str, key: str | None, shape: Prepared) -> None:
        """Keep a shape, if there is room for it."""
        self.drop(name)
        size = memory_of(shape)
        if sum(self.sizes.values()) + size <= self._max_bytes:
            self._kept[name] = _Kept(key, shape, size)

    def drop(self, name: str) -> None:
        """Drop a shape, if it is kept."""
        self._kept.pop(name, None)


def memory_of(shape: Prepared) -> int:
    """About how many bytes a prepared mesh takes, with its BVHs."""
    return FACE_BYTES * len(shape.oracle.faces)
