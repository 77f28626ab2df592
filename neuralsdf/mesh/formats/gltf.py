"""
gltf.py
-------
Reader of glTF and GLB: the triangles of the default scene, without animation.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from ...array_types import Faces, Index, Matrix4, Points, Values, Vectors
from ...files.bounded_input import InputFile
from ...printable_text import printable
from .gltf_document import (
    NOT_COMPRESSED,
    Document,
    Json,
    extension,
    is_compressed,
    mapping,
    numbers,
    sequence,
)
from .shared.raw_mesh import FormatError, RawMesh
from .shared.scene_triangles import LONGEST, NODE_BYTES, Scene, left_out

INSTANCING = "EXT_mesh_gpu_instancing"
_VISIBILITY = "KHR_node_visibility"

#: Supported required extensions: implemented, or without effect on the geometry.
_KNOWN = {
    INSTANCING,
    _VISIBILITY,
    "KHR_mesh_quantization",
    "KHR_node_hoverability",
    "KHR_node_selectability",
    "KHR_animation_pointer",
    "KHR_audio_emitter",
    "KHR_xmp",
    "KHR_xmp_json_ld",
    "EXT_mesh_features",
    "EXT_mesh_manifold",
    "EXT_instance_features",
    "EXT_structural_metadata",
}
_KNOWN_PREFIXES = (
    *("KHR_materials_", "KHR_texture_", "KHR_lights_", "EXT_materials_", "EXT_texture_", "EXT_lights_"),
    *("MSFT_texture_", "MSFT_packing_", "ADOBE_materials_"),
)

_TRIANGLES, _STRIP, _FAN = 4, 5, 6

_UNSHOWN = "mesh not in the scene", "meshes not in the scene"
_NO_TRIANGLES = "primitive without triangles", "primitives without triangles"


def read_gltf(file: InputFile) -> RawMesh:
    """Read a glTF or GLB: all mesh instances of its default scene.

    Skins and morph targets are applied with the nodes and weights of the file, without animation. The unit is
    None: the standard requires metres, but many programs export another unit.
    """
    return _Reader(Document(file), file).raw_mesh()


def referenced_files(file: InputFile) -> dict[str, bytes]:
    """Contents of the files that a glTF or GLB refers to, by name; raises `FormatError`."""
    return Document(file).files


class _Reader:
    def __init__(self, document: Document, file: InputFile) -> None:
        self._document = document
        self._budget = file.budget
        self._scene = Scene(file.budget)
        self._nodes = document.items("nodes")
        self._notes: list[str] = []
        self._left_out: Counter[tuple[str, str]] = Counter()
        self._shapes: dict[tuple[int, bytes], list[tuple[Json, Points, Index]]] = {}
        self._parents: dict[int, int] = {}
        self._locals: dict[int, Points] = {}
        self._worlds: dict[int, Points] = {}
        self._skins: dict[int, Points] = {}
        for number, node in enumerate(self._nodes):
            for child in sequence(node.get("children", []), "children"):
                self._parents.setdefault(document.index("nodes", child), number)

    def raw_mesh(self) -> RawMesh:
        """All visible meshes of the scene."""
        self._check_extensions()
        shown = set()
        for number, matrix in self._placed_nodes():
            node = self._nodes[number]
            if "mesh" in node:
                shown.add(self._document.index("meshes", node["mesh"]))
                self._place(node, matrix)
        self._left_out[_UNSHOWN] = len(self._document.items("meshes")) - len(shown)
        self._left_out["animation", "animations"] = len(self._document.items("animations"))
        return self._scene.raw_mesh(self._notes + left_out(self._left_out))

    def _check_extensions(self) -> None:
        tree = self._document.tree
        required = sequence(tree.get("extensionsRequired", []), "extensionsRequired")
        for name in required:
            if not _is_known(name):
                remedy = "export it without that extension"
                raise FormatError(
                    f"requires the glTF extension {printable(str(name), LONGEST)}, which is not supported",
                    NOT_COMPRESSED if str(name).endswith("_compression") else remedy,
                )
        used = sequence(tree.get("extensionsUsed", []), "extensionsUsed")
        unknown = [printable(str(name), LONGEST) for name in used if not _is_known(name)]
        if unknown:
            more = f" and {len(unknown) - 3} more" if len(unknown) > 3 else ""
            self._notes.append(f"extensions ignored: {', '.join(unknown[:3])}{more}")

    # --- nodes -------------------------------------------------------------------------------------

    def _roots(self) -> list[int]:
        """Nodes listed by the default scene, except those that are children of its other nodes."""
        scenes = self._document.items("scenes")
        if not scenes:
            return [number for number in range(len(self._nodes)) if number not in self._parents]
        self._left_out["other scene", "other scenes"] = len(scenes) - 1
        scene = self._document.item("scenes", self._document.tree.get("scene", 0))
        listed = sequence(scene.get("nodes", []), "nodes")
        roots = list(dict.fromkeys(self._document.index("nodes", node) for node in listed))
        below: set[int] = set()
        waiting = list(roots)
        while waiting:
            children = set(self._nodes[waiting.pop()].get("children", [])) - below
            below |= children
            waiting += children
        return [root for root in roots if root not in below] or roots[:1]

    def _placed_nodes(self) -> Iterator[tuple[int, Points]]:
        """All nodes of the scene with their matrices to the scene; a node with two parents occurs twice."""
        waiting = [(root, np.eye(4), 0) for root in self._roots()]
        while waiting:
            number, outer, depth = waiting.pop()
            self._budget.draw(NODE_BYTES)
            if depth > len(self._nodes):
                raise FormatError(f"is not valid glTF: node {number} is its own descendant")
            node = self._nodes[number]
            if (extension(node, _VISIBILITY) or {}).get("visible") is False:
                self._left_out["hidden node", "hidden nodes"] += 1
                continue
            matrix = outer @ self._local_matrix(number)
            yield number, matrix
            children = dict.fromkeys(node.get("children", []))
            waiting += [(child, matrix, depth + 1) for child in children]

    def _local_matrix(self, number: int) -> Matrix4:
        """Matrix (4, 4) of a node to its parent."""
        if number not in self._locals:
            self._locals[number] = _local_matrix(self._nodes[number])
        return self._locals[number]

    def _world_matrix(self, number: int) -> Matrix4:
        """Matrix (4, 4) of a joint to the scene."""
        chain = [number]
        while chain[-1] not in self._worlds and chain[-1] in self._parents:
            chain.append(self._parents[chain[-1]])
            if len(chain) > len(self._nodes):
                raise FormatError(f"is not valid glTF: node {number} is its own descendant")
        matrix = self._worlds.get(chain[-1])
        for node in reversed(chain if matrix is None else chain[:-1]):
            self._budget.draw(NODE_BYTES)
            local = self._local_matrix(node)
            matrix = self._worlds[node] = local if matrix is None else matrix @ local
        return self._worlds[number]

    # --- meshes ------------------------------------------------------------------------------------

    def _place(self, node: Json, matrix: Matrix4) -> None:
        """Add the mesh of a node; matrix: from node to scene, ignored by skinned meshes."""
        instances = extension(node, INSTANCING)
        shapes = self._shapes_of(node)
        if "skin" in node:
            if instances is not None:
                raise FormatError("has instances of a skinned mesh, which is not supported")
            joints = self._joint_matrices(node["skin"])
            for primitive, vertices, faces in shapes:
                self._budget.draw(NODE_BYTES)
                self._scene.place(*self._skinned(primitive, vertices, faces, joints))
            return
        for placement in [matrix] if instances is None else matrix @ self._instances(instances):
            for _, vertices, faces in shapes:
                if self._scene.is_new(
                    faces, placement
                ):  # faces identify a shape: others may share its vertices
                    self._scene.place(vertices, faces, placement)

    def _shapes_of(self, node: Json) -> list[tuple[Json, Points, Index]]:
        """Primitives of a node's mesh, with vertices and faces."""
        number = self._document.index("meshes", node["mesh"])
        mesh = self._document.items("meshes")[number]
        given = sequence(node.get("weights", mesh.get("weights", [])), "weights")
        self._budget.draw(8 * len(given))
        weights = numbers({"weights": given}, "weights", len(given), [])
        key = number, weights.tobytes()
        if key not in self._shapes:
            self._shapes[key] = shapes = []
            for primitive in sequence(mesh.get("primitives"), "primitives"):
                shape = self._primitive(mapping(primitive, "primitives"), weights)
                if shape is not None and len(shape[1]):
                    shapes.append((primitive, *shape))
        return self._shapes[key]

    def _primitive(self, primitive: Json, weights: Values) -> tuple[Points, Faces] | None:
        """Vertices and faces of a primitive, with morph targets applied; None if it has no triangles."""
        attributes = mapping(primitive.get("attributes"), "attributes")
        mode = primitive.get("mode", _TRIANGLES)
        if mode not in (_TRIANGLES, _STRIP, _FAN) or "POSITION" not in attributes:
            self._left_out[_NO_TRIANGLES] += 1
            return None
        if is_compressed(primitive) and not self._document.holds_data(attributes["POSITION"]):
            raise FormatError("has compressed geometry, which is not supported", NOT_COMPRESSED)
        vertices = self._document.vectors(attributes["POSITION"], "VEC3")
        targets = sequence(primitive.get("targets", []), "targets")
        for target, weight in zip(targets, weights, strict=False):
            if weight and "POSITION" in mapping(target, "targets"):
                self._budget.draw(vertices.nbytes)
                moved = self._document.vectors(target["POSITION"], "VEC3")
                if len(moved) != len(vertices):
                    raise FormatError("has a morph target with a different number of vertices")
                vertices = vertices + weight * moved
        if "indices" in primitive:
            indices = self._document.integers(primitive["indices"])[:, 0]
        else:
            self._budget.draw(8 * len(vertices))
            indices = np.arange(len(vertices))
        if mode != _TRIANGLES:
            self._budget.draw(24 * len(indices))
        return vertices, _triangles(indices, mode)

    # --- skins and instances -----------------------------------------------------------------------

    def _joint_matrices(self, index: object) -> Matrix4:
        """Matrices (n, 4, 4) from the bind pose to the scene, for each joint of a skin."""
        number = self._document.index("skins", index)
        if number not in self._skins:
            self._skins[number] = self._skin(self._document.items("skins")[number])
        return self._skins[number]

    def _skin(self, skin: Json) -> Points:
        joints = sequence(skin.get("joints"), "joints")
        self._budget.draw(NODE_BYTES * len(joints))
        matrices = [self._world_matrix(self._document.index("nodes", joint)) for joint in joints]
        world = np.reshape(matrices, (-1, 4, 4))
        if "inverseBindMatrices" not in skin:
            return world
        inverse = self._document.vectors(skin["inverseBindMatrices"], "MAT4")
        if len(inverse) < len(world):
            raise FormatError("has a skin with fewer inverse bind matrices than joints")
        return world @ inverse[: len(world)].reshape(-1, 4, 4).transpose(0, 2, 1)

    def _skinned(
        self, primitive: Json, vertices: Points, faces: Faces, joints: Points
    ) -> tuple[Points, Faces]:
        """Vertices and faces in the scene; faces are flipped if the joints mirror most vertices."""
        attributes = primitive["attributes"]
        blended = np.zeros((len(vertices), 4, 4))
        total = np.zeros(len(vertices))
        for number in range(len(attributes)):
            if f"JOINTS_{number}" not in attributes:
                break
            self._budget.draw(2 * blended.nbytes)
            chosen = self._document.integers(attributes[f"JOINTS_{number}"], "VEC4")
            weights = self._document.vectors(attributes.get(f"WEIGHTS_{number}"), "VEC4")
            if not len(chosen) == len(weights) == len(vertices):
                raise FormatError("has a skin with a different number of vertices")
            chosen = np.where(weights > 0, chosen, 0)  # joints with zero weight are not checked
            if chosen.size and (len(joints) == 0 or chosen.max() >= len(joints)):
                raise FormatError(f"joint index out of range ({len(joints)} joints)")
            for corner in range(4):
                blended += weights[:, corner, None, None] * joints[chosen[:, corner]]
            total += weights.sum(axis=1)
        if not (total > 0).all():
            raise FormatError("has a vertex without a joint in a skinned mesh")
        blended /= total[:, None, None]
        moved = np.einsum("nij,nj->ni", blended[:, :3, :3], vertices) + blended[:, :3, 3]
        mirrored = np.linalg.det(blended[:, :3, :3]) < 0
        return moved, faces[:, ::-1] if 2 * mirrored.sum() > len(mirrored) else faces

    def _instances(self, instances: Json) -> Matrix4:
        """Matrices (n, 4, 4) of a node's instances."""
        attributes = mapping(instances.get("attributes"), "attributes")
        kinds = {
            "TRANSLATION": ("VEC3", [0, 0, 0]),
            "ROTATION": ("VEC4", [0, 0, 0, 1]),
            "SCALE": ("VEC3", [1, 1, 1]),
        }
        given = {
            name: self._document.vectors(attributes[name], type_)
            for name, (type_, _) in kinds.items()
            if name in attributes
        }
        counts = {len(values) for values in given.values()}
        if len(counts) != 1:
            raise FormatError("has instances without transforms, or with different numbers of attributes")
        (count,) = counts
        self._budget.draw(NODE_BYTES * count)
        values = [given.get(name, np.tile(default, (count, 1))) for name, (_, default) in kinds.items()]
        return _composed(*values)


