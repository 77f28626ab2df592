"""glTF and GLB: the triangles of a scene, refused files, and bounds on the memory of small files."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import trimesh

from neuralsdf.errors import MeshError
from neuralsdf.files import bounded_input as budgets
from neuralsdf.files.bounded_input import read_file, set_max_input
from neuralsdf.mesh.formats import gltf
from neuralsdf.mesh.formats.gltf import read_gltf
from neuralsdf.mesh.load_mesh import content_hash, load_mesh

from ...helpers.scenes import Gltf, glb, two_boxes
from ...helpers.shapes import Arrays, box, sphere

CUBE = box(1, 1, 1)


def write(path: Path, content: str | bytes) -> Path:
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def loaded(tmp_path: Path, file: Gltf) -> trimesh.Trimesh:
    mesh = load_mesh(write(tmp_path / "a.glb", file.glb()))
    return trimesh.Trimesh(mesh.vertices, mesh.faces, process=False)


def notes(tmp_path: Path, file: Gltf) -> str:
    return load_mesh(write(tmp_path / "a.glb", file.glb())).findings.line()


def cube(**node: Any) -> Gltf:
    """A cube of edge 2 about the origin, in a node with more keys."""
    file = Gltf()
    file.mesh(CUBE)
    file.tree["nodes"][0] |= node
    return file


def refused(tmp_path: Path, file: Gltf, reason: str) -> None:
    with pytest.raises(MeshError, match=reason) as caught:
        load_mesh(write(tmp_path / "a.glb", file.glb()))
    assert "\n" not in str(caught.value)


# --- buffers and accessors ---------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["glb", "data", "beside it"])
def test_scenes_are_laid_out(tmp_path: Path, kind: str) -> None:
    tree, blob = two_boxes()
    if kind == "glb":
        path = write(tmp_path / "a.glb", glb(tree, blob))
    elif kind == "data":
        uri = "data:application/octet-stream;base64," + base64.b64encode(blob).decode()
        path = write(tmp_path / "a.gltf", json.dumps(two_boxes(uri)[0]))
    else:
        (tmp_path / "sub").mkdir()
        write(tmp_path / "sub" / "my box.bin", blob)
        path = write(tmp_path / "a.gltf", json.dumps(two_boxes("sub/my%20box.bin")[0]))
    mesh = load_mesh(path)
    assert mesh.findings.closed
    assert mesh.findings.bodies == 2
    assert mesh.findings.line() == ""
    laid_out = trimesh.Trimesh(mesh.vertices, mesh.faces)
    assert laid_out.is_winding_consistent
    assert laid_out.volume == pytest.approx(48 + 8 * 48)  # mirroring does not invert it
    np.testing.assert_allclose(laid_out.bounds, [[-2 * 10, -2, -6], [1, 5 + 4, 6]])


@pytest.mark.parametrize(
    "uri", ["../secret.bin", "/etc/hostname", "%2e%2e/secret.bin", "missing.bin", "\0", ".", "link", "round"]
)
def test_files_outside_the_folder_are_not_read(tmp_path: Path, uri: str) -> None:
    tree, blob = two_boxes(uri)
    write(tmp_path / "secret.bin", blob)
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "link").symlink_to(tmp_path / "secret.bin")
    (tmp_path / "folder" / "round").symlink_to("round")
    for path, content in (("a.gltf", json.dumps(tree).encode()), ("a.glb", glb(tree, b""))):
        with pytest.raises(MeshError, match="refers to"):
            load_mesh(write(tmp_path / "folder" / path, content))


def test_a_buffer_beside_the_file_is_part_of_its_content(tmp_path: Path) -> None:
    """It counts towards the limits once, whatever its names, and changes the hash of the content."""
    tree, blob = two_boxes("a.bin")
    tree["buffers"] += [{"uri": "./a.bin", "byteLength": 1}, {"uri": "%61.bin", "byteLength": 1}]
    write(tmp_path / "a.bin", blob)
    file = read_file(write(tmp_path / "a.gltf", json.dumps(tree)), MeshError, "a mesh")
    before, size = content_hash(file.path), file.budget.file_bytes
    read_gltf(file)
    assert file.budget.file_bytes == size + len(blob)
    write(tmp_path / "a.bin", blob[:-1] + b"\1")
    assert content_hash(file.path) != before
    for largest in (len(blob) - 1, size + len(blob) - 1):  # of the buffer, of both files together
        set_max_input(largest)
        try:
            with pytest.raises(MeshError, match="`max_input=`"):
                load_mesh(file.path)
        finally:
            set_max_input(None)


@pytest.mark.parametrize("code", ["u1", "u2", "u4"])
def test_indices_may_have_every_type(tmp_path: Path, code: str) -> None:
    file = Gltf()
    file.mesh(CUBE, code)
    assert loaded(tmp_path, file).volume == pytest.approx(8)


@pytest.mark.parametrize(
    ("code", "limit"), [("i1", 127), ("u1", 255), ("i2", 32767), ("u2", 65535)]
)  # fmt: skip
@pytest.mark.parametrize("normalized", [False, True])
def test_quantized_positions_are_scaled(tmp_path: Path, code: str, limit: int, normalized: bool) -> None:
    """Integers unchanged, or divided by the maximum; -128 gives -1, like -127."""
    file = cube(scale=[2, 2, 2])
    signed = code[0] == "i"
    corners = np.where(CUBE[0] > 0, limit, -limit - 1 if signed else 0)
    stride = 4 * np.dtype(code).itemsize
    file.primitive["attributes"]["POSITION"] = file.accessor(corners, code, stride, normalized=normalized)
    edge = (2 if signed else 1) if normalized else 2 * limit + 1 if signed else limit
    assert loaded(tmp_path, file).volume == pytest.approx((2 * edge) ** 3)


def test_interleaved_attributes_are_read(tmp_path: Path) -> None:
    """Positions and normals share a view; the accessor has an offset of its own."""
    file = cube()
    rows = np.hstack([np.full((8, 3), 9.0), CUBE[0]]).astype("<f4")
    view = file.view(rows.tobytes(), byteStride=24)
    file.tree["accessors"][0] |= {"bufferView": view, "byteOffset": 12}
    assert loaded(tmp_path, file).volume == pytest.approx(8)


def test_an_unused_stride_may_have_any_value(tmp_path: Path) -> None:
    """Here of a single row. numpy refuses a stride out of its range even then."""
    file = cube()
    file.tree["bufferViews"][0]["byteStride"] = 1 << 70
    file.tree["accessors"][0]["count"] = 1
    refused(tmp_path, file, r"vertex index \d+ out of range \(1 vertices\)")


def test_primitives_that_share_their_vertices(tmp_path: Path) -> None:
    """Each has its own faces and shares a long list of vertices; unused vertices cost nothing."""
    file = Gltf()
    vertices = np.vstack([CUBE[0], np.zeros((100_000, 3))])
    position = file.accessor(vertices)
    parts = [file.accessor(face, "u1") for face in CUBE[1]]
    file.tree["meshes"] = [
        {"primitives": [{"attributes": {"POSITION": position}, "indices": part} for part in parts]}
    ]
    mesh = load_mesh(write(tmp_path / "a.glb", file.glb()))
    assert mesh.findings.closed
    assert mesh.vertices_in_file == 3 * len(parts)
    assert trimesh.Trimesh(mesh.vertices, mesh.faces, process=False).volume == pytest.approx(8)


@pytest.mark.parametrize("has_base", [True, False])
def test_sparse_accessors_are_read(tmp_path: Path, has_base: bool) -> None:
    """A sparse accessor changes some rows of its base, which is zero where it has none."""
    file = cube()
    accessor = file.tree["accessors"][0]
    chosen = np.arange(8) if not has_base else np.flatnonzero(CUBE[0][:, 2] > 0)
    rows = CUBE[0] * [1, 1, 3]
    accessor["sparse"] = {
        "count": len(chosen),
        "indices": {"bufferView": file.view(chosen.astype("<u2").tobytes()), "componentType": 5123},
        "values": {"bufferView": file.view(rows[chosen].astype("<f4").tobytes())},
    }
    if not has_base:
        del accessor["bufferView"]
    assert loaded(tmp_path, file).volume == pytest.approx(4 * (4 if has_base else 6))


@pytest.mark.parametrize("mode", [4, 5, 6])
@pytest.mark.parametrize("indexed", [True, False])
def test_triangles_strips_and_fans_are_read(tmp_path: Path, mode: int, indexed: bool) -> None:
    """The same square as each kind of primitive; an incomplete last triangle is left out."""
    square = np.array([[0, 0, 0], [1, 0, 0], [1, 1, 0], [0, 1, 0]], float)
    order = {4: [0, 1, 2, 0, 2, 3, 1], 5: [0, 1, 3, 2], 6: [0, 1, 2, 3]}[mode]
    file = Gltf()
    file.mesh((square, np.array(order)), mode=mode)
    if not indexed:
        file.primitive["attributes"]["POSITION"] = file.accessor(square[order])
        del file.primitive["indices"]
    shape = loaded(tmp_path, file)
    assert len(shape.faces) == 2
    assert shape.area == pytest.approx(1)
    np.testing.assert_allclose(shape.face_normals, [[0, 0, 1], [0, 0, 1]])


def test_strips_may_be_joined_by_triangles_without_area(tmp_path: Path) -> None:
    square = np.array([[0, 0, 0], [1, 0, 0], [0, 1, 0], [1, 1, 0]], float)
    both = np.vstack([square, square + np.array([0, 0, 5])])
    file = Gltf()
    file.mesh((both, np.array([0, 1, 2, 3, 3, 4, 4, 5, 6, 7])), mode=5)
    shape = loaded(tmp_path, file)
    assert shape.area == pytest.approx(2)
    assert "degenerate" not in notes(tmp_path, file)
    np.testing.assert_allclose(shape.face_normals[:, 2], 1)


def test_points_and_lines_are_left_out_with_a_warning(tmp_path: Path) -> None:
    file = cube()
    file.tree["meshes"][0]["primitives"] += [{**file.primitive, "mode": mode} for mode in range(4)]
    assert len(loaded(tmp_path, file).faces) == 12
    assert "4 primitives without triangles left out" in notes(tmp_path, file)


# --- nodes -------------------------------------------------------------------------------------------


def test_a_node_scales_then_rotates_then_translates(tmp_path: Path) -> None:
    half = np.sqrt(0.5)
    file = cube(scale=[3, 1, 1], rotation=[0, 0, 2 * half, 2 * half], translation=[10, 0, 0])
    file.tree["nodes"].append({"children": [0], "translation": [0, 0, 7]})
    file.tree["scenes"][0]["nodes"] = [1]
    np.testing.assert_allclose(loaded(tmp_path, file).bounds, [[9, -3, 6], [11, 3, 8]], atol=1e-9)


def test_the_default_scene_is_read_and_other_nodes_are_reported(tmp_path: Path) -> None:
    file = cube()
    file.mesh(sphere())
    file.tree |= {"scene": 1, "scenes": [{"nodes": [1]}, {"nodes": [0]}, {}], "animations": [{}]}
    file.tree["nodes"].append({"mesh": 1})
    assert loaded(tmp_path, file).volume == pytest.approx(8)
    said = notes(tmp_path, file)
    for reason in ("2 other scenes", "1 mesh not in the scene", "1 animation"):
        assert f"{reason} left out" in said
    del file.tree["scenes"]  # then all nodes are shown
    assert loaded(tmp_path, file).volume == pytest.approx(8 + 4.18, abs=0.02)


def test_a_node_listed_twice_is_placed_once(tmp_path: Path) -> None:
    """Some programs list every node of a scene, not only its roots."""
    file = cube(translation=[1, 0, 0])
    file.tree["nodes"].append({"children": [0, 0], "translation": [10, 0, 0]})
    file.tree["scenes"][0]["nodes"] = [0, 1, 1]
    shape = loaded(tmp_path, file)
    assert shape.volume == pytest.approx(8)
    assert shape.bounds[0, 0] == pytest.approx(10)


def test_a_node_with_two_parents_is_placed_twice(tmp_path: Path) -> None:
    file = cube()
    file.tree["nodes"] += [{"children": [0]}, {"children": [0], "translation": [10, 0, 0]}]
    file.tree["scenes"][0]["nodes"] = [1, 2]
    assert loaded(tmp_path, file).volume == pytest.approx(16)


def test_coincident_copies_are_merged(tmp_path: Path) -> None:
    file = cube()
    file.tree["nodes"] += [{"mesh": 0, "translation": [0, 0, 0]}, {"mesh": 0, "translation": [9, 0, 0]}]
    file.tree["scenes"][0]["nodes"] = [0, 1, 2]
    assert loaded(tmp_path, file).volume == pytest.approx(16)
    assert notes(tmp_path, file) == "1 coincident copy left out"


def test_hidden_nodes_are_left_out(tmp_path: Path) -> None:
    file = cube()
    hidden = {"mesh": 0, "translation": [9, 0, 0], "extensions": {"KHR_node_visibility": {"visible": False}}}
    file.tree["nodes"].append(hidden)
    file.tree["scenes"][0]["nodes"] = [0, 1]
    assert loaded(tmp_path, file).volume == pytest.approx(8)
    assert "1 hidden node left out" in notes(tmp_path, file)


# --- instances, morph targets, skins -----------------------------------------------------------------


def test_instances_are_placed(tmp_path: Path) -> None:
    """Translation, quarter turn and scale of each; the last is mirrored, and its faces stay outward."""
    file = Gltf()
    file.mesh(box(1, 2, 3))
    half = np.sqrt(0.5)
    attributes = {
        "TRANSLATION": file.accessor([[0, 0, 0], [10, 0, 0], [20, 0, 0]]),
        "ROTATION": file.accessor([[0, 0, 0, 1], [0, 0, half, half], [0, 0, 0, 1]]),
        "SCALE": file.accessor([[1, 1, 1], [1, 1, 1], [-2, 1, 1]]),
    }
    instancing = {gltf.INSTANCING: {"attributes": attributes}}
    file.tree["nodes"][0] |= {"extensions": instancing, "translation": [0, 0, 100]}
    file.tree["extensionsRequired"] = file.tree["extensionsUsed"] = [gltf.INSTANCING]
    shape = loaded(tmp_path, file)
    assert shape.volume == pytest.approx(48 * 4)
    np.testing.assert_allclose(shape.bounds, [[-1, -2, 97], [22, 2, 103]], atol=1e-6)
    np.testing.assert_allclose(shape.vertices[8:16].max(axis=0), [12, 1, 103], atol=1e-6)


@pytest.mark.parametrize("where", ["mesh", "node"])
def test_morph_targets_are_weighted_and_added(tmp_path: Path, where: str) -> None:
    """The node's weights come before the mesh's; two targets add up."""
    file = cube()
    up, wide = np.where(CUBE[0] > 0, [[0, 0, 2]], 0), CUBE[0] * [1, 0, 0]
    file.primitive["targets"] = [{"POSITION": file.accessor(t)} for t in (up, wide)] + [{"NORMAL": 0}]
    file.tree["meshes"][0]["weights"] = [1, 0.5, 1] if where == "mesh" else [9, 9, 9]
    if where == "node":
        file.tree["nodes"][0]["weights"] = [1, 0.5, 1]
    np.testing.assert_allclose(loaded(tmp_path, file).bounds, [[-1.5, -1, -1], [1.5, 1, 3]])


def skinned(joints: npt.ArrayLike, weights: npt.ArrayLike, code: str = "f4", **more: Any) -> Gltf:
    """A cube on two joints: one moves by 10 along x, the other along y; its own node scales by 100."""
    file = cube(skin=0, scale=[100, 100, 100])
    file.primitive["attributes"] |= {
        "JOINTS_0": file.accessor(joints, "u1"),
        "WEIGHTS_0": file.accessor(weights, code, **more),
    }
    inverse = np.eye(4)
    inverse[:3, 3] = [0, 0, -5]
    matrices = file.accessor([np.eye(4).T.ravel(), inverse.T.ravel()])
    file.tree["nodes"] += [{"translation": [10, 0, 0]}, {"translation": [0, 10, 5]}]
    file.tree["scenes"][0]["nodes"] = [0, 1, 2]
    file.tree["skins"] = [{"joints": [1, 2], "inverseBindMatrices": matrices}]
    return file


def test_a_skin_places_its_mesh_by_the_joints_alone(tmp_path: Path) -> None:
    file = skinned([[0, 0, 0, 0]] * 8, [[1, 0, 0, 0]] * 8)
    np.testing.assert_allclose(loaded(tmp_path, file).bounds, [[9, -1, -1], [11, 1, 1]])
    file = skinned([[1, 7, 0, 0]] * 8, [[1, 0, 0, 0]] * 8)  # joints without weight may have any index
    np.testing.assert_allclose(loaded(tmp_path, file).bounds, [[-1, 9, -1], [1, 11, 1]])


def test_the_weights_of_joints_are_blended(tmp_path: Path) -> None:
    """Normalised integers that do not add up to one exactly, and a vertex on both joints."""
    file = skinned([[0, 1, 0, 0]] * 8, [[64, 191, 0, 0]] * 8, "u1", normalized=True)
    middle = np.array([10 * 64, 10 * 191, 0]) / 255
    np.testing.assert_allclose(loaded(tmp_path, file).bounds, [middle - 1, middle + 1])


def test_a_mirroring_skin_keeps_faces_outward(tmp_path: Path) -> None:
    file = skinned([[0, 0, 0, 0]] * 8, [[1, 0, 0, 0]] * 8)
    file.tree["nodes"][1]["scale"] = [-1, 1, 1]
    assert loaded(tmp_path, file).volume == pytest.approx(8)


# --- refusals ----------------------------------------------------------------------------------------


def test_extensions_are_refused_only_where_they_are_required(tmp_path: Path) -> None:
    file = cube()
    file.tree["extensionsUsed"] = ["KHR_materials_unlit", "KHR_texture_transform", "X_unknown"]
    file.tree["extensionsRequired"] = file.tree["extensionsUsed"][:2]
    assert notes(tmp_path, file) == "extensions ignored: X_unknown"
    file.tree["extensionsUsed"] = [f"X_{number}" for number in range(9)] + ["\ud800\n"]
    assert notes(tmp_path, file) == "extensions ignored: X_0, X_1, X_2 and 7 more"
    for name, remedy in (
        ("X_unknown", "export it without that extension"),
        ("KHR_draco_mesh_compression", "export it without compression"),
        ("EXT_meshopt_compression", "export it without compression"),
    ):
        file.tree["extensionsRequired"] = [name]
        refused(tmp_path, file, f"requires the glTF extension {name}.*{remedy}")


def test_compressed_geometry_is_read_where_it_has_a_plain_copy(tmp_path: Path) -> None:
    file = cube()
    file.primitive["extensions"] = {"KHR_draco_mesh_compression": {"bufferView": 0}}
    for view in file.tree["bufferViews"]:
        view["extensions"] = {"EXT_meshopt_compression": {"buffer": 0}}
    assert loaded(tmp_path, file).volume == pytest.approx(8)
    del file.tree["accessors"][0]["bufferView"]
    refused(tmp_path, file, "has compressed geometry")
    file = cube()
    file.tree["buffers"].append({"extensions": {"EXT_meshopt_compression": {"fallback": True}}})
    file.tree["bufferViews"][0]["buffer"] = 1
    refused(tmp_path, file, "has compressed geometry")


POSITION = {"attributes": {"POSITION": 0}}


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"meshes": [{}]}, "'primitives' is not an array"),
        ({"meshes": [{"primitives": [{"attributes": {"POSITION": 7}}]}]}, r"accessors\[7\] of 2"),
        ({"meshes": [{"primitives": [{"attributes": {"POSITION": -1}}]}]}, r"accessors\[-1\] of 2"),
        ({"meshes": [{"primitives": [{"attributes": {"POSITION": 1}}]}]}, "accessor 1 is not of type VEC3"),
        ({"meshes": [{"primitives": [POSITION | {"indices": 0}]}]}, "accessor 0 is not of type SCALAR"),
        ({"meshes": {"a": {}}}, "'meshes' is not an array"),
        ({"meshes": []}, r"meshes\[0\] of 0"),
        ({"nodes": [[]]}, r"'nodes\[0\]' is not an object"),
        ({"nodes": [{"mesh": "\ud800"}]}, r"meshes\[.{1,8}d800\] of 1"),
        ({"nodes": [{"mesh": True}]}, r"meshes\[True\] of 1"),
        ({"nodes": [{"mesh": 0, "translation": [1, 2]}]}, "'translation' is not a list of 3 numbers"),
        ({"nodes": [{"mesh": 0, "scale": [1, 2, 10**400]}]}, "'scale' is too large"),
        ({"nodes": [{"mesh": 0, "rotation": [0, 0, 0, 0]}]}, "a rotation quaternion of zero length"),
        ({"nodes": [{"children": [0]}]}, "node 0 is its own descendant"),
        ({"nodes": [{"children": [1]}, {"children": [0]}]}, "node . is its own descendant"),
        ({"nodes": [{"mesh": 0, "skin": 0}], "skins": [{}]}, "'joints' is not an array"),
        ({"scenes": [{"nodes": []}]}, "its scene contains no mesh"),
        ({"scenes": [{"nodes": [9]}]}, r"nodes\[9\] of 1"),
        ({"scene": 3}, r"scenes\[3\] of 1"),
        ({"buffers": [{"uri": "data:;base64,@"}]}, "is truncated: an accessor exceeds its buffer"),
        ({"buffers": [{"uri": 7}]}, "refers to '7', which does not exist"),
        (
            {"buffers": [{}, {"extensions": 7}], "bufferViews": [{"buffer": 1}] * 2},
            "'extensions' is not an obj",
        ),
        ({"bufferViews": []}, r"bufferViews\[0\] of 0"),
        ({"asset": {"version": "1.0"}}, "is glTF 1.0, not 2.0"),
        ({"extensionsRequired": "abc"}, "'extensionsRequired' is not an array"),
    ],
)
def test_invalid_files_are_refused(tmp_path: Path, change: dict[str, Any], reason: str) -> None:
    file = cube()
    file.tree |= change
    refused(tmp_path, file, reason)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"count": -1}, "'count' is not a whole number"),
        ({"count": 9}, "an accessor exceeds its buffer"),
        ({"count": 1 << 40}, "decodes to more than"),
        ({"count": 1 << 70}, "decodes to more than"),
        ({"count": 7}, r"vertex index 7 out of range \(7 vertices\)"),
        ({"componentType": 5124}, "a componentType is unknown"),
        ({"componentType": []}, "a componentType is unknown"),
        ({"byteOffset": 1 << 70}, "an accessor exceeds its buffer"),
        ({"sparse": {"count": 1 << 40}}, "decodes to more than"),
        ({"sparse": 7}, "'sparse' is not an object"),
    ],
)
def test_invalid_accessors_are_refused(tmp_path: Path, change: dict[str, Any], reason: str) -> None:
    file = cube()
    file.tree["accessors"][0] |= change
    refused(tmp_path, file, reason)


@pytest.mark.parametrize(
    ("weights", "joints", "reason"),
    [
        ([[0, 0, 0, 0]] * 8, [[0, 0, 0, 0]] * 8, "a vertex without a joint"),
        ([[1, 0, 0, 0]] * 8, [[2, 0, 0, 0]] * 8, r"joint index out of range \(2 joints\)"),
        ([[1, 0, 0, 0]] * 7, [[0, 0, 0, 0]] * 7, "a skin with a different number of vertices"),
    ],
)
def test_invalid_skins_are_refused(tmp_path: Path, weights: Any, joints: Any, reason: str) -> None:
    refused(tmp_path, skinned(joints, weights), reason)


def test_indices_that_are_not_integers_are_refused(tmp_path: Path) -> None:
    file = cube()
    file.primitive["indices"] = file.accessor(CUBE[1].ravel())
    refused(tmp_path, file, "an index is not an integer")


@pytest.mark.parametrize("text", ['{"a":' * 100_000, "{", '{"asset": {"version": 2}, "nodes": 1e999}'])
def test_invalid_json_is_refused(tmp_path: Path, text: str) -> None:
    with pytest.raises(MeshError, match="is not valid glTF"):
        load_mesh(write(tmp_path / "a.gltf", text))


def test_repetition_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nested nodes, instances without data, and repeated targets: each draws from the budget."""
    monkeypatch.setattr(budgets, "FREE_BYTES", 8 << 20)
    file = cube()
    file.tree["nodes"] += [{"children": [0]}, {"children": [0]}]
    for number in range(3, 80, 2):
        file.tree["nodes"] += [{"children": [number - 2, number - 1]}] * 2
    file.tree["scenes"][0]["nodes"] = [len(file.tree["nodes"]) - 1]
    refused(tmp_path, file, "decodes to more than 8 MB")
    many = {"componentType": 5126, "count": 100_000, "type": "VEC3"}
    file = cube(extensions={gltf.INSTANCING: {"attributes": {"TRANSLATION": 2}}})
    file.tree["accessors"].append(many)
    refused(tmp_path, file, "decodes to more than 8 MB")
    file = cube()
    file.tree["accessors"][0] = many
    file.primitive["targets"] = [{"POSITION": 0}] * 1000
    file.tree["meshes"][0]["weights"] = [1] * 1000
    refused(tmp_path, file, "decodes to more than 8 MB")


