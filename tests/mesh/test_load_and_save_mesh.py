"""Mesh files: which load, which are refused and why, and round trips."""

from __future__ import annotations

import json
import os
import struct
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import trimesh
from hypothesis import given, settings
from hypothesis import strategies as st

from neuralsdf.errors import MeshError, NeuralSDFError, OutputError, UsageError
from neuralsdf.mesh.load_mesh import load_mesh, load_raw_mesh
from neuralsdf.mesh.mesh import Mesh
from neuralsdf.mesh.save_mesh import check_mesh_output, save_mesh

from ..helpers.scenes import glb, model_3mf, object_3mf, two_boxes, write_3mf
from ..helpers.shapes import sphere

SUFFIXES = [".ply", ".obj", ".off", ".stl", ".glb"]
BALL = sphere(subdivisions=1)


def write(path: Path, content: str | bytes) -> Path:
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def corners(mesh: Mesh) -> npt.NDArray[np.float64]:
    return mesh.vertices[mesh.faces]


def same_triangles(mesh: Mesh, expected: npt.NDArray[Any]) -> bool:
    """Whether both have the same oriented triangles, in any order and with any first corner."""

    def canonical(triangles: npt.NDArray[Any]) -> list[tuple[float, ...]]:
        rounded = np.round(triangles, 6) + 0.0
        turns = [[tuple(np.roll(t, k, axis=0).ravel()) for k in range(3)] for t in rounded]
        return sorted(min(turn) for turn in turns)

    return canonical(corners(mesh)) == canonical(expected)


# --- real files ------------------------------------------------------------------------------------

CLOSED, OPEN, MISORIENTED = "closed", "open", "not closed because of inconsistent orientation"

#: Every file of meshes/messy: its kind, its number of faces after cleaning, and the expected findings.
LOADS: dict[str, tuple[str, int, str]] = {
    "2triangles.off": (OPEN, 2, "open: 4 boundary edges"),
    "AlphaBlendModeTest.glb": (OPEN, 61, "open: 69 boundary edges"),
    "beetle.obj": (OPEN, 2053, "open: 296 boundary edges; 47 non-manifold edges"),
    "busted.STL": (CLOSED, 3878, ""),
    "chair_0891.off": (OPEN, 4821, "13 edges of inconsistent orientation; 831 duplicate faces"),
    "comments.off": (CLOSED, 12, ""),
    "cube_and_sphere_same_name.3mf": (CLOSED, 5132, ""),
    "derived_cheburashka_drop10.obj": (OPEN, 12008, "open: 3570 boundary edges"),
    "derived_cheburashka_flip30.off": (MISORIENTED, 13334, "8359 edges of inconsistent orientation"),
    "derived_cow_inverted.ply": (CLOSED, 5804, ""),
    "derived_cow_offset_1e6.off": (CLOSED, 5804, ""),
    "derived_cow_scale_1e-9.ply": (CLOSED, 5804, ""),
    "derived_fertility_is_off.stl": (CLOSED, 9000, "content is OFF although the name ends in .stl"),
    "derived_homer_dup500_degen300.ply": (MISORIENTED, 12500, "500 duplicate faces; 300 degenerate faces"),
    "derived_plate_is_stl.ply": (CLOSED, 1252, "content is STL although the name ends in .ply"),
    "derived_two_elephants_overlap.ply": (CLOSED, 24128, ""),
    "edge_with_four_triangles.off": (OPEN, 4, "open: 8 boundary edges; 1 non-manifold edge"),
    "hourglass_ico.obj": (CLOSED, 40, ""),
    "inspired_mesh_quads_Smooth.off": (OPEN, 3676, "open: 248 boundary edges"),
    "moebius.obj": (OPEN, 448, "open: 112 boundary edges; 4 edges of inconsistent orientation"),
    "nancolor.obj": (CLOSED, 12, ""),
    "negative_indices.obj": (CLOSED, 12, ""),
    "nested.glb": (CLOSED, 36, ""),
    "no_indices_3storybuilding.glb": (CLOSED, 72, "26 non-manifold edges; 8 duplicate faces"),
    "not_convex.obj": (CLOSED, 96, "12 non-manifold edges"),
    "notenoughindices.obj": (OPEN, 1, "1 face with fewer than three corners skipped; open: 3 boundary edges"),
    "ogre.obj": (OPEN, 124004, "open: 200 boundary edges; 4 degenerate faces left out"),
    "planexy.off": (OPEN, 32, "open: 16 boundary edges"),
    "polygonfaces.obj": (OPEN, 3, "open: 5 boundary edges"),
    "shared.STL": (CLOSED, 24, "1 non-manifold edge"),
    "soup.stl": (OPEN, 100, "open: 300 boundary edges"),
    "triple_vierbein.obj": (OPEN, 108, "20 non-manifold edges; 3 edges of inconsistent orientation"),
    "truck.obj": (OPEN, 4770, "open: 1388 boundary edges; 54 non-manifold edges; 64 edges of inconsistent"),
    "wallhole.obj": (CLOSED, 57, "1 non-manifold edge; 9 degenerate faces left out"),
    "woody.obj": (OPEN, 1267, "open: 119 boundary edges"),
}  # fmt: skip

