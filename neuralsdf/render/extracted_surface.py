"""
extracted_surface.py
--------------------
The distance to the extracted surface of a field, for rays that cannot use the field's own values: those of
occupancy fields, and shadow rays of fields with films.
"""

from __future__ import annotations

from ..errors import NeuralSDFError
from ..fields.extract import DEFAULT_MEMORY, model_surface
from ..fields.extraction_grid import FieldGrid
from ..fields.field import Field
from ..fields.mesh_field import MeshField
from ..mesh.signed_distance import FACE_BYTES, SignedDistance

#: Resolution of the search for films.
_FILM_RESOLUTION = 128


def extracted_field(field: Field) -> MeshField:
    """The exact distance to the extracted surface of a field. Raises as `model_surface` does."""
    surface = model_surface(field, face_bytes=FACE_BYTES)
    oracle = SignedDistance(surface.vertices, surface.faces, make_bvh=field.backend.triangle_bvh)
    return MeshField(oracle, field.transform, backend=field.chosen_backend)


def without_films(field: Field) -> Field:
    """The field itself or, if it has films far from its surface, the distance to its extracted surface.

    A film casts no shadow, but the field's values near it are as small as near a surface.
    """
    grid = FieldGrid(field, 0.0, _FILM_RESOLUTION, DEFAULT_MEMORY)
    try:
        found = grid.search()
        if not len(found.cells) or not grid.has_films(found):
            return field
        return extracted_field(field)
    except NeuralSDFError:  # too large for the search, or empty
        return field