@pytest.mark.parametrize("count", [1000, 2000])
def test_work_is_linear_in_the_nodes(tmp_path: Path, count: int) -> None:
    """The budget bounds time and memory."""
    file = cube()
    file.tree["nodes"] = [{"mesh": 0, "translation": [3 * i, 0, 0]} for i in range(count)]
    file.tree["scenes"][0]["nodes"] = list(range(count))
    opened = read_file(write(tmp_path / "a.glb", file.glb()), MeshError, "a mesh")
    assert len(read_gltf(opened).faces) == 12 * count
    assert opened.budget.drawn < 2000 + count * (2 * 512 + 48 * 20)


# --- real files --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "volume", "bounds"),
    [
        ("glb_gpu_instancing_three_cubes.glb", 3, [[-0.5, -0.5, -0.5], [6.5, 0.5, 0.5]]),
        ("glb_skinned_node_scale_100_to_be_ignored.glb", 8, [[4, -1, -1], [6, 1, 1]]),
        ("glb_morph_weight_one_doubles_height.glb", 2, [[-0.5, -0.5, -0.5], [0.5, 1.5, 0.5]]),
        ("glb_quantized_normalized.glb", 1, [[-0.5, -0.5, -0.5], [0.5, 0.5, 0.5]]),
        (
            "glb_sparse_positions.glb",
            4 / 3,
            [[-1, -1, -1], [0.5, 0.5, 0.5]],
        ),  # a cube with a corner pulled out
    ],
)
def test_reported_files_have_their_known_volumes(
    test_data: Path, name: str, volume: float, bounds: Any
) -> None:
    mesh = load_mesh(test_data / "meshes/reported" / name)
    shape = trimesh.Trimesh(mesh.vertices, mesh.faces)
    assert mesh.findings.closed
    assert shape.volume == pytest.approx(volume)
    np.testing.assert_allclose(shape.bounds, bounds)


