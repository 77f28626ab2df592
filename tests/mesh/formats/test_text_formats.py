"""OBJ, OFF, PLY and STL as other programs write them: one cube in many variants, and truncated files."""

from __future__ import annotations

import re
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from neuralsdf.errors import MeshError
from neuralsdf.mesh.load_mesh import load_mesh
from neuralsdf.mesh.mesh import Mesh

from ...helpers.shapes import box

VERTICES, FACES = box(5, 5, 5)
CORNERS = VERTICES[FACES]


def volume(mesh: Mesh) -> float:
    a, b, c = np.moveaxis(mesh.vertices[mesh.faces], 1, 0)
    return float(np.einsum("ij,ij->i", a, np.cross(b, c)).sum() / 6)


def load(tmp_path: Path, suffix: str, content: str | bytes) -> Mesh:
    path = tmp_path / f"cube.{suffix}"
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return load_mesh(path)


def is_cube(mesh: Mesh) -> bool:
    return len(mesh.faces) == 12 and mesh.findings.closed and volume(mesh) == pytest.approx(1000)


# --- OBJ -------------------------------------------------------------------------------------------

V = "".join(f"v {x} {y} {z}\n" for x, y, z in VERTICES)
F = "".join(f"f {a} {b} {c}\n" for a, b, c in FACES + 1)
OBJ = V + F

OBJS: dict[str, str | bytes] = {
    "comment ends in a backslash": "# C:\\models\\\n" + V + F.replace("\n", " # a\\\n", 1),
    "names end in a backslash": "mtllib C:\\\no a\\\ng b\\\n" + V + "usemtl c\\\ns 1\\\n" + F,
    "continued": V.replace(" ", " \\\n") + F.replace(" ", " \\\n"),
    "continued, with a blank behind": V + F.replace(" ", " \\ \t\n"),
    "continued on Windows": (V + F.replace(" ", " \\ \n")).replace("\n", "\r\n"),
    "continued on old Macs": (V + F.replace(" ", "\\\n ")).replace("\n", "\r"),
    "old Macs": OBJ.replace("\n", "\r"),
    "UTF-8 with a byte order mark": "\ufeff" + OBJ,
    "UTF-16": OBJ.encode("utf-16"),
    "UTF-16, big-endian": ("\ufeff" + OBJ).encode("utf-16-be"),
    "UTF-16 without a byte order mark": OBJ.encode("utf-16-le"),
    "UTF-16, big-endian, without a byte order mark": OBJ.encode("utf-16-be"),
    "UTF-16 on Windows, with names": ("o Würfel 立方体\n" + OBJ).replace("\n", "\r\n").encode("utf-16"),
    "names that are no UTF-8": b"o W\xfcrfel\n" + OBJ.encode(),
    "fo": V + F.replace("f ", "fo "),
    "relative": V + "".join(f"f {a} {b} {c}\n" for a, b, c in FACES - 8),
    "weights": V.replace("\n", " 1.0\n") + F,
    "colours": V.replace("\n", " 0.1 0.2 nan\n") + F,
    "numbers of other forms": V.replace(" 5.0", " +.5E1") + F.replace("f ", "f +").replace(" 1\n", " 01/\n"),
    "no line end": OBJ.rstrip(),
    "comments and blanks behind": OBJ + "\n# end\n\n   \n#\n",
}  # fmt: skip


@pytest.mark.parametrize("name", OBJS)
def test_obj_files_are_read(tmp_path: Path, name: str) -> None:
    assert is_cube(load(tmp_path, "obj", OBJS[name]))


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (V + "f 1 2 1" + "0" * 30 + "\n" + F, r"face 1: vertex index out of range \(8 vertices\)"),
        (V + "f 1 2 -1" + "0" * 30 + "\n" + F, "face 1: vertex index out of range"),
        (V + "f 1 2 1" + "0" * 9999 + "\n" + F, "face 1: vertex index out of range"),
        (V + "f 1 2 1_0\n" + F, "line 9: invalid vertex index '1_0'"),
        (V + "f 1 2 /3\n" + F, "line 9: invalid vertex index ''"),
        (V.replace("\n", "\r\n") + "v 0 0 zero\r\n" + F, "line 9: invalid coordinate 'zero'"),
        ("# \\\nv 1 \\\n 2 \\\n 3\nv 0 0 0..0\n" + F, r"line 5: invalid coordinate '0\.\.0'"),
        (V + F * 3000 + "f 1 2 x\n" + F, "line 36009: invalid vertex index 'x'"),
        (V + F[:-2], "is truncated: its last line ends at"),
    ],
)
def test_errors_of_obj_files_name_the_line(tmp_path: Path, content: str, reason: str) -> None:
    with pytest.raises(MeshError, match=reason):
        load(tmp_path, "obj", content)