def _is_known(name: object) -> bool:
    return isinstance(name, str) and (name in _KNOWN or name.startswith(_KNOWN_PREFIXES))


def _triangles(indices: npt.NDArray[np.int64], mode: int) -> Index:
    """Faces (m, 3) of triangles, a strip or a fan; incomplete triangles are dropped."""
    if mode == _TRIANGLES:
        return indices[: len(indices) // 3 * 3].reshape(-1, 3)
    count = max(len(indices) - 2, 0)
    turn = np.arange(count)
    if mode == _FAN:
        return np.stack(
            [indices[1 : count + 1], indices[2 : count + 2], np.repeat(indices[:1], count)], axis=1
        )
    faces = np.stack([indices[turn], indices[turn + 1 + turn % 2], indices[turn + 2 - turn % 2]], axis=1)
    a, b, c = faces.T
    distinct: Index = faces[(a != b) & (b != c) & (c != a)]  # degenerate ones only join strips
    return distinct


def _local_matrix(node: Json) -> Matrix4:
    """Matrix (4, 4) of a node to its parent."""
    if "matrix" in node:
        return numbers(node, "matrix", 16, []).reshape(4, 4).T
    if not node.keys() & {"translation", "rotation", "scale"}:
        return np.eye(4)
    translation = numbers(node, "translation", 3, [0, 0, 0])
    rotation = numbers(node, "rotation", 4, [0, 0, 0, 1])
    scale = numbers(node, "scale", 3, [1, 1, 1])
    matrix: Matrix4 = _composed(translation[None], rotation[None], scale[None])[0]
    return matrix


def _composed(translations: Vectors, rotations: Points, scales: Points) -> Matrix4:
    """Matrices (n, 4, 4) that scale, then rotate by quaternions x, y, z, w (n, 4), then translate."""
    lengths = np.linalg.norm(rotations, axis=1, keepdims=True)
    if not (lengths > 0).all():
        raise FormatError("has a rotation quaternion of zero length")
    x, y, z, w = (rotations / lengths).T
    matrices = np.zeros((len(rotations), 4, 4))
    matrices[:, :3, :3] = np.stack(
        [
            np.stack([1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)], axis=1),
            np.stack([2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)], axis=1),
            np.stack([2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)], axis=1),
        ],
        axis=1,
    )
    matrices[:, :3, :3] *= scales[:, None]
    matrices[:, :3, 3] = translations
    matrices[:, 3, 3] = 1
    return matrices
