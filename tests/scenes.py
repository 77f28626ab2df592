"""Writers of small 3MF and glTF files, for tests."""

from __future__ import annotations

import zipfile
from pathlib import Path

from .shapes import Arrays

CORE = "http://schemas.microsoft.com/3dmanufacturing/core/2015/02"
PRODUCTION = "http://schemas.microsoft.com/3dmanufacturing/production/2015/06"
BEAMS = "http://schemas.microsoft.com/3dmanufacturing/beamlattice/2017/02"
BALLS = "http://schemas.microsoft.com/3dmanufacturing/beamlattice/balls/2020/07"
SLICES = "http://schemas.microsoft.com/3dmanufacturing/slice/2015/07"


def model_3mf(objects: str, items: str, prolog: str = "", attributes: str = 'unit="millimeter"') -> str:
    """The XML of a model part."""
    return (
        f'<?xml version="1.0" encoding="UTF-8"?>{prolog}<model {attributes} xmlns="{CORE}" '
        f'xmlns:p="{PRODUCTION}" xmlns:b="{BEAMS}" xmlns:bb="{BALLS}" xmlns:s="{SLICES}" '
        f'xmlns:x="http://example.com/unknown"><resources>{objects}</resources><build>{items}</build></model>'
    )


def write_3mf(path: Path, model: str | bytes, parts: dict[str, str] | None = None) -> Path:
    """An archive with a main part, and others by name."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("3D/3dmodel.model", model)
        for name, content in (parts or {}).items():
            archive.writestr(name, content)
    return path


def relationships(target: str) -> str:
    """The `_rels/.rels` of a package whose main part is `target`."""
    return (
        '<?xml version="1.0"?><Relationships '
        'xmlns="http://schemas.openxmlformats.org/package/2006/relationships"><Relationship Id="a" '
        'Type="http://schemas.openxmlformats.org/package/2006/relationships/metadata/thumbnail" '
        f'Target="/a.png"/><Relationship Target="{target}" Id="b" '
        'Type="http://schemas.microsoft.com/3dmanufacturing/2013/01/3dmodel"/></Relationships>'
    )


def mesh_3mf(mesh: Arrays, extra: str = "") -> str:
    """A mesh element, with more in it after the triangles."""
    vertices = "".join(f'<vertex x="{x}" y="{y}" z="{z}"/>' for x, y, z in mesh[0])
    faces = "".join(f'<triangle v1="{a}" v2="{b}" v3="{c}"/>' for a, b, c in mesh[1])
    return f"<mesh><vertices>{vertices}</vertices><triangles>{faces}</triangles>{extra}</mesh>"


def object_3mf(mesh: Arrays) -> str:
    """Object 1, a mesh, and object 2, which has it twice, 9 apart."""
    return (
        f'<object id="1" type="model">{mesh_3mf(mesh)}</object>'
        '<object id="2" type="model"><components><component objectid="1"/>'
        '<component objectid="1" transform="1 0 0 0 1 0 0 0 1 9 0 0"/></components></object>'
    )
