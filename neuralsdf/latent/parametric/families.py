"""
families.py
-----------
All families by name. Some are easily mistaken for each other: chair, stool and bench; bench and sofa; table
and desk; bookshelf and cabinet; mug, vase and bottle; goblet and lamp; car and truck.

Shapes are aligned: y is up, and the front is towards z.
"""

from __future__ import annotations

from .chairs_and_sofas import BENCH, CHAIR, SOFA, STOOL
from .tables_and_shelves import BOOKSHELF, CABINET, DESK, TABLE
from .vehicles import AIRPLANE, CAR, TRUCK
from .vessels import BOTTLE, GOBLET, LAMP, MUG, VASE

#: Incremented when the same parameters give another shape.
VERSION = 1

FAMILIES = {
    family.name: family
    for family in (
        CHAIR, STOOL, BENCH, SOFA, TABLE, DESK, BOOKSHELF, CABINET, MUG, VASE, BOTTLE, GOBLET, LAMP,
        AIRPLANE, CAR, TRUCK,
    )
}  # fmt: skip