# --- OFF -------------------------------------------------------------------------------------------

OFF_FACES = "".join(f"3 {a} {b} {c}\n" for a, b, c in FACES)


def off(keyword: str, more: str = "", counts: str = "8 12 18\n") -> str:
    return keyword + counts + "".join(f"{x} {y} {z}{more}\n" for x, y, z in VERTICES) + OFF_FACES


def binary_off(
    order: str,
    *,
    normals: bool = False,
    vertex_colours: bool = False,
    colours: int | None = None,
    quads: bool = False,
) -> bytes:
    """colours: how many numbers each face has; None for files without that count."""
    keyword = b"C" * vertex_colours + b"N" * normals + b"OFF BINARY\n"
    faces: list[list[int]] = FACES.tolist()
    if quads:  # a cube of four triangles and four quads
        faces = [
            [0, 1, 3, 2],
            [4, 6, 7, 5],
            [0, 4, 5, 1],
            [2, 3, 7, 6],
            [0, 2, 6],
            [0, 6, 4],
            [1, 5, 7],
            [1, 7, 3],
        ]
    content = keyword + struct.pack(f"{order}3i", 8, len(faces), 0)
    for point in cube_corners() if quads else VERTICES.tolist():
        more = [0.0, 0.0, 1.0] * normals + [0.5, 0.5, 0.5, 1.0] * vertex_colours
        content += struct.pack(f"{order}{3 + len(more)}f", *point, *more)
    for face in faces:
        content += struct.pack(f"{order}{len(face) + 1}i", len(face), *face)
        if colours is not None:
            content += struct.pack(f"{order}i{colours}f", colours, *[0.5] * colours)
    return content


def cube_corners() -> list[list[float]]:
    return [[5.0 * (2 * (i >> axis & 1) - 1) for axis in (2, 1, 0)] for i in range(8)]


OFFS: dict[str, str | bytes] = {
    **{word: off(f"{word}\n", " 9 9 9 9 9 9") for word in (
        "OFF", "NOFF", "COFF", "STOFF", "CNOFF", "NCOFF", "CSTOFF", "NCSTOFF", "off", "Noff", "noff"
    )},
    "no keyword": off(""),
    "no keyword, a comment": off("# made by hand\n"),
    "comments everywhere": "# a\n\nOFF # b\n# c\n" + off("", " # d", "8 12 # e\n#f\n").replace("3 ", "#\n3 "),
    "counts in a line each": off("OFF\n", "", "8\n12\n18\n"),
    "counts beside the keyword": off("OFF "),
    "one line": off("OFF\n").replace("\n", " "),
    "one line with normals and colours": off("NCOFF\n", " 9 9 9 1 1 1 1").replace("\n", " "),
    "two rows a line": "# a\n" + re.sub(r"(.*)\n(.*)\n", "\\1 \\2 # b\n", off("OFF\n")),
    "a corner a line": off("OFF\n").replace(" ", "\n"),
    "old Macs": off("OFF\n").replace("\n", "\r"),
    "UTF-16": off("OFF\n").encode("utf-16"),
    "byte order mark": "\ufeff" + off("OFF\n"),
    "face colours": off("OFF\n").replace(OFF_FACES, OFF_FACES.replace("\n", " 3 255 0 0\n")),
    **{f"binary {order} {options}": binary_off(order, **options) for order in "><" for options in (
        {}, {"colours": 0}, {"colours": 4}, {"normals": True}, {"quads": True}, {"quads": True, "colours": 3},
        {"normals": True, "vertex_colours": True, "colours": 3},
    )},
}  # fmt: skip


