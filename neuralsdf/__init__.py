"""
neuralsdf
---------
Triangle meshes as small neural signed distance fields: convert a mesh to a few kilobytes, then render,
extract and query it without going back to triangles.

    from neuralsdf.convert import convert
    from neuralsdf.storage import open_field, save_field

    save_field(convert("bunny.obj").field, "bunny.h5")
    field = open_field("bunny.h5")

Every command has a function of its name in the module of its name; importing this package imports none.
"""

from .version import __version__

__all__ = ["__version__"]