@pytest.mark.parametrize(
    "name",
    [
        *("Duck", "monkey", "pins", "simple_pole"),
        *("messy/nested", "messy/AlphaBlendModeTest", "messy/no_indices_3storybuilding"),
    ],
)
def test_plain_files_are_read_as_by_trimesh(test_data: Path, name: str) -> None:
    """Vertex by vertex and face by face."""
    path = test_data / "meshes" / f"{name}.glb"
    raw = read_gltf(read_file(path, MeshError, "a mesh"))
    scene = trimesh.load_scene(path, process=False, skip_materials=True)
    parts: list[Arrays] = []
    for node in scene.graph.nodes_geometry:
        matrix, geometry = scene.graph[node]
        shape = scene.geometry[geometry].copy()
        parts.append((shape.vertices @ matrix[:3, :3].T + matrix[:3, 3], shape.faces))
    offsets = np.cumsum([0, *(len(vertices) for vertices, _ in parts)])
    extent = np.ptp(raw.vertices, axis=0).max()
    np.testing.assert_allclose(raw.vertices, np.concatenate([v for v, _ in parts]), atol=1e-8 * extent)
    faces = [faces + offset for (_, faces), offset in zip(parts, offsets[:-1], strict=True)]
    np.testing.assert_array_equal(raw.faces, np.concatenate(faces))