#: And those that are refused, with the reason.
REFUSED: dict[str, str] = {
    "collapse_initial_state_104985.obj": "has no faces, only 45978 't' lines",
    "derived_bunny_points_only.ply": "is a point cloud: 34834 points, no faces",
    "derived_duck_truncated.glb": "is truncated: its header says 120484 bytes, but it has 60242",
    "derived_homer_truncated.stl": "is truncated, or not an STL: its header says 12000 faces",
    "derived_horse_bad_index.off": r"face 6: vertex index out of range \(2400 vertices\)",
    "derived_html_page.stl": r"is a web page \(HTML\), not a mesh",
    "derived_random_bytes.stl": "is truncated, or not an STL: its header says 243765408 faces",
    "derived_spot_nan5.obj": r"vertex 10 has non-finite coordinates .*used by faces.* so are 4 more",
    "derived_spot_spike_1e30.ply": r"vertex 77 at \(0, 1e\+30, 0.891691\) is so far away",
    "derived_suzanne_truncated.obj": "is truncated: its last line ends at 'f 249//249 251//251 2'",
    "derived_zero_bytes.obj": "is empty",
    "derived_zero_bytes.stl": "is empty",
    "empty.obj": "has no vertices and no faces",
    "obj_wireframe.obj": "is a wireframe: 12 lines, no faces",
    "ply_empty_header.ply": "has no vertices and no faces",
    "points_bin.ply": "is a point cloud: 5 points, no faces",
    "points_emptyface.ply": "is a point cloud: 1024 points, no faces",
    "stl_empty_bin.stl": "has no faces",
}


def test_every_messy_file_has_a_row(test_data: Path) -> None:
    files = {path.name for path in (test_data / "meshes" / "messy").iterdir()}
    assert files == LOADS.keys() | REFUSED.keys()
    assert not LOADS.keys() & REFUSED.keys()


@pytest.mark.parametrize("name", LOADS)
def test_messy_files_that_load(test_data: Path, name: str) -> None:
    kind, faces, said = LOADS[name]
    path = test_data / "meshes" / "messy" / name
    mesh = load_mesh(path)
    line = mesh.findings.line()
    assert len(mesh.faces) == faces
    assert mesh.findings.closed == (kind == CLOSED)
    assert (mesh.findings.boundary_edges > 0) == (kind == OPEN)
    assert said in line if said else line == ""
    assert kind == CLOSED or kind in line
    assert mesh.source.name == name
    assert mesh.source.bytes == path.stat().st_size


