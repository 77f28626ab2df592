"""
mesh_findings.py
----------------
Properties and defects of a mesh, which are counted and reported, but not repaired. Self-intersections are not
detected.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from ..array_types import Faces, Index, Points
from .mesh_cleaning import first_of_equal


@dataclass(frozen=True)
class Findings:
    """Properties and defects of a mesh; edges are undirected.

    closed: the faces use every edge equally often in both directions, so the surface has no boundary and its
        winding number is an integer everywhere (it may still intersect itself).
    bodies: number of parts that share no vertex.
    boundary_edges: edges of one face. nonmanifold_edges: edges of three or more faces.
    misoriented_edges: edges whose two faces are oriented inconsistently.
    duplicate_faces: faces on the same three vertices as an earlier one; kept.
    surplus_copies: copies of a face beyond the first 16; removed.
    degenerate_faces: faces without area; removed.
    unused_vertices: vertices that no face uses; removed.
    merged_vertices: vertices merged with an earlier coincident one.
    notes: remarks on the file and its reading, as user-facing phrases.
    """

    closed: bool
    bodies: int
    boundary_edges: int = 0
    nonmanifold_edges: int = 0
    misoriented_edges: int = 0
    duplicate_faces: int = 0
    surplus_copies: int = 0
    degenerate_faces: int = 0
    unused_vertices: int = 0
    merged_vertices: int = 0
    notes: tuple[str, ...] = ()

    def line(self) -> str:
        """Summary in one line, such as `open: 223 boundary edges`; "" for a mesh without defects."""
        phrases = list(self.notes)
        if self.boundary_edges:
            phrases.append(f"open: {self.boundary_edges} boundary edge{'s'[: self.boundary_edges > 1]}")
        elif not self.closed:
            phrases.append("not closed because of inconsistent orientation")
        for count, one, many in (
            (self.nonmanifold_edges, "non-manifold edge", "non-manifold edges"),
            (self.misoriented_edges, "edge of inconsistent orientation", "edges of inconsistent orientation"),
            (self.duplicate_faces, "duplicate face", "duplicate faces"),
            (self.surplus_copies, "surplus copy of a face left out", "surplus copies of faces left out"),
            (self.degenerate_faces, "degenerate face left out", "degenerate faces left out"),
            (self.unused_vertices, "unused vertex left out", "unused vertices left out"),
        ):
            if count:
                phrases.append(f"{count} {one if count == 1 else many}")
        return "; ".join(phrases)


def count_findings(unit: Points, faces: Faces, flat: Index, **counts: Any) -> Findings:
    """Findings of the kept faces; flat: degenerate faces with three distinct corners."""
    edges = _edge_findings(faces, len(unit))
    if len(flat) and not edges["closed"]:
        # A flat face that fills the slit of a T-junction closes the mesh; one on top of a face opens it.
        # Neither changes the winding number, so the better of the two results is the right one.
        with_flat = _edge_findings(np.vstack([faces, flat]), len(unit))
        edges = min(edges, with_flat, key=lambda found: (not found["closed"], found["boundary_edges"]))
    a, b, c = np.sort(faces, axis=1).T
    distinct_faces, _ = first_of_equal(a * len(unit) + b, c)
    return Findings(
        bodies=_bodies(faces, len(unit)),
        duplicate_faces=len(faces) - len(distinct_faces),
        **edges,
        **counts,
    )


def _edge_findings(faces: Faces, vertex_count: int) -> dict[str, Any]:
    tail = faces.ravel()
    head = np.roll(faces, -1, axis=1).ravel()
    keys = np.minimum(tail, head) * vertex_count + np.maximum(tail, head)
    order = np.argsort(keys, kind="stable")
    starts = np.flatnonzero(np.diff(keys[order], prepend=-1))
    uses = np.diff(starts, append=len(keys))
    balance = np.add.reduceat(np.where(tail < head, 1, -1)[order], starts)
    return {
        "closed": not balance.any(),
        "boundary_edges": int((uses == 1).sum()),
        "nonmanifold_edges": int((uses > 2).sum()),
        "misoriented_edges": int(((uses == 2) & (balance != 0)).sum()),
    }


def _bodies(faces: Faces, vertex_count: int) -> int:
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    rows, columns = faces[:, [0, 1]].ravel(), faces[:, [1, 2]].ravel()
    links = coo_array((np.ones(len(rows), np.int8), (rows, columns)), shape=(vertex_count, vertex_count))
    _, labels = connected_components(links, directed=False)
    return len(np.unique(labels[faces[:, 0]]))
