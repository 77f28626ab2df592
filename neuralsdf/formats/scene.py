"""
scene.py
--------
Scenes: every triangle mesh at each place where the scene has it, read by trimesh.
"""

from __future__ import annotations

from io import BytesIO
from typing import Any

import numpy as np

from ..mesh import IntArray
from ..similarity import Points
from .raw_mesh import TRUNCATED, FormatError, RawMesh

MAX_FACES = 50_000_000
MAX_INSTANCES = 100_000


def read_scene(data: bytes, file_type: str, files: dict[str, bytes]) -> RawMesh:
    """Every triangle mesh of a scene, at each place where the scene has it, by trimesh."""
    import trimesh

    try:
        scene = trimesh.load_scene(
            BytesIO(data), file_type=file_type, resolver=files, process=False, skip_materials=True
        )
        placed = [scene.graph[node] for node in scene.graph.nodes_geometry]
        parts = [
            (np.asarray(matrix, np.float64), scene.geometry[name])
            for matrix, name in placed
            if isinstance(scene.geometry.get(name), trimesh.Trimesh)
        ]
        if sum(len(part.faces) for _, part in parts) > MAX_FACES:
            raise FormatError(f"repeats its parts to more than {MAX_FACES} triangles", "export it with fewer")
        return _joined([_placed(part.vertices, part.faces, matrix) for matrix, part in parts])
    except FormatError:
        raise
    except Exception as error:  # a reader's failure on a stranger's bytes can be anything
        if "not expected length" in str(error):
            raise FormatError("is truncated: its last chunk is too short", TRUNCATED) from error
        raise FormatError(f"could not be read ({said(error)})") from error


def _placed(vertices: Any, faces: Any, matrix: Points) -> tuple[Points, IntArray]:
    points = np.asarray(vertices, np.float64) @ matrix[:3, :3].T + matrix[:3, 3]
    triangles = np.asarray(faces, np.int64)
    if np.linalg.det(matrix[:3, :3]) < 0:  # a mirror turns the faces around
        triangles = triangles[:, ::-1]
    return points, triangles


def _joined(parts: list[tuple[Points, IntArray]]) -> RawMesh:
    offsets = np.cumsum([0, *(len(points) for points, _ in parts)])
    if not parts:
        raise FormatError("has no faces: its scene holds no mesh", "export the mesh itself")
    return RawMesh(
        np.concatenate([points for points, _ in parts]),
        np.concatenate([faces + offset for (_, faces), offset in zip(parts, offsets[:-1], strict=True)]),
    )


def said(error: Exception) -> str:
    """What a library's error says, in one short line."""
    return f"{type(error).__name__}: {error}".split("\n")[0][:100]
