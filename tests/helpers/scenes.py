"""Writers of small 3MF and glTF files, for tests."""

from __future__ import annotations

import json
import struct
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from .shapes import Arrays, box

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


COMPONENTS = {"i1": 5120, "u1": 5121, "i2": 5122, "u2": 5123, "u4": 5125, "f4": 5126}
TYPES = {1: "SCALAR", 2: "VEC2", 3: "VEC3", 4: "VEC4", 16: "MAT4"}


class Gltf:
    """A glTF with one buffer; `tree` is its JSON, to be changed at will."""

    def __init__(self) -> None:
        self.blob = b""
        self.tree: dict[str, Any] = {
            "asset": {"version": "2.0"},
            "scene": 0,
            "scenes": [{"nodes": [0]}],
            "nodes": [{"mesh": 0}],
            "meshes": [],
            "accessors": [],
            "bufferViews": [],
            "buffers": [{}],
        }

    def view(self, data: bytes, **more: Any) -> int:
        """A buffer view, and its index."""
        self.blob += bytes(-len(self.blob) % 8)
        self.tree["bufferViews"].append(
            {"buffer": 0, "byteOffset": len(self.blob), "byteLength": len(data), **more}
        )
        self.blob += data
        return len(self.tree["bufferViews"]) - 1

    def accessor(
        self, values: npt.ArrayLike, code: str = "f4", stride: int | None = None, **more: Any
    ) -> int:
        """An accessor of values (n, width), and its index; stride: bytes from row to row."""
        rows = np.asarray(values).astype(f"<{code}")
        rows = rows[:, None] if rows.ndim == 1 else rows
        size = rows.dtype.itemsize * rows.shape[1]
        strided = {} if stride is None else {"byteStride": stride}
        data = b"".join(row.tobytes() + bytes((stride or size) - size) for row in rows)
        self.tree["accessors"].append(
            {
                "bufferView": self.view(data, **strided),
                "componentType": COMPONENTS[code],
                "count": len(rows),
                "type": TYPES[rows.shape[1]],
                **more,
            }
        )
        return len(self.tree["accessors"]) - 1

    def mesh(self, mesh: Arrays, code: str = "u2", **primitive: Any) -> int:
        """A mesh of one primitive, and its index."""
        position, indices = self.accessor(mesh[0]), self.accessor(mesh[1].ravel(), code)
        self.tree["meshes"].append(
            {"primitives": [{"attributes": {"POSITION": position}, "indices": indices, **primitive}]}
        )
        return len(self.tree["meshes"]) - 1

    @property
    def primitive(self) -> dict[str, Any]:
        """The first primitive of the first mesh."""
        first: dict[str, Any] = self.tree["meshes"][0]["primitives"][0]
        return first

    def glb(self) -> bytes:
        """The whole file."""
        self.tree["buffers"][0]["byteLength"] = len(self.blob)
        return glb(self.tree, self.blob)


def glb(tree: dict[str, Any], blob: bytes) -> bytes:
    """A GLB of JSON and a binary chunk."""
    text = json.dumps(tree).encode()
    text += b" " * (-len(text) % 4)
    chunks = (
        struct.pack("<II", len(text), 0x4E4F534A) + text + struct.pack("<II", len(blob), 0x004E4942) + blob
    )
    return b"glTF" + struct.pack("<II", 2, 12 + len(chunks)) + chunks


def two_boxes(uri: str | None = None) -> tuple[dict[str, Any], bytes]:
    """A scene with a box and a mirrored copy of it, twice as large; JSON and buffer."""
    file = Gltf()
    file.mesh(box(1, 2, 3))
    # Column by column: scale 2, x mirrored, y + 5.
    matrix = [-2, 0, 0, 0, 0, 2, 0, 0, 0, 0, 2, 0, 0, 5, 0, 1]
    file.tree["nodes"] += [{"matrix": matrix, "children": [2]}, {"mesh": 0, "translation": [9, 0, 0]}]
    file.tree["scenes"] = [{"nodes": [0, 1]}]
    file.tree["buffers"] = [{"byteLength": len(file.blob)} | ({"uri": uri} if uri else {})]
    return file.tree, file.blob
