"""Small messy meshes with known interiors, one for each kind of fault in real files."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from .shapes import Arrays, box, inverted, joined, moved, sphere

Inside = Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True)
class MessyMesh:
    """A mesh with faults, and the solid that it describes.

    parts: joined, they are the mesh. inside: of the solid, (n, 3) -> (n,). found: words of the mesh's
    findings, "" for none. said: words of a warning of the conversion. margin: distance from the surface
    within which the interior is not checked, in radii of the mesh.
    """

    parts: tuple[Arrays, ...]
    inside: Inside
    found: str = ""
    said: str = ""
    margin: float = 0.0

    @property
    def mesh(self) -> Arrays:
        """Vertices (V, 3) and faces (F, 3)."""
        return joined(*self.parts)

    def points(self, count: int = 2000) -> np.ndarray:
        """Uniform points (n, 3): `count` in the padded bounding box of each part, so that none is missed."""
        rng, points = np.random.default_rng(0), []
        for vertices, _ in self.parts:
            low, high = vertices.min(axis=0), vertices.max(axis=0)
            padding = 0.1 * (high - low).max()
            points.append(rng.uniform(low - padding, high + padding, (count, 3)))
        return np.concatenate(points)


def write_off(path: Path, mesh: Arrays) -> Path:
    """Write a mesh as it is, faults included, as a text OFF with all digits."""
    vertices, faces = mesh
    lines = [f"OFF\n{len(vertices)} {len(faces)} 0"]
    lines += [" ".join(map(repr, row)) for row in vertices.tolist()]
    lines += [" ".join(map(str, [3, *row])) for row in faces.tolist()]
    path.write_text("\n".join(lines) + "\n")
    return path


def in_box(half: tuple[float, float, float], centre: tuple[float, float, float] = (0, 0, 0)) -> Inside:
    return lambda p: (np.abs(p - np.array(centre)) < half).all(axis=1)


def in_ball(radius: float) -> Inside:
    return lambda p: np.linalg.norm(p, axis=1) < radius


def in_any(*insides: Inside) -> Inside:
    return lambda p: np.any([inside(p) for inside in insides], axis=0)


def in_pentagram(half: float) -> Inside:
    """The prism of `pentagram`: its tips are beyond one of five planes, its core beyond none."""
    angle = 2 * np.pi * np.arange(5) / 5
    normals = np.stack([np.cos(angle), np.sin(angle)])
    beyond = np.cos(2 * np.pi / 5)  # distance of the planes from the axis
    return lambda p: ((p[:, :2] @ normals > beyond).sum(axis=1) <= 1) & (np.abs(p[:, 2]) < half)


HALF = (0.6, 0.4, 0.3)
CUBE = (0.3, 0.3, 0.3)
BALL = sphere(1.0, 3)
#: Of BALL: it lies between two balls.
FACETED = 0.01


def without_faces(mesh: Arrays, fraction: float) -> Arrays:
    """The mesh without a random fraction of its faces."""
    vertices, faces = mesh
    return vertices, faces[np.random.default_rng(0).random(len(faces)) >= fraction]


def with_repeated_faces(mesh: Arrays, step: int) -> Arrays:
    """The mesh with each `step`-th face twice."""
    return mesh[0], np.vstack([mesh[1], mesh[1][::step]])


def with_degenerate_faces(mesh: Arrays, count: int) -> Arrays:
    """The mesh with `count` more faces, each of them an edge or a point."""
    vertices, faces = mesh
    flat = [[a, a, b] if i % 2 else [a, a, a] for i, (a, b, _) in enumerate(faces[:count].tolist())]
    return vertices, np.vstack([faces, flat])


def merged(*meshes: Arrays) -> Arrays:
    """The meshes in one, with equal vertices shared."""
    vertices, faces = joined(*meshes)
    unique, index = np.unique(vertices, axis=0, return_inverse=True)
    return unique, index.reshape(-1)[faces]


def moebius_strip(count: int = 60, half: float = 0.25) -> Arrays:
    """A strip around a circle of radius 1 with half a twist: open, and not orientable."""
    along = np.linspace(0, 2 * np.pi, count, endpoint=False)[:, None]
    across = np.array([-half, half])
    r = 1 + across * np.cos(along / 2)
    vertices = np.stack([r * np.cos(along), r * np.sin(along), across * np.sin(along / 2)], axis=-1)
    a = 2 * np.arange(count)
    b, c, d = a + 1, np.roll(a, -1), np.roll(a, -1) + 1
    c[-1], d[-1] = 1, 0  # the end is joined to the start upside down
    return vertices.reshape(-1, 3), np.vstack([np.stack([a, c, b], 1), np.stack([b, c, d], 1)])


def pentagram(half: float) -> Arrays:
    """A prism over a five-pointed star drawn in one stroke: one closed body, which covers its core twice."""
    angle = 4 * np.pi * np.arange(5) / 5
    star = np.stack([np.cos(angle), np.sin(angle)], axis=1)
    flat = np.vstack([star, [[0, 0]]])
    vertices = np.vstack([np.insert(flat, 2, z, axis=1) for z in (-half, half)])
    a, b = np.arange(5), np.roll(np.arange(5), -1)
    top = np.stack([a + 6, b + 6, np.full(5, 11)], axis=1)
    bottom = np.stack([b, a, np.full(5, 5)], axis=1)
    sides = np.vstack([np.stack([a, b, b + 6], axis=1), np.stack([a, b + 6, a + 6], axis=1)])
    return vertices, np.vstack([top, bottom, sides])


def fan(blades: int = 4) -> Arrays:
    """Triangles about a common edge: open, and not manifold."""
    angle = np.arange(blades) * 2 * np.pi / blades
    tips = np.stack([np.cos(angle), np.sin(angle), np.full(blades, 0.5)], axis=1)
    vertices = np.vstack([[0, 0, 0], [0, 0, 1], tips])
    return vertices, np.array([[0, 1, 2 + i] for i in range(blades)])


MESSY_MESHES = {
    "open": MessyMesh(
        (without_faces(BALL, 0.1),), in_ball(1), "boundary edges", "where its winding number is 1/2", 0.1
    ),
    "overlapping": MessyMesh(
        (box(*HALF), moved(box(*CUBE), [0.6, 0, 0])),
        in_any(in_box(HALF), in_box(CUBE, (0.6, 0, 0))),
        said="overlap",
    ),
    "self-intersecting": MessyMesh((pentagram(0.3),), in_pentagram(0.3)),
    "non-manifold edge": MessyMesh(
        (merged(box(*CUBE), moved(box(*CUBE), [0.6, 0.6, 0])),),
        in_any(in_box(CUBE), in_box(CUBE, (0.6, 0.6, 0))),
        "1 non-manifold edge",
    ),
    "non-manifold vertex": MessyMesh(
        (merged(box(*CUBE), moved(box(*CUBE), [0.6, 0.6, 0.6])),),
        in_any(in_box(CUBE), in_box(CUBE, (0.6, 0.6, 0.6))),
    ),
    "duplicate faces": MessyMesh(
        (with_repeated_faces(BALL, 3),), in_ball(1), "427 duplicate faces", "427 duplicate faces", FACETED
    ),
    "degenerate faces": MessyMesh(
        (with_degenerate_faces(BALL, 40),), in_ball(1), "40 degenerate faces left out", margin=FACETED
    ),
    "inverted": MessyMesh(
        (inverted(box(*HALF)),), in_box(HALF), said="inverted orientation: faces flipped"
    ),
    "one body inverted": MessyMesh(
        (box(*CUBE), inverted(moved(box(*CUBE), [1, 0, 0]))),
        in_any(in_box(CUBE), in_box(CUBE, (1, 0, 0))),
        said="1 of 2 closed bodies flipped",
    ),
    "mixed scale": MessyMesh(
        (box(*HALF), moved(box(0.001, 0.001, 0.001), [1, 0, 0])),
        in_any(in_box(HALF), in_box((0.001, 0.001, 0.001), (1, 0, 0))),
    ),
    "tiny": MessyMesh((box(*1e-9 * np.array(HALF)),), lambda p: in_box(HALF)(1e9 * p)),
    "far away": MessyMesh(
        (moved(box(*HALF), [1e6, -1e6, 1e6]),), in_box(HALF, (1e6, -1e6, 1e6)), margin=1e-9
    ),
}  # fmt: skip
