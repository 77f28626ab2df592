"""
errors.py
---------
How far a field is from the mesh that it stands for. Lengths are in units of the bounding radius.

    error        mean distance between the surfaces, of both directions (Chamfer-L1)
    iou          intersection over union of the interiors, in the padded bounding box
    part,        of the chair with a part that no other has: mean distance from points of this part, and from
    elsewhere    points of the rest of the mesh, to the field's surface

A field without a surface has an IoU of 0, and errors of the bounding radius.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from latent.sets import UNIQUE, unique_chair
from neuralsdf.errors import NoSurfaceError
from neuralsdf.evaluation.metrics import SampledSurface, measure
from neuralsdf.fields.extract import model_surface
from neuralsdf.fields.field import NeuralField
from neuralsdf.geometry.similarity_transform import Similarity
from neuralsdf.geometry.triangles import sample_surface
from neuralsdf.latent.prepare import normalised
from neuralsdf.mesh.load_mesh import load_mesh

#: Points of each kind, and the resolution of extracted surfaces.
POINTS, RESOLUTION = 20_000, 192

#: Error of a field without a surface.
LOST = 1.0


def of_field(field: NeuralField | None, path: Path) -> dict[str, float]:
    """The errors of a field with respect to the mesh in a file; None for a fit that failed."""
    shape, oracle = normalised(load_mesh(path), path.name)
    found = {"iou": 0.0} if field is None else measure(field, oracle, resolution=RESOLUTION, points=POINTS)
    error = found.get("two_way_open", found.get("two_way", LOST))
    parts = of_parts(field, shape.transform) if path.stem == UNIQUE else {}
    return {"iou": found["iou"], "error": error, **parts}


def of_parts(field: NeuralField | None, transform: Similarity) -> dict[str, float]:
    """Errors at the unique chair's extra part, and elsewhere."""
    try:
        extracted = None if field is None else model_surface(field, RESOLUTION)
    except NoSurfaceError:
        extracted = None
    if extracted is None:
        return {"part": LOST, "elsewhere": LOST}
    surface = SampledSurface(extracted.vertices, extracted.faces, 1, np.random.default_rng(0))
    mesh = unique_chair()
    vertices = transform.apply_inverse(mesh.vertices)
    is_extra = mesh.face_labels == mesh.face_labels.max()
    rng = np.random.default_rng(3)
    errors = {}
    for name, faces in (("part", mesh.faces[is_extra]), ("elsewhere", mesh.faces[~is_extra])):
        distances, _ = surface.closest(sample_surface(vertices, faces, POINTS, rng)[0])
        errors[name] = float(distances.mean())
    return errors
