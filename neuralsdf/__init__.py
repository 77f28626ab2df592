"""
neuralsdf
---------
Triangle meshes as small neural signed distance fields: convert a mesh to a few kilobytes, then render,
extract and query it without going back to triangles.

    from neuralsdf.pipeline.convert import convert
    from neuralsdf.storage import open_field, save_field

    save_field(convert("bunny.obj").field, "bunny.h5")
    field = open_field("bunny.h5")

Every command has a function of its name in the module of its name; importing this package imports none.
`neuralsdf.Dataset` reads the data set of many shapes that batch-convert writes.
"""

from __future__ import annotations

from .version import __version__

TYPE_CHECKING = False  # typing's own takes a while to import, and until then Ctrl-C gives a traceback
if TYPE_CHECKING:
    from typing import Any

    from .storage.dataset import Dataset

__all__ = ["Dataset", "__version__"]


def __getattr__(name: str) -> Any:
    if name == "Dataset":
        from .storage.dataset import Dataset

        return Dataset
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