@pytest.mark.parametrize("name", OFFS)
def test_off_files_are_read(tmp_path: Path, name: str) -> None:
    assert is_cube(load(tmp_path, "off", OFFS[name]))


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("options", [{}, {"colours": 0}, {"quads": True, "colours": 4}])
def test_a_truncated_binary_off_is_refused(tmp_path: Path, order: str, options: dict[str, Any]) -> None:
    whole = binary_off(order, **options)
    for cut in (1, 4, 17, 60, len(whole) - 12):
        with pytest.raises(MeshError, match="is truncated or damaged"):
            load(tmp_path, "off", whole[:-cut])


@pytest.mark.parametrize("more", ["", " 9 9 9", " 9 9 9 9 9 9"])
@pytest.mark.parametrize("line_end", ["\n", " "])
def test_a_truncated_off_is_refused(tmp_path: Path, more: str, line_end: str) -> None:
    """For any line breaks; a coordinate is not mistaken for a count."""
    whole = off("OFF\n", more).replace("\n", line_end)
    for cut in range(2, len(whole) - 3, 7):
        with pytest.raises(MeshError, match=r"is truncated|lacks its counts|invalid co"):
            load(tmp_path, "off", whole[:-cut])


@pytest.mark.parametrize("keyword", ["4OFF", "nOFF", "CNnOFF", "4nOFF", "ST4OFF"])
def test_an_off_of_other_dimensions_is_refused(tmp_path: Path, keyword: str) -> None:
    with pytest.raises(MeshError, match="is an OFF that is not three-dimensional"):
        load(tmp_path, "off", off(f"{keyword}\n"))


# --- PLY -------------------------------------------------------------------------------------------

PLY_HEADER = (
    "ply\nformat ascii 1.0\nelement vertex 8\nproperty float x\nproperty float y\nproperty float z\n"
    "element face 12\nproperty list uchar int vertex_indices\nend_header\n"
)
PLY_BODY = "".join(f"{x} {y} {z}\n" for x, y, z in VERTICES) + OFF_FACES
PLY = PLY_HEADER + PLY_BODY
BINARY_PLY_HEADER = PLY_HEADER.replace("ascii", "binary_little_endian")
BINARY_PLY_BODY = VERTICES.astype("<f4").tobytes() + b"".join(
    struct.pack("<B3i", 3, *face) for face in FACES.tolist()
)


def strips() -> str:
    """Each triangle as a strip, separated by -1, in two rows."""
    rows = [
        " ".join(f"{a} {b} {c} -1" for a, b, c in half) for half in (FACES[:5].tolist(), FACES[5:].tolist())
    ]
    return "20 " + rows[0] + "\n28 " + rows[1] + "\n"


PLYS: dict[str, str | bytes] = {
    "vertex_indexes": PLY.replace("vertex_indices", "vertex_indexes"),
    "vertex_index": PLY.replace("vertex_indices", "vertex_index"),
    "capital axes": PLY.replace(" x\n", " X\n").replace(" y\n", " Y\n").replace(" z\n", " Z\n"),
    "capital header": PLY_HEADER.upper() + PLY_BODY,
    "comments": PLY.replace("element", "comment x\nobj_info y z\ncomment\n\nelement"),
    "old Macs": PLY.replace("\n", "\r"),
    "Windows": PLY.replace("\n", "\r\n"),
    "UTF-16": PLY.encode("utf-16"),
    "byte order mark": "\ufeff" + PLY,
    "elements before": (PLY_HEADER + "1 2\n3 4 5 6 7\n" + PLY_BODY).replace(
        "element vertex", "element a 1\nproperty int u\nproperty int v\nelement b 1\n"
        "property list uchar float w\nproperty float x\nelement vertex"
    ),
    "rows over several lines": PLY.replace(PLY_BODY, PLY_BODY.replace(" ", "\n")),
    "indices as numbers with a point": PLY.replace("uchar int", "uchar float").replace(
        OFF_FACES, "".join(f"3 {a}.0 {b}.0 {c}.0\n" for a, b, c in FACES)),
    "strips": PLY.replace("face 12", "tristrips 2").replace(OFF_FACES, strips()),
    "no faces, but strips": PLY.replace(
        "element face 12\n", "element face 0\nproperty list uchar int vertex_indices\nelement tristrips 2\n"
    ).replace(OFF_FACES, strips()),
    "faces and strips": PLY.replace(
        "face 12", "face 5\nproperty list uchar int vertex_indices\nelement tristrips 1"
    ).replace(OFF_FACES, "".join(OFF_FACES.splitlines(True)[:5]) + strips().splitlines()[1]),
    "binary": BINARY_PLY_HEADER.encode() + BINARY_PLY_BODY,
    "binary, header of Windows": BINARY_PLY_HEADER.replace("\n", "\r\n").encode() + BINARY_PLY_BODY,
    "binary, header of old Macs, body starts like a line end": BINARY_PLY_HEADER.replace(
        "element vertex", "element a 1\nproperty uchar q\nelement vertex"
    ).replace("\n", "\r").encode() + b"\n" + BINARY_PLY_BODY,
    "binary, byte order mark": b"\xef\xbb\xbf" + BINARY_PLY_HEADER.encode() + BINARY_PLY_BODY,
}  # fmt: skip


