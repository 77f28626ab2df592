"""
neuralsdf
---------
Converts triangle meshes to small neural signed distance fields. Fields can be rendered, meshed, queried and
combined without the triangles.

    import neuralsdf as ns

    field = ns.convert("bunny.obj")                         # or a trimesh.Trimesh, or vertices and faces
    field.save("bunny.h5")
    field = ns.load("bunny.h5")
    distances = field.distance(points)                      # (...,) at points (..., 3), negative inside
    exact = ns.load("bunny.obj")                            # the exact distance to a mesh, as a field
    exact = ns.exact(mesh)                                  # to a trimesh.Trimesh, or vertices and faces
    part = field - ns.smooth(0.004, ns.sphere(0.03).translate(0, 0.12, 0))   # CSG of any fields is a field
    part.save("part.csg")
    part.to_mesh().export("part.stl")                       # a trimesh.Trimesh
    part.render(width=512, height=512).save("part.png")     # a PIL image

Names are imported on first use, so that importing this package is fast.
"""

from __future__ import annotations

from importlib import import_module

from .version import __version__

TYPE_CHECKING = False  # importing `typing` is slow, and Ctrl-C during the import gives a traceback
if TYPE_CHECKING:
    from .csg import (
        box,
        capsule,
        cone,
        cylinder,
        ellipsoid,
        plane,
        rounded_box,
        smooth,
        sphere,
        torus,
        union,
    )
    from .errors import (
        BackendError,
        FieldKindError,
        FileError,
        FitError,
        MeshError,
        ModelError,
        NeuralSDFError,
        NoInteriorError,
        NoSurfaceError,
        OutputError,
        UnknownShapeError,
        UsageError,
    )
    from .fields.exact_distance import exact
    from .fields.field import Field
    from .pipeline.convert import convert
    from .storage import load
    from .storage.dataset import Dataset
    from .thread_count import set_threads

__all__ = [
    "BackendError",
    "Dataset",
    "Field",
    "FieldKindError",
    "FileError",
    "FitError",
    "MeshError",
    "ModelError",
    "NeuralSDFError",
    "NoInteriorError",
    "NoSurfaceError",
    "OutputError",
    "UnknownShapeError",
    "UsageError",
    "__version__",
    "box",
    "capsule",
    "cone",
    "convert",
    "cylinder",
    "ellipsoid",
    "exact",
    "load",
    "plane",
    "rounded_box",
    "set_threads",
    "smooth",
    "sphere",
    "torus",
    "union",
]

#: The public names of each module.
_NAMES = {
    ".csg": (
        "box", "capsule", "cone", "cylinder", "ellipsoid", "plane", "rounded_box", "smooth", "sphere",
        "torus", "union",
    ),
    ".errors": (
        "BackendError", "FieldKindError", "FileError", "FitError", "MeshError", "ModelError",
        "NeuralSDFError", "NoInteriorError", "NoSurfaceError", "OutputError", "UnknownShapeError",
        "UsageError",
    ),
    ".fields.field": ("Field",),
    ".fields.exact_distance": ("exact",),
    ".thread_count": ("set_threads",),
    ".pipeline.convert": ("convert",),
    ".storage": ("load",),
    ".storage.dataset": ("Dataset",),
}  # fmt: skip
_MODULE_OF = {name: module for module, names in _NAMES.items() for name in names}


def __getattr__(name: str) -> object:
    if name not in _MODULE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(_MODULE_OF[name], __name__), name)
    return value


def __dir__() -> list[str]:
    return sorted({*__all__, *(name for name in globals() if name.startswith("__"))})