@pytest.mark.parametrize("name", REFUSED)
def test_messy_files_that_are_refused(test_data: Path, name: str) -> None:
    path = test_data / "meshes" / "messy" / name
    with pytest.raises(MeshError, match=REFUSED[name]) as caught:
        load_mesh(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert caught.value.remedy
    assert "\n" not in str(caught.value)


def test_clean_files_have_the_area_and_volume_that_trimesh_reads(test_data: Path) -> None:
    """Area and volume of every mesh agree with an independent reader."""
    for path in sorted((test_data / "meshes").iterdir()):
        if path.is_dir() or path.suffix == ".md" or path.stat().st_size > 700_000:
            continue
        mesh, other = load_mesh(path), trimesh.load_scene(path, process=False).to_mesh()
        reference = trimesh.Trimesh(mesh.vertices, mesh.faces, process=False)
        assert mesh.source.faces == len(other.faces), path.name
        assert reference.area == pytest.approx(other.area, rel=1e-3), (
            path.name
        )  # quads may be split differently
        assert reference.volume == pytest.approx(other.volume, rel=1e-3, abs=1e-6 * reference.scale**3), (
            path.name
        )
        np.testing.assert_allclose(reference.bounds, other.bounds, rtol=1e-6, atol=1e-9, err_msg=path.name)


# --- round trips -----------------------------------------------------------------------------------


@pytest.mark.parametrize("scale", [1.0, 1e-9, 1e9])
@pytest.mark.parametrize("suffix", SUFFIXES)
def test_written_meshes_are_read_back(tmp_path: Path, suffix: str, scale: float) -> None:
    vertices, faces = BALL[0] * scale, BALL[1]
    save_mesh(tmp_path / f"ball{suffix}", vertices, faces)
    mesh = load_mesh(tmp_path / f"ball{suffix}")
    np.testing.assert_allclose(corners(mesh), vertices[faces], atol=2e-7 * scale)
    assert mesh.findings.closed
    assert mesh.findings.line() == ""
    assert len(mesh.vertices) == len(vertices)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_mesh_far_from_the_origin_survives_or_is_refused(tmp_path: Path, suffix: str) -> None:
    vertices, faces = BALL[0] + [1e6, -1e6, 1e6], BALL[1]
    if suffix == ".stl":
        with pytest.raises(OutputError, match=r"32-bit coordinates, too coarse .*; write PLY"):
            save_mesh(tmp_path / "far.stl", vertices, faces)
        assert list(tmp_path.iterdir()) == []
        return
    save_mesh(tmp_path / f"far{suffix}", vertices, faces)
    np.testing.assert_allclose(
        corners(load_mesh(tmp_path / f"far{suffix}")), vertices[faces], rtol=0, atol=1e-7
    )


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_trimesh_reads_written_meshes(tmp_path: Path, suffix: str) -> None:
    save_mesh(tmp_path / f"ball{suffix}", *BALL)
    mesh = trimesh.load_scene(tmp_path / f"ball{suffix}").to_mesh()
    assert mesh.is_watertight
    assert mesh.volume == pytest.approx(trimesh.Trimesh(*BALL).volume, rel=1e-6)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_the_same_mesh_gives_the_same_bytes(tmp_path: Path, suffix: str) -> None:
    for name in ("a", "b"):
        save_mesh(tmp_path / f"{name}{suffix}", *BALL)
    assert (tmp_path / f"a{suffix}").read_bytes() == (tmp_path / f"b{suffix}").read_bytes()


def test_outputs_are_checked_before_any_work(tmp_path: Path) -> None:
    for name in ("a.fbx", "a"):
        with pytest.raises(UsageError, match=r"one of \.glb, \.obj, \.off, \.ply, \.stl"):
            check_mesh_output(tmp_path / name)
    existing = write(tmp_path / "a.PLY", "old")
    with pytest.raises(OutputError, match="exists already"):
        save_mesh(existing, *BALL)
    assert existing.read_bytes() == b"old"
    save_mesh(existing, *BALL, force=True)
    assert len(load_mesh(existing).faces) == len(BALL[1])


# --- formats ---------------------------------------------------------------------------------------

SQUARE = np.array([[0.0, 0, 0], [1, 0, 0], [1, 1, 0], [0, 1, 0]])
TWO = SQUARE[[[0, 1, 2], [0, 2, 3]]]
PLY_SQUARE = "element vertex 4\nproperty float x\nproperty float y\nproperty float z\n"
V = "v 0 0 0\nv 1 0 0\nv 1 1 0\nv 0 1 0\n"

TEXTS = {
    "obj": V + "f 1 2 3\nf 1 3 4\n",
    "obj quad": V + "f 1 2 3 4\n",
    "obj with normals and texture": V + "vt 0 0\nvn 0 0 1\nf 1/1/1 2/1/1 3/1/1\nf 1//1 3//1 4//1\n",
    "obj relative": V + "f -4 -3 -2 -1\n",
    "obj relative, in between": "v 0 0 0\nv 1 0 0\nv 1 1 0\nf -3 -2 -1\nv 0 1 0\nf -4 -2 -1\n",
    "obj faces first": "f 1 2 3 4\n" + V,
    "obj with tabs, indents and continued lines": V.replace("v ", " v\t") + "f 1 2 \\\n3 4\n",
    "obj of Windows with a byte order mark": "\ufeff" + (V + "f 1 2 3 4 # a comment\n").replace("\n", "\r\n"),
    "obj of old Macs": (V + "f 1 2 3 4\n").replace("\n", "\r"),
    "obj with weights": V.replace("0\n", "0 1.0\n") + "f 1 2 3 4",
    "obj with colours": V.replace("0\n", "0 .1 .2 .3\n") + "f 1 2 3 4",
    "off": "OFF\n4 2 0\n0 0 0\n1 0 0\n1 1 0\n0 1 0\n3 0 1 2\n3 0 2 3\n",
    "off on one line": "OFF 4 1 0\n0 0 0\n1 0 0\n1 1 0\n0 1 0\n4 0 1 2 3",
    "off without a space": "OFF4 1 0\n0 0 0\n1 0 0\n1 1 0\n0 1 0\n4 0 1 2 3 255 0 0\n",
    "off without edges": "# made\n\nOFF # by\n4 1\n0 0 0\n1 0 0\n\n1 1 0\n0 1 0 # hand\n4 0 1 2 3\n",
    "off, corner by corner": "OFF\n4 1 0\n0 0 0\n1 0 0\n1 1 0\n0 1 0\n4 0\n1\n2\n3\n",
    "coff": "COFF\n4 1 0\n0 0 0 9 9 9 9\n1 0 0 9 9 9 9\n1 1 0 9 9 9 9\n0 1 0 9 9 9 9\n4 0 1 2 3\n",
    "ply": "ply\nformat ascii 1.0\n" + PLY_SQUARE + "element face 2\nproperty list uchar int vertex_index\n"
    "end_header\n0 0 0\n1 0 0\n1 1 0\n0 1 0\n3 0 1 2\n3 0 2 3\n",
    "ply, other order, colours, quads": "ply\r\nformat ascii 1.0\r\ncomment c\r\nobj_info i\r\n"
    "element extra 1\r\nproperty int n\r\nelement vertex 4\r\n"
    "property uchar red\r\nproperty double z\r\nproperty double x\r\n"
    "property double y\r\nelement face 1\r\nproperty list uchar int vertex_indices\r\nproperty uchar red\r\n"
    "end_header\r\n7\r\n1 0 0 0\r\n1 0 1 0\r\n1 0 1 1\r\n1 0 0 1\r\n4 0 1 2 3 255\r\n",
    "ply strip": "ply\nformat ascii 1.0\n" + PLY_SQUARE + "element tristrips 1\n"
    "property list int int vertex_indices\nend_header\n0 0 0\n1 0 0\n1 1 0\n0 1 0\n"
    "8 0 1 2 -1 2 3 0 -1\n",
    "stl": "solid s\n" + "".join(
        "facet normal 0 0 1\n outer loop\n" + "".join(f"  vertex {x} {y} {z}\n" for x, y, z in t)
        + " endloop\nendfacet\n" for t in TWO
    ) + "endsolid s\n",
    "STL in capitals, two solids": "".join(
        "SOLID vertex\nFACET NORMAL 0 0 1\nOUTER LOOP\n" + "".join(f"VERTEX {x:E} {y} {z}\n" for x, y, z in t)
        + "ENDLOOP\nENDFACET\nENDSOLID\n\n" for t in TWO
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", TEXTS)
def test_text_formats(tmp_path: Path, name: str) -> None:
    path = write(tmp_path / f"square.{name[:3].lower().replace('cof', 'off')}", TEXTS[name])
    mesh = load_mesh(path)
    assert same_triangles(mesh, TWO)
    assert mesh.findings.line() == "open: 4 boundary edges"
    # The suffix does not matter, but a wrong one is noted.
    renamed = load_mesh(write(tmp_path / "square.glb", TEXTS[name]))
    assert same_triangles(renamed, TWO)
    assert "although the name ends in .glb" in renamed.findings.line()


@pytest.mark.parametrize("name", ["obj", "off"])
@pytest.mark.parametrize("header", ["#" * 5000 + "\n", "# a line of a header\n" * 500, "\t \n#\r\n" * 2000])
def test_a_long_comment_header_does_not_matter(tmp_path: Path, name: str, header: str) -> None:
    mesh = load_mesh(write(tmp_path / f"a.{name}", header + TEXTS[name]))
    assert same_triangles(mesh, TWO)


@pytest.mark.parametrize("order", ["little", "big"])
@pytest.mark.parametrize("mixed", [False, True])
def test_binary_ply_of_triangles_or_of_triangles_and_quads(tmp_path: Path, order: str, mixed: bool) -> None:
    """Mixed polygons, lists of texture coordinates, and elements before and after."""
    mark = "<" if order == "little" else ">"
    polygons = [[0, 1, 2, 3], [4, 5, 6], [6, 5, 4]] if mixed else [[0, 1, 2], [0, 2, 3], [4, 5, 6]]
    points = np.vstack([SQUARE, SQUARE[:3] + np.array([0, 0, 1])])
    header = (
        f"ply\nformat binary_{order}_endian 1.0\nelement vertex 7\nproperty uchar q\nproperty double x\n"
        "property double y\nproperty double z\nelement note 1\nproperty list uint8 char text\n"
        f"element face {len(polygons)}\nproperty list uchar uint vertex_indices\n"
        "property list uchar float st\nproperty short flags\nelement edge 1\nproperty int v1\nend_header\n"
    )
    body = b"".join(struct.pack(f"{mark}B3d", 1, *p) for p in points) + b"\x03abc"
    for p in polygons:
        body += struct.pack(f"{mark}B{len(p)}IB2fh", len(p), *p, 2, 0.5, 0.5, -1)
    body += struct.pack(f"{mark}i", 5)
    triangles = [[0, 1, 2], [0, 2, 3], *polygons[-2 if mixed else -1 :]]
    mesh = load_mesh(write(tmp_path / "a.ply", header.encode() + body))
    assert same_triangles(mesh, points[triangles])
    for cut in (1, 5, 30, 60):
        with pytest.raises(MeshError, match="truncated"):
            load_mesh(write(tmp_path / "cut.ply", header.encode() + body[:-cut]))


def polygon_area(ring: npt.NDArray[np.float64]) -> float:
    return float(np.linalg.norm(np.cross(ring, np.roll(ring, -1, axis=0)).sum(axis=0)) / 2)


@given(st.integers(4, 40), st.integers(0, 2**32 - 1))
def test_polygons_that_are_not_convex_are_covered_once(tmp_path_factory: Any, sides: int, seed: int) -> None:
    """Of a star-shaped polygon in any plane, the triangles' area is the polygon's, not more."""
    rng = np.random.default_rng(seed)
    angles = (np.arange(sides) + rng.uniform(0, 0.7, sides)) * 2 * np.pi / sides
    radii = rng.uniform(0.2, 1, sides)
    flat = np.stack([radii * np.cos(angles), radii * np.sin(angles), 0 * radii], axis=1)
    rotation = np.linalg.qr(rng.normal(size=(3, 3)))[0]
    ring = flat @ rotation.T + rng.normal(size=3)
    lines = "".join(f"v {x!r} {y!r} {z!r}\n" for x, y, z in ring.tolist())
    path = tmp_path_factory.mktemp("polygon") / "a.obj"
    mesh = load_mesh(write(path, lines + f"f {' '.join(str(i + 1) for i in range(sides))}\n"))
    assert len(mesh.faces) == sides - 2
    area = trimesh.Trimesh(mesh.vertices, mesh.faces, process=False).area
    assert area == pytest.approx(polygon_area(ring - ring[0]), rel=1e-9)
    assert mesh.findings.boundary_edges == sides


# --- refusals --------------------------------------------------------------------------------------

BROKEN_TEXTS = {
    "a.obj": [
        (V + "f 1 2 3\nf 1 3 ", "is truncated: its last line ends at 'f 1 3'"),
        (V + "f 1 2 3\nf 1 3 4\nv 1 0\n", "is truncated: its last line ends at 'v 1 0'"),
        (V + "f 1 2 x\nf 1 3 4\n", "line 5: invalid vertex index 'x'"),
        (V + "v 1 2\nf 1 3 4\n", "line 5 is malformed: 'v 1 2'"),
        (V + "f 1 2 0\n", r"face 1: vertex index out of range \(4 vertices\)"),
        (V + "f 1 2 3\nf 1 2 -5\n", "face 2: vertex index out of range"),
        (V + "f 1 2 3\nf 4 5 6\n", "face 2: vertex index out of range"),
        (V.replace("0\n", "0,5\n") + "f 1 2 3\n", "line 1: invalid coordinate '0,5'"),
        ("just some text\n", "has no vertices and no faces"),
        (V + "f 1 2 3\n\0\0\0", "null bytes"),
    ],
    "a.off": [
        ("OFF\n", "lacks its counts"),
        ("OFF\n4 x 0\n", "line 2: invalid count 'x'"),
        ("OFF\n-4 1 0\n", "lacks its counts"),
        ("OFF\n99999999999 1 0\n0 0 0\n", "is truncated: it is too short for 99999999999"),
        ("OFF\n4 2 0\n0 0 0\n1 0 0\n1 1 0\n0 1 0\n3 0 1 2\n", "is truncated"),
        ("OFF\n4 2 0\n0 0 0\n1 0 0\n1 1 0\n0 1 0\n3 0 1 2\n3 0 2", "is truncated"),
        ("OFF\n4 1 0\n0 0 0\n1 0 0\n1 1 0\n0 1\n", "is truncated"),
        ("OFF\n4 0 0\n0 0 0\n1 0 0\n1 1 0\n0 1 0\n", "is a point cloud: 4 points"),
        ("4OFF\n1 1 0\n0 0 0 0\n3 0 0 0\n", "is not three-dimensional"),
        ("OFF BINARY\n....", "is truncated or damaged"),
    ],
    "a.stl": [
        (TEXTS["stl"][:-21], "is truncated: it ends in 'endloop', in the middle"),
        (TEXTS["stl"][:130], "is truncated"),
        (TEXTS["stl"].replace("vertex 0.0 0.0", "vertex 0.0"), "line 4: a vertex without exactly three"),
        (TEXTS["stl"].replace("1.0", "one"), "line 5: invalid coordinate 'one'"),
        ("solid nothing\nendsolid nothing\n", "has no faces"),
    ],
    "a.ply": [
        (TEXTS["ply"][:60], "is truncated: its header does not end"),
        (TEXTS["ply"][:-8], "is truncated"),
        (TEXTS["ply"].replace("vertex 4", "vertex 400000000"), "is truncated: its header declares 400000000"),
        (TEXTS["ply"].replace("float", "half"), "unknown type 'half'"),
        (TEXTS["ply"].replace("format ascii", "format utf8"), "unknown header line: 'format utf8"),
        (TEXTS["ply"].replace("format ascii 1.0\n", ""), "without a format"),
        (TEXTS["ply"].replace("3 0 2 3", "3 0 2 9"), "face 2: vertex index out of range"),
        (TEXTS["ply"].replace("1 1 0", "1 1 nan"), r"vertex 2 has non-finite coordinates \(1, 1, nan\)"),
    ],
    "a.txt": [
        ("Dear Sir or Madam,\n", "is text of an unknown format; save it as OBJ, STL"),
        ("<html><body>", "is a web page"),
        (b"\x89PNG\r\n\0\0\0\rIHDR", "is binary data of an unknown format"),
        ("\n\n \n", "contains only whitespace"),
    ],
}  # fmt: skip


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [(name, content, reason) for name, rows in BROKEN_TEXTS.items() for content, reason in rows],
)
def test_errors_of_broken_files_name_the_fault(
    tmp_path: Path, name: str, content: str | bytes, reason: str
) -> None:
    with pytest.raises(MeshError, match=reason) as caught:
        load_mesh(write(tmp_path / name, content))
    assert caught.value.remedy
    assert str(caught.value).isprintable()


def test_unreadable_paths_are_refused(tmp_path: Path) -> None:
    fifo = tmp_path / "fifo.obj"
    os.mkfifo(fifo)
    for path, reason in (
        (tmp_path / "missing.obj", "no such file"),
        (tmp_path / "missing" / "a.obj", "no such file"),
        (tmp_path, "is a folder, not a mesh"),
        (fifo, "is not a regular file"),
        (Path("/dev/zero"), "is not a regular file"),
        (tmp_path / "a\0b.obj", "cannot be read"),
        (tmp_path / ("x" * 1000), "cannot be read"),
    ):
        with pytest.raises(MeshError, match=reason):
            load_mesh(path)


@cache
def small_files() -> list[tuple[str, bytes]]:
    """One file of each format and kind."""
    import tempfile

    files = [(f".{name[:3].lower()}", text.encode()) for name, text in TEXTS.items() if name[:4] != "coff"]
    files += [(".glb", glb(*two_boxes()))]
    with tempfile.TemporaryDirectory() as folder:
        for suffix in SUFFIXES:
            save_mesh(Path(folder, f"ball{suffix}"), *BALL)
            files.append((suffix, Path(folder, f"ball{suffix}").read_bytes()))
        model = write_3mf(Path(folder, "a.3mf"), model_3mf(object_3mf(BALL), '<item objectid="2"/>'))
        files.append((".3mf", model.read_bytes()))
    return files


@settings(max_examples=400)
@given(st.data())
def test_any_bytes_are_a_mesh_or_an_error_in_one_line(tmp_path_factory: Any, data: st.DataObject) -> None:
    """Truncated files, changed bytes, lost or repeated sections: a mesh, or an error in one line."""
    suffix, whole = data.draw(st.sampled_from(small_files()))
    content = bytearray(whole)
    position = st.one_of(st.integers(0, len(whole) - 1), st.integers(0, min(len(whole), 200) - 1))
    match data.draw(st.sampled_from(["cut", "change", "lose", "double"])):
        case "cut":
            del content[data.draw(position) :]
        case "change":
            for _ in range(data.draw(st.integers(1, 8))):
                content[data.draw(position)] = data.draw(
                    st.one_of(st.integers(0, 255), st.sampled_from(b"\0\xff9- \n"))
                )
        case "lose":
            start = data.draw(position)
            del content[start : start + data.draw(st.integers(1, 60))]
        case "double":
            start = data.draw(position)
            content[start:start] = content[start : start + data.draw(st.integers(1, 60))]
    path = write(tmp_path_factory.getbasetemp() / f"fuzz{suffix}", bytes(content))
    try:
        mesh = load_mesh(path)
    except NeuralSDFError as error:
        said = str(error)
    else:
        said = mesh.findings.line()
        assert np.isfinite(mesh.vertices).all()
        assert mesh.faces.min() == 0
        assert mesh.faces.max() == len(mesh.vertices) - 1
    assert said.isprintable()


@pytest.mark.parametrize("suffix", [".ply", ".obj", ".glb"])
@pytest.mark.parametrize("offset", [0.0, 1e6])
def test_normals_and_colours_are_read_back(tmp_path: Path, suffix: str, offset: float) -> None:
    vertices, faces = sphere(1.0, 2)
    rng = np.random.default_rng(0)
    normals = rng.normal(size=vertices.shape)  # not those that a reader would compute
    normals /= np.linalg.norm(normals, axis=1, keepdims=True)
    colours = rng.integers(0, 256, vertices.shape).astype(np.uint8)
    path = tmp_path / f"ball{suffix}"
    save_mesh(path, vertices + offset, faces, normals=normals, colours=colours)
    ours = load_mesh(path)
    assert ours.vertices == pytest.approx(vertices + offset, abs=1e-6)
    read_normals, read_colours = _attributes(path.read_bytes(), suffix, len(vertices))
    assert read_normals == pytest.approx(normals, abs=1e-4)
    assert np.array_equal(read_colours, colours)
    assert np.array_equal(
        trimesh.load(path, process=False, force="mesh").visual.vertex_colors[:, :3], colours
    )


def _attributes(data: bytes, suffix: str, count: int) -> tuple[Any, Any]:
    """The normals (V, 3) and colours (V, 3) in a file, by its format's definition."""
    if suffix == ".ply":
        header, body = data.split(b"end_header\n", 1)
        place = "<f8" if b"double x" in header else "<f4"
        fields = [("xyz", place, 3), ("normal", "<f4", 3), ("colour", "u1", 3)]
        rows = np.frombuffer(body, fields, count)
        return rows["normal"], rows["colour"]
    if suffix == ".obj":
        lines = [line.split() for line in data.decode().splitlines()]
        rows = [line for line in lines if line[0] == "v"]
        colours = np.array([row[4:] for row in rows], np.float64) * 255
        return np.array([line[1:] for line in lines if line[0] == "vn"], np.float64), np.rint(colours)
    size = int.from_bytes(data[12:16], "little")
    tree, binary = json.loads(data[20 : 20 + size]), data[28 + size :]
    attributes = tree["meshes"][0]["primitives"][0]["attributes"]
    found = []
    for name, code in (("NORMAL", "<f4"), ("COLOR_0", "u1")):
        accessor = tree["accessors"][attributes[name]]
        view = tree["bufferViews"][accessor["bufferView"]]
        width = int(accessor["type"][-1])
        offset = view.get("byteOffset", 0) + accessor.get("byteOffset", 0)
        values = np.frombuffer(binary, code, count * width, offset)
        found.append(values.reshape(count, width)[:, :3])
    return found[0], found[1]


def test_normals_of_another_shape_are_refused(tmp_path: Path) -> None:
    vertices, faces = sphere(1.0, 1)
    with pytest.raises(UsageError, match=r"normals of shape \(3, 3\) for vertices of shape \(42, 3\)"):
        save_mesh(tmp_path / "a.ply", vertices, faces, normals=vertices[:3])
    for suffix in (".stl", ".off"):
        with pytest.raises(UsageError, match="holds no normals or colours"):
            save_mesh(tmp_path / f"a{suffix}", vertices, faces, colours=np.zeros((42, 3), np.uint8))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("suffix", [".ply", ".obj", ".off", ".glb"])
def test_raw_arrays_equal_those_of_the_file(tmp_path: Path, suffix: str) -> None:
    """Duplicate and unused vertices and faces without area are kept, unlike in a mesh."""
    vertices, faces = BALL
    vertices = np.vstack([vertices, vertices[:5], [[9, 9, 9]]])
    vertices = np.rint(256 * vertices) / 256  # which no format rounds
    faces = np.vstack([[[0, 0, 1]], faces, [[len(BALL[0]), 1, 2]]])
    path = tmp_path / f"twins{suffix}"
    save_mesh(path, vertices, faces)
    raw = load_raw_mesh(path)
    assert np.array_equal(raw.vertices, vertices)
    assert np.array_equal(raw.faces, faces)
    mesh = load_mesh(path)
    assert len(mesh.vertices) == len(BALL[0])
    assert np.array_equal(mesh.per_vertex(raw.vertices), mesh.vertices)
    assert np.array_equal(mesh.per_face(raw.vertices[raw.faces]), corners(mesh))
    ours = trimesh.load(path, process=False, force="mesh")
    assert np.array_equal(raw.vertices[raw.faces], np.asarray(ours.vertices)[ours.faces])


def test_the_frames_of_a_sequence_keep_their_vertices(tmp_path: Path) -> None:
    """Frames in which different vertices meet, which a mesh merges."""
    vertices, faces = sphere(subdivisions=2)
    for frame in range(3):
        moved = vertices.copy()
        moved[frame] = moved[frame + 10]
        save_mesh(tmp_path / f"{frame}.ply", moved, faces)
        raw = load_raw_mesh(tmp_path / f"{frame}.ply")
        assert np.array_equal(raw.faces, faces)
        np.testing.assert_allclose(raw.vertices, moved, atol=1e-7)
        assert len(load_mesh(tmp_path / f"{frame}.ply").vertices) == len(vertices) - 1


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("v 0 0 0\nv 1 0 0\nv 0 nan 0\nf 1 2 3\n", "vertex 2"),
        ("v 0 0 0\nv 1 0 0\nv 0 1 0\nf 1 2 4\n", "out of range"),
        ("v 0 0 0\nv 1 0 0\nv 0 1 0\n", "point cloud"),
        ("", "is empty"),
    ],
)
def test_raw_arrays_are_checked(tmp_path: Path, content: str, reason: str) -> None:
    path = write(tmp_path / "a.obj", content)
    with pytest.raises(MeshError, match=reason) as refused:
        load_raw_mesh(path)
    assert str(refused.value).startswith(f"{path}: ")
    assert "\n" not in str(refused.value)