@pytest.mark.parametrize("name", PLYS)
def test_ply_files_are_read(tmp_path: Path, name: str) -> None:
    assert is_cube(load(tmp_path, "ply", PLYS[name]))


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (PLY.replace("property float x", "property list uchar float x"), "has a list for a coordinate"),
        (PLY.replace("list uchar int", "int"), "has one number, not a list, for the corners of each face"),
        (
            PLY.replace("face 12", "face 5\nproperty list uchar int vertex_indices\nelement face 7"),
            "has several elements called 'face'",
        ),
        (PLY.replace("3 ", "three ", 1), "line 18: invalid count 'three'"),
        (PLY[:-8], "is truncated"),
        (
            PLY_HEADER.replace("end_header", "comment " + "x" * 300_000 + "\nend_header"),
            "no header of at most",
        ),
    ],
)
def test_a_broken_ply_is_refused(tmp_path: Path, content: str, reason: str) -> None:
    with pytest.raises(MeshError, match=reason):
        load(tmp_path, "ply", content)


# --- STL -------------------------------------------------------------------------------------------


def text_facets(start: int = 0, stop: int = 12) -> str:
    return "".join(
        "  facet normal 0 0 1\n    outer loop\n"
        + "".join(f"      vertex {x:e} {y:e} {z:e}\n" for x, y, z in triangle)
        + "    endloop\n  endfacet\n"
        for triangle in CORNERS[start:stop]
    )


STL = f"solid part\n{text_facets()}endsolid part\n"
ONE_LINE = STL.replace("\n", " ").replace("  facet", "\nfacet").replace("endsolid", "\nendsolid")

TEXT_STLS: dict[str, str | bytes] = {
    "leading blanks": " \n\t" + STL,
    "byte order mark": "\ufeff" + STL,
    "UTF-16": STL.encode("utf-16"),
    "end solid": STL.replace("endsolid part", "end solid my part"),
    "end facet and end loop": STL.replace("endfacet", "end facet").replace("endloop", "end loop"),
    "other name": STL.replace("endsolid part", "endsolid another one"),
    "no name": STL.replace("solid part", "solid"),
    "names of keywords": STL.replace("solid part", "solid vertex facet endfacet"),
    "one line a facet": ONE_LINE,
    "one line": STL.replace("\n", " "),
    "capitals": STL.upper(),
    "Ctrl-Z": STL + "\x1a",
    "null bytes": STL + "\0" * 100,
    "comment behind": STL + "; exported in 2020\n# vertex count 8, facet count 12\n",
    "blank lines behind": STL + "\n \n\n",
    "several solids": f"solid a\n{text_facets(0, 5)}endsolid a\n\nsolid\n{text_facets(5, 6)}endsolid\n"
    f"solid c\n{text_facets(6)}endsolid c\n",
    "an empty solid": "solid a\nendsolid a\n" + STL,
    "no solid": text_facets() + "endsolid\n",
    "old Macs": STL.replace("\n", "\r"),
    "Windows": STL.replace("\n", "\r\n"),
}  # fmt: skip


@pytest.mark.parametrize("name", TEXT_STLS)
def test_text_stl_files_are_read(tmp_path: Path, name: str) -> None:
    mesh = load(tmp_path, "stl", TEXT_STLS[name])
    assert is_cube(mesh)
    assert mesh.findings.line() == ""


def test_a_text_stl_without_an_end_is_read_with_a_warning(tmp_path: Path) -> None:
    mesh = load(tmp_path, "stl", STL[: STL.index("endsolid")])
    assert is_cube(mesh)
    assert "no 'endsolid' at the end: the file may be incomplete" in mesh.findings.line()


def test_a_text_stl_truncated_inside_a_facet_is_refused(tmp_path: Path) -> None:
    begin, end = STL.rindex("  facet"), STL.index("endsolid")
    for cut in range(begin + 4, end - 2, 3):
        with pytest.raises(MeshError, match="in the middle of a facet or solid"):
            load(tmp_path, "stl", STL[:cut])
    for content in (STL + "solid b\n fac", STL + text_facets(0, 1)[:-20], STL + "solid b"):
        with pytest.raises(MeshError, match="is truncated"):
            load(tmp_path, "stl", content)


@pytest.mark.parametrize("lost", [1, 2])
def test_a_facet_of_a_text_stl_has_three_vertices(tmp_path: Path, lost: int) -> None:
    lines = STL.splitlines(keepends=True)
    with pytest.raises(MeshError, match=f"line {15 - lost}: a facet with {3 - lost} vert.* instead of 3"):
        load(tmp_path, "stl", "".join(lines[:10] + lines[10 + lost :]))


def binary_stl(header: bytes = b"cad", count: int = 12) -> bytes:
    rows = b"".join(struct.pack("<3f9fH", 0, 0, 1, *triangle.ravel(), 0) for triangle in CORNERS)
    return header.ljust(80) + count.to_bytes(4, "little") + rows


@pytest.mark.parametrize("header", [b"cad", b"solid of a binary file", b"\0" * 80])
@pytest.mark.parametrize(
    ("count", "trailing", "said"),
    [
        (12, b"", ""),
        (12, b"\0\0", ""),
        (12, b"made by someone", "15 bytes after the last face ignored"),
        (0, b"", "header says 0 faces, but the file holds 12"),
        (0xFFFFFFFF, b"", "but the file holds 12"),
        (0, b"\r\n", "but the file holds 12"),
        (7, b"", "header says 7 faces, but the file holds 12"),
    ],
)
def test_binary_stl_files_are_read(
    tmp_path: Path, header: bytes, count: int, trailing: bytes, said: str
) -> None:
    mesh = load(tmp_path, "stl", binary_stl(header, count) + trailing)
    assert is_cube(mesh)
    assert said in mesh.findings.line() if said else mesh.findings.line() == ""


@pytest.mark.parametrize("count", [12, 0, 0xFFFFFFFF])
@pytest.mark.parametrize("cut", [1, 20, 40, 30 + 500])
def test_a_truncated_binary_stl_is_refused(tmp_path: Path, count: int, cut: int) -> None:
    with pytest.raises(MeshError, match="is truncated, or not an STL"):
        load(tmp_path, "stl", binary_stl(count=count)[:-cut])


# --- all -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("magic", "packer"), [(b"\x1f\x8b\x08", "gzip"), (b"BZh9", "bzip2"), (b"\xfd7zXZ\0", "xz")]
)
@pytest.mark.parametrize("suffix", ["obj", "stl", "ply", "off"])
def test_compressed_files_are_refused_with_a_remedy(
    tmp_path: Path, magic: bytes, packer: str, suffix: str
) -> None:
    with pytest.raises(MeshError, match=f"is compressed with {packer}; unpack it first"):
        load(tmp_path, suffix, magic + bytes(range(256)))


def test_reported_files_have_their_known_volumes(test_data: Path) -> None:
    paths = [
        path
        for pattern in ("obj_*", "off_*", "ply_*", "stl_text_*", "stl_binary_*")
        for path in (test_data / "meshes" / "reported").glob(pattern)
    ]
    assert len(paths) == 17
    for path in paths:
        assert is_cube(load_mesh(path)), path.name


def test_the_binary_off_is_read(test_data: Path) -> None:
    mesh = load_mesh(test_data / "meshes" / "dense" / "amo.off")
    assert (len(mesh.vertices), len(mesh.faces), mesh.findings.closed) == (90112, 180220, True)
